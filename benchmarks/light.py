"""What normalising the light gains where lamps age, and what it costs where they do not.

    python -m benchmarks.light [--casting FOLDER] [--seeds 2] [--steps 500] [--threads 2]

Two students of the built-in teacher learn the same good parts, with ``--normalise-light none`` and ``gain``. Youden's
threshold comes from one half of the test images in the light of training. The other half is judged in that light, with
every value times one factor for all images, and times a factor of each image between 0.6 and 1.4; values above 255
are clipped, as a camera does. There are ten divisions into halves. The parts are generated plates, or with
``--casting`` those of a folder in the MVTec AD layout. Results go to benchmarks/results/light_plates.json and
light_casting.json.
"""

import argparse
import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.record import machine_and_commit
from model.calibration import CalibrationError, rejects, youden
from model.choices import DEFAULT_SCORE, Light
from model.detector import Detector, scores_of
from model.images import read_image
from model.lab.synthetic import write_dataset
from model.lifecycle.datasets import Sample, mvtec_test, mvtec_training
from model.lifecycle.distillation import train
from model.lifecycle.preparation import settled
from model.lifecycle.recipe import Recipe
from model.measures import auroc
from model.networks.vgg import Teacher
from model.preprocessing import Preprocessing
from model.store.teachers import read_teacher

ROOT = Path(__file__).parent.parent
FACTORS = (0.6, 0.8, 1.0, 1.2, 1.4)
DIVISIONS = 10


class Images(NamedTuple):
    """Training images, and good and faulty ones to judge."""

    training: list[Sample]
    good: list[np.ndarray]
    bad: list[np.ndarray]


def read(root: Path) -> Images:
    """A folder in the MVTec AD layout."""
    test = list(mvtec_test(root))
    good, bad = ([read_image(one.path) for one in test if (one.defect is None) == is_good] for is_good in (True, False))
    return Images(list(mvtec_training(root)), good, bad)


def lit(image: np.ndarray, factor: float) -> np.ndarray:
    """The image under a lamp of that many times the light."""
    found: np.ndarray = np.rint(image * factor).clip(0, 255).astype(np.uint8)
    return found


def scores(detector: Detector, prepared: Preprocessing, images: list[np.ndarray], factors: np.ndarray) -> np.ndarray:
    """Of images under lamps of these factors."""
    pixels = [prepared.apply(lit(image, factor)) for image, factor in zip(images, factors, strict=True)]
    return scores_of(detector, np.concatenate(pixels))


def judged(good: np.ndarray, bad: np.ndarray, of_good: np.ndarray, of_bad: np.ndarray) -> dict[str, float]:
    """Measures of scores in some light, at thresholds from those in the light of training; means over divisions."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(DIVISIONS):
        chosen = [rng.permutation(len(group)) < len(group) // 2 for group in (good, bad)]
        try:
            threshold = youden(good[chosen[0]], bad[chosen[1]]).threshold
        except CalibrationError:
            continue
        ours, theirs = of_good[~chosen[0]], of_bad[~chosen[1]]
        found.append((auroc(ours, theirs), rejects(ours, threshold).mean(), (~rejects(theirs, threshold)).mean()))
    return dict(zip(("auroc", "false_alarms", "misses"), (round(float(v), 4) for v in np.mean(found, 0)), strict=True))


def measure(images: Images, teacher: Teacher, recipe: Recipe) -> dict[str, dict[str, float]]:
    """One student in every light."""
    prepared = settled(recipe.preprocessing, recipe, images.training)
    normal = np.concatenate([prepared.apply(read_image(one.path)) for one in images.training])
    student, _ = train(teacher, normal, recipe)
    detector = Detector(teacher, student, recipe.term_weights, score=DEFAULT_SCORE)
    draw = np.random.default_rng(recipe.seed).uniform

    def of_factors(which: str, group: list[np.ndarray]) -> np.ndarray:
        factors = draw(0.6, 1.4, len(group)) if which == "mixed" else np.full(len(group), float(which))
        return scores(detector, prepared, group, factors)

    as_trained = [of_factors("1", group) for group in (images.good, images.bad)]
    return {
        which: judged(*as_trained, *(of_factors(which, group) for group in (images.good, images.bad)))
        for which in (*map(str, FACTORS), "mixed")
    }


def mean(rows: list[dict[str, float]]) -> dict[str, float]:
    """Of each measure over the students."""
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


def main() -> None:
    """Measures and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--casting", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    teacher = read_teacher(ROOT / "weights" / "teachers" / "compact.safetensors")
    rows: dict[str, object] = {}
    with TemporaryDirectory() as folder:
        name = "casting" if arguments.casting else "plates"
        if not arguments.casting:
            write_dataset(Path(folder), train=200, test_good=60, test_each=12, seed=301)
        images = read(arguments.casting or Path(folder))
        for light in Light:
            epochs = math.ceil(arguments.steps / math.ceil(len(images.training) / Recipe.batch_size))
            recipes = [Recipe(epochs=epochs, seed=seed, light=light) for seed in range(arguments.seeds)]
            found = [measure(images, teacher, recipe) for recipe in recipes]
            rows[light.value] = {which: mean([one[which] for one in found]) for which in found[0]}
            print(name, light.value, json.dumps(rows[light.value]), flush=True)
    data = " --casting FOLDER" if arguments.casting else ""
    command = f"python -m benchmarks.light{data} --seeds {arguments.seeds} --steps {arguments.steps}"
    results = {"command": command, **machine_and_commit(), "rows": rows}
    (ROOT / "benchmarks" / "results" / f"light_{name}.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
