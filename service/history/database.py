"""The database of the history: SQLite or PostgreSQL, brought to the newest form when it is first reached."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any
from uuid import UUID

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    Select,
    create_engine,
    event,
    func,
    make_url,
    select,
    text,
)  # fmt: skip
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, SQLAlchemyError, StatementError

from model.errors import MissingExtraError
from model.quality import Look
from model.store.files import locked
from service.choices import DECISIONS, Action
from service.history.errors import DatabaseURLError, HistoryUnavailableError, LabelChangedError
from service.history.records import Row, first_id_at, seconds_of
from service.history.tables import AUDIT, INSPECTIONS, SHADOW

CONNECT_SECONDS = 5
"""Longest wait for the database to accept a connection, or for another process that writes to the SQLite file."""
QUERY_SECONDS = 10
"""Longest time for one question to the database."""
FEW = 20_000
"""Inspections that are sorted for one answer rather than searched for in the order of time."""
REMOVED_AT_ONCE = 2000
_MIGRATION_LOCK = 0x45434131
"""Number of PostgreSQL's advisory lock that one server at a time holds while it changes the tables."""
_MIGRATING = Lock()
"""Alembic migrates for one thread at a time."""
MIGRATION_SECONDS = 3600

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Filters:
    """Which inspections to look for; what is None does not matter.

    Attributes:
        outcomes: one of these.
        label: `none` for those without one.
        since: not before this time.
        until: before this time.
        min_score: in the unit of the category.
        max_score: as `min_score`.
    """

    category: str | None = None
    outcome: str | None = None
    outcomes: Sequence[str] | None = None
    verdict: str | None = None
    label: str | None = None
    part_id: str | None = None
    lot: str | None = None
    station: str | None = None
    part_inspection: UUID | None = None
    model_version: str | None = None
    sha256: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    min_score: float | None = None
    max_score: float | None = None


_EQUAL = ("category", "outcome", "verdict", "part_id", "lot", "station", "part_inspection", "model_version", "sha256")


class Database:
    """The tables, for any number of threads.

    Args:
        address: SQLAlchemy's URL.

    Raises:
        DatabaseURLError: if it is not an address of a database that can be used.
        MissingExtraError: if the driver is not installed.
    """

    def __init__(self, address: str) -> None:
        url = _parse(address)
        self._is_sqlite = url.get_backend_name() == "sqlite"
        self._file = Path(url.database or "") if self._is_sqlite else None
        self._engine = _engine(url)
        self._prepared = False

    def prepare(self, version: str = "head") -> None:
        """Makes the tables, or changes those of an older version of this software; only once.

        Args:
            version: to which; one of the steps of `migrations`.

        Raises:
            HistoryUnavailableError: if the database is away, or is of a newer version.
        """
        if self._prepared:
            return
        if self._file is not None:
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise HistoryUnavailableError(f"{self._file.parent}: {error.strerror}") from None
        config = Config()
        config.set_main_option("script_location", "service.history:migrations")
        with (
            _MIGRATING,
            nullcontext() if self._file is None else locked(self._file.parent),
            self._connected(write=True, seconds=MIGRATION_SECONDS) as connection,
        ):
            if not self._is_sqlite:
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, version)
            except CommandError as error:
                raise HistoryUnavailableError(
                    f"its tables are of a version that this software does not know; install the newer one ({error})"
                ) from None
        self._prepared = True

    @contextmanager
    def _connected(self, *, write: bool = False, seconds: float = QUERY_SECONDS) -> Iterator[Connection]:
        """A transaction, in which no statement takes longer than this.

        Raises:
            HistoryUnavailableError: if the database is away, or does not answer in time.
        """
        try:
            with self._engine.connect().execution_options(write=write) as connection, connection.begin():
                if self._is_sqlite:
                    end = monotonic() + seconds
                    raw: Any = connection.connection.driver_connection
                    raw.set_progress_handler(lambda: monotonic() > end, 10_000)
                else:
                    connection.execute(text(f"SET LOCAL statement_timeout = {int(1000 * seconds)}"))
                yield connection
        except (SQLAlchemyError, OSError) as error:
            if _concerns_a_value(error):
                raise
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise HistoryUnavailableError(reason) from None

    def add(self, rows: Sequence[Row]) -> dict[int, str]:
        """Adds inspections; one that is there already stays as it is.

        Returns:
            Why the database refuses a row for its own sake, by the row's index. All others are in the database.

        Raises:
            HistoryUnavailableError: if the database is away; none of the rows need be in it.
        """
        if not rows:
            return {}
        with suppress(StatementError):
            self._insert(rows)
            return {}
        refused = {}
        for index, row in enumerate(rows):
            try:
                self._insert([row])
            except StatementError as error:
                refused[index] = str(error.orig or error)
        return refused

    def _insert(self, rows: Sequence[Row]) -> None:
        insert = sqlite.insert if self._is_sqlite else postgresql.insert
        statement = insert(INSPECTIONS).on_conflict_do_nothing(index_elements=["id"])
        with self._connected(write=True) as connection:
            connection.execute(statement, list(rows))

    def find(self, filters: Filters, most: int, before: UUID | None = None) -> list[Row]:
        """Inspections, newest first, without their details.

        Args:
            filters: which ones.
            most: of them.
            before: only those before this one.

        Raises:
            HistoryUnavailableError: if the database is away.
        """
        table = INSPECTIONS.c
        conditions = [table[name] == value for name in _EQUAL if (value := getattr(filters, name)) is not None]
        if filters.outcomes is not None:
            conditions.append(table.outcome.in_(filters.outcomes))
        if filters.label is not None:
            conditions.append(table.label.is_(None) if filters.label == "none" else table.label == filters.label)
        conditions += _between(filters.since, filters.until)
        if before is not None:
            conditions.append(table.id < before)
        ranges = []
        if filters.min_score is not None:
            ranges.append(table.score >= filters.min_score)
        if filters.max_score is not None:
            ranges.append(table.score <= filters.max_score)
        columns = [column for column in table if column.name != "details"]
        statement = select(*columns).where(*conditions).order_by(table.id.desc()).limit(most)
        with self._connected() as connection:
            if ranges:
                some = select(table.id).where(table.category == filters.category, *ranges).limit(FEW)
                if connection.execute(select(func.count()).select_from(some.subquery())).scalar_one() < FEW:
                    statement = statement.where(table.id.in_(some.limit(None)))
                else:
                    statement = statement.where(*ranges)
            return [dict(row) for row in connection.execute(statement).mappings()]

    def newest_kept(self, category: str, label: str | None, decision: str | None, most: int) -> list[Row]:
        """Inspections with a decision and an image that was to be kept, newest first, without their details.

        Args:
            category: of the inspections.
            label: that they have; None for those that nobody has labelled.
            decision: only this one; None if it does not matter.
            most: of them.

        Raises:
            HistoryUnavailableError: if the database is away.
        """
        table = INSPECTIONS.c
        outcomes = DECISIONS if decision is None else (decision,)
        columns = [column for column in table if column.name != "details"]
        wanted = (table.category == category, table.label == label, table.image_kept, table.outcome.in_(outcomes))
        statement = select(*columns).where(*wanted).order_by(table.id.desc()).limit(most)
        with self._connected() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]

    def near(self, inspection: Row, good: ColumnElement[bool], most: int) -> list[Row]:
        """Good inspections of the same category, with pictures of the same size, the nearest in time first, without
        their details. Neither the inspection nor the same image again is among them.

        Args:
            inspection: whose neighbours they are.
            good: `service.history.tables.LABELLED_GOOD` or `ACCEPTED`.
            most: of those before it, and of those after it.

        Raises:
            HistoryUnavailableError: if the database is away.
        """
        table = INSPECTIONS.c
        columns = [column for column in table if column.name != "details"]
        same = [table[name] == inspection[name] for name in ("category", "width", "height")]
        found = select(*columns).where(good, *same, table.sha256 != inspection["sha256"]).limit(most)
        before = found.where(table.id < inspection["id"]).order_by(table.id.desc())
        after = found.where(table.id > inspection["id"]).order_by(table.id)
        with self._connected() as connection:
            rows = [dict(row) for one in (before, after) for row in connection.execute(one).mappings()]
        return sorted(rows, key=lambda row: abs(seconds_of(row["id"]) - seconds_of(inspection["id"])))

    def get(self, identity: UUID) -> Row | None:
        """One inspection with its details; None if there is no such inspection.

        Raises:
            HistoryUnavailableError: if the database is away.
        """
        with self._connected() as connection:
            found = connection.execute(select(INSPECTIONS).where(INSPECTIONS.c.id == identity)).mappings().first()
            return None if found is None else dict(found)

    def measures(
        self, category: str, model_version: str, most: int, since: datetime | None = None, until: datetime | None = None
    ) -> list[Row]:
        """The measures of judged images, newest first: `id`, `score`, and what a `Look` has.

        Args:
            category: of the inspections.
            model_version: that judged them.
            most: of them.
            since: not before this time.
            until: before this time.

        Raises:
            HistoryUnavailableError: if the database is away.
        """
        table = INSPECTIONS.c
        conditions = (table.category == category, table.model_version == model_version, table.score.is_not(None))
        looks = [table.details["look", name].as_float().label(name) for name in Look._fields]
        found = select(table.id, table.score, *looks).where(*conditions, *_between(since, until))
        statement = found.order_by(table.id.desc()).limit(most)
        with self._connected() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]

    def outcomes(self, category: str, since: datetime, until: datetime) -> dict[str, int]:
        """How many inspections of this time, its end not included, have each outcome.

        Raises:
            HistoryUnavailableError: if the database is away.
        """
        table = INSPECTIONS.c
        mine = (table.category == category, *_between(since, until))
        statement = select(table.outcome, func.count().label("many")).where(*mine).group_by(table.outcome)
        with self._connected() as connection:
            return {row.outcome: row.many for row in connection.execute(statement)}

    def labelled(self, category: str, since: datetime, until: datetime, most: int) -> list[Row]:
        """Labelled inspections of this time that have a decision, newest first: `id`, `model_version`, `outcome`,
        `label` and `sample_share`.

        Raises:
            HistoryUnavailableError: if the database is away.
        """
        table = INSPECTIONS.c
        mine = (table.category == category, *_between(since, until))
        columns = (table.id, table.model_version, table.outcome, table.label, table.sample_share)
        statement = select(*columns).where(*mine, table.label.is_not(None), table.outcome.in_(DECISIONS))
        with self._connected() as connection:
            rows = connection.execute(statement.order_by(table.id.desc()).limit(most))
            return [dict(row) for row in rows.mappings()]

    def labels_of(self, identities: Iterable[UUID]) -> list[Row]:
        """All that people said of these inspections: lines of the log of changes, newest first.

        Raises:
            HistoryUnavailableError: if the database is away.
        """
        subjects = [str(identity) for identity in identities]
        wanted = (AUDIT.c.subject.in_(subjects), AUDIT.c.action == "label")
        statement = select(AUDIT).where(*wanted).order_by(AUDIT.c.n.desc())
        with self._connected() as connection:
            return [dict(line) for line in connection.execute(statement).mappings()]

    def scored_labels(self, category: str, since: datetime | None, until: datetime | None, most: int) -> list[Row]:
        """Inspections that are labelled `normal` or `anomalous`, newest first.

        Args:
            category: of the inspections.
            since: not before this time.
            until: before this time.
            most: of them.

        Returns:
            What `service.calibrating` needs of them.

        Raises:
            HistoryUnavailableError: if the database is away.
        """
        table = INSPECTIONS.c
        labels = table.category == category, table.label.in_(("normal", "anomalous")), table.score.is_not(None)
        names = "id", "model_version", "score", "sha256", "label", "kept_share", "sample_share", "details"
        with self._connected() as connection:
            found = select(*(table[name] for name in names)).where(*labels, *_between(since, until))
            rows = connection.execute(found.order_by(table.id.desc()).limit(most))
            return [dict(row) for row in rows.mappings()]

    def label(self, identity: UUID, actor: str | None, label: Row | None, replaces: int | None) -> int:
        """Sets the label of an inspection, or takes it back.

        Args:
            identity: of the inspection.
            actor: name of the key; None where no keys are asked for.
            label: with `label` and what else the person said; None to take it back.
            replaces: version of the label that the person has seen, 0 if there was none; None if it does not matter.

        Returns:
            Its version.

        Raises:
            LookupError: if there is no such inspection.
            LabelChangedError: if there is another label than the one that the person has seen.
            HistoryUnavailableError: if the database is away.
        """
        table = INSPECTIONS.c
        mine = table.id == identity
        with self._connected(write=True) as connection:
            now = select(table.label, table.label_version).where(mine).with_for_update()
            found = connection.execute(now).first()
            if found is None:
                raise LookupError(identity)
            seen = found.label_version if found.label is not None or replaces else 0
            if replaces is not None and replaces != seen:
                raise LabelChangedError(found.label, found.label_version)
            if label is None and found.label is None:
                return int(found.label_version)
            before = connection.execute(select(AUDIT.c.after).where(AUDIT.c.n == found.label_version)).scalar()
            version = self._log(connection, actor, "label", str(identity), before, label)
            values = {"label": None if label is None else label["label"], "label_version": version}
            connection.execute(INSPECTIONS.update().where(mine).values(values))
            return version

    def audit(self, actor: str | None, action: Action, subject: str, before: object, after: object) -> None:
        """Adds a line to the log of changes.

        Raises:
            HistoryUnavailableError: if the database is away.
        """
        with self._connected(write=True) as connection:
            self._log(connection, actor, action, subject, before, after)

    def _log(
        self, connection: Connection, actor: str | None, action: Action, subject: str, before: object, after: object
    ) -> int:
        line = {"time": datetime.now(UTC), "actor": actor, "action": action, "subject": subject}
        done = connection.execute(AUDIT.insert().values(**line, before=before, after=after).returning(AUDIT.c.n))
        return int(done.scalar_one())

    def audited(
        self, most: int, before: int | None = None, *, subject: str | None = None, action: Action | None = None
    ) -> list[Row]:
        """Lines of the log of changes, newest first.

        Args:
            most: of them.
            before: only lines before the one of this number.
            subject: the id of an inspection, or a category.
            action: what the lines are about.

        Raises:
            HistoryUnavailableError: if the database is away.
        """
        given = {AUDIT.c.subject: subject, AUDIT.c.action: action}
        conditions = [column == value for column, value in given.items() if value is not None]
        if before is not None:
            conditions.append(AUDIT.c.n < before)
        with self._connected() as connection:
            lines = connection.execute(select(AUDIT).where(*conditions).order_by(AUDIT.c.n.desc()).limit(most))
            return [dict(line) | {"time": line["time"].replace(tzinfo=UTC)} for line in lines.mappings()]

    def add_shadow(self, row: Row) -> None:
        """Adds what a candidate said of an inspection; once is enough.

        Raises:
            HistoryUnavailableError: if the database is away.
        """
        insert = sqlite.insert if self._is_sqlite else postgresql.insert
        with self._connected(write=True) as connection:
            connection.execute(insert(SHADOW).values(row).on_conflict_do_nothing())

    def count_shadow(self, candidate: str) -> int:
        """How many inspections a candidate has scored.

        Raises:
            HistoryUnavailableError: if the database is away.
        """
        statement = select(func.count()).select_from(SHADOW).where(SHADOW.c.model_version == candidate)
        with self._connected() as connection:
            return int(connection.execute(statement).scalar_one())

    def compared(self, candidate: str, in_force: str) -> list[Row]:
        """Counts of the inspections that both versions judged.

        Args:
            candidate: its version.
            in_force: the version that decided.

        Returns:
            For each combination that there is: `decision`, `candidate_decision`, `label` and `count`.

        Raises:
            HistoryUnavailableError: if the database is away.
        """
        table = INSPECTIONS.c
        groups = [table.outcome.label("decision"), SHADOW.c.outcome.label("candidate_decision"), table.label]
        statement = self._both(candidate, in_force, *groups, func.count().label("count"))
        with self._connected() as connection:
            return [dict(row) for row in connection.execute(statement.group_by(*groups)).mappings()]

    def changed_decisions(self, candidate: str, in_force: str, most: int) -> list[Row]:
        """Inspections of which the candidate says something else, newest first.

        Args:
            candidate: its version.
            in_force: the version that decided.
            most: of them.

        Raises:
            HistoryUnavailableError: if the database is away.
        """
        table = INSPECTIONS.c
        columns = [table.id, table.time, table.score, table.threshold, table.outcome.label("decision"), table.label]
        of_candidate = [SHADOW.c[name].label(f"candidate_{name}") for name in ("score", "threshold")]
        of_candidate.append(SHADOW.c.outcome.label("candidate_decision"))
        statement = self._both(candidate, in_force, *columns, *of_candidate)
        statement = statement.where(table.outcome != SHADOW.c.outcome).order_by(table.id.desc()).limit(most)
        with self._connected() as connection:
            rows = connection.execute(statement).mappings()
            return [dict(row) | {"time": row["time"].replace(tzinfo=UTC)} for row in rows]

    def _both(self, candidate: str, in_force: str, *columns: Any) -> Select[Any]:
        """Of inspections that a candidate has scored, and of which the version in force has decided."""
        joined = SHADOW.join(INSPECTIONS, INSPECTIONS.c.id == SHADOW.c.inspection)
        mine = SHADOW.c.model_version == candidate, INSPECTIONS.c.model_version == in_force
        return select(*columns).select_from(joined).where(*mine)

    def remove_before(self, time: datetime) -> int:
        """Removes inspections that are older and have no label, and what candidates said of any that is older.

        Returns:
            How many inspections.

        Raises:
            HistoryUnavailableError: if the database is away.
        """
        table, removed = INSPECTIONS.c, 0
        with self._connected(write=True) as connection:
            connection.execute(SHADOW.delete().where(SHADOW.c.inspection < first_id_at(time)))
        old = select(table.id).where(table.id < first_id_at(time), table.label.is_(None)).order_by(table.id)
        while True:  # a few at a time, so that nobody waits for long
            with self._connected(write=True) as connection:
                statement = INSPECTIONS.delete().where(table.id.in_(old.limit(REMOVED_AT_ONCE)))
                count = connection.execute(statement).rowcount
            removed += count
            if count < REMOVED_AT_ONCE:
                return removed

    def labelled_images(self) -> set[str]:
        """The SHA-256 of images whose inspection is labelled.

        Raises:
            HistoryUnavailableError: if the database is away.
        """
        self.prepare()
        with self._connected() as connection:
            statement = select(INSPECTIONS.c.sha256).where(INSPECTIONS.c.label.is_not(None))
            return set(connection.execute(statement).scalars())

    def normal_images(self, category: str) -> list[str]:
        """The SHA-256 of images of a category whose inspections are labelled `normal`, and none `anomalous`.

        Raises:
            HistoryUnavailableError: if the database is away.
        """
        table = INSPECTIONS.c

        def labelled(label: str) -> Select[Any]:
            return select(table.sha256).where(table.category == category, table.label == label)

        with self._connected() as connection:
            normal, anomalous = (set(connection.execute(labelled(one)).scalars()) for one in ("normal", "anomalous"))
        return sorted(normal - anomalous)

    def optimize(self) -> None:
        """Has SQLite look at how selective each index is; PostgreSQL does so by itself.

        Raises:
            HistoryUnavailableError: if the database is away.
        """
        if self._is_sqlite:
            with self._connected(write=True) as connection:
                connection.execute(text("PRAGMA analysis_limit = 1000"))
                connection.execute(text("ANALYZE"))

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()


def _between(since: datetime | None, until: datetime | None) -> list[ColumnElement[bool]]:
    table = INSPECTIONS.c
    from_then = [] if since is None else [table.id >= first_id_at(since)]
    return from_then if until is None else [*from_then, table.id < first_id_at(until)]


def _concerns_a_value(error: Exception) -> bool:
    """Whether the database, or its driver, refuses what it is given; it would refuse it again."""
    if isinstance(error, DBAPIError):
        return isinstance(error, DataError | IntegrityError)
    return isinstance(error, StatementError)


def _parse(address: str) -> URL:
    try:
        url = make_url(address)
    except ArgumentError:
        raise DatabaseURLError(f"{address!r} is not the URL of a database, such as {_EXAMPLES}") from None
    name = url.get_backend_name()
    if name not in ("sqlite", "postgresql"):
        raise DatabaseURLError(
            f"a database of the kind {name!r} cannot keep the history; give a URL such as {_EXAMPLES}"
        )
    if name == "sqlite" and url.database in (None, "", ":memory:"):
        raise DatabaseURLError("the URL names no file; give one, such as sqlite:////state/history.sqlite")
    return url


_EXAMPLES = "sqlite:////state/history.sqlite or postgresql://user:password@host/name"


def _engine(url: URL) -> Engine:
    postgres = {"connect_timeout": CONNECT_SECONDS, "tcp_user_timeout": 1000 * QUERY_SECONDS}
    sqlite_file = {"timeout": CONNECT_SECONDS, "isolation_level": None, "check_same_thread": False}
    is_sqlite = url.get_backend_name() == "sqlite"
    try:
        engine = create_engine(
            url,
            pool_pre_ping=not is_sqlite,
            pool_timeout=CONNECT_SECONDS,
            connect_args=sqlite_file if is_sqlite else postgres,
        )
    except ModuleNotFoundError as error:
        if error.name == "psycopg":
            raise MissingExtraError(
                "INSPECT_DATABASE names PostgreSQL, which needs an extra: pip install 'eca-inspect[postgres]'"
            ) from None
        raise DatabaseURLError(f"the driver {error.name!r} is not installed; leave it out of the URL") from None
    except (ArgumentError, ImportError) as error:
        raise DatabaseURLError(str(error)) from None
    if engine.dialect.is_async:
        raise DatabaseURLError(f"the driver of {url.drivername!r} cannot be used here; leave it out of the URL")
    if is_sqlite:
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _: object) -> None:
    for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"):
        connection.execute(statement)


def _begin_sqlite(connection: Connection) -> None:
    """Python's own way of beginning a transaction leaves changes of tables out of it."""
    write = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
