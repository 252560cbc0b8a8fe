"""A category's life: train it, calibrate it, evaluate it. What the command line does, without the printing."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any

import cv2
import numpy as np
import torch

from model import datasets, measures
from model.calibration import Youden, check_quantile, without_anomalous, youden
from model.datasets import DatasetError, LoadedImages, Sample, load_images
from model.detector import BEST_BATCH, Detector
from model.localization import MapForm
from model.pair import (
    LOSS_CURVE,
    LOSSES,
    SCHEMA_VERSION,
    Architecture,
    Calibration,
    Card,
    PairError,
    RocCurve,
    ScoreHistogram,
    SeenImages,
    TeacherReference,
    TrainingRecord,
    build_detector,
    check_category_name,
    encode_student,
    read_card,
    read_encoded_student,
    read_seen,
    read_traces,
    write_pair,
)
from model.pasting import paste_defect
from model.score import Score
from model.teachers import fingerprint, load_teacher
from model.training import FEATURE_MEMORY_BYTES, MINIMUM_IMAGES, Epoch, Recipe, TrainingError, train
from model.vgg import Teacher, student_plan

HELD_OUT_SHARE = 0.2
NORMAL_QUANTILE = 0.9
"""For a threshold without anomalous images; measured in ``benchmarks/accuracy.md``."""

PASTING_SEED = 0
MAP_SCALE_QUANTILE = 0.995
PIXEL_GRID = 256
HISTOGRAM_BINS = 30


class SeenPolicy(StrEnum):
    """What evaluation does with images that training or calibration has seen."""

    REFUSE = "refuse"
    SKIP = "skip"
    INCLUDE = "include"


@dataclass(frozen=True)
class Evaluation:
    """How a category did on a test set; see `model.measures` for the measures.

    Attributes:
        category: its name.
        model_version: of its pair.
        calibration: how its threshold was found.
        threshold: in score units.
        normal_images: how many normal images were judged.
        anomalous_images: how many anomalous ones.
        left_out_seen: images left out because training or calibration had seen them.
        unreadable: one message for each file that could not be read.
        image: measures of the decision.
        auroc_by_defect: AUROC of each kind of defect against all normal images.
        pixel_images: anomalous images with a mask; with the normal ones they make the pixel measures.
        pixel_auroc: 0 to 1, or None without masks.
        aupro: 0 to 1, or None without masks.
    """

    category: str
    model_version: str
    calibration: str
    threshold: float
    normal_images: int
    anomalous_images: int
    left_out_seen: int
    unreadable: list[str]
    image: measures.Measures
    auroc_by_defect: dict[str, float]
    pixel_images: int
    pixel_auroc: float | None
    aupro: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a measure of the decision is its value and the ends of its interval, by name."""
        image = {name: measures.Estimate(*values)._asdict() for name, values in asdict(self.image).items()}
        return {**asdict(self), "image": image}


def scores_of(detector: Detector, pixels: np.ndarray) -> np.ndarray:
    """Scores of prepared images ``[N, size, size, 3]``, float32 ``[N]``."""
    return np.concatenate([detector(batch).scores for batch in _batches(detector, pixels)])


def maps_of(detector: Detector, pixels: np.ndarray, form: MapForm) -> np.ndarray:
    """Anomaly maps of prepared images, float32 ``[N, size, size]``."""
    found = [detector(batch, maps=form).maps for batch in _batches(detector, pixels)]
    return np.concatenate([maps for maps in found if maps is not None])


def _batches(detector: Detector, pixels: np.ndarray) -> list[np.ndarray]:
    size = BEST_BATCH[detector.device.type]
    return [pixels[start : start + size] for start in range(0, len(pixels), size)]


def checkpoint_path(weights: Path, category: str) -> Path:
    """Where the progress of a category's training is kept until its pair is written."""
    return weights / ".training" / f"{category}.pt"


def check_trainable(
    weights: Path, category: str, *, resume: bool = False, replace: bool = False, quantile: float = NORMAL_QUANTILE
) -> None:
    """Whether a training could begin, as far as that is known before its teacher and images are; see `train_category`.

    Raises:
        PairError: if the name is impossible or the category exists.
        CalibrationError: if the quantile is impossible.
        TrainingError: if there is nothing to resume, or an interrupted training that is not to be resumed.
    """
    check_category_name(category)
    check_quantile(quantile)
    if (weights / category).exists() and not replace:
        raise PairError(f"{weights / category} exists; say --replace to train it anew")
    checkpoint = checkpoint_path(weights, category)
    if resume and not checkpoint.exists():
        raise TrainingError(f"there is no interrupted training of {category!r} to resume")
    if not resume and checkpoint.exists():
        raise TrainingError(
            f"there is an interrupted training of {category!r}; say --resume to go on with it, or remove {checkpoint} "
            "to start anew"
        )


def train_category(
    category: str,
    samples: Sequence[Sample],
    weights: Path,
    teacher_name: str,
    teacher: Teacher,
    recipe: Recipe,
    *,
    score: Score = Score.LOCAL,
    device: torch.device | str = "cpu",
    skip_unreadable: bool = False,
    resume: bool = False,
    replace: bool = False,
    quantile: float = NORMAL_QUANTILE,
    memory_bytes: int = FEATURE_MEMORY_BYTES,
    spill_folder: Path | None = None,
    on_start: Callable[[LoadedImages, int], None] = lambda images, held_out: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> tuple[Card, list[float]]:
    """Trains a pair on normal images and writes it, with a first threshold from a held-out fifth of them.

    The mean loss of each epoch is written beside it, as numbers and as a curve.

    Args:
        category: its name.
        samples: normal images.
        weights: the folder of categories.
        teacher_name: under which the weights folder knows the teacher.
        teacher: to learn from.
        recipe: how to train.
        score: which score the pair is to have; it trains the same with either.
        device: where to train.
        skip_unreadable: go on without files that cannot be read.
        resume: go on from the checkpoint of an interrupted run.
        replace: put the new pair in place of one that exists.
        quantile: for the first threshold, see `model.calibration.without_anomalous`.
        memory_bytes: see `model.training.teacher_features`.
        spill_folder: see `model.training.teacher_features`.
        on_start: called once with the images read and how many of them are held out.
        on_epoch: called after each epoch.

    Returns:
        The new card, and the mean loss of each epoch.

    Raises:
        PairError, CalibrationError, TrainingError: see `check_trainable`.
        DatasetError: if files cannot be read.
        TrainingError: with fewer than 8 different images, or see `model.training.train`.
        TrainingInterrupted: after Ctrl-C; `resume` goes on.
    """
    check_trainable(weights, category, resume=resume, replace=replace, quantile=quantile)
    checkpoint = checkpoint_path(weights, category)
    images = datasets.unique(load_images(samples, recipe.image_size, skip_unreadable=skip_unreadable))
    if len(images.pixels) < MINIMUM_IMAGES:
        raise TrainingError(f"{len(images.pixels)} different images are too few to train on; {MINIMUM_IMAGES} at least")
    order = np.random.default_rng(recipe.seed).permutation(len(images.pixels))
    held_out, training = np.split(order, [max(2, round(HELD_OUT_SHARE * len(order)))])
    on_start(images, len(held_out))

    started = monotonic()
    student, losses = train(
        teacher,
        images.pixels[training],
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
    now = datetime.now(UTC).replace(microsecond=0)
    card = Card(
        category=category,
        model_version=f"{now:%Y%m%d}-{digest[:8]}",
        architecture=Architecture(
            plan=student_plan(teacher.plan), weigh_distillation_layers=recipe.weigh_distillation_layers
        ),
        image_size=recipe.image_size,
        score=score,
        squared_weight=recipe.squared_weight,
        direction_weight=recipe.direction_weight,
        teacher=TeacherReference(name=teacher_name, sha256=fingerprint(teacher)),
        student_sha256=digest,
        training=TrainingRecord(
            images=len(training),
            held_out=len(held_out),
            epochs=len(losses),
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            final_loss=losses[-1],
            seed=recipe.seed,
            device=str(device),
            torch=torch.__version__,
            seconds=round(seconds, 1),
            date=now,
        ),
        calibration=_calibration_without_anomalous(detector, images.pixels[held_out], quantile),
        map_scale=1.0,
    )
    card = _with_map_scales(card, detector, images.pixels[held_out])
    seen = SeenImages(
        training=tuple(images.digests[index] for index in sorted(training)),
        held_out=tuple(images.digests[index] for index in sorted(held_out)),
    )
    write_pair(weights, card, encoded, seen, _loss_traces(card, losses), replace=replace)
    checkpoint.unlink(missing_ok=True)
    return card, losses


def _with_map_scales(card: Card, detector: Detector, normal: np.ndarray) -> Card:
    """The card with what maps of every form show on these normal images, uint8 RGB ``[N, size, size, 3]``."""
    scales = {form: float(np.quantile(maps_of(detector, normal, form), MAP_SCALE_QUANTILE)) for form in MapForm}
    own = scales.pop(card.map_form)
    # Validated, which a copy would not be: no map can be drawn on a scale of zero.
    return Card.model_validate(card.model_dump() | {"map_scale": own, "other_map_scales": scales})


def _loss_traces(card: Card, losses: list[float]) -> dict[str, bytes]:
    from model import figures  # matplotlib takes a second to load, which only those who draw should wait for

    numbers = {"category": card.category, "model_version": card.model_version, "mean_loss_by_epoch": losses}
    return {
        LOSSES: (json.dumps(numbers, indent=1) + "\n").encode(),
        LOSS_CURVE: figures.png(figures.loss_curve(losses, f"{card.category} {card.model_version}")),
    }


def load_detector(
    weights: Path,
    teachers: Path,
    category: str,
    device: torch.device | str = "cpu",
    precision: torch.dtype = torch.float32,
) -> tuple[Card, Detector]:
    """Loads one category with the teacher its card names.

    Raises:
        PairError: if the category is not there or its files are damaged.
        TeacherError: if its teacher is not there or another one.
    """
    check_category_name(category)
    folder = weights / category
    if not folder.is_dir():
        raise PairError(f"there is no category {category!r} in {weights}")
    card = read_card(folder)
    teacher = load_teacher(teachers, card.teacher.name, card.teacher.sha256)
    return card, build_detector(folder, card, teacher, device, precision)


def calibrate_category(
    weights: Path,
    teachers: Path,
    category: str,
    normal: Sequence[Sample],
    anomalous: Sequence[Sample],
    *,
    score: Score | None = None,
    quantile: float = NORMAL_QUANTILE,
    device: torch.device | str = "cpu",
    precision: torch.dtype = torch.float32,
    skip_unreadable: bool = False,
) -> tuple[Card, list[str]]:
    """Sets the threshold from images that training has not seen, and writes it into the card of a new version.

    The same student has both scores: with ``score`` the category changes to that one, without training anew, and the
    scales of its maps are taken from the normal images.

    With anomalous images it is Youden's; without any see `model.calibration.without_anomalous`. Images held out of
    training may serve again.

    Returns:
        The new card, and one message for each file that was left out because it could not be read.

    Raises:
        PairError, TeacherError: see `load_detector`.
        DatasetError: if files cannot be read, training has seen one of them, or one is both normal and anomalous.
        CalibrationError: if the scores give no threshold.
    """
    card, detector = load_detector(weights, teachers, category, device, precision)
    seen = read_seen(weights / category)
    good = datasets.unique(load_images(normal, card.image_size, skip_unreadable=skip_unreadable))
    _refuse_trained(good, seen)
    if score is not None:
        detector.score = score
        card = card.model_copy(update={"schema_version": SCHEMA_VERSION, "score": score})
        card = _with_map_scales(card, detector, good.pixels)
    used = list(good.digests)
    unreadable = list(good.unreadable)
    if anomalous:
        bad = datasets.unique(load_images(anomalous, card.image_size, skip_unreadable=skip_unreadable))
        _refuse_trained(bad, seen)
        _refuse_two_labels(good, bad)
        unreadable += bad.unreadable
        normal_scores, anomalous_scores = scores_of(detector, good.pixels), scores_of(detector, bad.pixels)
        calibration = _youden_calibration(youden(normal_scores, anomalous_scores), normal_scores, anomalous_scores)
        used += bad.digests
    else:
        calibration = _calibration_without_anomalous(detector, good.pixels, quantile)
    encoded = read_encoded_student(weights / category, card)
    card = card.model_copy(update={"calibration": calibration})
    seen = seen.model_copy(update={"calibration": tuple(used)})
    write_pair(weights, card, encoded, seen, read_traces(weights / category), replace=True)
    return card, unreadable


@dataclass(frozen=True)
class Judged:
    """A category's scores on a test set.

    Attributes:
        card: of its pair.
        detector: its pair.
        good: the normal images.
        bad: the anomalous ones.
        normal_scores: float32 ``[N]``, in the order of ``good``.
        anomalous_scores: float32 ``[M]``, in the order of ``bad``.
        left_out_seen: images left out because training or calibration had seen them.
    """

    card: Card
    detector: Detector
    good: LoadedImages
    bad: LoadedImages
    normal_scores: np.ndarray
    anomalous_scores: np.ndarray
    left_out_seen: int

    def of_defect(self) -> dict[str, np.ndarray]:
        """The scores of each kind of defect, by its name in alphabetical order."""
        defects = np.array([sample.defect or "" for sample in self.bad.samples])
        return {str(defect): self.anomalous_scores[defects == defect] for defect in np.unique(defects)}


def evaluate_category(
    weights: Path,
    teachers: Path,
    category: str,
    normal: Sequence[Sample],
    anomalous: Sequence[Sample],
    *,
    seen_policy: SeenPolicy = SeenPolicy.REFUSE,
    device: torch.device | str = "cpu",
    precision: torch.dtype = torch.float32,
    skip_unreadable: bool = False,
) -> Evaluation:
    """Judges a category on images it has not seen. Pixel measures are taken on a 256x256 grid.

    Raises:
        PairError, TeacherError, DatasetError: see `judge_category` and `measure_judged`.
    """
    return measure_judged(
        judge_category(
            weights,
            teachers,
            category,
            normal,
            anomalous,
            seen_policy=seen_policy,
            device=device,
            precision=precision,
            skip_unreadable=skip_unreadable,
        )
    )


def judge_category(
    weights: Path,
    teachers: Path,
    category: str,
    normal: Sequence[Sample],
    anomalous: Sequence[Sample],
    *,
    seen_policy: SeenPolicy = SeenPolicy.REFUSE,
    device: torch.device | str = "cpu",
    precision: torch.dtype = torch.float32,
    skip_unreadable: bool = False,
) -> Judged:
    """Scores images that a category has not seen.

    Raises:
        PairError, TeacherError: see `load_detector`.
        DatasetError: if files cannot be read, one is both normal and anomalous, a group has fewer than two images, or
            the pair has seen some and the policy is to refuse.
    """
    card, detector = load_detector(weights, teachers, category, device, precision)
    good = datasets.unique(load_images(normal, card.image_size, skip_unreadable=skip_unreadable))
    bad = datasets.unique(load_images(anomalous, card.image_size, skip_unreadable=skip_unreadable))
    _refuse_two_labels(good, bad)
    left_out = 0
    if seen_policy is not SeenPolicy.INCLUDE:
        seen = read_seen(weights / category)
        known = {*seen.training, *seen.held_out, *seen.calibration}
        fresh_good = [index for index, digest in enumerate(good.digests) if digest not in known]
        fresh_bad = [index for index, digest in enumerate(bad.digests) if digest not in known]
        left_out = len(good.digests) + len(bad.digests) - len(fresh_good) - len(fresh_bad)
        if left_out and seen_policy is SeenPolicy.REFUSE:
            raise DatasetError(
                f"training or calibration has seen {left_out} of these images, so they cannot judge the result; leave "
                "them out with --seen skip, or count them all the same with --seen include"
            )
        good, bad = datasets.pick(good, fresh_good), datasets.pick(bad, fresh_bad)
    if min(len(good.digests), len(bad.digests)) < 2:
        raise DatasetError(
            f"evaluation needs two different normal and two anomalous images at least, got {len(good.digests)} and "
            f"{len(bad.digests)}" + (f" besides the {left_out} that were seen" if left_out else "")
        )
    normal_scores, anomalous_scores = scores_of(detector, good.pixels), scores_of(detector, bad.pixels)
    return Judged(card, detector, good, bad, normal_scores, anomalous_scores, left_out)


def measure_judged(judged: Judged) -> Evaluation:
    """All measures of a test set's scores, and of its maps where there are masks.

    Raises:
        DatasetError: if a mask cannot be read, or none marks a pixel.
    """
    card, good, bad, threshold = judged.card, judged.good, judged.bad, judged.card.calibration.threshold
    masked = [index for index, sample in enumerate(bad.samples) if sample.mask is not None]
    pixel_auroc = aupro = None
    if masked:
        maps = _on_grid(maps_of(judged.detector, np.concatenate((good.pixels, bad.pixels[masked])), card.map_form))
        masks = np.zeros(maps.shape, dtype=bool)
        for row, index in enumerate(masked, start=len(good.samples)):
            mask = bad.samples[index].mask
            assert mask is not None
            masks[row] = datasets.read_mask(mask, PIXEL_GRID)
        if not masks.any():
            raise DatasetError("none of the masks marks a pixel")
        pixel_auroc, aupro = measures.pixel_auroc(maps, masks), measures.aupro(maps, masks)
    return Evaluation(
        category=card.category,
        model_version=card.model_version,
        calibration=card.calibration.method,
        threshold=threshold,
        normal_images=len(judged.normal_scores),
        anomalous_images=len(judged.anomalous_scores),
        left_out_seen=judged.left_out_seen,
        unreadable=good.unreadable + bad.unreadable,
        image=measures.measure(judged.normal_scores, judged.anomalous_scores, threshold),
        auroc_by_defect={
            defect: measures.auroc(judged.normal_scores, scores) for defect, scores in judged.of_defect().items()
        },
        pixel_images=len(masked),
        pixel_auroc=pixel_auroc,
        aupro=aupro,
    )


def _on_grid(maps: np.ndarray) -> np.ndarray:
    return np.stack([cv2.resize(one, (PIXEL_GRID, PIXEL_GRID), interpolation=cv2.INTER_LINEAR) for one in maps])


def _refuse_trained(images: LoadedImages, seen: SeenImages) -> None:
    trained = set(seen.training)
    known = [one.path for one, digest in zip(images.samples, images.digests, strict=True) if digest in trained]
    if known:
        raise DatasetError(
            f"{len(known)} of the {len(images.digests)} images were trained on, which makes their scores too low "
            f"(first: {known[0]}); calibrate on others"
        )


def _refuse_two_labels(good: LoadedImages, bad: LoadedImages) -> None:
    both = set(good.digests) & set(bad.digests)
    if both:
        paths = [str(sample.path) for sample, digest in zip(good.samples, good.digests, strict=True) if digest in both]
        raise DatasetError(f"{len(both)} images are given both as normal and as anomalous (first: {paths[0]})")


def _calibration_without_anomalous(detector: Detector, normal: np.ndarray, quantile: float) -> Calibration:
    """From prepared images of normal parts alone, ``[N, size, size, 3]``."""
    rng = np.random.default_rng(PASTING_SEED)
    scores = scores_of(detector, normal)
    pasted = [
        detector(np.stack([paste_defect(image, rng) for image in batch])).scores for batch in _batches(detector, normal)
    ]
    return Calibration(
        method="synthetic",
        threshold=without_anomalous(scores, np.concatenate(pasted), quantile),
        normal_images=len(normal),
        anomalous_images=0,
        quantile=quantile,
        histogram=_histogram(scores, np.empty(0)),
        date=datetime.now(UTC).replace(microsecond=0),
    )


def _youden_calibration(found: Youden, normal: np.ndarray, anomalous: np.ndarray) -> Calibration:
    return Calibration(
        method="youden",
        threshold=found.threshold,
        normal_images=len(normal),
        anomalous_images=len(anomalous),
        youden_index=found.index,
        auroc=found.auroc,
        roc=RocCurve(
            false_alarm_rate=tuple(found.false_alarm_rates.tolist()),
            detection_rate=tuple(found.detection_rates.tolist()),
            threshold=tuple(found.thresholds.tolist()),
        ),
        histogram=_histogram(normal, anomalous),
        date=datetime.now(UTC).replace(microsecond=0),
    )


def _histogram(normal: np.ndarray, anomalous: np.ndarray) -> ScoreHistogram:
    edges = np.histogram_bin_edges(np.concatenate((normal, anomalous)).astype(np.float64), bins=HISTOGRAM_BINS)
    return ScoreHistogram(
        edges=tuple(edges.tolist()),
        normal=tuple(np.histogram(normal, edges)[0].tolist()),
        anomalous=tuple(np.histogram(anomalous, edges)[0].tolist()),
    )
