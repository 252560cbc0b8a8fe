"""The generated category: exact masks, honest sizes, repeatable bytes."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from model.lab import choices
from model.lab.synthetic import DEFECTS, KINDS, defective_image, normal_image, write_dataset
from model.lifecycle.datasets import mvtec_test, mvtec_training


def test_a_normal_image_is_a_photograph():
    image = normal_image(np.random.default_rng(0))
    assert image.shape == (256, 256, 3)
    assert image.dtype == np.uint8
    assert 5 < image.std() < 60
    assert (normal_image(np.random.default_rng(1)) != image).mean() > 0.5


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_fault_is_where_its_mask_says_and_of_honest_size(defect: str):
    for seed in range(3):
        image, mask = defective_image(np.random.default_rng(seed), defect)
        assert image.shape == (256, 256, 3)
        assert mask.shape == (256, 256)
        assert mask.dtype == bool
        assert 0.003 <= mask.mean() <= 0.04


def test_an_unknown_defect_is_refused():
    with pytest.raises(ValueError, match="unknown defect 'rainbow'"):
        defective_image(np.random.default_rng(0), "rainbow")


def test_a_dataset_is_in_the_mvtec_layout_and_repeatable(tmp_path: Path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_dataset(tmp_path / name, train=2, test_good=1, test_each=1, seed=seed)
    assert len(mvtec_training(tmp_path / "a")) == 2
    test = mvtec_test(tmp_path / "a")
    assert sorted({str(sample.defect) for sample in test}) == sorted([*DEFECTS, "None"])
    for sample in test:
        if sample.defect is not None:
            assert sample.mask is not None
            mask = cv2.imread(str(sample.mask), cv2.IMREAD_GRAYSCALE)
            assert set(np.unique(mask)) == {0, 255}
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.png"))
    contents = {name: [(tmp_path / name / file).read_bytes() for file in files] for name in "abc"}
    assert contents["a"] == contents["b"]
    assert not set(contents["a"]) & set(contents["c"])


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        write_dataset(tmp_path, train=1, test_good=1, test_each=1, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_every_kind_is_drawn_with_its_own_defects_and_masks(tmp_path: Path):
    assert tuple(KINDS) == choices.KINDS
    for name, kind in KINDS.items():
        write_dataset(tmp_path / name, train=1, test_good=1, test_each=1, seed=0, kind=name)
        test = mvtec_test(tmp_path / name)
        assert sorted(str(sample.defect) for sample in test) == sorted([*kind.defects, "None"])
        assert all(sample.mask is not None for sample in test if sample.defect is not None)


def test_a_kind_that_is_not_known_leaves_nothing_behind(tmp_path: Path):
    with pytest.raises(ValueError, match="unknown kind 'nuts'; there are plates, bolts"):
        write_dataset(tmp_path / "new", train=1, test_good=1, test_each=1, seed=0, kind="nuts")
    assert not (tmp_path / "new").exists()
