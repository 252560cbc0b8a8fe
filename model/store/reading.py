"""Reads files that people write and disks damage: bounded, strictly, and with a reason where one is refused."""

import json
from codecs import BOM_UTF8
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from model.errors import ExpectedError
from model.store.card import SCHEMA_VERSION

M = TypeVar("M", bound=BaseModel)


class StoreError(ExpectedError):
    """A category or a part's card cannot be read or written; the message says why."""


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a file. Raises `StoreError` if it cannot be read, or is longer."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > limit:
        raise StoreError(f"{path} has more than {limit} bytes")
    return data


def read_json(path: Path, limit: int, model: type[M], what: str) -> M:
    """Reads a file strictly: each name once, numbers as numbers, nothing that the model does not know.

    Raises:
        StoreError: if it cannot be read, or is not that.
    """
    try:
        data, fields = json_of(read_bytes(path, limit))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is not JSON: {error}") from None
    version = fields.get("schema_version") if isinstance(fields, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise StoreError(f"{path} has schema version {version}, this software reads up to {SCHEMA_VERSION}: upgrade it")
    try:
        return model.model_validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where, reason = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise StoreError(f"{path} is not {what}: {where}{': ' if where else ''}{reason}") from None


def json_of(data: bytes) -> tuple[bytes, object]:
    """JSON as bytes without the mark that Windows editors put before UTF-8, and what it says.

    Raises:
        ValueError, RecursionError: if it is not JSON, or a name stands twice in one object.
    """
    data = data.removeprefix(BOM_UTF8)
    return data, json.loads(data, object_pairs_hook=_each_once)


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return fields
