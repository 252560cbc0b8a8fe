"""The generated panel: exact masks, faults of the promised size, repeatable bytes."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from model.lab.panels import DEFECTS, FAULT_SIDES, HEIGHT, WIDTH, defective_image, normal_image, write_dataset
from model.lifecycle.datasets import mvtec_test, mvtec_training

SMALL = 400, 300


def test_a_panel_is_an_even_surface_of_any_size():
    image = normal_image(np.random.default_rng(0), *SMALL)
    assert image.shape == (300, 400, 3)
    assert image.dtype == np.uint8
    assert 3 < image.std() < 20
    corners = [image[:100, :100], image[-100:, :100], image[:100, -100:], image[-100:, -100:]]
    assert np.ptp([corner.mean() for corner in corners]) < 30
    assert (normal_image(np.random.default_rng(1), *SMALL) != image).mean() > 0.5


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_fault_is_where_its_mask_says_and_about_12_pixels_long(defect: str):
    for seed in range(5):
        image, mask = defective_image(np.random.default_rng(seed), defect, *SMALL)
        rows, columns = np.nonzero(mask)
        assert FAULT_SIDES[0] <= max(np.ptp(rows), np.ptp(columns)) + 1 <= FAULT_SIDES[1]
        around = cv2.dilate(mask.astype(np.uint8), np.ones((31, 31))).astype(bool) & ~mask
        differs = np.abs(image[mask].astype(float) - image[around].mean(axis=0)).mean()
        assert differs > 2 * np.abs(image[around] - image[around].mean(axis=0)).mean()


def test_an_unknown_defect_is_refused():
    with pytest.raises(ValueError, match="unknown defect 'rainbow'; there are bump, pit, spot"):
        defective_image(np.random.default_rng(0), "rainbow", *SMALL)


def test_a_dataset_of_panels_is_in_the_mvtec_layout_and_repeatable(tmp_path: Path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_dataset(tmp_path / name, train=1, test_good=1, test_each=1, seed=seed, size=SMALL)
    assert len(mvtec_training(tmp_path / "a")) == 1
    test = mvtec_test(tmp_path / "a")
    assert sorted({str(sample.defect) for sample in test}) == sorted([*DEFECTS, "None"])
    for sample in test:
        image = cv2.imread(str(sample.path))
        assert image.shape == (300, 400, 3)
        if sample.defect is not None:
            assert sample.mask is not None
            assert set(np.unique(cv2.imread(str(sample.mask), cv2.IMREAD_GRAYSCALE))) == {0, 255}
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    contents = {name: [(tmp_path / name / file).read_bytes() for file in files] for name in "abc"}
    assert contents["a"] == contents["b"]
    pictures = {name: {one for one in contents[name] if one[:2] == b"\xff\xd8"} for name in "ac"}
    assert not pictures["a"] & pictures["c"]


def test_a_panel_has_20_megapixels():
    assert 19.9e6 < WIDTH * HEIGHT < 20.1e6
