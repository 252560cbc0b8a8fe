"""What the readers of all formats share: what they give back, how they refuse, and what they ask Pillow and OpenCV."""

import io
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from model.errors import ExpectedError

MAX_SIDE = 1_000_000
"""Pixels; OpenCV and libpng know no longer side."""
MAX_PARTS = 50_000
"""Segments, chunks, strips or tiles of a file. Each costs time, and may be a few bytes."""
TRANSPOSED = frozenset((5, 6, 7, 8))
"""Orientations of EXIF whose rows are the columns of the upright picture."""
FREE_PIXELS = 4_194_304
PIXELS_PER_BYTE = 2_000
"""An image may have ``FREE_PIXELS``, and more if its file is as long as a picture of something real: not even one grey
value everywhere takes less than a byte for 1,032 pixels in a PNG. Files of a few bytes would cost a second each."""

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # a damaged image is no event for stderr


class ImageError(ExpectedError):
    """These bytes cannot be read as an image; the message says why."""


class ImageTooLargeError(ImageError):
    """The image declares more than is allowed; nothing was decoded."""


Reduction = Callable[[int, int], int]
"""From width and height of an upright picture, pixels, to the fraction of them at which it may be decoded: 1, or one of
`model.formats.jpeg.SCALES` for 1/2, 1/4 or 1/8."""


@dataclass(frozen=True)
class Samples:
    """What a file holds.

    Attributes:
        colour: uint8 or uint16, grey ``[H, W]`` or RGB ``[H, W, 3]``.
        alpha: of the same type, 0 is clear, or bool, False is clear; ``[H, W]``. None if all is opaque.
        orientation: as EXIF numbers it, 1 to 8.
        bits: of each uint16 value of ``colour``; 16, unless the file says that there are fewer.
        scale: the picture in the file has so many times this width and height, see `model.formats.jpeg.read`.
    """

    colour: np.ndarray
    alpha: np.ndarray | None = None
    orientation: int = 1
    bits: int = 16
    scale: int = 1


def damaged(name: str) -> ImageError:
    """What to raise where a library gives up on a file of this format."""
    return ImageError(f"the {name} is damaged or cut short")


def too_many_parts(name: str) -> ImageTooLargeError:
    """What to raise for a file of more than `MAX_PARTS` parts."""
    return ImageTooLargeError(f"the {name} has more than the {MAX_PARTS} parts allowed")


def check_size(width: int, height: int, length: int, max_pixels: int) -> None:
    """Refuses an image before it is decoded.

    Args:
        width: in pixels, as declared.
        height: the same.
        length: of the file in bytes.
        max_pixels: most pixels allowed.

    Raises:
        ImageError: if a side is 0 or less.
        ImageTooLargeError: if there are too many pixels, or more than a file of that length can mean.
    """
    size = f"{width}x{height} pixels"
    if width < 1 or height < 1:
        raise ImageError(f"the file declares an image of {size}")
    if width * height > max_pixels:
        raise ImageTooLargeError(f"{size} are more than the {max_pixels} allowed")
    if max(width, height) > MAX_SIDE:
        raise ImageTooLargeError(f"{size}: a side is longer than the {MAX_SIDE} allowed")
    if width * height > max(FREE_PIXELS, PIXELS_PER_BYTE * length):
        raise ImageTooLargeError(f"{size} are too many for a file of {length} bytes")


def open_with_pillow(data: bytes, name: str, scale: int = 1) -> Image.Image:
    """A decoded image.

    Args:
        data: the file.
        name: of its format, as Pillow has it.
        scale: of a JPEG: 2, 4 or 8 decode a half, a quarter or an eighth of its width and height. Each side must be
            a multiple of it.

    Raises:
        ImageError: if the file is damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images; `check_size` knows the limit
            image = Image.open(io.BytesIO(data), formats=(name,))
            if scale > 1:
                image.draft(None, (image.width // scale, image.height // scale))
            image.load()
            return image
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        raise damaged("WebP" if name == "WEBP" else name) from error


def open_with_opencv(data: bytes, name: str) -> np.ndarray:
    """A decoded image of 16-bit values, uint16 grey ``[H, W]`` or BGR or BGRA ``[H, W, 3 or 4]``.

    Raises:
        ImageError: if the file is damaged.
    """
    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise MemoryError if error.code == cv2.Error.StsNoMem else damaged(name) from error
    if found is None or found.dtype != np.uint16:
        raise damaged(name)
    return found


def split(image: Image.Image) -> Samples:
    """Colour and alpha of Pillow's image in any mode of up to 8 bits but a palette."""
    if image.mode in ("L", "RGB"):
        return Samples(np.asarray(image))
    if image.mode in ("LA", "RGBA"):
        both = np.asarray(image)
        colour = both[:, :, 0] if image.mode == "LA" else both[:, :, :3]
        return Samples(colour, both[:, :, -1])
    if image.mode == "1":
        return Samples(np.asarray(image.convert("L")))
    if image.mode == "CMYK":
        return Samples(np.asarray(image.convert("RGB")))
    raise ImageError("the pixels are of a kind that is not read; save the image as 8-bit greyscale or RGB")


def exif_orientation(block: bytes) -> int:
    """The orientation in an EXIF block, 1 to 8; 1 where it says nothing that makes sense."""
    block = block.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 8:
        return 1
    (start,) = struct.unpack_from(f"{order}I", block, 4)
    if start + 2 > len(block):
        return 1
    (count,) = struct.unpack_from(f"{order}H", block, start)
    for place in range(start + 2, min(start + 2 + 12 * count, len(block) - 11), 12):
        tag, kind, number = struct.unpack_from(f"{order}HHI", block, place)
        if tag == 274:
            code = {1: "B", 3: "H", 4: "I"}.get(kind)
            if code is None or number != 1:
                return 1
            (value,) = struct.unpack_from(f"{order}{code}", block, place + 8)
            return value if 1 <= value <= 8 else 1
    return 1
