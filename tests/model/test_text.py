"""Text with file names that are not UTF-8 can be written anywhere, and says which bytes they hold."""

import io
import json
import os
from pathlib import Path

import pytest

from model.text import encodable, json_text, make_readable, readable

NAME = os.fsdecode(b"\xff\xfe \xc3\xa4.png")


@pytest.mark.parametrize("text", ["", "000.png", "Prüfling 1.png", "检查.png", "💀.png", r"C:\xff.png"])
def test_what_can_be_written_stays_as_it_is(text: str):
    assert readable(text) == text
    assert json.loads(json_text({text: [text]})) == {text: [text]}


def test_bytes_that_are_not_utf_8_are_shown():
    assert readable(NAME) == r"\xff\xfe ä.png"
    assert json.loads(json_text({NAME: [NAME, (1, None)]})) == {r"\xff\xfe ä.png": [r"\xff\xfe ä.png", [1, None]]}
    assert readable("\ud800") == r"\ud800"
    assert encodable(f"{NAME}\n") == "\\xff\\xfe ä.png\n"
    assert readable(Path("a\n\x1b[31mb\x7f.png")) == r"a\n\x1b[31mb\x7f.png"
    assert json_text({"name": NAME}).isascii()


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("utf-8", r"\xff\xfe ä.png".encode()),
        ("ascii", r"\xff\xfe ä.png".encode()),
        ("latin-1", r"\xff\xfe ä.png".encode("latin-1")),
        ("cp437", r"\xff\xfe ä.png".encode("cp437")),
        ("cp932", rb"\xff\xfe \xe4.png"),
    ],
)
def test_a_stream_writes_every_name(encoding: str, written: bytes):
    file = io.BytesIO()
    stream = io.TextIOWrapper(file, encoding=encoding, errors="strict")
    make_readable(stream, None, io.StringIO())
    stream.write(NAME)
    stream.flush()
    assert file.getvalue() == written
