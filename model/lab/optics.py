"""What the generated categories share: shapes, smooth noise, and a sensor."""

import cv2
import numpy as np

SIDE = 256
"""Images are SIDE x SIDE pixels."""

VISIBLE_CHANGE = 7.0
"""Grey levels by which a fault must change a pixel's brightest-changing colour to count as faulty there."""


def expose(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The sensor: shot noise, which all three colours of a pixel partly share, and 8 bits.

    Args:
        light: in grey levels, ``[H, W, 3]``, float64, or float32 for speed.
        rng: where the noise comes from.
    """
    of_colours, of_pixels = (rng.standard_normal(shape, dtype=light.dtype) for shape in (light.shape, light.shape[:2]))
    grain = 1.3 * of_colours + of_pixels[:, :, None]
    return np.clip(np.rint(light + grain * np.sqrt(light.clip(0) / 150)), 0, 255).astype(np.uint8)


def smooth_noise(rng: np.random.Generator, along: float, across: float, side: int = SIDE) -> np.ndarray:
    """Smooth noise of mean 0 and deviation 1, with these lengths in pixels along x and y."""
    noise = cv2.GaussianBlur(rng.normal(size=(side, side)), (0, 0), sigmaX=along, sigmaY=across)
    normalised: np.ndarray = (noise - noise.mean()) / noise.std()
    return normalised


def axes(x0: float, y0: float, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Every pixel's coordinates in a frame turned by this angle around a point."""
    y, x = np.mgrid[:SIDE, :SIDE]
    cos, sin = np.cos(angle), np.sin(angle)
    return (x - x0) * cos + (y - y0) * sin, (y - y0) * cos - (x - x0) * sin


def blob(rng: np.random.Generator, x0: float, y0: float, radius: float, rough: float) -> np.ndarray:
    """An irregular oval of this mean radius: 1 at its middle, 0 on its outline, negative outside."""
    u, v = axes(x0, y0, rng.uniform(0, np.pi))
    stretch = np.sqrt(rng.uniform(1, 1.8))
    level: np.ndarray = 1 - np.hypot(u / stretch, v * stretch) / radius
    return level + rough * smooth_noise(rng, radius / 2.5, radius / 2.5)


def step(level: np.ndarray, softness: float) -> np.ndarray:
    """From 0 where the level is negative to 1 where it is positive."""
    return 0.5 + 0.5 * np.tanh(level / (2 * softness))
