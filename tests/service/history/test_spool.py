"""The spool keeps its order and its bound, whoever else uses the file."""

import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.history.spool import Spool

LARGE = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "spool.sqlite"


def test_records_come_back_in_their_order_and_go_when_told(path: Path):
    spool = Spool(path, LARGE)
    spool.append(["a", "b"])
    spool.append(["c"])
    first = spool.first(2)
    assert [record for _, record in first] == ["a", "b"]
    assert spool.remove([n for n, _ in first], {}) == 2
    assert spool.remove([n for n, _ in first], {}) == 0  # another process was faster
    assert [record for _, record in Spool(path, LARGE).first(9)] == ["c"]
    assert spool.waiting == 1


def test_a_refused_record_is_set_aside_with_its_reason(path: Path):
    spool = Spool(path, LARGE)
    spool.append(["bad", "good"])
    (n, _), (other, _) = spool.first(2)
    spool.remove([n, other], {n: "why"})
    assert spool.waiting == 0
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT record, reason FROM refused").fetchall() == [("bad", "why")]


def test_a_full_spool_takes_nothing_more_and_again_when_it_was_emptied(path: Path):
    spool = Spool(path, 1)  # the smallest there is
    with pytest.raises(sqlite3.OperationalError, match="full") as refused:
        all(spool.append(["x" * 1000]) is None for _ in range(1000))
    assert spool.is_full(refused.value)
    size = spool.file_bytes
    assert size <= 8 * 4096
    waiting = spool.first(1000)
    assert waiting
    with pytest.raises(sqlite3.OperationalError):
        spool.append(["x" * 8000])
    assert spool.first(1000) == waiting  # all or none
    spool.remove([n for n, _ in waiting], {})
    spool.append(["x" * 1000])
    assert spool.waiting == 1
    spool.sync()
    assert spool.file_bytes < size


def test_several_threads_and_processes_share_the_file(path: Path):
    Spool(path, LARGE).close()

    def fill(name: str) -> None:
        spool = Spool(path, LARGE)
        for number in range(50):
            spool.append([f"{name} {number}"])

    threads = [threading.Thread(target=fill, args=(name,)) for name in "ab"]
    program = (
        "import sys; from pathlib import Path; from service.history.spool import Spool\n"
        f"spool = Spool(Path(sys.argv[1]), {LARGE})\n"
        "for number in range(50): spool.append([f'c {number}'])"
    )
    other = subprocess.Popen([sys.executable, "-c", program, str(path)])
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert other.wait(60) == 0
    found = [record for _, record in Spool(path, LARGE).first(1000)]
    assert len(found) == 150
    for name in "abc":
        assert [one for one in found if one.startswith(name)] == [f"{name} {number}" for number in range(50)]


def test_many_open_a_new_file_at_once(tmp_path: Path):
    together = threading.Barrier(8)

    def open_it(path: Path) -> None:
        together.wait()
        Spool(path, LARGE).close()

    with ThreadPoolExecutor(8) as threads:
        for number in range(100):
            list(threads.map(open_it, [tmp_path / str(number) / "spool.sqlite"] * 8))
