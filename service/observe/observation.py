"""Sees every request from outside: gives it its id, counts it, logs one line, and ends its trace."""

import logging
from time import perf_counter
from typing import TYPE_CHECKING

from fastapi.routing import APIRoute
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.observe.logs import RECORD, Record, request_id_of

if TYPE_CHECKING:
    from service.state import State

PROBES = "probes"
"""Tag of routes that machines ask every few seconds: logged at debug only, and not counted."""
NO_ENDPOINT = "-"
"""Label of requests for paths that are not there."""
log = logging.getLogger(__name__)


def is_probe(route: object) -> bool:
    """Whether a route is one that machines ask every few seconds."""
    return isinstance(route, APIRoute) and PROBES in route.tags


def endpoint_of(route: APIRoute) -> str:
    """An endpoint's name in the metrics."""
    return route.name.replace("_", "-")


class Observation:
    """ASGI middleware, to be the outermost. The application's state must hold its parts."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state: State = scope["app"].state.parts
        headers = Headers(scope=scope)
        record = Record(request_id_of(headers.get("x-request-id", "")))
        span = state.tracing.start(headers) if state.tracing else None
        status = 500  # unless an answer begins

        async def counted_receive() -> Message:
            message = await receive()
            record.bytes_received += len(message.get("body", b""))
            return message

        async def marked_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = record.request_id
            await send(message)

        token = RECORD.set(record)
        try:
            await self._app(scope, counted_receive, marked_send)
        finally:
            _conclude(state, scope, record, status)
            if state.tracing and span:
                state.tracing.end(span, scope["method"], _path_of(scope), status, record)
            RECORD.reset(token)


def _path_of(scope: Scope) -> str | None:
    return getattr(scope.get("route"), "path", None)


def _conclude(state: "State", scope: Scope, record: Record, status: int) -> None:
    seconds = perf_counter() - record.started
    route, path = scope.get("route"), _path_of(scope)
    probe = is_probe(route)
    if not probe:
        endpoint = endpoint_of(route) if isinstance(route, APIRoute) else NO_ENDPOINT
        state.telemetry.count_request(endpoint, status, seconds)
        if record.problem is not None:
            state.telemetry.rejections.labels(record.problem).inc()
    level = logging.DEBUG if probe else logging.WARNING if status >= 500 else logging.INFO
    client = scope.get("client")
    fields = {
        "method": scope["method"],
        "path": path,
        "status": status,
        "duration_ms": round(1000 * seconds, 3),
        "client": client[0] if client else None,
        **record.fields(),
    }
    log.log(level, "request", extra={"fields": fields})
