"""What teacher and student make of one image at each distillation layer: the paper's figure 9."""

import numpy as np
import torch
from torch import Tensor

from model.choices import Score
from model.detector import Detector
from model.lifecycle.figures import Layer
from model.networks.vgg import DISTILLATION_POOLS
from model.preprocessing import as_input
from model.score import FLOOR, counted, distillation_terms, largest_distances, layer_distances


def layers_of(detector: Detector, pixels: np.ndarray, mask: np.ndarray | None = None) -> list[Layer]:
    """The maps of both networks and of their difference, and what each layer adds to the score.

    Args:
        detector: the pair.
        pixels: a view, uint8 RGB ``[size, size, 3]``, from `model.preprocessing.Preprocessing.apply`.
        mask: where it counts, bool ``[size, size]``; None for everywhere.
    """
    with torch.inference_mode():
        inputs = as_input(torch.from_numpy(pixels)[None].to(detector.device)).to(detector.precision)
        teacher, student = detector.teacher(inputs), detector.student(inputs)
        shares = torch.ones(1, *pixels.shape[:2]) if mask is None else torch.from_numpy(mask)[None].float()
        shares = shares.to(detector.device)
        if detector.score is Score.GLOBAL:
            where = [counted(shares, one.shape[2:]).unsqueeze(1) for one in teacher]
            terms = distillation_terms(
                [one * here for one, here in zip(teacher, where, strict=True)],
                [one * here for one, here in zip(student, where, strict=True)],
            )
            parts = terms[0] @ torch.tensor(detector.weights, device=detector.device)
        else:
            weighted = detector.score is Score.WEIGHTED
            distances = torch.cat(layer_distances(teacher, student, FLOOR if weighted else 0.0, shares))
            distances = distances[:, counted(shares, distances.shape[1:])[0]]  # [L, locations that count]
            places = largest_distances(distances.sum(dim=0)[None, None]).indices[0]
            parts = distances[:, places if weighted else places[:1]].mean(dim=1)
    layers = []
    for pool, of_teacher, of_student, adds in zip(DISTILLATION_POOLS, teacher, student, parts.tolist(), strict=True):
        layers.append(
            Layer(
                name=f"pool {pool}",
                student=_strength(of_student),
                teacher=_strength(of_teacher),
                difference=_strength(of_teacher.float() - of_student.float()),
                note=f"adds {adds:.3g} to the score",
            )
        )
    return layers


def _strength(maps: Tensor) -> np.ndarray:
    """Root mean square over channels of ``[1, C, H, W]``, float32 ``[H, W]``."""
    strength: np.ndarray = maps[0].float().square().mean(dim=0).sqrt().cpu().numpy()
    return strength
