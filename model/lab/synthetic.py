"""Generated categories, and the built-in one: a ground steel plate under a fixed camera, drawn by an optical model.

A plate is the lay that grinding left (streaks along the rows), seen under slanted light from the upper left through a
slightly soft lens. A fault changes its relief, destroys the lay, or colours it; the same light and lens then show it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from model.lab import bolts
from model.lab.choices import DEFAULT_KIND
from model.lab.optics import SIDE, VISIBLE_CHANGE, axes, blob, expose, smooth_noise, step

MINIMUM_FAULT_AREA = 0.003
MAXIMUM_FAULT_AREA = 0.04
"""Share of the image that a fault's mask covers; a fault outside these limits is drawn again."""

SAMPLE_SEED = 3
"""Of the photographs to try the built-in category with."""

STEEL = np.array([151.0, 149.0, 144.0])  # mean RGB of a plate
LIGHT = np.array([0.55, 0.84])  # the way the slanted light travels, along x and y: to the lower right


@dataclass(frozen=True)
class _Fault:
    """What a fault does to the surface, each ``[SIDE, SIDE]`` except the colour.

    Attributes:
        height: relief in pixels; holes are negative.
        worn: 0 where the lay is as grinding left it, 1 where nothing of it remains.
        colour: factor on the reflected RGB, ``[SIDE, SIDE, 3]`` or anything that broadcasts to it.
    """

    height: np.ndarray
    worn: np.ndarray
    colour: np.ndarray


def normal_image(rng: np.random.Generator) -> np.ndarray:
    """Photographs a faultless plate: uint8 RGB ``[256, 256, 3]``."""
    return expose(_photograph(rng, None), rng)


def defective_image(rng: np.random.Generator, defect: str) -> tuple[np.ndarray, np.ndarray]:
    """Photographs a plate with one fault.

    Args:
        rng: where all chance comes from.
        defect: one of `DEFECTS`.

    Returns:
        The image, uint8 RGB ``[256, 256, 3]``, and its mask, bool ``[256, 256]``: True where the fault visibly changed
        the surface, on `MINIMUM_FAULT_AREA` to `MAXIMUM_FAULT_AREA` of the image.

    Raises:
        ValueError: if there is no such defect.
    """
    if defect not in _DRAW:
        raise ValueError(f"unknown defect {defect!r}; there are {', '.join(DEFECTS)}")
    plate = int(rng.integers(2**63))  # the same plate and light, with and without the fault
    faultless = _photograph(np.random.default_rng(plate), None)
    while True:
        faulty = _photograph(np.random.default_rng(plate), _DRAW[defect](rng))
        changed = np.abs(faulty - faultless).max(axis=2) > VISIBLE_CHANGE
        ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
        mask = cv2.morphologyEx(changed.astype(np.uint8), cv2.MORPH_CLOSE, ellipse).astype(bool)
        if MINIMUM_FAULT_AREA <= mask.mean() <= MAXIMUM_FAULT_AREA:
            return expose(faulty, rng), mask


def sample_image(name: str) -> np.ndarray:
    """The photograph to try the built-in category with that is called ``good`` or like a fault: uint8 RGB."""
    rng = np.random.default_rng([SAMPLE_SEED, ("good", *DEFECTS).index(name)])
    return normal_image(rng) if name == "good" else defective_image(rng, name)[0]


class Kind(NamedTuple):
    """A generated category: how a good part and one with a named defect are drawn, and the defects' names."""

    normal_image: Callable[[np.random.Generator], np.ndarray]
    defective_image: Callable[[np.random.Generator, str], tuple[np.ndarray, np.ndarray]]
    defects: tuple[str, ...]


def write_dataset(
    root: Path, *, train: int, test_good: int, test_each: int, seed: int, kind: str = DEFAULT_KIND
) -> None:
    """Writes a category in the MVTec AD layout; the same arguments give the same bytes.

    Args:
        root: folder to fill; made if it does not exist.
        kind: one of `KINDS`.
        train: images in ``train/good``.
        test_good: images in ``test/good``.
        test_each: images in each ``test/<defect>``, with masks in ``ground_truth/<defect>``.
        seed: of all images; no two share their chance, and no image of one seed appears under another.

    Raises:
        FileExistsError: if ``root`` is a file, or a folder that is not empty.
        ValueError: if a number of images is negative, or there is no such kind.
    """
    if min(train, test_good, test_each) < 0:
        raise ValueError(f"numbers of images cannot be negative, got {train}, {test_good} and {test_each}")
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; there are {', '.join(KINDS)}")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(f"{root} exists and is not an empty folder")
    normal, defective, defects = KINDS[kind]
    for_train, for_good, *for_defects = np.random.SeedSequence(seed).spawn(2 + len(defects))
    for folder, sequence, count in (("train", for_train, train), ("test", for_good, test_good)):
        for index, image_seed in enumerate(sequence.spawn(count)):
            _write(root / folder / "good" / f"{index:03}.png", normal(np.random.default_rng(image_seed)))
    for defect, sequence in zip(defects, for_defects, strict=True):
        for index, image_seed in enumerate(sequence.spawn(test_each)):
            image, mask = defective(np.random.default_rng(image_seed), defect)
            _write(root / "test" / defect / f"{index:03}.png", image)
            _write(root / "ground_truth" / defect / f"{index:03}_mask.png", mask.astype(np.uint8) * 255)


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    _, png = cv2.imencode(path.suffix, pixels)
    path.write_bytes(png.tobytes())  # OpenCV itself ends the process where a name is not UTF-8


def _photograph(rng: np.random.Generator, fault: _Fault | None) -> np.ndarray:
    """What falls on the sensor, in grey levels, float64 ``[SIDE, SIDE, 3]``."""
    lay = _lay(rng)[:, :, None]
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    lamp = (1 + x * rng.normal(0.03, 0.015) + y * rng.normal(0.02, 0.015) - 0.03 * (x**2 + y**2))[:, :, None]
    seen: np.ndarray = STEEL * rng.normal(1, 0.018) * rng.normal(1, 0.005, 3) * lamp
    blur = rng.uniform(0.5, 0.75)
    if fault is None:
        seen = seen * (1 + lay)
    else:
        slope_y, slope_x = np.gradient(fault.height)
        shading = np.tanh(slope_x * LIGHT[0] + slope_y * LIGHT[1])[:, :, None]
        shelter = np.exp(0.09 * np.minimum(fault.height, 0))[:, :, None]  # little light reaches the ground of a hole
        shading = np.where(shading > 0, 0.75, 0.6) * shading
        seen = seen * (1 + lay * (1 - fault.worn[:, :, None])) * (1 + shading) * shelter * fault.colour
    return cv2.GaussianBlur(seen, (0, 0), blur)


def _lay(rng: np.random.Generator) -> np.ndarray:
    """Relative brightness of the streaks, around 0: fine and broad ones, a little turned from part to part."""
    wide = SIDE + 32
    streaks = (
        0.04 * smooth_noise(rng, 60, 0.6, wide)
        + 0.03 * smooth_noise(rng, 100, 1.6, wide)
        + 0.02 * smooth_noise(rng, 18, 0.6, wide)
    )
    turn = cv2.getRotationMatrix2D((wide / 2, wide / 2), rng.normal(0, 1), 1)
    turned = cv2.warpAffine(streaks, turn, (wide, wide), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return turned[16:-16, 16:-16]


def _scratch(rng: np.random.Generator) -> _Fault:
    """A slightly bent groove across the lay with ploughed-up edges, fading out at both ends."""
    along, across = axes(*_place(rng, 50), np.deg2rad(rng.uniform(20, 160)))
    length = rng.uniform(70, 190)
    t = along / length  # -0.5 to 0.5 from end to end
    wander = np.cumsum(rng.normal(0, 0.15, 64))
    across = across - rng.normal(0, 0.08) * length * 4 * t**2 - np.interp(t, np.linspace(-0.5, 0.5, 64), wander)
    r = np.abs(across) / rng.uniform(1.0, 1.5)
    skips = np.interp(t, np.linspace(-0.5, 0.5, 24), rng.uniform(0.6, 1.1, 24))
    pressure = np.cos(np.pi * t.clip(-0.5, 0.5)).clip(0) ** 0.6 * skips
    groove = np.exp(-(r**2)) - 0.2 * np.exp(-2 * (r - 1.7) ** 2)
    return _Fault(-rng.uniform(1.0, 3.4) * pressure * groove, pressure.clip(0, 1) * np.exp(-(r**2)), np.ones(3))


def _pit(rng: np.random.Generator) -> _Fault:
    """Blowholes: one that grinding opened, or a cluster of small ones."""
    x0, y0 = _place(rng, 30)
    radii = [rng.uniform(7, 12)] if rng.random() < 0.4 else rng.uniform(2.2, 5.5, rng.integers(5, 12))
    inside = np.zeros((SIDE, SIDE))
    height = np.zeros((SIDE, SIDE))
    for radius in radii:
        spread = 3.0 * np.sqrt(len(radii)) if len(radii) > 1 else 0
        level = blob(rng, x0 + rng.normal(0, spread), y0 + rng.normal(0, spread), radius, 0.12)
        hole = step(level, 0.5 / radius)
        inside = np.maximum(inside, hole)
        height = np.minimum(height, -hole * (3 + 9 * np.sqrt(level.clip(0, 1))))
    dirt = 1 - inside[:, :, None] * np.array([0.0, 0.03, 0.07])
    return _Fault(height + 0.5 * inside * smooth_noise(rng, 1.2, 1.2), inside, dirt)


def _stain(rng: np.random.Generator) -> _Fault:
    """Dried coolant or beginning rust: brownish, blotchy, often darker along its rim."""
    x0, y0 = _place(rng, 30)
    level = blob(rng, x0, y0, rng.uniform(12, 25), 0.35) + 0.12 * smooth_noise(rng, 3, 2)
    cover = step(level, rng.uniform(0.05, 0.14))
    rim = np.exp(-((level - 0.15) ** 2) / 0.03) * rng.uniform(0, 0.5)
    blotches = 1 + 0.25 * smooth_noise(rng, 6, 4) + 0.12 * smooth_noise(rng, 2, 1)
    density = (cover * blotches + rim).clip(0) * rng.uniform(0.6, 1.3)
    absorbs = np.array([0.18, 0.3, 0.45]) if rng.random() < 0.6 else np.array([0.27, 0.29, 0.33])
    return _Fault(np.zeros((SIDE, SIDE)), 0.4 * cover, np.exp(-density[:, :, None] * absorbs))


def _dent(rng: np.random.Generator) -> _Fault:
    """The mark of a blow: a smooth hollow with a raised brim, lit on one side and shaded on the other."""
    x0, y0 = _place(rng, 30)
    r = 1 - blob(rng, x0, y0, rng.uniform(12, 20), 0.08)
    hollow = np.exp(-(np.abs(r / 0.8) ** 3)) - 0.12 * np.exp(-((r - 1.15) ** 2) / 0.03)
    return _Fault(-rng.uniform(2.8, 6.0) * hollow, 0.5 * hollow.clip(0), np.ones(3))


def _gouge(rng: np.random.Generator) -> _Fault:
    """Metal torn out by a chip that was caught under the wheel: rough ground, sharp edges."""
    x0, y0 = _place(rng, 30)
    level = blob(rng, x0, y0, rng.uniform(9, 17), 0.3)
    torn = step(level, 0.05)
    rough = 1.1 * smooth_noise(rng, 1.4, 1.4) + 0.8 * smooth_noise(rng, 3, 3)
    return _Fault(torn * (rough - 2.2) + 0.7 * np.exp(-((level + 0.08) ** 2) / 0.01), torn, np.ones(3))


def _place(rng: np.random.Generator, margin: int) -> tuple[float, float]:
    x, y = rng.uniform(margin, SIDE - margin, 2)
    return float(x), float(y)


_DRAW: dict[str, Callable[[np.random.Generator], _Fault]] = {
    "dent": _dent,
    "gouge": _gouge,
    "pit": _pit,
    "scratch": _scratch,
    "stain": _stain,
}

DEFECTS: tuple[str, ...] = tuple(_DRAW)
"""Names of the defects that `defective_image` can draw."""

KINDS: dict[str, Kind] = {
    DEFAULT_KIND: Kind(normal_image, defective_image, DEFECTS),
    "bolts": Kind(bolts.normal_image, bolts.defective_image, bolts.DEFECTS),
}
"""The categories that `write_dataset` can draw, by the name in `model.lab.choices.KINDS`."""
