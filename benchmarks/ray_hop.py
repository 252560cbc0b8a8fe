"""What the way through Ray Serve costs: the plain server and one replica behind Ray Serve, in one run.

    pip install -c constraints.txt -e '.[ray]'
    python -m benchmarks.ray_hop [--seconds 5] [--rounds 3] [--clients 1 16] [--side 512]

Two calls: one that needs no device (a category's card), which is nearly all way, and the inspection of a JPEG with the
full-size pair at 128x128 with seeded weights, score only. Closed loops in this process, which shares the machine with
the server. Every round visits both servers; a figure is the median of the rounds. The time of the processor is that
of all processes of a server, Ray's own too, and suffers less from what else the machine does than the latencies.
Results go to benchmarks/results/ray_hop.json.
"""

import argparse
import asyncio
import json
import os
import tempfile
from itertools import product
from pathlib import Path
from statistics import median

import psutil
import ray

from benchmarks.compare import free_port
from benchmarks.load import closed_loop, request, serving
from benchmarks.pairs import CATEGORY, jpeg, make_category
from benchmarks.record import machine_and_commit
from benchmarks.service import COMMAND, PATH

SERVERS = ("plain", "ray")


def command_of(server: str, weights: str) -> list[str]:
    """How to start a server."""
    program, serve, *_ = COMMAND
    on_ray = ["--ray"] if server == "ray" else []
    return [program, serve, *on_ray, "--port", str(free_port()), "--weights", weights]


def processor_seconds(process: int) -> float:
    """What a process and all its descendants have used so far."""
    whole = psutil.Process(process)
    return sum(sum(one.cpu_times()[:2]) for one in (whole, *whole.children(recursive=True)))


def measure(address: str, process: int, message: bytes, clients: int, seconds: float) -> dict[str, float]:
    """One closed loop."""
    before = processor_seconds(process)
    tally = asyncio.run(closed_loop(address, lambda: message, clients, seconds))
    used = processor_seconds(process) - before
    row = tally.row()
    return {
        "requests_per_second": row["images_per_second"],
        "p50_ms": row["p50_ms"],
        "processor_ms": round(1000 * used / tally.statuses[200], 2),
    }


def main() -> None:
    """Measures both and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--side", type=int, default=512)
    arguments = parser.parse_args()
    calls = {
        "category": f"GET /v1/categories/{CATEGORY} HTTP/1.1\r\nHost: service\r\n\r\n".encode(),
        "inspect": request("service", PATH, jpeg(arguments.side)),
    }
    measured: dict[tuple[str, int, str], list[dict[str, float]]] = {}
    cores = str(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as weights:
        make_category(Path(weights))
        for _ in range(arguments.rounds):
            for server in SERVERS:
                command = command_of(server, weights)
                with serving(command, INSPECT_DEVICE="cpu", INSPECT_RAY_REPLICA_CPUS=cores) as (address, process):
                    asyncio.run(closed_loop(address, lambda: calls["inspect"], 4, 2))
                    for (call, message), clients in product(calls.items(), arguments.clients):
                        row = measure(address, process.pid, message, clients, arguments.seconds)
                        measured.setdefault((call, clients, server), []).append(row)
                        print(call, clients, server, row, flush=True)
    rows = [
        {"call": call, "clients": clients, "server": server}
        | {name: round(median(row[name] for row in found), 2) for name in found[0]}
        for (call, clients, server), found in sorted(measured.items())
    ]
    command_line = (
        f"python -m benchmarks.ray_hop --seconds {arguments.seconds:g} --rounds {arguments.rounds} --clients "
    )
    command_line += " ".join(map(str, arguments.clients)) + f" --side {arguments.side}"
    note = f"JPEGs of {arguments.side}x{arguments.side}; one replica that has all cores."
    results = {"command": command_line, **machine_and_commit(), "ray": ray.__version__, "note": note, "rows": rows}
    (Path(__file__).parent / "results" / "ray_hop.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
