"""The folder of categories: what is written is read, what was replaced comes back, and nothing is lost on the way."""

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from model.store import store as store_module
from model.store.card import Card
from model.store.files import exchange
from model.store.history import KEPT_VERSIONS, NoPreviousVersionError
from model.store.store import CategoryExistsError, Store, check_category_name
from model.store.version import StoreError, read_card, read_student
from tests.conftest import Factory


@pytest.fixture
def store(factory: Factory, tmp_path: Path) -> Store:
    """One category, free to be changed."""
    shutil.copytree(factory.weights / "striped", tmp_path / "weights" / "striped")
    return Store(tmp_path / "weights", factory.teachers)


def write(store: Store, version: str) -> Card:
    card = store.card("striped").model_copy(update={"model_version": version})
    store.write(
        card,
        store.encoded_student("striped", store.card("striped")),
        store.seen("striped"),
        replace=store.in_place("striped"),
    )
    return card


def kept(store: Store) -> list[str]:
    return [one.version for one in store.kept("striped")]


def leftovers(store: Store) -> list[str]:
    return sorted(path.name for path in store.weights.iterdir() if path.name not in ("striped", ".versions"))


def test_a_written_version_is_read_back(store: Store, tmp_path: Path):
    card, seen = store.card("striped"), store.seen("striped")
    other = Store(tmp_path / "elsewhere")
    place = other.write(card, store.encoded_student("striped", card), seen, {"losses.json": b"{}"})
    assert other.card("striped") == card
    assert other.seen("striped") == seen
    assert other.traces("striped") == {"losses.json": b"{}"}
    student, again = read_student(store.folder("striped"), card), read_student(place, card)
    for name, value in student.state_dict().items():
        assert value.equal(again.state_dict()[name])
    assert [path.name for path in other.weights.iterdir()] == ["striped"]  # no temporary folder is left


def test_an_existing_category_is_replaced_only_when_told(store: Store):
    card = store.card("striped")
    with pytest.raises(CategoryExistsError):
        store.write(card, b"", store.seen("striped"))
    assert write(store, "newer") == store.card("striped")
    assert kept(store) == [card.model_version]
    assert leftovers(store) == []


def test_going_back_takes_one_step_at_a_time_and_a_name_takes_any(store: Store):
    first = store.card("striped").model_version
    with pytest.raises(NoPreviousVersionError):
        store.roll_back("striped")
    for version in ("second", "third"):
        write(store, version)
    assert store.roll_back("striped").model_version == "second"
    assert store.roll_back("striped").model_version == first
    with pytest.raises(NoPreviousVersionError, match=f"before '{first}' of 'striped' is kept; kept are: second, third"):
        store.roll_back("striped")
    assert store.roll_back("striped", "third").model_version == "third"
    assert store.card("striped").model_version == "third"
    assert store.roll_back("striped").model_version == first  # what was in place before
    with pytest.raises(NoPreviousVersionError, match="no version 'fourth' of 'striped' is kept"):
        store.roll_back("striped", "fourth")
    assert store.roll_back("striped", first).model_version == first  # it is in place already
    assert sorted(kept(store)) == ["second", "third"]
    assert leftovers(store) == []


def test_a_version_that_was_rolled_back_is_no_step_after_a_new_one(store: Store):
    first = store.card("striped").model_version
    write(store, "bad")
    store.roll_back("striped")
    write(store, "also-bad")
    assert store.roll_back("striped").model_version == first
    assert sorted(kept(store)) == ["also-bad", "bad"]


def test_going_back_by_name_passes_over_what_lies_between(store: Store):
    first = store.card("striped").model_version
    for version in ("second", "third"):
        write(store, version)
    store.roll_back("striped", first)
    with pytest.raises(NoPreviousVersionError):
        store.roll_back("striped")
    assert sorted(kept(store)) == ["second", "third"]


def test_so_many_versions_are_kept_and_no_more(store: Store):
    for number in range(KEPT_VERSIONS + 3):
        write(store, f"v{number}")
    assert kept(store) == [f"v{number}" for number in reversed(range(2, KEPT_VERSIONS + 2))]
    assert len(list((store.weights / ".versions" / "striped").iterdir())) == KEPT_VERSIONS


def test_the_same_version_is_never_kept_twice(store: Store):
    first = store.card("striped").model_version
    for version in ("a", "b", "a", "a", "b"):
        write(store, version)
    assert kept(store) == ["a", first]
    assert store.roll_back("striped").model_version == "a"
    assert store.roll_back("striped").model_version == first


def test_a_version_that_cannot_be_read_is_kept_but_is_no_step(store: Store):
    """It may be of newer software."""
    first = store.card("striped").model_version
    write(store, "second")
    write(store, "third")
    card = store.weights / ".versions" / "striped" / "2" / "card.json"
    fields = json.loads(card.read_bytes())
    card.unlink()
    card.write_text(json.dumps(fields | {"schema_version": 99}))
    assert store.roll_back("striped").model_version == first
    assert card.parent.with_name("2-rolled-back").is_dir()


def test_the_one_version_that_older_software_kept_is_gone_back_to(store: Store):
    old = store.card("striped")
    store.folder("striped").rename(store.weights / "aside")
    older = store.weights / ".previous" / "striped"
    older.parent.mkdir()
    shutil.copytree(store.weights / "aside", older)
    (store.weights / "aside").rename(store.folder("striped"))
    present = old.model_copy(update={"model_version": "present"})
    (store.folder("striped") / "card.json").write_text(present.model_dump_json())
    assert kept(store) == [old.model_version]
    write(store, "newer")
    assert store.roll_back("striped") == present
    assert store.roll_back("striped") == old
    assert sorted(kept(store)) == ["newer", "present"]
    assert list((store.weights / ".previous").iterdir()) == []


def test_a_category_whose_folder_was_removed_comes_back(store: Store):
    first = store.card("striped").model_version
    write(store, "second")
    shutil.rmtree(store.folder("striped"))
    assert store.roll_back("striped").model_version == first


def test_what_people_put_beside_a_version_goes_with_it(store: Store):
    (store.folder("striped") / "notes").mkdir()
    (store.folder("striped") / "notes" / "lamp.txt").write_text("changed in May")
    write(store, "second")
    store.roll_back("striped")
    assert (store.folder("striped") / "notes" / "lamp.txt").read_text() == "changed in May"


def test_a_student_is_found_where_it_is_kept(store: Store, factory: Factory):
    card, detector = store.load("striped")
    other = factory.weights / "brushed"
    newer = read_card(other).model_copy(update={"category": "striped"})
    store.write(
        newer, (other / "student.safetensors").read_bytes(), store.seen("striped"), replace=store.in_place("striped")
    )
    again = store.build(card, detector.teacher)
    for name, value in detector.student.state_dict().items():
        assert value.equal(again.student.state_dict()[name])


@pytest.mark.parametrize("swap", [exchange, lambda *folders: False], ids=["exchanged", "renamed"])
def test_a_disk_that_fails_leaves_the_version_in_place(
    store: Store, swap: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    write(store, "second")

    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "write_version", fail)
        with pytest.raises(OSError, match="No space"):
            write(store, "third")
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "link_folder", fail)
        for change in (lambda: write(store, "third"), lambda: store.roll_back("striped")):
            with pytest.raises(OSError, match="No space"):
                change()
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "exchange", lambda *folders: False)
        patch.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(store, "third")
    assert store.card("striped").model_version == "second"
    assert len(kept(store)) == 1
    assert leftovers(store) == []


KILLED_EVERYWHERE = """
import os, shutil, signal, sys
from pathlib import Path
from model.store import store as module
from model.store.store import Store
from model.store.version import is_whole, read_card

SOURCE, ROOT, TEACHERS = map(Path, sys.argv[1:])
CHANGES = ("open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.chmod", "shutil.copyfile", "ctypes")
EXCHANGE = module.exchange

def write(store, version):
    card = store.card("striped").model_copy(update={"model_version": version})
    student = store.encoded_student("striped", card)
    store.write(card, student, store.seen("striped"), {"losses.json": b"{}"}, replace=store.in_place("striped"))

def names(store):
    "Of all versions that are whole."
    folders = [store.folder("striped"), *(one.folder for one in store.kept("striped"))]
    return sorted(read_card(one, "striped").model_version for one in folders if is_whole(one, "striped"))

def killed_at(step, change, store):
    "Whether a process was killed right before it changed the disk for that time; else it is through."
    if (pid := os.fork()) == 0:
        count = 0

        def watch(event, arguments):
            nonlocal count
            if event.startswith(CHANGES) and not (event == "open" and arguments[2] & 3 == os.O_RDONLY):
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        change(store)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])

def try_every_step(change, new, expected):
    step, killed = 0, True
    while killed:
        step += 1
        store = Store(Path(shutil.copytree(SOURCE, ROOT / "tried")), TEACHERS)
        killed = killed_at(step, change, store)
        store.recover()
        hidden = {path.name for path in store.weights.iterdir()} - {"striped", ".versions", ".previous"}
        assert hidden == set(), (step, hidden)
        found = names(store)
        assert found in (["a", "b", "c"], expected), (step, found)
        serving = store.card("striped")
        assert serving.model_version == new or (killed and serving.model_version == "c"), step
        write(store, "next")  # whatever is left works on
        assert names(store) == sorted([*found, "next"]), (step, names(store))
        assert store.roll_back("striped") == serving, step
        shutil.rmtree(store.weights)
    return step

for swap in (EXCHANGE, lambda *folders: False):
    module.exchange = swap
    print(try_every_step(lambda store: write(store, "new"), "new", ["a", "b", "c", "new"]))
    print(try_every_step(lambda store: store.roll_back("striped"), "b", ["a", "b", "c"]))
"""


def test_a_process_killed_at_any_step_leaves_the_old_version_or_the_new_one_and_loses_none(
    store: Store, tmp_path: Path
):
    """While it writes a version and while it goes back, where two folders can be swapped in one step and where not."""
    first = store.card("striped").model_copy(update={"model_version": "a"})
    (store.folder("striped") / "card.json").write_text(first.model_dump_json())
    for version in ("b", "c"):
        write(store, version)
    command = [sys.executable, "-c", KILLED_EVERYWHERE, store.weights, tmp_path, store.teachers]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    steps = [int(line) for line in done.stdout.split()]
    assert len(steps) == 4
    assert min(steps) > 20


def test_what_older_software_left_in_a_crash_is_put_back(store: Store, tmp_path: Path):
    """It moved the previous version aside, the present one to where previous ones are kept, and a new one in place."""
    present = store.card("striped").model_version
    scratch = store.weights / ".striped-abcd_123"
    scratch.mkdir()
    (store.weights / ".previous").mkdir()
    store.folder("striped").rename(store.weights / ".previous" / "striped")
    newer = shutil.copytree(store.weights / ".previous" / "striped", scratch / "new")
    card = read_card(newer, "striped").model_copy(update={"model_version": "newer"})
    (newer / "card.json").write_text(card.model_dump_json())
    store.recover()
    assert store.card("striped").model_version == "newer"
    assert kept(store) == [present]
    assert leftovers(store) == [".previous"]


def test_half_a_version_and_the_hidden_folders_of_others_are_told_apart(store: Store):
    half = store.weights / ".bottle-abcd1234" / "new"
    half.mkdir(parents=True)
    (half / "student.safetensors").write_bytes(b"half")
    other = store.weights / ".kept-20240101"
    other.mkdir()
    (other / "photo.png").touch()
    store.recover()
    assert leftovers(store) == [".kept-20240101"]


def test_only_folders_that_are_meant_to_be_categories_are_categories(store: Store):
    for name in ("bottle", "bad name", "lost+found", "System Volume Information", ".hidden", "teachers", "@eaDir"):
        (store.weights / name).mkdir()
    (store.weights / "bad name" / "card.json").touch()
    (store.weights / "README.md").touch()
    assert store.names() == ["bad name", "bottle", "striped"]


@pytest.mark.parametrize("name", ["bottle", "metal_nut", "Line-3", "0", "x" * 64])
def test_good_category_names(name: str):
    check_category_name(name)


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a b", "-x", "_x", "ä", "teachers", "x" * 65, "a\n"])
def test_bad_category_names_are_refused(name: str, tmp_path: Path):
    for call in (check_category_name, Store(tmp_path).card, Store(tmp_path).roll_back, Store(tmp_path).checkpoint):
        with pytest.raises(StoreError, match="cannot name a category"):
            call(name)
