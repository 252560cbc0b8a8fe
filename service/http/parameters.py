"""Query parameters: one that a route does not know is refused, so that a misspelt one is not ignored."""

from difflib import get_close_matches

from fastapi import Request
from fastapi.routing import APIRoute

from service.problems import Problem


async def refuse_unknown_parameters(request: Request) -> None:
    """A dependency of every route of the API.

    Raises:
        Problem: 422 if the query has a parameter that the route does not have, or has one twice.
    """
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    known = sorted(field.alias for field in route.dependant.query_params)
    given = [name for name, _ in request.query_params.multi_items()]
    for name in given:
        if name not in known:
            near = get_close_matches(name.lower(), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there is {_listed(known)}"
            raise Problem("invalid-request", reason=f"there is no query parameter {name!r}; {hint}")
        if given.count(name) > 1:
            raise Problem("invalid-request", reason=f"the query parameter {name!r} is given more than once")


def _listed(known: list[str]) -> str:
    return ", ".join(map(repr, known)) if known else "none here"
