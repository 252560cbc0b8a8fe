"""Measures against scikit-learn, hand counts and a brute-force reference."""

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from model.measures import (
    aupro,
    auroc,
    auroc_estimate,
    false_alarm_rate,
    g_mean,
    measure,
    miss_rate,
    pixel_auroc,
    roc_band,
)


def test_auroc_is_scikit_learns_with_ties():
    rng = np.random.default_rng(1)
    normal, anomalous = rng.integers(0, 8, 50) / 8, rng.integers(2, 10, 30) / 8
    labels = np.r_[np.zeros(50), np.ones(30)]
    assert auroc(normal, anomalous) == pytest.approx(roc_auc_score(labels, np.r_[normal, anomalous]), abs=1e-12)


def test_rates_are_counts():
    normal, anomalous = np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0, 5.0, 6.0])
    assert false_alarm_rate(normal, 2.0) == 2 / 4  # at the threshold is rejected
    assert miss_rate(anomalous, 2.0) == 1 / 5
    assert g_mean(normal, anomalous, 2.0) == pytest.approx(np.sqrt(0.5 * 0.8))


def test_intervals_hold_the_value_and_shrink_with_more_images():
    rng = np.random.default_rng(2)
    few = measure(rng.normal(0, 1, 20), rng.normal(1.5, 1, 20), 0.75)
    many = measure(rng.normal(0, 1, 800), rng.normal(1.5, 1, 800), 0.75)
    for estimate in (few.auroc, few.g_mean, many.auroc, many.false_alarm_rate, many.miss_rate):
        assert estimate.low <= estimate.value <= estimate.high
    assert many.auroc.high - many.auroc.low < (few.auroc.high - few.auroc.low) / 2
    # 1.5 deviations apart: AUROC = Phi(1.5 / sqrt(2)) = 0.856
    assert many.auroc.low < 0.856 < many.auroc.high


def test_a_group_without_images_cannot_be_measured():
    with pytest.raises(ValueError, match="need normal and anomalous"):
        measure(np.array([1.0]), np.array([]), 0.5)


def brute_force_aupro(maps: np.ndarray, masks: np.ndarray) -> float:
    """Per-region overlap at every threshold, as MVTec AD defines it."""
    regions = []
    for index, mask in enumerate(masks):
        count, labels = cv2.connectedComponents(mask.astype(np.uint8))
        regions += [(index, labels == label) for label in range(1, count)]
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        above = maps >= threshold
        fpr = (above & ~masks).sum() / (~masks).sum()
        points.append((fpr, np.mean([above[index][region].mean() for index, region in regions])))
    x, y = np.array(points).T
    grid = np.linspace(0, 0.3, 30001)
    return float(np.trapezoid(np.interp(grid, x, y), grid) / 0.3)


def test_aupro_is_the_brute_force_one():
    rng = np.random.default_rng(4)
    masks = np.zeros((3, 24, 24), dtype=bool)
    masks[0, 2:6, 2:6] = masks[0, 12:22, 10:22] = masks[1, 5:7, 5:20] = True
    maps = rng.normal(0, 1, masks.shape) + 1.2 * masks
    assert aupro(maps, masks) == pytest.approx(brute_force_aupro(maps, masks), abs=2e-3)


def test_a_perfect_map_has_pixel_measures_of_one():
    masks = np.zeros((2, 8, 8), dtype=bool)
    masks[0, 2:4, 2:4] = True
    assert pixel_auroc(masks.astype(np.float32), masks) == 1
    assert aupro(masks.astype(np.float32), masks) == pytest.approx(1)


def test_small_regions_count_like_large_ones():
    masks = np.zeros((1, 32, 32), dtype=bool)
    masks[0, :20, :20] = masks[0, 30, 30] = True
    only_large = np.zeros(masks.shape, dtype=np.float32)
    only_large[0, :20, :20] = 1
    assert pixel_auroc(only_large, masks) > 0.99
    assert aupro(only_large, masks) < 0.6


@pytest.mark.parametrize("value", [True, False])
def test_masks_of_one_kind_cannot_be_measured(value: bool):
    masks = np.full((1, 4, 4), value)
    for of_pixels in (pixel_auroc, aupro):
        with pytest.raises(ValueError, match="both faulty and faultless"):
            of_pixels(np.zeros((1, 4, 4)), masks)


def test_the_roc_band_holds_its_curve_and_has_the_curves_area():
    rng = np.random.default_rng(0)
    normal, anomalous = rng.normal(0, 1, 100), rng.normal(1, 1, 80)
    band = roc_band(normal, anomalous)
    for rate, detected in zip(band.false_alarm_rates, band.detection_rates, strict=True):
        thresholds = [*normal, *anomalous, np.inf]
        allowed = [one for one in thresholds if false_alarm_rate(normal, one) <= rate + 1e-12]
        assert detected == pytest.approx(max(1 - miss_rate(anomalous, one) for one in allowed))
    assert (band.low <= band.detection_rates).all()
    assert (band.detection_rates <= band.high).all()
    assert (band.low < band.high).mean() > 0.5
    assert (np.diff(band.low) >= 0).all()
    assert np.mean(band.detection_rates) == pytest.approx(auroc(normal, anomalous), abs=0.02)


def test_the_interval_of_one_kind_is_that_of_measure():
    rng = np.random.default_rng(1)
    normal, anomalous = rng.normal(0, 1, 30), rng.normal(1, 1, 20)
    assert auroc_estimate(normal, anomalous) == measure(normal, anomalous, 0.5).auroc
