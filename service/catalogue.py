"""The categories of the weights folder, each ready to be served or refused with a reason."""

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from model.detector import Detector, detect
from model.graphs import BATCH_SIZES
from model.pair import Card, PairError, build_detector, check_category_name, read_card
from model.teachers import TeacherError, load_teacher
from model.vgg import Teacher
from service.problems import Problem
from service.schemas import CategorySummary

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Ready:
    """A category that can be served.

    Attributes:
        card: its passport.
        teacher: on the device.
        detector: gives its pair, and reads the student from the disk if it is not in memory. For the device thread.
    """

    card: Card
    teacher: Teacher
    detector: Callable[[], Detector]


@dataclass(frozen=True)
class Refused:
    """A category that cannot be served, and why."""

    category: str
    reason: str


class Catalogue:
    """All categories of a weights folder. Each is checked at the start; a bad one is refused and the others serve.

    Students stay in memory up to a budget; beyond it the one that was not wanted for the longest time leaves, and is
    read again when it is wanted. One student is kept always.

    Args:
        weights: folder with one sub-folder a category; hidden ones and ``teachers`` are passed over.
        teachers: folder of teachers.
        device: where to put the networks.
        precision: of the networks.
        student_bytes: how much memory the students may take.
    """

    def __init__(
        self,
        weights: Path,
        teachers: Path,
        device: torch.device,
        precision: torch.dtype = torch.float32,
        student_bytes: int = 1 << 30,
    ) -> None:
        self._entries: dict[str, Ready | Refused] = {}
        self._teachers: dict[tuple[str, str], Teacher] = {}
        self._device = device
        self._precision = precision
        self._student_bytes = student_bytes
        self._in_memory: OrderedDict[str, Detector] = OrderedDict()
        self._bytes_in_memory = 0
        if not weights.is_dir():
            log.error("there is no weights folder %s", weights)
            return
        for folder in sorted(weights.iterdir()):
            if not folder.is_dir() or folder.name.startswith(".") or folder.name == "teachers":
                continue
            try:
                self._entries[folder.name] = self._check(folder, teachers)
                log.info("category %s is ready", folder.name)
            except (PairError, TeacherError, OSError) as error:
                self._refuse(folder.name, error)

    def _check(self, folder: Path, teachers: Path) -> Ready:
        check_category_name(folder.name)
        card = read_card(folder)
        key = (card.teacher.name, card.teacher.sha256)
        if key not in self._teachers:
            self._teachers[key] = load_teacher(teachers, *key)
        entry = Ready(card, self._teachers[key], partial(self._detector, folder, card, self._teachers[key]))
        self._keep(folder.name, build_detector(folder, card, entry.teacher, self._device, self._precision))
        return entry

    def _refuse(self, category: str, error: Exception) -> None:
        self._entries[category] = Refused(category, str(error))
        log.error("category %s is refused: %s", category, error)

    def _detector(self, folder: Path, card: Card, teacher: Teacher) -> Detector:
        """The category's pair, from memory or else from the disk.

        Raises:
            Problem: 503 if what is on the disk is no longer what it was; the category is refused from then on.
        """
        if folder.name in self._in_memory:
            self._in_memory.move_to_end(folder.name)
            return self._in_memory[folder.name]
        try:
            detector = build_detector(folder, card, teacher, self._device, self._precision)
        except (PairError, OSError) as error:
            self._refuse(folder.name, error)
            raise _refusal(folder.name, str(error)) from None
        self._keep(folder.name, detector)
        return detector

    def _keep(self, category: str, detector: Detector) -> None:
        self._in_memory[category] = detector
        self._bytes_in_memory += _size_of(detector)
        while self._bytes_in_memory > self._student_bytes and len(self._in_memory) > 1:
            _, leaving = self._in_memory.popitem(last=False)
            self._bytes_in_memory -= _size_of(leaving)

    def warm_up(self, max_batch: int) -> None:
        """Runs what the first requests would otherwise pay for: each combination of teacher and image size, with and
        without maps, in a batch of one and in the largest; on a GPU in every size that there is a graph for.
        """
        alike: dict[tuple[int, int], list[Ready]] = {}
        for entry in self.ready():
            alike.setdefault((id(entry.teacher), entry.card.image_size), []).append(entry)
        sizes = [size for size in BATCH_SIZES if size < max_batch] if self._device.type == "cuda" else [1]
        for (_, side), entries in alike.items():
            pairs = [entry.detector() for entry in entries[:2]]
            for size in {*sizes, max_batch}:
                images = np.zeros((size, side, side, 3), dtype=np.uint8)
                for maps in (False, True):
                    detect(images, [pairs[0]] * size, maps=maps)
                    if len(pairs) > 1 and size > 1:
                        detect(images, [pairs[0]] * (size - 1) + [pairs[1]], maps=maps)

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
            raise _refusal(category, entry.reason)
        return entry

    def summaries(self) -> list[CategorySummary]:
        """The list as clients see it."""
        return [summary_of(entry) for entry in self._entries.values()]


def _refusal(category: str, reason: str) -> Problem:
    return Problem(503, "category-refused", f"category {category!r} cannot be served: {reason}")


def _size_of(detector: Detector) -> int:
    return sum(tensor.nbytes for tensor in detector.student.state_dict().values())


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
