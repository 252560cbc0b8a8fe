"""The schema of the files of a student: ``card.json``, its record, and the images it has seen."""

import json
import math
import re
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from model.alignment import Alignment, Found
from model.calibration import CalibrationError, Verdict, check_band, rejects, verdict_of
from model.choices import Basis, Bayer, Colour, Fit, MapForm, Reason, Schedule, Score
from model.drift import QUANTILES
from model.preprocessing import Normalization, Preprocessing, Tiles
from model.quality import Look, PictureCheck
from model.reading import Levels
from model.region import Region

SCHEMA_VERSION = 5
SEPARATION = 0.6
"""A category whose AUROC may be this low or lower is not shown to separate faulty parts from good ones."""
CATEGORY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""Of a version or a teacher; it goes into headers, labels and addresses as it is."""
Line = Annotated[str, Field(pattern=r"^[ -~]{1,100}$")]
"""Printable ASCII, for people."""
Count = Annotated[int, Field(ge=0, le=1 << 53)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0, le=1)]
CalibrationMethod = Literal["youden", "synthetic", "false-alarm-target", "manual", "normal-quantile"]
"""See `Calibration`."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Architecture(_Record):
    """The student's shape. ``plan``: channels of each convolution in order, ``"M"`` a max-pool."""

    plan: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)] | Literal["M"], ...], Field(max_length=64)]
    weigh_distillation_layers: bool


class PreprocessingRecord(_Record):
    """A `model.preprocessing.Preprocessing` without its size, which cards have as ``image_size``."""

    colour: Colour = Field(default=Colour.RGB, description="Which channels are read")
    resize: Fit = Fit.STRETCH
    normalization: Normalization = "imagenet"
    region: Region | None = None
    tiles: Tiles | None = None
    levels: Levels | None = Field(
        default=None, description="Of files of more than 8 bits; null: of 16-bit values the upper byte counts"
    )
    bayer: Bayer | None = Field(default=None, description="Where the colours are in raw sensor data, else null")
    reference_brightness: float | None = Field(
        default=None,
        gt=0,
        le=255,
        description="Mean brightness that each image is brought to, by a factor of 1/2 to 2; null: left as it is",
    )
    alignment: Alignment | None = Field(
        default=None, description="How each image is aligned, and the reference picture; null: taken as it is"
    )
    scaled_decoding: bool = Field(
        default=False,
        description="Whether JPEGs are decoded at 1/2, 1/4 or 1/8 of their size where each image for the networks "
        "still has twice its own width and height of them",
    )

    @classmethod
    def of(cls, preprocessing: Preprocessing) -> Self:
        """The record of a preprocessing."""
        fields = dict(vars(preprocessing))
        del fields["size"]
        return cls(**fields)


class TeacherReference(_Record):
    """Which teacher the student learned from: its name, and the fingerprint of its weights."""

    name: Name
    sha256: Sha256


class TrainingRecord(_Record):
    """How the student came about. ``held_out`` normal images gave the first threshold and the map scale."""

    images: Count = Field(ge=1)
    held_out: Count = Field(ge=1)
    views: Count = Field(default=1, ge=1, description="How many images for the networks each of them made")
    epochs: Count = Field(ge=1)
    batch_size: Count = Field(ge=1)
    learning_rate: float = Field(gt=0, description="Of Adam, the largest of all steps")
    schedule: Schedule = Field(default=Schedule.CONSTANT, description="How the learning rate changed")
    final_loss: float = Field(ge=0)
    seed: Count
    device: Line
    torch: Line
    seconds: float = Field(ge=0, description="Wall-clock time of training, seconds")
    date: datetime
    region: Region | None = Field(
        default=None, description="What counted in training: the student knows the rest as paint. Null for all"
    )

    @property
    def steps(self) -> int:
        """How many batches it has learned from."""
        return self.epochs * math.ceil(self.images * self.views / self.batch_size)


class RocCurve(_Record):
    """Points of the ROC curve in order of rising false-alarm rate."""

    false_alarm_rate: tuple[Share, ...]
    detection_rate: tuple[Share, ...]
    threshold: tuple[float, ...]

    @model_validator(mode="after")
    def _has_whole_points(self) -> Self:
        if not 0 < len(self.false_alarm_rate) == len(self.detection_rate) == len(self.threshold):
            raise ValueError("every point needs a false-alarm rate, a detection rate and a threshold")
        return self


class ScoreHistogram(_Record):
    """Counts of calibration scores between neighbouring ``edges`` (one more edge than counts)."""

    edges: tuple[float, ...]
    normal: tuple[Count, ...]
    anomalous: tuple[Count, ...]

    @model_validator(mode="after")
    def _has_whole_bins(self) -> Self:
        if not 0 < len(self.normal) == len(self.anomalous) == len(self.edges) - 1:
            raise ValueError("every bin needs two edges, a count of normal images and one of anomalous images")
        if any(left >= right for left, right in pairwise(self.edges)):
            raise ValueError("the edges must rise")
        return self


Quantiles = Annotated[tuple[float, ...], Field(min_length=QUANTILES, max_length=QUANTILES)]


class Usual(_Record):
    """How the normal pictures of the calibration lay: of each measure 21 quantiles, from the least value to the largest
    in steps of 5 % of the pictures. Drift is measured from here."""

    images: Count = Field(default=0, description="How many they were; a calibration from labels keeps those before it")
    score: Quantiles | None = Field(
        default=None,
        description="In score units; null for a category with zones whose threshold no calibration moves",
    )
    brightness: Quantiles | None = Field(default=None, description="On the scale of 0 to 255")
    contrast: Quantiles | None = Field(default=None, description="On the scale of 0 to 127.5")
    sharpness: Quantiles | None = Field(default=None, description="Fine detail as a share of all detail")
    aspect_ratio: Quantiles | None = Field(default=None, description="Width over height")

    @model_validator(mode="after")
    def _rises(self) -> Self:
        for name, found in self.model_dump(exclude={"images"}, exclude_none=True).items():
            if not self.images or any(left > right for left, right in pairwise(found)):
                raise ValueError(f"there must be images, and the quantiles of {name} must rise")
        return self


class Interval(_Record):
    """A 95 % interval of a share."""

    low: Share
    high: Share


class ErrorRate(_Record):
    """How often good parts are rejected, or faulty ones accepted; `model.error_rates` says how it is found."""

    errors: Count = Field(description="Parts of the calibration that are judged wrongly")
    parts: Count = Field(ge=1, description="All parts of this kind, good or faulty, that the calibration had")
    expected: Share | None = Field(description="The rate to expect of new parts; null where it is not known")
    bound: Share = Field(description="With 95 % confidence the rate of new parts is not above this")
    basis: Basis = Field(
        description="Whether these parts chose the threshold: independent, they did not; order-statistic, by one of "
        "their scores whose rank was chosen before; same-parts, in another way. The bound allows for it"
    )

    @model_validator(mode="after")
    def _counts_parts(self) -> Self:
        if self.errors > self.parts:
            raise ValueError("there cannot be more errors than parts")
        return self


class LabelRecord(_Record):
    """The inspections that a calibration from labels counts; see `model.lifecycle.labelled`."""

    first: datetime = Field(description="Time of the first of these inspections")
    last: datetime = Field(description="Time of the last of them")
    normal: Count = Field(description="Good parts among them, each in the random sample or with a known weight")
    anomalous: Count = Field(description="Faulty parts, likewise")
    sampled_normal: Count = Field(description="Good parts in the random sample of all images")
    sampled_anomalous: Count = Field(description="Faulty parts in it")


class ReviewBand(_Record):
    """Scores between which a person should look at the part."""

    low: float = Field(gt=0, description="A part passes when its score is below this; not above the threshold")
    high: float = Field(gt=0, description="A part fails when its score is at or above this; not below the threshold")


class Calibration(_Record):
    """Where the threshold comes from.

    ``youden``: from normal and anomalous images, where the Youden index is largest. ``synthetic``: from normal images
    and defects pasted on them, see `model.calibration.without_anomalous`. ``false-alarm-target``: from normal images
    and the false-alarm rate that was asked for, see `model.error_rates.threshold_for`. ``manual``: set by hand.
    ``normal-quantile``, in older cards: a quantile of normal scores.

    Youden index, AUROC and ROC are those of the images; they are null where there were no anomalous ones.
    """

    method: CalibrationMethod
    threshold: float = Field(description="An image is anomalous when its score is at or above this")
    review: ReviewBand | None = Field(default=None, description="Where a person should look; null for nowhere")
    normal_images: Count = Field(ge=1)
    anomalous_images: Count
    quantile: Share | None = None
    max_false_alarms: Share | None = Field(default=None, description="The false-alarm rate that was asked for")
    with_confidence: bool | None = Field(
        default=None, description="Whether the rate stays below that with 95 % confidence, or on average"
    )
    false_alarms: ErrorRate | None = Field(default=None, description="Of good parts; null where none were counted")
    misses: ErrorRate | None = Field(default=None, description="Of faulty parts; null where none were counted")
    youden_index: Share | None = Field(default=None, description="The largest one of the curve")
    auroc: Share | None = None
    auroc_interval: Interval | None = Field(default=None, description="Where the AUROC may lie, with so few images")
    roc: RocCurve | None = None
    histogram: ScoreHistogram
    usual: Usual = Usual()
    labels: LabelRecord | None = Field(
        default=None, description="Where the images are inspections that people labelled; null for files"
    )
    date: datetime

    @model_validator(mode="after")
    def _fits_its_method(self) -> Self:
        measured = [one is not None for one in (self.youden_index, self.auroc, self.roc)]
        asked_for = self.method in ("false-alarm-target", "manual")
        has_curve = self.method == "youden" or (asked_for and self.anomalous_images > 0)
        if has_curve and not (all(measured) and self.anomalous_images):
            raise ValueError(
                f"with the method {self.method} there are anomalous images, a Youden index, an AUROC and a ROC"
            )
        if not has_curve and (any(measured) or self.auroc_interval):
            raise ValueError(f"with the method {self.method} there is no Youden index, no AUROC and no ROC")
        asked = [one is not None for one in (self.max_false_alarms, self.with_confidence)]
        if asked != [self.method == "false-alarm-target"] * 2:
            raise ValueError("max_false_alarms and with_confidence belong to the method false-alarm-target")
        return self

    @model_validator(mode="after")
    def _has_its_threshold_in_the_band(self) -> Self:
        if self.review is not None:
            try:
                check_band(self.review.low, self.review.high, self.threshold)
            except CalibrationError as error:
                raise ValueError(str(error)) from None
        return self

    def verdict(self, score: float) -> Verdict:
        """What becomes of an image of this score. Without a review band it passes, or fails."""
        band = self.review or ReviewBand.model_construct(low=self.threshold, high=self.threshold)
        return verdict_of(score, band.low, band.high)

    def rejects(self, score: float) -> bool:
        """Whether an image of this score is anomalous."""
        return rejects(score, self.threshold)

    @cached_property
    def interval(self) -> Interval | None:
        """The 95 % interval of the AUROC, also of a card that was written before it was kept; None without AUROC."""
        if self.auroc is None or self.auroc_interval is not None:
            return self.auroc_interval
        from model.measures import auroc_interval  # brings scipy and OpenCV, which newer cards need not wait for

        low, high = auroc_interval(self.auroc, self.normal_images, self.anomalous_images)
        return Interval(low=low, high=high)

    @cached_property
    def error_rates(self) -> tuple[ErrorRate | None, ErrorRate | None]:
        """Of good and of faulty parts; the ROC curve tells them of a Youden threshold that was set before they were
        kept, except the rates to expect."""
        if self.method != "youden" or self.roc is None or self.false_alarms or self.misses:
            return self.false_alarms, self.misses
        from model.error_rates import same_parts  # see `interval`

        # Youden's threshold lies between a corner's score and the next score below, so it rejects what the corner does.
        corner = max(0, sum(1 for score in self.roc.threshold if self.rejects(score)) - 1)
        alarm_rate, detection_rate = self.roc.false_alarm_rate[corner], self.roc.detection_rate[corner]
        if abs(detection_rate - alarm_rate - (self.youden_index or 0)) > 1e-9:  # somebody has changed the card
            return None, None
        counts = (alarm_rate, self.normal_images), (1 - detection_rate, self.anomalous_images)
        alarms, misses = (
            ErrorRate(**vars(same_parts(round(rate * parts), parts, expected=None))) for rate, parts in counts
        )
        return alarms, misses

    @property
    def promise(self) -> str:
        """What may be said of the error rates of new parts, in sentences for people."""
        if self.error_rates != (None, None):
            return told(*self.error_rates)
        if self.method == "manual":
            return "The threshold was set by hand without images, so its error rates are not known."
        return "How often new good parts are rejected was not recorded; calibrate again to know it."

    @property
    def separates(self) -> bool | None:
        """Whether its images have shown that scores tell faulty parts from good ones; None without faulty ones."""
        return None if self.interval is None else self.interval.low > SEPARATION

    @property
    def warning(self) -> str | None:
        """Why the verdicts of this calibration should not be used, or None."""
        if self.interval is None or self.separates:
            return None
        return (
            f"does not separate: the AUROC is {self.auroc:.3f}, and with {self.normal_images} normal and "
            f"{self.anomalous_images} anomalous images it may be anything from {self.interval.low:.2f} to "
            f"{self.interval.high:.2f} (95 %), which reaches down to {SEPARATION}"
        )


def told(false_alarms: ErrorRate | None, misses: ErrorRate | None) -> str:
    """Error rates in a sentence for each kind of parts; a bound is rounded up."""
    sentences = []
    for kind, verdict, rate in (("good", "rejected", false_alarms), ("faulty", "accepted", misses)):
        if rate is None:
            continue
        bound = f"with 95 % confidence at most {_percent(math.ceil(1000 * rate.bound - 1e-9) / 1000)}"
        rates = (
            f"{bound} are {verdict}"
            if rate.expected is None
            else f"about {_percent(rate.expected)} are {verdict} on average, and {bound}"
        )
        were = "was" if rate.errors == 1 else "were"
        sentences.append(f"Of new {kind} parts, {rates} ({rate.errors} of {rate.parts} {were}).")
    return " ".join(sentences)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


UNNAMED = "unnamed"
"""The version of a card that is still being made; see `Card.named`."""
RECORDS: dict[str, Any] = {
    "schema_version": True,
    "category": True,
    "model_version": True,
    "training": True,
    "teacher": {"name"},
    "calibration": {
        "normal_images",
        "anomalous_images",
        "quantile",
        "max_false_alarms",
        "with_confidence",
        "false_alarms",
        "misses",
        "youden_index",
        "auroc",
        "auroc_interval",
        "roc",
        "histogram",
        "usual",
        "labels",
        "date",
    },
}
"""What a card says that decides nothing. All else goes into the name of its version, a field that is added too."""


_SCORING = {
    "architecture", "image_size", "preprocessing", "score", "squared_weight", "direction_weight", "teacher",
    "student_sha256",
}  # fmt: skip
"""What a card says that decides the scores of views."""


def _scoring(card: "Card") -> dict[str, Any]:
    return card.model_dump(include=_SCORING)


class Card(_Record):
    """The passport of a pair, ``card.json``.

    Version 1 knew neither ``score`` nor ``other_map_scales``; its pairs have the global score. Version 3 brought
    ``auroc_interval`` and the weighted score, version 4 error rates and thresholds that a person asks for, version 5
    regions, zones, tiles, how a picture is fitted and aligned, what its values mean, the check of the picture, what is
    usual, calibrations from labels, and the review band.
    """

    schema_version: int = Field(default=SCHEMA_VERSION, ge=1, le=SCHEMA_VERSION)
    category: Annotated[str, Field(pattern=f"^{CATEGORY_NAME.pattern}$")]
    model_version: Name
    architecture: Architecture
    image_size: int = Field(ge=32, le=2048, description="Side in pixels of the square that the networks see")
    preprocessing: PreprocessingRecord = PreprocessingRecord()
    score: Score = Field(
        default=Score.GLOBAL,
        description=(
            "global: equation 13; local: the largest distance at one location; weighted: the largest distances, each "
            "weighted by how much the teacher sees there"
        ),
    )
    squared_weight: float = Field(ge=0, default=1.0, description="Of equation 13, the loss; with global the score too")
    direction_weight: float = Field(ge=0, description="Lambda of equation 13")
    zone_thresholds: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="Of the zones of the region that have one of their own, in score units"
    )
    zone_weights: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={},
        description="Of the zones that are judged by their own level: what their scores are multiplied by before they "
        "are compared with the threshold, so that good parts come close to it in each of them",
    )
    picture_check: PictureCheck | None = Field(
        default=None,
        description="Between which measures the pictures of good parts lie: brightness and contrast on the scale of 0 "
        "to 255, sharpness, and width over height. Null for a category without this check",
    )
    teacher: TeacherReference
    student_sha256: Sha256
    training: TrainingRecord
    calibration: Calibration
    map_scale: float = Field(gt=0, description="High quantile of the anomaly map on held-out normal images")
    other_map_scales: dict[MapForm, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="The same of the forms of map that are not the category's own"
    )

    @model_validator(mode="after")
    def _fits_its_version(self) -> Self:
        if self.schema_version == 1 and (self.score is not Score.GLOBAL or self.other_map_scales):
            raise ValueError("schema version 1 has the global score and one map scale only")
        if self.schema_version < 3 and self.calibration.auroc_interval is not None:
            raise ValueError(f"schema version {self.schema_version} knows no auroc_interval")
        if self.schema_version < 3 and self.score is Score.WEIGHTED:
            raise ValueError(f"schema version {self.schema_version} has no weighted score")
        found = self.calibration
        asked_for = found.method in ("false-alarm-target", "manual")
        if self.schema_version < 4 and (asked_for or found.false_alarms or found.misses):
            raise ValueError(f"schema version {self.schema_version} knows no error rates, and no threshold asked for")
        newer = self.preprocessing.model_dump(exclude_defaults=True)
        if self.schema_version < 5 and newer:
            raise ValueError(f"schema version {self.schema_version} does not know preprocessing.{next(iter(newer))}")
        if self.schema_version < 5 and self.picture_check is not None:
            raise ValueError(f"schema version {self.schema_version} knows no picture_check")
        if unknown := {*self.zone_thresholds, *self.zone_weights} - set(self.preprocessor.zones):
            raise ValueError(f"there is no zone {sorted(unknown)[0]!r} to have a threshold")
        if both := set(self.zone_thresholds) & set(self.zone_weights):
            raise ValueError(f"the zone {sorted(both)[0]!r} has both a threshold of its own and a weight")
        if self.schema_version < 5 and self.zone_weights:
            raise ValueError(f"schema version {self.schema_version} knows no zone_weights")
        if self.schema_version < 5 and found.labels is not None:
            raise ValueError(f"schema version {self.schema_version} knows no calibration from labels")
        if self.schema_version < 5 and found.review is not None:
            raise ValueError(f"schema version {self.schema_version} knows no review band")
        return self

    def fingerprint(self) -> str:
        """SHA-256 of all that decides: two cards that have it in common give every image the same answer.

        It is taken of JSON with sorted names and without what has its default value, so that a field that a later
        version of this software adds changes nothing for the cards that lack it. What goes in is all but `RECORDS`:
        the hashes of student and teacher, the architecture, the image size and the preprocessing, the score and its
        weights, the method and the threshold of the calibration, the scales of the maps.
        """
        deciding = self.model_dump(mode="json", exclude=RECORDS, exclude_defaults=True)
        return sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()

    def named(self) -> Self:
        """This card with the name of its version: the day of its calibration, and 12 digits of its fingerprint."""
        name = f"{self.calibration.date:%Y%m%d}-{self.fingerprint()[:12]}"
        return self.model_copy(update={"model_version": name})

    def scores_like(self, other: "Card") -> bool:
        """Whether the other card's version gives every view of every picture the same score as this one's."""
        return _scoring(self) == _scoring(other)

    @property
    def preprocessor(self) -> Preprocessing:
        """What happens to each image before the networks see it, applied in training, calibration and serving alike."""
        return Preprocessing(self.image_size, **dict(self.preprocessing))

    @property
    def promise(self) -> str:
        """See `Calibration.promise`; and which zones it does not speak of, because no calibration moves them."""
        zones = set(self.preprocessor.zones)
        own = [name for name in self.zone_thresholds if zones - set(self.zone_thresholds)]
        if not own:
            return self.calibration.promise
        return f"{self.calibration.promise} Zones with a threshold of their own are not counted here: {', '.join(own)}."

    @property
    def sensitivities(self) -> np.ndarray:
        """What a view's score is multiplied by before it is compared with the category's threshold, float64 ``[V]``:
        the weight of the view's zone, or the category's threshold over that of the zone; 1 without either."""
        threshold, weights, own = self.calibration.threshold, self.zone_weights, self.zone_thresholds
        zones = [zone or "" for zone in self.preprocessor.zones]
        return np.array([threshold / own[zone] if zone in own else weights.get(zone, 1.0) for zone in zones])

    def threshold_of(self, zone: str) -> float:
        """The score at and above which a zone rejects the part."""
        return self.zone_thresholds.get(zone, self.calibration.threshold / self.zone_weights.get(zone, 1.0))

    def part_scores(self, scores: np.ndarray) -> np.ndarray:
        """The score of each picture: the largest of its views', each times its view's sensitivity.

        Args:
            scores: of the views of N pictures, one picture after the other, ``[N * V]``.

        Returns:
            float64 ``[N]``, to be compared with the threshold of the calibration.
        """
        of_views = scores.reshape(-1, len(self.sensitivities))
        found: np.ndarray = (of_views * self.sensitivities).max(axis=1)
        return found

    def reasons(self, score: float, look: Look | None, pose: Found | None) -> list[Reason]:
        """Why a picture is anomalous; empty if it is normal. Nothing else decides about a whole picture.

        Args:
            score: of the picture, see `part_scores`.
            look: of the picture; None where the category has no check of pictures.
            pose: of its part; None where pictures are not aligned.
        """
        lost = [Reason.NOT_ALIGNED] if pose is not None and not pose.aligned else []
        of_score = [Reason.SCORE] if self.calibration.rejects(score) else []
        return lost + of_score + (self.picture_check.reasons(look) if self.picture_check and look else [])

    def verdict(self, score: float, reasons: Sequence[Reason]) -> Verdict:
        """What becomes of a picture. One that is rejected for another reason than its score fails.

        Args:
            score: of the picture, see `part_scores`.
            reasons: see `reasons`.
        """
        return "fail" if set(reasons) - {Reason.SCORE} else self.calibration.verdict(score)

    @property
    def map_form(self) -> MapForm:
        """The form of the category's own map: the gradient-based one that goes with its score."""
        return MapForm.GRADIENT if self.score is Score.GLOBAL else MapForm.GRADIENT_DISTANCE

    def scale_of(self, form: MapForm) -> float | None:
        """What normal parts show in a map of this form; None if the card does not say."""
        return self.map_scale if form is self.map_form else self.other_map_scales.get(form)


class SeenImages(_Record):
    """SHA-256 of every image file that shaped the pair, so that none of them is used to judge it."""

    training: tuple[Sha256, ...] = ()
    held_out: tuple[Sha256, ...] = ()
    calibration: tuple[Sha256, ...] = ()
