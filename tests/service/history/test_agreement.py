"""What people and the server say of the parts of a month."""

from datetime import UTC, datetime

import pytest

from service.history.agreement import months_agreement, page_of
from service.history.database import Database
from service.history.records import Row, first_id_at
from tests.service.history.conftest import row

MAY = datetime(2026, 5, 1, tzinfo=UTC)


def rows_of_may(*outcomes: str, **given: object) -> list[Row]:
    start = first_id_at(MAY).int
    made = []
    for number, outcome in enumerate(outcomes):
        identity = type(first_id_at(MAY))(int=start + (number << 80) + row()["id"].int % (1 << 64))
        made.append(row(**{"id": identity, "time": MAY, "outcome": outcome, "sample_share": 1.0, **given}))
    return made


def say(database: Database, one: Row, label: str, reviewer: str | None, actor: str | None = None) -> None:
    database.label(one["id"], actor, {"label": label, "reviewer": reviewer}, None)


def test_the_tables_count_what_was_said(database: Database):
    rows = rows_of_may("normal", "normal", "normal", "anomalous", "anomalous", "anomalous", "normal", "not-decodable")
    rows[3]["sample_share"] = 0.0
    other = rows_of_may("normal", category="other")
    later = row(id=first_id_at(datetime(2026, 6, 1, tzinfo=UTC)))
    database.add([*rows, *other, later])
    for one, ana, bo in zip(
        rows[:6],
        ("normal", "normal", "anomalous", "anomalous", "normal", "unsure"),
        ("normal", "anomalous", None, "anomalous", "anomalous", None),
        strict=True,
    ):
        say(database, one, ana, "Ana", "line 1")
        if bo is not None:
            say(database, one, bo, "Bo")
    for one in (*other, later):
        say(database, one, "normal", "Ana")
    found = months_agreement(database, "tile", "2026-05")
    assert (found.inspections, found.failures, found.labelled, found.unsure, found.complete) == (7, 1, 6, 1, True)
    # The last label counts: normal, anomalous, anomalous, anomalous, anomalous.
    server = found.server
    assert (server.normal_normal, server.normal_anomalous) == (1, 2)
    assert (server.anomalous_normal, server.anomalous_anomalous) == (0, 2)
    assert server.agreed == pytest.approx(3 / 5)
    (pair,) = found.people
    assert (pair.first, pair.second, pair.inspections) == ("Ana (key line 1)", "Bo", 4)
    assert (pair.normal_normal, pair.normal_anomalous) == (1, 2)
    assert (pair.anomalous_normal, pair.anomalous_anomalous) == (0, 1)
    assert [(one.decision, one.random, one.labelled, one.inspections) for one in found.samples] == [
        ("anomalous", False, 1, 3),
        ("anomalous", True, 2, 3),
        ("normal", True, 3, 4),
    ]
    assert found.server_in_sample.anomalous_anomalous == server.anomalous_anomalous - 1
    assert found.server_in_sample.normal_anomalous == server.normal_anomalous
    assert [(one.model_version, one.labelled) for one in found.versions] == [("v1", 6)]
    page = page_of(found)
    assert "Ana (key line 1) / Bo" in page
    assert "biased unless they are a random sample" in page
    assert f"Kappa: {server.kappa:.3f}, 95 % interval {server.low:.3f} to {server.high:.3f}." in page
    assert "without a label, about which nothing is known</th><td>1</td>" in page


def test_a_month_without_labels_says_so(database: Database):
    december = months_agreement(database, "tile", "2026-12")
    assert december.until == datetime(2027, 1, 1, tzinfo=UTC)
    assert (december.labelled, december.server.kappa, december.people) == (0, None, [])
    page = page_of(december)
    assert "No part was labelled." in page
    assert "not defined" in page


def test_a_name_is_text_on_the_page(database: Database):
    (one,) = rows_of_may("normal")
    database.add([one])
    say(database, one, "normal", "<script>alert(1)</script>")
    say(database, one, "anomalous", None)
    page = page_of(months_agreement(database, "tile", "2026-05"))
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; / without a name" in page
