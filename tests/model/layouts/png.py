"""PNG: every colour type and depth, interlaced or not, transparent in each way."""

import struct
import zlib
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from tests.model.layouts import Layout, as_rgb, at_depth, colours, grey, on_white, opacity, packed, shown

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""Of each pass: first row, first column, step of rows, step of columns."""


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples: np.ndarray, bits: int, colour: int, *before: bytes, interlaced: bool = False, parts: int = 1) -> bytes:
    """A PNG of samples ``[H, W, C]``; chunks to come before the pixels, which are cut into so many chunks."""
    height, width = samples.shape[:2]
    passes = [samples[y::down, x::right] for y, x, down, right in ADAM7] if interlaced else [samples]
    rows = []
    for one in passes:
        flat = one.reshape(len(one), -1)
        if flat.size:
            packed_rows = packed(flat, bits)
            stride = len(packed_rows) // len(flat)
            rows += [b"\0" + packed_rows[i : i + stride] for i in range(0, len(packed_rows), stride)]
    data = zlib.compress(b"".join(rows))
    cuts = [len(data) * i // parts for i in range(parts + 1)]
    pixels = b"".join(chunk(b"IDAT", data[a:b]) for a, b in pairwise(cuts))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, int(interlaced)))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(before) + pixels + chunk(b"IEND", b"")


def layouts() -> Iterator[Layout]:
    """Every PNG."""
    for interlaced in (False, True):
        adam7 = " interlaced" if interlaced else ""
        for bits in (1, 2, 4, 8, 16):
            samples = at_depth(grey(), bits)
            picture = as_rgb(shown(samples, bits))
            name = f"png grey {bits} bit{adam7}"
            yield Layout(name, png(samples[:, :, None], bits, GREY, interlaced=interlaced), picture, 1, True)
            clear = samples == samples[20, 14]
            data = png(
                samples[:, :, None],
                bits,
                GREY,
                chunk(b"tRNS", struct.pack(">H", samples[20, 14])),
                interlaced=interlaced,
            )
            yield Layout(name + " with a transparent value", data, on_white(picture, ~clear), 1, True)
        for bits in (8, 16):
            samples, alpha = at_depth(colours(), bits), at_depth(opacity(), bits)
            picture, share = shown(samples, bits), alpha / (2**bits - 1)
            yield Layout(f"png rgb {bits} bit{adam7}", png(samples, bits, RGB, interlaced=interlaced), picture, 1, True)
            clear = (samples == samples[20, 14]).all(axis=2)
            data = png(samples, bits, RGB, chunk(b"tRNS", struct.pack(">3H", *samples[20, 14])), interlaced=interlaced)
            name = f"png rgb {bits} bit{adam7} with a transparent colour"
            yield Layout(name, data, on_white(picture, ~clear), 1, True)
            data = png(np.dstack((samples, alpha)), bits, RGBA, interlaced=interlaced)
            yield Layout(f"png rgba {bits} bit{adam7}", data, on_white(picture, share), 1, True)
            samples = at_depth(grey(), bits)
            data = png(np.dstack((samples, alpha)), bits, GREY_ALPHA, interlaced=interlaced)
            yield Layout(f"png grey alpha {bits} bit{adam7}", data, on_white(shown(samples, bits), share), 1, True)
        for bits in (1, 2, 4, 8):
            rng = np.random.default_rng(bits)
            palette = rng.integers(0, 256, (2**bits, 3), dtype=np.uint8)
            indices = at_depth(grey(), bits)
            plte = chunk(b"PLTE", palette.tobytes())
            name = f"png palette {bits} bit{adam7}"
            data = png(indices[:, :, None], bits, PALETTE, plte, interlaced=interlaced)
            yield Layout(name, data, palette[indices], 1, True)
            for kind, clear in (("one clear colour", [0]), ("half clear colours", [130, 255, 0])):
                alpha = np.full(2**bits, 255, np.uint8)
                alpha[: len(clear)] = clear[: len(alpha)]
                trns = chunk(b"tRNS", alpha[: len(clear)].tobytes())
                data = png(indices[:, :, None], bits, PALETTE, plte, trns, interlaced=interlaced)
                yield Layout(f"{name} with {kind}", data, on_white(palette[indices], alpha[indices] / 255), 1, True)
    samples = at_depth(colours(), 8)
    nearly = samples[20, 14].astype(np.uint16) + np.array([0, 0, 256], np.uint16)
    yield Layout(
        "png rgb 8 bit with a transparent colour out of range",
        png(samples, 8, RGB, chunk(b"tRNS", struct.pack(">3H", *nearly))), shown(samples, 8),
    )  # fmt: skip
    sixteen = colours()
    data = png(sixteen, 16, RGB, chunk(b"tRNS", struct.pack(">3H", *(sixteen[20, 14] - np.uint16(1)))))
    yield Layout("png rgb 16 bit whose transparent colour differs in its low byte", data, shown(sixteen, 16), 1, True)
    yield Layout("png rgb in many parts", png(samples, 8, RGB, parts=7), shown(samples, 8), 1, True)
