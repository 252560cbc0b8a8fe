"""Trains a category: a student that imitates the teacher on good parts, and its first threshold."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from time import monotonic
from types import MappingProxyType

import numpy as np
import torch

from model.choices import DEFAULT_SCORE, Score
from model.detector import Detector
from model.error_rates import check_reachable
from model.lifecycle import datasets, zones
from model.lifecycle.calibrate import calibration_of_images, with_map_scales
from model.lifecycle.datasets import LoadedImages, Sample, load_images
from model.lifecycle.distillation import MINIMUM_IMAGES, Epoch, train
from model.lifecycle.preparation import settled
from model.lifecycle.recipe import FEATURE_MEMORY_BYTES, Recipe, TrainingError
from model.lifecycle.thresholds import Rule
from model.networks.vgg import Teacher, student_plan
from model.preprocessing import Preprocessing
from model.quality import PictureCheck
from model.store.card import (
    UNNAMED,
    Architecture,
    Card,
    PreprocessingRecord,
    SeenImages,
    TeacherReference,
    TrainingRecord,
)
from model.store.store import CategoryExistsError, ChangedMeanwhileError, InPlace, Store
from model.store.teachers import fingerprint
from model.store.version import LOSS_CURVE, LOSSES, encode_student
from model.text import json_text

HELD_OUT_SHARE = 0.2
MINIMUM_PICTURES = 4
"""Where each makes several images for the networks."""


class InterruptedTrainingError(TrainingError):
    """An interrupted training of this category is kept, and it was not said what should become of it."""


class NoCategoryError(TrainingError):
    """There is no category that the candidate could be compared with."""


class NotNewError(TrainingError):
    """The category is there, and the candidate was to be of a new one."""


class ReplacesYoudenError(TrainingError):
    """A pair whose threshold comes from anomalous images would be replaced by one whose threshold does not."""


def check_trainable(
    weights: Path,
    category: str,
    *,
    resume: bool = False,
    replace: bool = False,
    without_anomalous: bool = False,
    candidate: bool = False,
    new: bool = False,
    rule: Rule = Rule(),
) -> InPlace | None:
    """Whether a training could begin, as far as that is known before its teacher and images are; see `train_category`.

    Returns:
        What it will replace; None for a new category.

    Raises:
        StoreError: if the name is impossible.
        CategoryExistsError: if the category exists and is not to be replaced.
        StoreNotWritableError: if this user cannot write to the folder of categories.
        CalibrationError: if the rule of the threshold is impossible.
        TrainingError: if there is nothing to resume.
        InterruptedTrainingError: if there is an interrupted training that is not to be resumed.
        NoCategoryError: for a candidate, if there is no category.
        NotNewError: for a candidate of a new category, if there is one.
        ReplacesYoudenError: if the threshold in place comes from anomalous images, and not ``without_anomalous``.
    """
    store = Store(weights)
    if candidate:
        exists = store.folder(category).exists()
        if new and exists:
            raise NotNewError(f"there is a category {category!r} already, so this is no new one")
        if not new and not exists:
            raise NoCategoryError(f"there is no category {category!r} that a candidate could be compared with")
        store, replace, without_anomalous = store.candidates, True, True
    before = store.in_place(category)
    if store.folder(category).exists() and not replace:
        raise CategoryExistsError(f"{store.folder(category)} exists")
    store.check_writable()
    rule.check()
    checkpoint = store.checkpoint(category)
    if resume and not checkpoint.exists():
        raise TrainingError(f"there is no interrupted training of {category!r} to resume")
    if not resume and checkpoint.exists():
        raise InterruptedTrainingError(f"there is an interrupted training of {category!r}, kept in {checkpoint}")
    if before.version is not None and not without_anomalous:
        present = store.card(category).calibration
        if present.anomalous_images:
            raise ReplacesYoudenError(
                f"the calibration of {category!r} comes from {present.anomalous_images} anomalous images; that of the "
                "new pair will come from good ones alone and knows no real fault until it is calibrated again"
            )
    return before if replace else None


def train_category(
    category: str,
    samples: Sequence[Sample],
    weights: Path,
    teacher_name: str,
    teacher: Teacher,
    recipe: Recipe,
    *,
    preprocessing: Preprocessing | None = None,
    zone_thresholds: Mapping[str, float] = MappingProxyType({}),
    each_zone: bool = False,
    score: Score = DEFAULT_SCORE,
    device: torch.device | str = "cpu",
    skip_unreadable: bool = False,
    resume: bool = False,
    replace: bool = False,
    without_anomalous: bool = False,
    candidate: bool = False,
    new: bool = False,
    keep_progress: bool = True,
    rule: Rule = Rule(),
    memory_bytes: int = FEATURE_MEMORY_BYTES,
    spill_folder: Path | None = None,
    on_start: Callable[[LoadedImages, int], None] = lambda images, held_out: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> tuple[Card, list[float]]:
    """Trains a pair on normal images and writes it, with a first threshold from a held-out fifth of them.

    The mean loss of each epoch is written to the same folder, as numbers and as a curve.

    Args:
        category: its name.
        samples: normal images.
        weights: the folder of categories.
        teacher_name: under which the weights folder knows the teacher.
        teacher: to learn from.
        recipe: how to train.
        preprocessing: of the images, with the recipe's image size; None for `Recipe.preprocessing`.
        zone_thresholds: of the zones of its region that have one of their own.
        each_zone: judge each zone by its own level, which the training images say; see `model.lifecycle.zones`.
        score: which score the pair is to have; it trains the same with either.
        device: where to train.
        skip_unreadable: go on without files that cannot be read.
        resume: go on from the checkpoint of an interrupted run.
        replace: put the new pair in place of one that exists.
        without_anomalous: also in place of one whose threshold comes from anomalous images.
        candidate: put the new pair beside the one in place, where it replaces another candidate; see
            `model.store.store.Store.candidates`.
        new: for a candidate: there is no category yet, and the pair is to be its first version.
        keep_progress: leave a checkpoint when it is stopped.
        rule: for the first threshold.
        memory_bytes: see `model.lifecycle.distillation.teacher_features`.
        spill_folder: see `model.lifecycle.distillation.teacher_features`.
        on_start: called once with the images read and how many of them are held out.
        on_epoch: called after each epoch.

    Returns:
        The new card, and the mean loss of each epoch.

    Raises:
        StoreError, CalibrationError, TrainingError: see `check_trainable`.
        DatasetError: if files cannot be read.
        TooFewPartsError: if too few images are held out for the target of the rule.
        TrainingError: with too few different images, see `check_enough`; or see `model.lifecycle.distillation.train`.
        TrainingInterrupted: after Ctrl-C; `resume` goes on.
        InterruptedTrainingError: if the category was changed while this ran; nothing is written, and `resume` goes on.
    """
    before = check_trainable(
        weights,
        category,
        resume=resume,
        replace=replace,
        without_anomalous=without_anomalous,
        candidate=candidate,
        new=new,
        rule=rule,
    )
    store = Store(weights).candidates if candidate else Store(weights)
    checkpoint = store.checkpoint(category) if keep_progress else None
    prepared = settled(recipe.preprocessing if preprocessing is None else preprocessing, recipe, samples)
    images = datasets.unique(datasets.aligned(load_images(samples, prepared, skip_unreadable=skip_unreadable)))
    check_enough(images)
    order = np.random.default_rng(recipe.seed).permutation(len(images.samples))
    held_out, training = np.split(order, [_held_out(len(order))])
    rule = zones.fixed(rule, prepared, zone_thresholds)
    if each_zone:
        zones.compared(prepared, zone_thresholds)
        zones.check_enough(len(training))
    if rule.target is not None:
        check_reachable(rule.target, len(held_out))
    on_start(images, len(held_out))

    started = monotonic()
    student, losses = train(
        teacher,
        datasets.pick(images, training).pixels,
        recipe,
        device=device,
        checkpoint=checkpoint,
        memory_bytes=memory_bytes,
        spill_folder=spill_folder,
        on_epoch=on_epoch,
    )
    seconds = monotonic() - started

    encoded = encode_student(student)
    digest = sha256(encoded).hexdigest()
    detector = Detector(teacher, student, recipe.term_weights, device, score=score)
    unseen, zone_weights = datasets.pick(images, held_out), {}
    if each_zone:
        zone_weights = zones.weights_of(detector, prepared, datasets.pick(images, training), zone_thresholds)
    now = datetime.now(UTC).replace(microsecond=0)
    card = Card(
        category=category,
        model_version=UNNAMED,
        architecture=Architecture(
            plan=student_plan(teacher.plan), weigh_distillation_layers=recipe.weigh_distillation_layers
        ),
        image_size=prepared.size,
        preprocessing=PreprocessingRecord.of(prepared),
        zone_thresholds=dict(zone_thresholds),
        zone_weights=zone_weights,
        picture_check=PictureCheck.of(images.looks()),
        score=score,
        squared_weight=recipe.squared_weight,
        direction_weight=recipe.direction_weight,
        teacher=TeacherReference(name=teacher_name, sha256=fingerprint(teacher)),
        student_sha256=digest,
        training=TrainingRecord(
            images=len(training),
            held_out=len(held_out),
            views=images.views,
            epochs=len(losses),
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            schedule=recipe.schedule,
            final_loss=losses[-1],
            seed=recipe.seed,
            device=str(device),
            torch=torch.__version__,
            seconds=round(seconds, 1),
            date=now,
            region=prepared.region,
        ),
        calibration=calibration_of_images(
            detector, unseen, None, rule, weights=zones.of_views(prepared, zone_thresholds, zone_weights)
        ),
        map_scale=1.0,
    )
    card = with_map_scales(card, detector, unseen).named()
    seen = SeenImages(
        training=tuple(digest for index in sorted(training) for digest in images.seen_as(index)),
        held_out=tuple(digest for index in sorted(held_out) for digest in images.seen_as(index)),
    )
    try:
        store.write(card, encoded, seen, _loss_traces(card, losses), replace=before)
    except (CategoryExistsError, ChangedMeanwhileError) as error:
        if checkpoint is None:
            raise
        raise InterruptedTrainingError(f"{error}; the training is kept in {checkpoint}") from None
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return card, losses


def check_enough(images: LoadedImages) -> None:
    """Refuses to train on too few pictures.

    A student learns from the images for the networks, so where each picture makes several, fewer pictures are enough:
    as many as leave the images that 8 pictures of one image leave when a fifth of them, two at least, is held out. The
    threshold counts pictures, whatever each makes, so there must be 4: two to learn from and two held out.

    Raises:
        TrainingError: saying how many are missing.
    """
    count, views = len(images.samples), images.views
    trained = (MINIMUM_IMAGES - _held_out(MINIMUM_IMAGES)) / views
    least = next(n for n in range(MINIMUM_PICTURES, MINIMUM_IMAGES + 1) if n - _held_out(n) >= trained)
    if count >= least:
        return
    each = f" where each makes {views} images for the networks" if views > 1 else ""
    missing = f"{count} different images are too few to train on, {least} at least{each}: add {least - count} or more"
    raise TrainingError("; ".join((missing, *images.remarks.lines())))


def _held_out(pictures: int) -> int:
    return max(2, round(HELD_OUT_SHARE * pictures))


def _loss_traces(card: Card, losses: list[float]) -> dict[str, bytes]:
    from model.lifecycle import figures  # matplotlib takes a second to load, which only those who draw should wait for

    numbers = {"category": card.category, "model_version": card.model_version, "mean_loss_by_epoch": losses}
    return {
        LOSSES: (json_text(numbers, indent=1) + "\n").encode(),
        LOSS_CURVE: figures.png(figures.loss_curve(losses, f"{card.category} {card.model_version}")),
    }
