"""Trains candidates: a category again as it was trained before, on other images, or the first version of a new one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from model.choices import IMAGENET, Align, Light
from model.lifecycle.datasets import LoadedImages, Sample
from model.lifecycle.distillation import Epoch
from model.lifecycle.recipe import Recipe
from model.lifecycle.train import check_trainable, train_category
from model.store.card import Card
from model.store.store import Store
from model.store.teachers import load_teacher, resolve_teacher


def recipe_of(card: Card) -> Recipe:
    """How the student of a card was trained."""
    training, prepared = card.training, card.preprocessing
    return Recipe(
        image_size=card.image_size,
        epochs=training.epochs,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        schedule=training.schedule,
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


@dataclass(frozen=True)
class Changes:
    """What is to be other than it was, or in a new category other than by default; None changes nothing.

    Attributes:
        teacher: see `model.store.teachers.resolve_teacher`.
        epochs: passes over the images.
        image_size: side of the input, pixels.
        seed: for the student's first weights and the order of the images.
    """

    teacher: str | None = None
    epochs: int | None = None
    image_size: int | None = None
    seed: int | None = None

    def of(self, recipe: Recipe) -> Recipe:
        """A recipe with these changes."""
        return replace(
            recipe,
            epochs=recipe.epochs if self.epochs is None else self.epochs,
            image_size=recipe.image_size if self.image_size is None else self.image_size,
            seed=recipe.seed if self.seed is None else self.seed,
        )


def train_again(
    category: str,
    samples: Sequence[Sample],
    weights: Path,
    teachers: Path,
    changes: Changes = Changes(),
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
        changes: what is to be other than it was.

    Returns:
        The card of the candidate.

    Raises:
        StoreError: if there is no such category, or its card is damaged.
        TeacherError: if its teacher is not there.
        DatasetError, TrainingError, CalibrationError: see `train_category`.
    """
    card = Store(weights, teachers).card(category)
    recipe = changes.of(recipe_of(card))
    if changes.teacher is None:
        name, teacher = card.teacher.name, load_teacher(teachers, card.teacher.name, card.teacher.sha256)
    else:
        name, teacher = resolve_teacher(teachers, changes.teacher)
    trained, _ = train_category(
        category,
        samples,
        weights,
        name,
        teacher,
        recipe,
        preprocessing=replace(card.preprocessor, size=recipe.image_size),
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
    return trained


def train_first(
    category: str,
    samples: Sequence[Sample],
    weights: Path,
    teachers: Path,
    changes: Changes = Changes(),
    *,
    device: torch.device | str = "cpu",
    skip_unreadable: bool = False,
    on_start: Callable[[LoadedImages, int], None] = lambda images, held_out: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Card:
    """Trains the first version of a category that does not exist yet, as a candidate.

    It is in no answer, and the category does not exist, until it is promoted. What `changes` does not say is as by
    default. The rest is as in `train_again`.

    Raises:
        NotNewError: if there is such a category.
        TeacherError: if its teacher is not there.
        StoreError, DatasetError, TrainingError, CalibrationError: see `train_category`.
    """
    check_trainable(weights, category, candidate=True, new=True)
    name, teacher = resolve_teacher(teachers, changes.teacher or IMAGENET)
    trained, _ = train_category(
        category,
        samples,
        weights,
        name,
        teacher,
        changes.of(Recipe()),
        device=device,
        skip_unreadable=skip_unreadable,
        candidate=True,
        new=True,
        keep_progress=False,
        on_start=on_start,
        on_epoch=on_epoch,
    )
    return trained
