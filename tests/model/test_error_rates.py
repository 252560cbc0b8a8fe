"""What a threshold promises of new parts: the equations against SciPy, and against parts that are drawn afresh."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from model.calibration import CalibrationError, rejects, youden
from model.choices import Basis, FalseAlarmTarget
from model.error_rates import (
    TooFewPartsError,
    check_target,
    independent,
    left_out,
    low_for,
    parts_needed,
    same_parts,
    threshold_for,
)
from model.measures import upper_bound

SEEDS = 2000


def test_none_of_a_hundred_rejected_still_means_up_to_three_per_cent():
    found = independent(0, 100)
    assert (found.expected, found.basis) == (0, Basis.INDEPENDENT)
    assert found.bound == pytest.approx(1 - 0.05 ** (1 / 100))
    assert round(found.bound, 3) == 0.030


@pytest.mark.parametrize(("count", "total"), [(0, 1), (1, 1), (3, 20), (19, 20), (20, 20), (7, 500)])
def test_a_bound_is_scipys_and_so_many_errors_are_just_unlikely_at_it(count: int, total: int):
    two_sided = binomtest(count, total).proportion_ci(0.9, method="exact")  # 5 % on each side
    assert upper_bound(count, total) == pytest.approx(two_sided.high)
    if count < total:
        assert binom.cdf(count, total, upper_bound(count, total)) == pytest.approx(0.05)


def test_a_rate_of_no_parts_is_refused():
    for rate in (lambda: independent(0, 0), lambda: same_parts(0, 0, None)):
        with pytest.raises(ValueError, match="one case at least"):
            rate()


@pytest.mark.parametrize(
    ("rate", "on_average", "surely"), [(0.01, 99, 299), (0.05, 19, 59), (0.1, 9, 29), (0.001, 999, 2995), (0.5, 1, 5)]
)
def test_so_many_good_parts_are_needed_and_not_one_fewer(rate: float, on_average: int, surely: int):
    for with_confidence, needed in ((False, on_average), (True, surely)):
        target = FalseAlarmTarget(rate, with_confidence)
        assert parts_needed(target) == needed
        scores = np.arange(needed, dtype=np.float32)
        threshold, found = threshold_for(scores, target)
        assert (found.errors, rejects(scores, threshold).sum()) == (0, 0)
        assert (found.bound if with_confidence else found.expected or 1) <= rate + 1e-9
        if needed > 1:
            with pytest.raises(TooFewPartsError, match=f"takes {on_average} good parts, and {surely} with") as refused:
                threshold_for(scores[1:], target)
            assert f"{needed - 1} are there" in str(refused.value)


def test_too_few_parts_are_told_what_they_are_enough_for():
    with pytest.raises(TooFewPartsError, match=r"20 are there, which is enough for 4\.8 % on average"):
        threshold_for(np.arange(20.0), FalseAlarmTarget(0.01))
    with pytest.raises(TooFewPartsError, match=r"20 are there, which is enough for 14 % with 95 % confidence"):
        threshold_for(np.arange(20.0), FalseAlarmTarget(0.01, with_confidence=True))


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 1.5, float("nan"), float("inf")])
def test_an_impossible_rate_is_refused(rate: float):
    with pytest.raises(CalibrationError, match="between 0 and 100 %"):
        check_target(FalseAlarmTarget(rate))


@pytest.mark.parametrize("scores", [[], [1.0, float("nan")]])
def test_scores_that_are_none_are_refused(scores: list[float]):
    with pytest.raises(CalibrationError):
        threshold_for(np.array(scores), FalseAlarmTarget(0.5))


def test_equal_scores_make_the_promise_only_safer():
    threshold, found = threshold_for(np.ones(100, dtype=np.float32), FalseAlarmTarget(0.05))
    assert threshold > 1
    assert (found.errors, found.expected) == (0, 5 / 101)


@pytest.mark.parametrize("with_confidence", [False, True])
def test_a_false_alarm_target_holds_on_new_parts(with_confidence: bool):
    target = FalseAlarmTarget(0.05, with_confidence)
    rates = []
    for seed in range(SEEDS):
        threshold, found = threshold_for(np.random.default_rng(seed).uniform(size=120), target)
        rates.append(1 - threshold)  # of new parts, whose scores are drawn in the same way
    assert np.mean(rates) == pytest.approx(found.expected, abs=0.002)
    assert np.mean(np.array(rates) > found.bound) == pytest.approx(0.05, abs=0.015)
    assert found.bound <= 0.05 if with_confidence else (found.expected or 1) <= 0.05


def test_a_bound_of_the_parts_that_chose_the_threshold_holds_where_the_naive_one_does_not():
    """The choice looks for the threshold that makes these parts look best: the worst that a choice can do."""
    parts = 100
    naive = np.array([upper_bound(errors, parts) for errors in range(parts)])
    allowed = np.array([same_parts(errors, parts, None).bound for errors in range(parts)])
    rates = np.array(  # the rate above a score s is 1 - s; a threshold just above the next score below has these
        [1 - np.sort(np.random.default_rng(seed).uniform(size=parts))[::-1] for seed in range(SEEDS)]
    )
    assert np.mean((rates > naive).any(axis=1)) > 0.15
    assert np.mean((rates > allowed).any(axis=1)) <= 0.05


def test_the_rate_to_expect_of_youdens_threshold_is_not_the_one_of_the_parts_that_chose_it():
    own, expected, new = [], [], []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        normal, anomalous = rng.normal(size=40), rng.normal(1, size=40)
        threshold = youden(normal, anomalous).threshold
        own.append(np.mean(rejects(normal, threshold)))
        expected.append(
            left_out(
                40, lambda kept, out, n=normal, a=anomalous: int(rejects(n[out], youden(n[kept], a).threshold).sum())
            )
        )
        new.append(np.mean(rejects(rng.normal(size=2000), threshold)))
    assert np.mean(own) < np.mean(new) - 0.02
    assert np.mean(expected) == pytest.approx(np.mean(new), abs=0.02)


def test_every_part_is_left_out_once():
    for parts in (2, 7, 50, 333):
        places: list[int] = []

        def count(kept: np.ndarray, out: np.ndarray, places: list[int] = places, parts: int = parts) -> int:
            assert sorted([*kept, *out]) == list(range(parts))
            places.extend(out)
            return len(out)

        assert left_out(parts, count) == 1
        assert sorted(places) == list(range(parts))


def test_what_gives_no_threshold_without_a_part_gives_no_rate_to_expect():
    def none(kept: np.ndarray, out: np.ndarray) -> int:
        raise CalibrationError("no threshold")

    assert left_out(5, none) is None
    assert left_out(1, lambda kept, out: 0) is None


def test_the_lower_bound_of_a_review_band_keeps_what_it_promises():
    rng = np.random.default_rng(5)
    parts, rate, runs = 200, 0.05, 1000
    lows = np.array([low_for(rng.random(parts), rate) for _ in range(runs)])
    held = float(np.mean(lows <= rate))  # of uniform scores the share below a bound is the bound
    assert held >= 0.95 - 2.3 * np.sqrt(0.05 * 0.95 / runs)
    assert lows.mean() > 0.02  # and it is no lower than it must be
    with pytest.raises(TooFewPartsError, match="takes 598 faulty parts; 200 are there"):
        low_for(rng.random(parts), 0.005)
    with pytest.raises(CalibrationError, match="no anomalous images"):
        low_for(np.empty(0), rate)
