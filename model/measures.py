"""How good a detector is, in the field's standard terms (equations 15-17), with their 95 % intervals.

scipy and sklearn take a second to import, which the start of a server need not wait for: each function imports its own.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import cv2
import numpy as np

from model.calibration import rejects

AUPRO_FALSE_POSITIVE_LIMIT = 0.3
CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A measure and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class RocBand:
    """A ROC curve on an even grid with the exact 95 % interval of each detection rate by itself.

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
    from scipy.stats import mannwhitneyu

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


def measure(normal: np.ndarray, anomalous: np.ndarray, threshold: float) -> Measures:
    """The measures of images that the threshold alone decides about; see `measure_decided`."""
    return measure_decided(normal, anomalous, rejects(normal, threshold), rejects(anomalous, threshold))


def measure_decided(
    normal: np.ndarray, anomalous: np.ndarray, normal_rejected: np.ndarray, anomalous_rejected: np.ndarray
) -> Measures:
    """All image-level measures with their 95 % intervals.

    Those of the rates are exact (Clopper and Pearson); that of the g-mean is what both together allow. For that of the
    AUROC see `auroc_interval`.

    Args:
        normal: scores of normal images, ``[N]``.
        anomalous: scores of anomalous images, ``[M]``.
        normal_rejected: which of the normal images are rejected, bool ``[N]``.
        anomalous_rejected: which of the anomalous ones, bool ``[M]``.

    Raises:
        ValueError: if either group is empty.
    """
    area = auroc_estimate(normal, anomalous)
    alarms = rate_estimate(int(normal_rejected.sum()), len(normal))
    missed = rate_estimate(int((~anomalous_rejected).sum()), len(anomalous))
    value, high, low = (math.sqrt((1 - alarm) * (1 - miss)) for alarm, miss in zip(alarms, missed, strict=True))
    return Measures(area, alarms, missed, Estimate(value, low, high))


def rate_estimate(count: int, total: int) -> Estimate:
    """A share of independent cases with its exact 95 % interval (Clopper and Pearson).

    Raises:
        ValueError: if there are no cases.
    """
    from scipy.stats import binomtest

    if total == 0:
        raise ValueError("a rate needs one case at least")
    interval = binomtest(count, total).proportion_ci(CONFIDENCE, method="exact")
    return Estimate(count / total, float(interval.low), float(interval.high))


def upper_bound(count: int, total: int, confidence: float = CONFIDENCE) -> float:
    """The exact one-sided bound on a share of independent cases (Clopper and Pearson): it is not above this.

    With none of 100 it is 0.030. For what it means where the cases chose a threshold see `model.error_rates`.

    Raises:
        ValueError: if there are no cases.
    """
    from scipy.stats import beta

    if total == 0:
        raise ValueError("a rate needs one case at least")
    return float(beta.ppf(confidence, count + 1, total - count)) if count < total else 1.0


def auroc_estimate(normal: np.ndarray, anomalous: np.ndarray) -> Estimate:
    """`auroc` with its interval.

    Raises:
        ValueError: if either group is empty.
    """
    if len(normal) == 0 or len(anomalous) == 0:
        raise ValueError(f"need normal and anomalous images, got {len(normal)} and {len(anomalous)}")
    value = auroc(normal, anomalous)
    return Estimate(value, *auroc_interval(value, len(normal), len(anomalous)))


def auroc_interval(value: float, normal: int, anomalous: int) -> tuple[float, float]:
    """The 95 % interval of an AUROC, from its value and the numbers of images.

    This is method 5 of Newcombe (Statistics in Medicine 25, 2006, p. 559). It holds for few images and near 1, where an
    interval of bootstrap resamples is far too narrow: with 12 and 12 images that are told apart it is [1, 1].
    """
    from scipy.optimize import brentq

    spread = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    mean = (normal + anomalous) / 2

    def distance(area: float) -> float:
        ranks = 1 + (mean - 1) * ((1 - area) / (2 - area) + area / (1 + area))
        return (value - area) ** 2 - spread**2 * area * (1 - area) / (normal * anomalous) * ranks

    low = brentq(distance, 0, min(value, 1 - 1e-12)) if value > 0 else 0  # at 1 it is zero once more
    high = brentq(distance, max(value, 1e-12), 1) if value < 1 else 1
    return float(low), float(high)


def roc_band(normal: np.ndarray, anomalous: np.ndarray, *, points: int = 101) -> RocBand:
    """The ROC curve of scores ``[N]`` and ``[M]``, and the exact interval of the detection rate at each point of it.

    The interval is that of Clopper and Pearson for the threshold that costs so many false alarms on these normal
    images. The band is pointwise: it holds for one point at a time, and a whole curve leaves it more often than one
    time in twenty. It does not say how far other normal images would move the threshold.
    """
    grid = np.linspace(0, 1, points)
    detected = _detected(normal, anomalous, grid)
    intervals = {int(count): rate_estimate(int(count), len(anomalous)) for count in np.unique(detected)}
    rates, low, high = np.array([intervals[int(count)] for count in detected]).T
    return RocBand(grid, rates, low, high)


def _detected(normal: np.ndarray, anomalous: np.ndarray, false_alarm_rates: np.ndarray) -> np.ndarray:
    """The largest number of detected anomalous images that costs no more than each of these false-alarm rates."""
    falling = np.append(np.sort(np.float64(normal))[::-1], -np.inf)
    # So many normal scores may be rejected, and the threshold lies just above the next one. The tiny number is for
    # 0.29 * 100, which is 28.999999999999996.
    allowed = np.floor(false_alarm_rates * len(normal) + 1e-9).astype(int)
    detected: np.ndarray = len(anomalous) - np.searchsorted(
        np.sort(np.float64(anomalous)), falling[allowed], side="right"
    )
    return detected


class PixelCurve:
    """The ROC curve over all pixels of many anomaly maps, gathered map by map: memory does not grow with their number.

    Values are counted in bins that are 1/2048 of the value wide, which changes no measure in its fourth digit.
    """

    _SHIFT = 12
    _BINS = 1 << (32 - _SHIFT)

    def __init__(self) -> None:
        self._faultless = np.zeros(self._BINS, dtype=np.int64)
        self._faulty = np.zeros(self._BINS, dtype=np.int64)
        self._overlap = np.zeros(self._BINS)
        self._faults = 0

    def add(self, anomaly_map: np.ndarray, mask: np.ndarray | None = None, counts: np.ndarray | None = None) -> None:
        """Counts the pixels of one map.

        Args:
            anomaly_map: ``[H, W]``.
            mask: True where the fault is, ``[H, W]``; None where there is none.
            counts: True where pixels count, ``[H, W]``; None where all do.
        """
        bins = self._bins(anomaly_map)
        if mask is not None and counts is not None:
            mask = mask & counts
        if mask is None or not mask.any():
            np.add.at(self._faultless, bins if counts is None else bins[counts], 1)
            return
        np.add.at(self._faultless, bins[~mask if counts is None else counts & ~mask], 1)
        np.add.at(self._faulty, bins[mask], 1)
        count, faults = cv2.connectedComponents(mask.astype(np.uint8))
        sizes = np.bincount(faults.ravel())
        np.add.at(self._overlap, bins[mask], 1 / sizes[faults[mask]])
        self._faults += count - 1

    @property
    def has_both(self) -> bool:
        """Whether faulty and faultless pixels have been counted, so that there are measures."""
        return bool(self._faults and self._faultless.any())

    def auroc(self) -> float:
        """Area under the ROC curve over all pixels.

        Raises:
            ValueError: if the pixels are all faulty or all faultless.
        """
        from sklearn.metrics import auc

        false_positives, faulty = self._false_positives(), self._faulty[::-1].cumsum()
        return float(auc(false_positives, np.append(0, faulty / faulty[-1])))

    def aupro(self) -> float:
        """MVTec AD's measure: the area under the per-region-overlap curve up to a false-positive rate of 0.3, over 0.3.

        Each connected fault region counts alike, however large: the curve is a pixel ROC in which a faulty pixel weighs
        one over the size of its region.

        Raises:
            ValueError: if the pixels are all faulty or all faultless.
        """
        from sklearn.metrics import auc

        false_positives = self._false_positives()
        overlap = np.append(0, self._overlap[::-1].cumsum() / self._faults)
        limit = AUPRO_FALSE_POSITIVE_LIMIT
        below = false_positives < limit
        at_limit = np.interp(limit, false_positives, overlap)
        return float(auc(np.append(false_positives[below], limit), np.append(overlap[below], at_limit)) / limit)

    def _false_positives(self) -> np.ndarray:
        faultless = self._faultless[::-1].cumsum()
        if not self.has_both:
            raise ValueError("pixel measures need both faulty and faultless pixels")
        rates: np.ndarray = np.append(0, faultless / faultless[-1])
        return rates

    def _bins(self, values: np.ndarray) -> np.ndarray:
        """The bits of a float32, in the order of the numbers: those of negative ones are turned round."""
        bits = (values.astype(np.float32) + 0.0).view(np.uint32)  # there is no negative zero after this
        ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
        found: np.ndarray = ordered >> self._SHIFT
        return found


def pixel_auroc(maps: np.ndarray, masks: np.ndarray) -> float:
    """`PixelCurve.auroc` of anomaly maps ``[N, H, W]`` and masks of the same shape."""
    return _curve(maps, masks).auroc()


def aupro(maps: np.ndarray, masks: np.ndarray) -> float:
    """`PixelCurve.aupro` of anomaly maps ``[N, H, W]`` and masks of the same shape."""
    return _curve(maps, masks).aupro()


def _curve(maps: np.ndarray, masks: np.ndarray) -> PixelCurve:
    curve = PixelCurve()
    for anomaly_map, mask in zip(maps, masks, strict=True):
        curve.add(anomaly_map, mask)
    return curve


def mcnemar(only_first: int, only_second: int) -> float:
    """The p-value of McNemar's exact test: how often chance alone would give two equally good judges, asked about the
    same parts, a difference as large as this one.

    Args:
        only_first: parts about which only the first is right.
        only_second: parts about which only the second is right.

    Returns:
        0 to 1, two-sided; 1 if they are right about the same parts.
    """
    from scipy.stats import binomtest

    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)
