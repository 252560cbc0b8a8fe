"""The engine: batches of what is there, one image's failure its own, nothing accepted is lost."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Sequence

import httpx
import numpy as np
import pytest
import torch

from model.choices import MapForm
from model.detector import Detector
from model.networks.vgg import Teacher
from model.store.store import Store
from service.app import create_app
from service.choices import Localize
from service.device import engine as engine_module
from service.device.allowance import Allowance
from service.device.backend import DeviceFailedError, DeviceMemoryError, Group
from service.device.engine import DeviceLostError, Engine, EngineClosedError, QueueFullError
from service.device.jobs import Job, Outcome
from service.device.torch_backend import TorchBackend
from service.settings import Settings
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


def test_an_idle_engine_answers_a_lone_image_at_once(engine: Engine, striped: Detector, sizes: list[int]):
    outcome = engine.submit(job(striped, 1)).result(30)
    assert outcome.score == pytest.approx(striped(image(1)[None]).scores[0], rel=1e-6)
    assert outcome.evidence is None
    assert sizes == [1]


def test_what_gathers_while_the_device_is_busy_becomes_one_batch(
    gated: Engine, striped: Detector, sizes: list[int], gate: Gate
):
    futures = [gated.submit(job(striped, 0))]
    assert gate.reached.acquire(timeout=30)
    futures += [gated.submit(job(striped, seed)) for seed in range(1, 12)]
    assert gated.depth == 11
    gate.open.set()
    scores = [future.result(30).score for future in futures]
    assert sizes == [1, 8, 3]  # eight is the limit
    expected = striped(np.stack([image(seed) for seed in range(12)])).scores
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_the_clients_just_answered_are_waited_for_so_that_all_share_the_next_batch(
    gated: Engine, striped: Detector, sizes: list[int], gate: Gate, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine_module, "GATHERING_SHARE", 1e9)
    monkeypatch.setattr(engine_module, "GATHERING_SECONDS", 60.0)
    first = gated.submit(job(striped, 0))
    assert gate.reached.acquire(timeout=30)
    waiting = gated.submit(job(striped, 1))
    gate.open.set()
    first.result(30)
    again = gated.submit(job(striped, 2))
    waiting.result(30)
    again.result(30)
    assert sizes == [1, 2]
    gated.submit(job(striped, 3))  # of two expected clients one stays away
    gated.close(30)  # and the end does not wait for it
    assert sizes == [1, 2, 1]


def test_clients_that_stay_away_are_not_waited_for_long(
    gated: Engine, striped: Detector, sizes: list[int], gate: Gate, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine_module, "GATHERING_SHARE", 1e9)
    futures = [gated.submit(job(striped, 0))]
    assert gate.reached.acquire(timeout=30)
    futures.append(gated.submit(job(striped, 1)))
    gate.open.set()
    assert all(future.result(30).score > 0 for future in futures)
    assert sizes == [1, 1]


def test_mixed_categories_and_sizes_are_answered_each_with_its_own(
    gated: Engine, striped: Detector, fresh: Detector, gate: Gate
):
    plan = [(striped, 64), (fresh, 96)] * 5
    futures = [gated.submit(job(detector, seed, size=size)) for seed, (detector, size) in enumerate(plan)]
    gate.open.set()
    for seed, ((detector, size), future) in enumerate(zip(plan, futures, strict=True)):
        assert future.result(30).score == pytest.approx(detector(image(seed, size)[None]).scores[0], rel=1e-6)


def test_what_cannot_share_a_batch_does_not_make_it_smaller(
    gated: Engine, striped: Detector, fresh: Detector, sizes: list[int], gate: Gate
):
    futures = [gated.submit(job(striped, 0))]
    assert gate.reached.acquire(timeout=30)
    plan = [(striped, 64), (fresh, 96)] * 10
    futures += [gated.submit(job(detector, seed, size=size)) for seed, (detector, size) in enumerate(plan)]
    gate.open.set()
    assert all(future.result(30).score > 0 for future in futures)
    assert sizes == [1, 8, 8, 2, 2]  # eight is the limit; who waits longest is next


def test_large_images_go_in_smaller_batches(gated: Engine, striped: Detector, sizes: list[int], gate: Gate):
    futures = [gated.submit(job(striped, 0))]
    assert gate.reached.acquire(timeout=30)
    futures += [gated.submit(job(striped, seed, size=512)) for seed in range(5)]
    gate.open.set()
    assert all(future.result(60).score > 0 for future in futures)
    assert sizes == [1, 2, 2, 1]  # of small ones eight are the limit


@pytest.mark.parametrize("form", MapForm)
@pytest.mark.parametrize(
    ("localize", "rejected", "has_map"),
    [
        (Localize.NEVER, True, False),
        (Localize.ALWAYS, False, True),
        (Localize.AUTO, True, True),
        (Localize.AUTO, False, False),
    ],
)
def test_maps_are_made_only_where_wanted(
    engine: Engine,
    striped: Detector,
    localize: Localize,
    rejected: bool,
    has_map: bool,
    form: MapForm,
):
    outcome = engine.submit(job(striped, 5, localize=localize, rejected=rejected, form=form)).result(30)
    assert (outcome.evidence is not None) == has_map
    assert (outcome.localization_seconds > 0) == (has_map and form is not MapForm.DISTANCE)
    if has_map:
        (expected,) = striped(image(5)[None], maps=form).maps
        np.testing.assert_allclose(
            outcome.evidence.anomaly_map(), expected, rtol=1e-3, atol=1e-3 * float(expected.max())
        )


def test_forms_of_maps_mix_in_one_batch(striped: Detector):
    jobs = [job(striped, seed, localize=Localize.ALWAYS, form=form) for seed, form in enumerate((*MapForm, *MapForm))]
    for seed, (one, outcome) in enumerate(zip(jobs, TorchBackend(CPU, at_once(8)).run(jobs), strict=True)):
        alone = striped(image(seed)[None], maps=one.form)
        assert outcome.score == pytest.approx(float(alone.scores[0]), rel=1e-5)
        np.testing.assert_allclose(
            outcome.evidence.anomaly_map(), alone.maps[0], rtol=1e-3, atol=1e-3 * float(alone.maps.max())
        )


def test_an_image_that_fails_fails_alone(striped: Detector, gate: Gate):
    class Poisoned(TorchBackend):
        def run(self, jobs: Sequence[Job]) -> list[Outcome]:
            if any(np.array_equal(one.pixels, image(99)) for one in jobs):
                raise RuntimeError("poisoned")
            return super().run(jobs)

    engine = Engine(gate.before(Poisoned(CPU, at_once(8))), 64)
    first = engine.submit(job(striped, 0))
    assert gate.reached.acquire(timeout=30)
    futures = [engine.submit(job(striped, seed)) for seed in (1, 2, 99, 3)]
    gate.open.set()
    assert first.result(30).score > 0
    assert [future.exception(30) is None for future in futures] == [True, True, False, True]
    with pytest.raises(RuntimeError, match="poisoned"):
        futures[2].result()
    assert engine.running
    assert engine.submit(job(striped, 7)).result(30).score > 0
    engine.close()


def test_a_score_that_is_not_finite_is_an_error_not_a_verdict(engine: Engine, factory: Factory):
    broken = Store(factory.weights, factory.teachers).load("striped")[1]
    next(broken.student.parameters()).data[0] = torch.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        engine.submit(job(broken, 1)).result(30)


def test_an_image_nobody_waits_for_never_reaches_the_device(
    gated: Engine, striped: Detector, sizes: list[int], gate: Gate
):
    first = gated.submit(job(striped, 0))
    assert gate.reached.acquire(timeout=30)
    gone, stays = gated.submit(job(striped, 1)), gated.submit(job(striped, 2))
    assert gone.cancel()
    gate.open.set()
    assert stays.result(30).score > 0
    assert first.result(30).score > 0
    assert sizes == [1, 1]


def test_admission_is_bounded_and_places_come_back():
    engine = Engine(Echo(), max_admitted=3)
    with engine.admit(2):
        assert engine.admitted == 2
        with pytest.raises(QueueFullError), engine.admit(2):
            pass
        with engine.admit():
            assert engine.admitted == 3
    assert engine.admitted == 0
    engine.close()
    with pytest.raises(EngineClosedError), engine.admit():
        pass


def test_closing_finishes_what_was_accepted_and_takes_no_more(striped: Detector, gate: Gate):
    engine = Engine(gate.before(TorchBackend(CPU, at_once(2))), 64)
    futures = [engine.submit(job(striped, seed)) for seed in range(5)]
    closing = threading.Thread(target=engine.close)
    closing.start()
    gate.open.set()
    closing.join(30)
    assert not closing.is_alive()
    assert all(future.result(0).score > 0 for future in futures)
    assert not engine.running
    with pytest.raises(EngineClosedError):
        engine.submit(job(striped, 9))


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
    app = create_app(Settings(weights=factory.weights, device="cpu"))
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
    before = set(threading.enumerate())
    engine = Engine(gate.before(Echo()), 64, sizes.append, timeout_seconds=0.5)
    hung = engine.submit(0)
    assert gate.reached.acquire(timeout=30)
    (stuck,) = (one for one in set(threading.enumerate()) - before if one.name == "device")
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
    engine = Engine(Echo(), 64, timeout_seconds=0.05)
    assert not engine.call(lambda: threading.Event().wait(0.5), timeout_seconds=np.inf).result(30)
    assert engine.running
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
            assert come_back.wait(30)
            yield
            further = True
        finally:
            ended.set()

    come_back, ended, further = threading.Event(), threading.Event(), False
    engine = Engine(Echo(), 64, timeout_seconds=0.5)
    hung = engine.call_in_steps(steps())
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


@pytest.mark.parametrize(
    ("fits", "tried"), [(3, [1, 8, 4, 2, 2, 4, 2, 2]), (0, [1, 8, 4, 2, 1, 1, 2, 1, 1, 4, 2, 1, 1, 2, 1, 1])]
)
def test_a_batch_that_does_not_fit_into_memory_is_halved(striped: Detector, gate: Gate, fits: int, tried: list[int]):
    class Small(TorchBackend):
        def run(self, jobs: Sequence[Job]) -> list[Outcome]:
            sizes.append(len(jobs))
            if len(jobs) > fits and len(sizes) > 1:
                raise DeviceMemoryError
            return super().run(jobs)

    sizes: list[int] = []
    engine = Engine(gate.before(Small(CPU, at_once(8))), 64)
    first = engine.submit(job(striped, 0))
    assert gate.reached.acquire(timeout=30)
    futures = [engine.submit(job(striped, seed)) for seed in range(8)]
    gate.open.set()
    assert first.result(30).score > 0
    if fits:
        assert futures[0].result(30).score == pytest.approx(first.result().score, rel=1e-6)
    failed = [isinstance(future.exception(30), DeviceMemoryError) for future in futures]
    assert failed == [not fits] * 8
    assert sizes == tried
    assert engine.running
    engine.close()


def test_a_device_shows_that_it_works_only_where_it_has_not_lately(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    engine.check().result(30)
    monkeypatch.setattr(engine, "call", None)
    assert engine.check().done()
    monkeypatch.setattr(engine_module, "RECENT_SECONDS", 0)
    with pytest.raises(TypeError):
        engine.check()


def test_it_runs_whatever_a_backend_does():
    """Here with words, of which those with the same first letter share a batch, two vowels at most."""

    class Words:
        def group(self, job: str) -> Group:
            return Group(job[0], 2 if job[0] in "aeiou" else 3)

        def run(self, jobs: Sequence[str]) -> list[str]:
            assert go_on.wait(30)
            batches.append(list(jobs))
            return [job.upper() for job in jobs]

        def probe(self) -> None:
            probed.set()

    go_on, probed = threading.Event(), threading.Event()
    batches: list[list[str]] = []
    engine: Engine[str, str] = Engine(Words(), max_admitted=64)
    engine.check().result(30)
    assert probed.is_set()
    blocker = engine.call(lambda: go_on.wait(30))
    words = ["apple", "beech", "ash", "aspen", "birch", "alder", "box", "broom", "apricot"]
    futures = [engine.submit(word) for word in words]
    go_on.set()
    assert blocker.result(30)
    assert [future.result(30) for future in futures] == [word.upper() for word in words]
    assert batches == [["apple", "ash"], ["beech", "birch", "box"], ["aspen", "alder"], ["broom"], ["apricot"]]
    engine.close()


def test_it_knows_neither_torch_nor_networks_nor_the_api():
    script = "import sys, service.device.engine; print(sorted({'torch', 'model', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
