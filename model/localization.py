"""The anomaly map: from gradients (equations 4 and 5), from local distances, or from both."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from model.choices import MapForm

SIGMA_AT_128 = 4.0
"""Standard deviation of the Gaussian filter in pixels, for a map of 128x128; other sizes in proportion."""

EDGE = 0.65
"""Where a fault ends in the map, as a share of its peak. The filter spreads a fault far beyond its edge, so the level
of normal parts alone would mark about ten times its area (see ``benchmarks/masks.py``)."""

STEPS = 4
"""Levels that are tried between a peak and its edge; more only cost time."""

SURROUNDINGS = 0.75
LEAST_SURROUNDINGS = 8
"""How much of the photograph around a fault it is compared with: a share of its longer side, and pixels at least."""
RIM = 4
"""Pixels by which an outline may lie outside of what the map shows."""
LEAST_PIXELS = 10
"""Of a fault, and of its surroundings, to compare their colours."""
LEAST_SHARE = 0.1
"""Of what the map shows: an outline around less is not that of the fault."""
OUTLINE_ROUNDS = 2
MAX_OUTLINED_SIDE = 128
"""Pixels; larger parts of a map are made smaller for this, so that it never takes long."""


@dataclass(frozen=True)
class Evidence:
    """What one image's anomaly map is made of.

    Attributes:
        form: of the map.
        shape: of the map, H and W in pixels.
        distances: float32 ``[h, w]``, see `model.score.Scored`.
        gradient: float32 ``[H, W]``, equation 4, of what the form says; None where it needs none.
        mask: where the image counts, bool ``[H, W]``; None where all of it does.
    """

    form: MapForm
    shape: tuple[int, int]
    distances: np.ndarray
    gradient: np.ndarray | None
    mask: np.ndarray | None = None

    def anomaly_map(self) -> np.ndarray:
        """float32 ``[H, W]``, at least 0, and 0 where the image does not count. Forms differ in unit; a card has a
        scale for each."""
        found = self._everywhere()
        return found if self.mask is None else found * self.mask

    def _everywhere(self) -> np.ndarray:
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


def fault_mask(relative: np.ndarray, pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """The faults of an anomaly map, see `faults_of`, `enlarged` to bool ``[height, width]``."""
    return enlarged(faults_of(relative, pixels), width, height)


def faults_of(relative: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Marks the faults of an anomaly map: each peak above the level of normal parts, down to `EDGE` of that peak.

    A weaker peak is a fault of its own where the map falls below its edge before it reaches a stronger one. So a faint
    fault next to a plain one keeps its place. The map shows where a fault is, but spreads it. The outline comes from
    the photograph, see `outlined`.

    Args:
        relative: anomaly map in multiples of what normal parts show, float32 ``[h, w]``.
        pixels: what the networks saw, uint8 RGB ``[h, w, 3]``.

    Returns:
        bool ``[h, w]``.
    """
    faults = np.zeros(relative.shape, bool)
    for part, fault in _faults(relative):
        faults[part] |= outlined(pixels[part], fault)
    return faults


def enlarged(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """A mask, bool ``[h, w]``, at another size, bool ``[height, width]``: where interpolation gives more than half."""
    # In eight bits: a large mask in floating point would take four times its memory.
    levels = cv2.resize(mask.view(np.uint8) * np.uint8(255), (width, height), interpolation=cv2.INTER_LINEAR)
    found: np.ndarray = levels > 127
    return found


def _faults(relative: np.ndarray) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
    """The faults, strongest first: a rectangle of the map with the fault's surroundings, and the fault in it, bool."""
    highest = float(relative.max())
    marked = np.zeros(relative.shape, bool)
    level = max(1.0, EDGE * highest)
    while level < highest:
        count, labels, boxes, _ = cv2.connectedComponentsWithStats((relative > level).view(np.uint8))
        for label in range(1, count):
            x, y, w, h, _ = boxes[label]
            around = max(LEAST_SURROUNDINGS, round(SURROUNDINGS * max(w, h)))
            part = np.s_[max(0, y - around) : y + h + around, max(0, x - around) : x + w + around]
            fault = labels[part] == label
            if not marked[part][fault].any() and level <= max(1.0, EDGE * float(relative[part][fault].max())):
                marked[part][fault] = True
                yield part, fault
        if level == 1.0:
            break
        level = max(1.0, level * EDGE ** (1 / STEPS))


def outlined(pixels: np.ndarray, fault: np.ndarray) -> np.ndarray:
    """A fault's outline by its colours and those around it: GrabCut (Rother et al. 2004), from a first guess.

    Args:
        pixels: photograph of the fault and its surroundings, uint8 RGB ``[h, w, 3]``.
        fault: the first guess, bool ``[h, w]``.

    Returns:
        bool ``[h, w]``: the fault, at most `RIM` pixels beyond the guess. It is the guess where the photograph shows no
        outline there, or where there are too few pixels to compare.
    """
    height, width = fault.shape
    if max(height, width) > MAX_OUTLINED_SIDE:
        scale = MAX_OUTLINED_SIDE / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        smaller = cv2.resize(fault.view(np.uint8), size, interpolation=cv2.INTER_NEAREST).view(bool)
        found = outlined(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), smaller)
        return cv2.resize(found.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).view(bool)
    if fault.sum() < LEAST_PIXELS or (~fault).sum() < LEAST_PIXELS:
        return fault
    near = cv2.dilate(fault.view(np.uint8), np.ones((2 * RIM + 1, 2 * RIM + 1), np.uint8)).view(bool)
    labels = np.where(near, cv2.GC_PR_BGD, cv2.GC_BGD).astype(np.uint8)
    labels[fault] = cv2.GC_PR_FGD
    cv2.setRNGSeed(0)  # of this thread, for the first colour clusters: the same image has the same mask
    around, inside = np.zeros((2, 1, 65))  # the colours of both, which GrabCut keeps here
    cv2.grabCut(
        np.ascontiguousarray(pixels), labels, (0, 0, 0, 0), around, inside, OUTLINE_ROUNDS, cv2.GC_INIT_WITH_MASK
    )
    found = labels == cv2.GC_PR_FGD
    return found if (found & fault).sum() >= LEAST_SHARE * fault.sum() else fault
