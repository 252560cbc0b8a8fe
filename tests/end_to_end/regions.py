"""Parts of a category with two zones, a place that is ignored, and tiles."""

from pathlib import Path

import cv2
import numpy as np

from model.lifecycle.datasets import Sample
from model.lifecycle.recipe import Recipe
from model.lifecycle.thresholds import Rule
from model.lifecycle.train import train_category
from model.networks.vgg import Teacher
from model.preprocessing import Preprocessing, Tiles
from model.region import Region, Zone
from model.store.teachers import save_teacher
from tests.conftest import surface, write_images

CATEGORY = "panel"
SIZE = (120, 200)
"""Height and width of its pictures, pixels."""
REGION = Region(
    200,
    120,
    (
        Zone("face", (((8.0, 10.0), (90.0, 20.0), (88.0, 108.0), (10.0, 104.0)),), (8, 10, 91, 109)),
        Zone("rim", (((110.0, 10.0), (190.0, 10.0), (190.0, 108.0), (150.0, 90.0), (112.0, 108.0)),),
             (110, 10, 191, 109)),
    ),
    (((30.0, 80.0), (60.0, 80.0), (60.0, 100.0), (30.0, 100.0)),),
)  # fmt: skip
TILES = Tiles(1, 2)
THRESHOLD = 0.5
"""In units of the score. Good parts are far below, faulty ones far above."""
THRESHOLDS = {"face": 0.45}
"""Of the zones that have their own."""


def part(seed: int, *faults: tuple[int, int]) -> np.ndarray:
    """One of its parts, with dark spots around these points."""
    image = surface(seed, size=SIZE)
    for point in faults:
        cv2.circle(image, point, 11, (10, 10, 10), -1)
    return image


def png(image: np.ndarray) -> bytes:
    """A part as a file."""
    data: bytes = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
    return data


def train_panel(folder: Path, teacher: Teacher) -> Path:
    """Trains it; returns the weights folder."""
    weights = folder / "weights"
    save_teacher(teacher, weights / "teachers", "narrow")
    samples: list[Sample] = write_images(folder / "train", [part(seed) for seed in range(16)])
    recipe = Recipe(image_size=64, epochs=6, batch_size=8)
    preprocessing = Preprocessing(64, region=REGION, tiles=TILES)
    train_category(
        CATEGORY, samples, weights, "narrow", teacher, recipe, preprocessing=preprocessing, zone_thresholds=THRESHOLDS,
        rule=Rule(threshold=THRESHOLD),
    )  # fmt: skip
    return weights
