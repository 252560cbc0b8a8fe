"""Every way a request can fail, as clients see it (RFC 9457): the table of kinds, and the kind for each exception.

`service.http.errors` turns a problem into an HTTP answer.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from string import Formatter
from typing import Any

from starlette.requests import ClientDisconnect

from model.images import ImageError, ImageTooLargeError
from model.store.parts import UnknownPartError
from service.catalogue import (
    CategoryRefusedError,
    NoSuchCandidateError,
    NoSuchVersionError,
    UnknownCategoryError,
    VersionRefusedError,
    WeightsNotChangedError,
)
from service.decoding.pool import DecoderLostError
from service.device.backend import DeviceMemoryError
from service.device.engine import DeviceLostError, EngineClosedError, QueueFullError
from service.history.errors import HistoryUnavailableError
from service.parts import PartRefusedError, WrongViewsError
from service.schemas import ProblemBody

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """One kind of problem.

    Attributes:
        status: HTTP status.
        meaning: for the documentation of the API; also used as the sentence if there is none.
        sentence: for the person who reads the answer, with the names of values in braces.
        is_failure: whether an image with this outcome counts as a failure of the server, see `deploy/rules`.
        members: values that the answer also contains as members.
    """

    status: int
    meaning: str
    sentence: str = ""
    is_failure: bool = False
    members: tuple[str, ...] = ()

    @property
    def template(self) -> str:
        """The sentence, with the names of values in braces."""
        return self.sentence or self.meaning

    @property
    def values(self) -> set[str]:
        """Names of the values that a problem of this kind needs."""
        return {name for _, name, _, _ in Formatter().parse(self.template) if name} | set(self.members)


KINDS: Mapping[str, Kind] = {
    "empty-body": Kind(400, "the body is empty; send the bytes of an image"),
    "no-image": Kind(400, "the form has no image", "{reason}"),
    "malformed-form": Kind(400, "the form cannot be read", "the form cannot be read: {reason}"),
    "malformed-request": Kind(
        400, "this is not HTTP as RFC 9112 defines it", "this is not HTTP as RFC 9112 defines it: {reason}"
    ),
    "client-gone": Kind(400, "the client disconnected before the answer was ready"),
    "unauthenticated": Kind(
        401, "the key is missing or unknown", "{reason}; send 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"
    ),
    "forbidden": Kind(
        403, "the key's role is too low", "the key {name!r} has the role {role}; this call needs the role {needed}"
    ),
    "foreign-origin": Kind(
        403,
        "a web page of another origin sent this",
        "a web page of {origin} sent this; to allow it, add its origin to INSPECT_ALLOWED_ORIGINS",
    ),
    "not-found": Kind(404, "there is nothing at this path; see /docs"),
    "unknown-category": Kind(
        404,
        "there is no such category; the answer lists the known ones",
        "there is no category {category!r}; known: {known}",
        members=("categories",),
    ),
    "unknown-part": Kind(
        404,
        "there is no card of such a part; the answer lists the known ones",
        "there is no card of a part {part!r}; known: {known}",
        members=("parts",),
    ),
    "unknown-inspection": Kind(
        404,
        "the history has no such inspection",
        "the history has no inspection {id}; it may have been removed, or be on its way for another moment",
    ),
    "image-not-kept": Kind(404, "the image of this inspection is not kept", "the image is not kept: {reason}"),
    "no-good-inspection": Kind(
        404, "the history has no good inspection to compare this one with", "there is nothing to compare with: {reason}"
    ),
    "version-not-served": Kind(
        409,
        "the version that judged the image does not serve now, so that its picture cannot be drawn",
        "version {version} of {category!r} judged it and does not serve now, so that its picture cannot be drawn",
    ),
    "category-changed": Kind(
        409,
        "the category was changed meanwhile, or its folder has another version than the one that serves; nothing is "
        "changed",
        "nothing is changed: {reason}",
    ),
    "label-changed": Kind(
        412,
        "somebody else has labelled this inspection",
        "the label is {label!r}, version {version}; look at it, and send If-Match: \"{version}\" to replace it",
    ),
    "history-off": Kind(404, "this server keeps no history (INSPECT_DATABASE=none)"),
    "method-not-allowed": Kind(
        405, "the path does not take this method", "this path does not take {method}; it takes {allowed}"
    ),
    "upload-timeout": Kind(
        408, "the whole body did not arrive in time", "the whole body must arrive within {seconds:g} s"
    ),
    "reload-refused": Kind(409, "the version on disk is refused; the current version stays in use", "{reason}"),
    "no-candidate": Kind(404, "the category has no candidate, or another one", "{reason}"),
    "not-proven": Kind(409, "the labels do not show that the candidate is better; nothing has changed", "{reason}"),
    "weights-not-changed": Kind(
        409, "the server cannot change the folder of weights; nothing has changed", "{reason}"
    ),
    "unknown-job": Kind(404, "there is no such job", "there is no job {id}; see GET /v1/jobs"),
    "trainings-off": Kind(404, "this server runs no trainings: it keeps no history, or runs on Ray"),
    "training-running": Kind(409, "a training runs, and there is one at a time; see GET /v1/jobs"),
    "no-training-images": Kind(409, "there are no images to train on", "{reason}"),
    "no-previous-version": Kind(
        409,
        "no such version of this category is kept",
        "{reason}",
    ),
    "too-many-bytes": Kind(413, "there are too many bytes", "{what} is larger than the {limit} bytes allowed"),
    "too-many-pixels": Kind(413, "the image has too many pixels", "{reason}"),
    "too-many-images": Kind(413, "the form has too many images", "the form has too many images; send {allowed}"),
    "unsupported-media-type": Kind(415, "the media type is not an image type", "{reason}"),
    "unknown-host": Kind(
        421,
        "this host name is not one of this server's",
        "the host name {host!r} is not one of this server's; to allow it, add it to INSPECT_ALLOWED_HOSTS",
    ),
    "not-decodable": Kind(422, "the image cannot be decoded", "{reason}"),
    "invalid-request": Kind(422, "a parameter is wrong", "{reason}"),
    "calibration-refused": Kind(
        422, "the labels do not give the threshold that was asked for; nothing is changed", "{reason}"
    ),
    "unknown-map": Kind(
        422,
        "the category has no map of this form",
        "the card of {category!r} has no scale for maps of form {form!r}; "
        "calibrate the category with --score, or train it again",
    ),
    "missing-view": Kind(
        422,
        "only in the place of a view: the card of the part asks for it, and it was not sent",
        "the part {part!r} must have {needed} of {category!r}, and {sent} came",
    ),
    "queue-full": Kind(
        429, "the queue of the server is full; try again shortly", is_failure=True
    ),
    "upload-memory-full": Kind(
        429, "the memory of the server for uploads is full; try again shortly", is_failure=True
    ),
    "headers-too-large": Kind(
        431, "the headers are too large", "the headers are larger than the {limit} allowed"
    ),
    "internal-error": Kind(500, "the server failed to answer this request; its log says why", is_failure=True),
    "category-refused": Kind(
        503, "the category cannot be served", "category {category!r} cannot be served: {reason}", is_failure=True
    ),
    "part-refused": Kind(503, "the card of the part cannot be used", "{reason}", is_failure=True),
    "decoder-lost": Kind(503, "the process that decodes images has ended; try again shortly", is_failure=True),
    "device-lost": Kind(503, "the device failed while it worked on this; try again shortly", is_failure=True),
    "out-of-memory": Kind(503, "the device has too little free memory for this image", is_failure=True),
    "not-alive": Kind(503, "the device is lost; restart the process"),
    "device-busy": Kind(503, "the device does not respond", "the device did not respond within {seconds:g} s"),
    "no-category": Kind(503, "no category is ready; see /v1/categories"),
    "history-unavailable": Kind(
        503,
        "the database of the history does not answer; inspection goes on",
        "the database of the history does not answer; inspection goes on: {reason}",
    ),
    "too-many-connections": Kind(503, "the server has too many open connections; try again shortly"),
    "no-replica": Kind(
        503, "the replica that handled this request has ended, or there is none; try again shortly"
    ),
    "shutting-down": Kind(503, "the server is shutting down", is_failure=True),
    "deadline-passed": Kind(504, "the answer was not ready in time", is_failure=True),
    "image-not-stored": Kind(507, "there is no room for the image; nothing is lost that was there", "{reason}"),
}  # fmt: skip
"""Every kind by its stable name; docs/api.md says what a client should do about each."""

FAILURES = tuple(name for name, kind in KINDS.items() if kind.is_failure)


class Problem(Exception):
    """An error that the client sees.

    Args:
        kind: a name in `KINDS`.
        values: the values for the sentence and the members of the kind.

    Attributes:
        status: HTTP status.
        detail: one sentence for the person who reads it.
        members: further members of the answer.
    """

    def __init__(self, kind: str, **values: Any) -> None:
        definition = KINDS[kind]
        super().__init__(definition.template.format_map(values))
        self.kind = kind
        self.status = definition.status
        self.detail = str(self)
        self.members = {name: values[name] for name in definition.members}

    def body(self) -> ProblemBody:
        """The answer's JSON."""
        return ProblemBody(
            type=f"urn:eca-inspect:problem:{self.kind}",
            title=HTTPStatus(self.status).phrase,
            status=self.status,
            detail=self.detail,
            **self.members,
        )


def problem_of(error: Exception) -> Problem:
    """The problem that the client sees for an exception. An unknown exception is logged, and is an internal error."""
    match error:
        case Problem():
            return error
        case ImageTooLargeError():
            return Problem("too-many-pixels", reason=error)
        case ImageError():
            return Problem("not-decodable", reason=error)
        case ClientDisconnect():
            return Problem("client-gone")
        case QueueFullError():
            return Problem("queue-full")
        case EngineClosedError():
            return Problem("shutting-down")
        case DecoderLostError():
            log.error("%s", error)
            return Problem("decoder-lost")
        case DeviceLostError():
            return Problem("device-lost")
        case DeviceMemoryError():
            return Problem("out-of-memory")
        case UnknownCategoryError():
            known = ", ".join(error.known) or "none"
            return Problem("unknown-category", category=error.category, known=known, categories=error.known)
        case UnknownPartError():
            known = ", ".join(error.known) or "none"
            return Problem("unknown-part", part=error.part, known=known, parts=error.known)
        case PartRefusedError():
            return Problem("part-refused", reason=error)
        case WrongViewsError():
            return Problem("invalid-request", reason=error)
        case CategoryRefusedError():
            return Problem("category-refused", category=error.category, reason=error.reason)
        case VersionRefusedError():
            return Problem("reload-refused", reason=error)
        case NoSuchVersionError():
            return Problem("no-previous-version", reason=error)
        case NoSuchCandidateError():
            return Problem("no-candidate", reason=error)
        case WeightsNotChangedError():
            return Problem("weights-not-changed", reason=error)
        case HistoryUnavailableError():
            log.error("the database of the history does not answer: %s", error)
            return Problem("history-unavailable", reason=error)
        case TimeoutError():
            return Problem("deadline-passed")
    log.error("unexpected error", exc_info=error)
    return Problem("internal-error")
