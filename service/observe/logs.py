"""The log: one line per request, as a JSON object or as plain text. Lines logged during a request have its id."""

import logging
import re
import sys
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Literal
from uuid import uuid4

from model.text import json_text
from service.part_info import PartInfo
from service.schemas import Inspection, PartAnswer, TimingMs

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_TOLD = {"id", "score", "threshold", "decision", "verdict", "timing_ms"}
"""Of an inspection, in the log line."""
_PLAIN = re.compile(r"[\w./:@{}+-]+", re.ASCII)


@dataclass
class Record:
    """What is noted about one request while it is answered.

    Attributes:
        request_id: the caller's or ours.
        started: when its headers were there, by `time.perf_counter`.
        category: if the catalogue has it.
        part_info: what the caller said of the part.
        problem: kind of the problem that is the answer.
        outcomes: of each of its images: the decision, or the kind of its problem.
        inspections: of the images that were answered, each with when its body was there.
        part: the answer for a part of several views.
        bytes_received: of the body.
    """

    request_id: str
    started: float = field(default_factory=perf_counter)
    category: str | None = None
    part_info: PartInfo = field(default_factory=PartInfo)
    problem: str | None = None
    outcomes: list[str] = field(default_factory=list)
    inspections: list[tuple[float, Inspection]] = field(default_factory=list)
    part: PartAnswer | None = None
    bytes_received: int = 0

    def fields(self) -> dict[str, Any]:
        """What the log line tells of the images; counts by outcome where there are several."""
        told: dict[str, Any] = {"category": self.category, "bytes_received": self.bytes_received}
        told |= self.part_info.model_dump(exclude_none=True)
        if self.problem is not None or len(self.outcomes) == 1:
            told["outcome"] = self.problem or self.outcomes[0]
        elif self.outcomes:
            told["outcomes"] = dict(Counter(self.outcomes))
        if len(self.inspections) == 1:
            _, inspection = self.inspections[0]
            told |= inspection.model_dump(mode="json", include=_TOLD)
        if self.part is not None:
            told |= self.part.model_dump(mode="json", include={"id", "part", "part_version", "decision"})
        return told


RECORD: ContextVar[Record | None] = ContextVar("record", default=None)
"""Of the request that is being answered, if any."""


def request_id_of(given: str) -> str:
    """The caller's request id if it is 1 to 128 printable ASCII characters without spaces, else a new one."""
    return given if _REQUEST_ID.fullmatch(given) else uuid4().hex


def server_timing(timing: TimingMs) -> str:
    """The stages as the value of a ``Server-Timing`` header, milliseconds."""
    return ", ".join(f"{stage};dur={milliseconds}" for stage, milliseconds in timing.model_dump().items())


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time (UTC), level, logger, message, the request's id and the fields in `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        request = RECORD.get()
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **({"request_id": request.request_id} if request else {}),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json_text(line)


class TextFormatter(logging.Formatter):
    """A line for people, with the same fields at its end."""

    def __init__(self) -> None:
        super().__init__(TEXT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the name is logging's
        request = RECORD.get()
        fields = ({"request_id": request.request_id} if request else {}) | getattr(record, "fields", {})
        return " ".join([super().formatMessage(record), *(f"{name}={_word(value)}" for name, value in fields.items())])


def _word(value: Any) -> str:
    """A value that cannot be taken for several: as JSON where it is text with more than letters and common signs."""
    if isinstance(value, dict) or (isinstance(value, str) and not _PLAIN.fullmatch(value)):
        return json_text(value)
    return str(value)


def configure(level: str, form: Literal["json", "text"] | None) -> None:
    """Sends the log to stderr; in no given form, as text to a terminal and as JSON elsewhere."""
    handler = logging.StreamHandler(sys.stderr)
    text = form == "text" or (form is None and sys.stderr.isatty())
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("PIL").setLevel(logging.INFO)  # below that it tells what stands in the images' headers
