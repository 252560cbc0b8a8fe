"""A category whose pictures are aligned: the reference makes its version, and what cannot be aligned is rejected."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.alignment import Alignment
from model.choices import Align
from model.lifecycle.calibrate import calibrate_category
from model.lifecycle.datasets import DatasetError, Sample
from model.lifecycle.evaluate import evaluate_category
from model.lifecycle.recipe import Recipe
from model.lifecycle.remarks import Kind
from model.lifecycle.train import train_category
from model.networks.vgg import Teacher
from model.store.card import Card
from model.store.store import Store
from model.store.teachers import save_teacher
from tests.conftest import write_images
from tests.model.test_alignment import panel, posed

BLACK = np.zeros((240, 240, 3), np.uint8)


def parts(seeds: range) -> list[np.ndarray]:
    """Panels in any pose."""
    turns = [np.random.default_rng(seed).uniform(-180, 180) for seed in seeds]
    return [posed(panel(seed=seed), turn, (3, -5))[0] for seed, turn in zip(seeds, turns, strict=True)]


def scratched(seeds: range) -> list[np.ndarray]:
    """The same with a fault."""
    found = parts(seeds)
    for image in found:
        image[110:130, 100:140] = 20
    return found


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, teacher: Teacher) -> Path:
    """The category ``panel``, trained on pictures of which one shows nothing."""
    root = tmp_path_factory.mktemp("aligned")
    save_teacher(teacher, root / "teachers", "narrow")
    samples = write_images(root / "train", [*parts(range(12)), BLACK])
    seen = []
    train_category(
        "panel", samples, root, "narrow", teacher, Recipe(image_size=64, epochs=4, align=Align.FEATURES),
        on_start=lambda images, held_out: seen.append(images),
    )  # fmt: skip
    assert [Path(name).name for name in seen[0].remarks.of(Kind.NOT_ALIGNED)] == ["012.png"]
    return root


def test_the_reference_stands_in_the_card_and_makes_the_version(weights: Path):
    card = Store(weights).card("panel")
    alignment = card.preprocessing.alignment
    assert alignment is not None
    assert alignment.method is Align.FEATURES
    assert (alignment.width, alignment.height) == (240, 240)
    assert Card.model_validate_json(card.model_dump_json(), strict=True) == card
    other = replace(card.preprocessor, alignment=Alignment.to(panel(seed=99), Align.FEATURES))
    changed = card.model_copy(
        update={"preprocessing": card.preprocessing.model_copy(update={"alignment": other.alignment})}
    )
    assert changed.fingerprint() != card.fingerprint()


def test_a_card_of_an_older_schema_knows_no_alignment(weights: Path):
    older = Store(weights).card("panel").model_dump(mode="json") | {"schema_version": 4}
    with pytest.raises(ValueError, match="schema version 4 does not know preprocessing"):
        Card.model_validate(older)


def test_a_calibration_leaves_out_what_cannot_be_aligned_and_keeps_the_reference(weights: Path, tmp_path: Path):
    before = Store(weights).card("panel")
    good = write_images(tmp_path / "good", [*parts(range(20, 26)), BLACK])
    bad = [Sample(sample.path, "scratch") for sample in write_images(tmp_path / "bad", scratched(range(30, 36)))]
    after, remarks = calibrate_category(weights, weights / "teachers", "panel", good, bad)
    assert [Path(name).name for name in remarks.of(Kind.NOT_ALIGNED)] == ["006.png"]
    assert after.calibration.normal_images == 6
    assert after.preprocessing == before.preprocessing
    with pytest.raises(DatasetError, match="2 of 3 images cannot be aligned with the reference picture"):
        calibrate_category(weights, weights / "teachers", "panel", [*good[:1], good[6], *black_again(tmp_path)], bad)


def black_again(folder: Path) -> list[Sample]:
    """Nothing, a little brighter."""
    return write_images(folder / "dark", [BLACK + np.uint8(30)])


def test_evaluation_counts_what_cannot_be_aligned_as_rejected(weights: Path, tmp_path: Path):
    good = write_images(tmp_path / "good", parts(range(40, 44)))
    bad = [Sample(sample.path, "scratch") for sample in write_images(tmp_path / "bad", scratched(range(50, 54)))]
    empty = write_images(tmp_path / "empty", [BLACK, BLACK + np.uint8(40)])

    def evaluated(normal: list[Sample], anomalous: list[Sample]) -> tuple[float, float]:
        found = evaluate_category(weights, weights / "teachers", "panel", normal, anomalous)
        wrong = found.image.false_alarm_rate.value * len(normal), found.image.miss_rate.value * len(anomalous)
        return round(wrong[0], 6), round(wrong[1], 6)

    false_alarms, misses = evaluated(good, bad)
    assert evaluated(good + empty, bad) == (false_alarms + 2, misses)
    lost = [Sample(sample.path, "lost") for sample in empty]
    assert evaluated(good, bad + lost) == (false_alarms, misses)
