"""The HTTP endpoints. Each reads its request, asks the room that knows, and answers."""

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import ClientDisconnect

from model.choices import MapForm
from model.store.history import Kept
from service.catalogue import Ready, Refused, error_rates_of, summary_of
from service.choices import Action, Localize, Role
from service.device.engine import DeviceLostError, Engine, EngineClosedError
from service.device.jobs import Job, Outcome
from service.http.access import ACTOR, needs, open_to_all
from service.http.bodies import FIELD, FORM_TYPE, IMAGE_TYPES, read_form, read_image_body, read_image_form
from service.http.errors import documented
from service.http.parameters import part_info_of_query, refuse_unknown_parameters, with_texts
from service.inspection import Wanted
from service.observe.logs import RECORD, server_timing
from service.observe.observation import PROBES
from service.observe.telemetry import UNKNOWN_CATEGORY
from service.part_info import PART_FIELDS, PartInfo
from service.part_inspection import inspect_part as judge_part
from service.parts import arrange, read_part_card, summaries
from service.problems import Problem, problem_of
from service.schemas import (
    BatchAnswer,
    Candidate,
    CategoryDetail,
    CategoryList,
    CategorySummary,
    Health,
    Inspection,
    KeptVersion,
    ListedCategory,
    PartAnswer,
    PartList,
    RolledBack,
)
from service.shadow import unproven
from service.state import State, state_of

log = logging.getLogger(__name__)
router = APIRouter(dependencies=[Depends(refuse_unknown_parameters)])
metrics_router = APIRouter(dependencies=[Depends(refuse_unknown_parameters)])
"""Of the metrics, where they have no port of their own."""
no_metrics_router = APIRouter(include_in_schema=False)
"""In its place, where they have."""
T = TypeVar("T")

PROBE_SECONDS = 2.0
"""How long a probe waits for the device."""

CategoryName = Annotated[str, Path(description="A category that `GET /v1/categories` lists")]
LocalizeQuery = Annotated[
    Localize,
    Query(
        description="auto: find the place of the fault only when the score is at or above the threshold; always; never"
    ),
]
MapQuery = Annotated[
    MapForm | None,
    Query(
        alias="map",
        description="gradient: the paper's map, the gradient of the global score; gradient-distance: the gradient of "
        "the local distances, and these; distance: the local distances alone, which cost nothing. Else the "
        "category's own: gradient with the global score, gradient-distance with the local one",
    ),
]
PartQuery = Annotated[
    str | None,
    Query(description="Name of a card that `GET /v1/parts` lists; it says which views the part must have"),
]
VersionQuery = Annotated[
    str | None,
    Query(description="`model_version` of a kept version, see `GET /v1/categories/{category}`; else one step back"),
]
CandidateQuery = Annotated[
    str | None,
    Query(alias="version", description="`model_version` of the candidate that you have seen; else whichever is there"),
]
PartInfoQuery = Annotated[PartInfo, Depends(part_info_of_query)]
StateOf = Annotated[State, Depends(state_of)]

_BINARY = {"type": "string", "format": "binary"}
_TEXTS = {name: {"type": "string", "description": "As the parameter"} for name in PART_FIELDS}
_HEADERS = {
    "X-Anomaly-Score": "Anomaly score",
    "X-Anomaly-Threshold": "The decision is anomalous when the score is at or above this",
    "X-Anomaly-Decision": "normal or anomalous",
    "X-Anomaly-Verdict": "pass, review or fail",
    "X-Model-Version": "Version of the pair that decided",
    "X-Inspection-ID": "The id of the inspection",
    "Server-Timing": "decode, queue, inference, localization and total as timing_ms has them, milliseconds",
}
_INSPECTION_PROBLEMS = (
    "empty-body",
    "no-image",
    "malformed-form",
    "upload-timeout",
    "too-many-bytes",
    "too-many-images",
    "unsupported-media-type",
    "invalid-request",
    "unknown-map",
    "queue-full",
    "upload-memory-full",
    "internal-error",
    "shutting-down",
)
"""Of the call as a whole, for any images."""
_CATEGORY_PROBLEMS = ("unknown-category", "category-refused")
"""Of a call that names one category in its path."""
_IMAGE_PROBLEMS = ("too-many-pixels", "not-decodable", "device-lost", "out-of-memory", "deadline-passed")


def _json(model: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(model.model_dump_json(), media_type="application/json", headers=headers)


@contextmanager
def _counted(state: State, *categories: str) -> Iterator[None]:
    """Notes the category if it is one, and counts the request by the kind of its problem if it has one.

    While the server ends it refuses the request.
    """
    known = [category for category in categories if category in state.catalogue.names()]
    if len(known) == len(categories) == 1 and (record := RECORD.get()) is not None:
        record.category = known[0]
    try:
        if state.engine.draining:
            raise EngineClosedError
        yield
    except Exception as error:
        problem = problem_of(error)
        for category in known or [UNKNOWN_CATEGORY]:
            state.telemetry.images.labels(category, problem.kind).inc()
        raise problem from error


def _wants_picture(accept: str) -> bool:
    """Whether an Accept header prefers image/png to application/json, which is the default."""
    quality = {"image/png": 0.0, "application/json": 0.0}
    for item in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in item.split(";"))
        if kind in quality:
            q = next((part[2:] for part in parameters if part.startswith("q=")), "1")
            with suppress(ValueError):
                quality[kind] = float(q)
    return quality["image/png"] > quality["application/json"]


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The work's result; cancels it when the client disconnects, so that the device does no work in vain.

    Raises:
        ClientDisconnect: if the client has gone.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        watch.cancel()


@router.post(
    "/v1/categories/{category}/inspect",
    summary="Inspect one image",
    tags=["inspection"],
    response_model=Inspection,
    responses={
        200: {
            "description": "The verdict. With Accept: image/png the overlay picture, the verdict in headers",
            "content": {"application/json": {}, "image/png": {"schema": _BINARY}},
            "headers": {name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()},
        },
        **documented(*_INSPECTION_PROBLEMS, *_CATEGORY_PROBLEMS, *_IMAGE_PROBLEMS),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                **{media_type: {"schema": _BINARY} for media_type in IMAGE_TYPES},
                FORM_TYPE: {
                    "schema": {"type": "object", "required": [FIELD], "properties": {FIELD: _BINARY, **_TEXTS}},
                },
            },
        }
    },
)
@needs(Role.INSPECT)
async def inspect(
    request: Request,
    category: CategoryName,
    state: StateOf,
    part_info: PartInfoQuery,
    localize: LocalizeQuery = Localize.AUTO,
    form: MapQuery = None,
) -> Response:
    """Send the image itself as the body, or a form with one field `image`. What is said of the part stands in the
    query, or in further fields of the form."""
    with _counted(state, category):
        ready = state.catalogue.require(category)
        Wanted(localize, form).check(ready.card)
        state.engine.check_room()
        sent = await read_image_body(request, state.settings.max_image_bytes)
        wanted = Wanted(localize, form, with_texts(part_info, sent.texts))
        ((_, data),) = sent.images
        if not _wants_picture(request.headers.get("accept", "")):
            inspection = await _unless_gone(request, state.inspector.inspect(ready, data, wanted))
            return _json(inspection, {"Server-Timing": server_timing(inspection.timing_ms)})
        inspection, picture = await _unless_gone(request, state.inspector.overlay(ready, data, wanted))
        headers = {
            "X-Anomaly-Score": repr(inspection.score),
            "X-Anomaly-Threshold": repr(inspection.threshold),
            "X-Anomaly-Decision": inspection.decision,
            "X-Anomaly-Verdict": inspection.verdict,
            "X-Model-Version": inspection.model_version,
            "X-Inspection-ID": str(inspection.id),
            "Server-Timing": server_timing(inspection.timing_ms),
        }
        return Response(picture, media_type="image/png", headers=headers)


@router.post(
    "/v1/categories/{category}/inspect-batch",
    summary="Inspect many images",
    tags=["inspection"],
    response_model=BatchAnswer,
    responses={
        200: {"description": "Answers in the order of the images; one that failed has a problem in its place"},
        **documented(*_INSPECTION_PROBLEMS, *_CATEGORY_PROBLEMS),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                FORM_TYPE: {
                    "schema": {
                        "type": "object",
                        "required": [FIELD],
                        "properties": {FIELD: {"type": "array", "items": _BINARY}, **_TEXTS},
                    }
                }
            },
        }
    },
)
@needs(Role.INSPECT)
async def inspect_batch(
    request: Request,
    category: CategoryName,
    state: StateOf,
    part_info: PartInfoQuery,
    localize: LocalizeQuery = Localize.AUTO,
    form: MapQuery = None,
) -> Response:
    """Send a form with one field `image` for each image. What is said of the part stands in the query, or in further
    fields of the form, and every inspection repeats it."""
    with _counted(state, category):
        ready = state.catalogue.require(category)
        Wanted(localize, form).check(ready.card)
        settings = state.settings
        state.engine.check_room()
        sent = await read_image_form(request, settings.max_image_bytes, settings.max_batch_images)
        wanted = Wanted(localize, form, with_texts(part_info, sent.texts))
        images = [(ready, data) for _, data in sent.images]
        results = await _unless_gone(request, state.inspector.inspect_many(images, wanted))
        return _json(BatchAnswer(results=results))


@router.post(
    "/v1/parts/inspect",
    summary="Inspect a part by several views",
    tags=["inspection"],
    response_model=PartAnswer,
    responses={
        200: {"description": "One verdict, and the views; one that is missing or failed has a problem in its place"},
        **documented(*_INSPECTION_PROBLEMS, "unknown-category", "unknown-part", "part-refused"),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                FORM_TYPE: {
                    "schema": {
                        "type": "object",
                        "description": "Each image is a file in a field that is named after its category",
                        "properties": _TEXTS,
                        "additionalProperties": {"type": "array", "items": _BINARY},
                    }
                }
            },
        }
    },
)
@needs(Role.INSPECT)
async def inspect_part(
    request: Request,
    state: StateOf,
    part_info: PartInfoQuery,
    part: PartQuery = None,
    localize: LocalizeQuery = Localize.AUTO,
    form: MapQuery = None,
) -> Response:
    """Send a form with one file for each image, in a field that is named after the category that judges it. A field
    may come several times. What is said of the part stands in the query, or in fields without a file name: a file in
    the field `lot` is an image for the category `lot`."""
    most = state.settings.max_batch_images
    with _counted(state):
        card = None if part is None else await asyncio.to_thread(read_part_card, state.part_cards, part, most)
        state.engine.check_room()
        sent = await read_form(request, state.settings.max_image_bytes, most, "a file for each image")
        part_info = with_texts(part_info, sent.texts)
        if not sent.images:
            raise Problem("no-image", reason="the form has no file; send each image as a file, named by its category")
        if card is None:
            for category, _ in sent.images:
                state.catalogue.find(category)
        places = arrange(card, sent.images)
    with _counted(state, *dict.fromkeys(category for category, _ in places)):
        wanted = Wanted(localize, form, part_info)
        work = judge_part(state.inspector, state.catalogue, state.telemetry, places, wanted, part, card)
        return _json(await _unless_gone(request, work))


@router.get(
    "/v1/parts",
    summary="List the parts that have a card",
    tags=["inspection"],
    responses=documented("invalid-request", "part-refused"),
)
@needs(Role.INSPECT)
async def parts(state: StateOf) -> PartList:
    """Every card, with the views that a part must have. The cards are read at each call."""
    most = state.settings.max_batch_images
    return PartList(parts=await asyncio.to_thread(summaries, state.part_cards, state.catalogue, most))


@router.get(
    "/v1/categories",
    summary="List the categories",
    tags=["categories"],
    responses=documented("invalid-request"),
)
@needs(Role.INSPECT)
async def categories(state: StateOf) -> CategoryList:
    """Every category of the weights folder, with the reason where one is refused."""
    has, summaries = state.shadow.has_candidate, state.catalogue.summaries()
    listed = [ListedCategory(**one.model_dump(), candidate=has(one.category)) for one in summaries]
    return CategoryList(categories=listed)


@router.get(
    "/v1/categories/{category}",
    summary="Show one category",
    tags=["categories"],
    responses=documented("unknown-category", "invalid-request"),
)
@needs(Role.INSPECT)
async def category_detail(category: CategoryName, state: StateOf) -> CategoryDetail:
    """A category with the record of its training and calibration."""
    entry: Ready | Refused = state.catalogue.find(category)
    card = entry.card if isinstance(entry, Ready) else None
    kept = [_kept_version_of(one) for one in await asyncio.to_thread(state.versions.kept, category)]
    rates = None if card is None else await asyncio.to_thread(error_rates_of, card)  # older cards need scipy for it
    return CategoryDetail(**summary_of(entry).model_dump(), card=card, error_rates=rates, kept_versions=kept)


def _kept_version_of(one: Kept) -> KeptVersion:
    found = one.card.calibration
    return KeptVersion(
        model_version=one.version,
        threshold=found.threshold,
        calibration=found.method,
        calibrated=found.date,
        rolled_back=one.rolled_back,
    )


async def _works(engine: Engine[Job, Outcome]) -> bool:
    """Whether the device has worked recently, or does a small computation within the time that a probe can wait."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await asyncio.wrap_future(engine.check())
    except Exception:
        return False
    return True


@router.post(
    "/v1/categories/{category}/reload",
    summary="Read a category again",
    tags=["categories"],
    responses=documented("unknown-category", "reload-refused", "invalid-request", "device-lost", "shutting-down"),
)
@needs(Role.ADMIN)
async def reload(request: Request, category: CategoryName, state: StateOf) -> CategorySummary:
    """Reads what is on the disk while the current version serves, tries it, and swaps the two in one step."""
    before = state.catalogue.version_of(category)
    summary = summary_of(await asyncio.wrap_future(state.engine.call_in_steps(state.versions.reload(category))))
    await state.shadow.look()
    await audit(request, state, "reload", category, before, state.catalogue.version_of(category))
    return summary


async def audit(request: Request, state: State, action: Action, category: str, before: object, after: object) -> None:
    """Notes a change in the history, if there is one."""
    if state.history is not None:
        await state.history.note(request.scope.get(ACTOR), action, category, before, after)


@router.post(
    "/v1/categories/{category}/rollback",
    summary="Go back to a version that was replaced",
    tags=["categories"],
    responses=documented(
        "unknown-category", "no-previous-version", "reload-refused", "invalid-request", "device-lost", "shutting-down"
    ),
)
@needs(Role.ADMIN)
async def rollback(request: Request, category: CategoryName, state: StateOf, to: VersionQuery = None) -> RolledBack:
    """Serves the version that served before, or the one named, on the disk too if that can be written. What it
    replaces is kept, and `to` brings it back."""
    before = state.catalogue.version_of(category)
    work = state.versions.roll_back(category, to)
    persistent = await asyncio.wrap_future(state.engine.call_in_steps(work))
    await audit(request, state, "rollback", category, before, state.catalogue.version_of(category))
    return RolledBack(**summary_of(state.catalogue.find(category)).model_dump(), persistent=persistent)


def _check_known(state: State, category: str) -> None:
    """Raises `UnknownCategoryError` if there is neither such a category nor a candidate of it."""
    if not state.shadow.has_candidate(category):
        state.catalogue.find(category)


@router.get(
    "/v1/categories/{category}/candidate",
    summary="Compare the candidate with the version in force",
    tags=["categories"],
    responses=documented("unknown-category", "no-candidate", "history-unavailable", "invalid-request"),
)
@needs(Role.INSPECT)
async def candidate(category: CategoryName, state: StateOf) -> Candidate:
    """What the candidate says of the images that were inspected, beside what the version in force said. Where the
    category does not exist yet, there is nothing to compare it with."""
    _check_known(state, category)
    return await state.shadow.describe(category, state.catalogue.version_of(category))


@router.post(
    "/v1/categories/{category}/candidate/promote",
    summary="Serve the candidate",
    tags=["categories"],
    responses=documented(
        "unknown-category", "no-candidate", "reload-refused", "not-proven", "weights-not-changed",
        "history-unavailable", "invalid-request", "device-lost", "shutting-down",
    ),
)  # fmt: skip
@needs(Role.ADMIN)
async def promote(
    request: Request,
    category: CategoryName,
    state: StateOf,
    version: CandidateQuery = None,
    only_if_proven: Annotated[
        bool,
        Query(description="Change nothing unless the comparison is complete and shows that the candidate is better"),
    ] = False,
) -> CategorySummary:
    """The candidate replaces the version in force, on the disk too. That version is kept, and `rollback` brings it
    back. The candidate of a category that does not exist yet becomes its first version."""
    before = state.catalogue.version_of(category)
    if only_if_proven:
        _check_known(state, category)
        found = await state.shadow.describe(category, before)
        if version not in (None, found.model_version):
            raise Problem("no-candidate", reason=f"the candidate of {category!r} is another version than {version!r}")
        if reason := unproven(found):
            raise Problem("not-proven", reason=reason)
        version = found.model_version
    work = state.versions.promote(category, version)
    summary = summary_of(await asyncio.wrap_future(state.engine.call_in_steps(work)))
    await state.shadow.look()
    await audit(request, state, "promote", category, before, summary.model_version)
    return summary


@router.delete(
    "/v1/categories/{category}/candidate",
    summary="Drop the candidate",
    tags=["categories"],
    status_code=204,
    responses=documented("unknown-category", "no-candidate", "weights-not-changed", "invalid-request"),
)
@needs(Role.ADMIN)
async def drop_candidate(
    request: Request, category: CategoryName, state: StateOf, version: CandidateQuery = None
) -> None:
    """Takes the candidate away from the disk. The version in force stays as it is."""
    _check_known(state, category)
    dropped = await asyncio.to_thread(state.versions.drop_candidate, category, version)
    await state.shadow.look()
    await audit(request, state, "drop-candidate", category, dropped, None)


@router.get(
    "/livez",
    summary="Is the process able to work?",
    tags=[PROBES],
    responses=documented("invalid-request", "not-alive"),
)
@open_to_all
async def livez(state: StateOf) -> Health:
    """200 unless the device is lost for good, or hangs longer than it may; then restart the process."""
    works = await _works(state.engine)  # has a dead device found even where no image comes
    if state.engine.lost or (state.engine.stuck and not works):
        raise Problem("not-alive")
    return Health(status="alive")


@router.get(
    "/readyz",
    summary="Can the server inspect an image now?",
    tags=[PROBES],
    responses=documented("invalid-request", "shutting-down", "device-lost", "no-category", "device-busy"),
)
@open_to_all
async def readyz(state: StateOf) -> Health:
    """200 while at least one category is ready and the device works."""
    if state.engine.draining:
        raise EngineClosedError
    if state.engine.lost:
        raise DeviceLostError
    if not state.catalogue.ready():
        raise Problem("no-category")
    if not await _works(state.engine):
        raise Problem("device-busy", seconds=PROBE_SECONDS)
    return Health(status="ready")


@metrics_router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    tags=[PROBES],
    response_class=Response,
    responses=documented("invalid-request"),
)
@needs(Role.INSPECT)
async def metrics(state: StateOf) -> Response:
    """Prometheus' text format."""
    return Response(state.telemetry.exposition(), media_type=CONTENT_TYPE_LATEST)


@no_metrics_router.get("/metrics", tags=[PROBES])
@open_to_all
async def no_metrics() -> None:
    """As a path that is not there, but without asking for a key: the metrics have a port of their own."""
    raise Problem("not-found")
