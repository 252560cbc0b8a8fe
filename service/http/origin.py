"""Web pages of other sites may not use the service, unless their origin is allowed.

A browser sends what any page asks it to, from inside the network that the server is in. Two headers, which pages cannot
choose, tell such requests apart: ``Host`` is the name that the page reached the server by, ``Origin`` is the page's.
"""

import ipaddress
import re
import socket
from collections.abc import Collection, Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.http.access import READING
from service.http.errors import response_of
from service.problems import Problem

PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".svc")
"""Suffixes of names that cannot be registered publicly: for local networks and for Kubernetes."""
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+?)\.?)(?::(\d{1,5}))?")
_PORTS = {"http": "80", "https": "443"}
_SENT = ("Authorization", "Content-Type", "If-Match", "X-API-Key", "X-Request-ID", "traceparent")
_SHOWN = (
    "ETag",
    "X-Anomaly-Score",
    "X-Anomaly-Threshold",
    "X-Anomaly-Decision",
    "X-Anomaly-Verdict",
    "X-Model-Version",
    "X-Inspection-ID",
    "X-Request-ID",
    "Server-Timing",
    "Retry-After",
)


def is_known_host(host: str, allowed: Collection[str]) -> bool:
    """Whether a ``Host`` header names this server, and not a foreign name that was made to resolve to it.

    Known are IP addresses, names without a dot, names with one of the `PRIVATE_SUFFIXES`, the name of this machine,
    and allowed names. A foreign page cannot have any of these as its own name.

    Args:
        host: the header's value.
        allowed: names in small letters, such as ``inspect.example``; ``*.example`` stands for all names below it, ``*``
            for all names.
    """
    if "*" in allowed:
        return True
    match = _HOST.fullmatch(host.strip().lower())
    if match is None:
        return False
    name = match[1] or match[2]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        if match[1]:
            return False
    else:
        return True
    below = any(pattern.startswith("*.") and name.endswith(pattern[1:]) for pattern in allowed)
    return (
        "." not in name
        or name.endswith(PRIVATE_SUFFIXES)
        or name in allowed
        or below
        or name == socket.gethostname().lower()
    )


def is_foreign(headers: Headers, allowed_origins: Collection[str]) -> bool:
    """Whether a page of another origin sent this request, and not one of those that are allowed.

    Programs send neither ``Origin`` nor ``Sec-Fetch-Site`` and are never foreign.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin in allowed_origins or site in ("same-origin", "none"):
        return False
    if origin is None:
        return site is not None
    scheme, _, place = origin.partition("://")
    end = f":{_PORTS.get(scheme, '')}"
    asked = (headers.get("host", ""), headers.get("x-forwarded-host", "").partition(",")[0].strip())
    return site is not None or place.removesuffix(end) not in [one.lower().removesuffix(end) for one in asked if one]


class RefuseForeignRequests:
    """ASGI middleware that refuses requests to names that are not this server's, and what other origins' pages send.

    Args:
        app: what is behind it.
        allowed_hosts: see `is_known_host`.
        allowed_origins: origins whose pages may send requests, such as ``https://mes.example``.

    Raises:
        Problem: 421 for an unknown host, 403 for a foreign page that does more than read. What it reads the browser
            keeps from it.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Sequence[str], allowed_origins: Sequence[str]) -> None:
        self._app = app
        self._allowed_hosts = frozenset(allowed_hosts)
        self._allowed_origins = frozenset(allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host = headers.get("host", "")
            if host and not is_known_host(host, self._allowed_hosts):  # only programs can leave it out
                raise Problem("unknown-host", host=host)
            if scope["method"] not in READING and is_foreign(headers, self._allowed_origins):
                raise Problem("foreign-origin", origin=headers.get("origin", "another origin"))
        await self._app(scope, receive, send)


class AllowOrigins(CORSMiddleware):
    """ASGI middleware that tells browsers which origins' pages may use the API (CORS)."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "POST", "PUT"),
            allow_headers=_SENT,
            expose_headers=_SHOWN,
            allow_private_network=True,  # a page of the internet asks a server of the plant
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a browser's question whether a page may send a request."""
        if not self.is_allowed_origin(request_headers["origin"]):
            return response_of(Problem("foreign-origin", origin=request_headers["origin"]))
        return super().preflight_response(request_headers)
