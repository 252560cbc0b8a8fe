"""Faults of the device and the machine, each made in the real server: who is concerned is told at once."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.cli.serve import EXIT_DEVICE_LOST
from service.device.backend import DeviceFailedError
from service.device.jobs import Job, Outcome
from service.device.torch_backend import TorchBackend
from service.settings import Settings
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

    def wait_until_the_device_waits(self) -> None:
        """Returns when the order ``wait`` has reached the device, so that no later image joins its batch."""
        deadline = time.monotonic() + 120
        while not self.orders.with_name("waiting").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)


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
        faulty.wait_until_the_device_waits()
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


def test_a_log_that_cannot_be_written_fails_no_request(factory: Factory, png: bytes, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(
            [str(COMMAND), "serve", "--port", str(port), "--weights", str(factory.weights)],
            env=os.environ | {"INSPECT_STATE": str(tmp_path)},
            stderr=full,
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


def test_a_device_that_is_given_up_ends_the_process_after_its_requests_are_answered(
    factory: Factory, png: bytes, tmp_path: Path
):
    with faulty_server(factory.weights, tmp_path) as faulty, ThreadPoolExecutor(8) as pool:
        faulty.orders.write_text("die 3")
        for _ in range(3):
            problem(faulty.inspect(png), 503, "device-lost")
        assert "inspect_device_restarts_total 3.0" in httpx.get(faulty.url + "/metrics").text
        assert httpx.get(faulty.url + "/livez").status_code == 200
        faulty.orders.write_text("wait-and-die")
        waiting = [pool.submit(faulty.inspect, png) for _ in range(8)]
        wait_for_metric(faulty.url, "inspect_in_flight_images 8.0")
        faulty.orders.write_text("die")
        for one in waiting:
            problem(one.result(), 503, "device-lost")
        assert faulty.server.process.wait(30) == EXIT_DEVICE_LOST
        faulty.server.wait_for_log("the device is given up")


@pytest.mark.parametrize("path", ["/livez", "/readyz", URL])
def test_where_the_process_goes_on_a_device_that_is_given_up_is_known_at_once(factory: Factory, png: bytes, path: str):
    """As on Ray, which replaces the replica when its probe fails."""

    class Broken(TorchBackend):
        def run(self, jobs: Sequence[Job]) -> list[Outcome]:
            raise DeviceFailedError("gone")

    with TestClient(create_app(Settings(weights=factory.weights, database="none", device="cpu"), Broken)) as client:
        for _ in range(4):
            problem(client.post(URL, content=png, headers=PNG), 503, "device-lost")
        if path == URL:
            problem(client.post(URL, content=png, headers=PNG), 503, "device-lost")
        else:
            problem(client.get(path), 503, "not-alive" if path == "/livez" else "device-lost")
        assert "inspect_in_flight_images 0.0" in client.get("/metrics").text


def test_a_device_that_hangs_is_given_up_in_time_and_the_probes_tell_the_truth(
    factory: Factory, png: bytes, tmp_path: Path
):
    with faulty_server(factory.weights, tmp_path, device_timeout_seconds="3600", device_batch="1") as faulty:
        faulty.orders.write_text("hang 1")
        with ThreadPoolExecutor(4) as pool:
            statuses = sorted(response.status_code for response in pool.map(faulty.inspect, [png] * 4))
        assert statuses == [200, 200, 200, 503]
        assert httpx.get(faulty.url + "/livez").status_code == 200
        faulty.orders.write_text("late")
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
