"""Examples for the API's documentation: real answers, recorded from the built-in category."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from starlette.routing import BaseRoute

from service.http.errors import MEDIA_TYPE, operations_of

_ANSWERS = {
    "inspect": "inspection",
    "inspect_batch": "batch",
    "inspect_part": "part",
    "parts": "parts",
    "categories": "categories",
    "category_detail": "category",
    "inspections": "inspections",
    "past_inspection": "past_inspection",
    "label": "label",
    "audit": "audit",
}
"""Files of recorded answers by the name of the route."""


def add_examples(document: dict[str, Any], routes: Iterable[BaseRoute]) -> None:
    """Adds an ``example`` to the answers of an OpenAPI document for which one is recorded.

    Done on the finished document, because FastAPI drops what is null from examples it is given before.
    """
    problems = _read("problems")
    for route, operation in operations_of(document, routes):
        for status, response in operation["responses"].items():
            content = response.get("content", {})
            if MEDIA_TYPE in content:
                content[MEDIA_TYPE]["example"] = problems.get(f"{status} {route.name}", problems[status])
            elif status == "200" and route.name in _ANSWERS:
                content["application/json"]["example"] = _read(_ANSWERS[route.name])


def _read(name: str) -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads(Path(__file__).with_name(f"{name}.json").read_text(encoding="utf-8"))
    return recorded
