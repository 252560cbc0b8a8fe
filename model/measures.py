"""How good a detector is, in the field's standard terms (equations 15-17), with bootstrap intervals."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from scipy.stats import bootstrap, mannwhitneyu
from sklearn.metrics import auc, roc_auc_score, roc_curve

from model.calibration import rejects

AUPRO_FALSE_POSITIVE_LIMIT = 0.3
RESAMPLES = 2000
CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A measure and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class RocBand:
    """A ROC curve on an even grid with its pointwise 95 % bootstrap interval.

    Attributes:
        false_alarm_rates: the grid, rising from 0 to 1, ``[K]``.
        detection_rates: the largest one that costs no more false alarms than that, ``[K]``.
        low: lower end of the interval of each detection rate, ``[K]``.
        high: upper end.
    """

    false_alarm_rates: np.ndarray
    detection_rates: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Measures:
    """Image-level measures; every field is between 0 and 1. Positive class: anomalous."""

    auroc: Estimate
    false_alarm_rate: Estimate
    miss_rate: Estimate
    g_mean: Estimate


def auroc(normal: np.ndarray, anomalous: np.ndarray) -> float:
    """Area under the ROC curve: the chance that an anomalous image scores above a normal one, ties half."""
    statistic = mannwhitneyu(np.float64(anomalous), np.float64(normal), method="asymptotic").statistic
    return float(statistic / (len(normal) * len(anomalous)))


def false_alarm_rate(normal: np.ndarray, threshold: float) -> float:
    """Normal images rejected / normal images (FPR)."""
    return float(np.mean(rejects(normal, threshold)))


def miss_rate(anomalous: np.ndarray, threshold: float) -> float:
    """Anomalous images accepted / anomalous images (FNR)."""
    return float(np.mean(~rejects(anomalous, threshold)))


def g_mean(normal: np.ndarray, anomalous: np.ndarray, threshold: float) -> float:
    """Equation 15: sqrt((1 - FPR) (1 - FNR))."""
    return float(np.sqrt((1 - false_alarm_rate(normal, threshold)) * (1 - miss_rate(anomalous, threshold))))


def measure(normal: np.ndarray, anomalous: np.ndarray, threshold: float, *, seed: int = 0) -> Measures:
    """All image-level measures of scores ``[N]`` and ``[M]`` with 95 % percentile intervals.

    2000 bootstrap resamples, normal and anomalous images drawn separately.

    Raises:
        ValueError: if either group is empty.
    """
    if len(normal) == 0 or len(anomalous) == 0:
        raise ValueError(f"need normal and anomalous images, got {len(normal)} and {len(anomalous)}")

    def estimate(statistic: Callable[[np.ndarray, np.ndarray], float]) -> Estimate:
        return _estimate(statistic, normal, anomalous, seed)

    return Measures(
        auroc=estimate(auroc),
        false_alarm_rate=estimate(lambda good, _: false_alarm_rate(good, threshold)),
        miss_rate=estimate(lambda _, bad: miss_rate(bad, threshold)),
        g_mean=estimate(lambda good, bad: g_mean(good, bad, threshold)),
    )


def auroc_estimate(normal: np.ndarray, anomalous: np.ndarray, *, seed: int = 0) -> Estimate:
    """`auroc` with its interval, made as in `measure`. Each group needs two scores at least."""
    return _estimate(auroc, normal, anomalous, seed)


def _estimate(
    statistic: Callable[[np.ndarray, np.ndarray], float], normal: np.ndarray, anomalous: np.ndarray, seed: int
) -> Estimate:
    resampled = bootstrap(
        (normal, anomalous),
        statistic,
        n_resamples=RESAMPLES,
        vectorized=False,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = resampled.confidence_interval
    return Estimate(statistic(normal, anomalous), float(low), float(high))


def roc_band(normal: np.ndarray, anomalous: np.ndarray, *, points: int = 101, seed: int = 0) -> RocBand:
    """The ROC curve of scores ``[N]`` and ``[M]``, and where 95 % of its resamples lie at each false-alarm rate.

    Resampled as in `measure`. The band is pointwise: it holds for one false-alarm rate at a time, and a whole curve
    leaves it more often than one time in twenty.
    """
    rng = np.random.default_rng(seed)
    grid = np.linspace(0, 1, points)
    curves = [
        _detection_rates(rng.choice(normal, len(normal)), rng.choice(anomalous, len(anomalous)), grid)
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(curves, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2), axis=0)
    return RocBand(grid, _detection_rates(normal, anomalous, grid), low, high)


def _detection_rates(normal: np.ndarray, anomalous: np.ndarray, false_alarm_rates: np.ndarray) -> np.ndarray:
    """The largest detection rate that costs no more than each of these false-alarm rates."""
    falling = np.append(np.sort(np.float64(normal))[::-1], -np.inf)
    # So many normal scores may be rejected, and the threshold lies just above the next one. The tiny number is for
    # 0.29 * 100, which is 28.999999999999996.
    allowed = np.floor(false_alarm_rates * len(normal) + 1e-9).astype(int)
    rejected = len(anomalous) - np.searchsorted(np.sort(np.float64(anomalous)), falling[allowed], side="right")
    rates: np.ndarray = rejected / len(anomalous)
    return rates


def pixel_auroc(maps: np.ndarray, masks: np.ndarray) -> float:
    """Area under the ROC curve over all pixels.

    Args:
        maps: anomaly maps ``[N, H, W]``.
        masks: True where the fault is, ``[N, H, W]``.

    Raises:
        ValueError: if the masks are all faulty or all faultless.
    """
    _require_both(masks)
    return float(roc_auc_score(masks.ravel(), maps.ravel()))


def aupro(maps: np.ndarray, masks: np.ndarray) -> float:
    """Area under the per-region-overlap curve up to a false-positive rate of 0.3, divided by 0.3 (MVTec AD's measure).

    Each connected fault region counts alike, however large: the curve is a pixel ROC in which a faulty pixel weighs
    one over the size of its region.

    Args:
        maps: anomaly maps ``[N, H, W]``.
        masks: True where the fault is, ``[N, H, W]``.

    Raises:
        ValueError: if the masks are all faulty or all faultless.
    """
    _require_both(masks)
    weights = np.ones(masks.shape, dtype=np.float64)
    for image_weights, mask in zip(weights, masks, strict=True):
        _, labels = cv2.connectedComponents(mask.astype(np.uint8))
        sizes = np.bincount(labels.ravel())
        image_weights[mask] = 1 / sizes[labels[mask]]
    fpr, pro, _ = roc_curve(masks.ravel(), maps.ravel(), sample_weight=weights.ravel())
    limit = AUPRO_FALSE_POSITIVE_LIMIT
    at_limit = np.interp(limit, fpr, pro)
    below = fpr < limit
    return float(auc(np.append(fpr[below], limit), np.append(pro[below], at_limit)) / limit)


def _require_both(masks: np.ndarray) -> None:
    if masks.all() or not masks.any():
        raise ValueError("pixel measures need both faulty and faultless pixels")
