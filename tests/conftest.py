"""Small real pairs, trained once for the whole run: nothing is mocked, only narrow and short."""

import os

# Networks this small gain nothing from threads, and on a busy machine threads that wait for each other cost a lot.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import fcntl
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from model.detector import Detector
from model.lifecycle.calibrate import calibrate_category
from model.lifecycle.datasets import Sample
from model.lifecycle.recipe import Recipe
from model.lifecycle.train import train_category
from model.networks.vgg import Teacher, vgg16_plan
from model.preprocessing import as_input
from model.score import distillation_terms
from model.store.teachers import save_teacher
from service.device.backend import Backend
from tests.needs import GPU, RAY

ROOT = Path(__file__).parent.parent


def surface(seed: int, *, size: tuple[int, int] = (80, 80), fault: bool = False) -> np.ndarray:
    """A striped surface, uint8 RGB [H, W, 3]; a fault is a dark spot on it."""
    rng = np.random.default_rng(seed)
    height, width = size
    stripes = 140 + 30 * np.sin(np.arange(width) / 3 + rng.uniform(0, 6))
    image = np.repeat(stripes[None, :, None], height, axis=0) + rng.normal(0, 4, (height, width, 1))
    image = np.repeat(image, 3, axis=2).clip(0, 255).astype(np.uint8)
    if fault:
        y, x = rng.integers(height // 4, 3 * height // 4), rng.integers(width // 4, 3 * width // 4)
        cv2.circle(image, (int(x), int(y)), min(size) // 8, (10, 10, 10), -1)
    return image


def write_images(folder: Path, images: list[np.ndarray]) -> list[Sample]:
    """Writes RGB images as 000.png ... into a new folder."""
    folder.mkdir(parents=True)
    samples = []
    for index, image in enumerate(images):
        path = folder / f"{index:03}.png"
        _, png = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        path.write_bytes(png)  # not imwrite, which ends the process where a name is not UTF-8
        samples.append(Sample(path))
    return samples


@pytest.fixture(scope="session")
def teacher() -> Teacher:
    """A narrow teacher with VGG16's layers and random weights that keep the signal's size."""
    torch.manual_seed(7)
    network = Teacher(vgg16_plan((8, 12, 16, 20, 24)))
    for layer in network.features:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return network


@dataclass(frozen=True)
class Factory:
    """A weights folder with three categories, two of them of one image size, and the images they were made from."""

    weights: Path
    teachers: Path
    data: Path
    categories: tuple[str, str, str]


@pytest.fixture(scope="session")
def factory(tmp_path_factory: pytest.TempPathFactory, teacher: Teacher) -> Factory:
    """``striped`` is Youden-calibrated at 64 pixels; ``brushed`` (64) and ``fresh`` (96) saw only normal images.

    Where several processes share the tests, the first that needs it makes it for all.
    """
    folder = tmp_path_factory.getbasetemp()
    root = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "factory"
    with root.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            _make_factory(root.with_suffix(".new"), teacher).rename(root)
    return Factory(root / "weights", root / "weights" / "teachers", root / "data", ("striped", "brushed", "fresh"))


def _make_factory(root: Path, teacher: Teacher) -> Path:
    weights, data = root / "weights", root / "data"
    save_teacher(teacher, weights / "teachers", "narrow")
    train = write_images(data / "train", [surface(seed) for seed in range(20)])
    good = write_images(data / "good", [surface(seed) for seed in range(100, 112)])
    bad = write_images(data / "bad", [surface(seed, fault=True) for seed in range(200, 212)])
    bad = [Sample(sample.path, "spot") for sample in bad]
    recipe = Recipe(image_size=64, epochs=30, batch_size=8)
    train_category("striped", train, weights, "narrow", teacher, recipe)
    calibrate_category(weights, weights / "teachers", "striped", good, bad)
    train_category("brushed", train[10:], weights, "narrow", teacher, Recipe(image_size=64, epochs=2, seed=1))
    train_category("fresh", train[:8], weights, "narrow", teacher, Recipe(image_size=96, epochs=2))
    return root


def terms_of(detector: Detector, pixels: np.ndarray) -> np.ndarray:
    """The two terms of equation 13 that a pair gives, float32 ``[N, L, 2]``; see `distillation_terms`."""
    with torch.inference_mode():
        inputs = as_input(torch.from_numpy(pixels))
        return distillation_terms(detector.teacher(inputs), detector.student(inputs)).numpy()


class Gate:
    """A backend that lets batches through to the real one only when told, so that a test decides what is waiting.

    Attributes:
        reached: released by each batch that arrives.
        open: lets batches through while it is set.
        failure: raised in place of running a batch, if a test puts one here.
    """

    def __init__(self) -> None:
        self.reached = threading.Semaphore(0)
        self.open = threading.Event()
        self.failure: BaseException | None = None

    def before(self, backend: Backend[Any, Any]) -> "Gate":
        """Stands before this backend from now on."""
        self.probe, self.group, self._run = backend.probe, backend.group, backend.run
        return self

    def run(self, jobs: Sequence[Any]) -> Sequence[Any]:
        """Runs a batch when the gate is open."""
        self.reached.release()
        assert self.open.wait(60)
        if self.failure is not None:
            raise self.failure
        return self._run(jobs)


@pytest.fixture(scope="session")
def ray_installed() -> None:
    """Skips without Ray, or fails where it has to be there."""
    if find_spec("ray") is None:
        RAY.missing()


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes share the tests, those of a file stay together: they share its servers."""
    for item in items if config.pluginmanager.hasplugin("xdist") else []:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(ROOT))))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leaves out what needs a GPU where there is none."""
    if item.get_closest_marker("cuda") is not None and not torch.cuda.is_available():
        GPU.missing()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what was left out, why, and how to include it."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in reports)
    if reasons:
        terminalreporter.section(f"{len(reports)} left out", yellow=True)
        for reason, count in sorted(reasons.items()):
            terminalreporter.write_line(f"{count} {reason}")
