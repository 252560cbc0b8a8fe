"""The distillation loss, which is also the anomaly score (equation 13), and its gradient (equation 4)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm

from model.vgg import normalize

TINY = 1e-12
"""Stands in for a norm of zero where it would be divided by."""

GRADIENT_SCALE = 2.0**14
"""Keeps gradients of float16 networks from vanishing on their way back; a power of two, so it rounds nothing."""


class TermWeights(NamedTuple):
    """How much each term of equation 13 counts. The paper's lambda is ``direction``: 0.1 for MVTec AD, else 0.01."""

    squared: float = 1.0
    direction: float = 0.1


def distillation_terms(teacher_maps: Sequence[Tensor], student_maps: Sequence[Tensor]) -> Tensor:
    """The two terms of equation 13 (equations 1 and 2) for every image and distillation layer.

    Sums are taken in float32 whatever the maps' precision, and in any memory layout without a copy.

    Args:
        teacher_maps: one ``[N, C_i, H_i, W_i]`` a layer.
        student_maps: the same shapes.

    Returns:
        float32 ``[N, L, 2]``: the mean squared difference, and one minus the cosine similarity of the flattened maps
        (0 to 2).
    """
    one_image = (1, 2, 3)
    layers = []
    for teacher_map, student_map in zip(teacher_maps, student_maps, strict=True):
        t, s = teacher_map.float(), student_map.float()
        t_norm = vector_norm(t, dim=one_image, keepdim=True)
        s_norm = vector_norm(s, dim=one_image, keepdim=True)
        squared = vector_norm(t - s, dim=one_image).square() / t[0].numel()
        # 1 - cos = |t/|t| - s/|s||^2 / 2 = |t - s |t|/|s||^2 / (2 |t|^2) has no cancellation, so float32 keeps its
        # digits where the two maps almost agree. A map of zeros has no direction; its cosine counts as zero.
        scaled = torch.addcmul(t, s, t_norm / s_norm.clamp_min(TINY), value=-1)
        chord = vector_norm(scaled, dim=one_image) / t_norm.flatten().clamp_min(TINY)
        direction = torch.where((t_norm * s_norm).flatten() == 0, 1.0, chord.square() / 2)
        layers.append(torch.stack((squared, direction), dim=1))
    return torch.stack(layers, dim=1)


def distillation_score(terms: Tensor, weights: TermWeights | Tensor) -> Tensor:
    """Equation 13: the weighted sum of the terms over layers.

    Args:
        terms: ``[N, L, 2]``, from `distillation_terms`.
        weights: of the two terms, for all images or, as ``[N, 2]``, for each.

    Returns:
        ``[N]``, at least 0, larger is stranger.
    """
    squared, direction = weights if isinstance(weights, TermWeights) else weights.unbind(dim=1)
    return squared * terms[..., 0].sum(dim=1) + direction * terms[..., 1].sum(dim=1)


def score_and_gradient(
    teacher: Callable[[Tensor], Sequence[Tensor]],
    student: Callable[[Tensor], Sequence[Tensor]],
    weights: TermWeights | Tensor,
    images: Tensor,
    precision: torch.dtype,
    gradient: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """From pixels to the score, and to equation 4 if wanted. Everything stays on the images' device.

    Args:
        teacher: from normalised images in that precision to one map a distillation layer.
        student: the same; or several, each of which sees its own images.
        weights: see `distillation_score`.
        images: uint8 RGB ``[N, H, W, 3]``.
        precision: of the networks.
        gradient: also compute the gradient, which needs autograd switched on.

    Returns:
        Scores ``[N]``, terms ``[N, L, 2]``, and the absolute gradient at the pixels (in [0, 1]) summed over colour
        ``[N, H, W]`` or None.
    """
    # [N, H, W, 3] permuted is already channels-last.
    x = images.permute(0, 3, 1, 2).float().div(255).requires_grad_(gradient)
    inputs = normalize(x).to(precision)
    terms = distillation_terms(teacher(inputs), student(inputs))
    scores = distillation_score(terms, weights)
    if not gradient:
        return scores, terms, None
    (at_pixels,) = torch.autograd.grad(scores.sum() * GRADIENT_SCALE, x)
    return scores, terms, at_pixels.abs().sum(dim=1) / GRADIENT_SCALE
