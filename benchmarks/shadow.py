"""What a candidate costs the inspections beside which it scores.

    python -m benchmarks.shadow [--rounds 3] [--seconds 10] [--every 0.5]

Runs two servers with the same full-size pair and a history, one of them with a candidate, and asks them in turns, so
that a change of the machine's speed meets both. ``back_to_back`` is one client that sends the next image when it has
the answer; ``line`` is one that sends an image at fixed moments, as a camera over a belt does. Results go to
benchmarks/results/shadow.json.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import httpx

from benchmarks.load import Connection, Tally, closed_loop, request, serving
from benchmarks.pairs import CATEGORY, jpeg, make_category
from benchmarks.record import machine_and_commit
from model.lifecycle.calibrate import calibrate_category
from model.lifecycle.thresholds import Rule

RESULTS = Path(__file__).parent / "results"
WANTED = 1_000_000


async def line(address: str, message: bytes, every: float, seconds: float) -> Tally:
    """An image at each moment that is due, once the one before is answered."""
    tally, connection = Tally(), Connection(address)
    await connection.send(message)
    started = time.perf_counter()
    for number in range(round(seconds / every)):
        await asyncio.sleep(max(0.0, started + number * every - time.perf_counter()))
        now = time.perf_counter()
        status, _ = await connection.send(message)
        tally.add(status, time.perf_counter() - now)
    tally.seconds = time.perf_counter() - started
    connection.close()
    assert set(tally.statuses) == {200}, tally.statuses
    return tally


def measure(rounds: int, seconds: float, every: float) -> dict[str, object]:
    """Both servers in turns. Returns what was measured, and with / without as ratios."""
    message = request("localhost", f"/v1/categories/{CATEGORY}/inspect?localize=never", jpeg(512))
    tallies = {load: {one: Tally() for one in ("without", "with")} for load in ("back_to_back", "line")}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        addresses = {}
        for one in ("without", "with"):
            folder = Path(name, one)
            weights = folder / "weights"
            make_category(weights)
            if one == "with":
                rule = Rule(threshold=1.0)
                calibrate_category(weights, weights / "teachers", CATEGORY, [], [], rule=rule, candidate=True)
            command = [str(Path(sys.executable).with_name("eca-inspect")), "serve", "--port", "0"]
            environment = {
                "INSPECT_DEVICE": "cpu",
                "INSPECT_WEIGHTS": str(weights),
                "INSPECT_DATABASE": f"sqlite:///{folder / 'history.sqlite'}",
                "INSPECT_STATE": str(folder / "state"),
                "INSPECT_SHADOW_INSPECTIONS": str(WANTED),
            }
            addresses[one], _ = stack.enter_context(serving(command, **environment))
        scored = {}
        for load, of_load in tallies.items():
            for number in range(rounds):
                for one, address in list(addresses.items())[:: 1 if number % 2 else -1]:
                    if load == "line":
                        tally = asyncio.run(line(address, message, every, seconds))
                    else:
                        tally = asyncio.run(closed_loop(address, lambda: message, 1, seconds))
                    of_load[one].seconds += tally.seconds
                    of_load[one].statuses += tally.statuses
                    of_load[one].answered += tally.answered
                    time.sleep(2)  # what waits for idle time is not to fall into the other server's turn
            found = httpx.get(f"http://{addresses['with']}/v1/categories/{CATEGORY}/candidate").json()
            scored[load] = {name: found[name] for name in ("scored", "skipped", "failed")}
    rows = {load: {one: tally.row() for one, tally in of_load.items()} for load, of_load in tallies.items()}
    ratios = {
        load: {
            name: round(row["with"][name] / row["without"][name], 4)
            for name in ("images_per_second", "p50_ms", "p95_ms", "p99_ms")
        }
        for load, row in rows.items()
    }
    return {
        "rounds": rounds,
        "seconds": seconds,
        "every_seconds": every,
        **rows,
        "candidate_by_the_end_of": scored,
        "ratio": ratios,
    }


def main() -> None:
    """Measures and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--every", type=float, default=0.5)
    arguments = parser.parse_args()
    found = measure(arguments.rounds, arguments.seconds, arguments.every)
    results = {**machine_and_commit(), "load_average": os.getloadavg()[0], **found}
    (RESULTS / "shadow.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
