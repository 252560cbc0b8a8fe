"""The paper's protocol, its series of runs and its tables: what is trained on, what is judged, what is printed."""

import hashlib
import json
import pickle
import statistics
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.io
import torch
from torchvision import datasets as torchvision_sets

from model.choices import TermWeights
from model.detector import Detector, scores_of
from model.errors import MissingSetError
from model.lab.reproduction import runs
from model.lab.reproduction.comparison import backbone_of, untrained, write_folders
from model.lab.reproduction.runs import (
    Run,
    Series,
    check_series,
    judge,
    read_results,
    reproduce,
    scores_from_features,
)
from model.lab.reproduction.sets import OTHER, SETS, Source
from model.lab.reproduction.tables import DIVERGED, PAPER, cell, write_tables
from model.lab.variants import VARIANTS, Variant
from model.lifecycle.datasets import DatasetError, load_images, normal_samples
from model.lifecycle.distillation import Epoch, TrainingInterrupted, teacher_features
from model.lifecycle.recipe import TrainingError
from model.networks.vgg import Student, Teacher, student_plan
from model.preprocessing import Preprocessing
from tests.conftest import surface, write_images

CLASSES = ("plain", "spotted", "turned")


def picture(name: str, seed: int) -> np.ndarray:
    image = surface(seed, size=(40, 36), fault=name == "spotted")
    return image.transpose(1, 0, 2) if name == "turned" else image


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes as folders, nine pictures of each to train on and five to test on."""
    folder = tmp_path_factory.mktemp("classes")
    for label, name in enumerate(CLASSES):
        write_images(folder / "train" / name, [picture(name, 100 * label + index) for index in range(9)])
        write_images(folder / "test" / name, [picture(name, 1000 + 100 * label + index) for index in range(5)])
    return folder


@pytest.fixture
def series(root: Path, teacher: Teacher, tmp_path: Path) -> Series:
    benchmark = SETS["cifar-10"]
    return Series("cifar-10", benchmark, benchmark.open(root), "narrow", teacher, tmp_path / "results", 3, batch_size=4)


def rows(pixels: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in pixels}


# The protocol


def test_each_class_in_turn_is_normal(root: Path):
    source = SETS["cifar-10"].open(root)
    assert source.classes == CLASSES
    everything = source.test("plain")[0]
    assert everything.shape == (15, 32, 32, 3)
    for label, name in enumerate(CLASSES):
        training = source.training(name)
        test, anomalous = source.test(name)
        assert training.shape == (9, 32, 32, 3)
        assert test is everything  # the whole test split for every class, prepared once
        assert anomalous.tolist() == [index // 5 != label for index in range(15)]
        assert not rows(training) & rows(test)
    assert not rows(source.training("plain")) & rows(source.training("spotted"))


def test_mvtec_ad_says_itself_what_is_normal(tmp_path: Path):
    for name in ("grid", "tile", "elsewhere"):
        write_images(tmp_path / name / "train" / "good", [surface(seed) for seed in range(3)])
        write_images(tmp_path / name / "test" / "good", [surface(seed) for seed in range(10, 12)])
        write_images(tmp_path / name / "test" / "spot", [surface(seed, fault=True) for seed in range(20, 24)])
    (tmp_path / "licence").mkdir()
    source = SETS["mvtec-ad"].open(tmp_path)
    assert source.classes == ("grid", "tile")  # the paper's; any other is read as such
    assert SETS[OTHER].open(tmp_path).classes == ("elsewhere", "grid", "tile")
    pixels, anomalous = source.test("tile")
    assert source.training("tile").shape == (3, 128, 128, 3)
    assert pixels.shape == (6, 128, 128, 3)
    assert anomalous.tolist() == [False] * 2 + [True] * 4


def idx(array: np.ndarray) -> bytes:
    """MNIST's file format."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def known(path: Path, data: bytes) -> list[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return [path.name, hashlib.md5(data).hexdigest()]


IMAGES = np.random.default_rng(0).integers(0, 256, (2, 4, 32, 32, 3), dtype=np.uint8)
"""Two splits of four pictures, of the classes 1, 0, 1 and 2."""
LABELS = np.array([1, 0, 1, 2])


def write_digits(folder: str) -> Callable[[Path, pytest.MonkeyPatch], np.ndarray]:
    def write(root: Path, patch: pytest.MonkeyPatch) -> np.ndarray:
        grey = IMAGES[:, :, :28, :28, 0]
        for images, prefix in zip(grey, ("train", "t10k"), strict=True):
            known(root / folder / "raw" / f"{prefix}-images-idx3-ubyte", idx(np.ascontiguousarray(images)))
            known(root / folder / "raw" / f"{prefix}-labels-idx1-ubyte", idx(LABELS.astype(np.uint8)))
        resized = [[cv2.resize(image, (32, 32), interpolation=cv2.INTER_LINEAR) for image in split] for split in grey]
        return np.repeat(np.array(resized)[..., None], 3, axis=4)

    return write


def write_cifar10(root: Path, patch: pytest.MonkeyPatch) -> np.ndarray:
    files = []
    for images, name in zip(IMAGES, ("data_batch_1", "test_batch"), strict=True):
        flat = images.transpose(0, 3, 1, 2).reshape(4, -1)
        data = pickle.dumps({"data": flat, "labels": LABELS.tolist()})
        files.append(known(root / "cifar-10-batches-py" / name, data))
    meta = known(root / "cifar-10-batches-py" / "batches.meta", pickle.dumps({"label_names": ["a", "b", "c"]}))
    patch.setattr(torchvision_sets.CIFAR10, "train_list", files[:1])
    patch.setattr(torchvision_sets.CIFAR10, "test_list", files[1:])
    patch.setattr(torchvision_sets.CIFAR10, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
    return IMAGES


def write_svhn(root: Path, patch: pytest.MonkeyPatch) -> np.ndarray:
    files = {}
    for images, split in zip(IMAGES, ("train", "test"), strict=True):
        path = root / f"{split}_32x32.mat"
        labels = np.where(LABELS == 0, 10, LABELS)[:, None]  # a nought is a ten there
        scipy.io.savemat(path, {"X": images.transpose(1, 2, 3, 0), "y": labels})
        files[split] = ["", *known(path, path.read_bytes())]
    patch.setattr(torchvision_sets.SVHN, "split_list", files)
    return IMAGES


def write_stl10(root: Path, patch: pytest.MonkeyPatch) -> np.ndarray:
    large = np.stack([np.stack([cv2.resize(image, (96, 96)) for image in split]) for split in IMAGES])
    lists = []
    for images, split in zip(large, ("train", "test"), strict=True):
        columns_first = images.transpose(0, 3, 2, 1)
        folder = root / "stl10_binary"
        lists.append(
            [
                known(folder / f"{split}_X.bin", np.ascontiguousarray(columns_first).tobytes()),
                known(folder / f"{split}_y.bin", (LABELS + 1).astype(np.uint8).tobytes()),
            ]
        )
    patch.setattr(torchvision_sets.STL10, "train_list", lists[0])
    patch.setattr(torchvision_sets.STL10, "test_list", lists[1])
    return large


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("mnist", write_digits("MNIST")),
        ("fashion-mnist", write_digits("FashionMNIST")),
        ("cifar-10", write_cifar10),
        ("svhn", write_svhn),
        ("stl-10", write_stl10),
    ],
)
def test_torchvisions_files_are_read_as_they_are(
    name: str, write: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    expected = write(tmp_path, monkeypatch)
    source = SETS[name].open(tmp_path)
    assert len(source.classes) == 10
    np.testing.assert_array_equal(source.training(source.classes[1]), expected[0][[0, 2]])
    test, anomalous = source.test(source.classes[1])
    np.testing.assert_array_equal(test, expected[1])
    assert anomalous.tolist() == [False, True, False, True]


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar-10", "svhn", "stl-10"])
def test_a_set_that_is_not_there_is_refused_and_not_fetched(name: str, tmp_path: Path):
    with pytest.raises(MissingSetError, match="holds neither folders of classes"):
        SETS[name].open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_do_not_fit_are_refused(tmp_path: Path):
    with pytest.raises(DatasetError, match="is not a folder"):
        SETS["mvtec-ad"].open(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="no category in the MVTec AD layout"):
        SETS["mvtec-ad"].open(tmp_path)
    write_images(tmp_path / "train" / "a", [surface(0)])
    write_images(tmp_path / "test" / "b", [surface(1)])
    with pytest.raises(DatasetError, match="a folder for each of the same classes, two at least"):
        SETS["cifar-10"].open(tmp_path)


def test_sizes_epochs_and_lambda_are_the_papers():
    assert {name: (one.image_size, one.epochs, one.direction_weight) for name, one in SETS.items()} == {
        "mvtec-ad": (128, 500, 0.1),
        "mnist": (32, 100, 0.01),
        "fashion-mnist": (32, 100, 0.01),
        "cifar-10": (32, 300, 0.01),
        "svhn": (32, 300, 0.01),
        "stl-10": (96, 300, 0.01),
        OTHER: (128, 500, 0.1),
    }


# Runs


def test_a_series_leaves_one_result_for_each_run(series: Series):
    two = {name: VARIANTS[name] for name in ("eca-mkdad", "lambda-on-squared")}
    reproduce(series, ["plain", "turned"], two, range(2))
    results = read_results(series.output)
    assert len(results) == 8
    assert {(one["class"], one["variant"], one["seed"]) for one in results} == {
        (name, variant, seed) for name in ("plain", "turned") for variant in two for seed in (0, 1)
    }
    one = json.loads(Run("cifar-10", "plain", "lambda-on-squared", 1).path(series.output).read_text())
    assert (one["squared_weight"], one["direction_weight"]) == (0.01, 1.0)
    assert one["common"]["teacher"]["name"] == "narrow"
    assert (one["training_images"], one["test_images"]) == (9, {"normal": 5, "anomalous": 10})
    assert one["different_images_in_both"] == 0
    assert one["final_loss"] < one["first_loss"]
    assert one["g_mean"] == pytest.approx(((1 - one["false_alarm_rate"]) * (1 - one["miss_rate"])) ** 0.5)
    assert 0 <= one["auroc"] <= 1
    assert one["inference_ms"] > 0
    assert not list(series.output.rglob("*.pt"))


def test_the_teacher_sees_no_picture_twice(series: Series, monkeypatch: pytest.MonkeyPatch):
    seen: list[bytes] = []

    def watched(teacher: Teacher, pixels: np.ndarray, **options: Any) -> list[torch.Tensor]:
        seen.extend(image.tobytes() for image in pixels)
        return teacher_features(teacher, pixels, **options)

    monkeypatch.setattr("model.lab.reproduction.runs.teacher_features", watched)
    two = {name: VARIANTS[name] for name in ("eca-mkdad", "mkdad")}
    reproduce(series, CLASSES, two, range(2))
    assert len(seen) == len(set(seen)) == 3 * 9 + 15


def test_a_finished_run_is_not_repeated_and_an_interrupted_series_goes_on(series: Series):
    done: list[Run] = []

    def stop_after_two(run: Run, result: dict[str, Any] | None) -> None:
        done.append(run)
        if len(done) == 2:
            raise KeyboardInterrupt

    default = {"eca-mkdad": VARIANTS["eca-mkdad"]}
    with pytest.raises(KeyboardInterrupt):
        reproduce(series, CLASSES, default, range(1), on_run=stop_after_two)
    times = {run: run.path(series.output).stat().st_mtime_ns for run in done}
    report: dict[str, bool] = {}
    reproduce(
        series,
        CLASSES,
        default,
        range(1),
        on_run=lambda run, result: report.update({run.normal_class: result is not None}),
    )
    assert report == {"plain": False, "spotted": False, "turned": True}
    assert {run: run.path(series.output).stat().st_mtime_ns for run in done} == times


@pytest.mark.parametrize("death", [KeyboardInterrupt, MemoryError])
def test_a_run_that_dies_in_the_middle_ends_as_if_it_had_not(
    series: Series, root: Path, teacher: Teacher, tmp_path: Path, death: type[BaseException]
):
    """After Ctrl-C it goes on from its checkpoint; after a death without warning it starts again."""
    default = {"eca-mkdad": VARIANTS["eca-mkdad"]}
    whole = Series("cifar-10", series.benchmark, series.source, "narrow", teacher, tmp_path / "whole", 3, batch_size=4)
    reproduce(whole, ["plain"], default, range(1))

    def die_in_the_second(run: Run, epoch: Epoch) -> None:
        if epoch.number == 2:
            raise death

    with pytest.raises((TrainingInterrupted, MemoryError)):
        reproduce(series, ["plain"], default, range(1), on_epoch=die_in_the_second)
    assert read_results(series.output) == []
    numbers: list[int] = []
    reproduce(series, ["plain"], default, range(1), on_epoch=lambda run, epoch: numbers.append(epoch.number))
    assert numbers == ([3] if death is KeyboardInterrupt else [1, 2, 3])
    (found,), (expected,) = read_results(series.output), read_results(whole.output)
    for field in ("auroc", "threshold", "first_loss", "final_loss", "miss_rate"):
        assert found[field] == expected[field]


def test_fewer_training_images_are_the_same_ones_for_every_variant_and_seed(
    series: Series, monkeypatch: pytest.MonkeyPatch
):
    few = Series(
        "cifar-10", series.benchmark, series.source, "narrow", series.teacher, series.output, 1, training_images=4
    )
    trained: list[bytes] = []
    train = runs.train

    def watched(teacher: Teacher, pixels: np.ndarray, *rest: Any, **options: Any) -> Any:
        trained.append(pixels.tobytes())
        assert len(pixels) == 4
        return train(teacher, pixels, *rest, **options)

    monkeypatch.setattr(runs, "train", watched)
    reproduce(few, ["plain"], {name: VARIANTS[name] for name in ("eca-mkdad", "mkdad")}, range(2))
    assert len(trained) == 4
    assert len(set(trained)) == 1
    assert rows(np.frombuffer(trained[0], np.uint8).reshape(4, 32, 32, 3)) <= rows(series.source.training("plain"))


def test_a_run_that_diverges_is_a_result_and_does_not_stop_the_others(series: Series):
    wild = {"wild": Variant("wild", learning_rate=1e30), "mkdad": VARIANTS["mkdad"]}
    reproduce(series, ["plain"], wild, range(1))
    mkdad, failed = read_results(series.output)
    assert "auroc" in mkdad
    assert "auroc" not in failed
    assert "smaller learning rate" in failed["failed"]


def test_results_of_other_settings_or_another_teacher_do_not_mix(series: Series, teacher: Teacher):
    reproduce(series, ["plain"], {"mkdad": VARIANTS["mkdad"]}, range(1))

    def other(dataset: str, network: Teacher, epochs: int) -> Series:
        return Series(dataset, SETS[dataset], series.source, "narrow", network, series.output, epochs, batch_size=4)

    with pytest.raises(TrainingError, match=r"another epochs \(3, asked for is 5\).* choose another folder of results"):
        check_series(other("cifar-10", teacher, 5))
    with pytest.raises(TrainingError, match="another teacher"):
        check_series(other("svhn", Teacher(teacher.plan), 3))
    check_series(other("svhn", teacher, 5))


def test_pictures_in_both_splits_are_counted(series: Series):
    class Leaking(Source):
        classes = CLASSES

        def training(self, name: str) -> np.ndarray:
            return series.source.training(name)

        def test(self, name: str) -> tuple[np.ndarray, np.ndarray]:
            pixels, anomalous = series.source.test(name)
            return np.concatenate((pixels, self.training(name)[:2])), np.append(anomalous, [False, False])

    leaking = Series("cifar-10", series.benchmark, Leaking(), "narrow", series.teacher, series.output, 1)
    reproduce(leaking, ["plain"], {"mkdad": VARIANTS["mkdad"]}, range(1))
    (result,) = read_results(series.output)
    assert result["different_images_in_both"] == 2


def test_scores_from_kept_features_are_the_detectors(teacher: Teacher, root: Path):
    torch.manual_seed(0)
    student = Student(student_plan(teacher.plan)).eval()
    pixels, _ = SETS["cifar-10"].open(root).test("plain")
    weights = TermWeights(direction=0.01)
    found = scores_from_features(student, pixels, teacher_features(teacher, pixels), weights)
    np.testing.assert_allclose(found, scores_of(Detector(teacher, student, weights), pixels), rtol=1e-4)


def test_measures_are_taken_at_the_youden_point_of_the_test_scores():
    normal, anomalous = np.array([1.0, 2, 3, 10]), np.array([2.5, 4, 5, 6])
    found = judge(normal, anomalous)
    assert (found["false_alarm_rate"], found["miss_rate"]) == (0.25, 0.25)
    assert found["g_mean"] == pytest.approx(0.75)
    assert found["auroc"] == 11 / 16
    useless = judge(np.array([5.0, 6]), np.array([1.0, 2]))
    assert useless == {"auroc": 0, "g_mean": 0, "false_alarm_rate": 0, "miss_rate": 1, "threshold": None}


def test_a_file_that_is_no_result_is_named(tmp_path: Path):
    (tmp_path / "cifar-10").mkdir()
    (tmp_path / "cifar-10" / "x.json").write_text("{}")
    with pytest.raises(DatasetError, match=r"x\.json is not a result of this command"):
        read_results(tmp_path)


def test_a_comparison_gets_the_same_pictures_and_splits(series: Series, tmp_path: Path):
    training = series.source.training("plain")
    pixels, anomalous = series.source.test("plain")
    write_folders(tmp_path / "data", training, pixels, anomalous)
    for folder, expected in (
        ("train", training),
        ("test/normal", pixels[~anomalous]),
        ("test/anomalous", pixels[anomalous]),
    ):
        np.testing.assert_array_equal(
            load_images(normal_samples(tmp_path / "data" / folder), Preprocessing(32)).pixels, expected
        )


def test_a_rivals_backbone_sees_what_the_teacher_sees(teacher: Teacher):
    x = torch.randn(2, 3, 64, 64)
    seen = x
    taps = []
    for stage in backbone_of(teacher):
        seen = stage(seen)
        taps.append(seen)
    for expected, tap in zip(teacher(x), taps[1:], strict=True):  # the teacher's are pools 2 to 5
        torch.testing.assert_close(tap, expected)


def test_a_rivals_student_has_the_teachers_shape_and_weights_of_its_own(teacher: Teacher):
    backbone = backbone_of(teacher)
    student = untrained(backbone)
    x = torch.randn(2, 3, 64, 64)
    assert [name for name, _ in student.named_children()] == [f"pool{pool}" for pool in range(1, 6)]
    assert student(x).shape == backbone(x).shape
    assert not torch.equal(student(x), backbone(x))
    assert all(parameter.requires_grad for parameter in student.parameters())
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in student.modules()) == 13


# Tables


def result(dataset: str, name: str, variant: str, seed: int, auroc: float, **others: Any) -> dict[str, Any]:
    """A result as a run leaves it; the other measures follow from the AUROC."""
    measured = {
        "auroc": auroc, "g_mean": auroc - 0.1, "false_alarm_rate": 1 - auroc, "miss_rate": 0.9 - auroc,
        "inference_ms": 10 * auroc, "student_parameters": 1234567, "student_multiply_accumulates": 7_650_000,
    }  # fmt: skip
    common = {"teacher": {"name": "compact", "sha256": "ab" * 32}, "epochs": 5, "lambda": 0.01}
    return {
        "dataset": dataset, "class": name, "variant": variant, "seed": seed, "common": common, "training_images": 1000,
        "device": "CPU", "date": "2026-01-01", **measured, **others,
    }  # fmt: skip


def table_rows(page: str, heading: str) -> dict[str, dict[str, str]]:
    """The first table under a heading, by row and column; columns of one name get a number."""
    lines = iter(page.split(f"## {heading}")[1].splitlines())
    head = next(line for line in lines if line.startswith("|"))
    names: list[str] = []
    for name in (part.strip() for part in head.strip("|").split("|")):
        names.append(name if name not in names else f"{name} {len(names)}")
    next(lines)
    found = {}
    for line in lines:
        if not line.startswith("|"):
            break
        cells = [part.strip() for part in line[1:-1].split("|")]
        assert len(cells) == len(names)
        found[cells[0]] = dict(zip(names, cells, strict=True))
    return found


def test_mean_and_deviation_are_over_seeds_of_the_mean_over_classes():
    results = [
        result("cifar-10", name, "eca-mkdad", seed, auroc)
        for name, values in {"cat": (0.6, 0.7, 0.8), "dog": (0.8, 0.7, 0.6), "frog": (0.5, 0.6)}.items()
        for seed, auroc in enumerate(values)
    ]
    found = cell(results, "auroc")
    means = [(0.6 + 0.8 + 0.5) / 3, (0.7 + 0.7 + 0.6) / 3]  # the third seed lacks a class
    assert found is not None
    assert found.mean == pytest.approx(statistics.mean(means))
    assert found.deviation == pytest.approx(statistics.stdev(means))
    assert (found.seeds, found.classes) == (2, 3)
    assert cell(results[:1], "auroc").deviation is None
    assert cell([], "auroc") is None
    assert cell([results[0], result("cifar-10", "dog", "eca-mkdad", 7, 0.5)], "auroc") is None


def test_the_papers_figure_stands_beside_ours_and_what_was_not_run_is_empty():
    results = [result("cifar-10", "cat", "eca-mkdad", seed, auroc) for seed, auroc in enumerate((0.6, 0.7))]
    results += [result("cifar-10", "dog", "eca-mkdad", seed, 0.7) for seed in range(2)]
    results.append(result("mvtec-ad", "grid", "mkdad", 0, 0.75))
    page = write_tables(results)
    table = table_rows(page, "Table 1")
    assert table["CIFAR-10"] == {
        "data set": "CIFAR-10", "MKDAD, paper": "0.8460", "MKDAD, here": "", "GANomaly, quoted": "0.7415",
        "MemAE, quoted": "0.6525", "f-AnoGAN, quoted": "0.6311", "DSVDD, quoted": "0.6106",
        "ECA-MKDAD, paper": "0.8489", "ECA-MKDAD, here": "0.6750 ± 0.0354 (2 seeds, 2 of 10 classes)",
    }  # fmt: skip
    assert table["SVHN"]["ECA-MKDAD, here"] == ""
    assert table["MVTec AD"]["MKDAD, here"] == "0.7500 (1 of 15 classes)"
    assert table_rows(page, "Table 2")["CIFAR-10"]["ECA-MKDAD, here"].startswith("0.5750")
    assert table_rows(page, "Table 3")["CIFAR-10"]["ECA-MKDAD, here"].startswith("0.3250")
    assert table_rows(page, "Table 4")["CIFAR-10"]["ECA-MKDAD, here"].startswith("0.2250")
    grid = table_rows(page, "Table 5")["grid"]
    assert (grid["MKDAD, paper"], grid["MKDAD, here"], grid["RKDAD, quoted"]) == ("0.7970", "0.7500", "0.6642")
    assert table_rows(page, "Table 5")["wood"]["MKDAD, here"] == ""
    assert "Teacher: compact." in page.split("## Table 1")[1].split("|")[0]
    assert "| CIFAR-10 | compact (`abababababab`) | 5 (300) | 1000 |" in page


def test_the_figures_have_their_own_layout():
    results = [
        result("stl-10", "cat", "full-width", 0, 0.7),
        result("stl-10", "cat", "eca-mkdad", 0, 0.8),
        result("stl-10", "cat", "se", 0, 0.5),
    ]
    page = write_tables(results)
    seven = table_rows(page, "Figure 7")
    assert len(seven) == 10
    assert list(seven["cat"].values()) == ["cat", "", "0.8000", "", "0.7000"]
    assert list(seven["dog"].values()) == ["dog", "", "", "", ""]
    assert list(table_rows(page, "Figure 8")["cat"].values()) == ["cat", "", "8.00", "", "7.00"]
    five = table_rows(page, "Figure 5")
    assert next(iter(five.values()))["MVTec AD (grid) AUROC, paper"] == "0.7970"
    assert list(table_rows(page, "Figure 6")["SE_MKDAD (SE in ECA's place)"].values())[5:] == ["", "0.5000", "", "5.00"]
    every = table_rows(page, "Every variant: STL-10 (cat)")
    assert len(every) == len(VARIANTS)
    assert list(every["`se`: SE_MKDAD (SE in ECA's place)"].values())[1:] == [
        "0.5000", "0.4000", "0.5000", "0.4000", "5.00", "1,234,567", "7.65",
    ]  # fmt: skip
    assert set(list(every["`scse`: scSE_MKDAD (scSE in ECA's place)"].values())[1:]) == {""}


def test_methods_of_anomalib_have_a_table_where_any_was_run():
    page = write_tables([result("mvtec-ad", "grid", variant, 0, 0.9) for variant in ("eca-mkdad", "anomalib-stfpm")])
    assert list(table_rows(page, "AUROC of methods of anomalib")["MVTec AD (grid)"].values())[1:] == ["0.9000"] * 2
    assert "Every variant" not in page
    assert "anomalib" not in write_tables([])


def test_table_6_is_counted_and_agrees_with_the_paper():
    table = table_rows(write_tables([]), "Table 6")
    assert list(table["teacher"].values())[1:] == ["14.71", "14.715", "160.35", "160.36"]
    assert list(table["student"].values())[1:4] == ["0.34", "0.344", "7.38"]
    assert float(table["student"]["here 4"]) == pytest.approx(7.38, rel=0.02)


def test_a_diverged_run_is_said_to_be_one():
    failed = result("cifar-10", "cat", "learning-rate-0.1", 0, 0.5, failed="the loss is nan")
    del failed["auroc"]
    page = write_tables([failed])
    assert f"| {DIVERGED} |" in page.split("Every variant: CIFAR-10 (cat)")[1]


def test_without_results_the_tables_hold_the_papers_figures_alone():
    page = write_tables([])
    assert "Nothing was run." in page
    for number in "123456":
        assert f"## Table {number}:" in page
    for number in "5678":
        assert f"## Figure {number}:" in page
    assert all(row["ECA-MKDAD, here"] == "" for row in table_rows(page, "Table 1").values())


def test_the_papers_own_tables_agree():
    """Table 1 has the means of table 5, so neither was copied wrongly."""
    tables = json.loads(PAPER.read_text())["tables"]
    five, one = tables["5"], tables["1"]
    means = {
        method: statistics.mean(row[index] for row in five["rows"].values())
        for index, method in enumerate(five["methods"])
    }
    for method, figure in zip(one["methods"], one["rows"]["mvtec-ad"], strict=True):
        if method in means:
            assert figure == pytest.approx(means[method], abs=5e-5)
    assert list(five["rows"]) == list(SETS["mvtec-ad"].classes)
    for table in tables.values():
        assert all(len(row) == len(table.get("methods", row)) for row in table["rows"].values())
