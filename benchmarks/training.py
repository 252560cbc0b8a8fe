"""What an epoch costs with the teacher's features kept, and what it would cost without.

    python -m benchmarks.training [--images 128] [--epochs 4] [--device cpu]

Full-size pair at 128x128, batches of 32. The first epoch includes the teacher's one pass over the images, so it costs
what every epoch would cost without keeping its features; the later ones are the cached epochs. Once with the features
in memory, once with all of them in a memory-mapped file. Each run has a process of its own, for its peak memory.
Results go to benchmarks/results/training_DEVICE.json.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

from benchmarks.pairs import photographs, seeded_teacher
from benchmarks.record import machine_and_commit
from model.lifecycle.distillation import train
from model.lifecycle.recipe import FEATURE_MEMORY_BYTES, Recipe


def run(images: int, epochs: int, device: str, memory_bytes: int) -> dict[str, float]:
    """Trains once and times each epoch."""
    pixels = photographs(images)
    teacher = seeded_teacher()
    ends = [time.perf_counter()]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    train(
        teacher,
        pixels,
        Recipe(epochs=epochs),
        device=device,
        memory_bytes=memory_bytes,
        on_epoch=lambda _: ends.append(time.perf_counter()),
    )
    first, *cached = (end - start for start, end in pairwise(ends))
    best = min(cached)
    return {
        "seconds_of_an_epoch_without_cache": round(first, 2),
        "seconds_of_a_cached_epoch": round(best, 2),
        "cached_share": round(best / first, 3),
        "images_per_second_cached": round(images / best, 1),
        "peak_resident_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "resident_before_training_mib": round(before / 1024, 1),
    }


def main() -> None:
    """Measures both ways and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory-bytes", type=int, help="run once with this budget and print the row")
    arguments = parser.parse_args()
    if arguments.memory_bytes is not None:
        print(json.dumps(run(arguments.images, arguments.epochs, arguments.device, arguments.memory_bytes)))
        return
    rows = []
    for where, memory_bytes in (("memory", FEATURE_MEMORY_BYTES), ("memory-mapped file", 0)):
        command = [sys.executable, "-m", "benchmarks.training", "--memory-bytes", str(memory_bytes), "--images"]
        command += [str(arguments.images), "--epochs", str(arguments.epochs), "--device", arguments.device]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append({"features_in": where, "images": arguments.images, **json.loads(done.stdout)})
        print(json.dumps(rows[-1]), flush=True)
    command_line = f"python -m benchmarks.training --images {arguments.images} --epochs {arguments.epochs}"
    results = {"command": f"{command_line} --device {arguments.device}", **machine_and_commit(), "rows": rows}
    name = f"training_{arguments.device.partition(':')[0]}.json"
    (Path(__file__).parent / "results" / name).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
