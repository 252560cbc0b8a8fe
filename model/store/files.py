"""Changes on disk that a power cut or `kill -9` cannot leave half done, and that no other process makes meanwhile."""

import ctypes
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_UNSUPPORTED = frozenset((errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM))
LOCK_FILE = ".lock"


def write_file(path: Path, data: bytes) -> None:
    """Makes a new file and waits until the disk has its content; the disk has its name after `sync_folder`.

    Raises:
        FileExistsError: if there is one already.
        OSError: if it cannot be written.
    """
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes) -> None:
    """Puts a file in its place in one step: a reader sees the old content or the new one, never a part.

    Raises:
        OSError: if it cannot be written; then nothing has changed.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write_file(temporary, data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Waits until the disk has the names in a folder. Without effect where the file system knows no such thing."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link_folder(source: Path, copy: Path) -> None:
    """Copies a folder. The files share their content with the copies where the file system can do that."""
    shutil.copytree(source, copy, symlinks=True, copy_function=_link_or_copy)
    sync_folder(copy)


def _link_or_copy(source: str, copy: str) -> None:
    try:
        os.link(source, copy, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, copy)


def exchange(one: Path, other: Path) -> bool:
    """Swaps two folders in one step; False where the system cannot do that, and then nothing has changed.

    Raises:
        OSError: if the system can, but these two cannot be swapped.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(one))


@contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Keeps other processes that lock the same folder out. The lock of a process that dies is free.

    Args:
        folder: must exist. It is locked itself, which leaves nothing behind; where only files can be locked, as on
            NFS, a hidden file in it.
        wait: until the lock is free; else go on without it.

    Yields:
        Whether the lock is held.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            held = _lock(descriptor, wait)
        except OSError:
            os.close(descriptor)
            descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
            held = _lock(descriptor, wait)
        yield held
    finally:
        os.close(descriptor)


def _lock(descriptor: int, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True
