"""JPEG: components, colour models, markers, processes, depths."""

import itertools
import struct
from collections.abc import Iterator

import cv2
import imagecodecs
import numpy as np
from PIL import Image

from tests.model.layouts import Layout, as_rgb, colours, saved


def smooth() -> np.ndarray:
    """uint8 RGB ``[H, W, 3]`` without sharp edges, so that a good JPEG is near to it."""
    return cv2.GaussianBlur((colours() >> 8).astype(np.uint8), (0, 0), 5)


def without(data: bytes, kind: int) -> bytes:
    """The JPEG without its segments of this marker."""
    place = 2
    while data[place + 1] != 0xDA:
        length = 2 + int.from_bytes(data[place + 2 : place + 4])
        if data[place + 1] == kind:
            data = data[:place] + data[place + length :]
        else:
            place += length
    return data


def adobe(transform: int) -> bytes:
    """The marker that says how colours are coded: 0 as they are, 1 YCbCr, 2 YCCK."""
    return b"\xff\xee\0\x0eAdobe" + struct.pack(">HHHB", 100, 0, 0, transform)


def layouts() -> Iterator[Layout]:
    """Every JPEG."""
    rgb = smooth()
    picture = Image.fromarray(rgb)
    for progressive, subsampling, optimize in itertools.product((False, True), (0, 1, 2), (False, True)):
        name = f"jpeg {'progressive' if progressive else 'baseline'} subsampling {subsampling} {optimize}"
        options = {"progressive": progressive, "subsampling": subsampling, "optimize": optimize, "quality": 100}
        yield Layout(name, saved(picture, "JPEG", **options), rgb, 24 if subsampling else 8, True)
    for progressive in (False, True):
        data = saved(picture.convert("L"), "JPEG", quality=100, progressive=progressive)
        yield Layout(f"jpeg grey {progressive}", data, as_rgb(np.asarray(picture.convert("L"))), 4, True)
    data = saved(picture, "JPEG", keep_rgb=True, quality=100)
    yield Layout("jpeg of rgb components", data, rgb, 5, True)
    yield Layout(
        "jpeg with restarts", saved(picture, "JPEG", quality=100, subsampling=0, restart_marker_blocks=2), rgb, 8, True
    )
    ycc = saved(picture, "JPEG", quality=100, subsampling=0)
    bare = without(ycc, 0xE0)
    yield Layout("jpeg without a JFIF marker", bare, rgb, 8)
    yield Layout("jpeg with an Adobe marker of YCbCr", bare[:2] + adobe(1) + bare[2:], rgb, 8)
    plain = imagecodecs.jpeg8_encode(rgb, level=100, colorspace="RGB", outcolorspace="RGB", subsampling="444")
    yield Layout("jpeg of rgb components, Adobe", plain, rgb, 5)
    inks = np.dstack((255 - rgb, np.full(rgb.shape[:2], 40, np.uint8)))
    left = (255 - inks.astype(np.float64)) / 255
    pixels = np.round(255 * left[:, :, :3] * left[:, :, 3:]).astype(np.uint8)
    cmyk = Image.frombytes("CMYK", picture.size, inks.tobytes())
    data = saved(cmyk, "JPEG", quality=100)
    yield Layout("jpeg cmyk with an Adobe marker", data, pixels, 6, True)
    yield Layout("jpeg cmyk without an Adobe marker", without(data, 0xEE), 255 - pixels, -1)
    stored = 255 - inks  # as Adobe writes inks
    for out in ("CMYK", "YCCK"):
        found = imagecodecs.jpeg8_encode(stored, level=100, colorspace="CMYK", outcolorspace=out, subsampling="444")
        yield Layout(f"jpeg {out} of imagecodecs", found, pixels, 8)
    for colour, name in ((rgb, "rgb"), (np.ascontiguousarray(rgb[:, :, 0]), "grey")):
        for bits in (12, 16):
            deep = (colour.astype(np.uint16) << (bits - 8)) | 5
            for lossless in (False, True):
                try:
                    found = imagecodecs.jpeg8_encode(deep, level=98, bitspersample=bits, lossless=lossless)
                except Exception:
                    continue
                yield Layout(f"jpeg {name} {bits} bit {'lossless' if lossless else 'lossy'}", found, as_rgb(colour), 12)
        found = imagecodecs.jpeg8_encode(np.ascontiguousarray(colour), lossless=True, bitspersample=8)
        yield Layout(f"jpeg {name} 8 bit lossless", found, as_rgb(colour), 1)
        yield Layout(f"jpeg-ls {name}", imagecodecs.jpegls_encode(np.ascontiguousarray(colour)), as_rgb(colour), 1)
    yield Layout(
        "jpeg of OpenCV",
        cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes(),
        rgb,
        24,
        True,
    )
