"""Files whose names are not UTF-8 are inspected, judged and reported like any other."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Factory, surface, write_images
from tests.service.cli.test_cli import run

COMMAND = Path(sys.executable).with_name("eca-inspect")
NAME = os.fsdecode(b"\xff\xfe.png")
SHOWN = r"\xff\xfe.png"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Fresh images; one of each kind and the kind of defect itself have names that are not UTF-8."""
    root = tmp_path / "photos"
    write_images(root / "good", [surface(seed) for seed in range(500, 504)])
    write_images(root / "bad" / NAME, [surface(seed, fault=True) for seed in range(600, 604)])
    (root / "good" / "000.png").rename(root / "good" / NAME)
    (root / "bad" / NAME / "000.png").rename(root / "bad" / NAME / NAME)
    return root


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "utf-8:strict"},
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=str,
)
def test_the_installed_command_prints_every_name(factory: Factory, photos: Path, environment: dict[str, str]):
    (photos / os.fsdecode(b"\xe9.png")).write_bytes(b"nonsense")
    images = [photos / "good" / NAME, photos / os.fsdecode(b"\xe9.png"), photos / NAME]
    done = subprocess.run(
        [COMMAND, "inspect", "striped", *images, "--weights", factory.weights, "--device", "cpu"],
        env={**os.environ, **environment},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.endswith(f"  {photos}/good/{SHOWN}\n")
    unreadable, missing = done.stderr.splitlines()
    assert unreadable.startswith(rf"error: {photos}/\xe9.png: ")
    assert missing == f"error: {photos}/{SHOWN}: No such file or directory"


def test_inspect_writes_overlay_and_json_for_every_name(factory: Factory, photos: Path, tmp_path: Path):
    overlays = tmp_path / os.fsdecode(b"out \xe4")
    options = ("--overlay", overlays, "--json", "--weights", factory.weights)
    (answer,) = json.loads(run("inspect", "striped", photos / "good" / NAME, *options).stdout)
    assert answer["path"] == f"{photos}/good/{SHOWN}"
    assert (overlays / f"{NAME}.overlay.png").exists()


def test_features_are_drawn_for_every_name(factory: Factory, photos: Path, tmp_path: Path):
    place = tmp_path / NAME
    done = run("features", "striped", photos / "good" / NAME, "--output", place, "--weights", factory.weights)
    assert done.stdout == f"{tmp_path}/{SHOWN}\n"
    assert place.exists()


def test_a_report_shows_every_name(factory: Factory, photos: Path, tmp_path: Path):
    report = tmp_path / os.fsdecode(b"report \xe4")
    judged = ("evaluate", "striped", "--normal", photos / "good", "--anomalous", photos / "bad")
    done = run(*judged, "--report", report, "--weights", factory.weights)
    assert f"AUROC of {SHOWN}" in done.stdout
    assert rf"report: {tmp_path}/report \xe4/report.html" in done.stderr
    numbers = json.loads((report / "report.json").read_text(encoding="utf-8"))
    assert SHOWN in numbers["auroc_by_defect"]
    path = f"{photos}/bad/{SHOWN}/{SHOWN}"
    assert path in [one["path"] for one in numbers["scores"]]
    assert path in (report / "report.html").read_text(encoding="utf-8")


def test_masks_are_found_and_read_under_every_name(factory: Factory, photos: Path, tmp_path: Path):
    masks = tmp_path / os.fsdecode(b"masks \xff")
    mask = np.zeros((80, 80, 3), np.uint8)
    mask[20:60, 20:60] = 255
    images = sorted((photos / "bad" / NAME).iterdir())
    for image, written in zip(images, write_images(masks / NAME, [mask] * 4), strict=True):
        written.path.rename(masks / NAME / f"{image.stem}_mask.png")
    judged = ("evaluate", "striped", "--normal", photos / "good", "--anomalous", photos / "bad", "--masks", masks)
    found = json.loads(run(*judged, "--json", "--weights", factory.weights).stdout)
    assert found["pixel_images"] == 4


def test_files_left_out_are_named_as_json(factory: Factory, photos: Path):
    (photos / "good" / os.fsdecode(b"broken \xff.png")).write_bytes(b"nonsense")
    judged = ("evaluate", "striped", "--normal", photos / "good", "--anomalous", photos / "bad")
    options = ("--weights", factory.weights)
    assert rf"{photos}/good/broken \xff.png" in run(*judged, *options, status=1).stderr
    (message,) = json.loads(run(*judged, "--skip-unreadable", "--json", *options).stdout)["unreadable"]
    assert rf"{photos}/good/broken \xff.png" in message


def test_training_and_calibration_take_every_name(factory: Factory, photos: Path, tmp_path: Path):
    folder = Path(shutil.copytree(factory.data / "train", tmp_path / os.fsdecode(b"train \xff")))
    (folder / "000.png").rename(folder / NAME)
    weights = tmp_path / os.fsdecode(b"weights \xff")
    shutil.copytree(factory.teachers, weights / "teachers")
    train = ("train", "new", "--normal", folder, "--teacher", "narrow", "--epochs", 1, "--image-size", 32)
    assert run(*train, "--weights", weights).stdout.startswith(rf"{tmp_path}/weights \xff/new: version ")
    judged = ("--normal", photos / "good", "--anomalous", photos / "bad")
    assert "4 normal and 4 anomalous" in run("calibrate", "new", *judged, "--weights", weights).stdout


def test_the_built_in_pictures_are_written_below_every_name(tmp_path: Path):
    root = tmp_path / NAME
    done = run("synthesize", root, "--train", 1, "--test-good", 1, "--test-each", 1)
    assert done.stdout == f"{tmp_path}/{SHOWN}\n"
    assert (root / "train" / "good" / "000.png").exists()


def test_a_report_that_fails_leaves_no_folder_that_blocks_the_next(factory: Factory, photos: Path, tmp_path: Path):
    (photos / "good" / "broken.png").write_bytes(b"nonsense")
    new, empty = tmp_path / "reports" / "today", tmp_path / "empty"
    empty.mkdir()
    judged = ("evaluate", "striped", "--normal", photos / "good", "--anomalous", photos / "bad")
    options = ("--weights", factory.weights)
    for report in (new, empty):
        assert "broken.png" in run(*judged, "--report", report, *options, status=1).stderr
    assert not new.parent.exists()
    assert list(empty.iterdir()) == []
    run(*judged, "--skip-unreadable", "--report", new, *options)
    assert "not an empty folder" in run(*judged, "--skip-unreadable", "--report", new, *options, status=1).stderr
    assert (new / "report.html").exists()
