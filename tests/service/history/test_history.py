"""Records reach the database in their order and once, whatever happens to the database and to the disk meanwhile."""

import asyncio
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from service.history import history as module
from service.history.database import Database, Filters
from service.history.history import History
from service.history.images import Images
from service.history.records import Record
from service.keeping import parse_policy
from service.part_info import PartInfo
from service.problems import Problem
from tests.conftest import ROOT
from tests.postgres import Cluster
from tests.service.history.conftest import row

TAKEN = "taken"


def record(outcome: str = "not-decodable", part_info: PartInfo | None = None) -> Record:
    body = Problem("not-decodable", reason="it is no image").body()
    return Record(uuid7(), "tile", "v1", body, outcome, b"bytes", 5, part_info or PartInfo(part_id="SN 1"))


@contextmanager
def running(
    url: str,
    state: Path,
    spool_bytes: int = 1 << 20,
    policy: str = "none",
    on_late: Callable[[], None] = lambda: None,
) -> Iterator[tuple[History, Counter[str]]]:
    """Counts all but the answers that are late, which is a matter of the machine's speed."""
    counts: Counter[str] = Counter()
    database = Database(url)
    images = Images(state / "images", 1 << 20, 90, database.labelled_images, lambda reason: counts.update({reason: 1}))
    history = History(
        database,
        state,
        spool_bytes,
        parse_policy(policy),
        images,
        365,
        on_lose=lambda reason, count: counts.update({reason: count}),
        on_late=on_late,
        on_write=lambda count: counts.update({TAKEN: count}),
        on_refuse=lambda count: counts.update({"refused": count}),
    )
    history.start()
    try:
        yield history, counts
    finally:
        history.close()


def remember(history: History, *records: Record) -> None:
    async def all_of_them() -> None:
        for one in records:
            await history.remember(one)

    asyncio.run(all_of_them())


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def kept(url: str) -> list[UUID]:
    database = Database(url)
    database.prepare()
    return [row["id"] for row in database.find(Filters(), 10_000)]


def test_what_is_remembered_is_in_the_database(url: str, tmp_path: Path):
    records = [record() for _ in range(20)]
    with running(url, tmp_path / "state") as (history, counts):
        remember(history, *records)
        wait_until(lambda: counts[TAKEN] == 20)
        assert history.database_up
        row = asyncio.run(history.ask(lambda database: database.get(records[0].id)))
        assert row is not None
        assert (row["outcome"], row["part_id"], row["bytes"]) == ("not-decodable", "SN 1", 5)
        assert row["details"]["problem"]["detail"] == "it is no image"
    assert kept(url) == [one.id for one in reversed(records)]
    assert counts == {TAKEN: 20}


def test_the_end_waits_for_what_is_on_its_way(url: str, tmp_path: Path):
    records = [record() for _ in range(100)]
    with running(url, tmp_path) as (history, _):
        remember(history, *records)
    assert kept(url) == [one.id for one in reversed(records)]


def test_records_wait_while_the_database_is_away_and_go_on_in_order(cluster: Cluster, tmp_path: Path):
    url = cluster.new_database()
    first, meanwhile, last = ([record() for _ in range(5)] for _ in range(3))
    with running(url, tmp_path) as (history, counts):
        remember(history, *first)
        wait_until(lambda: counts[TAKEN] == 5)
        cluster.stop()
        try:
            remember(history, *meanwhile)
            wait_until(lambda: not history.database_up and history.waiting == 5)
        finally:
            cluster.start()
        remember(history, *last)
        wait_until(lambda: counts[TAKEN] == 15)
        assert history.waiting == 0
    assert kept(url) == [one.id for one in reversed(first + meanwhile + last)]
    assert counts == {TAKEN: 15}


def test_records_of_a_process_that_is_gone_are_taken_up_by_the_next(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'file' / 'x.sqlite'}"
    (tmp_path / "file").write_text("in the way")
    records = [record() for _ in range(3)]
    with running(url, tmp_path) as (history, counts):
        remember(history, *records)
    assert counts == {}
    (tmp_path / "file").unlink()
    with running(url, tmp_path) as (_, counts):
        wait_until(lambda: counts[TAKEN] == 3)
    assert kept(url) == [one.id for one in reversed(records)]


def test_what_was_written_but_not_taken_out_of_the_spool_is_written_once(tmp_path: Path, url: str):
    """As after `kill -9` between the two."""
    path = tmp_path / "spool.sqlite"
    with running(url, tmp_path) as (history, counts):
        remember(history, record())
        wait_until(lambda: counts[TAKEN] == 1)
    (only,) = kept(url)
    with sqlite3.connect(path) as connection:
        text = module.json.dumps(Record(only, "tile", "v1", record().result, "x", b"", 0, PartInfo()).row())
        connection.execute("INSERT INTO waiting (record) VALUES (?)", (text,))
    with running(url, tmp_path) as (_, counts):
        wait_until(lambda: counts[TAKEN] == 1)
    assert kept(url) == [only]


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"id": "x"}', '{"id": "0", "part_inspection": null}'])
def test_a_spoilt_record_is_set_aside(tmp_path: Path, url: str, text: str, caplog: pytest.LogCaptureFixture):
    with running(url, tmp_path):
        pass
    with sqlite3.connect(tmp_path / "spool.sqlite") as connection:
        connection.execute("INSERT INTO waiting (record) VALUES (?)", (text,))
    good = record()
    with running(url, tmp_path) as (history, counts):
        remember(history, good)
        wait_until(lambda: counts[TAKEN] == 1)
        assert counts == {TAKEN: 1, "refused": 1}
    assert kept(url) == [good.id]
    assert "is set aside" in caplog.text


def test_beyond_the_bound_records_are_lost_counted_and_named_in_the_log_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    url = f"sqlite:///{tmp_path / 'file' / 'x.sqlite'}"
    (tmp_path / "file").write_text("in the way")
    with running(url, tmp_path, spool_bytes=1 << 15) as (history, counts):
        remember(history, *(record() for _ in range(200)))
        wait_until(lambda: history.waiting + counts["spool-full"] == 200)
        assert counts["spool-full"] > 0
        assert history.waiting > 0
        assert set(counts) == {"spool-full"}
    assert caplog.text.count("are lost for the history") == 1
    assert "raise INSPECT_SPOOL_BYTES" in caplog.text


def test_without_a_folder_to_write_to_records_are_lost_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "file").write_text("in the way")
    with running(f"sqlite:///{tmp_path / 'x.sqlite'}", tmp_path / "file") as (history, counts):
        remember(history, record(), record())
        assert counts == {"disk": 2}
    assert "INSPECT_STATE cannot be written" in caplog.text


def test_a_record_that_cannot_be_made_spoils_no_other(tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture):
    odd = record(part_info=PartInfo.model_construct(part_id=object()))
    good = record()
    with running(url, tmp_path) as (history, counts):
        remember(history, odd, good)
        wait_until(lambda: counts[TAKEN] == 1)
    assert counts == {"error": 1, TAKEN: 1}
    assert kept(url) == [good.id]


def test_an_answer_waits_for_a_slow_disk_only_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.01)
    url = f"sqlite:///{tmp_path / 'x.sqlite'}"
    late: list[bool] = []
    with running(url, tmp_path, on_late=lambda: late.append(True)) as (history, counts):
        wait_until(lambda: history.database_up)
        with sqlite3.connect(tmp_path / "spool.sqlite", isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            remember(history, record())
            assert late == [True]
            assert counts == {}
            other.execute("ROLLBACK")
        wait_until(lambda: counts[TAKEN] == 1)


def test_ids_stay_unique_and_lists_work_when_the_clock_jumps_back(url: str, tmp_path: Path):
    later = Record(UUID(int=uuid7().int + (3_600_000 << 80)), "tile", "v1", record().result, "x", b"", 0, PartInfo())
    now = [record() for _ in range(3)]
    with running(url, tmp_path) as (history, counts):
        remember(history, later, *now)
        wait_until(lambda: counts[TAKEN] == 4)
    assert kept(url) == [later.id, *(one.id for one in reversed(now))]


def test_images_are_kept_as_the_rule_says_and_the_record_says_so(tmp_path: Path, url: str):
    first = record()
    with running(url, tmp_path, policy="none, tile=all") as (history, counts):
        remember(history, first, replace(record(), category="other", data=b"no", size=2))
        wait_until(lambda: counts[TAKEN] == 2)
        other, row = asyncio.run(history.ask(lambda database: database.find(Filters(), 2)))
        assert (row["image_kept"], row["kept_share"]) == (True, 1.0)
        assert (other["image_kept"], other["kept_share"]) == (False, 0.0)
        wait_until(lambda: history.images.has(row["sha256"]))
        assert history.images.read(row["sha256"]) == b"bytes"
        assert not history.images.has(other["sha256"])
    assert counts == {TAKEN: 2}


def test_without_memory_for_a_failed_image_its_record_is_lost(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Its hash is not known without its bytes."""
    monkeypatch.setattr("service.history.images.MEMORY_BYTES", 4)
    with running(url, tmp_path) as (history, counts):
        remember(history, record())
        assert counts == {"memory": 1}
    assert "too slow for so many inspections" in caplog.text


def test_old_inspections_are_removed_but_labelled_ones(database: Database):
    old, labelled, new = row(), row(), row()
    database.add([old, labelled, new])
    database.label(labelled["id"], None, {"label": "normal"}, 0)
    assert database.remove_before(new["time"]) == 1
    assert [one["id"] for one in database.find(Filters(), 9)] == [new["id"], labelled["id"]]
    assert database.labelled_images() == {labelled["sha256"]}


FULL_DISK = """
import asyncio, resource, sys
from pathlib import Path
from tests.service.history.test_history import record, running, wait_until
state = Path(sys.argv[1])
with running(f"sqlite:///{state / 'file' / 'x.sqlite'}", state) as (history, counts):
    wait_until(lambda: history.spool_bytes)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
    async def fill():
        while not counts:
            await history.remember(record())
        await history.remember(record())
    asyncio.run(fill())
    print(dict(counts))
"""
"""A limit on the size of files stands for the disk: what is written beyond it fails."""


def test_on_a_full_disk_records_are_lost_and_those_before_are_kept(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("{'disk': ")
    assert "make room there" in done.stderr
    (tmp_path / "file").unlink()
    url = f"sqlite:///{tmp_path / 'file' / 'x.sqlite'}"
    with running(url, tmp_path) as (history, counts):
        wait_until(lambda: counts[TAKEN] > 10)
        wait_until(lambda: history.waiting == 0)
    assert len(kept(url)) == counts[TAKEN]
