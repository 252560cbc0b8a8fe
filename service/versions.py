"""Which version of a category serves: it is read from the disk, tried on the device, and swapped in in one step."""

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import sleep
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np
import torch

from model.detector import Detector
from model.networks.vgg import Teacher
from model.store.card import Card
from model.store.history import Kept, NoPreviousVersionError
from model.store.store import ChangedMeanwhileError, Store
from model.store.teachers import TeacherError, load_teacher
from model.store.version import Stamp, StoreError, build_detector, read_card
from model.text import encodable, readable
from service.catalogue import (
    Catalogue,
    CategoryRefusedError,
    NoSuchVersionError,
    Ready,
    Refused,
    VersionRefusedError,
)
from service.device.allowance import Allowance, TooCostlyError
from service.device.backend import DeviceFailedError, DeviceMemoryError
from service.device.students import Students
from service.device.torch_backend import translated
from service.device.trial import try_out
from service.hints import with_hint

SETTLE_SECONDS = 0.02
"""After a failure, for a version that is just being moved into its place."""

CANNOT_SERVE = (StoreError, TeacherError, TooCostlyError, DeviceMemoryError, OSError)
"""What can be wrong with a version, so that it is refused and all else goes on."""

log = logging.getLogger(__name__)


class _Version:
    """One version of a category.

    Attributes:
        entry: what clients get.
        kept: its pair, if it is in memory beside the budget, because its place on the disk has another: for requests
            that came before its end, or since it was gone back to in memory only.
        rolled_back: whether it was left by going back.
    """

    def __init__(self, card: Card, teacher: Teacher, detector_of: "Callable[[_Version], Detector]") -> None:
        self.entry = Ready(card, teacher, partial(detector_of, self))
        self.kept: Detector | None = None
        self.rolled_back = False


class Versions:
    """Brings versions from the disk into the catalogue.

    Students stay in memory up to a budget, and are read again when they are wanted; see `Students`. Besides, the one
    before of each category that was reloaded stays.

    All of it is for the device thread, but `changed` and `kept`. What takes several steps there is a generator, see
    `service.device.engine.Engine.call_in_steps`: where it is not gone through to its end, nothing has changed.

    Args:
        store: where the versions lie.
        catalogue: of those that serve.
        students: in memory.
        device: where to put the networks.
        precision: of the networks.
        allowance: what a batch on the device may cost.
        on_load: called when a student has been read.
        on_refuse: called when a version that was to be reloaded is refused.
    """

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        students: Students,
        device: torch.device,
        precision: torch.dtype,
        allowance: Allowance,
        *,
        on_load: Callable[[], None] = lambda: None,
        on_refuse: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._students = students
        self._device = device
        self._precision = precision
        self._allowance = allowance
        self._on_load = on_load
        self._on_refuse = on_refuse
        self._serving: dict[str, _Version] = {}
        self._before: dict[str, _Version] = {}
        self._stamps: dict[str, Stamp] = {}
        self._teachers: WeakValueDictionary[tuple[str, str], Teacher] = WeakValueDictionary()
        self._tried: WeakKeyDictionary[Teacher, set[int]] = WeakKeyDictionary()

    def load(self) -> None:
        """Reads and tries all categories at the start. A bad one is refused, and the others serve."""
        if not self._store.weights.is_dir():
            log.error("there is no weights folder %s", self._store.weights)
        try:
            self._store.recover()
        except OSError as error:
            log.warning("what a crash has left in %s cannot be put in order: %s", self._store.weights, error)
        try:
            names = self._store.names()
        except OSError as error:  # read again when changes are looked for
            log.error("the weights folder %s cannot be read by this user: %s", self._store.weights, error)
            names = []
        for category in names:
            try:
                self._enter(self._read_in_place(category))
            except CANNOT_SERVE as error:
                self._refuse(category, error)
        self._try_all()
        for entry in self._catalogue.ready():
            log.info("category %s is ready", entry.category)

    def _try_all(self) -> None:
        """Tries each combination of teacher and image size once, with two categories where there are."""
        alike: dict[tuple[Teacher, int], list[Ready]] = {}
        for entry in self._catalogue.ready():
            alike.setdefault((entry.teacher, entry.card.image_size), []).append(entry)
        for (teacher, side), entries in alike.items():
            pairs = self._first_two(entries)
            try:
                for _ in try_out(pairs, side, self._device, self._allowance):
                    pass
            except CANNOT_SERVE as error:
                for entry in entries:
                    self._refuse(entry.category, error)
            else:
                self._tried.setdefault(teacher, set()).add(side)

    def _first_two(self, entries: Sequence[Ready]) -> list[Detector]:
        pairs: list[Detector] = []
        for entry in entries:
            with suppress(CategoryRefusedError):  # its student has vanished from the disk meanwhile
                pairs.append(entry.detector())
            if len(pairs) == 2:
                break
        return pairs

    def changed(self) -> list[str]:
        """Categories whose files on the disk are not those that were read last, new ones too. For any thread.

        One whose folder is not there is not among them. Raises `OSError` if the folder of categories cannot be read.
        """
        return [name for name in self._store.names() if self._store.stamp(name) != self._stamps.get(name)]

    def kept(self, category: str) -> list[Kept]:
        """The versions that `roll_back` can go to, last put aside first. Reads the disk. For any thread."""
        entry = self._catalogue.get(category)
        serving = entry.card.model_version if isinstance(entry, Ready) else None
        return [one for one in self._store.kept(category) if one.version != serving]

    def reload(self, category: str) -> Generator[None, None, Ready]:
        """Reads a category again beside the version that serves, tries the new one, and swaps them in one step.

        A category that is new in the folder appears.

        Raises:
            UnknownCategoryError: if there is no such category.
            VersionRefusedError: if what is on the disk is refused. Then the version that serves goes on, unless its
                folder has vanished.
        """
        if not self._store.holds(category):
            self._catalogue.find(category)
        try:
            version = self._read_in_place(category)
            yield from self._try(version)
        except CANNOT_SERVE as error:
            if isinstance(self._catalogue.get(category), Ready) and self._store.holds(category):
                log.error(
                    "a new version of category %s is refused, and the one before serves on: %s",
                    category,
                    with_hint(error),
                )
            else:
                self._refuse(category, error)
            self._on_refuse()
            raise VersionRefusedError(f"what is on the disk for {category!r} is refused: {with_hint(error)}") from None
        except (DeviceFailedError, GeneratorExit):
            log.error("a new version of category %s was not tried to the end, and the one before serves on", category)
            raise
        self._enter(version)
        log.info("category %s is ready, version %s", category, version.entry.card.model_version)
        return version.entry

    def roll_back(self, category: str, to: str | None = None) -> Generator[None, None, bool]:
        """Serves a version that was replaced again, one step back or the one named.

        It is tried before anything changes.

        Args:
            category: its name.
            to: the name of a version; else one step back, see `model.store.store.Store.roll_back`.

        Returns:
            Whether it was put back on the disk too. Where that cannot be written, the server has it until it ends.

        Raises:
            UnknownCategoryError: if there is no such category.
            NoSuchVersionError: if there is no such version.
            VersionRefusedError: if it is refused, or the category was changed while it was tried.
        """
        self._catalogue.find(category)
        before = self._store.in_place(category) if to is None else None  # a step back is one from there
        version = yield from self._previous(category, to)
        try:
            self._store.roll_back(category, to=version.entry.card.model_version, replace=before)
            self._stamps[category] = self._store.stamp(category)
            persistent = True
        except ChangedMeanwhileError as error:
            self._students.take(version)
            raise VersionRefusedError(f"{error}; ask again to go back from there") from None
        except (StoreError, OSError) as error:
            log.warning("category %s cannot be rolled back on the disk: %s", category, error)
            # For good: its place on the disk has another, so that it could not be read again.
            version.kept = version.kept or self._students.take(version) or self._build(version)
            persistent = False
        if to is None and (left := self._serving.get(category)) is not None:
            left.rolled_back = True
        self._enter(version)
        return persistent

    def _previous(self, category: str, to: str | None) -> Generator[None, None, _Version]:
        """The version to go back to, from the disk and tried; or what served before, where the disk has none."""
        serving = self._serving.get(category)
        # Where an earlier step back was one in memory only, the next one starts from there.
        start = serving.entry.card.model_version if serving is not None and serving.kept is not None else None
        try:
            version = self._read(self._store.previous(category, to, start=start).folder, category)
            yield from self._try(version)
        except NoPreviousVersionError as error:
            before = self._before.get(category)
            if before is not None and (
                to == before.entry.card.model_version or (to is None and not before.rolled_back)
            ):
                return before
            raise NoSuchVersionError(str(error)) from None
        except CANNOT_SERVE as error:
            raise VersionRefusedError(f"the previous version is refused: {with_hint(error)}") from None
        return version

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
        card = read_card(folder, category)
        key = (card.teacher.name, card.teacher.sha256)
        teacher = self._teachers.get(key)
        if teacher is None:
            teacher = self._teachers[key] = load_teacher(self._store.teachers, *key)
        version = _Version(card, teacher, self._detector)
        build = partial(build_detector, folder, card, teacher, self._device, self._precision)
        self._students.put(version, translated(build))
        self._on_load()
        return version

    def _try(self, version: _Version) -> Generator[None, None, None]:
        """Tries a version that does not serve yet. If it is refused, or not tried to the end, its student goes.

        Raises:
            TooCostlyError: if the device cannot afford it.
            StoreError: if its score is not finite.
        """
        detector, side = version.entry.detector(), version.entry.card.image_size
        tried = self._tried.setdefault(version.entry.teacher, set())
        try:
            if side not in tried:
                yield from try_out([detector], side, self._device, self._allowance)
                tried.add(side)
            scores = translated(partial(detector, np.zeros((1, side, side, 3), dtype=np.uint8))).scores
            if not np.isfinite(scores).all():
                raise StoreError("it gives a score that is not finite")
        except BaseException:
            self._students.take(version)
            raise

    def _enter(self, version: _Version) -> None:
        """Serves a version from now on. Requests that were accepted with the one before are answered with that."""
        category = version.entry.category
        before = self._serving.get(category)
        if before is not None and before is not version and isinstance(self._catalogue.get(category), Ready):
            before.kept = before.kept or self._students.take(before)
            if before.entry.card.model_version != version.entry.card.model_version:
                self._before[category] = before
        self._serving[category] = version
        self._catalogue.put(version.entry)

    def _refuse(self, category: str, error: Exception) -> None:
        category, reason = readable(category), encodable(with_hint(error))  # a folder can have any name, an answer not
        self._catalogue.put(Refused(category, reason))
        log.error("category %s is refused: %s", category, reason)

    def _detector(self, version: _Version) -> Detector:
        """A version's pair, from memory or else from the disk.

        Raises:
            CategoryRefusedError: if what is on the disk is no longer what it was; until it is reloaded.
        """
        detector = version.kept or self._students.get(version)
        if detector is not None:
            return detector
        category = version.entry.category
        try:
            detector = self._build(version)
        except (StoreError, OSError) as error:
            if self._catalogue.get(category) is version.entry:
                self._refuse(category, error)
                self._stamps.pop(category, None)  # a disk that comes back brings the same files
            raise CategoryRefusedError(category, str(error)) from None
        self._students.put(version, detector)
        self._on_load()
        return detector

    def _build(self, version: _Version) -> Detector:
        entry = version.entry
        return translated(partial(self._store.build, entry.card, entry.teacher, self._device, self._precision))
