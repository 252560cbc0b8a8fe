"""What a backend is given and what it gives back: an image to inspect, and its score and map."""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from model.choices import MapForm
from model.detector import Detector
from model.localization import Evidence
from model.networks.vgg import Teacher
from service.choices import Localize


@dataclass(eq=False)
class Job:
    """One image to inspect: a picture, or a view of one.

    Attributes:
        pixels: prepared, uint8 RGB ``[H, W, 3]``.
        teacher: of the image's category.
        detector: gives the category's pair; called on the device thread, may have to load it.
        rejects: whether the category rejects an image of this score.
        localize: whether a map is wanted.
        form: of that map.
        mask: where the image counts, bool ``[H, W]``; None for everywhere.
        created: when it was made, ``perf_counter`` seconds.
    """

    pixels: np.ndarray
    teacher: Teacher
    detector: Callable[[], Detector]
    rejects: Callable[[float], bool]
    localize: Localize
    form: MapForm
    mask: np.ndarray | None = None
    created: float = field(default_factory=perf_counter)


@dataclass(frozen=True)
class Outcome:
    """What was found in one image.

    Attributes:
        score: at least 0; larger means more unusual.
        evidence: of the anomaly map, or None if no map was wanted.
        queue_seconds: wait for the device.
        inference_seconds: the score, of the whole batch the image was in; 0 where one pass gave score and gradient.
        localization_seconds: that pass, of the whole batch; 0 without a gradient.
        started: when the batch began, ``perf_counter`` seconds; the images of one batch have it in common.
    """

    score: float
    evidence: Evidence | None
    queue_seconds: float
    inference_seconds: float
    localization_seconds: float
    started: float
