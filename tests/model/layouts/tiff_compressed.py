"""TIFF: compression and predictors, as tifffile, Pillow and OpenCV write them."""

import io
import itertools
from collections.abc import Iterator

import cv2
import numpy as np
import tifffile
from PIL import Image

from tests.model.layouts import Layout, as_rgb, at_depth, colours, grey, saved
from tests.model.layouts.jpeg import smooth

COMPRESSIONS = ("packbits", "lzw", "zlib", "deflate", "zstd", "lzma", "webp", "png", "jpeg2000", "jpegxr", "lerc")
OF_PILLOW = (
    "jpeg", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "tiff_raw_16", "lzma", "zstd", "webp",
)  # fmt: skip


def layouts() -> Iterator[Layout]:
    """Every compressed TIFF."""
    yield from _of_tifffile()
    yield from _jpegs_of_tifffile()
    yield from _of_pillow()
    yield from _of_opencv()


def _of_tifffile() -> Iterator[Layout]:
    for compression, bits, order, coloured, predictor, tiled, planar in itertools.product(
        COMPRESSIONS, (8, 16), "<>", (False, True), (False, True), (False, True), (False, True)
    ):
        if planar and not coloured:
            continue
        samples = at_depth(colours() if coloured else grey(), bits).astype(f"u{bits // 8}")
        options: dict[str, object] = {"tile": (16, 16)} if tiled else {"rowsperstrip": 10}
        if coloured:
            options["planarconfig"] = "separate" if planar else "contig"
        buffer = io.BytesIO()
        try:
            tifffile.imwrite(
                buffer, np.ascontiguousarray(samples.transpose(2, 0, 1)) if planar else samples, byteorder=order,
                compression=compression, predictor=predictor, photometric="rgb" if coloured else "minisblack",
                **options,
            )  # fmt: skip
        except (ValueError, NotImplementedError, RuntimeError, KeyError):  # what tifffile cannot write
            continue
        name = (
            f"tiff {'rgb' if coloured else 'grey'} {bits} bit {compression}"
            f"{' with predictor' if predictor else ''} {order}{' tiled' if tiled else ''}{' planar' if planar else ''}"
        )
        usual = (compression == "packbits" and not predictor) or compression in ("lzw", "zlib")
        pixels = as_rgb((samples >> (bits - 8)).astype(np.uint8))
        yield Layout(name, buffer.getvalue(), pixels, 1, usual and not planar and not tiled)


def _jpegs_of_tifffile() -> Iterator[Layout]:
    picture = cv2.resize(smooth(), (48, 32))  # whole tiles: the edge of a padded one would be far off in a JPEG
    grey_picture = np.ascontiguousarray(picture[:, :, 0])
    ycc = np.asarray(Image.fromarray(picture).convert("YCbCr"))
    for tiled in (False, True):
        options: dict[str, object] = {"tile": (16, 16)} if tiled else {"rowsperstrip": 16}
        for photometric, subsampling, values, pixels in (
            ("minisblack", None, grey_picture, as_rgb(grey_picture)),
            ("miniswhite", None, grey_picture, as_rgb(255 - grey_picture)),
            ("rgb", None, picture, picture),
            ("ycbcr", (1, 1), ycc, picture),
            ("ycbcr", (2, 1), ycc, picture),
            ("ycbcr", (2, 2), ycc, picture),
        ):
            buffer = io.BytesIO()
            tifffile.imwrite(
                buffer, values, compression="jpeg", compressionargs={"level": 98}, photometric=photometric,
                subsampling=subsampling, **options,
            )  # fmt: skip
            name = f"tiff jpeg {photometric} {subsampling or ''}{' tiled' if tiled else ''}"
            yield Layout(name, buffer.getvalue(), pixels, 20)


def _of_pillow() -> Iterator[Layout]:
    picture = Image.fromarray(smooth())
    clear = Image.fromarray(np.tile(np.linspace(0, 255, picture.width).astype(np.uint8), (picture.height, 1)))
    for compression, mode in itertools.product(OF_PILLOW, ("L", "RGB", "CMYK", "RGBA", "YCbCr", "1", "P", "LA")):
        image = picture.convert(mode)
        if mode in ("RGBA", "LA"):
            image.putalpha(clear)
            seen = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        else:
            seen = image
        try:
            data = saved(image, "TIFF", compression=compression)
        except (OSError, RuntimeError):  # what Pillow cannot write
            continue
        tolerance = 24 if compression in ("jpeg", "webp") else 3 if mode == "YCbCr" else 1
        yield Layout(f"tiff of Pillow {mode} {compression}", data, np.asarray(seen.convert("RGB")), tolerance)
    bits = picture.convert("1")
    for compression in ("tiff_ccitt", "group3", "group4"):
        data = saved(bits, "TIFF", compression=compression)
        yield Layout(f"tiff 1 bit {compression}", data, np.asarray(bits.convert("RGB")), 1, True)


def _of_opencv() -> Iterator[Layout]:
    for compression, channels, kind in itertools.product(
        (1, 5, 8, 32773, 7, 34925, 50000), (1, 3, 4), ("u1", "u2", "i1", "i2", "i4", "f4")
    ):
        bits = 8 * np.dtype(kind).itemsize
        values = at_depth(grey() if channels == 1 else colours(), min(bits, 16))
        if channels == 4:
            values = np.dstack((values, np.full(values.shape[:2], 2**bits - 1 if kind in ("u1", "u2") else 1)))
        try:
            done, data = cv2.imencode(".tiff", values.astype(kind), [cv2.IMWRITE_TIFF_COMPRESSION, compression])
        except cv2.error:
            continue
        if not done:
            continue
        name = f"tiff of OpenCV {channels} channels {kind} compression {compression}"
        if kind in ("u1", "u2"):
            seen = (values >> (bits - 8)).astype(np.uint8)
            tolerance = 255 if compression == 7 else 1  # a JPEG of sharp edges
            yield Layout(name, data.tobytes(), as_rgb(seen) if channels == 1 else seen[:, :, 2::-1], tolerance)
        else:
            yield Layout(name, data.tobytes(), np.zeros((*values.shape[:2], 3), np.uint8), -1)
