"""The endpoints of the history. Each asks the database in a thread of its own, beside the way of inspections."""

import asyncio
import binascii
import csv
import io
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime
from time import time
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import ValidationError

from model.errors import MissingExtraError
from model.reading import Reading
from service.catalogue import Ready
from service.choices import DECISIONS, Action, Role
from service.history.database import Database, Filters
from service.history.errors import LabelChangedError
from service.history.history import History
from service.history.images import MEDIA_TYPES, type_of
from service.history.parquet import GROUP, ParquetFile
from service.history.records import Row, seconds_of, time_of
from service.history.review import NEWEST, Order, nearest_good, since_taken_back, to_review
from service.http.access import ACTOR, needs
from service.http.bodies import read_json_body
from service.http.errors import documented
from service.http.parameters import refuse_unknown_parameters
from service.part_info import TEXT_CHARACTERS
from service.problems import KINDS, Problem
from service.rendering import MAX_DRAWN_SIDE
from service.schemas import (
    Audit,
    AuditLine,
    Decision,
    Label,
    LabelLine,
    NearestGood,
    PastInspection,
    PastInspectionDetail,
    PastInspections,
    ReviewQueue,
    ToReview,
    WrittenTime,
)  # fmt: skip
from service.state import State, state_of

router = APIRouter(prefix="/v1/inspections", tags=["history"], dependencies=[Depends(refuse_unknown_parameters)])

EXPORTED = (
    "id", "time", "category", "model_version", "outcome", "decision", "score", "threshold", "label", "part_id", "lot",
    "station", "part", "part_inspection", "request_id", "sha256", "width", "height", "bytes", "kept_share", "verdict",
)  # fmt: skip
PARQUET = "application/vnd.apache.parquet"
_TEXT = {"type": "string"}
T = TypeVar("T")
audit_router = APIRouter(tags=["history"], dependencies=[Depends(refuse_unknown_parameters)])

SCHEMA = "#/components/schemas/{model}"
LABEL_BYTES = 64 << 10
ON_ITS_WAY_SECONDS = 5.0
"""So long after an answer, its inspection may still be on its way to the database."""
LOOK_AGAIN_SECONDS = 0.1
"""Between two looks for an inspection that is on its way."""
"""Longest body of a label."""
MOST = 500
"""Inspections of one page."""
_PRINTABLE = r"^[^\x00-\x1f]+$"
_Text = Annotated[str | None, Query(max_length=TEXT_CHARACTERS, pattern=_PRINTABLE)]


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
    decision: Annotated[
        str | None,
        Query(pattern="^(normal|anomalous|none)$", description="none: images that could not be judged"),
    ] = None,
    outcome: Annotated[
        str | None,
        Query(
            pattern="^[a-z-]{1,64}$", description="normal, anomalous or the kind of a problem, such as `not-decodable`"
        ),
    ] = None,
    verdict: Annotated[
        str | None,
        Query(pattern="^(pass|review|fail)$", description="review: those that a person should look at"),
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
        WrittenTime | None,
        Query(description="Not before this time, such as `2026-05-01T06:00:00Z`; UTC if it names no zone"),
    ] = None,
    until: Annotated[WrittenTime | None, Query(description="Before this time")] = None,
    min_score: Annotated[
        float | None, Query(allow_inf_nan=False, description="With `category`, because each has a unit of its own")
    ] = None,
    max_score: Annotated[float | None, Query(allow_inf_nan=False, description="As `min_score`")] = None,
) -> Filters:
    """A dependency: which inspections to look for. All conditions must be met.

    Raises:
        Problem: 422 if they make no sense together.
    """
    if decision in DECISIONS and outcome not in (None, decision):
        raise Problem("invalid-request", reason=f"an inspection with the decision {decision!r} has the same outcome")
    if decision == "none" and outcome in DECISIONS:
        raise Problem("invalid-request", reason=f"an inspection with the outcome {outcome!r} has a decision")
    if category is None and (min_score is not None or max_score is not None):
        raise Problem(
            "invalid-request", reason="scores of different categories have no common unit; give a category too"
        )
    return Filters(
        category=category,
        outcome=outcome or (decision if decision in DECISIONS else None),
        outcomes=tuple(KINDS) if decision == "none" else None,
        verdict=verdict,
        label=label,
        part_id=part_id,
        lot=lot,
        station=station,
        part_inspection=part_inspection,
        model_version=model_version,
        sha256=sha256,
        since=since,
        until=until,
        min_score=min_score,
        max_score=max_score,
    )


FiltersOfQuery = Annotated[Filters, Depends(filters_of_query)]


def _cursor_after(row: Row) -> str:
    return urlsafe_b64encode(row["id"].bytes).rstrip(b"=").decode()


def _read_cursor(cursor: str | None) -> UUID | None:
    if cursor is None:
        return None
    try:
        return UUID(bytes=urlsafe_b64decode(cursor + "=="))
    except (binascii.Error, ValueError):
        raise Problem("invalid-request", reason="the cursor is none that this server gave; leave it out") from None


def _fields_of(history: History, row: Row) -> dict[str, Any]:
    image = {name: row[name] for name in ("width", "height", "bytes", "sha256", "kept_share")}
    image["kept"] = history.images.has(row["sha256"])
    decision = row["outcome"] if row["outcome"] in DECISIONS else None
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

    def search(database: Database) -> PastInspections:
        rows = database.find(filters, limit + 1, before)
        page = rows[:limit]
        return PastInspections(
            inspections=[PastInspection.model_validate(_fields_of(history, row)) for row in page],
            next=_cursor_after(page[-1]) if len(rows) > limit else None,
        )

    return await history.ask(search)


@router.get(
    "/export",
    summary="The history as a file",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "All inspections that meet all conditions",
            "content": {"text/csv": {"schema": _TEXT}, PARQUET: {"schema": {"type": "string", "format": "binary"}}},
        },
        **documented("invalid-request", "history-off", "history-unavailable"),
    },
)
@needs(Role.INSPECT)
async def export(
    history: HistoryOf,
    filters: FiltersOfQuery,
    form: Annotated[Literal["csv", "parquet"], Query(alias="format")] = "csv",
) -> StreamingResponse:
    """Newest first, a line for each, while they are read from the database. If that fails in the middle, the connection
    is closed before the end. In CSV a text that a spreadsheet would take for a formula begins with an apostrophe."""
    try:
        file = ParquetFile(EXPORTED) if form == "parquet" else None
    except MissingExtraError as error:
        raise Problem("invalid-request", reason=f"format: {error}") from None

    async def page(before: UUID | None) -> list[Row]:
        return await history.ask(lambda database: database.find(filters, MOST, before))

    first = await page(None)

    async def pages() -> AsyncIterator[list[Row]]:
        rows = first
        while rows:
            yield [row | _fields_of(history, row) for row in rows]
            rows = await page(rows[-1]["id"]) if len(rows) == MOST else []

    async def lines() -> AsyncIterator[str]:
        yield "\ufeff" + _csv([EXPORTED])
        async for rows in pages():
            yield _csv([[_cell(row[name]) for name in EXPORTED] for row in rows])

    async def groups(file: ParquetFile) -> AsyncIterator[bytes]:
        group: list[Row] = []
        async for rows in pages():
            group += rows
            if len(group) + MOST > GROUP:
                yield await asyncio.to_thread(file.add, group)
                group = []
        if group:
            yield await asyncio.to_thread(file.add, group)
        yield file.end()

    name = f"inspections-{datetime.now(UTC):%Y-%m-%dT%H%M%S}.{form}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    if file is not None:
        return StreamingResponse(groups(file), media_type=PARQUET, headers=headers)
    return StreamingResponse(lines(), media_type="text/csv; charset=utf-8", headers=headers)


def _csv(lines: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(lines)
    return text.getvalue()


def _cell(value: object) -> object:
    """Never a formula for a spreadsheet."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


@router.get(
    "/review",
    summary="What to review next",
    responses=documented("invalid-request", "history-off", "history-unavailable"),
)
@needs(Role.INSPECT)
async def review(
    history: HistoryOf,
    category: Annotated[str, Query(max_length=TEXT_CHARACTERS, pattern=_PRINTABLE)],
    order: Annotated[Order, Query(description="nearest: score nearest to the threshold first")] = "nearest",
    decision: Annotated[Decision | None, Query(description="Only with this decision")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST, description="Most inspections of this answer")] = 50,
) -> ReviewQueue:
    """Inspections of a category that people should look at. The images of all of them are kept.

    - `nearest`: nobody has labelled them; those first whose score is nearest to their threshold.
    - `random`: the same ones in a random order, which stays the same. With `decision=normal` and `weight`, what people
      find here estimates how many faulty parts the service accepts.
    - `disagreements`: labelled otherwise than decided, or differently by two people, until two people agree on the
      label; newest first.

    Only the newest 2000 inspections that come into question are looked at.
    """

    def search(database: Database) -> ReviewQueue:
        rows = [row for row in to_review(database, category, order, decision) if history.images.has(row["sha256"])]
        page = [ToReview.model_validate(_fields_of(history, row) | {"weight": _weight(row)}) for row in rows[:limit]]
        return ReviewQueue(inspections=page, left=len(rows), searched=NEWEST)

    return await history.ask(search)


def _weight(row: Row) -> float | None:
    return 1 / row["kept_share"] if row["kept_share"] else None


@router.get(
    "/{id}",
    summary="Show a past inspection",
    responses=documented("invalid-request", "unknown-inspection", "history-off", "history-unavailable"),
)
@needs(Role.INSPECT)
async def past_inspection(history: HistoryOf, identity: InspectionId, response: Response) -> PastInspectionDetail:
    """Everything that is kept of it. The header `ETag` has the version of its label."""
    row = await require(history, identity)

    def look(database: Database) -> PastInspectionDetail:
        lines = database.audited(MOST, subject=str(identity), action="label")
        labels = [_label_line(line) for line in since_taken_back(lines)]
        return PastInspectionDetail.model_validate(_fields_of(history, row) | {"labels": labels})

    detail = await history.ask(look)
    response.headers["ETag"] = f'"{row["label_version"]}"'
    return detail


@router.get(
    "/{id}/nearest-good",
    summary="A good part to compare with",
    responses=documented(
        "invalid-request", "unknown-inspection", "no-good-inspection", "history-off", "history-unavailable"
    ),
)
@needs(Role.INSPECT)
async def past_nearest_good(history: HistoryOf, identity: InspectionId) -> NearestGood:
    """The inspection nearest in time, before or after this one, that is good, is of the same category, has a picture of
    the same size, and whose image is kept. It is one that is labelled `normal`; if there is none, one whose verdict is
    `pass` and that nobody has labelled. The same image again does not count."""
    row = await require(history, identity)

    def search(database: Database) -> NearestGood | None:
        good = nearest_good(database, row, history.images.has)
        if good is None:
            return None
        lines = database.audited(1, subject=str(good["id"]), action="label")
        labels = [_label_line(line) for line in since_taken_back(lines)]
        return NearestGood.model_validate(_fields_of(history, good) | {"said": labels[0] if labels else None})

    found = await history.ask(search)
    if found is None:
        raise Problem("no-good-inspection", reason=_why_no_good(row))
    return found


def _why_no_good(row: Row) -> str:
    if row["width"] is None:
        return "this image could not be read"
    return (
        f"the images of good parts of {row['category']!r} with {row['width']} x {row['height']} pixels are not kept; "
        "label a good part whose image is kept as normal, or keep more images with INSPECT_KEEP_IMAGES"
    )


async def require(history: History, identity: UUID) -> Row:
    """The row of an inspection. One that was just answered is waited for: it is on its way to the database.

    Raises:
        Problem: 404 if there is no such inspection.
    """
    while (row := await history.ask(lambda database: database.get(identity))) is None:
        if abs(time() - seconds_of(identity)) > ON_ITS_WAY_SECONDS:
            raise Problem("unknown-inspection", id=identity)
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
    return row


async def _image_of(history: History, row: Row) -> bytes:
    """The file that was sent.

    Raises:
        Problem: 404 if it is not kept.
    """
    data = await asyncio.to_thread(history.images.read, row["sha256"])
    if data is None:
        reason = "it has been removed" if row["image_kept"] else "the rule of INSPECT_KEEP_IMAGES leaves it out"
        raise Problem("image-not-kept", reason=reason)
    return data


_PICTURE_PROBLEMS = (
    "invalid-request", "unknown-inspection", "image-not-kept", "history-off", "history-unavailable", "deadline-passed",
    "decoder-lost", "not-decodable",
)  # fmt: skip
_DRAWN_PROBLEMS = (*_PICTURE_PROBLEMS, "version-not-served", "queue-full", "device-lost", "shutting-down")
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_PICTURE = {"content": {"image/png": _BINARY}}
_FILE = {"content": dict.fromkeys(MEDIA_TYPES, _BINARY)}


@router.get(
    "/{id}/image",
    summary="The image of a past inspection",
    response_class=Response,
    responses={200: {"description": "The file that was sent, or a PNG", **_FILE}, **documented(*_PICTURE_PROBLEMS)},
)
@needs(Role.INSPECT)
async def past_image(
    history: HistoryOf,
    state: StateOf,
    identity: InspectionId,
    width: Annotated[
        int | None,
        Query(ge=16, le=4096, description="For a small PNG of at most this width, pixels"),
    ] = None,
) -> Response:
    """The bytes that were sent, if they are kept."""
    row = await require(history, identity)
    data = await _image_of(history, row)
    if width is None or row["width"] is None:
        media_type, ending = type_of(data)
        return Response(data, media_type=media_type, headers=_as_file(identity, ending))
    width = min(width, row["width"])
    height = max(1, min(MAX_DRAWN_SIDE, round(row["height"] * width / row["width"])))
    entry = state.catalogue.get(row["category"])
    reading = entry.card.preprocessor.reading if isinstance(entry, Ready) else Reading()
    return Response(await state.inspector.thumbnail(data, width, height, reading), media_type="image/png")


@router.get(
    "/{id}/overlay",
    summary="The overlay of a past inspection",
    response_class=Response,
    responses={200: {"description": "The image with the heat over it", **_PICTURE}, **documented(*_DRAWN_PROBLEMS)},
)
@needs(Role.INSPECT)
async def past_overlay(history: HistoryOf, state: StateOf, identity: InspectionId) -> Response:
    """Drawn again from the image that is kept, by the version that judged it, if that one serves."""
    ready, data = await _served(history, state, identity)
    return Response(await state.inspector.overlay_again(ready, data), media_type="image/png")


@router.get(
    "/{id}/heatmap",
    summary="The heat map of a past inspection",
    response_class=Response,
    responses={200: {"description": "As `heatmap_png` of an answer", **_PICTURE}, **documented(*_DRAWN_PROBLEMS)},
)
@needs(Role.INSPECT)
async def past_heatmap(history: HistoryOf, state: StateOf, identity: InspectionId) -> Response:
    """Computed again from the image that is kept, by the version that judged it, if that one serves."""
    ready, data = await _served(history, state, identity)
    return Response(await state.inspector.heatmap(ready, data), media_type="image/png")


async def _served(history: History, state: State, identity: UUID) -> tuple[Ready, bytes]:
    row = await require(history, identity)
    data = await _image_of(history, row)
    entry = state.catalogue.get(row["category"])
    if not isinstance(entry, Ready) or entry.card.model_version != row["model_version"]:
        raise Problem("version-not-served", version=row["model_version"], category=row["category"])
    return entry, data


def _as_file(identity: UUID, ending: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{identity}.{ending}"'}


@router.put(
    "/{id}/label",
    summary="Label a past inspection",
    responses=documented(
        "invalid-request", "unsupported-media-type", "too-many-bytes", "upload-timeout", "unknown-inspection",
        "label-changed", "history-off", "history-unavailable",
    ),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": Label.model_json_schema(ref_template=SCHEMA)}},
        }
    },
)  # fmt: skip
@needs(Role.REVIEW)
async def label(
    request: Request,
    history: HistoryOf,
    identity: InspectionId,
    response: Response,
    if_match: Annotated[
        str | None,
        Header(
            description="The `ETag` that you have seen; `*` replaces any label. Without it, only an "
            "inspection that has none is labelled"
        ),
    ] = None,
) -> LabelLine:
    """What a person says of the part. The label before stays in the history of labels."""
    given = _read_label(await read_json_body(request, LABEL_BYTES))
    replaces = _read_version(if_match)
    _require_places(given, await require(history, identity))

    def set_label(database: Database) -> LabelLine:
        version = database.label(identity, request.scope.get(ACTOR), given.model_dump(mode="json"), replaces)
        (line,) = database.audited(1, version + 1, subject=str(identity), action="label")
        return _label_line(line)

    line = await _changed(history, identity, set_label)
    response.headers["ETag"] = f'"{line.version}"'
    return line


@router.delete(
    "/{id}/label",
    summary="Take a label back",
    status_code=204,
    responses=documented(
        "invalid-request", "unknown-inspection", "label-changed", "history-off", "history-unavailable"
    ),
)
@needs(Role.REVIEW)
async def unlabel(
    request: Request,
    history: HistoryOf,
    identity: InspectionId,
    if_match: Annotated[
        str | None, Header(description="The `ETag` of the label that you take back; `*` takes any back")
    ] = None,
) -> None:
    """The inspection has no label then. What was said stays in the log of changes."""
    replaces = _read_version(if_match)
    await require(history, identity)
    await _changed(
        history, identity, lambda database: database.label(identity, request.scope.get(ACTOR), None, replaces)
    )


async def _changed(history: History, identity: UUID, change: Callable[[Database], T]) -> T:
    """What a change of a label answers.

    Raises:
        Problem: 404 if there is no such inspection, 412 if it has another label than the one that was seen.
    """
    try:
        return await history.ask(change)
    except LookupError:
        raise Problem("unknown-inspection", id=identity) from None
    except LabelChangedError as error:
        raise Problem("label-changed", label=error.label, version=error.version) from None


def _label_line(line: Row) -> LabelLine:
    return LabelLine(**line["after"], version=line["n"], time=line["time"], actor=line["actor"])


def _read_label(data: bytes) -> Label:
    try:
        return Label.model_validate_json(data)
    except ValidationError as error:
        raise Problem("invalid-request", reason=reason_of(error)) from None


def _require_places(given: Label, row: Row) -> None:
    """Requires that the boxes of a label can be the place of a fault in this image.

    Raises:
        Problem: 422 if not.
    """
    if not given.boxes:
        return
    if given.label == "normal":
        raise Problem(
            "invalid-request", reason="boxes: a normal part has no fault; leave them out, or label it otherwise"
        )
    width, height = row["width"], row["height"]
    if width is None:
        raise Problem("invalid-request", reason="boxes: this image could not be read, so it has no places")
    for index, box in enumerate(given.boxes):
        if box.x + box.width > width or box.y + box.height > height:
            reason = f"boxes.{index}: it must lie within the image, which has {width} x {height} pixels"
            raise Problem("invalid-request", reason=reason)


def reason_of(error: ValidationError) -> str:
    """What is wrong with a body, by the names of its fields."""
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}" for item in error.errors())


def _read_version(if_match: str | None) -> int | None:
    if if_match is None:
        return 0
    if if_match.strip() == "*":
        return None
    match = re.fullmatch(r'"(\d{1,18})"', if_match.strip())
    if match is None:
        raise Problem("invalid-request", reason='If-Match is no ETag that this server gave, such as "17"')
    return int(match[1])


@audit_router.get(
    "/v1/audit",
    summary="What people changed",
    responses=documented("invalid-request", "history-off", "history-unavailable"),
)
@needs(Role.ADMIN)
async def audit(
    history: HistoryOf,
    subject: Annotated[_Text, Query(description="Id of an inspection, or a category")] = None,
    action: Action | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST, description="Most lines of this page")] = 50,
    cursor: Annotated[str | None, Query(pattern=r"^\d{1,18}$", description="`next` of the page before")] = None,
) -> Audit:
    """Labels, and changes of what is served, newest first. Lines are added and never changed."""
    before = None if cursor is None else int(cursor)
    lines = await history.ask(lambda database: database.audited(limit + 1, before, subject=subject, action=action))
    page = lines[:limit]
    return Audit(
        lines=[AuditLine.model_validate(line) for line in page],
        next=str(page[-1]["n"]) if len(lines) > limit else None,
    )
