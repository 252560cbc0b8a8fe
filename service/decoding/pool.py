"""The worker processes of a server: given work, ended when it takes too long, and replaced.

They are started as programs of their own, not with `multiprocessing` or a pool on top of it: these import the server's
main module into every process, which may be Ray's, and bound neither processor time nor memory.
``benchmarks/README.md`` has what the designs cost.
"""

import json
import logging
import math
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from hashlib import sha256
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Self

import numpy as np

from model.alignment import Found
from model.images import ImageError, ImageTooLargeError
from service.decoding.work import Picture, Step

BYTES_PER_PIXEL = 32
"""Of memory that decoding the largest image may take; ``docs/deploying.md`` states it."""
SLACK_BYTES = 64 << 20
"""For what allocators keep."""
KEPT_BYTES = 4 << 20
"""Of shared memory that stays with a worker between images."""
ANSWER_BYTES = 1 << 16
START = """
import os, sys
sys.path[:] = sys.argv[1].split(os.pathsep)
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # there is a process for each core
from service.decoding.worker import main
main(*map(int, sys.argv[2:]))
"""
"""What a worker runs: it looks for modules where this process does, whatever this process's main module is."""
END_SECONDS = 5.0
"""For a worker that has closed its connection to end."""
CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE}

log = logging.getLogger(__name__)


class DecoderLostError(Exception):
    """The process that was to read an image could not be started, or was ended by something else than the image."""


class _EndedError(Exception):
    """A worker has ended while it had work."""


class Decoders:
    """Worker processes that decode images. Safe to use from as many threads as there are workers.

    Args:
        count: most workers at once. One is started at once, the next whenever all are busy.
        max_image_bytes: largest file.
        max_image_pixels: most pixels that a file may declare.
        max_answer_bytes: of pixels that a step makes.
        cpu_seconds: processor time that one image may take, seconds.
        on_restart: called when a worker is replaced.
    """

    def __init__(
        self,
        count: int,
        *,
        max_image_bytes: int,
        max_image_pixels: int,
        max_answer_bytes: int,
        cpu_seconds: int,
        on_restart: Callable[[], None] = lambda: None,
    ) -> None:
        self._count = count
        self._max_pixels = max_image_pixels
        self._memory_bytes = max(max_image_bytes, max_answer_bytes)
        self._decoding_bytes = BYTES_PER_PIXEL * max_image_pixels + 2 * max_image_bytes + SLACK_BYTES
        self._cpu_seconds = cpu_seconds
        self._on_restart = on_restart
        self._lock = threading.Lock()
        self._idle: deque[_Worker] = deque()
        self._workers: set[_Worker] = set()
        self._start_spare()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, data: bytes, step: Step, until: float = math.inf) -> Picture:
        """Decodes an image and applies a step, see `service.decoding.work.read_picture`.

        Args:
            data: the file.
            step: what to do with the image.
            until: when to give up, in seconds of `time.monotonic`.

        Raises:
            ImageError: the image cannot be read, or takes too much processor time or memory.
            TimeoutError: it is not read in time.
            DecoderLostError: the worker was ended by something else, twice; or none can be started.
        """
        for last in (False, True):
            worker = self._take()
            try:
                picture = worker.read(data, step, self._max_pixels, until)
            except TimeoutError:
                worker.kill()
                self._replace(worker, data, "was not read by its deadline")
                raise
            except _EndedError:
                status = self._replace(worker, data, "ended its reader")
                if status == -signal.SIGXCPU:
                    raise ImageError(
                        f"reading the image takes more than {self._cpu_seconds} s of processor time; save it again, or "
                        "smaller"
                    ) from None
                if -status in CRASHES:
                    raise ImageError("the image makes its reader crash, so it must be damaged; save it again") from None
                if last:
                    raise DecoderLostError(f"the process that reads images has ended with status {status}") from None
            except BaseException:
                self._give(worker)
                raise
            else:
                self._give(worker)
                return picture
        raise AssertionError("the loop returns or raises")

    def close(self) -> None:
        """Ends all workers, whatever they do."""
        with self._lock:
            self._count = 0
            workers, self._workers = self._workers, set()
            self._idle.clear()
        for worker in workers:
            worker.kill()
            worker.end()

    def _take(self) -> "_Worker":
        with self._lock:
            worker = self._idle.pop() if self._idle else self._start()
        self._start_spare()
        return worker

    def _give(self, worker: "_Worker") -> None:
        with self._lock:
            if worker in self._workers:
                self._idle.append(worker)

    def _start(self) -> "_Worker":
        try:
            worker = _Worker(self._memory_bytes, self._cpu_seconds, self._decoding_bytes)
        except OSError as error:
            raise DecoderLostError(f"no process to read images can be started: {error}") from error
        self._workers.add(worker)
        return worker

    def _start_spare(self) -> None:
        """Starts a worker where none is idle, so that the next image need not wait for it."""
        with self._lock:
            if not self._idle and len(self._workers) < self._count:
                try:
                    self._idle.append(self._start())
                except DecoderLostError as error:
                    log.error("%s", error)

    def _replace(self, worker: "_Worker", data: bytes, what: str) -> int:
        """Starts another worker for one that has ended; gives the status that it ended with."""
        status = worker.end()
        with self._lock:
            self._workers.discard(worker)
        self._on_restart()
        log.warning(
            "a decoder is replaced (status %d): the image with SHA-256 %s, %d bytes, %s",
            status, sha256(data).hexdigest(), len(data), what,
        )  # fmt: skip
        self._start_spare()
        return status


class _Worker:
    """One process, the connection to it, and the memory that both share."""

    def __init__(self, memory_bytes: int, cpu_seconds: int, decoding_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._memory_fd = _anonymous_file()
        os.ftruncate(self._memory_fd, memory_bytes)
        self._memory = mmap.mmap(self._memory_fd, memory_bytes)
        ours, theirs = socket.socketpair()
        with theirs:
            self._connection = Connection(ours.detach())
            given = (theirs.fileno(), self._memory_fd)
            path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
            numbers = (*given, memory_bytes, cpu_seconds, decoding_bytes)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, path, *map(str, numbers)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=given,
            )  # fmt: skip

    def read(self, data: bytes, step: Step, max_pixels: int, until: float) -> Picture:
        """See `Decoders.read`.

        Raises:
            TimeoutError, _EndedError: the worker is of no use any more.
        """
        self._memory[: len(data)] = data
        try:
            self._connection.send((len(data), step, max_pixels))
            if not self._connection.poll(None if until == math.inf else max(0.0, until - monotonic())):
                raise TimeoutError
            answer = json.loads(self._connection.recv_bytes(ANSWER_BYTES))
        except (EOFError, ConnectionError) as error:
            raise _EndedError from error
        picture = self._picture(answer)
        if max(len(data), picture.pixels.size) > KEPT_BYTES:
            os.ftruncate(self._memory_fd, 0)
            os.ftruncate(self._memory_fd, self._memory_bytes)
        return picture

    def _picture(self, answer: dict[str, Any]) -> Picture:
        match answer.get("error"):
            case None:
                shape = tuple(map(int, answer["shape"]))
                pixels = np.frombuffer(self._memory, np.uint8, math.prod(shape))
                pose = answer["pose"]
                return Picture(
                    pixels.reshape(shape).copy(),
                    int(answer["width"]), int(answer["height"]), str(answer["sha256"]),
                    pose and Found(np.array(pose["matrix"], np.float64), float(pose["quality"]), float(pose["seen"])),
                )  # fmt: skip
            case "too-large":
                raise ImageTooLargeError(str(answer["reason"]))
            case "image":
                raise ImageError(str(answer["reason"]))
            case "memory":
                raise ImageError("reading the image takes more memory than allowed; save it smaller")
        raise RuntimeError(f"a decoder failed: {answer.get('reason')}")

    def kill(self) -> None:
        """Ends the process, whatever it does."""
        self._process.kill()

    def end(self) -> int:
        """The exit status, negative for a signal, of a process that has ended or is about to."""
        self._connection.close()
        try:
            status = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            status = self._process.wait()
        os.close(self._memory_fd)
        return status


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("image")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
