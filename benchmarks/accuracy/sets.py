"""The sets that scores, maps and thresholds are compared on, and the students trained on them.

    python -m benchmarks.accuracy.sets --data FOLDER --cache FOLDER [--sets ...] [--seeds 3]

``--data`` is a folder with the real sets: ``magnetic-tile/``, ``mvtec-leather/`` and ``CIFAR-10-images/``. Without it
only ``plates`` can be trained, which is drawn by our own code. Every student is kept in the cache, so a run that is
stopped goes on.

Each seed has its own division of the normal images and its own student. The images to judge are divided into one half
to *choose* on and another to *report* on, ten times over, for one half of a small set says little.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.magnetic_tile import read_splits
from model.lab.synthetic import write_dataset
from model.lifecycle.datasets import Sample, load_images, mvtec_test, mvtec_training
from model.lifecycle.distillation import train
from model.lifecycle.masks import read_mask
from model.lifecycle.recipe import Recipe
from model.networks.vgg import Student, Teacher, student_plan
from model.preprocessing import Preprocessing
from model.store.teachers import load_teacher
from model.store.version import encode_student

ROOT = Path(__file__).parent.parent.parent
HELD_OUT = 0.2
DIVISIONS = 10
"""How often the images to judge are divided into halves."""
CIFAR_TEST = {"normal": 500, "of each other class": 60}


class Half(NamedTuple):
    """One half of the images to judge: places in `Data.good` and `Data.bad`."""

    good: np.ndarray
    bad: np.ndarray


@dataclass(frozen=True)
class Data:
    """One set's images, prepared: uint8 RGB ``[N, side, side, 3]``, masks bool ``[M, side, side]`` or None."""

    normal: np.ndarray
    good: np.ndarray
    bad: np.ndarray
    masks: np.ndarray | None

    def divided(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Normal images to train on, and held out of training."""
        order = np.random.default_rng(seed).permutation(len(self.normal))
        count = round(HELD_OUT * len(order))
        return self.normal[order[count:]], self.normal[order[:count]]

    def halves(self, division: int) -> tuple[Half, Half]:
        """The half to choose on and the half to report on, of one of the `DIVISIONS`; the same in every program."""
        rng = np.random.default_rng(division)
        good, bad = rng.permutation(len(self.good)), rng.permutation(len(self.bad))
        choosing = Half(good[: len(good) // 2], bad[: len(bad) // 2])
        return choosing, Half(good[len(good) // 2 :], bad[len(bad) // 2 :])


def of_samples(normal: Sequence[Sample], test: Sequence[Sample], side: int) -> Data:
    """Reads the images of a set whose anomalous images all have masks."""
    good, bad = [s for s in test if s.defect is None], [s for s in test if s.defect is not None]
    masks = np.stack([read_mask(sample.mask, side) for sample in bad if sample.mask is not None])
    normal_pixels, good_pixels, bad_pixels = (
        load_images(samples, Preprocessing(side)).pixels for samples in (normal, good, bad)
    )
    return Data(normal_pixels, good_pixels, bad_pixels, masks)


def plates(_: Path | None, side: int = 128) -> Data:
    """The built-in category's surface, other plates than those it was trained on."""
    with TemporaryDirectory() as folder:
        write_dataset(Path(folder), train=240, test_good=200, test_each=40, seed=101)
        return of_samples(mvtec_training(Path(folder)), mvtec_test(Path(folder)), side)


def tile(data: Path | None, side: int = 128) -> Data:
    """Magnetic tile: 500 normal images to learn from, all others to judge."""
    assert data is not None
    splits = read_splits(data / "magnetic-tile")
    test = [sample for name, samples in splits.items() if name != "train" for sample in samples]
    return of_samples(splits["train"], test, side)


def leather(data: Path | None, side: int = 128) -> Data:
    """The few leather images at hand, cut into 16 tiles each; a tile is anomalous where its mask has 20 pixels."""
    assert data is not None
    root = data / "mvtec-leather"
    normal = cut_into_tiles(load_images(mvtec_training(root), Preprocessing(4 * side)).pixels)
    test = mvtec_test(root)
    good = cut_into_tiles(load_images([s for s in test if s.defect is None], Preprocessing(4 * side)).pixels)
    marked = [s for s in test if s.mask is not None]
    tiles = cut_into_tiles(load_images(marked, Preprocessing(4 * side)).pixels)
    masks = cut_into_tiles(np.stack([read_mask(s.mask, 4 * side) for s in marked if s.mask is not None]))
    faulty = masks.sum(axis=(1, 2)) >= 20
    return Data(normal, good, tiles[faulty], masks[faulty])


def cut_into_tiles(images: np.ndarray) -> np.ndarray:
    """Images ``[N, 4 s, 4 s, ...]`` to their 16 tiles each, ``[16 N, s, s, ...]``."""
    n, side = len(images), images.shape[1] // 4
    cut = images.reshape(n, 4, side, 4, side, *images.shape[3:])
    return np.ascontiguousarray(cut.swapaxes(2, 3).reshape(-1, side, side, *images.shape[3:]))


def cifar(name: str) -> Callable[[Path | None], Data]:
    """One class of CIFAR-10 is normal, the nine others are anomalous."""

    def read(data: Path | None, side: int = 32) -> Data:
        assert data is not None
        root = data / "CIFAR-10-images"

        def pixels(folder: Path, count: int) -> np.ndarray:
            files = sorted(folder.iterdir())[:count]
            return load_images([Sample(file) for file in files], Preprocessing(side)).pixels

        others = [folder for folder in sorted((root / "test").iterdir()) if folder.name != name]
        bad = np.concatenate([pixels(folder, CIFAR_TEST["of each other class"]) for folder in others])
        good = pixels(root / "test" / name, CIFAR_TEST["normal"])
        return Data(pixels(root / "train" / name, 1500), good, bad, None)

    return read


@dataclass(frozen=True)
class Set:
    """Where a set comes from and how its students are trained."""

    read: Callable[..., Data]
    epochs: int
    direction_weight: float = 0.1

    def recipe(self, seed: int, side: int) -> Recipe:
        """The paper's, but for the learning rate and the number of epochs."""
        return Recipe(image_size=side, epochs=self.epochs, direction_weight=self.direction_weight, seed=seed)


FAMILIES = {
    "plates": ("plates",),
    "tile": ("tile",),
    "leather": ("leather",),
    "CIFAR-10": ("cifar-airplane", "cifar-horse", "cifar-truck"),
}
"""Averages are taken within a family, then over families, so that three classes of one set count once."""

SETS = {
    "plates": Set(plates, 50),
    "tile": Set(tile, 40),
    "leather": Set(leather, 120),
    "cifar-airplane": Set(cifar("airplane"), 15, 0.01),
    "cifar-horse": Set(cifar("horse"), 15, 0.01),
    "cifar-truck": Set(cifar("truck"), 15, 0.01),
}


def compact_teacher() -> Teacher:
    """The teacher that lies in the repository."""
    return load_teacher(ROOT / "weights" / "teachers", "compact")


def student_of(cache: Path, name: str, seed: int, teacher: Teacher, pixels: np.ndarray, recipe: Recipe) -> Student:
    """The student of this name and seed: read from the cache, or trained and kept there."""
    path = cache / f"{name}-{seed}.safetensors"
    if path.exists():
        student = Student(student_plan(teacher.plan))
        student.load_state_dict(load_file(path))
        return student.eval()
    student, losses = train(teacher, pixels, recipe)
    cache.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_student(student))
    print(f"{name} {seed}: {len(pixels)} images, loss {losses[0]:.3f} -> {losses[-1]:.4f}", flush=True)
    return student


def main() -> None:
    """Trains every student that is not in the cache."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    teacher = compact_teacher()
    for name in arguments.sets:
        data = SETS[name].read(arguments.data)
        for seed in range(arguments.seeds):
            pixels, _ = data.divided(seed)
            student_of(arguments.cache, name, seed, teacher, pixels, SETS[name].recipe(seed, pixels.shape[1]))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that all programs of this folder share."""
    parser.add_argument("--data", type=Path, help="folder of the real sets")
    parser.add_argument("--cache", type=Path, required=True, help="folder of the trained students")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())


if __name__ == "__main__":
    main()
