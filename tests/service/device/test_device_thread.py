"""The thread that owns the device: other work that it does, and what happens when it dies or hangs."""

import asyncio
import threading
from collections.abc import Generator, Sequence

import httpx
import numpy as np
import pytest
import torch

from model.detector import Detector
from model.networks.vgg import Teacher
from service.app import create_app
from service.device import engine as engine_module
from service.device.backend import DeviceFailedError
from service.device.engine import DeviceLostError, Engine, EngineClosedError
from service.device.torch_backend import TorchBackend
from service.settings import Settings
from tests.conftest import Factory, Gate
from tests.service.device.conftest import CPU, Clock, Echo, at_once, job


def test_other_work_is_done_on_the_device_thread_and_its_errors_come_back(engine: Engine, striped: Detector):
    assert engine.call(lambda: threading.current_thread().name).result(30) == "device"
    with pytest.raises(ZeroDivisionError):
        engine.call(lambda: 1 / 0).result(30)
    assert engine.submit(job(striped, 1)).result(30).score > 0
    engine.close()
    with pytest.raises(EngineClosedError):
        engine.call(lambda: None)


def test_nothing_but_the_device_thread_runs_the_networks(factory: Factory, monkeypatch: pytest.MonkeyPatch):
    """Loading, warm-up and requests; see the module for what a second thread would cost."""
    forward, threads = Teacher.forward, []

    def recorded(self: Teacher, x: torch.Tensor) -> list[torch.Tensor]:
        threads.append(threading.current_thread().name)
        return forward(self, x)

    monkeypatch.setattr(Teacher, "forward", recorded)
    app = create_app(Settings(weights=factory.weights, database="none", device="cpu"))
    image = (factory.data / "bad" / "000.png").read_bytes()

    async def start_and_inspect() -> None:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
        ):
            assert set(threads) == {"device"}
            threads.clear()
            response = await client.post("/v1/categories/striped/inspect", content=image)
            assert response.status_code == 200

    asyncio.run(start_and_inspect())
    assert threads == ["device"] * 2  # the score, and then its gradient


def test_a_thread_that_dies_is_replaced_and_what_waits_is_answered(striped: Detector, gate: Gate):
    def die_in_the_second_batch(size: int) -> None:
        sizes.append(size)
        if len(sizes) == 2:
            raise SystemExit

    sizes: list[int] = []
    restarts: list[None] = []
    engine = Engine(
        gate.before(TorchBackend(CPU, at_once(1))),
        64,
        die_in_the_second_batch,
        on_restart=lambda: restarts.append(None),
    )
    first, second, third = (engine.submit(job(striped, seed)) for seed in range(3))
    gate.open.set()
    assert first.result(30).score > 0
    with pytest.raises(DeviceLostError):
        second.result(30)
    assert third.result(30).score > 0
    assert len(restarts) == 1
    assert engine.running
    engine.close()


def test_a_device_that_keeps_dying_is_given_up_and_nobody_waits_for_ever(gate: Gate):
    def die(size: int) -> None:
        raise SystemExit

    engine = Engine(Echo(), 64, die)
    blocker = engine.call(lambda: gate.open.wait(30))
    futures = [engine.submit(number) for number in range(8)]
    gate.open.set()
    assert blocker.result(30)
    for future in futures:
        with pytest.raises(DeviceLostError):
            future.result(30)
    assert engine.lost
    assert not engine.running
    for work in (lambda: engine.submit(9), lambda: engine.call(int), engine.check):
        with pytest.raises(DeviceLostError):
            work()
    engine.close()


def test_an_error_of_the_device_itself_costs_the_thread(striped: Detector, gate: Gate):
    restarts: list[None] = []
    engine = Engine(gate.before(TorchBackend(CPU, at_once(8))), 64, on_restart=lambda: restarts.append(None))
    gate.open.set()
    gate.failure = DeviceFailedError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(DeviceLostError):
        engine.submit(job(striped, 1)).result(30)
    gate.failure = None
    assert engine.submit(job(striped, 1)).result(30).score > 0
    assert len(restarts) == 1
    engine.close()


def test_work_that_hangs_is_given_up_and_its_late_result_ignored(sizes: list[int], gate: Gate):
    before, clock = set(threading.enumerate()), Clock()
    engine = Engine(gate.before(Echo()), 64, sizes.append, timeout_seconds=60, clock=clock)
    hung = engine.submit(0)
    assert gate.reached.acquire(timeout=30)
    (stuck,) = (one for one in set(threading.enumerate()) - before if one.name == "device")
    clock.advance(59)
    assert not hung.done()
    clock.advance(2)
    with pytest.raises(DeviceLostError):
        hung.result(30)
    assert engine.stuck
    assert engine.call(lambda: threading.current_thread().name).result(30) == "device"
    assert not engine.stuck
    gate.open.set()
    assert engine.submit(1).result(30) == 1
    stuck.join(30)
    assert not stuck.is_alive()
    with pytest.raises(DeviceLostError):
        hung.result(0)
    assert sizes == [1, 1]
    engine.close()


def test_a_call_may_be_given_more_time_than_a_batch():
    clock, done = Clock(), threading.Event()
    engine = Engine(Echo(), 64, timeout_seconds=60, clock=clock)
    begun = threading.Event()
    long = engine.call(lambda: (begun.set(), done.wait(60))[1], timeout_seconds=np.inf)
    assert begun.wait(30)
    clock.advance(10_000)
    done.set()
    assert long.result(30)
    assert not engine.stuck
    engine.close()


def test_between_two_steps_the_images_that_wait_get_a_batch_and_other_calls_do_not():
    def steps() -> Generator[None, None, str]:
        first.set()
        assert go_on.wait(30)
        done.append("first step")
        yield
        done.append("second step")
        yield
        done.append("third step")
        return "the result"

    class Noted(Echo):
        def run(self, jobs: Sequence[int]) -> list[int]:
            done.append(jobs[0])
            return super().run(jobs)

    done: list[object] = []
    first, go_on = threading.Event(), threading.Event()
    engine = Engine(Noted(), 64)
    in_steps = engine.call_in_steps(steps())
    assert first.wait(30)
    other = engine.call(lambda: done.append("other call"))
    images = [engine.submit(number) for number in range(3)]
    go_on.set()
    assert in_steps.result(30) == "the result"
    other.result(30)
    assert [image.result(30) for image in images] == [0, 1, 2]
    assert done == ["first step", 0, "second step", 1, "third step", "other call", 2]
    engine.close()


def test_an_error_in_a_step_ends_the_call():
    def steps() -> Generator[None, None, None]:
        yield
        raise ZeroDivisionError

    engine = Engine(Echo(), 64)
    with pytest.raises(ZeroDivisionError):
        engine.call_in_steps(steps()).result(30)
    assert engine.submit(1).result(30) == 1
    engine.close()


def test_a_call_that_was_given_up_does_no_further_step_when_its_thread_comes_back():
    def steps() -> Generator[None, None, None]:
        nonlocal further
        try:
            begun.set()
            assert come_back.wait(30)
            yield
            further = True
        finally:
            ended.set()

    begun, come_back, ended, further = threading.Event(), threading.Event(), threading.Event(), False
    clock = Clock()
    engine = Engine(Echo(), 64, timeout_seconds=60, clock=clock)
    hung = engine.call_in_steps(steps())
    assert begun.wait(30)
    clock.advance(61)
    with pytest.raises(DeviceLostError):
        hung.result(30)
    assert engine.submit(1).result(30) == 1
    come_back.set()
    assert ended.wait(30)
    assert not further
    engine.close()


def test_a_call_between_two_steps_outlives_the_thread_and_not_the_device():
    """The images that got their turn cost the thread; another one goes on, until the device is given up."""

    def die(size: int) -> None:
        raise SystemExit

    def steps() -> Generator[None, None, None]:
        while True:
            taken.release()
            assert go_on.wait(30)
            yield

    taken, go_on = threading.Semaphore(0), threading.Event()
    engine = Engine(Echo(), 64, die)
    call = engine.call_in_steps(steps())
    assert taken.acquire(timeout=30)
    images = [engine.submit(number) for number in range(engine_module.MAX_RESTARTS + 1)]
    go_on.set()
    for image in images:
        with pytest.raises(DeviceLostError):
            image.result(30)
    with pytest.raises(DeviceLostError):
        call.result(30)
    assert engine.lost
    for _ in range(engine_module.MAX_RESTARTS):
        assert taken.acquire(timeout=0)


def test_a_device_that_hangs_does_not_keep_the_engine_from_closing():
    engine = Engine(Echo(), 64)
    never = threading.Event()
    engine.call(never.wait)
    engine.close(timeout_seconds=0.1)
    assert not engine.running
    never.set()


def test_a_device_shows_that_it_works_only_where_it_has_not_lately():
    class Probed(Echo):
        def probe(self) -> None:
            probes.append(None)

    probes: list[None] = []
    clock = Clock()
    engine = Engine(Probed(), 64, clock=clock)
    engine.check().result(30)
    clock.advance(engine_module.RECENT_SECONDS - 1)
    engine.check().result(30)
    assert len(probes) == 1
    clock.advance(2)
    engine.check().result(30)
    assert len(probes) == 2
    engine.close()
