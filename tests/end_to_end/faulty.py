"""``faulty.py ORDERS serve ...``: the real command line, whose device obeys what stands in the file ORDERS.

A line ``WORD COUNT`` holds for the next COUNT pieces of work on the device, or as long as it stands there without a
count: ``die``, ``fail``, ``hang`` (for ever), ``stall-N`` (for N seconds), ``wait`` (until the file changes; the file
``waiting`` beside it is there meanwhile), ``wait-and-die``, ``memory-N`` (for no more than N images). ``late`` waits
too. With ``hang`` and ``late`` the engine's clock goes on by two hours.

No temporary file can be made in this process, as on a disk that is full or read-only.
"""

import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from service import app
from service.device.backend import DeviceMemoryError
from service.device.jobs import Job, Outcome
from service.device.torch_backend import TorchBackend

orders = Path(sys.argv.pop(1))
waiting = orders.with_name("waiting")
tempfile.tempdir = str(orders.with_name("nowhere"))


class Clock:
    """The engine's, which can be put forward."""

    ahead = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return time.perf_counter() + self.ahead


clock = Clock()


def obey(images: int) -> None:
    """Does what the file says."""
    order = orders.read_text()
    word, _, count = order.partition(" ")
    if count:
        orders.write_text(f"{word} {int(count) - 1}" if int(count) > 1 else "")
    if word == "die":
        raise SystemExit
    if word == "fail":
        raise RuntimeError("the orders say so")
    if word in ("hang", "late"):
        clock.ahead += 7200
    if word == "hang":
        threading.Event().wait()
    if word.startswith("stall-"):
        time.sleep(float(word.removeprefix("stall-")))
    if word in ("wait", "late", "wait-and-die"):
        waiting.touch()
        while orders.read_text() == order:
            time.sleep(0.01)
        waiting.unlink()
    if word == "wait-and-die":
        raise SystemExit
    if word.startswith("memory-") and images > int(word.removeprefix("memory-")):
        raise DeviceMemoryError("the orders say so")


class ObedientBackend(TorchBackend):
    """Does what the file says, and then its work."""

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Runs a batch."""
        obey(len(jobs))
        return super().run(jobs)

    def probe(self) -> None:
        """Shows that the device works."""
        obey(0)
        super().probe()


app.Engine = partial(app.Engine, clock=clock)
app.create_app = partial(app.create_app, backend=ObedientBackend)
from service.cli import main  # noqa: E402 - it takes `create_app` as it is now

main()
