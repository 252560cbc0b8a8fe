"""Which inspections a person should look at next."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from hashlib import sha256
from itertools import takewhile
from typing import Literal
from uuid import UUID

from service.choices import LABELS
from service.history.database import Database
from service.history.records import Row
from service.history.tables import ACCEPTED, LABELLED_GOOD

Order = Literal["nearest", "disagreements", "random"]
NEWEST = 2000
"""Inspections of the category that one answer looks at; that many are sorted in a few milliseconds."""
NEAREST = (20, 2000)
"""So many good inspections before another one, and after it, are looked at; more if no image of a few is there."""


def to_review(database: Database, category: str, order: Order, decision: str | None = None) -> list[Row]:
    """Inspections to review, in this order, of the newest `NEWEST` that come into question.

    Args:
        database: of the history.
        category: of the inspections.
        order: all have an image that was to be kept. `nearest` and `random`: not labelled; those whose score is nearest
            to their threshold first, or in a random order that stays the same. `disagreements`: labelled otherwise
            than decided, or differently by two people, and not settled yet; newest first.
        decision: only inspections with this one; None if it does not matter.

    Raises:
        HistoryUnavailableError: if the database is away.
    """
    if order == "disagreements":
        return _disagreements(database, category, decision)
    rows = database.newest_kept(category, None, decision, NEWEST)
    return sorted(rows, key=_distance if order == "nearest" else _place)


def _disagreements(database: Database, category: str, decision: str | None) -> list[Row]:
    found = [row for label in LABELS for row in database.newest_kept(category, label, decision, NEWEST)]
    rows = sorted(found, key=_id, reverse=True)[:NEWEST]
    said = defaultdict(list)
    for line in database.labels_of(map(_id, rows)):
        said[line["subject"]].append(line)
    return [row for row in rows if is_open(row["outcome"], said[str(row["id"])])]


def nearest_good(database: Database, inspection: Row, has_image: Callable[[str], bool]) -> Row | None:
    """The good inspection nearest in time whose image is there, to compare another one with: one that is labelled
    `normal`, or if there is none, one that was accepted and that nobody has labelled.

    Args:
        database: of the history.
        inspection: that is to be compared; a category is one view of a part, so it has the same view.
        has_image: whether the image with this SHA-256 is there.

    Returns:
        The inspection without its details; None if there is none among the nearest `NEAREST`.

    Raises:
        HistoryUnavailableError: if the database is away.
    """
    if inspection["width"] is None:
        return None
    for good in (LABELLED_GOOD, ACCEPTED):
        for most in NEAREST:
            for row in database.near(inspection, good, most):
                if has_image(row["sha256"]):
                    return row
    return None


def _id(row: Row) -> UUID:
    identity: UUID = row["id"]
    return identity


def _distance(row: Row) -> float:
    """From the threshold, in multiples of it: versions of a category have thresholds of different sizes."""
    score, threshold = float(row["score"]), float(row["threshold"])
    return abs(score / threshold - 1) if threshold > 0 else abs(score - threshold)


def _place(row: Row) -> bytes:
    """In the random order. It uses other bits than `service.keeping.chosen`, which are small in every small sample."""
    return sha256(_id(row).bytes).digest()[8:]


def is_open(decision: str, lines: Sequence[Row]) -> bool:
    """Whether the decision and people contradict each other, and no two people agree on the label that it has.

    Args:
        decision: `normal` or `anomalous`.
        lines: of the log of changes, all labels of the inspection, the last one first. A person is who has the same
            key and the same name.
    """
    last: dict[tuple[str | None, str | None], str] = {}
    for line in (lines := since_taken_back(lines)):
        last.setdefault((line["actor"], line["after"].get("reviewer")), line["after"]["label"])
    sure = [label for label in last.values() if label != "unsure"]
    settled = bool(lines) and sum(label == lines[0]["after"]["label"] for label in sure) > 1
    return len({decision, *sure}) > 1 and not settled


def since_taken_back(lines: Sequence[Row]) -> list[Row]:
    """Lines of the log of changes, all labels of an inspection, the last one first: those after a label was last taken
    back, so that the first one is the label that the inspection has."""
    return list(takewhile(lambda line: line["after"] is not None, lines))
