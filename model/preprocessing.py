"""From a picture to what the networks see. Training, calibration, evaluation and serving apply the same value.

Nothing here imports torch before a tensor is there, so a process that only decodes needs none.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Self

import cv2
import numpy as np

from model.alignment import LEAST_QUALITY, Alignment, Found
from model.choices import MAX_PIXELS, OVERLAP, Bayer, Colour, Fit
from model.formats.common import ImageError
from model.formats.jpeg import scale_for
from model.images import Photograph, decode_photograph
from model.reading import Levels, Reading
from model.region import Rectangle, Region, RegionError, Zone, same_shape

if TYPE_CHECKING:
    import torch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Normalization = Literal["imagenet"]

FILL = tuple(round(255 * mean) for mean in IMAGENET_MEAN)
"""Colour of what does not count; the networks see zeros there."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""
GREY_FILL = round(float(np.dot(FILL, LUMA)))
"""The same where only grey is read."""
MAX_GAIN = 2.0
"""A picture is made at most so many times as bright, or as dark."""
MAX_VIEWS = 1024
MAX_VIEW_PIXELS = 1 << 24
"""Of all views of a picture together."""
FAULT_AT_INPUT = 4
"""Pixels of the networks' input that the smallest fault should have, see `Tiles.for_fault`."""


@dataclass(frozen=True)
class Tiles:
    """A grid of equal rectangles, each of which the networks see as an image of its own.

    Attributes:
        columns: of the grid.
        rows: of the grid.
        overlap: of neighbours, as a share of a tile's side, so that a fault on the edge of one lies whole in another.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    columns: int
    rows: int
    overlap: float = OVERLAP

    def __post_init__(self) -> None:
        if not (self.columns >= 1 and self.rows >= 1 and self.columns * self.rows <= MAX_VIEWS):
            raise RegionError(f"a grid has 1 to {MAX_VIEWS} tiles, not {self.columns}x{self.rows}")
        if not 0 <= self.overlap <= 0.5:
            raise RegionError(f"the overlap of tiles is a share of 0 to 0.5, not {self.overlap:g}")

    @classmethod
    def for_fault(cls, width: int, height: int, fault: float, size: int, overlap: float = OVERLAP) -> Self:
        """The coarsest grid in which a fault has `FAULT_AT_INPUT` pixels of the networks' input.

        Args:
            width: of the picture, or of the zone's frame, pixels.
            height: the same.
            fault: side or diameter of the smallest fault to be found, pixels of the picture.
            size: side of the networks' input, pixels.
            overlap: see `Tiles`.

        Raises:
            RegionError: if that takes too many tiles, or the fault has no size.
        """
        if not 0 < fault < math.inf:
            raise RegionError(f"the smallest fault must have a size above 0 pixels, got {fault:g}")
        side = size * fault / FAULT_AT_INPUT
        columns, rows = (max(1, math.ceil((length / side - overlap) / (1 - overlap))) for length in (width, height))
        if columns * rows > MAX_VIEWS:
            raise RegionError(
                f"{columns}x{rows} tiles would be needed for a fault of {fault:g} pixels on {width} x {height}, more "
                f"than {MAX_VIEWS}; take larger images for the networks, a larger fault, or a region"
            )
        return cls(columns, rows, overlap)

    def places(self) -> Iterator[tuple[float, float, float, float]]:
        """Left, top, right and bottom of each tile, row by row, as shares of the whole."""
        width, height = (1 / (count - (count - 1) * self.overlap) for count in (self.columns, self.rows))
        for row in range(self.rows):
            top = row * height * (1 - self.overlap)
            for column in range(self.columns):
                left = column * width * (1 - self.overlap)
                yield left, top, min(1.0, left + width), min(1.0, top + height)


@dataclass(frozen=True)
class View:
    """What the networks see as one image.

    Attributes:
        zone: of the region; None without one.
        box: where it lies on the picture.
        inside: where that lies on the square; around it is padding.
    """

    zone: str | None
    box: Rectangle
    inside: Rectangle


@dataclass(frozen=True)
class Layout:
    """The views of a picture.

    Attributes:
        width: of the picture, pixels.
        height: of the picture, pixels.
        views: in order: zone by zone, each tile by tile, row by row.
        masks: where the views count, bool ``[V, size, size]``; None where they count everywhere.
    """

    width: int
    height: int
    views: tuple[View, ...]
    masks: np.ndarray | None

    def stitched(self, maps: Sequence[np.ndarray | None], width: int, height: int) -> np.ndarray:
        """The maps of the views as one map of the picture. Where views overlap the largest value counts.

        Args:
            maps: of each view, float32 ``[size, size]``, or None for nothing there.
            width: of the result, pixels.
            height: the same.

        Returns:
            float32 ``[height, width]``, 0 where there is no map.
        """
        if len(maps) == 1 and maps[0] is not None and self.views[0].box == (0, 0, self.width, self.height):
            (place,) = self.places(width, height)
            whole: np.ndarray = cv2.resize(place.cut(maps[0]), (width, height), interpolation=cv2.INTER_LINEAR)
            return whole
        found = np.zeros((height, width), np.float32)
        for one, place in zip(maps, self.places(width, height), strict=True):
            if one is not None:
                part = cv2.resize(place.cut(one), place.size, interpolation=cv2.INTER_LINEAR)
                np.maximum(found[place.rows, place.columns], part, out=found[place.rows, place.columns])
        return found

    def places(self, width: int, height: int) -> Iterator["Place"]:
        """Where each view lies on the picture when that is drawn at this size."""
        across, down = width / self.width, height / self.height
        for view in self.views:
            left, right = _whole(view.box[0] * across, view.box[2] * across, width)
            top, bottom = _whole(view.box[1] * down, view.box[3] * down, height)
            yield Place(slice(top, bottom), slice(left, right), view.inside)


@dataclass(frozen=True)
class Place:
    """A view's rectangle on a drawn picture, and on the square."""

    rows: slice
    columns: slice
    inside: Rectangle

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the rectangle, pixels."""
        return self.columns.stop - self.columns.start, self.rows.stop - self.rows.start

    def cut(self, square: np.ndarray) -> np.ndarray:
        """What a view's square ``[size, size, ...]`` shows of the picture, without padding."""
        left, top, right, bottom = self.inside
        return square[top:bottom, left:right]


class Prepared(NamedTuple):
    """What a picture has become.

    Attributes:
        pixels: uint8 RGB ``[V, size, size, 3]``.
        pose: of its part; None where pictures are not aligned.
    """

    pixels: np.ndarray
    pose: Found | None


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the pixels that the networks see. A card holds one.

    A picture is one view, or one for each zone of a region and tile of a grid. Each is an image for the networks. Where
    pictures are aligned, region and tiles lie on the aligned picture, which has the size of the reference.

    Attributes:
        size: side in pixels of the square.
        colour: which channels are read.
        resize: how each view becomes a square.
        normalization: what `as_input` does to the pixels.
        region: what of the picture counts; None for all of it.
        tiles: into which the picture, or each zone's frame, is cut; None for no cuts.
        levels: which values of a camera of more than 8 bits are black and white.
        bayer: where the colours are in raw sensor data.
        reference_brightness: what the `brightness` of each picture is brought to; None leaves it as it is.
        alignment: with what each picture is aligned first; None takes it as it is.
        scaled_decoding: whether large JPEGs are decoded at a fraction of their size, see `scale`.
    """

    size: int
    colour: Colour = Colour.RGB
    resize: Fit = Fit.STRETCH
    normalization: Normalization = "imagenet"
    region: Region | None = None
    tiles: Tiles | None = None
    levels: Levels | None = None
    bayer: Bayer | None = None
    reference_brightness: float | None = None
    alignment: Alignment | None = None
    scaled_decoding: bool = False

    def __post_init__(self) -> None:
        if self.region is not None or self.tiles is not None:
            _places(self)

    @property
    def reading(self) -> Reading:
        """How the values of a file become the pixels that `apply` is given."""
        return Reading(self.colour, self.levels, self.bayer)

    @property
    def zones(self) -> tuple[str | None, ...]:
        """The zone of each view; None without a region."""
        return tuple(zone.name if zone else None for zone, _ in _places(self))

    def scale(self, width: int, height: int) -> int:
        """A JPEG of this size is decoded at 1 / so much of its width and height: 1, 2, 4 or 8.

        Each view keeps two decoded pixels, a side, for each that the networks see, so these are means of as many pixels
        as otherwise. Aligned pictures are decoded whole.
        """
        return _scale(self, width, height) if self.scaled_decoding and self.alignment is None else 1

    def read(self, data: bytes, max_pixels: int = MAX_PIXELS) -> Photograph:
        """Decodes a file for `prepare`.

        Raises:
            ImageError, ImageTooLargeError: see `model.images.decode_image`.
        """
        return decode_photograph(data, max_pixels, self.reading, self.scale)

    def layout(self, width: int, height: int) -> Layout:
        """The views of a picture of this size, or of the aligned picture.

        Raises:
            ImageError: if its shape is not that of the picture on which the region was drawn.
        """
        if self.alignment is not None:
            width, height = self.alignment.width, self.alignment.height
        return _layout(self, width, height)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """The pixels of `prepare`, of a picture that was decoded whole."""
        return self.prepare(Photograph(image)).pixels

    def prepare(self, photograph: Photograph) -> Prepared:
        """Aligns a picture, normalises its light, cuts it into views and fits each to the square.

        What does not count becomes `FILL`. A picture is as bright as the pixels are that count.

        A side that is too long is averaged down (area), one that is too short is interpolated (bilinear).

        Args:
            photograph: whole, or as `read` gives it.

        Returns:
            Of grey, three times the same; of a picture that is not aligned, the pixels as they are.

        Raises:
            ImageError: see `layout`.
        """
        image, pose = photograph.pixels, None
        if self.alignment is not None:
            pose = self._seen(self.alignment, self.alignment.find(image), image)
            image = self.alignment.apply(image, pose)
        layout = self.layout(photograph.width, photograph.height)
        scale = photograph.scale
        found = self._views(image, layout, scale)
        if self.reference_brightness is None:
            return Prepared(found, pose)
        wanted = self.reference_brightness / max(brightness(found, layout.masks), 1e-9)
        gain = min(max(wanted, 1 / MAX_GAIN), MAX_GAIN)
        return Prepared(found if gain == 1 else self._views(image, layout, scale, gain), pose)

    def _seen(self, alignment: Alignment, pose: Found, image: np.ndarray) -> Found:
        """The pose, with how much of each zone lies in the picture where there is a region."""
        if self.region is None or pose.quality < LEAST_QUALITY:
            return pose
        height, width = image.shape[:2]
        inside = alignment.inside(pose.matrix, width, height)
        shares = (float(inside[marked].mean()) for marked in _marks(self.region, *inside.shape))
        return pose._replace(seen=min(shares, default=pose.seen))

    def _views(self, image: np.ndarray, layout: Layout, scale: int, gain: float = 1.0) -> np.ndarray:
        height, width = image.shape[:2]
        found = np.empty((len(layout.views), self.size, self.size, 3), np.uint8)
        for place, view, marked in zip(found, layout.views, self._marked(width, height), strict=True):
            left, top, right, bottom = (edge // scale for edge in view.box)
            part = image[top:bottom, left:right]
            if gain != 1:
                part = cv2.convertScaleAbs(part, alpha=gain)
            if marked is not None:
                part = part.copy()
                part[~marked[top:bottom, left:right]] = FILL if part.ndim == 3 else GREY_FILL
            self._fit(part, view.inside, place)
        return found

    def _marked(self, width: int, height: int) -> Iterator[np.ndarray | None]:
        """For each view, where the picture counts in its zone, bool ``[height, width]``; None without a region."""
        last, marked = None, None
        for zone, _ in _places(self):
            if self.region is not None and zone is not None and zone is not last:
                last, marked = zone, self.region.marked(zone, width, height)
            yield marked

    def _fit(self, part: np.ndarray, inside: Rectangle, place: np.ndarray) -> None:
        left, top, right, bottom = inside
        fitted = _resized(part, right - left, bottom - top)
        if fitted.ndim == 2:
            fitted = cv2.cvtColor(fitted, cv2.COLOR_GRAY2RGB)
        if (right - left, bottom - top) != (self.size, self.size):
            border = np.concatenate((fitted[0], fitted[-1], fitted[:, 0], fitted[:, -1]))
            place[:] = np.rint(border.mean(axis=0))
        place[top:bottom, left:right] = fitted

    def _mask(self, view: View, marked: np.ndarray | None) -> np.ndarray:
        """Where a view counts, bool ``[size, size]``."""
        left, top, right, bottom = view.inside
        mask = np.zeros((self.size, self.size), bool)
        mask[top:bottom, left:right] = True
        if marked is not None:
            x0, y0, x1, y1 = view.box
            levels = marked[y0:y1, x0:x1].view(np.uint8) * np.uint8(255)
            mask[top:bottom, left:right] = _resized(levels, right - left, bottom - top) > 127
        return mask

    def _view(self, zone: Zone | None, place: "_Share", width: int, height: int, scale: int = 1) -> View:
        """Its box lies on pixels of a picture that is decoded at this scale."""
        left, right = _around(*_whole(place[0] * width, place[2] * width, width), scale)
        top, bottom = _around(*_whole(place[1] * height, place[3] * height, height), scale)
        across, down = right - left, bottom - top
        inside = (0, 0, self.size, self.size)
        if self.resize is Fit.CROP:
            side = min(across, down)
            left, top = (
                start + (length - side) // 2 // scale * scale for start, length in ((left, across), (top, down))
            )
            right, bottom = left + side, top + side
        elif self.resize is Fit.LETTERBOX:
            w, h = (max(1, round(self.size * length / max(across, down))) for length in (across, down))
            x, y = (self.size - w) // 2, (self.size - h) // 2
            inside = (x, y, x + w, y + h)
        return View(zone.name if zone else None, (left, top, right, bottom), inside)


def _whole(start: float, end: float, limit: int) -> tuple[int, int]:
    """The whole pixels from start to end, at least one."""
    first = min(limit - 1, max(0, round(start)))
    return first, min(limit, max(first + 1, round(end)))


def _around(start: int, end: int, scale: int) -> tuple[int, int]:
    """The smallest range of whole blocks of so many pixels that holds another."""
    return start // scale * scale, -(-end // scale) * scale


def _resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    smaller = (min(image.shape[1], width), min(image.shape[0], height))
    image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


_Share = tuple[float, float, float, float]
"""Left, top, right and bottom as shares of the picture."""
_Placed = tuple[Zone | None, _Share]


@lru_cache(maxsize=256)
def _places(preprocessing: Preprocessing) -> tuple[_Placed, ...]:
    """The zone and the place of each view. Tiles where nothing counts are left out.

    Raises:
        RegionError: if a zone counts nowhere, or there are too many views.
    """
    region, tiles = preprocessing.region, preprocessing.tiles or Tiles(1, 1)
    if region is None:
        return _bounded(preprocessing, tuple((None, place) for place in tiles.places()))
    found = []
    for zone in region.zones:
        left, top, right, bottom = (
            edge / length for edge, length in zip(zone.frame, 2 * (region.width, region.height), strict=True)
        )
        across, down = right - left, bottom - top
        places = [
            (left + x * across, top + y * down, left + r * across, top + b * down) for x, y, r, b in tiles.places()
        ]
        marked = region.marked(zone, region.width, region.height)
        kept = [place for place in places if _counts(preprocessing, zone, place, marked)]
        if not kept:
            raise RegionError(f"the zone {zone.name!r} is too small, or all of it is ignored: nothing is left to judge")
        found += [(zone, place) for place in kept]
    return _bounded(preprocessing, tuple(found))


def _bounded(preprocessing: Preprocessing, found: "tuple[_Placed, ...]") -> "tuple[_Placed, ...]":
    most = min(MAX_VIEWS, MAX_VIEW_PIXELS // preprocessing.size**2)
    if len(found) > most:
        raise RegionError(
            f"zones and tiles make {len(found)} images of each picture; with {preprocessing.size} pixels a side there "
            f"can be {most}"
        )
    return found


def _counts(preprocessing: Preprocessing, zone: Zone, place: _Share, marked: np.ndarray) -> bool:
    """Whether the networks have a location where this counts: their finest map has a quarter of the input's side."""
    height, width = marked.shape
    mask = preprocessing._mask(preprocessing._view(zone, place, width, height), marked)
    side = preprocessing.size // 4
    return bool((cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA) >= 0.5).any())


@lru_cache(maxsize=64)
def _marks(region: Region, height: int, width: int) -> tuple[np.ndarray, ...]:
    """Where a small picture counts in each zone, bool ``[height, width]``; zones that are too small are left out."""
    marks = (region.marked(zone, width, height) for zone in region.zones)
    return tuple(marked for marked in marks if marked.any())


@lru_cache(maxsize=64)
def _scale(preprocessing: Preprocessing, width: int, height: int) -> int:
    spare = math.inf
    for zone, place in _places(preprocessing):
        view = preprocessing._view(zone, place, width, height)
        (left, top, right, bottom), (x0, y0, x1, y1) = view.box, view.inside
        spare = min(spare, (right - left) / (x1 - x0), (bottom - top) / (y1 - y0))
    return scale_for(width, height, spare)


@lru_cache(maxsize=64)
def _layout(preprocessing: Preprocessing, width: int, height: int) -> Layout:
    region = preprocessing.region
    if region is not None and not same_shape((width, height), (region.width, region.height)):
        raise ImageError(
            f"the picture has {width} x {height} pixels, and the region of its category was drawn on one of "
            f"{region.width} x {region.height}; it must have the same shape"
        )
    scale = preprocessing.scale(width, height)
    views = tuple(preprocessing._view(zone, place, width, height, scale) for zone, place in _places(preprocessing))
    if region is None and preprocessing.resize is not Fit.LETTERBOX:
        return Layout(width, height, views, None)
    marks = preprocessing._marked(width, height)
    masks = np.stack([preprocessing._mask(view, marked) for view, marked in zip(views, marks, strict=True)])
    masks.setflags(write=False)
    return Layout(width, height, views, None if masks.all() else masks)


def brightness(pixels: np.ndarray, masks: np.ndarray | None = None) -> float:
    """The mean brightness of a picture's views, 0 to 255.

    Args:
        pixels: uint8 RGB ``[V, size, size, 3]``.
        masks: where they count, bool ``[V, size, size]``; None where they count everywhere.
    """
    counted = pixels.reshape(-1, 3) if masks is None else pixels[masks]
    return float(np.dot(counted.mean(axis=0), LUMA))


def as_input(pixels: "torch.Tensor") -> "torch.Tensor":
    """The networks' input, on the pixels' device.

    Args:
        pixels: uint8 RGB ``[N, H, W, 3]``.

    Returns:
        float32 ``[N, 3, H, W]``, normalised, in channels-last memory.
    """
    return normalize(unit_range(pixels))


def unit_range(pixels: "torch.Tensor") -> "torch.Tensor":
    """The first half of `as_input`, where gradients are taken: float32 RGB ``[N, 3, H, W]`` in [0, 1]."""
    return pixels.permute(0, 3, 1, 2).float().div(255)


def normalize(images: "torch.Tensor") -> "torch.Tensor":
    """The second half: from [0, 1] to what the teacher was pretrained on (ImageNet mean and deviation)."""
    mean, std = _imagenet_statistics(images.device)
    return (images - mean) / std


@cache
def _imagenet_statistics(device: "torch.device") -> "tuple[torch.Tensor, torch.Tensor]":
    import torch

    with torch.inference_mode(mode=False):  # kept for later calls, which may want gradients
        mean = torch.tensor(IMAGENET_MEAN, device=device)[:, None, None]
        return mean, torch.tensor(IMAGENET_STD, device=device)[:, None, None]
