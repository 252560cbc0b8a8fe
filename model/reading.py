"""What the values of an image file mean: from its samples to 8-bit pixels. A category's card says how."""

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from model.choices import Bayer, Colour
from model.errors import ExpectedError
from model.formats.common import TRANSPOSED, ImageError, Samples

LEAST_WHITE = 4096
"""A 16-bit image whose largest value is below this has 12 bits or fewer, and does not say so."""
DARKEST = 16
"""Where the levels are known, an image is refused if all of it is darker than this part of the range."""
MAX_LEVEL = 65535
"""Of 16-bit values."""
_ROWS = 256
"""Laid on white at a time, so that it takes little memory."""
_MOSAICS = {
    Bayer.RGGB: (cv2.COLOR_BayerRGGB2RGB, cv2.COLOR_BayerRGGB2GRAY),
    Bayer.BGGR: (cv2.COLOR_BayerBGGR2RGB, cv2.COLOR_BayerBGGR2GRAY),
    Bayer.GRBG: (cv2.COLOR_BayerGRBG2RGB, cv2.COLOR_BayerGRBG2GRAY),
    Bayer.GBRG: (cv2.COLOR_BayerGBRG2RGB, cv2.COLOR_BayerGBRG2GRAY),
}
SMALLEST_MOSAIC = 4
"""Pixels of a side of raw sensor data; of fewer OpenCV makes no colours."""


class LevelsError(ExpectedError):
    """A black and a white level that cannot be."""


@dataclass(frozen=True)
class Levels:
    """Which values of a camera are black and white, in files of more than 8 bits.

    Attributes:
        white: the largest value that the camera gives, 65535 at most; 1023, 4095 and 16383 with 10, 12 and 14 bits.
        black: the value that it gives without light, below ``white``.

    Raises:
        LevelsError: if they are no such values.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    white: int
    black: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.black < self.white <= MAX_LEVEL:
            raise LevelsError(
                f"the black level must be at least 0 and below the white level, and that at most {MAX_LEVEL}; they are "
                f"{self.black} and {self.white}"
            )


@dataclass(frozen=True)
class Reading:
    """How the values of a file become pixels; part of a `model.preprocessing.Preprocessing`.

    Attributes:
        colour: which channels there are.
        levels: of a camera of more than 8 bits; without them 16-bit values lose their lower byte.
        bayer: where the colours are in raw sensor data; None for all other images.
    """

    colour: Colour = Colour.RGB
    levels: Levels | None = None
    bayer: Bayer | None = None


def pixels_of(samples: Samples, reading: Reading) -> np.ndarray:
    """The upright picture: uint8 RGB ``[H, W, 3]``, or ``[H, W]`` if only grey is wanted.

    Transparency is laid on white. With levels the value v becomes 255 (v - black) / (white - black), rounded and
    clipped. Grey of RGB has the weights of ITU-R BT.601.

    Raises:
        ImageError: if the values do not fit the levels, are no raw sensor data where these are wanted, or are those of
            a camera of 10 or 12 bits and no levels are known; or if the alpha channel hides the picture.
    """
    if reading.bayer is not None:
        _check_mosaic(samples, reading.bayer)
    pixels = _eight_bits(samples, reading.levels)
    if reading.bayer is not None:
        pixels = cv2.cvtColor(pixels, _MOSAICS[reading.bayer][reading.colour is Colour.GRAY])
    elif reading.colour is Colour.GRAY and pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    elif reading.colour is Colour.RGB and pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    return np.ascontiguousarray(_upright(pixels, samples.orientation))


def extremes_of(samples: Samples) -> tuple[int, int] | None:
    """The smallest and the largest value that is not fully transparent; None of 8-bit values."""
    if samples.colour.dtype == np.uint8:
        return None
    colour, alpha = samples.colour, samples.alpha
    if alpha is not None and alpha.min() != alpha.max():
        colour = colour[alpha > 0]
    return int(colour.min()), int(colour.max())


def _check_mosaic(samples: Samples, bayer: Bayer) -> None:
    wanted = f"this category is inspected on raw sensor data ({bayer.value})"
    if samples.colour.ndim != 2 or samples.alpha is not None:
        raise ImageError(f"{wanted}, one value per pixel; this image has colours or transparency: send the raw image")
    if min(samples.colour.shape) < SMALLEST_MOSAIC:
        raise ImageError(f"{wanted}; a side of this image has fewer than {SMALLEST_MOSAIC} pixels")


def _eight_bits(samples: Samples, levels: Levels | None) -> np.ndarray:
    if levels is None:
        _check_white(samples)
        colour = _on_white(samples, np.iinfo(samples.colour.dtype).max)
        return (colour >> (samples.bits - 8)).astype(np.uint8) if colour.dtype == np.uint16 else colour
    if samples.colour.dtype != np.uint16:
        raise ImageError(
            f"this image has 8 bits per value, and its category is inspected on a camera's values up to {levels.white}"
            "; send the camera's image as a 16-bit PNG or TIFF"
        )
    colour = _on_white(samples, levels.white)
    _check_range(int(colour.max()), levels)
    if levels.black:
        colour = np.maximum(colour, np.uint16(levels.black)) - np.uint16(levels.black)
    return cv2.convertScaleAbs(colour, alpha=255 / (levels.white - levels.black))


def _check_white(samples: Samples) -> None:
    """Refuses 16-bit values that are 10- or 12-bit ones of a camera: they would be judged as nearly black."""
    if samples.colour.dtype != np.uint16 or samples.bits < 16:
        return
    if (largest := int(samples.colour.max())) < LEAST_WHITE:
        raise ImageError(
            f"the largest value of this 16-bit image is {largest}, so it has 12 bits or fewer and does not say which "
            "value is white; train the category with a white level, let the camera or its driver scale the values to "
            "16 bits, or send 8 bits"
        )


def _check_range(largest: int, levels: Levels) -> None:
    if largest > levels.white:
        raise ImageError(
            f"the largest value of this image is {largest}, above {levels.white}, the white level of its category: it "
            "comes from another camera or in another format; set the camera as it was when the category was trained, "
            "or train the category with a higher white level"
        )
    if DARKEST * (largest - levels.black) < levels.white - levels.black:
        raise ImageError(
            f"the largest value of this image is {largest}, which is nearly black where {levels.white} is white; check "
            "the light and the exposure, and whether the camera gives as many bits as when the category was trained; "
            "if good parts are this dark, train the category with a lower white level"
        )


def _on_white(samples: Samples, white: int) -> np.ndarray:
    """The colour with what is clear made white, of the same type.

    An alpha channel that is the same everywhere says nothing of the picture and is ignored.

    Raises:
        ImageError: if nothing is more than half opaque.
    """
    colour, alpha = samples.colour, samples.alpha
    if alpha is None or alpha.min() == alpha.max():
        return colour
    if alpha.dtype == bool:
        colour = colour.copy()
        colour[~alpha] = white
        return colour
    full = np.iinfo(alpha.dtype).max
    if alpha.max() <= full // 2:
        raise ImageError(
            f"the alpha channel hides the image (its largest value is {alpha.max()} of {full}); send it without alpha"
        )
    wide = np.uint16 if colour.dtype == np.uint8 else np.uint32
    found = np.empty(colour.shape, colour.dtype)
    for start in range(0, len(colour), _ROWS):
        rows = slice(start, start + _ROWS)
        opaque = alpha[rows].astype(wide)
        if colour.ndim == 3:
            opaque = opaque[:, :, None]
        found[rows] = (colour[rows] * opaque + white * (full - opaque) + full // 2) // full
    return found


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turns and mirrors an image as EXIF's orientation says."""
    if orientation in TRANSPOSED:
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image
