"""``faulty.py ORDERS serve ...``: the real command line, whose device obeys what stands in the file ORDERS.

A line ``WORD COUNT`` holds for the next COUNT pieces of work on the device, or as long as it stands there without a
count: ``die``, ``fail``, ``hang`` (for ever), ``stall-N`` (for N seconds), ``wait`` (until the file changes),
``memory-N`` (for no more than N images).

No temporary file can be made in this process, as on a disk that is full or read-only.
"""

import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from model.detector import detect
from service.cli import main
from service.device import engine

orders = Path(sys.argv.pop(1))
tempfile.tempdir = str(orders.with_name("nowhere"))
compute_a_little = engine.Engine._compute_a_little


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
    if word == "hang":
        threading.Event().wait()
    if word.startswith("stall-"):
        time.sleep(float(word.removeprefix("stall-")))
    if word == "wait":
        while orders.read_text() == order:
            time.sleep(0.01)
    if word.startswith("memory-") and images > int(word.removeprefix("memory-")):
        raise torch.OutOfMemoryError("the orders say so")


def obedient_detect(images: object, *arguments: object, **options: object) -> object:
    """In place of `model.detector.detect` in the engine."""
    obey(len(images))
    return detect(images, *arguments, **options)


def obedient_check(self: engine.Engine) -> None:
    """In place of the engine's own little piece of work."""
    obey(0)
    compute_a_little(self)


engine.detect = obedient_detect
engine.Engine._compute_a_little = obedient_check
main()
