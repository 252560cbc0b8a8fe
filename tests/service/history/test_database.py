"""Both kinds of database keep what they are given, find it, and come from older versions."""

import sqlite3
import threading
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, event, inspect, text

from model.errors import MissingExtraError
from service.history.database import FEW, Database, Filters
from service.history.errors import DatabaseURLError, HistoryUnavailableError, LabelChangedError
from service.history.records import first_id_at, time_of
from service.history.tables import METADATA
from tests.service.history.conftest import row


def ids(rows: list[dict[str, object]]) -> list[object]:
    return [one["id"] for one in rows]


def test_a_row_comes_back_as_it_was_and_only_once(database: Database):
    given = row(lot="L7", details={"reasons": ["score"], "metadata": {"shift": "ü"}}, part_inspection=UUID(int=7))
    assert database.add([given]) == {}
    assert database.add([given | {"score": 9.0}, other := row()]) == {}
    found = database.get(given["id"])
    assert found is not None
    fresh = {"label": None, "image_kept": False, "kept_share": 0.0, "label_version": 0, "sample_share": 0.0}
    assert found | {"time": given["time"]} == given | fresh
    assert database.get(UUID(int=1)) is None
    assert ids(database.find(Filters(), 10)) == [other["id"], given["id"]]


def test_every_filter_finds_what_fits_and_only_that(database: Database):
    plain = row()
    fitting = {
        "category": row(category="plate"),
        "outcome": row(outcome="not-decodable", score=None, threshold=None),
        "part_id": row(part_id="SN 1"),
        "lot": row(lot="L'7"),
        "station": row(station="s"),
        "part_inspection": row(part_inspection=UUID(int=5)),
        "model_version": row(model_version="v2"),
        "sha256": row(sha256="f" * 64),
        "verdict": row(verdict="review"),
    }
    database.add([plain, *fitting.values()])
    for name, wanted in fitting.items():
        assert ids(database.find(Filters(**{name: wanted[name]}), 10)) == [wanted["id"]], name
    assert len(database.find(Filters(label="none"), 100)) == 10
    assert database.find(Filters(label="normal"), 100) == []
    assert database.find(Filters(category="plate", outcome="anomalous"), 100) == []


def test_time_is_that_of_the_id(database: Database):
    rows = [row() for _ in range(4)]
    database.add(rows)
    assert [time_of(first_id_at(one["time"])) for one in rows] == [one["time"] for one in rows]
    since, until = rows[1]["time"], rows[3]["time"]
    assert ids(database.find(Filters(since=since, until=until), 10)) == [rows[2]["id"], rows[1]["id"]]
    assert database.find(Filters(since=until + timedelta(milliseconds=1)), 10) == []


def test_pages_follow_each_other_without_a_gap(database: Database):
    rows = [row(category=f"c{number % 2}") for number in range(20)]
    database.add(rows)
    pages, before = [], None
    while page := database.find(Filters(category="c1"), 3, before):
        pages += ids(page)
        before = page[-1]["id"]
    assert pages == [one["id"] for one in reversed(rows) if one["category"] == "c1"]


@pytest.mark.parametrize("few", [FEW, 2], ids=["sorted", "in the order of time"])
def test_scores_are_found_either_way(database: Database, few: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("service.history.database.FEW", few)
    rows = [row(score=number / 2) for number in range(8)] + [row(category="plate", score=2.0)]
    database.add(rows)
    found = database.find(Filters(category="tile", min_score=1.0, max_score=2.5), 3)
    assert [one["score"] for one in found] == [2.5, 2.0, 1.5]
    assert [one["score"] for one in database.find(Filters(category="tile", min_score=2.5), 10)] == [3.5, 3.0, 2.5]
    assert [one["score"] for one in database.find(Filters(category="tile", max_score=0.5), 10)] == [0.5, 0.0]


def test_a_row_that_is_refused_for_its_own_sake_holds_up_no_other(database: Database):
    good, bad, last = row(), row(category=None), row()
    odd = row(id="not an id")
    refused = database.add([good, bad, odd, last])
    assert set(refused) == {1, 2}
    assert "null" in refused[1].lower()
    assert ids(database.find(Filters(), 10)) == [last["id"], good["id"]]


def test_the_tables_are_those_that_the_migrations_make(url: str):
    Database(url).prepare()
    with create_engine(url).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = [one for one in compare_metadata(context, METADATA) if "alembic_version" not in str(one)]
    assert differences == []


def test_a_database_of_the_first_version_is_brought_to_the_newest(url: str):
    first = Database(url)
    first.prepare("0001")
    old = row(lot="L7")
    columns = {name: value for name, value in old.items() if name not in ("details", "verdict")}
    with create_engine(url).begin() as connection:
        connection.execute(
            text(
                f"INSERT INTO inspections ({', '.join(columns)}, details) "
                f"VALUES ({', '.join(':' + name for name in columns)}, '{{}}')"
            ),
            columns | {"id": old["id"].hex},
        )
    now = Database(url)
    now.prepare()
    (found,) = now.find(Filters(lot="L7"), 10)
    assert found["id"] == old["id"]
    assert (found["image_kept"], found["kept_share"], found["label_version"]) == (False, 0.0, 0)
    assert (found["sample_share"], found["verdict"]) == (0.0, "pass")
    assert now.label(old["id"], "ana", {"label": "normal"}, 0) == 1


def test_a_label_replaces_the_one_that_was_seen_and_no_other(database: Database):
    database.add([given := row()])
    identity = given["id"]
    first = database.label(identity, "ana", {"label": "normal"}, 0)
    with pytest.raises(LabelChangedError) as refused:
        database.label(identity, "ben", {"label": "anomalous"}, 0)
    assert (refused.value.label, refused.value.version) == ("normal", first)
    second = database.label(identity, "ben", {"label": "anomalous"}, first)
    third = database.label(identity, None, {"label": "unsure"}, None)
    lines = database.audited(10, subject=str(identity))
    assert [(line["n"], line["actor"], line["before"], line["after"]) for line in lines] == [
        (third, None, {"label": "anomalous"}, {"label": "unsure"}),
        (second, "ben", {"label": "normal"}, {"label": "anomalous"}),
        (first, "ana", None, {"label": "normal"}),
    ]
    assert [one["id"] for one in database.find(Filters(label="unsure"), 10)] == [identity]
    with pytest.raises(LookupError):
        database.label(UUID(int=1), None, {"label": "normal"}, 0)
    database.audit("ops", "reload", "tile", "v1", "v2")
    assert [line["action"] for line in database.audited(2)] == ["reload", "label"]
    assert [line["n"] for line in database.audited(9, third)] == [second, first]


def test_two_reviewers_at_once_do_not_overwrite_each_other(url: str):
    Database(url).prepare()
    Database(url).add([given := row()])
    taken, refused = [], []

    def review(name: str) -> None:
        try:
            taken.append(Database(url).label(given["id"], name, {"label": "normal", "reviewer": name}, 0))
        except LabelChangedError as error:
            refused.append(error)

    threads = [threading.Thread(target=review, args=(name,)) for name in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), len(refused)) == (1, 5)
    assert len(Database(url).audited(10)) == 1


def test_two_servers_that_start_at_once_make_the_tables_once(url: str):
    failed = []

    def start() -> None:
        try:
            Database(url).prepare()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert "inspections" in inspect(create_engine(url)).get_table_names()


def test_a_database_of_a_newer_version_is_left_alone(url: str):
    Database(url).prepare()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(HistoryUnavailableError, match="a version that this software does not know"):
        Database(url).prepare()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("history.sqlite", "is not the URL of a database, such as sqlite:////state"),
        ("mysql://a/b", "of the kind 'mysql' cannot keep the history"),
        ("sqlite://", "names no file"),
        ("postgresql+psycopg2://a/b", "the driver 'psycopg2' is not installed; leave it out of the URL"),
        ("postgresql+psycopg_async://a/b", "the driver of .* cannot be used here; leave it out of the URL"),
        ("postgresql+nonsense://a/b", "nonsense"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(url: str, message: str):
    with pytest.raises(DatabaseURLError, match=message):
        Database(url)


def test_a_missing_driver_is_named_by_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r"eca-inspect\[postgres\]"):
        Database("postgresql://a/b")


def test_a_database_that_is_away_or_locked_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("service.history.database.CONNECT_SECONDS", 0.1)
    away = Database("postgresql://nobody@127.0.0.1:1/x")
    with pytest.raises(HistoryUnavailableError, match="refused"):
        away.prepare()
    (tmp_path / "file").write_text("")
    with pytest.raises(HistoryUnavailableError, match="file"):
        Database(f"sqlite:///{tmp_path / 'file' / 'x.sqlite'}").prepare()
    locked = Database(f"sqlite:///{tmp_path / 'h.sqlite'}")
    locked.prepare()
    with sqlite3.connect(tmp_path / "h.sqlite", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(HistoryUnavailableError, match="locked"):
            locked.add([row()])
        assert locked.find(Filters(), 1) == []


def test_a_question_that_takes_too_long_is_given_up(database: Database):
    endless = text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n")
    with pytest.raises(HistoryUnavailableError, match=r"interrupted|timeout"), database._connected(seconds=0.2) as one:
        one.execute(endless)
    assert database.find(Filters(), 1) == []


def test_measures_come_newest_first_and_may_lack_a_look(database: Database):
    look = {"brightness": 100.5, "contrast": 20.25, "sharpness": 0.5, "aspect_ratio": 1.5}
    rows = [
        row(score=1.0, details={"look": look}),
        row(score=2.0, details={"look": None}),
        row(score=3.0, details={}),
        row(score=None, outcome="not-decodable", details={}),
        row(model_version="v2"),
        row(category="other"),
    ]
    database.add(rows)
    nothing = dict.fromkeys(look)
    expected = [{"score": 3.0, **nothing}, {"score": 2.0, **nothing}, {"score": 1.0, **look}]
    found = database.measures("tile", "v1", 10)
    assert [{name: one[name] for name in ("score", *look)} for one in found] == expected
    assert [one["id"] for one in found] == [one["id"] for one in rows[2::-1]]
    assert len(database.measures("tile", "v1", 2)) == 2
    between = database.measures("tile", "v1", 10, rows[1]["time"], rows[2]["time"])
    assert [one["score"] for one in between] == [2.0]


def test_what_a_candidate_says_is_compared_with_what_the_version_in_force_said(database: Database):
    plain = [row() for _ in range(3)]
    rejected, older, failed = row(outcome="anomalous"), row(model_version="v0"), row(outcome="not-decodable")
    database.add([*plain, rejected, older])
    said = [*zip([*plain, rejected, older], ["normal", "normal", "anomalous", "normal", "anomalous"], strict=True)]
    for one, outcome in [*said, said[0], (failed, "normal")]:  # one twice, and one that is not in the history yet
        database.add_shadow(
            {"model_version": "next", "inspection": one["id"], "score": 3.0, "threshold": 2.5, "outcome": outcome}
        )
    database.label(plain[2]["id"], None, {"label": "anomalous"}, None)
    assert database.count_shadow("next") == 6
    assert database.count_shadow("other") == 0
    counts = {
        (one["decision"], one["candidate_decision"], one["label"]): one["count"]
        for one in database.compared("next", "v1")
    }
    assert counts == {
        ("normal", "normal", None): 2,
        ("normal", "anomalous", "anomalous"): 1,
        ("anomalous", "normal", None): 1,
    }
    changed = database.changed_decisions("next", "v1", 10)
    assert ids(changed) == [rejected["id"], plain[2]["id"]]
    assert changed[1] == {
        "id": plain[2]["id"],
        "time": time_of(plain[2]["id"]),
        "score": 1.0,
        "threshold": 2.0,
        "decision": "normal",
        "label": "anomalous",
        "candidate_score": 3.0,
        "candidate_threshold": 2.5,
        "candidate_decision": "anomalous",
    }
    assert ids(database.changed_decisions("next", "v1", 1)) == [rejected["id"]]
    database.remove_before(rejected["time"])
    assert database.count_shadow("next") == 3


def test_labelled_inspections_are_found_by_category_and_time(database: Database):
    rows = [row(label=label) for label in ("normal", "anomalous", "unsure", None, "normal")]
    others = [row(label="normal", category="plate"), row(label="normal", model_version="v0")]
    database.add([*rows, *others, row(label="normal", score=None)])
    found = database.scored_labels("tile", None, None, 10)
    assert ids(found) == [others[1]["id"], rows[4]["id"], rows[1]["id"], rows[0]["id"]]
    assert (found[0]["details"], found[0]["sample_share"]) == ({"reasons": []}, 0.0)
    assert ids(database.scored_labels("tile", rows[1]["time"], rows[4]["time"], 10)) == [rows[1]["id"]]
    assert ids(database.scored_labels("tile", None, None, 1)) == [others[1]["id"]]


def test_sqlite_searches_labels_and_stations_by_their_indexes(tmp_path: Path):
    database = Database(f"sqlite:///{tmp_path / 'h.sqlite'}")
    database.prepare()
    asked: list[tuple[str, object]] = []

    def note(_: object, __: object, statement: str, values: object, *___: object) -> None:
        asked.append((statement, values))

    event.listen(database._engine, "before_cursor_execute", note)
    database.scored_labels("tile", None, None, 10)
    database.find(Filters(station="s", category="tile"), 10)
    with sqlite3.connect(tmp_path / "h.sqlite") as connection:
        plans = [
            " ".join(line[3] for line in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values))
            for statement, values in asked
            if statement.startswith("SELECT")
        ]
    assert "inspections_labelled (category=?)" in plans[0]
    assert "inspections_by_station_category (station=? AND category=?)" in plans[1]
    assert "TEMP B-TREE" not in plans[1]
