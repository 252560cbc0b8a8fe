"""How the programs of this folder write down what they found."""

import argparse
import json

import numpy as np

from benchmarks.accuracy.sets import ROOT
from benchmarks.record import machine_and_commit

RESULTS = ROOT / "benchmarks" / "results"


def write(name: str, arguments: argparse.Namespace, found: dict[str, object], program: str | None = None) -> None:
    """Writes ``accuracy_NAME.json`` with the command that was given, the machine and the commit."""
    options = f"--sets {' '.join(arguments.sets)} --seeds {arguments.seeds} --threads {arguments.threads}"
    command = f"python -m benchmarks.accuracy.{program or name} --data FOLDER --cache FOLDER {options}"
    path = RESULTS / f"accuracy_{name}.json"
    path.write_text(json.dumps({"command": command, **machine_and_commit(), **found}, indent=1) + "\n")
    print(path)


def rounded(value: float) -> float:
    """To four decimals."""
    return round(float(value), 4)


def spread(values: np.ndarray) -> dict[str, float | None]:
    """Mean and sample standard deviation; the latter is None of a single value."""
    return {"mean": rounded(np.mean(values)), "deviation": rounded(np.std(values, ddof=1)) if len(values) > 1 else None}
