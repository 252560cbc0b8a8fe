"""What a client says of the part that an image shows. It is checked, and then stands in the answer and in the log."""

import json
import math
from collections.abc import Callable, Mapping
from typing import NoReturn

from pydantic import BaseModel, Field

from model.errors import ExpectedError

TEXT_CHARACTERS = 128
"""Longest part id, lot or station."""
MAX_NAMES = 32
NAME_CHARACTERS = 64
VALUE_CHARACTERS = 256
METADATA_CHARACTERS = 4096
"""Longest metadata, as the JSON that the client sends."""
LARGEST_INTEGER = 2**53 - 1
"""JSON readers that hold every number as a float hold larger ones inexactly."""

Value = str | int | float | bool


class PartInfoError(ExpectedError):
    """What the client says of the part is not allowed; the message says what is."""


class PartInfo(BaseModel):
    """What the client said of the part that the image shows; null where it said nothing."""

    part_id: str | None = Field(default=None, description="Serial number or other name of the part")
    lot: str | None = None
    station: str | None = None
    metadata: dict[str, Value] | None = Field(default=None, description="Anything else, by name")

    def joined(self, given: Mapping[str, str]) -> "PartInfo":
        """With further values, as the texts that a client sends.

        Raises:
            PartInfoError: if one is not allowed, or is there already.
        """
        for name in given:
            if getattr(self, name) is not None:
                raise PartInfoError(f"{name!r} is given both in the query and in the form; give it once")
        return self.model_copy(update={name: _READ[name](name, text) for name, text in given.items()})


def _text_of(what: str, text: str, longest: int = TEXT_CHARACTERS) -> str:
    """The text itself, if it is one printed line."""
    if not text:
        raise PartInfoError(f"{what!r} is empty; leave it out")
    _check_text(what, text, longest)
    if text != text.strip():
        raise PartInfoError(f"{what!r} begins or ends with a space")
    return text


def _check_text(what: str, text: str, longest: int) -> None:
    if len(text) > longest:
        raise PartInfoError(f"{what!r} has {len(text)} characters; at most {longest} are allowed")
    if "\ufffd" in text:  # what a reader of UTF-8 puts in the place of bytes that are something else
        raise PartInfoError(f"{what!r} is not UTF-8")
    if not text.isprintable():
        bad = next(one for one in text if not one.isprintable())
        raise PartInfoError(f"{what!r} has the character U+{ord(bad):04X}, which cannot be printed")


def _metadata_of(what: str, text: str) -> dict[str, Value]:
    """A flat JSON object."""
    if len(text) > METADATA_CHARACTERS:
        raise PartInfoError(f"{what!r} has {len(text)} characters; at most {METADATA_CHARACTERS} are allowed")
    try:
        given = json.loads(text, object_pairs_hook=_each_once, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise PartInfoError(f"{what!r} is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise PartInfoError(f'{what!r} is not a JSON object such as {{"shift": "b"}}')
    if len(given) > MAX_NAMES:
        raise PartInfoError(f"{what!r} has {len(given)} names; at most {MAX_NAMES} are allowed")
    for name, value in given.items():
        _text_of(f"{what}: a name", name, NAME_CHARACTERS)
        _check_value(f"{what}: {name}", value)
    return given


def _check_value(what: str, value: object) -> None:
    if isinstance(value, str):
        _check_text(what, value, VALUE_CHARACTERS)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise PartInfoError(f"{what!r} is too large a number")
    elif isinstance(value, int):  # also true and false
        if abs(value) > LARGEST_INTEGER:
            raise PartInfoError(f"{what!r} is beyond {LARGEST_INTEGER}, the largest integer in JSON; send it as text")
    else:
        raise PartInfoError(f"{what!r} must be a text, a number, true or false")


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a name stands there twice")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


_READ: Mapping[str, Callable[[str, str], object]] = {
    "part_id": _text_of,
    "lot": _text_of,
    "station": _text_of,
    "metadata": _metadata_of,
}
PART_FIELDS = tuple(_READ)
"""Names of what can be said, in a query or in a form."""
