"""Records that wait for the database, in a small SQLite file on the local disk.

What is in it survives the end of the process, `kill -9` too. A power cut can take what was written since the last
`Spool.sync`.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

PAGE_BYTES = 4096
BUSY_SECONDS = 30.0
"""How long to wait for another thread or process that writes to the same file."""


class Spool:
    """The file, as one thread of one process uses it; other threads and processes open their own.

    Args:
        path: of the file, which is made if it is not there.
        most_bytes: that the file may have.

    Raises:
        OSError, sqlite3.Error: if it cannot be opened.
    """

    def __init__(self, path: Path, most_bytes: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._most_pages = max(8, most_bytes // PAGE_BYTES)
        self._connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        for statement in (
            f"PRAGMA page_size = {PAGE_BYTES}",
            "PRAGMA auto_vacuum = INCREMENTAL",
        ):
            self._connection.execute(statement)
        self._use_wal()
        for statement in (
            "PRAGMA synchronous = NORMAL",
            f"PRAGMA journal_size_limit = {4 << 20}",
            f"PRAGMA max_page_count = {self._most_pages}",
            "CREATE TABLE IF NOT EXISTS waiting (n INTEGER PRIMARY KEY AUTOINCREMENT, record TEXT NOT NULL)",
            "CREATE TABLE IF NOT EXISTS refused (n INTEGER PRIMARY KEY, record TEXT NOT NULL, reason TEXT NOT NULL)",
        ):
            self._connection.execute(statement)

    def _use_wal(self) -> None:
        """SQLite does not wait by itself for another who makes the same change of a new file."""
        end = monotonic() + BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() > end:
                    raise
                sleep(0.01)
            else:
                return

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def append(self, records: Sequence[str]) -> None:
        """Adds records behind those that wait: all of them or, if it raises, none.

        Raises:
            sqlite3.Error: if they cannot be written; see `is_full`.
        """
        with self._transaction() as connection:
            connection.executemany("INSERT INTO waiting (record) VALUES (?)", ((record,) for record in records))

    def is_full(self, error: sqlite3.Error) -> bool:
        """Whether an error of `append` means that the file has its most bytes; else it is the disk."""
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        return error.sqlite_errorcode == sqlite3.SQLITE_FULL and pages >= self._most_pages - 1

    def first(self, most: int) -> list[tuple[int, str]]:
        """The records that have waited longest, each with its number."""
        return self._connection.execute("SELECT n, record FROM waiting ORDER BY n LIMIT ?", (most,)).fetchall()

    def remove(self, numbers: Sequence[int], refused: Mapping[int, str]) -> int:
        """Takes records out that are in the database, and sets aside those that it refuses, each with the reason.

        Returns:
            How many were still there: another process may have taken some of them.
        """
        with self._transaction() as connection:
            for n, reason in refused.items():
                connection.execute(
                    "INSERT OR IGNORE INTO refused SELECT n, record, ? FROM waiting WHERE n = ?", (reason, n)
                )
            return connection.executemany("DELETE FROM waiting WHERE n = ?", ((n,) for n in numbers)).rowcount

    @property
    def waiting(self) -> int:
        """Records that wait. They go in order, so that the first and the last number tell."""
        first, last = self._connection.execute("SELECT min(n), max(n) FROM waiting").fetchone()
        return 0 if first is None else int(last - first + 1)

    @property
    def file_bytes(self) -> int:
        """Size of the file."""
        return int(self._connection.execute("PRAGMA page_count").fetchone()[0]) * PAGE_BYTES

    def sync(self) -> None:
        """Waits until the disk has what was written, and gives the room of records that have gone back to it."""
        self._connection.execute("PRAGMA incremental_vacuum").fetchall()
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def close(self) -> None:
        """Closes the file; the records stay in it."""
        self._connection.close()
