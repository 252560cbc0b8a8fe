"""Examples for the API's documentation: real answers, recorded from the built-in category."""

import json
from pathlib import Path
from typing import Any


def _read(name: str) -> dict[str, Any]:
    path = Path(__file__).with_name(f"{name}.json")
    return json.loads(path.read_text()) if path.exists() else {}


def named(name: str) -> dict[str, Any]:
    """The ``example`` of an OpenAPI media type, from ``NAME.json`` if it is recorded."""
    recorded = _read(name)
    return {"example": recorded} if recorded else {}


def problem(status: int) -> dict[str, Any]:
    """The ``example`` of a problem with this status, where one is recorded."""
    recorded = _read("problems").get(str(status))
    return {"example": recorded} if recorded else {}
