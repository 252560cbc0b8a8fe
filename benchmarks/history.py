"""How long the history takes to answer with many inspections in it, and what it costs inspection to be remembered.

    python -m benchmarks.history search [--rows 10000000] [--folder FOLDER]
    python -m benchmarks.history good [--rows 300000] [--folder FOLDER]
    python -m benchmarks.history cost [--rounds 6] [--seconds 10] [--clients 8]

``search`` fills a SQLite file with made-up inspections of a factory and asks it what the documented filters can ask,
through the same function as ``GET /v1/inspections``; each question many times, with other values. ``good`` fills such a
file and looks for the good part nearest to inspections by chance, as ``GET /v1/inspections/{id}/nearest-good`` does.
``cost`` runs two servers, one with the history and one without, and asks them in turns, so that a change of the
machine's speed meets both. Results go to benchmarks/results/history_search.json, history_good.json and
history_cost.json.
"""

import argparse
import asyncio
import json
import os
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import numpy as np

from benchmarks.decoding import processor_seconds
from benchmarks.load import Tally, closed_loop, request, serving
from benchmarks.pairs import CATEGORY, jpeg, make_category
from benchmarks.record import machine_and_commit
from service.history.database import Database, Filters
from service.history.records import time_of
from service.history.review import nearest_good

RESULTS = Path(__file__).parent / "results"
START_MS = 1_760_000_000_000
STEP_MS = 1500
"""Between two inspections: ten million are half a year."""
CATEGORIES = [f"category-{number:02}" for number in range(20)]
QUIET = CATEGORIES[0]
"""A category in which nothing was ever anomalous."""
STATIONS = [f"station-{number}" for number in range(8)]
DETAILS = json.dumps(
    {
        "metadata": {"shift": "b", "operator": 17},
        "calibration": "youden",
        "separates": True,
        "reasons": [],
        "alignment": None,
        "zones": None,
        "tiles": None,
        "localization": None,
        "timing_ms": {"decode": 1.234, "queue": 0.123, "inference": 8.345, "localization": 0.0, "total": 9.876},
    }
)
QUESTIONS = 40


def id_of(number: int) -> UUID:
    """Of the inspection of this number; ids are in the order of numbers."""
    return UUID(f"{START_MS + STEP_MS * number:012x}70008000{number:012x}")


# Lots of 500 parts with two views each, 5 % anomalous, 0.5 % not decodable. `u` and `v` are as if by chance, below 1.
INSERT = """
WITH RECURSIVE
  numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :count),
  chances AS (
    SELECT n, (n * 2654435761 % 4294967291) / 4294967291.0 AS u, (n * 40503 % 999983) / 999983.0 AS v,
           n * 7919 % 20 AS c FROM numbers
  ),
  judged AS (
    SELECT *, CASE WHEN u < 0.005 THEN 'not-decodable' WHEN u < 0.055 AND c > 0 THEN 'anomalous' ELSE 'normal' END AS o
    FROM chances
  )
INSERT INTO inspections (
  id, time, category, model_version, outcome, score, threshold, part_id, lot, station, request_id, sha256, width,
  height, bytes, label, details, verdict, image_kept
)
SELECT
  printf('%012x70008000%012x', :start + :step * n, n), datetime((:start + :step * n) / 1000, 'unixepoch') || '.000000',
  printf('category-%02d', c), printf('category-%02d-v%d', c, 3 * n / :count), o,
  CASE o WHEN 'normal' THEN 0.3 + 1.7 * v * v WHEN 'anomalous' THEN 2 + 8 * v * v END,
  CASE WHEN o != 'not-decodable' THEN 2.0 END,
  printf('SN-%08d', n / 2), printf('L-%06d', n / 1000), printf('station-%d', n % 8), printf('%032x', n),
  printf('%016x%016x%032x', n * 2654435761 % 4294967291, n * 40503 % 999983, n), 1280, 1024, 400000,
  CASE n % 3001 WHEN 0 THEN 'normal' WHEN 1 THEN 'anomalous' WHEN 2 THEN 'unsure' END, :details,
  CASE o WHEN 'normal' THEN 'pass' WHEN 'anomalous' THEN 'fail' END, o = 'anomalous' OR n % 101 = 0 OR n % 3001 < 3
FROM judged
"""


def fill(path: Path, count: int) -> float:
    """Makes the file. The indexes are made at the end, which is faster. Returns the seconds."""
    started = time.perf_counter()
    database = Database(f"sqlite:///{path}")
    database.prepare()
    database.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -1000000")
        made = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND name LIKE 'inspections_by_%'"
        indexes = connection.execute(made).fetchall()
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        connection.execute(INSERT, {"count": count, "start": START_MS, "step": STEP_MS, "details": DETAILS})
        for _, sql in indexes:
            connection.execute(sql)
    connection.close()
    database = Database(f"sqlite:///{path}")
    database.optimize()
    database.close()
    return time.perf_counter() - started


def questions(count: int) -> dict[str, Callable[[random.Random], tuple[Filters, UUID | None]]]:
    """What the documented filters can ask, with values by chance."""

    def some(rng: random.Random) -> int:
        return rng.randrange(count)

    def category(rng: random.Random) -> str:
        return rng.choice(CATEGORIES)

    def asks(**make: Callable[[random.Random], object]) -> Callable[[random.Random], tuple[Filters, UUID | None]]:
        return lambda rng: (Filters(**{name: value(rng) for name, value in make.items()}), None)  # type: ignore[arg-type]

    def day(rng: random.Random) -> tuple[Filters, UUID | None]:
        since = time_of(id_of(some(rng)))
        return Filters(since=since, until=since + timedelta(days=1)), None

    def day_of_category(rng: random.Random) -> tuple[Filters, UUID | None]:
        since = time_of(id_of(some(rng)))
        return Filters(category=category(rng), outcome="anomalous", since=since, until=since + timedelta(days=1)), None

    def sha256(rng: random.Random) -> str:
        number = some(rng)
        return f"{number * 2654435761 % 4294967291:016x}{number * 40503 % 999983:016x}{number:032x}"

    return {
        "newest": asks(),
        "a page far back": lambda rng: (Filters(), id_of(some(rng))),
        "category": asks(category=category),
        "category, a page far back": lambda rng: (Filters(category=category(rng)), id_of(some(rng))),
        "decision anomalous": asks(outcome=lambda _: "anomalous"),
        "category and decision": asks(category=category, outcome=lambda _: "anomalous"),
        "category and decision, none there": asks(category=lambda _: QUIET, outcome=lambda _: "anomalous"),
        "outcome not-decodable": asks(outcome=lambda _: "not-decodable"),
        "category, scores near the threshold": asks(
            category=category, min_score=lambda _: 1.95, max_score=lambda _: 2.05
        ),
        "category, highest scores": asks(category=category, min_score=lambda _: 8.0),
        "category, most scores": asks(category=category, max_score=lambda _: 2.0),
        "part": asks(part_id=lambda rng: f"SN-{some(rng) // 2:08}"),
        "lot": asks(lot=lambda rng: f"L-{some(rng) // 1000:06}"),
        "lot and decision": asks(lot=lambda rng: f"L-{some(rng) // 1000:06}", outcome=lambda _: "anomalous"),
        "lot and category": asks(lot=lambda rng: f"L-{some(rng) // 1000:06}", category=category),
        "station": asks(station=lambda rng: rng.choice(STATIONS)),
        "station and category": asks(station=lambda rng: rng.choice(STATIONS), category=category),
        "station and decision": asks(station=lambda rng: rng.choice(STATIONS), outcome=lambda _: "anomalous"),
        "model version": asks(model_version=lambda rng: f"{category(rng)}-v{rng.randrange(3)}"),
        "model version and decision": asks(
            model_version=lambda rng: f"{category(rng)}-v{rng.randrange(3)}", outcome=lambda _: "anomalous"
        ),
        "model version and decision, none there": asks(
            model_version=lambda rng: f"{QUIET}-v{rng.randrange(3)}", outcome=lambda _: "anomalous"
        ),
        "label": asks(label=lambda rng: rng.choice(("normal", "anomalous", "unsure"))),
        "label and category": asks(label=lambda _: "anomalous", category=category),
        "no label, category": asks(label=lambda _: "none", category=category),
        "same image": asks(sha256=sha256),
        "a day": day,
        "a day, category and decision": day_of_category,
    }


def search(count: int, folder: Path) -> dict[str, object]:
    """Fills a database, unless the folder has one, and asks it."""
    path = folder / "history.sqlite"
    seconds = None if path.exists() else fill(path, count)
    database = Database(f"sqlite:///{path}")
    found = []
    for name, make in questions(count).items():
        rng, times, answers = random.Random(1), [], 0
        for _ in range(QUESTIONS):
            filters, before = make(rng)
            started = time.perf_counter()
            answers += len(database.find(filters, 51, before))
            times.append(1000 * (time.perf_counter() - started))
        found.append(
            {
                "question": name,
                "median_ms": round(float(np.median(times)), 2),
                "worst_ms": round(max(times), 2),
                "mean_answers": answers / QUESTIONS,
            }
        )
        print(json.dumps(found[-1]), flush=True)
    return {
        "rows": count,
        "file_bytes": path.stat().st_size,
        "fill_seconds": None if seconds is None else round(seconds),
        "questions_each": QUESTIONS,
        "questions": found,
    }


def good(count: int, folder: Path) -> dict[str, object]:
    """Fills a database, unless the folder has one, and looks for the good part nearest to inspections of it."""
    path = folder / "history.sqlite"
    if not path.exists():
        fill(path, count)
    database = Database(f"sqlite:///{path}")
    labelled = {row["sha256"] for row in database.find(Filters(label="normal"), count)}
    cases: dict[str, Callable[[str], bool]] = {
        "good parts are labelled": lambda _: True,
        "of labelled ones no image is there": lambda sha256: sha256 not in labelled,
        "no image is there": lambda _: False,
    }
    found = []
    for name, has_image in cases.items():
        rng, times, answers = random.Random(1), [], 0
        for _ in range(QUESTIONS):
            started = time.perf_counter()
            row = database.get(id_of(rng.randrange(count)))
            assert row is not None
            answers += nearest_good(database, row, has_image) is not None
            times.append(1000 * (time.perf_counter() - started))
        median, worst = round(float(np.median(times)), 2), round(max(times), 2)
        found.append({"case": name, "median_ms": median, "worst_ms": worst, "found": answers})
        print(json.dumps(found[-1]), flush=True)
    return {"rows": count, "questions_each": QUESTIONS, "cases": found}


def cost(rounds: int, seconds: float, clients: int) -> dict[str, object]:
    """Asks two servers in turns: one remembers, with images by the default rule, the other does not."""
    command = [str(Path(sys.executable).with_name("eca-inspect")), "serve", "--port", "0", "--weights"]
    path = f"/v1/categories/{CATEGORY}/inspect?localize=never"
    message = request("service", path, jpeg(512))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = folder / "weights"
        make_category(weights)
        state = {"INSPECT_DEVICE": "cpu", "INSPECT_STATE": str(folder / "state")}
        database = f"sqlite:///{folder / 'state' / 'history.sqlite'}"
        with (
            serving([*command, str(weights)], INSPECT_DATABASE=database, **state) as (with_history, remembering),
            serving([*command, str(weights)], **state) as (without, plain),
        ):
            tallies, used = {"with": Tally(), "without": Tally()}, {"with": 0.0, "without": 0.0}
            for address in (with_history, without):
                asyncio.run(closed_loop(address, lambda: message, clients, 3))
            for number in range(rounds):
                turns = [("with", with_history, remembering.pid), ("without", without, plain.pid)]
                for one, address, process in turns if number % 2 else reversed(turns):
                    before = processor_seconds(process)
                    tally = asyncio.run(closed_loop(address, lambda: message, clients, seconds))
                    whole = tallies[one]
                    whole.seconds += tally.seconds
                    whole.statuses += tally.statuses
                    whole.answered += tally.answered
                    used[one] += processor_seconds(process) - before
        with sqlite3.connect(folder / "state" / "history.sqlite") as connection:
            (remembered,) = connection.execute("SELECT count(*) FROM inspections").fetchone()
    measured = {
        one: tally.row() | {"processor_ms_per_image": round(1000 * used[one] / tally.statuses[200], 3)}
        for one, tally in tallies.items()
    }
    ratios = {
        name: round(measured["with"][name] / measured["without"][name], 4)
        for name in ("images_per_second", "p50_ms", "p95_ms", "p99_ms", "processor_ms_per_image")
    }
    return {
        "rounds": rounds,
        "seconds": seconds,
        "clients": clients,
        "remembered": remembered,
        **measured,
        "ratio": ratios,
    }


def main() -> None:
    """Measures one part and writes its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("search", "good", "cost"))
    parser.add_argument("--rows", type=int, help="of the database; 10000000, for `good` 300000")
    parser.add_argument("--folder", type=Path, help="keeps the database there, or asks the one that is there")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    measure, rows = (good, 300_000) if arguments.part == "good" else (search, 10_000_000)
    if arguments.part == "cost":
        found = cost(arguments.rounds, arguments.seconds, arguments.clients)
    elif arguments.folder is not None:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        found = measure(arguments.rows or rows, arguments.folder)
    else:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(arguments.rows or rows, Path(folder))
    results = {**machine_and_commit(), "load_average": os.getloadavg()[0], **found}
    (RESULTS / f"history_{arguments.part}.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
