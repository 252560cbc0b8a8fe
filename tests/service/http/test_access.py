"""Every route says who may call it, and the check goes by the route that would answer."""

import asyncio
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from service.app import create_app
from service.choices import Role
from service.http.access import RequireKey, find_route, needs, open_to_all, role_of, shown_key
from service.http.keys import KeyRing, create_key
from service.problems import Problem
from service.settings import Settings

OPEN = {
    "/", "/console/{file:path}", "/livez", "/readyz",
    "/docs", "/docs/oauth2-redirect", "/openapi.json", "/static-offline-docs",
}  # fmt: skip
CHANGING = {
    "/v1/categories/{category}/reload", "/v1/categories/{category}/rollback", "/v1/categories/{category}/candidate",
    "/v1/categories/{category}/candidate/promote", "/v1/categories/{category}/trainings", "/v1/jobs/{id}",
    "/v1/categories/{category}/calibrations", "/v1/categories/{category}/training-images",
    "/v1/categories/{category}/training-images/{sha256}",
}  # fmt: skip
REVIEWING = {"/v1/inspections/{id}/label"}


@pytest.fixture(scope="module", params=[None, 9000], ids=["one port", "metrics apart"])
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return create_app(Settings(weights=tmp_path_factory.mktemp("weights"), metrics_port=request.param))


def test_every_route_declares_who_may_call_it(app: FastAPI):
    for route in app.routes:
        role_of(route)


def test_only_pages_and_probes_are_open_and_only_an_admin_changes_something(app: FastAPI):
    roles = [(route.path, role_of(route)) for route in app.routes]  # type: ignore[attr-defined]
    moved = ("/metrics", None) in roles
    assert {path for path, role in roles if role is None} == OPEN | ({"/metrics"} if moved else set())
    assert {path for path, role in roles if role is Role.ADMIN} == CHANGING | {"/v1/audit"}
    assert {path for path, role in roles if role is Role.REVIEW} == REVIEWING


def test_whatever_changes_something_needs_an_admin(app: FastAPI):
    """But for inspections and labels, a call that does not only read needs the role `admin`; none can forget it."""
    inspecting = {
        "/v1/categories/{category}/inspect",
        "/v1/categories/{category}/inspect-batch",
        "/v1/parts/inspect",
    }
    for route in app.routes:
        methods = getattr(route, "methods", None) or {"GET"}
        if not methods <= {"GET", "HEAD", "OPTIONS"} and route.path not in inspecting | REVIEWING:  # type: ignore[attr-defined]
            assert role_of(route) is Role.ADMIN, route


async def undeclared() -> None:
    """An endpoint of somebody who forgot it."""


@needs(Role.ADMIN)
async def change() -> None:
    """An endpoint that an admin alone may call."""


@open_to_all
async def read() -> None:
    """An endpoint for everybody."""


def test_a_route_that_declares_nothing_ends_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(LookupError, match="does not declare who may call it"):
        role_of(Route("/new", undeclared))
    monkeypatch.setattr("service.http.routes.router.routes", [Route("/new", undeclared)])
    with pytest.raises(LookupError, match="/new"):
        create_app(Settings(weights=tmp_path))


def scope(path: str, method: str = "GET", key: str = "") -> Scope:
    headers = [(b"x-api-key", key.encode())] if key else []
    return {"type": "http", "path": path, "root_path": "", "method": method, "headers": headers}


ROUTES = [
    Route("/things/{name}", read, methods=["GET"]),
    Route("/things/{name}", change, methods=["POST"]),
    Mount("/folder", app=open_to_all(lambda *_: None)),
]


def test_the_route_is_the_one_that_would_answer():
    for path, method, wanted in (
        ("/things/a", "GET", 0), ("/things/a", "POST", 1), ("/things/a", "DELETE", 0), ("/things/a\n", "POST", 1),
        ("/folder/x", "GET", 2),
    ):  # fmt: skip
        found = find_route(ROUTES, scope(path, method))
        assert found is not None, path
        assert found[0] is ROUTES[wanted], (path, method)
    for path in ("/", "/things", "/things/a/", "/things/a/b", "/folders"):
        assert find_route(ROUTES, scope(path)) is None, path
    found = find_route(ROUTES, scope("/things/striped", "POST"))
    assert found is not None
    assert found[1] == {"name": "striped"}


CASES = [
    ("/things/a", "GET", None, None),
    ("/things/a", "POST", "unauthenticated", "forbidden"),
    ("/things/a\n", "POST", "unauthenticated", "forbidden"),
    ("/things/a/", "POST", "unauthenticated", "forbidden"),
    ("/folder/x", "GET", None, None),
    ("/nothing", "GET", "unauthenticated", None),
    ("/nothing", "POST", "unauthenticated", "forbidden"),
]


@pytest.mark.parametrize(("path", "method", "anonymous", "inspect"), CASES)
def test_who_gets_through(tmp_path: Path, path: str, method: str, anonymous: str | None, inspect: str | None):
    line, ops = (create_key(tmp_path / "keys", role, role) for role in (Role.INSPECT, Role.ADMIN))
    passed: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append(scope["path"])

    async def never(*_: object) -> None:
        raise AssertionError("nothing is read or answered before the key was looked at")

    def answer(key: str) -> str | None:
        try:
            asyncio.run(RequireKey(app, KeyRing(tmp_path / "keys"), ROUTES)(scope(path, method, key), never, never))
        except Problem as problem:
            return problem.kind
        return None

    assert [answer(key) for key in ("", "wrong", line, ops)] == [anonymous, anonymous, inspect, None]
    assert len(passed) == [anonymous, anonymous, inspect, None].count(None)


def test_where_a_request_shows_its_key():
    assert shown_key([]) is None
    assert shown_key([(b"authorization", b"Bearer abc")]) == "abc"
    assert shown_key([(b"authorization", b"bearer  abc ")]) == "abc"
    assert shown_key([(b"authorization", b"Basic abc")]) is None
    assert shown_key([(b"authorization", b"Basic abc"), (b"x-api-key", b"key")]) == "key"
    assert shown_key([(b"x-api-key", b"first"), (b"x-api-key", b"second")]) == "first"
    assert shown_key([(b"x-api-key", b"\xff\x00")]) == "\xff\x00"
