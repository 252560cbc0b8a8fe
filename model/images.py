"""Reading images: the one way that training, calibration, evaluation and serving share."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from model.choices import MAX_PIXELS
from model.formats import bmp, jpeg, png, tiff, webp
from model.formats.common import TRANSPOSED, ImageError, ImageTooLargeError, Reduction, Samples
from model.reading import Reading, extremes_of, pixels_of

__all__ = [
    "SUFFIXES",
    "ImageError",
    "ImageTooLargeError",
    "Photograph",
    "decode_image",
    "decode_photograph",
    "extremes",
    "read_image",
    "read_photograph",
    "size_of",
]

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".apng", ".bmp", ".dib", ".tif", ".tiff", ".webp")
)
"""In lower case, as Pillow has them for these formats, and as other programs call them."""
_BASE64 = (b"/9j/", b"iVBORw0KGgo", b"Qk", b"SUkq", b"TU0A", b"UklGR")
"""How JPEG, PNG, BMP, TIFF and WebP begin as base64."""


class Photograph(NamedTuple):
    """A decoded picture, upright.

    Attributes:
        pixels: uint8 RGB ``[H, W, 3]``, or grey ``[H, W]``.
        scale: each of them is the mean of so many pixels of the file, squared.
    """

    pixels: np.ndarray
    scale: int = 1

    @property
    def width(self) -> int:
        """Of the picture in the file, pixels."""
        return int(self.pixels.shape[1]) * self.scale

    @property
    def height(self) -> int:
        """Of the picture in the file, pixels."""
        return int(self.pixels.shape[0]) * self.scale


def decode_photograph(
    data: bytes, max_pixels: int = MAX_PIXELS, reading: Reading = Reading(), reduction: Reduction | None = None
) -> Photograph:
    """The same as `decode_image`, but a JPEG may be decoded at a fraction of its size.

    Raises:
        ImageError, ImageTooLargeError: see `decode_image`.
    """
    if reading.bayer is not None and not data.startswith((png.SIGNATURE, *tiff.SIGNATURES)):
        raise ImageError(
            f"this category is inspected on raw sensor data ({reading.bayer.value}), which only PNG and TIFF keep; "
            "send the raw image in one of these formats"
        )
    samples = _read(data, max_pixels, reduction)
    return Photograph(pixels_of(samples, reading), samples.scale)


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS, reading: Reading = Reading()) -> np.ndarray:
    """Decodes JPEG, PNG, BMP, TIFF or WebP to uint8 RGB ``[H, W, 3]``, or to ``[H, W]`` where the reading wants grey.

    The EXIF orientation is applied. Greyscale, palette and CMYK become RGB; transparency is laid on white; of
    16-bit values the upper eight bits count, unless the reading has levels; colour profiles are not applied. Of a
    multi-picture JPEG as phones write it the first picture counts; other files must hold one image. A layout that is
    not read exactly is refused.

    Args:
        data: the file.
        max_pixels: most pixels that it may declare.
        reading: what its values mean, see `model.reading.pixels_of`.

    Raises:
        ImageTooLargeError: more than ``max_pixels`` pixels, a side of over a million, or parts without number, found
            before decoding.
        ImageError: not one whole image of these formats, or one of which it is not known what its values mean.
    """
    return decode_photograph(data, max_pixels, reading).pixels


def extremes(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int] | None:
    """The smallest and the largest value of a file of more than 8 bits, as it has them; None of 8 bits or fewer.

    Raises:
        ImageError, ImageTooLargeError: see `decode_image`.
    """
    return extremes_of(_read(data, max_pixels))


def size_of(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height in pixels of the upright picture, whatever its values mean.

    Raises:
        ImageError, ImageTooLargeError: see `decode_image`.
    """
    samples = _read(data, max_pixels)
    height, width = samples.colour.shape[:2]
    return (height, width) if samples.orientation in TRANSPOSED else (width, height)


def _read(data: bytes, max_pixels: int, reduction: Reduction | None = None) -> Samples:
    if data.startswith(jpeg.SIGNATURE):
        return jpeg.read(data, max_pixels, reduction)
    if data.startswith(png.SIGNATURE):
        return png.read(data, max_pixels)
    if data.startswith(tiff.SIGNATURES):
        return tiff.read(data, max_pixels)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return webp.read(data, max_pixels)
    if data.startswith(bmp.SIGNATURE):
        return bmp.read(data, max_pixels)
    raise ImageError("not a JPEG, PNG, BMP, TIFF or WebP image" + _what_else(data))


def _what_else(data: bytes) -> str:
    """A hint for the usual mistakes: an image as text."""
    start = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n\"'")  # a byte order mark, white space, quotes
    if start[:5].lower() == b"data:":
        return "; this is a data URL: send the bytes that it encodes"
    if start.startswith(_BASE64):
        return "; this is base64 text: send the bytes that it encodes"
    return ""


def read_image(path: Path, reading: Reading = Reading()) -> np.ndarray:
    """Reads an image file of any size; see `decode_image`.

    Raises:
        ImageError: as `decode_image`, or the file cannot be opened; the message names the file.
    """
    return read_photograph(path, reading).pixels


def read_photograph(path: Path, reading: Reading, reduction: Reduction | None = None) -> Photograph:
    """Reads an image file of any size; see `decode_photograph`.

    Raises:
        ImageError: see `read_image`.
    """
    try:
        return decode_photograph(path.read_bytes(), reading=reading, reduction=reduction)
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from None
    except ImageError as error:
        raise type(error)(f"{path}: {error}") from None
