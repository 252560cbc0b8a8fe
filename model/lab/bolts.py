"""A generated object: a steel bolt that lies in any pose on a lit ground with texture and dust.

The bolt is a body of revolution with a helical thread and a hexagonal head. Slanted light, the shadow on the ground and
a slightly soft lens show it. A fault changes its relief, its axis or its colour; the ground is never faulty.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from model.lab.optics import SIDE, VISIBLE_CHANGE, axes, blob, expose, smooth_noise, step

MINIMUM_FAULT_AREA = 0.002
MAXIMUM_FAULT_AREA = 1.0
"""Share of the bolt's own area that a fault's mask covers; a fault outside these limits is drawn again."""

STEEL = np.array([176.0, 172.0, 164.0])
GROUND = np.array([118.0, 124.0, 132.0])
"""Mean RGB of a bolt and of what it lies on."""

LAMP = np.array([-0.5, -0.6, 0.62])  # towards the light: along x, along y, and up

HEAD, THREAD = 0.16, 0.42
"""Where the head ends and the thread begins, from 0 at the head's end to 1 at the tip."""

HEAD_RADIUS = 1.9  # in radii of the shank


@dataclass(frozen=True)
class Pose:
    """Where a bolt lies and how large it is, in pixels; the angle is of its axis, in radians."""

    x: float
    y: float
    angle: float
    length: float
    radius: float


Along = Callable[[np.ndarray], np.ndarray]
"""From places along the bolt, see `HEAD`, to a value at each."""


@dataclass(frozen=True)
class _Fault:
    """What a fault does to a bolt.

    Attributes:
        stripped: share of the thread's depth that is missing along the bolt.
        bent: by how many radii the axis is displaced along the bolt.
        hollow: from the pose to the depth of a dent, in pixels ``[SIDE, SIDE]``.
        colour: from the pose to a factor on the reflected RGB, ``[SIDE, SIDE, 3]``.
    """

    stripped: Along | None = None
    bent: Along | None = None
    hollow: Callable[[Pose], np.ndarray] | None = None
    colour: Callable[[Pose], np.ndarray] | None = None


FAULTLESS = _Fault()


def normal_image(rng: np.random.Generator, day: float = 0.0) -> np.ndarray:
    """Photographs a faultless bolt: uint8 RGB ``[256, 256, 3]``.

    Args:
        rng: where all chance comes from.
        day: 0 to 1. The larger, the brighter, rougher and dustier is the ground, as on another day.
    """
    return expose(_photograph(rng, FAULTLESS, day)[0], rng)


def defective_image(rng: np.random.Generator, defect: str) -> tuple[np.ndarray, np.ndarray]:
    """Photographs a bolt with one fault.

    Args:
        rng: where all chance comes from.
        defect: one of `DEFECTS`.

    Returns:
        The image, uint8 RGB ``[256, 256, 3]``, and its mask, bool ``[256, 256]``: True where the fault visibly changed
        the picture, `MINIMUM_FAULT_AREA` to `MAXIMUM_FAULT_AREA` of the bolt's area.

    Raises:
        ValueError: if there is no such defect.
    """
    if defect not in _DRAW:
        raise ValueError(f"unknown defect {defect!r}; there are {', '.join(DEFECTS)}")
    part = int(rng.integers(2**63))  # the same bolt, pose and light, with and without the fault
    faultless, bolt = _photograph(np.random.default_rng(part), FAULTLESS)
    while True:
        faulty, _ = _photograph(np.random.default_rng(part), _DRAW[defect](rng))
        changed = np.abs(faulty - faultless).max(axis=2) > VISIBLE_CHANGE
        ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
        mask = cv2.morphologyEx(changed.astype(np.uint8), cv2.MORPH_CLOSE, ellipse).astype(bool)
        if MINIMUM_FAULT_AREA <= mask.sum() / bolt.sum() <= MAXIMUM_FAULT_AREA:
            return expose(faulty, rng), mask


def _photograph(rng: np.random.Generator, fault: _Fault, day: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """What falls on the sensor, in grey levels, float64 ``[SIDE, SIDE, 3]``, and where the bolt is, bool."""
    pose = draw_pose(rng)
    height, inside = _relief(rng, pose, fault)
    slope_y, slope_x = np.gradient(cv2.GaussianBlur(height, (0, 0), 0.6))
    normal = np.stack((-slope_x, -slope_y, np.ones_like(height)), axis=2)
    normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    lamp = LAMP + np.array([*rng.normal(0, 0.05, 2), 0])
    lamp /= np.linalg.norm(lamp)
    halfway = lamp + np.array([0, 0, 1.0])  # between the lamp and the camera
    shine = (normal @ (halfway / np.linalg.norm(halfway))).clip(0) ** 18
    lit = 0.25 + 0.65 * (normal @ lamp).clip(0) + 0.55 * shine
    steel = STEEL * rng.normal(1, 0.03) * (lit * (1 + 0.03 * smooth_noise(rng, 1.2, 1.2)))[:, :, None]
    if fault.colour is not None:
        steel = steel * fault.colour(pose)
    ground = _ground(rng, day)
    to_the_right, down = 0.5 * pose.radius, 0.6 * pose.radius
    shadow = cv2.warpAffine(inside, np.array([[1, 0, to_the_right], [0, 1, down]]), (SIDE, SIDE))
    ground = ground * (1 - 0.45 * cv2.GaussianBlur(shadow, (0, 0), 0.25 * pose.radius))[:, :, None]
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    light = (1 + x * rng.normal(0, 0.04) + y * rng.normal(0, 0.04)) * rng.normal(1, 0.03)
    cover = inside[:, :, None]
    seen = (ground * (1 - cover) + steel * cover) * light[:, :, None]
    return cv2.GaussianBlur(seen, (0, 0), rng.uniform(0.6, 0.8)), inside > 0.5


def draw_pose(rng: np.random.Generator) -> Pose:
    """Any angle, wholly in the picture: the first that `normal_image` draws of its chance."""
    length, radius = SIDE * rng.uniform(0.70, 0.76), SIDE * rng.uniform(0.060, 0.064)
    angle = rng.uniform(0, 2 * np.pi)
    x, y = SIDE / 2 + rng.uniform(-1, 1, 2) * 0.07 * SIDE
    return Pose(float(x), float(y), angle, length, radius)


def _relief(rng: np.random.Generator, pose: Pose, fault: _Fault) -> tuple[np.ndarray, np.ndarray]:
    """The bolt's height in pixels, and how much of each pixel it covers, both ``[SIDE, SIDE]``."""
    u, v = axes(pose.x, pose.y, pose.angle)
    along, radius = u / pose.length + 0.5, pose.radius
    if fault.bent is not None:
        v = v - fault.bent(along) * radius
    # Half a turn of the helix lies between the two edges of the bolt.
    turn = 2 * np.pi * u / (0.034 * pose.length) + np.arcsin((v / radius).clip(-1, 1)) + rng.uniform(0, 2 * np.pi)
    ridges = 2 / np.pi * np.arcsin(np.sin(turn))
    threaded = step(along - THREAD, 0.004)
    if fault.stripped is not None:
        threaded = threaded * (1 - fault.stripped(along))
    rounded = ((1 - along) / 0.03).clip(0, 1)
    shank = radius * (1 + threaded * (0.10 * ridges - 0.06)) * (0.72 + 0.28 * np.sqrt(1 - (1 - rounded) ** 2))
    # The head is a prism, turned around the axis by chance; up to three of its sides are seen.
    sides = np.deg2rad([-60, 0, 60]) + rng.uniform(-0.25, 0.25)
    prism = np.minimum.reduce([(1.75 * radius - v * np.sin(side)) / np.cos(side) for side in sides])
    bevel = 0.35 * radius * np.clip(1 - np.minimum(along, HEAD - along) / 0.02, 0, 1)
    in_head = (along > 0) & (along < HEAD) & (np.abs(v) < HEAD_RADIUS * radius)
    in_shank = (along >= HEAD) & (along < 1)
    height = np.where(in_head, (prism - bevel).clip(0), np.where(in_shank, np.sqrt((shank**2 - v**2).clip(0)), 0))
    if fault.hollow is not None:
        height = height - fault.hollow(pose) * (height > 0)
    to_the_edge = np.where(along < HEAD, HEAD_RADIUS * radius, shank) - np.abs(v)
    to_the_end = np.minimum(along, 1 - along) * pose.length
    return height, step(np.minimum(to_the_edge, to_the_end), 0.35)


def _ground(rng: np.random.Generator, day: float) -> np.ndarray:
    """Even, faintly textured and dusty, ``[SIDE, SIDE, 3]``."""
    fine, coarse = smooth_noise(rng, 1, 1), smooth_noise(rng, 5, 5)
    texture = 0.012 * fine + 0.010 * coarse + 0.015 * smooth_noise(rng, 40, 40)
    dust = np.zeros((SIDE, SIDE), np.float32)
    for _ in range(rng.poisson(8 * (1 + 2 * day))):
        place, radius = rng.integers(0, SIDE, 2).tolist(), int(rng.integers(0, 2))
        cv2.circle(dust, place, radius, rng.uniform(0.1, 0.45), cv2.FILLED, cv2.LINE_AA)
    seen: np.ndarray = GROUND * ((1 + 0.12 * day + texture * (1 + 0.8 * day)) * (1 + dust))[:, :, None]
    return seen


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _bend(rng: np.random.Generator) -> _Fault:
    """The shank is bent to one side, up to its tip."""
    start, by = rng.uniform(0.3, 0.6), _log_uniform(rng, 0.7, 2.5) * rng.choice((-1, 1))
    return _Fault(bent=lambda along: by * ((along - start).clip(0) / 0.4) ** 1.5)


def _colour(rng: np.random.Generator) -> _Fault:
    """A spot of rust or soot."""
    place, side, size = rng.uniform(0.05, 0.95), rng.uniform(-0.6, 0.6), _log_uniform(rng, 0.3, 1.5)
    density = rng.uniform(0.6, 1.6)
    absorbs = np.array([0.2, 0.45, 0.7]) if rng.random() < 0.6 else np.array([0.5, 0.5, 0.5])
    outline = int(rng.integers(2**63))

    def colour(pose: Pose) -> np.ndarray:
        u, v = (place - 0.5) * pose.length, side * pose.radius
        x = pose.x + u * np.cos(pose.angle) - v * np.sin(pose.angle)
        y = pose.y + u * np.sin(pose.angle) + v * np.cos(pose.angle)
        level = blob(np.random.default_rng(outline), x, y, size * pose.radius, 0.2)
        factor: np.ndarray = np.exp(-density * step(level, 0.08)[:, :, None] * absorbs)
        return factor

    return _Fault(colour=colour)


def _dent(rng: np.random.Generator) -> _Fault:
    """The mark of a blow on the head, the shank or the thread."""
    place, side = rng.uniform(0.03, 0.95), rng.uniform(-0.6, 0.6)
    size, depth = _log_uniform(rng, 0.25, 1.1), rng.uniform(0.3, 0.7)

    def hollow(pose: Pose) -> np.ndarray:
        u, v = axes(pose.x, pose.y, pose.angle)
        r = np.hypot(u - (place - 0.5) * pose.length, v - side * pose.radius) / (size * pose.radius)
        deep: np.ndarray = 1.6 * depth * size * pose.radius * np.exp(-(r**3))
        return deep

    return _Fault(hollow=hollow)


def _thread(rng: np.random.Generator) -> _Fault:
    """The thread is missing over one to ten turns."""
    start, width = rng.uniform(THREAD, 0.75), _log_uniform(rng, 0.03, 0.35)
    return _Fault(stripped=lambda along: step(along - start, 0.005) * step(start + width - along, 0.005))


_DRAW: dict[str, Callable[[np.random.Generator], _Fault]] = {
    "bend": _bend,
    "colour": _colour,
    "dent": _dent,
    "thread": _thread,
}

DEFECTS: tuple[str, ...] = tuple(_DRAW)
"""Names of the defects that `defective_image` can draw."""
