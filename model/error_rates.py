"""How often a threshold will be wrong on new parts: the rate to expect, and a bound that holds with 95 % confidence.

All of it assumes that new parts are like the n parts at hand: photographed the same way, and drawn from the same
production. Nothing else is assumed about the scores. For good parts let s(k) be the k-th largest of the n scores. The
share of new good parts that score above s(k) is then a random number with the distribution Beta(k, n + 1 - k), or
smaller where scores are equal. What follows depends on where the threshold came from (`Basis`):

``independent``: the threshold was there before these parts were scored. With j of n rejected the rate to expect is
j / n, and the bound is that of Clopper and Pearson: the 95 % quantile of Beta(j + 1, n - j).

``order-statistic``: the threshold lies just above s(k), and k was chosen before the parts were scored (conformal
prediction). The rate to expect is k / (n + 1), and the bound is the 95 % quantile of Beta(k, n + 1 - k). Clopper and
Pearson's equation gives the same number for j = k - 1, but here it holds although the parts chose the threshold.

``same-parts``: the threshold was chosen from the scores of these parts in some other way, as Youden's is. If it
rejects j of them it lies above s(j + 1), but the scores chose j too, so neither equation above holds for that j alone.
The bound of each k = j + 1 is therefore taken with the error 0.05 / (k (k + 1)) instead of 0.05. Over all k these
errors sum to 0.05, so all bounds hold together with 95 % confidence, and so does that of the k that was chosen. It is
wider, and it holds whatever the choice was. The rate to expect is found by leaving parts out: the others choose a
threshold, and those left out are counted. j / n would be too low.

For faulty parts that are accepted it is the same, with the smallest scores in place of the largest. Each bound holds
with 95 % confidence by itself; both together hold with 90 %.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from model.calibration import CalibrationError, check_scores, rejects
from model.choices import Basis, FalseAlarmTarget
from model.measures import CONFIDENCE, upper_bound

FOLDS = 50
"""Into how many groups parts are divided to be left out in turn, at most."""
ROUNDING = 1e-9
"""0.29 * 100 is 28.999999999999996."""


class TooFewPartsError(CalibrationError):
    """There are too few good parts for the false-alarm rate that was asked for."""


@dataclass(frozen=True)
class ErrorRate:
    """How often one kind of parts is judged wrongly.

    Attributes:
        errors: how many of the parts at hand are.
        parts: how many there are, 1 at least.
        expected: the rate to expect of new ones, 0 to 1; None where that is not known.
        bound: with 95 % confidence the rate of new ones is not above this, 0 to 1.
        basis: which equation holds; see the head of this module.
    """

    errors: int
    parts: int
    expected: float | None
    bound: float
    basis: Basis


def independent(errors: int, parts: int) -> ErrorRate:
    """Of parts that were scored after the threshold was there.

    Raises:
        ValueError: if there are no parts.
    """
    return ErrorRate(errors, parts, errors / max(parts, 1), upper_bound(errors, parts), Basis.INDEPENDENT)


def same_parts(errors: int, parts: int, expected: float | None) -> ErrorRate:
    """Of the parts whose scores chose the threshold, in whatever way.

    Args:
        errors: how many of them are judged wrongly.
        parts: how many there are.
        expected: by leaving parts out, see `left_out`.

    Raises:
        ValueError: if there are no parts.
    """
    rank = errors + 1
    bound = upper_bound(errors, parts, 1 - (1 - CONFIDENCE) / (rank * (rank + 1)))
    return ErrorRate(errors, parts, expected, bound, Basis.SAME_PARTS)


def left_out(
    parts: int, errors_of: Callable[[np.ndarray, np.ndarray], float], whole: float | None = None
) -> float | None:
    """The rate of errors among parts that are left out in turn of choosing the threshold.

    Args:
        parts: how many there are.
        errors_of: from the places of the parts that choose, and of those left out, to the number of errors among these,
            or the sum of their weights.
        whole: the sum of all weights; None where each part counts once.

    Returns:
        0 to 1; None if some of the parts alone give no threshold.
    """
    if parts < 2:
        return None
    order = np.random.default_rng(0).permutation(parts)
    try:
        errors = sum(errors_of(np.setdiff1d(order, out), out) for out in np.array_split(order, min(parts, FOLDS)))
    except CalibrationError:
        return None
    return errors / (parts if whole is None else whole)


def check_target(target: FalseAlarmTarget) -> None:
    """Raises `CalibrationError` unless the rate lies strictly between 0 and 1."""
    if not 0 < target.rate < 1:
        raise CalibrationError(
            f"the false-alarm rate to allow must lie between 0 and 100 %, got {100 * target.rate:g} %: no number of "
            "good parts promises that none is rejected, and at 100 % all may be"
        )


def parts_needed(target: FalseAlarmTarget) -> int:
    """From how many good parts on a target can be met: 99 for 1 % on average, 299 for 1 % with 95 % confidence."""
    if target.with_confidence:
        return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-target.rate) - ROUNDING)
    return math.ceil(1 / target.rate - 1 - ROUNDING)


def check_reachable(target: FalseAlarmTarget, parts: int) -> None:
    """Whether so many good parts are enough for a target.

    Raises:
        CalibrationError: see `check_target`.
        TooFewPartsError: if they are too few; it says how many are needed, and what these are enough for.
    """
    check_target(target)
    if parts >= parts_needed(target):
        return
    on_average, surely = (parts_needed(FalseAlarmTarget(target.rate, one)) for one in (False, True))
    least = upper_bound(0, parts) if target.with_confidence else 1 / (parts + 1)
    kept = "with 95 % confidence" if target.with_confidence else "on average"
    raise TooFewPartsError(
        f"to keep false alarms at {100 * target.rate:g} % on average takes {on_average} good parts, and {surely} with "
        f"95 % confidence; {parts} are there, which is enough for {math.ceil(1000 * least - ROUNDING) / 10:g} % {kept}"
    )


def threshold_for(normal: np.ndarray, target: FalseAlarmTarget) -> tuple[float, ErrorRate]:
    """The lowest threshold that keeps the false-alarm rate at or below the target, and what it promises.

    It lies just above the k-th largest score, with the largest k for which k / (n + 1) is within the target; or, with
    confidence, for which the 95 % quantile of Beta(k, n + 1 - k) is.

    Args:
        normal: scores of good parts, ``[N]``.
        target: the rate to keep.

    Raises:
        CalibrationError: if a score is not finite, or see `check_reachable`.
    """
    check_scores("normal", normal)
    parts = len(normal)
    check_reachable(target, parts)
    rank = math.floor(target.rate * (parts + 1) + ROUNDING)
    if target.with_confidence:  # the bound rises with the rank, and that of rank 1 is within the target
        rank = next(one for one in range(rank, 0, -1) if upper_bound(one - 1, parts) <= target.rate + ROUNDING)
    falling = np.sort(np.float64(normal))[::-1]
    threshold = float(np.nextafter(falling[rank - 1], np.inf))
    rejected = int(np.sum(rejects(falling, threshold)))
    bound = upper_bound(rank - 1, parts)
    return threshold, ErrorRate(rejected, parts, rank / (parts + 1), bound, Basis.ORDER_STATISTIC)


def low_for(anomalous: np.ndarray, rate: float) -> float:
    """The highest bound below which, with 95 % confidence, at most this share of faulty parts scores.

    It is the k-th smallest score, with the largest k for which the 95 % quantile of Beta(k, n + 1 - k) is within the
    rate. It is `threshold_for` turned upside down.

    Args:
        anomalous: scores of faulty parts, ``[N]``.
        rate: above 0 and below 1.

    Raises:
        CalibrationError: if there is no score, one is not finite, or the rate is impossible.
        TooFewPartsError: if there are too few faulty parts; it says how many are needed.
    """
    check_scores("anomalous", anomalous)
    target = FalseAlarmTarget(rate, with_confidence=True)
    check_target(target)
    parts, needed = len(anomalous), parts_needed(target)
    if parts < needed:
        raise TooFewPartsError(
            f"to say below which score at most {100 * rate:g} % of faulty parts lie takes {needed} faulty parts; "
            f"{parts} are there, which is enough for {math.ceil(1000 * upper_bound(0, parts) - ROUNDING) / 10:g} %"
        )
    ranks = range(max(1, math.floor(rate * (parts + 1) + ROUNDING)), 0, -1)
    rank = next(one for one in ranks if upper_bound(one - 1, parts) <= rate + ROUNDING)
    return float(np.sort(np.float64(anomalous))[rank - 1])
