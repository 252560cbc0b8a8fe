"""The region of interest: which places of a picture count, and the zones that are judged each by itself."""

import math
import re
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from model.errors import ExpectedError

Point = tuple[float, float]
"""Across and down in pixels of the reference picture; whole numbers are the middles of pixels."""
Polygon = tuple[Point, ...]
Rectangle = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; right and bottom lie outside."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")
MAX_ZONES = 32
SHAPE_TOLERANCE = 0.01
"""By which a picture's width over its height may differ from that of the picture on which the region was drawn."""
MAX_POINTS = 20_000
_FRACTION_BITS = 4
"""OpenCV draws polygons with this many binary places."""


class RegionError(ExpectedError, ValueError):
    """A region, or a grid of tiles, that cannot be; the message says why."""


@dataclass(frozen=True)
class Zone:
    """A place on the part that is judged by itself.

    Attributes:
        name: for people and programs.
        outlines: polygons; what lies in one of them counts.
        frame: what the networks see of the picture for this zone, in pixels of the reference picture.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    name: str
    outlines: tuple[Polygon, ...]
    frame: Rectangle

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise RegionError(
                f"a zone cannot be called {self.name[:64]!r}: a name has up to 64 letters, digits, spaces and . _ -"
            )
        if not self.outlines:
            raise RegionError(f"the zone {self.name!r} has no polygon")
        for outline in self.outlines:
            _check(outline, f"the zone {self.name!r}")
        left, top, right, bottom = self.frame
        if not (0 <= left < right and 0 <= top < bottom):
            raise RegionError(f"the frame of the zone {self.name!r} is empty")


@dataclass(frozen=True)
class Region:
    """Which places of a picture count. It is drawn on a reference picture; others may be larger or smaller.

    Attributes:
        width: of the reference picture, pixels.
        height: of the reference picture, pixels.
        zones: one or more; they may overlap.
        ignored: polygons; what lies in one of them does not count in any zone.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    width: int
    height: int
    zones: tuple[Zone, ...]
    ignored: tuple[Polygon, ...] = ()

    def __post_init__(self) -> None:
        names = [zone.name for zone in self.zones]
        if not 0 < len(names) <= MAX_ZONES:
            raise RegionError(f"a region has 1 to {MAX_ZONES} zones, not {len(names)}")
        if len(set(names)) < len(names):
            raise RegionError(f"two zones are called {next(name for name in names if names.count(name) > 1)!r}")
        for polygon in self.ignored:
            _check(polygon, "what is ignored")
        polygons = [*self.ignored, *(outline for zone in self.zones for outline in zone.outlines)]
        if (points := sum(map(len, polygons))) > MAX_POINTS:
            raise RegionError(f"the polygons have {points} points, more than {MAX_POINTS}; draw them with fewer")
        if min(self.width, self.height) < 1:
            raise RegionError("the reference picture must have pixels")
        for zone in self.zones:
            if zone.frame[2] > self.width or zone.frame[3] > self.height:
                raise RegionError(f"the frame of the zone {zone.name!r} reaches beyond the picture")

    def marked(self, zone: Zone, width: int, height: int) -> np.ndarray:
        """Where a picture of this size counts in this zone, bool ``[height, width]``."""
        scale = np.array((width / self.width, height / self.height))

        def scaled(polygon: Polygon) -> np.ndarray:
            points = (np.asarray(polygon) + 0.5) * scale - 0.5
            fixed: np.ndarray = np.rint(points * (1 << _FRACTION_BITS)).astype(np.int32)
            return fixed

        inside = np.zeros((height, width), np.uint8)
        for polygons, value in ((zone.outlines, 1), (self.ignored, 0)):
            for polygon in polygons:
                cv2.fillPoly(inside, [scaled(polygon)], value, shift=_FRACTION_BITS)
        return inside.view(bool)


def same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether pictures of these widths and heights have one shape, within `SHAPE_TOLERANCE`."""
    return abs(one[0] * other[1] / (one[1] * other[0]) - 1) <= SHAPE_TOLERANCE + 1e-9


def frame_around(outlines: tuple[Polygon, ...], width: int, height: int) -> Rectangle:
    """The smallest rectangle of whole pixels of the picture that holds the polygons.

    Raises:
        RegionError: if nothing of them lies on the picture, or one is none.
    """
    for outline in outlines:
        _check(outline, "a zone")
    points = np.concatenate([np.asarray(outline, dtype=np.float64) for outline in outlines])
    left, top = (max(0, math.floor(value + 0.5)) for value in points.min(axis=0))
    right, bottom = (
        min(limit, math.floor(value + 0.5) + 1)
        for value, limit in zip(points.max(axis=0), (width, height), strict=True)
    )
    if left >= right or top >= bottom:
        raise RegionError(f"a polygon lies outside of the picture, which has {width} x {height} pixels")
    return left, top, right, bottom


def _check(polygon: Polygon, where: str) -> None:
    if len(polygon) < 3:
        raise RegionError(f"a polygon of {where} has fewer than three points")
    if not all(math.isfinite(value) and abs(value) < 1 << 24 for point in polygon for value in point):
        raise RegionError(f"a polygon of {where} has a point that is nowhere near a picture")
