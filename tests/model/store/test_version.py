"""A pair on disk: what is written is read, and a file that was tampered with is refused with its reason."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.store import version as version_module
from model.store.version import StoreError, read_card, read_seen, read_student
from tests.conftest import Factory


@pytest.fixture
def folder(factory: Factory, tmp_path: Path) -> Path:
    """A copy of a good pair, free to be damaged."""
    return Path(shutil.copytree(factory.weights / "striped", tmp_path / "striped"))


def without_interval(card: dict[str, Any]) -> None:
    """Makes a card one of version 2, but for its score."""
    for name in ("auroc_interval", "false_alarms", "misses"):
        card["calibration"].pop(name)
    card.update(schema_version=2)


WITHOUT_ZONES = {"width": 100, "height": 100, "zones": []}


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    card = json.loads((folder / "card.json").read_text())
    change(card)
    (folder / "card.json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda card: card.update(schema_version=6), "schema version 6"),
        (
            lambda card: card.update(schema_version=4, preprocessing={"resize": "crop"}),
            "schema version 4 does not know preprocessing.resize",
        ),
        (lambda card: card.update(zone_thresholds={"lid": 1.0}), "there is no zone 'lid' to have a threshold"),
        (lambda card: card["preprocessing"].update(tiles={"columns": 40, "rows": 40}), "preprocessing.tiles"),
        (lambda card: card["preprocessing"].update(tiles={"columns": 2, "rows": 2, "gap": 1}), "preprocessing.tiles"),
        (lambda card: card["preprocessing"].update(region=WITHOUT_ZONES), "preprocessing.region"),
        (lambda card: card.update(schema_version=1), "schema version 1 has the global score"),
        (without_interval, "schema version 2 has no weighted score"),
        (lambda card: card.update(score="median"), "score: Input should be 'global', 'local' or 'weighted'"),
        (lambda card: card.update(other_map_scales={"gradient": 0}), "other_map_scales.gradient: Input should be"),
        (lambda card: card.update(other_map_scales={"picture": 1}), "other_map_scales"),
        (lambda card: card.update(schema_version=2), "schema version 2 knows no auroc_interval"),
        (lambda card: card.update(schema_version=3), "schema version 3 knows no error rates"),
        (lambda card: card["calibration"]["false_alarms"].update(errors=1000), "cannot be more errors than parts"),
        (lambda card: card["calibration"]["misses"].update(basis="hearsay"), "calibration.misses.basis"),
        (lambda card: card["calibration"].update(max_false_alarms=0.01), "belong to the method"),
        (
            lambda card: card["calibration"].update(method="false-alarm-target"),
            "belong to the method",
        ),
        (
            lambda card: card["calibration"].update(method="manual", roc=None),
            "with the method manual there",
        ),
        (lambda card: card.pop("teacher"), "teacher: Field required"),
        (lambda card: card.update(surprise=1), "surprise: Extra inputs"),
        (lambda card: card.update(map_scale=0), "map_scale: Input should be greater than 0"),
        (lambda card: card["calibration"].update(threshold=float("nan")), "threshold: Input should be a finite number"),
        (lambda card: card["preprocessing"].update(colour="bgr"), "preprocessing.colour"),
        (lambda card: card.update(category="other"), "is the card of 'other'"),
        (lambda card: card["teacher"].update(sha256="x"), "teacher.sha256"),
        (lambda card: card["calibration"].update(threshold=True), "threshold: Input should be a valid number"),
        (lambda card: card["calibration"].update(threshold="0.5"), "threshold: Input should be a valid number"),
        (lambda card: card["training"].update(images="16"), "images: Input should be a valid integer"),
        (lambda card: card["training"].update(epochs=2.0), "epochs: Input should be a valid integer"),
        (lambda card: card["training"].update(epochs=10**400), "epochs"),
        (lambda card: card.update(image_size=True), "image_size: Input should be a valid integer"),
        (lambda card: card.update(schema_version=True), "schema_version: Input should be a valid integer"),
        (lambda card: card.update(model_version="1\r\nSet-Cookie: a=b"), "model_version: String should match"),
        (lambda card: card.update(model_version="version-\u4e00"), "model_version: String should match"),
        (lambda card: card.update(model_version="newer\n"), "model_version: String should match"),
        (lambda card: card.update(model_version=""), "model_version: String should match"),
        (lambda card: card.update(model_version="x" * 65), "model_version: String should match"),
        (lambda card: card.update(category="striped\u202e"), "category: String should match"),
        (lambda card: card["teacher"].update(name="../elsewhere"), "teacher.name: String should match"),
        (lambda card: card["training"].update(device="cpu\x1b[2J"), "training.device: String should match"),
        (lambda card: card["training"].update(torch="2" * 101), "training.torch: String should match"),
        (lambda card: card["architecture"].update(plan=[16, "M"] * 40), "architecture.plan"),
        (lambda card: card["architecture"]["plan"].__setitem__(0, 0), "architecture.plan"),
        (lambda card: card["calibration"]["roc"]["threshold"].pop(), "roc: every point needs"),
        (lambda card: card["calibration"]["histogram"]["edges"].pop(), "histogram: every bin needs"),
        (lambda card: card["calibration"]["histogram"]["anomalous"].pop(), "histogram: every bin needs"),
        (lambda card: card["calibration"]["histogram"]["edges"].reverse(), "the edges must rise"),
        (lambda card: card["calibration"]["histogram"]["normal"].__setitem__(0, -1), "histogram.normal"),
        (lambda card: card["calibration"].update(roc=None), "with the method youden there are"),
        (lambda card: card["calibration"].update(method="synthetic"), "with the method synthetic there is no Youden"),
    ],
)
def test_an_impossible_card_is_refused(folder: Path, change: Callable[[dict[str, Any]], None], reason: str):
    edit(folder, change)
    with pytest.raises(StoreError, match=reason):
        read_card(folder)


@pytest.mark.parametrize(("name", "read"), [("card.json", read_card), ("images.json", read_seen)])
def test_a_name_that_stands_there_twice_is_refused(folder: Path, name: str, read: Callable[[Path], object]):
    """Programs do not agree on which of the two counts."""
    text = (folder / name).read_text()
    first = json.loads(text).popitem()[0]
    (folder / name).write_text(text.replace("{", f'{{"{first}": 1, ', 1))
    with pytest.raises(StoreError, match=f"'{first}' stands there twice"):
        read(folder)


def test_a_file_without_end_is_not_read_into_memory(folder: Path, monkeypatch: pytest.MonkeyPatch):
    card = read_card(folder)
    for name, limit, read in (
        ("card.json", "MAX_CARD_BYTES", read_card),
        ("images.json", "MAX_SEEN_BYTES", read_seen),
        ("student.safetensors", "MAX_STUDENT_BYTES", lambda folder: read_student(folder, card)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(version_module, limit, (folder / name).stat().st_size - 1)
            with pytest.raises(StoreError, match=f"{name} has more than"):
                read(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
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
