"""Pictures that were saved again are told from photographs of different parts."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from model.images import decode_image
from model.lifecycle import datasets
from model.lifecycle.copies import near_copies
from model.lifecycle.datasets import load_images
from model.lifecycle.remarks import Kind
from model.preprocessing import Preprocessing
from tests.conftest import surface
from tests.needs import IMAGES

PREPARED = Preprocessing(128)


def saved_again(image: Image.Image, **options: object) -> np.ndarray:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return PREPARED.apply(decode_image(file.getvalue()))[0]


def test_pictures_saved_again_with_losses_are_found_among_others():
    pictures = [Image.fromarray(surface(seed, size=(300, 400))) for seed in range(6)]
    prepared = [PREPARED.apply(np.asarray(picture))[0] for picture in pictures]
    again = [saved_again(pictures[2], quality=quality) for quality in (95, 85, 50)]
    (smaller,) = PREPARED.apply(np.asarray(pictures[4].resize((320, 240), Image.Resampling.LANCZOS)))
    assert near_copies(np.stack(prepared)) == []
    assert near_copies(np.stack([*prepared, *again, smaller])) == [2, 4, 6, 7, 8, 9]


def test_one_image_has_no_copy():
    assert near_copies(np.zeros((1, 32, 32, 3), np.uint8)) == []


def test_images_that_are_alike_on_the_whole_but_not_in_detail_are_no_copies():
    rng = np.random.default_rng(0)
    images = rng.normal(128, 20, (40, 64, 64, 3)).clip(0, 255).astype(np.uint8)
    assert near_copies(images) == []


def test_a_folder_of_pictures_saved_again_is_remarked_on(tmp_path: Path):
    for quality in (80, 85, 90, 95):
        Image.fromarray(surface(1, size=(300, 300))).save(tmp_path / f"{quality}.jpg", quality=quality)
    Image.fromarray(surface(2)).save(tmp_path / "other.jpg")
    images = datasets.unique(load_images(datasets.normal_samples(tmp_path), PREPARED))
    assert len(images.samples) == 5
    assert images.remarks.of(Kind.NEAR_COPY) == tuple(str(tmp_path / f"{quality}.jpg") for quality in (80, 85, 90, 95))
    assert images.remarks.lines()[0].startswith("note: 4 images differ from another by less than 1.5 grey levels")


def test_real_photographs_of_different_parts_are_no_copies():
    root = Path(os.environ.get("INSPECT_TEST_DATA") or IMAGES.missing()) / "mvtec-leather"
    assert near_copies(load_images(datasets.mvtec_test(root), PREPARED).pixels) == []
