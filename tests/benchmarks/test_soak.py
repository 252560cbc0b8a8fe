"""The soak's account of itself finds what is missing, what nothing explains, and what the server tells otherwise."""

import json
from collections import Counter
from time import monotonic

import numpy as np
import pytest

from benchmarks.soak import BUSY, GONE, IN_BATCH, Fault, Ledger, checks_of_log, checks_of_metrics, course, read_metrics

METRICS = """\
# TYPE inspect_requests counter
inspect_requests_total{endpoint="inspect",status="200"} 2.0
inspect_requests_total{endpoint="inspect-batch",status="200"} 1.0
inspect_requests_total{endpoint="inspect",status="429"} 1.0
inspect_requests_total{endpoint="inspect",status="400"} 1.0
# TYPE inspect_rejections counter
inspect_rejections_total{reason="queue-full"} 1.0
inspect_rejections_total{reason="client-gone"} 1.0
inspect_rejections_total{reason="not-decodable"} 1.0
inspect_rejections_total{reason="malformed-request"} 1.0
# TYPE inspect_images counter
inspect_images_total{category="a",outcome="normal"} 2.0
inspect_images_total{category="b",outcome="anomalous"} 1.0
inspect_images_total{category="a",outcome="queue-full"} 1.0
inspect_images_total{category="a",outcome="client-gone"} 1.0
# TYPE inspect_device_restarts counter
inspect_device_restarts_total 1.0
"""


def enter(ledger: Ledger, what: str, kind: str, *allowed: str) -> None:
    ledger.receive(what, kind, ledger.send(what), {*allowed})


@pytest.fixture
def ledger() -> Ledger:
    """Of a server that told `METRICS`. Of the two clients that left, one was answered after all."""
    made = Ledger(decisions=Counter(normal=1, anomalous=1))
    for what, kind in (
        ("image", "200"), ("image", "429 queue-full"), ("left", GONE), ("left", GONE), ("batch", "200"),
        (IN_BATCH, "verdict"), (IN_BATCH, "422 not-decodable"), ("no HTTP", "400 malformed-request"),
    ):  # fmt: skip
        enter(made, what, kind, kind)
    return made


def failed(checks: dict[str, str]) -> set[str]:
    return {name for name, wrong in checks.items() if wrong}


def test_metrics_that_agree_and_metrics_that_do_not(ledger: Ledger):
    assert failed(checks_of_metrics(ledger, read_metrics(METRICS), losses=1)) == set()
    for line, name in (
        ('inspect",status="200"} 2.0', "requests by status"),
        ('reason="queue-full"} 1.0', "rejections by reason"),
        ('reason="malformed-request"} 1.0', "rejections by reason"),
        ('outcome="anomalous"} 1.0', "images by decision"),
        ("inspect_device_restarts_total 1.0", "device restarts"),
    ):
        for value in (0, 5):
            other = METRICS.replace(line, f"{line.rpartition(' ')[0]} {value}")
            assert other != METRICS
            assert name in failed(checks_of_metrics(ledger, read_metrics(other), losses=1))


def test_what_has_no_answer_and_what_was_never_seen(ledger: Ledger):
    assert not ledger.unanswered()
    ledger.send("image")
    assert ledger.unanswered() == {"image": 1}
    ledger.wanted = {"429 queue-full", "504 deadline-passed"}
    assert ledger.never_seen() == {"504 deadline-passed"}


def test_a_fault_explains_what_came_while_it_was_there_and_nothing_else():
    ledger = Ledger()
    enter(ledger, "image", "429 queue-full", "200", *BUSY)
    assert not ledger.unexplained
    enter(ledger, "image", "503 device-lost", "200")
    assert ledger.unexplained == {"image: 503 device-lost": 1}
    before = monotonic()
    ledger.faults.append(Fault({"503 device-lost"}))
    enter(ledger, "image", "503 device-lost", "200")
    enter(ledger, "image", "500 internal-error", "200")
    assert ledger.unexplained == {"image: 503 device-lost": 1, "image: 500 internal-error": 1}
    ledger.faults[0].ended = monotonic()
    ledger.receive("image", "503 device-lost", before, {"200"})  # it was there already
    assert ledger.unexplained["image: 503 device-lost"] == 1
    ledger.receive("image", "503 device-lost", monotonic() + 1, {"200"})
    assert ledger.unexplained["image: 503 device-lost"] == 2


def test_a_log_that_is_odd():
    def line(message: str, level: str = "info") -> str:
        return json.dumps({"level": level, "message": message})

    lines = [line("request")] * 4 + [line("request", "warning"), line("the device thread has died", "critical")]
    metrics = read_metrics(METRICS)
    assert failed(checks_of_log(lines, metrics)) == set()
    assert failed(checks_of_log(lines[1:], metrics)) == {"one log line a request"}
    for odd in ("Traceback (most recent call last):\n", line("Task exception was never retrieved", "error")):
        assert failed(checks_of_log([*lines, odd], metrics)) == {"no log line is odd"}


def test_the_course_of_memory():
    seconds = np.arange(0.0, 3600.0)
    found = course(seconds, 100 + seconds / 36)
    assert found["slope_per_hour"] == 100.0
    assert found["tenths"] == [105.0, 115.0, 125.0, 135.0, 145.0, 155.0, 165.0, 175.0, 185.0, 195.0]
