"""What is said of the drift of a category, and what Prometheus sees of it."""

import numpy as np
import pytest
from prometheus_client import generate_latest

from model.quality import Look
from model.store.card import Card, Usual
from model.store.version import read_card
from service.drift import LEAST_IMAGES, WINDOW, Recent, assess
from service.observe.telemetry import Telemetry
from tests.conftest import Factory


@pytest.fixture
def card(factory: Factory) -> Card:
    """Calibrated with 60 images."""
    known = Usual(
        images=60,
        **{
            name: tuple(np.linspace(low, high, 21))
            for name, low, high in (
                ("score", 1, 2), ("brightness", 120, 140), ("contrast", 20, 30), ("sharpness", 0.5, 0.7),
                ("aspect_ratio", 4 / 3, 4 / 3),
            )
        }
    )  # fmt: skip
    found = read_card(factory.weights / "striped")
    calibration = found.calibration.model_copy(update={"usual": known})
    return found.model_copy(update={"calibration": calibration})


def pictures(count: int, *, brightness: float = 120) -> dict[str, np.ndarray]:
    """As at calibration, but for the brightness, which begins here."""
    even = np.linspace(0, 1, count)
    return {
        "score": 1 + even,
        "brightness": brightness + 20 * even,
        "contrast": 20 + 10 * even,
        "sharpness": 0.5 + 0.2 * even,
        "aspect_ratio": np.full(count, 4 / 3),
    }


def test_the_card_of_a_calibration_says_what_is_usual(factory: Factory):
    card = read_card(factory.weights / "striped")
    usual, histogram = card.calibration.usual, card.calibration.histogram
    assert usual.score is not None
    assert usual.brightness is not None
    assert usual.score[0] == pytest.approx(histogram.edges[0], rel=1e-6)  # faulty ones score higher
    assert card.picture_check is not None
    assert card.picture_check.least_brightness < usual.brightness[0] <= usual.brightness[-1]
    assert usual.images == card.calibration.normal_images
    for images in (0, 12):
        with pytest.raises(ValueError, match="brightness must rise"):
            Usual(images=images, brightness=(*usual.brightness[:-1], -1.0))


def test_pictures_as_at_calibration_have_not_drifted(card: Card):
    for one in assess(card, pictures(WINDOW)):
        assert one.distance is not None
        assert one.distance < 0.01
        assert not one.drifted
        assert one.text.startswith("as at calibration: ")
        assert (one.images, one.reference_images) == (WINDOW, 60)


def test_what_has_changed_is_named_with_its_direction(card: Card):
    score, brightness, contrast, sharpness, shape = assess(card, pictures(WINDOW, brightness=82))
    assert brightness.text == "brightness fell from 130 to 92"
    assert (brightness.drifted, brightness.distance) == (True, 1.0)
    assert not any(one.drifted for one in (score, contrast, sharpness, shape))
    (_, up, *_) = assess(card, pictures(WINDOW, brightness=150))
    assert up.text == "brightness rose from 130 to 160"
    (_, wide, *_) = assess(card, {**pictures(WINDOW), "brightness": np.linspace(60, 200, WINDOW)})
    assert wide.text == "brightness has another spread than at calibration, around 130"


def test_where_little_is_known_nothing_is_claimed(card: Card):
    few = assess(card, pictures(LEAST_IMAGES - 1, brightness=10))[1]
    assert (few.distance, few.drifted, few.median) == (None, False, pytest.approx(20))
    assert few.text == "19 images are too few; 20 are needed"
    none = assess(card, dict.fromkeys(pictures(1), np.empty(0)))[1]
    assert (none.images, none.median) == (0, None)
    of_two = card.calibration.usual.model_copy(update={"images": 2})
    two = card.model_copy(update={"calibration": card.calibration.model_copy(update={"usual": of_two})})
    (_, brightness, *_) = assess(two, pictures(WINDOW, brightness=10))
    assert (brightness.distance, brightness.drifted) == (1, False)
    assert brightness.text == "the 2 images of the calibration are too few to see a drift; calibrate with more"
    without_look = assess(card, {**pictures(WINDOW), "sharpness": np.full(WINDOW, np.nan)})[3]
    assert without_look.images == 0
    old = card.model_copy(update={"calibration": card.calibration.model_copy(update={"usual": Usual()})})
    found = assess(old, pictures(WINDOW))
    assert [one.distance for one in found] == 5 * [None]
    assert "nothing to compare with" in found[0].text


def test_the_metrics_have_the_last_inspections_of_the_version_that_serves(card: Card):
    telemetry = Telemetry()
    cards = [card]
    telemetry.watch_drift(lambda: cards)

    def metric(name: str, measure: str) -> float | None:
        labels = {"category": card.category, "measure": measure}
        return telemetry.registry.get_sample_value(name, labels)

    def add(recent: Recent, of: Card, count: int, brightness: float) -> None:
        values = pictures(count, brightness=brightness)
        for score, *look in zip(*values.values(), strict=True):
            recent.add(of, score, Look(*look))

    add(telemetry.recent, card, LEAST_IMAGES - 1, 120)
    assert metric("inspect_drift_ratio", "brightness") is None
    add(telemetry.recent, card, WINDOW, 120)
    assert metric("inspect_drift_ratio", "brightness") < 0.1
    add(telemetry.recent, card, WINDOW, 82)  # overwrites all before
    assert metric("inspect_drift_ratio", "brightness") > 3
    assert metric("inspect_drift_median_ratio", "brightness") == pytest.approx(92 / 130)
    assert metric("inspect_drift_ratio", "score") < 0.1
    other = card.model_copy(update={"model_version": "other"})
    cards[0] = other
    assert metric("inspect_drift_ratio", "brightness") is None
    add(telemetry.recent, other, WINDOW, 120)
    assert metric("inspect_drift_ratio", "brightness") < 0.1
    assert b"inspect_drift_ratio" in generate_latest(telemetry.registry)


def test_a_picture_without_look_has_a_score(card: Card):
    recent = Recent()
    for score in np.linspace(1, 2, LEAST_IMAGES):
        recent.add(card, score, None)
    assert [(name, one.measure) for name, one in recent.drifts([card])] == [(card.category, "score")]
