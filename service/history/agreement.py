"""How far the server and people, and people among each other, agree on the parts of a month; and the page about it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import combinations

import numpy as np

from model import pages
from model.agreement import kappa
from service.choices import DECISIONS
from service.history.database import Database
from service.history.records import Row
from service.history.review import since_taken_back
from service.keeping import chosen
from service.schemas import Agreement, AgreementTable, LabelledSample, VersionCount

MOST_LABELLED = 20_000
"""Labelled inspections of a month that are looked at, the newest ones."""
MOST_PAIRS = 20
"""Pairs of people that are listed, those with the most parts in common."""
AT_ONCE = 500
SERVER, LABEL = "server", "label"


def months_agreement(database: Database, category: str, month: str) -> Agreement:
    """Of the inspections of a month, UTC.

    Args:
        database: of the history.
        category: of the inspections.
        month: such as ``2026-11``.

    Raises:
        HistoryUnavailableError: if the database is away.
    """
    since = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    until = since.replace(year=since.year + since.month // 12, month=since.month % 12 + 1)
    outcomes = database.outcomes(category, since, until)
    rows = database.labelled(category, since, until, MOST_LABELLED)
    said = _said(database, rows)
    decided = sum(outcomes.get(decision, 0) for decision in DECISIONS)
    return Agreement(
        category=category,
        month=month,
        since=since,
        until=until,
        versions=[
            VersionCount(model_version=version, labelled=count)
            for version, count in sorted(Counter(row["model_version"] for row in rows).items())
        ],
        inspections=decided,
        failures=sum(outcomes.values()) - decided,
        labelled=len(rows),
        complete=len(rows) < MOST_LABELLED,
        unsure=sum(row["label"] == "unsure" for row in rows),
        samples=[
            LabelledSample(decision=decision, random=random, labelled=count, inspections=outcomes.get(decision, 0))
            for (decision, random), count in sorted(Counter((row["outcome"], _is_random(row)) for row in rows).items())
        ],
        server=_table(SERVER, LABEL, [(row["outcome"], row["label"]) for row in rows]),
        server_in_sample=_table(SERVER, LABEL, [(row["outcome"], row["label"]) for row in rows if _is_random(row)]),
        people=_pairs(said.values()),
    )


def _is_random(row: Row) -> bool:
    """Whether the image is in the random sample of all images that were judged."""
    return chosen(row["id"], row["sample_share"])


def _said(database: Database, rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """By inspection and person, the last label that the person gave since the label was last taken back."""
    lines: dict[str, list[Row]] = defaultdict(list)
    for start in range(0, len(rows), AT_ONCE):
        for line in database.labels_of(row["id"] for row in rows[start : start + AT_ONCE]):
            lines[line["subject"]].append(line)
    found: dict[str, dict[str, str]] = {}
    for subject, of_one in lines.items():
        found[subject] = {}
        for line in since_taken_back(of_one):
            found[subject].setdefault(_person(line), line["after"]["label"])
    return found


def _person(line: Row) -> str:
    """The name that was given, and the key."""
    reviewer, actor = line["after"].get("reviewer"), line["actor"]
    if reviewer and actor:
        return f"{reviewer} (key {actor})"
    return reviewer or (f"key {actor}" if actor else "without a name")


def _pairs(said: Iterable[dict[str, str]]) -> list[AgreementTable]:
    both: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for labels in said:
        for first, second in combinations(sorted(labels), 2):
            both[first, second].append((labels[first], labels[second]))
    tables = [_table(first, second, pairs) for (first, second), pairs in both.items()]
    return sorted(tables, key=lambda table: (-table.inspections, table.first, table.second))[:MOST_PAIRS]


def _table(first: str, second: str, pairs: Iterable[tuple[str, str]]) -> AgreementTable:
    """Of the parts on which both are sure."""
    counted = Counter(pairs)
    counts = np.array([[counted[one, other] for other in DECISIONS] for one in DECISIONS])
    found = kappa(counts)
    return AgreementTable(
        first=first,
        second=second,
        inspections=int(counts.sum()),
        normal_normal=int(counts[0, 0]),
        normal_anomalous=int(counts[0, 1]),
        anomalous_normal=int(counts[1, 0]),
        anomalous_anomalous=int(counts[1, 1]),
        agreed=found.agreed,
        kappa=found.value,
        standard_error=found.standard_error,
        low=found.low,
        high=found.high,
    )


FORMULA = (
    "Kappa is the agreement beyond what chance would bring: 1 is full agreement, 0 what chance would bring (Cohen "
    "1960). The 95 % interval is kappa ± 1.96 standard errors, after Fleiss, Cohen and Everitt (1969); it is for large "
    "samples. Where all agree, or one side always says the same, the formula gives no interval."
)
NOT_BLIND = (
    "Whoever labels a part sees what the server says, and what others have said before. Kappa is too high by as much "
    "as people follow that."
)


def page_of(found: Agreement) -> str:
    """The same to be printed."""
    rows: list[list[object]] = [
        ["category", found.category],
        ["month", f"{found.month}, UTC"],
        ["inspections with a decision", found.inspections],
        ["labelled", found.labelled if found.complete else f"more than {found.labelled}; the newest ones are counted"],
        ["labelled unsure, not counted below", found.unsure],
        ["without a label, about which nothing is known", found.inspections - found.labelled],
        ["images that could not be judged", found.failures],
        *([f"labelled, version {one.model_version}", one.labelled] for one in found.versions),
        ["made", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"],
    ]
    samples = [[one.decision, "yes" if one.random else "no", one.labelled, one.inspections] for one in found.samples]
    people = "".join(_shown(table) for table in found.people)
    return pages.page(
        f"Agreement on {found.category}, {found.month}",
        pages.table([], rows),
        pages.section("Server and people, all labelled parts", _shown(found.server) + pages.note(FORMULA)),
        pages.section("Server and people, random sample", _shown(found.server_in_sample)),
        pages.section(
            "Which parts were labelled",
            pages.note(SAMPLE)
            + (pages.table(["decision", "in the random sample", "labelled", "inspections in all"], samples, (1, 2, 3))
               if samples else pages.note("No part was labelled.")),
        ),
        pages.section(
            "People among each other",
            pages.note(NOT_BLIND) + (people or pages.note("No part was labelled by two people.")),
        ),
    )  # fmt: skip


SAMPLE = (
    "Kappa holds for the labelled parts only. It is biased unless they are a random sample: if people look at rejected "
    "parts, or at scores close to the threshold, more often than at others, it is not that of all parts. The second "
    "table has the parts of the random sample of all images alone. It is that of all parts if people labelled that "
    "sample whole, or chose from it without regard to what they saw."
)


def _shown(table: AgreementTable) -> str:
    interval = "no interval" if table.low is None else f"95 % interval {table.low:.3f} to {table.high:.3f}"
    said = "not defined" if table.kappa is None else f"{table.kappa:.3f}, {interval}"
    agreed = "" if table.agreed is None else f"Both say the same of {table.agreed:.1%} of {table.inspections} parts. "
    return pages.table(
        [f"{table.first} / {table.second}", "normal", "anomalous"],
        [
            ["normal", table.normal_normal, table.normal_anomalous],
            ["anomalous", table.anomalous_normal, table.anomalous_anomalous],
        ],
        (1, 2),
    ) + pages.note(f"{agreed}Kappa: {said}.")
