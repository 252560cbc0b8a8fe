"""Calibrations from labels: which inspections of the history count, and the new version that comes of them."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np

from model.calibration import CalibrationError, rejects
from model.choices import Reason
from model.error_rates import TooFewPartsError
from model.lifecycle import zones
from model.lifecycle.labelled import Labelled, calibration_of_labels
from model.lifecycle.thresholds import Rule, moved_by_hand
from model.store.card import SCHEMA_VERSION, Calibration, Card, LabelRecord, SeenImages
from model.store.store import InPlace, Store
from model.store.version import StoreError
from service.history.database import Database
from service.history.records import Row, time_of
from service.keeping import chosen
from service.schemas import VersionThreshold

log = logging.getLogger(__name__)

MOST_LABELS = 20_000
"""The newest labelled inspections of a category; older ones are not counted."""

Why = Literal[
    "other-scores", "rejected-for-another-reason", "rejected-by-another-zone", "seen-in-training", "same-image",
    "not-random",
]  # fmt: skip
"""Why a labelled inspection does not count."""
MEANINGS: dict[str, str] = {
    "other-scores": "by a version that has other scores, or is not kept any more",
    "rejected-for-another-reason": "rejected for another reason than the score, which no threshold changes",
    "rejected-by-another-zone": "rejected by a zone with a threshold of its own, which this one does not change",
    "seen-in-training": "of images that training has seen",
    "same-image": "of an image that was inspected again later",
    "not-random": "whose image was not kept, or was kept by a rule that keeps no sample of all images",
}


@dataclass(frozen=True)
class Asked:
    """What somebody asks for.

    Attributes:
        rule: where the threshold is to come from.
        since: only inspections not before this time.
        until: only inspections before this time.
    """

    rule: Rule
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class Prepared:
    """A new version that is not written yet.

    Attributes:
        card: its passport.
        before: the passport that it replaces.
        labels: the inspections that count; None if none do, and the record of the calibration before stays.
        left_out: how many labelled inspections do not count, by the reason.
        replace: what was in the place of the category when this began.
        student: the bytes of its file.
        seen: the images it has seen.
        traces: see `model.store.version.TRACES`.
    """

    card: Card
    before: Card
    labels: LabelRecord | None
    left_out: dict[str, int]
    replace: InPlace
    student: bytes
    seen: SeenImages
    traces: dict[str, bytes]

    @property
    def remarks(self) -> list[str]:
        """What a person should know of the labels, in sentences."""
        found = [f"{count} labelled inspections {MEANINGS[why]}: not counted." for why, count in self.left_out.items()]
        labels, calibration = self.labels, self.card.calibration
        if labels is None:
            return [*found, "No labelled inspection was counted."]
        if labels.sampled_normal < labels.normal or labels.sampled_anomalous < labels.anomalous:
            found.append(
                f"{labels.sampled_normal} of {labels.normal} good and {labels.sampled_anomalous} of "
                f"{labels.anomalous} faulty parts are in the random sample, which alone gives the 95 % bounds."
            )
        if labels.normal + labels.anomalous + sum(self.left_out.values()) >= MOST_LABELS:
            found.append(f"Only the newest {MOST_LABELS} labelled inspections were looked at.")
        for kind, error, rate in (
            ("good", "rejected", calibration.false_alarms),
            ("faulty", "accepted", calibration.misses),
        ):
            if rate is None:
                found.append(
                    f"No labelled {kind} part is in the random sample, so how many are {error} cannot be told."
                )
        return found

    def write(self, store: Store) -> None:
        """Puts the version in its place, and keeps the one that it replaces.

        Raises:
            StoreNotWritableError, ChangedMeanwhileError, OSError: see `model.store.store.Store`; nothing has changed.
        """
        store.check_writable()
        store.write(self.card, self.student, self.seen, self.traces, replace=self.replace)

    def take_back(self, store: Store) -> None:
        """Puts the version before in its place again, unless another one is there by now."""
        try:
            written = InPlace(self.card.model_version)
            store.roll_back(self.card.category, self.before.model_version, replace=written)
        except (StoreError, OSError) as error:
            log.error("category %s keeps its new version on the disk: %s", self.card.category, error)


def prepare(store: Store, database: Database, category: str, asked: Asked) -> Prepared:
    """The version that a calibration would make, from the labels of the history. Nothing is written.

    Raises:
        CalibrationError: if the rule is impossible, or the labels do not give it; the message says what is missing.
        StoreError: if the category is not there or its files are damaged.
        HistoryUnavailableError: if the database is away.
    """
    asked.rule.check()
    replace = store.in_place(category)
    before = store.card(category)
    if zones.all_have_their_own(before.preprocessor, before.zone_thresholds):
        raise CalibrationError("every zone has a threshold of its own, so there is no other one to set")
    seen, student, traces = store.seen(category), store.encoded_student(category, before), store.traces(category)
    alike = {before.model_version}
    alike |= {one.version for one in store.kept(category) if one.card.scores_like(before)}
    rows = database.scored_labels(category, asked.since, asked.until, MOST_LABELS)
    counted, left_out = _sorted_out(rows, before, alike, set(seen.training))
    calibration = _calibration_of(before, counted, asked.rule, left_out)
    labels = calibration.labels if any(row["label"] == "normal" for row in counted) else None
    if labels is not None:
        seen = seen.model_copy(update={"calibration": tuple(row["sha256"] for row in counted)})
    card = before.model_copy(update={"schema_version": SCHEMA_VERSION, "calibration": calibration}).named()
    return Prepared(card, before, labels, left_out, replace, student, seen, traces)


def _sorted_out(
    rows: Iterable[Row], card: Card, versions: set[str], trained: set[str]
) -> tuple[list[Row], dict[str, int]]:
    """Those that count, and how many do not, by the reason. Of the same image the newest inspection counts."""
    counted: dict[str, Row] = {}
    left_out = Counter[str]()
    for row in rows:
        why: Why | None = "same-image" if row["sha256"] in counted else _why_not(row, card, versions, trained)
        if why is None:
            counted[row["sha256"]] = row
        else:
            left_out[why] += 1
    return list(counted.values()), {**left_out}


def _why_not(row: Row, card: Card, versions: set[str], trained: set[str]) -> Why | None:
    if row["model_version"] not in versions:
        return "other-scores"
    if row["sha256"] in trained:
        return "seen-in-training"
    if set(row["details"]["reasons"]) - {Reason.SCORE}:
        return "rejected-for-another-reason"
    if row["label"] == "anomalous" and any(
        rejects(zone["score"], card.zone_thresholds[zone["name"]])
        for zone in row["details"]["zones"] or ()
        if zone["name"] in card.zone_thresholds
    ):
        return "rejected-by-another-zone"
    return None if row["sample_share"] and chosen(row["id"], row["kept_share"]) else "not-random"


def _calibration_of(before: Card, rows: Sequence[Row], rule: Rule, left_out: dict[str, int]) -> Calibration:
    normal, anomalous = (_labelled(before, rows, label) for label in ("normal", "anomalous"))
    try:
        if not len(normal):
            if rule.threshold is not None:
                return moved_by_hand(before.calibration, rule.threshold, rule.review)
            raise CalibrationError("no labelled good part counts")
        found = calibration_of_labels(normal, anomalous, rule, _record(rows, normal, anomalous))
        return found.model_copy(update={"usual": before.calibration.usual})  # of the same networks and pictures
    except TooFewPartsError as error:
        reason = (
            f"{error}. {len(normal)} labelled good parts count, of which {len(normal.sample)} are in the random sample "
            "of all images; label more of it, or keep a larger one (INSPECT_KEEP_IMAGES)"
        )
        raise CalibrationError(reason) from None
    except CalibrationError as error:
        away = "; ".join(f"{count} {MEANINGS[why]}" for why, count in left_out.items())
        reason = f"{error}. Of the labelled inspections, {len(normal)} good and {len(anomalous)} faulty parts count"
        raise CalibrationError(f"{reason}; not: {away}" if away else reason) from None


def _labelled(card: Card, rows: Sequence[Row], label: str) -> Labelled:
    chosen_rows = [row for row in rows if row["label"] == label]
    return Labelled(
        np.array([_score_of(card, row) for row in chosen_rows], dtype=np.float64),
        np.array([row["kept_share"] for row in chosen_rows], dtype=np.float64),
        np.array([chosen(row["id"], row["sample_share"]) for row in chosen_rows], dtype=bool),
    )


def _score_of(card: Card, row: Row) -> float:
    """The score that the threshold of the category is compared with.

    Of a part with zones it is made from theirs: the score in the row is scaled by what the thresholds of zones and the
    weights of zones were then.
    """
    if row["details"]["zones"] is None:
        return float(row["score"])
    scores = (
        zone["score"] * card.zone_weights.get(zone["name"], 1.0)
        for zone in row["details"]["zones"]
        if zone["name"] not in card.zone_thresholds
    )
    return float(max(scores))


def _record(rows: Sequence[Row], normal: Labelled, anomalous: Labelled) -> LabelRecord:
    times = [time_of(row["id"]) for row in rows]
    return LabelRecord(
        first=min(times),
        last=max(times),
        normal=len(normal),
        anomalous=len(anomalous),
        sampled_normal=len(normal.sample),
        sampled_anomalous=len(anomalous.sample),
    )


def summary_of(card: Card) -> VersionThreshold:
    """What the log of changes, and the answer, say of a version."""
    found = card.calibration
    return VersionThreshold(model_version=card.model_version, threshold=found.threshold, calibration=found.method)
