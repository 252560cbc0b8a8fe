"""What the way through Ray Serve costs: the plain server and one replica behind Ray Serve, in one run.

    pip install -c constraints.txt -e '.[ray]'
    python -m benchmarks.ray_hop [--seconds 10] [--rounds 3] [--clients 1 16] [--side 512]

Full-size pair at 128x128 with seeded weights, score only, JPEG bodies, closed loops in this process, which shares the
machine with the server. Every round visits both; a figure is the median of the rounds. Results go to
benchmarks/results/ray_hop.json.
"""

import argparse
import asyncio
import json
import os
import tempfile
from pathlib import Path
from statistics import median

import ray

from benchmarks.compare import free_port
from benchmarks.load import Tally, closed_loop, request, serving
from benchmarks.pairs import jpeg, make_category
from benchmarks.record import machine_and_commit
from benchmarks.service import COMMAND, PATH

SERVERS = ("plain", "ray")


def command_of(server: str, weights: str) -> list[str]:
    """How to start a server."""
    program, serve, *_ = COMMAND
    on_ray = ["--ray"] if server == "ray" else []
    return [program, serve, *on_ray, "--port", str(free_port()), "--weights", weights]


def main() -> None:
    """Measures both and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--side", type=int, default=512)
    arguments = parser.parse_args()
    message = request("service", PATH, jpeg(arguments.side))
    tallies: dict[tuple[str, int], list[Tally]] = {}
    cores = str(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as weights:
        make_category(Path(weights))
        for _ in range(arguments.rounds):
            for server in SERVERS:
                command = command_of(server, weights)
                with serving(command, INSPECT_DEVICE="cpu", INSPECT_RAY_REPLICA_CPUS=cores) as (address, _):
                    asyncio.run(closed_loop(address, lambda: message, 4, 2))
                    for clients in arguments.clients:
                        tally = asyncio.run(closed_loop(address, lambda: message, clients, arguments.seconds))
                        tallies.setdefault((server, clients), []).append(tally)
                        print(server, clients, tally.row(), flush=True)
    rows = []
    for (server, clients), found in tallies.items():
        measured = [tally.row() for tally in found]
        rows.append({"server": server, "clients": clients})
        rows[-1] |= {name: round(median(row[name] for row in measured), 2) for name in measured[0]}
    command_line = (
        f"python -m benchmarks.ray_hop --seconds {arguments.seconds:g} --rounds {arguments.rounds} --clients "
    )
    command_line += " ".join(map(str, arguments.clients)) + f" --side {arguments.side}"
    note = f"JPEGs of {arguments.side}x{arguments.side}, score only, one replica that has all cores."
    results = {"command": command_line, **machine_and_commit(), "ray": ray.__version__, "note": note, "rows": rows}
    (Path(__file__).parent / "results" / "ray_hop.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
