"""Query parameters: one that a route does not know is refused, so that a misspelt one is not ignored."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated

from fastapi import Query, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from service.observe.logs import RECORD
from service.part_info import METADATA_CHARACTERS, TEXT_CHARACTERS, PartInfo, PartInfoError
from service.problems import Problem


async def refuse_unknown_parameters(request: Request) -> None:
    """A dependency of every route of the API.

    Raises:
        Problem: 422 if the query has a parameter that the route does not have, or has one twice.
    """
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    known = sorted(_query_names(route.dependant))
    given = [name for name, _ in request.query_params.multi_items()]
    for name in given:
        if name not in known:
            near = get_close_matches(name.lower(), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there is {_listed(known)}"
            raise Problem("invalid-request", reason=f"there is no query parameter {name!r}; {hint}")
        if given.count(name) > 1:
            raise Problem("invalid-request", reason=f"the query parameter {name!r} is given more than once")


def _query_names(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for below in dependant.dependencies:
        yield from _query_names(below)


_Text = Annotated[
    str | None, Query(min_length=1, max_length=TEXT_CHARACTERS, description="Printable text; the answer repeats it")
]


async def part_info_of_query(
    part_id: _Text = None,
    lot: _Text = None,
    station: _Text = None,
    metadata: Annotated[
        str | None,
        Query(
            min_length=2,
            max_length=METADATA_CHARACTERS,
            description='JSON object of at most 32 names, each with a text, a number, true or false: `{"shift": "b"}`; '
            "the answer repeats it",
        ),
    ] = None,
) -> PartInfo:
    """A dependency of routes that inspect: what the query says of the part. It is noted for the log.

    Raises:
        Problem: 422 if it is not allowed.
    """
    given = {"part_id": part_id, "lot": lot, "station": station, "metadata": metadata}
    return with_texts(PartInfo(), {name: text for name, text in given.items() if text is not None})


def with_texts(part_info: PartInfo, texts: Mapping[str, str]) -> PartInfo:
    """The same, with what the fields of a form say too. It is noted for the log.

    Raises:
        Problem: 422 if it is not allowed, or was said before.
    """
    try:
        joined = part_info.joined(texts)
    except PartInfoError as error:
        raise Problem("invalid-request", reason=error) from None
    if (record := RECORD.get()) is not None:
        record.part_info = joined
    return joined


def _listed(known: list[str]) -> str:
    return ", ".join(map(repr, known)) if known else "none here"
