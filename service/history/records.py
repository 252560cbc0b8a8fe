"""The record of one inspection, and the row that the database has of it."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from model.quality import Look
from service.part_info import PartInfo
from service.schemas import Inspection, ProblemBody

Row = dict[str, Any]
"""The columns of `service.history.tables.INSPECTIONS` by name, as JSON has them."""

LOSSES = {
    "spool-full": "the database has been away for too long; start it, or raise INSPECT_SPOOL_BYTES",
    "disk": "the folder INSPECT_STATE cannot be written; make room there, or let the user of the server write to it",
    "memory": "the disk of INSPECT_STATE is too slow for so many inspections",
    "error": "this is a fault of this software; the lines above say more",
}
"""Why a record may be lost, and what to do about it."""

_DETAILS = {"calibration", "separates", "reasons", "alignment", "zones", "tiles", "localization", "timing_ms"}
_PICTURES = {"localization": {"heatmap_png", "mask_png"}}


@dataclass(frozen=True)
class Record:
    """What is known of an image that was received, when its answer is ready.

    Attributes:
        id: UUID version 7.
        category: that judged it, or should have.
        model_version: the version that served.
        result: the answer, or the problem in its place.
        outcome: the decision, or the kind of the problem.
        data: the bytes that were sent; None where they are not needed any more.
        size: how many they were.
        part_info: what the client said of the part.
        part: name of the part's card.
        part_inspection: id of the answer for the part, if the image is a view of one.
        request_id: of the request.
        image_kept: whether the image is to be kept.
        kept_share: the share of images like this one that are, 0 to 1.
        look: the plain measures of the picture; None where the category has no check of pictures.
        sample_share: the share of all judged images of the category that are surely kept, 0 to 1.
    """

    id: UUID
    category: str
    model_version: str
    result: Inspection | ProblemBody
    outcome: str
    data: bytes | None
    size: int
    part_info: PartInfo
    part: str | None = None
    part_inspection: UUID | None = None
    request_id: str | None = None
    image_kept: bool = False
    kept_share: float = 0.0
    look: Look | None = None
    sample_share: float = 0.0

    def row(self) -> Row:
        """As the database has it."""
        row: Row = {
            "id": self.id.hex,
            "category": self.category,
            "model_version": self.model_version,
            "outcome": self.outcome,
            "part_id": self.part_info.part_id,
            "lot": self.part_info.lot,
            "station": self.part_info.station,
            "part": self.part,
            "part_inspection": None if self.part_inspection is None else self.part_inspection.hex,
            "request_id": self.request_id,
            "bytes": self.size,
            "image_kept": self.image_kept,
            "kept_share": self.kept_share,
            "sample_share": self.sample_share,
        }
        details: Row = {"metadata": self.part_info.metadata}
        if isinstance(self.result, Inspection):
            image = self.result.image
            row |= {"score": self.result.score, "threshold": self.result.threshold, "verdict": self.result.verdict}
            row |= {"sha256": image.sha256, "width": image.width, "height": image.height}
            details |= self.result.model_dump(mode="json", include=_DETAILS, exclude=_PICTURES)
            details["look"] = None if self.look is None else {k: float(v) for k, v in self.look._asdict().items()}
        else:
            row |= dict.fromkeys(("score", "threshold", "verdict", "width", "height"))
            assert self.data is not None
            row["sha256"] = sha256(self.data).hexdigest()
            details["problem"] = self.result.model_dump(mode="json")
        return row | {"details": details}


def columns_of(text: str) -> Row:
    """The columns, as the database takes them, of a row that was written as JSON.

    Raises:
        ValueError, TypeError, LookupError, AttributeError: if it is not such a row.
    """
    row: Row = json.loads(text)
    identity, part = UUID(row["id"]), row["part_inspection"]
    verdict = {"normal": "pass", "anomalous": "fail"}.get(row["outcome"])
    row = {"sample_share": 0.0, "verdict": verdict} | row  # older software wrote rows without them
    return row | {"id": identity, "time": time_of(identity), "part_inspection": None if part is None else UUID(part)}


def seconds_of(identity: UUID) -> float:
    """When a UUID of version 7 was made, in seconds since 1970, to the millisecond."""
    return (identity.int >> 80) / 1000


def time_of(identity: UUID) -> datetime:
    """When a UUID of version 7 was made, to the millisecond."""
    return datetime.fromtimestamp(seconds_of(identity), UTC)


def first_id_at(time: datetime) -> UUID:
    """The smallest UUID of version 7 that was made at this time or later, and is of no other version."""
    milliseconds = max(0, min((1 << 48) - 1, round(time.timestamp() * 1000)))
    return UUID(int=milliseconds << 80)
