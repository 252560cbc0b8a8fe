"""The endpoints of the history. Each asks the database in a thread of its own, beside the way of inspections."""

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BeforeValidator

from service.choices import Role
from service.history.database import Filters
from service.history.history import History
from service.history.records import Row, time_of
from service.http.access import needs
from service.http.errors import documented
from service.http.parameters import refuse_unknown_parameters
from service.part_info import TEXT_CHARACTERS
from service.problems import Problem
from service.schemas import PastInspection, PastInspectionDetail, PastInspections
from service.state import State, state_of

router = APIRouter(prefix="/v1/inspections", tags=["history"], dependencies=[Depends(refuse_unknown_parameters)])

MOST = 500
"""Inspections of one page."""
_DECISIONS = ("normal", "anomalous")
_Text = Annotated[str | None, Query(max_length=TEXT_CHARACTERS, pattern=r"^[^\x00-\x1f]+$")]


def _as_written(given: object) -> object:
    """Numbers would be taken for seconds since 1970."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d[T ].+", str(given)):
        raise ValueError("give a time such as 2026-05-01T06:00:00Z")
    return given


_Time = Annotated[datetime, BeforeValidator(_as_written)]
StateOf = Annotated[State, Depends(state_of)]
InspectionId = Annotated[UUID, Path(alias="id", description="The `id` of an answer")]


def history_of(state: StateOf) -> History:
    """The history of the application.

    Raises:
        Problem: 404 if it is off.
    """
    if state.history is None:
        raise Problem("history-off")
    return state.history


HistoryOf = Annotated[History, Depends(history_of)]


def filters_of_query(
    category: _Text = None,
    decision: Annotated[str | None, Query(pattern="^(normal|anomalous)$")] = None,
    outcome: Annotated[
        str | None,
        Query(
            pattern="^[a-z-]{1,64}$", description="normal, anomalous or the kind of a problem, such as `not-decodable`"
        ),
    ] = None,
    label: Annotated[
        str | None,
        Query(pattern="^(normal|anomalous|unsure|none)$", description="none: those that nobody has labelled"),
    ] = None,
    part_id: _Text = None,
    lot: _Text = None,
    station: _Text = None,
    part_inspection: Annotated[UUID | None, Query(description="Id of the answer for a part: its views")] = None,
    model_version: _Text = None,
    sha256: Annotated[str | None, Query(pattern="^[0-9a-f]{64}$", description="The same image again")] = None,
    since: Annotated[
        _Time | None,
        Query(description="Not before this time, such as `2026-05-01T06:00:00Z`; UTC if it names no zone"),
    ] = None,
    until: Annotated[_Time | None, Query(description="Before this time")] = None,
    min_score: Annotated[
        float | None, Query(allow_inf_nan=False, description="With `category`, because each has a unit of its own")
    ] = None,
    max_score: Annotated[float | None, Query(allow_inf_nan=False, description="As `min_score`")] = None,
) -> Filters:
    """A dependency: which inspections to look for. All conditions must be met.

    Raises:
        Problem: 422 if they make no sense together.
    """
    if decision is not None and outcome not in (None, decision):
        raise Problem("invalid-request", reason=f"an inspection with the decision {decision!r} has the same outcome")
    if category is None and (min_score is not None or max_score is not None):
        raise Problem(
            "invalid-request", reason="scores of different categories have no common unit; give a category too"
        )
    return Filters(
        category=category,
        outcome=outcome or decision,
        label=label,
        part_id=part_id,
        lot=lot,
        station=station,
        part_inspection=part_inspection,
        model_version=model_version,
        sha256=sha256,
        since=_in_utc(since),
        until=_in_utc(until),
        min_score=min_score,
        max_score=max_score,
    )


FiltersOfQuery = Annotated[Filters, Depends(filters_of_query)]


def _in_utc(time: datetime | None) -> datetime | None:
    return time.replace(tzinfo=UTC) if time is not None and time.tzinfo is None else time


def _cursor_after(row: Row) -> str:
    return urlsafe_b64encode(row["id"].bytes).rstrip(b"=").decode()


def _read_cursor(cursor: str | None) -> UUID | None:
    if cursor is None:
        return None
    try:
        return UUID(bytes=urlsafe_b64decode(cursor + "=="))
    except (binascii.Error, ValueError):
        raise Problem("invalid-request", reason="the cursor is none that this server gave; leave it out") from None


def _fields_of(row: Row) -> dict[str, Any]:
    image = {name: row[name] for name in ("width", "height", "bytes", "sha256")}
    decision = row["outcome"] if row["outcome"] in _DECISIONS else None
    details: Row = row.get("details", {})
    return row | details | {"image": image, "decision": decision, "time": time_of(row["id"])}


@router.get(
    "",
    summary="Search the history",
    responses=documented("invalid-request", "history-off", "history-unavailable"),
)
@needs(Role.INSPECT)
async def inspections(
    history: HistoryOf,
    filters: FiltersOfQuery,
    limit: Annotated[int, Query(ge=1, le=MOST, description="Most inspections of this page")] = 50,
    cursor: Annotated[str | None, Query(max_length=64, description="`next` of the page before")] = None,
) -> PastInspections:
    """Past inspections that meet all conditions, newest first. An inspection is here about a second after its
    answer."""
    before = _read_cursor(cursor)
    rows = await history.ask(lambda database: database.find(filters, limit + 1, before))
    page = rows[:limit]
    return PastInspections(
        inspections=[PastInspection.model_validate(_fields_of(row)) for row in page],
        next=_cursor_after(page[-1]) if len(rows) > limit else None,
    )


@router.get(
    "/{id}",
    summary="Show a past inspection",
    responses=documented("invalid-request", "unknown-inspection", "history-off", "history-unavailable"),
)
@needs(Role.INSPECT)
async def past_inspection(history: HistoryOf, identity: InspectionId) -> PastInspectionDetail:
    """Everything that is kept of it."""
    return PastInspectionDetail.model_validate(_fields_of(await require(history, identity)))


async def require(history: History, identity: UUID) -> Row:
    """The row of an inspection.

    Raises:
        Problem: 404 if there is no such inspection.
    """
    row = await history.ask(lambda database: database.get(identity))
    if row is None:
        raise Problem("unknown-inspection", id=identity)
    return row
