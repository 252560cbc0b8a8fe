"""Bad categories, new versions and the way back, in the real server: what serves is whole, and never mixed."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import load, save

from model.images import decode_image
from model.store.card import SCHEMA_VERSION, Card, SeenImages
from model.store.store import Store
from model.store.version import read_card
from tests.conftest import Factory
from tests.end_to_end.conftest import running_server, wait_for_metric
from tests.end_to_end.test_refusals import PNG, URL, problem
from tests.service.cli.test_cli import run


@pytest.fixture
def png(factory: Factory) -> bytes:
    return (factory.data / "good" / "000.png").read_bytes()


@pytest.fixture
def weights(factory: Factory, tmp_path: Path) -> Path:
    """Copies of good categories, of which no version has been replaced yet."""
    ignore = shutil.ignore_patterns(".versions")
    return Path(shutil.copytree(factory.weights, tmp_path / "weights", ignore=ignore))


def edit(folder: Path, **changes: object) -> None:
    """Changes a card by hand."""
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | changes))


def rehash(folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Changes the student, and the card's hash with it."""
    tensors = load((folder / "student.safetensors").read_bytes())
    change(tensors)
    data = save(tensors)
    (folder / "student.safetensors").write_bytes(data)
    edit(folder, student_sha256=sha256(data).hexdigest())


def truncated(folder: Path) -> None:
    data = (folder / "student.safetensors").read_bytes()
    (folder / "student.safetensors").write_bytes(data[:1000])


def truncated_and_rehashed(folder: Path) -> None:
    truncated(folder)
    edit(folder, student_sha256=sha256((folder / "student.safetensors").read_bytes()).hexdigest())


def swapped(folder: Path) -> None:
    shutil.copy(folder.with_name("brushed") / "student.safetensors", folder)


def of_other_shapes(folder: Path) -> None:
    rehash(folder, lambda tensors: tensors.update({"features.0.weight": np.zeros((4, 3, 3, 3), np.float32)}))


def not_finite(folder: Path) -> None:
    rehash(folder, lambda tensors: tensors["features.0.weight"].__setitem__((0, 0, 0, 0), np.nan))


def negative_variance(folder: Path) -> None:
    rehash(folder, lambda tensors: tensors["features.1.running_var"].__setitem__(0, -1.0))


def hand_edited(folder: Path) -> None:
    edit(folder, map_scale="large")


def newer(folder: Path) -> None:
    edit(folder, schema_version=SCHEMA_VERSION + 1)


def of_another_teacher(folder: Path) -> None:
    edit(folder, teacher={"name": "narrow", "sha256": "0" * 64})


BROKEN = {
    truncated: "not the file its card was written for",
    truncated_and_rehashed: "does not fit its card",
    swapped: "not the file its card was written for",
    of_other_shapes: "does not fit its card",
    not_finite: "not finite",
    negative_variance: "not finite",
    hand_edited: "map_scale",
    newer: f"schema version {SCHEMA_VERSION + 1}",
    of_another_teacher: "not the one this student learned from",
}


def listed(url: str) -> dict[str, dict[str, str]]:
    """The categories as clients see them, by name."""
    return {one["category"]: one for one in httpx.get(url + "/v1/categories").json()["categories"]}


def test_broken_categories_are_refused_with_their_reasons_and_all_others_serve(weights: Path, png: bytes):
    for fault in BROKEN:
        edit(Path(shutil.copytree(weights / "striped", weights / fault.__name__)), category=fault.__name__)
        fault(weights / fault.__name__)
    with running_server(weights, student_memory_bytes="0", reload_seconds="0.05") as server:
        categories = listed(server.url)
        for fault, reason in BROKEN.items():
            name = fault.__name__
            assert categories[name]["status"] == "refused"
            assert reason in categories[name]["reason"]
            server.wait_for_log(f"category {name} is refused", reason)
            response = httpx.post(f"{server.url}/v1/categories/{name}/inspect", content=png, headers=PNG)
            assert reason in problem(response, 503, "category-refused")
        assert f'inspect_categories{{status="refused"}} {len(BROKEN)}.0' in httpx.get(server.url + "/metrics").text
        for name in ("striped", "brushed", "fresh"):
            response = httpx.post(f"{server.url}/v1/categories/{name}/inspect", content=png, headers=PNG)
            assert response.status_code == 200
        shutil.rmtree(weights / "striped")  # and its student is not in memory
        response = httpx.post(server.url + URL, content=png, headers=PNG)
        assert "No such file" in problem(response, 503, "category-refused")
        assert listed(server.url)["striped"]["status"] == "refused"
        assert listed(server.url)["brushed"]["status"] == "ready"
        metrics = httpx.get(server.url + "/metrics").text
        assert f'inspect_categories{{status="refused"}} {len(BROKEN) + 1}.0' in metrics
        assert "inspect_students_evicted_total" in metrics


def test_a_server_without_a_weights_folder_says_so_and_serves_what_is_put_there(
    factory: Factory, tmp_path: Path, png: bytes
):
    weights = tmp_path / "weights"
    with running_server(weights, reload_seconds="0.05", teachers=str(factory.teachers)) as server:
        server.wait_for_log(f"there is no weights folder {weights}")
        problem(httpx.get(server.url + "/readyz"), 503, "no-category")
        problem(httpx.post(server.url + URL, content=png, headers=PNG), 404, "unknown-category")
        assert 'inspect_categories{status="ready"} 0.0' in httpx.get(server.url + "/metrics").text
        shutil.copytree(factory.weights, weights)
        wait_for_metric(server.url, 'inspect_category_ready{category="striped"} 1.0')
        assert httpx.get(server.url + "/readyz").status_code == 200
        assert httpx.post(server.url + URL, content=png, headers=PNG).status_code == 200


@dataclass
class Version:
    """A version of ``striped`` to be written into a weights folder, and the scores that it gives offline."""

    card: Card
    student: bytes
    scores: list[float]

    def write(self, weights: Path) -> None:
        """Puts it into its place."""
        store = Store(weights)
        store.write(self.card, self.student, SeenImages(), replace=store.in_place(self.card.category))


@pytest.fixture
def images(factory: Factory) -> list[bytes]:
    return [path.read_bytes() for path in sorted((factory.data / "bad").iterdir())[:4]]


@pytest.fixture
def versions(factory: Factory, images: list[bytes]) -> tuple[Version, Version]:
    made = []
    for category in ("striped", "brushed"):
        card, detector = Store(factory.weights, factory.teachers).load(category)
        pixels = np.concatenate([card.preprocessor.apply(decode_image(data)) for data in images])
        student = (factory.weights / category / "student.safetensors").read_bytes()
        card = card.model_copy(update={"category": "striped", "model_version": f"from-{category}"})
        made.append(Version(card, student, detector(pixels).scores.tolist()))
    return made[0], made[1]


def test_a_hundred_reloads_under_load_fail_no_request_and_mix_no_versions(
    weights: Path, images: list[bytes], versions: tuple[Version, Version]
):
    answers: list[tuple[int, httpx.Response]] = []
    enough = threading.Event()

    def ask(url: str) -> None:
        with httpx.Client(timeout=60) as client:
            while not enough.is_set():
                for index, image in enumerate(images):
                    answers.append((index, client.post(url + URL, content=image, headers=PNG)))

    versions[1].write(weights)
    with running_server(weights, reload_seconds="0.05") as server, ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(ask, server.url) for _ in range(4)]
        try:
            for number in range(100):
                version = versions[number % 2]
                version.write(weights)
                response = httpx.post(server.url + "/v1/categories/striped/reload", timeout=60)
                assert response.status_code == 200, response.text
                assert response.json()["model_version"] == version.card.model_version
        finally:
            enough.set()
        for client in clients:
            client.result()
    by_name = {version.card.model_version: version for version in versions}
    seen = set()
    for index, response in answers:
        assert response.status_code == 200, response.text
        answer = response.json()
        version = by_name[answer["model_version"]]
        assert answer["threshold"] == version.card.calibration.threshold
        assert answer["score"] == pytest.approx(version.scores[index], rel=1e-4)
        seen.add(answer["model_version"])
    assert seen == set(by_name)
    assert abs(versions[0].scores[0] / versions[1].scores[0] - 1) > 0.01


def wait_until(condition: Callable[[], bool]) -> None:
    """Returns when it holds."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_new_versions_and_categories_appear_bad_ones_do_not_and_one_call_goes_back(
    weights: Path, png: bytes, versions: tuple[Version, Version]
):
    def version_of(category: str) -> str | None:
        return listed(server.url).get(category, {}).get("model_version")

    def post(category: str, what: str) -> httpx.Response:
        return httpx.post(f"{server.url}/v1/categories/{category}/{what}", timeout=60)

    with running_server(weights, reload_seconds="0.05") as server:
        first = read_card(weights / "striped")
        problem(post("striped", "rollback"), 409, "no-previous-version")
        versions[1].write(weights)
        wait_until(lambda: version_of("striped") == "from-brushed")
        rolled_back = post("striped", "rollback").json()
        assert rolled_back["persistent"] is True
        assert rolled_back["model_version"] == first.model_version
        assert read_card(weights / "striped") == first
        assert httpx.post(server.url + URL, content=png, headers=PNG).json()["model_version"] == first.model_version
        problem(post("striped", "rollback"), 409, "no-previous-version")
        kept = httpx.get(f"{server.url}/v1/categories/striped").json()["kept_versions"]
        assert [(one["model_version"], one["rolled_back"]) for one in kept] == [("from-brushed", True)]
        run("rollback", "striped", "--to", "from-brushed", "--weights", weights)
        wait_until(lambda: version_of("striped") == "from-brushed")

        not_finite(weights / "striped")
        # By the server's own look, perhaps while only half of it was written.
        wait_until(lambda: "inspect_reloads_refused_total 0.0" not in httpx.get(server.url + "/metrics").text)
        assert "not finite" in problem(post("striped", "reload"), 409, "reload-refused")
        server.wait_for_log("the current version stays in use")
        answer = httpx.post(server.url + URL, content=png, headers=PNG).json()
        assert answer["model_version"] == "from-brushed"

        edit(Path(shutil.copytree(weights / "fresh", weights.parent / "another")), category="another")
        (weights.parent / "another").rename(weights / "another")
        wait_until(lambda: version_of("another") is not None)
        response = httpx.post(f"{server.url}/v1/categories/another/inspect", content=png, headers=PNG)
        assert response.status_code == 200

        shutil.rmtree(weights / "another")
        response = httpx.post(f"{server.url}/v1/categories/another/inspect", content=png, headers=PNG)
        assert response.status_code == 200
        problem(post("another", "reload"), 409, "reload-refused")
        assert listed(server.url)["another"]["status"] == "refused"
        for unknown in ("nothing", "teachers", ".versions", "a%00b", "x" * 300):
            problem(post(unknown, "reload"), 404, "unknown-category")
            problem(post(unknown, "rollback"), 404, "unknown-category")


def test_a_folder_that_was_away_for_a_moment_serves_again_by_itself(weights: Path, png: bytes):
    with running_server(weights, student_memory_bytes="0", reload_seconds="0.05") as server:
        other = f"{server.url}/v1/categories/brushed/inspect"
        assert httpx.post(other, content=png, headers=PNG).status_code == 200  # striped leaves memory
        (weights / "striped").rename(weights.parent / "away")
        problem(httpx.post(server.url + URL, content=png, headers=PNG), 503, "category-refused")
        assert listed(server.url)["striped"]["status"] == "refused"
        (weights.parent / "away").rename(weights / "striped")  # the same files, as when a mount comes back
        wait_until(lambda: listed(server.url)["striped"]["status"] == "ready")
        assert httpx.post(server.url + URL, content=png, headers=PNG).status_code == 200


def test_a_version_that_only_memory_has_is_never_dropped_from_it(
    weights: Path, png: bytes, versions: tuple[Version, Version]
):
    first = read_card(weights / "striped").model_version
    two_students = 2.5 * (weights / "striped" / "student.safetensors").stat().st_size
    with running_server(weights, student_memory_bytes=str(int(two_students)), reload_seconds="0") as server:
        category = f"{server.url}/v1/categories/striped"
        assert httpx.post(server.url + URL, content=png, headers=PNG).status_code == 200
        versions[1].write(weights)
        assert httpx.post(category + "/reload").json()["model_version"] == "from-brushed"
        shutil.rmtree(weights / ".versions")
        rolled_back = httpx.post(category + "/rollback").json()
        assert (rolled_back["persistent"], rolled_back["model_version"]) == (False, first)
        for other in ("brushed", "fresh"):
            response = httpx.post(f"{server.url}/v1/categories/{other}/inspect", content=png, headers=PNG)
            assert response.status_code == 200
        answer = httpx.post(server.url + URL, content=png, headers=PNG)
        assert answer.status_code == 200, answer.text
        assert answer.json()["model_version"] == first
        problem(httpx.post(category + "/rollback"), 409, "no-previous-version")
        forward = httpx.post(category + "/rollback", params={"to": "from-brushed"}).json()
        assert (forward["persistent"], forward["model_version"]) == (True, "from-brushed")
