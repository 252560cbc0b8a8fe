"""Images are decoded in processes; one that hangs, crashes or grows is ended and replaced, and costs no other image."""

import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from time import monotonic

import cv2
import numpy as np
import pytest

from model.images import ImageError, ImageTooLargeError
from model.preprocessing import Preprocessing
from model.reading import Reading
from service.decoding.pool import DecoderLostError, Decoders
from service.decoding.work import Shrink, read_picture
from tests.conftest import ROOT, surface
from tests.model.layouts import png as png_layouts
from tests.service.decoding.steps import Burn, Die, DieOnce, Fail, Hang, Identity, Take, Whole

PIXELS = 1_000_000
FILE_BYTES = 4 << 20
STEP = Preprocessing(64)


def encoded(image: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, image[:, :, ::-1])[1].tobytes()


@pytest.fixture(scope="module")
def image() -> bytes:
    return encoded(surface(1))


class Counted(Decoders):
    """Two workers, and how often one was replaced."""

    def __init__(self, count: int = 2) -> None:
        self.restarts = 0
        super().__init__(
            count, max_image_bytes=FILE_BYTES, max_image_pixels=PIXELS, max_answer_bytes=3 * PIXELS, cpu_seconds=1,
            on_restart=self._restarted,
        )  # fmt: skip

    def _restarted(self) -> None:
        self.restarts += 1

    def process(self, image: bytes) -> int:
        """The id of the process that reads the next image."""
        return int.from_bytes(self.read(image, Identity()).pixels.tobytes(), "little")


@pytest.fixture
def decoders() -> Iterator[Counted]:
    with Counted() as decoders:
        yield decoders


def wait_for_the_end_of(process: int) -> None:
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    select.select([descriptor], [], [])
    os.close(descriptor)


def test_an_image_is_read_as_in_this_process(decoders: Counted):
    for layout in list(png_layouts.layouts())[:6]:
        found = decoders.read(layout.data, STEP)
        wanted = read_picture(layout.data, STEP, PIXELS)
        np.testing.assert_array_equal(found.pixels, wanted.pixels)
        assert (found.width, found.height) == (wanted.width, wanted.height) == layout.pixels.shape[1::-1]
        assert found.sha256 == wanted.sha256 == sha256(layout.data).hexdigest()
    assert decoders.restarts == 0


def test_an_image_that_is_drawn_comes_back_as_small_as_it_is_drawn(decoders: Counted):
    large = np.tile(surface(2, size=(400, 600)), (2, 2, 1))
    found = decoders.read(encoded(large), Shrink(600, 400, Reading()))
    assert (found.width, found.height) == (1200, 800)
    np.testing.assert_array_equal(found.pixels, cv2.resize(large, (600, 400), interpolation=cv2.INTER_AREA))
    whole = decoders.read(encoded(large), Whole())
    np.testing.assert_array_equal(whole.pixels, large)


def test_what_comes_back_stays_when_the_next_image_is_read(decoders: Counted, image: bytes):
    first = decoders.read(image, STEP)
    kept = first.pixels.copy()
    decoders.read(encoded(surface(9, fault=True)), STEP)
    np.testing.assert_array_equal(first.pixels, kept)


def test_refusals_are_the_same_as_in_this_process(decoders: Counted):
    with pytest.raises(ImageError, match=r"^not a JPEG, PNG, BMP, TIFF or WebP image$"):
        decoders.read(b"nothing", STEP)
    with pytest.raises(ImageTooLargeError, match=r"^1001x1000 pixels are more than the 1000000 allowed$"):
        decoders.read(encoded(np.zeros((1000, 1001, 3), np.uint8)), STEP)
    assert decoders.restarts == 0


def test_an_image_that_hangs_is_given_up_at_its_deadline_and_costs_no_other(
    decoders: Counted, image: bytes, caplog: pytest.LogCaptureFixture
):
    hung = decoders.process(image)
    with caplog.at_level(logging.WARNING), pytest.raises(TimeoutError):
        decoders.read(image, Hang(), until=monotonic() + 0.2)
    wait_for_the_end_of(hung)
    assert decoders.read(image, STEP).width == 80
    assert decoders.process(image) != hung
    assert decoders.restarts == 1
    assert sha256(image).hexdigest() in caplog.text
    assert "was not read by its deadline" in caplog.text


def test_a_deadline_that_has_passed_is_no_reason_to_wait(decoders: Counted, image: bytes):
    with pytest.raises(TimeoutError):
        decoders.read(image, Hang(), until=monotonic() - 1)
    assert decoders.read(image, STEP).width == 80


def test_an_image_that_takes_too_much_processor_time_is_refused(decoders: Counted, image: bytes):
    with pytest.raises(ImageError, match="more than 1 s of processor time; save it again, or smaller"):
        decoders.read(image, Burn())
    assert decoders.read(image, STEP).width == 80
    assert decoders.restarts == 1


def test_the_processor_time_of_many_images_is_not_added_up(image: bytes):
    with Counted(1) as decoders:
        first = decoders.process(image)
        large = encoded(np.random.default_rng(0).integers(0, 256, (800, 1000, 3), dtype=np.uint8))
        spent = 0.0
        while spent < 2.2:  # seconds, of which one image may have one
            decoders.read(large, STEP)
            fields = Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()
            spent = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
        assert decoders.process(image) == first


def test_an_image_that_takes_too_much_memory_is_refused(decoders: Counted, image: bytes):
    assert decoders.read(image, Take(64 << 20)).width == 80
    with pytest.raises(ImageError, match="more memory than allowed"):
        decoders.read(image, Take(1 << 30))
    assert decoders.read(image, STEP).width == 80


@pytest.mark.parametrize("crash", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_an_image_that_crashes_its_reader_is_refused(decoders: Counted, image: bytes, crash: signal.Signals):
    with pytest.raises(ImageError, match="makes its reader crash"):
        decoders.read(image, Die(crash))
    assert decoders.read(image, STEP).width == 80
    assert decoders.restarts == 1


def test_a_worker_that_ends_for_another_reason_is_no_fault_of_the_image(
    decoders: Counted, image: bytes, tmp_path: Path
):
    assert decoders.read(image, DieOnce(str(tmp_path / "marker"))).width == 80
    assert decoders.restarts == 1
    with pytest.raises(DecoderLostError, match="ended with status -9"):
        decoders.read(image, Die(signal.SIGKILL))
    assert decoders.restarts == 3
    assert decoders.read(image, STEP).width == 80


def test_a_worker_that_was_killed_while_it_was_idle_is_replaced(decoders: Counted, image: bytes):
    killed = decoders.process(image)
    os.kill(killed, signal.SIGKILL)
    assert decoders.read(image, STEP).width == 80
    assert decoders.process(image) != killed


def test_a_fault_of_our_own_is_not_the_images(decoders: Counted, image: bytes):
    with pytest.raises(RuntimeError, match="a fault of the step"):
        decoders.read(image, Fail())
    assert decoders.read(image, STEP).width == 80


def test_as_many_images_are_read_at_once_as_there_are_threads(image: bytes):
    with Counted(3) as decoders, ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda number: decoders.read(encoded(surface(number)), STEP).pixels, range(60)))
        for number, pixels in enumerate(found):
            np.testing.assert_array_equal(pixels, STEP.apply(surface(number)))
        assert decoders.restarts == 0


def test_where_no_process_can_be_started_the_image_is_not_blamed(
    image: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with caplog.at_level(logging.ERROR), Counted() as decoders:
        with pytest.raises(DecoderLostError, match=r"no process to read images can be started: .*No such file"):
            decoders.read(image, STEP)
        assert "no process to read images can be started" in caplog.text
        monkeypatch.undo()
        assert decoders.read(image, STEP).width == 80


def test_the_workers_end_with_the_pool(image: bytes):
    with Counted() as decoders, ThreadPoolExecutor(1) as threads:
        first = decoders.process(image)
        busy = threads.submit(decoders.read, image, Hang(), monotonic() + 1)
        with pytest.raises(TimeoutError):
            busy.result()
        last = decoders.process(image)
    for process in (first, last):
        wait_for_the_end_of(process)
        assert not Path(f"/proc/{process}").exists()


SERVER = """
import sys, time
from service.decoding.pool import Decoders
from tests.service.decoding.steps import Identity
decoders = Decoders(1, max_image_bytes=1 << 20, max_image_pixels=10**6, max_answer_bytes=1 << 20, cpu_seconds=1)
pixels = decoders.read(sys.stdin.buffer.read(), Identity()).pixels
print(int.from_bytes(pixels.tobytes(), "little"), flush=True)
time.sleep(3600)
"""


def test_the_workers_end_when_the_server_is_killed(image: bytes):
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(image)
    server.stdin.close()
    worker = int(server.stdout.readline())
    server.kill()
    server.wait()
    wait_for_the_end_of(worker)
