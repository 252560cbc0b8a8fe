"""Image files of every layout that can be written, each with the pixels that it means."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 27, 37
"""Odd, so that padded rows, half blocks and swapped axes show."""


@dataclass(frozen=True)
class Layout:
    """One file.

    Attributes:
        name: of its layout.
        data: the file.
        pixels: what it shows, uint8 RGB ``[H, W, 3]``, transparency laid on white.
        tolerance: how far a right reading may be from it, in levels.
        must_be_read: False where a refusal is right as well.
    """

    name: str
    data: bytes
    pixels: np.ndarray
    tolerance: int = 1
    must_be_read: bool = False


def colours() -> np.ndarray:
    """uint16 RGB ``[H, W, 3]`` over the whole range; no two channels alike, no symmetry, and busy low bytes."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    red = y * 65535 // (HEIGHT - 1)
    green = x * 65535 // (WIDTH - 1)
    blue = (x * y * 977 + 4321) % 65536
    picture = np.stack((red, green, blue), axis=2).astype(np.uint16)
    picture[3:9, 5:12] = 65535
    picture[12:15, 20:30] = 0
    return picture


def grey() -> np.ndarray:
    """uint16 ``[H, W]`` over the whole range."""
    return np.ascontiguousarray((colours()[:, :, 0] // 2 + colours()[:, :, 1] // 2).astype(np.uint16))


def opacity() -> np.ndarray:
    """uint16 ``[H, W]``: opaque, clear, and all between."""
    x = np.arange(WIDTH)[None].repeat(HEIGHT, axis=0)
    found = (x * 65535 // (WIDTH - 1)).astype(np.uint16)
    found[:10] = 65535
    found[20:, :10] = 0
    return found


def at_depth(samples: np.ndarray, bits: int) -> np.ndarray:
    """uint16 samples with their upper bits alone."""
    return samples >> (16 - bits)


def shown(samples: np.ndarray, bits: int) -> np.ndarray:
    """What samples of this depth look like: uint8, black at 0 and white at the largest value."""
    return np.round(samples.astype(np.float64) * 255 / (2**bits - 1)).astype(np.uint8)


def as_rgb(picture: np.ndarray) -> np.ndarray:
    """Grey ``[H, W]`` or colour ``[H, W, 3]`` as colour."""
    return np.repeat(picture[:, :, None], 3, axis=2) if picture.ndim == 2 else picture


def on_white(picture: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """uint8 colour or grey laid on white; ``alpha`` 0 to 1, ``[H, W]``."""
    alpha = alpha[:, :, None]
    return np.round(as_rgb(picture) * alpha + 255 * (1 - alpha)).astype(np.uint8)


def packed(samples: np.ndarray, bits: int, order: str = ">") -> bytes:
    """Rows of samples ``[H, N]``, the first in the highest bits, each row filled up to a whole byte."""
    if bits in (16, 32, 64):
        return samples.astype(f"{order}u{bits // 8}").tobytes()
    if bits == 8:
        return samples.astype(np.uint8).tobytes()
    each = (samples[:, :, None].astype(np.uint32) >> np.arange(bits - 1, -1, -1, dtype=np.uint32)) & 1
    return np.packbits(each.reshape(len(samples), -1).astype(np.uint8), axis=1).tobytes()


def saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    """A file as Pillow writes it."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()
