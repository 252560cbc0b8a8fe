"""Reading images: the one way that training, calibration, evaluation and serving share."""

from pathlib import Path

import numpy as np

from model.choices import MAX_PIXELS
from model.formats import bmp, jpeg, png, tiff, webp
from model.formats.common import ImageError, ImageTooLargeError, Samples

__all__ = ["SUFFIXES", "ImageError", "ImageTooLargeError", "decode_image", "read_image"]

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".apng", ".bmp", ".dib", ".tif", ".tiff", ".webp")
)
"""In lower case, as Pillow has them for these formats, and as other programs call them."""
LEAST_WHITE = 4096
"""A 16-bit image whose largest value is below this has 12 bits or fewer, and does not say so."""
_BASE64 = (b"/9j/", b"iVBORw0KGgo", b"Qk", b"SUkq", b"TU0A", b"UklGR")
"""How JPEG, PNG, BMP, TIFF and WebP begin as base64."""
_ROWS = 256
"""Laid on white at a time, so that it takes little memory."""


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes JPEG, PNG, BMP, TIFF or WebP to uint8 RGB ``[H, W, 3]``.

    The EXIF orientation is applied. Greyscale, palette and CMYK become RGB; transparency is laid on white; of
    16-bit values the upper eight bits count; colour profiles are not applied. Of a multi-picture JPEG as phones write
    it the first picture counts; other files must hold one image. A layout that is not read exactly is refused.

    Raises:
        ImageTooLargeError: more than ``max_pixels`` pixels, a side of over a million, or parts without number, found
            before decoding.
        ImageError: not one whole image of these formats, or one of which it is not known what its values mean.
    """
    samples = _read(data, max_pixels)
    _check_white(samples.colour)
    colour = _upper_bits(_on_white(samples))
    if colour.ndim == 2:
        colour = np.repeat(colour[:, :, None], 3, axis=2)
    return np.ascontiguousarray(_upright(colour, samples.orientation))


def _read(data: bytes, max_pixels: int) -> Samples:
    if data.startswith(jpeg.SIGNATURE):
        return jpeg.read(data, max_pixels)
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


def _check_white(colour: np.ndarray) -> None:
    """Refuses 16-bit values that are 10- or 12-bit ones of a camera: they would be judged as nearly black."""
    if colour.dtype == np.uint16 and (largest := int(colour.max())) < LEAST_WHITE:
        raise ImageError(
            f"the largest value of this 16-bit image is {largest}, so it has 12 bits or fewer and does not say which "
            "value is white; let the camera or its driver scale the values to 16 bits, or send 8 bits"
        )


def _on_white(samples: Samples) -> np.ndarray:
    """The colour with what is clear made white, of the same type.

    An alpha channel that is the same everywhere says nothing of the picture and is ignored.

    Raises:
        ImageError: if nothing is more than half opaque.
    """
    colour, alpha = samples.colour, samples.alpha
    if alpha is None or alpha.min() == alpha.max():
        return colour
    white = np.iinfo(colour.dtype).max
    if alpha.dtype == bool:
        colour = colour.copy()
        colour[~alpha] = white
        return colour
    if alpha.max() <= white // 2:
        raise ImageError(
            f"the alpha channel hides the image (its largest value is {alpha.max()} of {white}); send it without alpha"
        )
    wide = np.uint16 if colour.dtype == np.uint8 else np.uint32
    found = np.empty(colour.shape, colour.dtype)
    for start in range(0, len(colour), _ROWS):
        rows = slice(start, start + _ROWS)
        opaque = alpha[rows].astype(wide)
        if colour.ndim == 3:
            opaque = opaque[:, :, None]
        found[rows] = (colour[rows] * opaque + white * (white - opaque) + white // 2) // white
    return found


def _upper_bits(colour: np.ndarray) -> np.ndarray:
    return (colour >> 8).astype(np.uint8) if colour.dtype == np.uint16 else colour


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turns and mirrors an image as EXIF's orientation says."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image


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
