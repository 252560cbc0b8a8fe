"""A review band: what passes, what fails, and what a person should look at."""

import numpy as np
import pytest
from pydantic import ValidationError

from model.calibration import CalibrationError, verdict_of
from model.choices import FalseAlarmTarget, Reason
from model.error_rates import TooFewPartsError
from model.lifecycle.thresholds import ReviewRule, Rule, calibration_of, moved_by_hand
from model.store.card import Calibration
from model.store.store import Store
from tests.conftest import Factory

GOOD, BAD = np.linspace(1, 2, 100), np.linspace(1.9, 3, 80)


def calibration(rule: Rule) -> Calibration:
    return calibration_of(GOOD, BAD, lambda: GOOD, rule)


@pytest.mark.parametrize(
    ("score", "verdict"),
    [(0.0, "pass"), (1.99, "pass"), (2.0, "review"), (2.99, "review"), (3.0, "fail"), (9.0, "fail")],
)
def test_a_bound_belongs_to_what_is_above_it(score: float, verdict: str):
    assert verdict_of(score, 2.0, 3.0) == verdict


def test_without_a_band_the_verdict_is_the_decision(factory: Factory):
    card = Store(factory.weights).card("striped")
    assert card.calibration.review is None
    threshold = card.calibration.threshold
    assert card.verdict(np.nextafter(threshold, 0), []) == "pass"
    assert card.verdict(threshold, [Reason.SCORE]) == "fail"
    assert card.verdict(0.0, [Reason.BLURRED]) == "fail"


def test_a_band_is_part_of_the_version_and_a_blurred_picture_fails_all_the_same(factory: Factory):
    card = Store(factory.weights).card("striped")
    threshold = card.calibration.threshold
    banded = card.calibration.model_dump() | {"review": {"low": threshold / 2, "high": 2 * threshold}}
    other = card.model_copy(update={"calibration": Calibration.model_validate(banded)})
    assert other.named().model_version != card.named().model_version
    assert other.verdict(threshold, [Reason.SCORE]) == "review"
    assert other.verdict(0.9 * threshold, []) == "review"
    assert other.verdict(0.9 * threshold, [Reason.BLURRED]) == "fail"
    for low, high in ((1.1 * threshold, 2 * threshold), (0.5 * threshold, 0.9 * threshold), (0.0, 2 * threshold)):
        with pytest.raises(ValidationError, match=r"does not hold the threshold|greater than 0"):
            Calibration.model_validate(banded | {"review": {"low": low, "high": high}})


def test_a_band_by_rates_holds_the_threshold():
    found = calibration(Rule(review=ReviewRule(None, 0.05, 0.05)))
    assert found.review is not None
    assert found.review.low <= found.threshold <= found.review.high
    assert (found.review.low > BAD).mean() <= 0.05
    assert (found.review.high <= GOOD).mean() <= 0.05
    one = calibration(Rule(threshold=2.5, review=ReviewRule(None, None, 0.05))).review
    assert one is not None
    assert (one.low, one.high) == (2.5, 2.5)  # good parts reach no higher than 2
    by_hand = calibration(Rule(target=FalseAlarmTarget(0.05), review=ReviewRule((1.0, 2.5)))).review
    assert by_hand is not None
    assert (by_hand.low, by_hand.high) == (1.0, 2.5)


def test_a_band_that_cannot_be_is_refused():
    for rule, reason in (
        (ReviewRule((1.0, 1.5)), "does not hold the threshold"),
        (ReviewRule((-1.0, 5.0)), "above 0"),
        (ReviewRule((1.0, 5.0), 0.1), "and not both"),
        (ReviewRule(), "needs two bounds"),
        (ReviewRule(None, 1.5), "between 0 and 100 %"),
    ):
        with pytest.raises(CalibrationError, match=reason):
            calibration(Rule(review=rule))
    with pytest.raises(TooFewPartsError, match=r"takes 598 faulty parts; 80 are there, which is enough for 3\.7 %"):
        calibration(Rule(review=ReviewRule(None, 0.005)))
    with pytest.raises(TooFewPartsError, match="598 with 95 % confidence; 100 are there"):
        calibration(Rule(review=ReviewRule(None, None, 0.005)))


def test_a_threshold_by_hand_forgets_the_band_or_sets_another():
    before = calibration(Rule(review=ReviewRule((1.0, 2.5))))
    assert moved_by_hand(before, 3.0).review is None
    found = moved_by_hand(before, 3.0, ReviewRule((2.0, 4.0))).review
    assert found is not None
    assert (found.low, found.high) == (2.0, 4.0)
    with pytest.raises(CalibrationError, match="no anomalous images"):
        moved_by_hand(before, 3.0, ReviewRule(None, 0.1))
