"""Every category under a folder in one go: in turn without Ray, in parallel with it."""

import shutil
from pathlib import Path

import pytest

from model.lifecycle import many
from model.store.store import Store
from model.store.version import read_card
from tests.conftest import Factory, surface, write_images
from tests.service.cli.test_cli import run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two categories with test images, one without, and one that has too few photographs."""
    folder = tmp_path / "data"
    for seed, name in enumerate(("bolt", "nut", "few", "washer")):
        images = [surface(100 * seed + index) for index in range(3 if name == "few" else 10)]
        write_images(folder / name / "train" / "good", images)
        if name != "washer":
            write_images(folder / name / "test" / "good", [surface(50 + index) for index in range(4)])
            write_images(folder / name / "test" / "spot", [surface(60 + index, fault=True) for index in range(4)])
    (folder / "notes").mkdir()
    return folder


@pytest.fixture
def options(factory: Factory, tmp_path: Path) -> tuple[object, ...]:
    shutil.copytree(factory.teachers, tmp_path / "weights" / "teachers")
    return (
        "--teacher", "narrow", "--epochs", 2, "--image-size", 64, "--batch-size", 8,
        "--weights", tmp_path / "weights", "--device", "cpu",
    )  # fmt: skip


def rows(output: str) -> dict[str, list[str]]:
    """The summary table by category."""
    lines = output.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("category "))
    return {cells[0]: cells[1:] for cells in (line.split() for line in lines[start + 1 :])}


def test_in_turn_with_a_summary_and_again_with_nothing_left_to_do(
    root: Path, options: tuple[object, ...], tmp_path: Path
):
    result = run("train-many", root, *options, status=1)
    found = rows(result.stdout)
    assert {name: cells[0] for name, cells in found.items()} == {
        "bolt": "trained", "few": "failed", "nut": "trained", "washer": "trained",
    }  # fmt: skip
    assert "too few to train on" in result.stderr
    bolt = read_card(tmp_path / "weights" / "bolt")
    assert bolt.calibration.method == "youden"
    assert bolt.calibration.anomalous_images == 2
    assert found["bolt"][1] == bolt.model_version
    assert read_card(tmp_path / "weights" / "washer").calibration.method != "youden"
    shutil.rmtree(root / "few")
    again = run("train-many", root, *options)
    assert {cells[0] for cells in rows(again.stdout).values()} == {"there"}
    assert read_card(tmp_path / "weights" / "bolt") == bolt


def test_it_goes_on_where_it_was_stopped(
    root: Path, options: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.rmtree(root / "few")
    train = many.train_category

    def stopped(category: str, *arguments: object, **named: object) -> object:
        if category != "nut":
            return train(category, *arguments, **named)

        def stop(epoch: object) -> None:
            raise KeyboardInterrupt

        return train(category, *arguments, on_epoch=stop, **named)

    monkeypatch.setattr(many, "train_category", stopped)
    result = run("train-many", root, *options, status=130)
    assert "run the same command to continue" in result.stderr
    weights = tmp_path / "weights"
    assert (weights / "bolt" / "card.json").exists()
    assert Store(weights).checkpoint("nut").exists()
    monkeypatch.undo()
    assert {name: cells[0] for name, cells in rows(run("train-many", root, *options).stdout).items()} == {
        "bolt": "there", "nut": "trained", "washer": "trained",
    }  # fmt: skip


def test_a_failure_that_may_go_away_is_tried_again(
    root: Path, options: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
):
    shutil.rmtree(root / "few")
    train = many.train_category
    failures = {"nut": 1, "washer": 2}

    def unlucky(category: str, *arguments: object, **named: object) -> object:
        if failures.get(category, 0):
            failures[category] -= 1
            raise OSError("the share is away")
        return train(category, *arguments, **named)

    monkeypatch.setattr(many, "train_category", unlucky)
    result = run("train-many", root, *options, status=1)
    assert {name: cells[0] for name, cells in rows(result.stdout).items()} == {
        "bolt": "trained", "nut": "trained", "washer": "failed",
    }  # fmt: skip
    assert "OSError: the share is away" in result.stderr


def test_a_folder_without_categories_is_refused(tmp_path: Path, options: tuple[object, ...]):
    assert "MVTec AD layout" in run("train-many", tmp_path, *options, status=1).stderr


def test_in_parallel_on_ray(ray_installed: None, root: Path, options: tuple[object, ...], tmp_path: Path):
    shutil.rmtree(root / "nut")
    shutil.rmtree(root / "washer")
    result = run("train-many", root, "--ray", *options, status=1)
    assert {name: cells[0] for name, cells in rows(result.stdout).items()} == {"bolt": "trained", "few": "failed"}
    assert read_card(tmp_path / "weights" / "bolt").calibration.method == "youden"
