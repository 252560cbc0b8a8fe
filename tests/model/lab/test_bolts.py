"""The generated object: exact masks on the bolt alone, honest sizes, any pose."""

import numpy as np
import pytest

from model.lab.bolts import DEFECTS, GROUND, defective_image, normal_image


def angle_of_the_bolt(image: np.ndarray) -> float:
    """Direction in degrees, 0 to 180, in which the pixels that are not ground lie."""
    ground = np.median(image.reshape(-1, 3), axis=0)
    y, x = np.nonzero(np.abs(image - ground).max(axis=2) > 30)
    u, v = np.linalg.eigh(np.cov(x, y))[1][:, 1]
    return float(np.degrees(np.arctan2(v, u)) % 180)


def test_a_bolt_lies_in_any_pose_on_an_even_ground():
    images = [normal_image(np.random.default_rng(seed)) for seed in range(12)]
    for image in images:
        assert image.shape == (256, 256, 3)
        assert image.dtype == np.uint8
        assert np.abs(np.median(image.reshape(-1, 3), axis=0) - GROUND).max() < 25
    assert np.ptp([angle_of_the_bolt(image) for image in images]) > 90


def test_the_ground_of_another_day_is_brighter_and_rougher():
    corner = (slice(0, 24), slice(0, 24))
    days = [
        [normal_image(np.random.default_rng(seed), day)[corner].astype(float) for seed in range(8)] for day in (0, 1)
    ]
    today, another = ([(np.median(image), np.diff(image, axis=0).std()) for image in day] for day in days)
    assert np.mean(another, axis=0)[0] > np.mean(today, axis=0)[0] + 5
    assert np.mean(another, axis=0)[1] > np.mean(today, axis=0)[1]


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_fault_is_where_its_mask_says_and_of_honest_size(defect: str):
    for seed in range(3):
        image, mask = defective_image(np.random.default_rng(seed), defect)
        assert image.shape == (256, 256, 3)
        assert image.dtype == np.uint8
        assert mask.shape == (256, 256)
        assert mask.dtype == bool
        assert 0.0001 < mask.mean() < 0.1  # a bolt covers about a tenth of the picture
        assert not mask[:8].any()  # the ground along the edge is never faulty


def test_the_same_chance_gives_the_same_picture():
    one, other = (defective_image(np.random.default_rng(5), "dent") for _ in range(2))
    assert (one[0] == other[0]).all()
    assert (one[1] == other[1]).all()


def test_an_unknown_defect_is_refused():
    with pytest.raises(ValueError, match="unknown defect 'rainbow'"):
        defective_image(np.random.default_rng(0), "rainbow")
