"""The batching engine: requests gather while the device is busy, and one thread that owns it takes what is there.

That thread does everything that computes, loading and warm-up too. On a CPU a second thread that computes in torch
brings worker threads of its own, and OpenMP, which then counts more threads than cores, makes all of them sleep at
every step instead of spinning: one image takes twice as long from then on.

A thread that dies, or works on one batch for too long, is replaced; what it had taken is answered with an error, what
waits goes to the next one. A device that keeps failing is given up: only a new process helps then.
"""

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter
from typing import Any, Generic, TypeVar

from service.device.backend import Backend, DeviceFailedError, DeviceMemoryError
from service.device.work import Call, Waiting, fail, in_one_step

MAX_RESTARTS = 3
RESTART_WINDOW_SECONDS = 60.0
"""A device that is lost more often than that in this time is given up."""

RECENT_SECONDS = 3.0
"""A device that finished work this recently need not show that it works."""

GATHERING_SHARE = 0.08
GATHERING_SECONDS = 0.02
"""While fewer images wait than are usual, the device waits for the next ones of the clients it has just answered, for
this share of that batch's time, and at most so long. Without it the clients of one batch and those that waited
meanwhile would take turns in two small batches for ever."""

QUIET_SECONDS = 0.1
"""Without an image before work begins that must not delay others: the next image of a client comes at once."""

log = logging.getLogger(__name__)
T = TypeVar("T")
JobT = TypeVar("JobT")
OutcomeT = TypeVar("OutcomeT")


class QueueFullError(Exception):
    """As many images are waiting or being worked on as the engine takes."""


class EngineClosedError(Exception):
    """The engine takes no more images."""


class DeviceLostError(Exception):
    """The device failed or hung while it had this work, or it has been given up."""


@dataclass(eq=False)
class _Shift:
    """One device thread's time of service.

    Attributes:
        futures: of what it is working on.
        until: when it is given up, by the engine's clock; infinite while it waits for work.
    """

    futures: list[Future[Any]] = field(default_factory=list)
    until: float = math.inf


class Engine(Generic[JobT, OutcomeT]):
    """Bounded admission, a queue, and the one thread that owns the device. Each job is one image.

    Args:
        backend: runs batches on the device.
        max_admitted: most images admitted at once, waiting or being worked on.
        on_batch: called on the device thread with the size of each batch.
        timeout_seconds: a batch or call that takes longer is given up, and its thread replaced.
        on_restart: called after the device thread was replaced.
        clock: seconds, of any beginning; may be called on every thread.
    """

    def __init__(
        self,
        backend: Backend[JobT, OutcomeT],
        max_admitted: int,
        on_batch: Callable[[int], None] = lambda size: None,
        *,
        timeout_seconds: float = 60.0,
        on_restart: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._max_admitted = max_admitted
        self._on_batch = on_batch
        self._timeout_seconds = timeout_seconds
        self._on_restart = on_restart
        self._admitted = 0
        self._queue: deque[Waiting[JobT]] = deque()
        self._calls: deque[Call] = deque()
        self._idle: deque[Call] = deque()
        self._quiet_since = -math.inf
        self._images_next = False
        self._changed = threading.Condition()
        self._draining = self._closed = self._lost = self._stuck = False
        self._ended = threading.Event()
        self._losses: list[float] = []
        self._worked = -math.inf
        self._expected, self._gathering_until = 0, -math.inf
        self._start()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @property
    def depth(self) -> int:
        """Images waiting for the device."""
        return len(self._queue)

    @property
    def admitted(self) -> int:
        """Images admitted: being decoded, waiting, on the device or being drawn."""
        return self._admitted

    @property
    def most(self) -> int:
        """Most images admitted at once."""
        return self._max_admitted

    @property
    def running(self) -> bool:
        """Whether images would be worked on."""
        return not self._closed and not self._lost

    @property
    def draining(self) -> bool:
        """Whether new requests are to be refused."""
        return self._draining or self._closed

    @property
    def lost(self) -> bool:
        """Whether the device has been given up."""
        return self._lost

    @property
    def stuck(self) -> bool:
        """Whether work has hung on the device, and none has been finished since."""
        return self._stuck

    def drain(self) -> None:
        """Has new requests refused, see `draining`; those that are there go on. Safe in a signal handler."""
        self._draining = True

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
            DeviceLostError: after the device was given up.
        """
        with self._changed:
            self._check_open()
            if self._admitted + images > self._max_admitted:
                raise QueueFullError
            self._admitted += images
        try:
            yield
        finally:
            with self._changed:
                self._admitted -= images
                self._quiet_since = self._clock()
                if self._idle:
                    self._changed.notify()

    def submit(self, job: JobT) -> Future[OutcomeT]:
        """Queues an image. Cancelling the future before the device takes it drops the image.

        Raises:
            EngineClosedError, DeviceLostError: as `admit`. The future may have the latter, and `DeviceMemoryError`.
        """
        waiting = Waiting(job, self._backend.group(job))
        with self._changed:
            self._check_open()
            self._queue.append(waiting)
            self._changed.notify()
        return waiting.future

    def submit_when_idle(self, job: JobT) -> Future[OutcomeT]:
        """Queues an image that must not delay others; see `call_when_idle`. It is a batch of its own.

        Raises:
            EngineClosedError, DeviceLostError: as `submit`.
        """
        return self.call_when_idle(lambda: self._backend.run([job])[0])

    def call_when_idle(self, work: Callable[[], T]) -> Future[T]:
        """Does work on the device thread that must not delay others: it begins when no image is admitted, and none
        has been for `QUIET_SECONDS`.

        The future is cancelled if the engine is closed before that.

        Raises:
            EngineClosedError, DeviceLostError: as `submit`.
        """
        call = Call(in_one_step(work), self._timeout_seconds)
        with self._changed:
            self._check_open()
            self._idle.append(call)
            self._changed.notify()
        return call.future

    def call(self, work: Callable[[], T], timeout_seconds: float | None = None) -> Future[T]:
        """Does other work on the device thread, before the images that wait.

        Args:
            work: what to do.
            timeout_seconds: how long it may take, if that is not the engine's own limit.

        Raises:
            EngineClosedError, DeviceLostError: as `submit`.
        """
        return self.call_in_steps(in_one_step(work), timeout_seconds)

    def call_in_steps(self, steps: Generator[None, None, T], timeout_seconds: float | None = None) -> Future[T]:
        """Does other work on the device thread step by step: after each, one batch of the images that wait.

        When a step takes too long the device thread is given up, as with a batch. No further step is done then, not
        even if that thread comes back: the generator is closed.

        Args:
            steps: yields between two steps; the future has what it returns.
            timeout_seconds: how long each step may take, if that is not the engine's own limit.

        Raises:
            EngineClosedError, DeviceLostError: as `submit`.
        """
        call = Call(steps, self._timeout_seconds if timeout_seconds is None else timeout_seconds)
        with self._changed:
            self._check_open()
            self._calls.append(call)
            self._changed.notify()
        return call.future

    def check(self) -> Future[None]:
        """Done when the device has shown that it works: at once if it has just finished something else.

        Raises:
            EngineClosedError, DeviceLostError: as `submit`.
        """
        self._check_open()
        if self._clock() - self._worked < RECENT_SECONDS:
            done: Future[None] = Future()
            done.set_result(None)
            return done
        return self.call(self._backend.probe)

    def close(self, timeout_seconds: float | None = None) -> None:
        """Takes no more images, finishes those that were queued, and returns when that is done, or time is up."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, deque()
            self._changed.notify()
        for call in idle:
            call.future.cancel()
        self._ended.wait(timeout_seconds)

    def _check_open(self) -> None:
        if self._lost:
            raise DeviceLostError
        if self._closed:
            raise EngineClosedError

    def _start(self) -> None:
        self._shift = _Shift()
        threading.Thread(target=self._run, args=(self._shift,), name="device", daemon=True).start()

    def _run(self, shift: _Shift) -> None:
        try:
            while taken := self._take(shift):
                if isinstance(taken, Call):
                    self._fulfil(shift, taken)
                else:
                    self._on_batch(len(taken))
                    started = self._clock()
                    self._work(shift, taken)
                    ended = self._clock()
                    self._expected = len(self._queue) + len(taken)
                    self._gathering_until = ended + min(GATHERING_SHARE * (ended - started), GATHERING_SECONDS)
        except BaseException as error:  # whatever it is, nobody waits for ever
            log.critical("the device thread has died", exc_info=error)
            self._lose(shift)
            return
        with self._changed:
            if shift is self._shift:
                self._ended.set()

    def _watch(self) -> None:
        """Gives up the device thread when its work takes too long."""
        while not self._ended.wait(min(1.0, self._timeout_seconds / 4)):
            with self._changed:
                if late := self._clock() > self._shift.until:
                    self._stuck = True
                    self._lose(self._shift)
            if late:
                log.critical("the device had not finished its work in time")

    def _lose(self, shift: _Shift) -> None:
        """Answers what a thread was working on, and starts another one, or gives the device up."""
        with self._changed:
            if shift is not self._shift:
                return  # it was given up before
            concerned = shift.futures
            now = self._clock()
            # One that has finished nothing since its last loss has not recovered, however long ago that was.
            self._losses = [at for at in self._losses if now - at < RESTART_WINDOW_SECONDS or at > self._worked]
            self._losses.append(now)
            self._worked = -math.inf
            if len(self._losses) <= MAX_RESTARTS:
                self._start()
            else:
                log.critical("the device is given up; only a new process helps")
                self._lost = True
                self._shift = _Shift()  # nobody's: a stuck thread that comes back finds that it is not wanted
                concerned = [
                    *concerned,
                    *(call.future for call in (*self._calls, *self._idle) if call.begin()),
                    *(job.future for job in self._queue if job.future.set_running_or_notify_cancel()),
                ]
                self._queue.clear()
                self._calls.clear()
                self._idle.clear()
                self._ended.set()
        for future in concerned:
            fail(future, DeviceLostError())
        if not self._lost:
            self._on_restart()

    def _take(self, shift: _Shift) -> list[Waiting[JobT]] | Call | None:
        """The next call, or the image that waits longest and all that can share its batch, up to the limit.

        Waits for one. None when closed and done, or when another thread has taken over.
        """
        with self._changed:
            shift.futures, shift.until = [], math.inf
            while shift is self._shift:
                if self._calls and not (self._images_next and self._queue):
                    call = self._calls.popleft()
                    if call.begin():
                        self._images_next = False
                        shift.futures, shift.until = [call.future], self._clock() + call.seconds
                        return call
                elif self._queue:
                    left = self._gathering_until - self._clock()
                    expected = min(self._expected, self._queue[0].group.limit)
                    if left > 0 and len(self._queue) < expected and not self._closed:
                        self._changed.wait(left)
                    elif batch := [job for job in self._next_batch() if job.future.set_running_or_notify_cancel()]:
                        shift.futures, self._images_next = [job.future for job in batch], False
                        return batch
                elif self._closed:
                    return None
                elif self._idle and not self._admitted:
                    left = self._quiet_since + QUIET_SECONDS - self._clock()
                    if left > 0:
                        self._changed.wait(left)
                    elif (call := self._idle.popleft()).begin():
                        shift.futures, shift.until = [call.future], self._clock() + call.seconds
                        return call
                else:
                    self._changed.wait()
            return None

    def _next_batch(self) -> list[Waiting[JobT]]:
        group = self._queue[0].group
        batch = list(islice((job for job in self._queue if job.group == group), group.limit))
        taken = set(batch)
        self._queue = deque(job for job in self._queue if job not in taken)
        return batch

    def _work(self, shift: _Shift, batch: list[Waiting[JobT]]) -> None:
        """Answers every job. If memory runs out the batch is halved, until it is one image that fails.

        If it fails in another way its images are tried one by one, so that one fails alone. An error of the device
        itself is no image's.
        """
        if shift is not self._shift:
            return
        shift.until = self._clock() + self._timeout_seconds
        failure: Exception
        try:
            outcomes = self._backend.run([waiting.job for waiting in batch])
        except DeviceFailedError:
            raise
        except DeviceMemoryError as error:
            failure, part = error, (len(batch) + 1) // 2
        except Exception as error:
            failure, part = error, 1
        else:
            self._finished(shift)
            for waiting, outcome in zip(batch, outcomes, strict=True):
                with suppress(InvalidStateError):  # the thread was given up, and the job answered, just now
                    waiting.future.set_result(outcome)
            return
        if len(batch) == 1:
            fail(batch[0].future, failure)
            return
        log.error("a batch of %d images failed; trying %d at a time", len(batch), part, exc_info=failure)
        for start in range(0, len(batch), part):
            self._work(shift, batch[start : start + part])

    def _fulfil(self, shift: _Shift, call: Call) -> None:
        """Does the next step of a call."""
        try:
            next(call.steps)
        except StopIteration as end:
            self._finished(shift)
            with suppress(InvalidStateError):
                call.future.set_result(end.value)
        except DeviceFailedError:
            raise
        except Exception as error:
            fail(call.future, error)
        else:
            self._finished(shift)
            with self._changed:
                if wanted := shift is self._shift:
                    self._calls.appendleft(call)
                    self._images_next = True
            if not wanted:
                call.steps.close()

    def _finished(self, shift: _Shift) -> None:
        if shift is self._shift:
            self._worked = self._clock()
            self._stuck = False
