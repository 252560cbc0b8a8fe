"""What Ray Serve's HTTP proxy runs around every request: its own answers become problems of the contract.

The proxy takes it from ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=service.on_ray.proxy.middlewares`` in its node's
environment.
"""

import logging
import re
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.errors import response_of
from service.http.headers import headers_for
from service.observe.logs import request_id_of
from service.problems import Problem

OWN_PATHS = "/-/"
"""Of Ray Serve's own endpoints, for those who operate it."""
FOR_SERVE = (
    b"x_request_id",
    b"x_request_timeout_seconds",
    b"x_request_disconnect_disabled",
    b"x_session_id",
    b"serve_multiplexed_model_id",
)
"""Headers by which a client could change how Ray Serve treats its request, with underscores."""
_CATEGORY = re.compile(r"/v1/categories/([^/]+)/")
log = logging.getLogger(__name__)


def middlewares() -> list[Middleware]:
    """For Ray Serve's proxy."""
    return [Middleware(AnswerForServe)]


def problem_for(status: int) -> Problem:
    """The problem that one of Ray Serve's own answers means."""
    match status:
        case HTTPStatus.REQUEST_TIMEOUT:
            return Problem("deadline-passed")
        case HTTPStatus.TOO_MANY_REQUESTS:
            return Problem("queue-full")
        case HTTPStatus.NOT_FOUND:
            return Problem("not-found")
    return Problem("no-replica")


class AnswerForServe:
    """ASGI middleware around Ray Serve's proxy that makes its own answers problems.

    An answer that the application made carries its security headers. What does not is Ray Serve's own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(OWN_PATHS):
            await self._app(scope, receive, send)
            return
        # The proxy takes an id as it comes, and stumbles over one that is not UTF-8.
        request_id = request_id_of(Headers(scope=scope).get("x-request-id", ""))
        started = replaced = False

        async def answer(problem: Problem) -> None:
            response = response_of(problem)
            response.headers.update({**headers_for(""), "x-request-id": request_id})
            await response(scope, receive, send)

        async def sent(message: Message) -> None:
            nonlocal started, replaced
            if message["type"] == "http.response.start":
                started = True
                if message["status"] >= 400 and "x-content-type-options" not in Headers(raw=message["headers"]):
                    replaced = True
                    await answer(problem_for(message["status"]))
                    return
                MutableHeaders(raw=message["headers"])["x-request-id"] = request_id  # the proxy adds it once more
            if not replaced:
                await send(message)

        kept = [(name, value) for name, value in scope["headers"] if name.replace(b"-", b"_") not in FOR_SERVE]
        kept.append((b"x-request-id", request_id.encode()))
        if match := _CATEGORY.search(scope["path"]):
            kept.append((b"x-session-id", match[1].encode()))  # what `INSPECT_RAY_BY_CATEGORY` goes by
        scope["headers"] = kept
        try:
            await self._app(scope, receive, sent)
        except Exception:
            if started:
                raise
            log.exception("Ray Serve's proxy failed")
        if not started:  # also the proxy's way when a replica ends in the middle of its work
            await answer(problem_for(HTTPStatus.INTERNAL_SERVER_ERROR))
