"""TIFF."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from model.formats.common import (
    MAX_PARTS,
    ImageError,
    ImageTooLargeError,
    Samples,
    check_size,
    damaged,
    open_with_opencv,
    open_with_pillow,
    split,
    too_many_parts,
)

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, OFFSETS, ORIENTATION = 256, 257, 258, 259, 262, 266, 273, 274
SAMPLES, ROWS_PER_STRIP, LENGTHS, PLANES, PREDICTOR, COLOURS = 277, 278, 279, 284, 317, 320
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_LENGTHS, INKS, EXTRA, FORMATS = 322, 323, 324, 325, 332, 338, 339
FAX_OPTIONS, JPEG_TABLES, SUBSAMPLING, REFERENCE = (292, 293), 347, 530, 532
KEPT = {
    WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, OFFSETS, SAMPLES, ROWS_PER_STRIP, LENGTHS, PLANES,
    PREDICTOR, COLOURS, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_LENGTHS, EXTRA, FORMATS, *FAX_OPTIONS, JPEG_TABLES,
    SUBSAMPLING, REFERENCE,
}  # fmt: skip
"""What the picture needs. All else is not even shown to Pillow or OpenCV."""
MAX_TAGS = 1000

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
CHANNELS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}
NONE, LZW, JPEG, DEFLATE, OLD_DEFLATE, PACK_BITS, LZMA, ZSTD = 1, 5, 7, 8, 32946, 32773, 34925, 50000
FAX = (2, 3, 4)
COMPRESSIONS = {NONE, LZW, JPEG, DEFLATE, OLD_DEFLATE, PACK_BITS, LZMA, ZSTD, *FAX}
ALONE, NO_MEANING, ASSOCIATED, UNASSOCIATED = (), (0,), (1,), (2,)
READ_EXTRA: dict[int, dict[int, set[tuple[int, ...]]]] = {
    8: {
        WHITE_IS_ZERO: {ALONE}, BLACK_IS_ZERO: {ALONE, NO_MEANING, ASSOCIATED, UNASSOCIATED},
        RGB: {ALONE, NO_MEANING, ASSOCIATED, UNASSOCIATED}, PALETTE: {ALONE}, CMYK: {ALONE}, YCBCR: {ALONE},
    },
    16: {WHITE_IS_ZERO: {ALONE}, BLACK_IS_ZERO: {ALONE}, RGB: {ALONE, NO_MEANING, UNASSOCIATED}},
    **{bits: {WHITE_IS_ZERO: {ALONE}, BLACK_IS_ZERO: {ALONE}, PALETTE: {ALONE}} for bits in (1, 2, 4)},
    **{bits: {WHITE_IS_ZERO: {ALONE}, BLACK_IS_ZERO: {ALONE}} for bits in (10, 12, 14)},
}  # fmt: skip
"""Bits per value -> photometric interpretation -> what further channels may be."""
CODES = {1: "B", 2: "B", 3: "H", 4: "I", 7: "B", 16: "Q"}
SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)


class _Entry(NamedTuple):
    """An entry of a directory: its type, the number of its values, its bytes, and where the values are."""

    kind: int
    number: int
    raw: bytes
    place: int


class _Directory:
    """The first directory of a TIFF or BigTIFF."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.order = "<" if data[:2] == b"II" else ">"
        self.big = b"+" in data[:4]
        start = self._number(8 if self.big else 4)
        count = self._unpack("Q" if self.big else "H", start)
        self._size, first = (20, start + 8) if self.big else (12, start + 2)
        end = first + count * self._size
        if count > MAX_TAGS:
            raise ImageTooLargeError(f"the TIFF has more than the {MAX_TAGS} tags allowed")
        if not count or end + (8 if self.big else 4) > len(data):
            raise damaged("TIFF")
        self.following = self._number(end)
        self._entries: dict[int, _Entry] = {}
        for place in range(first, end, self._size):
            tag, kind, number = struct.unpack_from(f"{self.order}HH{'Q' if self.big else 'I'}", data, place)
            size = number * (SIZES[kind] if kind < len(SIZES) else 0)
            inline, width = (place + 12, 8) if self.big else (place + 8, 4)
            where = inline if size <= width else self._number(inline)
            if tag in KEPT or tag in (ORIENTATION, INKS):
                if tag in self._entries or where + size > len(data):
                    raise damaged("TIFF")
                self._entries[tag] = _Entry(kind, number, data[place : place + self._size], where)

    def _number(self, place: int) -> int:
        return self._unpack("Q" if self.big else "I", place)

    def _unpack(self, code: str, place: int) -> int:
        if place + struct.calcsize(code) > len(self.data):
            raise damaged("TIFF")
        (value,) = struct.unpack_from(self.order + code, self.data, place)
        return int(value)

    def values(self, tag: int, default: Sequence[int], most: int) -> tuple[int, ...]:
        """The whole numbers of a tag, of which there may be so many."""
        entry = self._entries.get(tag)
        if entry is None:
            return tuple(default)
        if entry.kind not in CODES or not 1 <= entry.number <= most:
            raise damaged("TIFF")
        found: tuple[int, ...] = struct.unpack_from(
            f"{self.order}{entry.number}{CODES[entry.kind]}", self.data, entry.place
        )
        return found

    def value(self, tag: int, default: int) -> int:
        """The one whole number of a tag."""
        return self.values(tag, (default,), 1)[0]

    def __contains__(self, tag: int) -> bool:
        return tag in self._entries

    def rewritten(self, photometric: int) -> bytes:
        """The file with one directory that has nothing but what the picture needs, and this interpretation."""
        self._entries[PHOTOMETRIC] = self._entries[PHOTOMETRIC]._replace(
            raw=struct.pack(f"{self.order}HH{'Q' if self.big else 'I'}H", PHOTOMETRIC, 3, 1, photometric).ljust(
                self._size, b"\0"
            )
        )
        entries = [entry.raw for tag, entry in sorted(self._entries.items()) if tag in KEPT]
        long, count = ("Q", "Q") if self.big else ("I", "H")
        head = 8 if self.big else 4
        place = len(self.data) + len(self.data) % 2
        return b"".join((
            self.data[:head], struct.pack(self.order + long, place), self.data[head + struct.calcsize(long) :],
            bytes(len(self.data) % 2), struct.pack(self.order + count, len(entries)), *entries,
            bytes(struct.calcsize(long)),
        ))  # fmt: skip


@dataclass(frozen=True)
class _Layout:
    width: int
    height: int
    bits: int
    photometric: int
    extra: tuple[int, ...]
    compression: int


def read(data: bytes, max_pixels: int) -> Samples:
    """Reads a TIFF of one page: see `READ_EXTRA` for which; strips or tiles; compressed or not.

    Raises:
        ImageError: see `model.images.decode_image`.
    """
    directory = _Directory(data)
    layout = _layout(directory, max_pixels)
    _check_blocks(directory, layout)
    if 0 < directory.following < len(data):
        raise ImageError("the file holds several images; send one")
    orientation = directory.value(ORIENTATION, 1) if ORIENTATION in directory else 1
    samples = _deep(directory, layout) if layout.bits > 8 else _shallow(directory, layout)
    return replace(samples, orientation=orientation if 1 <= orientation <= 8 else 1)


def _layout(directory: _Directory, max_pixels: int) -> _Layout:
    """What the tags say, if it is read exactly."""
    width, height = directory.value(WIDTH, 0), directory.value(HEIGHT, 0)
    check_size(width, height, len(directory.data), max_pixels)
    samples = directory.value(SAMPLES, 1)
    if not 1 <= samples <= 5:
        raise ImageError(f"the TIFF has {samples} values per pixel; save it as greyscale or RGB")
    depths = directory.values(BITS, (1,), 8)
    bits = depths[0]
    if len(set(depths)) > 1 or (len(depths) > 1 and len(depths) != samples):
        raise ImageError("the TIFF has channels of different depth; save it as 8-bit greyscale or RGB")
    if set(directory.values(FORMATS, (1,), 8)) != {1}:
        raise ImageError(
            f"the TIFF has {bits}-bit values that are signed, floating-point or of no known kind, so their white is "
            "not known; save it with 8 or 16 bits without sign"
        )
    if PHOTOMETRIC not in directory:
        raise ImageError("the TIFF does not say what its values mean (photometric interpretation)")
    photometric = directory.value(PHOTOMETRIC, 0)
    known = READ_EXTRA.get(bits, {}).get(photometric)
    extra = directory.values(EXTRA, (), 8)
    if known is None or extra not in known or samples != CHANNELS[photometric] + len(extra):
        raise ImageError(
            f"a TIFF of {bits} bits, {samples} values per pixel, photometric interpretation {photometric} and extra "
            f"samples {list(extra)} is not read; save it as 8-bit or 16-bit greyscale or RGB"
        )
    compression = directory.value(COMPRESSION, NONE)
    predictor = directory.value(PREDICTOR, 1)
    if (
        compression not in COMPRESSIONS
        or (compression in FAX and (bits != 1 or photometric == PALETTE))
        or (compression == JPEG and (bits != 8 or photometric == PALETTE or extra))
        or (photometric == YCBCR and compression != JPEG)
        or (bits in (10, 12, 14) and compression != NONE)
        or (bits == 16 and compression in (LZMA, ZSTD))
        or predictor not in (1, 2)
        or (predictor == 2 and (compression not in (LZW, DEFLATE, OLD_DEFLATE) or bits < 8))
    ):
        raise ImageError(
            f"a TIFF of this compression ({compression}, predictor {predictor}) is not read with these values; save it "
            "uncompressed, or with LZW or Deflate"
        )
    planes = directory.value(PLANES, 1)
    if planes not in (1, 2) or (planes == 2 and samples > 1 and (bits != 8 or extra or photometric == YCBCR)):
        raise ImageError(
            f"a TIFF of {bits} bits whose channels lie one after the other (planar) is not read; save it interleaved"
        )
    if directory.value(FILL_ORDER, 1) != 1:
        raise ImageError("the TIFF has the bits of each byte in reversed order (fill order); save it in the usual one")
    if photometric == CMYK and directory.value(INKS, 1) != 1:
        raise ImageError("the TIFF has other inks than cyan, magenta, yellow and black; save it as RGB")
    if photometric == PALETTE:
        colours = directory.values(COLOURS, (), 3 << bits)
        if len(colours) != 3 << bits or 0 < max(colours) < 256:
            raise ImageError("the palette of the TIFF is damaged or has 8 bits where 16 belong")
    return _Layout(width, height, bits, photometric, extra, compression)


def _check_blocks(directory: _Directory, layout: _Layout) -> None:
    """Whether there are as many strips or tiles as the image needs, and all within the file."""
    if TILE_OFFSETS in directory:
        width, height = directory.value(TILE_WIDTH, 0), directory.value(TILE_HEIGHT, 0)
        place, length = TILE_OFFSETS, TILE_LENGTHS
        if width * height > max(1 << 20, 4 * layout.width * layout.height):
            raise ImageTooLargeError(f"the TIFF has tiles of {width}x{height} pixels")
    else:
        width, height = layout.width, min(directory.value(ROWS_PER_STRIP, layout.height), layout.height)
        place, length = OFFSETS, LENGTHS
    if width < 1 or height < 1:
        raise damaged("TIFF")
    planes = CHANNELS[layout.photometric] + len(layout.extra) if directory.value(PLANES, 1) == 2 else 1
    needed = -(-layout.width // width) * -(-layout.height // height) * planes
    if needed > MAX_PARTS:
        raise too_many_parts("TIFF")
    offsets = directory.values(place, (), needed)
    lengths = directory.values(length, (0,) * needed, needed)
    if len(offsets) != needed or len(lengths) != needed or (length not in directory and layout.compression != NONE):
        raise damaged("TIFF")
    if any(offset + size > len(directory.data) for offset, size in zip(offsets, lengths, strict=True)):
        raise damaged("TIFF")


def _shallow(directory: _Directory, layout: _Layout) -> Samples:
    image = open_with_pillow(directory.rewritten(layout.photometric), "TIFF")
    if layout.photometric == PALETTE:
        image = image.convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    return split(image)


def _deep(directory: _Directory, layout: _Layout) -> Samples:
    """Values of more than 8 bits. OpenCV shifts them up to 16 bits, and knows only black as zero."""
    grey = layout.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)
    found = open_with_opencv(directory.rewritten(BLACK_IS_ZERO if grey else layout.photometric), "TIFF")
    if found.shape[2:] != (() if grey else (3 + len(layout.extra),)):
        raise damaged("TIFF")
    if not grey:
        return Samples(found[:, :, 2::-1], found[:, :, 3] if layout.extra == UNASSOCIATED else None)
    if layout.photometric == WHITE_IS_ZERO:
        found = ~found
    return Samples(found >> (16 - layout.bits), bits=layout.bits)
