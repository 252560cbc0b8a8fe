"""The service below a path of a reverse proxy, such as ``https://plant.example/inspect/``.

A proxy either passes the whole path on, or takes the prefix away and names it in ``X-Forwarded-Prefix``. Both are made
the same here: as ASGI has it, ``root_path`` is the prefix and ``path`` begins with it.
"""

import re

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from service.http.headers import headers_for

PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")


class UnderPrefix:
    """ASGI middleware that notes the prefix, so that routes are found and links lead below it.

    Args:
        app: what is behind it.
        prefix: such as ``/inspect``; if empty, the one that the proxy names.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        prefix = (self._prefix or _named(scope)) if scope["type"] == "http" else ""
        if not prefix:
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        if path == prefix:  # relative links of the page would lead beside it
            await RedirectResponse(prefix.rpartition("/")[2] + "/", 308, headers_for(""))(scope, receive, send)
            return
        scope["root_path"] = prefix
        if not path.startswith(prefix + "/"):
            scope["path"] = prefix + path
            scope["raw_path"] = prefix.encode() + scope.get("raw_path", path.encode())
        await self._app(scope, receive, send)


def _named(scope: Scope) -> str:
    """The prefix that the proxy names; empty if it names none, or what it names is no path."""
    named = Headers(scope=scope).get("x-forwarded-prefix", "").rstrip("/")
    return named if PREFIX.fullmatch(named) and not {".", ".."} & set(named.split("/")) else ""
