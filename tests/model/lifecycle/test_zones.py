"""Zones judged by their own level, and how few pictures of several images are enough."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from model.calibration import CalibrationError
from model.choices import FalseAlarmTarget, Schedule
from model.detector import scores_of
from model.lifecycle.calibrate import calibrate_category
from model.lifecycle.datasets import Sample, load_images, normal_samples
from model.lifecycle.recipe import Recipe, TrainingError
from model.lifecycle.regions import DrawnRegion
from model.lifecycle.thresholds import Rule
from model.lifecycle.train import train_category
from model.networks.vgg import Teacher
from model.preprocessing import Preprocessing, Tiles
from model.region import Polygon
from model.store.card import Card
from model.store.store import Store
from model.store.teachers import save_teacher
from tests.conftest import surface, write_images

LEFT: Polygon = ((0.0, 0.0), (39.0, 0.0), (39.0, 79.0), (0.0, 79.0))
RIGHT: Polygon = ((40.0, 0.0), (79.0, 0.0), (79.0, 79.0), (40.0, 79.0))
REGION = DrawnRegion({"rough": (LEFT,), "smooth": (RIGHT,)}).on(80, 80)
ZONED = Preprocessing(64, region=REGION)
SHORT = Recipe(image_size=64, epochs=20, batch_size=8, learning_rate=0.001, schedule=Schedule.CONSTANT)
"""After which the two zones of a plate have not the same level yet."""


def plate(seed: int) -> np.ndarray:
    """Its right half is polished."""
    image = surface(seed)
    image[:, 40:] = cv2.GaussianBlur(image, (0, 0), 6)[:, 40:]
    return image


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plates")
    write_images(root / "train", [plate(seed) for seed in range(12)])
    write_images(root / "good", [plate(seed) for seed in range(100, 120)])
    return root


@pytest.fixture
def weights(tmp_path: Path, teacher: Teacher) -> Path:
    save_teacher(teacher, tmp_path / "weights" / "teachers", "narrow")
    return tmp_path / "weights"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, photographs: Path, teacher: Teacher) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    save_teacher(teacher, folder / "teachers", "narrow")
    samples = normal_samples(photographs / "train")
    train_category("plate", samples, folder, "narrow", teacher, SHORT, preprocessing=ZONED, each_zone=True)
    return folder


def weighed(card: Card, folder: Path, samples: list[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the zones, and of the pictures."""
    _, detector = Store(folder).load(card.category)
    images = load_images(samples, card.preprocessor)
    scores = scores_of(detector, images.pixels, images.masks)
    return scores.reshape(-1, 2), card.part_scores(scores)


def test_training_brings_the_zones_to_one_level(trained: Path, photographs: Path):
    card = Store(trained).card("plate")
    assert card.zone_weights["rough"] == 1
    assert card.zone_weights["smooth"] > 1.2
    assert card.sensitivities.tolist() == [1, card.zone_weights["smooth"]]
    assert card.threshold_of("rough") == card.calibration.threshold
    assert card.threshold_of("smooth") == pytest.approx(card.calibration.threshold / card.zone_weights["smooth"])
    of_zones, of_pictures = weighed(card, trained, list(normal_samples(photographs / "good")))
    np.testing.assert_allclose(of_pictures, (of_zones * card.sensitivities).max(axis=1))
    levels = (of_zones * card.sensitivities).mean(axis=0)
    assert 0.9 < levels[1] / levels[0] < 1.15
    assert card.fingerprint() != card.model_copy(update={"zone_weights": {}}).fingerprint()


def test_a_calibration_keeps_the_levels_and_its_promise(trained: Path, photographs: Path):
    before = Store(trained).card("plate")
    good = normal_samples(photographs / "good")
    rule = Rule(target=FalseAlarmTarget(0.1, False))
    card, _ = calibrate_category(trained, trained / "teachers", "plate", good, [], rule=rule)
    assert card.zone_weights == before.zone_weights
    _, scores = weighed(card, trained, list(good))
    assert card.calibration.false_alarms is not None
    assert int((scores >= card.calibration.threshold).sum()) == card.calibration.false_alarms.errors == 1  # of 20


def test_the_levels_come_from_other_pictures_than_the_threshold(trained: Path, photographs: Path):
    good = normal_samples(photographs / "good")
    alike, _ = calibrate_category(trained, trained / "teachers", "plate", good, [], each_zone=False)
    assert alike.zone_weights == {}
    assert alike.calibration.normal_images == 20
    each, _ = calibrate_category(trained, trained / "teachers", "plate", good, [], each_zone=True)
    assert each.zone_weights["smooth"] > 1.2
    assert each.calibration.normal_images == 10
    seen = Store(trained).seen("plate")
    assert len(seen.calibration) == 20
    drawn = DrawnRegion({"rough": (LEFT,), "smooth": (RIGHT,)})
    other, _ = calibrate_category(trained, trained / "teachers", "plate", good, [], region=drawn)
    assert other.zone_weights == {}


def test_too_few_pictures_for_the_levels_are_refused(trained: Path, photographs: Path):
    good = normal_samples(photographs / "good")[:14]
    with pytest.raises(CalibrationError, match="need 8 good pictures that do not set the threshold, and there are 7"):
        calibrate_category(trained, trained / "teachers", "plate", good, [], each_zone=True)


def test_levels_need_zones_to_compare(weights: Path, photographs: Path, teacher: Teacher):
    samples = normal_samples(photographs / "train")
    for preprocessing, own in ((Preprocessing(64), {}), (ZONED, {"smooth": 2.0})):
        with pytest.raises(CalibrationError, match="two zones without a fixed threshold"):
            train_category(
                "new", samples, weights, "narrow", teacher, SHORT,
                preprocessing=preprocessing, zone_thresholds=own, each_zone=True,
            )  # fmt: skip
    with pytest.raises(CalibrationError, match="and there are 7"):
        train_category("new", samples[:9], weights, "narrow", teacher, SHORT, preprocessing=ZONED, each_zone=True)
    assert not Store(weights).holds("new")


@pytest.mark.parametrize(("tiles", "least"), [(Tiles(2, 2), 4), (Tiles(2, 1), 5), (None, 8)])
def test_pictures_of_several_images_may_be_few(
    weights: Path, photographs: Path, teacher: Teacher, tiles: Tiles | None, least: int
):
    samples = normal_samples(photographs / "train")
    preprocessing, short = Preprocessing(64, tiles=tiles), Recipe(image_size=64, epochs=1)
    views = 1 if tiles is None else tiles.columns * tiles.rows
    said = f"{least - 1} different images are too few to train on, {least} at least.*: add 1 or more"
    with pytest.raises(TrainingError, match=said) as refused:
        train_category("new", samples[: least - 1], weights, "narrow", teacher, short, preprocessing=preprocessing)
    assert (f"makes {views} images" in str(refused.value)) == (views > 1)
    card, _ = train_category("new", samples[:least], weights, "narrow", teacher, short, preprocessing=preprocessing)
    assert (card.training.images, card.training.held_out, card.training.views) == (least - 2, 2, views)
    assert card.calibration.normal_images == 2  # pictures, whatever each of them makes
