"""What is tried before a pair serves, and that nothing too large is ever started."""

import math

import pytest
import torch

from model.detector import Detector
from model.networks.vgg import Teacher
from model.store.store import Store
from service.device import trial
from service.device.allowance import Allowance, TooCostlyError
from service.device.trial import PROBE_SIDE, try_out
from tests.conftest import Factory

CPU = torch.device("cpu")
MUCH = 1 << 40


@pytest.fixture(scope="module")
def pairs(factory: Factory) -> list[Detector]:
    """Two of one teacher."""
    first, second = (Store(factory.weights, factory.teachers).load(name)[1] for name in ("striped", "brushed"))
    second.teacher = first.teacher
    return [first, second]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Images and their side of every batch that the teacher sees."""
    forward, seen = Teacher.forward, []

    def noted(self: Teacher, x: torch.Tensor) -> list[torch.Tensor]:
        seen.append((len(x), x.shape[-1]))
        return forward(self, x)

    monkeypatch.setattr(Teacher, "forward", noted)
    return seen


def test_the_smallest_and_the_largest_batch_are_run_and_one_that_mixes_categories(
    pairs: list[Detector], run: list[tuple[int, int]]
):
    allowance = Allowance(4, MUCH, math.inf)
    steps = list(try_out(pairs, 64, CPU, allowance))
    assert set(run) == {(1, PROBE_SIDE), (1, 64), (4, 64)}
    assert run.count((1, 64)) == 2  # with and without maps
    assert run.count((4, 64)) == 4  # and mixed
    assert len(steps) == 1 + 6  # the device is free for others after each
    run.clear()
    list(try_out(pairs[:1], 96, CPU, allowance))
    assert set(run) == {(1, 96), (4, 96)}  # how fast it is has been measured


def test_an_image_beyond_the_memory_is_refused_before_anything_runs(pairs: list[Detector], run: list[tuple[int, int]]):
    with pytest.raises(TooCostlyError, match="2048x2048 pixels would take about"):
        list(try_out(pairs, 2048, CPU, Allowance(8, 1 << 30, math.inf)))
    assert run == []


def test_a_batch_beyond_the_memory_that_is_free_now_is_refused_before_it_runs(
    pairs: list[Detector], run: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trial, "available_bytes", lambda device: 1_000_000)
    with pytest.raises(TooCostlyError, match=r"a batch of 8 of 64x64 pixels .* and only 0.001 GB are free"):
        list(try_out(pairs, 64, CPU, Allowance(8, MUCH, math.inf)))
    assert set(run) == {(1, PROBE_SIDE)}


def test_an_image_beyond_the_time_is_refused_after_a_small_one_has_shown_the_speed(
    pairs: list[Detector], run: list[tuple[int, int]]
):
    with pytest.raises(TooCostlyError, match="1024x1024 pixels would keep the device busy"):
        list(try_out(pairs, 1024, CPU, Allowance(8, MUCH, seconds=1e-6)))
    assert set(run) == {(1, PROBE_SIDE)}


def test_memory_that_runs_out_all_the_same_is_a_refusal(pairs: list[Detector], monkeypatch: pytest.MonkeyPatch):
    def allocate_too_much(*arguments: object, **options: object) -> object:
        return torch.empty(1 << 60, dtype=torch.uint8)

    monkeypatch.setattr(trial, "detect", allocate_too_much)
    with pytest.raises(TooCostlyError, match="memory of the device is too small for a batch of 8 of 64x64 pixels"):
        list(try_out(pairs, 64, CPU, Allowance(8, MUCH, math.inf)))
