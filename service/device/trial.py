"""Tries pairs before they serve: whether the device can afford them, and what the first requests would pay for.

Nothing is started that could not be finished: what is running on the device cannot be interrupted.
"""

from collections.abc import Generator, Sequence
from functools import partial
from time import thread_time

import numpy as np
import torch

from model.choices import MapForm
from model.detector import Detector, detect
from model.graphs import BATCH_SIZES
from service.device.allowance import Allowance, TooCostlyError, gigabytes
from service.device.backend import DeviceMemoryError
from service.device.memory import available_bytes
from service.device.torch_backend import translated

PROBE_SIDE = 128
"""Of the image whose time says how long larger ones would take, pixels."""
PROBE_RUNS = 3
"""After a first one; the shortest counts."""


def try_out(
    detectors: Sequence[Detector], side: int, device: torch.device, allowance: Allowance
) -> Generator[None, None, None]:
    """Runs one or two pairs of one teacher, with and without maps, in a batch of one and in the largest; on a GPU in
    every size that there is a graph for. On the device thread, in steps of one batch each.

    Args:
        detectors: with two of them a batch that mixes categories is run too.
        side: of their images, pixels.
        device: where they run.
        allowance: of a batch.

    Raises:
        TooCostlyError: if one image takes more than a batch may, or a batch more than is free; then none was run.
        DeviceFailedError: if the device failed.
        DeviceMemoryError: if it has too little memory to measure its speed.
    """
    first, plan = detectors[0], detectors[0].teacher.plan
    most = allowance.images_of(plan, side)
    if device.type == "cpu" and not allowance.knows_speed_of(plan):  # on a GPU memory is the tighter limit
        allowance.learn_speed_of(plan, translated(partial(_seconds_per_pixel, first)))
        yield
        most = allowance.images_of(plan, side)
    needed, free = allowance.memory_of(most, plan, side), available_bytes(device)
    if needed > free:
        raise TooCostlyError(
            f"a batch of {most} of {side}x{side} pixels would take about {gigabytes(needed)} of memory, and only "
            f"{gigabytes(free)} are free"
        )
    smaller = [size for size in BATCH_SIZES if size < most] if device.type == "cuda" else [1]
    for size in sorted({*smaller, most}, reverse=True):  # the largest first, whose memory the others then use
        images = np.zeros((size, side, side, 3), dtype=np.uint8)
        mixes = [[first] * size]
        if len(detectors) > 1 and size > 1:
            mixes.append([first] * (size - 1) + [detectors[1]])
        for mix in mixes:
            for form in (MapForm.DISTANCE, MapForm.GRADIENT):
                try:
                    translated(partial(detect, images, mix, maps=[form] * size))
                except DeviceMemoryError:
                    raise TooCostlyError(
                        f"the memory of the device is too small for a batch of {size} of {side}x{side} pixels"
                    ) from None
                yield


def _seconds_per_pixel(detector: Detector) -> float:
    """How long a score and its gradient take, by the time of this thread: what else the machine does hardly counts."""
    images = np.zeros((1, PROBE_SIDE, PROBE_SIDE, 3), dtype=np.uint8)
    times = []
    for _ in range(1 + PROBE_RUNS):
        started = thread_time()
        detector(images, maps=MapForm.GRADIENT)
        times.append(thread_time() - started)
    return min(times[1:]) / PROBE_SIDE**2
