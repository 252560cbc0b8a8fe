"""Errors as clients see them: ``application/problem+json`` (RFC 9457). Exceptions become answers here only."""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.images import ImageError, ImageTooLargeError
from service.device.engine import DeviceLostError, DeviceMemoryError, EngineClosedError, QueueFullError
from service.observe.logs import RECORD
from service.schemas import ProblemBody

MEDIA_TYPE = "application/problem+json"
PROBLEM_SCHEMA = {"$ref": f"#/components/schemas/{ProblemBody.__name__}"}
"""In an OpenAPI document; it is defined there by `BatchAnswer`."""
_RETRY = {"Retry-After": "1"}  # seconds
log = logging.getLogger(__name__)


class Problem(Exception):
    """An error with its own answer.

    Attributes:
        status: HTTP status.
        kind: stable machine-readable name, the last part of the problem's ``type``.
        detail: one sentence for the person who reads it.
        extra: further members of the answer.
    """

    def __init__(self, status: int, kind: str, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.extra = extra

    def body(self) -> ProblemBody:
        """The answer's JSON."""
        return ProblemBody(
            type=f"urn:eca-inspect:problem:{self.kind}",
            title=HTTPStatus(self.status).phrase,
            status=self.status,
            detail=self.detail,
            **self.extra,
        )

    def response(self) -> JSONResponse:
        """The whole answer; 429 and 503 say when to try again, 401 how to show a key.

        The request's record keeps the kind.
        """
        if (record := RECORD.get()) is not None:
            record.problem = self.kind
        headers = {429: _RETRY, 503: _RETRY, 401: {"WWW-Authenticate": "Bearer"}}.get(self.status)
        return JSONResponse(
            self.body().model_dump(mode="json"), status_code=self.status, media_type=MEDIA_TYPE, headers=headers
        )


def problem_of(error: Exception) -> Problem:
    """The problem that an exception means for the client; whatever is unknown is an internal error, and logged."""
    match error:
        case Problem():
            return error
        case ImageTooLargeError():
            return Problem(413, "too-many-pixels", str(error))
        case ImageError():
            return Problem(422, "not-decodable", str(error))
        case ClientDisconnect():
            return Problem(400, "client-gone", "the connection ended before the answer was ready")
        case QueueFullError():
            return Problem(429, "queue-full", "the server has as many images waiting as it takes; try again shortly")
        case EngineClosedError():
            return Problem(503, "shutting-down", "the server is shutting down")
        case DeviceLostError():
            return Problem(503, "device-lost", "the device failed while it had this work; try again shortly")
        case DeviceMemoryError():
            return Problem(503, "out-of-memory", "the device has too little free memory for this image")
        case TimeoutError():
            return Problem(504, "deadline-passed", "the answer was not ready in time")
    log.error("unexpected error", exc_info=error)
    return Problem(500, "internal-error", "the server failed to inspect this image; its log says why")


def drop_foreign_errors(document: dict[str, Any]) -> None:
    """Takes out of an OpenAPI document the 422 that FastAPI adds to every operation with a parameter.

    Where a parameter can be wrong the answer is a problem, and the operation documents it itself.
    """
    for operations in document["paths"].values():
        for operation in operations.values():
            if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def install(app: FastAPI) -> None:
    """Makes every error of the application a problem, those of its middleware too if they are added before."""

    async def answer(_: Request, error: Exception) -> JSONResponse:
        return problem_of(error).response()

    async def answer_http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        kind = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
        response = Problem(error.status_code, kind, str(error.detail)).response()
        response.headers.update(error.headers or {})
        return response

    async def answer_validation(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        details = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        return Problem(422, "invalid-request", details).response()

    app.add_exception_handler(Problem, answer)
    app.add_exception_handler(HTTPException, answer_http)
    app.add_exception_handler(RequestValidationError, answer_validation)


class AnswerErrors:
    """ASGI middleware that answers what the application and the middleware inside it raise."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if started:
                raise
            await problem_of(error).response()(scope, receive, send)
