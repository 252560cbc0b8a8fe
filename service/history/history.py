"""The way of a record: from an answer to the spool, and from there to the database."""

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Event, Thread
from time import monotonic
from typing import TypeVar

from service.choices import Action
from service.history.database import QUERY_SECONDS, Database
from service.history.errors import HistoryUnavailableError
from service.history.images import Images
from service.history.records import LOSSES, Record, columns_of
from service.history.spool import Spool
from service.keeping import Policy, chosen, is_failure

T = TypeVar("T")

PATIENCE_SECONDS = 0.25
"""Longest time that an answer waits for its record to be in the spool."""
AT_ONCE = 500
"""Most records in one transaction."""
GATHER_SECONDS = 0.1
"""Between two rounds of the writer, so that records gather."""
LOOK_SECONDS = 1.0
"""Between two looks at the spool, for records that other processes left there."""
LONGEST_PAUSE_SECONDS = 30.0
"""Between two tries to reach a database that is away."""
SPOOL_SECONDS = 10.0
"""Between two tries to open the spool, where the folder cannot be written."""
HOUR_SECONDS = 3600.0
LOG_SECONDS = 60.0
"""Between two lines of the log about records that are lost."""
CLOSE_SECONDS = 3.0
"""Longest wait for the writer at the end; what it has not written stays in the spool."""
READERS = 4
"""Threads that ask the database."""
MOST_IN_MEMORY = 2000
"""Records on their way to the spool."""

log = logging.getLogger(__name__)


class History:
    """Remembers inspections, and finds them.

    Args:
        database: where they are kept.
        state: folder of the spool.
        spool_bytes: most bytes of the spool.
        policy: which images are kept.
        images: where they are kept.
        days: after which an inspection is removed, unless it is labelled.
        on_lose: called with the reason and the number of records that are lost.
        on_late: called for an answer that did not wait for its record any longer.
        on_write: called with the number of records that the database has taken.
        on_refuse: called with the number of records that the database refuses for their own sake.
    """

    def __init__(
        self,
        database: Database,
        state: Path,
        spool_bytes: int,
        policy: Policy,
        images: Images,
        days: float,
        *,
        on_lose: Callable[[str, int], None],
        on_late: Callable[[], None],
        on_write: Callable[[int], None],
        on_refuse: Callable[[int], None],
    ) -> None:
        self._database = database
        self._path = state / "spool.sqlite"
        self._spool_bytes = spool_bytes
        self._policy = policy
        self._days = days
        self.images = images
        self._on_lose = on_lose
        self._on_late = on_late
        self._on_write = on_write
        self._on_refuse = on_refuse
        self._queue: Queue[tuple[Record, Future[None]] | None] = Queue(MOST_IN_MEMORY)
        self._more = Event()
        self._closing = Event()
        self._lost_since_log: dict[str, int] = {}
        self._logged = -LOG_SECONDS
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="history-reader")
        self._appender = Thread(target=self._append, name="history-appender", daemon=True)
        self._writer = Thread(target=self._write, name="history-writer", daemon=True)
        self.database_up = False
        """Whether the writer reached the database when it last tried."""
        self.waiting = 0
        """Records in the spool, when the writer last looked."""
        self.spool_bytes = 0
        """Size of the spool, when the writer last looked."""

    def start(self) -> None:
        """Starts to write. A database that is away is not waited for."""
        self._appender.start()
        self._writer.start()
        self.images.start()

    def close(self) -> None:
        """Puts what is on its way into the spool, and what the database takes at once into the database."""
        with suppress(Full):  # a disk that does not answer must not hold up the end
            self._queue.put(None, timeout=CLOSE_SECONDS)
        self._appender.join(CLOSE_SECONDS)
        self._closing.set()
        self._more.set()
        self._writer.join(CLOSE_SECONDS)
        self.images.close(CLOSE_SECONDS)
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._database.close()

    async def remember(self, record: Record) -> None:
        """Returns when the record is in the spool, is lost, or takes too long; then it follows."""
        done: Future[None] = Future()
        record = self._with_needed_data(record)
        if record.data is None and is_failure(record.outcome):
            self._lose("memory", 1)
            return
        try:
            self._queue.put_nowait((record, done))
        except Full:
            self._release(record)
            self._lose("memory", 1)
            return
        _, late = await asyncio.wait([asyncio.wrap_future(done)], timeout=PATIENCE_SECONDS)
        if late:
            self._on_late()

    def _with_needed_data(self, record: Record) -> Record:
        """With its image only if that is to be kept, or its hash is not known yet, and there is memory for it."""
        share = self._policy.share(record.category, record.outcome)
        record = replace(record, sample_share=self._policy.of(record.category).sample)
        kept = chosen(record.id, share)
        if not kept and not is_failure(record.outcome):
            return replace(record, data=None, kept_share=share)
        if not self.images.reserve(record.size):
            if kept:
                self.images.lose_for_memory()
            return replace(record, data=None, kept_share=share)
        return replace(record, image_kept=kept, kept_share=share)

    def _release(self, record: Record) -> None:
        if record.data is not None:
            self.images.release(record.size)

    async def ask(self, question: Callable[[Database], T]) -> T:
        """What the database answers.

        Raises:
            HistoryUnavailableError: if it is away, or takes too long.
        """

        def work() -> T:
            self._database.prepare()
            return question(self._database)

        try:
            async with asyncio.timeout(2 * QUERY_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._readers, work)
        except TimeoutError:
            raise HistoryUnavailableError(f"it did not answer within {2 * QUERY_SECONDS} s") from None

    async def note(self, actor: str | None, action: Action, subject: str, before: object, after: object) -> None:
        """Adds a line to the log of changes; if the database is away, the line is only in the server's log."""
        try:
            await self.ask(lambda database: database.audit(actor, action, subject, before, after))
        except HistoryUnavailableError as error:
            log.error("the %s of %s by %s is not in the log of changes: %s", action, subject, actor, error)

    def _lose(self, reason: str, count: int) -> None:
        self._on_lose(reason, count)
        self._lost_since_log[reason] = self._lost_since_log.get(reason, 0) + count
        if monotonic() - self._logged >= LOG_SECONDS:
            self._logged = monotonic()
            for why, lost in self._lost_since_log.items():
                log.error("%d inspections are lost for the history (%s): %s", lost, why, LOSSES[why])
            self._lost_since_log = {}

    # The appender

    def _append(self) -> None:
        spool, next_try, going_on = self._open(), monotonic() + SPOOL_SECONDS, True
        while going_on:
            batch = [self._queue.get()]
            try:
                while len(batch) < AT_ONCE:
                    batch.append(self._queue.get_nowait())
            except Empty:
                pass
            going_on = None not in batch
            pairs = [pair for pair in batch if pair is not None]
            if spool is None and monotonic() >= next_try:
                spool = self._open()
                next_try = monotonic() + SPOOL_SECONDS
            texts = [text for record, _ in pairs if (text := self._text_of(record)) is not None]
            if spool is None:
                self._lose_some("disk", len(texts))
            else:
                self._put(spool, texts)
            for _, done in pairs:
                done.set_result(None)
            self._more.set()
        if spool is not None:
            spool.close()

    def _open(self) -> Spool | None:
        try:
            return Spool(self._path, self._spool_bytes)
        except (OSError, sqlite3.Error) as error:
            log.error("the spool of the history, %s, cannot be opened (%s): %s", self._path, error, LOSSES["disk"])
            return None

    def _text_of(self, record: Record) -> str | None:
        """The record as it is written; its image goes on its own way."""
        try:
            row = record.row()
            text = json.dumps(row, ensure_ascii=False)
        except Exception:
            log.exception("the record of an inspection cannot be made")
            self._release(record)
            self._lose("error", 1)
            return None
        if record.data is not None and record.image_kept:
            self.images.keep(row["sha256"], record.data)
        else:
            self._release(record)
        return text

    def _put(self, spool: Spool, texts: Sequence[str]) -> None:
        """Together, or one by one where not all of them fit."""
        try:
            spool.append(texts)
        except (sqlite3.Error, UnicodeEncodeError) as error:
            if len(texts) > 1:
                for text in texts:
                    self._put(spool, [text])
                return
            full = isinstance(error, sqlite3.Error) and spool.is_full(error)
            self._lose("spool-full" if full else "disk", 1)

    def _lose_some(self, reason: str, count: int) -> None:
        if count:
            self._lose(reason, count)

    # The writer

    def _write(self) -> None:
        spool, pause, next_care = None, 0.0, 0.0
        while True:
            last = self._closing.is_set()
            try:
                spool = spool or Spool(self._path, self._spool_bytes)
                while self._move(spool) == AT_ONCE and not self._closing.is_set():
                    pass
                self._look(spool)
                if monotonic() >= next_care and not last:
                    next_care = monotonic() + HOUR_SECONDS
                    self._database.optimize()
                    removed = self._database.remove_before(datetime.now(UTC) - timedelta(days=self._days))
                    if removed:
                        log.info("%d inspections older than %g days were removed", removed, self._days)
            except HistoryUnavailableError as error:
                if self.database_up or not pause:
                    log.error("the database of the history is away, records wait in the spool: %s", error)
                self.database_up = False
                pause = min(LONGEST_PAUSE_SECONDS, 2 * pause or GATHER_SECONDS)
                if spool is not None:
                    self._look(spool)
                    spool.sync()
            except (OSError, sqlite3.Error) as error:
                log.error("the spool of the history cannot be read: %s", error)
                pause = SPOOL_SECONDS
            except Exception:
                log.exception("records wait in the spool of the history: its writer has failed, and goes on")
                pause = SPOOL_SECONDS
            else:
                if pause:
                    log.info("the database of the history is there")
                pause = 0.0
            if last:
                break
            if not pause:
                self._more.wait(LOOK_SECONDS)
                self._more.clear()
            self._closing.wait(pause or GATHER_SECONDS)
        if spool is not None:
            spool.close()

    def _look(self, spool: Spool) -> None:
        self.waiting, self.spool_bytes = spool.waiting, spool.file_bytes

    def _move(self, spool: Spool) -> int:
        """Takes records from the spool to the database. Returns how many."""
        self._database.prepare()
        self.database_up = True
        waiting = spool.first(AT_ONCE)
        if not waiting:
            return 0
        rows, refused = {}, {}
        for n, text in waiting:
            try:
                rows[n] = columns_of(text)
            except (ValueError, TypeError, LookupError, AttributeError) as error:
                refused[n] = f"it is no record: {error!r}"
        numbers = list(rows)
        refused |= {numbers[index]: reason for index, reason in self._database.add(list(rows.values())).items()}
        for n, reason in refused.items():
            log.error("the database of the history refuses a record, which is set aside as %d: %s", n, reason)
        removed = spool.remove([n for n, _ in waiting], refused)
        set_aside = min(removed, len(refused))
        if set_aside:
            self._on_refuse(set_aside)
        if removed > set_aside:
            self._on_write(removed - set_aside)
        return len(waiting)
