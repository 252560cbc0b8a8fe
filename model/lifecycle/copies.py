"""Finding images that show what another one shows: copies of files, pictures saved again, scenes that did not move."""

import hashlib

import cv2
import numpy as np

NEAR = 1.5
"""Mean difference in grey levels. Saved again as JPEG (quality 50 and up) a photograph differs by less at 128 pixels;
different photographs of magnetic tiles, castings and leather differ by 2.2 at least."""

BLOCKS = 2
STEPS = 4
"""For each of the blocks, and each channel, the images are sorted by its mean and compared with so many that follow."""


def pixel_hash(pixels: np.ndarray) -> bytes:
    """The same for the same prepared pixels, and for no others."""
    return hashlib.sha256(pixels.tobytes()).digest()


def near_copies(pixels: np.ndarray) -> list[int]:
    """The positions of images that differ from another one by less than `NEAR`.

    The time grows with the number of images, not with that of pairs; so a copy may be missed among many thousands of
    images that are all much alike.

    Args:
        pixels: prepared images, uint8 RGB ``[N, size, size, 3]``.
    """
    grid = (BLOCKS, BLOCKS)
    means = np.array([cv2.resize(one.astype(np.float32), grid, interpolation=cv2.INTER_AREA).ravel() for one in pixels])
    found: set[int] = set()
    for by_mean in means.argsort(axis=0, kind="stable").T:
        for step in range(1, STEPS + 1):
            here, there = by_mean[:-step], by_mean[step:]
            close = np.abs(means[here] - means[there]).mean(axis=1) < NEAR  # as their pixels can only differ more
            for one, other in zip(here[close].tolist(), there[close].tolist(), strict=True):
                if not found.issuperset((one, other)) and cv2.absdiff(pixels[one], pixels[other]).mean() < NEAR:
                    found |= {one, other}
    return sorted(found)
