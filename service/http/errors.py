"""Problems as HTTP: the answer, what raises one, and what the OpenAPI document says of them."""

from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from itertools import groupby
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.observe.logs import RECORD
from service.problems import KINDS, Problem, problem_of
from service.schemas import ProblemBody

MEDIA_TYPE = "application/problem+json"
PROBLEM_SCHEMA = {"$ref": f"#/components/schemas/{ProblemBody.__name__}"}
"""In an OpenAPI document; it is defined there by `BatchAnswer`."""
_RETRY = {"Retry-After": "1"}  # seconds
HEADERS: Mapping[int, Mapping[str, str]] = {429: _RETRY, 503: _RETRY, 401: {"WWW-Authenticate": "Bearer"}}
"""By status, in addition to those of every answer: when to try again, and how to show a key."""


def response_of(problem: Problem) -> JSONResponse:
    """The whole answer. The request's record keeps the kind."""
    if (record := RECORD.get()) is not None:
        record.problem = problem.kind
    return JSONResponse(
        problem.body().model_dump(mode="json"),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=HEADERS.get(problem.status),
    )


def documented(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """What a route's ``responses`` say of these kinds of problem."""
    by_status = groupby(sorted(kinds, key=lambda kind: KINDS[kind].status), lambda kind: KINDS[kind].status)
    return {
        status: {
            "description": "; ".join(f"`{kind}`: {KINDS[kind].meaning}" for kind in alike),
            "content": {MEDIA_TYPE: {"schema": PROBLEM_SCHEMA}},
        }
        for status, alike in by_status
    }


def operations_of(document: dict[str, Any], routes: Iterable[BaseRoute]) -> Iterator[tuple[APIRoute, dict[str, Any]]]:
    """The operations of an OpenAPI document, each with the route that it describes."""
    for route in routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            for method in route.methods or ():
                yield route, document["paths"][route.path_format][method.lower()]


def drop_foreign_errors(document: dict[str, Any], routes: Iterable[BaseRoute]) -> None:
    """Takes out of an OpenAPI document the 422 that FastAPI adds to every operation with a parameter.

    Where a parameter can be wrong the answer is a problem, and the operation documents it itself.
    """
    for _, operation in operations_of(document, routes):
        if "application/json" in operation["responses"].get("422", {}).get("content", {}):
            del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def _problem_of_framework(error: HTTPException, method: str, allowed: str) -> Problem:
    """What an error of Starlette or FastAPI themselves means."""
    match error.status_code:
        case 404:
            return Problem("not-found")
        case 405:
            return Problem("method-not-allowed", method=method, allowed=allowed)
    return problem_of(error)


def _methods_of(request: Request) -> str:
    """The methods of all routes of this path, as `Allow` has them; Starlette itself names those of the first one."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    found = [route.methods or () for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for methods in found for method in methods}))


def answer_errors(app: FastAPI) -> None:
    """Makes every error of the application a problem, those of its middleware too if they are added before."""

    async def answer(_: Request, error: Exception) -> JSONResponse:
        return response_of(problem_of(error))

    async def answer_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        allowed = _methods_of(request) if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED else ""
        response = response_of(_problem_of_framework(error, request.method, allowed))
        response.headers.update(error.headers or {})
        if allowed:
            response.headers["Allow"] = allowed
        return response

    async def answer_validation(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        reason = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        return response_of(Problem("invalid-request", reason=reason))

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
            await response_of(problem_of(error))(scope, receive, send)
