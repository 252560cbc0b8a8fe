"""The categories of the weights folder, each ready to be served or refused with a reason."""

import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import sleep

import numpy as np
import torch

from model.choices import MapForm
from model.detector import Detector
from model.networks.vgg import Teacher
from model.store.card import Card
from model.store.history import Kept, NoPreviousVersionError
from model.store.store import Stamp, Store
from model.store.teachers import TeacherError, load_teacher
from model.store.version import StoreError, build_detector, read_card
from model.text import encodable, readable
from service.device.allowance import Allowance, TooCostlyError
from service.device.memory import available_bytes
from service.device.torch_backend import translated
from service.device.trial import try_out
from service.hints import with_hint
from service.problems import Problem
from service.schemas import CategorySummary, KeptVersion

SETTLE_SECONDS = 0.02
"""After a failure, for a version that is just being moved into its place."""

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


class _Version:
    """One version of a category: what clients get, and its pair if it is kept outside of the budget, because its place
    on the disk has another: for requests that came before its end, or since it was rolled back to in memory only.

    Args:
        card: its passport.
        teacher: on the device.
        detector_of: gives a version's pair.
    """

    def __init__(self, card: Card, teacher: Teacher, detector_of: "Callable[[_Version], Detector]") -> None:
        self.entry = Ready(card, teacher, partial(detector_of, self))
        self.kept: Detector | None = None
        self.rolled_back = False


class Catalogue:
    """All categories of a weights folder. Each is checked when it is read; a bad one is refused and the others serve.

    Students stay in memory up to a budget; beyond it the one that was not wanted for the longest time leaves, and is
    read again when it is wanted. One student is kept always, and the one before of each category that was reloaded.

    Other threads than the device's may ask what is there at any time: an entry is replaced in one step.

    Args:
        weights: folder with one sub-folder a category; hidden ones and ``teachers`` are passed over.
        teachers: folder of teachers.
        device: where to put the networks.
        precision: of the networks.
        student_bytes: how much memory the students may take.
        on_load: called when a student has been read.
        on_evict: called when a student leaves memory for want of room.
        on_refuse: called when a version that was to be reloaded is refused.
    """

    def __init__(
        self,
        weights: Path,
        teachers: Path,
        device: torch.device,
        precision: torch.dtype = torch.float32,
        student_bytes: int = 1 << 30,
        *,
        on_load: Callable[[], None] = lambda: None,
        on_evict: Callable[[], None] = lambda: None,
        on_refuse: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = Store(weights, teachers)
        self._device = device
        self._precision = precision
        self._student_bytes = student_bytes
        self._on_load = on_load
        self._on_evict = on_evict
        self._on_refuse = on_refuse
        self._entries: dict[str, Ready | Refused] = {}
        self._versions: dict[str, _Version] = {}
        self._versions_before: dict[str, _Version] = {}
        self._stamps: dict[str, Stamp] = {}
        self._teachers: dict[tuple[str, str], Teacher] = {}
        self._in_memory: OrderedDict[_Version, Detector] = OrderedDict()
        self._bytes_in_memory = 0
        self._memory = threading.Lock()  # a device thread that hung may come back beside the one that replaced it
        self._warm: set[tuple[int, int]] = set()
        self._allowance = Allowance(1, available_bytes(device), math.inf)
        if not weights.is_dir():
            log.error("there is no weights folder %s", weights)
        try:
            self._store.recover()
        except OSError as error:
            log.warning("what a crash has left in %s cannot be put in order: %s", weights, error)
        for category in self._store.names():
            try:
                self._enter(self._read_in_place(category))
                log.info("category %s is ready", category)
            except (StoreError, TeacherError, OSError) as error:
                self._refuse(category, error)

    def _read_in_place(self, category: str) -> _Version:
        """Reads the version in a category's place, and once more if its files were being replaced meanwhile."""
        for _ in range(2):
            stamp = self._stamps[category] = self._store.stamp(category)
            folder = self._store.folder(category)
            try:
                return self._read(folder, category)
            except (StoreError, TeacherError, OSError):
                sleep(SETTLE_SECONDS)
                if self._store.stamp(category) == stamp:
                    raise
        return self._read(folder, category)

    def _read(self, folder: Path, category: str) -> _Version:
        return translated(partial(self._check, folder, category))

    def _check(self, folder: Path, category: str) -> _Version:
        card = read_card(folder, category)
        key = (card.teacher.name, card.teacher.sha256)
        if key not in self._teachers:
            self._teachers[key] = load_teacher(self._store.teachers, *key)
        version = _Version(card, self._teachers[key], self._detector)
        self._keep(version, build_detector(folder, card, version.entry.teacher, self._device, self._precision))
        self._on_load()
        return version

    def _enter(self, version: _Version) -> None:
        """Serves a version from now on. Requests that were accepted with the one before are answered with that."""
        category = version.entry.card.category
        before = self._versions.get(category)
        if before is not None and isinstance(self._entries[category], Ready):
            before.kept = before.kept or self._forget(before)
            if before.entry.card.model_version != version.entry.card.model_version:
                self._versions_before[category] = before
        self._versions[category] = version
        self._entries = dict(sorted({**self._entries, category: version.entry}.items()))

    def _refuse(self, category: str, error: Exception) -> None:
        category, reason = readable(category), encodable(with_hint(error))  # a folder can have any name, an answer not
        self._entries = dict(sorted({**self._entries, category: Refused(category, reason)}.items()))
        log.error("category %s is refused: %s", category, reason)

    def _detector(self, version: _Version) -> Detector:
        """A version's pair, from memory or else from the disk.

        Raises:
            Problem: 503 if what is on the disk is no longer what it was; the category is refused until it is reloaded.
        """
        if version.kept is not None:
            return version.kept
        with self._memory:
            if (found := self._in_memory.get(version)) is not None:
                self._in_memory.move_to_end(version)
                return found
        card = version.entry.card
        try:
            detector = self._build(version)
        except (StoreError, OSError) as error:
            if self._entries.get(card.category) is version.entry:
                self._refuse(card.category, error)
                self._stamps.pop(card.category, None)  # a disk that comes back brings the same files
            raise _refusal(card.category, str(error)) from None
        self._keep(version, detector)
        self._on_load()
        return detector

    def _build(self, version: _Version) -> Detector:
        return self._store.build(version.entry.card, version.entry.teacher, self._device, self._precision)

    def _keep(self, version: _Version, detector: Detector) -> None:
        with self._memory:
            self._in_memory[version] = detector
            self._bytes_in_memory += _size_of(detector)
            while self._bytes_in_memory > self._student_bytes and len(self._in_memory) > 1:
                _, leaving = self._in_memory.popitem(last=False)
                self._bytes_in_memory -= _size_of(leaving)
                self._on_evict()

    def _forget(self, version: _Version) -> Detector | None:
        with self._memory:
            detector = self._in_memory.pop(version, None)
            if detector is not None:
                self._bytes_in_memory -= _size_of(detector)
            return detector

    def changed(self) -> list[str]:
        """Categories whose files on the disk are not those that were read last, new ones too.

        One whose folder is not there is not among them. Raises `OSError` if the weights folder cannot be read.
        """
        return [name for name in self._store.names() if self._store.stamp(name) != self._stamps.get(name)]

    def reload(self, category: str) -> Ready:
        """Reads a category again beside the version that serves, tries the new one, and swaps them in one step.

        For the device thread. A category that is new in the folder appears.

        Raises:
            Problem: 404 if there is no such category; 409 if what is on the disk is refused. Then the version that
                serves goes on, unless its folder has vanished.
        """
        if not self._store.holds(category):
            self.find(category)
        try:
            version = self._read_in_place(category)
            translated(partial(self._try, version))
        except (StoreError, TeacherError, OSError) as error:
            if isinstance(self._entries.get(category), Ready) and self._store.holds(category):
                log.error("a new version of category %s is refused, and the one before serves on: %s", category, error)
            else:
                self._refuse(category, error)
            self._on_refuse()
            reason = f"what is on the disk for {category!r} is refused: {with_hint(error)}"
            raise Problem("reload-refused", reason=reason) from None
        self._enter(version)
        log.info("category %s is ready, version %s", category, version.entry.card.model_version)
        return version.entry

    def _try(self, version: _Version) -> None:
        """Warms a version up that does not serve yet.

        Raises:
            StoreError: if its score is not finite.
        """
        detector, side = version.entry.detector(), version.entry.card.image_size
        if (id(version.entry.teacher), side) not in self._warm:
            self._warm_up([detector], side)
        found = detector(np.zeros((1, side, side, 3), dtype=np.uint8), maps=MapForm.GRADIENT)
        if not np.isfinite(found.scores).all():
            self._forget(version)
            raise StoreError("it gives a score that is not finite")

    def roll_back(self, category: str, to: str | None = None) -> bool:
        """Serves a version that was replaced again, one step back or the one named. For the device thread.

        It is tried before anything changes.

        Args:
            category: its name.
            to: the name of a version; else one step back, see `model.store.store.Store.roll_back`.

        Returns:
            Whether it was put back on the disk too. Where that cannot be written, the server has it until it ends.

        Raises:
            Problem: 404 if there is no such category; 409 if there is no such version, or it is refused.
        """
        self.find(category)
        version = self._previous(category, to)
        try:
            self._store.roll_back(category, to=version.entry.card.model_version)
            self._stamps[category] = self._store.stamp(category)
            persistent = True
        except (StoreError, OSError) as error:
            log.warning("category %s cannot be rolled back on the disk: %s", category, error)
            # For good: its place on the disk has another, so that it could not be read again.
            version.kept = version.kept or self._forget(version) or self._build(version)
            persistent = False
        if to is None and (left := self._versions.get(category)) is not None:
            left.rolled_back = True
        self._enter(version)
        return persistent

    def kept(self, category: str) -> list[KeptVersion]:
        """The versions that `roll_back` can go to, last put aside first. Reads the disk."""
        entry = self._entries.get(category)
        serving = entry.card.model_version if isinstance(entry, Ready) else None
        return [kept_version_of(one) for one in self._store.kept(category) if one.version != serving]

    def _previous(self, category: str, to: str | None) -> _Version:
        """The version to go back to, from the disk and tried; or what served before, where the disk has none."""
        serving = self._versions.get(category)
        # Where an earlier step back was one in memory only, the next one starts from there.
        start = serving.entry.card.model_version if serving is not None and serving.kept is not None else None
        try:
            version = self._read(self._store.previous(category, to, start=start).folder, category)
            translated(partial(self._try, version))
        except NoPreviousVersionError as error:
            before = self._versions_before.get(category)
            if before is None or (before.rolled_back if to is None else to != before.entry.card.model_version):
                raise Problem("no-previous-version", reason=str(error)) from None
            return before
        except (StoreError, TeacherError, OSError) as error:
            reason = f"the previous version is refused: {with_hint(error)}"
            raise Problem("reload-refused", reason=reason) from None
        return version

    def warm_up(self, allowance: Allowance) -> None:
        """Tries each combination of teacher and image size; those that the device cannot afford are refused."""
        self._allowance = allowance
        alike: dict[tuple[int, int], list[Ready]] = {}
        for entry in self.ready():
            alike.setdefault((id(entry.teacher), entry.card.image_size), []).append(entry)
        for (_, side), entries in alike.items():
            try:
                self._warm_up([entry.detector() for entry in entries[:2]], side)
            except StoreError as error:
                for entry in entries:
                    self._refuse(entry.card.category, error)

    def _warm_up(self, pairs: Sequence[Detector], side: int) -> None:
        """Runs one or two pairs of one teacher in every batch size, at this image size, if the device can afford it."""
        try:
            for _ in try_out(pairs, side, self._device, self._allowance):
                pass
        except TooCostlyError as error:
            raise StoreError(str(error)) from None
        self._warm.add((id(pairs[0].teacher), side))

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
            listed = ", ".join(known) or "none"
            raise Problem("unknown-category", category=category, known=listed, categories=known)
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
    return Problem("category-refused", category=category, reason=reason)


def _size_of(detector: Detector) -> int:
    return sum(tensor.nbytes for tensor in detector.student.state_dict().values())


def kept_version_of(one: Kept) -> KeptVersion:
    """A replaced version as clients see it."""
    found = one.card.calibration
    return KeptVersion(
        model_version=one.version,
        threshold=found.threshold,
        calibration=found.method,
        calibrated=found.date,
        rolled_back=one.rolled_back,
    )


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
