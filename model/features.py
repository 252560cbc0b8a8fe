"""What teacher and student make of one image at each distillation layer: the paper's figure 9."""

import numpy as np
import torch
from torch import Tensor

from model.detector import Detector
from model.figures import Layer
from model.score import distillation_terms
from model.vgg import DISTILLATION_POOLS, normalize


def layers_of(detector: Detector, pixels: np.ndarray) -> list[Layer]:
    """The maps of both networks and of their difference, and what each layer adds to the score.

    Args:
        detector: the pair.
        pixels: uint8 RGB ``[size, size, 3]``, from `model.images.preprocess`.
    """
    with torch.inference_mode():
        inputs = torch.from_numpy(pixels)[None].to(detector.device).permute(0, 3, 1, 2).float().div(255)
        inputs = normalize(inputs).to(detector.precision)
        teacher, student = detector.teacher(inputs), detector.student(inputs)
        terms = distillation_terms(teacher, student)[0].cpu().numpy()
    layers = []
    for pool, of_teacher, of_student, (squared, direction) in zip(
        DISTILLATION_POOLS, teacher, student, terms, strict=True
    ):
        adds = detector.weights.squared * squared + detector.weights.direction * direction
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
