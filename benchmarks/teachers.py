"""Compares teachers by what the pairs trained on them find in real surfaces.

    python -m benchmarks.teachers --magnetic-tile PATH --leather PATH A.safetensors B.safetensors ...

``random`` in place of a file is the compact plan with random weights. The same images, recipe and seeds for every
teacher. Magnetic tile: 240 of the normal images to train, 302 normal and all 392 anomalous ones to test. Leather (a
category in the MVTec AD layout, of which a few images are enough): every image is cut into squares of 256 pixels;
those of train/good to train, those of test to test, anomalous where the mask covers at least 1 %, left out where it
covers less. Results go to benchmarks/results/teachers.json.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from benchmarks.magnetic_tile import read_splits
from benchmarks.record import machine_and_commit
from model import measures
from model.choices import MapForm, TermWeights
from model.detector import Detector, maps_of, scores_of
from model.images import read_image
from model.lifecycle.datasets import Sample, load_images, mvtec_test, mvtec_training
from model.lifecycle.distillation import train
from model.lifecycle.masks import read_mask
from model.lifecycle.recipe import Recipe
from model.networks.vgg import Teacher, vgg16_plan
from model.preprocessing import Preprocessing
from model.store.teachers import read_teacher

SIZE, TILE, LEAST_SHARE = 128, 256, 0.01
COMPACT_WIDTHS = (24, 48, 96, 192, 192)

Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Pixels to train on, of normal and of anomalous test images, and the masks of the latter."""


def magnetic_tile(root: Path) -> Split:
    """Whole images."""
    splits = read_splits(root)
    anomalous = splits["calibrate_anomalous"] + splits["test_anomalous"]
    masks = np.stack([read_mask(sample.mask, SIZE) for sample in anomalous if sample.mask])
    train_set, normal = splits["train"][:240], splits["test_normal"]
    return *(load_images(samples, Preprocessing(SIZE)).pixels for samples in (train_set, normal, anomalous)), masks


def leather(root: Path) -> Split:
    """Squares cut out of the images."""
    test = mvtec_test(root)
    normal = [square for square, _ in squares(one for one in test if one.defect is None)]
    training = [square for square, _ in squares(mvtec_training(root))]
    faulty = [pair for pair in squares(one for one in test if one.defect and one.mask) if pair[1].mean() >= LEAST_SHARE]
    pixels, masks = zip(*faulty, strict=True)
    return np.stack(training), np.stack(normal), np.stack(pixels), np.stack(masks)


def squares(samples: Iterable[Sample]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Every image cut into squares, each with its part of the mask (empty where there is none)."""
    found = []
    for sample in samples:
        image = read_image(sample.path)
        side = image.shape[0]
        mask = np.zeros((side, side), bool) if sample.mask is None else read_mask(sample.mask, side)
        for y in range(0, side, TILE):
            for x in range(0, side, TILE):
                part = mask[y : y + TILE, x : x + TILE].astype(np.uint8)
                small = cv2.resize(part, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST_EXACT) > 0
                found.append((Preprocessing(SIZE).apply(image[y : y + TILE, x : x + TILE])[0], small))
    return found


def random_teacher() -> Teacher:
    """The compact plan with weights that keep the signal's size."""
    torch.manual_seed(0)
    teacher = Teacher(vgg16_plan(COMPACT_WIDTHS))
    for layer in teacher.features:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return teacher


def judge(teacher: Teacher, data: Split, recipe: Recipe) -> dict[str, float]:
    """Trains one pair and measures it."""
    training, normal, anomalous, masks = data
    with tqdm(total=recipe.epochs, unit="epoch") as bar:
        student, losses = train(teacher, training, recipe, on_epoch=lambda _: bar.update())
    detector = Detector(teacher, student, TermWeights(direction=recipe.direction_weight))
    maps = maps_of(detector, np.concatenate((normal, anomalous)), MapForm.GRADIENT)
    masks = np.concatenate((np.zeros((len(normal), *masks.shape[1:]), bool), masks))
    return {
        "seed": recipe.seed,
        "weigh_distillation_layers": recipe.weigh_distillation_layers,
        "last_loss_share_of_first": round(losses[-1] / losses[0], 4),
        "image_auroc": round(measures.auroc(scores_of(detector, normal), scores_of(detector, anomalous)), 4),
        "pixel_auroc": round(measures.pixel_auroc(maps, masks), 4),
    }


def main() -> None:
    """Runs every teacher on every set with every seed and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teachers", nargs="+")
    parser.add_argument("--magnetic-tile", type=Path)
    parser.add_argument("--leather", type=Path)
    parser.add_argument("--steps", type=int, default=480, help="of training; epochs follow from the number of images")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--no-omega", action="store_true")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "teachers.json")
    arguments = parser.parse_args()
    sets: dict[str, Split] = {}
    if arguments.magnetic_tile:
        sets["magnetic-tile"] = magnetic_tile(arguments.magnetic_tile)
    if arguments.leather:
        sets["leather"] = leather(arguments.leather)
    rows = []
    for name in arguments.teachers:
        for set_name, data in sets.items():
            for seed in range(arguments.seeds):
                teacher = random_teacher() if name == "random" else read_teacher(Path(name))
                epochs = -(-arguments.steps // -(-len(data[0]) // Recipe.batch_size))
                recipe = Recipe(epochs=epochs, seed=seed, weigh_distillation_layers=not arguments.no_omega)
                row = {"teacher": name, "set": set_name, "epochs": epochs, **judge(teacher, data, recipe)}
                rows.append(row)
                print(json.dumps(row), flush=True)
    results = {
        "command": "python -m benchmarks.teachers --magnetic-tile PATH --leather PATH --steps "
        f"{arguments.steps} --seeds {arguments.seeds}{' --no-omega' if arguments.no_omega else ''} "
        + " ".join(arguments.teachers),
        **machine_and_commit(),
        "images": {
            name: {"train": len(a), "normal": len(b), "anomalous": len(c)} for name, (a, b, c, _) in sets.items()
        },
        "rows": rows,
    }
    arguments.output.parent.mkdir(exist_ok=True)
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
