"""BMP: bits, headers, masks, palettes, direction, compression."""

import itertools
import struct
from collections.abc import Iterator, Sequence

import numpy as np

from tests.model.layouts import HEIGHT, WIDTH, Layout, as_rgb, at_depth, colours, grey, on_white, opacity, packed

RGB, RLE8, RLE4, BITFIELDS, JPEG, PNG, ALPHABITFIELDS = range(7)


def bmp(
    rows: Sequence[bytes], bits: int, *, header: int = 40, compression: int = RGB, palette: bytes = b"",
    used: int = 0, masks: Sequence[int] = (), top_down: bool = False, width: int = WIDTH, gap: bytes = b"",
) -> bytes:  # fmt: skip
    """A BMP of rows from the top, which are padded here; ``masks`` of red, green, blue and alpha."""
    height = len(rows)
    padded = [row + bytes(-len(row) % 4) for row in rows]
    pixels = b"".join(padded if top_down else padded[::-1])
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        info = struct.pack(
            "<IiiHHIIiiII",
            header,
            width,
            -height if top_down else height,
            1,
            bits,
            compression,
            len(pixels),
            0,
            0,
            used,
            0,
        )
        held = b"".join(struct.pack("<I", mask) for mask in masks)
        if header == 40:
            info += held
        else:
            info += held.ljust(min(header, 56) - 40, b"\0")[: header - 40]
            if header >= 108:
                info = info + b"BGRs" + bytes(48)
            info = info.ljust(header, b"\0")
    offset = 14 + len(info) + len(palette) + len(gap)
    return b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + info + palette + gap + pixels


def masked(samples: np.ndarray, masks: Sequence[int]) -> np.ndarray:
    """16-bit samples ``[H, W, C]`` put where the masks say: uint32 ``[H, W]``, and what is left of them."""
    found = np.zeros(samples.shape[:2], np.uint32)
    for channel, mask in enumerate(masks):
        if mask:
            shift, bits = (mask & -mask).bit_length() - 1, mask.bit_count()
            found |= (samples[:, :, channel].astype(np.uint32) >> np.uint32(16 - bits)) << np.uint32(shift)
    return found


def seen(samples: np.ndarray, masks: Sequence[int]) -> np.ndarray:
    """The same as 8-bit pixels ``[H, W, C]``."""
    channels = []
    for channel, mask in enumerate(masks):
        bits = mask.bit_count()
        if bits == 0:
            channels.append(np.full(samples.shape[:2], 255))
            continue
        values = samples[:, :, channel].astype(np.uint32) >> np.uint32(16 - bits)
        channels.append(np.round(values * 255 / (2**bits - 1)))
    return np.stack(channels, axis=2).astype(np.uint8)


def rows_of(values: np.ndarray, size: int) -> list[bytes]:
    """Whole numbers ``[H, W]`` as rows of little-endian numbers of that many bytes."""
    return [row.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :size].tobytes() for row in values]


HEADERS = (12, 40, 52, 56, 64, 108, 124)


def layouts() -> Iterator[Layout]:
    """Every BMP."""
    rgb, levels = at_depth(colours(), 8).astype(np.uint8), at_depth(grey(), 8).astype(np.uint8)
    for header, top_down in itertools.product(HEADERS, (False, True)):
        if header == 12 and top_down:
            continue
        where = f"{'top-down ' if top_down else ''}header {header}"
        data = bmp([row[:, ::-1].tobytes() for row in rgb], 24, header=header, top_down=top_down)
        yield Layout(f"bmp 24 bit {where}", data, rgb, 1, header in (40, 108, 124))
        for bits, used, kind in itertools.product(
            (1, 2, 4, 8), (0, 2, 16, 200, 256), ("grey", "black and white", "indices", "colours", "white and black")
        ):
            count = used or 2**bits
            if count > 2**bits or (header == 12 and used) or (kind.endswith(("white", "black")) and count > 2):
                continue
            rng = np.random.default_rng(bits)
            palette = {
                "grey": np.repeat(np.linspace(0, 255, count).astype(np.uint8)[:, None], 3, axis=1),
                "black and white": np.array([[0] * 3, [255] * 3], np.uint8)[:count],
                "white and black": np.array([[255] * 3, [0] * 3], np.uint8)[:count],
                "indices": np.repeat(np.arange(count, dtype=np.uint8)[:, None], 3, axis=1),
                "colours": rng.integers(0, 256, (count, 3), dtype=np.uint8),
            }[kind]
            indices = (grey().astype(np.uint32) * count >> 16).astype(np.uint8)
            packed_rows = packed(indices, bits)
            stride = len(packed_rows) // HEIGHT
            rows = [packed_rows[i : i + stride] for i in range(0, len(packed_rows), stride)]
            entries = [bytes(entry[::-1]) + (b"" if header == 12 else b"\0") for entry in palette]
            data = bmp(rows, bits, header=header, top_down=top_down, palette=b"".join(entries), used=used)
            usual = header == 40 and not top_down and used == 0 and bits in (1, 8) and kind in ("grey", "colours")
            yield Layout(f"bmp {bits} bit of {used or 'all'} {kind} {where}", data, palette[indices], 1, usual)
        if header == 12:
            continue
        whole = np.dstack((colours(), opacity()))
        for bits, masks, compression in (
            (16, (), RGB),
            (16, (0x7C00, 0x3E0, 0x1F, 0), BITFIELDS),
            (16, (0xF800, 0x7E0, 0x1F, 0), BITFIELDS),
            (16, (0x1F, 0x7E0, 0xF800, 0), BITFIELDS),
            (16, (0xF00, 0xF0, 0xF, 0), BITFIELDS),
            (16, (0xF00, 0xF0, 0xF, 0xF000), BITFIELDS),
            (16, (0x7C00, 0x3E0, 0x1F, 0x8000), BITFIELDS),
            (32, (), RGB),
            (32, (0xFF0000, 0xFF00, 0xFF, 0), BITFIELDS),
            (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000), BITFIELDS),
            (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000), BITFIELDS),
            (32, (0xFF, 0xFF00, 0xFF0000, 0), BITFIELDS),
            (32, (0xFF000000, 0xFF0000, 0xFF00, 0), BITFIELDS),
            (32, (0xFF000000, 0xFF0000, 0xFF00, 0xFF), BITFIELDS),
            (32, (0xFF000000, 0xFF00, 0xFF, 0xFF0000), BITFIELDS),
            (32, (0x3FF00000, 0xFFC00, 0x3FF, 0), BITFIELDS),
            (32, (0, 0, 0, 0), BITFIELDS),
            (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000), ALPHABITFIELDS),
        ):
            real = masks if any(masks) else ((0x7C00, 0x3E0, 0x1F, 0) if bits == 16 else (0xFF0000, 0xFF00, 0xFF, 0))
            values = masked(whole, real)
            if bits == 32 and compression == RGB:  # the fourth byte has no meaning
                values |= np.uint32(0x5A000000) ^ (np.arange(WIDTH, dtype=np.uint32) << np.uint32(24))
            held = masks[:3] if header in (40, 52) and compression != ALPHABITFIELDS else masks
            if header in (40, 52) and len(masks) == 4 and masks[3] and compression == BITFIELDS:
                continue
            data = bmp(
                rows_of(values, bits // 8), bits, header=header, top_down=top_down, compression=compression,
                masks=held,
            )  # fmt: skip
            pixels = seen(whole, real)
            flat = on_white(pixels[:, :, :3], pixels[:, :, 3] / 255) if real[3] else pixels[:, :, :3]
            name = f"bmp {bits} bit {[hex(mask) for mask in masks] or 'without masks'} {compression} {where}"
            tolerance = 5 if bits == 16 else 1
            if masks and not any(masks):
                flat, tolerance = np.zeros_like(flat), -1
            yield Layout(name, data, flat, tolerance, header == 40 and compression == RGB)
        for kind, alpha in (("0", np.zeros_like(opacity())), ("1", np.full_like(opacity(), 256))):
            masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
            if header < 56 or header == 64:
                continue
            values = masked(np.dstack((colours(), alpha)), masks)
            data = bmp(rows_of(values, 4), 32, header=header, top_down=top_down, compression=BITFIELDS, masks=masks)
            yield Layout(f"bmp 32 bit whose alpha is {kind} everywhere {where}", data, rgb, 1, True)
    run = b"".join(bytes((1, value)) for row in levels[::-1] for value in row)
    ramp = b"".join(bytes((value,) * 3 + (0,)) for value in range(256))
    runs = b"".join(b"".join(bytes((1, value)) for value in row) + b"\0\0" for row in levels[::-1]) + b"\0\1"
    for name, body in (("rle8", runs), ("rle8 without ends of lines", run)):
        head = struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 8, RLE8, len(body), 0, 0, 256, 0)
        file = b"BM" + struct.pack("<IHHI", 54 + 1024 + len(body), 0, 0, 54 + 1024) + head + ramp + body
        yield Layout(f"bmp {name}", file, as_rgb(levels))
    data = bmp([row[:, ::-1].tobytes() for row in rgb], 24, gap=bytes(10))
    yield Layout("bmp 24 bit with a gap before the pixels", data, rgb, 1, True)
