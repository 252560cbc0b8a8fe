"""Evaluates a category on images that it has not seen."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from model import error_rates, measures
from model.alignment import between
from model.choices import Reason, SeenPolicy
from model.detector import BEST_BATCH, Detector, maps_of, scores_of
from model.lifecycle import datasets, masks
from model.lifecycle.datasets import DatasetError, LoadedImages, Sample, load_images
from model.lifecycle.remarks import NONE, Kind, Remarks, remark
from model.store.card import Card, ErrorRate, told
from model.store.store import Store
from model.text import readable

PIXEL_GRID = 256
MAX_GRID_SIDE = 8192
"""A picture of 20 megapixels, and a long line scan, are measured on their own pixels."""


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
        remarks: what was left out.
        promise: what the calibration says of the error rates of new images, for people.
        false_alarms: the false-alarm rate with its one-sided bound; None if the pair has seen some of the images.
        misses: the same of the miss rate.
        by_check: how many normal and how many anomalous images are rejected by the check of the picture alone.
        image: measures of the decision.
        by_defect: AUROC of each kind of defect against all normal images.
        pixel_images: anomalous images with a mask that is used; with the normal ones they make the pixel measures.
        pixel_auroc: 0 to 1, of the pixels that count, or None where the masks mark none of those.
        aupro: the same.
    """

    category: str
    model_version: str
    calibration: str
    threshold: float
    normal_images: int
    anomalous_images: int
    remarks: Remarks
    promise: str
    false_alarms: ErrorRate | None
    misses: ErrorRate | None
    by_check: tuple[int, int]
    image: measures.Measures
    by_defect: dict[str, measures.Estimate]
    pixel_images: int
    pixel_auroc: float | None
    aupro: float | None

    @property
    def seen_here(self) -> str:
        """What these images say of the error rates of new ones, for people."""
        if self.false_alarms is None:
            return "These images say nothing of the error rates of new ones: training or calibration has seen some."
        return told(self.false_alarms, self.misses)

    @property
    def left_out_seen(self) -> int:
        """Images left out because training or calibration had seen them."""
        return len(self.remarks.of(Kind.SEEN))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a measure of the decision is its value and the ends of its interval, by name."""
        fields = asdict(self)
        del fields["by_defect"]
        return {
            **fields,
            "by_check": dict(zip(("normal", "anomalous"), self.by_check, strict=True)),
            "image": {name: measures.Estimate(*values)._asdict() for name, values in fields["image"].items()},
            "auroc_by_defect": {defect: estimate.value for defect, estimate in self.by_defect.items()},
            "auroc_interval_by_defect": {
                defect: {"low": estimate.low, "high": estimate.high} for defect, estimate in self.by_defect.items()
            },
            **{
                name: None if rate is None else rate.model_dump(mode="json")
                for name, rate in (("false_alarms", self.false_alarms), ("misses", self.misses))
            },
            "left_out_seen": self.left_out_seen,
            "unreadable": list(self.remarks.of(Kind.UNREADABLE)),
            "remarks": self.remarks.as_list(),
        }


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
        normal_reasons: why each of ``good`` is anomalous, see `model.store.card.Card.reasons`.
        anomalous_reasons: the same of ``bad``.
        masks: of the anomalous images that have one, by their position in ``bad``, on the grid of `grid_of`.
        remarks: what was left out.
        unseen: whether training and calibration have seen none of the images.
    """

    card: Card
    detector: Detector
    good: LoadedImages
    bad: LoadedImages
    normal_scores: np.ndarray
    anomalous_scores: np.ndarray
    normal_reasons: list[list[Reason]]
    anomalous_reasons: list[list[Reason]]
    masks: masks.GridMasks
    remarks: Remarks
    unseen: bool

    @property
    def normal_rejected(self) -> np.ndarray:
        """Which of ``good`` are rejected, bool ``[N]``."""
        return np.array([bool(reasons) for reasons in self.normal_reasons])

    @property
    def anomalous_rejected(self) -> np.ndarray:
        """Which of ``bad`` are rejected, bool ``[M]``."""
        return np.array([bool(reasons) for reasons in self.anomalous_reasons])

    @property
    def by_check(self) -> tuple[int, int]:
        """How many of ``good`` and of ``bad`` are rejected by the check of the picture alone."""
        normal, anomalous = (
            sum(bool(reasons) and Reason.SCORE not in reasons for reasons in group)
            for group in (self.normal_reasons, self.anomalous_reasons)
        )
        return normal, anomalous

    def of_defect(self) -> dict[str, np.ndarray]:
        """The positions in ``bad`` of each kind of defect, by its name in alphabetical order."""
        defects = np.array([readable(sample.defect or "") for sample in self.bad.samples])
        return {str(defect): np.flatnonzero(defects == defect) for defect in np.unique(defects)}


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
    remarks: Remarks = NONE,
) -> Evaluation:
    """Judges a category on images it has not seen. Pixel measures are taken on the grid of `grid_of`.

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
            remarks=remarks,
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
    remarks: Remarks = NONE,
) -> Judged:
    """Scores images that a category has not seen.

    One that cannot be aligned counts as rejected: its score is the threshold at least.

    Args:
        weights: the folder of categories.
        teachers: the folder of teachers.
        category: its name.
        normal: images of normal parts.
        anomalous: images of defective parts, some perhaps with masks.
        seen_policy: what to do with images that training or calibration has seen.
        device: where to score.
        precision: of the networks.
        skip_unreadable: go on without files that cannot be read.
        remarks: what was left out before; it becomes part of the result.

    Raises:
        StoreError, TeacherError: see `model.store.store.Store.load`.
        DatasetError: if files cannot be read, one is both normal and anomalous, a group has fewer than two images, or
            a mask cannot be that of its image.
        SeenImagesError: if the pair has seen some and the policy is to refuse.
    """
    store = Store(weights, teachers)
    card, detector = store.load(category, device, precision)
    good = datasets.unique(load_images(normal, card.preprocessor, skip_unreadable=skip_unreadable))
    bad = datasets.unique(load_images(anomalous, card.preprocessor, skip_unreadable=skip_unreadable))
    datasets.refuse_two_labels(good, bad)
    remarks += good.remarks + bad.remarks
    seen = store.seen(category)
    known = {*seen.training, *seen.held_out, *seen.calibration}
    new_good, seen_good = _apart(good, known)
    new_bad, seen_bad = _apart(bad, known)
    left_out = len(seen_good + seen_bad)
    if seen_policy is not SeenPolicy.INCLUDE:
        if left_out and seen_policy is SeenPolicy.REFUSE:
            raise SeenImagesError(
                f"training or calibration has seen {left_out} of these images, so they cannot judge the result"
            )
        good, bad = new_good, new_bad
        remarks += remark(Kind.SEEN, *seen_good, *seen_bad)
    if min(len(good.digests), len(bad.digests)) < 2:
        without = len(remarks.of(Kind.SEEN))
        raise DatasetError(
            f"evaluation needs two different normal and two anomalous images at least, got {len(good.digests)} and "
            f"{len(bad.digests)}" + (f" besides the {without} that were seen" if without else "")
        )
    of_bad, about_masks = read_masks(bad, partial(grid_of, card))
    normal_scores, anomalous_scores = (_scores(card, detector, images) for images in (good, bad))
    normal_reasons, anomalous_reasons = (
        [
            card.reasons(float(score), look, pose)
            for score, look, pose in zip(scores, images.looks(), images.poses, strict=True)
        ]
        for scores, images in ((normal_scores, good), (anomalous_scores, bad))
    )
    unseen = seen_policy is not SeenPolicy.INCLUDE or not left_out
    return Judged(
        card,
        detector,
        good,
        bad,
        normal_scores,
        anomalous_scores,
        normal_reasons,
        anomalous_reasons,
        of_bad,
        remarks + about_masks,
        unseen,
    )


def _scores(card: Card, detector: Detector, images: LoadedImages) -> np.ndarray:
    scores = card.part_scores(scores_of(detector, images.pixels, images.masks))
    lost = [pose is not None and not pose.aligned for pose in images.poses]
    found: np.ndarray = np.where(lost, np.maximum(scores, card.calibration.threshold), scores)
    return found


def _apart(images: LoadedImages, known: set[str]) -> tuple[LoadedImages, list[Path]]:
    """The images that are not known, and the paths of those that are."""
    is_known = [bool(known.intersection(images.seen_as(index))) for index in range(len(images.samples))]
    paths = [sample.path for sample, left_out in zip(images.samples, is_known, strict=True) if left_out]
    return datasets.pick(images, np.flatnonzero(~np.array(is_known))), paths


def grid_of(card: Card, shape: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the grid on which the pixels of an image are measured.

    It is 256x256 where the networks see the whole image at once. Where they see it in pieces it is that of the image's
    own pixels, with sides of `MAX_GRID_SIDE` at most.

    Args:
        card: of the category.
        shape: height and width of the image, pixels.
    """
    if card.preprocessing.tiles is None and card.preprocessing.region is None:
        return PIXEL_GRID, PIXEL_GRID
    scale = min(1.0, MAX_GRID_SIDE / max(shape))
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def counted(card: Card, shape: tuple[int, ...]) -> np.ndarray | None:
    """Where the pixels of a map of this height and width count, bool ``[H, W]``; None where all do."""
    region = card.preprocessing.region
    if region is None:
        return None
    found: np.ndarray = np.any([region.marked(zone, shape[1], shape[0]) for zone in region.zones], axis=0)
    return found


def read_masks(
    bad: LoadedImages, grid: Callable[[tuple[int, int]], tuple[int, int]]
) -> tuple[masks.GridMasks, Remarks]:
    """The masks of anomalous images that have one, all of them checked, and why others have none.

    Args:
        bad: the anomalous images.
        grid: gives the width and height in which the mask of an image of this height and width is wanted.

    Raises:
        DatasetError: naming the first mask that is refused, see `model.lifecycle.masks.decode_mask` and `check_mask`,
            and the number of others; or if none of the masks marks a pixel.
    """
    refused: list[str] = []
    found: dict[int, tuple[Path, tuple[int, int]]] = {}
    files: dict[Kind, list[Path]] = {kind: [] for kind in (Kind.EMPTY_MASK, Kind.TURNED, Kind.SHADED_MASK)}
    for index, (sample, shape) in enumerate(zip(bad.samples, bad.shapes, strict=True)):
        if sample.mask is None:
            continue
        try:
            mask = masks.decode_mask(sample.mask)
            masks.check_mask(sample.mask, mask, sample.path, shape)
        except DatasetError as error:
            refused.append(str(error))
            continue
        if not mask.marked.any():
            files[Kind.EMPTY_MASK].append(sample.path)
        elif masks.is_ambiguous(mask, sample.path, shape):
            files[Kind.TURNED].append(sample.path)
        else:
            found[index] = sample.mask, grid(shape)
            if mask.shaded:
                files[Kind.SHADED_MASK].append(sample.mask)
    if refused:
        more = len(refused) - 1
        raise DatasetError(refused[0] + (f" ({more} more of the masks cannot be used)" if more else ""))
    given = [sample.path for sample in bad.samples if sample.mask is not None]
    if given and len(files[Kind.EMPTY_MASK]) == len(given):
        raise DatasetError("none of the masks marks a pixel")
    missing = [sample.path for sample in bad.samples if sample.mask is None] if given else []
    remarks = remark(Kind.NO_MASK, *missing)
    return masks.GridMasks(found), sum((remark(kind, *paths) for kind, paths in files.items()), remarks)


def measure_judged(judged: Judged) -> Evaluation:
    """All measures of a test set's scores, and of its maps where there are masks."""
    card, good, bad, threshold = judged.card, judged.good, judged.bad, judged.card.calibration.threshold
    pixel_auroc = aupro = None
    if judged.masks:
        curve, grid = measures.PixelCurve(), partial(grid_of, card)
        for anomaly_map in maps_of_pictures(card, judged.detector, good, grid):
            curve.add(anomaly_map, counts=counted(card, anomaly_map.shape))
        of_masked = maps_of_pictures(card, judged.detector, datasets.pick(bad, judged.masks), grid)
        for anomaly_map, mask in zip(of_masked, judged.masks.values(), strict=True):
            curve.add(anomaly_map, mask, counted(card, anomaly_map.shape))
        if curve.has_both:  # all faults may lie outside of the region
            pixel_auroc, aupro = curve.auroc(), curve.aupro()
    return Evaluation(
        category=card.category,
        model_version=card.model_version,
        calibration=card.calibration.method,
        threshold=threshold,
        normal_images=len(judged.normal_scores),
        anomalous_images=len(judged.anomalous_scores),
        remarks=judged.remarks,
        promise=card.promise,
        false_alarms=_independent(judged.normal_rejected) if judged.unseen else None,
        misses=_independent(~judged.anomalous_rejected) if judged.unseen else None,
        by_check=judged.by_check,
        image=measures.measure_decided(
            judged.normal_scores, judged.anomalous_scores, judged.normal_rejected, judged.anomalous_rejected
        ),
        by_defect={
            defect: measures.auroc_estimate(judged.normal_scores, judged.anomalous_scores[places])
            for defect, places in judged.of_defect().items()
        },
        pixel_images=len(judged.masks),
        pixel_auroc=pixel_auroc,
        aupro=aupro,
    )


def _independent(wrong: np.ndarray) -> ErrorRate:
    return ErrorRate(**asdict(error_rates.independent(int(wrong.sum()), len(wrong))))


def maps_of_pictures(
    card: Card, detector: Detector, images: LoadedImages, grid: Callable[[tuple[int, int]], tuple[int, int]]
) -> Iterator[np.ndarray]:
    """The anomaly map of each picture in the card's form, float32.

    Args:
        card: of the pair.
        detector: the pair.
        images: the pictures.
        grid: gives the width and height in which the map of an image of this height and width is wanted.
    """
    at_once = max(1, BEST_BATCH[detector.device.type] // images.views)
    for start in range(0, len(images.samples), at_once):
        some = datasets.pick(images, range(start, min(start + at_once, len(images.samples))))
        maps = maps_of(detector, some.pixels, card.map_form, some.masks)
        of_pictures = maps.reshape(len(some.samples), images.views, *maps.shape[1:])
        for shape, pose, of_views in zip(some.shapes, some.poses, of_pictures, strict=True):
            layout = card.preprocessor.layout(shape[1], shape[0])
            size = grid(shape)
            found = layout.stitched(list(of_views), *size)
            if pose is not None:
                steps = ((layout.width / size[0], layout.height / size[1]), (shape[1] / size[0], shape[0] / size[1]))
                found = cv2.warpAffine(found, between(pose.matrix, *steps), size, flags=cv2.INTER_LINEAR)
            yield found
