"""TIFF: bits, samples, planes, byte and bit order, photometric interpretation, alpha, tiles, compression."""

import io
import itertools
import struct
from collections.abc import Iterator, Sequence

import numpy as np
import tifffile
from PIL import Image, ImageCms

from tests.model.layouts import (
    HEIGHT,
    WIDTH,
    Layout,
    as_rgb,
    at_depth,
    colours,
    grey,
    on_white,
    opacity,
    packed,
    saved,
    shown,
)  # fmt: skip

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, CMYK, YCBCR, CIELAB = 0, 1, 2, 3, 4, 5, 6, 8
UNSPECIFIED, ASSOCIATED, UNASSOCIATED = 0, 1, 2
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 16: 8}


def directory(tags: dict[int, tuple[int, Sequence[int]]], order: str, *, big: bool = False) -> tuple[bytes, int]:
    """The head of a TIFF with one directory, tag -> (type, values), and how long it is; pixels come after it."""
    inline, count_code, start = (8, "Q", 16) if big else (4, "I", 8)
    place = start + (8 if big else 2) + len(tags) * (20 if big else 12) + (8 if big else 4)
    entries, more = b"", b""
    for tag in sorted(tags):
        kind, values = tags[tag]
        code = {1: "B", 2: "B", 3: "H", 4: "I", 16: "Q"}[kind]
        value = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(value) > inline:
            offset = place + len(more)
            more += value + b"\0" * (len(value) % 2)
            value = struct.pack(order + count_code, offset)
        entries += struct.pack(f"{order}HH{count_code}", tag, kind, len(values)) + value.ljust(inline, b"\0")
    mark = b"II" if order == "<" else b"MM"
    if big:
        head = mark + struct.pack(order + "HHHQ", 43, 8, 0, 16) + struct.pack(order + "Q", len(tags))
        return head + entries + bytes(8) + more, place + len(more)
    head = mark + struct.pack(order + "HI", 42, 8) + struct.pack(order + "H", len(tags))
    return head + entries + bytes(4) + more, place + len(more)


def tiff(
    samples: np.ndarray, bits: int, photometric: int, *, order: str = "<", planar: bool = False, fill_order: int = 1,
    sample_format: int | None = None, extra: Sequence[int] = (), rows: int = HEIGHT, tile: int = 0, big: bool = False,
    compression: int = 1, more: dict[int, tuple[int, Sequence[int]]] | None = None,
) -> bytes:  # fmt: skip
    """An uncompressed TIFF of samples ``[H, W, C]``, in strips of so many rows or in tiles of that side."""
    height, width, channels = samples.shape
    planes = [samples[:, :, i : i + 1] for i in range(channels)] if planar else [samples]
    blocks = []
    for plane in planes:
        if tile:
            for y, x in itertools.product(range(0, height, tile), range(0, width, tile)):
                block = np.zeros((tile, tile, plane.shape[2]), plane.dtype)
                part = plane[y : y + tile, x : x + tile]
                block[: part.shape[0], : part.shape[1]] = part
                blocks.append(packed(block.reshape(tile, -1), bits, order))
        else:
            for y in range(0, height, rows):
                part = plane[y : y + rows]
                blocks.append(packed(part.reshape(len(part), -1), bits, order))
    if fill_order == 2:
        reverse = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
        blocks = [block.translate(reverse) for block in blocks]
    tags: dict[int, tuple[int, Sequence[int]]] = {
        256: (3, [width]), 257: (3, [height]), 258: (3, [bits] * channels), 259: (3, [compression]),
        262: (3, [photometric]), 277: (3, [channels]), 284: (3, [2 if planar else 1]),
    }  # fmt: skip
    if fill_order != 1:
        tags[266] = (3, [fill_order])
    if sample_format is not None:
        tags[339] = (3, [sample_format] * channels)
    if extra:
        tags[338] = (3, extra)
    place, count = (324, 325) if tile else (273, 279)
    if tile:
        tags |= {322: (3, [tile]), 323: (3, [tile])}
    else:
        tags[278] = (3, [rows])
    tags |= more or {}
    tags |= {place: (4, [0] * len(blocks)), count: (4, [len(block) for block in blocks])}
    _, length = directory(tags, order, big=big)
    offsets = [length + sum(map(len, blocks[:i])) for i in range(len(blocks))]
    return directory(tags | {place: (4, offsets)}, order, big=big)[0] + b"".join(blocks)


ORDERS = (("little-endian", "<"), ("big-endian", ">"))


def layouts() -> Iterator[Layout]:
    """Every TIFF."""
    yield from _grey()
    yield from _colour()
    yield from _palettes()
    yield from _other_colours()
    yield from _numbers()
    yield from _arrangements()


def _grey() -> Iterator[Layout]:
    for (endian, order), bits, fill_order in itertools.product(ORDERS, (1, 2, 4, 6, 8, 10, 12, 14, 16, 24, 32), (1, 2)):
        wide = grey().astype(np.uint32)
        samples = wide >> (16 - bits) if bits <= 16 else wide << (bits - 16)
        picture = as_rgb((grey() >> 8).astype(np.uint8) if bits >= 8 else shown(samples, bits))
        for photometric, name in ((BLACK_IS_ZERO, "black is zero"), (WHITE_IS_ZERO, "white is zero")):
            values = samples if photometric == BLACK_IS_ZERO else np.uint32(2**bits - 1) - samples
            if bits == 24:
                data = values.astype(f"{order}u4").tobytes()
                data = b"".join(
                    data[i : i + 4][:3] if order == "<" else data[i : i + 4][1:] for i in range(0, len(data), 4)
                )
                head_values = np.frombuffer(data, np.uint8).reshape(HEIGHT, WIDTH * 3, 1)
                file = tiff(head_values, 8, photometric, order=order, more={256: (3, [WIDTH]), 258: (3, [24])})
            else:
                file = tiff(values[:, :, None], bits, photometric, order=order, fill_order=fill_order)
            usual = bits in (1, 8, 12, 16) and fill_order == 1
            turned = " from the lowest bit" if fill_order == 2 else ""
            yield Layout(f"tiff grey {bits} bit {name} {endian}{turned}", file, picture, 1, usual)


def _colour() -> Iterator[Layout]:
    for (endian, order), bits, planar in itertools.product(ORDERS, (4, 8, 16), (False, True)):
        samples, alpha, levels = at_depth(colours(), bits), at_depth(opacity(), bits), at_depth(grey(), bits)
        share = alpha / (2**bits - 1)
        where = f"{bits} bit {'planar' if planar else 'interleaved'} {endian}"
        picture = (colours() >> 8).astype(np.uint8) if bits >= 8 else shown(samples, bits)
        data = tiff(samples, bits, RGB, order=order, planar=planar)
        yield Layout(f"tiff rgb {where}", data, picture, 1, bits == 8 or (bits == 16 and not planar))
        both = np.dstack((samples, alpha))
        for kind, extra, pixels in (
            ("with alpha", UNASSOCIATED, on_white(picture, share)),
            ("with a fourth channel of no meaning", UNSPECIFIED, picture),
        ):
            yield Layout(
                f"tiff rgb {where} {kind}", tiff(both, bits, RGB, order=order, planar=planar, extra=[extra]), pixels
            )
        premultiplied = np.dstack((np.round(samples * share[:, :, None]).astype(np.uint16), alpha))
        data = tiff(premultiplied, bits, RGB, order=order, planar=planar, extra=[ASSOCIATED])
        yield Layout(f"tiff rgb {where} with associated alpha", data, on_white(picture, share), 2)
        picture = as_rgb((grey() >> 8).astype(np.uint8) if bits >= 8 else shown(levels, bits))
        both = np.dstack((levels, alpha))
        for kind, extra, pixels in (
            ("with alpha", [UNASSOCIATED], on_white(picture, share)),
            ("with a second channel of no meaning", [UNSPECIFIED], picture),
            ("with a second channel that no tag names", [], picture),
        ):
            data = tiff(both, bits, BLACK_IS_ZERO, order=order, planar=planar, extra=extra)
            yield Layout(f"tiff grey {where} {kind}", data, pixels)
        inverted = np.dstack(((2**bits - 1) - levels.astype(np.int64), alpha)).astype(np.uint16)
        data = tiff(inverted, bits, WHITE_IS_ZERO, order=order, planar=planar, extra=[UNASSOCIATED])
        yield Layout(f"tiff grey {where} white is zero with alpha", data, on_white(picture, share))
        premultiplied = np.dstack((np.round(levels * share).astype(np.uint16), alpha))
        data = tiff(premultiplied, bits, BLACK_IS_ZERO, order=order, planar=planar, extra=[ASSOCIATED])
        yield Layout(f"tiff grey {where} with associated alpha", data, on_white(picture, share), 2)
        more = np.dstack((samples, alpha, levels))
        picture = (colours() >> 8).astype(np.uint8) if bits >= 8 else shown(samples, bits)
        for extra, pixels in (
            ([UNSPECIFIED, UNSPECIFIED], picture), ([UNASSOCIATED, UNSPECIFIED], on_white(picture, share)),
            ([UNSPECIFIED, UNASSOCIATED], on_white(picture, levels / (2**bits - 1))),
        ):  # fmt: skip
            data = tiff(more, bits, RGB, order=order, planar=planar, extra=extra)
            yield Layout(f"tiff rgb {where} with two more channels {extra}", data, pixels)
        data = tiff(np.dstack((samples, alpha)), bits, RGB, order=order, planar=planar)
        yield Layout(f"tiff rgb {where} with a fourth channel that no tag names", data, picture)


def _palettes() -> Iterator[Layout]:
    for (endian, order), bits, fill_order in itertools.product(ORDERS, (1, 2, 4, 8, 16), (1, 2)):
        rng = np.random.default_rng(bits)
        palette = rng.integers(0, 65536, (3, 2**bits), dtype=np.uint16)
        indices = at_depth(grey(), bits)
        pixels = (palette >> 8).astype(np.uint8).T[indices]
        data = tiff(
            indices[:, :, None], bits, PALETTE, order=order, fill_order=fill_order,
            more={320: (3, palette.flatten().tolist())},
        )  # fmt: skip
        turned = " from the lowest bit" if fill_order == 2 else ""
        yield Layout(f"tiff palette {bits} bit {endian}{turned}", data, pixels, 1, bits == 8 and fill_order == 1)
    small = palette_of_bytes = np.random.default_rng(1).integers(0, 256, (3, 256), dtype=np.uint16)
    indices = at_depth(grey(), 8)
    data = tiff(indices[:, :, None], 8, PALETTE, more={320: (3, small.flatten().tolist())})
    yield Layout("tiff palette whose colours are bytes", data, palette_of_bytes.astype(np.uint8).T[indices])
    alpha = at_depth(opacity(), 8)
    wide = np.random.default_rng(2).integers(0, 65536, (3, 256), dtype=np.uint16)
    data = tiff(np.dstack((indices, alpha)), 8, PALETTE, extra=[2], more={320: (3, wide.flatten().tolist())})
    yield Layout("tiff palette with alpha", data, on_white((wide >> 8).astype(np.uint8).T[indices], alpha / 255))


def _other_colours() -> Iterator[Layout]:
    rng = np.random.default_rng(3)
    for (endian, order), bits, planar in itertools.product(ORDERS, (8, 16), (False, True)):
        inks = rng.integers(0, 2**bits, (HEIGHT, WIDTH, 4), dtype=np.uint16)
        left = 1 - inks / (2**bits - 1)
        pixels = np.round(255 * left[:, :, :3] * left[:, :, 3:]).astype(np.uint8)
        name = f"tiff cmyk {bits} bit {'planar' if planar else 'interleaved'} {endian}"
        data = tiff(inks, bits, CMYK, order=order, planar=planar, more={332: (3, [1])})
        yield Layout(name, data, pixels, 1, bits == 8 and not planar)
        data = tiff(inks, bits, CMYK, order=order, planar=planar, more={332: (3, [2])})
        yield Layout(name + " of other inks", data, np.zeros_like(pixels), -1)
        five = np.dstack((inks, at_depth(opacity(), bits)))
        data = tiff(five, bits, CMYK, order=order, planar=planar, extra=[UNASSOCIATED])
        yield Layout(name + " with alpha", data, on_white(pixels, five[:, :, 4] / (2**bits - 1)), 2)
        data = tiff(five, bits, CMYK, order=order, planar=planar, extra=[UNSPECIFIED])
        yield Layout(name + " with a fifth channel", data, pixels)
    rgb = Image.fromarray((colours() >> 8).astype(np.uint8))
    ycc = np.asarray(rgb.convert("YCbCr"))
    for planar, subsampling in itertools.product((False, True), ([1, 1], None)):
        more = {} if subsampling is None else {530: (3, subsampling)}
        data = tiff(ycc, 8, YCBCR, planar=planar, more=more)
        name = f"tiff ycbcr {'planar' if planar else 'interleaved'} {'not subsampled' if subsampling else 'by default'}"
        yield Layout(
            name,
            data,
            np.asarray(rgb) if subsampling else np.zeros((HEIGHT, WIDTH, 3), np.uint8),
            3 if subsampling else -1,
        )
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.applyTransform(rgb, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    yield Layout("tiff cielab", saved(lab, "TIFF"), np.asarray(rgb), 3)
    mask = at_depth(grey(), 1)
    yield Layout("tiff transparency mask", tiff(mask[:, :, None], 1, MASK), as_rgb(shown(mask, 1)))
    for photometric in (9, 10, 32803, 32844, 34892, 7, 99):
        data = tiff(at_depth(grey(), 8)[:, :, None], 8, photometric)
        yield Layout(f"tiff photometric {photometric}", data, np.zeros((HEIGHT, WIDTH, 3), np.uint8), -1)


def _numbers() -> Iterator[Layout]:
    nothing = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for kind in ("i1", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "c8", "c16"):
        for order, planar in itertools.product("<>", ("contig", "separate")):
            for channels in (1, 3):
                values = (at_depth(grey(), 7) if channels == 1 else at_depth(colours(), 7)).astype(kind)
                if kind.startswith("f"):
                    values = values / np.array(127, kind)
                if channels == 3 and planar == "separate":
                    values = values.transpose(2, 0, 1)
                buffer = io.BytesIO()
                options = {"planarconfig": planar} if channels == 3 else {}
                tifffile.imwrite(
                    buffer, values, byteorder=order, photometric="rgb" if channels == 3 else "minisblack", **options
                )
                yield Layout(f"tiff {kind} {channels} channels {order} {planar}", buffer.getvalue(), nothing, -1)
    for sample_format in (2, 3, 4, 5, 6):
        for bits in (8, 16):
            data = tiff(at_depth(colours(), bits), bits, RGB, sample_format=sample_format)
            yield Layout(
                f"tiff rgb {bits} bit of sample format {sample_format}", data,
                shown(at_depth(colours(), bits), bits), 1 if sample_format == 4 else -1,
            )  # fmt: skip
    mixed = tiff(at_depth(colours(), 8), 8, RGB, more={258: (3, [8, 8, 16])})
    yield Layout("tiff of channels of different depth", mixed, nothing, -1)
    mixed = tiff(at_depth(colours(), 8), 8, RGB, more={339: (3, [1, 1, 2])})
    yield Layout("tiff of channels of different number formats", mixed, nothing, -1)
    data = tiff(at_depth(colours(), 8), 8, RGB, more={258: (3, [8])})
    yield Layout("tiff rgb with one depth for all", data, shown(at_depth(colours(), 8), 8))
    data = tiff(at_depth(grey(), 8)[:, :, None], 8, BLACK_IS_ZERO, more={290: (3, [1]), 291: (3, [0] * 256)})
    yield Layout("tiff grey with a response curve", data, as_rgb(shown(at_depth(grey(), 8), 8)))


def _arrangements() -> Iterator[Layout]:
    rgb = at_depth(colours(), 8)
    for bits, planar, big in itertools.product((8, 16), (False, True), (False, True)):
        samples, levels = at_depth(colours(), bits), at_depth(grey(), bits)
        where = f"{bits} bit{' planar' if planar else ''}{' BigTIFF' if big else ''}"
        pixels, grey_pixels = (samples >> (bits - 8)).astype(np.uint8), as_rgb((levels >> (bits - 8)).astype(np.uint8))
        usual = not big and not planar
        for rows in (1, 5, 26, 2**16 - 1):
            name = f"tiff rgb {where} in strips of {rows} rows"
            yield Layout(name, tiff(samples, bits, RGB, planar=planar, rows=rows, big=big), pixels, 1, usual)
            name = f"tiff grey {where} in strips of {rows} rows"
            yield Layout(
                name, tiff(levels[:, :, None], bits, 1, planar=planar, rows=rows, big=big), grey_pixels, 1, usual
            )
        for side in (16, 32, 64):
            name = f"tiff rgb {where} in tiles of {side}"
            yield Layout(name, tiff(samples, bits, RGB, planar=planar, tile=side, big=big), pixels, 1, usual)
            name = f"tiff grey {where} in tiles of {side}"
            yield Layout(
                name, tiff(levels[:, :, None], bits, 1, planar=planar, tile=side, big=big), grey_pixels, 1, usual
            )
    for bits, side in itertools.product((1, 2, 4), (16, 32)):
        levels = at_depth(grey(), bits)
        data = tiff(levels[:, :, None], bits, 1, tile=side)
        yield Layout(f"tiff grey {bits} bit in tiles of {side}", data, as_rgb(shown(levels, bits)))
    for orientation in range(1, 9):
        upright = [
            rgb, rgb[:, ::-1], rgb[::-1, ::-1], rgb[::-1], rgb.transpose(1, 0, 2), np.rot90(rgb, -1),
            np.rot90(rgb, -1)[:, ::-1][::-1, ::-1][:, ::-1][::-1], np.rot90(rgb),
        ][orientation - 1]  # fmt: skip
        if orientation == 7:
            upright = rgb.transpose(1, 0, 2)[::-1, ::-1]
        data = tiff(rgb, 8, RGB, more={274: (3, [orientation])})
        yield Layout(f"tiff rgb with orientation {orientation}", data, upright.astype(np.uint8), 1, True)
    broken = tiff(rgb, 8, RGB, more={274: (3, [99])})
    yield Layout("tiff rgb with an orientation that is none", broken, rgb.astype(np.uint8))
