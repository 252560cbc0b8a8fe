"""The endpoints of trainings: their images, which are uploaded one by one, and the jobs."""

import asyncio
from hashlib import sha256
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import ValidationError

from model.choices import IMAGENET
from model.lifecycle.recipe import Recipe
from model.store.store import check_category_name
from model.store.version import StoreError
from service.catalogue import Ready, Refused
from service.choices import Role
from service.http.access import needs
from service.http.bodies import IMAGE_TYPES, read_optional_json_body, read_plain_image
from service.http.errors import documented
from service.http.history import SCHEMA, reason_of
from service.http.parameters import refuse_unknown_parameters
from service.http.routes import StateOf, audit
from service.problems import Problem
from service.schemas import TrainingJob, TrainingJobs, TrainingOrder, UploadedImage, UploadedImageList
from service.state import State
from service.training_images import SHA256, NoRoomError
from service.trainings import NoTrainingImagesError, TrainingRunningError, Trainings

training_router = APIRouter(tags=["jobs"], dependencies=[Depends(refuse_unknown_parameters)])

ORDER_BYTES = 64 << 10
"""Longest body that says how to train."""
_JOB_PROBLEMS = ("trainings-off", "unknown-job", "invalid-request")
JobId = Annotated[UUID, Path(alias="id", description="The `id` of a job")]


def trainings_of(state: StateOf) -> Trainings:
    """The trainings of the application.

    Raises:
        Problem: 404 if it runs none.
    """
    if state.trainings is None:
        raise Problem("trainings-off")
    return state.trainings


TrainingsOf = Annotated[Trainings, Depends(trainings_of)]


async def new_category_name(
    category: Annotated[str, Path(description="A category, which may be one that does not exist yet")],
) -> str:
    """The name of a category in the path.

    Raises:
        Problem: 422 if no category can have it.
    """
    try:
        check_category_name(category)
    except StoreError as error:
        raise Problem("invalid-request", reason=error) from None
    return category


AnyCategory = Annotated[str, Depends(new_category_name)]
ImageName = Annotated[
    str, Path(alias="sha256", pattern=f"^{SHA256}$", description="SHA-256 of the image's file, hexadecimal")
]


_UPLOAD_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "It was there already"},
    201: {"description": "It is stored", "model": UploadedImage},
    **documented(
        "empty-body", "upload-timeout", "too-many-bytes", "too-many-pixels", "unsupported-media-type",
        "not-decodable", "invalid-request", "trainings-off", "upload-memory-full", "decoder-lost",
        "deadline-passed", "image-not-stored",
    ),
}  # fmt: skip
_IMAGE_BODY = {
    "requestBody": {
        "required": True,
        "content": {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in IMAGE_TYPES},
    }
}


@training_router.post(
    "/v1/categories/{category}/training-images",
    summary="Upload a training image",
    response_model=UploadedImage,
    responses=_UPLOAD_ANSWERS,
    openapi_extra=_IMAGE_BODY,
)
@needs(Role.ADMIN)
async def upload_training_image(
    request: Request, category: AnyCategory, state: StateOf, trainings: TrainingsOf
) -> Response:
    """Send the image of a normal part as the body. The server names it by its SHA-256, and `Location` says so of a new
    one. It is read as an inspection reads it, and refused if that cannot be done. The same image again changes nothing,
    so an upload that broke off is simply repeated."""
    return await _upload(request, category, None, state, trainings)


@training_router.put(
    "/v1/categories/{category}/training-images/{sha256}",
    summary="Upload a training image under its name",
    response_model=UploadedImage,
    responses=_UPLOAD_ANSWERS,
    openapi_extra=_IMAGE_BODY,
)
@needs(Role.ADMIN)
async def upload_named_training_image(
    request: Request, category: AnyCategory, name: ImageName, state: StateOf, trainings: TrainingsOf
) -> Response:
    """The same for a client that computes the SHA-256 itself: a body that has another one is refused."""
    return await _upload(request, category, name.lower(), state, trainings)


async def _upload(request: Request, category: str, name: str | None, state: State, trainings: Trainings) -> Response:
    data = await read_plain_image(request, state.settings.max_image_bytes)
    if not data:
        raise Problem("empty-body")
    found = await asyncio.to_thread(lambda: sha256(data).hexdigest())
    if name not in (None, found):
        reason = f"the path names the image {name}, and the SHA-256 of the body is {found}; send it again"
        raise Problem("invalid-request", reason=reason)
    entry = state.catalogue.get(category)
    step = entry.preprocessing if isinstance(entry, Ready) else Recipe().preprocessing
    await state.inspector.check_readable(data, step)
    uploaded = trainings.uploaded
    try:
        is_new, there = await asyncio.to_thread(
            lambda: (uploaded.put(category, found, data), uploaded.uploaded(category))
        )
    except NoRoomError as error:
        raise Problem("image-not-stored", reason=error) from None
    if is_new:
        await audit(request, state, "upload-training-image", category, None, found)
    answer = UploadedImage(category=category, sha256=found, is_new=is_new, images=len(there.sha256), bytes=there.bytes)
    headers = {}
    if is_new and name is None:
        headers["Location"] = f"training-images/{found}"  # relative, so that it holds behind a prefix
    return Response(answer.model_dump_json(), 201 if is_new else 200, headers, "application/json")


@training_router.get(
    "/v1/categories/{category}/training-images",
    summary="List the uploaded training images",
    responses=documented("trainings-off", "invalid-request"),
)
@needs(Role.INSPECT)
async def training_images(category: AnyCategory, trainings: TrainingsOf) -> UploadedImageList:
    """What is there already need not be sent again. The images of `INSPECT_TRAINING_IMAGES` and those of the history
    are not among them."""
    there = await asyncio.to_thread(trainings.uploaded.uploaded, category)
    return UploadedImageList(category=category, images=len(there.sha256), bytes=there.bytes, sha256=list(there.sha256))


@training_router.delete(
    "/v1/categories/{category}/training-images/{sha256}",
    summary="Remove an uploaded training image",
    status_code=204,
    responses=documented("trainings-off", "not-found", "training-running", "invalid-request"),
)
@needs(Role.ADMIN)
async def remove_training_image(
    request: Request, category: AnyCategory, name: ImageName, state: StateOf, trainings: TrainingsOf
) -> None:
    """Not while a training of the category runs."""
    if trainings.is_training(category):
        raise Problem("training-running")
    if await asyncio.to_thread(trainings.uploaded.remove, category, name) == 0:
        raise Problem("not-found")
    await audit(request, state, "remove-training-images", category, name.lower(), None)


@training_router.delete(
    "/v1/categories/{category}/training-images",
    summary="Remove all uploaded training images",
    status_code=204,
    responses=documented("trainings-off", "training-running", "invalid-request"),
)
@needs(Role.ADMIN)
async def remove_training_images(
    request: Request, category: AnyCategory, state: StateOf, trainings: TrainingsOf
) -> None:
    """Of this category. Not while a training of it runs."""
    if trainings.is_training(category):
        raise Problem("training-running")
    removed = await asyncio.to_thread(trainings.uploaded.remove, category)
    if removed:
        await audit(request, state, "remove-training-images", category, removed, None)


@training_router.post(
    "/v1/categories/{category}/trainings",
    summary="Train a candidate",
    status_code=202,
    responses=documented(
        "category-refused", "trainings-off", "training-running", "no-training-images", "weights-not-changed",
        "history-unavailable", "invalid-request", "unsupported-media-type", "too-many-bytes", "upload-timeout",
    ),
    openapi_extra={
        "requestBody": {
            "required": False,
            "content": {"application/json": {"schema": TrainingOrder.model_json_schema(ref_template=SCHEMA)}},
        }
    },
)  # fmt: skip
@needs(Role.ADMIN)
async def train(request: Request, category: AnyCategory, state: StateOf, trainings: TrainingsOf) -> TrainingJob:
    """Trains the category on the images that were uploaded, on those of `INSPECT_TRAINING_IMAGES`, and on those of the
    history that are labelled normal. The result is its candidate. A category is trained again as it was trained before;
    one that does not exist yet as by default. The body, which may be left out, says what is to be other than that."""
    order = await _read_order(request)
    if isinstance(state.catalogue.get(category), Refused):
        state.catalogue.require(category)
    is_new = state.catalogue.get(category) is None and not await asyncio.to_thread(state.versions.on_disk, category)
    options = order.model_dump(exclude_none=True)
    if is_new:
        options = {"teacher": IMAGENET} | options
    history = state.history
    assert history is not None
    await asyncio.to_thread(state.versions.check_candidate_writable)
    hashes = await history.ask(lambda database: database.normal_images(category))
    kept = await asyncio.to_thread(lambda: [*filter(history.images.has, hashes)])
    uploaded = len((await asyncio.to_thread(trainings.uploaded.uploaded, category)).sha256)
    try:
        trainings.check(category, kept, uploaded, is_new=is_new)
        await _check_teacher(state, options.get("teacher"))
        job = trainings.start(category, kept, history.images.read, options, uploaded=uploaded, is_new=is_new)
    except TrainingRunningError:
        raise Problem("training-running") from None
    except NoTrainingImagesError as error:
        raise Problem("no-training-images", reason=error) from None
    await audit(request, state, "train", category, None, str(job.id))
    return job


async def _check_teacher(state: State, name: str | None) -> None:
    known = await asyncio.to_thread(state.versions.teachers)
    if name is not None and name not in known:
        there = ", ".join(known) or "none"
        reason = f"this server has no teacher {name!r}; it has {there}; name one of these as `teacher`"
        raise Problem("invalid-request", reason=reason)


async def _read_order(request: Request) -> TrainingOrder:
    data = await read_optional_json_body(request, ORDER_BYTES)
    try:
        return TrainingOrder.model_validate_json(data) if data else TrainingOrder()
    except ValidationError as error:
        raise Problem("invalid-request", reason=reason_of(error)) from None


@training_router.get("/v1/jobs", summary="List the trainings", responses=documented(*_JOB_PROBLEMS))
@needs(Role.INSPECT)
async def jobs(trainings: TrainingsOf) -> TrainingJobs:
    """The last 50, newest first."""
    return TrainingJobs(jobs=trainings.all())


@training_router.get("/v1/jobs/{id}", summary="Show a training", responses=documented(*_JOB_PROBLEMS))
@needs(Role.INSPECT)
async def job(identity: JobId, trainings: TrainingsOf) -> TrainingJob:
    """How far it is."""
    return _found(trainings.get(str(identity)), identity)


@training_router.delete("/v1/jobs/{id}", summary="Cancel a training", responses=documented(*_JOB_PROBLEMS))
@needs(Role.ADMIN)
async def cancel(request: Request, identity: JobId, state: StateOf, trainings: TrainingsOf) -> TrainingJob:
    """Ends its process. A job that does not run stays as it is."""
    before = _found(trainings.get(str(identity)), identity).status
    found = _found(await trainings.cancel(str(identity)), identity)
    if before == "running" and found.status == "cancelled":
        await audit(request, state, "cancel-training", found.category, str(identity), None)
    return found


def _found(job: TrainingJob | None, identity: UUID) -> TrainingJob:
    if job is None:
        raise Problem("unknown-job", id=identity)
    return job
