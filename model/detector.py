"""A teacher and a student composed: images in, scores and anomaly maps out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from model.localization import anomaly_map
from model.score import TermWeights, distillation_score, distillation_terms
from model.vgg import Student, Teacher, normalize


@dataclass(frozen=True)
class Detection:
    """What `detect` found in N images.

    Attributes:
        scores: float32 ``[N]``, equation 13, at least 0, larger is stranger.
        terms: float32 ``[N, L, 2]``, the score's terms a distillation layer before weighting: mean squared difference,
            and one minus cosine similarity.
        maps: float32 ``[N, H, W]``, equation 5, or None if not asked for.
    """

    scores: np.ndarray
    terms: np.ndarray
    maps: np.ndarray | None


class Detector:
    """One category's pair on a device.

    Many detectors may share one teacher; `detect` then runs it once for a batch that mixes their categories.
    The networks are moved to the device and put into evaluation mode.
    """

    def __init__(
        self,
        teacher: Teacher,
        student: Student,
        weights: TermWeights = TermWeights(),
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.teacher = teacher.to(self.device)
        self.student = student.to(self.device).eval().requires_grad_(False)
        self.weights = weights

    def __call__(self, images: np.ndarray, *, maps: bool = False) -> Detection:
        """Inspects images of this one category; see `detect`."""
        return detect(images, [self] * len(images), maps=maps)


def detect(images: np.ndarray, detectors: Sequence[Detector], *, maps: bool = False) -> Detection:
    """Inspects a batch whose images may belong to different categories.

    The teacher runs once over the whole batch, each student on its slice of it. In evaluation mode images do not
    interact, so one backward pass from the sum of the scores gives every image its own gradient (equation 4).

    Args:
        images: uint8 RGB, ``[N, H, W, 3]``, N >= 1, H and W >= 32.
        detectors: one for each image; all share one teacher.
        maps: also compute the anomaly maps, at about twice the cost.

    Raises:
        ValueError: if the images have another type or shape, or the detectors do not fit them.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or len(images) == 0:
        raise ValueError(f"images must be uint8 of shape [N, H, W, 3], got {images.dtype} {list(images.shape)}")
    if len(detectors) != len(images):
        raise ValueError(f"{len(images)} images need as many detectors, got {len(detectors)}")
    teacher, device = detectors[0].teacher, detectors[0].device
    if any(detector.teacher is not teacher for detector in detectors):
        raise ValueError("all detectors of a batch must share one teacher")

    slices: dict[Detector, list[int]] = {}
    for index, detector in enumerate(detectors):
        slices.setdefault(detector, []).append(index)

    with torch.inference_mode(mode=not maps), torch.set_grad_enabled(maps):
        # [N, H, W, 3] permuted is already channels-last, which convolutions on CPU and GPU like best.
        x = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float().div(255).requires_grad_(maps)
        inputs = normalize(x)
        teacher_maps = teacher(inputs)
        terms, scores, order = [], [], []
        for detector, indices in slices.items():
            # A batch of one category, the usual case, needs no copies.
            whole = len(slices) == 1
            theirs = teacher_maps if whole else [teacher_map[indices] for teacher_map in teacher_maps]
            slice_terms = distillation_terms(theirs, detector.student(inputs if whole else inputs[indices]))
            terms.append(slice_terms)
            scores.append(distillation_score(slice_terms, detector.weights))
            order += indices
        back = torch.argsort(torch.tensor(order, device=device))
        all_scores = torch.cat(scores)[back]
        all_terms = torch.cat(terms)[back]
        found_maps = None
        if maps:
            (gradient,) = torch.autograd.grad(all_scores.sum(), x)
            gradients = gradient.abs().sum(dim=1).cpu().numpy()
            found_maps = np.stack([anomaly_map(image_gradient) for image_gradient in gradients])
    return Detection(all_scores.detach().cpu().numpy(), all_terms.detach().cpu().numpy(), found_maps)
