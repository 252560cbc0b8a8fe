"""The check of a picture: whether it is as bright, as rich in contrast, as sharp and as wide as those of good parts.

The score alone lets an empty, dark or blurred picture pass: where there is nothing to see, student and teacher agree.
What a picture of another shape shows is squeezed, or is a sliver of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import cv2
import numpy as np

from model.choices import Reason
from model.preprocessing import LUMA, brightness

DEVIATIONS = 6
"""Of the logarithm of a measure, between the mean of good parts and what is refused. Chosen, as are the other numbers,
on magnetic tile, casting, leather, generated plates and bolts; ``benchmarks/quality.py`` measures what they do."""
FEW = 4
"""With N parts their deviation is not known well, so it counts 1 + FEW / N times."""
LEAST_FACTORS = {"brightness": 1.5, "contrast": 2.0, "sharpness": 1.28, "aspect_ratio": 1.5}
"""By which a measure may differ from the mean of good parts at least, however alike these are."""
NOISE = 1.0
"""Differences of neighbouring pixels that are no more than this, of 255, say nothing."""
LEAST = 1e-3
"""Of a measure, so that it has a logarithm."""


class Look(NamedTuple):
    """Plain measures of a picture where it counts.

    Attributes:
        brightness: mean, 0 to 255.
        contrast: standard deviation of the brightness, 0 to 127.5.
        sharpness: fine detail as a share of all detail: the deviation of the Laplacian over the root of the mean
            squared gradient, so that neither light nor contrast changes it.
        aspect_ratio: width over height of the file's picture.
    """

    brightness: float
    contrast: float
    sharpness: float
    aspect_ratio: float


def look_of(pixels: np.ndarray, aspect_ratio: float, masks: np.ndarray | None = None) -> Look:
    """The measures of a picture.

    Args:
        pixels: of its views, uint8 RGB ``[V, size, size, 3]``.
        aspect_ratio: see `Look`.
        masks: where they count, bool ``[V, size, size]``; None where they count everywhere.
    """
    grey = pixels.astype(np.float32) @ np.array(LUMA, np.float32)
    counted = np.ones(grey.shape, bool) if masks is None else masks
    inner = np.zeros(grey.shape, np.uint8)
    for view, mask in zip(inner, counted, strict=True):  # whose neighbours count too
        view[1:-1, 1:-1] = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8))[1:-1, 1:-1]
    where = inner.astype(bool) if inner.any() else counted
    laplacian = np.stack([cv2.Laplacian(view, cv2.CV_32F) for view in grey])[where]
    across, down = (np.diff(grey, axis=axis, append=grey[:, -1:] if axis == 1 else grey[:, :, -1:]) for axis in (1, 2))
    gradient = np.mean(across[where] ** 2 + down[where] ** 2, dtype=np.float64)
    return Look(
        brightness(pixels, masks),
        float(grey[counted].std(dtype=np.float64)),
        float(laplacian.std(dtype=np.float64) / math.sqrt(gradient + NOISE**2)),
        aspect_ratio,
    )


@dataclass(frozen=True)
class PictureCheck:
    """Between which measures the pictures of good parts lie.

    Attributes:
        least_brightness: what is below is too dark.
        most_brightness: what is above is too bright.
        least_contrast: what is below has too little contrast.
        least_sharpness: what is below is blurred.
        least_aspect_ratio: what is below is too high for its width; None in older cards, which take every shape.
        most_aspect_ratio: what is above is too wide for its height; None as before.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    least_brightness: float
    most_brightness: float
    least_contrast: float
    least_sharpness: float
    least_aspect_ratio: float | None = None
    most_aspect_ratio: float | None = None

    @classmethod
    def of(cls, looks: Sequence[Look]) -> Self:
        """The check that practically every picture passes that is like those of these good parts, one at least."""
        low, high = zip(*(_range(name, [getattr(one, name) for one in looks]) for name in Look._fields), strict=True)
        return cls(low[0], high[0], low[1], low[2], low[3], high[3])

    def widened(self, looks: Sequence[Look]) -> "PictureCheck":
        """The check that also pictures pass which are as dark, as bright, as flat, as blurred or as wide as these."""
        ratios = [one.aspect_ratio for one in looks]
        least, most = self.least_aspect_ratio, self.most_aspect_ratio
        return PictureCheck(
            min(self.least_brightness, *(one.brightness for one in looks)),
            max(self.most_brightness, *(one.brightness for one in looks)),
            min(self.least_contrast, *(one.contrast for one in looks)),
            min(self.least_sharpness, *(one.sharpness for one in looks)),
            None if least is None else min(least, *ratios),
            None if most is None else max(most, *ratios),
        )

    def reasons(self, look: Look) -> list[Reason]:
        """What is wrong with a picture; empty if nothing is."""
        wrong = {
            Reason.TOO_DARK: look.brightness < self.least_brightness,
            Reason.TOO_BRIGHT: look.brightness > self.most_brightness,
            Reason.TOO_LITTLE_CONTRAST: look.contrast < self.least_contrast,
            Reason.BLURRED: look.sharpness < self.least_sharpness,
            Reason.WRONG_SHAPE: look.aspect_ratio < (self.least_aspect_ratio or 0)
            or look.aspect_ratio > (self.most_aspect_ratio or math.inf),
        }
        return [reason for reason, is_so in wrong.items() if is_so]


def _range(name: str, values: Sequence[float]) -> tuple[float, float]:
    logs = np.log(np.maximum(values, LEAST))
    spread = logs.std(ddof=1) if len(logs) > 1 else 0.0
    width = max(DEVIATIONS * (1 + FEW / len(logs)) * spread, math.log(LEAST_FACTORS[name]))
    return _rounded(math.exp(logs.mean() - width)), _rounded(math.exp(logs.mean() + width))


def _rounded(value: float) -> float:
    """To six digits, for people who read the card."""
    return float(f"{value:.6g}")
