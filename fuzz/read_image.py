"""Coverage-guided fuzzing of image reading: whatever the bytes, an image or an `ImageError`, soon, in little memory.

    pip install --constraint constraints.txt '.[fuzz]'
    python -m fuzz.make_corpus fuzz/corpus
    python -m fuzz.read_image fuzz/corpus -max_total_time=3600

libFuzzer's options limit time and memory; what breaks a rule is written to a file ``crash-...``, ``timeout-...`` or
``oom-...``, and ``python -m fuzz.read_image FILE`` runs it again.
"""

import sys

import atheris

with atheris.instrument_imports(include=["PIL", "model.formats", "model.images", "model.preprocessing"]):
    from PIL import BmpImagePlugin, JpegImagePlugin, MpoImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

    from model.images import ImageError, decode_image
    from model.preprocessing import Preprocessing

PLUGINS = (BmpImagePlugin, JpegImagePlugin, MpoImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin)
"""Imported here, so that they are watched: Pillow itself loads them when it first needs them."""
MAX_PIXELS = 1_000_000
LIMITS = ("-timeout=10", "-rss_limit_mb=1024", "-max_len=65536", "-artifact_prefix=fuzz/")


def read(data: bytes) -> None:
    """Breaks on whatever is neither a readable image nor a refusal in words."""
    try:
        image = decode_image(data, MAX_PIXELS)
    except ImageError:
        return
    assert image.shape[2] == 3
    assert 0 < image.shape[0] * image.shape[1] <= MAX_PIXELS
    assert Preprocessing(64).apply(image).shape == (64, 64, 3)


if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *LIMITS, *sys.argv[1:]], read)
    atheris.Fuzz()
