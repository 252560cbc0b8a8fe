"""From an image to what the networks see. Training, calibration, evaluation and serving apply the same value.

Nothing here imports torch before a tensor is there, so a process that only decodes needs none.
"""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

if TYPE_CHECKING:
    import torch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Colour = Literal["rgb"]
Resize = Literal["stretch"]
Normalization = Literal["imagenet"]


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the pixels that the networks see. A card holds one.

    Attributes:
        size: side in pixels of the square.
        colour: order of the channels.
        resize: ``stretch`` takes the whole image and does not keep its aspect ratio.
        normalization: what `as_input` does to the pixels.
    """

    size: int
    colour: Colour = "rgb"
    resize: Resize = "stretch"
    normalization: Normalization = "imagenet"

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Stretches an image to the square.

        A side that is too long is averaged down (area), one that is too short is interpolated (bilinear).

        Args:
            image: uint8 RGB ``[H, W, 3]``.

        Returns:
            uint8 RGB ``[size, size, 3]``.
        """
        height, width = image.shape[:2]
        smaller = (min(width, self.size), min(height, self.size))
        image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
        return cv2.resize(image, (self.size, self.size), interpolation=cv2.INTER_LINEAR)


def as_input(pixels: "torch.Tensor") -> "torch.Tensor":
    """The networks' input, on the pixels' device.

    Args:
        pixels: uint8 RGB ``[N, H, W, 3]``.

    Returns:
        float32 ``[N, 3, H, W]``, normalised, in channels-last memory.
    """
    return normalize(unit_range(pixels))


def unit_range(pixels: "torch.Tensor") -> "torch.Tensor":
    """The first half of `as_input`, where gradients are taken: float32 RGB ``[N, 3, H, W]`` in [0, 1]."""
    return pixels.permute(0, 3, 1, 2).float().div(255)


def normalize(images: "torch.Tensor") -> "torch.Tensor":
    """The second half: from [0, 1] to what the teacher was pretrained on (ImageNet mean and deviation)."""
    mean, std = _imagenet_statistics(images.device)
    return (images - mean) / std


@cache
def _imagenet_statistics(device: "torch.device") -> "tuple[torch.Tensor, torch.Tensor]":
    import torch

    with torch.inference_mode(mode=False):  # kept for later calls, which may want gradients
        mean = torch.tensor(IMAGENET_MEAN, device=device)[:, None, None]
        return mean, torch.tensor(IMAGENET_STD, device=device)[:, None, None]
