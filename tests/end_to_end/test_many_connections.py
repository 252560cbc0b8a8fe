"""Hundreds of clients that send large heads, or nothing at all, keep nobody else from being answered."""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from service.http import heads
from tests.conftest import Factory
from tests.end_to_end.conftest import Server, running_server
from tests.end_to_end.test_bounds import connect, read_to_the_end
from tests.end_to_end.test_protocol import LIVEZ, read_answer

CLIENTS = 400
IDLE = 150
PLACES = 500
"""Connections that the server takes: enough for the clients, too few for them and the idle ones."""
ALLOWANCE_MIB = 64
"""Memory for all but the heads: the allocator's, and what a connection itself costs."""
FIRST = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
HEADS = {
    "one long header": FIRST + b"X-Long: " + b"x" * heads.HEAD_BYTES + b"\r\n\r\n",
    "many short headers": FIRST + b"a:\r\n" * (heads.HEAD_BYTES // 4) + b"\r\n",
    "a long address": b"GET /livez?" + b"x" * heads.HEAD_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n",
}
Connected = Callable[[int], list[socket.socket]]


@pytest.fixture(scope="module")
def patient(factory: Factory) -> Iterator[Server]:
    """A server that waits for a head as long as a test may take."""
    with running_server(factory.weights, header_seconds="3600", max_connections=str(PLACES)) as server:
        yield server


@pytest.fixture
def connected(patient: Server) -> Iterator[Connected]:
    """Opens so many connections, which end with the test."""
    with ExitStack() as stack:
        yield lambda number: [stack.enter_context(connect(patient.url)) for _ in range(number)]


def memory_mib(server: Server) -> int:
    """What the server's process has of the machine's memory."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) >> 10


def is_open(connection: socket.socket) -> bool:
    """Whether the server has neither answered nor closed."""
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    finally:
        connection.settimeout(60)


def assert_alive(server: Server) -> None:
    assert httpx.get(server.url + "/livez", timeout=120).json() == {"status": "alive"}


def assert_refused(connection: socket.socket, head: bytes) -> None:
    """Sends the rest of a head that is too large: it gets 431, or its connection is closed."""
    try:
        connection.sendall(head)
        answer = read_to_the_end(connection)
    except ConnectionError:
        return
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 "), answer[:200]


@pytest.mark.parametrize("kind", HEADS)
def test_four_hundred_large_heads_at_once_are_refused_and_nobody_else_waits(
    patient: Server, connected: Connected, kind: str
):
    before = memory_mib(patient)
    clients = connected(CLIENTS)
    for number, client in enumerate(clients):
        client.sendall(HEADS[kind])
        if number % 50 == 49:
            assert_alive(patient)
    answers = [read_to_the_end(client) for client in clients]
    assert all(answer.startswith(b"HTTP/1.1 431 ") for answer in answers)
    assert_alive(patient)
    assert memory_mib(patient) - before < ALLOWANCE_MIB


@pytest.mark.parametrize("kind", ["one long header", "a long address"])
def test_four_hundred_large_heads_that_come_slowly_are_refused_and_nobody_else_waits(
    patient: Server, connected: Connected, kind: str
):
    before = memory_mib(patient)
    clients = connected(CLIENTS)
    head = HEADS[kind]
    pieces = [head[start : start + 8000] for start in range(0, len(head), 8000)]
    sent = 0
    while sent + len(pieces[0]) < heads.HEAD_BYTES - 8000:
        piece = pieces.pop(0)
        sent += len(piece)
        for client in clients:
            client.sendall(piece)
        assert_alive(patient)
        assert all(map(is_open, clients))  # so it was answered while all of them were under way
    assert memory_mib(patient) - before < (CLIENTS * heads.HEAD_BYTES >> 20) + ALLOWANCE_MIB
    for client in clients:
        assert_refused(client, b"".join(pieces))
    assert_alive(patient)


def test_idle_connections_and_unfinished_heads_beyond_the_limit_lock_nobody_out(patient: Server, connected: Connected):
    clients = connected(CLIENTS)
    half = HEADS["one long header"][: heads.HEAD_BYTES // 2]
    for client in clients:
        client.sendall(half)
    assert_alive(patient)
    idle = connected(IDLE)
    for connection in idle[-10:]:
        connection.sendall(LIVEZ)
        assert read_answer(connection) == (200, b'{"status":"alive"}')
    assert_alive(patient)
    still_open = sum(map(is_open, clients + idle))
    assert PLACES - 10 <= still_open <= PLACES
    assert not is_open(clients[0])  # the one that has been quiet longest made room
    for client in clients:
        assert_refused(client, HEADS["one long header"][len(half) :])
    assert_alive(patient)
