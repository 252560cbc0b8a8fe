"""Trains a category again as it was trained before, on other images, as a candidate."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from model.choices import Align, Light
from model.lifecycle.datasets import LoadedImages, Sample
from model.lifecycle.distillation import Epoch
from model.lifecycle.recipe import Recipe
from model.lifecycle.train import train_category
from model.store.card import Card
from model.store.store import Store
from model.store.teachers import load_teacher


def recipe_of(card: Card) -> Recipe:
    """How the student of a card was trained."""
    training, prepared = card.training, card.preprocessing
    return Recipe(
        image_size=card.image_size,
        epochs=training.epochs,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        direction_weight=card.direction_weight,
        squared_weight=card.squared_weight,
        weigh_distillation_layers=card.architecture.weigh_distillation_layers,
        seed=training.seed,
        colour=prepared.colour,
        white_level=None if prepared.levels is None else prepared.levels.white,
        black_level=None if prepared.levels is None else prepared.levels.black,
        bayer=prepared.bayer,
        light=Light.NONE if prepared.reference_brightness is None else Light.GAIN,
        align=Align.NONE if prepared.alignment is None else prepared.alignment.method,
    )


def train_again(
    category: str,
    samples: Sequence[Sample],
    weights: Path,
    teachers: Path,
    *,
    device: torch.device | str = "cpu",
    skip_unreadable: bool = False,
    on_start: Callable[[LoadedImages, int], None] = lambda images, held_out: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Card:
    """Trains a candidate with teacher, recipe, preprocessing, region and score of the version in place.

    Nothing is kept of a training that is stopped. The other arguments are those of `train_category`.

    Args:
        category: its name.
        samples: normal images.
        weights: the folder of categories.
        teachers: the folder of teachers.

    Returns:
        The card of the candidate.

    Raises:
        StoreError: if there is no such category, or its card is damaged.
        TeacherError: if its teacher is not there.
        DatasetError, TrainingError, CalibrationError: see `train_category`.
    """
    card = Store(weights, teachers).card(category)
    new, _ = train_category(
        category,
        samples,
        weights,
        card.teacher.name,
        load_teacher(teachers, card.teacher.name, card.teacher.sha256),
        recipe_of(card),
        preprocessing=card.preprocessor,
        zone_thresholds=card.zone_thresholds,
        each_zone=bool(card.zone_weights),
        score=card.score,
        device=device,
        skip_unreadable=skip_unreadable,
        candidate=True,
        keep_progress=False,
        on_start=on_start,
        on_epoch=on_epoch,
    )
    return new
