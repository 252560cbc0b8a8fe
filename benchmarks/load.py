"""A load generator: closed and open loops of raw HTTP/1.1 over keep-alive connections, in one thread."""

import asyncio
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import numpy as np


@dataclass
class Tally:
    """What came back: status counts, and latencies of the answers with status 200 and of the others, seconds.

    The counts may be of more answers than the latencies.
    """

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def add(self, status: int, latency: float) -> None:
        """Counts one answer."""
        self.statuses[status] += 1
        (self.answered if status == 200 else self.refused).append(latency)

    def row(self) -> dict[str, float]:
        """Images a second that were answered, and latencies in milliseconds."""
        found = {"images_per_second": round(self.statuses[200] / self.seconds, 2)}
        for name, latencies in (("", self.answered), ("refused_", self.refused)):
            if latencies:
                for q in (50, 95, 99):
                    found[f"{name}p{q}_ms"] = round(1000 * float(np.percentile(latencies, q)), 1)
        if self.refused:
            found["refused"] = len(self.refused)
        return found


def request(address: str, path: str, body: bytes) -> bytes:
    """A whole HTTP request with a JPEG as its body."""
    head = f"POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Connection:
    """A keep-alive connection, opened again where the server closed it."""

    def __init__(self, address: str) -> None:
        self._host, _, port = address.partition(":")
        self._port = int(port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, message: bytes) -> tuple[int, bytes]:
        """The status and body of the answer."""
        if self._streams is None or self._streams[0].at_eof():  # the server ends idle connections
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        writer.write(message)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = re.search(rb"content-length: (\d+)", head)
        assert length is not None, head
        body = await reader.readexactly(int(length[1]))
        if b"connection: close" in head:
            self.close()
        return int(head.split(None, 2)[1]), body

    def close(self) -> None:
        """Closes the connection; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def closed_loop(address: str, message: Callable[[], bytes], clients: int, seconds: float) -> Tally:
    """Each client sends its next image when it has the answer to the last one; every answer must be a 200.

    The first answer to each client has no latency: all clients send at once at the start, and never again.
    """
    tally = Tally()
    started = time.perf_counter()

    async def client() -> None:
        connection = Connection(address)
        status, _ = await connection.send(message())
        tally.statuses[status] += 1
        while (now := time.perf_counter()) < started + seconds:
            status, _ = await connection.send(message())
            tally.add(status, time.perf_counter() - now)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    tally.seconds = time.perf_counter() - started
    assert set(tally.statuses) == {200}, tally.statuses
    return tally


async def open_loop(
    address: str, message: Callable[[], bytes], rate: float, seconds: float, *, settle: float = 0.0, burst: int = 0
) -> Tally:
    """Images arrive at random moments (Poisson) at a rate, whatever the server does with them.

    Latency counts from the moment an image was due. What is answered in the first ``settle`` seconds, or after the
    ``seconds`` that follow, is not counted. A burst of images at the start brings an overloaded server to its steady
    state at once.
    """
    rng = np.random.default_rng(0)
    idle: list[Connection] = []
    tally, outside = Tally(seconds=seconds), Tally()
    started = time.perf_counter()

    async def one(due: float) -> None:
        connection = idle.pop() if idle else Connection(address)
        status, _ = await connection.send(message())
        idle.append(connection)
        now = time.perf_counter()
        (tally if settle <= now - started < settle + seconds else outside).add(status, now - due)

    due = started
    tasks = [asyncio.create_task(one(due)) for _ in range(burst)]
    while due < started + settle + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due)))
        due += rng.exponential(1 / rate)
    await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()
    return tally


@contextmanager
def serving(command: list[str], **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Runs a server until it has said its address; yields host:port and the process.

    It keeps no history, unless the environment that is given names a database.
    """
    environment = os.environ | {"INSPECT_DATABASE": "none"} | environment
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        log: list[str] = []
        for line in process.stdout:
            log.append(line)
            if match := re.search(r"running on http://([\w.:]+)", line):
                break
        else:
            raise RuntimeError("the server did not start:\n" + "".join(log))
        drained = subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)
        try:
            yield match[1], process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            drained.wait(10)


def batch_counts(address: str) -> tuple[float, float]:
    """Images and batches that the device has seen, from the server's own metrics."""
    text = httpx.get(f"http://{address}/metrics").text
    found = [re.search(rf"^inspect_batch_size_images_{part} (\S+)$", text, re.MULTILINE) for part in ("sum", "count")]
    images, batches = (float(match[1]) for match in found if match)
    return images, batches
