"""The command line does what it says, and says plainly what it will not do."""

import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save
from typer.testing import CliRunner, Result

from model.choices import Schedule
from model.networks.vgg import Teacher, vgg16_plan
from model.store.teachers import fingerprint, save_teacher
from model.store.version import read_card
from service.cli import app
from service.schemas import Inspection
from tests.conftest import ROOT, Factory, surface, write_images

SPILL_NOWHERE = ("--feature-memory", "0", "--spill-folder", "/nowhere")
COMMAND = Path(sys.executable).with_name("eca-inspect")


def run(*arguments: object, status: int = 0) -> Result:
    """Runs a command in this process; its exit status must be this one."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, f"{result.output}\n{result.exception!r}"
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def weights(factory: Factory, tmp_path: Path) -> Path:
    return Path(shutil.copytree(factory.weights, tmp_path / "weights"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Fresh images: 10 good and 10 faulty, with masks that mark their middle."""
    root = tmp_path / "photos"
    write_images(root / "good", [surface(seed) for seed in range(500, 510)])
    for sample in write_images(root / "bad" / "spot", [surface(seed, fault=True) for seed in range(600, 610)]):
        mask = np.zeros((80, 80), np.uint8)
        mask[20:60, 20:60] = 255
        (root / "masks" / "spot").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / "masks" / "spot" / f"{sample.path.stem}_mask.png"), mask)
    return root


def test_from_a_folder_to_a_verdict(weights: Path, factory: Factory, photos: Path, tmp_path: Path):
    options = ("--weights", weights, "--device", "cpu")
    trained = run(
        "train", "new", "--normal", factory.data / "train", "--teacher", "narrow", "--epochs", 60, "--image-size", 64,
        "--batch-size", 8, "--seed", 3, "--no-omega", "--direction-weight", 0.05, *options,
    )  # fmt: skip
    assert "16 images to train on, 4 held out" in trained.output
    assert "calibrate" in trained.output
    card = read_card(weights / "new")
    assert card.calibration.method == "synthetic"
    assert (card.training.epochs, card.training.seed, card.direction_weight) == (60, 3, 0.05)
    assert not card.architecture.weigh_distillation_layers

    calibrated = run(
        "calibrate", "new", "--normal", factory.data / "good", "--anomalous", factory.data / "bad", *options
    )
    assert "youden" in calibrated.output
    assert "12 normal and 12 anomalous" in calibrated.output

    judged = ("evaluate", "new", "--normal", photos / "good", "--anomalous", photos / "bad")
    table = run(*judged, "--masks", photos / "masks", *options).output
    for name in ("AUROC", "FPR", "FNR", "g-mean", "95 %", "pixel AUROC", "AUPRO", "AUROC of spot"):
        assert name in table
    found = json.loads(run(*judged, "--json", *options).stdout)
    assert found["image"]["auroc"]["value"] > 0.9
    assert found["image"]["auroc"]["low"] <= found["image"]["auroc"]["value"] <= found["image"]["auroc"]["high"]
    assert found["pixel_auroc"] is None

    overlays = tmp_path / "overlays"
    faulty = photos / "bad" / "spot" / "000.png"
    inspected = run("inspect", "new", faulty, "--overlay", overlays, "--json", *options)
    (answer,) = json.loads(inspected.stdout)
    assert Inspection.model_validate(answer).decision == "anomalous"
    assert cv2.imread(str(overlays / "000.png.overlay.png")).shape == (80, 80, 3)
    assert run("inspect", "new", faulty, *options).stdout.startswith("anomalous")


def test_masks_may_lie_beside_the_images(weights: Path, tmp_path: Path):
    """As in the data set of magnetic tiles."""
    for folder, seeds, fault in (("free", 10, False), ("other", 4, False), ("crack", 4, True)):
        (tmp_path / folder).mkdir()
        for seed in range(seeds):
            image = surface(seed + 700 + 50 * (folder == "other"), fault=fault)
            cv2.imwrite(str(tmp_path / folder / f"{seed:03}.jpg"), image)
            mask = np.zeros((80, 80), np.uint8)
            mask[20:60, 20:60] = 255 * fault
            cv2.imwrite(str(tmp_path / folder / f"{seed:03}.png"), mask)
    options = ("--weights", weights, "--pattern", "*.jpg")
    train = ("train", "tile", "--normal", tmp_path / "free", "--teacher", "narrow", "--epochs", 1, "--image-size", 32)
    assert "000.jpg and 000.png seem to be an image and its mask" in run(*train, "--weights", weights, status=1).stderr
    assert "8 images to train on, 2 held out" in run(*train, *options).stderr
    judged = ("--normal", tmp_path / "other", "--anomalous", tmp_path / "crack")
    found = json.loads(run("evaluate", "tile", *judged, "--masks", tmp_path / "crack", "--json", *options).stdout)
    assert (found["normal_images"], found["anomalous_images"], found["pixel_images"]) == (4, 4, 4)
    assert "4 normal and 4 anomalous" in run("calibrate", "tile", *judged, *options).stdout


def test_the_mvtec_layout_goes_all_the_way(weights: Path, tmp_path: Path):
    root = tmp_path / "synthetic"
    run("synthesize", root, "--train", 8, "--test-good", 4, "--test-each", 2)
    options = ("--data", root, "--weights", weights)
    run("train", "plate", "--teacher", "narrow", "--epochs", 1, "--image-size", 32, *options)
    run("calibrate", "plate", "--share", 0.5, *options)
    refused = run("evaluate", "plate", *options, status=1)
    assert "has seen 7 of these images" in refused.stderr
    assert (
        "left out: 7 images that training or calibration has seen"
        in run("evaluate", "plate", "--seen", "skip", *options).output
    )
    assert "4 normal and 10 anomalous" in run("evaluate", "plate", "--seen", "include", *options).output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "new"), "either --data or --normal"),
        (("train", "new", "--data", "x", "--normal", "y"), "either --data or --normal"),
        (("train", "new", "--data", "x", "--pattern", "*.jpg"), "--pattern is for plain folders"),
        (("train", "new", "--normal", "{data}/train", "--pattern", "*.jpg"), "whose name matches"),
        (("calibrate", "striped", "--data", "x", "--pattern", "*.jpg"), "--pattern is for plain folders"),
        (("train", "new", "--normal", "nowhere", "--teacher", "narrow"), "nowhere is not a folder"),
        (("train", "../new", "--normal", "{data}/train", "--teacher", "narrow"), "cannot name a category"),
        (("train", "striped", "--normal", "{data}/train", "--teacher", "narrow"), "--replace"),
        (("train", "new", "--normal", "{data}/train", "--teacher", "narrow", "--resume"), "no interrupted training"),
        (("train", "new", "--normal", "{data}/train", "--teacher", "missing"), "teacher fetch"),
        (("train", "new", "--normal", "{data}/train", "--teacher", "narrow", "--device", "abacus"), "abacus"),
        (("train", "new", "--normal", "{data}/train", "--teacher", "narrow", "--learning-rate", "0"), "above 0"),
        (("train", "new", "--normal", "{data}/train", "--teacher", "narrow", "--quantile", "1"), "between 0 and 1"),
        (("train", "new", "--normal", "{data}/train", "--teacher", "narrow", *SPILL_NOWHERE), "/nowhere"),
        (("calibrate", "striped", "--anomalous", "{data}/bad"), "--normal"),
        (("calibrate", "nothing", "--normal", "{data}/good"), "no category 'nothing'"),
        (("calibrate", "brushed", "--normal", "{data}/train"), "were trained on"),
        (("calibrate", "brushed", "--normal", "{data}/good", "--quantile", "1.5"), "quantile"),
        (("calibrate", "striped", "--normal", "{data}/good"), "--without-anomalous"),
        (("evaluate", "striped", "--normal", "{data}/good"), "needs normal and anomalous"),
        (("evaluate", "striped", "--normal", "{data}/good", "--anomalous", "{data}/bad"), "--seen skip"),
        (
            ("evaluate", "striped", "--normal", "{data}/good", "--anomalous", "{data}/bad", "--masks", "{data}"),
            "no mask",
        ),
        (("inspect", "nothing", "{data}/good/000.png"), "no category 'nothing'"),
        (("teacher", "fetch", "--name", "mine"), "--from"),
        (("teacher", "fetch", "--from", "nowhere.pth"), "no file nowhere.pth"),
        (("teacher", "pretrain", "new", "--data", "{data}", "--widths", "1,2,3"), "five numbers"),
        (("teacher", "pretrain", "new", "--data", "{data}/good"), "sub-folder"),
        (("teacher", "pretrain", "narrow", "--data", "{data}"), "exists"),
        (("synthesize", "{data}"), "not an empty folder"),
        (("synthesize", "{data}/new", "--kind", "nuts"), "not one of plates, bolts"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    factory: Factory, weights: Path, arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("INSPECT_WEIGHTS", str(weights))
    before = sorted(weights.rglob("*"))
    result = run(*(argument.format(data=factory.data) for argument in arguments), status=1)
    assert message in result.stderr
    assert "%|" not in result.stderr  # no progress bar of what never began
    assert sorted(weights.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("../new",), "cannot name a category"),
        (("striped",), "--replace"),
        (("striped", "--replace"), "add --without-anomalous, and run `eca-inspect calibrate`"),
        (("new", "--resume"), "no interrupted training"),
        (("stopped",), "add --resume"),
        (("new", "--quantile", "1"), "between 0 and 1"),
        (("new", "--device", "abacus"), "abacus"),
    ],
)
def test_a_training_that_cannot_begin_brings_in_no_teacher(
    factory: Factory, weights: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
):
    (weights / ".training").mkdir(exist_ok=True)
    (weights / ".training" / "stopped.pt").touch()
    source = shutil.copy(factory.teachers / "narrow.safetensors", tmp_path / "other.safetensors")
    options = ("--normal", factory.data / "train", "--teacher", source, "--weights", weights)
    assert message in run("train", *arguments, *options, status=1).stderr
    assert not (weights / "teachers" / "other.safetensors").exists()


def test_without_a_teacher_named_imagenet_is_wanted_and_two_ways_out_are_told(
    factory: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def no_network(*arguments: object, **options: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    message = run("train", "new", "--normal", factory.data / "train", "--weights", tmp_path, status=1).stderr
    assert "no route to host" in message
    assert "teacher fetch --from vgg16-397923af.pth" in message
    assert "--teacher compact" in message
    assert not (tmp_path / "new").exists()


def test_the_training_in_a_container_writes_nothing_to_the_folders_of_the_image(
    factory: Factory, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The documented command, with the container's folders and environment."""
    monkeypatch.setenv("INSPECT_WEIGHTS", str(weights))
    monkeypatch.setenv("INSPECT_TEACHERS", str(weights / "teachers"))
    (command,) = re.findall(r"^    inspect (train .*)$", (ROOT / "docs" / "deploying.md").read_text(), re.MULTILINE)
    command = command.replace("/out", str(tmp_path / "out")).replace("/photos", str(factory.data))
    short = ("--epochs", 1, "--image-size", 32, "--device", "cpu")
    before = sorted(weights.rglob("*"))
    run(*command.split(), "--teacher", "narrow", *short)
    assert read_card(tmp_path / "out" / "bottle").teacher.name == "narrow"
    own = shutil.copy(factory.teachers / "narrow.safetensors", tmp_path / "mine.safetensors")
    run(*command.split(), "--replace", "--teacher", own, "--teachers", tmp_path / "out" / "teachers", *short)
    assert read_card(tmp_path / "out" / "bottle").teacher.name == "mine"
    assert (tmp_path / "out" / "teachers" / "mine.safetensors").exists()
    assert sorted(weights.rglob("*")) == before


def test_unreadable_files_stop_training_unless_told(weights: Path, factory: Factory, tmp_path: Path):
    folder = Path(shutil.copytree(factory.data / "train", tmp_path / "train"))
    (folder / "broken.png").write_bytes(b"nonsense")
    train = ("train", "new", "--normal", folder, "--teacher", "narrow", "--epochs", 1, "--weights", weights)
    assert "broken.png" in run(*train, status=1).stderr
    assert not (weights / "new").exists()
    assert "broken.png" in run(*train, "--skip-unreadable").stderr
    assert (weights / "new").is_dir()


def test_calibration_names_what_it_leaves_out(weights: Path, factory: Factory, tmp_path: Path):
    folder = Path(shutil.copytree(factory.data / "good", tmp_path / "good"))
    (folder / "broken.png").write_bytes(b"nonsense")
    calibrate = ("calibrate", "striped", "--normal", folder, "--anomalous", factory.data / "bad", "--weights", weights)
    assert "broken.png" in run(*calibrate, status=1).stderr
    assert "broken.png" in run(*calibrate, "--skip-unreadable").stderr


def test_a_calibration_worse_than_chance_is_written_with_a_warning(weights: Path, factory: Factory, tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    good_and_noise = Path(shutil.copytree(factory.data / "good", tmp_path / "mostly-good"))
    cv2.imwrite(str(good_and_noise / "noise.png"), noise)
    options = ("--weights", weights, "--score", "local")  # by which noise is the strangest picture
    exchanged = ("--normal", factory.data / "bad", "--anomalous", good_and_noise)
    assert "Did you swap the two folders?" in run("calibrate", "striped", *exchanged, *options).stderr
    assert read_card(weights / "striped").calibration.auroc < 0.5
    right = ("--normal", factory.data / "good", "--anomalous", factory.data / "bad")
    assert run("calibrate", "striped", *right, *options).stderr == ""


def test_calibrating_without_faulty_parts_says_what_it_would_lose_and_what_it_changes(weights: Path, factory: Factory):
    calibrate = ("calibrate", "striped", "--normal", factory.data / "good", "--weights", weights)
    before = read_card(weights / "striped").calibration
    assert "add --without-anomalous" in run(*calibrate, status=1).stderr
    assert read_card(weights / "striped").calibration == before
    told = run(*calibrate, "--without-anomalous").stdout
    assert "method synthetic" in told
    assert f"before: weighted score, threshold {before.threshold:.6g}, method youden" in told


def test_few_steps_and_scores_that_do_not_separate_are_warned_of(weights: Path, factory: Factory):
    train = ("train", "few", "--normal", factory.data / "train", "--teacher", "narrow", "--epochs", 2)
    assert "warning: 2 training steps are too few" in run(*train, "--image-size", 32, "--weights", weights).stderr
    calibrate = ("calibrate", "few", "--normal", factory.data / "good", "--anomalous", factory.data / "bad")
    shown = run(*calibrate, "--weights", weights).stderr
    separates = read_card(weights / "few").calibration.separates
    assert ("warning: few does not separate" in shown) is (separates is False)


def test_a_schedule_is_recorded_and_kept_when_the_category_is_trained_again(weights: Path, factory: Factory):
    images = ["--normal", factory.data / "train", "--weights", weights]
    run("train", "cycled", "--teacher", "narrow", "--epochs", 2, "--image-size", 64, "--schedule", "one-cycle", *images)
    run("retrain", "cycled", *images)
    for folder in (weights / "cycled", weights / ".candidates" / "cycled"):
        assert read_card(folder).training.schedule == Schedule.ONE_CYCLE


def test_retrain_makes_candidates_of_old_and_of_new_categories(weights: Path, factory: Factory):
    options = ("--normal", factory.data / "train", "--weights", weights, "--device", "cpu", "--epochs", 2)
    again = run("retrain", "striped", "--seed", 4, *options)
    card = read_card(weights / ".candidates" / "striped")
    assert (card.training.epochs, card.training.seed, card.image_size) == (2, 4, 64)
    assert f"version {card.model_version}" in again.output
    assert "training steps are too few" in again.output
    new = run("retrain", "new", "--new", "--teacher", "narrow", "--image-size", 64, *options)
    assert f"version {read_card(weights / '.candidates' / 'new').model_version}" in new.output
    assert not (weights / "new").exists()
    assert "leave out --new to train it again" in run("retrain", "striped", "--new", *options, status=1).output
    assert "there is no category 'other'" in run("retrain", "other", *options, status=1).output
    run("promote", "new", "--weights", weights)
    assert read_card(weights / "new").image_size == 64


def test_overlays_of_images_with_one_name_do_not_overwrite_each_other(factory: Factory, tmp_path: Path):
    images = [factory.data / "good" / "000.png", factory.data / "bad" / "000.png"]
    run("inspect", "striped", *images, "--overlay", tmp_path / "out", "--weights", factory.weights)
    written = sorted(path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.png"))
    assert written == [Path("bad/000.png.overlay.png"), Path("good/000.png.overlay.png")]


def test_inspect_takes_folders_for_all_images_in_them_and_below(factory: Factory, tmp_path: Path):
    folder = tmp_path / "parts"
    for name in ("b/2.png", "b/10.png", "a/1.png", ".hidden/3.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(factory.data / "good" / "000.png", folder / name)
    (folder / "notes.txt").write_text("none")
    last = factory.data / "good" / "001.png"
    options = ("--weights", factory.weights, "--localize", "never")
    result = run("inspect", "striped", folder, last, *options, "--json", "--overlay", tmp_path / "out")
    assert [answer["path"] for answer in json.loads(result.stdout)] == [
        *(str(folder / name) for name in ("a/1.png", "b/10.png", "b/2.png")),
        str(last),
    ]
    assert "left out: 1 file of another type: 1 .txt" in result.stderr
    assert len(list((tmp_path / "out").rglob("*.overlay.png"))) == 4
    (tmp_path / "empty").mkdir()
    assert "holds no image" in run("inspect", "striped", tmp_path / "empty", *options, status=1).stderr


def test_ctrl_c_keeps_the_progress_and_resume_goes_on(weights: Path, factory: Factory):
    train = ["train", "new", "--normal", str(factory.data / "train"), "--teacher", "narrow", "--weights", str(weights)]
    process = subprocess.Popen(
        [str(COMMAND), *train, "--epochs", "1000000", "--image-size", "32"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # ignored in a shell's background jobs
    )
    assert process.stderr is not None
    said = ""
    while "loss=" not in said:
        said += process.stderr.read(1)
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130, rest
    assert "--resume to continue" in rest
    assert "Traceback" not in rest
    assert not (weights / "new").exists()
    done = int(rest.partition("stopped after ")[2].partition(" epochs")[0])
    checkpoint = weights / ".training" / "new.pt"
    assert str(checkpoint) in run(*train, "--epochs", done + 1, "--image-size", 32, status=1).stderr
    assert checkpoint.exists()
    run(*train, "--epochs", done + 1, "--image-size", 32, "--resume")
    assert read_card(weights / "new").training.epochs == done + 1
    assert not list((weights / ".training").iterdir())


def test_inspect_names_what_it_cannot_read_and_answers_the_rest(factory: Factory, tmp_path: Path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"nonsense")
    empty = tmp_path / "empty.png"
    empty.touch()
    good = factory.data / "good" / "000.png"
    result = run(
        "inspect", "striped", broken, good, tmp_path / "missing.png", empty, "--weights", factory.weights, status=1
    )
    assert len(result.stdout.splitlines()) == 1
    assert str(good) in result.stdout
    for name in ("broken.png", "missing.png", "empty.png"):
        assert result.stderr.count(name) == 1
    assert f"error: {tmp_path / 'missing.png'}: No such file or directory\n" in result.stderr


def test_a_teacher_is_imported_from_a_file(factory: Factory, tmp_path: Path):
    source = factory.teachers / "narrow.safetensors"
    imported = run("teacher", "fetch", "--from", source, "--name", "mine", "--weights", tmp_path)
    assert read_card(factory.weights / "striped").teacher.sha256 in imported.stdout
    again = load_file(tmp_path / "teachers" / "mine.safetensors")
    assert all(torch.equal(tensor, again[name]) for name, tensor in load_file(source).items())


def test_a_teacher_that_is_there_is_not_downloaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    downloads: list[object] = []
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *arguments, **options: downloads.append(arguments))
    teacher = Teacher()
    path = save_teacher(teacher, tmp_path / "teachers", "imagenet")
    said = run("teacher", "fetch", "--weights", tmp_path).stdout
    assert said == f"{path} already exists: SHA-256 of its weights {fingerprint(teacher)}\n"
    path.write_bytes(save(Teacher(vgg16_plan((4, 4, 4, 4, 4))).state_dict()))
    assert "not VGG16 at its full width" in run("teacher", "fetch", "--weights", tmp_path, status=1).stderr
    assert downloads == []


def test_a_narrow_teacher_cannot_be_named_imagenet(factory: Factory, tmp_path: Path):
    source = factory.teachers / "narrow.safetensors"
    imported = run("teacher", "fetch", "--from", source, "--weights", tmp_path, status=1)
    assert "kept for VGG16 at its full width" in imported.stderr
    pretrained = run("teacher", "pretrain", "imagenet", "--data", factory.data, "--weights", tmp_path, status=1)
    assert "kept for VGG16 at its full width" in pretrained.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_is_pretrained_with_its_provenance(factory: Factory, tmp_path: Path):
    run(
        "teacher", "pretrain", "mine", "--data", factory.data, "--epochs", 1, "--widths", "4,4,4,4,4", "--source",
        "stripes", "--weights", tmp_path, "--device", "cpu",
    )  # fmt: skip
    record = json.loads((tmp_path / "teachers" / "mine.json").read_text())
    assert (record["source"], record["images"], record["classes"], record["epochs"]) == ("stripes", 44, 3, 1)
    assert 0 <= record["held_out_top1_accuracy"] <= 1
    run("train", "new", "--normal", factory.data / "train", "--teacher", "mine", "--epochs", 1, "--weights", tmp_path)
    assert read_card(tmp_path / "new").teacher.sha256 == record["sha256"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("INSPECT_PORT", "many", "INSPECT_PORT is 'many'"),
        ("INSPECT_PORT", "tcp://10.0.0.1:80", "enableServiceLinks: false"),
        ("INSPECT_PROT", "8001", "INSPECT_PROT is not a setting; did you mean INSPECT_PORT?"),
        ("INSPECT_DATABASE", "history.sqlite", "is not the URL of a database, such as sqlite:////state/history.sqlite"),
        ("INSPECT_DATABASE", "mysql://a/b", "a database of the kind 'mysql' cannot keep the history"),
        ("INSPECT_DEVICE", "abacus", "'abacus' cannot be used"),
        ("INSPECT_DEVICE", "meta", "'meta' cannot be used: it is not one of cpu, cuda"),
    ],
)
def test_serve_refuses_impossible_settings(monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str):
    monkeypatch.setenv(name, value)
    assert message in run("serve", status=1).stderr


def test_inspect_refuses_impossible_settings(factory: Factory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("INSPECT_MAX_IMAGE_BYTES", "none")
    image = factory.data / "good" / "000.png"
    assert "INSPECT_MAX_IMAGE_BYTES" in run("inspect", "striped", image, "--weights", factory.weights, status=1).stderr


def test_model_card_writes_a_page_and_overwrites_none(factory: Factory, tmp_path: Path):
    place = tmp_path / "cards" / "striped.html"
    arguments = ["model-card", "striped", "--output", str(place), "--weights", str(factory.weights)]
    run(*arguments)
    assert "Model card: striped" in place.read_text(encoding="utf-8")
    again = run(*arguments, status=1)
    assert "exists; choose another file with --output" in again.output
    unknown = run(
        "model-card", "nowhere", "--output", str(tmp_path / "x.html"), "--weights", str(factory.weights), status=1
    )
    assert "nowhere" in unknown.output
