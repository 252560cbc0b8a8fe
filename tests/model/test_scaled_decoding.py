"""Large JPEGs are decoded at a fraction of their size, and what the networks see stays nearly the same."""

import io
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from model.choices import Align, Colour, Fit, Light
from model.images import ImageError, decode_image, decode_photograph, read_photograph, size_of
from model.lifecycle.datasets import Sample, load_images
from model.lifecycle.preparation import settled
from model.lifecycle.recipe import Recipe
from model.preprocessing import Preprocessing, Tiles
from model.reading import Reading
from model.region import Region, Zone
from service.decoding.work import Shrink, read_picture
from tests.conftest import surface, write_images
from tests.model.test_reading import encoded

PART = (((200.0, 100.0), (1150.0, 130.0), (1100.0, 700.0), (150.0, 650.0)),)
REGION = Region(1200, 800, (Zone("part", PART, (150, 100, 1151, 701)),))
SCALED = Preprocessing(64, scaled_decoding=True)


def picture(width: int = 1200, height: int = 800, seed: int = 1) -> np.ndarray:
    """With detail of a few pixels, as photographs have."""
    coarse = cv2.resize(surface(seed), (width, height), interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(seed).normal(0, 12, (height, width, 1))
    return np.clip(coarse + cv2.GaussianBlur(noise, (0, 0), 1.5)[:, :, None] * 3, 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", **({"quality": 92} | options))
    return file.getvalue()


def differences(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.abs(left.astype(int) - right.astype(int))


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}, {"quality": 40}])
@pytest.mark.parametrize("colour", Colour)
def test_decoded_at_a_fraction_each_pixel_is_the_mean_of_its_square(scale: int, options: dict, colour: Colour):
    data, reading = jpeg(picture(), **options), Reading(colour)
    found = decode_photograph(data, reading=reading, reduction=lambda width, height: scale)
    assert (found.width, found.height) == size_of(data) == (1200, 800)
    whole = decode_image(data, reading=reading)
    means = cv2.resize(whole, (1200 // scale, 800 // scale), interpolation=cv2.INTER_AREA)
    assert differences(found.pixels, means).mean() < 0.6
    assert np.quantile(differences(found.pixels, means), 0.999) <= 6  # of colours at half the size, and of rounding


@pytest.mark.parametrize(
    ("width", "height", "scale"),
    [
        (255, 256, 1), (256, 256, 2), (511, 512, 1), (510, 512, 2), (512, 512, 4), (1023, 1024, 1), (1020, 1024, 4),
        (1024, 1024, 8), (4096, 1024, 8), (4096, 100, 1),
    ],
)  # fmt: skip
def test_each_pixel_of_the_networks_keeps_two_of_the_picture(width: int, height: int, scale: int):
    assert SCALED.scale(width, height) == scale
    assert replace(SCALED, scaled_decoding=False).scale(width, height) == 1
    assert replace(SCALED, tiles=Tiles(2, 2, 0.0)).scale(2 * width, 2 * height) >= scale
    assert replace(SCALED, tiles=Tiles(2, 2)).scale(width, height) <= scale


def test_the_smallest_view_decides():
    assert replace(SCALED, region=REGION).scale(1200, 800) == 4
    corner = Zone("corner", (((0.0, 0.0), (150.0, 0.0), (0.0, 150.0)),), (0, 0, 151, 151))
    assert replace(SCALED, region=replace(REGION, zones=(*REGION.zones, corner))).scale(1200, 800) == 1
    wide = replace(SCALED, resize=Fit.LETTERBOX)
    assert (wide.scale(1024, 256), SCALED.scale(1024, 256)) == (8, 2)


@pytest.mark.parametrize(
    "preprocessing",
    [
        SCALED,
        replace(SCALED, colour=Colour.GRAY),
        replace(SCALED, resize=Fit.LETTERBOX),
        replace(SCALED, resize=Fit.CROP),
        replace(SCALED, tiles=Tiles(3, 2)),
        replace(SCALED, region=REGION),
        replace(SCALED, region=REGION, tiles=Tiles(2, 1), resize=Fit.LETTERBOX),
        replace(SCALED, reference_brightness=100.0),
    ],
    ids=["plain", "gray", "letterbox", "crop", "tiles", "region", "region-tiles", "light"],
)
def test_the_same_picture_in_another_format_is_prepared_alike(preprocessing: Preprocessing):
    data = jpeg(picture())
    twin = encoded(decode_image(data))
    assert preprocessing.scale(1200, 800) > 1
    small, whole = preprocessing.read(data), preprocessing.read(twin)
    assert small.pixels.size < whole.pixels.size
    found, wanted = preprocessing.prepare(small).pixels, preprocessing.prepare(whole).pixels
    assert differences(found, wanted).mean() < 0.7
    counted = preprocessing.layout(1200, 800).masks
    of_counted = differences(found, wanted) if counted is None else differences(found, wanted)[counted]
    assert np.quantile(of_counted, 0.99) <= 6  # of the rest, most lies on the painted edge of a region
    before = replace(preprocessing, scaled_decoding=False).apply(whole.pixels)
    assert differences(found, before).mean() < 2.5  # the views lie up to a few pixels of the picture elsewhere


def test_the_boxes_of_the_answer_are_those_that_the_networks_see():
    preprocessing = replace(SCALED, tiles=Tiles(3, 2))
    scale = preprocessing.scale(1200, 800)
    boxes = [view.box for view in preprocessing.layout(1200, 800).views]
    assert all(edge % scale == 0 for box in boxes for edge in box)
    assert (min(box[0] for box in boxes), max(box[2] for box in boxes), max(box[3] for box in boxes)) == (0, 1200, 800)
    marked = np.zeros((800, 1200, 3), np.uint8)
    left, top, right, bottom = boxes[4]
    marked[top:bottom, left:right] = 255
    assert (preprocessing.prepare(preprocessing.read(jpeg(marked, quality=100, subsampling=0))).pixels[4] > 250).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_turned_when_it_is_small(orientation: int):
    exif = Image.Exif()
    exif[274] = orientation
    upright = size_of(data := jpeg(picture(1200, 640), exif=exif.tobytes()))
    found = decode_photograph(data, reduction=lambda width, height: 4 if (width, height) == upright else 1)
    assert (found.width, found.height) == upright
    whole = decode_image(data)
    assert found.scale == 4
    means = cv2.resize(whole, found.pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert differences(found.pixels, means).mean() < 0.6


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_picture_that_is_not_whole_is_refused_at_every_scale(scale: int, mode: str):
    grey = Image.fromarray(picture()).convert(mode)
    data = jpeg(np.asarray(grey))
    for share in (0.3, 0.7, 0.95):
        cut = data[: int(share * len(data))]
        for ended in (cut, cut + b"\xff\xd9"):
            with pytest.raises(ImageError, match=r"whole|cut short"):
                decode_photograph(ended, reduction=lambda width, height: scale)


def test_training_on_large_jpegs_decodes_them_at_a_fraction(tmp_path: Path):
    def folder(name: str, data: bytes) -> list[Sample]:
        path = tmp_path / name
        path.write_bytes(data)
        return [Sample(tmp_path / "missing.jpg"), Sample(path)]

    recipe = Recipe(image_size=64)
    large = folder("large.jpg", jpeg(picture(512, 256)))
    assert settled(recipe.preprocessing, recipe, large).scaled_decoding
    tiled = replace(recipe.preprocessing, tiles=Tiles(3, 3))
    assert not settled(tiled, recipe, large).scaled_decoding
    for samples in (folder("small.jpg", jpeg(picture(248, 248))), folder("large.png", encoded(picture(512, 256)))):
        assert not settled(recipe.preprocessing, recipe, samples).scaled_decoding
    aligned = replace(recipe, align=Align.TEMPLATE)
    assert not settled(aligned.preprocessing, aligned, large).scaled_decoding
    lit = replace(recipe, light=Light.GAIN)
    found = settled(lit.preprocessing, lit, large)
    assert found.scaled_decoding
    assert found.reference_brightness == pytest.approx(decode_image(large[1].path.read_bytes()).mean(), rel=0.05)


def test_training_and_the_server_see_the_same(tmp_path: Path):
    data = jpeg(picture())
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    (png,) = write_images(tmp_path / "png", [picture(seed=2)])
    images = load_images([Sample(path), png], SCALED)
    assert images.shapes == [(800, 1200)] * 2
    for index, one in enumerate((data, png.path.read_bytes())):
        served = read_picture(one, SCALED, 1_000_000)
        np.testing.assert_array_equal(served.pixels[0], images.stacked[index])
        assert (served.width, served.height) == (1200, 800)
    np.testing.assert_array_equal(
        SCALED.prepare(read_photograph(path, SCALED.reading, SCALED.scale)).pixels[0], images.stacked[0]
    )


def test_a_picture_is_drawn_from_as_few_pixels_as_that_needs():
    data = jpeg(picture())
    small, large = Shrink(150, 100, Reading()), Shrink(700, 467, Reading())
    assert (small.scale(1200, 800), large.scale(1200, 800)) == (4, 1)
    for step in (small, large):
        drawn = read_picture(data, step, 1_000_000)
        assert (drawn.width, drawn.height) == (1200, 800)
        whole = cv2.resize(decode_image(data), (step.width, step.height), interpolation=cv2.INTER_AREA)
        assert differences(drawn.pixels, whole).mean() < 0.6
