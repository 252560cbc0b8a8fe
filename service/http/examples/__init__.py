"""Examples for the API's documentation: real answers, recorded from the built-in category."""

import json
from pathlib import Path
from typing import Any

_ANSWERS = {
    "/v1/categories/{category}/inspect": "inspection",
    "/v1/categories/{category}/inspect-batch": "batch",
    "/v1/categories": "categories",
    "/v1/categories/{category}": "category",
}


def add_examples(document: dict[str, Any]) -> None:
    """Adds an ``example`` to the answers of an OpenAPI document for which one is recorded.

    Done on the finished document, because FastAPI drops what is null from examples it is given before.
    """
    problems = _read("problems")
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                content = response.get("content", {})
                if "application/problem+json" in content:
                    example = problems.get(f"{status} {path}", problems[status])
                    content["application/problem+json"]["example"] = example
                elif status == "200" and path in _ANSWERS:
                    content["application/json"]["example"] = _read(_ANSWERS[path])


def _read(name: str) -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads(Path(__file__).with_name(f"{name}.json").read_text())
    return recorded
