"""What more categories and larger images cost: throughput and memory of the service.

    python -m benchmarks.growth [--seconds 20] [--categories 1 10 100 1000] [--image-sizes 64 128 256 512]

Full-size pairs with seeded weights, JPEG bodies of 128x128 pixels, ``localize=never``, 16 clients in a closed loop in
this process, which shares the machine with the server. Uniform traffic: every image for a category drawn at random.
Skewed: the k-th category is wanted 1/k as often as the first. Memory is the server's resident set after its load.
Results go to benchmarks/results/growth.json.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.load import batch_counts, closed_loop, request, serving
from benchmarks.pairs import CATEGORY, copy_category, jpeg, make_category
from benchmarks.record import machine_and_commit
from benchmarks.service import COMMAND

CLIENTS = 16
GIB = 1 << 30


def resident_megabytes(pid: int) -> float:
    """Memory of a process, from the kernel."""
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(status.partition("VmRSS:")[2].split()[0]) / 1024, 1)


def traffic(names: list[str], *, skewed: bool) -> Iterator[bytes]:
    """Endless requests for these categories."""
    body = jpeg(128)
    messages = [request("service", f"/v1/categories/{name}/inspect?localize=never", body) for name in names]
    weights = 1 / np.arange(1, len(names) + 1) if skewed else np.ones(len(names))
    rng = np.random.default_rng(0)
    while True:
        yield messages[rng.choice(len(names), p=weights / weights.sum())]


def measure(weights: Path, names: list[str], seconds: float, student_bytes: int) -> list[dict[str, object]]:
    """One server with these categories, under uniform and, if there are several, skewed traffic."""
    rows: list[dict[str, object]] = []
    started = time.perf_counter()
    with serving([*COMMAND, str(weights)], INSPECT_DEVICE="cpu", INSPECT_STUDENT_MEMORY_BYTES=str(student_bytes)) as (
        address,
        process,
    ):
        start_seconds = round(time.perf_counter() - started, 1)
        for skewed in (False, True)[: min(len(names), 2)]:
            requests = traffic(names, skewed=skewed)
            asyncio.run(closed_loop(address, lambda requests=requests: next(requests), CLIENTS, 3))
            counts = batch_counts(address)
            tally = asyncio.run(closed_loop(address, lambda requests=requests: next(requests), CLIENTS, seconds))
            images, batches = (now - then for now, then in zip(batch_counts(address), counts, strict=True))
            rows.append(
                {
                    "categories": len(names),
                    "traffic": "skewed" if skewed else "uniform",
                    "student_memory_mib": student_bytes >> 20,
                    **tally.row(),
                    "mean_batch": round(images / batches, 2),
                    "resident_mib": resident_megabytes(process.pid),
                    "start_seconds": start_seconds,
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    """Measures everything and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--categories", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--image-sizes", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "growth.json")
    arguments = parser.parse_args()
    by_categories: list[dict[str, object]] = []
    by_size: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder)
        make_category(weights)
        names = [CATEGORY]
        for count in sorted(arguments.categories):
            for index in range(len(names), count):
                names.append(f"category-{index:04}")
                copy_category(weights, names[-1])
            by_categories += measure(weights, names, arguments.seconds, 2 * GIB)
            if count >= 1000:
                by_categories += measure(weights, names, arguments.seconds, GIB // 2)
    for size in arguments.image_sizes:
        with tempfile.TemporaryDirectory() as folder:
            make_category(Path(folder), size)
            by_size += [
                {"image_size": size, **row} for row in measure(Path(folder), [CATEGORY], arguments.seconds, GIB)
            ]
    command = f"python -m benchmarks.growth --seconds {arguments.seconds:g} --categories "
    command += " ".join(map(str, arguments.categories)) + " --image-sizes " + " ".join(map(str, arguments.image_sizes))
    results = {"command": command, **machine_and_commit(), "by_categories": by_categories, "by_image_size": by_size}
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
