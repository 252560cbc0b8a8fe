"""The folder of categories: the one place that knows what lies where in it, and that changes it.

::

    CATEGORY/             a version: card.json, student.safetensors, images.json, losses.*
    .versions/CATEGORY/   versions that were replaced, see `model.store.history`
    .candidates/CATEGORY/ a version beside the one in place, see `Store.candidates`; a folder of categories of its own
    .training/            progress of trainings that were stopped
    .CATEGORY-xxxxxxxx/   a change under way; the next change removes what a crash has left
    teachers/             unless another folder is named

A change is made in another folder and moved to its place in one step. The version that it replaces is kept
first, so a crash at any moment leaves the old version or the new one in place, and loses neither.
"""

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch

from model.detector import Detector
from model.networks.vgg import Teacher
from model.store import history
from model.store.card import CATEGORY_NAME, Card, SeenImages
from model.store.files import exchange, link_folder, locked, sync_folder
from model.store.history import ROLLED_BACK, VERSIONS, Kept
from model.store.teachers import load_teacher
from model.store.version import (
    CARD,
    Stamp,
    StoreError,
    build_detector,
    is_whole,
    read_card,
    read_encoded_student,
    read_seen,
    read_traces,
    stamp_of,
    write_version,
)

TEACHERS = "teachers"
CANDIDATES = ".candidates"
RESERVED_NAMES = frozenset((TEACHERS,))
_CHANGE = re.compile(rf"\.({CATEGORY_NAME.pattern})-[a-z0-9_]{{8}}")
_NEW, _OLDER, _COPY, _GONE = _PARTS = ("new", "older", "copy", "gone")
"""Of a change under way: the new version, the one in place where the two cannot be swapped, what is kept, what goes."""

log = logging.getLogger(__name__)


class CategoryExistsError(StoreError):
    """The category exists, and was not to be replaced."""


class NoCandidateError(StoreError):
    """The category has no candidate, or another one than the one that was meant."""


class StoreNotWritableError(StoreError):
    """This user cannot write to the folder of categories."""


class ChangedMeanwhileError(StoreError):
    """Another version is in place than the one that was there when a change began, so the change was not made."""


@dataclass(frozen=True)
class InPlace:
    """What was in a category's place at one moment; see `Store.in_place`.

    Attributes:
        version: its name, or None where there was nothing that can be read.
    """

    version: str | None


def check_category_name(category: str) -> None:
    """Raises `StoreError` unless the name is safe as a folder's and in a URL."""
    if not CATEGORY_NAME.fullmatch(category) or category in RESERVED_NAMES:
        raise StoreError(
            f"{category!r} cannot name a category: 1 to 64 letters, digits, '_' or '-', not starting with '_' or '-', "
            f"and not {', '.join(sorted(RESERVED_NAMES))}"
        )


class Store:
    """A folder of categories and their teachers.

    Args:
        weights: the folder of categories; it may be missing until something is written.
        teachers: the folder of teachers; else ``teachers`` in the folder of categories.
    """

    def __init__(self, weights: Path, teachers: Path | None = None) -> None:
        self.weights = weights
        self.teachers = weights / TEACHERS if teachers is None else teachers

    def folder(self, category: str) -> Path:
        """Where the version of a category lies that is served.

        Raises:
            StoreError: if the name is impossible.
        """
        check_category_name(category)
        return self.weights / category

    @property
    def candidates(self) -> "Store":
        """The candidates: versions that lie beside those in place, to be compared with them before they replace them.

        A folder of categories like this one, in which the category's name is that of the category in place.
        """
        return Store(self.weights / CANDIDATES, self.teachers)

    def checkpoint(self, category: str) -> Path:
        """Where the progress of a category's training is kept until its first version is written."""
        check_category_name(category)
        return self.weights / ".training" / f"{category}.pt"

    def check_writable(self) -> None:
        """Whether a version could be written, as far as permissions tell; asked before hours of work for it.

        Raises:
            StoreNotWritableError: if this user cannot write to the folder of categories.
        """
        for folder in (self.weights, self.weights / ".training"):
            there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
            if not os.access(there, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
                raise StoreNotWritableError(f"this user cannot write to {there}, where the new version belongs")

    def names(self) -> list[str]:
        """The folders that are categories or are meant to be, in order.

        Hidden folders, the teachers, and folders that neither have a category's name nor hold a card, such as the file
        system's own ``lost+found``, are not among them.

        Raises:
            OSError: if the folder of categories cannot be read.
        """
        if not self.weights.is_dir():
            return []
        return sorted(path.name for path in self.weights.iterdir() if _is_category(path))

    def holds(self, category: str) -> bool:
        """Whether there is a folder of this category."""
        return CATEGORY_NAME.fullmatch(category) is not None and _is_category(self.weights / category)

    def stamp(self, category: str) -> Stamp:
        """Changes whenever the files of a category do."""
        return stamp_of(self.weights / category)

    def card(self, category: str) -> Card:
        """A category's card.

        Raises:
            StoreError: if the category is not there; otherwise see `model.store.version.read_card`.
        """
        folder = self.folder(category)
        if not folder.is_dir():
            raise StoreError(f"there is no category {category!r} in {self.weights}")
        return read_card(folder)

    def in_place(self, category: str) -> InPlace:
        """What is in a category's place now: read before a change begins, it lets the change notice another one."""
        return InPlace(self._present(category))

    def seen(self, category: str) -> SeenImages:
        """What a category has seen; see `model.store.version.read_seen`."""
        return read_seen(self.folder(category))

    def traces(self, category: str) -> dict[str, bytes]:
        """What its training has left; see `model.store.version.read_traces`."""
        return read_traces(self.folder(category))

    def encoded_student(self, category: str, card: Card) -> bytes:
        """The student's file; see `model.store.version.read_encoded_student`."""
        return read_encoded_student(self.folder(category), card)

    def load(
        self, category: str, device: torch.device | str = "cpu", precision: torch.dtype = torch.float32
    ) -> tuple[Card, Detector]:
        """Loads one category with the teacher its card names.

        Raises:
            StoreError: if the category is not there or its files are damaged.
            TeacherError: if its teacher is not there or another one.
        """
        card = self.card(category)
        teacher = load_teacher(self.teachers, card.teacher.name, card.teacher.sha256)
        return card, build_detector(self.folder(category), card, teacher, device, precision)

    def build(
        self,
        card: Card,
        teacher: Teacher,
        device: torch.device | str = "cpu",
        precision: torch.dtype = torch.float32,
    ) -> Detector:
        """Composes a version again from the disk, from where it is kept if it has been replaced since.

        Raises:
            StoreError: if its student is neither in place nor kept; see `model.store.version.build_detector`.
        """
        try:
            return build_detector(self.weights / card.category, card, teacher, device, precision)
        except (StoreError, OSError):
            for one in history.kept(self.weights, card.category, None):
                if one.card.student_sha256 == card.student_sha256:
                    return build_detector(one.folder, card, teacher, device, precision)
            raise

    def write(
        self,
        card: Card,
        student: bytes,
        seen: SeenImages,
        traces: Mapping[str, bytes] = MappingProxyType({}),
        *,
        replace: InPlace | None = None,
    ) -> Path:
        """Puts a version of a category in its place, and keeps the one that it replaces.

        Args:
            card: the passport; its hash must be that of ``student``.
            student: from `model.store.version.encode_student`.
            seen: the images it has seen.
            traces: the content of further files, by name; see `model.store.version.TRACES`.
            replace: what it replaces, from `in_place` before anything was read of it; None for a new category.

        Returns:
            Its folder.

        Raises:
            CategoryExistsError: if the category exists and is not to be replaced.
            ChangedMeanwhileError: if another version is in place than the one to be replaced; it has not changed.
            StoreError: if its name is impossible.
            OSError: if the folder cannot be written; then the version in place has not changed.
        """
        place = self.folder(card.category)
        self.weights.mkdir(parents=True, exist_ok=True)
        with self._change(card.category) as scratch:
            if replace is not None:
                self._check_unchanged(card.category, replace)
            elif place.exists():
                raise CategoryExistsError(f"{place} exists")
            write_version(scratch / _NEW, card, student, seen, traces)
            self._put(card.category, scratch, keep_as="")
        return place

    def kept(self, category: str) -> list[Kept]:
        """The replaced versions of a category that can be gone back to, last put aside first."""
        return history.kept(self.weights, category, self._present(category))

    def previous(self, category: str, to: str | None = None, *, start: str | None = None) -> Kept:
        """The version that `roll_back` would put in place.

        Args:
            category: its name.
            to: a version by name, which may be the one in place; else one step back.
            start: the version to step back from, if it is a kept one; else the one in place.

        Raises:
            NoPreviousVersionError: if no such version is kept.
        """
        place = self.folder(category)
        present = self._present(category)
        if to is not None and to == present:
            return Kept(0, False, place, read_card(place))
        versions = history.kept(self.weights, category, present)
        names = [one.version for one in versions]
        if to is None and start in names:
            versions, present = versions[names.index(start) + 1 :], start
        return history.choose(versions, category, present, to)

    def roll_back(self, category: str, to: str | None = None, *, replace: InPlace | None = None) -> Card:
        """Puts a version that was replaced in place again, and keeps the present one.

        One step goes to the version that was in place before; the next one further back. A version that was left by
        going back is no step any more. It is kept, and ``to`` goes to it.

        Args:
            category: its name.
            to: a kept version by name; else one step back. Nothing changes if it is the one in place.
            replace: what is to be left, from `in_place`; None for whatever is there.

        Returns:
            The card that is in place now.

        Raises:
            NoPreviousVersionError: if no such version is kept.
            ChangedMeanwhileError: if another version is in place than the one to be left; it has not changed.
            StoreError: if the name is impossible.
            OSError: if the folder cannot be written; then the version in place has not changed.
        """
        check_category_name(category)
        if not self.weights.is_dir():
            raise history.NoPreviousVersionError(f"there is no folder {self.weights}")
        if to is not None and to == self._present(category):
            return self.card(category)
        with self._change(category) as scratch:
            if replace is not None:
                self._check_unchanged(category, replace)
            chosen = self.previous(category, to)
            link_folder(chosen.folder, scratch / _NEW)
            self._put(category, scratch, keep_as="" if chosen.rolled_back else ROLLED_BACK)
            if not chosen.rolled_back:
                for number, rolled_back, folder in history.numbered(self.weights, category):
                    if number > chosen.number and not rolled_back:
                        folder.rename(folder.with_name(f"{number}{ROLLED_BACK}"))
        return chosen.card

    def promote(self, category: str, version: str | None = None, *, replace: InPlace | None = None) -> Card:
        """Puts the candidate of a category in its place, and keeps the version that it replaces.

        Args:
            category: its name.
            version: the candidate's name; None for whichever is there.
            replace: what is to be replaced, from `in_place`; None for whatever is there.

        Returns:
            The card that is in place now.

        Raises:
            NoCandidateError: if there is no candidate, or another one.
            ChangedMeanwhileError: if another version is in place than the one to be replaced; it has not changed.
            StoreError: if the name is impossible, or the candidate is damaged.
            OSError: if the folder cannot be written; then the version in place has not changed.
        """
        candidates = self._with_candidate(category)
        with candidates._change(category), self._change(category) as scratch:
            card = self._check_candidate(category, version)
            if not is_whole(candidates.folder(category), category):
                raise StoreError(f"the candidate in {candidates.folder(category)} is damaged")
            if replace is not None:
                self._check_unchanged(category, replace)
            link_folder(candidates.folder(category), scratch / _NEW)
            self._put(category, scratch, keep_as="")
        try:
            self.drop_candidate(category, card.model_version)
        except (NoCandidateError, OSError) as error:
            log.warning("the candidate of category %s is in place, and its copy stays: %s", category, error)
        return card

    def drop_candidate(self, category: str, version: str | None = None) -> str | None:
        """Takes the candidate of a category away, and the candidates that it replaced.

        Args:
            category: its name.
            version: the candidate's name; None for whichever is there, also for one whose card cannot be read.

        Returns:
            Its name; None if its card cannot be read.

        Raises:
            NoCandidateError: if there is no candidate, or another one.
            StoreError: if the name is impossible.
            OSError: if the folder cannot be written.
        """
        candidates = self._with_candidate(category)
        with candidates._change(category) as scratch:
            dropped = candidates._present(category)
            if version is not None:
                self._check_candidate(category, version)
            candidates.folder(category).rename(scratch / _GONE)
            kept = candidates.weights / VERSIONS / category
            if kept.exists():
                kept.rename(scratch / _COPY)
            sync_folder(candidates.weights)
        return dropped

    def _with_candidate(self, category: str) -> "Store":
        candidates = self.candidates
        if not candidates.folder(category).is_dir():
            raise NoCandidateError(f"there is no candidate of {category!r}")
        return candidates

    def _check_candidate(self, category: str, version: str | None) -> Card:
        """The candidate's card; raises `NoCandidateError` if it is not of this version. The caller holds the lock."""
        card = self.candidates.card(category)
        if version not in (None, card.model_version):
            raise NoCandidateError(f"the candidate of {category!r} is version {card.model_version}, not {version!r}")
        return card

    def recover(self) -> None:
        """Ends what a crash has left half done. Does nothing while another process changes something.

        Raises:
            OSError: if the folder cannot be written.
        """
        if self.weights.is_dir():
            with locked(self.weights, wait=False) as alone:
                if alone:
                    self._recover()

    def _recover(self) -> None:
        for scratch in sorted(self.weights.iterdir()):
            name = _CHANGE.fullmatch(scratch.name)
            if name is not None and scratch.is_dir() and {path.name for path in scratch.iterdir()} <= set(_PARTS):
                self._finish(name[1], scratch)

    def _finish(self, category: str, scratch: Path) -> None:
        """Ends a change that a crash has cut short: what is missing in its place comes back, the rest goes."""
        place = self.weights / category
        for version in (scratch / _NEW, scratch / _OLDER):
            if not place.exists() and is_whole(version, category):
                version.rename(place)
                log.warning("category %s is back in its place after a crash", category)
        older, previous = scratch / _OLDER, self.weights / history.PREVIOUS / category
        if is_whole(older, category) and not previous.exists():  # older software keeps it only here meanwhile
            known = [self._present(category), *(one.version for one in self.kept(category))]
            if read_card(older, category).model_version not in known:
                previous.parent.mkdir(exist_ok=True)
                older.rename(previous)
        shutil.rmtree(scratch)
        sync_folder(self.weights)

    @contextmanager
    def _change(self, category: str) -> Iterator[Path]:
        """A folder for a change of a category, while no other process changes anything; it is gone afterwards."""
        with locked(self.weights):
            self._recover()
            with tempfile.TemporaryDirectory(dir=self.weights, prefix=f".{category}-") as scratch:
                yield Path(scratch)

    def _present(self, category: str) -> str | None:
        try:
            return read_card(self.weights / category).model_version
        except StoreError:
            return None

    def _check_unchanged(self, category: str, replace: InPlace) -> None:
        """Raises `ChangedMeanwhileError` if another version is in place. The caller holds the lock."""
        present = self._present(category)
        if present != replace.version:
            raise ChangedMeanwhileError(
                f"the category {category!r} was changed meanwhile: at the start version {replace.version or 'none'} "
                f"was in place, now it is version {present or 'none'}, which stays"
            )

    def _put(self, category: str, scratch: Path, keep_as: str) -> None:
        """Moves a new version from the scratch folder to its place, where the present one is kept before."""
        new, place = scratch / _NEW, self.weights / category
        version = read_card(new, category).model_version
        if place.exists():
            if self._present(category) != version and any(place.iterdir()):
                self._keep(category, scratch, keep_as)
            if not exchange(new, place):
                older = scratch / _OLDER
                place.rename(older)
                try:
                    new.rename(place)
                except BaseException:  # Ctrl-C too
                    older.rename(place)
                    raise
        else:
            new.rename(place)
        sync_folder(self.weights)
        self._drop(category, version, scratch)

    def _keep(self, category: str, scratch: Path, mark: str) -> None:
        folder = self.weights / VERSIONS / category
        folder.mkdir(parents=True, exist_ok=True)
        link_folder(self.weights / category, scratch / _COPY)
        highest = max((number for number, _, _ in history.numbered(self.weights, category)), default=0)
        (scratch / _COPY).rename(folder / f"{highest + 1}{mark}")
        for changed in (folder, folder.parent):
            sync_folder(changed)

    def _drop(self, category: str, present: str, scratch: Path) -> None:
        """Takes away what need not be kept; see `model.store.history.surplus`."""
        gone = scratch / _GONE
        gone.mkdir()
        for index, folder in enumerate(history.surplus(self.weights, category, present)):
            folder.rename(gone / str(index))


def _is_category(folder: Path) -> bool:
    name = folder.name
    if name.startswith(".") or name in RESERVED_NAMES or not folder.is_dir():
        return False
    try:
        return CATEGORY_NAME.fullmatch(name) is not None or (folder / CARD).exists()
    except OSError:  # it may not be looked into
        return False
