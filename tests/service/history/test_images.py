"""Images are kept once each, within their bound and their age, and labelled ones for good."""

import os
import time
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from service.history.errors import HistoryUnavailableError
from service.history.images import DAY_SECONDS, MEDIA_TYPES, Images, type_of
from tests.service.history.test_history import wait_until


class Kept:
    """Images with a set of labelled ones that a test changes."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.labelled: set[str] = set()
        self.away = False
        self.lost: Counter[str] = Counter()
        self.images = Images(folder, most_bytes, 10, self._labelled, lambda reason: self.lost.update({reason: 1}))
        self.folder = folder

    def _labelled(self) -> set[str]:
        if self.away:
            raise HistoryUnavailableError("away")
        return self.labelled

    def keep(self, data: bytes, age_days: float = 0) -> str:
        """Keeps an image, as if it had come some days ago. Returns its name."""
        name = sha256(data).hexdigest()
        assert self.images.reserve(len(data))
        self.images.keep(name, data)
        wait_until(lambda: not self.images._held)
        if age_days and self.images.has(name):
            seen = time.time() - age_days * DAY_SECONDS
            os.utime(self.folder / name[:2] / name, (seen, seen))
        return name


@pytest.fixture
def make(tmp_path: Path) -> Callable[[int], Kept]:
    def made(most_bytes: int) -> Kept:
        kept = Kept(tmp_path / "images", most_bytes)
        kept.images.start()
        return kept

    return made


def test_an_image_comes_back_and_is_there_once(make: Callable[[int], Kept]):
    kept = make(1000)
    name = kept.keep(b"x" * 100)
    kept.keep(b"x" * 100)
    assert kept.images.read(name) == b"x" * 100
    assert kept.images.bytes == 100
    assert kept.images.read("0" * 64) is None
    assert [path.name for path in kept.folder.rglob("*") if path.is_file()] == [name]


def test_beyond_the_bound_the_oldest_go_but_labelled_ones(make: Callable[[int], Kept]):
    kept = make(1000)
    names = [kept.keep(bytes([number]) * 300, age_days=3 - number) for number in range(3)]
    kept.labelled = {names[0]}
    last = kept.keep(b"y" * 300)
    assert [kept.images.has(name) for name in [*names, last]] == [True, False, True, True]
    assert not kept.lost
    kept.labelled = {names[0], names[2], last}
    assert not kept.images.has(kept.keep(b"z" * 300))
    assert kept.lost == {"full": 1}


def test_an_image_that_came_again_is_not_old(make: Callable[[int], Kept]):
    kept = make(1000)
    name = kept.keep(b"a" * 10, age_days=11)
    other = kept.keep(b"b" * 10, age_days=11)
    labelled = kept.keep(b"c" * 10, age_days=11)
    kept.labelled = {labelled}
    kept.keep(b"a" * 10)
    kept.images.sweep(1000)
    assert [kept.images.has(one) for one in (name, other, labelled)] == [True, False, True]
    assert kept.images.bytes == 20


def test_while_the_database_is_away_nothing_is_removed(make: Callable[[int], Kept], caplog: pytest.LogCaptureFixture):
    kept = make(1000)
    name = kept.keep(b"a" * 900, age_days=11)
    kept.away = True
    kept.keep(b"b" * 900)
    assert kept.images.has(name)
    assert kept.lost == {"full": 1}
    assert "while the database is away" in caplog.text


def test_a_folder_that_cannot_be_written_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "file").write_text("in the way")
    kept = Kept(tmp_path / "file" / "images", 1000)
    kept.images.start()
    kept.keep(b"a")
    assert kept.lost == {"disk": 1}
    assert "make room in INSPECT_STATE" in caplog.text


def test_the_type_of_a_file_is_in_its_first_bytes():
    assert type_of(b"\x89PNG\r\n") == ("image/png", "png")
    assert type_of(b"\xff\xd8\xff\xe0") == ("image/jpeg", "jpg")
    assert type_of(b"<html>") == ("application/octet-stream", "bin")
    assert {type_of(start)[0] for start in (b"BM", b"II*\0", b"MM\0*", b"RIFF", b"")} <= set(MEDIA_TYPES)
