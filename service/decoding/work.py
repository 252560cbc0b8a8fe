"""What is done with an image file, in a worker process or in this one. Imports neither torch nor the web packages."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

import cv2
import numpy as np

from model.alignment import Found
from model.formats.jpeg import scale_for
from model.images import Photograph, decode_photograph
from model.preprocessing import Prepared
from model.reading import Reading


class Step(Protocol):
    """What happens to a decoded image, such as `model.preprocessing.Preprocessing`."""

    @property
    def reading(self) -> Reading:
        """What the values of the file mean."""

    def scale(self, width: int, height: int) -> int:
        """At which fraction of its width and height a JPEG is decoded, see `Preprocessing.scale`."""

    def prepare(self, photograph: Photograph) -> Prepared:
        """From uint8 RGB ``[H, W, 3]``, or grey ``[H, W]``, to RGB of another size, or several, ``[V, h, w, 3]``."""


@dataclass(frozen=True)
class Shrink:
    """Makes an image as small as it is drawn; sides in pixels."""

    width: int
    height: int
    reading: Reading

    def scale(self, width: int, height: int) -> int:
        """At which fraction of its width and height a JPEG is decoded."""
        return scale_for(width, height, min(width / self.width, height / self.height))

    def prepare(self, photograph: Photograph) -> Prepared:
        """From uint8 RGB ``[H, W, 3]``, or grey ``[H, W]``, to RGB ``[height, width, 3]``, averaged."""
        image = cv2.resize(photograph.pixels, (self.width, self.height), interpolation=cv2.INTER_AREA)
        return Prepared(image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), None)


@dataclass(frozen=True)
class Picture:
    """A decoded image after a step, and what its file was.

    Attributes:
        pixels: uint8 RGB ``[h, w, 3]`` or ``[V, h, w, 3]``, what the step made.
        width: of the image itself, upright, pixels.
        height: the same.
        sha256: of the file, hexadecimal.
        pose: of its part; None where pictures are not aligned.
    """

    pixels: np.ndarray
    width: int
    height: int
    sha256: str
    pose: Found | None = None


def read_picture(data: bytes, step: Step, max_pixels: int) -> Picture:
    """Decodes an image and applies a step.

    Raises:
        ImageError: see `model.images.decode_image`.
    """
    photograph = decode_photograph(data, max_pixels, step.reading, step.scale)
    pixels, pose = step.prepare(photograph)
    return Picture(pixels, photograph.width, photograph.height, sha256(data).hexdigest(), pose)
