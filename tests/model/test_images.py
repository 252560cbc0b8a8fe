"""One way to read images: every format, mode and orientation, and what is refused."""

import io
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from model.images import ImageError, ImageTooLargeError, decode_image, read_image
from tests.conftest import surface


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


@pytest.fixture
def photo() -> Image.Image:
    """Not square, and its colours are not grey, so that swapped axes or channels show."""
    pixels = surface(1, size=(40, 60))
    pixels[:, :, 0] = pixels[:, :, 0] // 2
    pixels[:20, :, 2] = 200
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("file_format", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})],
)
def test_lossless_formats_give_the_very_pixels(photo: Image.Image, file_format: str, options: dict[str, object]):
    np.testing.assert_array_equal(decode_image(encoded(photo, file_format, **options)), np.asarray(photo))


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP"])
def test_lossy_formats_give_nearly_the_pixels(photo: Image.Image, file_format: str):
    found = decode_image(encoded(photo, file_format, quality=95))
    assert np.abs(found.astype(int) - np.asarray(photo)).mean() < 6


def test_greyscale_becomes_rgb(photo: Image.Image):
    grey = photo.convert("L")
    np.testing.assert_array_equal(decode_image(encoded(grey, "PNG")), np.asarray(grey.convert("RGB")))


def test_one_bit_becomes_rgb(photo: Image.Image):
    bits = photo.convert("1")
    np.testing.assert_array_equal(decode_image(encoded(bits, "PNG")), np.asarray(bits.convert("RGB")))


def test_palette_becomes_rgb(photo: Image.Image):
    palette = photo.quantize(32)
    np.testing.assert_array_equal(decode_image(encoded(palette, "PNG")), np.asarray(palette.convert("RGB")))


def test_cmyk_becomes_rgb(photo: Image.Image):
    found = decode_image(encoded(photo.convert("CMYK"), "TIFF"))
    assert np.abs(found.astype(int) - np.asarray(photo)).max() <= 2


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode: str):
    image = Image.new(mode, (8, 8), (0,) * (len(mode) - 1) + (0,))
    assert (decode_image(encoded(image, "PNG")) == 255).all()


def test_transparent_palette_colour_is_laid_on_white():
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 20, 30] * 256)
    assert (decode_image(encoded(image, "PNG", transparency=0)) == 255).all()


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_of_sixteen_bits_the_upper_eight_count(suffix: str, channels: int):
    values = np.array([[0, 128, 255, 256, 25855, 32768, 65279, 65535]], dtype=np.uint16)
    ok, data = cv2.imencode(suffix, np.repeat(values[:, :, None], channels, axis=2))
    assert ok
    found = decode_image(data.tobytes())
    assert found.shape == (1, 8, 3)
    np.testing.assert_array_equal(found, np.repeat((values >> 8)[:, :, None], 3, axis=2))


def test_transparent_sixteen_bit_grey_is_laid_on_white():
    values = np.array([[0x1234, 0x1235, 0]], dtype=np.uint16)
    found = decode_image(encoded(Image.fromarray(values), "PNG", transparency=0x1234))
    np.testing.assert_array_equal(found[0, :, 0], [255, 0x12, 0])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(photo: Image.Image, orientation: int, file_format: str):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encoded(photo, file_format, exif=exif, **options)
    with Image.open(io.BytesIO(data)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    found = decode_image(data)
    np.testing.assert_array_equal(found, upright)
    assert found.shape[:2] == ((60, 40) if orientation > 4 else (40, 60))


def test_a_damaged_exif_block_does_not_matter(photo: Image.Image):
    data = encoded(photo, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff broken")
    assert decode_image(data).shape == (40, 60, 3)


def test_the_first_picture_of_a_multi_picture_jpeg_counts(photo: Image.Image):
    black = Image.new("RGB", photo.size)
    data = encoded(photo, "MPO", save_all=True, append_images=[black])
    assert decode_image(data).mean() > 50


@pytest.mark.parametrize("file_format", ["TIFF", "WEBP", "PNG"])
def test_files_with_several_images_are_refused(photo: Image.Image, file_format: str):
    data = encoded(photo, file_format, save_all=True, append_images=[Image.new("RGB", photo.size)])
    with pytest.raises(ImageError, match="holds several images"):
        decode_image(data)


def test_sides_that_no_png_can_have_are_refused():
    with pytest.raises(ImageTooLargeError, match="1000001x1 pixels"):
        decode_image(encoded(Image.new("L", (1_000_001, 1)), "BMP"))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_white_level_are_refused(mode: str):
    with pytest.raises(ImageError, match="32-bit pixels"):
        decode_image(encoded(Image.new(mode, (8, 8)), "TIFF"))


def test_too_many_pixels_are_refused_before_decoding():
    data = encoded(Image.new("1", (1000, 1000)), "PNG")[:200]  # the rest is not even there
    with pytest.raises(ImageTooLargeError, match="1000x1000"):
        decode_image(data, max_pixels=999_999)


def test_absurdly_many_pixels_are_too_large_as_well():
    header = bytearray(encoded(Image.new("L", (1, 1)), "BMP"))
    header[18:26] = (60_000).to_bytes(4, "little") * 2
    with pytest.raises(ImageTooLargeError):
        decode_image(bytes(header))


@pytest.mark.parametrize("data", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(40)])
def test_other_bytes_are_refused(data: bytes):
    with pytest.raises(ImageError, match="not a JPEG"):
        decode_image(data)


def test_gif_is_refused_though_pillow_reads_it(photo: Image.Image):
    with pytest.raises(ImageError, match="not a JPEG"):
        decode_image(encoded(photo, "GIF"))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP", "BMP"])
def test_truncated_files_are_refused(photo: Image.Image, file_format: str):
    data = encoded(photo, file_format)
    with pytest.raises(ImageError):
        decode_image(data[: len(data) // 2])


def test_read_image_names_the_file(tmp_path: Path):
    with pytest.raises(ImageError, match=r"missing\.png: No such file"):
        read_image(tmp_path / "missing.png")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"nonsense")
    with pytest.raises(ImageError, match=r"broken\.png: not a JPEG"):
        read_image(broken)


def test_a_file_of_parts_without_number_is_refused_before_it_is_decoded(photo: Image.Image):
    progressive = encoded(photo, "JPEG", progressive=True)
    scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    assert decode_image(progressive[:-2] + 20 * scan + progressive[-2:]).shape == (40, 60, 3)
    assert decode_image(progressive + 1000 * scan).shape == (40, 60, 3)  # behind the end of the picture
    with pytest.raises(ImageTooLargeError, match="100 scans"):
        decode_image(progressive[:-2] + 200 * scan + progressive[-2:])
    with pytest.raises(ImageTooLargeError, match="50000 parts"):
        decode_image(progressive[:2] + b"\xff\xe5\0\2" * 60_000 + progressive[2:])
    png = encoded(photo, "PNG")
    chunk = b"\0\0\0\0prVt" + zlib.crc32(b"prVt").to_bytes(4)
    assert decode_image(png[:33] + 100 * chunk + png[33:]).shape == (40, 60, 3)
    with pytest.raises(ImageTooLargeError, match="50000 parts"):
        decode_image(png[:33] + 60_000 * chunk + png[33:])
