"""Many categories in one go: each is trained and calibrated by itself, so that they can run anywhere in any order."""

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from time import monotonic

from model.calibration import CalibrationError
from model.images import ImageError
from model.lifecycle import datasets
from model.lifecycle.calibrate import calibrate_category
from model.lifecycle.datasets import DatasetError, Sample
from model.lifecycle.distillation import TrainingInterrupted
from model.lifecycle.folders import read_file, sub_folders
from model.lifecycle.recipe import ENOUGH_STEPS, Recipe, TrainingError
from model.lifecycle.remarks import NONE, Kind, Remarks, remark
from model.lifecycle.thresholds import Rule
from model.lifecycle.train import train_category
from model.store.card import Card
from model.store.store import Store
from model.store.teachers import TeacherError, load_teacher
from model.store.version import StoreError
from model.text import readable

CALIBRATION_SHARE = 0.5
"""Of a category's test images, for its threshold; the rest is left for an evaluation."""
HOPELESS = (CalibrationError, DatasetError, ImageError, StoreError, TeacherError, TrainingError)
"""What does not go away when it is tried again."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CategoryTraining:
    """A category to be trained and calibrated.

    Attributes:
        category: its name.
        data: its folder in the MVTec AD layout.
        weights: the folder of categories.
        teachers: the folder of teachers.
        teacher: name and SHA-256 of one that lies there.
        recipe: how to train.
        device: where to train, as torch names it.
        retries: how often to try again after a failure that may go away.
        rule: where its threshold is to come from.
    """

    category: str
    data: Path
    weights: Path
    teachers: Path
    teacher: tuple[str, str]
    recipe: Recipe
    device: str
    retries: int
    rule: Rule = field(default_factory=Rule)


@dataclass(frozen=True)
class TrainingResult:
    """What became of a training.

    Attributes:
        category: its name.
        outcome: ``trained``, ``there already`` or ``failed``.
        seconds: it took.
        model_version, threshold, auroc: of the category; the AUROC of its calibration, if it had anomalous images.
        false_alarms: with 95 % confidence the false-alarm rate of new parts is not above this, 0 to 1.
        reason: why it failed.
        remarks: what was left out of its images.
        warning: why its verdicts should not be used.
    """

    category: str
    outcome: str
    seconds: float
    model_version: str | None = None
    threshold: float | None = None
    auroc: float | None = None
    false_alarms: float | None = None
    reason: str | None = None
    remarks: Remarks = NONE
    warning: str | None = None


def categories_of(root: Path) -> tuple[list[Path], Remarks]:
    """The folders of a root that are categories in the MVTec AD layout, by name, and what else is there.

    Raises:
        DatasetError: if there is none.
    """
    if not root.is_dir():
        raise DatasetError(f"{readable(root)} is not a folder")
    folders, remarks = sub_folders(root)
    found = [folder for folder in folders if (folder / "train" / "good").is_dir()]
    if not found:
        raise DatasetError(f"{readable(root)} holds no category in the MVTec AD layout: no folder NAME/train/good")
    return found, remarks + remark(Kind.NO_TRAINING, *(folder for folder in folders if folder not in found))


def train_one(training: CategoryTraining) -> TrainingResult:
    """Trains and calibrates one category, going on where an earlier call was stopped, and tries again if it fails.

    Raises:
        TrainingInterrupted: after Ctrl-C.
    """
    started = monotonic()
    for attempt in range(training.retries + 1):
        try:
            outcome, remarks = _train_once(training)
        except HOPELESS as error:
            return TrainingResult(training.category, "failed", monotonic() - started, reason=str(error))
        except TrainingInterrupted:
            raise
        except Exception as error:
            log.exception("attempt %d of category %s failed", attempt + 1, training.category)
            reason = f"{type(error).__name__}: {error}"
        else:
            card = Store(training.weights).card(training.category)
            found, (false_alarms, _) = card.calibration, card.calibration.error_rates
            return TrainingResult(
                training.category,
                outcome,
                monotonic() - started,
                card.model_version,
                found.threshold,
                found.auroc,
                None if false_alarms is None else false_alarms.bound,
                remarks=remarks,
                warning=_warning_of(card),
            )
    return TrainingResult(training.category, "failed", monotonic() - started, reason=reason)


def train_in_turn(trainings: Iterable[CategoryTraining]) -> Iterator[TrainingResult]:
    """Makes one after the other."""
    return map(train_one, trainings)


def _train_once(training: CategoryTraining) -> tuple[str, Remarks]:
    remarks = NONE
    store = Store(training.weights, training.teachers)
    outcome = "there already"
    if not store.holds(training.category):
        teacher = load_teacher(training.teachers, *training.teacher)
        listing = datasets.mvtec_training(training.data)
        loaded: list[Remarks] = []
        train_category(
            training.category,
            listing,
            training.weights,
            training.teacher[0],
            teacher,
            training.recipe,
            device=training.device,
            resume=store.checkpoint(training.category).exists(),
            rule=training.rule,
            on_start=lambda images, held_out: loaded.append(images.remarks),
        )
        remarks = sum(loaded, listing.remarks)
        outcome = "trained"
    if not store.card(training.category).calibration.anomalous_images and (training.data / "test").is_dir():
        listing = datasets.mvtec_test(training.data, with_masks=False)
        share, _ = datasets.split(listing, CALIBRATION_SHARE, training.recipe.seed)
        good = [one for one in share if one.defect is None]
        bad = [one for one in share if one.defect is not None]
        if bad and training.rule.target is not None:
            good += _held_out(training, store)  # every good part that training has not seen counts
        if bad:
            _, about_images = calibrate_category(
                training.weights,
                training.teachers,
                training.category,
                good,
                bad,
                rule=training.rule,
                device=training.device,
            )
            remarks += listing.remarks + about_images
            outcome = "trained"
    return outcome, remarks


def _held_out(training: CategoryTraining, store: Store) -> list[Sample]:
    """The images that the category's training has held out."""
    known = set(store.seen(training.category).held_out)
    samples = datasets.mvtec_training(training.data)
    return [one for one in samples if sha256(read_file(one.path)).hexdigest() in known]


def _warning_of(card: Card) -> str | None:
    steps = card.training.steps
    few = f"was trained for {steps} steps only, {ENOUGH_STEPS} are the least" if steps < ENOUGH_STEPS else None
    return "; ".join(filter(None, (card.calibration.warning, few))) or None


def table(results: Iterable[TrainingResult]) -> str:
    """What became of every training, for people."""

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.4g}"

    def share(value: float | None) -> str:
        return "-" if value is None else f"<= {math.ceil(1000 * value - 1e-9) / 10:g} %"

    rows = [("category", "outcome", "version", "threshold", "false alarms", "AUROC", "seconds")]
    rows += [
        (
            one.category,
            one.outcome,
            one.model_version or "-",
            number(one.threshold),
            share(one.false_alarms),
            number(one.auroc),
            f"{one.seconds:.0f}",
        )
        for one in sorted(results, key=lambda one: one.category)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
