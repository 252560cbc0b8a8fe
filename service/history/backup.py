"""A copy of what the server keeps, while it runs: spool, database if it is SQLite, and images."""

import shutil
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from model.errors import ExpectedError

DATABASE = "history.sqlite"
SPOOL = "spool.sqlite"
IMAGES = "images"
TRAINING_IMAGES = "training-images"
"""The folder of uploaded ones, with a folder for each category."""


class BackupError(ExpectedError):
    """There is no backup; the message says why."""


@dataclass(frozen=True)
class BackedUp:
    """What was copied.

    Attributes:
        files: names of the databases.
        images: how many images.
        bytes: of all together.
    """

    files: tuple[str, ...]
    images: int
    bytes: int


def back_up(state: Path, database: Path | None, folder: Path) -> BackedUp:
    """Copies the history into a folder that can take the place of the state folder.

    The spool is copied first: what leaves it meanwhile is in the database that is copied after it, and a record that is
    in both is taken once.

    Args:
        state: the state folder.
        database: the SQLite file; None for another database, which is backed up by its own means after this.
        folder: new, or empty.

    Raises:
        BackupError: if there is something in the folder, or nothing to copy, or a copy is damaged.
        OSError: if a file cannot be read or written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BackupError(f"{folder} exists and is not an empty folder; name a new one")
    sources = {SPOOL: state / SPOOL} | ({} if database is None else {DATABASE: database})
    there = {name: path for name, path in sources.items() if path.exists()}
    if not there:
        raise BackupError(f"there is no history in {state}; is INSPECT_STATE that of the server?")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for name, path in there.items():
            _copy_database(path, folder / name)
        images = _copy_images(state, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # nobody takes half of it for a backup
        raise
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return BackedUp(tuple(there), images, size)


def _copy_images(state: Path, folder: Path) -> int:
    copied = 0
    kept, uploaded = (state.glob(f"{place}/[0-9a-f]*") for place in (f"{IMAGES}/??", f"{TRAINING_IMAGES}/*"))
    for image in sorted((*kept, *uploaded)):
        target = folder / image.relative_to(state)
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # the server has removed it meanwhile
            shutil.copy2(image, target)
            copied += 1
    return copied


def _copy_database(path: Path, target: Path) -> None:
    """By SQLite's online backup, which takes what is in the write-ahead log too, and does not hold up who writes."""
    try:
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)
            (found,) = copy.execute("PRAGMA quick_check(1)").fetchone()
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
    except sqlite3.Error as error:
        raise BackupError(f"{path} cannot be copied: {error}") from None
    if found != "ok":
        raise BackupError(f"the copy of {path} is damaged: {found}; keep the last backup that was not")
