"""One way to read images: every format, mode and orientation, and what is refused."""

import io
import zlib
from pathlib import Path
from zipfile import ZipFile

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from fuzz.make_corpus import KEPT
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


@pytest.mark.parametrize(("alpha", "shown"), [(0, 255), (255, 10), (51, 206)])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode: str, alpha: int, shown: int):
    image = Image.new(mode, (8, 8), (10,) * (len(mode) - 1) + (alpha,))
    image.putpixel((0, 0), (200,) * (len(mode) - 1) + (255,))
    image.putpixel((1, 0), (200,) * (len(mode) - 1) + (0,))
    found = decode_image(encoded(image, "PNG"))
    assert found[0, 0].tolist() == [200] * 3
    assert found[0, 1].tolist() == [255] * 3
    assert (found[1:] == shown).all()


@pytest.mark.parametrize("alpha", [0, 1, 100, 255])
@pytest.mark.parametrize(("file_format", "mode"), [("PNG", "RGBA"), ("PNG", "LA"), ("TIFF", "RGBA"), ("WEBP", "RGBA")])
def test_an_alpha_channel_that_is_the_same_everywhere_is_ignored(
    photo: Image.Image, file_format: str, mode: str, alpha: int
):
    image = photo.convert(mode)
    image.putalpha(alpha)
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
    wanted = np.asarray(photo if mode == "RGBA" else photo.convert("L").convert("RGB"))
    np.testing.assert_array_equal(decode_image(encoded(image, file_format, **options)), wanted)


@pytest.mark.parametrize("largest", [1, 100, 127])
def test_an_alpha_channel_that_hides_the_image_is_refused(photo: Image.Image, largest: int):
    image = photo.convert("RGBA")
    alpha = np.zeros((40, 60), np.uint8)
    alpha[10:30, 10:30] = largest
    image.putalpha(Image.fromarray(alpha))
    with pytest.raises(ImageError, match=f"hides the image .its largest value is {largest} of 255.; send it without"):
        decode_image(encoded(image, "PNG"))


def test_transparent_palette_colour_is_laid_on_white():
    image = Image.new("P", (8, 8), 0)
    image.putpixel((0, 0), 1)
    image.putpalette([10, 20, 30, 40, 50, 60] * 128)
    found = decode_image(encoded(image, "PNG", transparency=0))
    assert found[0, 0].tolist() == [40, 50, 60]
    assert (found[1:] == 255).all()


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_of_sixteen_bits_the_upper_eight_count(suffix: str, channels: int):
    values = np.array([[0, 128, 255, 256, 25855, 32768, 65279, 65535]], dtype=np.uint16)
    ok, data = cv2.imencode(suffix, np.repeat(values[:, :, None], channels, axis=2))
    assert ok
    found = decode_image(data.tobytes())
    assert found.shape == (1, 8, 3)
    np.testing.assert_array_equal(found, np.repeat((values >> 8)[:, :, None], 3, axis=2))


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("largest", [0, 1, 1023, 4095])
def test_ten_and_twelve_bits_in_sixteen_are_refused_with_what_to_do(suffix: str, channels: int, largest: int):
    values = np.zeros((20, 30, channels), np.uint16)
    values[5, 5] = largest
    data = cv2.imencode(suffix, values)[1].tobytes()
    with pytest.raises(
        ImageError, match=rf"largest value of this 16-bit image is {largest}, .* scale .* or send 8 bits"
    ):
        decode_image(data)
    values[5, 6] = 4096
    assert decode_image(cv2.imencode(suffix, values)[1].tobytes()).max() == 16


def test_twelve_bits_of_a_camera_scaled_to_sixteen_are_right(photo: Image.Image):
    twelve = np.asarray(photo).astype(np.uint16) * 16 + 7
    data = cv2.imencode(".png", (twelve << 4)[:, :, ::-1])[1].tobytes()
    np.testing.assert_array_equal(decode_image(data), np.asarray(photo))


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
    with pytest.raises(ImageError, match=r"32-bit values .* their white is not known; save it with 8 or 16 bits"):
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


@pytest.mark.parametrize("data", [b"", b"not an image", b"\x89PNG\r\n", b"GIF89a" + bytes(40)])
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


def test_metadata_of_any_size_is_skipped(photo: Image.Image):
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "x" * 2_000_000, zip=True)
    text.add_text("More", "x" * 2_000_000)
    text.add_itxt("XML:com.adobe.xmp", "<x>" + "y" * 1_500_000 + "</x>", zip=True)
    profile = np.random.default_rng(0).bytes(3_000_000)
    wanted = np.asarray(photo)
    np.testing.assert_array_equal(decode_image(encoded(photo, "PNG", pnginfo=text, icc_profile=profile)), wanted)
    np.testing.assert_array_equal(decode_image(encoded(photo, "TIFF", icc_profile=profile)), wanted)
    np.testing.assert_array_equal(decode_image(encoded(photo, "TIFF", tiffinfo={270: "x" * 2_000_000})), wanted)
    webp = encoded(photo, "WEBP", lossless=True, icc_profile=profile, xmp=b"x" * 2_000_000)
    np.testing.assert_array_equal(decode_image(webp), wanted)
    jpeg = encoded(photo, "JPEG")
    more = encoded(photo, "JPEG", icc_profile=profile, comment=b"x" * 60_000, xmp=b"x" * 60_000)
    np.testing.assert_array_equal(decode_image(more), decode_image(jpeg))


def test_metadata_that_is_damaged_does_not_matter(photo: Image.Image):
    png = encoded(photo, "PNG")
    for kind, data in (
        (b"zTXt", b"a\0\0not deflated"),
        (b"iCCP", b"\xff"),
        (b"tEXt", b""),
        (b"gAMA", b"\0"),
        (b"sRGB", b""),
    ):
        chunk = len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)
        np.testing.assert_array_equal(decode_image(png[:33] + chunk + png[33:]), np.asarray(photo))


@pytest.mark.parametrize(
    "block", [b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0", b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0"]
)
def test_the_orientation_is_found_in_every_format_and_byte_order(photo: Image.Image, block: bytes):
    upright = np.rot90(np.asarray(photo), -1)
    png = encoded(photo, "PNG")
    chunk = len(block).to_bytes(4) + b"eXIf" + block + zlib.crc32(b"eXIf" + block).to_bytes(4)
    for place in (33, len(png) - 12):  # before the pixels, and after
        np.testing.assert_array_equal(decode_image(png[:place] + chunk + png[place:]), upright)
    for file_format in ("JPEG", "WEBP"):
        data = encoded(photo, file_format, exif=b"Exif\0\0" + block, quality=100)
        assert np.abs(decode_image(data).astype(int) - upright).mean() < 6


def test_every_kept_file_of_the_fuzzing_is_an_image_or_refused_in_words():
    refusals, shapes = [], []
    with ZipFile(KEPT) as kept:
        for name in kept.namelist():
            try:
                shapes.append(decode_image(kept.read(name), max_pixels=1_000_000).shape)
            except ImageError as refusal:
                refusals.append(str(refusal))
    assert shapes
    assert all(len(shape) == 3 and shape[2] == 3 for shape in shapes)
    assert refusals
    assert min(len(sentence) for sentence in refusals) > 10
