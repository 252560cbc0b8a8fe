"""`eca-inspect reproduce`: runs, goes on, writes tables, and says plainly what it will not do."""

import json
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from model.lab.reproduction.sets import SETS
from tests.conftest import Factory, surface, write_images
from tests.needs import ANOMALIB
from tests.service.cli.test_cli import run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for offset, split in ((0, "train"), (50, "test")):
        for name, fault in (("clean", False), ("stained", True)):
            write_images(
                tmp_path / "set" / split / name,
                [surface(seed + offset, size=(32, 32), fault=fault) for seed in range(6)],
            )
    return tmp_path / "set"


@pytest.fixture
def options(factory: Factory, root: Path, tmp_path: Path) -> tuple[object, ...]:
    return (
        "--dataset", "cifar-10", "--root", root, "--output", tmp_path / "results", "--teachers", factory.teachers,
        "--teacher", "narrow", "--epochs", 2, "--device", "cpu",
    )  # fmt: skip


def test_runs_go_on_and_end_in_tables(options: tuple[object, ...], tmp_path: Path):
    done = run("reproduce", *options, "--variant", "eca-mkdad,mkdad", "--classes", "clean", "--seeds", 2)
    assert done.stderr.count("AUROC") == 4
    files = sorted(path.name for path in (tmp_path / "results" / "cifar-10").iterdir())
    assert files == ["clean-eca-mkdad-0.json", "clean-eca-mkdad-1.json", "clean-mkdad-0.json", "clean-mkdad-1.json"]
    found = json.loads((tmp_path / "results" / "cifar-10" / files[0]).read_text())
    assert found["common"]["epochs"] == 2
    page = tmp_path / "results" / "tables.md"
    assert done.stdout.strip() == str(page)
    assert "(2 seeds, 1 of 10 classes)" in page.read_text()

    again = run("reproduce", *options, "--variant", "eca-mkdad", "--seeds", 2)
    assert again.stderr.count("already done") == 2
    assert again.stderr.count("cifar-10 stained, eca-mkdad, seed") == 2

    elsewhere = tmp_path / "pages" / "page.md"
    run("reproduce", "--output", tmp_path / "results", "--tables", elsewhere)
    assert elsewhere.read_text() == page.read_text()


def test_the_papers_epochs_are_the_default_and_results_do_not_mix(options: tuple[object, ...]):
    run("reproduce", *options, "--classes", "clean")
    without_epochs = [option for option in options if option not in ("--epochs", 2)]
    refused = run("reproduce", *without_epochs, "--classes", "stained", status=1)
    assert "another epochs (2, asked for is 300)" in refused.stderr
    assert "choose another folder of results" in refused.stderr


def test_what_it_refuses(options: tuple[object, ...], tmp_path: Path):
    def refuse(*arguments: object) -> str:
        return run("reproduce", *arguments, status=1).stderr

    output = ("--output", tmp_path / "results")
    assert "there is no data set 'cifar-100'; there are mvtec-ad, mnist" in refuse("--dataset", "cifar-100", *output)
    assert "there is no variant 'cbam'; there are eca-mkdad" in refuse(*options, "--variant", "mkdad,cbam")
    assert "there is no class of cifar-10 'cat'; there are clean, stained" in refuse(*options, "--classes", "cat")
    assert "give the folder of the data set with --root" in refuse("--dataset", "mnist", *output)
    assert "contains no results; give --dataset and --root" in refuse(*output)
    for name in SETS:
        missing = refuse("--dataset", name, "--root", tmp_path / "nowhere", *output)
        assert str(tmp_path / "nowhere") in missing, name
    assert not (tmp_path / "results").exists()


def test_a_comparison_without_anomalib_says_how_to_get_it(
    options: tuple[object, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setitem(sys.modules, "anomalib", None)  # as where it is not installed
    refused = run("reproduce", *options, "--compare", "patchcore,stfpm", status=1).stderr
    assert "pip install 'eca-inspect[anomalib]'" in refused
    assert "no method of anomalib 'padim'" in run("reproduce", *options, "--compare", "padim", status=1).stderr
    assert not (tmp_path / "results").exists()


@pytest.fixture
def anomalib() -> None:
    if find_spec("anomalib") is None:
        ANOMALIB.missing()
    import_module("lightning")  # here its log takes an error stream that outlives the first command


@pytest.mark.usefixtures("anomalib")
def test_methods_of_anomalib_run_on_the_same_teacher_and_stand_in_the_same_table(
    options: tuple[object, ...], tmp_path: Path
):
    methods = ("patchcore-teacher", "stfpm-teacher")
    done = run("reproduce", *options, "--classes", "clean", "--compare", ",".join(methods))
    for method in methods:
        found = json.loads((tmp_path / "results" / "cifar-10" / f"clean-anomalib-{method}-0.json").read_text())
        assert found["test_images"] == {"normal": 6, "anomalous": 6}
        assert found["common"]["teacher"]["name"] == "narrow"
        assert found["training_seconds"] > 0
        assert found["milliseconds_an_image_in_batches"] > 0
        if method == "patchcore-teacher":
            assert found["auroc"] == 1  # the faults are large and bright
    assert "| normal class | ECA-MKDAD | patchcore-teacher | stfpm-teacher |" in Path(done.stdout.strip()).read_text()


@pytest.mark.usefixtures("anomalib")
def test_a_network_that_cannot_be_downloaded_is_named(options: tuple[object, ...], monkeypatch: pytest.MonkeyPatch):
    def fails(*arguments: object, **options: object) -> object:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("timm.create_model", fails)  # where the network is fetched
    refused = run("reproduce", *options, "--classes", "clean", "--compare", "patchcore", status=1).stderr
    assert "patchcore needs a pretrained network, which cannot be downloaded (no route to host)" in refused
    assert "these need no download: patchcore-teacher, stfpm-teacher, ganomaly" in refused


def test_ctrl_c_keeps_what_is_done(options: tuple[object, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def stop(*arguments: object) -> float:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("model.lab.reproduction.runs.inference_ms", stop)  # the last thing measured
        assert "run the same command to continue" in run("reproduce", *options, "--classes", "clean", status=130).stderr
    assert not list((tmp_path / "results").glob("*/*.json"))
    assert "clean, eca-mkdad, seed 0: AUROC" in run("reproduce", *options, "--classes", "clean").stderr
