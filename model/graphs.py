"""A pair's arithmetic as CUDA graphs: one launch a batch instead of hundreds, whatever categories it mixes.

A graph replays fixed kernels on fixed addresses. So batches are padded to a few sizes, and the student is an input
like the images: its weights are copied to where the graph looks for them. A batch of several categories has the
weights of every image's own student stacked, and the students run as one (``torch.func``).
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, vmap

from model.networks.vgg import Student, Teacher
from model.score import Scored, ScoreWeights, score_and_gradient

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Sizes that batches are padded to; a larger batch is cut."""

WARM_UP_RUNS = 3
"""Before capture, so that cuDNN has chosen its algorithms and every lazy allocation is made."""


Pool = Any
"""What ``torch.cuda.graph_pool_handle`` gives."""


class Outputs(NamedTuple):
    """`model.score.Scored` as arrays."""

    scores: np.ndarray
    distances: np.ndarray
    gradients: np.ndarray | None


class _Key(NamedTuple):
    """What a graph is made for: padded batch, image shape, several students or one, gradient or not, their layers."""

    batch: int
    image: tuple[int, ...]
    mixed: bool
    gradient: bool
    layers: tuple[str, ...]


class PairGraphs:
    """The captured graphs of one teacher on a GPU, with any of its students. Not for several threads at once."""

    def __init__(self) -> None:
        self._graphs: dict[_Key, _Graph] = {}
        # One replays after the other, and what each gives is copied out before the next: so they may share memory.
        self._pool = torch.cuda.graph_pool_handle() if torch.cuda.is_available() else None

    def run(
        self,
        teacher: Teacher,
        images: np.ndarray,
        students: Sequence[Student],
        weights: np.ndarray,
        objectives: np.ndarray | None,
        masks: np.ndarray | None = None,
    ) -> Outputs:
        """What `model.score.score_and_gradient` finds.

        Args:
            teacher: the same one always.
            images: uint8 RGB ``[N, H, W, 3]``.
            students: one for each image, on the teacher's device in its precision.
            weights: of each image's score, float32 ``[N, 4]``.
            objectives: of each image's gradient, float32 ``[N, 4]``, or None.
            masks: where the images count, uint8 ``[N, H, W]``, or None where all of them do everywhere. The graphs have
                masks always, so that there need not be twice as many.
        """
        parts = [
            self._graph(teacher, images[start:end], students[start:end], objectives is not None)(
                images[start:end],
                students[start:end],
                weights[start:end],
                None if objectives is None else objectives[start:end],
                None if masks is None else masks[start:end],
            )
            for start, end in _cuts(students)
        ]
        scores, distances, gradients = zip(*parts, strict=True)
        return Outputs(
            np.concatenate(scores),
            np.concatenate(distances),
            None if objectives is None else np.concatenate(gradients),
        )

    def _graph(self, teacher: Teacher, images: np.ndarray, students: Sequence[Student], gradient: bool) -> "_Graph":
        batch = next(size for size in BATCH_SIZES if size >= len(images))
        mixed = any(student is not students[0] for student in students)
        key = _Key(batch, images.shape[1:], mixed, gradient, _layers(students[0]))
        if key not in self._graphs:
            self._graphs[key] = _Graph(teacher, students[0], key, self._pool)
        return self._graphs[key]


class _Graphs(threading.local):
    """Each thread has graphs of its own: a thread that hung and comes back must not write into another's memory."""

    def __init__(self) -> None:
        self.of: WeakKeyDictionary[Teacher, PairGraphs] = WeakKeyDictionary()


_graphs = _Graphs()


def graphs_of(teacher: Teacher) -> PairGraphs:
    """The teacher's graphs on this thread, which live as long as both do."""
    return _graphs.of.setdefault(teacher, PairGraphs())


def _layers(student: Student) -> tuple[str, ...]:
    return tuple(student.state_dict())


def _cuts(students: Sequence[Student]) -> list[tuple[int, int]]:
    """Where to cut a batch: it must fit the largest graph, and its students must have the same layers."""
    cuts, start = [], 0
    for end in range(1, len(students) + 1):
        if (
            end == len(students)
            or end - start == BATCH_SIZES[-1]
            or (students[end] is not students[end - 1] and _layers(students[end]) != _layers(students[start]))
        ):
            cuts.append((start, end))
            start = end
    return cuts


class _Graph:
    """One captured graph and the memory that it reads and writes."""

    def __init__(self, teacher: Teacher, student: Student, key: _Key, pool: Pool | None) -> None:
        parameter = next(teacher.parameters())
        device, precision = parameter.device, parameter.dtype
        pin = device.type == "cuda"
        self._pixels = torch.zeros((key.batch, *key.image), dtype=torch.uint8, pin_memory=pin)
        self._mixed = key.mixed
        self._images = self._pixels.to(device)
        self._weights = torch.ones((key.batch, len(ScoreWeights._fields)), device=device)
        self._objectives = torch.ones_like(self._weights) if key.gradient else None
        self._masks = torch.ones((key.batch, *key.image[:2]), dtype=torch.uint8, device=device)
        self._student = {
            name: (tensor.expand(key.batch, *tensor.shape) if key.mixed else tensor).clone()
            for name, tensor in student.state_dict().items()
        }
        self._loaded: Student | None = None

        def one(tensors: dict[str, Tensor], image: Tensor) -> list[Tensor]:
            return [maps.squeeze(0) for maps in functional_call(student, tensors, (image.unsqueeze(0),))]

        def students(inputs: Tensor) -> list[Tensor]:
            maps: list[Tensor] = (
                vmap(one)(self._student, inputs) if key.mixed else functional_call(student, self._student, (inputs,))
            )
            return maps

        def work() -> Scored:
            with torch.set_grad_enabled(key.gradient):
                return score_and_gradient(
                    teacher, students, self._weights, self._objectives, self._images, precision, self._masks
                )

        self._replay, self._outputs = capture(work, device, pool)
        self._results = [
            None if output is None else torch.empty(output.shape, dtype=output.dtype, pin_memory=pin)
            for output in self._outputs
        ]

    def __call__(
        self,
        images: np.ndarray,
        students: Sequence[Student],
        weights: np.ndarray,
        objectives: np.ndarray | None,
        masks: np.ndarray | None,
    ) -> Outputs:
        """Copies the batch in, replays, and copies the results out."""
        count = len(images)
        self._pixels.numpy()[:count] = images
        self._images.copy_(self._pixels, non_blocking=True)
        self._weights[:count].copy_(torch.from_numpy(weights))
        if self._objectives is not None and objectives is not None:
            self._objectives[:count].copy_(torch.from_numpy(objectives))
        if masks is None:
            self._masks.fill_(1)
        else:
            self._masks[:count].copy_(torch.from_numpy(masks))
        self._load(students)
        self._replay()
        for result, output in zip(self._results, self._outputs, strict=True):
            if result is not None and output is not None:
                result.copy_(output, non_blocking=True)
        if self._images.device.type == "cuda":
            torch.cuda.current_stream(self._images.device).synchronize()
        return Outputs._make(None if result is None else result[:count].numpy().copy() for result in self._results)

    def _load(self, students: Sequence[Student]) -> None:
        if self._mixed:
            states = [student.state_dict() for student in students]
            for name, place in self._student.items():
                torch.stack([state[name] for state in states], out=place[: len(states)])
        elif self._loaded is not students[0]:
            for name, tensor in students[0].state_dict().items():
                self._student[name].copy_(tensor)
            self._loaded = students[0]


def capture(work: Callable[[], Scored], device: torch.device, pool: Pool | None) -> tuple[Callable[[], None], Scored]:
    """Captures work on a GPU.

    Args:
        work: what to capture.
        device: the GPU.
        pool: of memory that graphs share of which one runs at a time; the largest is best captured first.

    Returns:
        What does the same work again, and the tensors in which its results then lie.
    """
    with torch.cuda.device(device), torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_RUNS):
                work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the GPU meanwhile.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            outputs = work()
    return graph.replay, outputs
