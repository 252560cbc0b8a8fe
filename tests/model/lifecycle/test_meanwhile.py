"""Two who change one category at the same time: the second is told, and nothing of the first is lost.

Each test has the other one act at a certain moment: while images are read, or after an epoch.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from model.lifecycle import calibrate
from model.lifecycle.calibrate import calibrate_category
from model.lifecycle.datasets import LoadedImages, Sample, load_images, normal_samples
from model.lifecycle.distillation import Epoch
from model.lifecycle.recipe import Recipe
from model.lifecycle.train import InterruptedTrainingError, ReplacesYoudenError, train_category
from model.networks.vgg import Teacher
from model.store.card import Card
from model.store.store import ChangedMeanwhileError, Store
from tests.conftest import Factory

SHORT = Recipe(image_size=64, epochs=2, batch_size=8, seed=3)
Meanwhile = Callable[[Callable[[], object]], None]


@pytest.fixture
def store(factory: Factory, tmp_path: Path) -> Store:
    """A copy of the weights folder, free to be changed."""
    return Store(Path(shutil.copytree(factory.weights, tmp_path / "weights")))


@pytest.fixture
def while_images_are_read(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Has somebody else act once: the next calibration has read its category then, and not yet its images."""

    def arrange(action: Callable[[], object]) -> None:
        def read(*arguments: object, **options: object) -> LoadedImages:
            monkeypatch.setattr(calibrate, "load_images", load_images)
            action()
            return load_images(*arguments, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(calibrate, "load_images", read)

    return arrange


def calibrated(store: Store, factory: Factory, category: str, images: int = 12) -> Card:
    """Calibrates on the first of the good and of the faulty images."""
    good, bad = (normal_samples(factory.data / kind)[:images] for kind in ("good", "bad"))
    faulty = [Sample(one.path, "spot") for one in bad]
    return calibrate_category(store.weights, store.teachers, category, list(good), faulty)[0]


def trained(store: Store, factory: Factory, teacher: Teacher, **options: bool) -> Card:
    samples = normal_samples(factory.data / "train")
    return train_category(
        "brushed", samples, store.weights, "narrow", teacher, SHORT, replace=True, **options  # type: ignore[arg-type]
    )[0]  # fmt: skip


def versions(store: Store) -> list[str]:
    """In place, then what is kept, last put aside first."""
    return [store.card("brushed").model_version, *(one.version for one in store.kept("brushed"))]


def assert_nothing_is_left_over(store: Store) -> None:
    names = {path.name for path in store.weights.iterdir()}
    assert names <= {"striped", "brushed", "fresh", "teachers", ".versions", ".training"}


def test_a_calibration_does_not_overwrite_what_a_training_has_put_in_place_meanwhile(
    store: Store, factory: Factory, teacher: Teacher, while_images_are_read: Meanwhile
):
    before = store.card("brushed").model_version
    new: list[Card] = []
    while_images_are_read(lambda: new.append(trained(store, factory, teacher)))
    with pytest.raises(ChangedMeanwhileError, match=f"at the start version {before} was in place, now it is version"):
        calibrated(store, factory, "brushed")
    assert store.card("brushed") == new[0]
    assert versions(store) == [new[0].model_version, before]
    assert_nothing_is_left_over(store)
    assert calibrated(store, factory, "brushed").student_sha256 == new[0].student_sha256


def test_of_two_calibrations_at_once_the_one_that_ends_first_stays(
    store: Store, factory: Factory, while_images_are_read: Meanwhile
):
    before = store.card("brushed").model_version
    first: list[Card] = []
    while_images_are_read(lambda: first.append(calibrated(store, factory, "brushed", images=6)))
    with pytest.raises(ChangedMeanwhileError):
        calibrated(store, factory, "brushed")
    assert store.card("brushed") == first[0]
    assert versions(store) == [first[0].model_version, before]
    assert len(store.seen("brushed").calibration) == 12  # those of the first
    assert_nothing_is_left_over(store)


def test_a_calibration_does_not_undo_a_step_back(store: Store, factory: Factory, while_images_are_read: Meanwhile):
    before = store.card("brushed").model_version
    bad = calibrated(store, factory, "brushed", images=6).model_version
    while_images_are_read(lambda: store.roll_back("brushed"))
    with pytest.raises(ChangedMeanwhileError):
        calibrated(store, factory, "brushed")
    assert versions(store) == [before, bad]


def test_a_category_that_vanishes_during_its_calibration_does_not_come_back(
    store: Store, factory: Factory, while_images_are_read: Meanwhile
):
    while_images_are_read(lambda: shutil.rmtree(store.folder("brushed")))
    with pytest.raises(ChangedMeanwhileError, match="now it is version none"):
        calibrated(store, factory, "brushed")
    assert not store.folder("brushed").exists()


def test_a_training_does_not_overwrite_a_calibration_that_ended_meanwhile_and_can_be_resumed(
    store: Store, factory: Factory, teacher: Teacher
):
    samples = normal_samples(factory.data / "train")
    found: list[Card] = []

    def calibrate_once(epoch: Epoch) -> None:
        if not found:
            found.append(calibrated(store, factory, "brushed"))

    with pytest.raises(InterruptedTrainingError, match="the training is kept in"):
        train_category(
            "brushed", samples, store.weights, "narrow", teacher, SHORT, replace=True, on_epoch=calibrate_once
        )
    assert store.card("brushed") == found[0]
    assert found[0].calibration.method == "youden"
    with pytest.raises(ReplacesYoudenError):  # there is something to lose now
        trained(store, factory, teacher, resume=True)
    card = trained(store, factory, teacher, resume=True, without_anomalous=True)
    assert versions(store)[:2] == [card.model_version, found[0].model_version]
    assert not store.checkpoint("brushed").exists()
    assert_nothing_is_left_over(store)


def test_a_new_category_does_not_overwrite_one_that_has_come_meanwhile(
    store: Store, factory: Factory, teacher: Teacher
):
    def bring_in(epoch: Epoch) -> None:
        store.folder("new").mkdir(exist_ok=True)
        (store.folder("new") / "notes.txt").write_text("of somebody else")

    samples = normal_samples(factory.data / "train")
    with pytest.raises(InterruptedTrainingError, match="exists; the training is kept in"):
        train_category("new", samples, store.weights, "narrow", teacher, SHORT, on_epoch=bring_in)
    assert (store.folder("new") / "notes.txt").read_text() == "of somebody else"
    train_category("new", samples, store.weights, "narrow", teacher, SHORT, resume=True, replace=True)
    assert store.card("new").training.epochs == SHORT.epochs
