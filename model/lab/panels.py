"""A generated panel: an evenly brushed sheet, photographed with 20 megapixels, and faults of about 12 pixels on it.

The surface and the light are those of the plates in `model.lab.synthetic`. A picture of another size shows more or less
of the same surface, at the same scale.
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from model.lab.optics import VISIBLE_CHANGE, blob, expose, step
from model.lab.synthetic import LIGHT, STEEL

WIDTH, HEIGHT = 5472, 3648
"""Of a picture, pixels: a sensor of one inch."""

FAULT_SIDES = (9, 16)
"""The longer side of a fault's mask in pixels, smallest and largest; a fault outside these limits is drawn again."""

QUALITY = 92
"""Of the JPEGs."""

_PATCH = 48
"""Side in pixels of the square that a fault changes."""
_STRIP = 256
"""Rows that are exposed at once, to save memory."""


def normal_image(rng: np.random.Generator, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Photographs a faultless panel: uint8 RGB ``[height, width, 3]``."""
    return _exposed(_surface(rng, width, height), rng)


def defective_image(
    rng: np.random.Generator, defect: str, width: int = WIDTH, height: int = HEIGHT
) -> tuple[np.ndarray, np.ndarray]:
    """Photographs a panel with one fault.

    Args:
        rng: where all chance comes from.
        defect: one of `DEFECTS`.
        width: of the picture, pixels.
        height: the same.

    Returns:
        The image, uint8 RGB ``[height, width, 3]``, and its mask, bool ``[height, width]``: True where the fault
        visibly changed the picture. The mask's longer side lies within `FAULT_SIDES`.

    Raises:
        ValueError: if there is no such defect.
    """
    if defect not in _DRAW:
        raise ValueError(f"unknown defect {defect!r}; there are {', '.join(DEFECTS)}")
    light = _surface(rng, width, height)
    left, top = int(rng.integers(width - _PATCH)), int(rng.integers(height - _PATCH))
    place = slice(top, top + _PATCH), slice(left, left + _PATCH)
    while True:
        faulty = light[place] * cv2.GaussianBlur(_DRAW[defect](rng), (0, 0), 0.6)
        changed = np.abs(faulty - light[place]).max(axis=2) > VISIBLE_CHANGE
        ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
        found = cv2.morphologyEx(changed.astype(np.uint8), cv2.MORPH_CLOSE, ellipse).astype(bool)
        if FAULT_SIDES[0] <= max(np.ptp(where) + 1 for where in np.nonzero(found) or (0,)) <= FAULT_SIDES[1]:
            break
    light[place] = faulty
    mask = np.zeros((height, width), bool)
    mask[place] = found
    return _exposed(light, rng), mask


def write_dataset(
    root: Path,
    *,
    train: int,
    test_good: int,
    test_each: int,
    seed: int,
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> None:
    """Writes panels in the MVTec AD layout, pictures as JPEG; the same arguments give the same bytes.

    Args:
        root: folder to fill.
        train: images in ``train/good``.
        test_good: images in ``test/good``.
        test_each: images in each ``test/<defect>``, with masks in ``ground_truth/<defect>``.
        seed: of all images.
        size: width and height of the pictures, pixels.
    """
    for_train, for_good, *for_defects = np.random.SeedSequence(seed).spawn(2 + len(DEFECTS))
    for folder, sequence, count in (("train", for_train, train), ("test", for_good, test_good)):
        for index, image_seed in enumerate(sequence.spawn(count)):
            _write(root / folder / "good" / f"{index:03}.jpg", normal_image(np.random.default_rng(image_seed), *size))
    for defect, sequence in zip(DEFECTS, for_defects, strict=True):
        for index, image_seed in enumerate(sequence.spawn(test_each)):
            image, mask = defective_image(np.random.default_rng(image_seed), defect, *size)
            _write(root / "test" / defect / f"{index:03}.jpg", image)
            _write(root / "ground_truth" / defect / f"{index:03}_mask.png", mask.astype(np.uint8) * 255)


def jpeg(image: np.ndarray) -> bytes:
    """The image, uint8 RGB, as a JPEG file."""
    return _encoded(image, ".jpg")


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_encoded(pixels, path.suffix))


def _encoded(pixels: np.ndarray, suffix: str) -> bytes:
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(suffix, pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY] if suffix == ".jpg" else [])
    return data.tobytes()


def _surface(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """What falls on the sensor, in grey levels, float32 ``[height, width, 3]``."""
    lay = (
        0.04 * _streaks(rng, 60, 0.6, width, height)
        + 0.03 * _streaks(rng, 100, 1.6, width, height)
        + 0.02 * _streaks(rng, 18, 0.6, width, height)
    )
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    lamp = 1 + x * rng.normal(0.03, 0.015) + y * rng.normal(0.02, 0.015) - 0.03 * (x**2 + y**2)
    colour = (STEEL * rng.normal(1, 0.018) * rng.normal(1, 0.005, 3)).astype(np.float32)
    grey = cv2.GaussianBlur(((1 + lay) * lamp).astype(np.float32), (0, 0), rng.uniform(0.5, 0.75))
    seen: np.ndarray = grey[:, :, None] * colour
    return seen


def _streaks(rng: np.random.Generator, along: int, across: float, width: int, height: int) -> np.ndarray:
    """Noise of mean 0 and deviation 1 with these lengths in pixels along x and y, float32 ``[height, width]``."""
    cells = rng.standard_normal((height, -(-width // along) + 2), dtype=np.float32)
    noise = cv2.resize(cv2.GaussianBlur(cells, (0, 0), sigmaX=0.6, sigmaY=across), (width, height))
    normalised: np.ndarray = (noise - noise.mean()) / noise.std()
    return normalised


def _exposed(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([expose(light[row : row + _STRIP], rng) for row in range(0, len(light), _STRIP)])


def _outline(rng: np.random.Generator, rough: float) -> np.ndarray:
    """An irregular oval in the middle of the patch; see `model.lab.optics.blob`."""
    middle = _PATCH / 2
    return blob(rng, middle, middle, rng.uniform(4, 6), rough)[:_PATCH, :_PATCH]


def _shaded(height: np.ndarray) -> np.ndarray:
    """What relief in pixels does to the reflected light: a factor, float32 ``[_PATCH, _PATCH, 1]``."""
    slope_y, slope_x = np.gradient(height)
    shading = np.tanh(slope_x * LIGHT[0] + slope_y * LIGHT[1])
    factor = (1 + np.where(shading > 0, 0.75, 0.6) * shading) * np.exp(0.09 * np.minimum(height, 0))
    shaded: np.ndarray = factor.astype(np.float32)[:, :, None]
    return shaded


def _bump(rng: np.random.Generator) -> np.ndarray:
    """A grain under the surface: a smooth rise."""
    level = _outline(rng, 0.08).clip(0)
    return np.repeat(_shaded(rng.uniform(1.5, 3.5) * level * (2 - level)), 3, axis=2)


def _pit(rng: np.random.Generator) -> np.ndarray:
    """A blowhole."""
    level = _outline(rng, 0.12)
    return np.repeat(_shaded(-step(level, 0.1) * (3 + 9 * np.sqrt(level.clip(0, 1)))), 3, axis=2)


def _spot(rng: np.random.Generator) -> np.ndarray:
    """A spot of rust or dirt."""
    density = step(_outline(rng, 0.3), 0.1) * rng.uniform(0.6, 1.3)
    absorbs = np.array([0.18, 0.3, 0.45]) if rng.random() < 0.6 else np.array([0.27, 0.29, 0.33])
    factor: np.ndarray = np.exp(-density[:, :, None] * absorbs).astype(np.float32)
    return factor


_DRAW: dict[str, Callable[[np.random.Generator], np.ndarray]] = {"bump": _bump, "pit": _pit, "spot": _spot}
"""Each gives a factor on the light, float32 ``[_PATCH, _PATCH, 3]``."""

DEFECTS: tuple[str, ...] = tuple(_DRAW)
"""Names of the defects that `defective_image` can draw."""
