"""Evaluates a category on images that it has not seen."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from model import measures
from model.choices import SeenPolicy
from model.detector import Detector, maps_of, scores_of
from model.lifecycle import datasets
from model.lifecycle.datasets import DatasetError, LoadedImages, Sample, load_images
from model.store.card import Card
from model.store.pair import load_detector, read_seen

PIXEL_GRID = 256


class SeenImagesError(DatasetError):
    """Training or calibration has seen some of the images that should judge the result."""


@dataclass(frozen=True)
class Evaluation:
    """How a category did on a test set; see `model.measures` for the measures.

    Attributes:
        category: its name.
        model_version: of its pair.
        calibration: how its threshold was found.
        threshold: in score units.
        normal_images: how many normal images were judged.
        anomalous_images: how many anomalous ones.
        left_out_seen: images left out because training or calibration had seen them.
        unreadable: one message for each file that could not be read.
        image: measures of the decision.
        auroc_by_defect: AUROC of each kind of defect against all normal images.
        pixel_images: anomalous images with a mask; with the normal ones they make the pixel measures.
        pixel_auroc: 0 to 1, or None without masks.
        aupro: 0 to 1, or None without masks.
    """

    category: str
    model_version: str
    calibration: str
    threshold: float
    normal_images: int
    anomalous_images: int
    left_out_seen: int
    unreadable: list[str]
    image: measures.Measures
    auroc_by_defect: dict[str, float]
    pixel_images: int
    pixel_auroc: float | None
    aupro: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a measure of the decision is its value and the ends of its interval, by name."""
        image = {name: measures.Estimate(*values)._asdict() for name, values in asdict(self.image).items()}
        return {**asdict(self), "image": image}


@dataclass(frozen=True)
class Judged:
    """A category's scores on a test set.

    Attributes:
        card: of its pair.
        detector: its pair.
        good: the normal images.
        bad: the anomalous ones.
        normal_scores: float32 ``[N]``, in the order of ``good``.
        anomalous_scores: float32 ``[M]``, in the order of ``bad``.
        left_out_seen: images left out because training or calibration had seen them.
    """

    card: Card
    detector: Detector
    good: LoadedImages
    bad: LoadedImages
    normal_scores: np.ndarray
    anomalous_scores: np.ndarray
    left_out_seen: int

    def of_defect(self) -> dict[str, np.ndarray]:
        """The scores of each kind of defect, by its name in alphabetical order."""
        defects = np.array([sample.defect or "" for sample in self.bad.samples])
        return {str(defect): self.anomalous_scores[defects == defect] for defect in np.unique(defects)}


def evaluate_category(
    weights: Path,
    teachers: Path,
    category: str,
    normal: Sequence[Sample],
    anomalous: Sequence[Sample],
    *,
    seen_policy: SeenPolicy = SeenPolicy.REFUSE,
    device: torch.device | str = "cpu",
    precision: torch.dtype = torch.float32,
    skip_unreadable: bool = False,
) -> Evaluation:
    """Judges a category on images it has not seen. Pixel measures are taken on a 256x256 grid.

    Raises:
        StoreError, TeacherError, DatasetError: see `judge_category` and `measure_judged`.
    """
    return measure_judged(
        judge_category(
            weights,
            teachers,
            category,
            normal,
            anomalous,
            seen_policy=seen_policy,
            device=device,
            precision=precision,
            skip_unreadable=skip_unreadable,
        )
    )


def judge_category(
    weights: Path,
    teachers: Path,
    category: str,
    normal: Sequence[Sample],
    anomalous: Sequence[Sample],
    *,
    seen_policy: SeenPolicy = SeenPolicy.REFUSE,
    device: torch.device | str = "cpu",
    precision: torch.dtype = torch.float32,
    skip_unreadable: bool = False,
) -> Judged:
    """Scores images that a category has not seen.

    Raises:
        StoreError, TeacherError: see `load_detector`.
        DatasetError: if files cannot be read, one is both normal and anomalous, a group has fewer than two images, or
            SeenImagesError: if the pair has seen some and the policy is to refuse.
    """
    card, detector = load_detector(weights, teachers, category, device, precision)
    good = datasets.unique(load_images(normal, card.preprocessor, skip_unreadable=skip_unreadable))
    bad = datasets.unique(load_images(anomalous, card.preprocessor, skip_unreadable=skip_unreadable))
    datasets.refuse_two_labels(good, bad)
    left_out = 0
    if seen_policy is not SeenPolicy.INCLUDE:
        seen = read_seen(weights / category)
        known = {*seen.training, *seen.held_out, *seen.calibration}
        fresh_good = [index for index, digest in enumerate(good.digests) if digest not in known]
        fresh_bad = [index for index, digest in enumerate(bad.digests) if digest not in known]
        left_out = len(good.digests) + len(bad.digests) - len(fresh_good) - len(fresh_bad)
        if left_out and seen_policy is SeenPolicy.REFUSE:
            raise SeenImagesError(
                f"training or calibration has seen {left_out} of these images, so they cannot judge the result"
            )
        good, bad = datasets.pick(good, fresh_good), datasets.pick(bad, fresh_bad)
    if min(len(good.digests), len(bad.digests)) < 2:
        raise DatasetError(
            f"evaluation needs two different normal and two anomalous images at least, got {len(good.digests)} and "
            f"{len(bad.digests)}" + (f" besides the {left_out} that were seen" if left_out else "")
        )
    normal_scores, anomalous_scores = scores_of(detector, good.pixels), scores_of(detector, bad.pixels)
    return Judged(card, detector, good, bad, normal_scores, anomalous_scores, left_out)


def measure_judged(judged: Judged) -> Evaluation:
    """All measures of a test set's scores, and of its maps where there are masks.

    Raises:
        DatasetError: if a mask cannot be read, or none marks a pixel.
    """
    card, good, bad, threshold = judged.card, judged.good, judged.bad, judged.card.calibration.threshold
    masked = [index for index, sample in enumerate(bad.samples) if sample.mask is not None]
    pixel_auroc = aupro = None
    if masked:
        maps = _on_grid(maps_of(judged.detector, np.concatenate((good.pixels, bad.pixels[masked])), card.map_form))
        masks = np.zeros(maps.shape, dtype=bool)
        for row, index in enumerate(masked, start=len(good.samples)):
            mask = bad.samples[index].mask
            assert mask is not None
            masks[row] = datasets.read_mask(mask, PIXEL_GRID)
        if not masks.any():
            raise DatasetError("none of the masks marks a pixel")
        pixel_auroc, aupro = measures.pixel_auroc(maps, masks), measures.aupro(maps, masks)
    return Evaluation(
        category=card.category,
        model_version=card.model_version,
        calibration=card.calibration.method,
        threshold=threshold,
        normal_images=len(judged.normal_scores),
        anomalous_images=len(judged.anomalous_scores),
        left_out_seen=judged.left_out_seen,
        unreadable=good.unreadable + bad.unreadable,
        image=measures.measure(judged.normal_scores, judged.anomalous_scores, threshold),
        auroc_by_defect={
            defect: measures.auroc(judged.normal_scores, scores) for defect, scores in judged.of_defect().items()
        },
        pixel_images=len(masked),
        pixel_auroc=pixel_auroc,
        aupro=aupro,
    )


def _on_grid(maps: np.ndarray) -> np.ndarray:
    return np.stack([cv2.resize(one, (PIXEL_GRID, PIXEL_GRID), interpolation=cv2.INTER_LINEAR) for one in maps])
