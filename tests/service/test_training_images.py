"""Uploaded training images: each once, within bounds, whole or not at all."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from model.store.version import StoreError
from service.training_images import NoRoomError, TrainingImages

PNG, JPEG = b"\x89PNG one", b"\xff\xd8\xff two"


def put(images: TrainingImages, data: bytes, category: str = "tile") -> bool:
    return images.put(category, sha256(data).hexdigest(), data)


def test_an_image_is_kept_once_under_its_hash_and_type(tmp_path: Path):
    images = TrainingImages(tmp_path, 1000, 10)
    assert [put(images, one) for one in (PNG, JPEG, PNG)] == [True, True, False]
    assert images.put("tile", sha256(PNG).hexdigest().upper(), PNG) is False
    found = images.uploaded("tile")
    assert found.sha256 == tuple(sorted(sha256(one).hexdigest() for one in (PNG, JPEG)))
    assert found.bytes == len(PNG) + len(JPEG)
    assert {path.suffix for path in images.folder("tile").iterdir()} == {".png", ".jpg"}
    assert images.uploaded("other").sha256 == ()


def test_twenty_at_once_store_one(tmp_path: Path):
    images = TrainingImages(tmp_path, 1000, 10)
    with ThreadPoolExecutor(20) as pool:
        new = [*pool.map(lambda _: put(images, PNG), range(20))]
    assert sorted(new) == [False] * 19 + [True]
    assert images.uploaded("tile").sha256 == (sha256(PNG).hexdigest(),)
    assert len([*images.folder("tile").iterdir()]) == 1


@pytest.mark.parametrize(("most_bytes", "most_images"), [(len(PNG), 10), (1000, 1)])
def test_all_categories_share_the_room(tmp_path: Path, most_bytes: int, most_images: int):
    first = TrainingImages(tmp_path, most_bytes, most_images)
    put(first, PNG)
    for images in (first, TrainingImages(tmp_path, most_bytes, most_images)):  # also when the server starts again
        with pytest.raises(NoRoomError, match=f"1 uploaded training images in {len(PNG)} bytes"):
            put(images, JPEG, "other")
        assert put(images, PNG) is False  # what is there needs no room
    images.remove("tile")
    assert put(images, JPEG, "other") is True


def test_what_somebody_removes_by_hand_makes_room(tmp_path: Path):
    images = TrainingImages(tmp_path, 1000, 1)
    put(images, PNG)
    next(images.folder("tile").iterdir()).unlink()
    assert put(images, JPEG) is True


def test_one_or_all_are_removed(tmp_path: Path):
    images = TrainingImages(tmp_path, 1000, 10)
    put(images, PNG)
    put(images, JPEG)
    put(images, PNG, "other")
    name = sha256(PNG).hexdigest()
    assert [images.remove("tile", name.upper()), images.remove("tile", name)] == [1, 0]
    assert images.uploaded("tile").sha256 == (sha256(JPEG).hexdigest(),)
    assert [images.remove("tile"), images.remove("tile")] == [1, 0]
    assert not images.folder("tile").exists()
    assert images.uploaded("other").sha256 == (name,)


@pytest.mark.parametrize("category", ["..", ".", "", "a/b", "../tile", "teachers", ".tile", "tile\n", "x" * 65, "é"])
def test_a_name_that_no_category_can_have_leads_nowhere(tmp_path: Path, category: str):
    images = TrainingImages(tmp_path, 1000, 10)
    calls: list[Callable[[], object]] = [
        lambda: put(images, PNG, category), lambda: images.uploaded(category), lambda: images.remove(category),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(StoreError, match="cannot name a category"):
            call()
    assert [*tmp_path.rglob("*")] == []


def test_a_disk_that_takes_nothing_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    images = TrainingImages(tmp_path, 1000, 10)
    put(images, PNG)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(NoRoomError, match="INSPECT_STATE: No space left on device"):
            put(images, JPEG)
    assert [path.read_bytes() for path in images.folder("tile").iterdir()] == [PNG]
    assert put(images, JPEG) is True


def test_what_a_crash_left_does_not_count_and_goes(tmp_path: Path):
    images = TrainingImages(tmp_path, 1000, 2)
    put(images, PNG)
    left = images.folder("tile") / f".{sha256(JPEG).hexdigest()}.jpg.0a1b2c3d"
    left.write_bytes(JPEG)
    assert TrainingImages(tmp_path, 1000, 2).uploaded("tile").sha256 == (sha256(PNG).hexdigest(),)
    assert left.exists()  # another server may be writing it
    long_ago = time.time() - 7200
    os.utime(left, (long_ago, long_ago))
    assert put(TrainingImages(tmp_path, 1000, 2), JPEG) is True
    assert not left.exists()
