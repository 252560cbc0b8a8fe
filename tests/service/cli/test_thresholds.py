"""Thresholds that a person asks for, by a false-alarm rate or by hand, and what every command says of error rates."""

import json
import shutil
from pathlib import Path

import pytest

from model.choices import Basis
from model.store.card import Calibration
from model.store.version import read_card, read_seen
from service.cli.errors import UsageError
from service.cli.options import rate_of
from tests.conftest import Factory, surface, write_images
from tests.service.cli.test_cli import run
from tests.service.cli.test_train_many import rows


@pytest.fixture
def weights(factory: Factory, tmp_path: Path) -> Path:
    return Path(shutil.copytree(factory.weights, tmp_path / "weights"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images that no category has seen: 20 good and 10 faulty."""
    write_images(tmp_path / "photos" / "good", [surface(seed) for seed in range(700, 720)])
    write_images(tmp_path / "photos" / "bad" / "spot", [surface(seed, fault=True) for seed in range(800, 810)])
    return tmp_path / "photos"


def found(weights: Path, category: str) -> Calibration:
    return read_card(weights / category).calibration


@pytest.mark.parametrize(
    ("text", "rate"), [("1%", 0.01), ("0.01", 0.01), (" 5 % ", 0.05), ("0.5%", 0.005), ("0.5", 0.5), ("1e-3", 0.001)]
)
def test_a_rate_is_written_with_the_sign_or_as_a_share_of_one(text: str, rate: float):
    assert rate_of(text) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1", "got 1: without the sign it is 100 %; write 1% for 1 in a hundred"),
        ("5", "without the sign it is 500 %; write 5% for 5 in a hundred"),
        ("0%", "between 0 and 100 %, got 0%"),
        ("100%", "between 0 and 100 %, got 100%"),
        ("0", "between 0 and 100 %, got 0"),
        ("-1%", "between 0 and 100 %"),
        ("nan", "between 0 and 100 %"),
        ("inf%", "between 0 and 100 %"),
        ("one", "'one' is no rate: write 1% or 0.01"),
        ("1,5%", "is no rate"),
        ("%", "is no rate"),
        ("", "is no rate"),
        ("1%%", "is no rate"),
    ],
)
def test_what_is_no_rate_is_refused_with_what_to_write(text: str, reason: str):
    with pytest.raises(UsageError) as refused:
        rate_of(text)
    assert reason in str(refused.value)


def test_a_threshold_for_a_false_alarm_rate_is_measured_on_faulty_parts_too(weights: Path, photos: Path):
    told = run(
        "calibrate", "striped", "--normal", photos / "good", "--anomalous", photos / "bad",
        "--max-false-alarms", "10%", "--weights", weights, "--device", "cpu",
    ).stdout  # fmt: skip
    now = found(weights, "striped")
    assert (now.method, now.max_false_alarms, now.with_confidence) == ("false-alarm-target", 0.1, False)
    assert now.false_alarms is not None
    assert (now.false_alarms.errors, now.false_alarms.parts) == (1, 20)  # k = 2, and the k-th is not rejected itself
    assert now.false_alarms.expected == pytest.approx(2 / 21)
    assert now.false_alarms.basis is Basis.ORDER_STATISTIC
    assert now.misses is not None
    assert (now.misses.parts, now.misses.basis) == (10, Basis.INDEPENDENT)
    assert now.auroc is not None
    assert now.separates is True
    assert "method false-alarm-target" in told
    assert "asked for: at most 10 % false alarms on average; with 95 % confidence that takes 29 good parts" in told
    assert (
        "Of new good parts, about 9.5 % are rejected on average, and with 95 % confidence at most 21.7 % (1 of 20 was)."
        in told
    )
    assert "Of new faulty parts" in told


def test_with_confidence_the_bound_is_within_the_rate(weights: Path, photos: Path):
    calibrate = ("calibrate", "fresh", "--normal", photos / "good", "--with-confidence", "--weights", weights)
    told = run(*calibrate, "--max-false-alarms", "0.2").stdout
    now = found(weights, "fresh")
    assert now.false_alarms is not None
    assert now.false_alarms.bound <= 0.2
    assert "at most 20 % false alarms with 95 % confidence\n" in told
    before = (weights / "fresh" / "card.json").read_bytes()
    refused = run(*calibrate, "--max-false-alarms", "10%", status=1).stderr
    assert "takes 9 good parts, and 29 with 95 % confidence; 20 are there, which is enough for 14 %" in refused
    assert (weights / "fresh" / "card.json").read_bytes() == before


def test_too_few_good_parts_are_refused_with_the_number_that_is_needed(weights: Path, photos: Path, factory: Factory):
    before = (weights / "fresh" / "card.json").read_bytes()
    calibrate = ("calibrate", "fresh", "--normal", photos / "good", "--weights", weights)
    refused = run(*calibrate, "--max-false-alarms", "1%", status=1).stderr
    assert "to keep false alarms at 1 % on average takes 99 good parts, and 299 with 95 % confidence" in refused
    assert "20 are there, which is enough for 4.8 % on average; allow more false alarms, or bring more" in refused
    assert (weights / "fresh" / "card.json").read_bytes() == before
    assert "write 1% for 1 in a hundred" in run(*calibrate, "--max-false-alarms", "1", status=1).stderr
    train = ("train", "new", "--normal", factory.data / "train", "--teacher", "narrow", "--image-size", 32)
    refused = run(*train, "--epochs", 1, "--max-false-alarms", "1%", "--weights", weights, status=1).stderr
    assert "99 good parts" in refused
    assert "`train` holds out a fifth" in refused
    assert "held out\n" not in refused  # said before a training
    assert not (weights / "new").exists()


def test_a_first_threshold_for_a_false_alarm_rate(weights: Path, factory: Factory):
    told = run(
        "train", "new", "--normal", factory.data / "train", "--teacher", "narrow", "--image-size", 32, "--epochs", 1,
        "--max-false-alarms", "30%", "--weights", weights, "--device", "cpu",
    ).stdout  # fmt: skip
    now, held_out = found(weights, "new"), read_card(weights / "new").training.held_out
    assert (now.method, now.normal_images) == ("false-alarm-target", held_out)
    assert now.separates is None
    assert "Of new good parts" in told
    assert "pasted" not in told


def test_training_says_what_the_usual_threshold_promises(weights: Path, factory: Factory):
    told = run(
        "train", "new", "--normal", factory.data / "train", "--teacher", "narrow", "--image-size", 32, "--epochs", 1,
        "--weights", weights, "--device", "cpu",
    ).stdout  # fmt: skip
    now = found(weights, "new")
    assert (now.method, now.false_alarms and now.false_alarms.basis) == ("synthetic", Basis.SAME_PARTS)
    assert now.promise in told


def test_a_threshold_set_by_hand_needs_no_images_and_can_be_taken_back(weights: Path):
    before = read_card(weights / "striped")
    told = run("calibrate", "striped", "--threshold", "0.25", "--weights", weights).stdout
    now = read_card(weights / "striped")
    assert (now.calibration.method, now.calibration.threshold) == ("manual", 0.25)
    assert (now.calibration.false_alarms, now.calibration.misses) == (None, None)
    assert (now.calibration.roc, now.calibration.histogram) == (before.calibration.roc, before.calibration.histogram)
    assert now.model_version != before.model_version
    assert now.student_sha256 == before.student_sha256
    assert "method manual" in told
    assert "set by hand without images, so its error rates are not known" in told
    assert "0.25 (manual)" in run("rollback", "striped", "--weights", weights).stdout
    assert read_card(weights / "striped") == before
    run("rollback", "striped", "--to", now.model_version, "--weights", weights)
    assert read_card(weights / "striped") == now


def test_the_error_rates_of_a_threshold_set_by_hand_know_whether_its_images_were_looked_at(
    weights: Path, photos: Path, factory: Factory
):
    calibrate = ("calibrate", "striped", "--threshold", "0.3", "--weights", weights)
    new = ("--normal", photos / "good", "--anomalous", photos / "bad")
    for images, basis in ((new, Basis.INDEPENDENT), (new, Basis.SAME_PARTS)):
        told = run(*calibrate, *images).stdout
        now = found(weights, "striped")
        assert now.false_alarms is not None
        assert now.misses is not None
        assert (now.method, now.false_alarms.basis, now.misses.basis) == ("manual", basis, basis)
        assert (now.false_alarms.parts, now.misses.parts) == (20, 10)
        assert now.promise in told
    assert len(read_seen(weights / "striped").calibration) == 30


def test_a_threshold_beyond_all_scores_is_taken_and_said(weights: Path):
    high = run("calibrate", "striped", "--threshold", "1e6", "--weights", weights)
    assert "above every score of the calibration, the highest is" in high.stderr
    low = run("calibrate", "striped", "--threshold", "1e-9", "--weights", weights)
    assert "every image of the calibration is at or above this threshold" in low.stderr


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-0.5", "0", "-0.0"])
def test_a_threshold_that_is_none_is_refused(weights: Path, value: str):
    before = (weights / "striped" / "card.json").read_bytes()
    refused = run("calibrate", "striped", "--threshold", value, "--weights", weights, status=1).stderr
    assert "a threshold must be a finite number above 0" in refused
    assert (weights / "striped" / "card.json").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--threshold", "1", "--max-false-alarms", "5%"), "--threshold and --max-false-alarms exclude each other"),
        (("--threshold", "1", "--quantile", "0.9"), "--threshold and --quantile exclude each other"),
        (("--max-false-alarms", "5%", "--quantile", "0.9"), "--max-false-alarms and --quantile exclude each other"),
        (("--with-confidence",), "--with-confidence goes with --max-false-alarms"),
        (("--threshold", "1", "--with-confidence"), "--with-confidence goes with --max-false-alarms"),
        (("--max-false-alarms", "20%"), "--without-anomalous"),  # would forget the faulty parts
        (("--threshold", "1"), "--without-anomalous"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    weights: Path, photos: Path, options: tuple[str, ...], reason: str
):
    before = (weights / "striped" / "card.json").read_bytes()
    calibrate = ("calibrate", "striped", "--normal", photos / "good", "--weights", weights)
    assert reason in run(*calibrate, *options, status=1).stderr
    assert (weights / "striped" / "card.json").read_bytes() == before


def test_another_score_with_a_threshold_by_hand_needs_images(weights: Path):
    calibrate = ("calibrate", "striped", "--threshold", "1", "--weights", weights)
    assert "needs images of normal parts" in run(*calibrate, "--score", "global", status=1).stderr
    run(*calibrate, "--score", "weighted")  # the score that it has


def test_an_evaluation_sets_what_it_sees_beside_what_was_said(weights: Path, photos: Path, factory: Factory):
    evaluate = ("evaluate", "striped", "--weights", weights, "--device", "cpu", "--anomalous", photos / "bad")
    told = run(*evaluate, "--normal", photos / "good").stdout
    assert "here: Of new good parts, about" in told
    assert f"said at calibration: {found(weights, 'striped').promise}" in told
    numbers = json.loads(run(*evaluate, "--normal", photos / "good", "--json").stdout)
    assert (numbers["false_alarms"]["parts"], numbers["misses"]["parts"]) == (20, 10)
    assert numbers["false_alarms"]["basis"] == "independent"
    seen = ("--normal", factory.data / "good", "--seen", "include")
    assert "say nothing of the error rates of new ones" in run(*evaluate, *seen).stdout
    assert json.loads(run(*evaluate, *seen, "--json").stdout)["false_alarms"] is None


def test_many_categories_keep_a_false_alarm_rate_on_all_good_parts_that_training_has_not_seen(
    factory: Factory, tmp_path: Path
):
    root, weights = tmp_path / "root", tmp_path / "weights"
    write_images(root / "part" / "train" / "good", [surface(seed) for seed in range(20)])
    write_images(root / "part" / "test" / "good", [surface(seed) for seed in range(100, 106)])
    write_images(root / "part" / "test" / "spot", [surface(seed, fault=True) for seed in range(200, 206)])
    options = (
        "--teacher", "narrow", "--teachers", factory.teachers, "--weights", weights, "--device", "cpu",
        "--epochs", 30, "--image-size", 64, "--batch-size", 8,
    )  # fmt: skip
    refused = run("train-many", root, "--max-false-alarms", "5%", *options, status=1)
    assert "takes 19 good parts" in refused.stdout + refused.stderr
    told = run("train-many", root, "--max-false-alarms", "20%", *options).stdout
    now, held_out = found(weights, "part"), read_card(weights / "part").training.held_out
    assert (now.method, now.normal_images, now.anomalous_images) == ("false-alarm-target", held_out + 3, 3)
    assert now.false_alarms is not None
    assert "<=" in " ".join(rows(told)["part"])
    assert "there already" in run("train-many", root, "--max-false-alarms", "20%", *options).stdout


def test_a_threshold_from_the_history_is_refused_where_it_makes_no_sense(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("INSPECT_STATE", str(tmp_path / "state"))
    before = (weights / "fresh" / "card.json").read_bytes()
    calibrate = ("calibrate", "fresh", "--weights", weights)
    from_history = (*calibrate, "--from-history")
    for options, reason in (
        (("--threshold", "1"), "needs a reason"),
        (("--normal", "x", "--quantile", "0.9"), "--normal, --quantile cannot go with --from-history"),
        (("--since", "yesterday"), "such as 2026-05-01T06:00:00Z"),
        (("--max-false-alarms", "1%"), "no labelled good part counts"),
        ((), "no labelled good part counts"),
    ):
        assert reason in run(*from_history, *options, status=1).stderr
    assert "--dry-run goes only with --from-history" in run(*calibrate, "--dry-run", status=1).stderr
    told = run(*from_history, "--threshold", "1", "--dry-run").stdout
    assert "No labelled inspection was counted" in told
    assert "nothing was changed" in told
    monkeypatch.setenv("INSPECT_DATABASE", "none")
    assert "INSPECT_DATABASE is none" in run(*from_history, status=1).stderr
    assert (weights / "fresh" / "card.json").read_bytes() == before


def test_a_review_band_is_asked_for(weights: Path, photos: Path):
    calibrate = (
        "calibrate",
        "striped",
        "--normal",
        photos / "good",
        "--anomalous",
        photos / "bad",
        "--weights",
        weights,
    )
    told = run(*calibrate, "--review-false-passes", "30%", "--review-false-rejects", "20%").stdout
    band = found(weights, "striped").review
    assert band is not None
    assert f"a person looks at scores from {band.low:.6g} to below {band.high:.6g}" in told
    refused = run(*calibrate, "--review-false-rejects", "0.5%", status=1).stderr
    assert "598 with 95 % confidence; 20 are there" in refused
    refused = run(*calibrate, "--review-band", "1", "2", "--review-false-passes", "5%", status=1).stderr
    assert "--review-band goes without" in refused
    assert found(weights, "striped").review == band
    threshold = found(weights, "striped").threshold
    run(*calibrate, "--review-band", threshold / 2, 2 * threshold)
    band = found(weights, "striped").review
    assert band is not None
    assert (band.low, band.high) == pytest.approx((threshold / 2, 2 * threshold))
    run(*calibrate)
    assert found(weights, "striped").review is None
