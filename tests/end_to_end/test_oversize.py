"""A category whose images are larger than the device can afford is refused before it costs anything."""

import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.conftest import Factory
from tests.end_to_end.conftest import COMMAND, Server, running_server
from tests.end_to_end.test_refusals import PNG, URL, problem
from tests.end_to_end.test_reloading import edit, listed

SIDE = 2048
"""The largest that a card may say, pixels."""
ADDRESS_SPACE_KIB = 12 << 20
"""Of the server: should it try all the same, it fails before this machine is short of memory."""
BOTH_NUMBERS = "2048x2048 pixels would take about 3.2 GB of memory, more than the 1 GB that a batch may take"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, which only Linux has")


@pytest.fixture
def weights(factory: Factory, tmp_path: Path) -> Path:
    return Path(shutil.copytree(factory.weights, tmp_path / "weights"))


@pytest.fixture
def server(weights: Path) -> Iterator[Server]:
    """One that found such a category among the others when it started."""
    shutil.copytree(weights / "striped", weights / "huge")
    edit(weights / "huge", category="huge", image_size=SIDE)
    limited = ("sh", "-c", f'ulimit -v {ADDRESS_SPACE_KIB}; exec "$0" "$@"', str(COMMAND))
    with running_server(weights, command=limited, device_memory_bytes="1000000000", reload_seconds="0") as started:
        yield started


def peak_bytes(server: Server) -> int:
    """The most memory that the server has had in use at once."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def test_it_is_refused_with_both_numbers_and_the_others_serve(server: Server, weights: Path, factory: Factory):
    png = (factory.data / "good" / "000.png").read_bytes()
    assert listed(server.url)["huge"]["status"] == "refused"
    assert BOTH_NUMBERS in listed(server.url)["huge"]["reason"]
    server.wait_for_log("category huge is refused", BOTH_NUMBERS)
    response = httpx.post(f"{server.url}/v1/categories/huge/inspect", content=png, headers=PNG, timeout=60)
    assert BOTH_NUMBERS in problem(response, 503, "category-refused")

    before, peak = httpx.post(server.url + URL, content=png, headers=PNG, timeout=60).json(), peak_bytes(server)
    edit(weights / "striped", image_size=SIDE)  # a new version of a category that serves
    with ThreadPoolExecutor(2) as pool:
        reload = pool.submit(httpx.post, f"{server.url}/v1/categories/striped/reload", timeout=60)
        during = [pool.submit(httpx.post, server.url + URL, content=png, headers=PNG, timeout=60) for _ in range(20)]
    assert BOTH_NUMBERS in problem(reload.result(), 409, "reload-refused")
    answers = [response.result().json() for response in during]
    assert [answer["model_version"] for answer in answers] == [before["model_version"]] * 20
    assert [answer["score"] for answer in answers] == pytest.approx([before["score"]] * 20)
    assert peak_bytes(server) - peak < 200_000_000
    assert "inspect_device_restarts_total 0.0" in httpx.get(server.url + "/metrics").text
