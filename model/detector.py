"""A teacher and a student composed: images in, scores and anomaly maps out."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from model.choices import MapForm, Score, TermWeights
from model.graphs import Outputs, graphs_of
from model.localization import Evidence
from model.memory import images_at_once
from model.networks.vgg import Student, Teacher, fold_batch_norm
from model.score import ScoreWeights, score_and_gradient

BEST_BATCH = {"cpu": 8, "cuda": 64}
"""Images per pass that measured fastest, by device type: more fit no cache on a CPU. Fewer of large ones, see
`model.memory.images_at_once`."""


@dataclass(frozen=True)
class Detection:
    """What `detect` found in N images.

    Attributes:
        scores: float32 ``[N]``, at least 0, larger is more unusual.
        distances: float32 ``[N, H / 4, W / 4]``, see `model.score.Scored`.
        evidence: of each image's anomaly map, or None if no maps were asked for.
    """

    scores: np.ndarray
    distances: np.ndarray
    evidence: list[Evidence] | None

    @cached_property
    def maps(self) -> np.ndarray | None:
        """float32 ``[N, H, W]``, or None if not asked for. Computed when first read."""
        return None if self.evidence is None else np.stack([one.anomaly_map() for one in self.evidence])


class Detector:
    """One category's pair on a device.

    Many detectors may share one teacher; `detect` then runs it once for a batch that mixes their categories.

    Args:
        teacher: moved as it is to the device, precision and channels-last layout; all its detectors must agree.
        student: copied for serving, with its BatchNorm folded; see `model.networks.vgg.fold_batch_norm`.
        weights: of the terms of equation 13.
        device: where to compute.
        precision: of the networks; the score's sums are float32 always.
        score: which score the pair has.
    """

    def __init__(
        self,
        teacher: Teacher,
        student: Student,
        weights: TermWeights = TermWeights(),
        device: torch.device | str = "cpu",
        precision: torch.dtype = torch.float32,
        score: Score = Score.GLOBAL,
    ) -> None:
        self.device = torch.device(device)
        self.precision = precision
        layout = torch.channels_last  # what convolutions on CPU and GPU like best
        self.teacher = teacher.to(self.device, precision).to(memory_format=layout)
        self.student = fold_batch_norm(student).to(self.device, precision).to(memory_format=layout)
        self.weights = weights
        self.score = score

    @property
    def score_weights(self) -> ScoreWeights:
        """The pair's score as a weighted sum."""
        return {
            Score.GLOBAL: ScoreWeights(*self.weights),
            Score.LOCAL: ScoreWeights(local=1.0),
            Score.WEIGHTED: ScoreWeights(weighted=1.0),
        }[self.score]

    def objective(self, form: MapForm) -> ScoreWeights:
        """What the gradient of such a map is taken of."""
        return ScoreWeights(*self.weights) if form is MapForm.GRADIENT else ScoreWeights(local=1.0)

    def __call__(
        self, images: np.ndarray, *, maps: MapForm | None = None, masks: np.ndarray | None = None
    ) -> Detection:
        """Inspects images of this one category, with masks bool ``[N, H, W]`` or without; see `detect`."""
        forms = None if maps is None else [maps] * len(images)
        return detect(images, [self] * len(images), maps=forms, masks=masks)


def detect(
    images: np.ndarray,
    detectors: Sequence[Detector],
    *,
    maps: Sequence[MapForm] | None = None,
    masks: Sequence[np.ndarray | None] | np.ndarray | None = None,
) -> Detection:
    """Inspects a batch whose images may belong to different categories.

    The teacher runs once over the whole batch, each student on its slice of it. In evaluation mode images do not
    interact, so one backward pass from the sum of all images' objectives gives every image its own gradient
    (equation 4).

    Args:
        images: uint8 RGB, ``[N, H, W, 3]``, N >= 1, H and W >= 32.
        detectors: one for each image; all share one teacher.
        maps: the form of each image's anomaly map; with a form other than ``distance`` among them at about twice the
            cost.
        masks: where each image counts, bool ``[H, W]``, with a pixel at least; None for an image, or for all, that
            counts everywhere.

    Raises:
        ValueError: if the images have another type or shape, or the detectors do not fit them.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or len(images) == 0:
        raise ValueError(f"images must be uint8 of shape [N, H, W, 3], got {images.dtype} {list(images.shape)}")
    if len(detectors) != len(images):
        raise ValueError(f"{len(images)} images need as many detectors, got {len(detectors)}")
    if maps is not None and len(maps) != len(images):
        raise ValueError(f"{len(images)} images need as many forms of maps, got {len(maps)}")
    of_image = [None] * len(images) if masks is None else list(masks)
    if len(of_image) != len(images) or any(one is not None and one.shape != images.shape[1:3] for one in of_image):
        raise ValueError(f"{len(images)} images of {list(images.shape[1:3])} need as many masks of that shape")
    teacher = detectors[0].teacher
    if any(detector.teacher is not teacher for detector in detectors):
        raise ValueError("all detectors of a batch must share one teacher")
    # Images of one category side by side: each student sees a view, not a copy.
    rank = {detector: index for index, detector in enumerate(dict.fromkeys(detectors))}
    order = np.argsort([rank[detector] for detector in detectors], kind="stable")
    back = np.argsort(order)
    ordered = [detectors[index] for index in order]
    weights = np.array([one.score_weights for one in ordered], dtype=np.float32)
    objectives = None
    if maps is not None and any(form is not MapForm.DISTANCE for form in maps):
        forms = [maps[index] for index in order]
        objectives = np.array([one.objective(form) for one, form in zip(ordered, forms, strict=True)], dtype=np.float32)
    where = _stacked([of_image[index] for index in order], images.shape[1:3])
    if ordered[0].device.type == "cuda":
        students = [one.student for one in ordered]
        outputs = graphs_of(teacher).run(teacher, images[order], students, weights, objectives, where)
    else:
        outputs = _run(images[order], ordered, weights, objectives, where)
    scores, distances = outputs.scores[back], outputs.distances[back]
    gradients = None if outputs.gradients is None else outputs.gradients[back]
    evidence = None
    if maps is not None:
        evidence = [
            Evidence(
                form,
                images.shape[1:3],
                distances[index],
                None if gradients is None else gradients[index],
                of_image[index],
            )
            for index, form in enumerate(maps)
        ]
    return Detection(scores, distances, evidence)


def _stacked(masks: Sequence[np.ndarray | None], shape: tuple[int, ...]) -> np.ndarray | None:
    """Masks as uint8 ``[N, H, W]``, or None where every image counts everywhere."""
    if all(mask is None for mask in masks):
        return None
    return np.stack([np.ones(shape, np.uint8) if mask is None else mask.astype(np.uint8) for mask in masks])


def _run(
    images: np.ndarray,
    detectors: Sequence[Detector],
    weights: np.ndarray,
    objectives: np.ndarray | None,
    masks: np.ndarray | None,
) -> Outputs:
    """The same as `model.graphs.PairGraphs.run`, step by step."""
    first = detectors[0]
    counts: dict[Detector, int] = {}
    for detector in detectors:
        counts[detector] = counts.get(detector, 0) + 1

    def students(inputs: Tensor) -> list[Tensor]:
        slices = inputs.split(list(counts.values()))
        maps = [detector.student(part) for detector, part in zip(counts, slices, strict=True)]
        return [torch.cat(layer) for layer in zip(*maps, strict=True)] if len(maps) > 1 else maps[0]

    gradient = objectives is not None
    with torch.inference_mode(mode=not gradient), torch.set_grad_enabled(gradient):
        found = score_and_gradient(
            first.teacher,
            students,
            torch.from_numpy(weights).to(first.device),
            None if objectives is None else torch.from_numpy(objectives).to(first.device),
            torch.from_numpy(images).to(first.device),
            first.precision,
            None if masks is None else torch.from_numpy(masks).to(first.device),
        )
    return Outputs._make(None if output is None else output.cpu().numpy() for output in found)


def scores_of(detector: Detector, pixels: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
    """Scores of prepared images ``[N, size, size, 3]``, float32 ``[N]``; the masks ``[N, size, size]``."""
    batches = zip(batches_of(detector, pixels), _masks_of(detector, pixels, masks), strict=True)
    return np.concatenate([detector(batch, masks=where).scores for batch, where in batches])


def maps_of(detector: Detector, pixels: np.ndarray, form: MapForm, masks: np.ndarray | None = None) -> np.ndarray:
    """Anomaly maps of prepared images, float32 ``[N, size, size]``; masks as in `scores_of`."""
    batches = zip(batches_of(detector, pixels), _masks_of(detector, pixels, masks), strict=True)
    found = [detector(batch, maps=form, masks=where).maps for batch, where in batches]
    return np.concatenate([maps for maps in found if maps is not None])


def _masks_of(detector: Detector, pixels: np.ndarray, masks: np.ndarray | None) -> Sequence[np.ndarray | None]:
    """In the same batches as the images."""
    if masks is None:
        return [None] * len(batches_of(detector, pixels))
    size = len(batches_of(detector, pixels)[0])
    return [masks[start : start + size] for start in range(0, len(masks), size)]


def batches_of(detector: Detector, pixels: np.ndarray) -> list[np.ndarray]:
    """Prepared images in the batches that measured fastest on the detector's device."""
    size = images_at_once(BEST_BATCH[detector.device.type], max(pixels.shape[1:3]))
    return [pixels[start : start + size] for start in range(0, len(pixels), size)]
