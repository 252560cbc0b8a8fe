"""Youden's threshold against scikit-learn, and every input that gives none."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from model.calibration import CalibrationError, without_anomalous, youden
from model.measures import false_alarm_rate, miss_rate


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("decimals", [1, 6], ids=["many ties", "few ties"])
def test_youden_is_the_best_point_of_scikit_learns_curve(seed: int, decimals: int):
    rng = np.random.default_rng(seed)
    normal = rng.normal(1.0, 0.4, rng.integers(3, 60)).round(decimals).astype(np.float32)
    anomalous = rng.normal(1.4, 0.5, rng.integers(3, 60)).round(decimals).astype(np.float32)
    labels = np.r_[np.zeros(len(normal)), np.ones(len(anomalous))]
    scores = np.r_[normal, anomalous]
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    found = youden(normal, anomalous)
    assert found.index == pytest.approx((tpr - fpr).max(), abs=1e-12)
    assert found.auroc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    # The threshold really has the rates it promises, with room on both sides.
    rates = 1 - miss_rate(anomalous, found.threshold) - false_alarm_rate(normal, found.threshold)
    assert rates == pytest.approx(found.index, abs=1e-12)
    assert np.abs(scores - found.threshold).min() > 0
    # Every point of the stored curve is what its threshold gives.
    for rate, detection, threshold in zip(
        found.false_alarm_rates, found.detection_rates, found.thresholds, strict=True
    ):
        assert false_alarm_rate(normal, threshold) == pytest.approx(rate)
        assert 1 - miss_rate(anomalous, threshold) == pytest.approx(detection)
    assert np.isfinite(found.thresholds).all()


def test_separated_scores_are_cut_in_the_middle():
    found = youden(np.array([1.0, 2.0]), np.array([4.0, 5.0]))
    assert (found.index, found.threshold, found.auroc) == (1.0, 3.0, 1.0)


def test_of_equally_good_points_the_one_with_fewer_false_alarms_wins():
    # Rejecting from 3 up: J = 1/2 - 0; from 1 up: J = 1 - 1/2.
    found = youden(np.array([0.0, 2.0]), np.array([1.0, 3.0]))
    assert found.index == 0.5
    assert found.threshold == 2.5


@pytest.mark.parametrize(
    ("normal", "anomalous", "message"),
    [
        ([1.0, 1.0], [1.0, 1.0, 1.0], "do not tell them apart"),
        ([2.0, 3.0], [0.0, 1.0], "do not tell them apart"),
        ([], [1.0], "no normal images"),
        ([1.0], [], "no anomalous images"),
        ([1.0, np.nan], [2.0], "normal scores hold values that are not finite"),
        ([1.0], [np.inf], "anomalous scores hold values that are not finite"),
    ],
)
def test_scores_without_a_threshold_are_refused(normal: list[float], anomalous: list[float], message: str):
    with pytest.raises(CalibrationError, match=message):
        youden(np.array(normal), np.array(anomalous))


NORMAL = np.random.default_rng(0).normal(10, 2, 1000).astype(np.float32)


def test_where_pasted_defects_cannot_be_seen_the_fitted_quantile_decides():
    pasted = np.random.default_rng(1).normal(9, 2, 1000)
    threshold = without_anomalous(NORMAL, pasted, 0.9)
    assert threshold == pytest.approx(10 + 1.2816 * 2, rel=0.02)
    assert false_alarm_rate(NORMAL, threshold) == pytest.approx(0.1, abs=0.02)
    lower = without_anomalous(NORMAL, np.full(3, NORMAL.min() - 1), 0.9)  # no threshold tells these apart
    assert lower == threshold


def test_where_pasted_defects_are_plain_nothing_normal_is_rejected():
    threshold = without_anomalous(NORMAL, NORMAL + 100, 0.9)
    assert threshold == youden(NORMAL, NORMAL + 100).threshold
    assert false_alarm_rate(NORMAL, threshold) == 0


def test_a_lone_score_is_accepted():
    assert 3.0 < without_anomalous(np.float32([3.0]), np.float32([3.0]), 0.9) < 3.001


@pytest.mark.parametrize(
    ("normal", "pasted", "quantile", "message"),
    [
        ([], [1.0], 0.9, "no normal images"),
        ([1.0], [], 0.9, "no pasted images"),
        ([1.0], [1.0], 1.0, "between 0 and 1"),
        ([1.0], [1.0], 0.0, "between 0 and 1"),
        ([np.nan], [1.0], 0.9, "normal scores hold values that are not finite"),
        ([1.0], [np.inf], 0.9, "pasted scores hold values that are not finite"),
    ],
)
def test_thresholds_without_anomalous_images_that_make_no_sense_are_refused(
    normal: list[float], pasted: list[float], quantile: float, message: str
):
    with pytest.raises(CalibrationError, match=message):
        without_anomalous(np.array(normal), np.array(pasted), quantile)
