"""The batching engine: requests gather while the device is busy, and one thread that owns it takes what is there.

That thread does everything that computes in torch, loading and warm-up too. On a CPU a second thread that computes in
torch brings worker threads of its own, and OpenMP, which then counts more threads than cores, makes all of them sleep
at every step instead of spinning: one image takes twice as long from then on.
"""

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from model.detector import Detector, detect
from model.vgg import Teacher
from service.schemas import Localize

log = logging.getLogger(__name__)
T = TypeVar("T")


class QueueFullError(Exception):
    """As many images are waiting or being worked on as the engine takes."""


class EngineClosedError(Exception):
    """The engine takes no more images."""


@dataclass(frozen=True)
class Outcome:
    """What the device found in one image.

    Attributes:
        score: equation 13.
        gradient: float32 ``[H, W]``, equation 4, or None if no map was wanted.
        queue_seconds: wait for the device.
        inference_seconds: the score, of the whole batch the image was in; 0 where one pass gave score and gradient.
        localization_seconds: that pass, of the whole batch; 0 without a map.
    """

    score: float
    gradient: np.ndarray | None
    queue_seconds: float
    inference_seconds: float
    localization_seconds: float


@dataclass(eq=False)
class Job:
    """One image waiting for the device.

    Attributes:
        pixels: prepared, uint8 RGB ``[H, W, 3]``.
        teacher: of the image's category.
        detector: gives the category's pair; called on the device thread, may have to load it.
        threshold: of the category.
        localize: whether a map is wanted.
    """

    pixels: np.ndarray
    teacher: Teacher
    detector: Callable[[], Detector]
    threshold: float
    localize: Localize
    future: Future[Outcome] = field(default_factory=Future)
    submitted: float = field(default_factory=perf_counter)

    @property
    def group(self) -> tuple[int, tuple[int, ...]]:
        """Jobs of one group share a batch: they have the same teacher and image size."""
        return id(self.teacher), self.pixels.shape


class Engine:
    """Bounded admission, a queue, and the one thread that owns the device.

    Args:
        max_admitted: most images admitted at once, waiting or being worked on.
        max_batch: most images the device takes at once.
        on_batch: called on the device thread with the size of each batch.
    """

    def __init__(self, max_admitted: int, max_batch: int, on_batch: Callable[[int], None] = lambda size: None) -> None:
        self._max_admitted = max_admitted
        self._max_batch = max_batch
        self._on_batch = on_batch
        self._admitted = 0
        self._queue: deque[Job] = deque()
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """Images waiting for the device."""
        return len(self._queue)

    @property
    def admitted(self) -> int:
        """Images admitted: being decoded, waiting, on the device or being drawn."""
        return self._admitted

    @property
    def running(self) -> bool:
        """Whether images would be worked on."""
        return self._thread.is_alive() and not self._closed

    def check_room(self) -> None:
        """Says whether an image would be admitted now, before it is received.

        Raises:
            QueueFullError: if there is no place.
            EngineClosedError: after `close`.
        """
        with self._changed:
            if self._closed:
                raise EngineClosedError
            if self._admitted >= self._max_admitted:
                raise QueueFullError

    @contextmanager
    def admit(self, images: int = 1) -> Iterator[None]:
        """Holds places for images from before they are decoded until they are answered.

        Raises:
            QueueFullError: if there are not that many places.
            EngineClosedError: after `close`.
        """
        with self._changed:
            if self._closed:
                raise EngineClosedError
            if self._admitted + images > self._max_admitted:
                raise QueueFullError
            self._admitted += images
        try:
            yield
        finally:
            with self._changed:
                self._admitted -= images

    def submit(self, job: Job) -> Future[Outcome]:
        """Queues an image. Cancelling the future before the device takes it drops the image.

        Raises:
            EngineClosedError: after `close`.
        """
        with self._changed:
            if self._closed:
                raise EngineClosedError
            self._queue.append(job)
            self._changed.notify()
        return job.future

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Does other work on the device thread, before the images that wait.

        Raises:
            EngineClosedError: after `close`.
        """
        future: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise EngineClosedError
            self._calls.append((future, work))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Takes no more images, finishes those that were queued, and returns when the thread has ended."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        taken: list[Job] | tuple[Future[Any], Callable[[], Any]] = []
        try:
            while taken := self._take():
                if isinstance(taken, tuple):
                    _fulfil(*taken)
                    continue
                taken = [job for job in taken if job.future.set_running_or_notify_cancel()]
                if taken:
                    self._on_batch(len(taken))
                    self._work(taken)
        finally:  # whatever ended the thread, nobody waits for ever
            with self._changed:
                self._closed = True
                waiting = [job.future for job in self._queue] + [future for future, _ in self._calls]
                waiting = [future for future in waiting if future.set_running_or_notify_cancel()]
                self._queue.clear()
                self._calls.clear()
            for future in [job.future for job in taken if isinstance(job, Job)] + waiting:
                if not future.done():
                    future.set_exception(EngineClosedError())

    def _take(self) -> list[Job] | tuple[Future[Any], Callable[[], Any]]:
        """The next call, or the image that waits longest and all that can share its batch, up to the limit.

        Waits for one. Empty when closed and done.
        """
        with self._changed:
            while not self._calls and not self._queue and not self._closed:
                self._changed.wait()
            if self._calls:
                return self._calls.popleft()
            if not self._queue:
                return []
            group = self._queue[0].group
            batch = list(islice((job for job in self._queue if job.group == group), self._max_batch))
            taken = set(batch)
            self._queue = deque(job for job in self._queue if job not in taken)
            return batch

    def _work(self, jobs: list[Job]) -> None:
        """Answers every job. If the batch fails its images are tried one by one, so that one fails alone."""
        try:
            outcomes = inspect_jobs(jobs)
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
                return
            log.exception("a batch of %d images failed; trying them one by one", len(jobs))
            for job in jobs:
                self._work([job])
            return
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.future.set_result(outcome)


def _fulfil(future: Future[T], work: Callable[[], T]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)


def inspect_jobs(jobs: Sequence[Job]) -> list[Outcome]:
    """Scores first; then score and gradient once more of the images whose map is wanted.

    That is the cheaper way unless more than half of the images turn out anomalous (`benchmarks.ceiling`).
    """
    started = perf_counter()
    detectors = {job: job.detector() for job in jobs}
    scores: dict[Job, float] = {}
    gradients: dict[Job, np.ndarray] = {}
    scored = [job for job in jobs if job.localize is not Localize.ALWAYS]
    if scored:
        found = detect(_stack(scored), [detectors[job] for job in scored])
        scores = dict(zip(scored, found.scores.tolist(), strict=True))
    scored_at = perf_counter()
    mapped = [
        job
        for job in jobs
        if job.localize is Localize.ALWAYS or (job.localize is Localize.AUTO and scores[job] >= job.threshold)
    ]
    if mapped:
        found = detect(_stack(mapped), [detectors[job] for job in mapped], maps=True)
        assert found.gradients is not None
        gradients = dict(zip(mapped, found.gradients, strict=True))
        scores = dict(zip(mapped, found.scores.tolist(), strict=True)) | scores
    ended = perf_counter()
    if not all(math.isfinite(score) for score in scores.values()):
        raise FloatingPointError("the networks gave a score that is not finite")
    return [
        Outcome(
            score=scores[job],
            gradient=gradients.get(job),
            queue_seconds=started - job.submitted,
            inference_seconds=0.0 if job.localize is Localize.ALWAYS else scored_at - started,
            localization_seconds=ended - scored_at if job in gradients else 0.0,
        )
        for job in jobs
    ]


def _stack(jobs: Sequence[Job]) -> np.ndarray:
    return np.stack([job.pixels for job in jobs])
