"""From the scores of the calibration's images to the threshold, and to what may be said of its error rates."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from model import error_rates
from model.calibration import (
    CalibrationError,
    Youden,
    check_band,
    check_quantile,
    check_scores,
    check_threshold,
    rejects,
    without_anomalous,
    youden,
)
from model.choices import NORMAL_QUANTILE, FalseAlarmTarget
from model.measures import auroc_interval
from model.store.card import (
    Calibration,
    CalibrationMethod,
    ErrorRate,
    Interval,
    ReviewBand,
    RocCurve,
    ScoreHistogram,
    Usual,
)

HISTOGRAM_BINS = 30


@dataclass(frozen=True)
class Rule:
    """Where the threshold is to come from.

    Without ``threshold`` and ``target`` it is Youden's where there are anomalous images, else that of
    `model.calibration.without_anomalous`.

    Attributes:
        threshold: set by hand, in score units.
        target: the false-alarm rate to keep, see `model.error_rates.threshold_for`.
        quantile: for `model.calibration.without_anomalous`.
        review: where the review band is to come from; without one there is none.
    """

    threshold: float | None = None
    target: FalseAlarmTarget | None = None
    quantile: float = NORMAL_QUANTILE
    review: "ReviewRule | None" = None

    def check(self) -> None:
        """Raises `CalibrationError` if a value is impossible, or threshold and target are both given."""
        check_quantile(self.quantile)
        if self.threshold is not None and self.target is not None:
            raise CalibrationError(
                "a threshold set by hand and a false-alarm rate to keep exclude each other: give one of them"
            )
        if self.threshold is not None:
            check_threshold(self.threshold)
        if self.target is not None:
            error_rates.check_target(self.target)
        if self.review is not None:
            self.review.check()


@dataclass(frozen=True)
class ReviewRule:
    """Where a review band is to come from: two bounds set by hand, or two rates, each with 95 % confidence.

    Attributes:
        bounds: the lower and the upper one, in score units.
        false_passes: share of faulty parts that may score below the lower bound, above 0 and below 1.
        false_rejects: share of good parts that may score at or above the upper bound, above 0 and below 1.
    """

    bounds: tuple[float, float] | None = None
    false_passes: float | None = None
    false_rejects: float | None = None

    def check(self) -> None:
        """Raises `CalibrationError` unless there are bounds, or rates strictly between 0 and 1, and not both."""
        rates = [rate for rate in (self.false_passes, self.false_rejects) if rate is not None]
        if (self.bounds is None) == (not rates):
            raise CalibrationError("a review band needs two bounds, or one or two rates, and not both")
        for rate in rates:
            error_rates.check_target(FalseAlarmTarget(rate))

    def band(self, threshold: float, normal: np.ndarray, anomalous: np.ndarray) -> ReviewBand:
        """The band around a threshold. Where no rate is given for a bound, it is the threshold.

        Args:
            threshold: in score units.
            normal: scores of good parts, ``[N]``; only looked at for a rate.
            anomalous: scores of faulty parts, ``[M]``; only looked at for a rate.

        Raises:
            CalibrationError: if the band does not hold the threshold.
            TooFewPartsError: if there are too few parts for a rate.
        """
        low, high = self.bounds or (threshold, threshold)
        if self.false_passes is not None:
            low = min(threshold, error_rates.low_for(anomalous, self.false_passes))
        if self.false_rejects is not None:
            target = FalseAlarmTarget(self.false_rejects, with_confidence=True)
            high = max(threshold, error_rates.threshold_for(normal, target)[0])
        check_band(low, high, threshold)
        return ReviewBand(low=low, high=high)


def band_of(rule: Rule, threshold: float, normal: np.ndarray, anomalous: np.ndarray) -> ReviewBand | None:
    """The review band of a calibration; None if none is asked for. Raises as `ReviewRule.band`."""
    return None if rule.review is None else rule.review.band(threshold, normal, anomalous)


def calibration_of(
    normal: np.ndarray,
    anomalous: np.ndarray,
    pasted: Callable[[], np.ndarray],
    rule: Rule,
    *,
    looked_at: bool = False,
    usual: Usual = Usual(),
) -> Calibration:
    """The record of a calibration.

    Args:
        normal: scores of normal images, ``[N]``.
        anomalous: scores of anomalous images, ``[M]``; may be empty.
        pasted: gives the scores of the normal images with a defect pasted on each, ``[N]``; called where they decide.
        rule: where the threshold is to come from.
        looked_at: whether somebody may have seen the scores of some of these images before setting a threshold by hand.
        usual: how the normal images lie.

    Raises:
        CalibrationError: if the scores give no threshold, or the rule is impossible.
        TooFewPartsError: if the normal images are too few for its target.
    """
    rule.check()
    check_scores("normal", normal)
    found = youden(normal, anomalous) if len(anomalous) else None
    asked: dict[str, Any] = {}
    method: CalibrationMethod
    if rule.threshold is not None:
        method, threshold = "manual", rule.threshold
        of_hand = _of_same_parts if looked_at else _of_other_parts
        rates = of_hand(normal, anomalous, threshold)
    elif rule.target is not None:
        method = "false-alarm-target"
        threshold, false_alarms = error_rates.threshold_for(normal, rule.target)
        rates = false_alarms, _of_other_parts(normal, anomalous, threshold)[1]
        asked = {"max_false_alarms": rule.target.rate, "with_confidence": rule.target.with_confidence}
    elif found is not None:
        method, threshold = "youden", found.threshold
        rates = _of_youden(normal, anomalous, threshold)
    else:
        scores_of_pasted = pasted()
        method, threshold = "synthetic", without_anomalous(normal, scores_of_pasted, rule.quantile)
        rates = _of_synthetic(normal, scores_of_pasted, threshold, rule.quantile), None
        asked = {"quantile": rule.quantile}
    false_alarms_found, misses = (None if rate is None else ErrorRate(**asdict(rate)) for rate in rates)
    return Calibration(
        method=method,
        threshold=threshold,
        review=band_of(rule, threshold, normal, anomalous),
        normal_images=len(normal),
        anomalous_images=len(anomalous),
        **asked,
        false_alarms=false_alarms_found,
        misses=misses,
        **_curve(found, len(normal), len(anomalous)),
        histogram=histogram_of(normal, anomalous),
        usual=usual,
        date=now(),
    )


def moved_by_hand(before: Calibration, threshold: float, review: ReviewRule | None = None) -> Calibration:
    """The same record with another threshold. No images are there to count on, so no error rate is known.

    Raises:
        CalibrationError: see `model.calibration.check_threshold` and `ReviewRule.band`.
    """
    check_threshold(threshold)
    none = np.empty(0)
    band = None if review is None else review.band(threshold, none, none)
    forgotten = dict.fromkeys(("quantile", "max_false_alarms", "with_confidence", "false_alarms", "misses"))
    changed = {"method": "manual", "threshold": threshold, "review": band, "date": now()}
    return Calibration.model_validate(before.model_dump() | forgotten | changed)


def now() -> datetime:
    """The time of a calibration, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


Rates = tuple[error_rates.ErrorRate, error_rates.ErrorRate | None]
"""Of normal and of anomalous images."""


def _of_other_parts(normal: np.ndarray, anomalous: np.ndarray, threshold: float) -> Rates:
    misses = error_rates.independent(_missed(anomalous, threshold), len(anomalous)) if len(anomalous) else None
    return error_rates.independent(_rejected(normal, threshold), len(normal)), misses


def _of_same_parts(normal: np.ndarray, anomalous: np.ndarray, threshold: float) -> Rates:
    misses = error_rates.same_parts(_missed(anomalous, threshold), len(anomalous), None) if len(anomalous) else None
    return error_rates.same_parts(_rejected(normal, threshold), len(normal), None), misses


def _of_youden(normal: np.ndarray, anomalous: np.ndarray, threshold: float) -> Rates:
    def alarms(kept: np.ndarray, out: np.ndarray) -> int:
        return _rejected(normal[out], youden(normal[kept], anomalous).threshold)

    def misses(kept: np.ndarray, out: np.ndarray) -> int:
        return _missed(anomalous[out], youden(normal, anomalous[kept]).threshold)

    return (
        error_rates.same_parts(_rejected(normal, threshold), len(normal), error_rates.left_out(len(normal), alarms)),
        error_rates.same_parts(
            _missed(anomalous, threshold), len(anomalous), error_rates.left_out(len(anomalous), misses)
        ),
    )


def _of_synthetic(normal: np.ndarray, pasted: np.ndarray, threshold: float, quantile: float) -> error_rates.ErrorRate:
    def alarms(kept: np.ndarray, out: np.ndarray) -> int:
        return _rejected(normal[out], without_anomalous(normal[kept], pasted[kept], quantile))

    expected = error_rates.left_out(len(normal), alarms)
    return error_rates.same_parts(_rejected(normal, threshold), len(normal), expected)


def _rejected(scores: np.ndarray, threshold: float) -> int:
    return int(np.sum(rejects(scores, threshold)))


def _missed(scores: np.ndarray, threshold: float) -> int:
    return len(scores) - _rejected(scores, threshold)


def _curve(found: Youden | None, normal: int, anomalous: int) -> dict[str, Any]:
    if found is None:
        return {}
    low, high = auroc_interval(found.auroc, normal, anomalous)
    return curve_of(found, Interval(low=low, high=high))


def curve_of(found: Youden, interval: Interval) -> dict[str, Any]:
    """What a `Calibration` has of a ROC curve, and of the interval of its AUROC."""
    return {
        "youden_index": found.index,
        "auroc": found.auroc,
        "auroc_interval": interval,
        "roc": RocCurve(
            false_alarm_rate=tuple(found.false_alarm_rates.tolist()),
            detection_rate=tuple(found.detection_rates.tolist()),
            threshold=tuple(found.thresholds.tolist()),
        ),
    }


def histogram_of(normal: np.ndarray, anomalous: np.ndarray) -> ScoreHistogram:
    """Counts of the scores of both kinds."""
    edges = np.histogram_bin_edges(np.concatenate((normal, anomalous)).astype(np.float64), bins=HISTOGRAM_BINS)
    return ScoreHistogram(
        edges=tuple(edges.tolist()),
        normal=tuple(np.histogram(normal, edges)[0].tolist()),
        anomalous=tuple(np.histogram(anomalous, edges)[0].tolist()),
    )
