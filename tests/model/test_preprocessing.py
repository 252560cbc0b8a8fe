"""From an image to the networks' input: one value that every command and the server apply."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from model.preprocessing import Preprocessing, as_input
from model.store.card import PreprocessingRecord
from model.store.version import read_card
from tests.conftest import Factory


@pytest.mark.parametrize("size", [(64, 64), (500, 300), (10, 20), (1, 3000), (3000, 1)])
def test_an_image_of_any_size_is_stretched_to_the_square(size: tuple[int, int]):
    flat = np.full((*size, 3), (10, 120, 250), dtype=np.uint8)
    (found,) = Preprocessing(64).apply(flat)
    assert found.shape == (64, 64, 3)
    assert (found == (10, 120, 250)).all()


def test_an_image_that_is_made_smaller_is_averaged():
    checkers = (np.indices((128, 128)).sum(0) % 2 * 200).astype(np.uint8)
    (found,) = Preprocessing(64).apply(np.repeat(checkers[:, :, None], 3, axis=2))
    assert (found == 100).all()


def test_the_input_is_what_the_teacher_was_pretrained_on():
    pixels = torch.tensor([[[[0, 128, 255], [255, 0, 10]]]], dtype=torch.uint8)
    found = as_input(pixels)
    assert found.shape == (1, 3, 1, 2)
    assert found.dtype == torch.float32
    for channel, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        wanted = [(pixels[0, 0, x, channel].item() / 255 - mean) / std for x in (0, 1)]
        assert found[0, channel, 0].tolist() == pytest.approx(wanted, abs=1e-6)


def test_a_card_says_how_its_images_are_prepared(factory: Factory):
    card = read_card(factory.weights / "striped")
    assert card.preprocessor == Preprocessing(64, colour="rgb", resize="stretch", normalization="imagenet")
    written = card.model_dump(mode="json")
    assert written["image_size"] == 64
    assert written["preprocessing"] == {
        "colour": "rgb",
        "resize": "stretch",
        "normalization": "imagenet",
        "region": None,
        "tiles": None,
    }
    assert PreprocessingRecord.model_validate({}) == card.preprocessing  # as old cards may have it


SCRIPT = """
import sys
sys.modules["torch"] = sys.modules["pydantic"] = None
import numpy as np
from model.images import read_image
from model.preprocessing import Preprocessing
print(Preprocessing(32).apply(np.zeros((5, 6, 3), np.uint8)).shape)
"""


def test_reading_and_preparing_images_needs_no_torch():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.stdout == "(1, 32, 32, 3)\n", done.stderr
