"""Who may call a route: each route declares it, and it is checked before anything else of a request is looked at."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from service.choices import Role
from service.http.errors import documented, operations_of
from service.http.keys import Key, KeyRing
from service.problems import Problem

ACTOR = "eca-inspect.actor"
"""In the scope of a request: the name of the key that was shown."""
READING = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing."""
_DECLARED: WeakKeyDictionary[Any, Role | None] = WeakKeyDictionary()
"""By endpoint: the role that it needs, or None if it is open to all."""
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def needs(role: Role) -> Callable[[Endpoint], Endpoint]:
    """Declares the role that an endpoint needs where the server asks for keys. Stands below the route's decorator."""

    def declare(endpoint: Endpoint) -> Endpoint:
        _DECLARED[endpoint] = role
        return endpoint

    return declare


def open_to_all(endpoint: Endpoint) -> Endpoint:
    """Declares that an endpoint needs no key. Stands below the route's decorator."""
    _DECLARED[endpoint] = None
    return endpoint


def role_of(route: BaseRoute) -> Role | None:
    """The role that a route needs, or None if it is open to all.

    Raises:
        LookupError: if it declares nothing.
    """
    try:
        return _DECLARED[endpoint_behind(route)]
    except KeyError:
        raise LookupError(f"the route {route} does not declare who may call it") from None


def endpoint_behind(route: BaseRoute) -> Any:
    """The function behind a route, or the application that is mounted there."""
    return getattr(route, "endpoint", None) or getattr(route, "app", None)


def find_route(routes: Iterable[BaseRoute], scope: Scope) -> tuple[BaseRoute, dict[str, str]] | None:
    """The route that the application would choose, and the parameters of its path; None if no path fits.

    If the path fits but not the method, it is the route that answers so.
    """
    partial = None
    for route in routes:
        match, child = route.matches(scope)
        if match is Match.FULL:
            return route, child.get("path_params", {})
        if match is Match.PARTIAL and partial is None:
            partial = route, child.get("path_params", {})
    return partial


def _role_for_nothing(method: str) -> Role:
    """The role that a path needs that is not there: nobody learns without a key what is there and what is not."""
    return Role.INSPECT if method in READING else Role.ADMIN


def shown_key(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The key of a request: ``Authorization: Bearer KEY``, else ``X-API-Key: KEY``."""
    found = {name: value.decode("latin-1").strip() for name, value in reversed(list(headers))}
    scheme, _, token = found.get(b"authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return found.get(b"x-api-key")


class RequireKey:
    """ASGI middleware that lets only calls with a key of the needed role through.

    Raises:
        Problem: 401 without a known key, 403 if its role is too low.
    """

    def __init__(self, app: ASGIApp, ring: KeyRing, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._ring = ring
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            found = find_route(self._routes, scope)
            if found is not None:
                scope["route"] = found[0]  # a refused call is logged and counted as one of this route
            needed = role_of(found[0]) if found else _role_for_nothing(scope["method"])
            if needed is not None:
                scope[ACTOR] = self._check(shown_key(scope["headers"]), needed).name
        await self._app(scope, receive, send)

    def _check(self, token: str | None, needed: Role) -> Key:
        key = None if token is None else self._ring.find(token)
        if key is None:
            reason = "this call needs a key" if token is None else "the key is not known here"
            raise Problem("unauthenticated", reason=reason)
        if not key.role.covers(needed):
            raise Problem("forbidden", name=key.name, role=key.role, needed=needed)
        return key


def document_keys(document: dict[str, Any], routes: Iterable[BaseRoute]) -> None:
    """Adds to an OpenAPI document how a key is sent, and what is answered without one."""
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer KEY"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    refusals = {role: ["unauthenticated", *(["forbidden"] if role is not Role.INSPECT else [])] for role in Role}
    for route, operation in operations_of(document, routes):
        if (role := role_of(route)) is not None:
            operation["security"] = [{"bearer": []}, {"header": []}]
            operation["responses"] |= {str(status): answer for status, answer in documented(*refusals[role]).items()}
