"""Which anomaly map of the same pair finds the fault best, and what each form costs.

    python -m benchmarks.accuracy.maps --data FOLDER --cache FOLDER --sets plates tile leather --seeds 2 --threads 1
    python -m benchmarks.accuracy.maps --finer ...

At most 40 normal and 60 anomalous images a set, measured on every second pixel. Gradients are smoothed and opened as in
equation 5. The local map is the sum over layers of one minus the cosine similarity along channels; with
``--finer`` of all layers but the coarsest, and then only forms that the local map is in are measured.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from benchmarks.accuracy.distances import batches, enlarged, local_map
from benchmarks.accuracy.results import rounded, spread, write
from benchmarks.accuracy.sets import SETS, add_arguments, compact_teacher, student_of
from model.choices import TermWeights
from model.localization import filtered
from model.measures import aupro, pixel_auroc
from model.networks.vgg import DISTILLATION_POOLS, Student, Teacher, fold_batch_norm
from model.preprocessing import normalize, unit_range
from model.score import distillation_score, distillation_terms

GOOD, BAD = 40, 60
GRID_STEP = 2
NOISY_COPIES, NOISE = 8, 0.1
"""Of SmoothGrad; the noise is a standard deviation at pixels in 0 to 1."""
TIMED = 7

Maps = tuple[list[Tensor], list[Tensor]]
"""Of teacher and student."""


@dataclass(frozen=True)
class Pair:
    """Two networks, the weights of their global score, and how many layers make the local map."""

    teacher: Teacher
    student: Student
    weights: TermWeights
    layers: int

    def local(self, maps: Maps) -> Tensor:
        """The local map of these layers on the grid of the first."""
        return local_map(*(of_network[: self.layers] for of_network in maps))


Score = Callable[[Pair, Maps], Tensor]
"""From the two networks' maps to one score an image."""


def global_score(pair: Pair, maps: Maps) -> Tensor:
    """Equation 13."""
    return distillation_score(distillation_terms(*maps), pair.weights)


def power_mean(power: int) -> Score:
    """A power mean over locations of the local map."""

    def score(pair: Pair, maps: Maps) -> Tensor:
        return pair.local(maps).clamp_min(0).pow(power).mean((1, 2)).pow(1 / power)

    return score


def as_variable(pixels: np.ndarray) -> Tensor:
    """uint8 ``[N, H, W, 3]`` to float32 ``[N, 3, H, W]`` in 0 to 1 that takes gradients."""
    return unit_range(torch.from_numpy(pixels)).requires_grad_(True)


def both(pair: Pair, x: Tensor) -> Maps:
    """The maps of teacher and student."""
    inputs = normalize(x)
    return pair.teacher(inputs), pair.student(inputs)


Raw = tuple[Tensor, Tensor]
"""A saliency before smoothing ``[N, H, W]``, and the local map on the same grid."""


def local(pair: Pair, maps: Maps, side: int) -> Tensor:
    """The local map on the image's grid."""
    return enlarged(pair.local(maps).detach(), side)


def gradient(score: Score, times_input: bool = False) -> Callable[[Pair, np.ndarray], Raw]:
    """The gradient of a score at the pixels, absolute, summed over colour."""

    def raw(pair: Pair, pixels: np.ndarray) -> Raw:
        x = as_variable(pixels)
        maps = both(pair, x)
        (found,) = torch.autograd.grad(score(pair, maps).sum(), x)
        return (found * x.detach() if times_input else found).abs().sum(dim=1), local(pair, maps, pixels.shape[1])

    return raw


def gradients_of_layers(pair: Pair, pixels: np.ndarray) -> Raw:
    """Each layer's own gradient of equation 13, in units of its mean over the image, added."""
    x = as_variable(pixels)
    maps = both(pair, x)
    total = torch.zeros(len(pixels), *pixels.shape[1:3])
    for t, s in zip(*maps, strict=True):
        score = global_score(pair, ([t], [s]))
        (found,) = torch.autograd.grad(score.sum(), x, retain_graph=True)
        absolute = found.abs().sum(dim=1)
        total += absolute / absolute.mean((1, 2), keepdim=True).clamp_min(1e-12)
    return total, local(pair, maps, pixels.shape[1])


def smooth_gradient(pair: Pair, pixels: np.ndarray) -> Raw:
    """SmoothGrad: the gradient of equation 13, mean of noisy copies."""
    generator = torch.Generator().manual_seed(0)
    clean = as_variable(pixels).detach()
    total = torch.zeros_like(clean)
    for _ in range(NOISY_COPIES):
        x = (clean + NOISE * torch.randn(clean.shape, generator=generator)).requires_grad_(True)
        total += torch.autograd.grad(global_score(pair, both(pair, x)).sum(), x)[0]
    with torch.inference_mode():
        return total.abs().sum(dim=1), local(pair, both(pair, clean), pixels.shape[1])


def local_alone(pair: Pair, pixels: np.ndarray) -> Raw:
    """The local map, without any gradient."""
    with torch.inference_mode():
        found = local(pair, both(pair, as_variable(pixels)), pixels.shape[1])
    return found, found


Form = Callable[[Pair, np.ndarray], Raw]

LOCAL = "local map"
REFERENCE = "gradient of the global score"
GRADIENTS: dict[str, Form] = {
    REFERENCE: gradient(global_score),
    "gradient x input": gradient(global_score, times_input=True),
    "SmoothGrad of the global score (8 copies)": smooth_gradient,
    "gradients of layers added": gradients_of_layers,
    "gradient of the local map's mean": gradient(power_mean(1)),
    "gradient of the local map's power mean 2": gradient(power_mean(2)),
    "gradient of the local map's power mean 4": gradient(power_mean(4)),
    "gradient of the local map's power mean 8": gradient(power_mean(8)),
    "gradient of the local map's power mean 16": gradient(power_mean(16)),
    "gradient of the local map's maximum": gradient(lambda pair, maps: pair.local(maps).amax((1, 2))),
}


def smoothed(raw: Tensor) -> np.ndarray:
    """Equation 5 on every image."""
    return np.stack([filtered(one) for one in raw.numpy()])


def maps_of_forms(pair: Pair, gradients: dict[str, Form], pixels: np.ndarray) -> dict[str, np.ndarray]:
    """The maps of these images, by these gradients and without."""
    found: dict[str, list[np.ndarray]] = {}
    for batch in batches(pixels):
        for name, form in gradients.items():
            raw, distance = form(pair, batch)
            maps = smoothed(raw)
            found.setdefault(name, []).append(maps)
            found.setdefault(f"{name}, x local map", []).append(maps * distance.numpy())
        raw, _ = local_alone(pair, batch)
        found.setdefault("local map", []).append(raw.numpy())
        found.setdefault("local map, smoothed and opened", []).append(smoothed(raw))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def milliseconds(pair: Pair, gradients: dict[str, Form], batch: np.ndarray) -> dict[str, float]:
    """Time of each form an image, from pixels to the finished map; the forms take turns."""
    forms = gradients | {REFERENCE: GRADIENTS[REFERENCE], "local map": local_alone}
    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(TIMED):
        for name, form in forms.items():
            start = perf_counter()
            raw, distance = form(pair, batch)
            if form is not local_alone:
                _ = smoothed(raw) * distance.numpy()
            times[name].append(1000 * (perf_counter() - start) / len(batch))
    return {name: round(median(taken), 2) for name, taken in times.items()}


def main() -> None:
    """Measures every form on every set that has masks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--finer", action="store_true")
    arguments = parser.parse_args()
    layers = len(DISTILLATION_POOLS) - arguments.finer
    gradients = {name: form for name, form in GRADIENTS.items() if not arguments.finer or LOCAL in name}
    torch.set_num_threads(arguments.threads)
    teacher = compact_teacher().to(memory_format=torch.channels_last)
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    times: dict[str, float] = {}
    images = {}
    for name in arguments.sets:
        data = SETS[name].read(arguments.data)
        assert data.masks is not None, f"{name} has no masks"
        rng = np.random.default_rng(0)
        good, bad = rng.permutation(len(data.good))[:GOOD], rng.permutation(len(data.bad))[:BAD]
        pixels = np.concatenate((data.good[good], data.bad[bad]))
        masks = np.concatenate((np.zeros((len(good), *data.masks.shape[1:]), bool), data.masks[bad]))
        images[name] = {"good": len(good), "bad": len(bad)}
        masks = masks[:, ::GRID_STEP, ::GRID_STEP]
        for seed in range(arguments.seeds):
            training, _ = data.divided(seed)
            recipe = SETS[name].recipe(seed, training.shape[1])
            student = student_of(arguments.cache, name, seed, teacher, training, recipe)
            folded = fold_batch_norm(student).to(memory_format=torch.channels_last)
            pair = Pair(teacher, folded, recipe.term_weights, layers)
            for form, maps in maps_of_forms(pair, gradients, pixels).items():
                coarse = maps[:, ::GRID_STEP, ::GRID_STEP]
                measures = pixel_auroc(coarse, masks), aupro(coarse, masks)
                found.setdefault(form, {}).setdefault(name, []).append(measures)
            print(name, seed, flush=True)
        times = times or milliseconds(pair, gradients, pixels[:8])
    reference = times[REFERENCE]
    rows = {}
    for form, sets in found.items():
        rows[form] = {
            "pixel_auroc": {name: spread(np.array(seeds)[:, 0]) for name, seeds in sets.items()},
            "aupro": {name: spread(np.array(seeds)[:, 1]) for name, seeds in sets.items()},
            "mean": rounded(np.mean([np.mean(seeds) for seeds in sets.values()])),  # of both measures
            "milliseconds": times[form.partition(",")[0]],
        }
        rows[form]["cost"] = round(rows[form]["milliseconds"] / reference, 2)
    found_all = {"images": images, "layers": layers, "rows": rows}
    if arguments.finer:
        write("maps_finer", arguments, found_all, program="maps --finer")
    else:
        write("maps", arguments, found_all)


if __name__ == "__main__":
    main()
