"""Labels set the threshold of the running server, and nothing is changed where they cannot."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import pytest

from model.store.version import read_card
from tests.conftest import Factory, surface
from tests.end_to_end.conftest import Server, running_server
from tests.end_to_end.test_history import HISTORY, in_history
from tests.end_to_end.test_refusals import BATCH, PNG, URL, problem
from tests.service.cli.test_cli import run

CALIBRATIONS = "/v1/categories/striped/calibrations"


def png(seed: int, *, fault: bool = False) -> bytes:
    return cv2.imencode(".png", surface(seed, fault=fault))[1].tobytes()


def inspect_and_label(url: str) -> None:
    """30 good and 10 faulty parts that nobody has seen."""
    labels = {}
    for start, count, fault, label in ((5000, 30, False, "normal"), (6000, 10, True, "anomalous")):
        images = [("image", png(seed, fault=fault)) for seed in range(start, start + count)]
        results = httpx.post(url + BATCH, files=images, timeout=60).json()["results"]
        labels |= {one["id"]: label for one in results}
    for identity, label in labels.items():
        in_history(url, identity)
        assert httpx.put(f"{url}{HISTORY}/{identity}/label", json={"label": label}, timeout=60).status_code == 200


@pytest.fixture(scope="module")
def weights(factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    ignore = shutil.ignore_patterns(".versions")
    return Path(shutil.copytree(factory.weights, tmp_path_factory.mktemp("calibrations") / "weights", ignore=ignore))


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def server(weights: Path, state: Path) -> Iterator[Server]:
    with running_server(weights, keep_images="all", state=str(state), reload_seconds="0") as started:
        inspect_and_label(started.url)
        yield started


def calibrate(server: Server, **order: object) -> httpx.Response:
    return httpx.post(server.url + CALIBRATIONS, json=order, timeout=60)


def serving(server: Server) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.post(server.url + URL, content=png(5000), headers=PNG, timeout=60).json()
    return answer


def test_a_threshold_from_labels_serves_at_once_and_a_rollback_goes_back(server: Server, weights: Path):
    before = serving(server)
    dry = calibrate(server, max_false_alarms=0.1, dry_run=True).json()
    assert serving(server)["model_version"] == before["model_version"]
    made = calibrate(server, max_false_alarms=0.1, reason="a line of its own").json()
    assert made | {"dry_run": True} == dry
    assert made["calibration"] == "false-alarm-target"
    assert made["before"]["model_version"] == before["model_version"]
    assert (made["labels"]["normal"], made["labels"]["sampled_anomalous"]) == (30, 10)
    assert made["error_rates"]["false_alarms"]["expected"] == pytest.approx(3 / 31)
    assert "Of new good parts, about 9.7 % are rejected on average" in made["error_rates"]["text"]
    assert (made["left_out"], made["remarks"]) == ({}, [])
    now = serving(server)
    assert (now["model_version"], now["threshold"]) == (made["model_version"], made["threshold"])
    assert read_card(weights / "striped").calibration.labels is not None
    line = httpx.get(server.url + "/v1/audit", params={"subject": "striped", "action": "calibrate"}).json()["lines"][0]
    assert line["before"] == made["before"]
    assert line["after"]["threshold"] == made["threshold"]
    assert line["after"]["reason"] == "a line of its own"
    back = httpx.post(server.url + "/v1/categories/striped/rollback").json()
    assert back["model_version"] == before["model_version"]
    assert serving(server)["threshold"] == before["threshold"]


def test_labels_of_a_kept_version_count_and_a_person_may_choose(server: Server):
    made = calibrate(server, threshold=123.5, reason="by the slider").json()
    assert (made["calibration"], made["threshold"], made["labels"]["anomalous"]) == ("manual", 123.5, 10)
    assert made["error_rates"]["misses"]["errors"] == 10
    made = calibrate(server, method="youden").json()
    assert (made["before"]["threshold"], made["calibration"]) == (123.5, "youden")
    assert made["labels"]["normal"] == 30
    assert made["error_rates"]["misses"]["errors"] <= 1
    assert httpx.get(server.url + "/v1/categories/striped").json()["card"]["calibration"]["labels"] == made["labels"]


def test_parts_in_the_review_band_are_for_a_person(server: Server):
    counted = httpx.get(server.url + "/metrics").text
    assert 'inspect_verdicts_total{category="striped",verdict="review"} 0.0' in counted
    score = serving(server)["score"]
    band = {"low": score / 2, "high": 2 * score}
    made = calibrate(server, threshold=1.5 * score, reason="a band", review=band).json()
    assert made["review"] == band
    answer = serving(server)
    assert (answer["decision"], answer["verdict"]) == ("normal", "review")
    assert in_history(server.url, answer["id"])["verdict"] == "review"
    found = httpx.get(server.url + HISTORY, params={"verdict": "review"}).json()["inspections"]
    assert [one["id"] for one in found] == [answer["id"]]
    rows = httpx.get(server.url + HISTORY + "/export", params={"verdict": "review"}).text.splitlines()
    assert (rows[0].endswith(",verdict"), rows[1].endswith(",review"), len(rows)) == (True, True, 2)
    counted = httpx.get(server.url + "/metrics").text
    assert 'inspect_verdicts_total{category="striped",verdict="review"} 1.0' in counted
    picture = httpx.post(server.url + URL, content=png(5000), headers=PNG | {"Accept": "image/png"}, timeout=60)
    assert (picture.headers["x-anomaly-decision"], picture.headers["x-anomaly-verdict"]) == ("normal", "review")
    detail = problem(calibrate(server, method="youden", review_false_passes=0.05), 422, "calibration-refused")
    assert "takes 59 faulty parts; 10 are there" in detail
    assert calibrate(server, method="youden").json()["review"] is None


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ({}, "exactly one of method, max_false_alarms, threshold"),
        ({"method": "youden", "threshold": 1.0}, "exactly one of"),
        ({"method": "quantile"}, "method: "),
        ({"threshold": 1.0}, "needs a reason"),
        ({"threshold": 0, "reason": "x"}, "greater than 0"),
        ({"threshold": "1", "reason": "x"}, "valid number"),
        ({"threshold": True, "reason": "x"}, "valid number"),
        ({"max_false_alarms": 1}, "less than 1"),
        ({"max_false_alarms": 1e-300}, "0.000001|1e-06"),
        ({"method": "youden", "with_confidence": True}, "with_confidence goes with max_false_alarms"),
        ({"method": "youden", "since": 1750000000}, "such as 2026-05-01T06:00:00Z"),
        ({"method": "youden", "since": "2026-05-02T00:00:00", "until": "2026-05-01T00:00:00Z"}, "since must be before"),
        ({"method": "youden", "review": {"low": 1, "high": 2}, "review_false_passes": 0.1}, "give either review, or"),
        ({"method": "youden", "review": {"low": 0, "high": 2}}, "review.low: "),
        ({"method": "youden", "category": "x"}, "category: Extra inputs"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(server: Server, order: dict[str, object], reason: str):
    detail = problem(calibrate(server, **order), 422, "invalid-request")
    assert any(one in detail for one in reason.split("|")), detail


def test_what_labels_cannot_give_is_refused_and_nothing_changes(server: Server, weights: Path):
    before = (weights / "striped" / "card.json").read_bytes()
    detail = problem(calibrate(server, max_false_alarms=0.01), 422, "calibration-refused")
    assert "takes 99 good parts, and 299 with 95 % confidence; 30 are there" in detail
    assert "30 labelled good parts count, of which 30 are in the random sample" in detail
    detail = problem(calibrate(server, method="youden", until="2020-01-01T00:00:00Z"), 422, "calibration-refused")
    assert "no labelled good part counts" in detail
    other = httpx.post(server.url + CALIBRATIONS.replace("striped", "brushed"), json={"method": "youden"})
    assert "0 good and 0 faulty parts" in problem(other, 422, "calibration-refused")
    problem(httpx.post(server.url + CALIBRATIONS.replace("striped", "x"), json={}), 404, "unknown-category")
    problem(httpx.post(server.url + CALIBRATIONS, content=b"{}"), 415, "unsupported-media-type")
    assert (weights / "striped" / "card.json").read_bytes() == before


def test_what_the_command_line_wrote_is_reloaded_first(
    server: Server, weights: Path, state: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("INSPECT_STATE", str(state))
    options = ["--from-history", "--threshold", 77, "--reason", "a test", "--weights", weights]
    done = run("calibrate", "striped", *options)
    assert "method manual" in done.stdout
    assert "30 good and 10 faulty parts" in done.stdout
    detail = problem(calibrate(server, method="youden"), 409, "category-changed")
    assert "reload the category" in detail
    assert httpx.post(server.url + "/v1/categories/striped/reload", timeout=60).json()["threshold"] == 77
    line = httpx.get(server.url + "/v1/audit", params={"action": "calibrate"}).json()["lines"][0]
    assert line["actor"].startswith("command line, ")
    assert line["after"]["reason"] == "a test"
