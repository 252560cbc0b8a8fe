"""Files that say what of a picture counts: polygons as JSON, or a mask as a picture."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Self

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from model import images
from model.alignment import Alignment
from model.choices import OVERLAP, Fit
from model.images import ImageError
from model.lifecycle.datasets import Sample
from model.lifecycle.folders import DatasetError, read_file
from model.lifecycle.masks import decode_mask
from model.preprocessing import Preprocessing, Tiles
from model.region import Polygon, Rectangle, Region, RegionError, Zone, frame_around, same_shape
from model.store.card import SCHEMA_VERSION, Card
from model.store.reading import json_of
from model.text import readable

PART = "part"
"""Name of the zone of a file that names none."""
TOLERANCE = 0.5
"""Pixels by which the polygon of a mask may differ from the mask's edge."""
MAX_FILE_BYTES = 16 << 20
LEAST_THRESHOLD = 1e-6
"""Of a zone. Scores are multiplied by the threshold of the category over this, and must stay finite."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Zone(_Strict):
    name: str
    polygon: Polygon | None = None
    polygons: tuple[Polygon, ...] = ()
    threshold: Annotated[float, Field(ge=LEAST_THRESHOLD)] | None = None

    @model_validator(mode="after")
    def _has_an_outline(self) -> Self:
        if (self.polygon is None) != bool(self.polygons):
            raise ValueError("a zone has either a polygon or polygons")
        return self

    @property
    def outlines(self) -> tuple[Polygon, ...]:
        return self.polygons if self.polygon is None else (self.polygon,)


class _File(_Strict):
    """The JSON form."""

    width: Annotated[int, Field(ge=1)] | None = None
    height: Annotated[int, Field(ge=1)] | None = None
    zones: tuple[_Zone, ...] = ()
    ignored: tuple[Polygon, ...] = ()


_FORMS: TypeAdapter[_File | tuple[Polygon, ...]] = TypeAdapter(_File | tuple[Polygon, ...])


@dataclass(frozen=True)
class DrawnRegion:
    """What a file says of a region.

    Attributes:
        outlines: the polygons of each zone by its name; empty where only places to ignore are given.
        ignored: polygons in which nothing counts.
        size: width and height of the picture it was drawn on, pixels; None if the file does not say.
        thresholds: of the zones that have one of their own.
    """

    outlines: Mapping[str, tuple[Polygon, ...]]
    ignored: tuple[Polygon, ...] = ()
    size: tuple[int, int] | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def on(self, width: int, height: int, trained: Region | Rectangle | None = None) -> Region:
        """The region on a picture of this size.

        Args:
            width: of the picture that it was drawn on, or of one like it, pixels.
            height: the same.
            trained: of a pair that is trained already: its region, or what it sees of the picture. Each zone then has
                a frame that the student knows, and what was ignored stays so. None for one that is yet to be trained:
                the frames are the smallest.

        Raises:
            RegionError: if it was drawn on a picture of another shape, lies outside of it or of what the student has
                seen, or cannot be for another reason.
        """
        if self.size is not None and self.size != (width, height):
            return self._drawn_on(width, height).on(width, height, trained)
        outlines = self.outlines or {PART: (_rectangle((0, 0, width, height)),)}
        zones = []
        for name, polygons in outlines.items():
            smallest = frame_around(polygons, width, height)
            zones.append(Zone(name, polygons, smallest if trained is None else _known_frame(name, smallest, trained)))
        if not isinstance(trained, Region):
            return Region(width, height, tuple(zones), self.ignored)
        found = Region(width, height, tuple(zones), tuple(dict.fromkeys((*self.ignored, *trained.ignored))))
        _refuse_painted(found, trained)
        return found

    def _drawn_on(self, width: int, height: int) -> "DrawnRegion":
        """The same on a larger or smaller picture."""
        drawn = self.size or (width, height)
        if not same_shape((width, height), drawn):
            raise RegionError(
                f"the region was drawn on a picture of {drawn[0]} x {drawn[1]} pixels, and the images have "
                f"{width} x {height}, which is another shape"
            )
        scale = np.array((width / drawn[0], height / drawn[1]))

        def scaled(polygons: tuple[Polygon, ...]) -> tuple[Polygon, ...]:
            points = [((np.asarray(polygon) + 0.5) * scale - 0.5).tolist() for polygon in polygons]
            return tuple(tuple((x, y) for x, y in polygon) for polygon in points)

        outlines = {name: scaled(polygons) for name, polygons in self.outlines.items()}
        return DrawnRegion(outlines, scaled(self.ignored), (width, height), self.thresholds)


def _known_frame(name: str, smallest: Rectangle, trained: Region | Rectangle) -> Rectangle:
    if not isinstance(trained, Region):
        return trained
    by_name = sorted(trained.zones, key=lambda zone: zone.name != name)
    for zone in by_name:
        left, top, right, bottom = zone.frame
        if left <= smallest[0] and top <= smallest[1] and smallest[2] <= right and smallest[3] <= bottom:
            return zone.frame
    raise RegionError(
        f"the zone {name!r} reaches beyond what the student has seen of the picture; train the category again with "
        "this region"
    )


def _refuse_painted(region: Region, trained: Region) -> None:
    """Raises `RegionError` if a place counts that was painted over in training."""
    size = trained.width, trained.height
    for zone in region.zones:
        seen = np.zeros((trained.height, trained.width), np.uint8)
        for one in trained.zones:
            if one.frame == zone.frame:
                seen |= trained.marked(one, *size).view(np.uint8)
        near = cv2.dilate(seen, np.ones((3, 3), np.uint8))  # the edges of two drawings of one place may differ
        if (region.marked(zone, *size) & (near == 0)).any():
            raise RegionError(
                f"in the zone {zone.name!r} places would count that did not count in training, so the student does not "
                "know how they look on a good part; train the category again with this region"
            )


def read_region(path: Path) -> DrawnRegion:
    """Reads a region.

    A file that ends in ``.json`` has polygons: an object with ``zones``, each with ``name``, ``polygon`` (or
    ``polygons``, for a zone of several) and perhaps ``threshold``, with ``ignored``, a list of polygons, and with
    ``width`` and ``height`` of the picture; or a list of polygons alone. Any other file is a mask: a picture that is
    white where the part counts.

    Raises:
        DatasetError: if the file cannot be read.
        RegionError: if it says nothing that could be a region.
    """
    if path.suffix.lower() == ".json":
        return _from_json(path)
    marked = decode_mask(path).marked
    if not marked.any():
        raise RegionError(f"{readable(path)} marks nothing: what counts must be white")
    height, width = marked.shape
    inside, holes = _polygons(marked), _polygons(_holes(marked))
    return DrawnRegion({PART: inside}, holes, (width, height))


def _from_json(path: Path) -> DrawnRegion:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read {readable(path)}: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise RegionError(f"{readable(path)} has more than {MAX_FILE_BYTES} bytes")
    try:
        data, _ = json_of(data)
    except (ValueError, RecursionError) as error:
        raise RegionError(f"{readable(path)} is not JSON: {error}") from None
    try:
        found = _FORMS.validate_json(data, strict=True)
    except ValidationError as error:
        form = "_File" if data.lstrip()[:1] == b"{" else "tuple"
        first = next((one for one in error.errors() if str(one["loc"][:1]).find(form) >= 0), error.errors()[0])
        where = ".".join(str(part) for part in first["loc"][1:])
        raise RegionError(f"{readable(path)} is no region: {where}{': ' if where else ''}{first['msg']}") from None
    if not isinstance(found, _File):
        if not found:
            raise RegionError(f"{readable(path)} has no polygon")
        return DrawnRegion({PART: found})
    if (found.width is None) != (found.height is None):
        raise RegionError(f"{readable(path)} must have both width and height, or none of them")
    if not found.zones and not found.ignored:
        raise RegionError(f"{readable(path)} has neither zones nor places to ignore")
    names = [zone.name for zone in found.zones]
    if len(set(names)) < len(names):
        raise RegionError(f"{readable(path)} has two zones of the name {max(names, key=names.count)!r}")
    return DrawnRegion(
        {zone.name: zone.outlines for zone in found.zones},
        found.ignored,
        None if found.width is None or found.height is None else (found.width, found.height),
        {zone.name: zone.threshold for zone in found.zones if zone.threshold is not None},
    )


def _rectangle(frame: Rectangle) -> Polygon:
    left, top, right, bottom = map(float, frame)
    return ((left, top), (right - 1, top), (right - 1, bottom - 1), (left, bottom - 1))


def _polygons(marked: np.ndarray) -> tuple[Polygon, ...]:
    found, _ = cv2.findContours(marked.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    polygons = [cv2.approxPolyDP(contour, TOLERANCE, True)[:, 0].astype(float).tolist() for contour in found]
    return tuple(tuple((x, y) for x, y in polygon) for polygon in polygons if len(polygon) >= 3)


def _holes(marked: np.ndarray) -> np.ndarray:
    """What is not marked and does not touch the border."""
    _, labels = cv2.connectedComponents((~marked).astype(np.uint8), connectivity=4)
    outside = np.unique(np.concatenate((labels[0], labels[-1], labels[:, 0], labels[:, -1])))
    holes: np.ndarray = ~marked & ~np.isin(labels, outside)
    return holes


def size_of(samples: Sequence[Sample]) -> tuple[int, int]:
    """Width and height in pixels of the first image that can be read.

    Raises:
        DatasetError: if none can.
    """
    for sample in samples:
        with suppress(ImageError, OSError):
            return images.size_of(read_file(sample.path))
    raise DatasetError("none of the images can be read")


def prepared(
    samples: Sequence[Sample],
    size: int,
    *,
    fit: Fit = Fit.STRETCH,
    region: DrawnRegion | None = None,
    grid: tuple[int, int] | None = None,
    smallest_fault: float | None = None,
    overlap: float = OVERLAP,
    alignment: Alignment | None = None,
) -> Preprocessing:
    """The preprocessing of a category that is yet to be trained.

    Args:
        samples: images of the category; the first that can be read says how large they are.
        size: side of the networks' input, pixels.
        fit: how a view is fitted to that.
        region: what counts.
        grid: columns and rows of tiles of the picture, or of each zone's frame.
        smallest_fault: in place of a grid: side of the smallest fault to be found, pixels of the picture.
        overlap: of neighbouring tiles, as a share of a tile's side.
        alignment: with a reference that is given; region and tiles are for pictures of its size then.

    Raises:
        RegionError: if the region or the grid cannot be.
        DatasetError: if none of the images can be read.
    """
    if region is None and smallest_fault is None:
        tiles = None if grid is None else Tiles(*grid, overlap)
        return Preprocessing(size, resize=fit, tiles=tiles, alignment=alignment)
    width, height = size_of(samples) if alignment is None else (alignment.width, alignment.height)
    drawn = None if region is None else region.on(width, height)
    frames = [(0, 0, width, height)] if drawn is None else [zone.frame for zone in drawn.zones]
    tiles = None if grid is None else Tiles(*grid, overlap)
    if smallest_fault is not None:
        largest = max(right - left for left, _, right, _ in frames), max(bottom - top for _, top, _, bottom in frames)
        tiles = Tiles.for_fault(*largest, smallest_fault, size, overlap)
    return Preprocessing(size, resize=fit, region=drawn, tiles=tiles, alignment=alignment)


def with_region(card: Card, region: DrawnRegion | None, samples: Sequence[Sample]) -> Card:
    """The card of a trained pair with another region; its threshold and map scales are those of the old one still.

    Args:
        card: of the pair.
        region: what counts from now on; None for what counted in its training.
        samples: images of the category.

    Raises:
        RegionError: see `DrawnRegion.on`.
        DatasetError: if none of the images can be read.
    """
    if card.preprocessing.reference_brightness is not None:
        raise RegionError(
            "the light of this category is normalised by what counts in its pictures, which another region changes; "
            "train it again with the region"
        )
    before, trained = card.preprocessing.region, card.training.region
    if trained is None and before is not None:
        whole = (0, 0, before.width, before.height)
        trained = before if any(zone.frame != whole for zone in before.zones) else None
    new: Region | None = trained
    if region is not None:
        aligned = card.preprocessing.alignment
        size = size_of(samples) if aligned is None else (aligned.width, aligned.height)
        if before is not None:
            size = before.width, before.height
        new = region.on(*size, trained or (0, 0, *size))
    preprocessing = card.preprocessing.model_copy(update={"region": new})
    Preprocessing(card.image_size, **dict(preprocessing))  # raises if there is nothing left to judge
    thresholds = {} if region is None else dict(region.thresholds)
    changed = {
        "schema_version": SCHEMA_VERSION,
        "preprocessing": preprocessing,
        "zone_thresholds": thresholds,
        "zone_weights": {},
    }
    return card.model_copy(update=changed)
