"""Does the promise of a threshold hold on parts that nobody has seen?

    python -m benchmarks.accuracy.promises --data FOLDER --cache FOLDER [--sets tile casting] [--seeds 2] [--threads 1]

``--data`` is a folder with ``magnetic-tile/`` and ``casting/``. For every set and seed a student learns from 160 good
parts. The others are divided anew 100 times: n of them, with as many faulty parts where the method wants them,
calibrate as `eca-inspect` does, and all others judge. Scores are kept in the cache, so a run that is stopped goes on.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.stats import betabinom

from benchmarks.accuracy.objects import casting
from benchmarks.accuracy.results import rounded, write
from benchmarks.accuracy.sets import Data, compact_teacher, tile
from model.choices import DEFAULT_SCORE, FalseAlarmTarget
from model.detector import Detector, scores_of
from model.lifecycle.distillation import train
from model.lifecycle.pasting import paste_defect
from model.lifecycle.recipe import Recipe
from model.lifecycle.thresholds import Rule, calibration_of
from model.measures import false_alarm_rate, upper_bound
from model.networks.vgg import Teacher

SETS = {"tile": tile, "casting": casting}
TRAINED_ON = 160
EPOCHS = 40
BATCH = 16
DIVISIONS = 100
COUNTS = (100, 300)


def scored(cache: Path, name: str, seed: int, teacher: Teacher, data: Data) -> dict[str, np.ndarray]:
    """Scores of the good parts that training has not seen, of the same with pasted defects, and of the faulty parts."""
    path = cache / f"promises-{name}-{seed}.npz"
    if path.exists():
        with np.load(path) as kept:
            return dict(kept)
    good = np.concatenate((data.normal, data.good))
    order = np.random.default_rng(seed).permutation(len(good))
    training, others = good[order[:TRAINED_ON]], good[order[TRAINED_ON:]]
    recipe = Recipe(image_size=good.shape[1], epochs=EPOCHS, batch_size=BATCH, seed=seed)
    student, _ = train(teacher, training, recipe)
    detector = Detector(teacher, student, recipe.term_weights, score=DEFAULT_SCORE)
    rng = np.random.default_rng(seed)
    pasted = np.stack([paste_defect(image, rng) for image in others])
    found = {
        name: scores_of(detector, pixels) for name, pixels in (("good", others), ("pasted", pasted), ("bad", data.bad))
    }
    cache.mkdir(parents=True, exist_ok=True)
    np.savez(path, **found)
    return found


RULES = {
    "synthetic, the default without faulty parts": (Rule(), False),
    "`--max-false-alarms 5%`": (Rule(target=FalseAlarmTarget(0.05)), False),
    "`--max-false-alarms 5% --with-confidence`": (Rule(target=FalseAlarmTarget(0.05, with_confidence=True)), False),
    "Youden, with as many faulty parts": (Rule(), True),
}
"""How the threshold is chosen, and whether faulty parts are there."""


def outcome(scores: dict[str, np.ndarray], count: int, rule: Rule, with_faulty: bool, division: int) -> list[float]:
    """What one division promised of false alarms, and what others showed; see `COLUMNS`."""
    rng = np.random.default_rng(division)
    order = rng.permutation(len(scores["good"]))
    own, others = order[:count], order[count:]
    bad = rng.permutation(scores["bad"])[: min(count, len(scores["bad"]) // 2)] if with_faulty else np.empty(0)
    found = calibration_of(scores["good"][own], bad, lambda: scores["pasted"][own], rule)
    promised = found.false_alarms
    assert promised is not None
    assert promised.expected is not None
    seen = false_alarm_rate(scores["good"][others], found.threshold)
    naive = upper_bound(promised.errors, count)
    own_rate = promised.errors / count
    return [own_rate, promised.expected, seen, promised.bound, seen > promised.bound, seen > naive]


COLUMNS = ("own_parts", "expected", "unseen_parts", "bound", "above_bound", "above_naive_bound")
"""Mean rates of the parts that chose the threshold, as promised, and of unseen parts; the mean bound, and in which
share of the divisions the unseen parts are above it, and above Clopper and Pearson's bound of the own parts."""


def exact_chance(rank: int, count: int, others: int, bound: float) -> float:
    """In which share of divisions the rate of so many unseen parts is above the bound of a rank fixed before."""
    return float(betabinom.sf(np.floor(bound * others + 1e-9), others, rank, count + 1 - rank))


def rows_of(students: list[dict[str, np.ndarray]], count: int) -> dict[str, dict[str, float | None]]:
    """Each rule's mean over students and divisions."""
    found: dict[str, dict[str, float | None]] = {}
    others = len(students[0]["good"]) - count
    for name, (rule, with_faulty) in RULES.items():
        rows = [
            outcome(scores, count, rule, with_faulty, division) for scores in students for division in range(DIVISIONS)
        ]
        means = {column: rounded(value) for column, value in zip(COLUMNS, np.mean(rows, axis=0), strict=True)}
        chance = None
        if rule.target is not None:  # the rank, and with it the promise, is the same in every division
            chance = rounded(exact_chance(round(rows[0][1] * (count + 1)), count, others, rows[0][3]))
        found[name] = {**means, "above_bound_by_theory": chance}
        print(count, name, found[name], flush=True)
    return found


def main() -> None:
    """Divides every set's scores many times, and compares what was promised with what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real sets")
    parser.add_argument("--cache", type=Path, required=True, help="folder of the scores")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    teacher = compact_teacher()
    found: dict[str, object] = {}
    for name in arguments.sets:
        data = SETS[name](arguments.data)
        students = [scored(arguments.cache, name, seed, teacher, data) for seed in range(arguments.seeds)]
        good = len(students[0]["good"])
        found[name] = {
            "good_parts": good,
            "rules": {str(count): rows_of(students, count) for count in COUNTS if count <= good / 2},
        }
    write("promises", arguments, {"divisions": DIVISIONS, "trained_on": TRAINED_ON, "sets": found})


if __name__ == "__main__":
    main()
