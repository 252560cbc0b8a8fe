"""From the score's gradient to the anomaly map (equations 4 and 5)."""

import cv2
import numpy as np

SIGMA_AT_128 = 4.0
"""Standard deviation of the Gaussian filter in pixels, for a map of 128x128; other sizes in proportion."""


def anomaly_map(gradient: np.ndarray) -> np.ndarray:
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
