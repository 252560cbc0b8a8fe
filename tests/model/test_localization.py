"""Masks: from an anomaly map and the photograph that it is of."""

import cv2
import numpy as np
import pytest

from model.localization import MAX_OUTLINED_SIDE, RIM, fault_mask, outlined


def blurred_disc(side: int, centre: tuple[int, int], radius: int, sigma: float) -> np.ndarray:
    """An anomaly map of one round fault, ten times the normal level at its peak."""
    disc = cv2.circle(np.zeros((side, side), np.float32), centre, radius, 1.0, -1)
    blurred = cv2.GaussianBlur(disc, (0, 0), sigma)
    return 10 * blurred / blurred.max()


def photograph(side: int, centre: tuple[int, int], radius: int, seed: int = 0) -> np.ndarray:
    """A dark round hole in a noisy grey surface."""
    image = np.full((side, side, 3), 150, np.uint8)
    cv2.circle(image, centre, radius, (60, 60, 60), -1)
    return (image + np.random.default_rng(seed).normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8)


def overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union."""
    return float((mask & truth).sum() / (mask | truth).sum())


@pytest.mark.parametrize("radius", [3, 6, 14])
@pytest.mark.parametrize("shift", [0, 2])
def test_a_mask_has_the_outline_that_the_photograph_shows(radius: int, shift: int):
    truth = cv2.circle(np.zeros((128, 128), np.uint8), (60, 70), radius, 1, -1).view(bool)
    spread = blurred_disc(128, (60 + shift, 70), radius, 4.0)  # beside the fault, and larger than a small one
    mask = fault_mask(spread, photograph(128, (60, 70), radius), 128, 128)
    assert overlap(mask, truth) > 0.8


def test_the_same_image_always_has_the_same_mask():
    spread, image = blurred_disc(128, (60, 70), 6, 4.0), photograph(128, (60, 70), 6)
    first = fault_mask(spread, image, 300, 200)
    cv2.setRNGSeed(12345)
    np.testing.assert_array_equal(fault_mask(spread, image, 300, 200), first)


def test_two_faults_have_an_outline_each():
    spread = blurred_disc(128, (30, 30), 6, 4.0) + 0.4 * blurred_disc(128, (95, 90), 6, 4.0)
    image = np.minimum(photograph(128, (30, 30), 6), photograph(128, (95, 90), 6, seed=1))
    count, _, stats, _ = cv2.connectedComponentsWithStats(fault_mask(spread, image, 128, 128).view(np.uint8))
    assert count == 3
    assert all(80 < area < 150 for area in stats[1:, cv2.CC_STAT_AREA])  # 113 pixels each


@pytest.mark.parametrize("level", [0, 120, 255])
def test_without_an_outline_in_the_photograph_the_mask_is_what_the_map_shows(level: int):
    spread = blurred_disc(128, (60, 70), 10, 3.0)
    mask = fault_mask(spread, np.full((128, 128, 3), level, np.uint8), 128, 128)
    assert 0.5 < mask.sum() / (spread > 6.5).sum() < 2
    assert mask[70, 60]


@pytest.mark.parametrize("pixels", range(1, 12))
def test_a_fault_of_a_few_pixels_keeps_its_mask(pixels: int):
    spread = np.zeros((64, 64), np.float32)
    spread[20, 30 : 30 + pixels] = 3.0
    image = np.random.default_rng(pixels).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert fault_mask(spread, image, 64, 64)[20, 28 : 32 + pixels].any()


@pytest.mark.parametrize("side", [32, 128, 512])
def test_a_map_that_is_high_everywhere_marks_everything(side: int):
    assert fault_mask(np.full((side, side), 3.0, np.float32), photograph(side, (16, 16), 8), side, side).all()


def test_an_outline_lies_near_the_guess_even_where_the_same_colour_goes_on():
    image = photograph(64, (32, 32), 6)
    image[28:36, :] = 60  # a dark bar through the hole
    guess = np.zeros((64, 64), bool)
    guess[27:37, 27:37] = True
    found = outlined(image, guess)
    assert found[32, 32]
    assert not found[:, : 27 - RIM].any()
    assert not found[:, 37 + RIM :].any()


def test_a_large_fault_is_outlined_as_well():
    side = 8 * MAX_OUTLINED_SIDE
    centre = (side // 2, side // 2)
    truth = cv2.circle(np.zeros((side, side), np.uint8), centre, side // 4, 1, -1).view(bool)
    guess = cv2.dilate(truth.view(np.uint8), np.ones((41, 41), np.uint8)).view(bool)
    image = photograph(side, centre, side // 4)
    assert overlap(outlined(image, guess), truth) > 0.9
