"""Pictures from the command line: they are there, they can be read, and they say what the numbers say."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from model.lifecycle import datasets
from model.lifecycle.evaluate import judge_category
from model.store.store import Store
from model.store.version import read_card
from service.catalogue import Ready
from service.inspection import Limits, Wanted, inspect_offline
from tests.conftest import Factory, surface, write_images
from tests.service.cli.test_cli import run

FIGURES = ("roc", "histograms", "defects", "best-anomalous", "worst-anomalous", "best-normal", "worst-normal")


@pytest.fixture
def weights(factory: Factory, tmp_path: Path) -> Path:
    return Path(shutil.copytree(factory.weights, tmp_path / "weights"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fresh images: 9 good, 6 with a spot and a mask, and one with a <hole>, whose name is not HTML."""
    root = tmp_path_factory.mktemp("photos")
    write_images(root / "good", [surface(seed) for seed in range(500, 509)])
    (root / "masks" / "spot").mkdir(parents=True)
    mask = np.zeros((80, 80), np.uint8)
    mask[20:60, 20:60] = 255
    for sample in write_images(root / "bad" / "spot", [surface(seed, fault=True) for seed in range(600, 606)]):
        cv2.imwrite(str(root / "masks" / "spot" / f"{sample.path.stem}_mask.png"), mask)
    write_images(root / "bad" / "<hole> $a$", [surface(700, fault=True)])
    return root


@pytest.fixture(scope="module")
def evaluated(factory: Factory, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """The folder of a report, and what the command printed beside it."""
    folder = tmp_path_factory.mktemp("reports") / "new" / "report"
    result = run(*judged(photos), "--report", folder, "--json", "--weights", factory.weights)
    assert f"report: {folder / 'report.html'}" in result.stderr
    return folder, json.loads(result.stdout)


def judged(photos: Path) -> tuple[object, ...]:
    given = ("--normal", photos / "good", "--anomalous", photos / "bad", "--masks", photos / "masks")
    return ("evaluate", "striped", *given, "--device", "cpu")


def assert_picture(path: Path) -> None:
    """A whole PNG of a size for people, that is not blank."""
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert 100 <= image.height <= 2000
        assert 200 <= image.width <= 2000
        assert len(image.convert("RGB").getcolors(1 << 24)) > 10
    assert path.stat().st_size < 2_000_000


def test_a_report_has_a_page_its_figures_and_its_numbers(evaluated: tuple[Path, dict]):
    folder, _ = evaluated
    assert {path.name for path in folder.iterdir()} == {
        "report.html", "report.json", *(f"{name}.png" for name in FIGURES),
    }  # fmt: skip
    for name in FIGURES:
        assert_picture(folder / f"{name}.png")


def test_the_numbers_of_a_report_are_those_of_evaluate(evaluated: tuple[Path, dict], factory: Factory, photos: Path):
    folder, printed = evaluated
    numbers = json.loads((folder / "report.json").read_text())
    assert {name: numbers[name] for name in printed} == printed
    table = run(*judged(photos), "--weights", factory.weights).stdout
    page = (folder / "report.html").read_text()
    for name, estimate in printed["image"].items():
        shown = f'<td class="number">{estimate["value"]:.4f}</td>', f"[{estimate['low']:.4f}, {estimate['high']:.4f}]"
        assert all(text in page for text in shown), name
        assert shown[1] in table
    for value in (printed["pixel_auroc"], printed["aupro"], *printed["auroc_by_defect"].values()):
        assert f'<td class="number">{value:.4f}</td>' in page
    card = read_card(factory.weights / "striped")
    assert f"version {card.model_version}" in page
    assert card.teacher.name in page
    assert f"{card.calibration.threshold:.6g}" in page


def test_counts_curve_and_cases_of_a_report_come_from_the_scores(
    evaluated: tuple[Path, dict], factory: Factory, photos: Path
):
    numbers = json.loads((evaluated[0] / "report.json").read_text())
    scores = judge_category(
        factory.weights, factory.teachers, "striped", datasets.normal_samples(photos / "good"),
        datasets.anomalous_samples(photos / "bad"),
    )  # fmt: skip
    normal, anomalous, threshold = scores.normal_scores, scores.anomalous_scores, numbers["threshold"]
    assert numbers["confusion"] == {
        "normal_accepted": (normal < threshold).sum(),
        "normal_rejected": (normal >= threshold).sum(),
        "anomalous_accepted": (anomalous < threshold).sum(),
        "anomalous_rejected": (anomalous >= threshold).sum(),
    }
    assert numbers["images_by_defect"] == {"<hole> $a$": 1, "spot": 6}
    for defect, (least, most) in {"<hole> $a$": (0.5, 1.0), "spot": (0.1, 0.6)}.items():
        interval = numbers["auroc_interval_by_defect"][defect]
        assert interval["low"] <= numbers["auroc_by_defect"][defect] <= interval["high"]
        assert least < interval["high"] - interval["low"] < most  # one image says little
    assert [one["score"] for one in numbers["scores"]] == pytest.approx([*normal, *anomalous])
    shown = {name: [case["score"] for case in cases] for name, cases in numbers["cases"].items()}
    assert shown == {
        "best-anomalous": pytest.approx(sorted(anomalous, reverse=True)[:3]),
        "worst-anomalous": pytest.approx(sorted(anomalous)[:3]),
        "best-normal": pytest.approx(sorted(normal)[:4]),
        "worst-normal": pytest.approx(sorted(normal, reverse=True)[:4]),
    }
    for name, cases in numbers["cases"].items():
        words = ("missed", "detected") if "anomalous" in name else ("passed", "false alarm")
        assert [case["verdict"] for case in cases] == [words[case["score"] >= threshold] for case in cases]


class References(HTMLParser):
    """Collects what a page refers to, the descriptions of its pictures, and its elements."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.descriptions: list[str] = []
        self.elements: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        given = dict(attrs)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag == "img":
            self.descriptions.append(given.get("alt") or "")


def test_the_page_needs_nothing_but_itself_and_describes_its_pictures(evaluated: tuple[Path, dict]):
    text = (evaluated[0] / "report.html").read_text()
    page = References()
    page.feed(text)
    assert len(page.references) == len(FIGURES)
    assert all(reference.startswith("data:image/png;base64,") for reference in page.references)
    assert not page.elements & {"script", "link", "iframe", "object", "base", "hole"}
    assert "://" not in re.sub(r"base64,[^\"]*", "", text)
    assert "url(" not in text
    assert len(page.descriptions) == len(FIGURES)
    assert all(len(description) > 30 for description in page.descriptions)
    assert "&lt;hole&gt; $a$" in text


def test_a_report_needs_a_folder_of_its_own(factory: Factory, photos: Path, tmp_path: Path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "report.html").write_text("mine")
    (tmp_path / "empty").mkdir()
    for place, message in (
        (tmp_path / "full", "exists and is not an empty folder"),
        (tmp_path / "full" / "report.html", "exists and is not an empty folder"),
        (tmp_path / "full" / "report.html" / "below", "Not a directory"),
    ):
        refused = run(*judged(photos), "--report", place, "--weights", factory.weights, status=1)
        assert message in refused.stderr
        assert refused.stdout == ""
    assert (tmp_path / "full" / "report.html").read_text() == "mine"
    assert "needs normal and anomalous" in run(
        "evaluate", "striped", "--normal", photos / "good", "--report", tmp_path / "new", "--weights", factory.weights,
        status=1,
    ).stderr  # fmt: skip
    assert not (tmp_path / "new").exists()


def test_training_leaves_its_loss_curve_and_calibration_and_rollback_keep_it(weights: Path, factory: Factory):
    folder = weights / "fresh"
    losses = json.loads((folder / "losses.json").read_text())
    card = read_card(folder)
    assert losses["model_version"] == card.model_version
    assert len(losses["mean_loss_by_epoch"]) == card.training.epochs == 2
    assert losses["mean_loss_by_epoch"][-1] == card.training.final_loss
    assert_picture(folder / "losses.png")
    before = {name: (folder / name).read_bytes() for name in ("losses.json", "losses.png")}
    run("calibrate", "fresh", "--normal", factory.data / "good", "--weights", weights)
    assert {name: (folder / name).read_bytes() for name in before} == before
    train = ("train", "fresh", "--normal", factory.data / "train", "--teacher", "narrow", "--image-size", 32)
    run(*train, "--epochs", 3, "--replace", "--weights", weights)
    assert len(json.loads((folder / "losses.json").read_text())["mean_loss_by_epoch"]) == 3
    Store(weights).roll_back("fresh")
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_a_category_without_a_loss_curve_is_calibrated_all_the_same(weights: Path, factory: Factory):
    (weights / "fresh" / "losses.json").unlink()
    (weights / "fresh" / "losses.png").unlink()
    run("calibrate", "fresh", "--normal", factory.data / "good", "--weights", weights)
    assert {path.name for path in (weights / "fresh").iterdir()} == {"card.json", "images.json", "student.safetensors"}


def test_an_overlay_is_the_servers_picture(factory: Factory, photos: Path, tmp_path: Path):
    image = photos / "bad" / "spot" / "000.png"
    run("inspect", "striped", image, "--overlay", tmp_path / "out", "--weights", factory.weights, "--device", "cpu")
    card, detector = Store(factory.weights, factory.teachers).load("striped")
    ready = Ready(card, detector.teacher, lambda: detector)
    _, picture = inspect_offline(ready, image.read_bytes(), Wanted(), Limits(1 << 20, 1 << 20), with_overlay=True)
    assert (tmp_path / "out" / "000.png.overlay.png").read_bytes() == picture


def test_an_overlay_never_takes_the_place_of_an_image(factory: Factory, photos: Path, tmp_path: Path):
    image = tmp_path / "a.png"
    shutil.copy(photos / "good" / "000.png", image)
    options = ("--overlay", tmp_path, "--weights", factory.weights)
    run("inspect", "striped", image, *options)
    overlay = tmp_path / "a.png.overlay.png"
    before = overlay.read_bytes()
    refused = run("inspect", "striped", image, overlay, *options, status=1)
    assert f"would overwrite {overlay}" in refused.stderr
    assert overlay.read_bytes() == before
    assert image.read_bytes() == (photos / "good" / "000.png").read_bytes()
    nowhere = run("inspect", "striped", image, "--overlay", image, "--weights", factory.weights, status=1)
    assert f"{image}: File exists" in nowhere.stderr


def test_features_are_drawn_into_a_new_file(
    factory: Factory, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    command = ("features", "striped", photos / "bad" / "spot" / "000.png", "--weights", factory.weights)
    assert run(*command).stdout == "000.png.features.png\n"
    assert_picture(tmp_path / "000.png.features.png")
    assert "exists; choose another file with --output" in run(*command, status=1).stderr
    run(*command, "--output", tmp_path / "new" / "figure.png")
    assert_picture(tmp_path / "new" / "figure.png")
    assert "must end in .png" in run(*command, "--output", "figure.jpg", status=1).stderr
    missing = run("features", "striped", "missing.png", "--weights", factory.weights, status=1)
    assert "missing.png: No such file" in missing.stderr


def test_whoever_serves_loads_neither_matplotlib_nor_torchvision_with_torchs_compiler():
    script = (
        "import sys, service.cli, service.app; print({'matplotlib', 'torchvision', 'torch._dynamo'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
