"""The check of the picture comes from training, stands in the card, and counts wherever a picture is judged."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from model.choices import Reason
from model.lifecycle.calibrate import calibrate_category
from model.lifecycle.datasets import Sample, load_images, normal_samples
from model.lifecycle.evaluate import judge_category, measure_judged
from model.lifecycle.report import new_folder, write_report
from model.lifecycle.thresholds import Rule
from model.quality import PictureCheck
from model.store.card import Card
from model.store.store import Store
from model.store.version import read_card
from tests.conftest import Factory, surface, write_images


def dark(seed: int) -> np.ndarray:
    """As rich in contrast and as sharp as others."""
    return cv2.subtract(surface(seed), (90, 90, 90, 0))


@pytest.fixture
def copy(factory: Factory, tmp_path: Path) -> Path:
    return Path(shutil.copytree(factory.weights, tmp_path / "weights"))


def test_training_learns_the_check_from_all_its_images(factory: Factory):
    card = read_card(factory.weights / "brushed")
    images = load_images(normal_samples(factory.data / "train")[10:], card.preprocessor)
    assert card.picture_check == PictureCheck.of(images.looks())
    assert [card.picture_check.reasons(one) for one in images.looks()] == [[]] * 10


def test_the_verdict_is_of_the_score_and_of_the_picture(factory: Factory):
    card = read_card(factory.weights / "striped")
    samples = normal_samples(factory.data / "good")
    (good,) = load_images(samples[:1], card.preprocessor).looks()
    threshold = card.calibration.threshold
    assert card.reasons(threshold / 2, good, None) == []
    assert card.reasons(threshold, good, None) == [Reason.SCORE]
    bad = good._replace(brightness=1)
    assert card.reasons(threshold / 2, bad, None) == [Reason.TOO_DARK]
    assert card.reasons(threshold * 2, bad, None) == [Reason.SCORE, Reason.TOO_DARK]
    without = card.model_copy(update={"picture_check": None})
    assert without.reasons(threshold / 2, bad, None) == []


def test_evaluation_counts_what_the_check_rejects(copy: Path, factory: Factory, tmp_path: Path):
    good = write_images(tmp_path / "good", [*(surface(seed) for seed in range(700, 706)), dark(1), dark(2)])
    bad = write_images(tmp_path / "bad", [*(surface(seed, fault=True) for seed in range(800, 806)), dark(3), dark(4)])
    spots = [Sample(one.path, "spot") for one in bad]
    before = judge_category(copy, factory.teachers, "striped", good, spots)
    dark_ones = np.concatenate((before.normal_scores[-2:], before.anomalous_scores[-2:]))
    between = float(dark_ones.max() + before.anomalous_scores.max()) / 2
    calibrate_category(copy, factory.teachers, "striped", [], [], rule=Rule(threshold=between))
    judged = judge_category(copy, factory.teachers, "striped", good, spots)
    found = measure_judged(judged)
    threshold = judged.card.calibration.threshold
    assert judged.normal_scores[-2:].max() < threshold > judged.anomalous_scores[-2:].max()  # only dark
    assert (judged.anomalous_scores >= threshold).sum() > 0
    of_score = int((judged.normal_scores >= threshold).sum()), int((judged.anomalous_scores >= threshold).sum())
    assert found.by_check == (2, 2)
    assert found.image.false_alarm_rate.value == (of_score[0] + 2) / 8
    assert found.image.miss_rate.value == 1 - (of_score[1] + 2) / 8
    assert found.false_alarms is not None
    assert found.false_alarms.errors == of_score[0] + 2
    assert found.as_dict()["by_check"] == {"normal": 2, "anomalous": 2}
    with new_folder(tmp_path / "report"):
        page = write_report(tmp_path / "report", judged, found)
    numbers = json.loads((tmp_path / "report" / "report.json").read_text())
    assert numbers["confusion"]["normal_rejected"] == of_score[0] + 2
    assert numbers["rejected_by_defect"] == {"spot": of_score[1] + 2}
    assert numbers["scores"][7]["reasons"] == ["too-dark"]
    assert "the check of the picture rejects 2 normal and 2 anomalous images more" in page.read_text()


def test_calibration_widens_the_check_to_its_good_parts(copy: Path, factory: Factory, tmp_path: Path):
    before = read_card(copy / "striped")
    same, _ = calibrate_category(
        copy, factory.teachers, "striped", normal_samples(factory.data / "good"), [], without_anomalous=True
    )
    assert same.picture_check == before.picture_check
    samples = write_images(tmp_path / "dark", [dark(seed) for seed in range(900, 910)])
    looks = load_images(samples, before.preprocessor).looks()
    assert before.picture_check is not None
    assert all(before.picture_check.reasons(one) == [Reason.TOO_DARK] for one in looks)
    after, _ = calibrate_category(copy, factory.teachers, "striped", samples, [])
    assert after.picture_check is not None
    assert [after.picture_check.reasons(one) for one in looks] == [[]] * 10
    assert after.picture_check.most_brightness == before.picture_check.most_brightness


def test_moving_the_threshold_leaves_the_check(copy: Path, factory: Factory):
    before = read_card(copy / "striped")
    after, _ = calibrate_category(copy, factory.teachers, "striped", [], [], rule=Rule(threshold=0.5))
    assert after.picture_check == before.picture_check


def test_a_card_of_before_has_no_check(copy: Path, factory: Factory):
    card = Store(copy, factory.teachers).card("striped")
    fields = card.model_dump()
    with pytest.raises(ValueError, match="schema version 4 knows no picture_check"):
        Card.model_validate(fields | {"schema_version": 4})
    old = Card.model_validate(fields | {"schema_version": 4, "picture_check": None})
    assert old.picture_check is None
    with pytest.raises(ValueError, match="picture_check"):
        Card.model_validate(fields | {"picture_check": {**fields["picture_check"], "most_contrast": 3}})
