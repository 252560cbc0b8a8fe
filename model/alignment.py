"""Where the part lies in a picture: found by comparing the picture with a reference, and undone.

What is compared is local contrast, not brightness: lamps change brightness, and slanted light changes it where a part
turns. Phase correlation with the reference, at several turns, proposes rough poses at 64 pixels; the enhanced
correlation coefficient (ECC; Evangelidis & Psarakis, IEEE TPAMI 30(10), 2008) refines them at 64, 128 and 256. A simple
pose is kept unless a richer one explains clearly more. Figures are in ``benchmarks/alignment.md``.

Nothing here imports torch: processes that only decode apply it.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple, Self

import cv2
import numpy as np

from model.choices import Align, Colour
from model.errors import ExpectedError
from model.images import ImageError, decode_image
from model.reading import Reading
from model.region import Rectangle

SIDE = 256
"""Pictures are compared with their longer side this long, in pixels."""
LEAST_QUALITY = 0.5
"""A picture that fits its reference less well is not aligned. Other parts reach 0.3, most castings 0.68 or more."""
LEAST_SEEN = 0.9
"""A picture that shows less of what counts is not aligned either: nobody can say that what it lacks is good."""
SCALES = (0.9, 1.1)
"""How much smaller or larger than in the reference a part may be."""
TURNS = {Align.TEMPLATE: np.arange(-15, 16, 5.0), Align.FEATURES: np.arange(-180, 180, 5.0)}
"""At which turns of the reference a pose is looked for, in degrees."""
LARGEST_TURN = {Align.TEMPLATE: 20.5, Align.FEATURES: 180.0}
"""Of a pose, in degrees."""
UNEXPLAINED = 0.9
"""A turn or another size is believed where it leaves less than this share of what the simpler pose did not explain."""
LEAST_GAIN = 0.005
"""And where it adds more than this to the quality: interpolation smooths noise, so any turn seems to fit better."""

_LEAST_SIDE = 16
"""Of a picture that is compared, in pixels at `SIDE`; a longer and narrower one has too little to compare."""
_COARSE, _MIDDLE, _FINE = 2, 1, 0
"""How often a picture of `SIDE` was halved."""
_LEAST_VARIANCE = 1e-3
"""Of local contrast; below it there is nothing to compare."""


class AlignmentError(ExpectedError, ValueError):
    """An alignment that cannot be; the message says why."""


class Found(NamedTuple):
    """The pose of a part.

    Attributes:
        matrix: float64 ``[2, 3]``, from pixels of the reference to pixels of the picture: ``matrix @ (x, y, 1)``, with
            pixel centres at whole numbers, x to the right, y down.
        quality: 0 to 1. The correlation coefficient of the local contrasts of the reference and the aligned picture
            where they overlap, times the share of the reference's contrast (squared) that is in the picture.
        seen: 0 to 1. How much of what counts lies in the picture: of the area of the zone that lacks most or, without
            a region, of the largest ellipse in the reference, which a turn leaves in the picture.
    """

    matrix: np.ndarray
    quality: float
    seen: float = 1.0

    @property
    def aligned(self) -> bool:
        """Whether the part was found, and lies in the picture. Where it was not found, the matrix takes the picture as
        it is."""
        return self.quality >= LEAST_QUALITY and self.seen >= LEAST_SEEN

    def around(self, rectangle: Rectangle, width: int, height: int) -> Rectangle:
        """The smallest rectangle of whole pixels of the picture, of this size, around one of the reference."""
        left, top, right, bottom = (edge - 0.5 for edge in rectangle)  # of pixels, not of their centres
        corners = np.array([[left, top, 1], [right, top, 1], [left, bottom, 1], [right, bottom, 1]])
        points = corners @ self.matrix.T + 0.5
        (x, y), (r, b) = (np.floor(points.min(axis=0) + 1e-6), np.ceil(points.max(axis=0) - 1e-6))
        x, y = min(max(int(x), 0), width - 1), min(max(int(y), 0), height - 1)
        return x, y, max(min(int(r), width), x + 1), max(min(int(b), height), y + 1)


@dataclass(frozen=True)
class Alignment:
    """How pictures of a category are aligned, before anything else happens to their pixels.

    A picture shows as much as the reference does, whatever its resolution: both are compared with sides of `SIDE`.

    Attributes:
        method: `Align.TEMPLATE` or `Align.FEATURES`.
        width: of the reference, in pixels; aligned pictures have it too.
        height: the same.
        reference: the reference in grey, its longer side reduced to `SIDE`: a PNG file as base64.

    Raises:
        AlignmentError: if the reference is no such picture.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    method: Align
    width: int
    height: int
    reference: str

    def __post_init__(self) -> None:
        if self.method not in TURNS:
            raise AlignmentError(f"pictures cannot be aligned with the method {self.method!r}")
        if min(self.width, self.height) < 1:
            raise AlignmentError("the reference picture must have pixels")
        width, height = _reduced_size(self.width, self.height)
        if (found := _decoded(self.reference).shape) != (height, width):
            raise AlignmentError(f"the reference picture has {found[1]} x {found[0]} pixels, not {width} x {height}")

    @classmethod
    def to(cls, image: np.ndarray, method: Align) -> Self:
        """Aligns with this picture, uint8 RGB ``[H, W, 3]`` or grey ``[H, W]``."""
        height, width = image.shape[:2]
        _, png = cv2.imencode(".png", _reduced(image))
        return cls(method, width, height, b64encode(png.tobytes()).decode())

    def find(self, image: np.ndarray) -> Found:
        """Finds the part in a picture.

        Args:
            image: uint8 RGB ``[H, W, 3]``, or grey ``[H, W]``.

        Returns:
            The pose. A picture of anything else, or of nothing, has a quality below `LEAST_QUALITY`, and the matrix
            that stretches the reference to the picture.
        """
        height, width = image.shape[:2]
        here, there = _reduced_size(self.width, self.height), _reduced_size(width, height)
        if min(*here, *there) >= _LEAST_SIDE:
            quality, pose = _find(_prepared(self), _levels(_reduced(image)), self.method)
            if quality >= LEAST_QUALITY:
                to_here = _stretch((self.width, self.height), here)
                matrix = _after(_stretch(there, (width, height)), _after(pose, to_here))
                inside = self.inside(matrix, width, height)
                return Found(matrix, min(quality, 1.0), float(inside[_middle(*inside.shape)].mean()))
        else:
            quality = 0.0
        return Found(_stretch((self.width, self.height), (width, height)), max(quality, 0.0))

    def inside(self, matrix: np.ndarray, width: int, height: int) -> np.ndarray:
        """Which places of the reference lie in a picture.

        Args:
            matrix: see `Found`.
            width: of the picture, pixels.
            height: the same.

        Returns:
            bool, of the height and width of the reduced reference.
        """
        here, there = _reduced_size(self.width, self.height), _reduced_size(width, height)
        pose = _after(_stretch((width, height), there), _after(matrix, _stretch(here, (self.width, self.height))))
        ones, flags = np.ones(there[::-1], np.uint8), cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        found: np.ndarray = cv2.warpAffine(ones, pose, here, flags=flags).view(bool)
        return found

    def apply(self, image: np.ndarray, found: Found) -> np.ndarray:
        """A picture as if its part lay as in the reference.

        Pixels are interpolated (bilinear); what lies outside the picture repeats its border.

        Args:
            image: uint8 RGB ``[H, W, 3]``, or grey ``[H, W]``.
            found: what `find` said of it.

        Returns:
            The same of the reference's height and width.
        """
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(
            image, found.matrix, (self.width, self.height), flags=flags, borderMode=cv2.BORDER_REPLICATE
        )


def choose_reference(pictures: Sequence[np.ndarray], method: Align, candidates: int = 8) -> int:
    """Which picture the others align best with: the one with the highest median quality.

    Args:
        pictures: of good parts, at least one; uint8 RGB or grey.
        method: how they will be aligned.
        candidates: how many are tried, spread evenly over the pictures; as many others are aligned with each, twice.

    Returns:
        Its index.
    """
    greys = [_reduced(picture) for picture in pictures]
    tried = np.unique(np.linspace(0, len(greys) - 1, candidates).round().astype(int))
    judges = np.unique(np.linspace(0, len(greys) - 1, 2 * candidates).round().astype(int))

    def fits(index: int) -> float:
        alignment = Alignment.to(greys[index], method)
        return float(np.median([alignment.find(greys[one]).quality for one in judges if one != index] or [0.0]))

    return max(map(int, tried), key=fits)


def between(matrix: np.ndarray, step: tuple[float, float], other: tuple[float, float]) -> np.ndarray:
    """A matrix of `Found` for a reference and a picture that are drawn smaller or larger.

    Args:
        matrix: in pixels of both.
        step: width and height of a drawn pixel of the reference, in its own pixels.
        other: the same of the picture.
    """
    return _after(_stretch(other, (1, 1)), _after(matrix, _stretch((1, 1), step)))


class _Form(NamedTuple):
    """Which poses are looked for, besides shifts."""

    turn: bool
    scale: bool

    @property
    def motion(self) -> int:
        if self.scale:
            return cv2.MOTION_AFFINE  # there is no motion of a similarity; see `_restricted`
        return cv2.MOTION_EUCLIDEAN if self.turn else cv2.MOTION_TRANSLATION


class _Pose(NamedTuple):
    """A quality as `Found` has it, and a matrix from the reference to the picture, in pixels of one level."""

    quality: float
    matrix: np.ndarray


class _Prepared(NamedTuple):
    """A reference: its levels, and at the coarsest its spectra ``[T, S, S // 2 + 1]`` at the turns ``[T, 2, 3]``."""

    levels: list[np.ndarray]
    turns: np.ndarray
    spectra: np.ndarray


def _find(reference: _Prepared, picture: list[np.ndarray], method: Align) -> _Pose:
    """The pose at the finest level."""

    def fit(start: np.ndarray, form: _Form, level: int, iterations: int) -> _Pose:
        fitted = _fit(reference.levels[level], picture[level], start, form, iterations)
        return fitted if abs(_angle(fitted.matrix)) <= LARGEST_TURN[method] else _Pose(0.0, fitted.matrix)

    rough = [fit(start, _Form(True, False), _COARSE, 15) for start in _proposals(reference, picture[_COARSE])]
    rough.sort(key=_quality, reverse=True)
    starts = [_enlarged(pose.matrix) for pose in rough[:2]]
    turned = max((fit(start, _Form(True, True), _MIDDLE, 20) for start in starts), key=_quality)
    straight = (np.eye(2, 3), starts[0], turned.matrix)
    form = _Form(False, False)
    best = max((fit(start, form, _MIDDLE, 20) for start in straight), key=_quality)
    if max(turned.quality, best.quality) < LEAST_QUALITY / 2:  # something else
        return _Pose(best.quality, _enlarged(best.matrix))
    for richer in (_Form(False, True), _Form(True, False), _Form(True, True)):
        pose = fit(turned.matrix if richer.turn else best.matrix, richer, _MIDDLE, 20)
        gained = pose.quality > best.quality + LEAST_GAIN
        if gained and 1 - pose.quality < UNEXPLAINED * (1 - best.quality):
            best, form = pose, richer
    return fit(_enlarged(best.matrix), form, _FINE, 15)


def _proposals(reference: _Prepared, picture: np.ndarray) -> Iterable[np.ndarray]:
    """Rough poses at the coarsest level: the reference's turns with the highest peaks of phase correlation."""
    cross = np.conj(reference.spectra) * _spectrum(picture)
    cross /= np.abs(cross) + 1e-6
    side = cross.shape[-2]
    correlations = np.fft.irfft2(cross, (side, side)).reshape(len(cross), -1)
    for index in np.argsort(-correlations.max(axis=1), kind="stable")[:6]:
        y, x = divmod(int(correlations[index].argmax()), side)
        shift = [(x + side // 2) % side - side // 2, (y + side // 2) % side - side // 2]
        yield reference.turns[index] + np.array([[0, 0, shift[0]], [0, 0, shift[1]]])


def _fit(reference: np.ndarray, picture: np.ndarray, start: np.ndarray, form: _Form, iterations: int) -> _Pose:
    """The pose of this form near a start that ECC finds; where it finds none, the start."""
    start = _restricted(start, reference.shape, form)
    seen, inside = _seen(reference.shape, picture, start)
    until = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, iterations, 1e-5)
    try:
        # From the start on, which is undone before: ECC itself loses turns of more than 90 degrees.
        _, moved = cv2.findTransformECC(
            reference, seen, np.eye(2, 3, dtype=np.float32), form.motion, until, inside.astype(np.uint8), 5
        )
    except cv2.error:  # it does not converge
        moved = np.eye(2, 3)
    if np.isfinite(moved).all():
        start = _restricted(_after(start, moved.astype(float)), reference.shape, form)
    return _Pose(_similarity(reference, picture, start), start)


def _similarity(reference: np.ndarray, picture: np.ndarray, pose: np.ndarray) -> float:
    """See `Found.quality`."""
    seen, inside = _seen(reference.shape, picture, pose)
    if not inside.any():
        return 0.0
    ours, theirs = reference[inside], seen[inside]
    ours, theirs = ours - ours.mean(), theirs - theirs.mean()
    length = float(np.sqrt(ours @ ours) * np.sqrt(theirs @ theirs))
    if length < _LEAST_VARIANCE * len(ours):
        return 0.0
    present = np.square(reference[inside]).sum() / np.square(reference).sum()
    return float(ours @ theirs / length * present)


def _seen(shape: tuple[int, ...], picture: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The picture in the reference's frame, and where it was inside the picture, bool."""
    size, undo = (shape[1], shape[0]), cv2.WARP_INVERSE_MAP
    seen = cv2.warpAffine(picture, pose, size, flags=cv2.INTER_LINEAR | undo, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.ones(picture.shape, np.uint8), pose, size, flags=cv2.INTER_NEAREST | undo)
    return seen, inside > 0


def _restricted(pose: np.ndarray, shape: tuple[int, ...], form: _Form) -> np.ndarray:
    """The nearest pose of a form that leaves the reference's centre where it is."""
    centre = np.array([shape[1] - 1, shape[0] - 1]) / 2
    left, scales, right = np.linalg.svd(pose[:, :2])
    linear = left @ right if form.turn and np.linalg.det(pose[:, :2]) > 0 else np.eye(2)
    if form.scale:
        linear = linear * np.clip(scales.mean(), *SCALES)
    return np.column_stack((linear, pose[:, :2] @ centre + pose[:, 2] - linear @ centre))


def _angle(pose: np.ndarray) -> float:
    """Degrees."""
    return float(np.degrees(np.arctan2(pose[1, 0] - pose[0, 1], pose[0, 0] + pose[1, 1])))


def _after(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """One matrix for two, both ``[2, 3]``."""
    return np.asarray(second @ np.vstack((first, [0, 0, 1])))


def _stretch(size: tuple[float, float], to: tuple[float, float]) -> np.ndarray:
    """The matrix from pixels of a picture of a size, width and height, to those of the same picture of another."""
    x, y = to[0] / size[0], to[1] / size[1]
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2]])


def _enlarged(pose: np.ndarray) -> np.ndarray:
    """A pose at the next finer level."""
    return _after(_stretch((1, 1), (2, 2)), _after(pose, _stretch((2, 2), (1, 1))))


def _reduced_size(width: int, height: int) -> tuple[int, int]:
    """Width and height."""
    scale = SIDE / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _reduced(image: np.ndarray) -> np.ndarray:
    """A picture in grey, its longer side `SIDE`: uint8."""
    while max(image.shape[:2]) >= 4 * SIDE and min(image.shape[:2]) > 1:  # halving is fast; the rest is then small
        even = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
        image = cv2.resize(even, (even.shape[1] // 2, even.shape[0] // 2), interpolation=cv2.INTER_AREA)
    height, width = image.shape[:2]
    way = cv2.INTER_AREA if max(height, width) > SIDE else cv2.INTER_LINEAR
    image = cv2.resize(image, _reduced_size(width, height), interpolation=way)
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image


def _levels(grey: np.ndarray) -> list[np.ndarray]:
    """Local contrast of a reduced picture, as it is, halved and halved again: float32, 0 where nothing is seen."""
    pixels = cv2.copyMakeBorder(
        grey.astype(np.float32), 0, -grey.shape[0] % 4, 0, -grey.shape[1] % 4, cv2.BORDER_REPLICATE
    )
    mean, mean_square = (cv2.GaussianBlur(values, (0, 0), 2) for values in (pixels, np.square(pixels)))
    deviation = np.sqrt(np.maximum(mean_square - np.square(mean), 0))
    levels = [np.log1p(deviation / 3)]  # in units of a camera's noise, about three grey levels
    for _ in range(_COARSE):
        height, width = levels[-1].shape
        levels.append(cv2.resize(levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA))
    return levels


def _decoded(reference: str) -> np.ndarray:
    try:
        return decode_image(b64decode(reference, validate=True), SIDE * SIDE, Reading(Colour.GRAY))
    except (ImageError, ValueError) as error:
        raise AlignmentError(f"the reference is no picture: {error}") from None


@lru_cache(maxsize=8)
def _middle(height: int, width: int) -> np.ndarray:
    """The largest ellipse, bool ``[height, width]``."""
    y, x = np.ogrid[:height, :width]
    found: np.ndarray = ((2 * x + 1) / width - 1) ** 2 + ((2 * y + 1) / height - 1) ** 2 <= 1
    return found


@lru_cache(maxsize=8)
def _prepared(alignment: Alignment) -> _Prepared:
    levels = _levels(_decoded(alignment.reference))
    coarse = levels[_COARSE]
    height, width = coarse.shape
    turns = np.stack(
        [cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1) for angle in TURNS[alignment.method]]
    )
    turned = [cv2.warpAffine(coarse, turn, (width, height), borderMode=cv2.BORDER_REPLICATE) for turn in turns]
    return _Prepared(levels, turns, np.stack([_spectrum(one) for one in turned]))


def _spectrum(contrast: np.ndarray) -> np.ndarray:
    """For phase correlation, ``[S, S // 2 + 1]``: the mean taken away, faded to the borders (Hann)."""
    height, width = contrast.shape
    smooth = cv2.GaussianBlur(contrast, (0, 0), 1)
    faded = (smooth - smooth.mean()) * np.outer(np.hanning(height), np.hanning(width))
    side = SIDE >> _COARSE
    return np.fft.rfft2(faded.astype(np.float32), (side, side))


def _quality(pose: _Pose) -> float:
    return pose.quality
