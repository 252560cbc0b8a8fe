"""Nobody can hold a connection, a body or memory for longer than is allowed, and everybody is told so."""

import gc
import http.client
import itertools
import json
import queue
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from service.http.protocol import LINGER_SECONDS, BoundedProtocol
from tests.conftest import Factory
from tests.end_to_end.conftest import GatedServer, Server, wait_for_metric
from tests.end_to_end.test_refusals import BATCH, PNG, URL, problem, raw_request

FULL = {"queue_size": 1, "max_batch_images": 1, "device_batch": 1}


@pytest.fixture
def png(factory: Factory) -> bytes:
    return (factory.data / "good" / "000.png").read_bytes()


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def read_to_the_end(connection: socket.socket) -> bytes:
    """All that comes until the server closes; it must do so within 30 s."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def read_problem(connection: socket.socket, status: int, kind: str) -> dict[str, str]:
    """Reads one answer, checks that it is this problem, and returns its headers."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    body = json.loads(response.read())
    assert (response.status, body["status"], body["type"]) == (status, status, f"urn:eca-inspect:problem:{kind}")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-content-type-options"] == "nosniff"
    return dict(response.headers)


class Timers:
    """The timers of the server's connections. They go off when a test says so, and never before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._armed: queue.Queue[Callable[[], None]] = queue.Queue()
        self._seconds: list[float] = []
        self._received = threading.Semaphore(0)
        data_received = BoundedProtocol.data_received

        def arm(connection: BoundedProtocol, seconds: float, action: Callable[[], None]) -> None:
            def go_off() -> None:
                if not timer.cancelled():
                    action()

            connection._disarm()
            timer = connection._timer = connection.loop.call_later(3600, action)
            self._seconds.append(seconds)
            self._armed.put(lambda: connection.loop.call_soon_threadsafe(go_off))

        def receive(connection: BoundedProtocol, data: bytes) -> None:
            data_received(connection, data)
            self._received.release()

        monkeypatch.setattr(BoundedProtocol, "_arm", arm)
        monkeypatch.setattr(BoundedProtocol, "data_received", receive)

    def wait_for_data(self) -> None:
        """Returns when the server has received something more."""
        assert self._received.acquire(timeout=60)

    def go_off(self, number: int) -> list[float]:
        """Waits until so many timers have been set, and lets those go off that still hold; the seconds of all."""
        for _ in range(number):
            self._armed.get(timeout=60)()
        return self._seconds


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    return Timers(monkeypatch)


# Heads.


@pytest.mark.parametrize("sent", [b"", b"G", b"GET /livez HTTP/1.1\r\nHost: x\r\n", b"\r\n\r\n"])
def test_a_connection_without_a_whole_head_is_closed(timers: Timers, gated: GatedServer, sent: bytes):
    with connect(gated.url) as connection:
        if sent:
            connection.sendall(sent)
            timers.wait_for_data()
        assert timers.go_off(1)[0] == gated.app.state.parts.settings.header_seconds
        assert read_to_the_end(connection) == b""


def test_a_head_that_trickles_is_closed(timers: Timers, gated: GatedServer):
    with connect(gated.url) as connection:
        for piece in (b"GET /livez HTTP/1.1\r\nX-Slow: ", *[b"x"] * 5):
            connection.sendall(piece)
            timers.wait_for_data()
        timers.go_off(1)  # that of the beginning: no piece has set it anew
        assert read_to_the_end(connection) == b""


def test_the_second_head_of_a_connection_has_its_time_too(timers: Timers, gated: GatedServer):
    with connect(gated.url) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        timers.wait_for_data()
        connection.sendall(b"GET /li")
        timers.wait_for_data()
        timers.go_off(2)
        assert read_to_the_end(connection) == b""


def test_an_answer_may_take_longer_than_a_head(timers: Timers, gated: GatedServer, png: bytes):
    with raw_request(gated.url, png, len(png)) as connection:
        assert gated.gate.reached.acquire(timeout=30)
        connection.sendall(b"GET /livez HT")  # the beginning of the next one
        timers.go_off(4)  # of the first head, and three times of the second
        gated.gate.open.set()
        assert connection.recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\nX-Long: " + b"x" * 70_000 + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(9_000)) + b"\r\n",
        b"GET /livez?" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nX-Endless: " + b"x" * 600_000,
        b"\r\n" * 400_000,
    ],
    ids=["one", "many", "url", "endless", "blank lines"],
)
def test_431_headers_too_large(server: Server, head: bytes):
    with connect(server.url) as connection:
        connection.sendall(head)
        assert read_problem(connection, 431, "headers-too-large")["connection"] == "close"
        assert connection.recv(1) == b""
    assert 'inspect_rejections_total{reason="headers-too-large"} 0.0' not in httpx.get(server.url + "/metrics").text


def test_headers_of_a_usual_size_pass(client: httpx.Client):
    assert client.get("/livez", headers={"Cookie": "x" * 60_000}).status_code == 200


@pytest.mark.parametrize(
    "start", [b"1\r\nx\r\n0\r\nX-Trailer: ", b"1\r\nx\r\n1;extension="], ids=["trailer", "chunk extension"]
)
def test_what_surrounds_a_body_is_bounded_too(server: Server, start: bytes):
    with connect(server.url) as connection:
        head = f"POST {URL} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode() + start)
        for _ in range(10):
            connection.sendall(b"x" * 100_000)
        read_problem(connection, 431, "headers-too-large")


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET /livez HTTP/9.9\r\n\r\n",
        b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: elsewhere\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nBad Header: x\r\n\r\n",
        b"POST /livez HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /livez HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        f"POST {URL} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n".encode(),
    ],
)
def test_400_what_is_not_http(server: Server, sent: bytes):
    with connect(server.url) as connection:
        connection.sendall(sent)
        read_problem(connection, 400, "malformed-request")
        assert connection.recv(1) == b""


def test_connections_are_kept_closed_and_pipelined_as_their_clients_wish(server: Server, png: bytes):
    get = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
    with connect(server.url) as connection:
        connection.sendall(get + b"\r\n" + get + b"\r\n" + get + b"Connection: close\r\n\r\n")
        assert read_to_the_end(connection).count(b"HTTP/1.1 200 OK") == 3
    with connect(server.url) as connection:
        connection.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert read_to_the_end(connection).count(b"HTTP/1.1 200 OK") == 1
    with raw_request(server.url, png, len(png)) as connection:
        for _ in range(3):
            response = http.client.HTTPResponse(connection)
            response.begin()
            response.read()
            assert response.status == 200
            connection.sendall(get + b"\r\n")


def test_a_connection_that_has_ended_leaves_nothing_behind(gated: GatedServer):
    def connections() -> int:
        gc.collect()
        return sum(issubclass(type(one), BoundedProtocol) for one in gc.get_objects())

    before = connections()
    for _ in range(20):
        with connect(gated.url) as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert read_to_the_end(connection).startswith(b"HTTP/1.1 200")
    while connections() > before:
        time.sleep(0.01)


def test_an_idle_connection_outlives_that_of_a_proxy(gated: GatedServer, monkeypatch: pytest.MonkeyPatch):
    """A proxy that sends into a connection as it closes answers its client with 502; nginx keeps its own for 60 s."""
    idle: queue.Queue[float] = queue.Queue()

    def conclude(connection: BoundedProtocol) -> None:
        real(connection)
        assert connection.timeout_keep_alive_task is not None
        idle.put(connection.timeout_keep_alive_task.when() - connection.loop.time())

    real = BoundedProtocol._conclude
    monkeypatch.setattr(BoundedProtocol, "_conclude", conclude)
    connection = http.client.HTTPConnection(gated.url.removeprefix("http://"), timeout=30)
    with closing(connection):
        for _ in range(2):
            connection.request("GET", "/livez")
            answer = connection.getresponse()
            assert answer.status == 200
            answer.read()
            assert idle.get(timeout=30) > 60


# Bodies.


@pytest.mark.parametrize("gated", [{"upload_seconds": 0.3}], indirect=True)
def test_408_a_body_that_does_not_arrive_in_time(gated: GatedServer, png: bytes):
    with raw_request(gated.url, png[:100], len(png)) as connection:
        read_problem(connection, 408, "upload-timeout")
        assert connection.recv(1) == b""
    with connect(gated.url) as connection:  # in pieces, for ever
        head = f"POST {BATCH} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        part = '--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        connection.sendall((head + "Content-Length: 100000\r\n\r\n" + part).encode())
        with ThreadPoolExecutor(1) as pool:
            answered = pool.submit(read_problem, connection, 408, "upload-timeout")
            while not wait([answered], timeout=0.02).done:
                connection.sendall(b"x")
            answered.result()
    metrics = httpx.get(gated.url + "/metrics").text
    assert 'inspect_images_total{category="striped",outcome="upload-timeout"} 2.0' in metrics
    assert "inspect_upload_memory_bytes 0.0" in metrics


@pytest.mark.parametrize("gated", [{"upload_memory_bytes": 100_000, "max_image_bytes": 60_000}], indirect=True)
def test_429_memory_for_bodies_is_full_and_every_path_gives_its_bytes_back(gated: GatedServer, png: bytes):
    url = gated.url + URL
    gated.gate.open.set()
    assert len(png) < 40_000
    big = bytes(40_000)
    first, second = (raw_request(gated.url, big, 50_000) for _ in range(2))
    wait_for_metric(gated.url, "inspect_upload_memory_bytes 80000.0")
    response = httpx.post(url, content=big, headers=PNG)
    problem(response, 429, "upload-memory-full")
    problem(httpx.post(gated.url + BATCH, files={"image": ("a.png", big)}), 429, "upload-memory-full")
    first.close()
    wait_for_metric(gated.url, "inspect_upload_memory_bytes 40000.0")
    assert httpx.post(url, content=big, headers=PNG).status_code == 422
    second.sendall(bytes(10_000))
    read_problem(second, 422, "not-decodable")
    second.close()
    assert httpx.post(url, content=png, headers=PNG).status_code == 200
    assert httpx.post(url, content=png, headers=PNG | {"Accept": "image/png"}).status_code == 200
    assert httpx.post(gated.url + BATCH, files={"image": ("a.png", png)}).status_code == 200
    assert httpx.post(url, content=png, headers=PNG | {"Content-Type": "text/plain"}).status_code == 415
    problem(httpx.post(url, content=iter([big, big])), 413, "too-many-bytes")
    files = [("image", (f"{name}.png", big)) for name in "abc"]
    problem(httpx.post(gated.url + BATCH, files=files), 413, "too-many-bytes")
    wait_for_metric(gated.url, "inspect_upload_memory_bytes 0.0")


@contextmanager
def _full(gated: GatedServer, png: bytes) -> Iterator[None]:
    """One image is on the device and there is no place for another."""
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(httpx.post, gated.url + URL, content=png, headers=PNG, timeout=60)
        assert gated.gate.reached.acquire(timeout=30)
        yield
        gated.gate.open.set()
        assert accepted.result().status_code == 200


@pytest.mark.parametrize("gated", [FULL], indirect=True)
def test_a_flood_is_refused_before_its_bodies_are_read(gated: GatedServer, png: bytes):
    with _full(gated, png):
        for _ in range(10):
            with raw_request(gated.url, b"", 30_000_000) as connection:
                assert read_problem(connection, 429, "queue-full")["retry-after"] == "1"
        assert "inspect_upload_memory_bytes 0.0" not in httpx.get(gated.url + "/metrics").text  # the accepted one


@pytest.mark.parametrize("gated", [FULL], indirect=True)
def test_real_clients_see_the_refusal_of_a_large_body(gated: GatedServer, png: bytes, tmp_path: Path):
    large = bytes(30_000_000)
    url = gated.url + URL
    with _full(gated, png):
        with httpx.Client() as client:
            for _ in range(3):
                problem(client.post(url, content=large, headers=PNG), 429, "queue-full")
            chunks = itertools.repeat(large[:100_000], 200)
            problem(client.post(url, content=chunks, headers=PNG), 429, "queue-full")
            problem(client.post(gated.url + BATCH, files={"image": ("a.png", large)}), 429, "queue-full")
        problem(httpx.post(url, content=large, headers=PNG | {"Connection": "close"}), 429, "queue-full")
        with pytest.raises(urllib.error.HTTPError) as caught:  # says Connection: close
            urllib.request.urlopen(urllib.request.Request(url, large, PNG))
        assert caught.value.code == 429
        if (curl := shutil.which("curl")) is not None:
            (tmp_path / "large").write_bytes(large)
            for more in (
                [],
                ["-H", "Expect:"],
                ["-H", "Connection: close"],
                ["--http1.0"],
                ["-H", "Transfer-Encoding: chunked"],
            ):
                sent = ["--data-binary", f"@{tmp_path / 'large'}", "-H", "Content-Type: image/png"]
                found = subprocess.run([curl, "-sS", *more, *sent, url], capture_output=True, text=True, check=True)
                assert "queue-full" in found.stdout


def test_a_body_that_goes_on_after_its_answer_is_not_read_for_ever(timers: Timers, gated: GatedServer):
    with raw_request(gated.url, b"", 10**12) as connection:
        read_problem(connection, 413, "too-many-bytes")
        connection.sendall(bytes(1000))  # which is read and dropped
        assert timers.go_off(2)[1] == LINGER_SECONDS
        with suppress(OSError):  # reset, or broken
            while True:
                connection.sendall(bytes(1000))


def test_an_answer_that_nobody_takes_is_dropped(gated: GatedServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("service.http.protocol.UNREAD_SECONDS", 0.3)
    script = "/static-offline-docs/swagger-ui-bundle.js"
    size = len(httpx.get(gated.url + script).content)
    with connect(gated.url) as connection:
        connection.sendall(f"GET {script} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 30)
        wait_for_metric(gated.url, "inspect_connections 1.0")  # that of the question itself
        with suppress(ConnectionResetError):
            read = sum(len(found) for found in iter(lambda: connection.recv(1 << 20), b""))
            assert read < 30 * size


@pytest.mark.parametrize("gated", [{"reload_seconds": 0}], indirect=True)  # which looks from a thread now and then
def test_many_requests_at_once_bring_no_threads_of_their_own(gated: GatedServer, png: bytes):
    gated.gate.open.set()
    before = threading.active_count()
    with ThreadPoolExecutor(20) as pool:
        inspected = list(
            pool.map(lambda _: httpx.post(gated.url + URL, content=png, headers=PNG, timeout=60), range(60))
        )
        listed = list(pool.map(lambda path: httpx.get(gated.url + path), ["/v1/categories", "/livez", "/metrics"] * 20))
    assert {response.status_code for response in (*inspected, *listed)} == {200}
    pictures = gated.app.state.parts.settings.decode_threads
    assert threading.active_count() <= before + pictures


# What browsers are told.


def test_every_answer_carries_the_security_headers(client: httpx.Client, png: bytes):
    for response in (
        client.get("/livez"),
        client.get("/"),
        client.get("/nothing"),
        client.get("/openapi.json"),
        client.get("/static-offline-docs/swagger-ui.css"),
        client.post(URL, content=png, headers=PNG),
        client.post(URL, content=png, headers=PNG | {"Accept": "image/png"}),
        client.post(URL, content=b"", headers=PNG),
    ):
        assert response.headers.get_list("content-security-policy") == [
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ]
        assert response.headers.get_list("x-content-type-options") == ["nosniff"]
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["x-frame-options"] == "DENY"
        assert response.headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in response.headers


def test_an_internal_error_outside_of_inspections_is_a_problem_too(gated: GatedServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gated.app.state.parts.telemetry, "exposition", lambda: 1 / 0)
    response = httpx.get(gated.url + "/metrics")
    problem(response, 500, "internal-error")
    assert response.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("path", ["/docs", "/docs/oauth2-redirect"])
def test_the_documentation_runs_its_own_scripts_and_no_others(client: httpx.Client, path: str):
    page = client.get(path)
    scripts = re.findall(r"<script>(.+?)</script>", page.text, re.DOTALL)
    assert scripts
    (policy,) = page.headers.get_list("content-security-policy")
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    assert allowed == [b64encode(sha256(script.encode()).digest()).decode() for script in scripts]
    assert "script-src 'self' 'sha256-" in policy
    assert "unsafe-eval" not in policy
