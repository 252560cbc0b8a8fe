"""A pair on disk: what is written is read, and a file that was tampered with is refused with its reason."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.store.pair import (
    CategoryExistsError,
    NoPreviousVersionError,
    StoreError,
    check_category_name,
    read_card,
    read_seen,
    read_student,
    roll_back,
    write_pair,
)
from tests.conftest import Factory


@pytest.fixture
def folder(factory: Factory, tmp_path: Path) -> Path:
    """A copy of a good pair, free to be damaged."""
    return Path(shutil.copytree(factory.weights / "striped", tmp_path / "striped"))


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    card = json.loads((folder / "card.json").read_text())
    change(card)
    (folder / "card.json").write_text(json.dumps(card))


def test_a_written_pair_is_read_back(folder: Path, tmp_path: Path):
    card, seen = read_card(folder), read_seen(folder)
    place = write_pair(tmp_path / "elsewhere", card, (folder / "student.safetensors").read_bytes(), seen)
    assert read_card(place) == card
    assert read_seen(place) == seen
    student, again = read_student(folder, card), read_student(place, card)
    for name, value in student.state_dict().items():
        assert value.equal(again.state_dict()[name])
    assert sorted(path.name for path in place.parent.iterdir()) == ["striped"]  # no temporary folder is left


def test_an_existing_pair_is_replaced_only_when_told(folder: Path, tmp_path: Path):
    card, seen, student = read_card(folder), read_seen(folder), (folder / "student.safetensors").read_bytes()
    with pytest.raises(CategoryExistsError):
        write_pair(tmp_path, card, student, seen)
    newer = card.model_copy(update={"model_version": "newer"})
    write_pair(tmp_path, newer, student, seen, replace=True)
    assert read_card(folder).model_version == "newer"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".previous", "striped"]


def test_the_version_that_was_replaced_last_comes_back(folder: Path, tmp_path: Path):
    card, seen, student = read_card(folder), read_seen(folder), (folder / "student.safetensors").read_bytes()
    with pytest.raises(NoPreviousVersionError):
        roll_back(tmp_path, "striped")
    for version in ("second", "third"):
        write_pair(tmp_path, card.model_copy(update={"model_version": version}), student, seen, replace=True)
    for version in ("second", "third", "second"):
        roll_back(tmp_path, "striped")
        assert read_card(folder).model_version == version
        assert len(list((tmp_path / ".previous").iterdir())) == 1
    shutil.rmtree(folder)
    roll_back(tmp_path, "striped")
    assert read_card(folder).model_version == "third"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".previous", "striped"]


def test_ctrl_c_while_a_pair_is_replaced_loses_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    card, seen, student = read_card(folder), read_seen(folder), (folder / "student.safetensors").read_bytes()
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise KeyboardInterrupt
        return rename(self, target)

    newer = card.model_copy(update={"model_version": "newer"})
    write_pair(tmp_path, newer, student, seen, replace=True)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_pair(tmp_path, card.model_copy(update={"model_version": "newest"}), student, seen, replace=True)
    assert read_card(folder) == newer
    roll_back(tmp_path, "striped")
    assert read_card(folder) == card


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda card: card.update(schema_version=3), "schema version 3"),
        (lambda card: card.update(schema_version=1), "schema version 1 has the global score"),
        (lambda card: card.update(score="median"), "score: Input should be 'global' or 'local'"),
        (lambda card: card.update(other_map_scales={"gradient": 0}), "other_map_scales.gradient: Input should be"),
        (lambda card: card.update(other_map_scales={"picture": 1}), "other_map_scales"),
        (lambda card: card.pop("teacher"), "teacher: Field required"),
        (lambda card: card.update(surprise=1), "surprise: Extra inputs"),
        (lambda card: card.update(map_scale=0), "map_scale: Input should be greater than 0"),
        (lambda card: card["calibration"].update(threshold=float("nan")), "threshold: Input should be a finite number"),
        (lambda card: card["preprocessing"].update(colour="bgr"), "preprocessing.colour"),
        (lambda card: card.update(category="other"), "is the card of 'other'"),
        (lambda card: card["teacher"].update(sha256="x"), "teacher.sha256"),
    ],
)
def test_an_impossible_card_is_refused(folder: Path, change: Callable[[dict[str, Any]], None], reason: str):
    edit(folder, change)
    with pytest.raises(StoreError, match=reason):
        read_card(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_damaged_card_is_refused(folder: Path, content: bytes):
    (folder / "card.json").write_bytes(content)
    with pytest.raises(StoreError, match="card"):
        read_card(folder)


def test_a_student_that_is_not_the_cards_is_refused(folder: Path, factory: Factory):
    card = read_card(folder)
    data = (folder / "student.safetensors").read_bytes()
    for wrong in (data[:-1], data[:-1] + bytes([data[-1] ^ 1]), b""):
        (folder / "student.safetensors").write_bytes(wrong)
        with pytest.raises(StoreError, match="not the file its card was written for"):
            read_student(folder, card)
    (folder / "student.safetensors").unlink()
    with pytest.raises(StoreError, match="No such file"):
        read_student(folder, card)


def test_a_student_that_does_not_fit_its_card_is_refused(folder: Path):
    edit(folder, lambda card: card["architecture"].update(weigh_distillation_layers=False))
    with pytest.raises(StoreError, match="does not fit its card"):
        read_student(folder, read_card(folder))


@pytest.mark.parametrize("name", ["bottle", "metal_nut", "Line-3", "0", "x" * 64])
def test_good_category_names(name: str):
    check_category_name(name)


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a b", "-x", "_x", "ä", "teachers", "x" * 65, "a\n"])
def test_bad_category_names_are_refused(name: str):
    with pytest.raises(StoreError, match="cannot name a category"):
        check_category_name(name)
