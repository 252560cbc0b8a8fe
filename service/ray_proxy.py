"""What Ray Serve's HTTP proxy runs around every request: its own answers become problems of the contract.

The proxy takes it from ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=service.ray_proxy.middlewares`` in the environment
of its node.
"""

from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.headers import headers_for
from service.problems import Problem

OWN_PATHS = "/-/"
"""Of Ray Serve's own endpoints, for those who operate it."""
FOR_SERVE = (b"x-request-timeout-seconds", b"x-request-disconnect-disabled", b"serve_multiplexed_model_id")
"""Headers by which a client could change how Ray Serve treats its request."""


def middlewares() -> list[Middleware]:
    """For Ray Serve's proxy."""
    return [Middleware(InOurWords)]


def problem_for(status: int) -> Problem:
    """The problem that one of Ray Serve's own answers means."""
    match status:
        case HTTPStatus.REQUEST_TIMEOUT:
            return Problem(504, "deadline-passed", "the answer was not ready in time")
        case HTTPStatus.TOO_MANY_REQUESTS:
            return Problem(429, "queue-full", "the server has as many images waiting as it takes; try again shortly")
        case HTTPStatus.NOT_FOUND:
            return Problem(404, "not-found", "the service is not there, or not yet")
    return Problem(
        503, "no-replica", "the replica that had this request has ended, or there is none; try again shortly"
    )


class InOurWords:
    """ASGI middleware around Ray Serve's proxy.

    An answer that the application made carries its security headers. What does not is Ray Serve's own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(OWN_PATHS):
            await self._app(scope, receive, send)
            return
        replaced = False

        async def sent(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start":
                headers = Headers(raw=message["headers"])
                request_id = headers["x-request-id"]
                if "x-content-type-options" not in headers and message["status"] >= 400:
                    replaced = True
                    response = problem_for(message["status"]).response()
                    response.headers.update({**headers_for(""), "x-request-id": request_id})
                    await response(scope, receive, send)
                    return
                MutableHeaders(raw=message["headers"])["x-request-id"] = request_id  # the proxy adds it once more
            if not replaced:
                await send(message)

        scope["headers"] = [(name, value) for name, value in scope["headers"] if _normal(name) not in FOR_SERVE]
        await self._app(scope, receive, sent)


def _normal(name: bytes) -> bytes:
    return name.replace(b"serve-multiplexed-model-id", b"serve_multiplexed_model_id")
