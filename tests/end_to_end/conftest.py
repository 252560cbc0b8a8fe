"""The real server in a process of its own, on a real socket."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from service import engine as engine_module
from service.app import create_app, http_protocol
from service.settings import Settings
from tests.conftest import Factory, Gate

COMMAND = Path(sys.executable).with_name("eca-inspect")


@dataclass
class Server:
    """A running server: its address, its process and what it has logged."""

    url: str
    process: subprocess.Popen[str]
    log: list[str]


@contextmanager
def running_server(weights: Path, *, command: Sequence[str] = (str(COMMAND),), **settings: str) -> Iterator[Server]:
    """Starts ``eca-inspect serve`` on a free port and stops it with SIGTERM."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INSPECT_")}
    environment |= {f"INSPECT_{name.upper()}": value for name, value in settings.items()}
    process = subprocess.Popen(
        [*command, "serve", "--port", "0", "--weights", str(weights)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    log: list[str] = []
    address: list[str] = []
    found = threading.Event()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            log.append(line)
            if match := re.search(r"running on (http://\S+)", line):
                address.append(match[1])
                found.set()
        found.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert found.wait(120), "the server did not start"
        assert address, "".join(log)
        yield Server(address[0], process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        reader.join(10)


@pytest.fixture(scope="session")
def server(factory: Factory) -> Iterator[Server]:
    with running_server(factory.weights) as started:
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as made:
        yield made


def wait_for_metric(url: str, line: str) -> None:
    """Returns when this line stands in the metrics."""
    deadline = time.monotonic() + 30
    while line not in httpx.get(url + "/metrics").text:
        assert time.monotonic() < deadline, line
        time.sleep(0.01)


@dataclass
class GatedServer:
    """The application on a real socket, in this process, with a gate before its device."""

    url: str
    gate: Gate
    app: FastAPI


@pytest.fixture
def gated(factory: Factory, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[GatedServer]:
    """Parametrize indirectly with a dictionary of settings."""
    settings = Settings(weights=factory.weights, **getattr(request, "param", {}))
    gate = Gate()
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, ws="none", http=http_protocol(app, settings)))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.02)
        assert server.started
        monkeypatch.setattr(engine_module, "detect", gate)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield GatedServer(f"http://127.0.0.1:{port}", gate, app)
    finally:
        gate.open.set()
        server.should_exit = True
        thread.join(60)
