"""A candidate scores live traffic beside the version that decides, is compared with it, and takes its place."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from model.lifecycle.calibrate import calibrate_category
from model.lifecycle.thresholds import Rule
from model.store.store import Store
from tests.conftest import Factory
from tests.end_to_end.conftest import Server, running_server, wait_for_metric
from tests.end_to_end.test_refusals import PNG, problem
from tests.service.cli.test_cli import run

STRIPED = "/v1/categories/striped"
CANDIDATE = STRIPED + "/candidate"


@pytest.fixture(scope="module")
def weights(factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A candidate of another image size, and two that cannot serve."""
    weights = tmp_path_factory.mktemp("candidates") / "weights"
    shutil.copytree(factory.weights, weights, ignore=shutil.ignore_patterns(".versions"))
    options = ["--candidate", "--teacher", "narrow", "--epochs", 3, "--image-size", 96]
    done = run("train", "striped", *options, "--normal", factory.data / "train", "--weights", weights)
    assert str(weights / ".candidates" / "striped") in done.stdout
    for category in ("brushed", "fresh"):
        shutil.copytree(weights / category, weights / ".candidates" / category)
    (weights / ".candidates" / "brushed" / "student.safetensors").write_bytes(b"half")
    card = weights / ".candidates" / "fresh" / "card.json"
    card.write_text(card.read_text().replace('"name": "narrow"', '"name": "lost"'))
    return weights


@pytest.fixture(scope="module")
def server(weights: Path) -> Iterator[Server]:
    with running_server(weights, device="cpu", shadow_inspections="22") as started:
        yield started


def described(url: str, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 120
    while not until(found := httpx.get(url + CANDIDATE).json()):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def with_candidates(url: str) -> dict[str, bool]:
    return {one["category"]: one["candidate"] for one in httpx.get(url + "/v1/categories").json()["categories"]}


def test_a_candidate_is_compared_and_then_promoted(server: Server, weights: Path, factory: Factory):
    url, store = server.url, Store(weights)
    in_force, candidate = store.card("striped"), store.candidates.card("striped")
    assert candidate.image_size != in_force.image_size
    assert with_candidates(url) == {"striped": True, "brushed": True, "fresh": True}  # refused ones too
    images = [path.read_bytes() for kind in ("good", "bad") for path in sorted((factory.data / kind).iterdir())]
    with httpx.Client(base_url=url) as client:
        sent = [client.post(STRIPED + "/inspect", content=image, headers=PNG).json() for image in images]
    assert {one["model_version"] for one in sent} == {in_force.model_version}
    found = described(
        url, lambda found: found["status"] == "complete" and found["comparison"]["inspections"] == found["scored"]
    )
    assert (found["model_version"], found["wanted"], found["scored"]) == (candidate.model_version, 22, 22)
    assert (found["skipped"], found["failed"]) == (0, 0)
    wait_for_metric(url, 'inspect_shadow_total{result="scored"} 22.0')

    promoted = httpx.post(f"{url}{CANDIDATE}/promote", params={"version": candidate.model_version})
    comparison = found["comparison"]
    assert promoted.status_code == 200, promoted.text
    assert promoted.json()["model_version"] == candidate.model_version
    problem(httpx.get(url + CANDIDATE), 404, "no-candidate")
    assert not with_candidates(url)["striped"]
    again = [httpx.post(url + STRIPED + "/inspect", content=image, headers=PNG).json() for image in images]
    assert {one["model_version"] for one in again} == {candidate.model_version}
    # What it said in the shadow is what it says now that it decides.
    pairs = [*zip(sent, again, strict=True)][:22]
    changed = [(old, new) for old, new in pairs if old["decision"] != new["decision"]]
    assert comparison["model_version"] == in_force.model_version
    assert comparison["to_anomalous"] + comparison["to_normal"] == len(changed)
    assert [one["id"] for one in comparison["changed"]] == [old["id"] for old, _ in reversed(changed)]
    for one, (old, new) in zip(comparison["changed"], reversed(changed), strict=True):
        assert (one["decision"], one["candidate_decision"]) == (old["decision"], new["decision"])
        assert one["candidate_score"] == pytest.approx(new["score"], rel=1e-5)

    assert store.card("striped") == candidate
    lines = httpx.get(url + "/v1/audit", params={"action": "promote"}).json()["lines"]
    assert [(line["subject"], line["before"], line["after"]) for line in lines] == [
        ("striped", in_force.model_version, candidate.model_version)
    ]
    assert httpx.post(url + STRIPED + "/rollback").json()["model_version"] == in_force.model_version


def test_labels_decide_which_of_the_two_is_better(server: Server, weights: Path, factory: Factory):
    """A candidate that rejects everything is wrong about every good part."""
    url = server.url
    rule = Rule(threshold=1e-9)
    calibrate_category(weights, weights / "teachers", "striped", [], [], rule=rule, candidate=True)
    httpx.post(url + STRIPED + "/reload")
    good = [path.read_bytes() for path in sorted((factory.data / "good").iterdir())]
    sent = [httpx.post(url + STRIPED + "/inspect", content=image, headers=PNG).json() for image in good]
    found = described(url, lambda found: found["comparison"]["inspections"] == len(good))
    assert found["status"] == "scoring"
    for one in sent:
        assert httpx.put(f"{url}/v1/inspections/{one['id']}/label", json={"label": "normal"}).status_code == 200
    normal = sum(one["decision"] == "normal" for one in sent)
    labelled = httpx.get(url + CANDIDATE).json()["comparison"]["labelled"]
    assert labelled == {
        "normal": len(good),
        "anomalous": 0,
        "false_alarms": len(good) - normal,
        "misses": 0,
        "candidate_false_alarms": len(good),
        "candidate_misses": 0,
        "only_in_force_right": normal,
        "only_candidate_right": 0,
        "p_value": pytest.approx(2 / 2**normal),
        "proven": "in-force",
    }
    rule_of = {"params": {"only_if_proven": "true"}}
    said = problem(httpx.post(url + CANDIDATE + "/promote", **rule_of), 409, "not-proven")
    assert f"has scored {len(good)} of 22" in said
    wrong = {"params": {"only_if_proven": "true", "version": "another"}}
    problem(httpx.post(url + CANDIDATE + "/promote", **wrong), 404, "no-candidate")
    assert httpx.get(url + CANDIDATE).json()["model_version"] == found["model_version"]
    problem(httpx.delete(url + CANDIDATE, params={"version": "another"}), 404, "no-candidate")
    assert httpx.delete(url + CANDIDATE).status_code == 204
    problem(httpx.delete(url + CANDIDATE), 404, "no-candidate")
    problem(httpx.post(url + CANDIDATE + "/promote"), 404, "no-candidate")
    (line,) = httpx.get(url + "/v1/audit", params={"action": "drop-candidate"}).json()["lines"]
    assert (line["before"], line["after"]) == (found["model_version"], None)


def test_a_rule_promotes_the_candidate_when_labels_have_shown_that_it_is_better(
    server: Server, weights: Path, factory: Factory
):
    """The version in force rejects everything, the candidate nothing, and only good parts come."""
    url, teachers = server.url, weights / "teachers"
    before = Store(weights).card("striped")
    calibrate_category(weights, teachers, "striped", [], [], rule=Rule(threshold=1e-9))
    calibrate_category(weights, teachers, "striped", [], [], rule=Rule(threshold=1e9), candidate=True)
    httpx.post(url + STRIPED + "/reload")
    good = [path.read_bytes() for path in sorted((factory.data / "good").iterdir())]
    images = (2 * good)[:22]
    sent = [httpx.post(url + STRIPED + "/inspect", content=image, headers=PNG).json() for image in images]
    assert {one["decision"] for one in sent} == {"anomalous"}
    found = described(url, lambda found: found["status"] == "complete" and found["comparison"]["inspections"] == 22)
    by_rule = {"params": {"only_if_proven": "true"}}
    said = problem(httpx.post(url + CANDIDATE + "/promote", **by_rule), 409, "not-proven")
    assert "of 0 labelled inspections only the candidate is right about 0" in said
    for one in sent:
        httpx.put(f"{url}/v1/inspections/{one['id']}/label", json={"label": "normal"}).raise_for_status()
    assert httpx.get(url + CANDIDATE).json()["comparison"]["labelled"]["proven"] == "candidate"
    promoted = httpx.post(url + CANDIDATE + "/promote", **by_rule)
    assert (promoted.status_code, promoted.json()["model_version"]) == (200, found["model_version"])
    for _ in range(2):
        httpx.post(url + STRIPED + "/rollback").raise_for_status()
    assert Store(weights).card("striped") == before


@pytest.mark.parametrize(
    ("category", "reason"), [("brushed", "not the file its card was written for"), ("fresh", "lost")]
)
def test_a_candidate_that_cannot_serve_is_refused_while_the_category_decides(
    server: Server, factory: Factory, category: str, reason: str
):
    url = f"{server.url}/v1/categories/{category}"
    found = httpx.get(url + "/candidate").json()
    assert found["status"] == "refused"
    assert reason in found["reason"]
    assert (found["model_version"], found["comparison"]) == (None, None)
    assert reason in problem(httpx.post(url + "/candidate/promote"), 409, "reload-refused")
    image = (factory.data / "good" / "000.png").read_bytes()
    assert httpx.post(url + "/inspect", content=image, headers=PNG).status_code == 200


def test_unknown_categories_have_no_candidate(server: Server):
    url = server.url + "/v1/categories/nothing/candidate"
    for response in (httpx.get(url), httpx.post(url + "/promote"), httpx.delete(url)):
        problem(response, 404, "unknown-category")
