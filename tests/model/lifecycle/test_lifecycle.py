"""Train, calibrate, evaluate: the card tells the truth, and no image judges what it made."""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model.calibration import CalibrationError, without_anomalous
from model.choices import MapForm, Score, SeenPolicy
from model.detector import scores_of
from model.images import read_image
from model.lifecycle.calibrate import PASTING_SEED, YoudenThresholdError, calibrate_category
from model.lifecycle.datasets import DatasetError, Sample, normal_samples
from model.lifecycle.distillation import Epoch, TrainingInterrupted
from model.lifecycle.evaluate import evaluate_category
from model.lifecycle.pasting import paste_defect
from model.lifecycle.recipe import Recipe, TrainingError
from model.lifecycle.thresholds import Rule
from model.lifecycle.train import ReplacesYoudenError, train_category
from model.networks.vgg import Teacher
from model.preprocessing import Preprocessing
from model.store.store import CategoryExistsError, Store, StoreNotWritableError
from model.store.version import StoreError, read_card, read_seen
from service.hints import with_hint
from tests.conftest import Factory, surface, terms_of, write_images

SHORT = Recipe(image_size=32, epochs=2, batch_size=4)


@pytest.fixture
def copy(factory: Factory, tmp_path: Path) -> Path:
    """A copy of the weights folder, free to be changed."""
    return Path(shutil.copytree(factory.weights, tmp_path / "weights"))


def bad_samples(folder: Path) -> list[Sample]:
    return [Sample(sample.path, "spot") for sample in normal_samples(folder)]


def test_the_card_of_a_new_pair_says_it_has_seen_no_defect(factory: Factory):
    card = read_card(factory.weights / "fresh")
    assert card.calibration.method == "synthetic"
    assert (card.calibration.quantile, card.calibration.youden_index, card.calibration.roc) == (0.9, None, None)
    assert (card.training.images, card.training.held_out) == (6, 2)
    assert card.training.epochs == 2
    assert card.teacher.name == "narrow"


def test_training_and_held_out_images_are_disjoint_and_all_known(factory: Factory):
    seen = read_seen(factory.weights / "striped")
    assert len(seen.training) == 16
    assert len(seen.held_out) == 4
    assert not set(seen.training) & set(seen.held_out)
    assert len(seen.calibration) == 24


def test_calibration_stores_youdens_threshold_and_curve(factory: Factory):
    found = read_card(factory.weights / "striped").calibration
    assert (found.method, found.normal_images, found.anomalous_images) == ("youden", 12, 12)
    assert found.auroc is not None
    assert found.auroc > 0.9  # dark spots on stripes are easy
    assert found.roc is not None
    assert len(found.roc.threshold) == len(found.roc.false_alarm_rate) == len(found.roc.detection_rate)
    assert sum(found.histogram.normal) == sum(found.histogram.anomalous) == 12
    assert len(found.histogram.edges) == len(found.histogram.normal) + 1


def test_fewer_than_eight_images_are_refused(tmp_path: Path, teacher: Teacher):
    samples = write_images(tmp_path / "few", [surface(seed) for seed in range(7)])
    copies = [*samples, samples[0]]  # eight files, seven images
    with pytest.raises(TrainingError, match="7 different images are too few"):
        train_category("few", copies, tmp_path / "weights", "narrow", teacher, SHORT)
    assert not (tmp_path / "weights" / "few").exists()


def test_an_existing_category_is_kept_unless_told(copy: Path, factory: Factory, teacher: Teacher):
    samples = normal_samples(factory.data / "train")
    before = read_card(copy / "striped")
    with pytest.raises(CategoryExistsError):
        train_category("striped", samples, copy, "narrow", teacher, SHORT)
    assert read_card(copy / "striped") == before
    with pytest.raises(ReplacesYoudenError, match="comes from 12 anomalous images"):
        train_category("striped", samples, copy, "narrow", teacher, SHORT, replace=True)
    assert read_card(copy / "striped") == before
    train_category("striped", samples, copy, "narrow", teacher, SHORT, replace=True, without_anomalous=True)
    assert read_card(copy / "striped").image_size == 32
    assert Store(copy).kept("striped")[0].card == before
    train_category("striped", samples, copy, "narrow", teacher, SHORT, replace=True)  # there is none to lose now


def test_a_stopped_training_is_resumed_and_leaves_nothing_behind(tmp_path: Path, factory: Factory, teacher: Teacher):
    samples = normal_samples(factory.data / "train")
    weights = tmp_path / "weights"

    def stop(epoch: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted):
        train_category("part", samples, weights, "narrow", teacher, SHORT, on_epoch=stop)
    assert not (weights / "part").exists()
    assert Store(weights).checkpoint("part").exists()
    card, losses = train_category("part", samples, weights, "narrow", teacher, SHORT, resume=True)
    assert len(losses) == card.training.epochs == 2
    assert not Store(weights).checkpoint("part").exists()
    with pytest.raises(TrainingError, match="no interrupted training"):
        train_category("part", samples, weights, "narrow", teacher, SHORT, resume=True, replace=True)


def test_each_calibration_is_a_version_of_its_own_and_each_can_be_gone_back_to(copy: Path, factory: Factory):
    good, bad = normal_samples(factory.data / "good"), bad_samples(factory.data / "bad")
    store = Store(copy)
    first, detector = store.load("striped")
    pixels = np.concatenate([first.preprocessor.apply(read_image(one.path)) for one in bad])
    order = np.argsort(scores_of(detector, pixels))  # without the fault that is nearest to the good ones, then two
    second, _ = calibrate_category(copy, factory.teachers, "striped", good, [bad[index] for index in order[1:]])
    third, _ = calibrate_category(copy, factory.teachers, "striped", good, [bad[index] for index in order[2:]])
    assert len({one.student_sha256 for one in (first, second, third)}) == 1
    assert len({one.model_version for one in (first, second, third)}) == 3
    assert store.roll_back("striped") == second
    assert store.roll_back("striped") == first
    for one in (third, first, second):
        assert store.roll_back("striped", one.model_version) == one
        assert store.card("striped").calibration.threshold == one.calibration.threshold
    again, _ = calibrate_category(copy, factory.teachers, "striped", good, [bad[index] for index in order[2:]])
    assert again.fingerprint() == third.fingerprint()  # the same rule has the same name
    assert again.model_version.partition("-")[2] == third.model_version.partition("-")[2]


def test_a_category_whose_scores_are_near_chance_is_marked(copy: Path, factory: Factory):
    assert read_card(copy / "striped").calibration.separates is True
    assert read_card(copy / "fresh").calibration.separates is None  # no faulty part has been seen
    good, bad = normal_samples(factory.data / "good"), bad_samples(factory.data / "bad")
    mixed = [*(Sample(one.path, "spot") for one in good[6:]), *bad[:3]]
    found = calibrate_category(copy, factory.teachers, "striped", [*good[:6], *bad[3:6]], mixed)[0].calibration
    assert found.separates is False
    assert found.auroc_interval is not None
    assert found.auroc_interval.low <= 0.6
    assert found.warning is not None
    assert f"may be anything from {found.auroc_interval.low:.2f}" in found.warning


def test_one_image_of_each_kind_proves_nothing(copy: Path, factory: Factory):
    good, bad = normal_samples(factory.data / "good"), bad_samples(factory.data / "bad")
    found = calibrate_category(copy, factory.teachers, "striped", good[:1], bad[:1])[0].calibration
    assert (found.auroc, found.separates) == (1.0, False)
    assert found.auroc_interval is not None
    assert found.auroc_interval.low < 0.3


def test_a_threshold_from_real_faults_is_not_replaced_without_any_unless_told(copy: Path, factory: Factory):
    good = normal_samples(factory.data / "good")
    before = (copy / "striped" / "card.json").read_bytes()
    with pytest.raises(YoudenThresholdError, match="comes from 12 anomalous images"):
        calibrate_category(copy, factory.teachers, "striped", good, [])
    assert (copy / "striped" / "card.json").read_bytes() == before
    told, _ = calibrate_category(copy, factory.teachers, "striped", good, [], without_anomalous=True)
    assert told.calibration.method == "synthetic"
    again, _ = calibrate_category(copy, factory.teachers, "striped", good, [])
    assert again.calibration.method == "synthetic"


def test_calibration_refuses_images_that_were_trained_on(copy: Path, factory: Factory):
    before = (copy / "fresh" / "card.json").read_bytes()
    with pytest.raises(DatasetError, match="were trained on"):
        calibrate_category(copy, factory.teachers, "fresh", normal_samples(factory.data / "train"), [])
    assert (copy / "fresh" / "card.json").read_bytes() == before


def test_calibration_refuses_trained_images_as_anomalous_ones_too(copy: Path, factory: Factory):
    good, trained = normal_samples(factory.data / "good"), bad_samples(factory.data / "train")
    with pytest.raises(DatasetError, match="of the 20 images were trained on"):
        calibrate_category(copy, factory.teachers, "striped", good, trained)


def test_an_impossible_recipe_or_quantile_is_refused_before_training(copy: Path, factory: Factory, teacher: Teacher):
    for wrong in ({"learning_rate": 0.0}, {"learning_rate": math.nan}, {"epochs": 0}, {"direction_weight": -1.0}):
        with pytest.raises(TrainingError):
            Recipe(**wrong)
    with pytest.raises(CalibrationError, match="between 0 and 1"):
        train_category("new", [], copy, "narrow", teacher, Recipe(), rule=Rule(quantile=1.0))


@pytest.fixture
def of_somebody_else(factory: Factory) -> Iterator[Path]:
    """A folder of weights that this user, who is not root, can read and not write."""
    with tempfile.TemporaryDirectory() as folder:
        weights = shutil.copytree(factory.weights, Path(folder, "weights"))
        teachers = shutil.copytree(factory.teachers, Path(folder, "teachers"))
        for path in (Path(folder), weights, teachers):
            path.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        yield weights
        os.seteuid(user)
        for path in (Path(folder), weights, teachers):
            path.chmod(0o755)


def test_who_cannot_write_to_the_weights_is_told_before_any_image_is_read(of_somebody_else: Path, teacher: Teacher):
    photos = [Sample(Path("not-read.png"))]
    for weights in (of_somebody_else, of_somebody_else / "new"):
        with pytest.raises(StoreNotWritableError, match=rf"cannot write to {of_somebody_else}, where") as refused:
            train_category("new", photos, weights, "narrow", teacher, SHORT)
        assert "name another folder with --weights" in with_hint(refused.value)
    with pytest.raises(StoreNotWritableError):
        calibrate_category(of_somebody_else, of_somebody_else.with_name("teachers"), "fresh", photos, [])


def test_who_cannot_write_the_progress_of_a_training_is_told_before_it_starts(of_somebody_else: Path, teacher: Teacher):
    others = os.geteuid()
    os.seteuid(os.getuid())
    of_somebody_else.chmod(0o777)
    (of_somebody_else / ".training").mkdir(exist_ok=True)
    (of_somebody_else / ".training").chmod(0o555)
    os.seteuid(others)
    with pytest.raises(StoreNotWritableError, match=r"cannot write to \S+/\.training, where"):
        train_category("new", [], of_somebody_else, "narrow", teacher, SHORT)


def test_calibration_refuses_an_image_with_two_labels(copy: Path, factory: Factory):
    good = normal_samples(factory.data / "good")
    with pytest.raises(DatasetError, match="both as normal and as anomalous"):
        calibrate_category(copy, factory.teachers, "striped", good, [Sample(good[0].path, "spot")])


def test_calibration_refuses_scores_that_tell_nothing(copy: Path, factory: Factory):
    good, bad = normal_samples(factory.data / "good"), normal_samples(factory.data / "bad")
    before = (copy / "striped" / "card.json").read_bytes()
    with pytest.raises(CalibrationError, match="do not tell them apart"):
        calibrate_category(copy, factory.teachers, "striped", bad[:1], [Sample(good[0].path, "spot")])
    assert (copy / "striped" / "card.json").read_bytes() == before


def test_calibration_without_anomalous_images_pastes_defects_on_normal_ones(copy: Path, factory: Factory):
    good = normal_samples(factory.data / "good")
    card, _ = calibrate_category(copy, factory.teachers, "fresh", good, [], rule=Rule(quantile=0.8))
    assert read_card(copy / "fresh") == card
    assert (card.calibration.method, card.calibration.quantile, card.calibration.normal_images) == (
        "synthetic",
        0.8,
        12,
    )
    assert len(read_seen(copy / "fresh").calibration) == 12
    again, _ = calibrate_category(copy, factory.teachers, "fresh", good, [], rule=Rule(quantile=0.8))
    assert again.calibration.threshold == card.calibration.threshold  # the same images get the same defects
    _, detector = Store(copy, factory.teachers).load("fresh")
    pixels = np.concatenate([card.preprocessor.apply(read_image(one.path)) for one in good])
    rng = np.random.default_rng(PASTING_SEED)
    pasted = scores_of(detector, np.stack([paste_defect(image, rng) for image in pixels]))
    expected = without_anomalous(scores_of(detector, pixels), pasted, 0.8)
    assert card.calibration.threshold == pytest.approx(expected, rel=1e-5)


def as_version_1(folder: Path) -> None:
    """Makes a category's card one of the time before there was a choice of scores."""
    card = json.loads((folder / "card.json").read_text())
    for name in ("score", "other_map_scales", "picture_check"):
        del card[name]
    for name in ("auroc_interval", "false_alarms", "misses"):
        card["calibration"].pop(name)
    (folder / "card.json").write_text(json.dumps(card | {"schema_version": 1}))


def test_new_categories_have_the_weighted_score_and_a_scale_for_every_map(factory: Factory):
    card, detector = Store(factory.weights, factory.teachers).load("striped")
    assert (card.schema_version, card.score, detector.score) == (5, Score.WEIGHTED, Score.WEIGHTED)
    assert card.map_form is MapForm.GRADIENT_DISTANCE
    assert set(card.other_map_scales) == {MapForm.GRADIENT, MapForm.DISTANCE}
    assert all((card.scale_of(form) or 0) > 0 for form in MapForm)


def test_a_category_can_be_trained_with_the_papers_score(tmp_path: Path, teacher: Teacher, factory: Factory):
    samples = normal_samples(factory.data / "train")
    card, _ = train_category("new", samples, tmp_path, "narrow", teacher, SHORT, score=Score.GLOBAL)
    assert card.score is Score.GLOBAL
    assert card.map_form is MapForm.GRADIENT
    other, _ = train_category("other", samples, tmp_path, "narrow", teacher, SHORT)
    assert other.student_sha256 == card.student_sha256  # the score is no matter of training
    assert other.scale_of(MapForm.GRADIENT) == pytest.approx(card.map_scale, rel=1e-6)


def test_a_card_of_version_1_keeps_its_meaning(copy: Path, factory: Factory):
    as_version_1(copy / "striped")
    card, detector = Store(copy, factory.teachers).load("striped")
    pixels = np.stack([surface(seed, size=(64, 64)) for seed in range(3)])
    terms = terms_of(detector, pixels)
    equation_13 = card.squared_weight * terms[..., 0].sum(1) + card.direction_weight * terms[..., 1].sum(1)
    np.testing.assert_allclose(scores_of(detector, pixels), equation_13, rtol=1e-5)
    assert card.map_form is MapForm.GRADIENT
    assert card.scale_of(MapForm.GRADIENT) == card.map_scale
    assert card.scale_of(MapForm.DISTANCE) is None


def test_a_card_of_version_2_keeps_the_local_score(copy: Path, factory: Factory):
    path = copy / "striped" / "card.json"
    fields = json.loads(path.read_text())
    for name in ("auroc_interval", "false_alarms", "misses"):
        fields["calibration"].pop(name)
    fields.pop("picture_check")
    path.write_text(json.dumps(fields | {"schema_version": 2, "score": "local"}))
    card, detector = Store(copy, factory.teachers).load("striped")
    assert (card.schema_version, detector.score) == (2, Score.LOCAL)
    good, bad = normal_samples(factory.data / "good"), bad_samples(factory.data / "bad")
    calibrated, _ = calibrate_category(copy, factory.teachers, "striped", good, bad)
    assert calibrated.score is Score.LOCAL
    assert calibrated.picture_check is None  # as ever


@pytest.mark.parametrize("score", Score)
def test_an_old_card_can_change_to_any_score(copy: Path, factory: Factory, score: Score):
    as_version_1(copy / "striped")
    good, bad = normal_samples(factory.data / "good"), bad_samples(factory.data / "bad")
    changed, _ = calibrate_category(copy, factory.teachers, "striped", good, bad, score=score)
    assert (changed.schema_version, changed.score) == (5, score)
    assert read_card(copy / "striped") == changed


def test_calibration_changes_the_score_when_told_and_only_then(copy: Path, factory: Factory):
    good, bad = normal_samples(factory.data / "good"), bad_samples(factory.data / "bad")
    before = read_card(copy / "striped")
    as_version_1(copy / "striped")
    calibrated, _ = calibrate_category(copy, factory.teachers, "striped", good, bad)
    assert (calibrated.schema_version, calibrated.score) == (5, Score.GLOBAL)
    changed, _ = calibrate_category(copy, factory.teachers, "striped", good, bad, score=Score.LOCAL)
    assert (changed.schema_version, changed.score) == (5, Score.LOCAL)
    assert changed.calibration.threshold != calibrated.calibration.threshold
    back, _ = calibrate_category(copy, factory.teachers, "striped", good, bad, score=before.score)
    assert back.calibration.threshold == pytest.approx(before.calibration.threshold, rel=1e-5)
    changed, _ = calibrate_category(copy, factory.teachers, "striped", good, bad, score=Score.LOCAL)
    assert changed.student_sha256 == before.student_sha256
    assert all((changed.scale_of(form) or 0) > 0 for form in MapForm)
    assert read_card(copy / "striped") == changed


def test_evaluation_refuses_images_it_has_seen_unless_asked_by_name(factory: Factory, tmp_path: Path):
    good, bad = normal_samples(factory.data / "good"), bad_samples(factory.data / "bad")
    with pytest.raises(DatasetError, match="has seen 24 of these images"):
        evaluate_category(factory.weights, factory.teachers, "striped", good, bad)
    with pytest.raises(DatasetError, match="two anomalous images at least, got 0 and 0 besides the 24"):
        evaluate_category(factory.weights, factory.teachers, "striped", good, bad, seen_policy=SeenPolicy.SKIP)
    everything = evaluate_category(
        factory.weights, factory.teachers, "striped", good, bad, seen_policy=SeenPolicy.INCLUDE
    )
    assert (everything.normal_images, everything.anomalous_images, everything.left_out_seen) == (12, 12, 0)
    new_good = write_images(tmp_path / "good", [surface(seed) for seed in range(300, 306)])
    new_bad = [
        Sample(sample.path, "spot")
        for sample in write_images(tmp_path / "bad", [surface(seed, fault=True) for seed in range(400, 405)])
    ]
    fresh = evaluate_category(
        factory.weights, factory.teachers, "striped", [*good, *new_good], [*bad, *new_bad], seen_policy=SeenPolicy.SKIP
    )
    assert (fresh.normal_images, fresh.anomalous_images, fresh.left_out_seen) == (6, 5, 24)


def test_evaluation_measures_what_the_detector_says(factory: Factory, tmp_path: Path):
    good_images = [surface(seed) for seed in range(300, 310)]
    bad_images = [surface(seed, fault=True) for seed in range(400, 410)]
    good = write_images(tmp_path / "good", good_images)
    bad = [Sample(sample.path, "spot") for sample in write_images(tmp_path / "bad", bad_images)]
    masks = write_images(tmp_path / "masks", [np.where(image < 30, 255, 0).astype(np.uint8) for image in bad_images])
    bad = [Sample(one.path, "spot", mask.path) for one, mask in zip(bad, masks, strict=True)]
    found = evaluate_category(factory.weights, factory.teachers, "striped", good, bad)
    card, detector = Store(factory.weights, factory.teachers).load("striped")
    scores = scores_of(detector, np.concatenate([Preprocessing(64).apply(image) for image in good_images]))
    assert found.image.false_alarm_rate.value == (scores >= card.calibration.threshold).mean()
    assert found.image.auroc.value > 0.9
    assert found.by_defect == {"spot": found.image.auroc}
    assert found.pixel_images == 10
    assert found.pixel_auroc is not None
    assert found.pixel_auroc > 0.8
    assert found.aupro is not None
    assert 0 < found.aupro <= 1


def test_an_unknown_category_is_refused(factory: Factory):
    with pytest.raises(StoreError, match="there is no category 'nothing'"):
        Store(factory.weights, factory.teachers).load("nothing")
