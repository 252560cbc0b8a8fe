"""Calibrates a category: its threshold, and the scales of its maps, from images that training has not seen."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from model.calibration import CalibrationError
from model.choices import MapForm, Score
from model.detector import Detector, batches_of, maps_of, scores_of
from model.error_rates import check_reachable
from model.lifecycle import datasets
from model.lifecycle.datasets import DatasetError, LoadedImages, Sample, load_images
from model.lifecycle.pasting import paste_defect
from model.lifecycle.remarks import NONE, Remarks
from model.lifecycle.thresholds import Rule, calibration_of, moved_by_hand
from model.store.card import SCHEMA_VERSION, Calibration, Card, SeenImages
from model.store.store import Store
from model.text import readable

PASTING_SEED = 0
MAP_SCALE_QUANTILE = 0.995


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
    rule: Rule = Rule(),
    without_anomalous: bool = False,
    device: torch.device | str = "cpu",
    precision: torch.dtype = torch.float32,
    skip_unreadable: bool = False,
) -> tuple[Card, Remarks]:
    """Sets the threshold from images that training has not seen, and writes it into the card of a new version.

    The same student has every score: with ``score`` the category changes to that one, without training again, and the
    scales of its maps are taken from the normal images.

    Where it comes from is the rule's to say. Images held out of training may serve again. A threshold set by hand needs
    no images; with none, the record of the images of the last calibration stays, without error rates.

    Anomalous images that do not choose the threshold give AUROC, ROC and the miss rate.

    Returns:
        The new card, and what was left out of the images.

    Raises:
        StoreError, TeacherError: see `model.store.store.Store.load`.
        StoreNotWritableError: if this user cannot write to the folder of categories.
        DatasetError: if files cannot be read, training has seen one of them, or one is both normal and anomalous.
        CalibrationError: if the rule is impossible, the scores give no threshold, or there are no normal images.
        TooFewPartsError: if the normal images are too few for the rule's target.
        ChangedMeanwhileError: if the category was changed while this ran; nothing is written.
        YoudenThresholdError: if no anomalous images are given, those of the last calibration would be lost, and
            ``without_anomalous`` is not set.
    """
    rule.check()
    store = Store(weights, teachers)
    before = store.in_place(category)
    card, detector = store.load(category, device, precision)
    seen, encoded, traces = store.seen(category), store.encoded_student(category, card), store.traces(category)
    by_hand = rule.threshold is not None and not normal and not anomalous
    if card.calibration.anomalous_images and not anomalous and not by_hand and not without_anomalous:
        raise YoudenThresholdError(
            f"the calibration of {category!r} comes from {card.calibration.anomalous_images} anomalous images, and no "
            "anomalous images are given: the new one would know no real fault"
        )
    store.check_writable()
    remarks = NONE
    if by_hand and rule.threshold is not None:
        if score not in (None, card.score):
            raise CalibrationError("with another score the threshold needs images of normal parts, to see their scores")
        calibration = moved_by_hand(card.calibration, rule.threshold)
    else:
        good = datasets.unique(load_images(normal, card.preprocessor, skip_unreadable=skip_unreadable))
        _refuse_trained(good, seen)
        remarks, bad = good.remarks, datasets.pick(good, [])
        if anomalous:
            bad = datasets.unique(load_images(anomalous, card.preprocessor, skip_unreadable=skip_unreadable))
            _refuse_trained(bad, seen)
            datasets.refuse_two_labels(good, bad)
            remarks += bad.remarks
        if rule.target is not None:
            check_reachable(rule.target, len(good.samples))
        if score is not None:
            detector.score = score
            card = card.model_copy(update={"schema_version": SCHEMA_VERSION, "score": score})
            card = with_map_scales(card, detector, good.pixels)
        used = [digest for one in (good, bad) for index in range(len(one.samples)) for digest in one.seen_as(index)]
        looked_at = not {*seen.held_out, *seen.calibration}.isdisjoint(used)
        calibration = calibration_of_images(detector, good.pixels, bad.pixels, rule, looked_at=looked_at)
        seen = seen.model_copy(update={"calibration": tuple(used)})
    card = card.model_copy(update={"schema_version": SCHEMA_VERSION, "calibration": calibration}).named()
    store.write(card, encoded, seen, traces, replace=before)
    return card, remarks


def with_map_scales(card: Card, detector: Detector, normal: np.ndarray) -> Card:
    """The card with what maps of every form show on these normal images, uint8 RGB ``[N, size, size, 3]``."""
    scales = {form: float(np.quantile(maps_of(detector, normal, form), MAP_SCALE_QUANTILE)) for form in MapForm}
    own = scales.pop(card.map_form)
    # Validated, which a copy would not be: no map can be drawn on a scale of zero.
    return Card.model_validate(card.model_dump() | {"map_scale": own, "other_map_scales": scales})


def calibration_of_images(
    detector: Detector, normal: np.ndarray, anomalous: np.ndarray, rule: Rule, *, looked_at: bool = False
) -> Calibration:
    """The record of a calibration on prepared images, ``[N, size, size, 3]`` and ``[M, size, size, 3]``, M perhaps 0.

    Raises:
        CalibrationError, TooFewPartsError: see `model.lifecycle.thresholds.calibration_of`.
    """

    def pasted() -> np.ndarray:
        rng = np.random.default_rng(PASTING_SEED)
        return np.concatenate(
            [
                detector(np.stack([paste_defect(image, rng) for image in batch])).scores
                for batch in batches_of(detector, normal)
            ]
        )

    bad = scores_of(detector, anomalous) if len(anomalous) else np.empty(0, dtype=np.float32)
    return calibration_of(scores_of(detector, normal), bad, pasted, rule, looked_at=looked_at)


def _refuse_trained(images: LoadedImages, seen: SeenImages) -> None:
    trained = set(seen.training)
    known = [one.path for index, one in enumerate(images.samples) if trained.intersection(images.seen_as(index))]
    if known:
        raise DatasetError(
            f"{len(known)} of the {len(images.digests)} images were trained on, which makes their scores too low "
            f"(first: {readable(known[0])}); calibrate on others"
        )
