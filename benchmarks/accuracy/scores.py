"""Which score of the same pair tells normal images from others best: one form for all sets.

    python -m benchmarks.accuracy.scores --data FOLDER --cache FOLDER [--sets ...] [--seeds 3] [--threads 1]

Every form is a distance along channels, a choice of layers, a normalisation by held-out normal images, a fusion of
layers and a pooling over locations. The form with the best AUROC on the choosing halves is the winner; what is written
down is measured on the reporting halves. g-mean is at the Youden threshold of the choosing half's scores.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.accuracy.distances import cosine, enlarged, squared, standardised, taps, whitened
from benchmarks.accuracy.sets import FAMILIES, ROOT, SETS, Data, add_arguments, compact_teacher, student_of
from benchmarks.record import machine_and_commit
from model.calibration import CalibrationError, youden
from model.detector import Detector
from model.lifecycle import maps_of
from model.measures import auroc, g_mean
from model.score import TermWeights, distillation_score, distillation_terms
from model.vgg import DISTILLATION_POOLS, Student, Teacher

LAYERS = ("2", "3", "4", "5", "23", "34", "45", "234", "345", "2345")
LEAST_DEVIATION = 0.1
"""Added to a location's deviation, as a share of the layer's: few normal images know a location badly."""


class Form(NamedTuple):
    """One way to make a score of the two networks' maps."""

    distance: str
    layers: str
    normalisation: str
    fusion: str
    pooling: str

    def __str__(self) -> str:
        return ", ".join(self)


def _power_mean(power: int) -> Callable[[Tensor], Tensor]:
    return lambda maps: maps.clamp_min(0).pow(power).mean((1, 2)).pow(1 / power)


def _top(share: float) -> Callable[[Tensor], Tensor]:
    return lambda maps: maps.flatten(1).topk(max(1, round(share * maps[0].numel())), dim=1).values.mean(dim=1)


POOLINGS = {
    "mean": lambda maps: maps.mean((1, 2)),
    "power mean 2": _power_mean(2),
    "power mean 4": _power_mean(4),
    "power mean 8": _power_mean(8),
    "max": lambda maps: maps.amax((1, 2)),
    "top 1 %": _top(0.01),
    "top 5 %": _top(0.05),
}

NORMALISATIONS: dict[str, Callable[[Tensor], tuple[Tensor | float, Tensor | float]]] = {
    "none": lambda _: (0.0, 1.0),
    "mean": lambda normal: (0.0, normal.mean()),
    "location": lambda normal: (normal.mean(0), normal.std(0) + LEAST_DEVIATION * normal.std()),
}
"""From one layer's distance maps of held-out normal images to an offset and a divisor."""


def scores_of_all_forms(
    distances: dict[str, list[Tensor]], normal: dict[str, list[Tensor]]
) -> Iterator[tuple[Form, np.ndarray]]:
    """Every form's scores of the images whose distance maps these are; ``normal`` are those of held-out images."""
    for kind, layers in distances.items():
        for normalisation, moments in NORMALISATIONS.items():
            scaled = []
            for layer, reference in zip(layers, normal[kind], strict=True):
                offset, divisor = moments(reference)
                scaled.append((layer - offset) / divisor)
            fine = [enlarged(layer, layers[0].shape[-1]) for layer in scaled]
            for names in LAYERS:
                places = [DISTILLATION_POOLS.index(int(name)) for name in names]
                stack = torch.stack([fine[place] for place in places])
                fused = {"sum": stack.sum(0)} | ({"max": stack.amax(0)} if len(places) > 1 else {})
                for pooling, pool in POOLINGS.items():
                    for fusion, maps in fused.items():
                        yield Form(kind, names, normalisation, fusion, pooling), pool(maps).numpy()
                    if len(places) > 1:
                        late = torch.stack([pool(scaled[place]) for place in places]).sum(0)
                        yield Form(kind, names, normalisation, "sum of pooled layers", pooling), late.numpy()


def scores_of_set(
    teacher: Teacher, student: Student, data: Data, held: np.ndarray, weight: float
) -> dict[str | Form, np.ndarray]:
    """Scores of all images to judge, first the good ones, by every form, the global score and the gradient map."""
    pixels = np.concatenate((data.good, data.bad))
    of_held, of_judged = [(taps(teacher, images), taps(student, images)) for images in (held, pixels)]
    kinds = {
        "cosine": cosine,
        "squared": squared,
        "standardised": standardised(*of_held),
        "whitened": whitened(*of_held),
    }
    normal, judged = [{name: kind(*maps) for name, kind in kinds.items()} for maps in (of_held, of_judged)]
    weights = TermWeights(direction=weight)
    found: dict[str | Form, np.ndarray] = dict(scores_of_all_forms(judged, normal))
    found["global score (equation 13)"] = distillation_score(distillation_terms(*of_judged), weights).numpy()
    maps = maps_of(Detector(teacher, student, weights), pixels)
    found["max of the gradient map (equation 5)"] = maps.max(axis=(1, 2))
    return found


def judged(scores: np.ndarray, data: Data) -> tuple[float, float, float]:
    """AUROC on the choosing half; AUROC and g-mean on the reporting half."""
    good, bad = scores[: len(data.good)], scores[len(data.good) :]
    choosing, reporting = [(good[half.good], bad[half.bad]) for half in data.halves()]
    try:
        at_threshold = g_mean(*reporting, youden(*choosing).threshold)
    except CalibrationError:  # worse than chance at every threshold
        at_threshold = 0.0
    return auroc(*choosing), auroc(*reporting), at_threshold


def family_means(values: dict[str, float]) -> dict[str, float]:
    """From one value a set to one value a family."""
    found = {}
    for family, members in FAMILIES.items():
        present = [values[name] for name in members if name in values]
        if present:
            found[family] = float(np.mean(present))
    return found


def main() -> None:
    """Measures every form on every set and seed, and writes the winner and what is told about it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    teacher = compact_teacher()
    runs: dict[str | Form, dict[str, list[tuple[float, float, float]]]] = {}
    for name in arguments.sets:
        data = SETS[name].read(arguments.data)
        for seed in range(arguments.seeds):
            training, held = data.divided(seed)
            recipe = SETS[name].recipe(seed, training.shape[1])
            student = student_of(arguments.cache, name, seed, teacher, training, recipe)
            for form, scores in scores_of_set(teacher, student, data, held, recipe.direction_weight).items():
                runs.setdefault(form, {}).setdefault(name, []).append(judged(scores, data))
            print(name, seed, flush=True)
    results = {
        "command": "python -m benchmarks.accuracy.scores --data FOLDER --cache FOLDER "
        f"--sets {' '.join(arguments.sets)} --seeds {arguments.seeds} --threads {arguments.threads}",
        **machine_and_commit(),
        **report(runs),
    }
    path = ROOT / "benchmarks" / "results" / "accuracy_scores.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(path)


def report(runs: dict[str | Form, dict[str, list[tuple[float, float, float]]]]) -> dict[str, object]:
    """The winner, every form that differs from it in one choice, the best of each distance, and each family's best."""

    def choosing(form: str | Form) -> dict[str, float]:
        return family_means({name: float(np.mean([run[0] for run in seeds])) for name, seeds in runs[form].items()})

    forms = [form for form in runs if isinstance(form, Form)]
    on_choosing = {form: choosing(form) for form in forms}
    overall = {form: float(np.mean(list(values.values()))) for form, values in on_choosing.items()}
    ranking = sorted(forms, key=lambda form: -overall[form])
    winner = ranking[0]
    neighbours = [form for form in ranking if sum(a != b for a, b in zip(form, winner, strict=True)) == 1]
    kinds = [
        next(form for form in ranking if form.distance == kind) for kind in dict.fromkeys(f.distance for f in forms)
    ]
    best_of = {family: max(forms, key=lambda form: on_choosing[form][family]) for family in on_choosing[winner]}
    told = dict.fromkeys(
        [*(f for f in runs if not isinstance(f, Form)), winner, *ranking[1:6], *neighbours, *kinds, *best_of.values()]
    )
    return {
        "forms": len(forms),
        "winner": str(winner),
        "ranking": [str(form) for form in ranking[:6]],
        "neighbours": [str(form) for form in neighbours],
        "best_of_distance": [str(form) for form in kinds],
        "best_of_family": {family: str(form) for family, form in best_of.items()},
        "rows": {str(form): row(runs[form], choosing(form)) for form in told},
    }


def row(sets: dict[str, list[tuple[float, float, float]]], choosing: dict[str, float]) -> dict[str, object]:
    """AUROC and g-mean of one form: a set's by seed, a family's mean and deviation over seeds, and the mean of all."""
    found: dict[str, object] = {"choosing_auroc": round(float(np.mean(list(choosing.values()))), 4)}
    for place, measure in ((1, "auroc"), (2, "g_mean")):
        by_seed = [
            family_means({name: runs[seed][place] for name, runs in sets.items()})
            for seed in range(len(next(iter(sets.values()))))
        ]
        families = {}
        for family in by_seed[0]:
            values = [seed[family] for seed in by_seed]
            deviation = round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else None
            families[family] = {"mean": round(float(np.mean(values)), 4), "deviation": deviation}
        found[measure] = families
        found[f"mean_{measure}"] = round(float(np.mean([one["mean"] for one in families.values()])), 4)
    return found


if __name__ == "__main__":
    main()
