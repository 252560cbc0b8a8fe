"""Which labelled inspections count, with which score, and what is written of it."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from shutil import copytree
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from model.calibration import CalibrationError
from model.choices import FalseAlarmTarget
from model.lifecycle.thresholds import Rule
from model.region import Region, Zone
from model.store.card import SCHEMA_VERSION, Card
from model.store.store import ChangedMeanwhileError, Store
from service.calibrating import Asked, prepare
from service.history.database import Database
from service.history.records import Row
from service.keeping import chosen
from tests.conftest import Factory
from tests.service.history.conftest import row

YOUDEN = Asked(Rule())
NUMBERS = count(1 << 70)


@pytest.fixture
def store(factory: Factory, tmp_path: Path) -> Store:
    """A copy of ``fresh``, with nothing else in the folder."""
    copytree(factory.weights / "fresh", tmp_path / "weights" / "fresh")
    return Store(tmp_path / "weights", factory.weights / "teachers")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path / 'h.sqlite'}")
    made.prepare()
    yield made
    made.close()


def labelled(store: Store, label: str, score: float, **given: Any) -> Row:
    """An inspection of ``fresh`` with a label, whose image every rule keeps."""
    details = {"reasons": [], "zones": None, **given.pop("details", {})}
    columns = {"category": "fresh", "model_version": store.card("fresh").model_version, "details": details}
    return row(**columns, label=label, score=score, **({"kept_share": 1.0, "sample_share": 1.0} | given))


def enough(store: Store) -> list[Row]:
    good = [labelled(store, "normal", score) for score in np.linspace(1, 2, 30)]
    return good + [labelled(store, "anomalous", score) for score in np.linspace(3, 4, 10)]


def at_share(store: Store, share: float, inside: bool, label: str, score: float, **given: Any) -> Row:
    """With an id that is, or is not, in a sample of this share."""
    while True:
        made = labelled(store, label, score, **given)
        made["id"] = UUID(int=made["id"].int + next(NUMBERS) % (1 << 60))
        if chosen(made["id"], share) is inside:
            return made


def test_only_labels_whose_score_the_threshold_decides_count(store: Store, database: Database):
    seen = store.seen("fresh").training[0]
    database.add(
        [
            *enough(store),
            labelled(store, "normal", 90.0, details={"reasons": ["score", "not-aligned"]}),
            labelled(store, "normal", 90.0, details={"reasons": ["too-dark"]}),
            labelled(store, "normal", 90.0, sha256=seen),
            labelled(store, "normal", 90.0, kept_share=0.0, sample_share=0.0),
            labelled(store, "anomalous", 0.1, kept_share=1.0, sample_share=0.0),  # by the rule `anomalous`
            at_share(store, 0.5, False, "normal", 90.0, kept_share=0.5, sample_share=0.5),
            labelled(store, "unsure", 90.0),
            labelled(store, "normal", 90.0) | {"score": None, "outcome": "not-decodable"},
            labelled(store, "normal", 90.0) | {"model_version": "another"},
            labelled(store, "normal", 90.0) | {"category": "striped"},
            labelled(store, "anomalous", 90.0, sha256="a" * 64),
            labelled(store, "normal", 1.5, sha256="a" * 64),  # the same image, later
        ]
    )
    found = prepare(store, database, "fresh", YOUDEN)
    assert found.card.calibration.usual == store.card("fresh").calibration.usual  # with the number of its own images
    assert found.left_out == {
        "other-scores": 1,
        "rejected-for-another-reason": 2,
        "seen-in-training": 1,
        "not-random": 3,
        "same-image": 1,
    }
    assert found.labels is not None
    assert (found.labels.normal, found.labels.anomalous) == (31, 10)
    assert 2 < found.card.calibration.threshold < 3
    assert len(found.seen.calibration) == 41
    assert any("whose image was not kept" in remark for remark in found.remarks)


def test_labels_of_a_biased_choice_are_weighted_and_bounded_by_the_sample(store: Store, database: Database):
    rejected = {"kept_share": 1.0, "sample_share": 0.1}
    accepted = {"kept_share": 0.1, "sample_share": 0.1}
    rows = [at_share(store, 0.1, True, "normal", 1 + 0.01 * number, **accepted) for number in range(30)]
    rows += [at_share(store, 0.1, number < 2, "normal", 6.0, **rejected) for number in range(20)]
    rows += [at_share(store, 0.1, False, "anomalous", 7.0, **rejected) for _ in range(5)]
    database.add(rows)
    found = prepare(store, database, "fresh", YOUDEN)
    assert found.labels is not None
    assert (found.labels.normal, found.labels.sampled_normal, found.labels.sampled_anomalous) == (50, 32, 0)
    calibration = found.card.calibration
    assert calibration.false_alarms is not None
    assert (calibration.false_alarms.parts, calibration.misses) == (32, None)
    assert any("32 of 50 good and 0 of 5 faulty parts are in the random sample" in one for one in found.remarks)
    assert "No labelled faulty part is in the random sample, so how many are accepted cannot be told." in found.remarks
    target = Asked(Rule(target=FalseAlarmTarget(0.02)))
    with pytest.raises(CalibrationError, match=r"49 good parts.*50 labelled good parts count, of which 32 are in the"):
        prepare(store, database, "fresh", target)


def test_the_scores_of_zones_are_weighed_as_the_serving_card_does(store: Store, database: Database):
    card = _with_zones(store)
    version = card.model_version
    zones = {"own": 50.0, "rough": 2.0, "smooth": 1.0}  # 2 and 3 after the weights

    def seen(label: str, **scores: float) -> Row:
        listed = [{"name": name, "score": score} for name, score in (zones | scores).items()]
        return labelled(store, label, 999.0, details={"zones": listed}) | {"model_version": version}

    database.add([seen("normal") for _ in range(20)])
    database.add([seen("anomalous", smooth=5.0), seen("anomalous", smooth=5.0, own=200.0)])
    found = prepare(store, database, "fresh", YOUDEN)
    assert found.left_out == {"rejected-by-another-zone": 1}
    assert found.card.calibration.threshold == pytest.approx((3 + 15) / 2)


def test_where_every_zone_has_its_own_threshold_there_is_none_to_set(store: Store, database: Database):
    _with_zones(store, zone_thresholds={"own": 1.0, "rough": 1.0, "smooth": 1.0}, zone_weights={})
    with pytest.raises(CalibrationError, match="every zone has a threshold of its own"):
        prepare(store, database, "fresh", YOUDEN)


def _with_zones(store: Store, **changes: Any) -> Card:
    """Three zones: one with a threshold of its own, and two with weights."""
    before = store.card("fresh")
    square = ((0.0, 0.0), (9.0, 0.0), (9.0, 9.0), (0.0, 9.0))
    region = Region(10, 10, tuple(Zone(name, (square,), (0, 0, 9, 9)) for name in ("own", "rough", "smooth")))
    given = {"zone_thresholds": {"own": 100.0}, "zone_weights": {"rough": 1.0, "smooth": 3.0}} | changes
    preprocessing = before.preprocessing.model_copy(update={"region": region})
    card = Card(**dict(before) | given | {"preprocessing": preprocessing, "schema_version": SCHEMA_VERSION}).named()
    place = store.in_place("fresh")
    store.write(card, store.encoded_student("fresh", before), store.seen("fresh"), replace=place)
    return card


def test_a_threshold_by_hand_needs_no_labels_and_forgets_the_rates(store: Store, database: Database):
    database.add([labelled(store, "anomalous", 4.0)])
    found = prepare(store, database, "fresh", Asked(Rule(threshold=5.0)))
    assert found.labels is None
    assert found.card.calibration.threshold == 5.0
    assert found.card.calibration.false_alarms is None
    assert found.remarks == ["No labelled inspection was counted."]
    assert found.seen == store.seen("fresh")


def test_a_change_meanwhile_stays_and_a_version_that_cannot_serve_is_taken_back(store: Store, database: Database):
    before = store.card("fresh").model_version
    database.add(enough(store))
    first, second = (prepare(store, database, "fresh", Asked(Rule(threshold=one))) for one in (2.5, 2.6))
    first.write(store)
    with pytest.raises(ChangedMeanwhileError):
        second.write(store)
    assert store.card("fresh") == first.card
    second.take_back(store)  # it was never there
    assert store.card("fresh") == first.card
    first.take_back(store)
    assert store.card("fresh").model_version == before
    assert [one.version for one in store.kept("fresh")] == [first.card.model_version]
