"""Measures against scikit-learn, SciPy, hand counts and brute-force references."""

import cv2
import numpy as np
import pytest
from scipy.ndimage import label
from scipy.stats import beta, f, norm
from sklearn.metrics import roc_auc_score

from model.measures import (
    PixelCurve,
    aupro,
    auroc,
    auroc_estimate,
    false_alarm_rate,
    g_mean,
    measure,
    miss_rate,
    pixel_auroc,
    rate_estimate,
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


def test_a_perfect_result_on_few_images_is_not_called_certain():
    one = measure(np.array([0.0]), np.array([1.0]), 0.5)
    # With one image each the equation is (1 - A)^2 = z^2 A (1 - A), so A = 1 / (1 + z^2).
    assert one.auroc == pytest.approx((1, 1 / (1 + norm.ppf(0.975) ** 2), 1))
    assert one.false_alarm_rate == pytest.approx((0, 0, 0.975))  # 1 - 0.025
    assert one.miss_rate == pytest.approx((0, 0, 0.975))
    assert one.g_mean == pytest.approx((1, 0.025, 1))
    hundred = measure(np.zeros(100), np.ones(100), 0.5)
    assert hundred.false_alarm_rate == pytest.approx((0, 0, 1 - 0.025 ** (1 / 100)))
    assert hundred.auroc.low == pytest.approx(0.98, abs=0.005)
    worst = measure(np.array([1.0]), np.array([0.0]), 0.5)
    assert worst.auroc == pytest.approx((0, 0, 1 - one.auroc.low))
    assert worst.g_mean.value == 0


def test_rates_have_exact_intervals():
    # From the F distribution, as in the textbooks: lower = k / (k + (n - k + 1) F), upper likewise.
    count, total = 3, 40
    low = count / (count + (total - count + 1) * f.ppf(0.975, 2 * (total - count + 1), 2 * count))
    ratio = (count + 1) * f.ppf(0.975, 2 * (count + 1), 2 * (total - count))
    assert rate_estimate(count, total) == pytest.approx((0.075, low, ratio / (total - count + ratio)))
    assert rate_estimate(0, 100).high == pytest.approx(0.0362, abs=5e-5)
    with pytest.raises(ValueError, match="one case"):
        rate_estimate(0, 0)


@pytest.mark.parametrize(("images", "distance"), [(5, 1.2), (12, 1.2), (12, 2.3), (12, 3.3), (40, 2.3)])
def test_the_interval_of_auroc_holds_the_truth_nineteen_times_in_twenty(images: int, distance: float):
    """Of a thousand tests of one detector; the interval of bootstrap resamples holds it as rarely as five times."""
    rng = np.random.default_rng(0)
    normal, anomalous = rng.normal(0, 1, (1000, images)), rng.normal(distance, 1, (1000, images))
    truth = norm.cdf(distance / np.sqrt(2))
    held = [low <= truth <= high for _, low, high in map(auroc_estimate, normal, anomalous)]
    assert np.mean(held) == pytest.approx(0.96, abs=0.025)


def test_the_interval_of_g_mean_holds_the_truth():
    rng = np.random.default_rng(1)
    held = []
    for _ in range(1000):
        found = measure(rng.normal(0, 1, 12), rng.normal(2, 1, 15), 1.0).g_mean
        held.append(found.low <= norm.cdf(1) <= found.high)
    assert np.mean(held) >= 0.95


def test_a_group_without_images_cannot_be_measured():
    for normal, anomalous in ((np.array([1.0]), np.array([])), (np.array([]), np.array([1.0]))):
        with pytest.raises(ValueError, match="need normal and anomalous"):
            measure(normal, anomalous, 0.5)


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


def test_aupro_of_random_maps_is_that_of_mvtecs_own_definition():
    """Region by region and threshold by threshold, with another library's regions and its own integral."""
    rng = np.random.default_rng(5)
    masks = cv2.GaussianBlur(rng.normal(0, 1, (6, 32, 32)).transpose(1, 2, 0), (0, 0), 1.2).transpose(2, 0, 1) > 0.4
    maps = (cv2.GaussianBlur(masks.transpose(1, 2, 0).astype(float), (0, 0), 1).transpose(2, 0, 1) + 0.2) ** 3
    maps += rng.exponential(0.3, maps.shape)
    regions = []
    for index, mask in enumerate(masks):
        labels, count = label(mask, np.ones((3, 3)))
        regions += [np.sort(maps[index][labels == number]) for number in range(1, count + 1)]
    faultless = np.sort(maps[~masks])
    thresholds = np.append(np.inf, np.unique(maps)[::-1])

    def share(values: np.ndarray) -> np.ndarray:
        return (len(values) - np.searchsorted(values, thresholds)) / len(values)

    rates, overlap = share(faultless), np.mean([share(region) for region in regions], axis=0)
    inside = rates <= 0.3
    expected = trapezoids(np.append(rates[inside], 0.3), np.append(overlap[inside], np.interp(0.3, rates, overlap)))
    assert len(regions) > 20
    assert aupro(maps, masks) == pytest.approx(expected / 0.3, abs=1e-5)


def trapezoids(x: np.ndarray, y: np.ndarray) -> float:
    """Of straight lines between points."""
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e9])
def test_pixel_auroc_is_scikit_learns_whatever_the_scale(scale: float):
    rng = np.random.default_rng(6)
    masks = np.zeros((5, 40, 40), bool)
    masks[:4, 5:12, 8:30] = True
    maps = np.float32(scale * (rng.normal(0, 1, masks.shape) + masks))
    maps[1:3] = np.round(maps[1:3] / scale) * scale  # ties, zeros and negative zeros among them
    expected = roc_auc_score(masks.ravel(), maps.ravel())
    assert pixel_auroc(maps, masks) == pytest.approx(expected, abs=1e-5)


def test_pixel_measures_do_not_depend_on_the_order_of_the_maps():
    rng = np.random.default_rng(7)
    masks = np.zeros((4, 16, 16), bool)
    masks[1, 3:6, 3:6] = masks[2, 10:, 2] = True
    maps = rng.exponential(1, masks.shape)
    curve = PixelCurve()
    for index in (2, 0, 3, 1):
        curve.add(maps[index], masks[index] if masks[index].any() else None)
    assert (curve.auroc(), curve.aupro()) == pytest.approx((pixel_auroc(maps, masks), aupro(maps, masks)), abs=1e-12)


def test_pixels_that_do_not_count_change_no_measure():
    rng = np.random.default_rng(7)
    maps, masks = rng.exponential(1, (4, 16, 32)), np.zeros((4, 16, 32), bool)
    masks[1, 3:6, 3:6] = masks[2, 10:, 2] = True
    left = np.zeros((16, 32), bool)
    left[:, :16] = True
    masks[1:3, 2:4, 20:30] = True  # faults where nothing counts
    curve = PixelCurve()
    for anomaly_map, mask in zip(maps, masks, strict=True):
        curve.add(anomaly_map, mask, left)
    own = maps[:, :, :16], masks[:, :, :16]
    assert (curve.auroc(), curve.aupro()) == pytest.approx((pixel_auroc(*own), aupro(*own)), abs=1e-12)


def test_faults_that_lie_where_nothing_counts_give_no_measures():
    mask, counts = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    mask[0], counts[4:] = True, True
    curve = PixelCurve()
    curve.add(np.ones((8, 8)), mask, counts)
    assert not curve.has_both
    with pytest.raises(ValueError, match="both faulty and faultless"):
        curve.auroc()


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


def test_the_roc_band_is_the_exact_interval_at_each_threshold():
    rng = np.random.default_rng(8)
    normal, anomalous = rng.normal(0, 1, 60), rng.normal(1, 1, 50)
    band = roc_band(normal, anomalous)
    for rate, low, high in zip(band.detection_rates, band.low, band.high, strict=True):
        count = round(rate * 50)
        assert low == pytest.approx(beta.ppf(0.025, count, 51 - count) if count else 0)
        assert high == pytest.approx(beta.ppf(0.975, count + 1, 50 - count) if count < 50 else 1)


def test_the_roc_band_of_few_images_that_are_told_apart_is_wide():
    """All 12 are detected. So they are one time in twenty where 78 % of all faults are detected."""
    band = roc_band(np.arange(12.0), np.arange(100.0, 112.0))
    assert (band.detection_rates == 1).all()
    assert band.low == pytest.approx(0.025 ** (1 / 12))
    assert (band.high == 1).all()


def test_the_roc_band_holds_the_true_detection_rate_as_often_as_it_says():
    """At a threshold that is known, for a detector that is good: where intervals of resamples fail."""
    rng = np.random.default_rng(3)
    true_rate, threshold, held = 0.95, 0.5, 0
    for _ in range(300):
        normal = np.linspace(0, 0.4, 20)  # all below the threshold: no false alarm
        anomalous = np.where(rng.random(20) < true_rate, threshold + 1, 0.0)
        band = roc_band(normal, anomalous)
        held += band.low[0] <= true_rate <= band.high[0]
    assert held >= 0.95 * 300
