"""Ground-truth masks: which file is the mask of which image, and which pixels it marks."""

import io
import os
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from model.choices import MAX_PIXELS
from model.images import SUFFIXES
from model.lifecycle.folders import DatasetError, files_below, read_file
from model.lifecycle.remarks import Kind, Remarks, remark
from model.text import readable

MASK_NAMES = (
    "The mask of NAME.* is called NAME_mask, NAME_gt, NAME_label or NAME, and ends in .png, .bmp, .tif or .gif; small "
    "and capital letters are the same"
)
"""For messages."""

MOSTLY = 0.9
"""A mask that marks more of its image than this is taken for an inverted one."""

_SUFFIXES = SUFFIXES | {".gif"}
_LOSSY_SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".webp"))
_ENDING = re.compile(r"[_-](mask|gt|label)$")
_FORMATS = ("PNG", "BMP", "TIFF", "GIF", "JPEG", "WEBP")
_LOSSY = ("JPEG", "MPO", "WEBP")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I", "F", "I;16", "I;16B", "I;16L")
_ORIENTATION = 0x0112
_UPRIGHT = 1


def name_key(stem: str) -> tuple[str, bool]:
    """By what an image and its masks are matched: the name without the ending of a mask, and whether it had one.

    Case and the Unicode form, which differs between operating systems, do not count.
    """
    plain = _plain(stem)
    name = _ENDING.sub("", plain)
    return name, name != plain


def seem_image_and_mask(one: Path, other: Path) -> bool:
    """Whether two files of one folder are an image and its mask, by their names."""
    (name, is_mask), (other_name, other_is_mask) = name_key(one.stem), name_key(other.stem)
    if name != other_name:
        return False
    suffixes = {one.suffix.lower(), other.suffix.lower()}
    return is_mask != other_is_mask or (len(suffixes) == 2 and not suffixes <= _LOSSY_SUFFIXES)


class MaskFolder:
    """The masks in a folder and below it, by the names of their images.

    Args:
        folder: where they are.
        without: the name of a sub-folder that does not count.

    Raises:
        DatasetError: if it is not a folder.
        OSError: if a folder cannot be read.
    """

    def __init__(self, folder: Path, *, without: str | None = None) -> None:
        if not folder.is_dir():
            raise DatasetError(f"{readable(folder)} is not a folder")
        self.folder = folder
        self._found = files_below(folder)
        self._by_name: dict[tuple[str, str], list[Path]] = {}
        self._used: set[Path] = set()
        for path in self._found.files:
            inside = path.relative_to(folder)
            if path.suffix.lower() in _SUFFIXES and inside.parts[0] != without:
                self._by_name.setdefault((_plain(str(inside.parent)), name_key(path.stem)[0]), []).append(path)

    def has_folder(self, name: str) -> bool:
        """Whether there are masks in a sub-folder of this name, or below it."""
        return any(PurePath(place).parts[:1] == (_plain(name),) for place, _ in self._by_name)

    def mask_of(self, image: Path, inside: PurePath) -> Path | None:
        """The mask of an image, or None.

        Args:
            image: its file.
            inside: its path below the folder of images; the mask lies in the same sub-folder.

        Raises:
            DatasetError: if several files may be the mask.
        """
        there = self._by_name.get((_plain(str(inside.parent)), _plain(inside.stem)), [])
        there = [path for path in there if not path.samefile(image)]
        there = [path for path in there if name_key(path.stem)[1]] or there
        there = [path for path in there if path.suffix.lower() not in _LOSSY_SUFFIXES] or there
        if len(there) > 1:
            raise DatasetError(
                f"{readable(there[0])} and {readable(there[1].name)} may both be the mask of {readable(image)}; "
                "keep one of them"
            )
        self._used.update(there)
        return there[0] if there else None

    def unused(self, images: Iterable[Path]) -> Remarks:
        """What belongs to none of these images, once the mask of each was asked for."""
        left = [path for paths in self._by_name.values() for path in paths if path not in self._used]
        places = {Path(os.path.realpath(image)) for image in images} if left else set()
        unused = sorted(path for path in left if self._found.files[path] not in places)
        return self._found.remarks + remark(Kind.UNUSED_MASK, *unused)


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


@dataclass(frozen=True)
class Mask:
    """What a mask file says.

    Attributes:
        marked: bool ``[H, W]``, True where the fault is.
        shaded: whether its edges are shaded, so that it marks what is above half of its largest value.
        turned: whether it has an orientation of its own, which was applied.
    """

    marked: np.ndarray
    shaded: bool
    turned: bool


def decode_mask(path: Path) -> Mask:
    """Reads a mask at its own size and full bit depth.

    Every value but zero marks a fault, so all classes of a label mask count. Of a palette the colour counts where black
    is among the colours used, else the index. Where there is alpha, transparent pixels are not marked; black on
    transparent ground is. A mask with shaded edges marks what is above half of its largest value.

    Raises:
        DatasetError: if the file cannot be read exactly.
    """
    try:
        data = read_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                _check_layout(image)
                turned = image.getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                values, visible = _values(image, data)
    except DatasetError as error:
        raise DatasetError(f"the mask {readable(path)} {error}") from None
    except OSError as error:
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else error.strerror or error
        raise DatasetError(f"cannot read the mask {readable(path)}: {reason}") from None
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        raise DatasetError(f"cannot read the mask {readable(path)}: {error}") from None
    shaded = _is_shaded(values)
    marked = values > values.max() / 2 if shaded else values != 0
    if visible.any() and not visible.all():
        marked = marked & visible if (marked & visible).any() else visible
    return Mask(marked, shaded, turned)


def _check_layout(image: Image.Image) -> None:
    """Refuses what Pillow would not read exactly, before it is decoded."""
    if image.format in _LOSSY or image.info.get("compression") in ("jpeg", "tiff_jpeg", "webp"):
        raise DatasetError("is compressed with losses, which change labels; save masks as PNG, BMP or TIFF without")
    if image.width * image.height > MAX_PIXELS:
        raise DatasetError(f"has {image.width}x{image.height} pixels, more than the {MAX_PIXELS} allowed")
    if getattr(image, "is_animated", False):
        raise DatasetError("holds several images; save one")
    deep, white_is_zero = False, False
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        deep = max(tags.get(258, (1,))) > 8
        white_is_zero = tags.get(262) == 0
        if deep and len(tags.get(258, (1,))) > 1 and tags.get(284, 1) != 1:
            raise DatasetError("keeps its 16-bit colours in planes, which are not supported; save it as 8-bit grey")
    if image.mode not in _MODES or (deep and white_is_zero):
        raise DatasetError(f"has a layout that is not supported (mode {image.mode}); save it as 8-bit grey PNG")


def _values(image: Image.Image, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The largest channel of each pixel ``[H, W]``, at full depth, and where the image is not transparent."""
    pixels = np.asarray(image)
    alpha = np.ones(pixels.shape[:2], dtype=bool)
    transparent = image.info.get("transparency")
    if image.mode in ("P", "PA"):
        if image.mode == "PA":
            alpha = pixels[..., 1] != 0
        index = pixels if image.mode == "P" else pixels[..., 0]
        if isinstance(transparent, bytes):
            opacity = np.frombuffer(transparent.ljust(256, b"\xff"), np.uint8)
            alpha = opacity[index] != 0
        elif transparent is not None:
            alpha = index != transparent
        return _palette_values(index, image.getpalette() or []), alpha
    if pixels.ndim == 3 and _is_deep(image, data):
        deep = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if deep is None or deep.shape[:2] != pixels.shape[:2] or deep.dtype != np.uint16:
            raise DatasetError("has 16-bit colours that cannot be read; save it as 8-bit grey PNG")
        if deep.shape[2] == 4:
            return deep[..., :3].max(axis=2), deep[..., 3] != 0
        return deep.max(axis=2), alpha
    if image.mode in ("LA", "RGBA"):
        return pixels[..., :-1].max(axis=2), pixels[..., -1] != 0
    if transparent is not None:
        if image.format == "PNG" and (bits := data[24]) < 8:
            transparent = transparent * (255 // (2**bits - 1)) if bits > 1 else transparent
        alpha = np.any(np.atleast_3d(pixels) != np.atleast_1d(transparent), axis=2)
    values = pixels if pixels.ndim == 2 else pixels.max(axis=2)
    if not np.isfinite(values).all():
        raise DatasetError("has values that are not numbers")
    return values, alpha


def _is_deep(image: Image.Image, data: bytes) -> bool:
    """Whether channels have 16 bits, of which Pillow keeps eight."""
    if image.format == "PNG":
        return data[24] == 16
    return image.format == "TIFF" and max(image.tag_v2.get(258, (1,))) > 8  # type: ignore[attr-defined]


def _palette_values(index: np.ndarray, palette: list[int]) -> np.ndarray:
    colours = np.zeros((256, 3), np.uint8)
    colours.reshape(-1)[: len(palette)] = palette
    brightest = colours.max(axis=1)
    used = brightest[np.unique(index)] > 0
    return brightest[index] if used.any() and not used.all() else index


def _is_shaded(values: np.ndarray) -> bool:
    """Whether a mask was resized or compressed, so that its edges are shaded.

    It reaches high values, has many between them and zero, and few of the pixels between are like all their neighbours,
    as pixels of a class would be.
    """
    highest = values.max()
    between = (values > 0) & (values < highest)
    if highest < 128 or len(np.unique(values[between])) <= 4:
        return False
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    levels = values.astype(np.float32)
    solid = cv2.erode(levels, cross) == cv2.dilate(levels, cross)
    return bool(solid[between].mean() < 0.5)


def check_mask(path: Path, mask: Mask, image: Path, shape: tuple[int, int]) -> None:
    """Refuses a mask that cannot be that of its image.

    Args:
        path: of the mask.
        mask: what it says.
        image: the image's file.
        shape: height and width of the image, upright.

    Raises:
        DatasetError: if its aspect ratio is another one, or it marks nearly everything.
    """
    (height, width), (tall, wide) = shape, mask.marked.shape
    if not _same_aspect(mask.marked.shape, shape):
        turn = (
            "; the image is turned by its EXIF orientation, and masks are drawn on the upright image"
            if _same_aspect(mask.marked.shape, (width, height)) and orientation(image) != _UPRIGHT
            else ""
        )
        raise DatasetError(
            f"the mask {readable(path)} has {wide}x{tall} pixels, and its image {readable(image)} {width}x{height}: "
            f"the aspect ratios differ{turn}"
        )
    share = mask.marked.mean()
    edges = np.concatenate((mask.marked[[0, -1]].ravel(), mask.marked[:, [0, -1]].ravel()))
    if share > MOSTLY or (share > 0.5 and edges.all()):
        raise DatasetError(
            f"the mask {readable(path)} marks {share:.1%} of its image as faulty; it seems to be inverted. The fault "
            "must be white (or any value but zero) on black; if nearly all of the image is faulty, remove the mask"
        )


def _same_aspect(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether one size is the other, scaled and rounded to whole pixels."""
    return abs(one[0] * other[1] - one[1] * other[0]) <= max(*one, *other)


def orientation(image: Path) -> int:
    """The EXIF orientation of an image file: 1 is upright, 2 to 8 are turned or mirrored."""
    with Image.open(image) as opened:
        value = opened.getexif().get(_ORIENTATION, _UPRIGHT)
    return value if isinstance(value, int) and 1 < value <= 8 else _UPRIGHT


def is_ambiguous(mask: Mask, image: Path, shape: tuple[int, int]) -> bool:
    """Whether it cannot be known if a mask was drawn on the image as stored, or as it is seen.

    So it is where the image is turned by its EXIF orientation, the mask has none, and its size fits both ways.
    """
    if mask.turned:
        return False
    way = orientation(image)
    stored = shape if way < 5 else shape[::-1]
    return way != _UPRIGHT and _same_aspect(mask.marked.shape, stored)


class GridMasks(Mapping[int, np.ndarray]):
    """Masks by the positions of their images, bool ``[H, W]``. Each is read when it is asked for, and not kept.

    Args:
        files: the file of each, and the width and height on which it is wanted, see `on_grid`.
    """

    def __init__(self, files: Mapping[int, tuple[Path, tuple[int, int]]]) -> None:
        self._files = files

    def __getitem__(self, index: int) -> np.ndarray:
        """The mask of an image. Raises `DatasetError` if its file cannot be read any more."""
        path, size = self._files[index]
        return on_grid(decode_mask(path).marked, *size)

    def __iter__(self) -> Iterator[int]:
        """The positions, in order."""
        return iter(self._files)

    def __len__(self) -> int:
        """How many images have a mask."""
        return len(self._files)


def read_mask(path: Path, size: int) -> np.ndarray:
    """What a mask file marks, as bool ``[size, size]``; see `decode_mask` and `on_grid`."""
    return on_grid(decode_mask(path).marked, size, size)


def on_grid(marked: np.ndarray, width: int, height: int) -> np.ndarray:
    """A mask as bool ``[height, width]``. A fault too thin for that keeps the pixels that it touches.

    Args:
        marked: bool ``[H, W]``.
        width: of the grid.
        height: of the grid.
    """
    count, faults = cv2.connectedComponents(marked.astype(np.uint8))
    kept = cv2.resize(faults.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    small: np.ndarray = kept > 0
    lost = np.setdiff1d(np.arange(1, count), kept)
    if len(lost):
        touched = np.isin(faults, lost).astype(np.float32)
        small |= cv2.resize(touched, (width, height), interpolation=cv2.INTER_AREA) > 0
    return small
