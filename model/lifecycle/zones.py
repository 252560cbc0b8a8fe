"""Zones that are judged by their own level: a smooth one is not lost beside one whose good parts score higher.

Each zone's scores are multiplied by a weight, and one threshold is calibrated on the largest of the weighted scores. So
its false-alarm rate is that of the whole part, however many zones there are. That holds because the weights come from
other pictures than the threshold does: those of training, or half of those at hand.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from model.calibration import CalibrationError, rejects
from model.detector import Detector, scores_of
from model.lifecycle import datasets
from model.lifecycle.datasets import LoadedImages
from model.lifecycle.remarks import Kind, remark
from model.lifecycle.thresholds import Rule
from model.preprocessing import Preprocessing

DEVIATIONS = 2.0
"""The level of a zone is the mean of its good scores and so many of their standard deviations."""
LEAST_PICTURES = 8
"""To find the levels from."""
SEED = 0
"""Of the choice of the pictures for the levels."""


def weights_of(
    detector: Detector, preprocessing: Preprocessing, normal: LoadedImages, own: Collection[str] = ()
) -> dict[str, float]:
    """What brings each zone to the level of the one that scores highest.

    Args:
        detector: the pair.
        preprocessing: of the category.
        normal: pictures of good parts that do not set the threshold.
        own: the zones with a threshold of their own; they have no weight.

    Raises:
        CalibrationError: if there are not two zones to compare, a zone scores nothing, or there are too few pictures.
    """
    zones = compared(preprocessing, own)
    check_enough(len(normal.samples))
    scores = scores_of(detector, normal.pixels, normal.masks).reshape(len(normal.samples), normal.views)
    levels = {}
    for zone in zones:
        views = [index for index, name in enumerate(preprocessing.zones) if name == zone]
        of_pictures = scores[:, views].max(axis=1).astype(np.float64)
        levels[zone] = float(of_pictures.mean() + DEVIATIONS * of_pictures.std())
    if min(levels.values()) <= 0:
        raise CalibrationError("a zone scores 0 on every picture, so it has no level")
    return {zone: max(levels.values()) / level for zone, level in levels.items()}


def compared(preprocessing: Preprocessing, own: Collection[str]) -> list[str]:
    """The zones without a threshold of their own. Raises `CalibrationError` if there are not two of them."""
    zones = [zone for zone in dict.fromkeys(preprocessing.zones) if zone is not None and zone not in own]
    if len(zones) < 2:
        raise CalibrationError("to judge each zone by its own level there must be two zones without a fixed threshold")
    return zones


def check_enough(pictures: int) -> None:
    """Raises `CalibrationError` if the levels of zones cannot be found from so many pictures."""
    if pictures < LEAST_PICTURES:
        raise CalibrationError(
            f"the levels of the zones need {LEAST_PICTURES} good pictures that do not set the threshold, and there are "
            f"{pictures}"
        )


def halves(normal: LoadedImages) -> tuple[LoadedImages, LoadedImages]:
    """Pictures for the levels, and the others for the threshold."""
    order = np.random.default_rng(SEED).permutation(len(normal.samples))
    first, second = np.split(order, [len(order) // 2])
    return datasets.pick(normal, sorted(first)), datasets.pick(normal, sorted(second))


def all_have_their_own(preprocessing: Preprocessing, zone_thresholds: Collection[str]) -> bool:
    """Whether every zone has a threshold of its own, so that no calibration decides anything."""
    return all(zone in zone_thresholds for zone in preprocessing.zones)


def fixed(rule: Rule, preprocessing: Preprocessing, zone_thresholds: Mapping[str, float]) -> Rule:
    """The rule of a calibration: where every zone has a threshold of its own, these stand, and it counts their errors.

    Raises:
        CalibrationError: if they do, and the rule asks for another threshold.
    """
    if not all_have_their_own(preprocessing, zone_thresholds):
        return rule
    if rule.threshold is not None or rule.target is not None:
        raise CalibrationError(
            "every zone has a threshold of its own, so there is no other one to set; give a region in which at least "
            "one zone has none"
        )
    return Rule(threshold=max(zone_thresholds.values()), review=rule.review)


def left_to_the_others(
    detector: Detector, preprocessing: Preprocessing, bad: LoadedImages, zone_thresholds: Mapping[str, float]
) -> LoadedImages:
    """The faulty pictures that no zone with a threshold of its own rejects, with a remark on the others.

    Those are rejected whatever the threshold of the other zones is, where they may show no fault. They would move it
    into the scores of good parts.

    Raises:
        CalibrationError: if none is left.
    """
    if not zone_thresholds or all_have_their_own(preprocessing, zone_thresholds):
        return bad
    own = np.array([zone_thresholds.get(zone or "", np.inf) for zone in preprocessing.zones])
    scores = scores_of(detector, bad.pixels, bad.masks).reshape(len(bad.samples), bad.views)
    rejected = np.asarray(rejects(scores, own).any(axis=1))
    if rejected.all():
        raise CalibrationError(
            f"all {len(rejected)} anomalous images are rejected by zones with a threshold of their own, so they cannot "
            "say where that of the other zones should be; calibrate without anomalous images"
        )
    remarks = remark(Kind.OTHER_ZONE, *(bad.samples[index].path for index in np.flatnonzero(rejected)))
    return replace(datasets.pick(bad, np.flatnonzero(~rejected)), remarks=bad.remarks + remarks)


def of_views(
    preprocessing: Preprocessing, zone_thresholds: Mapping[str, float], zone_weights: Mapping[str, float]
) -> np.ndarray:
    """What the scores of views are multiplied by in the calibration, float64 ``[V]``.

    It is 0 where the view's zone has a threshold of its own, which no calibration moves. Where all have one, it brings
    them to that of `fixed`.
    """
    if all_have_their_own(preprocessing, zone_thresholds):
        most = max(zone_thresholds.values())
        return np.array([most / zone_thresholds[zone or ""] for zone in preprocessing.zones])
    return np.array([
        0.0 if zone in zone_thresholds else zone_weights.get(zone or "", 1.0) for zone in preprocessing.zones
    ])  # fmt: skip
