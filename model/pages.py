"""Pages in HTML that need nothing but themselves and can be printed."""

from collections.abc import Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { line-height: 1.2; }
h2 { margin-top: 2.5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .35rem .8rem; border-bottom: 1px solid #8886; text-align: start; vertical-align: top; }
td:not(.number):last-child { min-width: 14rem; }
td.number, th.number { text-align: end; font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; background: #fff; border-radius: .3rem; }
figcaption, .note { font-size: .95rem; max-width: 48rem; }
td { overflow-wrap: anywhere; }
@media print { body { font-size: 11pt; max-width: none; } .wide { overflow: visible; } tr { break-inside: avoid; } }
"""


def page(title: str, *parts: str) -> str:
    """A whole page.

    Args:
        title: plain text.
        parts: HTML, one below the other.
    """
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{escape(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def section(title: str, content: str) -> str:
    """HTML below a heading, which is plain text."""
    return f"<h2>{escape(title)}</h2>\n{content}"


def note(text: str) -> str:
    """A paragraph of plain text."""
    return f'<p class="note">{escape(text)}</p>\n'


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], numbers: Sequence[int] = ()) -> str:
    """A table; the first cell of each row is its head.

    Args:
        heads: of the columns; none for a table without a head.
        rows: texts and numbers.
        numbers: the columns that stand to the right.
    """
    places = [' class="number"' if column in numbers else "" for column in range(max(map(len, rows)))]
    head = "".join(f'<th scope="col"{place}>{escape(name)}</th>' for name, place in zip(heads, places, strict=False))
    body = ""
    for first, *others in rows:
        cells = "".join(
            f"<td{place}>{escape(str(value))}</td>" for value, place in zip(others, places[1:], strict=True)
        )
        body += f'<tr><th scope="row"{places[0]}>{escape(str(first))}</th>{cells}</tr>\n'
    top = f"<thead><tr>{head}</tr></thead>\n" if heads else ""
    return f'<div class="wide" tabindex="0"><table>\n{top}<tbody>\n{body}</tbody>\n</table></div>\n'
