"""How much of the arithmetic the service loses: closed and open loops against it, beside the in-process ceiling.

    python -m benchmarks.service [--seconds 20] [--clients 1 4 16 64] [--sides 128 512 1024]

Full-size pair at 128x128 with seeded weights, ``localize=never``, JPEG bodies, keep-alive connections from this
process, which shares the machine with the server. Closed loop: each client sends its next image when it has the answer
to the last one. Open loop: images arrive at random moments at a share of the capacity that the closed loop found.
The ceiling is measured before and after each size, and the mean of the two counts, for the machine's speed drifts.
Results go to benchmarks/results/service.json.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.ceiling import images_per_second
from benchmarks.load import batch_counts, closed_loop, open_loop, request, serving
from benchmarks.pairs import CATEGORY, jpeg, make_category
from benchmarks.record import machine_and_commit
from model.detector import BEST_BATCH
from model.store.store import Store

PATH = f"/v1/categories/{CATEGORY}/inspect?localize=never"
COMMAND = [str(Path(sys.executable).with_name("eca-inspect")), "serve", "--port", "0", "--weights"]
QUEUE_SIZE = 256
"""The service's default; in overload it decides how long an accepted image waits: the queue over the capacity."""


def ceiling(weights: Path, seconds: float) -> float:
    """Images a second of the detector alone, in a process of its own."""
    script = f"from benchmarks.service import _ceiling; print(_ceiling({str(weights)!r}, {seconds}))"
    environment = os.environ | {"GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "1000")}  # as the service has it
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def _ceiling(weights: str, seconds: float) -> float:
    _, detector = Store(Path(weights)).load(CATEGORY)
    return images_per_second(detector, BEST_BATCH["cpu"], maps=False, seconds=seconds)


def measure(weights: Path, side: int, clients: list[int], seconds: float, *, overload: bool) -> list[dict[str, object]]:
    """Rows of one image size."""
    message = request("service", PATH, jpeg(side))
    rows: list[dict[str, object]] = []
    before = ceiling(weights, 5)
    with serving([*COMMAND, str(weights)], INSPECT_DEVICE="cpu") as (address, _):
        asyncio.run(closed_loop(address, lambda: message, 4, 2))

        def record(loop: str, load: dict[str, object], row: dict[str, float], counts: tuple[float, float]) -> None:
            images, batches = (now - then for now, then in zip(batch_counts(address), counts, strict=True))
            rows.append({"side": side, "loop": loop, **load, **row, "mean_batch": round(images / batches, 2)})
            print(json.dumps(rows[-1]), flush=True)

        for count in clients:
            counts = batch_counts(address)
            tally = asyncio.run(closed_loop(address, lambda: message, count, seconds))
            record("closed", {"clients": count}, tally.row(), counts)
        capacity = max(float(str(row["images_per_second"])) for row in rows)
        for percent in (50, 80, 120, 200) if overload else ():
            counts = batch_counts(address)
            rate = capacity * percent / 100
            burst = QUEUE_SIZE if percent > 100 else 0
            tally = asyncio.run(open_loop(address, lambda: message, rate, seconds, settle=3, burst=burst))
            row = tally.row()
            if percent > 100:
                row |= {
                    "queue_bound_ms": round(1000 * QUEUE_SIZE / capacity),
                    "goodput_share_of_peak": round(row["images_per_second"] / capacity, 3),
                }
            record("open", {"percent_of_capacity": percent, "arrivals_per_second": round(rate, 2)}, row, counts)
    mean_ceiling = float(np.mean([before, ceiling(weights, 5)]))
    for row in rows:
        row["share_of_ceiling"] = round(float(str(row["images_per_second"])) / mean_ceiling, 3)
    rows.append({"side": side, "loop": "in-process ceiling", "images_per_second": round(mean_ceiling, 2)})
    return rows


def main() -> None:
    """Measures everything and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--sides", type=int, nargs="+", default=[128, 512, 1024])
    parser.add_argument("--overload-side", type=int, default=512, help="size for the open loop; 0: none")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "service.json")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        make_category(Path(folder))
        for side in arguments.sides:
            rows += measure(
                Path(folder), side, arguments.clients, arguments.seconds, overload=side == arguments.overload_side
            )
    command = f"python -m benchmarks.service --seconds {arguments.seconds:g} --clients "
    command += " ".join(map(str, arguments.clients)) + " --sides " + " ".join(map(str, arguments.sides))
    torch_threads = os.environ.get("OMP_NUM_THREADS", str(torch.get_num_threads()))
    results = {"command": command, **machine_and_commit(), "omp_threads": torch_threads, "rows": rows}
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
