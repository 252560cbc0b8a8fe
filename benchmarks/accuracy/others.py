"""Other methods on the same pictures, from the same teachers, in the same run: PatchCore and STFPM of anomalib.

    pip install 'eca-inspect[anomalib]'
    export MALLOC_MMAP_THRESHOLD_=1048576
    python -m benchmarks.accuracy.others --data FOLDER --cache FOLDER --vgg16 FILE [--sets ...] [--methods ...]

``--data`` is a folder with ``casting/``, ``magnetic-tile/`` and ``mvtec-leather/``; ``--vgg16`` a file of full VGG16
weights, without which only the compact teacher is used. Every method is given the same `NORMAL` pictures, learns from
nine tenths of them, and judges the same others, all at 128 pixels. Ours is trained by the product's recipe, but for
`STEPS` and `BATCH`; STFPM has the same numbers of both. Every result is kept in the cache, so a run that is stopped
goes on.

``export`` above keeps memory small: without it glibc's heap can grow by a block with each step of PatchCore's choice of
patches, to more than 20 GB.

Times are of the processor (one thread), of one picture, the median of `TIMED`; the methods of a set and teacher take
turns, so that other work on the machine touches all alike. anomalib always makes a map; ours is timed with and without.
"""

import argparse
import json
import math
import pickle
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.accuracy.objects import casting
from benchmarks.accuracy.results import rounded, write
from benchmarks.accuracy.sets import Data, compact_teacher, leather, tile
from model.choices import MapForm, Score
from model.detector import Detector, batches_of
from model.lab.choices import METHODS
from model.lab.reproduction.comparison import VALIDATION_SHARE, answer, require_anomalib
from model.lifecycle.distillation import train
from model.lifecycle.recipe import Recipe
from model.measures import aupro, auroc_estimate, pixel_auroc
from model.networks.vgg import Teacher
from model.store.version import encode_student

SETS: dict[str, Callable[[Path], Data]] = {"casting": casting, "tile": tile, "leather": leather}
OURS = "ours"
RIVALS = tuple(name for name, method in METHODS.items() if "pools" in method)
NORMAL, GOOD, BAD = 128, 100, 100
"""Pictures of each kind at most."""
STEPS, BATCH = 300, 16
SIDE = 128
TIMED = 9


def drawn(data: Data) -> Data:
    """At most `NORMAL`, `GOOD` and `BAD` pictures, drawn once."""

    def places(count: int, wanted: int) -> np.ndarray:
        return np.sort(np.random.default_rng(0).permutation(count)[:wanted])

    bad = places(len(data.bad), BAD)
    return Data(
        data.normal[places(len(data.normal), NORMAL)],
        data.good[places(len(data.good), GOOD)],
        data.bad[bad],
        None if data.masks is None else data.masks[bad],
    )


def learned_from(count: int) -> int:
    """How many of the normal pictures each method learns from."""
    return count - int(VALIDATION_SHARE * count)


def epochs_of(count: int) -> int:
    """As many as make `STEPS` or a few more."""
    return math.ceil(STEPS / math.ceil(learned_from(count) / BATCH))


def measured(scores: np.ndarray, maps: np.ndarray | None, data: Data) -> dict[str, Any]:
    """Measures of pictures and of pixels, of what a method says of the good pictures and then of the bad ones."""
    area = auroc_estimate(scores[: len(data.good)], scores[len(data.good) :])
    found: dict[str, Any] = {"auroc": rounded(area.value), "interval": [rounded(area.low), rounded(area.high)]}
    if maps is not None and data.masks is not None:
        masks = np.concatenate((np.zeros((len(data.good), SIDE, SIDE), bool), data.masks))
        found |= {"pixel_auroc": rounded(pixel_auroc(maps, masks)), "aupro": rounded(aupro(maps, masks))}
    return found


def ours(teacher: Teacher, data: Data, seed: int) -> tuple[dict[str, Any], Detector]:
    """The product's pair, with its recipe, its default score and its default map."""
    recipe = Recipe(image_size=SIDE, epochs=epochs_of(len(data.normal)), batch_size=BATCH, seed=seed)
    order = np.random.default_rng(seed).permutation(len(data.normal))
    started = process_time()
    student, _ = train(teacher, data.normal[np.sort(order[: learned_from(len(data.normal))])], recipe)
    seconds = process_time() - started
    detector = Detector(teacher, student, recipe.term_weights, score=Score.WEIGHTED)
    form = None if data.masks is None else MapForm.GRADIENT_DISTANCE
    told = [detector(batch, maps=form) for batch in batches_of(detector, np.concatenate((data.good, data.bad)))]
    maps = None if form is None else np.concatenate([one.maps for one in told if one.maps is not None])
    found = measured(np.concatenate([one.scores for one in told]), maps, data)
    return found | {"training_seconds": round(seconds, 1), "bytes": len(encode_student(student))}, detector


def rival(method: str, teacher: Teacher, data: Data, seed: int) -> tuple[dict[str, Any], Any]:
    """A method of anomalib."""
    pixels = np.concatenate((data.good, data.bad))
    anomalous = np.arange(len(pixels)) >= len(data.good)
    epochs = epochs_of(len(data.normal))
    started = process_time()
    found = answer(
        method, data.normal, pixels, anomalous,
        teacher=teacher, image_size=SIDE, epochs=epochs, batch_size=BATCH, seed=seed,
    )  # fmt: skip
    share = found.training_seconds / (found.training_seconds + found.milliseconds_an_image * len(pixels) / 1000)
    seconds = (process_time() - started) * share
    own_tensors = {  # without what all categories share; anomalib holds networks under several names
        value.data_ptr(): value.nbytes
        for name, value in found.network.model.state_dict().items()
        if not name.startswith(("backbone.", "feature_extractor.", "teacher_model."))
    }
    own = {"training_seconds": round(seconds, 1), "bytes": sum(own_tensors.values())}
    return measured(found.scores, found.maps, data) | own, found.network


def timed(methods: dict[str, Any], pixels: np.ndarray) -> dict[str, float]:
    """Milliseconds of one picture of prepared pixels; the methods take turns."""

    def of_anomalib(network: Any) -> Callable[[np.ndarray], object]:
        def ask(picture: np.ndarray) -> object:
            with torch.inference_mode():
                return network(torch.from_numpy(picture).permute(0, 3, 1, 2).float().div(255))

        return ask

    asked: dict[str, Callable[[np.ndarray], object]] = {}
    for name, method in methods.items():
        if isinstance(method, Detector):
            asked[f"{name}, score alone"] = method
            asked[f"{name}, with map"] = lambda picture, own=method: own(picture, maps=MapForm.GRADIENT_DISTANCE).maps
        else:
            asked[name] = of_anomalib(method)
    times: dict[str, list[float]] = {name: [] for name in asked}
    for turn in range(TIMED + 1):
        picture = pixels[turn % len(pixels)][None]
        for name, ask in asked.items():
            started = process_time()
            ask(picture)
            if turn:  # the first is a warm-up
                times[name].append(1000 * (process_time() - started))
    return {name: round(median(taken), 1) for name, taken in times.items()}


def main() -> None:
    """Runs what is not in the cache, and writes accuracy_others.json after each set and teacher."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real sets")
    parser.add_argument("--cache", type=Path, required=True, help="folder of the results so far")
    parser.add_argument("--vgg16", type=Path, help="file of full VGG16 weights; without it only the compact teacher")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--methods", nargs="+", choices=(OURS, *RIVALS), default=[OURS, *RIVALS])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    require_anomalib()
    torch.set_num_threads(arguments.threads)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    teachers = {"compact": compact_teacher()}
    if arguments.vgg16:
        teachers = {"VGG16": Teacher.from_state_dict(load_file(arguments.vgg16)), **teachers}
    for label, teacher in teachers.items():
        for name in arguments.sets:
            data = drawn(SETS[name](arguments.data))
            for seed in range(arguments.seeds):
                methods = {}
                for method in arguments.methods:
                    path = arguments.cache / f"{name}-{label}-{method}-{seed}.pickle"
                    if not path.exists():
                        run = ours(teacher, data, seed) if method == OURS else rival(method, teacher, data, seed)
                        path.write_bytes(pickle.dumps(run))
                    found, methods[method] = pickle.loads(path.read_bytes())
                    counts = {"normal": len(data.normal), "good": len(data.good), "bad": len(data.bad)}
                    about = {"set": name, "teacher": label, "method": method, "seed": seed, "images": counts}
                    path.with_suffix(".json").write_text(json.dumps(about | found))
                    print(about, found, flush=True)
                times = timed(methods, data.good)
                (arguments.cache / f"{name}-{label}-{seed}.times").write_text(json.dumps(times))
                print(times, flush=True)
                report(arguments, teachers)


def report(arguments: argparse.Namespace, teachers: dict[str, Teacher]) -> None:
    """Writes all that is in the cache."""
    rows = [json.loads(path.read_text()) for path in sorted(arguments.cache.glob("*.json"))]
    times = {path.stem: json.loads(path.read_text()) for path in sorted(arguments.cache.glob("*.times"))}
    teacher_bytes = {
        label: sum(parameter.nbytes for parameter in teacher.parameters()) for label, teacher in teachers.items()
    }
    found = {"anomalib": version("anomalib"), "steps": STEPS, "batch": BATCH, "teacher_bytes": teacher_bytes}
    vgg16 = " --vgg16 FILE" if arguments.vgg16 else ""
    program = f"others{vgg16} --methods {' '.join(arguments.methods)}"
    write("others", arguments, found | {"rows": rows, "milliseconds": times}, program)


if __name__ == "__main__":
    main()
