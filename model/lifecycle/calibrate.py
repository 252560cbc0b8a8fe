"""Calibrates a category: its threshold, and the scales of its maps, from images that training has not seen."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from model.calibration import CalibrationError
from model.choices import MapForm, Score
from model.detector import Detector, maps_of, scores_of
from model.drift import quantiles_of
from model.error_rates import check_reachable
from model.lifecycle import datasets, zones
from model.lifecycle.datasets import DatasetError, LoadedImages, Sample, load_images
from model.lifecycle.pasting import paste_defect
from model.lifecycle.regions import DrawnRegion, with_region
from model.lifecycle.remarks import NONE, Remarks
from model.lifecycle.thresholds import Rule, calibration_of, moved_by_hand
from model.quality import Look, PictureCheck
from model.store.card import SCHEMA_VERSION, Calibration, Card, SeenImages, Usual
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
    region: DrawnRegion | Literal["all"] | None = None,
    rule: Rule = Rule(),
    each_zone: bool | None = None,
    without_anomalous: bool = False,
    candidate: bool = False,
    device: torch.device | str = "cpu",
    precision: torch.dtype = torch.float32,
    skip_unreadable: bool = False,
) -> tuple[Card, Remarks]:
    """Sets the threshold from images that training has not seen, and writes it into the card of a new version.

    The same student has every score: with ``score`` the category changes to that one, without training again, and the
    scales of its maps are taken from the normal images.

    With ``region`` other places of the picture count, or all that the student has seen; the scales are taken anew too.

    With ``each_zone`` half of the normal images say at which level each zone scores, the other half sets the threshold,
    and from then on each zone is judged by its level; see `model.lifecycle.zones`. With False no zone is. With None it
    stays as it was, except that another region or score forgets the levels.

    Where it comes from is the rule's to say. Images held out of training may serve again. A threshold set by hand needs
    no images; with none, the record of the images of the last calibration stays, without error rates.

    With ``candidate`` the new version is a candidate, see `model.store.store.Store.candidates`. It comes from the
    candidate that is there, else from the version in place.

    Images that cannot be aligned are left out, for no threshold changes what becomes of them.

    Anomalous images that do not choose the threshold give AUROC, ROC and the miss rate.

    Returns:
        The new card, and what was left out of the images.

    Raises:
        StoreError, TeacherError: see `model.store.store.Store.load`.
        StoreNotWritableError: if this user cannot write to the folder of categories.
        DatasetError: if files cannot be read, training has seen one of them, or one is both normal and anomalous.
        CalibrationError: if the rule is impossible, the scores give no threshold, or there are no normal images.
        RegionError: if the region does not fit the images, or what the student has seen of them.
        TooFewPartsError: if the normal images are too few for the rule's target.
        ChangedMeanwhileError: if the category was changed while this ran; nothing is written.
        YoudenThresholdError: if no anomalous images are given, those of the last calibration would be lost, and
            ``without_anomalous`` is not set.
    """
    rule.check()
    store, target = source_and_target(Store(weights, teachers), category, candidate=candidate)
    before = target.in_place(category)
    card, detector = store.load(category, device, precision)
    seen, encoded, traces = store.seen(category), store.encoded_student(category, card), store.traces(category)
    by_hand = rule.threshold is not None and not normal and not anomalous
    if region is not None:
        if not normal:
            raise CalibrationError("with another region the threshold needs images of normal parts")
        card = with_region(card, None if region == "all" else region, normal)
    rule = zones.fixed(rule, card.preprocessor, card.zone_thresholds)
    if card.calibration.anomalous_images and not anomalous and not by_hand and not without_anomalous:
        raise YoudenThresholdError(
            f"the calibration of {category!r} comes from {card.calibration.anomalous_images} anomalous images, and no "
            "anomalous images are given: the new one would know no real fault"
        )
    target.check_writable()
    remarks = NONE
    if by_hand and rule.threshold is not None:
        if score not in (None, card.score):
            raise CalibrationError("with another score the threshold needs images of normal parts, to see their scores")
        calibration = moved_by_hand(card.calibration, rule.threshold, rule.review)
    else:
        good = _loaded(normal, card, skip_unreadable)
        _refuse_trained(good, seen)
        remarks, bad = good.remarks, None
        if anomalous:
            bad = _loaded(anomalous, card, skip_unreadable)
            _refuse_trained(bad, seen)
            datasets.refuse_two_labels(good, bad)
        used = [
            digest for one in (good, bad) if one for index in range(len(one.samples)) for digest in one.seen_as(index)
        ]
        if score is not None:
            detector.score = score
            card = card.model_copy(update={"schema_version": SCHEMA_VERSION, "score": score})
        if score is not None or region is not None:
            card = with_map_scales(card, detector, good)
        card = card.model_copy(update={"picture_check": _picture_check(card, good, is_new=region is not None)})
        if bad is not None:
            bad = zones.left_to_the_others(detector, card.preprocessor, bad, card.zone_thresholds)
            remarks += bad.remarks
        if each_zone is not None or score is not None:
            card = card.model_copy(update={"zone_weights": {}})
        if each_zone:
            of_levels, good = zones.halves(good)
            of_zones = zones.weights_of(detector, card.preprocessor, of_levels, card.zone_thresholds)
            card = card.model_copy(update={"zone_weights": of_zones})
        if rule.target is not None:
            check_reachable(rule.target, len(good.samples))
        looked_at = not {*seen.held_out, *seen.calibration}.isdisjoint(used)
        calibration = calibration_of_images(
            detector,
            good,
            bad,
            rule,
            weights=zones.of_views(card.preprocessor, card.zone_thresholds, card.zone_weights),
            looked_at=looked_at,
        )
        seen = seen.model_copy(update={"calibration": tuple(used)})
    card = card.model_copy(update={"schema_version": SCHEMA_VERSION, "calibration": calibration}).named()
    target.write(card, encoded, seen, traces, replace=before)
    return card, remarks


def source_and_target(store: Store, category: str, *, candidate: bool) -> tuple[Store, Store]:
    """Where the version to be calibrated lies, and where the new one goes; see `calibrate_category`."""
    target = store.candidates if candidate else store
    return target if target.holds(category) else store, target


def _picture_check(card: Card, good: LoadedImages, *, is_new: bool) -> PictureCheck | None:
    """The check of a category that has one, so that these good parts pass it; of another region a new one."""
    if card.picture_check is None:
        return None
    return PictureCheck.of(good.looks()) if is_new else card.picture_check.widened(good.looks())


def _loaded(samples: Sequence[Sample], card: Card, skip_unreadable: bool) -> LoadedImages:
    images = load_images(samples, card.preprocessor, skip_unreadable=skip_unreadable)
    return datasets.unique(datasets.aligned(images))


def with_map_scales(card: Card, detector: Detector, normal: LoadedImages) -> Card:
    """The card with what maps of every form show on these normal images, where they count."""

    def scale(form: MapForm) -> float:
        maps = maps_of(detector, normal.pixels, form, normal.masks)
        return float(np.quantile(maps if normal.masks is None else maps[normal.masks], MAP_SCALE_QUANTILE))

    scales = {form: scale(form) for form in MapForm}
    own = scales.pop(card.map_form)
    # Validated, which a copy would not be: no map can be drawn on a scale of zero.
    return Card.model_validate(card.model_dump() | {"map_scale": own, "other_map_scales": scales})


def calibration_of_images(
    detector: Detector,
    normal: LoadedImages,
    anomalous: LoadedImages | None,
    rule: Rule,
    *,
    weights: np.ndarray | None = None,
    looked_at: bool = False,
) -> Calibration:
    """The record of a calibration on prepared images.

    Args:
        detector: the pair.
        normal: good parts.
        anomalous: faulty ones, or None.
        rule: where the threshold is to come from.
        weights: see `model.lifecycle.zones.of_views`; the score of a picture is the largest of its views', each times
            its weight. None for 1.
        looked_at: see `model.lifecycle.thresholds.calibration_of`.

    Raises:
        CalibrationError, TooFewPartsError: see `model.lifecycle.thresholds.calibration_of`.
    """
    weights = np.ones(normal.views) if weights is None else weights
    chosen = np.flatnonzero(weights)
    weights = weights[chosen]

    def of_views(images: LoadedImages) -> np.ndarray:
        scores = scores_of(detector, images.pixels, images.masks).astype(np.float64)
        weighted: np.ndarray = scores.reshape(len(images.samples), images.views)[:, chosen] * weights
        return weighted

    good = of_views(normal)

    def pasted() -> np.ndarray:
        rng = np.random.default_rng(PASTING_SEED)
        changed = good.copy()
        drawn = [int(rng.integers(len(chosen))) if len(chosen) > 1 else 0 for _ in normal.samples]
        views = [index * normal.views + int(chosen[place]) for index, place in enumerate(drawn)]
        masks = None if normal.masks is None else normal.masks[views]
        images = np.stack([
            paste_defect(normal.pixels[view], rng, None if masks is None else masks[index])
            for index, view in enumerate(views)
        ])  # fmt: skip
        changed[np.arange(len(drawn)), drawn] = scores_of(detector, images, masks) * weights[drawn]
        found: np.ndarray = changed.max(axis=1)
        return found

    bad = np.empty(0, dtype=np.float32) if anomalous is None else of_views(anomalous).max(axis=1)
    scores = good.max(axis=1)
    usual = _usual(scores if len(chosen) == normal.views else None, normal.looks())
    return calibration_of(scores, bad, pasted, rule, looked_at=looked_at, usual=usual)


def _usual(scores: np.ndarray | None, looks: Sequence[Look]) -> Usual:
    measures = {name: np.array([getattr(look, name) for look in looks]) for name in Look._fields}
    if scores is not None:  # else they are not those of all zones, as the scores of an inspection are
        measures["score"] = scores
    return Usual(images=len(looks), **{name: tuple(quantiles_of(of).tolist()) for name, of in measures.items()})


def _refuse_trained(images: LoadedImages, seen: SeenImages) -> None:
    trained = set(seen.training)
    known = [one.path for index, one in enumerate(images.samples) if trained.intersection(images.seen_as(index))]
    if known:
        raise DatasetError(
            f"{len(known)} of the {len(images.digests)} images were trained on, which makes their scores too low "
            f"(first: {readable(known[0])}); calibrate on others"
        )
