"""JPEG."""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from model.formats.common import (
    MAX_PARTS,
    TRANSPOSED,
    ImageError,
    ImageTooLargeError,
    Reduction,
    Samples,
    check_size,
    damaged,
    exif_orientation,
    open_with_pillow,
    split,
    too_many_parts,
)

SIGNATURE = b"\xff\xd8"
SCALES = (8, 4, 2)
"""At 1/2, 1/4 and 1/8 libjpeg decodes the mean of 2x2, 4x4 or 8x8 pixels, in a fraction of the time."""
MAX_SCANS = 100
MAX_SCANNED_PIXELS = 1_500_000_000
"""Of a progressive JPEG: scans, and scans times pixels. Each scan costs time for every pixel and may be a few bytes;
writers make about ten."""

_MARKER = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])")  # not those inside of a scan or without a length
_END, _SCAN, _EXIF, _ADOBE = 0xD9, 0xDA, 0xE1, 0xEE
_FRAMES = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}
_READ_FRAMES = {0xC0, 0xC1, 0xC2}
"""Baseline, extended and progressive with Huffman coding; not lossless, hierarchical or arithmetic."""
_NEEDED = {*_READ_FRAMES, 0xC4, 0xDB, 0xDD, 0xE0, _ADOBE, _SCAN}
"""Frames, Huffman and quantization tables, restarts, JFIF, Adobe, scans."""
_FILL = (127, 128)
"""What libjpeg puts in the place of what is missing, before its colours become others."""
_MORE = b"".join(
    [bytes(range(1, 255)), *(b"\xff" + bytes([restart]) + bytes(range(1, 255)) for restart in range(0xD0, 0xD8))]
)
"""Something that a scan can go on with."""


@dataclass
class _Structure:
    """The parts of a JPEG up to the end of its first picture."""

    kept: list[bytes] = field(default_factory=lambda: [SIGNATURE])
    exif: bytes = b""
    has_adobe: bool = False
    components: int = 0
    width: int = 0
    height: int = 0
    scans: int = 0


def scale_for(width: int, height: int, spare: float) -> int:
    """The largest scale at which there are still two decoded pixels for each pixel that is wanted, a side; or 1.

    Args:
        width: of the picture, pixels.
        height: the same.
        spare: pixels of the picture for each pixel that is wanted, a side.
    """
    return next((one for one in SCALES if spare >= 2 * one and width % one == height % one == 0), 1)


def read(data: bytes, max_pixels: int, reduction: Reduction | None = None) -> Samples:
    """Reads a JPEG: greyscale, YCbCr, RGB, or CMYK as Adobe writes it. Of several pictures the first counts.

    Args:
        data: the file.
        max_pixels: most pixels that it may declare.
        reduction: at which fraction of its size it may be decoded; None for all of it.

    Raises:
        ImageError: see `model.images.decode_image`.
    """
    found = _Structure()
    for kind, segment in _segments(data):
        if kind == _SCAN:
            if not found.components:
                raise damaged("JPEG")
            found.scans += 1
            most = min(MAX_SCANS, MAX_SCANNED_PIXELS // (found.width * found.height))
            if found.scans > most:
                raise ImageTooLargeError(f"the JPEG has more than the {most} scans allowed for its size")
        elif kind in _FRAMES:
            if found.components:
                raise ImageError("the file holds several images; send one")
            _read_frame(found, kind, segment, len(data), max_pixels)
        elif kind == _ADOBE:
            found.has_adobe |= segment[4:9] == b"Adobe"
        elif kind == _EXIF and not found.exif and segment[4:10] == b"Exif\0\0":
            found.exif = segment[4:]
        if kind in _NEEDED:
            found.kept.append(segment)
    if not found.scans:
        raise damaged("JPEG")
    if found.components == 4 and not found.has_adobe:
        raise ImageError("the JPEG has four colours and does not say which; save it as RGB")
    orientation = exif_orientation(found.exif)
    size = found.width, found.height
    scale = 1 if reduction is None else reduction(*(size[::-1] if orientation in TRANSPOSED else size))
    image = open_with_pillow(b"".join([*found.kept, b"\xff\xd9"]), "JPEG", scale)
    if _is_cut_off(image, found.kept, scale):
        raise ImageError("the JPEG ends before its picture is whole")
    return replace(split(image), orientation=orientation, scale=scale)


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each segment's marker and bytes, those of a scan with what it codes, up to the end of the picture.

    Raises:
        ImageError: if it has no end, or too many segments.
    """
    place = len(SIGNATURE)
    for _ in range(MAX_PARTS + 1):
        found = _MARKER.search(data, place)
        if found is None:
            raise damaged("JPEG")
        kind = found[1][0]
        if kind == _END:
            return
        start = found.start()
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
        if kind == _SCAN:
            following = _MARKER.search(data, place)
            if following is None:
                raise damaged("JPEG")
            place = following.start()
        yield kind, data[start:place]
    raise too_many_parts("JPEG")


def _read_frame(found: _Structure, kind: int, segment: bytes, length: int, max_pixels: int) -> None:
    if kind not in _READ_FRAMES:
        raise ImageError("the JPEG is lossless, hierarchical or arithmetically coded; save it as a usual JPEG")
    if len(segment) < 10:
        raise damaged("JPEG")
    depth, found.height, found.width, found.components = struct.unpack_from(">BHHB", segment, 4)
    check_size(found.width, found.height, length, max_pixels)
    if depth != 8:
        raise ImageError(f"the JPEG has {depth} bits per value; save it with 8")
    if found.components not in (1, 3, 4):
        raise ImageError(f"the JPEG has {found.components} components; save it as greyscale or colour")


def _is_cut_off(image: Image.Image, kept: list[bytes], scale: int) -> bool:
    """Whether a JPEG ends in order, but before its picture is whole.

    libjpeg says nothing and leaves the rest grey. Where the last corner is of that very grey, the file is read once
    more with something inserted before its end: that changes the picture only if it was not whole.

    Raises:
        ImageError: if the file is damaged so that it cannot be read once more.
    """
    width, height = image.size
    block = 8 // scale
    corner = np.asarray(image.crop(((width - 1) // block * block, (height - 1) // block * block, width, height)))
    if not np.isin(corner, _FILL).all():
        return False
    other = open_with_pillow(b"".join([*kept, _MORE, b"\xff\xd9"]), "JPEG", scale)
    return not np.array_equal(np.asarray(other), np.asarray(image))
