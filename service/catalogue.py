"""The categories of the weights folder, loaded onto the device, or refused with a reason."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from model.detector import Detector
from model.pair import Card, PairError, build_detector, check_category_name, read_card
from model.teachers import TeacherError, load_teacher
from model.vgg import Teacher
from service.problems import Problem
from service.schemas import CategorySummary

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ready:
    """A category that can be served."""

    card: Card
    detector: Detector


@dataclass(frozen=True)
class Refused:
    """A category that cannot be served, and why."""

    category: str
    reason: str


class Catalogue:
    """All categories of a weights folder. Each is loaded at the start; a bad one is refused and the others serve.

    Args:
        weights: folder with one sub-folder a category; hidden ones and ``teachers`` are passed over.
        teachers: folder of teachers.
        device: where to put the networks.
    """

    def __init__(self, weights: Path, teachers: Path, device: torch.device) -> None:
        self._entries: dict[str, Ready | Refused] = {}
        self._teachers: dict[tuple[str, str], Teacher] = {}
        if not weights.is_dir():
            log.error("there is no weights folder %s", weights)
            return
        for folder in sorted(weights.iterdir()):
            if not folder.is_dir() or folder.name.startswith(".") or folder.name == "teachers":
                continue
            try:
                self._entries[folder.name] = self._load(folder, teachers, device)
                log.info("category %s is ready", folder.name)
            except (PairError, TeacherError, OSError) as error:
                self._entries[folder.name] = Refused(folder.name, str(error))
                log.error("category %s is refused: %s", folder.name, error)

    def _load(self, folder: Path, teachers: Path, device: torch.device) -> Ready:
        check_category_name(folder.name)
        card = read_card(folder)
        key = (card.teacher.name, card.teacher.sha256)
        if key not in self._teachers:
            self._teachers[key] = load_teacher(teachers, *key)
        return Ready(card, build_detector(folder, card, self._teachers[key], device))

    def warm_up(self) -> None:
        """Runs each combination of teacher and image size once, so that the first request does not pay for it."""
        warmed: set[tuple[int, int]] = set()
        for entry in self.ready():
            key = (id(entry.detector.teacher), entry.card.image_size)
            if key not in warmed:
                size = entry.card.image_size
                entry.detector(np.zeros((1, size, size, 3), dtype=np.uint8), maps=True)
                warmed.add(key)

    def ready(self) -> list[Ready]:
        """The categories that can be served."""
        return [entry for entry in self._entries.values() if isinstance(entry, Ready)]

    def names(self) -> list[str]:
        """All categories, refused ones too."""
        return list(self._entries)

    def find(self, category: str) -> Ready | Refused:
        """A category by name.

        Raises:
            Problem: 404, naming the known ones.
        """
        entry = self._entries.get(category)
        if entry is None:
            known = self.names()
            raise Problem(
                404,
                "unknown-category",
                f"there is no category {category!r}; known: {', '.join(known) or 'none'}",
                categories=known,
            )
        return entry

    def require(self, category: str) -> Ready:
        """A category that can be served.

        Raises:
            Problem: 404 if it is not there, 503 if it is refused.
        """
        entry = self.find(category)
        if isinstance(entry, Refused):
            raise Problem(503, "category-refused", f"category {category!r} cannot be served: {entry.reason}")
        return entry

    def summaries(self) -> list[CategorySummary]:
        """The list as clients see it."""
        return [summary_of(entry) for entry in self._entries.values()]


def summary_of(entry: Ready | Refused) -> CategorySummary:
    """A category as clients see it."""
    if isinstance(entry, Refused):
        return CategorySummary(
            category=entry.category,
            status="refused",
            reason=entry.reason,
            model_version=None,
            teacher=None,
            image_size=None,
            threshold=None,
            calibration=None,
        )
    card = entry.card
    return CategorySummary(
        category=card.category,
        status="ready",
        reason=None,
        model_version=card.model_version,
        teacher=card.teacher.name,
        image_size=card.image_size,
        threshold=card.calibration.threshold,
        calibration=card.calibration.method,
    )
