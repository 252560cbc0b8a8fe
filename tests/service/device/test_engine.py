"""The engine: batches of what is there, one image's failure its own, nothing accepted is lost."""

import subprocess
import sys
import threading
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from model.choices import MapForm
from model.detector import Detector
from model.store.store import Store
from service.choices import Localize
from service.device import engine as engine_module
from service.device.backend import DeviceMemoryError, Group
from service.device.engine import Engine, EngineClosedError, QueueFullError
from service.device.jobs import Job, Outcome
from service.device.torch_backend import TorchBackend
from tests.conftest import Factory, Gate
from tests.service.device.conftest import CPU, Echo, at_once, image, job


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
    outcomes = TorchBackend(CPU, at_once(8)).run(jobs)
    assert len({outcome.started for outcome in outcomes}) == 1
    for seed, (one, outcome) in enumerate(zip(jobs, outcomes, strict=True)):
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


def test_what_must_not_delay_others_begins_when_no_image_is_admitted(
    gated: Engine, striped: Detector, sizes: list[int], gate: Gate
):
    gate.open.set()
    order: list[str] = []
    with gated.admit():
        shadow = gated.submit_when_idle(job(striped, 0))
        shadow.add_done_callback(lambda _: order.append("shadow"))
        for seed in range(1, 4):  # the device is idle in between, and the image is not yet answered
            gated.submit(job(striped, seed)).result(30)
        order.append("answered")
        assert not shadow.done()
    assert shadow.result(30).score == pytest.approx(striped(image(0)[None]).scores[0], rel=1e-6)
    assert order == ["answered", "shadow"]
    assert sizes == [1, 1, 1]  # of the images that were admitted


def test_what_waits_for_idle_time_is_cancelled_at_the_end(gated: Engine, striped: Detector, gate: Gate):
    gate.open.set()
    with gated.admit():
        shadow = gated.submit_when_idle(job(striped, 0))
        gated.close(30)
    assert shadow.cancelled()
    with pytest.raises(EngineClosedError):
        gated.submit_when_idle(job(striped, 0))


def test_what_waits_for_idle_time_fails_alone(gated: Engine, striped: Detector, gate: Gate):
    gate.open.set()
    gate.failure = FloatingPointError("not finite")
    with pytest.raises(FloatingPointError):
        gated.submit_when_idle(job(striped, 0)).result(30)
    gate.failure = None
    assert gated.submit(job(striped, 1)).result(30).score > 0
