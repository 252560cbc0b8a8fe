"""Where to put the threshold without a single anomalous image.

    python -m benchmarks.accuracy.thresholds --data FOLDER --cache FOLDER [--sets ...] [--seeds 3] [--threads 1]

A method sees the scores of n normal images that training has not seen (held out of it, and the choosing half of the
normal images to judge), and of the same n images with a defect pasted on each. False alarms and misses are counted on
the reporting half, for every set, seed and division. What a threshold gives away is false-alarm rate plus miss rate,
less the same at the true Youden point of the reporting half. Scores are kept in the cache beside the students.
"""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from benchmarks.accuracy.defects import CONTENTS, brightened, moved, pasted, roughened, tinted
from benchmarks.accuracy.distances import as_inputs, batches, local_map
from benchmarks.accuracy.results import rounded, write
from benchmarks.accuracy.scores import over_families
from benchmarks.accuracy.sets import DIVISIONS, SETS, Data, add_arguments, compact_teacher, student_of
from model.calibration import CalibrationError, youden
from model.choices import TermWeights
from model.lifecycle.recipe import Recipe
from model.measures import false_alarm_rate, miss_rate
from model.networks.vgg import Student, Teacher
from model.score import distillation_score, distillation_terms

COUNTS = (10, 25, 50, 100)
SCORES = ("local", "global")
TAIL_SHARE = 0.25
"""Share of the normal scores that a tail is fitted to."""
EULER_GAMMA = 0.5772156649

Method = Callable[[np.ndarray, np.ndarray], float]
"""From scores of n normal images, and of the same with pasted defects ``[4, n]``, to a threshold."""


def quantile(target: float) -> Method:
    """Just above the scores' own quantile."""
    return lambda normal, _: float(np.nextafter(np.quantile(normal, target, method="higher"), np.inf))


def normal_fit(target: float) -> Method:
    """Quantile of a normal distribution with the scores' mean and deviation."""
    return lambda normal, _: float(normal.mean() + stats.norm.ppf(target) * normal.std(ddof=1))


def lognormal_fit(target: float) -> Method:
    """The same of the scores' logarithms."""
    return lambda normal, _: float(np.exp(normal_fit(target)(np.log(normal), _)))


def gumbel_fit(target: float) -> Method:
    """Quantile of a Gumbel distribution with the scores' mean and deviation."""

    def threshold(normal: np.ndarray, _: np.ndarray) -> float:
        scale = normal.std(ddof=1) * np.sqrt(6) / np.pi
        return float(normal.mean() - scale * (EULER_GAMMA + np.log(-np.log(target))))

    return threshold


def extreme_value_fit(target: float) -> Method:
    """Quantile of a generalised extreme-value distribution, by maximum likelihood."""
    return lambda normal, _: float(stats.genextreme.ppf(target, *stats.genextreme.fit(normal)))


def exponential_tail(target: float) -> Method:
    """Peaks over threshold with an exponential tail."""

    def threshold(normal: np.ndarray, _: np.ndarray) -> float:
        start = np.quantile(normal, 1 - TAIL_SHARE)
        return float(start + (normal[normal > start] - start).mean() * np.log(TAIL_SHARE / (1 - target)))

    return threshold


def pareto_tail(target: float) -> Method:
    """Peaks over threshold with a generalised Pareto tail, by maximum likelihood."""

    def threshold(normal: np.ndarray, _: np.ndarray) -> float:
        start = np.quantile(normal, 1 - TAIL_SHARE)
        shape, _, scale = stats.genpareto.fit(normal[normal > start] - start, floc=0)
        return float(start + stats.genpareto.ppf(1 - (1 - target) / TAIL_SHARE, shape, scale=scale))

    return threshold


def pasted_youden(*contents: Callable[..., np.ndarray]) -> Method:
    """The Youden point between the normal scores and those with defects of these contents."""
    places = [CONTENTS.index(content) for content in contents]

    def threshold(normal: np.ndarray, defective: np.ndarray) -> float:
        try:
            return youden(normal, defective[places].ravel()).threshold
        except CalibrationError:  # the defects cannot be told from nothing
            return -np.inf

    return threshold


def larger(one: Method, other: Method) -> Method:
    """The larger of two thresholds."""
    return lambda normal, defective: max(one(normal, defective), other(normal, defective))


METHODS: dict[str, Method] = {
    "quantile 0.99 of the scores": quantile(0.99),
    "quantile 0.95 of the scores": quantile(0.95),
    "quantile 0.90 of the scores": quantile(0.90),
    "normal fit, 0.99": normal_fit(0.99),
    "normal fit, 0.95": normal_fit(0.95),
    "normal fit, 0.90": normal_fit(0.90),
    "lognormal fit, 0.99": lognormal_fit(0.99),
    "lognormal fit, 0.90": lognormal_fit(0.90),
    "Gumbel fit, 0.99": gumbel_fit(0.99),
    "Gumbel fit, 0.90": gumbel_fit(0.90),
    "extreme-value fit, 0.99": extreme_value_fit(0.99),
    "extreme-value fit, 0.90": extreme_value_fit(0.90),
    "generalised Pareto tail, 0.99": pareto_tail(0.99),
    "generalised Pareto tail, 0.90": pareto_tail(0.90),
    "exponential tail, 0.99": exponential_tail(0.99),
    "exponential tail, 0.90": exponential_tail(0.90),
    "pasted: another place (CutPaste)": pasted_youden(moved),
    "pasted: brightness": pasted_youden(brightened),
    "pasted: colour": pasted_youden(tinted),
    "pasted: noise": pasted_youden(roughened),
    "pasted: all four": pasted_youden(*CONTENTS),
    "larger of brightness and normal fit, 0.80": larger(pasted_youden(brightened), normal_fit(0.80)),
    "larger of brightness and normal fit, 0.90": larger(pasted_youden(brightened), normal_fit(0.90)),
    "larger of brightness and normal fit, 0.95": larger(pasted_youden(brightened), normal_fit(0.95)),
    "larger of brightness and normal fit, 0.98": larger(pasted_youden(brightened), normal_fit(0.98)),
    "larger of all four and normal fit, 0.90": larger(pasted_youden(*CONTENTS), normal_fit(0.90)),
    "larger of brightness and exponential tail, 0.90": larger(pasted_youden(brightened), exponential_tail(0.90)),
}  # fmt: skip


def both_scores(teacher: Teacher, student: Student, pixels: np.ndarray, weights: TermWeights) -> np.ndarray:
    """Local and global scores, ``[2, N]``."""
    found = []
    with torch.inference_mode():
        for batch in batches(pixels):
            maps = teacher(as_inputs(batch)), student(as_inputs(batch))
            local = local_map(*maps).amax((1, 2))
            found.append(torch.stack((local, distillation_score(distillation_terms(*maps), weights))))
    return torch.cat(found, dim=1).numpy()


def scored(cache: Path, name: str, seed: int, teacher: Teacher, data: Data, recipe: Recipe) -> dict[str, np.ndarray]:
    """Scores ``[2, N]`` of held-out, good and bad images, and ``[4, 2, N]`` of the first two with pasted defects."""
    path = cache / f"{name}-{seed}-pasted.npz"
    if path.exists():
        with np.load(path) as kept:
            return dict(kept)
    training, held = data.divided(seed)
    student = student_of(cache, name, seed, teacher, training, recipe)
    weights = recipe.term_weights
    rng = np.random.default_rng(seed)
    normal = {"held": held, "good": data.good}
    found = {
        group: both_scores(teacher, student, pixels, weights) for group, pixels in (normal | {"bad": data.bad}).items()
    }
    for group, pixels in normal.items():
        defective = [np.stack([pasted(image, content, rng) for image in pixels]) for content in CONTENTS]
        found[f"pasted_{group}"] = np.stack([both_scores(teacher, student, images, weights) for images in defective])
    np.savez(path, **found)
    return found


def outcomes(scores: dict[str, np.ndarray], which: int, data: Data, division: int) -> dict[int, np.ndarray]:
    """For each count of normal images: false-alarm rate, miss rate and what is given away, ``[methods, 3]``."""
    choosing, reporting = data.halves(division)
    good, bad = scores["good"][which, reporting.good], scores["bad"][which, reporting.bad]
    normal = np.concatenate((scores["held"][which], scores["good"][which, choosing.good])).astype(np.float64)
    defective = np.concatenate(
        (scores["pasted_held"][:, which], scores["pasted_good"][:, which, choosing.good]), axis=1
    )
    try:
        least = 1 - youden(good, bad).index
    except CalibrationError:  # no threshold is better than chance
        least = 1.0
    found = {}
    for count in COUNTS:
        if count > len(normal):
            continue
        drawn = np.random.default_rng(division).permutation(len(normal))[:count]
        rows = []
        for method in METHODS.values():
            threshold = method(normal[drawn], defective[:, drawn])
            rates = false_alarm_rate(good, threshold), miss_rate(bad, threshold)
            rows.append((*rates, sum(rates) - least))
        found[count] = np.array(rows)
    return found


def main() -> None:
    """Measures every method on every set, seed and division."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="scipy")  # fits to a handful of scores
    teacher = compact_teacher()
    runs: dict[tuple[str, int], dict[str, list[np.ndarray]]] = {}
    for name in arguments.sets:
        data = SETS[name].read(arguments.data)
        for seed in range(arguments.seeds):
            recipe = SETS[name].recipe(seed, data.normal.shape[1])
            scores = scored(arguments.cache, name, seed, teacher, data, recipe)
            for which, score in enumerate(SCORES):
                for division in range(DIVISIONS):
                    for count, rows in outcomes(scores, which, data, division).items():
                        runs.setdefault((score, count), {}).setdefault(name, []).append(rows)
            print(name, seed, flush=True)
    write("thresholds", arguments, {"divisions": DIVISIONS, **{score: told(score, runs) for score in SCORES}})


def told(score: str, runs: dict[tuple[str, int], dict[str, list[np.ndarray]]]) -> dict[str, object]:
    """For each count and method: the means of each family and of all, and the spread of false alarms between draws."""
    found: dict[str, object] = {}
    for (of, count), sets in runs.items():
        if of != score:
            continue
        means = over_families({name: np.mean(rows, axis=0) for name, rows in sets.items()})
        spreads = over_families({name: np.std(rows, axis=0, ddof=1)[:, 0] for name, rows in sets.items()})
        overall = np.mean(list(means.values()), axis=0)
        deviations = np.mean(list(spreads.values()), axis=0)
        found[str(count)] = {
            method: {
                **{family: [rounded(value) for value in values[place]] for family, values in means.items()},
                "mean": [rounded(value) for value in overall[place]],
                "deviation_of_false_alarms": rounded(deviations[place]),
            }
            for place, method in enumerate(METHODS)
        }
    return {"columns": ["false_alarm_rate", "miss_rate", "given_away"], "images": found}


if __name__ == "__main__":
    main()
