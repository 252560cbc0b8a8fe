"""The answers of the API. Every number has its unit in its name or its description."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self, get_args
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator
from uuid_utils.compat import uuid7

from model.alignment import LEAST_QUALITY, LEAST_SEEN
from model.calibration import Verdict
from model.choices import LARGEST_SEED, LARGEST_SIDE, SMALLEST_SIDE, MapForm, Reason
from model.store.card import CalibrationMethod, Card, ErrorRate, LabelRecord, ReviewBand, TrainingRecord
from model.store.parts import PartView
from service.choices import Action
from service.part_info import PartInfo, Value

Decision = Literal["normal", "anomalous"]
Measure = Literal["score", "brightness", "contrast", "sharpness", "aspect_ratio"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
CandidateStatus = Literal["scoring", "complete", "off", "alone", "refused"]
BetterVersion = Literal["candidate", "in-force"]
VerdictWord = Annotated[
    Verdict,
    Field(
        description="review: the score is in the category's review band, so a person should look. Else pass or fail; "
        "without a band pass is normal and fail is anomalous. fail, too, if the picture is not as those of good parts"
    ),
]
PartDecision = Literal["normal", "anomalous", "incomplete"]
PartVersion = Annotated[
    str | None, Field(description="Changes whenever the card of the part does; null if there is no card to go by")
]
Score = Annotated[float, Field(ge=0, description="Anomaly score in the category's own units; larger is more unusual")]
Threshold = Annotated[float, Field(description="The decision is anomalous when the score is at or above this")]
PngBase64 = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64", "contentMediaType": "image/png"})]
Separates = Annotated[
    bool | None,
    Field(
        description="False if the lower end of the 95 % interval of the calibration's AUROC is 0.6 or less: it is not "
        "shown that the scores tell faulty parts from good ones. Null if the calibration had no faulty parts"
    ),
]
Milliseconds = Annotated[float, Field(ge=0), PlainSerializer(lambda value: round(value, 3))]


class Box(BaseModel):
    """A rectangle in pixels of the image that was sent, after its EXIF orientation was applied."""

    x: int = Field(ge=0, description="Left edge, pixels")
    y: int = Field(ge=0, description="Top edge, pixels")
    width: int = Field(ge=1, description="Pixels")
    height: int = Field(ge=1, description="Pixels")


class Peak(BaseModel):
    """The strongest point of a map or of a region."""

    x: int = Field(ge=0, description="Pixels from the left")
    y: int = Field(ge=0, description="Pixels from the top")
    value: float = Field(description="Value of the anomaly map, as a multiple of the level of normal parts")


class Region(BaseModel):
    """A connected part of the mask."""

    box: Box
    area: int = Field(ge=1, description="Pixels")
    peak: Peak


class Localization(BaseModel):
    """Where the fault is. Boxes, areas and peaks are in pixels of the image that was sent."""

    map: MapForm = Field(description="Form of the heat map; see the parameter `map`")
    scale: float = Field(
        gt=0,
        le=1,
        description="Size of the heat map and the mask, relative to the image: 1 for images of up to 16,777,216 pixels "
        "and 16,384 pixels per side; less for larger images",
    )
    heatmap_png: PngBase64 = Field(
        description="8-bit greyscale PNG, the image's size times `scale`; 64 is the level of normal parts, 255 is four "
        "times that level"
    )
    mask_png: PngBase64 = Field(
        description="8-bit greyscale PNG, the image's size times `scale`; 255 where there is a fault, else 0. A fault "
        "is where the map is above the level of normal parts and above 0.65 of the fault's peak"
    )
    regions: list[Region] = Field(description="Connected parts of the mask, strongest peak first, at most 100")
    peak: Peak = Field(description="Strongest point of the map, even if it is not above the level of normal parts")


class ZoneVerdict(BaseModel):
    """One zone of the category's region."""

    name: str
    score: Score
    threshold: float = Field(description="Of this zone; the decision is anomalous when its score is at or above this")
    decision: Decision


Row = tuple[float, float, float]


class AlignmentInfo(BaseModel):
    """The pose of the part, found before anything else."""

    matrix: tuple[Row, Row] = Field(
        description="Two rows of three: (x, y, 1) of the reference picture becomes (x, y) of this image, in pixels "
        "with their middles at whole numbers. All places in this answer are in pixels of this image"
    )
    quality: float = Field(
        ge=0,
        le=1,
        description=f"How well the aligned image fits the reference; below {LEAST_QUALITY} it is not aligned, and "
        "rejected for that reason",
    )
    seen: float = Field(
        ge=0,
        le=1,
        description="How much of what counts lies in this image: of the area of the zone that lacks most or, without a "
        f"region, of the largest ellipse in the reference. Below {LEAST_SEEN} the image is not aligned either",
    )


class TileVerdict(BaseModel):
    """One tile of the picture."""

    zone: str | None = Field(description="Whose tile it is; null for a category without a region")
    box: Box
    score: Score
    decision: Decision


class ImageInfo(BaseModel):
    """The image that was sent."""

    width: int = Field(ge=1, description="Pixels, after the EXIF orientation was applied")
    height: int = Field(ge=1, description="Pixels, after the EXIF orientation was applied")
    sha256: str = Field(description="SHA-256 of the bytes that were sent, hexadecimal")


class TimingMs(BaseModel):
    """Duration of each stage, milliseconds."""

    decode: Milliseconds = Field(description="Reading the pixels, including the wait for a free thread")
    queue: Milliseconds = Field(
        description="Waiting for the device; with zones or tiles also between their batches, while it computes others"
    )
    inference: Milliseconds = Field(
        description="Computing the scores of the whole batch with this image, or of all batches with its zones or "
        "tiles; 0 if the score was computed together with a gradient (localize=always), which counts as localization"
    )
    localization: Milliseconds = Field(
        description="Computing the gradients of the same batches, if the map needs them, and drawing"
    )
    total: Milliseconds = Field(description="From the arrival of the whole body to the answer")


class Identified(BaseModel):
    """Something that can be named later."""

    id: UUID = Field(
        default_factory=uuid7, description="A new name for each, UUID version 7: in the order of their times"
    )


class Inspection(PartInfo, Identified):
    """The answer for one image."""

    category: str
    model_version: str
    score: Score = Field(
        description="The largest score of its zones and tiles where it has some; that of a zone with a threshold of "
        "its own counts times `threshold` over that threshold"
    )
    threshold: Threshold
    calibration: CalibrationMethod = Field(
        description="How the threshold was set; `separates` says whether faulty parts were there too"
    )
    separates: Separates
    decision: Decision
    verdict: VerdictWord
    reasons: list[Reason] = Field(
        description="Why the decision is anomalous; empty when it is normal. score: it is at or above the threshold; "
        "the others: the picture is not as those of good parts are"
    )
    alignment: AlignmentInfo | None = Field(
        description="Where the part lies; null for a category whose pictures are not aligned"
    )
    zones: list[ZoneVerdict] | None = Field(
        description="The zones of the category's region, in its order; null for a category without one"
    )
    tiles: list[TileVerdict] | None = Field(
        description="The tiles of the picture; null for a category that sees it, or each zone of it, as a whole"
    )
    localization: Localization | None
    image: ImageInfo
    timing_ms: TimingMs


class PastImage(BaseModel):
    """The image of a past inspection."""

    width: int | None = Field(description="Pixels; null if it could not be decoded")
    height: int | None = Field(description="Pixels; null if it could not be decoded")
    bytes: int = Field(description="Size of the file that was sent")
    sha256: str = Field(description="SHA-256 of the bytes that were sent, hexadecimal")
    kept: bool = Field(description="Whether `/image` has it now")
    kept_share: float = Field(
        ge=0,
        le=1,
        description="Share of the images of this category and outcome that were to be kept then; 1 over it is the "
        "weight of a kept one in an estimate",
    )


class PastInspection(BaseModel):
    """An inspection of the history, as lists show it."""

    id: UUID = Field(description="As the answer had it; of a failure, a new one")
    time: datetime = Field(description="When the answer was ready, as the id has it; UTC")
    category: str
    model_version: str
    outcome: str = Field(description="The decision, or the kind of problem that stood in its place")
    decision: Decision | None = Field(description="Null if the image could not be judged")
    verdict: VerdictWord | None = Field(description="Null if the image could not be judged")
    score: float | None
    threshold: float | None
    part_id: str | None
    lot: str | None
    station: str | None
    part: str | None = Field(description="Name of the card, if the image was a view of a part")
    part_inspection: UUID | None = Field(description="Id of the answer for that part")
    request_id: str | None = Field(description="As in the header `X-Request-ID` and in the log")
    image: PastImage
    label: str | None = Field(description="What a person said; null while nobody has")


def _as_written(given: object) -> object:
    """Numbers would be taken for seconds since 1970."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d[T ].+", str(given)):
        raise ValueError("give a time such as 2026-05-01T06:00:00Z")
    return given


def _in_utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


WrittenTime = Annotated[datetime, Field(strict=False), BeforeValidator(_as_written), AfterValidator(_in_utc)]
"""A time as text; UTC if it names no zone."""
Text = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x08\x0b-\x1f]+$")]


class Label(BaseModel):
    """What a person says of an inspection."""

    model_config = ConfigDict(extra="forbid")

    label: Literal["normal", "anomalous", "unsure"]
    kind: Annotated[Text, Field(max_length=64)] | None = Field(default=None, description="Kind of the fault")
    comment: Annotated[Text, Field(max_length=2000)] | None = None
    reviewer: Annotated[Text, Field(max_length=64)] | None = Field(default=None, description="Who said it")
    boxes: list[Box] = Field(
        default=[], max_length=100, description="Where the fault is, within the image; none with the label `normal`"
    )


class LabelLine(Label):
    """A label with who gave it and when."""

    version: int = Field(description="Its number; send it in `If-Match` to replace the label")
    time: datetime
    actor: str | None = Field(description="Name of the key; null where the server asks for none")


class AuditLine(BaseModel):
    """Something that a person changed."""

    n: int
    time: datetime
    actor: str | None = Field(
        description="Name of the key; `automatic` where the server did it by itself; null where it asks for no key"
    )
    action: Action
    subject: str = Field(description="Id of the inspection, or the category")
    before: Any = Field(
        description="A label, a `model_version`, that with the threshold, or an image; null if there was none"
    )
    after: Any


class Audit(BaseModel):
    """A page of the log of changes, newest first."""

    lines: list[AuditLine]
    next: str | None = Field(description="Send it as `cursor` for the next page; null if this is the last one")


class PastInspections(BaseModel):
    """A page of the history, newest first."""

    inspections: list[PastInspection]
    next: str | None = Field(description="Send it as `cursor` for the next page; null if this is the last one")


class ToReview(PastInspection):
    """An inspection that a person should look at."""

    weight: float | None = Field(
        description="1 / `image.kept_share`: how many inspections it stands for in an estimate; null if none like it "
        "were to be kept"
    )


class ReviewQueue(BaseModel):
    """Inspections to review, in the order that was asked for."""

    inspections: list[ToReview]
    left: int = Field(description="To review in all, these included, as far as the newest `searched` tell")
    searched: int = Field(description="Only that many of the newest that come into question were looked at")


class PastLocalization(BaseModel):
    """Where the fault was; as `Localization`, without the pictures."""

    map: MapForm
    scale: float
    regions: list[Region]
    peak: Peak


class ProblemBody(BaseModel):
    """An error, RFC 9457."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="urn:eca-inspect:problem: followed by the stable name of the kind of error")
    title: str
    status: int
    detail: str = Field(description="What is wrong with this request, for the person who reads it")


class LookInfo(BaseModel):
    """Plain measures of the picture as the networks see it, where it counts."""

    brightness: float = Field(ge=0, le=255, description="Mean")
    contrast: float = Field(ge=0, description="Standard deviation of the brightness")
    sharpness: float = Field(ge=0, description="Fine detail as a share of all detail")
    aspect_ratio: float = Field(gt=0, description="Width over height of the image that was sent")


class PastInspectionDetail(PastInspection):
    """An inspection of the history with everything that is kept of it. What a failure does not have is null."""

    metadata: dict[str, Value] | None
    calibration: CalibrationMethod | None = None
    separates: Separates = None
    reasons: list[Reason] | None = None
    alignment: AlignmentInfo | None = None
    zones: list[ZoneVerdict] | None = None
    tiles: list[TileVerdict] | None = None
    localization: PastLocalization | None = None
    timing_ms: TimingMs | None = None
    look: LookInfo | None = Field(default=None, description="Null for a category without a check of the picture")
    problem: ProblemBody | None = Field(default=None, description="Why there is no decision")
    labels: list[LabelLine] = Field(description="What people said, the last one first")


class NearestGood(PastInspection):
    """A good inspection, to compare another one with."""

    said: LabelLine | None = Field(
        description="The label `normal` that it has; null where nobody has labelled it, and the service accepted it"
    )


class MeasureDrift(BaseModel):
    """How far a measure of the pictures is from the calibration."""

    measure: Measure
    distance: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Kolmogorov-Smirnov distance: the largest share of the pictures that lie beyond some value now and "
        "did not at calibration. Null if there is nothing to compare with, or there are too few images",
    )
    limit: float | None = Field(
        default=None,
        description="Chance alone brings the distance above this in one of 1000 cases; it is 0.25 at least",
    )
    drifted: bool = Field(default=False, description="Whether the distance is above the limit")
    reference_images: int | None = Field(default=None, description="Normal images that say what is usual")
    reference_median: float | None = Field(default=None, description="Median of the calibration")
    images: int = Field(ge=0, description="Images that are compared")
    median: float | None = Field(description="Median of these images; null if there are none")
    text: str = Field(description="The same for people")

    def told(self, text: str) -> Self:
        """With this text."""
        return self.model_copy(update={"text": text})


class DriftPoint(BaseModel):
    """An hour or a day of the series. What no image has is null."""

    since: datetime
    until: datetime
    images: int = Field(ge=0, description="The last images of this time, at most 200, whose medians these are")
    score: float | None
    brightness: float | None
    contrast: float | None
    sharpness: float | None
    aspect_ratio: float | None


class Drift(BaseModel):
    """How far the pictures of a category are from those of its calibration."""

    category: str
    model_version: str = Field(description="The version that serves; inspections of others are left out")
    threshold: Threshold
    since: datetime | None = Field(description="Time of the oldest inspection that is compared; null if there is none")
    until: datetime | None = Field(description="Time of the newest one")
    drifted: bool = Field(description="Whether a measure has drifted")
    measures: list[MeasureDrift]
    series: list[DriftPoint] = Field(description="Medians by hour or day, oldest first, for a chart")


class AgreementTable(BaseModel):
    """What two say of the same parts. Parts of which one is unsure are left out."""

    first: str
    second: str
    inspections: int
    normal_normal: int = Field(description="Both say normal")
    normal_anomalous: int = Field(description="The first says normal, the second anomalous")
    anomalous_normal: int = Field(description="The first says anomalous, the second normal")
    anomalous_anomalous: int = Field(description="Both say anomalous")
    agreed: float | None = Field(description="Share on which both say the same; null without parts")
    kappa: float | None = Field(description="Cohen's, -1 to 1; null if one thing is all that both ever say")
    standard_error: float | None = Field(
        description="After Fleiss, Cohen and Everitt (1969); null where the formula gives none, as where all agree"
    )
    low: float | None = Field(description="Lower end of the 95 % interval of kappa")
    high: float | None = Field(description="Upper end")


class LabelledSample(BaseModel):
    """How many parts of a kind were labelled."""

    decision: Decision
    random: bool = Field(description="Whether they are in the random sample of all images that is kept")
    labelled: int
    inspections: int = Field(description="All inspections with this decision in this time")


class VersionCount(BaseModel):
    """Labelled inspections of a version."""

    model_version: str
    labelled: int


class Agreement(BaseModel):
    """How far server and people, and people among each other, agree. It holds for the labelled parts only, which need
    not be a random sample, and whoever labels a part sees what the server says."""

    category: str
    month: str
    since: datetime
    until: datetime = Field(description="Not included")
    versions: list[VersionCount]
    inspections: int = Field(description="With a decision")
    failures: int = Field(description="Images that could not be judged")
    labelled: int
    complete: bool = Field(description="False if more are labelled than are looked at; the newest ones are")
    unsure: int = Field(description="Labelled unsure; not counted in the tables")
    samples: list[LabelledSample] = Field(description="Which parts were labelled")
    server: AgreementTable
    server_in_sample: AgreementTable = Field(description="The same of the parts in the random sample alone")
    people: list[AgreementTable] = Field(description="Pairs of people, at most 20, with the most parts in common first")


class BatchAnswer(BaseModel):
    """The answers for many images in the order they were sent: an inspection, or a problem if the image failed."""

    results: list[Inspection | ProblemBody]


class View(BaseModel):
    """One view of a part: its inspection, or the problem in its place. The other one is null."""

    category: str
    inspection: Inspection | None = None
    problem: ProblemBody | None = None


class PartAnswer(PartInfo, Identified):
    """The answer for a part."""

    part: str | None = Field(description="Name of the card that lists its views; null if the call named none")
    part_version: PartVersion
    decision: PartDecision = Field(
        description="anomalous: a view is. incomplete: no view is, but one is missing or could not be judged; treat "
        "the part as one that was not inspected. normal: every view is"
    )
    views: list[View] = Field(description="In the order of the card, or as they were sent if there is no card")


class PartSummary(BaseModel):
    """A part as the list shows it."""

    part: str
    part_version: PartVersion
    status: Literal["ready", "incomplete", "refused"] = Field(
        description="incomplete: a category of it cannot be served, so that no part is normal. refused: its card "
        "cannot be used"
    )
    reason: str | None = Field(description="Why it is not ready; null if it is")
    views: list[PartView] | None = Field(description="Views that the part must have; null if its card is refused")


class PartList(BaseModel):
    """All parts that have a card."""

    parts: list[PartSummary]


class CategorySummary(BaseModel):
    """A category as the list shows it. For a refused category, what is not known is null."""

    category: str
    status: Literal["ready", "refused"]
    reason: str | None = Field(description="Why the category is refused; null if it is ready")
    model_version: str | None
    teacher: str | None
    image_size: int | None = Field(description="Side of the square input of the networks, pixels")
    threshold: float | None
    calibration: CalibrationMethod | None
    separates: Separates
    warning: str | None = Field(description="Why the verdicts of this category should not be used, else null")


class ListedCategory(CategorySummary):
    """A category of the list."""

    candidate: bool = Field(description="Whether a candidate lies beside it; see `GET .../candidate`")


class CategoryList(BaseModel):
    """All categories of the weights folder."""

    categories: list[ListedCategory]


class KeptVersion(BaseModel):
    """A version that was replaced, and that a rollback can bring back."""

    model_version: str
    threshold: float
    calibration: CalibrationMethod
    calibrated: datetime = Field(description="When its threshold was set")
    rolled_back: bool = Field(description="Whether a rollback replaced it; the next step back skips it")


class ErrorRates(BaseModel):
    """How often the threshold will be wrong on new parts that are like those of the calibration."""

    false_alarms: ErrorRate | None = Field(description="Good parts that are rejected; null where none were counted")
    misses: ErrorRate | None = Field(description="Faulty parts that are accepted; null where none were counted")
    text: str = Field(description="The same in sentences for people, or why it is not known")


class CategoryDetail(CategorySummary):
    """A category with the whole record of its training and calibration."""

    card: Card | None
    error_rates: ErrorRates | None = Field(
        description="As in the card, or computed from it for older cards where they tell; null for a refused category"
    )
    kept_versions: list[KeptVersion] = Field(
        description="Versions that a rollback can go to, most recently replaced first"
    )


class RolledBack(CategorySummary):
    """A category after a rollback."""

    persistent: bool = Field(
        description="Whether the rollback was also written to disk; if not, it lasts until the server stops"
    )


class ChangedDecision(BaseModel):
    """An inspection of which the candidate says something else than the version in force said."""

    id: UUID
    time: datetime
    score: Score
    threshold: Threshold
    decision: Decision
    candidate_score: Score
    candidate_threshold: Threshold
    candidate_decision: Decision
    label: str | None = Field(description="What a person said of it; null if nobody did")


class LabelledComparison(BaseModel):
    """Both versions on inspections that a person labelled `normal` or `anomalous`."""

    normal: int = Field(ge=0, description="Inspections labelled normal")
    anomalous: int = Field(ge=0, description="Inspections labelled anomalous")
    false_alarms: int = Field(ge=0, description="Labelled normal and rejected by the version in force")
    misses: int = Field(ge=0, description="Labelled anomalous and accepted by the version in force")
    candidate_false_alarms: int = Field(ge=0, description="Labelled normal and rejected by the candidate")
    candidate_misses: int = Field(ge=0, description="Labelled anomalous and accepted by the candidate")
    only_in_force_right: int = Field(ge=0, description="Inspections about which only the version in force is right")
    only_candidate_right: int = Field(ge=0, description="Inspections about which only the candidate is right")
    p_value: float = Field(
        ge=0,
        le=1,
        description="McNemar's exact test, two-sided: how often two equally good versions would differ so much",
    )
    proven: BetterVersion | None = Field(
        description="The version that is right more often, if `p_value` is below 0.05; else null"
    )


class Comparison(BaseModel):
    """The candidate and the version in force on the same images."""

    model_version: str = Field(description="The version in force; only inspections that it decided are counted")
    inspections: int = Field(ge=0, description="Inspections that both have judged")
    agreement: float | None = Field(ge=0, le=1, description="Share with the same decision; null if there is none yet")
    to_anomalous: int = Field(ge=0, description="Inspections that only the candidate rejects")
    to_normal: int = Field(ge=0, description="Inspections that only the version in force rejects")
    labelled: LabelledComparison
    changed: list[ChangedDecision] = Field(description="Newest first, 100 at most")


class Candidate(BaseModel):
    """A version that is compared with the one in force. What is not known of a refused one is null."""

    category: str
    status: CandidateStatus = Field(
        description="complete: it has scored as many inspections as INSPECT_SHADOW_INSPECTIONS says. off: that is 0, "
        "or the server keeps no history, so that nothing is compared. alone: no version of the category is in force, "
        "so that there is nothing to compare it with. refused: it cannot be used"
    )
    reason: str | None = Field(description="Why it is refused; else null")
    model_version: str | None
    threshold: float | None
    calibration: CalibrationMethod | None
    training: TrainingRecord | None = Field(description="How it was trained")
    error_rates: ErrorRates | None = Field(description="How often its threshold will be wrong")
    wanted: int = Field(ge=0, description="Inspections that it is to score")
    scored: int = Field(ge=0, description="Inspections that it has scored")
    skipped: int = Field(
        ge=0, description="Images that this process left out since it read the candidate: no idle time"
    )
    failed: int = Field(ge=0, description="Images on which it failed, since this process read it")
    comparison: Comparison | None = Field(description="null if there is no history, or no version is in force")


class CalibrationOrder(BaseModel):
    """Where a new threshold is to come from: exactly one of `method`, `max_false_alarms` and `threshold`."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    method: Literal["youden"] | None = Field(
        default=None, description="youden: the largest Youden index, from labelled good and faulty parts"
    )
    max_false_alarms: float | None = Field(
        default=None, ge=1e-6, lt=1, description="At most this share of good parts is rejected, on average; 0.01 is 1 %"
    )
    with_confidence: bool = Field(
        default=False, description="With `max_false_alarms`: not on average but with 95 % confidence"
    )
    threshold: float | None = Field(default=None, gt=0, description="Chosen by a person, in score units")
    review: ReviewBand | None = Field(
        default=None,
        description="Scores between which a person should look, chosen by a person; the threshold is in it",
    )
    review_false_passes: float | None = Field(
        default=None,
        ge=1e-6,
        lt=1,
        description="A person looks from the score on below which, with 95 % confidence, at most this share of faulty "
        "parts is. Else from the threshold on",
    )
    review_false_rejects: float | None = Field(
        default=None,
        ge=1e-6,
        lt=1,
        description="A person looks up to the score above which, with 95 % confidence, at most this share of good "
        "parts is. Else up to the threshold",
    )
    reason: Annotated[Text, Field(max_length=2000)] | None = Field(
        default=None, description="Why, for the log of changes; `threshold` needs it"
    )
    since: WrittenTime | None = Field(default=None, description="Only inspections not before this time")
    until: WrittenTime | None = Field(default=None, description="Only inspections before this time")
    dry_run: bool = Field(default=False, description="Compute and answer, but change nothing")

    @model_validator(mode="after")
    def _asks_for_one_thing(self) -> Self:
        ways = {"method": self.method, "max_false_alarms": self.max_false_alarms, "threshold": self.threshold}
        if sum(value is not None for value in ways.values()) != 1:
            raise ValueError(f"give exactly one of {', '.join(ways)}")
        if self.with_confidence and self.max_false_alarms is None:
            raise ValueError("with_confidence goes with max_false_alarms")
        if self.review is not None and (self.review_false_passes or self.review_false_rejects):
            raise ValueError("give either review, or review_false_passes and review_false_rejects")
        if self.threshold is not None and self.reason is None and not self.dry_run:
            raise ValueError("a threshold that a person chooses needs a reason")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ValueError("since must be before until")
        return self


class VersionThreshold(BaseModel):
    """A version and its threshold."""

    model_version: str
    threshold: Threshold
    calibration: CalibrationMethod


class Calibrated(VersionThreshold):
    """What a calibration from labels made, or would make."""

    category: str
    dry_run: bool = Field(description="Whether nothing was changed")
    before: VersionThreshold
    error_rates: ErrorRates
    review: ReviewBand | None = Field(description="The review band; null if there is none")
    labels: LabelRecord | None = Field(description="The inspections that count; null if none do")
    left_out: dict[str, int] = Field(description="How many labelled inspections do not count, by the reason")
    remarks: list[str] = Field(description="What a person should know of these labels, in sentences")


class UploadedImages(BaseModel):
    """The training images of a category that were uploaded."""

    category: str
    images: int = Field(ge=0, description="How many there are")
    bytes: int = Field(ge=0, description="Of all their files together")


class UploadedImage(UploadedImages):
    """An uploaded training image, and how many its category has with it."""

    sha256: str = Field(description="Of the file, hexadecimal")
    is_new: bool = Field(description="false if it was there already")


class UploadedImageList(UploadedImages):
    """The training images of a category that were uploaded, by name."""

    sha256: list[str] = Field(description="Of each file, hexadecimal, sorted")


class TrainingOrder(BaseModel):
    """What is to be other than it was when the category was last trained, or other than the default in a new one."""

    model_config = ConfigDict(extra="forbid", strict=True)

    teacher: str | None = Field(
        default=None, description="A teacher of the server, such as imagenet or compact. New: imagenet"
    )
    epochs: int | None = Field(default=None, ge=1, description="Passes over the images. New: 500")
    image_size: int | None = Field(
        default=None,
        ge=SMALLEST_SIDE,
        le=LARGEST_SIDE,
        description="Side of the image that the networks see, pixels. New: 128",
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        le=LARGEST_SEED,
        description="For the student's first weights, and for which images are held out. New: 0",
    )


class TrainingJob(BaseModel):
    """A training of a candidate by the server."""

    id: UUID
    category: str
    status: Literal["running", "done", "failed", "cancelled", "lost"] = Field(
        description="done: the category has a new candidate. lost: the server ended meanwhile"
    )
    started: datetime
    ended: datetime | None = Field(description="null while it runs, or if it is lost")
    labelled_images: int = Field(ge=0, description="Images of the history that people labelled normal")
    is_new: bool = Field(
        default=False, description="Whether the category did not exist; its candidate is then its first version"
    )
    uploaded_images: int = Field(default=0, ge=0, description="Images that were uploaded for the category")
    with_original_images: bool = Field(
        description="Whether the images of INSPECT_TRAINING_IMAGES are used too; if not, the others are all"
    )
    epochs: int | None = Field(description="Passes over the images; null until the first one is done")
    epochs_done: int = Field(ge=0)
    loss: float | None = Field(description="Mean loss of the last pass; null until the first one is done")
    model_version: str | None = Field(description="Of the candidate; null until it is done")
    message: str | None = Field(description="What the training said; why it failed")


class TrainingJobs(BaseModel):
    """The last trainings, newest first."""

    jobs: list[TrainingJob]


class Health(BaseModel):
    """The answer of a probe."""

    status: str
