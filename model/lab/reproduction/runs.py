"""Runs the paper's experiments one by one, and leaves one JSON file for each, so that a stopped series goes on."""

import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from model import measures
from model.calibration import CalibrationError, youden
from model.choices import TermWeights
from model.detector import Detector
from model.lab.reproduction.sets import BenchmarkSet, Source
from model.lab.variants import Variant
from model.lifecycle.datasets import DatasetError
from model.lifecycle.distillation import DivergedError, Epoch, teacher_features, train
from model.lifecycle.recipe import FEATURE_MEMORY_BYTES, Recipe, TrainingError
from model.networks.vgg import Student, Teacher
from model.preprocessing import as_input
from model.score import distillation_score, distillation_terms
from model.store.teachers import fingerprint
from model.text import json_text

SCORING_BATCH = 64
TIMED_IMAGES = 30
CHOICE_SEED = 0
"""Of the training images, where not all of a class are used: the same for every variant and seed."""


@dataclass(frozen=True)
class Run:
    """One cell of the paper's tables with one seed."""

    dataset: str
    normal_class: str
    variant: str
    seed: int

    def path(self, output: Path) -> Path:
        """Where its result is kept."""
        return output / self.dataset / f"{self.normal_class}-{self.variant}-{self.seed}.json"

    def checkpoint(self, output: Path) -> Path:
        """Where its progress is kept until the result is there."""
        return output / ".training" / self.dataset / f"{self.normal_class}-{self.variant}-{self.seed}.pt"


@dataclass(frozen=True)
class Series:
    """What all runs of one call have in common.

    Attributes:
        dataset: its name.
        benchmark: what it is.
        source: where its pictures come from.
        teacher_name: for the record.
        teacher: to learn from.
        output: folder of results.
        epochs: passes over the training images.
        training_images: how many of a class to train on at most, drawn once for all variants and seeds; None for all.
        batch_size: images per step.
        device: where to compute.
        memory_bytes: of teacher features of one split; beyond it they go to a file in `spill_folder`.
        spill_folder: see `model.lifecycle.distillation.teacher_features`.
    """

    dataset: str
    benchmark: BenchmarkSet
    source: Source
    teacher_name: str
    teacher: Teacher
    output: Path
    epochs: int
    training_images: int | None = None
    batch_size: int = Recipe.batch_size
    device: torch.device | str = "cpu"
    memory_bytes: int = FEATURE_MEMORY_BYTES
    spill_folder: Path | None = None

    @cached_property
    def common(self) -> dict[str, Any]:
        """What every result of this data set must agree on to stand in one table."""
        return {
            "teacher": {"name": self.teacher_name, "sha256": fingerprint(self.teacher)},
            "image_size": self.benchmark.image_size,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "lambda": self.benchmark.direction_weight,
            "training_images_at_most": self.training_images,
        }


class _Pictures(NamedTuple):
    """Prepared pictures and what the teacher sees in them."""

    pixels: np.ndarray
    features: list[Tensor]


def read_results(output: Path) -> list[dict[str, Any]]:
    """Every result in a folder, in the order of their files' names.

    Raises:
        DatasetError: if a file is not a result.
    """
    results = []
    for path in sorted(output.glob("*/*.json")):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if not {"dataset", "class", "variant", "seed", "common"} <= set(found):
                raise ValueError("a field is missing")
        except (OSError, ValueError, TypeError) as error:
            raise DatasetError(f"{path} is not a result of this command ({error}); remove it") from None
        results.append(found)
    return results


def check_series(series: Series) -> None:
    """Makes sure that new results can be added to those that are there.

    Raises:
        TrainingError: if results there come from another teacher, or those of the same data set from other settings.
    """
    wanted = series.common
    for result in read_results(series.output):
        there = result["common"]
        names = wanted if result["dataset"] == series.dataset else ("teacher",)
        differing = [name for name in names if there.get(name) != wanted[name]]
        if differing:
            name = differing[0]
            raise TrainingError(
                f"{series.output} holds results with another {name.replace('_', ' ')} ({there.get(name)}, asked for is "
                f"{wanted[name]}), and one table cannot hold both; choose another folder of results"
            )


def reproduce(
    series: Series,
    classes: Sequence[str],
    variants: dict[str, Variant],
    seeds: Sequence[int],
    *,
    on_epoch: Callable[[Run, Epoch], None] = lambda run, epoch: None,
    on_run: Callable[[Run, dict[str, Any] | None], None] = lambda run, result: None,
) -> None:
    """Trains and judges every class, variant and seed that has no result yet.

    The teacher sees no picture twice: its features of a class's training pictures serve all variants and seeds, those
    of a test split that classes share serve all classes.

    Args:
        series: what the runs have in common.
        classes: the normal ones.
        variants: by name.
        seeds: of the students' first weights and the order of the images.
        on_epoch: called after each epoch of a run.
        on_run: called after each run with its result, or with None where the result was there already.

    Raises:
        DatasetError: if pictures cannot be read.
        TrainingError: see `check_series`.
        TrainingInterrupted: after Ctrl-C; the same call goes on.
    """
    check_series(series)
    test: _Pictures | None = None
    for name in classes:
        runs = [Run(series.dataset, name, variant, seed) for variant in variants for seed in seeds]
        missing = [run for run in runs if not run.path(series.output).exists()]
        for run in runs:
            if run not in missing:
                on_run(run, None)
        if not missing:
            continue
        training = _seen(series, choose_training(series, series.source.training(name)))
        pixels, anomalous = series.source.test(name)
        if test is None or test.pixels is not pixels:
            test = None  # before the next one, which may be as large
            test = _seen(series, pixels)
        for run in missing:
            try:
                measured = _measure(series, run, variants[run.variant], training, test, anomalous, on_epoch)
            except DivergedError as error:
                measured = {"failed": str(error)}
            result = write_result(series, run, training.pixels, pixels, anomalous, measured)
            run.checkpoint(series.output).unlink(missing_ok=True)
            on_run(run, result)


def write_result(
    series: Series, run: Run, training: np.ndarray, pixels: np.ndarray, anomalous: np.ndarray, measured: dict[str, Any]
) -> dict[str, Any]:
    """Writes a run's result in one step, and returns it.

    Args:
        series: what it has in common with others.
        run: which it is.
        training: the pictures trained on.
        pixels: the pictures judged.
        anomalous: which of them are anomalous.
        measured: what came of it.
    """
    result = {
        "dataset": run.dataset,
        "class": run.normal_class,
        "variant": run.variant,
        "seed": run.seed,
        "common": series.common,
        "training_images": len(training),
        "test_images": {"normal": int((~anomalous).sum()), "anomalous": int(anomalous.sum())},
        "different_images_in_both": len(set(_digests(training)) & set(_digests(pixels))),
        **measured,
        "device": _device_name(series.device),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }
    path = run.path(series.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json_text(result, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return result


def _measure(
    series: Series,
    run: Run,
    variant: Variant,
    training: _Pictures,
    test: _Pictures,
    anomalous: np.ndarray,
    on_epoch: Callable[[Run, Epoch], None],
) -> dict[str, Any]:
    """Trains one student and judges it."""
    recipe = variant.recipe(
        image_size=series.benchmark.image_size,
        epochs=series.epochs,
        batch_size=series.batch_size,
        direction_weight=series.benchmark.direction_weight,
        seed=run.seed,
    )
    started = time.monotonic()
    student, losses = train(
        series.teacher,
        training.pixels,
        recipe,
        device=series.device,
        checkpoint=run.checkpoint(series.output),
        features=training.features,
        build=variant.build,
        on_epoch=lambda epoch: on_epoch(run, epoch),
    )
    seconds = time.monotonic() - started
    scores = scores_from_features(student, test.pixels, test.features, recipe.term_weights, series.device)
    if not np.isfinite(scores).all():
        raise DivergedError("the scores are not finite")
    detector = Detector(series.teacher, student, recipe.term_weights, series.device)
    return {
        **judge(scores[~anomalous], scores[anomalous]),
        "inference_ms": inference_ms(detector, test.pixels),
        "student_parameters": parameters(student),
        "student_multiply_accumulates": multiply_accumulates(student, recipe.image_size),
        "learning_rate": recipe.learning_rate,
        "squared_weight": recipe.squared_weight,
        "direction_weight": recipe.direction_weight,
        "first_loss": losses[0],
        "final_loss": losses[-1],
        "training_seconds": round(seconds, 1),  # of this process: after an interruption, since then
    }


def judge(normal: np.ndarray, anomalous: np.ndarray) -> dict[str, Any]:
    """The paper's measures of scores ``[N]`` and ``[M]``, at the Youden threshold of these very scores, as it has it.

    Where no threshold separates the two at all nothing is rejected: the largest Youden index is that of no alarm.
    """
    try:
        threshold: float | None = youden(normal, anomalous).threshold
    except CalibrationError:
        threshold = None
    at = float("inf") if threshold is None else threshold
    return {
        "auroc": measures.auroc(normal, anomalous),
        "g_mean": measures.g_mean(normal, anomalous, at),
        "false_alarm_rate": measures.false_alarm_rate(normal, at),
        "miss_rate": measures.miss_rate(anomalous, at),
        "threshold": threshold,
    }


def scores_from_features(
    student: Student,
    pixels: np.ndarray,
    features: Sequence[Tensor],
    weights: TermWeights,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Scores of images ``[N, size, size, 3]`` whose teacher features are known, float32 ``[N]``."""
    student = student.to(device).eval()
    scores = []
    with torch.inference_mode():
        for start in range(0, len(pixels), SCORING_BATCH):
            batch = slice(start, start + SCORING_BATCH)
            x = as_input(torch.from_numpy(pixels[batch]).to(device))
            terms = distillation_terms([layer[batch].to(device) for layer in features], student(x))
            scores.append(distillation_score(terms, weights).cpu().numpy())
    return np.concatenate(scores)


def inference_ms(detector: Detector, pixels: np.ndarray) -> float:
    """Milliseconds from one prepared image to its score, teacher and student together: the median over some images."""
    detector(pixels[:1])
    seconds = []
    for index in range(TIMED_IMAGES):
        image = pixels[index % len(pixels)][None]
        started = time.perf_counter()
        detector(image)
        seconds.append(time.perf_counter() - started)
    return round(1000 * statistics.median(seconds), 3)


def parameters(network: nn.Module) -> int:
    """How many numbers a network learns or has learned."""
    return sum(parameter.numel() for parameter in network.parameters())


def multiply_accumulates(network: nn.Module, image_size: int) -> int:
    """Multiply-accumulates of one image's way through a network; nothing is computed."""
    was_training = network.training
    with FlopCounterMode(display=False) as counter, torch.inference_mode(), torch.device("meta"):
        network.eval()
        shapes = {name: torch.empty_like(value, device="meta") for name, value in network.state_dict().items()}
        torch.func.functional_call(network, shapes, torch.empty(1, 3, image_size, image_size))
    network.train(was_training)
    return int(counter.get_total_flops()) // 2  # a multiply-accumulate counts as two there


def choose_training(series: Series, pixels: np.ndarray) -> np.ndarray:
    """As many of a class's training pictures as the series wants; the same for every variant and seed."""
    if series.training_images is None or len(pixels) <= series.training_images:
        return pixels
    order = np.random.default_rng(CHOICE_SEED).permutation(len(pixels))
    return pixels[np.sort(order[: series.training_images])]


def _seen(series: Series, pixels: np.ndarray) -> _Pictures:
    features = teacher_features(
        series.teacher,
        pixels,
        device=series.device,
        memory_bytes=series.memory_bytes,
        spill_folder=series.spill_folder,
    )
    return _Pictures(pixels, features)


def _digests(pixels: np.ndarray) -> Iterable[bytes]:
    return (sha256(image.tobytes()).digest() for image in pixels)


def _device_name(device: torch.device | str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, threads: {torch.get_num_threads()}"
