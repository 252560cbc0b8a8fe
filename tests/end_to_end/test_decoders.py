"""A process that decodes images hangs, dies or is stopped: the server answers for that image, and serves on."""

import os
import select
import signal
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from tests.conftest import Factory
from tests.end_to_end.conftest import Server, running_server
from tests.end_to_end.test_refusals import BATCH, PNG, URL, problem, raw_request

DEADLINE_SECONDS = 6


def workers(server: Server) -> list[int]:
    """The processes that the server has started."""
    tasks = Path(f"/proc/{server.process.pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def restarts(server: Server) -> float:
    for line in httpx.get(server.url + "/metrics").text.splitlines():
        if line.startswith("inspect_decoder_restarts_total "):
            return float(line.split()[1])
    raise AssertionError("no such metric")


@pytest.fixture(scope="module")
def single(factory: Factory) -> Iterator[Server]:
    """A server that decodes one image at a time."""
    with running_server(factory.weights, decode_threads="1", deadline_seconds=str(DEADLINE_SECONDS)) as server:
        yield server


@pytest.fixture
def png(factory: Factory) -> bytes:
    return (factory.data / "good" / "000.png").read_bytes()


def post(server: Server, png: bytes, path: str = URL) -> httpx.Response:
    return httpx.post(server.url + path, content=png, headers=PNG, timeout=60)


def test_a_decoder_that_hangs_costs_one_image_and_is_replaced(single: Server, factory: Factory, png: bytes):
    assert post(single, png).status_code == 200
    (hung,) = workers(single)
    before = restarts(single)
    os.kill(hung, signal.SIGSTOP)  # as a file would do that keeps a library busy
    other = (factory.data / "bad" / "000.png").read_bytes()
    problem(post(single, other), 504, "deadline-passed")
    assert post(single, png).status_code == 200
    (replacement,) = workers(single)
    assert replacement != hung
    assert restarts(single) == before + 1
    (line,) = [line for line in single.log if sha256(other).hexdigest() in line]
    assert "a decoder is replaced" in line
    assert "was not read by its deadline" in line


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_a_decoder_that_dies_between_images_costs_none(single: Server, png: bytes, how: signal.Signals):
    assert post(single, png).status_code == 200
    (worker,) = workers(single)
    ended = os.pidfd_open(worker)
    os.kill(worker, how)
    select.select([ended], [], [])
    os.close(ended)
    if how is signal.SIGSEGV:  # it cannot be told from a crash that the image brought about
        assert post(single, png).status_code in (200, 422)
    assert post(single, png).status_code == 200
    assert len(workers(single)) == 1


def test_images_of_a_batch_are_read_though_the_decoder_dies(single: Server, png: bytes):
    (worker,) = workers(single)
    os.kill(worker, signal.SIGKILL)
    files = [("image", (f"{number}.png", png)) for number in range(8)]
    results = httpx.post(single.url + BATCH, files=files, timeout=60).json()["results"]
    assert all("score" in result for result in results)


def test_a_client_that_leaves_takes_nothing_with_it(single: Server, png: bytes):
    assert post(single, png).status_code == 200
    (worker,) = workers(single)
    before = restarts(single)
    os.kill(worker, signal.SIGSTOP)
    with raw_request(single.url, png, len(png)):
        pass  # the connection is closed while its image is being read
    os.kill(worker, signal.SIGCONT)
    assert post(single, png).status_code == 200
    assert workers(single) == [worker]
    assert restarts(single) == before


def test_the_decoders_ignore_what_ends_a_process_group_and_end_with_the_server(factory: Factory, png: bytes):
    with running_server(factory.weights, decode_threads="2") as server:
        assert post(server, png).status_code == 200
        found = workers(server)
        assert 1 <= len(found) <= 2
        for worker in found:
            os.kill(worker, signal.SIGINT)
            os.kill(worker, signal.SIGTERM)
        assert post(server, png).status_code == 200
        assert set(found) <= set(workers(server))
        ends = [os.pidfd_open(worker) for worker in workers(server)]
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
    for end in ends:
        select.select([end], [], [])
        os.close(end)
