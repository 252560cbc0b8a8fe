"""Which score of the same pair tells normal images from others best: one form for all sets.

    python -m benchmarks.accuracy.scores --data FOLDER --cache FOLDER [--sets ...] [--seeds 3] [--threads 1]

Every form is a distance along channels, a choice of layers, a normalisation by held-out normal images, a fusion of
layers and a pooling over locations. The form with the best mean AUROC on the choosing halves is the winner; what is
written down is measured on the reporting halves. g-mean is at the Youden threshold of the choosing half's scores.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from benchmarks.accuracy.distances import cosine, enlarged, squared, standardised, taps, whitened
from benchmarks.accuracy.results import rounded, spread, write
from benchmarks.accuracy.sets import DIVISIONS, FAMILIES, SETS, Data, add_arguments, compact_teacher, student_of
from model.calibration import CalibrationError, youden
from model.choices import MapForm, TermWeights
from model.detector import Detector, maps_of
from model.measures import g_mean
from model.networks.vgg import DISTILLATION_POOLS, Student, Teacher
from model.score import distillation_score, distillation_terms

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
    maps = maps_of(Detector(teacher, student, weights), pixels, MapForm.GRADIENT)
    found["max of the gradient map (equation 5)"] = maps.max(axis=(1, 2))
    return found


def aurocs(scores: np.ndarray, good: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """AUROC of every row of scores ``[F, N]``, between the images at these places."""
    ranks = rankdata(scores[:, np.concatenate((good, bad))], axis=1)
    statistic = ranks[:, len(good) :].sum(axis=1) - len(bad) * (len(bad) + 1) / 2
    return statistic / (len(good) * len(bad))


def g_mean_on_report(scores: np.ndarray, data: Data) -> float:
    """g-mean on the reporting half at the Youden threshold of the choosing half, mean of all divisions."""
    good, bad = scores[: len(data.good)], scores[len(data.good) :]
    found = []
    for division in range(DIVISIONS):
        choosing, reporting = [(good[half.good], bad[half.bad]) for half in data.halves(division)]
        try:
            found.append(g_mean(*reporting, youden(*choosing).threshold))
        except CalibrationError:  # no threshold is better than chance
            found.append(0.0)
    return float(np.mean(found))


class Measured(NamedTuple):
    """All forms on one set; D divisions, F forms, S seeds.

    Attributes:
        choosing: AUROC on the choosing halves, ``[S, D, F]``.
        reporting: AUROC on the reporting halves, likewise.
        scores: of each seed, ``[F, N]``.
        data: the set.
    """

    choosing: np.ndarray
    reporting: np.ndarray
    scores: list[np.ndarray]
    data: Data


def measured(scores: list[np.ndarray], data: Data) -> Measured:
    """AUROC of all forms, seeds and divisions."""
    both = []
    for which in (0, 1):
        halves = [data.halves(division)[which] for division in range(DIVISIONS)]
        both.append(
            np.array([[aurocs(seed, half.good, half.bad + len(data.good)) for half in halves] for seed in scores])
        )
    return Measured(*both, scores, data)


def over_families(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """From one value a set to one value a family, of arrays of any shape."""
    present = {family: [values[name] for name in members if name in values] for family, members in FAMILIES.items()}
    return {family: np.mean(members, axis=0) for family, members in present.items() if members}


def main() -> None:
    """Measures every form on every set and seed, and writes the winner and what is told about it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    teacher = compact_teacher()
    sets: dict[str, Measured] = {}
    forms: list[str | Form] = []
    for name in arguments.sets:
        data = SETS[name].read(arguments.data)
        scores = []
        for seed in range(arguments.seeds):
            training, held = data.divided(seed)
            recipe = SETS[name].recipe(seed, training.shape[1])
            student = student_of(arguments.cache, name, seed, teacher, training, recipe)
            found = scores_of_set(teacher, student, data, held, recipe.direction_weight)
            forms = list(found)
            scores.append(np.stack(list(found.values())))
            print(name, seed, flush=True)
        sets[name] = measured(scores, data)
    write("scores", arguments, report(forms, sets))


def report(forms: list[str | Form], sets: dict[str, Measured]) -> dict[str, object]:
    """The winner, the forms that differ from it in one choice, the best of each distance, and each family's best."""
    choosing = over_families({name: one.choosing.mean(axis=0) for name, one in sets.items()})  # [D, F]
    reporting = over_families({name: one.reporting.mean(axis=0) for name, one in sets.items()})
    overall = np.mean(list(choosing.values()), axis=0)
    grid = [place for place, form in enumerate(forms) if isinstance(form, Form)]
    ranking = sorted(grid, key=lambda place: -overall[:, place].mean())
    winner = ranking[0]

    def differences(place: int) -> int:
        return sum(a != b for a, b in zip(forms[place], forms[winner], strict=True))

    chosen = [max(grid, key=lambda place: overall[division, place]) for division in range(DIVISIONS)]
    kinds = {forms[place].distance: place for place in reversed(ranking)}
    best_of = {family: max(grid, key=lambda place: values[:, place].mean()) for family, values in choosing.items()}
    others = [place for place in range(len(forms)) if place not in set(grid)]
    neighbours = [place for place in ranking if differences(place) == 1]
    told = dict.fromkeys([*others, *ranking[:10], *neighbours, *kinds.values(), *best_of.values(), *chosen])
    return {
        "forms": len(grid),
        "divisions": DIVISIONS,
        "winner": str(forms[winner]),
        "ranking": [str(forms[place]) for place in ranking[:10]],
        "neighbours": [str(forms[place]) for place in neighbours],
        "best_of_distance": {kind: str(forms[place]) for kind, place in kinds.items()},
        "best_of_family": {family: str(forms[place]) for family, place in best_of.items()},
        "chosen_in_each_division": {
            "forms": [str(forms[place]) for place in chosen],
            "reported_auroc": {
                family: round(float(np.mean([values[division, place] for division, place in enumerate(chosen)])), 4)
                for family, values in reporting.items()
            },
        },
        "rows": {
            str(forms[place]): row(place, sets) | {"chosen_by": rounded(overall[:, place].mean())} for place in told
        },
    }


def row(place: int, sets: dict[str, Measured]) -> dict[str, object]:
    """AUROC and g-mean of one form: each family's mean and deviation over seeds, and the mean over families."""
    by_measure = {
        "auroc": {name: one.reporting[:, :, place].mean(axis=1) for name, one in sets.items()},
        "g_mean": {
            name: np.array([g_mean_on_report(seed[place], one.data) for seed in one.scores])
            for name, one in sets.items()
        },
    }
    found: dict[str, object] = {}
    for measure, values in by_measure.items():
        families = over_families(values)
        found[measure] = {family: spread(seeds) for family, seeds in families.items()}
        found[f"mean_{measure}"] = rounded(np.mean([seeds.mean() for seeds in families.values()]))
    return found


if __name__ == "__main__":
    main()
