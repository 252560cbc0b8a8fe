"""Whether the pictures of a category still lie as those of its calibration, in numbers and in words."""

from collections.abc import Iterator, Mapping

import numpy as np

from model.drift import distance, limit
from model.quality import Look
from model.store.card import Card
from service.schemas import MEASURES, Measure, MeasureDrift

LEAST_IMAGES = 20
"""With fewer there is no distance."""
WINDOW = 200
"""Inspections of a category that the metrics look at."""


def assess(card: Card, values: Mapping[str, np.ndarray]) -> list[MeasureDrift]:
    """The drift of every measure.

    Args:
        card: of the version that judged the pictures.
        values: of the pictures by measure, ``[N]``; NaN where a picture has none.
    """
    return [_assess(card, name, values[name][~np.isnan(values[name])]) for name in MEASURES]


def _assess(card: Card, name: Measure, values: np.ndarray) -> MeasureDrift:
    usual, pictures = getattr(card.calibration.usual, name), card.calibration.usual.images
    now = float(np.median(values)) if len(values) else None
    found = MeasureDrift(measure=name, images=len(values), median=now, text="")
    if usual is None:
        return found.told("the card does not say what was usual at calibration, so there is nothing to compare with")
    reference = np.array(usual)
    before = float(np.median(reference))
    found = found.model_copy(update={"reference_images": pictures, "reference_median": before})
    if now is None or len(values) < LEAST_IMAGES:
        return found.told(f"{len(values)} images are too few; {LEAST_IMAGES} are needed")
    far, bound = distance(reference, values), limit(pictures, len(values))
    found = found.model_copy(update={"distance": far, "limit": bound, "drifted": far > bound})
    if bound >= 1:
        return found.told(f"the {pictures} images of the calibration are too few to see a drift; calibrate with more")
    if far <= bound:
        return found.told(f"as at calibration: {before:.3g} then, {now:.3g} now")
    low, high = np.quantile(reference, (0.4, 0.6))
    word = name.replace("_", " ")
    if low <= now <= high:
        return found.told(f"{word} has another spread than at calibration, around {now:.3g}")
    return found.told(f"{word} {'rose' if now > before else 'fell'} from {before:.3g} to {now:.3g}")


class Recent:
    """The measures of the last `WINDOW` inspections of each category by the version that serves it."""

    def __init__(self) -> None:
        self._rings: dict[str, _Ring] = {}

    def add(self, card: Card, score: float, look: Look | None) -> None:
        """Adds an inspection. Those of another version of the category are forgotten."""
        ring = self._rings.get(card.category)
        if ring is None or ring.version != card.model_version:
            ring = self._rings[card.category] = _Ring(card.model_version, np.full((WINDOW, len(MEASURES)), np.nan))
        ring.add(score, look)

    def drifts(self, cards: list[Card]) -> Iterator[tuple[str, MeasureDrift]]:
        """The measures of these cards that can be compared, each with the name of the category."""
        for card in cards:
            ring = self._rings.get(card.category)
            if ring is not None and ring.version == card.model_version:
                values = dict(zip(MEASURES, ring.values.T, strict=True))
                yield from ((card.category, one) for one in assess(card, values) if one.distance is not None)


class _Ring:
    """The oldest line is overwritten."""

    def __init__(self, version: str, values: np.ndarray) -> None:
        self.version = version
        self.values = values
        self._next = 0

    def add(self, score: float, look: Look | None) -> None:
        self.values[self._next] = (score, *(look or (np.nan,) * len(Look._fields)))
        self._next = (self._next + 1) % len(self.values)
