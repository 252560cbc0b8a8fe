"""The Parquet file has every row with its type, in row groups of bounded size."""

import io
import sys
from datetime import UTC, datetime
from uuid import UUID

import pytest
from pyarrow import parquet

from model.errors import MissingExtraError
from service.history.parquet import GROUP, ParquetFile

COLUMNS = ("id", "time", "score", "width", "bytes", "part_id")


def line(number: int) -> dict[str, object]:
    return {
        "id": UUID(int=number),
        "time": datetime(2026, 5, 1, 12, 0, number % 60, 250_000, tzinfo=UTC),
        "score": None if number % 3 == 0 else number / 7,
        "width": number % 3 or None,
        "bytes": 1 << 40,
        "part_id": "=SUM(1)\nü",
        "details": "left out",
    }


def test_rows_come_back_as_they_were():
    file = ParquetFile(COLUMNS)
    lines = [line(number) for number in range(GROUP + 10)]
    pieces = [file.add(lines[:GROUP]), file.add(lines[GROUP:]), file.end()]
    assert all(pieces)  # each is taken while the next one is not there yet
    read = parquet.ParquetFile(io.BytesIO(b"".join(pieces)))
    assert [read.metadata.row_group(n).num_rows for n in range(read.num_row_groups)] == [GROUP, 10]
    types = [str(field.type) for field in read.schema_arrow]
    assert types == ["string", "timestamp[ms, tz=UTC]", "double", "int32", "int64", "string"]
    found = read.read().to_pylist()
    expected = [{name: one[name] for name in COLUMNS} | {"id": str(one["id"])} for one in lines]
    assert found == expected


def test_no_rows_are_a_file_too():
    read = parquet.read_table(io.BytesIO(ParquetFile(COLUMNS).end()))
    assert (read.num_rows, read.column_names) == (0, list(COLUMNS))


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'eca-inspect\[parquet\]'"):
        ParquetFile(COLUMNS)
