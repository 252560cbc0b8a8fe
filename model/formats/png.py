"""PNG."""

import struct
from dataclasses import replace
from itertools import islice

import numpy as np

from model.formats.common import (
    MAX_PARTS,
    ImageError,
    Samples,
    check_size,
    damaged,
    exif_orientation,
    open_with_opencv,
    open_with_pillow,
    split,
    too_many_parts,
)

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGBA: (8, 16)}


def read(data: bytes, max_pixels: int) -> Samples:
    """Reads a PNG of any colour type and depth. Of its ancillary chunks transparency and EXIF orientation count.

    Raises:
        ImageError: see `model.images.decode_image`.
    """
    kept = [SIGNATURE]
    head = transparent = exif = b""
    place, ended = len(SIGNATURE), False
    for parts in range(MAX_PARTS + 1):
        if place + 12 > len(data) or ended:
            break
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            raise damaged("PNG")
        if (kind == b"IHDR") != (parts == 0):
            raise damaged("PNG")
        if kind == b"IHDR":
            head = data[place + 8 : end - 4]
            _check_head(head, len(data), max_pixels)
        elif kind == b"tRNS":
            transparent = data[place + 8 : end - 4]
        elif kind == b"eXIf":
            exif = data[place + 8 : end - 4]
        elif kind == b"acTL" and length >= 4 and data[place + 8 : place + 12] > b"\0\0\0\1":
            raise ImageError("the file holds several images; send one")
        elif not kind[0] & 0x20 and kind not in (b"PLTE", b"IDAT", b"IEND"):
            raise ImageError(f"the PNG has a part that is not read ({kind.decode('latin-1')!a})")
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
            kept.append(data[place:end])
        place, ended = end, kind == b"IEND"
    else:
        raise too_many_parts("PNG")
    if not ended:
        raise damaged("PNG")
    samples = _samples(b"".join(kept), head, transparent)
    return replace(samples, orientation=exif_orientation(exif))


def _check_head(head: bytes, length: int, max_pixels: int) -> None:
    if len(head) != 13:
        raise damaged("PNG")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", head)
    check_size(width, height, length, max_pixels)
    if depth not in DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise ImageError("the PNG is of a kind that the standard does not know")


def _samples(data: bytes, head: bytes, transparent: bytes) -> Samples:
    depth, colour = head[8], head[9]
    if depth == 16:
        found = open_with_opencv(data, "PNG")
        if colour == GREY_ALPHA:  # which OpenCV gives as colour
            return Samples(found[:, :, 0], found[:, :, 3])
        if colour == RGBA:
            return Samples(found[:, :, 2::-1], found[:, :, 3])
        samples = Samples(found if colour == GREY else found[:, :, ::-1])
    else:
        image = open_with_pillow(data, "PNG")
        if colour == PALETTE:
            return _coloured(np.asarray(image), image.getpalette() or [], transparent)
        samples = split(image)
    if not transparent or colour in (GREY_ALPHA, RGBA):
        return samples
    channels = 1 if colour == GREY else 3
    if len(transparent) != 2 * channels:
        raise damaged("PNG")
    values = np.frombuffer(transparent, ">u2")
    if (values >= 1 << depth).any():  # no pixel can have it
        return samples
    if depth < 8:
        values = values * (255 // ((1 << depth) - 1))
    same = samples.colour == values.astype(samples.colour.dtype)
    return replace(samples, alpha=~(same.all(axis=2) if channels == 3 else same))


def _coloured(indices: np.ndarray, palette: list[int], transparent: bytes) -> Samples:
    colours = np.frombuffer(bytes(palette), np.uint8).reshape(-1, 3)
    if indices.max() >= len(colours):
        raise damaged("PNG")
    if not transparent:
        return Samples(colours[indices])
    alpha = np.full(256, 255, np.uint8)
    for index, value in enumerate(islice(transparent, 256)):
        alpha[index] = value
    return Samples(colours[indices], alpha[indices])
