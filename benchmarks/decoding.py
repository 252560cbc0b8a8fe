"""What decoding in processes of their own costs: the real server in both designs, side by side.

    python -m benchmarks.decoding [--seconds 4] [--rounds 8] [--clients 8]

Two servers with the built-in category run at the same time: the product, and the same with its decoders replaced by
threads of the server's own process. JPEGs are sent to one and then the other, round after round, ``localize=never``, a
closed loop over keep-alive connections. Processor time is that of all processes of a server, from /proc, so other work
on the machine does not count. Ratios are processes over threads. Results go to benchmarks/results/decoding.json.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.load import closed_loop, request, serving
from benchmarks.pairs import jpeg
from benchmarks.record import machine_and_commit
from service.decoding.work import Picture, Step, read_picture
from tools.pictures import CATEGORY, WEIGHTS

PATH = f"/v1/categories/{CATEGORY}/inspect?localize=never"
MEBIBYTE = 1 << 20
SIZES = {"128x128": (128, 128), "512x512": (512, 512), "1024x1024": (1024, 1024), "2448x2048": (2448, 2048)}


class InThreads:
    """In the place of `service.decoding.pool.Decoders`: decodes in the thread that asks."""

    def __init__(self, count: int, *, max_image_pixels: int, **_: Any) -> None:
        self._max_pixels = max_image_pixels

    def __enter__(self) -> "InThreads":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, data: bytes, step: Step, until: float) -> Picture:
        """As `service.decoding.pool.Decoders.read`, but nothing ends it."""
        return read_picture(data, step, self._max_pixels)


def serve_in_threads() -> None:
    """The server without its processes."""
    from service import app
    from service.cli import main

    app.Decoders = InThreads  # type: ignore[misc, assignment]
    sys.argv = ["eca-inspect", *sys.argv[1:]]
    main()


def photograph(width: int, height: int) -> bytes:
    """A JPEG of a generated plate at this size."""
    plate = cv2.imdecode(np.frombuffer(jpeg(1024), np.uint8), cv2.IMREAD_COLOR)
    noise = np.random.default_rng(0).normal(0, 3, (height, width, 3))
    picture = np.clip(cv2.resize(plate, (width, height)) + noise, 0, 255).astype(np.uint8)
    data: bytes = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    return data


def family(process: int) -> list[int]:
    """A process and all that it has started."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return [process, *(one for child in children for one in family(child))]


def processor_seconds(process: int) -> float:
    """That a server's processes have used."""
    return sum(map(own_seconds, family(process)))


def own_seconds(process: int) -> float:
    """Processor time that one process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def worker_mebibytes(process: int) -> float:
    """Memory of one worker that it shares with no other process (the mean over the workers)."""
    sizes = []
    for one in family(process)[1:]:
        rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
        sizes.append(sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_")))
    return float(np.mean(sizes)) * 1024 / MEBIBYTE


def measure(
    servers: dict[str, tuple[str, subprocess.Popen[str]]], message: bytes, clients: int, seconds: float, rounds: int
) -> dict[str, Any]:
    """A row for one image."""
    rates: dict[str, list[float]] = {name: [] for name in servers}
    costs: dict[str, list[float]] = {name: [] for name in servers}
    latencies: dict[str, list[float]] = {name: [] for name in servers}
    for number in range(rounds):
        for name in list(servers)[:: 1 if number % 2 else -1]:
            address, process = servers[name]
            before = processor_seconds(process.pid)
            tally = asyncio.run(closed_loop(address, lambda: message, clients, seconds))
            answered = tally.statuses[200]
            rates[name].append(answered / tally.seconds)
            costs[name].append(1000 * (processor_seconds(process.pid) - before) / answered)
            latencies[name] += tally.answered
    row: dict[str, Any] = {"file_bytes": len(message)}
    for name in servers:
        row[f"{name}_images_per_second"] = round(float(np.median(rates[name])), 2)
        row[f"{name}_processor_ms"] = round(float(np.median(costs[name])), 3)
        row[f"{name}_p50_ms"] = round(1000 * float(np.median(latencies[name])), 1)
    pairs = zip(rates["processes"], rates["threads"], strict=True)
    row["throughput_ratio"] = round(float(np.median([one / other for one, other in pairs])), 3)
    row["processor_ratio"] = round(float(np.median(costs["processes"]) / np.median(costs["threads"])), 3)
    return row


def main() -> None:
    """Measures and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    options = ["serve", "--port", "0", "--weights", str(WEIGHTS)]
    threads = [sys.executable, "-c", "from benchmarks.decoding import serve_in_threads; serve_in_threads()", *options]
    product = [str(Path(sys.executable).with_name("eca-inspect")), *options]
    rows = {}
    with (
        serving(product, INSPECT_DEVICE="cpu") as processes_server,
        serving(threads, INSPECT_DEVICE="cpu") as threads_server,
    ):
        servers = {"processes": processes_server, "threads": threads_server}
        for name, size in SIZES.items():
            message = request("service", PATH, photograph(*size))
            for address, _ in servers.values():
                asyncio.run(closed_loop(address, lambda: message, arguments.clients, 2))  # noqa: B023
            rows[name] = measure(servers, message, arguments.clients, arguments.seconds, arguments.rounds)
            print(name, json.dumps(rows[name]), flush=True)
        private = round(worker_mebibytes(processes_server[1].pid), 1)
    results = {
        "command": "python -m benchmarks.decoding "
        f"--seconds {arguments.seconds:g} --rounds {arguments.rounds} --clients {arguments.clients}",
        **machine_and_commit(),
        "rows": rows,
        "private_mebibytes_of_a_worker": private,
    }
    (Path(__file__).parent / "results" / "decoding.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
