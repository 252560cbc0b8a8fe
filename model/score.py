"""The distillation loss and three anomaly scores: the loss itself (equation 13), and two of the local distances."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from model.choices import TermWeights
from model.preprocessing import normalize, unit_range

TINY = 1e-12
"""Stands in for a norm of zero where it would be divided by."""

GRADIENT_SCALE = 2.0**14
CALM = 0.5
"""Gradients are multiplied by a power of two on their way back, which rounds nothing, so that those of float16 networks
neither vanish nor overflow: by `GRADIENT_SCALE` where the objective is this small, by less where it is larger."""

FLOOR = 3.0
"""Of the weighted score, see `layer_distances`: half weight where the teacher has so many medians of energy."""

LARGEST_SHARE = 0.005
"""Of the locations: the weighted score is the mean of so many distances, at least one, the largest."""

POWER = 4
"""Exponent of the power mean that stands in for the largest distance where a gradient is taken."""


def distillation_terms(teacher_maps: Sequence[Tensor], student_maps: Sequence[Tensor]) -> Tensor:
    """The two terms of equation 13 (equations 1 and 2) for every image and distillation layer.

    Sums are taken in float32 whatever the maps' precision, and in any memory layout without a copy.

    Args:
        teacher_maps: one ``[N, C_i, H_i, W_i]`` for each layer.
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
        ``[N]``, at least 0, larger is more unusual.
    """
    squared, direction = weights if isinstance(weights, TermWeights) else weights.unbind(dim=1)
    return squared * terms[..., 0].sum(dim=1) + direction * terms[..., 1].sum(dim=1)


def counted(masks: Tensor, grid: Sequence[int]) -> Tensor:
    """The locations of a layer that count: those that a mask covers by half, or by the most where none has so much.

    Args:
        masks: of the pixels, 1 where they count and 0 elsewhere, float32 ``[N, H, W]``.
        grid: height and width of the layer.

    Returns:
        bool ``[N, h, w]``.
    """
    shares = adaptive_avg_pool2d(masks.unsqueeze(1), (grid[0], grid[1])).squeeze(1)
    return shares >= shares.amax(dim=(1, 2), keepdim=True).clamp_max(0.5)


def layer_distances(
    teacher_maps: Sequence[Tensor],
    student_maps: Sequence[Tensor],
    floors: Tensor | float = 0.0,
    masks: Tensor | None = None,
) -> list[Tensor]:
    """One minus the cosine similarity of the two networks' channels at every location of every layer.

    With a floor both networks have one more channel at every location, the same constant in both. It hardly changes a
    location where the teacher sees much, and brings the two together where it sees little, as on an empty ground.

    Args:
        teacher_maps: one ``[N, C_i, H_i, W_i]`` for each layer, the finest first.
        student_maps: the same shapes.
        floors: the square of that constant for each image, ``[N]``, or for all; in medians of the teacher's energy (the
            sum of its squared channels) over the locations of the image's own layer. 0 is the cosine alone.
        masks: see `counted`; the medians are those of the locations that count. None where all do.

    Returns:
        float32 ``[N, H_1, W_1]`` for each layer, 0 to 2, each on the finest layer's grid (bilinear). A location
        where a network gives only zeros has cosine zero if there is no floor.
    """
    grid = teacher_maps[0].shape[-2:]
    layers = []
    for teacher_map, student_map in zip(teacher_maps, student_maps, strict=True):
        t, s = teacher_map.float(), student_map.float()
        t_energy, s_energy = t.square().sum(dim=1), s.square().sum(dim=1)
        seen = t_energy.detach()
        if masks is not None:
            seen = seen.masked_fill(~counted(masks, seen.shape[1:]), torch.nan)
        medians = seen.flatten(start_dim=1).nanmedian(dim=1).values
        constant = (floors * medians)[:, None, None]
        lengths = ((t_energy + constant).clamp_min(TINY) * (s_energy + constant).clamp_min(TINY)).sqrt()
        distance = 1 - ((t * s).sum(dim=1) + constant) / lengths
        distance = distance.clamp_min(0)  # not -1e-7 where they agree
        layers.append(interpolate(distance.unsqueeze(1), grid, mode="bilinear", align_corners=False).squeeze(1))
    return layers


def largest_distances(distances: Tensor) -> torch.return_types.topk:
    """The largest of the distances ``[N, H, W]`` of each image, in falling order: `LARGEST_SHARE` of them.

    Returns:
        ``values`` ``[N, K]``, and ``indices`` into the flattened locations, likewise.
    """
    flat = distances.flatten(start_dim=1)
    return flat.topk(max(1, round(LARGEST_SHARE * flat.shape[1])), dim=1)


def _mean_of_largest(largest: Tensor, locations: Tensor | None) -> Tensor:
    """The mean of each image's `LARGEST_SHARE`, at least one.

    Args:
        largest: ``[N, K]``, from `largest_distances`.
        locations: how many of each image count, ``[N]``, or None if all do.
    """
    if locations is None:
        return largest.mean(dim=1)
    taken = (LARGEST_SHARE * locations).round().clamp(1, largest.shape[1])[:, None]
    ranks = torch.arange(largest.shape[1], device=largest.device)
    return (largest * (ranks < taken)).sum(dim=1) / taken[:, 0]


class ScoreWeights(NamedTuple):
    """An image's score as a weighted sum: both terms of equation 13, and the local and the weighted score.

    Where the last is above 0 the image's distances have a floor, see `layer_distances`.
    """

    squared: float = 0.0
    direction: float = 0.0
    local: float = 0.0
    weighted: float = 0.0


class Scored(NamedTuple):
    """What `score_and_gradient` finds.

    Attributes:
        scores: float32 ``[N]``, at least 0, larger is more unusual.
        distances: float32 ``[N, H / 4, W / 4]``, what maps are made of: the sum of `layer_distances` but the coarsest.
        gradients: float32 ``[N, H, W]``, equation 4: at the pixels (in [0, 1]), absolute, summed over colour; or None.
    """

    scores: Tensor
    distances: Tensor
    gradients: Tensor | None


def score_and_gradient(
    teacher: Callable[[Tensor], Sequence[Tensor]],
    student: Callable[[Tensor], Sequence[Tensor]],
    weights: Tensor,
    objectives: Tensor | None,
    images: Tensor,
    precision: torch.dtype,
    masks: Tensor | None = None,
) -> Scored:
    """From pixels to the score, and to a gradient if wanted. Everything stays on the images' device.

    Args:
        teacher: from normalised images in that precision to one map a distillation layer.
        student: the same; or several, each of which sees its own images.
        weights: of each image's score, ``[N, 4]``, see `ScoreWeights`.
        objectives: of what each image's gradient is taken of, ``[N, 4]``, or None for no gradient. The last two columns
            weigh the power mean of the distances, because the largest have gradients at a few locations only.
        images: uint8 RGB ``[N, H, W, 3]``.
        precision: of the networks.
        masks: of the pixels that count, 1 there and 0 elsewhere, uint8 ``[N, H, W]``; None where all do. What does not
            count has distance 0, and no part in the score or in what the gradient is taken of.
    """
    # [N, H, W, 3] permuted is already channels-last.
    x = unit_range(images).requires_grad_(objectives is not None)
    inputs = normalize(x).to(precision)
    teacher_maps, student_maps = teacher(inputs), student(inputs)
    shares = None if masks is None else masks.float()
    *finer, coarsest = layer_distances(teacher_maps, student_maps, FLOOR * (weights[:, 3] > 0), shares)
    distances = torch.stack(finer).sum(dim=0)  # the coarsest layer says whether, but hardly where
    here = locations = None
    if shares is not None:
        here = counted(shares, distances.shape[1:])
        locations = here.sum(dim=(1, 2)).float()
        distances, coarsest = distances * here, coarsest * here
        teacher_maps, student_maps = (
            [one * counted(shares, one.shape[2:]).unsqueeze(1) for one in maps] for maps in (teacher_maps, student_maps)
        )
    terms = distillation_terms(teacher_maps, student_maps)
    largest = largest_distances(distances + coarsest).values
    scores = distillation_score(terms, weights[:, :2])
    scores = scores + weights[:, 2] * largest[:, 0] + weights[:, 3] * _mean_of_largest(largest, locations)
    if objectives is None:
        return Scored(scores, distances, None)
    powers = distances.pow(POWER)
    mean_power = powers.mean(dim=(1, 2)) if locations is None else powers.sum(dim=(1, 2)) / locations
    power_mean = mean_power.clamp_min(TINY**POWER) ** (1 / POWER)
    objective = distillation_score(terms, objectives[:, :2]) + objectives[:, 2:].sum(dim=1) * power_mean
    scales = torch.exp2(-torch.ceil(torch.log2((objective.detach() / CALM).clamp_min(1)))) * GRADIENT_SCALE
    (at_pixels,) = torch.autograd.grad((objective * scales).sum(), x)
    return Scored(scores.detach(), distances.detach(), at_pixels.abs().sum(dim=1) / scales[:, None, None])
