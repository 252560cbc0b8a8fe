r"""Text that can be written anywhere.

A file name on Linux is bytes. Where these are not UTF-8, Python holds them as lone surrogates, which no file, no
terminal and no JSON reader takes. Here each such byte becomes ``\xNN``, as shells and editors show it.
"""

import codecs
import json
from typing import Any

READABLE = "eca-inspect.readable"
"""The error handler, for `str.encode` and for streams."""


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_shown, error.object[error.start : error.end])), error.end


def _shown(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("ascii", "backslashreplace").decode()


codecs.register_error(READABLE, _replace)


def readable(name: object) -> str:
    r"""A path or name in one line: bytes that are not UTF-8 as ``\xNN``, control characters as Python writes them."""
    text = encodable(str(name))
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def encodable(text: str) -> str:
    r"""A text with ``\xNN`` for each byte of a file name that is not UTF-8, and otherwise as it is."""
    return text.encode("utf-8", READABLE).decode()


def json_text(value: Any, indent: int | None = None) -> str:
    """A value as JSON that every reader takes: ASCII alone, and no lone surrogates; see `encodable`."""
    return json.dumps(_encodable(value), indent=indent)


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, dict):
        return {_encodable(key): _encodable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(one) for one in value]
    return value


def make_readable(*streams: Any) -> None:
    """Lets text streams replace what their encoding cannot write, in place of failing; others are left as they are.

    A stream in ASCII becomes one in UTF-8: that is what the library of the command line makes of it anyway.
    """
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            encoding = codecs.lookup(stream.encoding).name
            stream.reconfigure(encoding="utf-8" if encoding == "ascii" else encoding, errors=READABLE)
