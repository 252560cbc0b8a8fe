"""A calibration from labelled inspections, of which not all had the same chance to be kept and labelled.

Images are kept at random, by shares that depend on what was decided then: all rejected parts and one accepted part in a
hundred, for example. People label what is kept, so among the labelled parts there are far too many that were rejected.
Two things put this right:

The *random sample*: whether an image is kept follows from its id alone, so the images that would also have been kept
by the smaller of the two shares are a random sample of all images, whatever was decided (permanent random numbers,
Ohlsson 1995). All bounds come from it alone, by the equations of `model.error_rates`, which hold for a random sample.
So does a threshold for a false-alarm rate.

*Weights*: each part stands for 1 / share parts (Horvitz and Thompson 1952). Youden's threshold, the ROC curve, and the
rates to expect of it, are those of the weighted parts, divided by the sum of the weights (Hajek 1971). This uses every
labelled part, but gives no exact bound.

Both assume that of the images that were kept with the same share, all are labelled, or some without regard to their
scores. `tests/model/lifecycle/test_labelled.py` checks by simulation that the bounds hold.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from model import error_rates
from model.calibration import CalibrationError, check_scores, rejects, youden
from model.lifecycle.thresholds import Rule, band_of, curve_of, histogram_of, now
from model.measures import auroc_interval
from model.store.card import Calibration, CalibrationMethod, ErrorRate, Interval, LabelRecord


@dataclass(frozen=True)
class Labelled:
    """Parts of one kind that people labelled.

    Attributes:
        scores: in score units, float64 ``[N]``.
        shares: of the images like each of them that were kept, above 0 and at most 1, ``[N]``.
        sampled: which of them are in the random sample, booleans ``[N]``.
    """

    scores: np.ndarray
    shares: np.ndarray
    sampled: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def weights(self) -> np.ndarray:
        """How many parts each of them stands for, ``[N]``."""
        return np.asarray(1 / self.shares)

    @property
    def sample(self) -> np.ndarray:
        """The scores of the random sample."""
        return np.asarray(self.scores[self.sampled])

    @property
    def effective(self) -> int:
        """How many equally weighted parts would tell as much (Kish 1965), rounded down."""
        return int(self.weights.sum() ** 2 / np.square(self.weights).sum() + error_rates.ROUNDING)


def calibration_of_labels(normal: Labelled, anomalous: Labelled, rule: Rule, labels: LabelRecord) -> Calibration:
    """The record of a calibration.

    Args:
        normal: good parts, one at least.
        anomalous: faulty parts; may be empty if the rule names a threshold or a false-alarm rate.
        rule: where the threshold is to come from; without ``threshold`` and ``target`` it is Youden's.
        labels: where the parts come from.

    Raises:
        CalibrationError: if the scores give no threshold, or the rule is impossible.
        TooFewPartsError: if the good parts of the random sample are too few for its target.
    """
    rule.check()
    check_scores("normal", normal.scores)
    asked: dict[str, Any] = {}
    expected_alarms = expected_misses = None
    false_alarms: error_rates.ErrorRate | None
    method: CalibrationMethod
    if rule.threshold is not None:
        method, threshold = "manual", rule.threshold
    elif rule.target is not None:
        error_rates.check_reachable(rule.target, len(normal.sample))
        method = "false-alarm-target"
        threshold, false_alarms = error_rates.threshold_for(normal.sample, rule.target)
        asked = {"max_false_alarms": rule.target.rate, "with_confidence": rule.target.with_confidence}
        expected_misses = _share(anomalous, ~rejects(anomalous.scores, threshold))
    else:
        check_scores("anomalous", anomalous.scores)
        if not len(normal.sample):
            raise CalibrationError("none of the good parts is in the random sample of all images")
        method, threshold = "youden", _youden(normal, anomalous)
        expected_alarms, expected_misses = _of_youden(normal, anomalous)
    if rule.target is None:
        rejected = int(rejects(normal.sample, threshold).sum())
        false_alarms = _bounded(rejected, len(normal.sample), expected_alarms, of_same_parts=True)
    accepted = int((~rejects(anomalous.sample, threshold)).sum())
    misses = _bounded(accepted, len(anomalous.sample), expected_misses, of_same_parts=rule.target is None)
    return Calibration(
        method=method,
        threshold=threshold,
        review=band_of(rule, threshold, normal.sample, anomalous.sample),
        normal_images=len(normal),
        anomalous_images=len(anomalous),
        **asked,
        false_alarms=None if false_alarms is None else ErrorRate(**asdict(false_alarms)),
        misses=None if misses is None else ErrorRate(**asdict(misses)),
        **_curve(normal, anomalous),
        histogram=histogram_of(normal.scores, anomalous.scores),
        labels=labels,
        date=now(),
    )


def _bounded(errors: int, parts: int, expected: float | None, *, of_same_parts: bool) -> error_rates.ErrorRate | None:
    """What the random sample says, with another rate to expect; None if the sample is empty."""
    if not parts:
        return None
    if of_same_parts:
        found = error_rates.same_parts(errors, parts, expected)
    else:
        found = replace(error_rates.independent(errors, parts), expected=expected)
    return replace(found, bound=max(found.bound, expected or 0))  # the weighted rate may lie above, by chance


def _share(parts: Labelled, chosen: np.ndarray) -> float | None:
    """The weighted share of these among the parts; None without parts."""
    return float(parts.weights[chosen].sum() / parts.weights.sum()) if len(parts) else None


def _youden(normal: Labelled, anomalous: Labelled) -> float:
    return youden(normal.scores, anomalous.scores, (normal.weights, anomalous.weights)).threshold


def _of_youden(normal: Labelled, anomalous: Labelled) -> tuple[float | None, float | None]:
    """The rates to expect, by leaving parts out."""

    def picked(parts: Labelled, places: np.ndarray) -> Labelled:
        return Labelled(parts.scores[places], parts.shares[places], parts.sampled[places])

    def alarms(kept: np.ndarray, out: np.ndarray) -> float:
        rejected = rejects(normal.scores[out], _youden(picked(normal, kept), anomalous))
        return float(normal.weights[out][rejected].sum())

    def misses(kept: np.ndarray, out: np.ndarray) -> float:
        accepted = ~rejects(anomalous.scores[out], _youden(normal, picked(anomalous, kept)))
        return float(anomalous.weights[out][accepted].sum())

    return (
        error_rates.left_out(len(normal), alarms, normal.weights.sum()),
        error_rates.left_out(len(anomalous), misses, anomalous.weights.sum()),
    )


def _curve(normal: Labelled, anomalous: Labelled) -> dict[str, Any]:
    """The weighted ROC curve; the interval of its AUROC is that of as many equally weighted parts."""
    if not len(anomalous):
        return {}
    found = youden(normal.scores, anomalous.scores, (normal.weights, anomalous.weights))
    low, high = auroc_interval(found.auroc, normal.effective, anomalous.effective)
    return curve_of(found, Interval(low=low, high=high))
