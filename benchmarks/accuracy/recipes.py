"""What other ways to train and to look change: one part a run, each with its own file of results.

    python -m benchmarks.accuracy.recipes PART --data FOLDER --cache FOLDER --sets ... [--seeds 1] [--threads 1]

- ``few``: 8 to all normal images, the same number of steps.
- ``flips``: mirrored copies beside the images, teacher features of all copies kept, the same number of steps.
- ``early``: one training looked at as it goes, the loss of held-out images beside the AUROC.
- ``tiles``: a large image whole, or as the largest score of its 16 tiles (leather).
- ``larger``: input of 256 pixels in place of 128.

AUROC is over all images to judge, of the local and of the global score.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.accuracy.results import rounded, write
from benchmarks.accuracy.sets import SETS, Data, add_arguments, compact_teacher, cut_into_tiles, student_of
from benchmarks.accuracy.thresholds import both_scores
from model.lifecycle.datasets import Sample, load_images, mvtec_test, mvtec_training
from model.lifecycle.distillation import train
from model.lifecycle.recipe import Recipe
from model.measures import auroc
from model.networks.vgg import Student, Teacher
from model.preprocessing import Preprocessing

COUNTS = (8, 16, 32, 64)
STEPS = 200
SNAPSHOTS = {"plates": (5, 10, 20, 40), "tile": (5, 10, 20, 40), "leather": (15, 30, 60, 120)}
CIFAR_SNAPSHOTS = (2, 5, 10, 15, 30)
TILES = 16

Row = dict[str, object]


def aurocs(teacher: Teacher, student: Student, data: Data, recipe: Recipe) -> Row:
    """AUROC of both scores over all images to judge."""
    good, bad = [both_scores(teacher, student, pixels, recipe.term_weights) for pixels in (data.good, data.bad)]
    return {"local": rounded(auroc(good[0], bad[0])), "global": rounded(auroc(good[1], bad[1]))}


def of_steps(recipe: Recipe, images: int, steps: int) -> Recipe:
    """The recipe with as many epochs as make this many steps, rounded up."""
    return replace(recipe, epochs=-(-steps // -(-images // recipe.batch_size)))


def few(name: str, seed: int, teacher: Teacher, arguments: argparse.Namespace) -> list[Row]:
    """Students of the first 8, 16, 32, 64 and of all images to train on."""
    data = SETS[name].read(arguments.data)
    training, _ = data.divided(seed)
    rows = []
    for count in (*COUNTS, len(training)):
        recipe = of_steps(SETS[name].recipe(seed, training.shape[1]), count, STEPS)
        student = student_of(arguments.cache, f"{name}-few-{count}", seed, teacher, training[:count], recipe)
        rows.append({"images": count, "epochs": recipe.epochs, **aurocs(teacher, student, data, recipe)})
    return rows


def mirrored(pixels: np.ndarray) -> np.ndarray:
    """The images, mirrored left to right, upside down, and both."""
    return np.ascontiguousarray(np.concatenate([pixels, pixels[:, :, ::-1], pixels[:, ::-1], pixels[:, ::-1, ::-1]]))


def flips(name: str, seed: int, teacher: Teacher, arguments: argparse.Namespace) -> list[Row]:
    """Students of the images as they are, and with their mirrored copies."""
    data = SETS[name].read(arguments.data)
    training, _ = data.divided(seed)
    rows = []
    for copies, pixels in (("none", training), ("mirrored", mirrored(training))):
        recipe = of_steps(SETS[name].recipe(seed, training.shape[1]), len(pixels), STEPS)
        key = f"{name}-few-{len(training)}" if copies == "none" else f"{name}-mirrored"
        student = student_of(arguments.cache, key, seed, teacher, pixels, recipe)
        rows.append({"copies": copies, "epochs": recipe.epochs, **aurocs(teacher, student, data, recipe)})
    return rows


def early(name: str, seed: int, teacher: Teacher, arguments: argparse.Namespace) -> list[Row]:
    """One training, looked at after some epochs: mean scores of held-out images, and AUROC."""
    data = SETS[name].read(arguments.data)
    training, held = data.divided(seed)
    rows: list[Row] = []
    with TemporaryDirectory() as folder:
        for epochs in SNAPSHOTS.get(name, CIFAR_SNAPSHOTS):
            recipe = replace(SETS[name].recipe(seed, training.shape[1]), epochs=epochs)
            student, losses = train(teacher, training, recipe, checkpoint=Path(folder) / "checkpoint")
            local, of_loss = both_scores(teacher, student, held, recipe.term_weights)
            row: Row = {
                "epochs": epochs,
                "training_loss": rounded(losses[-1]),
                "held_out_loss": rounded(of_loss.mean()),
            }
            rows.append(row | {"held_out_local": rounded(local.mean()), **aurocs(teacher, student, data, recipe)})
            print(name, seed, rows[-1], flush=True)
    return rows


def tiles(name: str, seed: int, teacher: Teacher, arguments: argparse.Namespace) -> list[Row]:
    """Whole images of leather at 128 pixels, and the largest score of each image's tiles of 128 pixels."""
    cut = SETS[name].read(arguments.data)
    root, side = arguments.data / "mvtec-leather", cut.normal.shape[1]
    test = mvtec_test(root)
    groups = [[s for s in test if s.defect is None], [s for s in test if s.defect is not None]]
    recipe = SETS[name].recipe(seed, side)
    training, _ = cut.divided(seed)
    of_tiles = student_of(arguments.cache, name, seed, teacher, training, recipe)
    whole = load_images(mvtec_training(root), Preprocessing(side)).pixels
    of_whole = student_of(arguments.cache, f"{name}-whole", seed, teacher, whole, of_steps(recipe, len(whole), STEPS))

    def by_tiles(samples: list[Sample]) -> np.ndarray:
        squares = cut_into_tiles(load_images(samples, Preprocessing(4 * side)).pixels)
        return both_scores(teacher, of_tiles, squares, recipe.term_weights).reshape(2, -1, TILES).max(axis=2)

    found: list[Row] = []
    for look, scores in (
        (
            "whole",
            [
                both_scores(teacher, of_whole, load_images(s, Preprocessing(side)).pixels, recipe.term_weights)
                for s in groups
            ],
        ),
        ("16 tiles, largest score", [by_tiles(samples) for samples in groups]),
    ):
        local, of_global = (rounded(auroc(scores[0][which], scores[1][which])) for which in (0, 1))
        images = {"training": len(whole), "good": len(groups[0]), "bad": len(groups[1])}
        found.append({"look": look, **images, "local": local, "global": of_global})
    return found


def larger(name: str, seed: int, teacher: Teacher, arguments: argparse.Namespace) -> list[Row]:
    """The same images at 128 and at 256 pixels, the same epochs."""
    rows = []
    for side in (128, 256):
        data = SETS[name].read(arguments.data, side)
        training, _ = data.divided(seed)
        recipe = SETS[name].recipe(seed, side)
        student = student_of(arguments.cache, name if side == 128 else f"{name}-256", seed, teacher, training, recipe)
        rows.append({"side": side, **aurocs(teacher, student, data, recipe)})
    return rows


PARTS: dict[str, Callable[[str, int, Teacher, argparse.Namespace], list[Row]]] = {
    "few": few,
    "flips": flips,
    "early": early,
    "tiles": tiles,
    "larger": larger,
}


def main() -> None:
    """Runs one part on every set and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    add_arguments(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    teacher = compact_teacher()
    rows: dict[str, list[list[Row]]] = {name: [] for name in arguments.sets}
    for name in arguments.sets:
        for seed in range(arguments.seeds):
            rows[name].append(PARTS[arguments.part](name, seed, teacher, arguments))
            print(name, seed, rows[name][-1], flush=True)
    found: dict[str, object] = {"steps": STEPS, "sets": rows}
    write(arguments.part, arguments, found, program=f"recipes {arguments.part}")


if __name__ == "__main__":
    main()
