"""The real server in a process of its own, on a real socket."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

from service.app import create_app
from service.device.torch_backend import TorchBackend
from service.http.server import Server as HttpServer
from service.settings import Settings
from tests.conftest import ROOT, Factory, Gate, surface
from tests.end_to_end.browsing import PICTURES, Visits, find_chromium, start_chromium
from tests.needs import BROWSER
from tests.service.cli.test_cli import run

COMMAND = Path(sys.executable).with_name("eca-inspect")

for _part in ("connect", "read", "write", "pool"):  # httpx has 5 s, which a busy machine can need for an answer
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, _part, 60.0)


@dataclass
class Server:
    """A running server: its address, its process and what it has logged."""

    url: str
    process: subprocess.Popen[str]
    log: list[str]

    def wait_for_log(self, *parts: str) -> None:
        """Returns when a line of the log has all of these parts."""
        deadline = time.monotonic() + 120
        while not any(all(part in line for part in parts) for line in self.log):
            assert time.monotonic() < deadline, "".join(self.log)
            time.sleep(0.02)


@contextmanager
def running_server(
    weights: Path,
    *,
    command: Sequence[str] = (str(COMMAND),),
    options: Sequence[str] = (),
    port: int = 0,
    **settings: str,
) -> Iterator[Server]:
    """Starts ``eca-inspect serve``, on a free port unless one is given, and stops it with SIGTERM.

    Its history is in a folder of its own, unless the settings name one.
    """
    with TemporaryDirectory() as state:
        yield from _running(weights, command, options, port, {"state": state} | settings)


def _running(
    weights: Path, command: Sequence[str], options: Sequence[str], port: int, settings: dict[str, str]
) -> Iterator[Server]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INSPECT_")}
    environment |= {f"INSPECT_{name.upper()}": value for name, value in settings.items()}
    process = subprocess.Popen(
        [*command, "serve", "--port", str(port), "--weights", str(weights), *options],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    log: list[str] = []
    address: list[str] = []
    found = threading.Event()
    last = "metrics are at" if "metrics_port" in settings else "running on"  # that the start says

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            log.append(line)
            if match := re.search(r"running on (http://\S+)", line):
                address.append(match[1])
            if last in line:
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


def write_formats(folder: Path) -> list[Path]:
    """Files of every format and mode that a camera or a converter makes."""
    colour = Image.fromarray(surface(900, size=(120, 90), fault=True))
    sixteen = Image.fromarray(np.asarray(colour.convert("L")).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    files: list[tuple[str, Image.Image, dict[str, object]]] = [
        ("colour.jpg", colour, {"quality": 90}),
        ("progressive.jpg", colour, {"progressive": True}),
        ("grey.jpg", colour.convert("L"), {}),
        ("cmyk.jpg", colour.convert("CMYK"), {}),
        ("turned.jpg", colour, {"exif": exif}),
        ("colour.png", colour, {}),
        ("palette.png", colour.quantize(64), {}),
        ("alpha.png", colour.convert("RGBA"), {}),
        ("grey_alpha.png", colour.convert("LA"), {}),
        ("sixteen.png", sixteen, {}),
        ("colour.bmp", colour, {}),
        ("colour.tif", colour, {"compression": "tiff_lzw"}),
        ("sixteen.tif", sixteen, {}),
        ("cmyk.tif", colour.convert("CMYK"), {}),
        ("lossy.webp", colour, {}),
        ("lossless.webp", colour, {"lossless": True}),
    ]
    for name, image, options in files:
        image.save(folder / name, **options)
    return [folder / name for name, _, _ in files]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_formats(tmp_path_factory.mktemp("formats"))


@pytest.fixture(scope="session")
def offline(factory: Factory, files: list[Path]) -> dict[str, dict[str, dict[str, object]]]:
    """What ``eca-inspect inspect`` says of each file, by category and file name."""
    answers = {}
    for category in factory.categories:
        done = run("inspect", category, *files, "--json", "--weights", factory.weights)
        answers[category] = {Path(answer["path"]).name: answer for answer in json.loads(done.stdout)}
    return answers


def wait_for_metric(url: str, line: str) -> None:
    """Returns when this line stands in the metrics."""
    deadline = time.monotonic() + 120
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
def gated(factory: Factory, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[GatedServer]:
    """Parametrize indirectly with a dictionary of settings."""
    settings = Settings(weights=factory.weights, state=tmp_path / "state", port=0, **getattr(request, "param", {}))
    gate = Gate()
    app = create_app(settings, lambda device, allowance: gate.before(TorchBackend(device, allowance)))
    server = HttpServer(app, settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 120
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.02)
        assert server.started
        port = server.servers[0].sockets[0].getsockname()[1]
        yield GatedServer(f"http://127.0.0.1:{port}", gate, app)
    finally:
        gate.open.set()
        server.should_exit = True
        thread.join(60)


@contextmanager
def running_chromium(*arguments: str) -> Iterator[Browser]:
    """Chromium with these arguments; where there is none, the test is left out."""
    with sync_playwright() as playwright:
        path = find_chromium(playwright)
        if path is None:
            BROWSER.missing()
        expect.set_options(timeout=60_000)
        with start_chromium(playwright, path, *arguments) as browser:
            yield browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """No longer than a module: while Playwright runs, no test can run an event loop of its own."""
    with running_chromium() as browser:
        yield browser


@pytest.fixture
def browse(chromium: Browser, tmp_path: Path) -> Iterator[Visits]:
    """Opens pages; fails when one complained, broke its policy or asked another host."""
    visits = Visits(chromium, Path(os.environ.get(PICTURES) or tmp_path))
    yield visits
    visits.end()


@pytest.fixture(scope="module")
def plates(chromium: Browser) -> Iterator[Server]:
    """What a newcomer has: the built-in category alone. Without a browser it is not started."""
    with running_server(ROOT / "weights", device="cpu") as server:
        yield server


@pytest.fixture
def changing(chromium: Browser, factory: Factory, tmp_path: Path) -> Iterator[tuple[Server, Path]]:
    """A server that looks at its own weights folder each second: the built-in category, and ``striped``."""
    weights = tmp_path / "weights"
    shutil.copytree(ROOT / "weights", weights)
    shutil.copytree(factory.weights / "teachers", weights / "teachers", dirs_exist_ok=True)
    shutil.copytree(factory.weights / "striped", weights / "striped")
    with running_server(weights, device="cpu", reload_seconds="1") as server:
        yield server, weights


@pytest.fixture(scope="session")
def ray_server(ray_installed: None, factory: Factory) -> Iterator[Server]:
    """Two replicas behind Ray Serve, on a cluster of this machine alone."""
    with running_server(
        factory.weights,
        options=["--ray"],
        port=free_port(),
        queue_size="32",
        ray_min_replicas="2",
        ray_replica_cpus="0.5",
    ) as started:
        yield started


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port: int = made.getsockname()[1]
        return port
