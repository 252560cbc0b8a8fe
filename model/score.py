"""The distillation loss, which is also the anomaly score (equation 13)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class TermWeights(NamedTuple):
    """How much each term of equation 13 counts. The paper's lambda is ``direction``: 0.1 for MVTec AD, else 0.01."""

    squared: float = 1.0
    direction: float = 0.1


def distillation_terms(teacher_maps: Sequence[Tensor], student_maps: Sequence[Tensor]) -> Tensor:
    """The two terms of equation 13 (equations 1 and 2) for every image and distillation layer.

    Args:
        teacher_maps: one ``[N, C_i, H_i, W_i]`` a layer.
        student_maps: the same shapes.

    Returns:
        ``[N, L, 2]``: the mean squared difference, and one minus the cosine similarity of the flattened maps (0 to 2).
    """
    layers = []
    for teacher_map, student_map in zip(teacher_maps, student_maps, strict=True):
        t, s = teacher_map.flatten(1), student_map.flatten(1)
        squared = (t - s).square().mean(dim=1)
        # 1 - cos = |t/|t| - s/|s||^2 / 2 has no cancellation, so float32 keeps its digits where the two maps almost
        # agree. A map of zeros has no direction; its cosine with anything counts as zero.
        t_hat, s_hat = F.normalize(t, dim=1), F.normalize(s, dim=1)
        without_direction = (t == 0).all(dim=1).float() + (s == 0).all(dim=1).float()
        direction = ((t_hat - s_hat).square().sum(dim=1) + without_direction) / 2
        layers.append(torch.stack((squared, direction), dim=1))
    return torch.stack(layers, dim=1)


def distillation_score(terms: Tensor, weights: TermWeights) -> Tensor:
    """Equation 13: the weighted sum of the terms ``[N, L, 2]`` over layers, ``[N]``, at least 0, larger is stranger."""
    return weights.squared * terms[..., 0].sum(dim=1) + weights.direction * terms[..., 1].sum(dim=1)
