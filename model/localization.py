"""The anomaly map: from gradients (equations 4 and 5), from local distances, or from both."""

from dataclasses import dataclass

import cv2
import numpy as np

from model.choices import MapForm

SIGMA_AT_128 = 4.0
"""Standard deviation of the Gaussian filter in pixels, for a map of 128x128; other sizes in proportion."""

EDGE = 0.65
"""Where a fault ends, as a share of its peak. The filter spreads a fault far beyond its edge, so the level of normal
parts alone would mark about ten times its area (see ``benchmarks/masks.py``)."""

STEPS = 4
"""Levels that are tried between a peak and its edge; more only cost time."""


@dataclass(frozen=True)
class Evidence:
    """What one image's anomaly map is made of.

    Attributes:
        form: of the map.
        shape: of the map, H and W in pixels.
        distances: float32 ``[h, w]``, see `model.score.Scored`.
        gradient: float32 ``[H, W]``, equation 4, of what the form says; None where it needs none.
    """

    form: MapForm
    shape: tuple[int, int]
    distances: np.ndarray
    gradient: np.ndarray | None

    def anomaly_map(self) -> np.ndarray:
        """float32 ``[H, W]``, at least 0. Forms differ in unit; a card has a scale for each."""
        if self.form is MapForm.GRADIENT:
            return self._filtered()
        distances = cv2.resize(self.distances, self.shape[::-1], interpolation=cv2.INTER_LINEAR)
        return distances if self.form is MapForm.DISTANCE else np.sqrt(self._filtered() * distances)

    def _filtered(self) -> np.ndarray:
        assert self.gradient is not None
        return filtered(self.gradient)


def filtered(gradient: np.ndarray) -> np.ndarray:
    """Equation 5: Gaussian filter, then morphological opening with a 3x3 ellipse.

    Args:
        gradient: absolute gradient of the score at the input image summed over colour (equation 4), float32 ``[H, W]``.

    Returns:
        float32 ``[H, W]``, at least 0, in score units per unit of pixel value.
    """
    sigma = SIGMA_AT_128 * max(gradient.shape) / 128
    smooth = cv2.GaussianBlur(gradient, ksize=(0, 0), sigmaX=sigma, borderType=cv2.BORDER_REFLECT_101)
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    return cv2.morphologyEx(smooth, cv2.MORPH_OPEN, ellipse)


def fault_mask(relative: np.ndarray, width: int, height: int) -> np.ndarray:
    """Marks the faults of an anomaly map: each peak above the level of normal parts, down to `EDGE` of that peak.

    A weaker peak is a fault of its own where the map falls below its edge before it reaches a stronger one. So a faint
    fault beside a plain one keeps its place.

    Args:
        relative: anomaly map in multiples of what normal parts show, float32 ``[h, w]``.
        width: of the mask, pixels.
        height: of the mask, pixels.

    Returns:
        bool ``[height, width]``.
    """
    highest = float(relative.max())
    inside = np.zeros_like(relative)  # the map in multiples of the edge of the fault that it belongs to
    marked = np.zeros(relative.shape, np.uint8)
    level = max(1.0, EDGE * highest)
    while level < highest:
        count, labels, boxes, _ = cv2.connectedComponentsWithStats((relative > level).view(np.uint8))
        for label in range(1, count):
            x, y, w, h, _ = boxes[label]
            part = np.s_[y : y + h, x : x + w]
            fault = labels[part] == label
            if not marked[part][fault].any() and level <= max(1.0, EDGE * float(relative[part][fault].max())):
                marked[part][fault] = 1
                # A rim of two pixels, so that the edge lies between pixels when the map is enlarged.
                rim = cv2.dilate((labels == label).view(np.uint8), np.ones((5, 5), np.uint8)).view(bool)
                inside = np.where(rim, np.maximum(inside, relative / np.float32(level)), inside)
        if level == 1.0:
            break
        level = max(1.0, level * EDGE ** (1 / STEPS))
    enlarged: np.ndarray = cv2.resize(inside, (width, height), interpolation=cv2.INTER_LINEAR) > 1
    return enlarged
