"""Pairs to measure speed with: full size, seeded weights, for speed does not depend on what a network has learned."""

import io
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from model.lab.synthetic import SIDE, normal_image, write_dataset
from model.lifecycle.datasets import mvtec_training
from model.lifecycle.recipe import Recipe
from model.lifecycle.train import train_category
from model.networks.vgg import Teacher
from model.store.card import Card
from model.store.teachers import save_teacher
from model.store.version import CARD, SEEN, STUDENT

CATEGORY, TEACHER = "seeded", "seeded"


def seeded_teacher() -> Teacher:
    """VGG16's layers with random weights that keep the signal's size."""
    torch.manual_seed(0)
    teacher = Teacher()
    for layer in teacher.features:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return teacher


def make_category(weights: Path, image_size: int = 128, category: str = CATEGORY) -> None:
    """Writes a full-size pair into a weights folder, trained for one epoch."""
    teacher = seeded_teacher()
    save_teacher(teacher, weights / "teachers", TEACHER)
    with tempfile.TemporaryDirectory() as data:
        write_dataset(Path(data, "plates"), train=8, test_good=0, test_each=0, seed=0)
        samples = mvtec_training(Path(data, "plates"))
        recipe = Recipe(epochs=1, image_size=image_size)
        train_category(category, samples, weights, TEACHER, teacher, recipe, device="cpu")


def copy_category(weights: Path, name: str, category: str = CATEGORY) -> None:
    """The same pair once more under another name."""
    shutil.copytree(weights / category, weights / name)
    card = Card.model_validate_json((weights / category / CARD).read_bytes())
    (weights / name / CARD).write_text(card.model_copy(update={"category": name}).model_dump_json())
    assert (weights / name / STUDENT).exists()
    assert (weights / name / SEEN).exists()


def photographs(count: int, size: int = 128) -> np.ndarray:
    """Prepared images, uint8 RGB ``[count, size, size, 3]``."""
    plates = [Image.fromarray(normal_image(np.random.default_rng(seed))).resize((size, size)) for seed in range(count)]
    return np.stack([np.asarray(plate) for plate in plates])


def jpeg(side: int) -> bytes:
    """A photograph of this side as a JPEG of quality 90, with the detail of a generated plate at its own scale."""
    tiles = max(1, side // SIDE)
    rows = [
        np.concatenate([normal_image(np.random.default_rng(tiles * y + x)) for x in range(tiles)], axis=1)
        for y in range(tiles)
    ]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(rows)).crop((0, 0, side, side)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
