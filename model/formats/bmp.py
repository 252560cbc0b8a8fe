"""BMP."""

import struct

import numpy as np

from model.formats.common import ImageError, Samples, check_size, damaged, open_with_pillow, split

SIGNATURE = b"BM"
UNCOMPRESSED, RLE8, RLE4, BITFIELDS = range(4)
PLAIN_HEADERS, MASKED_HEADERS = (12, 64), (40, 52, 56, 108, 124)
MASKS = {
    (16, 0xF800, 0x7E0, 0x1F, 0),
    (16, 0x7C00, 0x3E0, 0x1F, 0),
    (32, 0xFF0000, 0xFF00, 0xFF, 0),
    (32, 0xFF0000, 0xFF00, 0xFF, 0xFF000000),
    (32, 0xFF000000, 0xFF0000, 0xFF00, 0),
    (32, 0xFF000000, 0xFF0000, 0xFF00, 0xFF),
    (32, 0xFF, 0xFF00, 0xFF0000, 0xFF000000),
}
"""Bits, and where red, green, blue and alpha are."""


def read(data: bytes, max_pixels: int) -> Samples:
    """Reads an uncompressed BMP of 1, 4, 8, 16, 24 or 32 bits, with a palette or the usual masks.

    Raises:
        ImageError: see `model.images.decode_image`.
    """
    if len(data) < 26:
        raise damaged("BMP")
    offset, header = struct.unpack_from("<II", data, 10)
    if header not in PLAIN_HEADERS + MASKED_HEADERS or len(data) < 14 + header:
        raise ImageError("the BMP is of a version that is not read, or damaged")
    compression = used = 0
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
        (used,) = struct.unpack_from("<I", data, 46)
    check_size(width, abs(height), len(data), max_pixels)
    if compression in (RLE8, RLE4):
        raise ImageError("the BMP is run-length encoded; save it uncompressed")
    if compression == BITFIELDS and header in MASKED_HEADERS:
        _check_masks(data, header, bits)
    elif compression != UNCOMPRESSED:
        raise ImageError("the BMP is compressed in a way that is not read; save it uncompressed")
    if bits in (16, 24, 32):
        return split(open_with_pillow(data, "BMP"))
    if bits not in (1, 4, 8):
        raise ImageError(f"the BMP has {bits} bits per pixel; save it with 8 or 24")
    return _coloured(data, offset, header, bits, used)


def _check_masks(data: bytes, header: int, bits: int) -> None:
    count = 3 if header in (40, 52) else 4
    masks = struct.unpack_from(f"<{count}I", data.ljust(70, b"\0"), 54)
    if (bits, *masks, *(0,) * (4 - count)) not in MASKS:
        raise ImageError("the BMP has its colours at places that are not read; save it with 24 bits")


def _coloured(data: bytes, offset: int, header: int, bits: int, used: int) -> Samples:
    """A BMP with a palette. Pillow reads the indices alone: it would take some palettes for others."""
    entry = 3 if header == 12 else 4
    count = used or 1 << bits
    start = 14 + header
    offset = offset or start + entry * count
    if count > 1 << bits or offset < start + entry * count or len(data) < offset:
        raise damaged("BMP")
    colours = np.zeros((1 << bits, 3), np.uint8)
    palette = np.frombuffer(data, np.uint8, entry * count, start).reshape(count, entry)
    colours[:count] = palette[:, 2::-1]
    any_colours = bytes((1, 2, 3, 0)) * (1 << bits)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    plain = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, 0, 0, 0, 0, 0)
    head = SIGNATURE + struct.pack("<IHHI", 0, 0, 0, 54 + len(any_colours))
    image = open_with_pillow(head + plain + any_colours + data[offset:], "BMP")
    return Samples(colours[np.asarray(image)])
