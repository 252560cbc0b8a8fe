"""Defects of several kinds pasted on images of normal parts; `model.lifecycle.pasting` has the kind that was chosen."""

from collections.abc import Callable

import numpy as np

from model.lifecycle.pasting import STRENGTH, outline

Content = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""From an image, float32 ``[H, W, 3]`` in 0 to 255, to what fills the defect, of the same shape."""


def moved(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another place of the same image (CutPaste)."""
    height, width = image.shape[:2]
    shift = rng.integers(height // 4, 3 * height // 4), rng.integers(width // 4, 3 * width // 4)
    return np.roll(image, shift, axis=(0, 1))


def brightened(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Darker or brighter."""
    return image + 255 * rng.uniform(*STRENGTH) * rng.choice((-1, 1))


def tinted(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another colour."""
    direction = rng.normal(size=3)
    return image + 255 * rng.uniform(*STRENGTH) * direction / np.linalg.norm(direction)


def roughened(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise."""
    return image + 255 * rng.uniform(*STRENGTH) * rng.normal(size=(*image.shape[:2], 1))


CONTENTS: tuple[Content, ...] = (moved, brightened, tinted, roughened)


def pasted(image: np.ndarray, content: Content, rng: np.random.Generator) -> np.ndarray:
    """A uint8 RGB image ``[side, side, 3]`` with one defect on it."""
    pixels = image.astype(np.float32)
    mask = outline(len(image), rng)[..., None]
    return np.clip(pixels + mask * (content(pixels, rng) - pixels), 0, 255).round().astype(np.uint8)
