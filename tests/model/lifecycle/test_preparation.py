"""What a category takes from its training images stands in its card and is the same ever after."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from model.choices import AUTO, Bayer, Colour, Level, Light
from model.detector import scores_of
from model.lifecycle.calibrate import calibrate_category
from model.lifecycle.datasets import DatasetError, Sample, load_images
from model.lifecycle.distillation import Epoch, TrainingInterrupted
from model.lifecycle.evaluate import evaluate_category
from model.lifecycle.preparation import settled
from model.lifecycle.recipe import Recipe, TrainingError
from model.lifecycle.train import train_category
from model.networks.vgg import Teacher
from model.preprocessing import brightness
from model.reading import Levels
from model.region import RegionError
from model.store.card import Card, PreprocessingRecord
from model.store.store import Store
from tests.conftest import Factory, surface
from tests.model.test_reading import deep, encoded, mosaic

SHORT = Recipe(image_size=64, epochs=30, batch_size=8)
TWELVE = replace(SHORT, white_level=AUTO)


def written(folder: Path, images: list[np.ndarray]) -> list[Sample]:
    """Writes images of any depth as PNG into a new folder."""
    folder.mkdir(parents=True)
    samples = [Sample(folder / f"{index:03}.png") for index in range(len(images))]
    for sample, image in zip(samples, images, strict=True):
        sample.path.write_bytes(encoded(image))
    return samples


def levels_of(folder: Path, *pictures: list[int], white: Level = AUTO, black: Level | None = None) -> Levels | None:
    samples = written(folder, [np.array([values], np.uint16) for values in pictures])
    return settled(SHORT.preprocessing, replace(SHORT, white_level=white, black_level=black), samples).levels


@pytest.mark.parametrize(
    ("largest", "white"), [(200, 255), (256, 1023), (1023, 1023), (1024, 4095), (4096, 16383), (16384, 65535)]
)
def test_the_white_level_is_the_first_full_scale_that_covers_all_images(tmp_path: Path, largest: int, white: int):
    assert levels_of(tmp_path / "images", [40, 50], [90, largest], [0, 3]) == Levels(white)


def test_the_black_level_is_the_smallest_value_unless_that_is_of_a_bright_part(tmp_path: Path):
    assert levels_of(tmp_path / "a", [250, 4000], [240, 3000], black=AUTO) == Levels(4095, 240)
    assert levels_of(tmp_path / "b", [300, 4000], [257, 3000], black=AUTO) == Levels(4095)
    assert levels_of(tmp_path / "c", [300, 4000], [257, 3000], black=100) == Levels(4095, 100)
    assert levels_of(tmp_path / "d", [300, 1000], [257, 900], white=16383, black=AUTO) == Levels(16383, 257)


def test_levels_that_the_images_cannot_have_are_refused(tmp_path: Path, teacher: Teacher):
    eight = written(tmp_path / "eight", [surface(seed) for seed in range(8)])
    with pytest.raises(TrainingError, match=r"have 8 bits per value, .*; give no levels"):
        train_category("part", eight, tmp_path, "narrow", teacher, TWELVE)
    with pytest.raises(TrainingError, match="a black level needs a white level"):
        Recipe(black_level=0)
    with pytest.raises(TrainingError, match="they are 1023 and 1023"):
        levels_of(tmp_path / "dark", [20, 900], black=1023)
    twelve = written(tmp_path / "twelve", [deep(surface(seed)) for seed in range(8)])
    with pytest.raises(DatasetError, match=r"000.png: the largest value of this image is .*, above 1023"):
        train_category("part", twelve, tmp_path, "narrow", teacher, replace(SHORT, white_level=1023))
    with pytest.raises(DatasetError, match=r"000.png: this image has 8 bits per value"):
        train_category("part", twelve + eight[:1], tmp_path, "narrow", teacher, TWELVE)
    (tmp_path / "none.png").write_bytes(b"")
    with pytest.raises(DatasetError, match="the file is empty"):
        train_category("part", [Sample(tmp_path / "none.png")], tmp_path, "narrow", teacher, TWELVE)


def test_images_in_the_dark_have_no_light_to_be_brought_to(tmp_path: Path):
    samples = written(tmp_path / "dark", [np.zeros((8, 8), np.uint8)])
    with pytest.raises(TrainingError, match="the images are black"):
        settled(SHORT.preprocessing, replace(SHORT, light=Light.GAIN), samples)


def test_the_reference_of_the_light_is_the_median_of_the_images(tmp_path: Path):
    samples = written(tmp_path / "images", [np.full((8, 8), grey, np.uint8) for grey in (10, 90, 100, 110, 255)])
    found = settled(SHORT.preprocessing, replace(SHORT, light=Light.GAIN), samples)
    assert found.reference_brightness == 100


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, teacher: Teacher, factory: Factory) -> Path:
    """Categories whose images are prepared in other ways than most: 12 bits, in grey, raw, and with other light."""
    root = tmp_path_factory.mktemp("prepared")
    good = [surface(seed) for seed in range(20)]
    dimmed = zip(good, np.linspace(0.6, 1, 20), strict=True)
    made = {
        "twelve": (TWELVE, [deep(image) for image in good]),
        "raw": (replace(TWELVE, bayer=Bayer.GRBG), [mosaic(deep(image), Bayer.GRBG) for image in good]),
        "grey": (replace(SHORT, colour=Colour.GRAY), good),
        "lit": (
            replace(SHORT, light=Light.GAIN),
            [cv2.convertScaleAbs(image, alpha=factor) for image, factor in dimmed],
        ),
    }
    for name, (recipe, images) in made.items():
        train_category(name, written(root / name, images), root / "weights", "narrow", teacher, recipe)
    return Path(root / "weights")


def test_the_card_says_how_images_are_prepared(weights: Path, factory: Factory):
    store = Store(weights, factory.teachers)
    found = {name: store.card(name).preprocessing for name in ("twelve", "raw", "grey", "lit")}
    assert found["twelve"] == PreprocessingRecord(levels=Levels(4095))
    assert found["raw"] == PreprocessingRecord(levels=Levels(4095), bayer=Bayer.GRBG)
    assert found["grey"] == PreprocessingRecord(colour=Colour.GRAY)
    reference = found["lit"].reference_brightness
    assert reference is not None
    assert found["lit"] == PreprocessingRecord(reference_brightness=reference)
    of_images = [brightness(surface(seed)[None]) for seed in range(20)]
    assert 0.6 * min(of_images) < reference < max(of_images)


def test_a_card_says_so_in_its_version_and_only_from_schema_5_on(weights: Path, factory: Factory):
    card = Store(weights, factory.teachers).card("twelve")
    assert card.schema_version == 5
    other = Card.model_validate(card.model_dump() | {"preprocessing": PreprocessingRecord(levels=Levels(4094))})
    assert other.fingerprint() != card.fingerprint()
    with pytest.raises(ValueError, match=r"schema version 4 does not know preprocessing.levels"):
        Card.model_validate(card.model_dump() | {"schema_version": 4})
    for change in ({"white": 70000}, {"white": 10, "black": 10}, {"white": 4095, "gamma": 2}):
        with pytest.raises(ValueError, match="levels"):
            Card.model_validate(card.model_dump() | {"preprocessing": {"levels": change}})


def test_a_deep_picture_scores_as_its_twin_of_eight_bits(weights: Path, factory: Factory, tmp_path: Path):
    """The twins are one scene, rounded to 12 bits and to 8."""
    _, detector = (store := Store(weights, factory.teachers)).load("twelve")
    preprocessing = store.card("twelve").preprocessor
    rng = np.random.default_rng(5)
    scenes = [surface(seed, fault=seed % 2 == 0) + rng.uniform(-0.5, 0.5, (80, 80, 3)) for seed in range(300, 316)]
    twelve = written(tmp_path / "twelve", [deep(scene.clip(0, 255)) for scene in scenes])
    eight = written(tmp_path / "eight", [np.rint(scene.clip(0, 255)).astype(np.uint8) for scene in scenes])
    of_twelve = scores_of(detector, load_images(twelve, preprocessing).pixels)
    of_eight = scores_of(detector, load_images(eight, replace(preprocessing, levels=None)).pixels)
    np.testing.assert_allclose(of_twelve, of_eight, rtol=0.02)
    assert len(set(of_twelve.tolist())) == 16


def test_calibration_and_evaluation_read_images_as_training_did(weights: Path, factory: Factory, tmp_path: Path):
    def images(*seeds: int, fault: bool = False) -> list[Sample]:
        found = [mosaic(deep(surface(seed, fault=fault)), Bayer.GRBG) for seed in range(*seeds)]
        return written(tmp_path / str(seeds[0]), found)

    good, bad = images(400, 406), images(420, 426, fault=True)
    card, _ = calibrate_category(weights, factory.teachers, "raw", good, bad)
    assert card.preprocessing == PreprocessingRecord(levels=Levels(4095), bayer=Bayer.GRBG)
    judged = evaluate_category(weights, factory.teachers, "raw", images(440, 446), images(460, 466, fault=True))
    assert judged.image.auroc.value == 1
    with pytest.raises(DatasetError, match="this image has colours"):
        calibrate_category(weights, factory.teachers, "raw", written(tmp_path / "rgb", [surface(1), surface(2)]), bad)


def test_a_resumed_training_prepares_images_as_before(tmp_path: Path, teacher: Teacher):
    samples = written(tmp_path / "twelve", [deep(surface(seed)) for seed in range(10)])
    recipe = replace(TWELVE, epochs=2)

    def stop(epoch: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted):
        train_category("part", samples, tmp_path, "narrow", teacher, recipe, on_epoch=stop)
    for other in ({"white_level": 16383}, {"colour": Colour.GRAY}, {"light": Light.GAIN}, {"black_level": 10}):
        with pytest.raises(TrainingError, match=f"run with other {next(iter(other))}"):
            train_category("part", samples, tmp_path, "narrow", teacher, replace(recipe, **other), resume=True)
    card, losses = train_category("part", samples, tmp_path, "narrow", teacher, recipe, resume=True)
    assert len(losses) == 2
    assert not Store(tmp_path).checkpoint("part").exists()
    assert card.preprocessing.levels == Levels(4095)


def test_a_training_that_an_older_version_stopped_goes_on(tmp_path: Path, teacher: Teacher):
    samples = written(tmp_path / "images", [surface(seed) for seed in range(10)])
    recipe = replace(SHORT, epochs=2)

    def stop(epoch: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted):
        train_category("part", samples, tmp_path, "narrow", teacher, recipe, on_epoch=stop)
    checkpoint = Store(tmp_path).checkpoint("part")
    state = torch.load(checkpoint, weights_only=True)
    for name in ("colour", "white_level", "black_level", "bayer", "light"):
        del state["identity"][name]
    torch.save(state, checkpoint)
    with pytest.raises(TrainingError, match="run with other colour"):
        train_category("part", samples, tmp_path, "narrow", teacher, replace(recipe, colour=Colour.GRAY), resume=True)
    _, losses = train_category("part", samples, tmp_path, "narrow", teacher, recipe, resume=True)
    assert len(losses) == 2


def test_the_region_of_a_category_with_normalised_light_stays(weights: Path, factory: Factory, tmp_path: Path):
    samples = written(tmp_path / "good", [surface(seed) for seed in range(480, 484)])
    with pytest.raises(RegionError, match=r"light of this category is normalised .*; train it again with the region"):
        calibrate_category(weights, factory.teachers, "lit", samples, [], region="all")
