"""Chooses the version of each category that serves: reads it from disk, tests it on the device, and swaps it in."""

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
from model.preprocessing import MAX_VIEWS
from model.store.card import Card
from model.store.history import Kept, NoPreviousVersionError
from model.store.store import ChangedMeanwhileError, NoCandidateError, Store
from model.store.teachers import TeacherError, load_teacher, teacher_names
from model.store.version import Stamp, StoreError, build_detector, read_card
from model.text import encodable, readable
from service.catalogue import (
    Catalogue,
    CategoryRefusedError,
    NoSuchCandidateError,
    NoSuchVersionError,
    Ready,
    Refused,
    VersionRefusedError,
    WeightsNotChangedError,
)
from service.device.allowance import Allowance, TooCostlyError
from service.device.backend import DeviceFailedError, DeviceMemoryError
from service.device.students import Students
from service.device.torch_backend import translated
from service.device.trial import try_out
from service.hints import with_hint

SETTLE_SECONDS = 0.02
"""Wait before reading again after a failure, because another process may just be moving a version into place."""

CANNOT_SERVE = (StoreError, TeacherError, TooCostlyError, DeviceMemoryError, OSError)
"""Errors for which a version is refused while everything else continues."""

log = logging.getLogger(__name__)


class _Version:
    """One version of a category.

    Attributes:
        entry: its entry in the catalogue.
        kept: its pair, if it must stay in memory outside the budget because the disk now has another version: for
            requests accepted before it was replaced, or after a rollback that could not be written to disk.
        rolled_back: whether a rollback replaced it.
    """

    def __init__(self, card: Card, teacher: Teacher, detector_of: "Callable[[_Version], Detector]") -> None:
        self.entry = Ready(card, teacher, partial(detector_of, self))
        self.kept: Detector | None = None
        self.rolled_back = False


class Versions:
    """Loads versions from disk into the catalogue.

    Students stay in memory up to a budget, and are read again when needed; see `Students`. In addition, the previous
    student of each reloaded category stays in memory.

    Call all methods on the device thread, except `changed`, `kept`, `candidates` and `drop_candidate`. Work in several
    steps is a generator, see `service.device.engine.Engine.call_in_steps`; if it does not run to its end, nothing has
    changed.

    Args:
        store: contains the versions.
        catalogue: receives the versions that serve.
        students: the students in memory.
        device: of the networks.
        precision: of the networks.
        allowance: the limits per batch on the device.
        max_views: most images that a picture may make for the networks, see `service.catalogue.Ready.views`.
        on_load: called when a student has been read.
        on_refuse: called when a reload is refused.
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
        max_views: int = MAX_VIEWS,
        on_load: Callable[[], None] = lambda: None,
        on_refuse: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._students = students
        self._device = device
        self._precision = precision
        self._allowance = allowance
        self._max_views = max_views
        self._on_load = on_load
        self._on_refuse = on_refuse
        self._serving: dict[str, _Version] = {}
        self._before: dict[str, _Version] = {}
        self._stamps: dict[str, Stamp] = {}
        self._teachers: WeakValueDictionary[tuple[str, str], Teacher] = WeakValueDictionary()
        self._tried: WeakKeyDictionary[Teacher, set[int]] = WeakKeyDictionary()

    def load(self) -> None:
        """Reads and tests all categories at the start. A bad one is refused, and the others serve."""
        if not self._store.weights.is_dir():
            log.error("there is no weights folder %s", self._store.weights)
        try:
            self._store.recover()
        except OSError as error:
            log.warning("an interrupted change in %s cannot be cleaned up: %s", self._store.weights, error)
        try:
            names = self._store.names()
        except OSError as error:  # tried again at the next search for changes
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
        """Tests each combination of teacher and image size once, with two categories if there are that many."""
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
            with suppress(CategoryRefusedError):  # its student has been deleted from disk meanwhile
                pairs.append(entry.detector())
            if len(pairs) == 2:
                break
        return pairs

    def changed(self) -> list[str]:
        """Names of new categories, and of those whose files have changed since they were read. Any thread may call it.

        Categories without a folder are not included. Raises `OSError` if the folder of categories cannot be read.
        """
        return [name for name in self._store.names() if self._store.stamp(name) != self._stamps.get(name)]

    def kept(self, category: str) -> list[Kept]:
        """The versions that `roll_back` can go to, most recently replaced first. Reads the disk. For any thread."""
        entry = self._catalogue.get(category)
        serving = entry.card.model_version if isinstance(entry, Ready) else None
        return [one for one in self._store.kept(category) if one.version != serving]

    def reload(self, category: str) -> Generator[None, None, Ready]:
        """Reads a category again while the current version serves, tests the new version, and swaps them in one step.

        Also adds a category that is new in the folder.

        Raises:
            UnknownCategoryError: if there is no such category.
            VersionRefusedError: if the version on disk is refused. The current version then stays in use, unless its
                folder has been deleted.
        """
        if not self._store.holds(category):
            self._catalogue.find(category)
        try:
            version = self._read_in_place(category)
            yield from self._try(version)
        except CANNOT_SERVE as error:
            if isinstance(self._catalogue.get(category), Ready) and self._store.holds(category):
                log.error(
                    "the new version of category %s is refused; the current version stays in use: %s",
                    category,
                    with_hint(error),
                )
            else:
                self._refuse(category, error)
            self._on_refuse()
            raise VersionRefusedError(f"the version on disk of {category!r} is refused: {with_hint(error)}") from None
        except (DeviceFailedError, GeneratorExit):
            log.error(
                "the test of the new version of category %s did not finish; the current one stays in use", category
            )
            raise
        self._enter(version)
        log.info("category %s is ready, version %s", category, version.entry.card.model_version)
        return version.entry

    def roll_back(self, category: str, to: str | None = None) -> Generator[None, None, bool]:
        """Serves a replaced version again: the previous one, or the one named in `to`.

        The version is tested before anything changes.

        Args:
            category: its name.
            to: name of a version; if None, the previous one, see `model.store.store.Store.roll_back`.

        Returns:
            Whether the disk was changed too. If the disk cannot be written, the rollback lasts until the server stops.

        Raises:
            UnknownCategoryError: if there is no such category.
            NoSuchVersionError: if there is no such version.
            VersionRefusedError: if it is refused, or the category was changed during the test.
        """
        self._catalogue.find(category)
        before = self._store.in_place(category) if to is None else None  # a step back starts at the version on disk
        version = yield from self._previous(category, to)
        try:
            self._store.roll_back(category, to=version.entry.card.model_version, replace=before)
            self._stamps[category] = self._store.stamp(category)
            persistent = True
        except ChangedMeanwhileError as error:
            self._students.take(version)
            raise VersionRefusedError(f"{error}; repeat the rollback to go back from the new state") from None
        except (StoreError, OSError) as error:
            log.warning("category %s cannot be rolled back on the disk: %s", category, error)
            # Kept permanently: the disk has another version in its place, so it could not be read again.
            version.kept = version.kept or self._students.take(version) or self._build(version)
            persistent = False
        if to is None and (left := self._serving.get(category)) is not None:
            left.rolled_back = True
        self._enter(version)
        return persistent

    def on_disk(self, category: str) -> bool:
        """Whether there is a folder of this category, also one that was not read yet. For any thread."""
        return self._store.holds(category)

    def teachers(self) -> list[str]:
        """Names of the teachers that a category can be trained with. For any thread."""
        return teacher_names(self._store.teachers)

    def candidates(self) -> dict[str, Stamp]:
        """The categories that have a candidate on disk; each stamp changes with its files. For any thread.

        Raises:
            OSError: if the folder cannot be read.
        """
        store = self._store.candidates
        return {category: store.stamp(category) for category in store.names()}

    def candidate(self, category: str) -> Generator[None, None, Ready]:
        """Reads and tests the candidate of a category. Its pair stays in memory, outside the budget, with its entry.

        Raises:
            NoSuchCandidateError: if there is none.
            VersionRefusedError: if it is refused.
        """
        return (yield from self._candidate(category)).entry

    def promote(self, category: str, version: str | None = None) -> Generator[None, None, Ready]:
        """Serves the candidate of a category, on the disk too, after a test. The version that it replaces is kept; the
        category may also be one that does not exist yet.

        Args:
            category: its name.
            version: the candidate's name; None for whichever is there.

        Raises:
            UnknownCategoryError: if there is neither such a category nor a candidate of it.
            NoSuchCandidateError: if there is no candidate, or another one.
            VersionRefusedError: if it is refused, or the category was changed during the test.
            WeightsNotChangedError: if the disk cannot be written.
        """
        if not self._store.candidates.holds(category):
            self._catalogue.find(category)
        before = self._store.in_place(category)
        candidate = yield from self._candidate(category)
        name = candidate.entry.card.model_version
        try:
            if version not in (None, name):
                raise NoCandidateError(f"the candidate of {category!r} is version {name}, not {version!r}")
            self._store.promote(category, name, replace=before)
        except NoCandidateError as error:
            raise NoSuchCandidateError(str(error)) from None
        except (ChangedMeanwhileError, StoreError) as error:
            raise VersionRefusedError(str(error)) from None
        except OSError as error:
            raise _not_changed(error, f"eca-inspect promote {category}") from None
        assert candidate.kept is not None
        self._students.put(candidate, candidate.kept)
        candidate.kept = None
        self._stamps[category] = self._store.stamp(category)
        self._enter(candidate)
        log.info("the candidate of category %s serves, version %s", category, name)
        return candidate.entry

    def drop_candidate(self, category: str, version: str | None = None) -> str | None:
        """Takes the candidate of a category away from the disk. For any thread.

        Args:
            category: its name.
            version: the candidate's name; None for whichever is there.

        Returns:
            Its name; None if its card cannot be read.

        Raises:
            NoSuchCandidateError: if there is no candidate, or another one.
            WeightsNotChangedError: if the disk cannot be written.
        """
        try:
            return self._store.drop_candidate(category, version)
        except StoreError as error:
            raise NoSuchCandidateError(str(error)) from None
        except OSError as error:
            raise _not_changed(error, f"eca-inspect drop-candidate {category}") from None

    def check_candidate_writable(self) -> None:
        """Whether a candidate could be written, as far as permissions tell. For any thread.

        Raises:
            WeightsNotChangedError: if not.
        """
        try:
            self._store.candidates.check_writable()
        except StoreError as error:
            raise WeightsNotChangedError(f"{error}; let the user of the server write there") from None

    def _candidate(self, category: str) -> Generator[None, None, _Version]:
        store = self._store.candidates
        if not store.holds(category):
            raise NoSuchCandidateError(
                f"there is no candidate of {category!r}; `eca-inspect train --candidate` makes one"
            )
        try:
            version = self._read(store.folder(category), category)
            version.kept = self._students.take(version)
            yield from self._try(version)
        except CANNOT_SERVE as error:
            raise VersionRefusedError(f"the candidate of {category!r} is refused: {with_hint(error)}") from None
        return version

    def _previous(self, category: str, to: str | None) -> Generator[None, None, _Version]:
        """The version to go back to, read from disk and tested; or the previous one in memory if the disk has none."""
        serving = self._serving.get(category)
        # If an earlier rollback changed only the memory, the next one starts from there.
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
        """Reads the current version of a category on disk; reads it once more if its files changed meanwhile."""
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
        if version.entry.views > self._max_views:
            raise StoreError(
                f"each picture makes {version.entry.views} images for the networks, and the queue takes "
                f"{self._max_views}; allow more with INSPECT_QUEUE_SIZE, or train with fewer tiles"
            )
        build = partial(build_detector, folder, card, teacher, self._device, self._precision)
        self._students.put(version, translated(build))
        self._on_load()
        return version

    def _try(self, version: _Version) -> Generator[None, None, None]:
        """Tests a version that does not serve yet. If the test fails or does not finish, its student is dropped.

        Raises:
            TooCostlyError: if it needs more memory or time than a batch may.
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
                raise StoreError("its score is not finite")
        except BaseException:
            self._students.take(version)
            raise

    def _enter(self, version: _Version) -> None:
        """Serves a version from now on. Requests accepted before are still answered by the previous version."""
        category = version.entry.category
        before = self._serving.get(category)
        if before is not None and before is not version and isinstance(self._catalogue.get(category), Ready):
            before.kept = before.kept or self._students.take(before)
            if before.entry.card.model_version != version.entry.card.model_version:
                self._before[category] = before
        self._serving[category] = version
        self._catalogue.put(version.entry)

    def _refuse(self, category: str, error: Exception) -> None:
        category, reason = readable(category), encodable(with_hint(error))  # a folder name may not be valid UTF-8
        self._catalogue.put(Refused(category, reason))
        log.error("category %s is refused: %s", category, reason)

    def _detector(self, version: _Version) -> Detector:
        """The pair of a version, from memory or from disk.

        Raises:
            CategoryRefusedError: if the files on disk are no longer those of this version.
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
                self._stamps.pop(category, None)  # if the disk comes back with the same files, they are read again
            raise CategoryRefusedError(category, str(error)) from None
        self._students.put(version, detector)
        self._on_load()
        return detector

    def _build(self, version: _Version) -> Detector:
        entry = version.entry
        return translated(partial(self._store.build, entry.card, entry.teacher, self._device, self._precision))


def _not_changed(error: OSError, command: str) -> WeightsNotChangedError:
    return WeightsNotChangedError(
        f"the server cannot change the folder of weights ({error.strerror}); run `{command}` as a user who can, and "
        "the server will follow"
    )
