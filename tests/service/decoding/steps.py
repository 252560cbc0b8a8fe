"""What a worker is told to do in place of an image's preprocessing: all that a hostile image could bring about."""

import os
import signal
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from model.images import Photograph
from model.preprocessing import Prepared
from model.reading import Reading


class Step(ABC):
    """Of images as most are."""

    reading = Reading()

    @abstractmethod
    def apply(self, image: np.ndarray) -> np.ndarray:
        """What the step does."""

    def scale(self, width: int, height: int) -> int:
        """Images are decoded whole."""
        return 1

    def prepare(self, photograph: Photograph) -> Prepared:
        """The same, of no pose."""
        return Prepared(self.apply(photograph.pixels), None)


class Hang(Step):
    """Waits for ever, without processor time."""

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Never returns."""
        while True:
            signal.pause()


class Burn(Step):
    """Computes for ever."""

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Never returns."""
        while True:
            image.sum()


@dataclass(frozen=True)
class Take(Step):
    """Takes so much memory."""

    size: int

    def apply(self, image: np.ndarray) -> np.ndarray:
        """The image, if there was room."""
        np.zeros(self.size, np.uint8)
        return image


@dataclass(frozen=True)
class Die(Step):
    """Ends the process by a signal."""

    signal: int

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Never returns."""
        signal.signal(self.signal, signal.SIG_DFL) if self.signal != signal.SIGKILL else None
        os.kill(os.getpid(), self.signal)
        return image


@dataclass(frozen=True)
class DieOnce(Step):
    """Ends the process unless a file is there, which it makes."""

    marker: str

    def apply(self, image: np.ndarray) -> np.ndarray:
        """The image, the second time."""
        if not os.path.exists(self.marker):  # noqa: PTH110
            os.close(os.open(self.marker, os.O_CREAT | os.O_WRONLY))
            os._exit(3)
        return image


class Fail(Step):
    """Has a fault of its own."""

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Raises."""
        raise ZeroDivisionError("a fault of the step")


class Whole(Step):
    """Leaves the image as it is."""

    def apply(self, image: np.ndarray) -> np.ndarray:
        """The image."""
        return image


class Identity(Step):
    """Says which process this is."""

    def apply(self, image: np.ndarray) -> np.ndarray:
        """The process's id as four bytes."""
        return np.frombuffer(os.getpid().to_bytes(4, "little"), np.uint8).reshape(1, 4, 1)
