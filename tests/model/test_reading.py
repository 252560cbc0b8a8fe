"""What the values of a file mean: levels of deep cameras, one channel, raw sensor data."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from model.choices import Bayer, Colour
from model.images import ImageError, decode_image, extremes, size_of
from model.reading import Levels, LevelsError, Reading
from tests.conftest import surface

TWELVE = Reading(levels=Levels(4095))
COLOURS = np.array([[200, 60, 20], [30, 90, 160]], np.uint8)


def encoded(values: np.ndarray, suffix: str = ".png") -> bytes:
    """The file of grey, RGB or RGBA values."""
    order = {2: np.s_[:, :], 3: np.s_[:, :, ::-1]}.get(values.ndim)
    if values.ndim == 3 and values.shape[2] == 4:
        values, order = values[:, :, (2, 1, 0, 3)], np.s_[:]
    return cv2.imencode(suffix, np.ascontiguousarray(values[order]))[1].tobytes()


def deep(image: np.ndarray, white: int = 4095, black: int = 0) -> np.ndarray:
    """The picture as a camera of these levels gives it."""
    return np.rint(image / 255 * (white - black) + black).astype(np.uint16)


def packed_twelve_bits(values: np.ndarray, photometric: int = 1) -> bytes:
    """A TIFF that says that it has 12 bits per value."""
    height, width = values.shape
    bits = "".join(f"{value:012b}" for value in values.ravel())
    raw = int(bits, 2).to_bytes(len(bits) // 8)
    entries = [
        (256, 3, width), (257, 3, height), (258, 3, 12), (259, 3, 1), (262, 3, photometric), (273, 4, 8), (277, 3, 1),
        (278, 3, height), (279, 4, len(raw)),
    ]  # fmt: skip
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<I", 8 + len(raw)) + raw + struct.pack("<H", len(entries)) + directory + bytes(4)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("levels", [Levels(1023), Levels(4095, 64), Levels(65535), Levels(16383, 512)])
def test_values_between_black_and_white_are_scaled_rounded_and_clipped(suffix: str, colour: bool, levels: Levels):
    values = np.random.default_rng(0).integers(0, levels.white + 1, (30, 40, 3) if colour else (30, 40))
    values.flat[:3] = 0, levels.black, levels.white
    found = decode_image(encoded(values.astype(np.uint16), suffix), reading=Reading(levels=levels))
    exact = (255 * (values - levels.black) / (levels.white - levels.black)).clip(0, 255)
    wanted = np.rint(exact).astype(np.uint8)
    np.testing.assert_array_equal(found, wanted if colour else np.repeat(wanted[:, :, None], 3, axis=2))


def test_one_value_alone_is_scaled_too():
    for shape in ((1, 1), (4, 1), (1, 4), (4, 1, 3), (1, 1, 3)):
        found = decode_image(
            encoded(np.full(shape, 2048 + 64, np.uint16)), reading=Reading(levels=Levels(4095 + 64, 64))
        )
        assert (found == 128).all()


def test_a_picture_of_a_deep_camera_is_that_of_eight_bits():
    image = surface(3, fault=True)
    for white, black in ((1023, 0), (4095, 0), (4095, 240), (16383, 0), (65535, 0)):
        found = decode_image(encoded(deep(image, white, black)), reading=Reading(levels=Levels(white, black)))
        np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("photometric", [0, 1])
def test_a_tiff_that_says_how_many_bits_it_has_is_read_with_its_own_levels(photometric: int):
    image = surface(4)[:, :, 0]
    values = deep(image)
    data = packed_twelve_bits(4095 - values if photometric == 0 else values, photometric)
    np.testing.assert_array_equal(decode_image(data, reading=TWELVE)[:, :, 0], image)
    np.testing.assert_array_equal(decode_image(data)[:, :, 0], values >> 4)  # without levels as ever
    assert extremes(data) == (values.min(), values.max())


def test_what_is_clear_becomes_the_white_level():
    values = np.full((20, 20, 4), 1000, np.uint16)
    values[:, :, 3] = 65535
    values[:10, :, :3] = 60000  # of what nobody sees
    values[:10, :, 3] = 0
    values[10, :, 3] = 32768
    found = decode_image(encoded(values), reading=TWELVE)
    assert (found[:10] == 255).all()
    assert (found[11:] == 62).all()
    assert (abs(found[10].astype(int) - (255 + 62) / 2) < 1).all()


def test_a_picture_whose_values_do_not_fit_the_levels_is_refused_with_what_to_do():
    image = np.full((20, 30), 100, np.uint16)
    image[3, 3] = 4096
    with pytest.raises(
        ImageError, match=r"is 4096, above 4095, the white level of its category: .* higher white level"
    ):
        decode_image(encoded(image), reading=TWELVE)
    image[3, 3] = 255
    with pytest.raises(ImageError, match=r"is 255, which is nearly black where 4095 is white; check the light"):
        decode_image(encoded(image), reading=TWELVE)
    image[3, 3] = 256
    assert decode_image(encoded(image), reading=TWELVE).max() == 16
    with pytest.raises(ImageError, match=r"is 256, which is nearly black"):
        decode_image(encoded(image), reading=Reading(levels=Levels(4095, 64)))
    for suffix in (".png", ".tiff", ".jpg", ".webp", ".bmp"):
        with pytest.raises(
            ImageError, match=r"has 8 bits per value, and its category .* up to 4095; send .* 16-bit PNG"
        ):
            decode_image(encoded(surface(1), suffix), reading=TWELVE)


def test_without_levels_the_refusal_of_ten_bits_names_them():
    with pytest.raises(ImageError, match="train the category with a white level, let the camera"):
        decode_image(encoded(np.full((20, 30), 1023, np.uint16)))


@pytest.mark.parametrize(("white", "black"), [(0, 0), (100, 100), (100, 200), (65536, 0), (100, -1)])
def test_levels_that_cannot_be_are_refused(white: int, black: int):
    with pytest.raises(LevelsError, match="below the white level"):
        Levels(white, black)


def test_grey_is_one_channel_with_the_usual_weights():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    found = decode_image(encoded(image), reading=Reading(Colour.GRAY))
    assert found.shape == (20, 30)
    assert np.abs(found - image @ np.array([0.299, 0.587, 0.114])).max() < 0.51
    grey = image[:, :, 0]
    for suffix in (".png", ".tiff", ".bmp"):
        np.testing.assert_array_equal(decode_image(encoded(grey, suffix), reading=Reading(Colour.GRAY)), grey)
    found = decode_image(encoded(deep(image)), reading=Reading(Colour.GRAY, Levels(4095)))
    np.testing.assert_array_equal(found, cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def test_grey_is_turned_upright():
    image = Image.fromarray(surface(1, size=(20, 30))[:, :, 0])
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        file = io.BytesIO()
        image.save(file, "PNG", exif=exif)
        found = decode_image(file.getvalue(), reading=Reading(Colour.GRAY))
        np.testing.assert_array_equal(found, decode_image(file.getvalue())[:, :, 0])


def test_the_size_of_a_picture_is_known_whatever_its_values_mean():
    assert size_of(encoded(np.full((20, 30), 7, np.uint16))) == (30, 20)
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(surface(1, size=(20, 30))).save(file, "JPEG", exif=exif)
    assert size_of(file.getvalue()) == (20, 30)


def mosaic(image: np.ndarray, bayer: Bayer) -> np.ndarray:
    """What a sensor with these filters sees of RGB ``[H, W, 3]``."""
    found = np.empty(image.shape[:2], image.dtype)
    for place, letter in enumerate(bayer.value):
        rows, columns = np.s_[place // 2 :: 2], np.s_[place % 2 :: 2]
        found[rows, columns] = image[rows, columns, "RGB".index(letter)]
    return found


@pytest.mark.parametrize("bayer", Bayer)
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_raw_sensor_data_gets_its_colours(bayer: Bayer, suffix: str):
    image = np.repeat(COLOURS[0][None, None], 24, axis=0).repeat(30, axis=1)
    found = decode_image(encoded(mosaic(image, bayer), suffix), reading=Reading(bayer=bayer))
    np.testing.assert_array_equal(found, image)
    twelve = encoded(mosaic(deep(image), bayer), suffix)
    np.testing.assert_array_equal(decode_image(twelve, reading=Reading(levels=Levels(4095), bayer=bayer)), image)
    grey = decode_image(twelve, reading=Reading(Colour.GRAY, Levels(4095), bayer))
    assert grey.shape == (24, 30)
    assert np.abs(grey - COLOURS[0] @ np.array([0.299, 0.587, 0.114])).max() < 1


def test_what_is_no_raw_sensor_data_is_refused():
    reading = Reading(bayer=Bayer.RGGB)
    for suffix in (".png", ".tiff"):
        with pytest.raises(ImageError, match=r"raw sensor data .RGGB., one value per pixel; this image has colours"):
            decode_image(encoded(surface(1), suffix), reading=reading)
    for suffix in (".jpg", ".webp", ".bmp"):
        with pytest.raises(ImageError, match="which only PNG and TIFF keep; send the raw image"):
            decode_image(encoded(surface(1)[:, :, 0], suffix), reading=reading)
    file = io.BytesIO()
    Image.fromarray(surface(1)[:, :, 0]).convert("LA").save(file, "PNG")
    with pytest.raises(ImageError, match="colours or transparency"):
        decode_image(file.getvalue(), reading=reading)
    for shape in ((3, 8), (8, 3)):
        with pytest.raises(ImageError, match="fewer than 4 pixels"):
            decode_image(encoded(np.full(shape, 9, np.uint8)), reading=reading)
    assert (decode_image(encoded(np.full((4, 4), 9, np.uint8)), reading=reading) == 9).all()


def test_the_extremes_of_a_file_are_those_that_can_be_seen():
    values = np.full((20, 20, 4), 1000, np.uint16)
    values[0, 0, :3], values[0, 1, :3] = 10, 3000
    values[:, :, 3] = 65535
    values[5, :] = 0
    values[6, :] = 65535
    values[6, :, 3] = 0
    assert extremes(encoded(values)) == (10, 3000)
    assert extremes(encoded(surface(1))) is None
