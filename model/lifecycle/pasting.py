"""Defects pasted on photographs of normal parts, to stand in for real ones where there are none yet."""

import cv2
import numpy as np

AREA = (0.002, 0.05)
"""Of a defect, as a share of the image; drawn evenly on a logarithmic scale."""

ASPECT = (0.25, 4.0)
"""Width over height; likewise."""

STRENGTH = (0.05, 0.4)
"""How much brighter or darker a defect is, as a share of the whole range."""

EDGE = 0.01
"""Standard deviation of the blur of a defect's edge, as a share of the image's side."""


def outline(side: int, rng: np.random.Generator) -> np.ndarray:
    """Where a defect is: a turned ellipse with soft edges, float32 ``[side, side]`` from 0 to 1."""
    area = np.exp(rng.uniform(*np.log(AREA))) * side**2
    aspect = np.exp(rng.uniform(*np.log(ASPECT)))
    axes = max(1, round(np.sqrt(area * aspect / np.pi))), max(1, round(np.sqrt(area / aspect / np.pi)))
    centre = rng.integers(side // 8, side - side // 8, size=2).tolist()
    inside = cv2.ellipse(np.zeros((side, side), np.float32), centre, axes, rng.uniform(0, 180), 0, 360, 1.0, -1)
    return cv2.GaussianBlur(inside, (0, 0), max(0.5, EDGE * side))


def paste_defect(image: np.ndarray, rng: np.random.Generator, mask: np.ndarray | None = None) -> np.ndarray:
    """The image with a turned ellipse on it that is brighter or darker, with soft edges.

    Args:
        image: uint8 RGB ``[side, side, 3]``.
        rng: where all chance comes from.
        mask: where the image counts, bool ``[side, side]``: the middle of the ellipse is moved there, and what does not
            count is not changed. None where all of it counts.
    """
    inside = outline(len(image), rng)
    if mask is not None:
        inside = _moved(inside, mask, rng) * mask
    change = 255 * rng.uniform(*STRENGTH) * rng.choice((-1, 1))
    changed: np.ndarray = np.clip(np.rint(image + change * inside[..., None]), 0, 255).astype(np.uint8)
    return changed


def _moved(inside: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The outline with its middle at a place of the mask that is drawn evenly."""
    middle = np.argwhere(inside == inside.max()).mean(axis=0)
    down, across = rng.choice(np.argwhere(mask)) - middle
    shift = np.array(((1, 0, across), (0, 1, down)), np.float64)
    moved: np.ndarray = cv2.warpAffine(inside, shift, inside.shape[::-1])
    return moved
