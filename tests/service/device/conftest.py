"""What the tests of the engine share."""

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch

from model.choices import MapForm
from model.detector import Detector
from model.store.store import Store
from service.choices import Localize
from service.device.allowance import Allowance
from service.device.backend import Group
from service.device.engine import Engine
from service.device.jobs import Job
from service.device.torch_backend import TorchBackend
from tests.conftest import Factory, Gate

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def striped(factory: Factory) -> Detector:
    return Store(factory.weights, factory.teachers).load("striped")[1]


@pytest.fixture(scope="module")
def fresh(factory: Factory) -> Detector:
    """Of another image size, and with a teacher object of its own."""
    return Store(factory.weights, factory.teachers).load("fresh")[1]


@pytest.fixture
def sizes() -> list[int]:
    return []


@pytest.fixture
def engine(sizes: list[int]) -> Iterator[Engine]:
    running = Engine(TorchBackend(CPU, at_once(8)), max_admitted=64, on_batch=sizes.append)
    yield running
    running.close()


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open.set()


@pytest.fixture
def gated(sizes: list[int], gate: Gate) -> Iterator[Engine]:
    """An engine whose device waits for the gate to open."""
    running = Engine(gate.before(TorchBackend(CPU, at_once(8))), max_admitted=64, on_batch=sizes.append)
    yield running
    gate.open.set()
    running.close()


class Clock:
    """A clock that stands still until a test moves it, so that no work takes longer than a test wants it to."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._asked = threading.Semaphore(0)

    def __call__(self) -> float:
        if threading.current_thread().name == "watchdog":
            self._asked.release()
        return self._now

    def advance(self, seconds: float) -> None:
        """Moves it on, and returns when the watchdog has looked at it since."""
        self._now += seconds
        while self._asked.acquire(blocking=False):
            pass
        for _ in range(2):  # the first look may have begun before
            assert self._asked.acquire(timeout=60)


class Echo:
    """A backend that gives numbers back at once: what it does takes no time that a test would have to count with."""

    def group(self, job: int) -> Group:
        return Group("numbers", 1)

    def run(self, jobs: Sequence[int]) -> list[int]:
        return list(jobs)

    def probe(self) -> None:
        pass


def at_once(images: int) -> Allowance:
    """No limit but that of the images in a batch."""
    return Allowance(images, memory_bytes=1 << 40, seconds=np.inf)


def image(seed: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def job(
    detector: Detector,
    seed: int,
    *,
    size: int = 64,
    localize: Localize = Localize.NEVER,
    rejected: bool = True,
    form: MapForm = MapForm.GRADIENT,
) -> Job:
    return Job(image(seed, size), detector.teacher, lambda: detector, lambda score: rejected, localize, form)
