"""The images that are kept: files named after the SHA-256 of their content, so that the same image is kept once."""

import logging
import os
import re
import secrets
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from threading import Lock, Thread
from time import monotonic, time

from service.history.errors import HistoryUnavailableError

MEMORY_BYTES = 256 << 20
"""Most bytes of images that wait to be written."""
SPARE = 0.05
"""Share of the bound that a removal frees, so that not every image asks for one."""
SWEEP_SECONDS = 3600.0
LOG_SECONDS = 60.0
DAY_SECONDS = 86_400.0
IMAGE_LOSSES = ("memory", "disk", "full")
"""Why an image that should be kept is not."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TYPES = (
    (b"\x89PNG", "image/png", "png"),
    (b"\xff\xd8\xff", "image/jpeg", "jpg"),
    (b"BM", "image/bmp", "bmp"),
    (b"II*\0", "image/tiff", "tif"),
    (b"MM\0*", "image/tiff", "tif"),
    (b"RIFF", "image/webp", "webp"),
)
_OTHER = ("application/octet-stream", "bin")
MEDIA_TYPES = tuple(dict.fromkeys((*(media_type for _, media_type, _ in _TYPES), _OTHER[0])))
"""That `type_of` gives."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _File:
    path: Path
    bytes: int
    seen: float


def type_of(data: bytes) -> tuple[str, str]:
    """The media type of a file, and how its name ends. What is no image is never shown as something else."""
    return next(((media_type, ending) for start, media_type, ending in _TYPES if data.startswith(start)), _OTHER)


class Images:
    """A folder of images, within a number of bytes and of days. Images of labelled inspections are not removed.

    Args:
        folder: made when the first image is kept.
        most_bytes: of all images together.
        days: after which an image is removed that has not come again.
        labelled: the SHA-256 of images that must stay; raises `HistoryUnavailableError`.
        on_lose: called with a reason of `IMAGE_LOSSES` for an image that is not kept.
    """

    def __init__(
        self,
        folder: Path,
        most_bytes: int,
        days: float,
        labelled: Callable[[], Collection[str]],
        on_lose: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._days = days
        self._labelled = labelled
        self._on_lose = on_lose
        self._queue: Queue[tuple[str, bytes] | None] = Queue()
        self._lock = Lock()
        self._held = 0
        self._logged = -LOG_SECONDS
        self._thread = Thread(target=self._run, name="history-images", daemon=True)
        self.bytes = 0
        """Of all images, as far as this process knows."""

    def start(self) -> None:
        """Starts to write, and to remove what is too old or too much."""
        self._thread.start()

    def close(self, seconds: float) -> None:
        """Writes what waits, as far as it can in this time."""
        self._queue.put(None)
        self._thread.join(seconds)

    def reserve(self, count: int) -> bool:
        """Whether there is memory for an image of so many bytes; then it is taken until `release` or `keep`."""
        with self._lock:
            if self._held + count > MEMORY_BYTES:
                return False
            self._held += count
            return True

    def lose_for_memory(self) -> None:
        """Counts an image for which there is no memory."""
        self._lose("memory", "the disk of INSPECT_STATE is too slow for so many")

    def release(self, count: int) -> None:
        """Gives back what was reserved."""
        with self._lock:
            self._held -= count

    def keep(self, sha256: str, data: bytes) -> None:
        """Has an image written, for which memory was reserved."""
        self._queue.put((sha256, data))

    def read(self, sha256: str) -> bytes | None:
        """The file that was sent; None if it is not kept.

        Raises:
            OSError: if it cannot be read.
        """
        try:
            return self._path(sha256).read_bytes()
        except FileNotFoundError:
            return None

    def has(self, sha256: str) -> bool:
        """Whether an image is kept."""
        return self._path(sha256).exists()

    def _path(self, sha256: str) -> Path:
        assert _SHA256.fullmatch(sha256)
        return self._folder / sha256[:2] / sha256

    def _run(self) -> None:
        next_sweep, last = 0.0, False
        while not last:
            if monotonic() >= next_sweep:
                next_sweep = monotonic() + SWEEP_SECONDS
                self._guarded(lambda: self.sweep(self._most_bytes))
            try:
                item = self._queue.get(timeout=max(0.0, next_sweep - monotonic()))
            except Empty:
                continue
            if item is None:
                last = True
            else:
                self._guarded(lambda item=item: self._write(*item))  # type: ignore[misc]
                self.release(len(item[1]))

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            self._lose("disk", f"{error}; make room in INSPECT_STATE")
        except HistoryUnavailableError as error:
            self._complain(
                f"images cannot be removed while the database is away, which knows the labelled ones: {error}"
            )
        except Exception:
            log.exception("an image of the history cannot be kept")

    def _write(self, sha256: str, data: bytes) -> None:
        path = self._path(sha256)
        if path.exists():
            os.utime(path)
            return
        if self.bytes + len(data) > self._most_bytes:
            try:
                self.sweep(int((1 - SPARE) * self._most_bytes) - len(data))
            except HistoryUnavailableError as error:
                self._lose("full", f"nothing can be removed while the database is away: {error}")
                return
        if self.bytes + len(data) > self._most_bytes:
            self._lose("full", "the labelled ones take all of INSPECT_IMAGES_BYTES; raise it")
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{secrets.token_hex(8)}")
        try:
            temporary.write_bytes(data)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self.bytes += len(data)

    def sweep(self, most_bytes: int) -> None:
        """Removes images that are too old, and then the oldest until no more than this is left; no labelled ones.

        Raises:
            HistoryUnavailableError: if the database does not say which are labelled; then nothing is removed.
        """
        files = sorted(self._files(), key=lambda file: file.seen)
        self.bytes = sum(file.bytes for file in files)
        oldest = time() - self._days * DAY_SECONDS
        if self.bytes <= most_bytes and (not files or files[0].seen >= oldest):
            return
        labelled = self._labelled()
        for file in files:
            if file.seen >= oldest and self.bytes <= most_bytes:
                return
            if file.path.name not in labelled:
                file.path.unlink(missing_ok=True)
                self.bytes -= file.bytes

    def _files(self) -> list[_File]:
        found = []
        for path in self._folder.glob("??/*"):
            with suppress(FileNotFoundError):  # another process removes too
                status = path.stat()
                found.append(_File(path, status.st_size, status.st_mtime))
        return found

    def _lose(self, reason: str, why: str) -> None:
        self._on_lose(reason)
        self._complain(f"images are not kept: {why}")

    def _complain(self, what: str) -> None:
        if monotonic() - self._logged >= LOG_SECONDS:
            self._logged = monotonic()
            log.error("%s", what)
