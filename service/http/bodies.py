"""Reads request bodies within their limits: an image as it is, or multipart/form-data."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from difflib import get_close_matches

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.part_info import PART_FIELDS
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


@dataclass(frozen=True)
class Sent:
    """What a body brings.

    Attributes:
        images: files in the order they were sent, each with the name of its form field.
        texts: of the other form fields, by name; each is one of `PART_FIELDS`.
    """

    images: list[tuple[str, bytes]]
    texts: dict[str, str] = field(default_factory=dict)


async def read_image_body(request: Request, max_bytes: int) -> Sent:
    """The one image of a request, from the body itself or from the form field ``image``.

    Raises:
        Problem: 400 (empty body, malformed form, not exactly one image), 413, 415, 422 (other fields of a form).
    """
    media_type = media_type_of(request)
    if media_type == FORM_TYPE:
        return _only_images(await _read_form(request, max_bytes + FORM_OVERHEAD_BYTES, max_images=1))
    return Sent([(FIELD, await _read_plain(request, max_bytes, media_type, f" or {FORM_TYPE}"))])


async def read_plain_image(request: Request, max_bytes: int) -> bytes:
    """The body, which should be an image.

    Raises:
        Problem: 413 if it is longer; 415 if it is of another media type.
    """
    return await _read_plain(request, max_bytes, media_type_of(request), "")


async def _read_plain(request: Request, max_bytes: int, media_type: str, or_else: str) -> bytes:
    if not ANY_IMAGE.fullmatch(media_type):
        hint = ""
        if media_type == "application/x-www-form-urlencoded":
            hint = "; with curl add -H 'Content-Type: application/octet-stream'"
        elif media_type.startswith("text/") or media_type.endswith("json"):
            hint = "; send the bytes of the file itself, not base64 or other text"
        reason = f"{media_type!r} is not an image type; send {', '.join(IMAGE_TYPES)}{or_else}{hint}"
        raise Problem("unsupported-media-type", reason=reason)
    return b"".join([chunk async for chunk in _limited(request, max_bytes)])


async def read_json_body(request: Request, max_bytes: int) -> bytes:
    """The body, which should be JSON.

    Raises:
        Problem: 413 if it is longer; 415 if it is of another media type.
    """
    media_type = media_type_of(request)
    if media_type != "application/json":
        raise Problem("unsupported-media-type", reason=f"{media_type!r} is not application/json")
    return b"".join([chunk async for chunk in _limited(request, max_bytes)])


async def read_optional_json_body(request: Request, max_bytes: int) -> bytes:
    """The body, which should be JSON if there is one.

    Raises:
        Problem: see `read_json_body`.
    """
    if media_type_of(request) == "" and not [chunk async for chunk in _limited(request, max_bytes) if chunk]:
        return b""
    return await read_json_body(request, max_bytes)


async def read_image_form(request: Request, max_bytes: int, max_images: int) -> Sent:
    """The images of a form with one or more fields ``image``, in order. Each is checked for its own size later.

    Raises:
        Problem: 400 (malformed form or no image), 413, 415, 422 (other fields).
    """
    return _only_images(await read_form(request, max_bytes, max_images, f"one field {FIELD!r} for each image"))


async def read_form(request: Request, max_bytes: int, max_images: int, what: str) -> Sent:
    """The images of a form in order, whatever their fields are named. Each is checked for its own size later.

    Args:
        request: whose body is read.
        max_bytes: of one image.
        max_images: most images.
        what: what to send, for the message.

    Raises:
        Problem: 400 (malformed form), 413, 415, 422 (other fields).
    """
    if media_type_of(request) != FORM_TYPE:
        raise Problem("unsupported-media-type", reason=f"send {FORM_TYPE} with {what}")
    return await _read_form(request, max_images * (max_bytes + FORM_OVERHEAD_BYTES), max_images)


def _only_images(sent: Sent) -> Sent:
    """The same, if every file is in the field ``image``."""
    names = [name for name, _ in sent.images]
    if FIELD not in names:
        raise Problem("no-image", reason=f"the form has no field {FIELD!r}")
    for name in names:
        if name in PART_FIELDS:
            raise Problem("invalid-request", reason=f"the form field {name!r} must be text, without a file name")
        if name != FIELD:
            raise _unknown_field(name)
    return sent


async def _read_form(request: Request, max_bytes: int, max_images: int) -> Sent:
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
        fields = form.multi_items()
        if sum(isinstance(value, UploadFile) for _, value in fields) > max_images:
            raise _too_many(max_images)
        sent = Sent([])
        for name, value in fields:
            if isinstance(value, UploadFile):
                sent.images.append((name, await value.read()))
            else:
                _add_text(sent.texts, name, value)
        return sent
    finally:
        await form.close()


def _add_text(texts: dict[str, str], name: str, text: str) -> None:
    if name == FIELD:
        raise Problem("no-image", reason=f"the field {FIELD!r} must be a file, with a file name")
    if name not in PART_FIELDS:
        raise _unknown_field(name)
    if name in texts:
        raise Problem("invalid-request", reason=f"the form field {name!r} is given more than once")
    texts[name] = text


def _unknown_field(name: str) -> Problem:
    near = get_close_matches(name.lower(), [FIELD, *PART_FIELDS], n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(map(repr, PART_FIELDS))}; an image is a file"
    return Problem("invalid-request", reason=f"there is no form field {name!r}; {hint}")


def _too_many(max_images: int) -> Problem:
    what = "exactly one" if max_images == 1 else f"at most {max_images}"
    return Problem("too-many-images", allowed=what)


class _FormParser(MultiPartParser):
    """Takes a part for a file if it has a file name in either form, also ``filename*=`` alone (RFC 8187).

    A text that is not what its form says, UTF-8 unless it says something else, is refused.
    """

    def on_part_end(self) -> None:
        """Called by the parser after each part."""
        if (
            self._current_part.file is None and self._current_part.field_name in PART_FIELDS
        ):  # others are refused anyway
            try:
                self._current_part.data.decode(self._charset)
            except (UnicodeDecodeError, LookupError):
                name = self._current_part.field_name
                raise MultiPartException(f"the text of the field {name!r} is not {self._charset}") from None
        super().on_part_end()

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
