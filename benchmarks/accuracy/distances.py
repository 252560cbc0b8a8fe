"""Per-location distances between teacher and student, layer by layer: what scores and maps are built from."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, interpolate

from model.detector import BEST_BATCH
from model.preprocessing import as_input
from model.score import layer_distances

TINY = 1e-6
WHITENING_FLOOR = 0.1
"""Added to every variance before whitening, as a share of their mean."""

Layers = Sequence[Tensor]
Distance = Callable[[Layers, Layers], list[Tensor]]
"""From maps ``[N, C_i, H_i, W_i]`` of teacher and student to one distance map ``[N, H_i, W_i]`` for each layer."""


def as_inputs(pixels: np.ndarray) -> Tensor:
    """uint8 RGB ``[N, H, W, 3]`` to what the networks take."""
    return as_input(torch.from_numpy(pixels))


def batches(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """The images in the batches that a CPU likes best."""
    for start in range(0, len(pixels), BEST_BATCH["cpu"]):
        yield pixels[start : start + BEST_BATCH["cpu"]]


def taps(network: nn.Module, pixels: np.ndarray) -> list[Tensor]:
    """A network's maps of all images, ``[N, C_i, H_i, W_i]`` for each layer."""
    with torch.inference_mode():
        found = [network(as_inputs(batch)) for batch in batches(pixels)]
    return [torch.cat(layer) for layer in zip(*found, strict=True)]


def cosine(teacher: Layers, student: Layers) -> list[Tensor]:
    """One minus the cosine similarity along channels, 0 to 2."""
    return [1 - cosine_similarity(t, s, dim=1, eps=TINY) for t, s in zip(teacher, student, strict=True)]


def squared(teacher: Layers, student: Layers) -> list[Tensor]:
    """Mean squared difference along channels."""
    return [(t - s).square().mean(dim=1) for t, s in zip(teacher, student, strict=True)]


def standardised(teacher: Layers, student: Layers) -> Distance:
    """Squared difference with each channel standardised by these maps of normal images."""
    moments = [
        ((t - s).mean((0, 2, 3), keepdim=True), (t - s).std((0, 2, 3), keepdim=True).clamp_min(TINY))
        for t, s in zip(teacher, student, strict=True)
    ]

    def distance(teacher: Layers, student: Layers) -> list[Tensor]:
        return [
            ((t - s - mean) / deviation).square().mean(dim=1)
            for t, s, (mean, deviation) in zip(teacher, student, moments, strict=True)
        ]

    return distance


def whitened(teacher: Layers, student: Layers) -> Distance:
    """Squared Mahalanobis distance of the difference, by the covariance of channels in these maps of normal images."""
    fits = []
    for t, s in zip(teacher, student, strict=True):
        mean = (t - s).mean((0, 2, 3), keepdim=True)
        samples = (t - s - mean).transpose(0, 1).flatten(1).double()
        values, vectors = torch.linalg.eigh(samples @ samples.T / samples.shape[1])
        values = values + WHITENING_FLOOR * values.mean()
        fits.append((mean, (vectors * values.rsqrt() @ vectors.T).float()))

    def distance(teacher: Layers, student: Layers) -> list[Tensor]:
        return [
            torch.einsum("nchw,dc->ndhw", t - s - mean, matrix).square().mean(dim=1)
            for t, s, (mean, matrix) in zip(teacher, student, fits, strict=True)
        ]

    return distance


def enlarged(maps: Tensor, side: int) -> Tensor:
    """Maps ``[N, h, w]`` on a finer grid ``[N, side, side]``, bilinear."""
    return interpolate(maps[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]


def local_map(teacher: Layers, student: Layers) -> Tensor:
    """The cosine distances of all layers, added on the grid of the first, ``[N, H_1, W_1]``."""
    return torch.stack(layer_distances(teacher, student)).sum(dim=0)
