"""Calibrates a category: its threshold, and the scales of its maps, from images that training has not seen."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from model import calibration as thresholds
from model.calibration import CalibrationError, Youden, youden
from model.choices import NORMAL_QUANTILE, MapForm, Score
from model.detector import Detector, batches_of, maps_of, scores_of
from model.lifecycle import datasets
from model.lifecycle.datasets import DatasetError, LoadedImages, Sample, load_images
from model.lifecycle.pasting import paste_defect
from model.lifecycle.remarks import Remarks
from model.measures import auroc_interval
from model.store.card import SCHEMA_VERSION, Calibration, Card, Interval, RocCurve, ScoreHistogram, SeenImages
from model.store.store import Store
from model.text import readable

PASTING_SEED = 0
MAP_SCALE_QUANTILE = 0.995
HISTOGRAM_BINS = 30


class YoudenThresholdError(CalibrationError):
    """A threshold from anomalous images would be replaced by one without any."""


def calibrate_category(
    weights: Path,
    teachers: Path,
    category: str,
    normal: Sequence[Sample],
    anomalous: Sequence[Sample],
    *,
    score: Score | None = None,
    quantile: float = NORMAL_QUANTILE,
    without_anomalous: bool = False,
    device: torch.device | str = "cpu",
    precision: torch.dtype = torch.float32,
    skip_unreadable: bool = False,
) -> tuple[Card, Remarks]:
    """Sets the threshold from images that training has not seen, and writes it into the card of a new version.

    The same student has every score: with ``score`` the category changes to that one, without training anew, and the
    scales of its maps are taken from the normal images.

    With anomalous images it is Youden's; without any see `model.calibration.without_anomalous`. Images held out of
    training may serve again.

    Returns:
        The new card, and what was left out of the images.

    Raises:
        StoreError, TeacherError: see `model.store.store.Store.load`.
        StoreNotWritableError: if this user cannot write to the folder of categories.
        DatasetError: if files cannot be read, training has seen one of them, or one is both normal and anomalous.
        CalibrationError: if the scores give no threshold.
        ChangedMeanwhileError: if the category was changed while this ran; nothing is written.
        YoudenThresholdError: if no anomalous images are given, those that the threshold comes from would be lost, and
            ``without_anomalous`` is not set.
    """
    store = Store(weights, teachers)
    before = store.in_place(category)
    card, detector = store.load(category, device, precision)
    seen, encoded, traces = store.seen(category), store.encoded_student(category, card), store.traces(category)
    if card.calibration.method == "youden" and not anomalous and not without_anomalous:
        raise YoudenThresholdError(
            f"the threshold of {category!r} comes from {card.calibration.anomalous_images} anomalous images, and no "
            "anomalous images are given: the new one would know no real fault"
        )
    store.check_writable()
    good = datasets.unique(load_images(normal, card.preprocessor, skip_unreadable=skip_unreadable))
    _refuse_trained(good, seen)
    if score is not None:
        detector.score = score
        card = card.model_copy(update={"schema_version": SCHEMA_VERSION, "score": score})
        card = with_map_scales(card, detector, good.pixels)
    used = [digest for index in range(len(good.samples)) for digest in good.seen_as(index)]
    remarks = good.remarks
    if anomalous:
        bad = datasets.unique(load_images(anomalous, card.preprocessor, skip_unreadable=skip_unreadable))
        _refuse_trained(bad, seen)
        datasets.refuse_two_labels(good, bad)
        remarks += bad.remarks
        normal_scores, anomalous_scores = scores_of(detector, good.pixels), scores_of(detector, bad.pixels)
        calibration = _youden_calibration(youden(normal_scores, anomalous_scores), normal_scores, anomalous_scores)
        used += [digest for index in range(len(bad.samples)) for digest in bad.seen_as(index)]
    else:
        calibration = calibration_without_anomalous(detector, good.pixels, quantile)
    card = card.model_copy(update={"schema_version": SCHEMA_VERSION, "calibration": calibration}).named()
    seen = seen.model_copy(update={"calibration": tuple(used)})
    store.write(card, encoded, seen, traces, replace=before)
    return card, remarks


def with_map_scales(card: Card, detector: Detector, normal: np.ndarray) -> Card:
    """The card with what maps of every form show on these normal images, uint8 RGB ``[N, size, size, 3]``."""
    scales = {form: float(np.quantile(maps_of(detector, normal, form), MAP_SCALE_QUANTILE)) for form in MapForm}
    own = scales.pop(card.map_form)
    # Validated, which a copy would not be: no map can be drawn on a scale of zero.
    return Card.model_validate(card.model_dump() | {"map_scale": own, "other_map_scales": scales})


def calibration_without_anomalous(detector: Detector, normal: np.ndarray, quantile: float) -> Calibration:
    """From prepared images of normal parts alone, ``[N, size, size, 3]``."""
    rng = np.random.default_rng(PASTING_SEED)
    scores = scores_of(detector, normal)
    pasted = [
        detector(np.stack([paste_defect(image, rng) for image in batch])).scores
        for batch in batches_of(detector, normal)
    ]
    return Calibration(
        method="synthetic",
        threshold=thresholds.without_anomalous(scores, np.concatenate(pasted), quantile),
        normal_images=len(normal),
        anomalous_images=0,
        quantile=quantile,
        histogram=_histogram(scores, np.empty(0)),
        date=datetime.now(UTC).replace(microsecond=0),
    )


def _youden_calibration(found: Youden, normal: np.ndarray, anomalous: np.ndarray) -> Calibration:
    low, high = auroc_interval(found.auroc, len(normal), len(anomalous))
    return Calibration(
        method="youden",
        threshold=found.threshold,
        normal_images=len(normal),
        anomalous_images=len(anomalous),
        youden_index=found.index,
        auroc=found.auroc,
        auroc_interval=Interval(low=low, high=high),
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


def _refuse_trained(images: LoadedImages, seen: SeenImages) -> None:
    trained = set(seen.training)
    known = [one.path for index, one in enumerate(images.samples) if trained.intersection(images.seen_as(index))]
    if known:
        raise DatasetError(
            f"{len(known)} of the {len(images.digests)} images were trained on, which makes their scores too low "
            f"(first: {readable(known[0])}); calibrate on others"
        )
