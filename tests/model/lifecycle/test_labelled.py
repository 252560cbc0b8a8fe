"""Labels of a biased choice of images give rates of all images, and bounds that hold."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from scipy.stats import norm

from model import error_rates
from model.calibration import CalibrationError, youden
from model.choices import Basis, FalseAlarmTarget
from model.error_rates import TooFewPartsError
from model.lifecycle.labelled import Labelled, calibration_of_labels
from model.lifecycle.thresholds import Rule, calibration_of
from model.store.card import LabelRecord

DAY = datetime(2026, 5, 1, tzinfo=UTC)
RECORD = LabelRecord(first=DAY, last=DAY, normal=1, anomalous=1, sampled_normal=1, sampled_anomalous=1)
SERVING = 12.0
"""The threshold that decided when the images were kept."""
SHARE = 0.1
"""Of the accepted images that are kept; of the rejected ones all are."""


def production(rng: np.random.Generator, parts: int, mean: float) -> Labelled:
    """What is labelled of so many parts, whose scores are normally distributed around the mean with deviation 1."""
    scores, chance = rng.normal(mean, 1, parts), rng.random(parts)
    shares = np.where(scores >= SERVING, 1.0, SHARE)
    kept = chance < shares
    return Labelled(scores[kept], shares[kept], (chance < SHARE)[kept])


def all_of(scores: list[float] | np.ndarray) -> Labelled:
    return Labelled(np.array(scores, dtype=float), np.ones(len(scores)), np.ones(len(scores), dtype=bool))


def test_where_all_images_are_kept_it_is_the_calibration_from_files():
    rng = np.random.default_rng(1)
    good, bad = rng.normal(10, 1, 120), rng.normal(13, 1, 40)
    for rule in (Rule(), Rule(target=FalseAlarmTarget(0.05)), Rule(threshold=11.5)):
        of_labels = calibration_of_labels(all_of(good), all_of(bad), rule, RECORD)
        of_files = calibration_of(good, bad, lambda: good, rule, looked_at=True)
        for name in ("method", "threshold", "youden_index", "auroc", "auroc_interval", "misses", "false_alarms"):
            ours, theirs = getattr(of_labels, name), getattr(of_files, name)
            assert ours == theirs or ours.model_dump() == pytest.approx(theirs.model_dump()), (rule, name)


@pytest.mark.parametrize("way", ["target", "youden", "manual"])
def test_bounds_hold_in_95_of_100_cases_and_rates_are_right_on_average(way: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(error_rates, "FOLDS", 2)  # the rates to expect are not looked at here, except of the target
    rule = {
        "target": Rule(target=FalseAlarmTarget(0.02)),
        "youden": Rule(),
        "manual": Rule(threshold=11.5),
    }[way]
    rng, held, runs, ratios = np.random.default_rng(2), np.zeros(2, dtype=int), 200, []
    for _ in range(runs):
        normal, anomalous = production(rng, 2000, 10), production(rng, 600, 13)
        found = calibration_of_labels(normal, anomalous, rule, RECORD)
        alarms, misses = 1 - norm.cdf(found.threshold, 10), norm.cdf(found.threshold, 13)
        assert found.false_alarms is not None
        assert found.misses is not None
        held += (alarms <= found.false_alarms.bound, misses <= found.misses.bound)
        if way == "target":
            ratios.append(found.misses.expected / misses)
            assert found.false_alarms.expected <= 0.02
    allowed = norm.ppf(0.999) * np.sqrt(0.05 * 0.95 / runs)  # by chance, one time in a thousand
    assert (held / runs >= 0.95 - allowed).all(), held / runs
    if way == "target":
        assert np.mean(ratios) == pytest.approx(1, abs=0.05)


def test_without_weights_the_rates_of_the_same_labels_would_be_far_off():
    rng = np.random.default_rng(3)
    normal, anomalous = production(rng, 40_000, 10), production(rng, 8000, 13)
    unweighted = youden(normal.scores, anomalous.scores).threshold
    found = calibration_of_labels(normal, anomalous, Rule(), RECORD)
    of_all = 11.5  # halfway between two normal distributions of the same width
    assert abs(found.threshold - of_all) < 0.25 < abs(unweighted - of_all)


def test_bounds_come_from_the_random_sample_alone():
    good, bad = all_of(np.linspace(1, 2, 50)), all_of(np.linspace(3, 4, 20))
    sampled = np.arange(20) < 4
    found = calibration_of_labels(good, replace(bad, sampled=sampled), Rule(), RECORD)
    assert found.misses is not None
    assert (found.misses.errors, found.misses.parts, found.misses.basis) == (0, 4, Basis.SAME_PARTS)
    none = replace(bad, sampled=np.zeros(20, dtype=bool))
    for rule in (Rule(), Rule(threshold=2.5), Rule(target=FalseAlarmTarget(0.05))):
        assert calibration_of_labels(good, none, rule, RECORD).misses is None
    hidden = replace(good, sampled=np.zeros(50, dtype=bool))
    with pytest.raises(CalibrationError, match="none of the good parts is in the random sample"):
        calibration_of_labels(hidden, bad, Rule(), RECORD)
    assert calibration_of_labels(hidden, bad, Rule(threshold=2.5), RECORD).false_alarms is None
    with pytest.raises(TooFewPartsError, match="takes 19 good parts, and 59 with 95 % confidence; 0 are there"):
        calibration_of_labels(hidden, bad, Rule(target=FalseAlarmTarget(0.05)), RECORD)


def test_what_gives_no_threshold_is_refused():
    few, none = all_of([1.0, 2.0]), all_of([])
    with pytest.raises(CalibrationError, match="no normal images"):
        calibration_of_labels(none, few, Rule(threshold=1.0), RECORD)
    with pytest.raises(CalibrationError, match="no anomalous images"):
        calibration_of_labels(few, none, Rule(), RECORD)
    with pytest.raises(CalibrationError, match="do not tell them apart"):
        calibration_of_labels(all_of([5.0, 6.0]), few, Rule(), RECORD)
    with pytest.raises(TooFewPartsError, match="takes 99 good parts"):
        calibration_of_labels(few, none, Rule(target=FalseAlarmTarget(0.01)), RECORD)


def test_parts_of_unequal_weight_tell_less_than_as_many_equal_ones():
    assert all_of([1.0] * 7).effective == 7
    assert Labelled(np.ones(3), np.array([1.0, 1.0, 0.01]), np.ones(3, dtype=bool)).effective == 1
