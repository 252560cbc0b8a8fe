"""Faults of the device, the files and the machine, each made in the real server: who is concerned is told at once."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from safetensors.numpy import load, save

from model.images import decode_image
from model.store.card import Card, SeenImages
from model.store.store import Store
from model.store.version import read_card
from tests.conftest import Factory
from tests.end_to_end.conftest import COMMAND, Server, running_server, wait_for_metric
from tests.end_to_end.test_refusals import PNG, URL, problem, raw_request

FAULTY = Path(__file__).with_name("faulty.py")


@dataclass
class FaultyServer:
    """A real server, and the file that its device obeys; see `faulty`."""

    server: Server
    orders: Path

    @property
    def url(self) -> str:
        """Its address."""
        return self.server.url

    def inspect(self, png: bytes) -> httpx.Response:
        """Sends an image."""
        return httpx.post(self.url + URL, content=png, headers=PNG, timeout=60)


@contextmanager
def faulty_server(weights: Path, folder: Path, **settings: str) -> Iterator[FaultyServer]:
    """Starts one whose device has no orders yet."""
    orders = folder / "orders"
    orders.write_text("")
    with running_server(weights, command=(sys.executable, str(FAULTY), str(orders)), **settings) as server:
        try:
            yield FaultyServer(server, orders)
        finally:
            orders.write_text("")


@pytest.fixture
def png(factory: Factory) -> bytes:
    return (factory.data / "good" / "000.png").read_bytes()


@pytest.fixture(scope="module")
def faulty(factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyServer]:
    with faulty_server(factory.weights, tmp_path_factory.mktemp("faulty"), device_batch="4") as started:
        yield started


def test_a_device_thread_that_dies_is_replaced(faulty: FaultyServer, png: bytes):
    before = faulty.inspect(png).json()["score"]
    faulty.orders.write_text("die 1")
    problem(faulty.inspect(png), 503, "device-lost")
    assert faulty.inspect(png).json()["score"] == before
    assert "inspect_device_restarts_total 1.0" in httpx.get(faulty.url + "/metrics").text
    assert httpx.get(faulty.url + "/livez").status_code == 200
    assert httpx.get(faulty.url + "/readyz").status_code == 200


def test_a_batch_that_does_not_fit_is_split_and_an_image_that_does_not_fit_fails_alone(
    faulty: FaultyServer, png: bytes
):
    faulty.orders.write_text("memory-1")
    files = [("image", ("a.png", png))] * 8
    answer = httpx.post(faulty.url + "/v1/categories/striped/inspect-batch", files=files, timeout=60).json()
    assert len({result["score"] for result in answer["results"]}) == 1
    faulty.orders.write_text("memory-0 1")
    problem(faulty.inspect(png), 503, "out-of-memory")
    assert faulty.inspect(png).status_code == 200


def test_a_client_that_goes_frees_its_place(faulty: FaultyServer, png: bytes):
    faulty.orders.write_text("wait")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(faulty.inspect, png)
        wait_for_metric(faulty.url, "inspect_in_flight_images 1.0")
        wait_for_metric(faulty.url, "inspect_queue_depth_images 0.0")
        gone = [raw_request(faulty.url, png, len(png)) for _ in range(5)]
        wait_for_metric(faulty.url, "inspect_queue_depth_images 5.0")
        for connection in gone:
            connection.close()
        wait_for_metric(faulty.url, "inspect_in_flight_images 1.0")
        faulty.orders.write_text("")
        assert first.result().status_code == 200
    wait_for_metric(faulty.url, "inspect_in_flight_images 0.0")
    metrics = httpx.get(faulty.url + "/metrics").text
    assert "inspect_queue_depth_images 0.0" in metrics
    assert 'inspect_images_total{category="striped",outcome="client-gone"} 5.0' in metrics


def test_a_large_form_needs_no_disk(faulty: FaultyServer):
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype=np.uint8)
    png = cv2.imencode(".png", noise)[1].tobytes()
    assert len(png) > 2 << 20
    files = [("image", ("a.png", png))] * 3
    answer = httpx.post(faulty.url + "/v1/categories/striped/inspect-batch", files=files, timeout=60).json()
    assert all("score" in result for result in answer["results"])
    assert httpx.post(faulty.url + URL, files=files[:1], timeout=60).status_code == 200


def test_a_log_that_cannot_be_written_fails_no_request(factory: Factory, png: bytes):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(
            [str(COMMAND), "serve", "--port", str(port), "--weights", str(factory.weights)], stderr=full
        )
    try:
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(transport=httpx.HTTPTransport(retries=10), timeout=60) as client:
            assert client.get(url + "/readyz").status_code == 200
        assert httpx.post(url + URL, content=png, headers=PNG, timeout=60).status_code == 200
        problem(httpx.post(url + URL, content=b"x", headers=PNG, timeout=60), 422, "not-decodable")
    finally:
        process.terminate()
        process.wait(60)


def test_a_device_that_is_given_up_fails_the_probes_and_is_answered_at_once(
    factory: Factory, png: bytes, tmp_path: Path
):
    with faulty_server(factory.weights, tmp_path) as faulty:
        faulty.orders.write_text("die")
        for _ in range(5):
            problem(faulty.inspect(png), 503, "device-lost")
        problem(httpx.get(faulty.url + "/livez"), 503, "not-alive")
        problem(httpx.get(faulty.url + "/readyz"), 503, "device-lost")
        assert "inspect_device_restarts_total 3.0" in httpx.get(faulty.url + "/metrics").text
        assert "inspect_in_flight_images 0.0" in httpx.get(faulty.url + "/metrics").text
        assert any("restart the process" in line for line in faulty.server.log)
        faulty.server.process.send_signal(signal.SIGTERM)
        assert faulty.server.process.wait(60) == 0


def test_a_device_that_hangs_is_given_up_in_time_and_the_probes_tell_the_truth(
    factory: Factory, png: bytes, tmp_path: Path
):
    with faulty_server(factory.weights, tmp_path, device_timeout_seconds="1", device_batch="1") as faulty:
        faulty.orders.write_text("hang 1")
        with ThreadPoolExecutor(4) as pool:
            statuses = sorted(response.status_code for response in pool.map(faulty.inspect, [png] * 4))
        assert statuses == [200, 200, 200, 503]
        assert httpx.get(faulty.url + "/livez").status_code == 200
        faulty.orders.write_text("wait")
        problem(faulty.inspect(png), 503, "device-lost")
        problem(httpx.get(faulty.url + "/livez", timeout=30), 503, "not-alive")
        faulty.orders.write_text("")
        assert httpx.get(faulty.url + "/livez").status_code == 200
        assert httpx.get(faulty.url + "/readyz").status_code == 200
        assert faulty.inspect(png).status_code == 200


def test_readiness_fails_while_the_device_does_not_answer_and_the_process_is_left_alive(
    factory: Factory, png: bytes, tmp_path: Path
):
    with faulty_server(factory.weights, tmp_path) as faulty, ThreadPoolExecutor(1) as pool:
        faulty.orders.write_text("wait")
        waiting = pool.submit(faulty.inspect, png)
        wait_for_metric(faulty.url, "inspect_in_flight_images 1.0")
        while httpx.get(faulty.url + "/readyz", timeout=30).status_code == 200:
            pass  # by the work done last
        problem(httpx.get(faulty.url + "/readyz", timeout=30), 503, "device-busy")
        assert httpx.get(faulty.url + "/livez", timeout=30).status_code == 200
        faulty.orders.write_text("")
        assert waiting.result().status_code == 200
        assert httpx.get(faulty.url + "/readyz").status_code == 200


def test_sigterm_drops_readiness_and_answers_what_was_accepted(factory: Factory, png: bytes, tmp_path: Path):
    with faulty_server(factory.weights, tmp_path, device_batch="4") as faulty, ThreadPoolExecutor(20) as pool:
        faulty.orders.write_text("wait")
        accepted = [pool.submit(faulty.inspect, png) for _ in range(19)]
        with raw_request(faulty.url, png[:100], len(png)) as uploading:
            wait_for_metric(faulty.url, "inspect_in_flight_images 19.0")
            faulty.server.process.send_signal(signal.SIGTERM)
            while (ready := httpx.get(faulty.url + "/readyz", timeout=30)).status_code == 200:
                pass  # the signal is on its way
            problem(ready, 503, "shutting-down")
            problem(faulty.inspect(png), 503, "shutting-down")
            assert httpx.get(faulty.url + "/livez", timeout=30).status_code == 200
            assert faulty.server.process.poll() is None
            faulty.orders.write_text("")
            uploading.sendall(png[100:])
            assert uploading.recv(12) == b"HTTP/1.1 200"
        assert [future.result().status_code for future in accepted] == [200] * 19
        assert faulty.server.process.wait(60) == 0


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
    edit(folder, schema_version=3)


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
    newer: "schema version 3",
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
            assert any(f"category {name} is refused" in line and reason in line for line in server.log)
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


@dataclass
class Version:
    """A version of ``striped`` to be written into a weights folder, and the scores that it gives offline."""

    card: Card
    student: bytes
    scores: list[float]

    def write(self, weights: Path) -> None:
        """Puts it into its place."""
        Store(weights).write(self.card, self.student, SeenImages(), replace=True)


@pytest.fixture
def images(factory: Factory) -> list[bytes]:
    return [path.read_bytes() for path in sorted((factory.data / "bad").iterdir())[:4]]


@pytest.fixture
def versions(factory: Factory, images: list[bytes]) -> tuple[Version, Version]:
    made = []
    for category in ("striped", "brushed"):
        card, detector = Store(factory.weights, factory.teachers).load(category)
        pixels = np.stack([card.preprocessor.apply(decode_image(data)) for data in images])
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
    deadline = time.monotonic() + 60
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
        forward = ("rollback", "striped", "--to", "from-brushed")
        subprocess.run([str(COMMAND), *forward, "--weights", str(weights)], check=True)
        wait_until(lambda: version_of("striped") == "from-brushed")

        not_finite(weights / "striped")
        # By the server's own look, perhaps while only half of it was written.
        wait_until(lambda: "inspect_reloads_refused_total 0.0" not in httpx.get(server.url + "/metrics").text)
        assert "not finite" in problem(post("striped", "reload"), 409, "reload-refused")
        wait_until(lambda: any("and the one before serves on" in line for line in server.log))
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
