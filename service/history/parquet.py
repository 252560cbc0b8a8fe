"""Inspections as a Parquet file, written piece by piece. It needs the extra `parquet`."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from model.errors import MissingExtraError

GROUP = 10_000
"""Rows of a row group, which are in memory together."""


class _Sink(io.RawIOBase):
    """Keeps what is written until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def take(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken


class ParquetFile:
    """A file of these columns: times in UTC to the millisecond, numbers as numbers, all else as text.

    Args:
        columns: their names.

    Raises:
        MissingExtraError: if pyarrow is not installed.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise MissingExtraError("Parquet needs an extra: pip install 'eca-inspect[parquet]'") from None
        of_name = {
            "time": pyarrow.timestamp("ms", tz="UTC"),
            **dict.fromkeys(("score", "threshold", "kept_share"), pyarrow.float64()),
            **dict.fromkeys(("width", "height"), pyarrow.int32()),
            "bytes": pyarrow.int64(),
        }
        self._schema = pyarrow.schema([(name, of_name.get(name, pyarrow.string())) for name in columns])
        self._table = pyarrow.Table
        self._sink = _Sink()
        self._writer = parquet.ParquetWriter(self._sink, self._schema, compression="zstd")

    def add(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """A row group. Returns the next bytes of the file.

        Args:
            rows: values by the names of the columns, at most `GROUP`; others are left out.
        """
        names = self._schema.names
        values = {name: [_value(row[name], name) for row in rows] for name in names}
        self._writer.write_table(self._table.from_pydict(values, schema=self._schema), row_group_size=GROUP)
        return self._sink.take()

    def end(self) -> bytes:
        """The last bytes of the file."""
        self._writer.close()
        return self._sink.take()


def _value(value: Any, name: str) -> Any:
    return str(value) if value is not None and name in ("id", "part_inspection") else value
