"""Reads request bodies within their limits: an image as it is, or multipart/form-data."""

import re
from collections.abc import AsyncGenerator, AsyncIterator

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.problems import Problem

IMAGE_TYPES = ("image/png", "image/jpeg", "image/bmp", "image/tiff", "image/webp", "application/octet-stream")
"""For the documentation. Other names of these formats are accepted too: the bytes say what an image is."""
ANY_IMAGE = re.compile(r"|image/.+|[^/]+/octet-stream")
"""Media types of a body that may be an image; also none at all."""
FORM_TYPE = "multipart/form-data"
FIELD = "image"
FORM_OVERHEAD_BYTES = 64 << 10
"""What boundaries and headers of a form may add to its images."""
_FILE_NAME = re.compile(rb";\s*filename\s*=", re.IGNORECASE)
_ENCODED_FILE_NAME = re.compile(rb";\s*filename\*\s*=", re.IGNORECASE)


def media_type_of(request: Request) -> str:
    """The body's media type without parameters; empty if the client does not say.

    Raises:
        Problem: 415 if the body is compressed.
    """
    coding = request.headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity"):
        reason = (
            f"the Content-Encoding {coding!r} is not supported; send the image as it is, images are compressed already"
        )
        raise Problem("unsupported-media-type", reason=reason)
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_image_body(request: Request, max_bytes: int) -> bytes:
    """The one image of a request, from the body itself or from the form field ``image``.

    Raises:
        Problem: 400 (empty body, malformed form, not exactly one image), 413, 415.
    """
    media_type = media_type_of(request)
    if media_type == FORM_TYPE:
        images = await _read_form(request, max_bytes + FORM_OVERHEAD_BYTES, max_images=1)
        return images[0]
    if not ANY_IMAGE.fullmatch(media_type):
        hint = ""
        if media_type == "application/x-www-form-urlencoded":
            hint = "; with curl add -H 'Content-Type: application/octet-stream'"
        elif media_type.startswith("text/") or media_type.endswith("json"):
            hint = "; send the bytes of the file itself, not base64 or other text"
        reason = f"{media_type!r} is not an image type; send {', '.join(IMAGE_TYPES)} or {FORM_TYPE}{hint}"
        raise Problem("unsupported-media-type", reason=reason)
    return b"".join([chunk async for chunk in _limited(request, max_bytes)])


async def read_image_form(request: Request, max_bytes: int, max_images: int) -> list[bytes]:
    """The images of a form with one or more fields ``image``, in order. Each is checked for its own size later.

    Raises:
        Problem: 400 (malformed form or no image), 413, 415.
    """
    if media_type_of(request) != FORM_TYPE:
        raise Problem("unsupported-media-type", reason=f"send {FORM_TYPE} with one field {FIELD!r} for each image")
    return await _read_form(request, max_images * (max_bytes + FORM_OVERHEAD_BYTES), max_images)


async def _read_form(request: Request, max_bytes: int, max_images: int) -> list[bytes]:
    # One more file than allowed is let in, so that too many can be told from malformed.
    stream = _without_preamble(_limited(request, max_bytes), request.headers["content-type"])
    parser = _FormParser(request.headers, stream, max_files=max_images + 1)
    parser.spool_max_size = max_bytes  # in memory: images need no room on a disk
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        if isinstance(error, MultiPartException) and error.message.startswith("Too many files"):
            raise _too_many(max_images) from None
        raise Problem("malformed-form", reason=getattr(error, "message", error)) from None
    try:
        fields = form.getlist(FIELD)
        if not fields:
            raise Problem("no-image", reason=f"the form has no field {FIELD!r}")
        if len(fields) > max_images:
            raise _too_many(max_images)
        images = []
        for field in fields:
            if not isinstance(field, UploadFile):
                raise Problem("no-image", reason=f"the field {FIELD!r} must be a file, with a file name")
            images.append(await field.read())
        return images
    finally:
        await form.close()


def _too_many(max_images: int) -> Problem:
    what = "exactly one" if max_images == 1 else f"at most {max_images}"
    return Problem("too-many-images", allowed=what)


class _FormParser(MultiPartParser):
    """Takes a part for a file if it has a file name in either form, also ``filename*=`` alone (RFC 8187)."""

    def on_headers_finished(self) -> None:
        """Called by the parser after the headers of a part."""
        disposition = self._current_part.content_disposition or b""
        if _ENCODED_FILE_NAME.search(disposition) and not _FILE_NAME.search(disposition):
            self._current_part.content_disposition = disposition + b'; filename="file"'
        super().on_headers_finished()


async def _without_preamble(stream: AsyncIterator[bytes], content_type: str) -> AsyncGenerator[bytes, None]:
    """Drops what stands before the first boundary of a form (RFC 2046, section 5.1.1), which the parser refuses."""
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    delimiter = b"\r\n--" + boundary
    kept = b"\r\n"  # so that a boundary at the very start is found like any other
    async for chunk in stream:
        kept += chunk
        if (place := kept.find(delimiter)) >= 0:
            yield kept[place + 2 :]
            break
        kept = kept[-len(delimiter) :]
    else:
        yield kept.removeprefix(b"\r\n")
    async for chunk in stream:
        yield chunk


async def _limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """The body's chunks, up to a limit; a length declared beyond it is refused before anything is read."""
    refusal = Problem("too-many-bytes", what="the body", limit=max_bytes)
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise refusal
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > max_bytes:
            raise refusal
        yield chunk
