"""WebP."""

import struct
from dataclasses import replace

from model.formats.common import (
    MAX_PARTS,
    ImageError,
    Samples,
    check_size,
    damaged,
    exif_orientation,
    open_with_pillow,
    split,
    too_many_parts,
)


def read(data: bytes, max_pixels: int) -> Samples:
    """Reads a WebP that is not animated, with or without alpha.

    Raises:
        ImageError: see `model.images.decode_image`.
    """
    exif = b""
    canvas = size = None
    place = 12
    for _ in range(MAX_PARTS + 1):
        if place + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, place)
        body = data[place + 8 : place + 8 + min(length, 10)]
        if kind in (b"ANIM", b"ANMF"):
            raise ImageError("the file holds several images; send one")
        if kind == b"VP8X" and canvas is None:
            if len(body) < 10:
                raise damaged("WebP")
            canvas = 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
            check_size(*canvas, len(data), max_pixels)
        elif kind in (b"VP8 ", b"VP8L") and size is None:
            size = _size(kind, body)
            check_size(*size, len(data), max_pixels)
        elif kind == b"EXIF":
            exif = data[place + 8 : place + 8 + length]
        place += 8 + length + length % 2
    else:
        raise too_many_parts("WebP")
    if size is None or canvas not in (None, size):
        raise damaged("WebP")
    return replace(split(open_with_pillow(data, "WEBP")), orientation=exif_orientation(exif))


def _size(kind: bytes, body: bytes) -> tuple[int, int]:
    """Width and height that a picture's first bytes declare."""
    if kind == b"VP8L" and len(body) >= 5 and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and len(body) >= 10 and body[3:6] == b"\x9d\x01\x2a":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    raise damaged("WebP")
