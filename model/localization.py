"""The anomaly map: from gradients (equations 4 and 5), from local distances, or from both."""

from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np

SIGMA_AT_128 = 4.0
"""Standard deviation of the Gaussian filter in pixels, for a map of 128x128; other sizes in proportion."""


class MapForm(StrEnum):
    """What an anomaly map shows.

    ``gradient``: equation 5, the gradient of equation 13. ``distance``: the distances between the two networks at
    each location, which need no gradient and so cost nothing. ``gradient-distance``: the gradient of their power mean,
    filtered as in equation 5, and the distances themselves, as the geometric mean of the two.
    """

    GRADIENT = "gradient"
    GRADIENT_DISTANCE = "gradient-distance"
    DISTANCE = "distance"


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
