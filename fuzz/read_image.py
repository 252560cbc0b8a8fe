#!/usr/bin/env python3
"""Coverage-guided fuzzing of image reading: whatever the bytes, an image or an `ImageError`, soon, in little memory.

    pip install --constraint constraints.txt '.[fuzz]'
    python -m fuzz.make_corpus fuzz/corpus
    python -m fuzz.read_image fuzz/corpus -max_total_time=3600

An input may take one second of processor time for each 100 kB begun. libFuzzer's options limit wall time and memory.
What breaks a rule is written to a file ``crash-...``, ``timeout-...`` or ``oom-...``, and
``python -m fuzz.read_image FILE`` runs it again.
"""

import sys
import time

import atheris

with atheris.instrument_imports(include=["PIL", "model.formats", "model.images", "model.preprocessing"]):
    from PIL import BmpImagePlugin, JpegImagePlugin, MpoImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

    from model.images import ImageError, decode_image
    from model.preprocessing import Preprocessing

PLUGINS = (BmpImagePlugin, JpegImagePlugin, MpoImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin)
"""Imported here, so that they are watched: Pillow itself loads them when it first needs them."""
MAX_PIXELS = 1_000_000
CPU_SECONDS_PER_100_KB = 1.0
LIMITS = ("-timeout=60", "-rss_limit_mb=1024", "-max_len=262144", "-artifact_prefix=fuzz/")


def read(data: bytes) -> None:
    """Breaks on whatever is neither a readable image nor a refusal in words."""
    started = time.process_time()
    try:
        image = decode_image(data, MAX_PIXELS)
    except ImageError:
        image = None
    seconds = time.process_time() - started
    assert seconds <= CPU_SECONDS_PER_100_KB * (1 + len(data) // 100_000), f"{seconds:.2f} s for {len(data)} bytes"
    if image is None:
        return
    assert image.shape[2] == 3
    assert 0 < image.shape[0] * image.shape[1] <= MAX_PIXELS
    assert Preprocessing(64).apply(image).shape == (1, 64, 64, 3)


if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *LIMITS, *sys.argv[1:]], read)
    atheris.Fuzz()
