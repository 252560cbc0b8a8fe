"""A teacher and a student composed: images in, scores and anomaly maps out."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from model.graphs import graphs_of
from model.localization import anomaly_map
from model.score import TermWeights, score_and_gradient
from model.vgg import Student, Teacher, fold_batch_norm

BEST_BATCH = {"cpu": 8, "cuda": 64}
"""Images a pass that measured fastest, by device type: more fit no cache on a CPU."""


@dataclass(frozen=True)
class Detection:
    """What `detect` found in N images.

    Attributes:
        scores: float32 ``[N]``, equation 13, at least 0, larger is stranger.
        terms: float32 ``[N, L, 2]``, the score's terms a distillation layer before weighting: mean squared difference,
            and one minus cosine similarity.
        gradients: float32 ``[N, H, W]``, equation 4, or None if no maps were asked for.
    """

    scores: np.ndarray
    terms: np.ndarray
    gradients: np.ndarray | None

    @cached_property
    def maps(self) -> np.ndarray | None:
        """float32 ``[N, H, W]``, equation 5, or None if not asked for. Computed when first read."""
        return None if self.gradients is None else np.stack([anomaly_map(gradient) for gradient in self.gradients])


class Detector:
    """One category's pair on a device.

    Many detectors may share one teacher; `detect` then runs it once for a batch that mixes their categories.

    Args:
        teacher: moved as it is to the device, precision and channels-last layout; all its detectors must agree.
        student: copied for serving, with its BatchNorm folded; see `model.vgg.fold_batch_norm`.
        weights: of the score's terms.
        device: where to compute.
        precision: of the networks; the score's sums are float32 always.
    """

    def __init__(
        self,
        teacher: Teacher,
        student: Student,
        weights: TermWeights = TermWeights(),
        device: torch.device | str = "cpu",
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.device = torch.device(device)
        self.precision = precision
        layout = torch.channels_last  # what convolutions on CPU and GPU like best
        self.teacher = teacher.to(self.device, precision).to(memory_format=layout)
        self.student = fold_batch_norm(student).to(self.device, precision).to(memory_format=layout)
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
    teacher = detectors[0].teacher
    if any(detector.teacher is not teacher for detector in detectors):
        raise ValueError("all detectors of a batch must share one teacher")
    # Images of one category side by side: each student sees a view, not a copy.
    rank = {detector: index for index, detector in enumerate(dict.fromkeys(detectors))}
    order = np.argsort([rank[detector] for detector in detectors], kind="stable")
    back = np.argsort(order)
    ordered = [detectors[index] for index in order]
    if ordered[0].device.type == "cuda":
        run = graphs_of(teacher).run
        outputs = run(teacher, images[order], [one.student for one in ordered], [one.weights for one in ordered], maps)
    else:
        outputs = _run(images[order], ordered, maps)
    scores, terms, gradients = (None if output is None else output[back] for output in outputs)
    assert scores is not None
    assert terms is not None
    return Detection(scores, terms, gradients)


def _run(
    images: np.ndarray, detectors: Sequence[Detector], gradient: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Scores, terms and gradients of images that lie side by side by category."""
    first = detectors[0]
    counts: dict[Detector, int] = {}
    for detector in detectors:
        counts[detector] = counts.get(detector, 0) + 1

    def students(inputs: Tensor) -> list[Tensor]:
        slices = inputs.split(list(counts.values()))
        maps = [detector.student(part) for detector, part in zip(counts, slices, strict=True)]
        return [torch.cat(layer) for layer in zip(*maps, strict=True)] if len(maps) > 1 else maps[0]

    weights = torch.tensor([detector.weights for detector in detectors], device=first.device)
    with torch.inference_mode(mode=not gradient), torch.set_grad_enabled(gradient):
        pixels = torch.from_numpy(images).to(first.device)
        outputs = score_and_gradient(first.teacher, students, weights, pixels, first.precision, gradient)
    scores, terms, gradients = outputs
    return (
        scores.detach().cpu().numpy(),
        terms.detach().cpu().numpy(),
        None if gradients is None else gradients.cpu().numpy(),
    )
