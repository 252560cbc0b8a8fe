"""Inspects batches of images with torch, on a CPU or on a CUDA GPU."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import TypeVar

import numpy as np
import torch

from model.choices import MapForm
from model.detector import detect
from model.localization import Evidence
from service.choices import Localize
from service.device.allowance import Allowance
from service.device.backend import DeviceFailedError, DeviceMemoryError, Group
from service.device.jobs import Job, Outcome

T = TypeVar("T")

CPU_OUT_OF_MEMORY = "DefaultCPUAllocator: can't allocate memory"
"""In the text of the error that torch raises on a CPU, where it has no class of its own."""


def translated(work: Callable[[], T]) -> T:
    """Does work in torch, whose errors become those of `service.device.backend` where they concern the device.

    Raises:
        DeviceFailedError, DeviceMemoryError: in place of torch's own error, which is dropped: its traceback would keep
            tensors in memory.
    """
    error: Exception
    try:
        return work()
    except torch.AcceleratorError as failure:
        error = DeviceFailedError(str(failure))
    except (torch.OutOfMemoryError, MemoryError) as failure:
        error = DeviceMemoryError(str(failure))
    except RuntimeError as failure:
        if CPU_OUT_OF_MEMORY not in str(failure):
            raise
        error = DeviceMemoryError(str(failure))
    raise error


class TorchBackend:
    """The networks of `model` on one device, as a `service.device.backend.Backend`.

    Args:
        device: where to compute.
        allowance: of a batch.
    """

    def __init__(self, device: torch.device, allowance: Allowance) -> None:
        self._device = device
        self._allowance = allowance

    def group(self, job: Job) -> Group:
        """Jobs with the same teacher and image size share a batch, whatever their categories.

        Raises:
            TooCostlyError: if the image is larger than any that a category was accepted with.
        """
        limit = self._allowance.images_of(job.teacher.plan, max(job.pixels.shape[:2]))
        return Group((id(job.teacher), job.pixels.shape), limit)

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Inspects a batch, see `inspect_jobs`."""
        try:
            return translated(partial(inspect_jobs, jobs))
        except DeviceMemoryError:
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            raise

    def probe(self) -> None:
        """Computes a sum."""
        translated(torch.ones(8, device=self._device).sum().item)


def inspect_jobs(jobs: Sequence[Job]) -> list[Outcome]:
    """Scores first; then once more, with a gradient, the images whose map is wanted and needs one.

    That is the cheaper way unless more than half of the images turn out anomalous (`benchmarks.choices`).

    Raises:
        FloatingPointError: if a score, or the gradient of a map, is not finite.
    """
    started = perf_counter()
    detectors = {job: job.detector() for job in jobs}
    scores: dict[Job, float] = {}
    evidence: dict[Job, Evidence] = {}

    def run(some: Sequence[Job], forms: Sequence[MapForm]) -> None:
        pixels, masks = np.stack([job.pixels for job in some]), [job.mask for job in some]
        found = detect(pixels, [detectors[job] for job in some], maps=forms, masks=masks)
        assert found.evidence is not None
        for job, score, what in zip(some, found.scores.tolist(), found.evidence, strict=True):
            scores.setdefault(job, score)
            evidence[job] = what

    at_once = [job for job in jobs if job.localize is Localize.ALWAYS and job.form is not MapForm.DISTANCE]
    if first := [job for job in jobs if job not in at_once]:
        run(first, [MapForm.DISTANCE] * len(first))
    scored_at = perf_counter()
    wanted = {
        job
        for job in jobs
        if job.localize is Localize.ALWAYS or (job.localize is Localize.AUTO and job.rejects(scores[job]))
    }
    if mapped := [job for job in jobs if job in wanted and job.form is not MapForm.DISTANCE]:
        run(mapped, [job.form for job in mapped])
    ended = perf_counter()
    if not all(math.isfinite(score) for score in scores.values()):
        raise FloatingPointError("the networks gave a score that is not finite")
    gradients = [one.gradient for job, one in evidence.items() if job in wanted and one.gradient is not None]
    if not all(np.isfinite(gradient).all() for gradient in gradients):
        raise FloatingPointError("the networks gave a gradient that is not finite")
    return [
        Outcome(
            score=scores[job],
            evidence=evidence[job] if job in wanted else None,
            queue_seconds=started - job.created,
            inference_seconds=0.0 if job in at_once else scored_at - started,
            localization_seconds=ended - scored_at if job in mapped else 0.0,
            started=started,
        )
        for job in jobs
    ]
