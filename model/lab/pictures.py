"""Pictures of many kinds and scales, for a compact teacher to learn a full one's features from."""

from collections.abc import Sequence

import cv2
import numpy as np
from torch.utils.data import IterableDataset

TEXTURE_SHARE = 0.2
"""Of the pictures: drawn by `texture`, and not from the folders."""
GRIDS = (1, 2, 4)
"""Tiles along a side of a picture from the folders."""
GREY_SHARE = 0.4
"""Of the pictures: without colour, as many cameras in factories see."""


class Pictures(IterableDataset[np.ndarray]):
    """Endless pictures, uint8 RGB ``[side, side, 3]``, the same for the same seed.

    A picture is a mosaic of 1, 4 or 16 tiles, each a crop of a random image at a random scale, or a drawn texture.
    Light, contrast, sharpness, noise and orientation vary.

    Args:
        groups: images, uint8 RGB ``[H, W, 3]`` of any size. All groups are drawn from equally often.
        side: of the pictures, pixels.
        seed: where all chance comes from.
    """

    def __init__(self, groups: Sequence[Sequence[np.ndarray]], side: int = 128, seed: int = 0) -> None:
        self._groups = groups
        self._side = side
        self._seed = seed

    def __iter__(self) -> "Pictures":
        self._rng = np.random.default_rng(self._seed)
        return self

    def __next__(self) -> np.ndarray:
        rng = self._rng
        picture = texture(rng, self._side) if rng.random() < TEXTURE_SHARE else self._mosaic(int(rng.choice(GRIDS)))
        return varied(picture, rng)

    def _mosaic(self, grid: int) -> np.ndarray:
        group = self._groups[int(self._rng.integers(len(self._groups)))]
        tile = self._side // grid
        picture = np.empty((tile * grid, tile * grid, 3), np.uint8)
        for y in range(0, len(picture), tile):
            for x in range(0, len(picture), tile):
                image = group[int(self._rng.integers(len(group)))]
                picture[y : y + tile, x : x + tile] = _crop(image, tile, self._rng)
        return picture


def _crop(image: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """A square of the image, enlarged or made smaller; a small image as a whole."""
    shorter = min(image.shape[:2])
    crop = int(min(shorter, max(32, side * 2 ** rng.uniform(-1, 1.6))))
    y, x = (int(rng.integers(length - crop + 1)) for length in image.shape[:2])
    interpolation = cv2.INTER_AREA if crop > side else cv2.INTER_CUBIC
    return cv2.resize(image[y : y + crop, x : x + crop], (side, side), interpolation=interpolation)


def texture(rng: np.random.Generator, side: int) -> np.ndarray:
    """Noise of several lengths, often longer one way than the other, with lines and shapes: ``[side, side, 3]``."""
    colour = rng.uniform(30, 220, 3)
    relief = np.zeros((side, side), np.float32)
    for _ in range(rng.integers(1, 4)):
        length = 2 ** rng.uniform(0, 6)
        other = length * 2 ** rng.uniform(0, 4) if rng.random() < 0.5 else length
        cells = [max(2, side // max(1, int(each)) + 1) for each in rng.permutation((length, other))]
        noise = rng.normal(size=cells).astype(np.float32)
        relief += cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC) * rng.uniform(3, 25)
    picture: np.ndarray = np.clip(colour + relief[:, :, None] * rng.uniform(0.7, 1.3, 3), 0, 255).astype(np.uint8)
    for _ in range(rng.integers(0, 5)):
        fill = rng.uniform(0, 255, 3) if rng.random() < 0.5 else np.clip(colour + rng.normal(0, 40), 0, 255)
        _shape(picture, [int(value) for value in fill], rng)
    if rng.random() < 0.3:
        turn = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(0, 360), 1)
        picture = cv2.warpAffine(picture, turn, (side, side), borderMode=cv2.BORDER_REFLECT)
    return picture


def _shape(picture: np.ndarray, fill: list[int], rng: np.random.Generator) -> None:
    """Draws a line, a circle, a rectangle or a polygon."""
    side = len(picture)
    start, end = rng.integers(0, side, (2, 2)).tolist()
    thickness = int(rng.integers(1, 5))
    thickness_or_filled = -1 if rng.random() < 0.5 else thickness
    kind = rng.integers(4)
    if kind == 0:
        cv2.line(picture, start, end, fill, thickness, cv2.LINE_AA)
    elif kind == 1:
        cv2.circle(picture, start, int(rng.integers(1, 50)), fill, thickness_or_filled, cv2.LINE_AA)
    elif kind == 2:
        cv2.rectangle(picture, start, end, fill, thickness_or_filled)
    else:
        cv2.fillPoly(picture, [rng.integers(0, side, (5, 2)).astype(np.int32)], fill, cv2.LINE_AA)


def varied(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture under other light, mirrored, grey, blurred or noisy, each by chance."""
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
    if rng.random() < 0.3:
        picture = picture[::-1]
    if rng.random() < GREY_SHARE:
        picture = np.repeat(cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)
    values: np.ndarray = picture.astype(np.float32)
    if rng.random() < 0.5:
        mean = values.mean()
        values = (values - mean) * 2 ** rng.uniform(-1.5, 0.6) + mean * 2 ** rng.uniform(-0.7, 0.5)
    if rng.random() < 0.3:
        values = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.4, 2))
    if rng.random() < 0.5:
        values = values + rng.normal(0, 2 ** rng.uniform(-1, 3.5), values.shape)
    eight_bits: np.ndarray = np.clip(values, 0, 255).astype(np.uint8)
    return eight_bits
