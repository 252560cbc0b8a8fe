"""What waits for the device: images in a queue, and other work that goes before them."""

from collections.abc import Callable, Generator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from service.device.backend import Group

T = TypeVar("T")
JobT = TypeVar("JobT")


@dataclass(eq=False)
class Waiting(Generic[JobT]):
    """A job in the queue, its group, and the future that has its outcome."""

    job: JobT
    group: Group
    future: Future[Any] = field(default_factory=Future)


@dataclass(eq=False)
class Call:
    """Other work for the device thread.

    Attributes:
        steps: what to do; yields between two steps.
        seconds: how long each step may take.
        begun: whether the first step has been taken.
        future: has what the steps return.
    """

    steps: Generator[None, None, Any]
    seconds: float
    begun: bool = False
    future: Future[Any] = field(default_factory=Future)

    def begin(self) -> bool:
        """Whether it is to be done: nobody has cancelled it before it was begun."""
        self.begun = self.begun or self.future.set_running_or_notify_cancel()
        return self.begun


def in_one_step(work: Callable[[], T]) -> Generator[None, None, T]:
    """Work as the steps of a `Call`."""
    yield from ()
    return work()


def fail(future: Future[Any], error: Exception) -> None:
    """Gives a future its error, unless it has been answered already."""
    with suppress(InvalidStateError):
        future.set_exception(error)
