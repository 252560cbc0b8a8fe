"""WebP: lossless and lossy, with and without alpha."""

import itertools
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.model.layouts import Layout, colours, on_white, opacity, saved
from tests.model.layouts.jpeg import smooth


def layouts() -> Iterator[Layout]:
    """Every WebP."""
    rgb, alpha = (colours() >> 8).astype(np.uint8), (opacity() >> 8).astype(np.uint8)
    for lossless, clear in itertools.product((True, False), (True, False)):
        picture = rgb if lossless else smooth()
        image = Image.fromarray(np.dstack((picture, alpha)) if clear else picture)
        data = saved(image, "WEBP", lossless=lossless, quality=100, exact=True)
        pixels = on_white(picture, alpha / 255) if clear else picture
        name = f"webp {'lossless' if lossless else 'lossy'}{' with alpha' if clear else ''}"
        yield Layout(name, data, pixels, 1 if lossless else 24, True)
