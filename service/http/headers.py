"""Headers that tell browsers what an answer may do, on every answer."""

import re
from base64 import b64encode
from hashlib import sha256

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY = (
    "default-src 'none'; script-src 'self'{scripts}; style-src 'self'{styles}; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_INLINE_STYLE = re.compile(r"<style>(.+?)</style>", re.DOTALL)
_INLINE_SCRIPT = re.compile(r"<script>(.+?)</script>", re.DOTALL)


def headers_for(page: str) -> dict[str, str]:
    """The headers of an answer.

    Args:
        page: HTML whose inline scripts may run; empty for everything else, in which none may.
    """
    digests = [b64encode(sha256(script.encode()).digest()).decode() for script in _INLINE_SCRIPT.findall(page)]
    return {
        "content-security-policy": _POLICY.format(
            scripts="".join(f" 'sha256-{digest}'" for digest in digests), styles=" 'unsafe-inline'" if digests else ""
        ),
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }


def headers_for_page(page: str) -> dict[str, str]:
    """The policy of a page that needs nothing but its own style."""
    styles = " ".join(
        f"'sha256-{b64encode(sha256(style.encode()).digest()).decode()}'" for style in _INLINE_STYLE.findall(page)
    )
    return {
        "content-security-policy": f"default-src 'none'; style-src {styles}; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    }


def path_below(scope: Scope) -> str:
    """The path of a request without the prefix that a proxy has for the service."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class SecurityHeaders:
    """ASGI middleware that adds the headers. The scripts of the interactive documentation are allowed by their hash."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = path_below(scope)
        with_scripts = path == "/docs" or path.startswith("/docs/")
        waiting: Message | None = None

        async def sent(message: Message) -> None:
            nonlocal waiting
            if message["type"] == "http.response.start":
                if with_scripts:
                    waiting = message
                    return
                given = MutableHeaders(scope=message)
                for name, value in headers_for("").items():
                    given.setdefault(name, value)  # a page may have a policy of its own
            elif waiting is not None:
                start, waiting = waiting, None
                MutableHeaders(scope=start).update(headers_for(message.get("body", b"").decode(errors="replace")))
                await send(start)
            await send(message)

        await self._app(scope, receive, sent)
