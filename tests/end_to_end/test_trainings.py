"""A training that the server runs makes a candidate, says how far it is, and can be ended."""

import shutil
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from model.store.store import Store
from tests.conftest import Factory
from tests.end_to_end.conftest import Server, running_server
from tests.end_to_end.test_refusals import PNG, problem


@pytest.fixture(scope="module")
def weights(factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = tmp_path_factory.mktemp("trainings") / "weights"
    shutil.copytree(factory.weights, weights, ignore=shutil.ignore_patterns(".versions"))
    return weights


@pytest.fixture(scope="module")
def server(weights: Path, factory: Factory) -> Iterator[Server]:
    """It has the original images of ``striped`` alone."""
    images = weights.with_name("images")
    shutil.copytree(factory.data / "train", images / "striped" / "train" / "good")
    with running_server(weights, device="cpu", keep_images="all", training_images=str(images)) as started:
        yield started


def start(url: str, category: str) -> dict[str, Any]:
    response = httpx.post(f"{url}/v1/categories/{category}/trainings")
    assert response.status_code == 202, response.text
    job: dict[str, Any] = response.json()
    return job


def ended(url: str, job: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + 600
    while (found := httpx.get(f"{url}/v1/jobs/{job['id']}").json())["status"] == "running":
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def test_a_training_makes_a_candidate_from_original_and_labelled_images(
    server: Server, weights: Path, factory: Factory
):
    url, store = server.url, Store(weights)
    good = [path.read_bytes() for path in sorted((factory.data / "good").iterdir())][:2]
    for image in good:
        answer = httpx.post(url + "/v1/categories/striped/inspect", content=image, headers=PNG).json()
        while (
            httpx.put(f"{url}/v1/inspections/{answer['id']}/label", json={"label": "normal"}).status_code == 404
            or not httpx.get(f"{url}/v1/inspections/{answer['id']}").json()["image"]["kept"]
        ):
            time.sleep(0.05)
    job = start(url, "striped")
    assert (job["status"], job["labelled_images"], job["with_original_images"]) == ("running", 2, True)
    problem(httpx.post(url + "/v1/categories/brushed/trainings"), 409, "training-running")
    done = ended(url, job)
    assert done["status"] == "done", done
    card, before = store.candidates.card("striped"), store.card("striped")
    assert done["model_version"] == card.model_version
    assert done["epochs_done"] == done["epochs"] == before.training.epochs
    assert done["loss"] == pytest.approx(card.training.final_loss)
    assert (card.preprocessing, card.score, card.image_size) == (before.preprocessing, before.score, before.image_size)
    seen = store.candidates.seen("striped")
    assert {sha256(image).hexdigest() for image in good} <= {*seen.training, *seen.held_out}
    assert card.training.images + card.training.held_out == 22
    found = httpx.get(url + "/v1/categories/striped/candidate").json()
    assert (found["status"], found["model_version"]) == ("scoring", card.model_version)
    assert httpx.get(url + "/v1/jobs").json()["jobs"][0] == done
    (line,) = httpx.get(url + "/v1/audit", params={"action": "train"}).json()["lines"]
    assert (line["subject"], line["after"]) == ("striped", job["id"])


def test_a_training_that_is_cancelled_leaves_nothing(server: Server, weights: Path):
    candidate = Store(weights).candidates
    before = candidate.stamp("striped")
    job = start(server.url, "striped")
    cancelled = httpx.delete(f"{server.url}/v1/jobs/{job['id']}", timeout=60).json()
    assert (cancelled["status"], cancelled["model_version"]) == ("cancelled", None)
    assert cancelled["ended"] is not None
    assert candidate.stamp("striped") == before
    assert httpx.delete(f"{server.url}/v1/jobs/{job['id']}").json() == cancelled
    assert start(server.url, "striped")["status"] == "running"  # there is room for the next one
    problem(httpx.get(server.url + "/v1/jobs/0196a1f2-8c1e-7d40-9b1a-5f0c7c1d2e3f"), 404, "unknown-job")


def test_a_training_without_images_does_not_begin(server: Server):
    last = httpx.get(server.url + "/v1/jobs").json()["jobs"][0]
    httpx.delete(f"{server.url}/v1/jobs/{last['id']}", timeout=60)
    url = f"{server.url}/v1/categories/fresh/trainings"
    assert "no kept image of it is labelled normal" in problem(httpx.post(url), 409, "no-training-images")
    sentence = problem(
        httpx.post(url.replace("fresh", "nothing"), json={"teacher": "narrow"}), 409, "no-training-images"
    )
    assert "there is no category 'nothing' yet" in sentence


def test_too_few_images_fail_and_say_so(server: Server, factory: Factory):
    image = (factory.data / "good" / "000.png").read_bytes()
    answer = httpx.post(server.url + "/v1/categories/brushed/inspect", content=image, headers=PNG).json()
    while httpx.put(f"{server.url}/v1/inspections/{answer['id']}/label", json={"label": "normal"}).status_code == 404:
        time.sleep(0.05)
    job = start(server.url, "brushed")
    assert (job["labelled_images"], job["with_original_images"]) == (1, False)
    failed = ended(server.url, job)
    assert failed["status"] == "failed"
    assert "1 different images are too few to train on, 8 at least" in failed["message"]
