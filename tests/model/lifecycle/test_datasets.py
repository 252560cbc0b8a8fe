"""Folders are read as they lie, and what is missing or unreadable is named."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from model.lifecycle import datasets, masks
from model.lifecycle.datasets import DatasetError, Sample
from model.lifecycle.remarks import Kind
from model.preprocessing import Preprocessing
from service.hints import with_hint
from tests.conftest import surface, write_images
from tests.needs import IMAGES


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    root = tmp_path / "part"
    write_images(root / "train" / "good", [surface(seed) for seed in range(3)])
    write_images(root / "test" / "good", [surface(seed) for seed in range(10, 12)])
    write_images(root / "test" / "spot", [surface(seed, fault=True) for seed in range(20, 24)])
    (root / "ground_truth" / "spot").mkdir(parents=True)
    mask = np.zeros((80, 80), dtype=np.uint8)
    mask[40:, :] = 255
    Image.fromarray(mask).save(root / "ground_truth" / "spot" / "001_mask.png")
    return root


def test_the_mvtec_layout_is_read(mvtec: Path):
    assert [sample.path.name for sample in datasets.mvtec_training(mvtec)] == ["000.png", "001.png", "002.png"]
    test = datasets.mvtec_test(mvtec)
    assert [sample.defect for sample in test] == [None, None, "spot", "spot", "spot", "spot"]
    assert [sample.mask is not None for sample in test] == [False, False, False, True, False, False]


def test_masks_are_read_at_the_size_asked_for(mvtec: Path):
    mask = masks.read_mask(mvtec / "ground_truth" / "spot" / "001_mask.png", 32)
    assert mask.shape == (32, 32)
    assert mask.dtype == bool
    assert mask[16:].all()
    assert not mask[:16].any()
    with pytest.raises(DatasetError, match="cannot read the mask"):
        masks.read_mask(mvtec / "nothing.png", 32)


def test_anomalous_folders_name_the_defect_and_find_masks(mvtec: Path):
    samples = datasets.anomalous_samples(mvtec / "test" / "spot")
    assert {sample.defect for sample in samples} == {"spot"}
    nested = datasets.anomalous_samples(mvtec / "test", mvtec / "ground_truth")
    assert {sample.defect for sample in nested} == {"good", "spot"}
    assert sum(sample.mask is not None for sample in nested) == 1


def test_masks_of_any_scale_and_of_thin_faults_are_read(tmp_path: Path):
    ones, thin, blank = np.zeros((3, 400, 400), np.uint8)
    ones[100:200, 100:200] = 1
    thin[7, :] = 255
    for name, mask in (("ones", ones), ("thin", thin), ("blank", blank)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), mask)
    assert masks.read_mask(tmp_path / "ones.png", 100).sum() == 25 * 25
    assert masks.read_mask(tmp_path / "thin.png", 50)[0].all()
    assert not masks.read_mask(tmp_path / "blank.png", 50).any()


@pytest.mark.parametrize("mask", ["001.png", "001_mask.png", "001_mask.jpg"])
def test_masks_beside_images_are_not_taken_for_images(tmp_path: Path, mask: str):
    for name in ("000.jpg", "001.jpg", "other.png", mask):
        Image.fromarray(surface(1)).save(tmp_path / name)
    with pytest.raises(datasets.MasksAmongImagesError, match=r"001\.jpg and 001.* seem to be an image") as refusal:
        datasets.normal_samples(tmp_path)
    assert "--pattern '*.jpg'" in with_hint(refusal.value)
    with pytest.raises(DatasetError, match="an image and its mask"):
        datasets.anomalous_samples(tmp_path, tmp_path)
    names = [sample.path.name for sample in datasets.normal_samples(tmp_path, "00?.jpg")]
    assert names == ["000.jpg", "001.jpg"]


def test_a_folder_with_masks_beside_the_images_is_read_by_a_pattern(tmp_path: Path):
    for name in ("crack/000.jpg", "crack/001.jpg", "crack/001.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(surface(1)).save(tmp_path / name)
    samples = datasets.anomalous_samples(tmp_path, tmp_path, "*.jpg")
    assert [(sample.path.name, sample.defect) for sample in samples] == [("000.jpg", "crack"), ("001.jpg", "crack")]
    assert [sample.mask for sample in samples] == [None, tmp_path / "crack" / "001.png"]
    with pytest.raises(DatasetError, match=r"no image whose name matches '\*\.tif'"):
        datasets.normal_samples(tmp_path, "*.tif")


def test_an_image_is_not_its_own_mask(mvtec: Path):
    folder = mvtec / "test" / "spot"
    with pytest.raises(DatasetError, match="holds no mask for any image"):
        datasets.anomalous_samples(folder, folder)


@pytest.mark.parametrize("layout", ["missing", "empty"])
def test_folders_without_images_are_refused(tmp_path: Path, layout: str):
    folder = tmp_path / layout
    if layout == "empty":
        folder.mkdir()
        (folder / "notes.txt").write_text("no image")
    with pytest.raises(DatasetError, match=r"is not a folder|holds no image"):
        datasets.list_images(folder)


def test_another_layout_is_refused(tmp_path: Path):
    with pytest.raises(DatasetError, match="not in the MVTec AD layout"):
        datasets.mvtec_test(tmp_path)
    (tmp_path / "test").mkdir()
    with pytest.raises(DatasetError, match="holds no folder"):
        datasets.mvtec_test(tmp_path)


def test_hidden_files_and_other_files_are_passed_over(mvtec: Path):
    good = mvtec / "train" / "good"
    (good / ".hidden.png").write_bytes(b"")
    (good / "Thumbs.db").write_bytes(b"")
    paths, remarks = datasets.list_images(good)
    assert len(paths) == 3
    assert len(remarks.of(Kind.SYSTEM_FILE)) == 2


def test_unreadable_files_are_named_and_skipped_only_when_told(mvtec: Path):
    broken = mvtec / "train" / "good" / "001.png"
    broken.write_bytes(b"nonsense")
    samples = datasets.mvtec_training(mvtec)
    with pytest.raises(DatasetError, match=r"001\.png: not a JPEG"):
        datasets.load_images(samples, Preprocessing(32))
    loaded = datasets.load_images(samples, Preprocessing(32), skip_unreadable=True)
    assert loaded.pixels.shape == (2, 32, 32, 3)
    assert [sample.path.name for sample in loaded.samples] == ["000.png", "002.png"]
    assert "001.png" in loaded.remarks.of(Kind.UNREADABLE)[0]
    with pytest.raises(DatasetError, match=r"gone\.png: No such file or directory$"):
        datasets.load_images([Sample(mvtec / "gone.png")], Preprocessing(32))
    with pytest.raises(DatasetError, match="none of the images"):
        datasets.load_images([Sample(broken)], Preprocessing(32), skip_unreadable=True)


def test_a_split_is_disjoint_complete_repeatable_and_in_proportion(mvtec: Path):
    samples = datasets.mvtec_test(mvtec)
    chosen, rest = datasets.split(samples, 0.5, seed=3)
    assert sorted(str(sample.path) for sample in chosen + rest) == sorted(str(sample.path) for sample in samples)
    assert sorted(str(sample.defect) for sample in chosen) == ["None", "spot", "spot"]
    assert datasets.split(samples, 0.5, seed=3) == (chosen, rest)
    assert any(datasets.split(samples, 0.5, seed=seed) != (chosen, rest) for seed in range(4, 9))
    with pytest.raises(DatasetError, match="between 0 and 1"):
        datasets.split(samples, 1.0, seed=0)


def test_the_same_file_counts_once(mvtec: Path):
    good = mvtec / "train" / "good"
    (good / "003.png").write_bytes((good / "000.png").read_bytes())
    loaded = datasets.load_images(datasets.mvtec_training(mvtec), Preprocessing(32))
    once = datasets.unique(loaded)
    assert (len(loaded.digests), len(once.digests)) == (4, 3)
    np.testing.assert_array_equal(once.pixels, loaded.pixels[:3])


def test_a_real_mvtec_category_is_read_as_it_lies():
    root = Path(os.environ.get("INSPECT_TEST_DATA") or IMAGES.missing()) / "mvtec-leather"
    assert len(datasets.mvtec_training(root)) == 4
    test = datasets.mvtec_test(root)
    assert len(test) == 24
    assert {sample.defect for sample in test} == {None, "color", "cut", "fold", "glue", "poke"}
    assert sum(sample.mask is not None for sample in test) == 11  # nine of the twenty defects have none
    loaded = datasets.load_images(test, Preprocessing(128))
    assert loaded.pixels.shape == (24, 128, 128, 3)
    assert all(masks.read_mask(sample.mask, 256).any() for sample in test if sample.mask is not None)
