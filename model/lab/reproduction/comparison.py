"""Methods of anomalib on the same pictures and splits, for a comparison in the same tables.

anomalib is an extra, `pip install 'eca-inspect[anomalib]'`; each method fetches its own pretrained networks.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from model.errors import MissingExtraError
from model.lab.choices import METHODS
from model.lab.reproduction.runs import Run, Series, check_series, choose_training, judge, write_result
from model.lab.reproduction.sets import Source

PREFIX = "anomalib-"
IMAGE_SIZE = 256
"""What these methods see, in pixels."""
VALIDATION_SHARE = 0.1


class MissingAnomalibError(MissingExtraError):
    """anomalib is not installed."""


def require_anomalib() -> None:
    """Raises `MissingAnomalibError` where anomalib is not installed."""
    try:
        import_module("anomalib")
    except ImportError:
        raise MissingAnomalibError(
            "a comparison needs anomalib, which is not installed: pip install 'eca-inspect[anomalib]'"
        ) from None


def compare(
    series: Series,
    source: Source,
    classes: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    *,
    on_run: Callable[[Run, dict[str, Any] | None], None] = lambda run, result: None,
) -> None:
    """Trains and judges methods of anomalib where there is no result yet; see `model.lab.reproduction.runs.reproduce`.

    Args:
        series: what the runs have in common with the others of their table.
        source: the same set, prepared for these methods.
        classes: the normal ones.
        methods: of `METHODS`.
        seeds: of each method.
        on_run: called after each run with its result, or with None where the result was there already.

    Raises:
        MissingAnomalibError: where anomalib is not installed.
        DatasetError, TrainingError: see `model.lab.reproduction.runs.reproduce`.
    """
    require_anomalib()
    check_series(series)
    for name in classes:
        for method in methods:
            for seed in seeds:
                run = Run(series.dataset, name, PREFIX + method, seed)
                if run.path(series.output).exists():
                    on_run(run, None)
                    continue
                training = choose_training(series, source.training(name))
                pixels, anomalous = source.test(name)
                measured = _measure(series, method, seed, training, pixels, anomalous)
                on_run(run, write_result(series, run, training, pixels, anomalous, measured))


def write_folders(folder: Path, training: np.ndarray, pixels: np.ndarray, anomalous: np.ndarray) -> None:
    """Writes pictures ``[N, H, W, 3]`` as ``train``, ``test/normal`` and ``test/anomalous``, PNG files."""
    for name, chosen in (
        ("train", training),
        ("test/normal", pixels[~anomalous]),
        ("test/anomalous", pixels[anomalous]),
    ):
        (folder / name).mkdir(parents=True)
        for index, image in enumerate(chosen):
            _, png = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            (folder / name / f"{index:06}.png").write_bytes(png.tobytes())


def _measure(
    series: Series, method: str, seed: int, training: np.ndarray, pixels: np.ndarray, anomalous: np.ndarray
) -> dict[str, Any]:
    """Trains one method and judges it by its raw scores; a tenth of the training pictures is its validation set."""
    data, models, engines = (import_module(f"anomalib.{name}") for name in ("data", "models", "engine"))
    device = torch.device(series.device)
    chosen = METHODS[method]
    with tempfile.TemporaryDirectory() as folder:
        write_folders(Path(folder), training, pixels, anomalous)
        import_module("lightning").seed_everything(seed)
        pictures = data.Folder(
            name=series.dataset,
            root=folder,
            normal_dir="train",
            normal_test_dir="test/normal",
            abnormal_dir="test/anomalous",
            train_batch_size=chosen.get("batch_size", series.batch_size),
            eval_batch_size=series.batch_size,
            num_workers=0,
            val_split_mode="from_train",
            val_split_ratio=VALIDATION_SHARE,
            seed=seed,
        )
        network = getattr(models, chosen["class"])(post_processor=False, evaluator=False, visualizer=False)
        engine = engines.Engine(
            default_root_dir=folder,
            max_epochs=series.epochs,
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1 if device.index is None or device.type == "cpu" else [device.index],
        )
        started = time.monotonic()
        engine.fit(network, datamodule=pictures)
        seconds = time.monotonic() - started
        started = time.monotonic()
        answers = engine.predict(network, datamodule=pictures)
        each = (time.monotonic() - started) / len(pixels)
    scores = np.concatenate([np.atleast_1d(answer.pred_score.float().cpu().numpy().squeeze()) for answer in answers])
    labels = np.concatenate([np.atleast_1d(answer.gt_label.cpu().numpy()) for answer in answers]).astype(bool)
    return {
        **judge(scores[~labels], scores[labels]),
        "milliseconds_an_image_in_batches": round(1000 * each, 3),
        "training_seconds": round(seconds, 1),
    }
