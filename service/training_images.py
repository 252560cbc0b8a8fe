"""Training images that clients upload: files named after their SHA-256, in a folder for each category."""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from time import time

from model.store.files import replace_file, sync_folder
from model.store.store import check_category_name
from service.history.backup import TRAINING_IMAGES
from service.history.images import type_of

SHA256 = r"[0-9a-fA-F]{64}"
LEFTOVER_SECONDS = 3600.0
"""Age of a file that is still being written, after which a crash must have left it."""

log = logging.getLogger(__name__)


class NoRoomError(Exception):
    """An image cannot be stored; the message says why. What was there before is there."""


@dataclass(frozen=True)
class Uploaded:
    """The uploaded images of a category.

    Attributes:
        sha256: of each file, hexadecimal in small letters, sorted.
        bytes: of all files together.
    """

    sha256: tuple[str, ...]
    bytes: int


class TrainingImages:
    """Uploaded images below the state folder, within a number of bytes and of images. Any thread may call all methods.

    Args:
        state: folder of the server; a folder in it is made when the first image is stored.
        most_bytes: of the images of all categories together.
        most_images: of all categories together.
    """

    def __init__(self, state: Path, most_bytes: int, most_images: int) -> None:
        self._folder = state / TRAINING_IMAGES
        self._most_bytes = most_bytes
        self._most_images = most_images
        self._lock = Lock()
        self._bytes = 0
        self._images = 0
        try:
            self._remove_leftovers()
            self._count()
        except OSError as error:
            log.error("the uploaded training images cannot be read: %s", error)

    def folder(self, category: str) -> Path:
        """Where the images of a category lie, if it has any.

        Raises:
            StoreError: if this cannot be the name of a category.
        """
        check_category_name(category)
        return self._folder / category

    def put(self, category: str, sha256: str, data: bytes) -> bool:
        """Stores an image.

        Args:
            category: its category, which may be one that does not exist yet.
            sha256: of the file, hexadecimal.
            data: the file.

        Returns:
            Whether it is new; else it was there already.

        Raises:
            StoreError: if this cannot be the name of a category.
            NoRoomError: if there is no room for it, or the disk does not take it.
        """
        path = self.folder(category) / f"{sha256.lower()}.{type_of(data)[1]}"
        with self._lock:
            try:
                if path.exists():
                    return False
                if not self._fits(data):
                    self._count()  # somebody else may have removed some
                if not self._fits(data):
                    raise NoRoomError(
                        f"this image of {len(data)} bytes has no room: the server has {self._images} uploaded training "
                        f"images in {self._bytes} bytes, and takes at most {self._most_images} "
                        f"(INSPECT_UPLOADED_IMAGES) in {self._most_bytes} bytes (INSPECT_UPLOADED_BYTES); remove some "
                        "with DELETE, or raise these settings"
                    )
                if not path.parent.is_dir():
                    path.parent.mkdir(parents=True)
                    sync_folder(self._folder)
                replace_file(path, data)
            except OSError as error:
                raise NoRoomError(f"the image cannot be written to INSPECT_STATE: {error.strerror}") from None
            self._images += 1
            self._bytes += len(data)
            return True

    def uploaded(self, category: str) -> Uploaded:
        """The images of a category.

        Raises:
            StoreError: if this cannot be the name of a category.
            OSError: if they cannot be read.
        """
        folder = self.folder(category)
        with self._lock:
            found = sorted(_files(folder))
            return Uploaded(tuple(path.stem for path in found), sum(path.stat().st_size for path in found))

    def remove(self, category: str, sha256: str | None = None) -> int:
        """Removes an image of a category, or all of them.

        Args:
            category: its name.
            sha256: of the file, hexadecimal; None for all.

        Returns:
            How many there were.

        Raises:
            StoreError: if this cannot be the name of a category.
            OSError: if one cannot be removed.
        """
        folder = self.folder(category)
        with self._lock:
            found = [path for path in _files(folder) if sha256 is None or path.stem == sha256.lower()]
            for path in found:
                path.unlink()
            if found and not any(folder.iterdir()):
                folder.rmdir()
            self._count()
        return len(found)

    def _fits(self, data: bytes) -> bool:
        return self._images < self._most_images and self._bytes + len(data) <= self._most_bytes

    def _remove_leftovers(self) -> None:
        for folder in _entries(self._folder):
            for path in folder.glob(".*"):
                if path.stat().st_mtime < time() - LEFTOVER_SECONDS:
                    path.unlink()

    def _count(self) -> None:
        sizes = [path.stat().st_size for folder in _entries(self._folder) for path in _files(folder)]
        self._images, self._bytes = len(sizes), sum(sizes)


def _files(folder: Path) -> Iterator[Path]:
    """The images of a folder, and not what a crash may have left of one that was being written."""
    return (path for path in _entries(folder) if re.fullmatch(SHA256, path.stem))


def _entries(folder: Path) -> list[Path]:
    return [*folder.iterdir()] if folder.is_dir() else []
