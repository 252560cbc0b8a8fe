"""What the preprocessing of a new category takes from its training images."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

from model.alignment import Alignment, choose_reference
from model.choices import AUTO, Align, Light
from model.formats import jpeg
from model.images import ImageError, decode_image, extremes, read_image, size_of
from model.lifecycle.datasets import Sample
from model.lifecycle.folders import read_file
from model.lifecycle.recipe import Recipe, TrainingError
from model.preprocessing import Preprocessing, brightness
from model.reading import MAX_LEVEL, Levels, LevelsError, Reading
from model.text import readable

T = TypeVar("T")

FULL_SCALES = tuple((1 << bits) - 1 for bits in (8, 10, 12, 14, 16))
"""The largest values of cameras."""
REFERENCES = 16
"""Images of which one becomes the reference, about."""
LARGEST_BLACK = 1 / 16
"""Of the white level: what a camera gives without light is below it; a smallest value above it is that of a part."""


def settled(preprocessing: Preprocessing, recipe: Recipe, samples: Sequence[Sample]) -> Preprocessing:
    """A preprocessing with all that the recipe says of channels, levels and light, for these images of good parts.

    A white level ``auto`` is the largest value of a camera of 8, 10, 12, 14 or 16 bits, whichever is the first that no
    value of the images exceeds. A black level ``auto`` is their smallest value if that is at most 1/16 of the white
    level, and else 0: then it is not the camera that keeps dark values away, but the parts. The reference of the light
    is the median of the images' brightness, where they count.

    Without an alignment that is given, pictures are aligned, where they are to be, with the one of some of them that
    others align with best; see `model.alignment.choose_reference`.

    JPEGs are decoded at a fraction of their size if the first image is a JPEG that this makes smaller.

    Files that cannot be read are passed over here; `model.lifecycle.datasets.load_images` reports them.

    Raises:
        TrainingError: if levels are to be found in images of 8 bits, or no levels are in order, or the images are black
            and their light is to be normalised.
    """
    found = replace(preprocessing, colour=recipe.colour, bayer=recipe.bayer, levels=_levels(recipe, samples))
    if recipe.align is not Align.NONE and found.alignment is None:
        found = replace(found, alignment=_alignment(recipe.align, found.reading, samples))
    found = replace(found, scaled_decoding=_gains_by_scaling(found, samples))
    if recipe.light is Light.NONE:
        return found

    def look(data: bytes) -> float:
        photograph = found.read(data)
        return brightness(found.prepare(photograph).pixels, found.layout(photograph.width, photograph.height).masks)

    of_images = [*_of_readable(samples, look)]
    reference = round(median(of_images), 3) if of_images else None
    if reference == 0:
        raise TrainingError("the images are black, so there is no brightness that others can be brought to")
    return replace(found, reference_brightness=reference)


def reference_alignment(path: Path, recipe: Recipe, samples: Sequence[Sample]) -> Alignment:
    """Aligns with the picture in a file, read as those of the category are.

    Raises:
        ImageError: if it cannot be read.
        TrainingError: if nothing aligns with it, not even the picture itself; or see `settled`.
    """
    image = read_image(path, Reading(recipe.colour, _levels(recipe, samples), recipe.bayer))
    alignment = Alignment.to(image, recipe.align)
    if not alignment.find(image).aligned:
        raise TrainingError(f"{readable(path)} shows too little to align other pictures with")
    return alignment


def _alignment(method: Align, reading: Reading, samples: Sequence[Sample]) -> Alignment | None:
    step = max(1, len(samples) // REFERENCES)
    images = [*_of_readable(samples[::step], partial(decode_image, reading=reading))]
    return Alignment.to(images[choose_reference(images, method)], method) if images else None


def _gains_by_scaling(preprocessing: Preprocessing, samples: Sequence[Sample]) -> bool:
    scaled = replace(preprocessing, scaled_decoding=True)

    def is_scaled(data: bytes) -> bool:
        return data.startswith(jpeg.SIGNATURE) and scaled.scale(*size_of(data)) > 1

    return next(_of_readable(samples, is_scaled), False)


def _levels(recipe: Recipe, samples: Sequence[Sample]) -> Levels | None:
    if recipe.white_level is None:
        return None
    smallest, largest = 0, MAX_LEVEL
    if AUTO in (recipe.white_level, recipe.black_level):
        found = [*_of_readable(samples, extremes)]
        deep = [one for one in found if one is not None]
        if found and not deep:
            raise TrainingError("the images have 8 bits per value, whose black and white are known; give no levels")
        if deep:
            smallest, largest = min(low for low, _ in deep), max(high for _, high in deep)
    white = recipe.white_level if isinstance(recipe.white_level, int) else min(f for f in FULL_SCALES if f >= largest)
    dark = smallest if smallest <= LARGEST_BLACK * white else 0
    black = dark if recipe.black_level == AUTO else recipe.black_level or 0
    try:
        return Levels(white, black)
    except LevelsError as error:
        raise TrainingError(str(error)) from None


def _of_readable(samples: Sequence[Sample], look: Callable[[bytes], T]) -> Iterator[T]:
    for sample in samples:
        try:
            yield look(read_file(sample.path))
        except (ImageError, OSError):
            continue
