"""Reading images: the one way that training, calibration, evaluation and serving share."""

import io
import re
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from model.choices import MAX_PIXELS
from model.errors import ExpectedError

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".apng", ".bmp", ".dib", ".tif", ".tiff", ".webp")
)
"""In lower case, as Pillow has them for these formats, and as other programs call them."""
MAX_SIDE = 1_000_000
"""Pixels; libpng, which writes the heat map, knows no longer side."""
MAX_SCANS = 100
"""Of a progressive JPEG. Each costs time for every pixel and may be a few bytes; writers make about ten."""
MAX_PARTS = 50_000
"""Segments of a JPEG or chunks of a PNG. Each costs time and memory in Pillow, and may be a few bytes."""
_JPEG_MARKER = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])")  # not those inside of a scan or without a length
_END_OF_IMAGE, _START_OF_SCAN = b"\xd9", b"\xda"
_FILL = (127, 128)
"""What libjpeg puts in the place of what is missing, before its colours become others."""
_MORE = b"".join(
    [bytes(range(1, 255)), *(b"\xff" + bytes([restart]) + bytes(range(1, 255)) for restart in range(0xD0, 0xD8))]
)
"""Something that a scan can go on with."""


class ImageError(ExpectedError):
    """These bytes cannot be read as an image; the message says why."""


class ImageTooLargeError(ImageError):
    """The image declares more pixels than allowed; nothing was decoded."""


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes JPEG, PNG, BMP, TIFF or WebP to uint8 RGB ``[H, W, 3]``.

    The EXIF orientation is applied. Greyscale, palette and CMYK become RGB; transparency is laid on white; of
    16-bit values the upper eight bits count; colour profiles are not applied. Of a multi-picture JPEG as phones write
    it the first picture counts; other files must hold one image.

    Raises:
        ImageTooLargeError: more than ``max_pixels`` pixels, a side of over a million, or parts without number, found
            before decoding.
        ImageError: not one whole image of these formats.
    """
    _check_parts(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF tags and bombs; the size is checked here
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise ImageTooLargeError(f"{width}x{height} pixels are more than the {max_pixels} allowed")
                if max(width, height) > MAX_SIDE:
                    raise ImageTooLargeError(f"{width}x{height} pixels: a side is longer than the {MAX_SIDE} allowed")
                # Not n_frames, which walks through all pages of a TIFF.
                if getattr(image, "is_animated", False) and image.format != "MPO":
                    raise ImageError("the file holds several images; send one")
                image.load()
                if image.format in ("JPEG", "MPO") and _is_cut_off(image, data):
                    raise ImageError("the JPEG ends before its picture is whole")
                _turn_upright(image)
                return _to_rgb(image)
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageTooLargeError(f"the image declares more pixels than the {max_pixels} allowed") from None
    except UnidentifiedImageError:
        raise ImageError("not a JPEG, PNG, BMP, TIFF or WebP image") from None
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        raise ImageError(f"damaged or unsupported image: {error}") from error


def _is_cut_off(image: Image.Image, data: bytes) -> bool:
    """Whether a JPEG ends in order, but before its picture is whole.

    libjpeg says nothing and leaves the rest grey. Where the last corner is of that very grey, the file is read once
    more with something inserted before its end: that changes the picture only if it was not whole.
    """
    width, height = image.size
    corner = np.asarray(image.crop(((width - 1) // 8 * 8, (height - 1) // 8 * 8, width, height)))
    if not np.isin(corner, _FILL).all():
        return False
    place = 2
    while found := _JPEG_MARKER.search(data, place):
        if found[1] == _END_OF_IMAGE:
            longer = data[: found.start()] + _MORE + data[found.start() :]
            with Image.open(io.BytesIO(longer), formats=FORMATS) as other:
                return not np.array_equal(np.asarray(other), np.asarray(image))
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
    return False


def _check_parts(data: bytes) -> None:
    """Refuses small files that would keep a reader busy for hours: see `MAX_SCANS` and `MAX_PARTS`."""
    parts = scans = 0
    if data.startswith(b"\xff\xd8"):
        place = 2
        while parts <= MAX_PARTS and scans <= MAX_SCANS and (found := _JPEG_MARKER.search(data, place)):
            if found[1] == _END_OF_IMAGE:
                break
            parts += 1
            scans += found[1] == _START_OF_SCAN
            place = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        place = 8
        while parts <= MAX_PARTS and place < len(data):
            parts += 1
            place += 12 + int.from_bytes(data[place : place + 4])
    if scans > MAX_SCANS:
        raise ImageTooLargeError(f"the JPEG has more than the {MAX_SCANS} scans allowed")
    if parts > MAX_PARTS:
        raise ImageTooLargeError(f"the file has more than the {MAX_PARTS} parts allowed")


def _turn_upright(image: Image.Image) -> None:
    with suppress(Exception):  # a damaged EXIF block says nothing of the orientation
        ImageOps.exif_transpose(image, in_place=True)


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16"):
        sixteen_bit = np.asarray(image)
        grey = (sixteen_bit >> 8).astype(np.uint8)  # as Pillow does with 16-bit colour
        if (transparent := image.info.get("transparency")) is not None:
            grey[sixteen_bit == transparent] = 255
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ImageError(f"32-bit pixels (mode {image.mode}) have no defined white; send 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def read_image(path: Path) -> np.ndarray:
    """Reads an image file of any size; see `decode_image`.

    Raises:
        ImageError: as `decode_image`, or the file cannot be opened; the message names the file.
    """
    try:
        return decode_image(path.read_bytes())
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from None
    except ImageError as error:
        raise type(error)(f"{path}: {error}") from None
