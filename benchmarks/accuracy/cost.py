"""What the local scores and the forms of maps cost beside the paper's: full-size networks, batches of 8 at 128x128.

    python -m benchmarks.accuracy.cost

The variants take turns in one run; a row is the median over rounds and its ratio to the first. Results go to
benchmarks/results/accuracy_cost.json.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from unittest.mock import patch

import numpy as np
from torch import Tensor

from benchmarks.pairs import photographs, seeded_teacher
from benchmarks.record import machine_and_commit
from model.choices import MapForm, Score
from model.detector import Detector
from model.networks.vgg import Student

BATCH = 8


def nothing_local(teacher_maps: list[Tensor], *_: object) -> list[Tensor]:
    """Stands in for the local distances where the paper's score is timed as if there were no other."""
    zeros = teacher_maps[0].new_zeros((len(teacher_maps[0]), *teacher_maps[0].shape[2:]))
    return [zeros, zeros]


def main() -> None:
    """Times every variant and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    teacher, images = seeded_teacher(), photographs(BATCH)
    local, weighted = (Detector(teacher, Student(), score=score) for score in (Score.LOCAL, Score.WEIGHTED))

    def maps(form: MapForm) -> np.ndarray | None:
        return weighted(images, maps=form).maps

    def paper_alone(work: Callable[[], object]) -> Callable[[], object]:
        return patch("model.score.layer_distances", nothing_local)(work)

    variants: dict[str, Callable[[], object]] = {
        "global score alone": paper_alone(lambda: local(images)),
        "local score": lambda: local(images),
        "weighted score": lambda: weighted(images),
        "map gradient alone": paper_alone(lambda: maps(MapForm.GRADIENT)),
        **{f"map {form}": lambda form=form: maps(form) for form in MapForm},  # type: ignore[misc]
    }
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(arguments.rounds + 1):
        for name, work in variants.items():
            started = perf_counter()
            work()
            times[name].append(1000 * (perf_counter() - started) / BATCH)
    middle = {name: median(taken[1:]) for name, taken in times.items()}  # the first round warms up
    first = {"map": middle["map gradient alone"]}
    rows = {
        name: {
            "milliseconds": round(value, 1),
            "ratio": round(value / first.get(name.split()[0], middle["global score alone"]), 3),
        }
        for name, value in middle.items()
    }
    results = {"command": "python -m benchmarks.accuracy.cost", **machine_and_commit(), "rows": rows}
    path = Path(__file__).parent.parent / "results" / "accuracy_cost.json"
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
