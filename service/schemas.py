"""What the API answers. Every number carries its unit in its name or its description."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from model.choices import MapForm
from model.store.card import Card

Decision = Literal["normal", "anomalous"]
CalibrationMethod = Literal["youden", "synthetic", "normal-quantile"]
Score = Annotated[float, Field(ge=0, description="Anomaly score in the category's own units, larger is stranger")]
Threshold = Annotated[float, Field(description="The decision is anomalous when the score is at or above this")]
PngBase64 = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64", "contentMediaType": "image/png"})]
Separates = Annotated[
    bool | None,
    Field(
        description="False where the 95 % interval of the AUROC of the calibration reaches down to 0.6: its scores are "
        "not shown to tell faulty parts from good ones. Null where it has seen no faulty parts"
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
    value: float = Field(description="Anomaly map in multiples of what normal parts show")


class Region(BaseModel):
    """A connected part of the mask."""

    box: Box
    area: int = Field(ge=1, description="Pixels")
    peak: Peak


class Localization(BaseModel):
    """Where the fault is. Boxes, areas and peaks are in pixels of the image that was sent."""

    map: MapForm = Field(description="What the heat map shows; see the parameter of this name")
    scale: float = Field(
        gt=0,
        le=1,
        description="Size of the heat map and the mask, relative to the image: 1 for images of up to 16,777,216 pixels "
        "and 16,384 a side; larger ones are drawn smaller",
    )
    heatmap_png: PngBase64 = Field(
        description="8-bit greyscale PNG of the image's size times `scale`; 64 is the level of normal parts, 255 four "
        "times that"
    )
    mask_png: PngBase64 = Field(
        description="8-bit greyscale PNG of the image's size times `scale`; 255 where there is a fault, else 0. A "
        "fault is what lies above the level of normal parts and above 0.65 of its own peak"
    )
    regions: list[Region] = Field(description="Connected parts of the mask, strongest peak first, at most 100")
    peak: Peak = Field(
        description="Strongest point of the map, also where it does not rise above the level of normal parts"
    )


class ImageInfo(BaseModel):
    """The image that was sent."""

    width: int = Field(ge=1, description="Pixels, after the EXIF orientation was applied")
    height: int = Field(ge=1, description="Pixels, after the EXIF orientation was applied")
    sha256: str = Field(description="Of the bytes that were sent, hexadecimal")


class TimingMs(BaseModel):
    """How long the stages took, milliseconds."""

    decode: Milliseconds = Field(description="Reading the pixels, including the wait for a free thread")
    queue: Milliseconds = Field(description="Waiting for the device")
    inference: Milliseconds = Field(
        description="Score, of the whole batch the image was in; 0 with localize=always, where localization holds it"
    )
    localization: Milliseconds = Field(description="Gradient if the map needs one, of the whole batch, and drawing")
    total: Milliseconds = Field(description="From the arrival of the whole body to the answer")


class Inspection(BaseModel):
    """The answer for one image."""

    category: str
    model_version: str
    score: Score
    threshold: Threshold
    calibration: CalibrationMethod = Field(description="Where the threshold comes from; only youden has seen defects")
    separates: Separates
    decision: Decision
    localization: Localization | None
    image: ImageInfo
    timing_ms: TimingMs


class ProblemBody(BaseModel):
    """An error, RFC 9457."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="urn:eca-inspect:problem: and a stable name of the kind of error")
    title: str
    status: int
    detail: str = Field(description="What is wrong with this request, for the person who reads it")


class BatchAnswer(BaseModel):
    """The answers for many images in the order they were sent: an inspection, or a problem where one failed."""

    results: list[Inspection | ProblemBody]


class CategorySummary(BaseModel):
    """A category as the list shows it. What a refused category has not told is null."""

    category: str
    status: Literal["ready", "refused"]
    reason: str | None = Field(description="Why it is refused, else null")
    model_version: str | None
    teacher: str | None
    image_size: int | None = Field(description="Side in pixels of the square that the networks see")
    threshold: float | None
    calibration: CalibrationMethod | None
    separates: Separates
    warning: str | None = Field(description="Why nobody should decide about parts by this category, else null")


class CategoryList(BaseModel):
    """All categories of the weights folder."""

    categories: list[CategorySummary]


class KeptVersion(BaseModel):
    """A version that was replaced, and that a rollback can bring back."""

    model_version: str
    threshold: float
    calibration: CalibrationMethod
    calibrated: datetime = Field(description="When its threshold was set")
    rolled_back: bool = Field(description="It was left by a rollback, so the next step back passes it over")


class CategoryDetail(CategorySummary):
    """A category with the whole record of its training and calibration."""

    card: Card | None
    kept_versions: list[KeptVersion] = Field(description="What a rollback can go to, last put aside first")


class RolledBack(CategorySummary):
    """A category that serves the version before again."""

    persistent: bool = Field(
        description="Whether that version is in place on the disk too; if not, the server has it until it ends"
    )


class Health(BaseModel):
    """State of a probe."""

    status: str
