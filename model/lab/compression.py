"""Distils a full teacher into a narrow one, so that a machine without ImageNet weights has a good teacher.

The narrow teacher learns to show at every location of the four pools what the full one shows there. Its maps have fewer
channels, so they are compared in two ways: through a linear projection that is learned too and then dropped
(FitNets, Romero et al. 2015), and by how alike every two locations are (similarity-preserving distillation, Tung and
Mori 2019), which is what cosine distances are made of.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from model.lab.pictures import Pictures
from model.networks.vgg import Plan, Teacher
from model.preprocessing import as_input

BATCH = 16
PEAK_LEARNING_RATE = 1e-3
WARM_UP_SHARE = 0.1
WEIGHT_DECAY = 1e-4
LARGEST_GRADIENT = 5.0
PAIRED_LOCATIONS = 384
"""Of a batch and layer, whose likeness is compared, each with each."""
TERM_WEIGHTS = (1.0, 0.3, 10.0, 0.3)
"""Of `distillation_losses`, in order."""


def distil(
    full: Teacher,
    start: Teacher | Plan,
    pictures: Pictures,
    *,
    steps: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_step: Callable[[int, Tensor], None] = lambda step, losses: None,
) -> Teacher:
    """Trains a narrow teacher to show what a full one shows.

    Both compute in bfloat16; the weights stay float32.

    Args:
        full: the teacher to learn from.
        start: a narrow teacher to go on from, or the plan of one that knows nothing.
        pictures: to learn on; at least 32 pixels a side.
        steps: batches of `BATCH` pictures.
        seed: for first weights and for the locations that are compared.
        device: where to train.
        on_step: called after each step with its number from 1 and the `distillation_losses`, ``[4, 4]``.

    Returns:
        The narrow teacher, on the CPU.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    narrow = _narrow(start).to(device).to(memory_format=torch.channels_last).requires_grad_(True)
    full = full.to(device).to(memory_format=torch.channels_last)
    batches = _batches(pictures, device)
    projections = _first_projections(full, narrow, next(batches))
    optimizer = torch.optim.AdamW([*narrow.parameters(), *projections], PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LEARNING_RATE, total_steps=steps + 1, pct_start=WARM_UP_SHARE
    )
    weights = torch.tensor(TERM_WEIGHTS, device=device)
    for step, batch in enumerate(islice(batches, steps), 1):
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            with torch.no_grad():
                wanted = full(batch)
            found = narrow(batch)
        losses = distillation_losses(wanted, found, projections, generator)
        optimizer.zero_grad()
        (losses * weights).sum().backward()
        nn.utils.clip_grad_norm_(narrow.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        schedule.step()
        on_step(step, losses.detach())
    return narrow.cpu().requires_grad_(False)


def _narrow(start: Teacher | Plan) -> Teacher:
    if isinstance(start, Teacher):
        return deepcopy(start)
    teacher = Teacher(start)
    for layer in teacher.features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return teacher


def _batches(pictures: Pictures, device: torch.device | str) -> Iterator[Tensor]:
    """Batches of the networks' input; the pictures are drawn in a process of their own."""
    loader = DataLoader[np.ndarray](pictures, batch_size=BATCH, num_workers=1, prefetch_factor=8)
    for batch in loader:
        yield as_input(torch.as_tensor(batch).to(device))


def _first_projections(full: Teacher, narrow: Teacher, batch: Tensor) -> list[nn.Parameter]:
    """For each layer ``[C_full, C_narrow]``: least squares on one batch, with a little ridge."""
    projections = []
    with torch.no_grad():
        for wanted, found in zip(full(batch), narrow(batch), strict=True):
            a, b = _locations(found), _locations(wanted)
            gram = a.T @ a
            gram += 0.1 * gram.diagonal().mean() * torch.eye(len(gram), device=gram.device)
            projections.append(nn.Parameter(torch.linalg.solve(gram, a.T @ b).T.contiguous()))
    return projections


def _locations(maps: Tensor) -> Tensor:
    """``[N, C, H, W]`` to float32 ``[N * H * W, C]``."""
    return maps.float().permute(0, 2, 3, 1).flatten(end_dim=2)


def distillation_losses(
    wanted: Sequence[Tensor], found: Sequence[Tensor], projections: Sequence[Tensor], generator: torch.Generator
) -> Tensor:
    """How far a narrow teacher's maps are from a full one's.

    Args:
        wanted: the full teacher's maps, one ``[N, C_full, H, W]`` for each layer.
        found: the narrow teacher's, ``[N, C_narrow, H, W]``.
        projections: ``[C_full, C_narrow]`` for each layer.
        generator: chooses the locations that are compared with each other.

    Returns:
        float32 ``[L, 4]``, for each layer: of the projected maps one minus the mean cosine, and the squared difference
        as a share of the full teacher's energy; of the maps as they are the mean squared difference between the cosines
        of every two locations, and between the logarithms of their energies, each relative to the mean.
    """
    losses = []
    for wanted_map, found_map, projection in zip(wanted, found, projections, strict=True):
        full, narrow = _locations(wanted_map), _locations(found_map)
        projected = narrow @ projection.T
        cosine = 1 - F.cosine_similarity(projected, full, dim=1, eps=1e-6).mean()
        squared = (projected - full).square().mean() / full.square().mean()
        chosen = torch.randint(len(full), (PAIRED_LOCATIONS,), generator=generator).to(full.device)
        a, b = F.normalize(full[chosen], dim=1), F.normalize(narrow[chosen], dim=1)
        likeness = (a @ a.T - b @ b.T).square().mean()
        energies = [each.square().sum(dim=1) for each in (full, narrow)]
        logs = [torch.log1p(energy / energy.mean()) for energy in energies]
        losses.append(torch.stack((cosine, squared, likeness, (logs[0] - logs[1]).square().mean())))
    return torch.stack(losses)
