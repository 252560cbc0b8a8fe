"""Folders as they lie on real disks: what machines put there is left out and said, and links are followed once."""

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.lifecycle import datasets
from model.lifecycle.datasets import DatasetError
from model.lifecycle.folders import files_below
from model.lifecycle.many import categories_of
from model.lifecycle.remarks import Kind, remark
from model.preprocessing import Preprocessing
from tests.conftest import surface, write_images

MACHINE_MADE = (
    ".ipynb_checkpoints", "@eaDir", ".Trash-1000", "__MACOSX", "lost+found", "$RECYCLE.BIN",
    "System Volume Information", ".git", "#recycle",
)  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images, the third in a sub-folder."""
    root = tmp_path / "photos"
    write_images(root, [surface(seed) for seed in range(2)])
    write_images(root / "more", [surface(2)])
    return root


def names(folder: Path) -> list[str]:
    """The images of a folder, by their path below it."""
    return [str(path.relative_to(folder)) for path in datasets.list_images(folder)[0]]


@pytest.mark.parametrize("name", MACHINE_MADE)
def test_images_in_machine_made_folders_are_not_used_at_any_depth_and_that_is_said(photos: Path, name: str):
    write_images(photos / name, [surface(10)])
    write_images(photos / "more" / name / "deep", [surface(11)])
    (photos / "more" / name.upper()).mkdir(exist_ok=True)
    assert names(photos) == ["000.png", "001.png", "more/000.png"]
    _, remarks = datasets.list_images(photos)
    (line,) = remarks.lines()
    assert line.startswith(f"left out: {len(remarks.of(Kind.SYSTEM_FOLDER))} hidden or system folders: ")
    assert f"{photos / name}" in line
    assert remarks.of(Kind.SYSTEM_FOLDER)[0].endswith(name)


@pytest.mark.parametrize("content", [True, False])
@pytest.mark.parametrize("name", MACHINE_MADE)
def test_a_machine_made_folder_is_no_kind_of_defect(tmp_path: Path, name: str, content: bool):
    for defect in ("good", "spot"):
        write_images(tmp_path / "test" / defect, [surface(1)])
    (tmp_path / "test" / name).mkdir()
    if content:
        write_images(tmp_path / "test" / name / "images", [surface(2)])
    listing = datasets.mvtec_test(tmp_path)
    assert [sample.defect for sample in listing] == [None, "spot"]
    assert listing.remarks.of(Kind.SYSTEM_FOLDER) == (str(tmp_path / "test" / name),)


def test_a_machine_made_folder_is_no_category(tmp_path: Path):
    for name in ("bolt", ".Trash-1000", "@eaDir", "notes"):
        (tmp_path / name / ("train/good" if name != "notes" else "")).mkdir(parents=True)
    (tmp_path / "readme.txt").touch()
    folders, remarks = categories_of(tmp_path)
    assert folders == [tmp_path / "bolt"]
    assert remarks.of(Kind.SYSTEM_FOLDER) == (str(tmp_path / ".Trash-1000"), str(tmp_path / "@eaDir"))
    assert remarks.of(Kind.NO_TRAINING) == (str(tmp_path / "notes"),)


def test_a_folder_that_was_named_is_read_though_it_is_hidden(tmp_path: Path):
    write_images(tmp_path / ".cache" / "photos", [surface(1)])
    assert names(tmp_path / ".cache" / "photos") == ["000.png"]
    assert names(tmp_path / ".cache") == ["photos/000.png"]


def test_files_that_systems_leave_are_left_out_and_said(photos: Path):
    for name in ("Thumbs.db", ".DS_Store", "._000.png", "desktop.ini", ".hidden.jpg"):
        (photos / name).write_bytes(b"\0\5\x16\7")
    paths, remarks = datasets.list_images(photos)
    assert len(paths) == 3
    assert len(remarks.of(Kind.SYSTEM_FILE)) == 5
    assert remarks.lines()[0].endswith(" and 2 more")


def test_files_of_other_types_are_counted_by_their_suffix(photos: Path):
    for name in ("a.heic", "b.HEIC", "c.gif", "notes.txt", "README"):
        (photos / name).touch()
    _, remarks = datasets.list_images(photos)
    assert remarks.lines() == ["left out: 5 files of other types: 2 .heic, 1 without a suffix, 1 .gif, 1 .txt"]


def test_a_folder_without_an_image_says_what_it_holds_instead(tmp_path: Path):
    for name in ("a.heic", "b.heic"):
        (tmp_path / name).touch()
    with pytest.raises(DatasetError, match=r"holds no image .*\.jfif.*; left out: 2 files of other types: 2 \.heic"):
        datasets.list_images(tmp_path)


@pytest.mark.parametrize(
    "suffix", [".jfif", ".JFIF", ".jpe", ".jif", ".mpo", ".apng", ".dib", ".JPG", ".Jpeg", ".tif", ".WEBP"]
)
def test_every_usual_name_of_a_readable_format_is_taken(tmp_path: Path, suffix: str):
    (tmp_path / f"a{suffix}").touch()
    assert names(tmp_path) == [f"a{suffix}"]


def test_a_pattern_takes_small_and_capital_letters_alike_and_says_what_it_left_out(tmp_path: Path):
    for name in ("a.JPG", "b.jpg", "c.png"):
        (tmp_path / name).touch()
    paths, remarks = datasets.list_images(tmp_path, "*.jpg")
    assert [path.name for path in paths] == ["a.JPG", "b.jpg"]
    assert remarks.lines() == [f"left out: 1 image whose name does not match: {tmp_path / 'c.png'}"]


def test_folders_and_files_behind_links_are_used(photos: Path, tmp_path: Path):
    write_images(tmp_path / "elsewhere", [surface(seed) for seed in range(20, 24)])
    single = write_images(tmp_path / "single", [surface(30)])[0].path
    (photos / "linked").symlink_to(tmp_path / "elsewhere")
    (photos / "one.png").symlink_to(single)
    assert names(photos) == [
        "000.png", "001.png", "linked/000.png", "linked/001.png", "linked/002.png", "linked/003.png", "more/000.png",
        "one.png",
    ]  # fmt: skip
    assert not datasets.list_images(photos)[1]


def test_links_in_a_circle_end(photos: Path, tmp_path: Path):
    write_images(tmp_path / "other", [surface(40)])
    (photos / "more" / "up").symlink_to(photos)
    (photos / "more" / "above").symlink_to(tmp_path)
    (photos / "more" / "here").symlink_to(".")
    (photos / "other").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "back").symlink_to(photos)
    (photos / "itself").symlink_to("itself")
    assert names(photos) == ["000.png", "001.png", "more/000.png", "other/000.png"]
    _, remarks = datasets.list_images(photos)
    assert len(remarks.of(Kind.SECOND_PATH)) == 4
    assert remarks.of(Kind.BROKEN_LINK) == (f"{photos / 'itself'} -> {photos / 'itself'}",)


def test_a_link_to_a_folder_above_brings_in_nothing_that_was_not_named(tmp_path: Path):
    write_images(tmp_path / "part" / "train" / "good", [surface(1)])
    write_images(tmp_path / "part" / "test" / "spot", [surface(2, fault=True)])
    (tmp_path / "part" / "train" / "good" / "all").symlink_to(tmp_path / "part")
    assert len(datasets.mvtec_training(tmp_path / "part")) == 1


def test_a_file_that_is_reached_twice_counts_once_under_its_own_name(photos: Path):
    (photos / "000-again.png").symlink_to(photos / "001.png")
    (photos / "a-link").symlink_to(photos / "more")
    (photos / "b-link").symlink_to(photos / "more")
    assert names(photos) == ["000.png", "001.png", "more/000.png"]
    remarks = datasets.list_images(photos)[1]
    assert remarks.of(Kind.SECOND_PATH) == (
        f"{photos / '000-again.png'} -> {photos / '001.png'}", f"{photos / 'a-link'}", f"{photos / 'b-link'}",
    )  # fmt: skip


def test_a_link_that_leads_nowhere_is_named(photos: Path):
    (photos / "gone.png").symlink_to("/nowhere/gone.png")
    (photos / "gone").symlink_to("/nowhere/folder")
    remarks = datasets.list_images(photos)[1]
    assert remarks.lines() == [
        f"left out: 2 links that lead nowhere: {photos / 'gone'} -> /nowhere/folder, {photos / 'gone.png'} -> "
        "/nowhere/gone.png"
    ]


def test_files_that_are_links_into_a_hidden_folder_are_used(photos: Path):
    """As in volumes of Kubernetes and in git-annex."""
    hidden = photos / "..data"
    (photos / "more").rename(hidden)
    (photos / "002.png").symlink_to(hidden / "000.png")
    assert names(photos) == ["000.png", "001.png", "002.png"]


def test_pipes_sockets_and_devices_are_not_opened(photos: Path, monkeypatch: pytest.MonkeyPatch):
    os.mkfifo(photos / "pipe.png")
    (photos / "zero.png").symlink_to("/dev/zero")
    monkeypatch.chdir(photos)  # an address of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        assert names(photos) == ["000.png", "001.png", "more/000.png"]
        remarks = datasets.list_images(photos)[1]
    assert remarks.of(Kind.SPECIAL_FILE) == (
        str(photos / "pipe.png"), str(photos / "socket.png"), f"{photos / 'zero.png'} -> /dev/zero",
    )  # fmt: skip


def test_a_pipe_in_the_place_of_an_image_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DatasetError, match=r"a\.png: not a regular file"):
        datasets.load_images([datasets.Sample(tmp_path / "a.png")], Preprocessing(32))


def test_a_file_that_is_too_large_for_memory_is_named(tmp_path: Path):
    with (tmp_path / "a.tif").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DatasetError, match=r"a\.tif: 1099511627776 bytes are more than the 1073741824 allowed"):
        datasets.load_images(datasets.normal_samples(tmp_path), Preprocessing(32))


def test_an_empty_file_is_named(tmp_path: Path):
    (tmp_path / "a.png").touch()
    with pytest.raises(DatasetError, match=r"a\.png: the file is empty"):
        datasets.load_images(datasets.normal_samples(tmp_path), Preprocessing(32))


def test_a_file_that_fails_while_it_is_read_is_named(tmp_path: Path):
    (tmp_path / "a.png").symlink_to("/proc/self/mem")
    with pytest.raises(DatasetError, match=r"a\.png: Input/output error"):
        datasets.load_images(datasets.normal_samples(tmp_path), Preprocessing(32))


def test_a_folder_with_the_name_of_an_image_is_a_folder(photos: Path):
    (photos / "more").rename(photos / "more.png")
    assert names(photos) == ["000.png", "001.png", "more.png/000.png"]


@pytest.fixture
def ordinary_user() -> Iterator[Path]:
    """A folder of somebody who is not root, for whom nothing would be closed."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        yield Path(folder)
        os.seteuid(user)


def test_a_folder_that_may_not_be_read_is_named_and_not_passed_over(ordinary_user: Path):
    closed = ordinary_user / "photos" / "closed"
    closed.mkdir(parents=True)
    (ordinary_user / "photos" / "a.png").touch()
    closed.chmod(0)
    with pytest.raises(PermissionError) as refused:
        datasets.list_images(ordinary_user / "photos")
    assert refused.value.filename == str(closed)
    closed.rename(closed.with_name("lost+found"))
    assert [path.name for path in datasets.list_images(ordinary_user / "photos")[0]] == ["a.png"]


def test_names_that_are_not_utf_8_or_hold_line_breaks_can_be_printed(tmp_path: Path):
    folder = Path(os.fsdecode(bytes(tmp_path) + b"/sp\xf6t\n"))
    folder.mkdir()
    (folder / "a.png").touch()
    (folder / "b.txt").touch()
    listing = datasets.anomalous_samples(tmp_path)
    assert listing[0].defect == r"sp\xf6t\n"
    assert remark(Kind.SEEN, folder / "b.txt").of(Kind.SEEN) == (rf"{tmp_path}/sp\xf6t\n/b.txt",)
    "".join([*listing.remarks.lines(), str(listing[0].defect)]).encode()


def test_many_files_are_listed_in_the_order_of_their_paths(tmp_path: Path):
    for number in reversed(range(3000)):
        (tmp_path / f"{number:04}.png").touch()
    assert [path.name for path in files_below(tmp_path).files] == [f"{number:04}.png" for number in range(3000)]
