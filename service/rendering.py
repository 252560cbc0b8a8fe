"""Turns an anomaly map into heat map, mask, regions and overlay."""

import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from model.alignment import Found, between
from model.choices import MapForm
from model.localization import enlarged, faults_of
from model.preprocessing import Layout
from service.schemas import Box, Localization, Peak, Region

HEAT_OF_NORMAL = 64
"""Heat map value of the level that normal parts reach; the mask contains only pixels above it."""

MAX_REGIONS = 100
MAX_DRAWN_PIXELS = 1 << 24
MAX_DRAWN_SIDE = 1 << 14
"""Largest side of a heat map, mask or overlay in pixels, which is what browsers can show; for larger images these are
scaled down."""
ROWS_AT_ONCE = 256
"""Rows of an overlay that are drawn at a time, because all at once would take several times the memory of the image."""
PNG_COMPRESSION = 1
"""zlib level: for maps this smooth a higher level only takes longer."""


@dataclass(frozen=True)
class Heat:
    """An anomaly map at the size at which it is drawn: the size of the image, or smaller, see `drawn_size`.

    Attributes:
        relative: float32 ``[H, W]``, in multiples of what normal parts show.
        mask: bool ``[H, W]``, see `model.localization.faults_of`; only where ``relative`` is above 1.
        width: of the image, pixels.
        height: of the image, pixels.
    """

    relative: np.ndarray
    mask: np.ndarray
    width: int
    height: int

    @property
    def scale(self) -> float:
        """Size of what is drawn, relative to the image."""
        return _drawn_scale(self.width, self.height)


def _drawn_scale(width: int, height: int) -> float:
    return min(1.0, MAX_DRAWN_SIDE / max(width, height), math.sqrt(MAX_DRAWN_PIXELS / (width * height)))


def drawn_size(width: int, height: int) -> tuple[int, int]:
    """Width and height in pixels of the heat map, mask and overlay of an image."""
    scale = _drawn_scale(width, height)
    return max(1, int(width * scale)), max(1, int(height * scale))


def heat_of(layout: Layout, maps: Sequence[np.ndarray | None], pixels: np.ndarray, map_scale: float) -> Heat:
    """Puts the maps of the views together at the size at which the picture is drawn.

    Args:
        layout: of the picture.
        maps: of its views, float32 ``[size, size]``; None for a view without one.
        pixels: what the networks saw of each, uint8 RGB ``[V, size, size, 3]``.
        map_scale: what normal parts show, in the maps' unit.
    """
    small = [None if one is None else one / np.float32(map_scale) for one in maps]
    width, height = drawn_size(layout.width, layout.height)
    mask = np.zeros((height, width), bool)
    for one, seen, place in zip(small, pixels, layout.places(width, height), strict=True):
        if one is not None:
            mask[place.rows, place.columns] |= enlarged(place.cut(faults_of(one, seen)), *place.size)
    relative = layout.stitched(small, width, height)
    mask &= relative > 1
    return Heat(relative, mask, layout.width, layout.height)


def back(heat: Heat, pose: Found, width: int, height: int) -> Heat:
    """The heat of an aligned picture on the photograph that it was taken from, of this width and height in pixels."""
    size = drawn_size(width, height)
    drawn_height, drawn_width = heat.relative.shape
    matrix = between(
        pose.matrix, (heat.width / drawn_width, heat.height / drawn_height), (width / size[0], height / size[1])
    )
    relative = cv2.warpAffine(heat.relative, matrix, size, flags=cv2.INTER_LINEAR)
    mask = cv2.warpAffine(heat.mask.view(np.uint8), matrix, size, flags=cv2.INTER_NEAREST).astype(bool)
    return Heat(relative, mask & (relative > 1), width, height)


def localization_of(heat: Heat, form: MapForm) -> Localization:
    """The heat map, mask and regions of an answer, for a map of this form."""
    return Localization(
        map=form,
        scale=heat.scale,
        heatmap_png=b64encode(png(_grey(heat.relative, heat.mask))).decode(),
        mask_png=b64encode(png(heat.mask.view(np.uint8) * np.uint8(255))).decode(),
        regions=regions_of(heat),
        peak=_peak_of(heat, heat.relative),
    )


def _grey(relative: np.ndarray, mask: np.ndarray) -> np.ndarray:
    grey = cv2.convertScaleAbs(relative, alpha=HEAT_OF_NORMAL)
    # Rounding must not lower pixels inside the mask to the level of normal parts.
    np.maximum(grey, HEAT_OF_NORMAL + 1, out=grey, where=mask)
    return grey


def regions_of(heat: Heat) -> list[Region]:
    """The connected parts of the mask, strongest peak first, at most 100, in pixels of the image."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(heat.mask.view(np.uint8))
    regions = []
    for label in range(1, count):
        x, y, width, height, area = (int(value) for value in stats[label])
        inside = np.where(
            labels[y : y + height, x : x + width] == label, heat.relative[y : y + height, x : x + width], -np.inf
        )
        peak = _peak_of(heat, inside, x, y)
        regions.append(Region(box=_box_of(heat, x, y, width, height), area=_area_of(heat, area), peak=peak))
    return sorted(regions, key=lambda region: -region.peak.value)[:MAX_REGIONS]


def _steps(heat: Heat) -> tuple[float, float]:
    """Image pixels per drawn pixel, horizontally and vertically."""
    drawn_height, drawn_width = heat.relative.shape
    return heat.width / drawn_width, heat.height / drawn_height


def _box_of(heat: Heat, x: int, y: int, width: int, height: int) -> Box:
    """The pixels of the image that a drawn rectangle touches."""
    across, down = _steps(heat)
    left, top = int(x * across), int(y * down)
    right = min(heat.width, math.ceil((x + width) * across))
    bottom = min(heat.height, math.ceil((y + height) * down))
    return Box(x=left, y=top, width=right - left, height=bottom - top)


def _area_of(heat: Heat, area: int) -> int:
    across, down = _steps(heat)
    return round(area * across * down)


def _peak_of(heat: Heat, relative: np.ndarray, left: int = 0, top: int = 0) -> Peak:
    """The strongest point of a part of the drawn map whose upper left corner is at (left, top)."""
    y, x = np.unravel_index(int(relative.argmax()), relative.shape)
    across, down = _steps(heat)
    return Peak(x=int((left + int(x) + 0.5) * across), y=int((top + int(y) + 0.5) * down), value=float(relative[y, x]))


def overlay_of(image: np.ndarray, heat: Heat | None) -> np.ndarray:
    """The image with the heat over it, and the outline of the mask.

    Pixels at the level of normal parts are not changed, so a good part looks like its photograph.

    Args:
        image: uint8 RGB ``[H, W, 3]``, resized to `drawn_size`.
        heat: of that size, or None if no map was computed.

    Returns:
        uint8 RGB ``[H, W, 3]``.
    """
    if heat is None:
        return image
    picture = np.empty_like(image)
    for start in range(0, len(image), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        relative = heat.relative[rows]
        colours = cv2.applyColorMap(_grey(relative, heat.mask[rows]), cv2.COLORMAP_INFERNO)
        colours = cv2.cvtColor(colours, cv2.COLOR_BGR2RGB)
        opacity = cv2.convertScaleAbs((relative - 0.5).clip(0, 1), alpha=0.6 * 255)
        opacity = cv2.merge((opacity, opacity, opacity))
        picture[rows] = cv2.add(
            cv2.multiply(image[rows], 255 - opacity, scale=1 / 255), cv2.multiply(colours, opacity, scale=1 / 255)
        )
    outlines, _ = cv2.findContours(heat.mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    thickness = max(1, round(min(image.shape[:2]) / 256))
    cv2.drawContours(picture, outlines, -1, (255, 64, 64), thickness, cv2.LINE_AA)
    return picture


def png(picture: np.ndarray) -> bytes:
    """Encodes uint8 RGB ``[H, W, 3]`` or greyscale ``[H, W]`` as PNG."""
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    ok, encoded = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION])
    if not ok:
        raise RuntimeError("OpenCV failed to encode a PNG")
    return encoded.tobytes()
