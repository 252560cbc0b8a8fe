"""From an image to the networks' input: one value that every command and the server apply."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from model.choices import Colour
from model.preprocessing import FILL, Preprocessing, as_input, brightness
from model.region import Polygon, Region, Zone
from model.store.card import PreprocessingRecord
from model.store.version import read_card
from tests.conftest import Factory, surface


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
        "levels": None,
        "bayer": None,
        "reference_brightness": None,
        "alignment": None,
        "scaled_decoding": False,
    }
    assert PreprocessingRecord.model_validate({}) == card.preprocessing  # as old cards may have it


SCRIPT = """
import sys
sys.modules["torch"] = sys.modules["pydantic"] = None
import numpy as np
from model.images import read_image
from model.preprocessing import FILL, Preprocessing
print(Preprocessing(32).apply(np.zeros((5, 6, 3), np.uint8)).shape)
"""


def test_reading_and_preparing_images_needs_no_torch():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.stdout == "(1, 32, 32, 3)\n", done.stderr


def test_grey_becomes_three_equal_channels():
    image = np.random.default_rng(0).integers(0, 256, (90, 70), dtype=np.uint8)
    found = Preprocessing(64, Colour.GRAY).apply(image)
    np.testing.assert_array_equal(found, Preprocessing(64).apply(np.repeat(image[:, :, None], 3, axis=2)))


def test_light_is_brought_to_the_reference():
    image = surface(1)
    lit = Preprocessing(80, reference_brightness=brightness(image[None]))
    np.testing.assert_array_equal(lit.apply(image), image[None])
    for factor in (0.5, 0.7, 1.2):
        found = lit.apply(np.rint(image * factor).astype(np.uint8))
        assert np.abs(found.astype(int) - image).max() <= 1 / factor / 2 + 0.5
        assert brightness(found) == pytest.approx(brightness(image[None]), rel=0.005)


def test_the_gain_is_bounded():
    lit = Preprocessing(64, reference_brightness=100)
    for grey, wanted in ((0, 0), (10, 20), (50, 100), (60, 100), (200, 100), (255, 128)):
        assert (lit.apply(np.full((80, 90, 3), grey, np.uint8)) == wanted).all()
        assert (lit.apply(np.full((80, 90), grey, np.uint8)) == wanted).all()


def test_brightness_weighs_the_colours_as_the_eye_does():
    assert brightness(np.full((2, 5, 6, 3), (100, 0, 0), np.uint8)) == pytest.approx(29.9)
    assert brightness(np.full((2, 5, 6, 3), (0, 100, 0), np.uint8)) == pytest.approx(58.7)


def test_only_what_counts_has_a_say_in_the_light():
    half: Polygon = ((0, 0), (40, 0), (40, 80), (0, 80))
    region = Region(80, 80, (Zone("left", (half,), (0, 0, 80, 80)),))
    lit = Preprocessing(64, region=region, reference_brightness=100)
    image = surface(1)
    other = image.copy()
    other[:, 45:] = 255
    np.testing.assert_array_equal(lit.apply(image), lit.apply(other))
    masks = lit.layout(80, 80).masks
    assert brightness(lit.apply(image), masks) == pytest.approx(100, rel=0.01)
    assert (lit.apply(image)[:, :, 40:] == FILL).all()
    grey = Preprocessing(64, Colour.GRAY, region=region, reference_brightness=100)
    of_grey = grey.apply(image[:, :, 0])
    np.testing.assert_allclose(of_grey[masks], lit.apply(image)[masks], atol=4)  # on the edge there is grey FILL
