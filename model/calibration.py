"""Where to put the threshold, and what it rejects: an image is anomalous when its score is at or above it."""

from dataclasses import dataclass
from typing import Literal, overload

import numpy as np

from model.errors import ExpectedError


class CalibrationError(ExpectedError):
    """These scores give no threshold; the message says why."""


@overload
def rejects(scores: float, threshold: float) -> bool: ...
@overload
def rejects(scores: np.ndarray, threshold: float | np.ndarray) -> np.ndarray: ...
def rejects(scores: float | np.ndarray, threshold: float | np.ndarray) -> bool | np.ndarray:
    """Which scores are at or above the threshold, so that their images are anomalous. Nothing else decides this.

    Compared in float64, so that an array of float32 is decided as each of its scores alone.

    Args:
        scores: one score, or an array of any shape.
        threshold: in score units; for an array of scores also one that is broadcast to its shape.

    Returns:
        A bool for one score, else booleans of the array's shape.
    """
    rejected: np.ndarray = np.asarray(scores, dtype=np.float64) >= threshold
    return rejected if isinstance(scores, np.ndarray) else bool(rejected)


Verdict = Literal["pass", "review", "fail"]


def verdict_of(score: float, low: float, high: float) -> Verdict:
    """What becomes of a part: it passes below the one bound, fails at and above the other; between them a person looks.

    Args:
        score: of the part, in score units, as the bounds.
        low: the lower bound.
        high: the upper bound.
    """
    if rejects(score, high):
        return "fail"
    return "review" if rejects(score, low) else "pass"


def check_band(low: float, high: float, threshold: float) -> None:
    """Raises `CalibrationError` unless a review band is of finite numbers above 0, with the threshold in it."""
    check_threshold(low)
    check_threshold(high)
    if rejects(low, np.nextafter(threshold, np.inf)) or not rejects(high, threshold):
        raise CalibrationError(
            f"a review band from {low:g} to {high:g} does not hold the threshold {threshold:g}: the lower bound must "
            "not be above it, and the upper one not below"
        )


@dataclass(frozen=True)
class Youden:
    """The operating point with the largest Youden index J = TPR - FPR, and the ROC curve it lies on.

    Attributes:
        threshold: in score units, halfway between the lowest rejected score and the next one below, so that rounding
            in the last digit decides nothing.
        index: J, above 0 and at most 1.
        auroc: 0 to 1.
        false_alarm_rates: FPR of the curve's points, rising from 0 to 1.
        detection_rates: TPR of the same points.
        thresholds: score at and above which each point rejects, falling.
    """

    threshold: float
    index: float
    auroc: float
    false_alarm_rates: np.ndarray
    detection_rates: np.ndarray
    thresholds: np.ndarray


def youden(normal: np.ndarray, anomalous: np.ndarray, weights: tuple[np.ndarray, np.ndarray] | None = None) -> Youden:
    """Finds the threshold of the largest Youden index; among equals, the one with the fewest false alarms.

    Args:
        normal: scores of normal images, ``[N]``.
        anomalous: scores of anomalous images, ``[M]``.
        weights: how many images each of them stands for, ``[N]`` and ``[M]``, all above 0; None for 1.

    Raises:
        CalibrationError: if a group is empty, a score is not finite, or no threshold separates the groups at all
            (as when all scores are equal).
    """
    from sklearn.metrics import auc, roc_curve  # takes a second; a server, and `rejects`, need none of it

    for name, scores in (("normal", normal), ("anomalous", anomalous)):
        check_scores(name, scores)
    labels = np.r_[np.zeros(len(normal)), np.ones(len(anomalous))]
    scores = np.r_[normal, anomalous].astype(np.float64)
    fpr, tpr, thresholds = roc_curve(labels, scores, sample_weight=None if weights is None else np.concatenate(weights))
    best = int(np.argmax(tpr - fpr))
    if tpr[best] - fpr[best] <= 0:
        raise CalibrationError(
            "no threshold rejects anomalous images more often than normal ones: the scores do not tell them apart; "
            "train for more epochs, or on another teacher"
        )
    lowest_rejected = thresholds[best]
    below = scores[scores < lowest_rejected]
    threshold = (lowest_rejected + below.max()) / 2  # J > 0, so some normal score lies below
    thresholds[0] = np.nextafter(scores.max(), np.inf)  # scikit-learn's infinity is not JSON
    return Youden(
        threshold=float(threshold),
        index=float(tpr[best] - fpr[best]),
        auroc=float(auc(fpr, tpr)),
        false_alarm_rates=fpr,
        detection_rates=tpr,
        thresholds=thresholds,
    )


def without_anomalous(normal: np.ndarray, pasted: np.ndarray, quantile: float) -> float:
    """The threshold to start with while there are no anomalous images.

    The larger of two: a quantile of the normal distribution that fits the normal scores, and Youden's threshold
    between them and the scores of the same images with a defect pasted on each. Where faults are plain the second
    keeps false alarms away; where pasted defects say nothing the first does. ``benchmarks/accuracy.md`` compares it
    with others, extreme-value fits among them, by how close they come to Youden's threshold of real defects.

    Args:
        normal: scores of normal images, ``[N]``.
        pasted: scores of the same with pasted defects, ``[N]``.
        quantile: above 0 and below 1; one minus the rate of false alarms aimed at.

    Raises:
        CalibrationError: if there is no score, one is not finite, or the quantile is impossible.
    """
    from scipy.stats import norm  # see `youden`

    check_scores("normal", normal)
    check_scores("pasted", pasted)
    check_quantile(quantile)
    scores = normal.astype(np.float64)
    spread = scores.std(ddof=1) if len(scores) > 1 else 0.0
    fitted = float(np.nextafter(scores.mean() + norm.ppf(quantile) * spread, np.inf))
    try:
        return max(fitted, youden(normal, pasted).threshold)
    except CalibrationError:  # the scores do not show the pasted defects
        return fitted


def check_quantile(quantile: float) -> None:
    """Raises `CalibrationError` unless the quantile lies strictly between 0 and 1."""
    if not 0 < quantile < 1:
        raise CalibrationError(f"the quantile must lie between 0 and 1, got {quantile}")


def check_threshold(threshold: float) -> None:
    """Raises `CalibrationError` unless a threshold set by hand is a finite number above 0."""
    if not (np.isfinite(threshold) and threshold > 0):
        raise CalibrationError(
            f"a threshold must be a finite number above 0, got {threshold:g}: no score is below 0, so at 0 or less "
            "every image is anomalous"
        )


def check_scores(name: str, scores: np.ndarray) -> None:
    """Raises `CalibrationError` unless there are scores of this kind of images, all of them finite."""
    if len(scores) == 0:
        raise CalibrationError(f"no {name} images to calibrate on")
    if not np.isfinite(scores).all():
        raise CalibrationError(f"{name} scores hold values that are not finite")
