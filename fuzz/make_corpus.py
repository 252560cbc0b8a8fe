"""Writes the files that fuzzing starts from: one small file of every format and its usual variants, and the kept ones.

    python -m fuzz.make_corpus fuzz/corpus

What fuzzing has found is kept in corpus.zip: inputs that reach different code, and those that once broke a rule. To
keep what a run has added, let libFuzzer leave out what reaches nothing new, and pack the rest. libFuzzer starts this
program again for it, so the virtual environment must be active:

    mkdir fuzz/smaller && python -m fuzz.read_image fuzz/smaller fuzz/corpus -merge=1
    (cd fuzz/smaller && python -m zipfile -c ../corpus.zip *)
"""

import io
import struct
import sys
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from PIL import Image

KEPT = Path(__file__).with_name("corpus.zip")
SIDE_UP = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIII", 0x0112, 3, 1, 6, 0)


def saved(image: Image.Image, format_name: str, **options: object) -> bytes:
    """The bytes of an image's file."""
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def originals() -> dict[str, bytes]:
    """Name and bytes of every file, all of one picture, 48x40 pixels."""
    rng = np.random.default_rng(3)
    image = Image.fromarray((140 + 30 * np.sin(np.arange(48) / 3) + rng.normal(0, 4, (40, 48))).astype(np.uint8))
    image = image.convert("RGB")
    clear = image.convert("RGBA")
    clear.putalpha(100)
    return {
        "png": saved(image, "PNG"),
        "png-rgba": saved(clear, "PNG"),
        "png-palette": saved(image.convert("P"), "PNG", transparency=3),
        "png-16": saved(Image.fromarray(np.arange(1920, dtype=np.uint16).reshape(40, 48) * 30), "PNG"),
        "jpeg": saved(image, "JPEG", exif=SIDE_UP),
        "jpeg-progressive": saved(image, "JPEG", progressive=True),
        "jpeg-cmyk": saved(image.convert("CMYK"), "JPEG"),
        "bmp": saved(image, "BMP"),
        "bmp-palette": saved(image.convert("P"), "BMP"),
        "tiff": saved(image, "TIFF"),
        "tiff-lzw": saved(image, "TIFF", compression="tiff_lzw"),
        "tiff-deflate": saved(image, "TIFF", compression="tiff_adobe_deflate"),
        "tiff-jpeg": saved(image, "TIFF", compression="jpeg"),
        "tiff-group4": saved(image.convert("1"), "TIFF", compression="group4"),
        "webp": saved(image, "WEBP"),
        "webp-lossless": saved(clear, "WEBP", lossless=True),
    }


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in originals().items():
        (folder / name).write_bytes(data)
    with ZipFile(KEPT) as kept:
        kept.extractall(folder)


if __name__ == "__main__":
    main()
