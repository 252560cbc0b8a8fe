"""The endpoints of training images: upload them one by one, list them, remove them."""

import asyncio
from hashlib import sha256
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from model.lifecycle.recipe import Recipe
from model.store.store import check_category_name
from model.store.version import StoreError
from service.catalogue import Ready
from service.choices import Role
from service.http.access import needs
from service.http.bodies import IMAGE_TYPES, read_plain_image
from service.http.errors import documented
from service.http.parameters import refuse_unknown_parameters
from service.http.routes import StateOf, TrainingsOf, audit
from service.problems import Problem
from service.schemas import UploadedImage, UploadedImageList
from service.training_images import SHA256, NoRoomError

training_images_router = APIRouter(tags=["jobs"], dependencies=[Depends(refuse_unknown_parameters)])


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


@training_images_router.put(
    "/v1/categories/{category}/training-images/{sha256}",
    summary="Upload a training image",
    response_model=UploadedImage,
    responses={
        200: {"description": "It was there already"},
        201: {"description": "It is stored", "model": UploadedImage},
        **documented(
            "empty-body", "upload-timeout", "too-many-bytes", "too-many-pixels", "unsupported-media-type",
            "not-decodable", "invalid-request", "trainings-off", "upload-memory-full", "decoder-lost",
            "deadline-passed", "image-not-stored",
        ),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in IMAGE_TYPES},
        }
    },
)  # fmt: skip
@needs(Role.ADMIN)
async def upload_training_image(
    request: Request, category: AnyCategory, name: ImageName, state: StateOf, trainings: TrainingsOf
) -> Response:
    """Send the image of a normal part as the body. It is read as an inspection reads it, and refused if that cannot be
    done. The same image again changes nothing, so an upload that broke off is simply repeated."""
    data = await read_plain_image(request, state.settings.max_image_bytes)
    if not data:
        raise Problem("empty-body")
    found = sha256(data).hexdigest()
    if found != name.lower():
        reason = f"the path names the image {name.lower()}, and the SHA-256 of the body is {found}; send it again"
        raise Problem("invalid-request", reason=reason)
    entry = state.catalogue.get(category)
    step = entry.preprocessing if isinstance(entry, Ready) else Recipe().preprocessing
    await state.inspector.check_readable(data, step)
    try:
        is_new = await asyncio.to_thread(trainings.uploaded.put, category, found, data)
    except NoRoomError as error:
        raise Problem("image-not-stored", reason=error) from None
    if is_new:
        await audit(request, state, "upload-training-image", category, None, found)
    there = await asyncio.to_thread(trainings.uploaded.uploaded, category)
    answer = UploadedImage(category=category, sha256=found, is_new=is_new, images=len(there.sha256), bytes=there.bytes)
    return Response(answer.model_dump_json(), 201 if is_new else 200, media_type="application/json")


@training_images_router.get(
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


@training_images_router.delete(
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


@training_images_router.delete(
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
