"""The same pair behind our server and behind its rivals, in one run on one machine.

    pip install -c constraints.txt -e '.[rivals]'
    python -m benchmarks.compare [--seconds 10] [--rounds 2] [--clients 1 4 16 64] [--side 512]

Full-size pair at 128x128 with seeded weights, score only, JPEG bodies, closed loops in this process, which shares the
machine with the server. Every round visits every server; a figure is the median of the rounds. Results go to
benchmarks/results/rivals.json.
"""

import argparse
import asyncio
import json
import socket
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.load import Tally, closed_loop, request, serving
from benchmarks.pairs import CATEGORY, jpeg, make_category
from benchmarks.record import machine_and_commit
from benchmarks.rivals import RIVALS
from benchmarks.service import COMMAND, PATH

OURS = "eca-inspect"


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def command_of(server: str, weights: str) -> list[str]:
    """How to start a server."""
    if server == OURS:
        return [*COMMAND, weights]
    return [sys.executable, "-m", RIVALS[server], weights, CATEGORY, str(free_port())]


def main() -> None:
    """Measures everything and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--side", type=int, default=512)
    arguments = parser.parse_args()
    message = request("service", PATH, jpeg(arguments.side))
    tallies: dict[tuple[str, int], list[Tally]] = {}
    with tempfile.TemporaryDirectory() as weights:
        make_category(Path(weights))
        for _ in range(arguments.rounds):
            for server in (OURS, *RIVALS):
                with serving(command_of(server, weights), INSPECT_DEVICE="cpu") as (address, _):
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
    command = f"python -m benchmarks.compare --seconds {arguments.seconds:g} --rounds {arguments.rounds} --clients "
    command += " ".join(map(str, arguments.clients)) + f" --side {arguments.side}"
    note = f"JPEGs of {arguments.side}x{arguments.side}, score only. Each file in rivals/ says how its server is tuned."
    results = {"command": command, **machine_and_commit(), "note": note, "rows": rows}
    (Path(__file__).parent / "results" / "rivals.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
