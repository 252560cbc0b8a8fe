"""Whatever the layout of a file, its very pixels are read, or it is refused: never another picture."""

import re
from types import ModuleType

import numpy as np
import pytest

from model.images import ImageError, decode_image
from tests.model.layouts import Layout, bmp, jpeg, png, tiff, tiff_compressed, webp

INTERNALS = re.compile(
    r"pillow|\bPIL\b|opencv|cv2|libtiff|libpng|zlib|decoder|MAX_|0x[0-9a-f]|\bmode\b|traceback|none\b|broken data",
    re.IGNORECASE,
)
"""Words that are not for the person who sent the image."""


def difference(layout: Layout) -> str | None:
    """What is wrong with how a layout is read; None where nothing is."""
    try:
        found = decode_image(layout.data)
    except ImageError as error:
        if layout.must_be_read:
            return f"{layout.name} is refused: {error}"
        if INTERNALS.search(str(error)) or "damaged or cut short" in str(error):
            return f"{layout.name} is refused without a reason that helps: {error}"
        return None
    if found.shape != layout.pixels.shape:
        return f"{layout.name} has the shape {found.shape}"
    far = int(np.abs(found.astype(int) - layout.pixels).max())
    return f"{layout.name} is read with an error of {far} levels" if far > layout.tolerance else None


@pytest.mark.parametrize(
    ("module", "fewest"), [(png, 60), (tiff, 500), (tiff_compressed, 200), (bmp, 600), (jpeg, 30), (webp, 4)]
)
def test_every_layout_is_read_exactly_or_refused_with_a_reason(module: ModuleType, fewest: int):
    layouts = list(module.layouts())
    assert len(layouts) >= fewest
    assert [wrong for layout in layouts if (wrong := difference(layout))] == []
