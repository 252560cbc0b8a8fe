"""Candidates that are trained like the version in place, or as the first version of a new category."""

import shutil
from pathlib import Path

import pytest

from model.lifecycle.again import Changes, recipe_of, train_again, train_first
from model.lifecycle.calibrate import calibrate_category
from model.lifecycle.datasets import Sample, normal_samples
from model.lifecycle.recipe import Recipe
from model.lifecycle.train import NotNewError, TrainingError, train_category
from model.networks.vgg import Teacher
from model.preprocessing import Preprocessing, Tiles
from model.store.store import Store
from model.store.teachers import MissingTeacherError, save_teacher
from model.store.version import StoreError
from tests.conftest import Factory

QUICK = Changes(teacher="narrow", epochs=2, image_size=64, seed=5)


@pytest.fixture
def store(factory: Factory, tmp_path: Path) -> Store:
    """One category, free to be changed, and teachers."""
    for name in ("striped", "teachers"):
        shutil.copytree(factory.weights / name, tmp_path / "weights" / name)
    return Store(tmp_path / "weights")


@pytest.fixture
def samples(factory: Factory) -> list[Sample]:
    return list(normal_samples(factory.data / "train"))


def test_a_first_version_is_a_candidate_until_it_is_promoted(store: Store, samples: list[Sample], factory: Factory):
    card = train_first("new", samples, store.weights, store.teachers, QUICK)
    assert store.candidates.card("new") == card
    assert "new" not in store.names()
    assert (card.training.epochs, card.training.seed, card.image_size, card.teacher.name) == (2, 5, 64, "narrow")
    assert (card.training.images, card.training.held_out, card.calibration.method) == (16, 4, "synthetic")
    good, bad = (
        normal_samples(factory.data / "good"),
        [Sample(path, "spot") for path in (factory.data / "bad").iterdir()],
    )
    calibrated, _ = calibrate_category(store.weights, store.teachers, "new", good, bad, candidate=True)
    assert (calibrated.calibration.method, calibrated.student_sha256) == ("youden", card.student_sha256)
    assert store.promote("new") == calibrated
    assert store.names() == ["new", "striped"]
    assert (store.candidates.names(), store.kept("new")) == ([], [])


def test_what_a_new_category_is_not_told_is_as_by_default():
    assert Changes().of(Recipe()) == Recipe()
    assert Changes(epochs=7).of(Recipe()) == Recipe(epochs=7)


def test_a_first_version_that_cannot_be_made_leaves_nothing(store: Store, samples: list[Sample]):
    with pytest.raises(NotNewError, match="a category 'striped' already"):
        train_first("striped", samples, store.weights, store.teachers, QUICK)
    with pytest.raises(MissingTeacherError):
        train_first("new", samples, store.weights, store.teachers, Changes(teacher="lost"))
    with pytest.raises(TrainingError, match="7 different images are too few"):
        train_first("new", samples[:7], store.weights, store.teachers, QUICK)
    with pytest.raises(StoreError, match="cannot name a category"):
        train_first("../new", samples, store.weights, store.teachers, QUICK)
    assert sorted(path.name for path in store.weights.iterdir()) == ["striped", "teachers"]


def test_without_changes_a_category_is_trained_as_before(store: Store, samples: list[Sample]):
    before = store.card("striped")
    card = train_again("striped", samples, store.weights, store.teachers, Changes(epochs=1))
    assert recipe_of(card) == Changes(epochs=1).of(recipe_of(before))
    assert (card.preprocessor, card.score, card.teacher) == (before.preprocessor, before.score, before.teacher)
    assert store.card("striped") == before


def test_another_teacher_and_size_change_nothing_else(store: Store, samples: list[Sample], teacher: Teacher):
    prepared = Preprocessing(64, tiles=Tiles(2, 1))
    train_category("tiled", samples, store.weights, "narrow", teacher, Recipe(epochs=1), preprocessing=prepared)
    other = Teacher(teacher.plan)
    save_teacher(other, store.teachers, "other")
    card = train_again("tiled", samples, store.weights, store.teachers, Changes(teacher="other", image_size=32))
    assert (card.teacher.name, card.image_size, card.preprocessing.tiles) == ("other", 32, prepared.tiles)
    assert card.preprocessor == Preprocessing(32, tiles=Tiles(2, 1))
    assert store.card("tiled").teacher.name == "narrow"


def test_a_category_that_is_not_there_is_not_trained_again(store: Store, samples: list[Sample]):
    with pytest.raises(StoreError, match="there is no category 'new'"):
        train_again("new", samples, store.weights, store.teachers, QUICK)
