"""What a person should look at next."""

import sqlite3
from collections.abc import Collection
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import create_engine, event, text

from service.history.database import Database
from service.history.records import Row
from service.history.review import NEAREST, NEWEST, Order, is_open, nearest_good, to_review
from service.keeping import chosen
from tests.service.history.conftest import row


def kept(**given: Any) -> Row:
    return row(**({"image_kept": True, "kept_share": 1.0} | given))


def ids(database: Database, order: Order, decision: str | None = None) -> list[UUID]:
    return [one["id"] for one in to_review(database, "tile", order, decision)]


def test_the_nearest_to_the_threshold_comes_first(database: Database):
    far, near = kept(score=1.0, threshold=2.0), kept(score=2.1, threshold=2.0, outcome="anomalous")
    other_version = kept(score=90.0, threshold=100.0)
    labelled, failed = kept(score=2.0), kept(outcome="not-decodable", score=None, threshold=None)
    database.add([far, near, other_version, labelled, failed, row(score=2.0), kept(score=2.0, category="plate")])
    database.label(labelled["id"], None, {"label": "normal"}, 0)
    assert ids(database, "nearest") == [near["id"], other_version["id"], far["id"]]
    assert ids(database, "nearest", "anomalous") == [near["id"]]


def test_the_random_order_stays_and_follows_neither_time_nor_score(database: Database):
    rows = [kept(score=number / 100) for number in range(60)]
    database.add(rows[:50])
    before = ids(database, "random")
    assert before == ids(database, "random")
    assert sorted(before) == [one["id"] for one in rows[:50]] != before
    database.add(rows[50:])
    assert [identity for identity in ids(database, "random") if identity in before] == before
    sample = [identity for identity in ids(database, "random") if chosen(identity, 0.5)]
    first = ids(database, "random")[:30]
    assert 5 < len(set(sample) & set(first)) < 25  # the rule that keeps images does not decide about the order


def said(label: str, actor: str | None = None, reviewer: str | None = None) -> Row:
    return {"actor": actor, "after": {"label": label, "reviewer": reviewer}}


@pytest.mark.parametrize(
    ("decision", "lines", "expected"),
    [
        ("normal", [], False),
        ("normal", [said("normal")], False),
        ("normal", [said("unsure")], False),
        ("normal", [said("anomalous")], True),
        ("anomalous", [said("normal", "line", "Ana")], True),
        ("anomalous", [said("normal", "line", "Ana"), said("normal", "line", "Ana")], True),
        ("anomalous", [said("normal", "line", "Ana"), said("normal", "line", "Bo")], False),
        ("anomalous", [said("normal", "one"), said("normal", "two")], False),
        ("anomalous", [said("anomalous", None, "Ana"), said("normal", None, "Bo")], True),
        ("anomalous", [said("anomalous", None, "Bo"), said("normal", None, "Bo")], False),
        ("normal", [said("unsure", None, "Ana"), said("anomalous", None, "Bo")], True),
        ("normal", [said("normal", None, "C"), said("normal", None, "Ana"), said("anomalous", None, "Bo")], False),
    ],
)
def test_a_disagreement_is_open_until_two_people_agree(decision: str, lines: list[Row], expected: bool):
    assert is_open(decision, lines) is expected


def test_disagreements_come_newest_first_until_they_are_settled(database: Database):
    first, second, agreed, unlabelled = kept(), kept(outcome="anomalous"), kept(), kept()
    database.add([first, second, agreed, unlabelled])
    for one, label in ((first, "anomalous"), (second, "normal"), (agreed, "normal")):
        database.label(one["id"], None, {"label": label, "reviewer": "Ana"}, 0)
    assert ids(database, "disagreements") == [second["id"], first["id"]]
    assert ids(database, "disagreements", "normal") == [first["id"]]
    database.label(first["id"], None, {"label": "anomalous", "reviewer": "Bo"}, None)
    assert ids(database, "disagreements") == [second["id"]]


def test_only_the_newest_are_looked_at_and_the_way_to_them_is_short(database: Database, url: str):
    rows = [kept(score=0.5, kept_share=0.01) for _ in range(NEWEST + 5)]
    database.add([row() for _ in range(3000)])
    database.add(rows)
    assert set(ids(database, "nearest")) == {one["id"] for one in rows[5:]}
    if url.startswith("sqlite"):
        database.optimize()
        query = "SELECT * FROM inspections WHERE category = 'tile' AND image_kept = 1 AND outcome IN ('normal') AND "
        with create_engine(url).connect() as connection:
            for label in ("label IS NULL", "label = 'normal'"):
                plan = connection.execute(text(f"EXPLAIN QUERY PLAN {query} {label} ORDER BY id DESC LIMIT 9"))
                assert ["inspections_to_review" in line.detail for line in plan] == [True]


def good_for(database: Database, one: Row, gone: Collection[str] = ()) -> UUID | None:
    found = nearest_good(database, one, lambda sha256: sha256 not in gone)
    return None if found is None else found["id"]


def test_the_nearest_good_part_is_labelled_good_before_or_after(database: Database):
    far, near, one, later, latest = kept(), kept(), kept(outcome="anomalous", verdict="fail"), kept(), kept()
    database.add([far, near, one, later, latest])
    for good in (far, latest):
        database.label(good["id"], None, {"label": "normal"}, 0)
    assert good_for(database, one) == far["id"]  # the latest is as near
    assert good_for(database, near) == far["id"]
    assert good_for(database, later) == latest["id"]
    assert good_for(database, far) == latest["id"]  # not itself
    assert good_for(database, later, gone=[latest["sha256"]]) == far["id"]


def test_only_a_good_part_that_can_be_compared_is_found(database: Database):
    one = kept(outcome="anomalous", verdict="fail")
    database.add(
        [
            one,
            row(label="normal"),
            kept(label="normal", category="plate"),
            kept(label="normal", width=9),
            kept(label="normal", height=9),
            kept(label="normal", sha256=one["sha256"]),
            kept(label="anomalous"),
            kept(label="unsure"),
            kept(verdict="review"),
            kept(outcome="anomalous", verdict="fail"),
            row(),
        ]
    )
    assert good_for(database, one) is None
    accepted, nearer, labelled = kept(), kept(), kept(outcome="anomalous", verdict="fail", label="normal")
    database.add([nearer, accepted])
    assert good_for(database, one) == accepted["id"]
    database.label(accepted["id"], None, {"label": "unsure"}, 0)
    assert good_for(database, one) == nearer["id"]
    database.add([labelled])
    assert good_for(database, one) == labelled["id"]
    assert good_for(database, one, gone=[labelled["sha256"]]) == nearer["id"]
    failed = kept(outcome="not-decodable", verdict=None, width=None, height=None)
    database.add([failed, kept(outcome="not-decodable", verdict=None, width=None, height=None, label="normal")])
    assert good_for(database, failed) is None


def test_the_way_to_the_nearest_good_part_is_short(database: Database, url: str):
    old = [kept() for _ in range(NEAREST[0] + 5)]
    labelled, last = kept(label="normal"), kept()
    database.add([*old, labelled, last])
    removed = [one["sha256"] for one in (*old[1:], labelled)]
    assert good_for(database, last, gone=removed) == old[0]["id"]
    if not url.startswith("sqlite"):
        return
    asked: list[tuple[str, Any]] = []
    event.listen(database._engine, "before_cursor_execute", lambda _, __, *given: asked.append(given[:2]))
    good_for(database, last, gone=removed)
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        plans = [
            " ".join(line[3] for line in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values))
            for statement, values in asked
            if statement.startswith("SELECT")
        ]
    by_labels, by_verdict = plans[:4], plans[4:]
    found = "(category=? AND width=? AND height=? AND id"
    assert all(f"inspections_labelled_good {found}" in plan for plan in by_labels), plans
    assert all(f"inspections_accepted {found}" in plan for plan in by_verdict), plans
    assert by_verdict
    assert not any("TEMP B-TREE" in plan for plan in plans)
