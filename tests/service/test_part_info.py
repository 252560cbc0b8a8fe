"""What a client may say of a part, and what it may not."""

import json
import logging

import pytest

from service.observe.logs import RECORD, Record, TextFormatter
from service.part_info import PartInfo, PartInfoError
from service.schemas import Inspection


def said(**given: str) -> PartInfo:
    return PartInfo().joined(given)


def test_what_is_said_is_kept_as_it_is():
    metadata = '{"shift": "b", "belt": 3, "speed": 0.25, "rework": false, "note": "", "größe": "Ø 12 mm"}'
    info = said(part_id="SN 0815/a", lot="Los-7", station="Prüfplatz 3", metadata=metadata)
    assert (info.part_id, info.lot, info.station) == ("SN 0815/a", "Los-7", "Prüfplatz 3")
    assert json.loads(info.model_dump_json())["metadata"] == json.loads(metadata)
    assert info.metadata is not None
    assert [type(value) for value in info.metadata.values()] == [str, int, float, bool, str, str]


def test_the_longest_that_is_allowed():
    assert said(lot="x" * 128).lot == "x" * 128
    names = {f"{index:064}": "v" * 20 for index in range(32)}
    assert said(metadata=json.dumps(names)).metadata == names
    assert said(metadata=json.dumps({"n": 2**53 - 1, "v": "v" * 256})).metadata == {"n": 2**53 - 1, "v": "v" * 256}
    assert said(metadata="{}").metadata == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("x" * 129, "129 characters; at most 128"),
        (" SN1", "begins or ends with a space"),
        ("SN1 ", "begins or ends with a space"),
        ("SN1\n", "U+000A"),
        ("a\r\nlevel=error", "U+000D"),
        ("a\x00", "U+0000"),
        ("a\x1b[31m", "U+001B"),
        ("a\u202eb", "U+202E"),  # turns the rest of the line around
        ("a\u2028b", "U+2028"),
        ("a\u200bb", "U+200B"),
        ("a\ud800b", "U+D800"),
        ("a\ufffdb", "not UTF-8"),
    ],
)
@pytest.mark.parametrize("name", ["part_id", "lot", "station"])
def test_text_that_is_refused(name: str, text: str, reason: str):
    with pytest.raises(PartInfoError, match=name) as refused:
        said(**{name: text})
    assert reason in str(refused.value)
    assert text == "" or text not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("shift=b", "not JSON"),
        ("{'shift': 'b'}", "not JSON"),
        ("[1, 2]", "not a JSON object"),
        ('"b"', "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"a": 1, "a": 2}', "stands there twice"),
        ('{"a": null}', "a text, a number, true or false"),
        ('{"a": [1]}', "a text, a number, true or false"),
        ('{"a": {"b": 1}}', "a text, a number, true or false"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": -Infinity}', "no number"),
        ('{"a": 1e999}', "too large a number"),
        ('{"a": 9007199254740992}', "largest integer"),
        ('{"a": -' + "9" * 4000 + "}", "largest integer"),
        ('{"": 1}', "empty"),
        ('{" a": 1}', "begins or ends with a space"),
        ('{"a\\nb": 1}', "U+000A"),
        ('{"a": "b\\u001b[31m"}', "U+001B"),
        ('{"a": "\\ud800"}', "U+D800"),
        (json.dumps({"n" * 65: 1}), "65 characters; at most 64"),
        (json.dumps({"a": "v" * 257}), "257 characters; at most 256"),
        (json.dumps({str(index): 1 for index in range(33)}), "33 names; at most 32"),
        (json.dumps({"a": 1}) + " " * 4090, "4098 characters; at most 4096"),
        ("[" * 4000, "not JSON"),
        ('{"a":' * 800, "not JSON"),
    ],
)
def test_metadata_that_is_refused(text: str, reason: str):
    with pytest.raises(PartInfoError, match="metadata") as refused:
        said(metadata=text)
    assert reason in str(refused.value)
    assert len(str(refused.value)) < 200


def test_what_is_said_twice_is_refused():
    with pytest.raises(PartInfoError, match="'lot' is given both in the query and in the form"):
        said(lot="a").joined({"lot": "a"})
    with pytest.raises(PartInfoError, match="'metadata' is given both"):
        said(metadata="{}").joined({"metadata": "{}"})
    assert said(lot="a").joined({"station": "3"}) == PartInfo(lot="a", station="3")


def test_ids_are_in_the_order_of_their_times_and_never_the_same():
    make = Inspection.model_fields["id"].get_default
    ids = [make(call_default_factory=True) for _ in range(1000)]
    assert {one.version for one in ids} == {7}
    assert len(set(ids)) == 1000
    assert ids == sorted(ids)


def test_a_line_of_text_cannot_be_taken_for_other_fields():
    record = Record("r")
    record.part_info = said(lot='a status=500 "x', part_id="SN-1", metadata='{"a": "b status=500"}')
    token = RECORD.set(record)
    try:
        line = logging.makeLogRecord({"msg": "request", "levelname": "INFO", "fields": record.fields()})
        text = TextFormatter().format(line)
    finally:
        RECORD.reset(token)
    assert text.endswith(
        r' category=None bytes_received=0 part_id=SN-1 lot="a status=500 \"x" metadata={"a": "b status=500"}'
    )
    assert "\n" not in text
