"""Walking through folders of files as people, operating systems and other programs leave them."""

import errno
import os
import stat
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from model.errors import ExpectedError
from model.lifecycle.remarks import Kind, Remarks
from model.text import readable


class DatasetError(ExpectedError):
    """A folder does not hold what was asked of it; the message says what is missing."""


SYSTEM_FOLDERS = frozenset(
    (
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "@tmp",
        "__macosx",
        "__pycache__",
        "found.000",
        "lost+found",
        "network trash folder",
        "recycler",
        "system volume information",
        "temporary items",
        "~snapshot",
    )
)
"""Folders that operating systems, network storage and other programs make, in lower case."""

SYSTEM_FILES = frozenset(("desktop.ini", "ehthumbs.db", "icon\r", "thumbs.db"))


MAX_FILE_BYTES = 1 << 30
"""More than any image of the size allowed needs."""


@dataclass(frozen=True)
class Found:
    """The files of a folder and below it.

    Attributes:
        files: the place on disk where each really lies, by the path it was reached by; sorted by that path.
        remarks: what was left out.
    """

    files: dict[Path, Path]
    remarks: Remarks


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or made by a machine for itself."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS | SYSTEM_FILES


def sub_folders(folder: Path) -> tuple[list[Path], Remarks]:
    """The folders in a folder, links to folders among them, sorted by name, and what else lies there.

    Raises:
        OSError: if the folder cannot be read.
    """
    folders, notes = [], _Notes()
    for path in sorted(folder.iterdir()):
        if is_hidden(path.name):
            notes.add(Kind.SYSTEM_FOLDER if path.is_dir() else Kind.SYSTEM_FILE, path)
        elif path.is_dir():
            folders.append(path)
        elif path.is_symlink() and not path.exists():
            notes.add(Kind.BROKEN_LINK, path)
        else:
            notes.add(Kind.OUTSIDE, path)
    return folders, notes.remarks()


def files_below(top: Path) -> Found:
    """Every regular file in a folder and below it, hidden and system ones left out.

    Links to files and folders are followed, after everything that is no link. What was reached before is not read
    again, and a link to a folder above is not followed; nothing is opened.

    Raises:
        OSError: if a folder cannot be read; it names the folder.
    """
    real_top = Path(os.path.realpath(top))
    places: dict[Path, Path] = {}
    notes = _Notes()
    folders = deque([(top, real_top)])
    links: deque[tuple[Path, Path]] = deque()
    read: set[Path] = set()
    while folders or links:
        if not folders:
            _follow(*links.popleft(), real_top, folders, places, notes)
            continue
        folder, real = folders.popleft()
        if real in read:
            notes.add(Kind.SECOND_PATH, folder)
            continue
        read.add(real)
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = folder / entry.name
                if is_hidden(entry.name):
                    notes.add(Kind.SYSTEM_FOLDER if path.is_dir() else Kind.SYSTEM_FILE, path)
                elif entry.is_symlink():
                    links.append((path, real))
                elif entry.is_dir():
                    folders.append((path, real / entry.name))
                elif entry.is_file():
                    _take(path, real / entry.name, places, notes)
                else:
                    notes.add(Kind.SPECIAL_FILE, path)
    return Found({path: place for place, path in sorted(places.items(), key=lambda item: item[1])}, notes.remarks())


def read_file(path: Path) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: if it is no regular file, larger than an image may be, or cannot be read.
    """
    # Not to wait for someone to write into a pipe that took the file's place.
    with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        if status.st_size > MAX_FILE_BYTES:
            raise OSError(errno.EFBIG, f"{status.st_size} bytes are more than the {MAX_FILE_BYTES} allowed", path)
        return file.read()


def _follow(
    link: Path,
    real_folder: Path,
    real_top: Path,
    folders: deque[tuple[Path, Path]],
    places: dict[Path, Path],
    notes: "_Notes",
) -> None:
    target = Path(os.path.realpath(link))  # which takes a link to itself as it is
    if target.is_dir():
        if any(below.is_relative_to(target) for below in (real_folder, real_top)):
            notes.add(Kind.SECOND_PATH, link, target)
        else:
            folders.append((link, target))
    elif target.is_file():
        _take(link, target, places, notes)
    else:
        notes.add(Kind.SPECIAL_FILE if target.exists() else Kind.BROKEN_LINK, link, target)


def _take(path: Path, place: Path, places: dict[Path, Path], notes: "_Notes") -> None:
    if place in places:
        notes.add(Kind.SECOND_PATH, path, place)
    else:
        places[place] = path


class _Notes:
    """Remarks while they are gathered."""

    def __init__(self) -> None:
        self._files: dict[Kind, list[str]] = {}

    def add(self, kind: Kind, path: Path, target: Path | None = None) -> None:
        arrow = f" -> {readable(target)}" if target is not None else ""
        self._files.setdefault(kind, []).append(readable(path) + arrow)

    def remarks(self) -> Remarks:
        return Remarks({kind: tuple(sorted(self._files[kind])) for kind in Kind if kind in self._files})
