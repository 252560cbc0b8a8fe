"""The model card says from what a version was made, how it decides and what is not known of it."""

from datetime import UTC, datetime
from hashlib import sha256
from html import unescape
from typing import Any

import pytest

from model.lifecycle.model_card import digest_of, limits, model_card
from model.store.card import Card, LabelRecord, SeenImages
from model.store.store import Store
from tests.conftest import Factory


@pytest.fixture
def store(factory: Factory) -> Store:
    return Store(factory.weights)


def changed(card: Card, **calibration: Any) -> Card:
    return card.model_copy(update={"calibration": card.calibration.model_copy(update=calibration)})


def test_the_page_has_what_the_card_and_the_list_of_images_say(store: Store):
    card, seen = store.card("striped"), store.seen("striped")
    page = unescape(model_card(card, seen))
    for text in (
        card.model_version,
        card.fingerprint(),
        card.student_sha256,
        card.teacher.sha256,
        digest_of(seen.training),
        digest_of(seen.calibration),
        f"{card.calibration.threshold:.6g}",
        card.promise,
        "where the Youden index of normal and anomalous images is largest",
        f"<td>{card.training.learning_rate:g}, {card.training.schedule}</td>",
        f"{card.picture_check.least_brightness}",
        "Only 12 faulty parts were there at calibration",
    ):
        assert text in page, text
    assert "<script" not in page


def test_a_list_of_images_has_one_hash_whatever_its_order():
    images = [sha256(bytes([number])).hexdigest() for number in range(5)]
    assert digest_of(images) == digest_of(reversed(images)) != digest_of(images[1:])
    assert digest_of(images) == sha256("".join(one + "\n" for one in sorted(images)).encode()).hexdigest()


def test_what_is_not_known_is_said(store: Store):
    fresh = store.card("fresh")
    assert any("No faulty part was there" in one for one in limits(fresh))
    page = model_card(fresh, None)
    assert "The list of images of this version could not be read." in page
    assert page.count("<td>not recorded</td>") == 3
    assert "The threshold comes from the images held out of training." in model_card(fresh, store.seen("fresh"))
    assert "not recorded" in model_card(fresh, SeenImages())
    day = datetime(2026, 5, 1, tzinfo=UTC)
    labels = LabelRecord(first=day, last=day, normal=30, anomalous=9, sampled_normal=20, sampled_anomalous=1)
    assert "<td>20 good, 1 faulty</td>" in model_card(changed(fresh, labels=labels), None)
    many = changed(store.card("striped"), normal_images=100, anomalous_images=100)
    assert len(limits(many)) == 1
    unchecked = many.model_copy(update={"picture_check": None})
    assert any("Dark, empty or blurred pictures are not refused" in one for one in limits(unchecked))
