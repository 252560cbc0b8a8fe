"""How much of the arithmetic the server loses: in-process ceiling, our service and a plain endpoint, in one run.

    python -m benchmarks.throughput [--seconds 10] [--clients 1 4 16 64] [--sides 128 512 1024]

The pair is the paper's full-size one at 128x128 with seeded weights (speed does not depend on what it has learned).
Closed loop: each client sends its next image when it has the answer to the last one. JPEG bodies, ``localize=never``,
keep-alive connections from this process, which shares the machine with the server. Results go to
benchmarks/results/throughput.json.
"""

import argparse
import asyncio
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import torch
from PIL import Image

from benchmarks.record import machine_and_commit
from model.datasets import mvtec_training
from model.lifecycle import load_detector, train_category
from model.synthetic import normal_image, write_dataset
from model.teachers import save_teacher
from model.training import Recipe
from model.vgg import Teacher

CATEGORY, TEACHER = "seeded", "seeded"


def make_pair(weights: Path) -> None:
    """A full-size pair with weights that keep the signal's size, trained for one epoch."""
    torch.manual_seed(0)
    teacher = Teacher()
    for layer in teacher.features:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    save_teacher(teacher, weights / "teachers", TEACHER)
    with tempfile.TemporaryDirectory() as data:
        write_dataset(Path(data, "plates"), train=16, test_good=0, test_each=0, seed=0)
        samples = mvtec_training(Path(data, "plates"))
        train_category(CATEGORY, samples, weights, TEACHER, teacher, Recipe(epochs=1), device="cpu")


def ceiling(weights: Path, seconds: float) -> dict[str, dict[str, float]]:
    """Images a second of the detector alone at several batch sizes, and the matrix rate in the same minute."""
    _, detector = load_detector(weights, weights / "teachers", CATEGORY)
    a, b = torch.randn(2, 2048, 2048).unbind()
    found: dict[str, dict[str, float]] = {
        "matrix_product_gflops": {"float32": 2 * 2048**3 / _best(lambda: a @ b, seconds) / 1e9}
    }
    for name, maps in (("score", False), ("score_and_map", True)):
        found[f"{name}_images_per_second"] = {}
        for batch in (1, 8, 32):
            images = np.stack([normal_image(np.random.default_rng(i))[::2, ::2] for i in range(batch)])
            best = _best(lambda images=images, maps=maps: detector(images, maps=maps), seconds)
            found[f"{name}_images_per_second"][str(batch)] = batch / best
    return found


def _best(work: object, seconds: float) -> float:
    assert callable(work)
    work()
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


@contextmanager
def serving(command: list[str]) -> Iterator[str]:
    """Runs a server until it has said its address; yields host:port."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stderr is not None
        address = next(match[1] for line in process.stderr if (match := re.search(r"running on http://(\S+)", line)))
        try:
            yield address
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate()


async def closed_loop(address: str, body: bytes, clients: int, seconds: float) -> dict[str, float]:
    """Throughput and latency of this many clients; every answer must be a 200."""
    host, port = address.split(":")
    head = f"POST /v1/categories/{CATEGORY}/inspect?localize=never HTTP/1.1\r\nHost: {address}\r\n"
    request = f"{head}Content-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    latencies: list[float] = []
    until = time.perf_counter() + seconds

    async def client() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        while (started := time.perf_counter()) < until:
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200"), answer
            length = re.search(rb"content-length: (\d+)", answer, re.IGNORECASE)
            assert length is not None
            await reader.readexactly(int(length[1]))
            latencies.append(time.perf_counter() - started)
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    elapsed = time.perf_counter() - started
    p50, p95, p99 = (round(1000 * float(np.percentile(latencies, q)), 1) for q in (50, 95, 99))
    return {"images_per_second": round(len(latencies) / elapsed, 2), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}


def mean_batch(address: str, before: tuple[float, float]) -> tuple[float, tuple[float, float]]:
    """Mean batch since the counts before, and the counts now; 0 where the server has no such metric."""
    text = httpx.get(f"http://{address}/metrics").text
    now = tuple(
        float(match[1]) if (match := re.search(rf"^inspect_batch_size_images_{part} (\S+)$", text, re.MULTILINE)) else 0
        for part in ("sum", "count")
    )
    images, batches = now[0] - before[0], now[1] - before[1]
    return round(images / batches, 2) if batches else 0.0, (now[0], now[1])


def jpeg(side: int) -> bytes:
    """A plate of this side as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(normal_image(np.random.default_rng(0))).resize((side, side)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def main() -> None:
    """Measures everything and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--sides", type=int, nargs="+", default=[128, 512, 1024])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "throughput.json")
    arguments = parser.parse_args()
    os.environ["INSPECT_DEVICE"] = "cpu"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder)
        make_pair(weights)
        found = ceiling(weights, min(arguments.seconds, 5))
        best = max(found["score_images_per_second"].values())
        ours = [str(Path(sys.executable).with_name("eca-inspect")), "serve", "--port", "0", "--weights", folder]
        plain = [sys.executable, "-m", "benchmarks.plain_fastapi", folder, CATEGORY, str(free_port())]
        for side in arguments.sides:
            for name, command in (("eca-inspect", ours), ("plain FastAPI", plain)):
                with serving(command) as address:
                    asyncio.run(closed_loop(address, jpeg(side), 4, 2))  # warm up
                    _, counts = mean_batch(address, (0, 0))
                    for clients in arguments.clients:
                        row = asyncio.run(closed_loop(address, jpeg(side), clients, arguments.seconds))
                        batch, counts = mean_batch(address, counts)
                        share = round(row["images_per_second"] / best, 3)
                        rows.append(
                            {"server": name, "side": side, "clients": clients, **row}
                            | ({"mean_batch": batch} if batch else {})
                            | {"share_of_ceiling": share}
                        )
                        print(json.dumps(rows[-1]), flush=True)
    command = f"python -m benchmarks.throughput --seconds {arguments.seconds:g} --clients "
    command += " ".join(map(str, arguments.clients)) + " --sides " + " ".join(map(str, arguments.sides))
    results = {"command": command, **machine_and_commit(), "ceiling": found, "closed_loop": rows}
    arguments.output.parent.mkdir(exist_ok=True)
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
