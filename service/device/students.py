"""The pairs whose students are in memory."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from model.detector import Detector


class Students:
    """Keeps pairs in memory up to a budget for their students; the one not wanted for the longest time is dropped.

    One is kept always. Safe for several threads: a device thread that hung may come back beside its successor.

    Args:
        limit_bytes: how much memory the students may take together.
        on_evict: called when a student is dropped to make room.
    """

    def __init__(self, limit_bytes: int, on_evict: Callable[[], None] = lambda: None) -> None:
        self._limit_bytes = limit_bytes
        self._on_evict = on_evict
        self._kept: OrderedDict[Hashable, Detector] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Detector | None:
        """The pair that was put under this key, if it is still in memory; it now counts as just wanted."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: Hashable, detector: Detector) -> None:
        """Keeps a pair, and drops others if there is no room for all."""
        with self._lock:
            self._drop(key)
            self._kept[key] = detector
            self._bytes += _size_of(detector)
            while self._bytes > self._limit_bytes and len(self._kept) > 1:
                self._drop(next(iter(self._kept)))
                self._on_evict()

    def take(self, key: Hashable) -> Detector | None:
        """Removes a pair, and returns it if it was there."""
        with self._lock:
            return self._drop(key)

    def _drop(self, key: Hashable) -> Detector | None:
        dropped = self._kept.pop(key, None)
        if dropped is not None:
            self._bytes -= _size_of(dropped)
        return dropped


def _size_of(detector: Detector) -> int:
    return sum(tensor.nbytes for tensor in detector.student.state_dict().values())
