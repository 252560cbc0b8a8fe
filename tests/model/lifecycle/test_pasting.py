"""A pasted defect is a bounded, soft change of brightness, and the same for the same chance."""

import numpy as np
import pytest

from model.lifecycle.pasting import AREA, STRENGTH, paste_defect


@pytest.mark.parametrize("side", [32, 128, 300])
def test_a_defect_changes_a_small_place_by_a_visible_amount(side: int):
    image = np.full((side, side, 3), 128, np.uint8)
    for seed in range(50):
        changed = paste_defect(image, np.random.default_rng(seed))
        assert changed.dtype == np.uint8
        assert changed.shape == image.shape
        difference = np.abs(changed.astype(int) - image).max(axis=2)
        assert 0 < difference.max() <= 255 * STRENGTH[1] + 1
        assert (difference > difference.max() / 2).mean() <= 2 * AREA[1]
        assert np.array_equal(changed, paste_defect(image, np.random.default_rng(seed)))
    assert (image == 128).all()


def test_brightness_stays_in_range():
    for value in (0, 255):
        image = np.full((64, 64, 3), value, np.uint8)
        for seed in range(20):
            changed = paste_defect(image, np.random.default_rng(seed)).astype(int)
            assert np.abs(changed - value).max() <= 255 * STRENGTH[1] + 1  # does not wrap around
