"""The name of a version says by which rule it decides."""

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from model.store.card import RECORDS, Card
from model.store.version import read_card
from tests.conftest import Factory

OLD = Path(__file__).parent / "old"
"""Has the card of a category that was trained by older software."""


@pytest.fixture
def card(factory: Factory) -> Card:
    return read_card(factory.weights / "striped")


def changed(card: Card, change: Callable[[dict[str, Any]], Any]) -> Card:
    fields = card.model_dump()
    change(fields)
    return Card.model_validate(fields)


DECIDING: dict[str, Callable[[dict[str, Any]], Any]] = {
    "architecture": lambda card: card["architecture"].update(weigh_distillation_layers=False),
    "image_size": lambda card: card.update(image_size=128),
    "score": lambda card: card.update(score="global"),
    "squared_weight": lambda card: card.update(squared_weight=2.0),
    "direction_weight": lambda card: card.update(direction_weight=0.5),
    "teacher": lambda card: card["teacher"].update(sha256="0" * 64),
    "student_sha256": lambda card: card.update(student_sha256="0" * 64),
    "threshold": lambda card: card["calibration"].update(threshold=card["calibration"]["threshold"] * 1.0001),
    "review": lambda card: card["calibration"].update(review={"low": 1e-9, "high": 1e9}),
    "picture_check": lambda card: card["picture_check"].update(least_contrast=0.5),
    "map_scale": lambda card: card.update(map_scale=1.5),
    "other_map_scales": lambda card: card.update(other_map_scales={"distance": 0.5}),
}


@pytest.mark.parametrize("change", DECIDING.values(), ids=DECIDING)
def test_whatever_decides_is_in_the_name_of_the_version(card: Card, change: Callable[[dict[str, Any]], Any]):
    assert changed(card, change).fingerprint() != card.fingerprint()
    assert changed(card, change).named().model_version != card.model_version


def test_what_is_only_recorded_is_not(card: Card):
    day_later = card.calibration.date + timedelta(days=1)
    for change in (
        lambda fields: fields.update(category="other", model_version="old"),
        lambda fields: fields["teacher"].update(name="other"),
        lambda fields: fields["training"].update(seconds=1.0, device="cuda"),
        lambda fields: fields["calibration"].update(date=day_later, auroc=0.9),
    ):
        assert changed(card, change).fingerprint() == card.fingerprint()


def test_every_field_of_a_card_is_a_record_or_decides(card: Card):
    """So that a field that is added decides, until somebody says that it does not."""

    def names(model: type[BaseModel]) -> set[str]:
        return set(model.model_fields)

    records = {name for name, what in RECORDS.items() if what is True}
    assert records < names(Card)
    assert names(Card) - set(RECORDS) == {
        "architecture",
        "image_size",
        "preprocessing",
        "score",
        "squared_weight",
        "direction_weight",
        "student_sha256",
        "zone_thresholds",
        "zone_weights",
        "picture_check",
        "map_scale",
        "other_map_scales",
    }
    assert names(type(card.calibration)) - RECORDS["calibration"] == {"method", "threshold", "review"}
    assert names(type(card.teacher)) - RECORDS["teacher"] == {"sha256"}


def test_a_version_is_named_after_its_day_and_its_rule(card: Card):
    assert re.fullmatch(r"\d{8}-[0-9a-f]{12}", card.model_version)
    assert card.model_version == f"{card.calibration.date:%Y%m%d}-{card.fingerprint()[:12]}"


def test_an_old_card_keeps_its_version_until_it_is_calibrated_anew():
    old = read_card(OLD, "machined-plate")
    assert old.model_version == "20261124-378bd8e0"
    assert old.named().model_version != old.model_version
    assert old.calibration.auroc_interval is None  # it was not kept then, and is known all the same
    assert old.calibration.separates is True
