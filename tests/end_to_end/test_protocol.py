"""A request ends where it says, whatever else it offers, and nobody can fill connections or memory for the others."""

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from service.http import heads
from service.http.protocol import PIPELINED
from tests import needs
from tests.conftest import Factory
from tests.end_to_end.conftest import COMMAND, GatedServer, Server, running_server, wait_for_metric
from tests.end_to_end.test_bounds import connect, read_problem, read_to_the_end
from tests.end_to_end.test_refusals import URL, problem, raw_request

OFFERS = {
    "h2c": "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    "websocket": "Connection: Upgrade\r\nUpgrade: websocket\r\n",
    "tls": "Connection: keep-alive, upgrade\r\nUpgrade: TLS/1.2\r\n",
    "anything": "Upgrade: anything/1\r\nConnection: UPGRADE\r\n",
    "two lines": "Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n",
}
RELOAD = b"POST /v1/categories/striped/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
UNREAD = {"answer_memory_bytes": 8_000_000, "max_image_bytes": 16_000_000, "upload_memory_bytes": 100_000_000}


@pytest.fixture
def png(factory: Factory) -> bytes:
    return (factory.data / "good" / "000.png").read_bytes()


def read_answer(connection: socket.socket) -> tuple[int, bytes]:
    """One answer, its status and its body, and no byte more."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += (byte := connection.recv(1))
        assert byte, head
    length = int(re.findall(rb"\r\ncontent-length: (\d+)\r\n", head)[0])
    body = b""
    while len(body) < length:
        body += (part := connection.recv(length - len(body)))
        assert part, body[:1000]
    return int(head.split()[1]), body


def head_with(offer: str, length: int, more: str = "") -> bytes:
    head = f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n{offer}Content-Length: {length}\r\n{more}\r\n"
    return head.encode()


def wait_to_be_asked(connection: socket.socket) -> None:
    """Returns when the server has read the head and wants the body, which is then a packet of its own."""
    asked = b""
    while len(asked) < 25:
        asked += connection.recv(25 - len(asked))
    assert asked == b"HTTP/1.1 100 Continue\r\n\r\n"


# Offers of another protocol.


@pytest.mark.parametrize("packets", [1, 2])
@pytest.mark.parametrize("offer", OFFERS)
def test_an_image_with_the_offer_of_another_protocol_is_inspected(server: Server, png: bytes, offer: str, packets: int):
    with connect(server.url) as connection:
        for _ in range(2):  # the connection stays as usable as without the offer
            if packets == 1:
                connection.sendall(head_with(OFFERS[offer], len(png)) + png)
            else:
                connection.sendall(head_with(OFFERS[offer], len(png), "Expect: 100-continue\r\n"))
                wait_to_be_asked(connection)
                connection.sendall(png)
            status, body = read_answer(connection)
            assert status == 200, body
            assert b'"score"' in body
        connection.sendall(LIVEZ)
        assert read_answer(connection)[0] == 200


@pytest.mark.parametrize("offer", OFFERS)
def test_a_chunked_image_with_such_an_offer_is_inspected(server: Server, png: bytes, offer: str):
    head = f"POST {URL} HTTP/1.1\r\nHost: x\r\n{OFFERS[offer]}Transfer-Encoding: chunked\r\n\r\n"
    with connect(server.url) as connection:
        connection.sendall(head.encode() + b"%x\r\n" % len(png) + png + b"\r\n0\r\n\r\n" + LIVEZ)
        assert read_answer(connection)[0] == 200
        assert read_answer(connection) == (200, b'{"status":"alive"}')


@pytest.mark.parametrize("packets", [1, 2])
@pytest.mark.parametrize("offer", OFFERS)
def test_a_body_is_never_taken_for_requests(server: Server, offer: str, packets: int):
    def loaded() -> str:
        (found,) = re.findall(r"^inspect_students_loaded_total (.+)$", httpx.get(server.url + "/metrics").text, re.M)
        return str(found)

    before = loaded()
    for body in (RELOAD, LIVEZ * 1000):
        with connect(server.url) as connection:
            if packets == 1:
                connection.sendall(head_with(OFFERS[offer], len(body)) + body)
            else:
                connection.sendall(head_with(OFFERS[offer], len(body), "Expect: 100-continue\r\n"))
                wait_to_be_asked(connection)
                connection.sendall(body)
            read_problem(connection, 422, "not-decodable")
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert read_answer(connection) == (200, b'{"status":"ready"}')
            assert connection.recv(1) == b""
    assert loaded() == before


def test_requests_without_a_body_may_offer_another_protocol_too(server: Server):
    with connect(server.url) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n" + OFFERS["h2c"].encode() + b"\r\n" + LIVEZ)
        for _ in range(2):
            assert read_answer(connection) == (200, b'{"status":"alive"}')


def test_curl_with_http2_in_clear_gets_its_answer(server: Server, png: bytes, tmp_path: Path):
    (tmp_path / "part.png").write_bytes(png)
    sent = ["--http2", "--data-binary", f"@{tmp_path / 'part.png'}", "-H", "Content-Type: image/png"]
    found = subprocess.run(
        [needs.CURL.program("curl"), "-sS", *sent, server.url + URL], capture_output=True, text=True, check=True
    )
    assert '"score"' in found.stdout


JAVA = """
import java.net.URI;
import java.net.http.*;
import java.nio.file.Path;

public class Inspect {
    public static void main(String[] given) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(given[0])).header("Content-Type", "image/png")
            .POST(HttpRequest.BodyPublishers.ofFile(Path.of(given[1]))).build();
        HttpClient client = HttpClient.newHttpClient();  // offers HTTP/2, as Spring does with it
        for (int i = 0; i < 2; i++) {
            HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.body());
        }
    }
}
"""


def test_javas_own_client_gets_its_answer(server: Server, png: bytes, tmp_path: Path):
    (tmp_path / "part.png").write_bytes(png)
    (tmp_path / "Inspect.java").write_text(JAVA)
    needs.JAVA.program("javac")  # `java Inspect.java` compiles it, which a plain runtime cannot
    command = [needs.JAVA.program("java"), str(tmp_path / "Inspect.java"), server.url + URL, str(tmp_path / "part.png")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    answers = found.stdout.splitlines()
    assert len(answers) == 2
    assert all(answer.startswith("200 {") and '"category":"striped"' in answer for answer in answers)


# Requests that two servers could understand differently.


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "Host"),
        (b"GET /livez\r\n\r\n", "version"),
        (f"POST {URL} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n".encode(), "chunked"),
        (f"POST {URL} HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode(), "chunked"),
    ],
    ids=["two hosts", "HTTP/0.9", "gzip, chunked", "chunked in 1.0"],
)
def test_400_what_is_not_clear_and_nothing_behind_it_is_read(server: Server, head: bytes, reason: str):
    with connect(server.url) as connection:
        connection.sendall(head + RELOAD + LIVEZ)
        status, body = read_answer(connection)
        assert (status, b"malformed-request" in body, reason in body.decode()) == (400, True, True), body
        assert read_to_the_end(connection) == b""


def test_431_the_hundred_and_first_header_ends_the_reading(gated: GatedServer, monkeypatch: pytest.MonkeyPatch):
    counted: list[int] = []

    def check_count(headers: heads.Headers) -> None:
        counted.append(len(headers))
        real(headers)

    real = heads.check_count
    monkeypatch.setattr(heads, "check_count", check_count)
    with connect(gated.url) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n" + b"a:\r\n" * 15_000)
        assert read_problem(connection, 431, "headers-too-large")["connection"] == "close"
    assert counted == list(range(1, heads.HEADERS + 2))


def test_the_host_of_a_whole_url_counts(server: Server):
    with connect(server.url) as connection:
        connection.sendall(b"GET http://127.0.0.1/livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_answer(connection)[0] == 200


# Requests that wait for the one before.


@contextmanager
def on_the_device(gated: GatedServer, png: bytes) -> Iterator[socket.socket]:
    """A connection whose first request is on the device and stays there until the gate opens."""
    with raw_request(gated.url, png, len(png)) as connection:
        assert gated.gate.reached.acquire(timeout=30)
        yield connection


def test_what_is_malformed_is_answered_after_the_requests_before_it(gated: GatedServer, png: bytes):
    with on_the_device(gated, png) as connection:
        connection.sendall(LIVEZ + b"nonsense\r\n\r\n" + RELOAD)
        wait_for_metric(gated.url, 'inspect_rejections_total{reason="malformed-request"} 1.0')
        gated.gate.open.set()
        assert [read_answer(connection)[0] for _ in range(3)] == [200, 200, 400]
        assert read_to_the_end(connection) == b""


def test_a_body_that_is_malformed_takes_its_own_request_only(gated: GatedServer, png: bytes):
    head = f"POST {URL} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    with on_the_device(gated, png) as connection:
        connection.sendall(LIVEZ + head + b"no number\r\n")
        wait_for_metric(gated.url, 'inspect_rejections_total{reason="malformed-request"} 1.0')
        gated.gate.open.set()
        assert [read_answer(connection)[0] for _ in range(3)] == [200, 200, 400]
        assert read_to_the_end(connection) == b""
    wait_for_metric(gated.url, "inspect_in_flight_images 0.0")
    assert 'outcome="client-gone"' not in httpx.get(gated.url + "/metrics").text


def test_only_so_many_requests_wait_for_the_one_before(gated: GatedServer, png: bytes):
    with on_the_device(gated, png) as connection:
        connection.sendall(LIVEZ * (PIPELINED + 10))
        wait_for_metric(gated.url, 'inspect_rejections_total{reason="malformed-request"} 1.0')
        gated.gate.open.set()
        assert [read_answer(connection)[0] for _ in range(PIPELINED + 2)] == [200] * (PIPELINED + 1) + [400]
        assert read_to_the_end(connection) == b""


@pytest.mark.parametrize("gated", [{"device_batch": 1}], indirect=True)
def test_a_client_that_goes_frees_its_place_even_if_it_has_sent_the_next_request(gated: GatedServer, png: bytes):
    with on_the_device(gated, png), raw_request(gated.url, png + LIVEZ, len(png)) as second:
        wait_for_metric(gated.url, "inspect_queue_depth_images 1.0")
        second.close()
        wait_for_metric(gated.url, 'inspect_images_total{category="striped",outcome="client-gone"} 1.0')
        wait_for_metric(gated.url, "inspect_in_flight_images 1.0")


# Connections and answers.


FEW = {"max_connections": 4}


@pytest.mark.parametrize("gated", [FEW], indirect=True)
def test_idle_connections_make_room_for_new_ones(gated: GatedServer, caplog: pytest.LogCaptureFixture):
    with ExitStack() as stack:
        idle = []
        for _ in range(12):
            idle.append(stack.enter_context(connect(gated.url)))
            idle[-1].sendall(LIVEZ)
            assert read_answer(idle[-1])[0] == 200
        assert [read_to_the_end(connection) for connection in idle[:8]] == [b""] * 8
        for _ in range(3):
            idle[-1].sendall(LIVEZ)
            assert read_answer(idle[-1])[0] == 200
        assert httpx.get(gated.url + "/livez").status_code == 200
    assert "INSPECT_MAX_CONNECTIONS" in caplog.text


@pytest.mark.parametrize("gated", [FEW], indirect=True)
def test_503_every_connection_is_busy(gated: GatedServer, png: bytes):
    with ExitStack() as stack:
        for _ in range(4):
            connection = stack.enter_context(connect(gated.url))
            connection.sendall(head_with("", len(png), "Expect: 100-continue\r\n"))
            wait_to_be_asked(connection)
        response = httpx.get(gated.url + "/livez")
        problem(response, 503, "too-many-connections")
        assert response.headers["connection"] == "close"
    with httpx.Client(base_url=gated.url) as client:
        wait_for_metric(gated.url, 'outcome="client-gone"} 4.0')
        assert 'inspect_rejections_total{reason="too-many-connections"} 1.0' in client.get("/metrics").text


def test_there_are_fewer_connections_than_the_process_may_open_files(factory: Factory):
    few = ["prlimit", "--nofile=300:300"]
    with running_server(factory.weights, command=[*few, str(COMMAND)]) as server, ExitStack() as stack:
        idle = [stack.enter_context(connect(server.url)) for _ in range(400)]
        for connection in idle[-10:]:
            connection.sendall(LIVEZ)
            assert read_answer(connection)[0] == 200
        assert httpx.get(server.url + "/readyz").status_code == 200
        server.wait_for_log("ulimit")
        assert not any("Too many open files" in line for line in server.log)


@pytest.mark.parametrize("gated", [UNREAD], indirect=True)
def test_the_answer_that_has_waited_longest_is_dropped_for_the_others(
    gated: GatedServer, caplog: pytest.LogCaptureFixture
):
    gated.gate.open.set()
    buffer = BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (1400, 1400, 3), dtype=np.uint8)).save(buffer, "PNG")
    noise = buffer.getvalue()
    more = "?localize=always HTTP/1.1\r\nHost: x\r\nAccept: image/png\r\nContent-Type: image/png\r\n"
    head = f"POST {URL}{more}Content-Length: {len(noise)}\r\n\r\n".encode()

    def unread(stack: ExitStack) -> socket.socket:
        connection = stack.enter_context(socket.socket())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(60)
        host, port = gated.url.removeprefix("http://").split(":")
        connection.connect((host, int(port)))
        connection.sendall(head + noise)
        assert connection.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 200"
        return connection

    with ExitStack() as stack:
        clients = [unread(stack) for _ in range(6)]
        assert "INSPECT_ANSWER_MEMORY_BYTES" in caplog.text
        status, picture = read_answer(clients[-1])
        assert status == 200
        assert Image.open(BytesIO(picture)).size == (1400, 1400)
        assert len(read_to_the_end(clients[0])) < len(picture)  # what was on its way, and no more
    wait_for_metric(gated.url, "inspect_unread_answer_bytes 0.0")
