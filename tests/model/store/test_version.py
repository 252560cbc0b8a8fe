"""A pair on disk: what is written is read, and a file that was tampered with is refused with its reason."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.store.version import StoreError, read_card, read_student
from tests.conftest import Factory


@pytest.fixture
def folder(factory: Factory, tmp_path: Path) -> Path:
    """A copy of a good pair, free to be damaged."""
    return Path(shutil.copytree(factory.weights / "striped", tmp_path / "striped"))


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    card = json.loads((folder / "card.json").read_text())
    change(card)
    (folder / "card.json").write_text(json.dumps(card))


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
