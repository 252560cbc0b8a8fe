"""Methods of anomalib on the same pictures and splits, for a comparison in the same tables.

anomalib is an extra, `pip install 'eca-inspect[anomalib]'`. Each method downloads its own pretrained network, except
those whose name ends in ``-teacher``: these use this project's teacher. PatchCore and STFPM take any network. The
others do not: EfficientAD has a network of its own, Reverse Distillation's decoder exists for ResNets alone, and
Dinomaly needs a DINO transformer.
"""

import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError

import cv2
import numpy as np
import torch
from torch import nn

from model.errors import ExpectedError, MissingExtraError
from model.lab.choices import METHODS
from model.lab.reproduction.runs import Run, Series, check_series, choose_training, judge, write_result
from model.lab.reproduction.sets import Source
from model.networks.vgg import Teacher

PREFIX = "anomalib-"
IMAGE_SIZE = 256
"""What methods with their own network see, in pixels. The others see what the project's students see."""
VALIDATION_SHARE = 0.1
"""Of the training pictures: EfficientAD scales its maps by them, and no method trains on them."""


class MissingAnomalibError(MissingExtraError):
    """anomalib is not installed."""


class NoNetworkError(ExpectedError):
    """A method's pretrained network cannot be downloaded."""


class Answers(NamedTuple):
    """What a trained method says.

    Attributes:
        scores: of the judged pictures, in their order, float32 ``[N]``, larger is more unusual.
        maps: their anomaly maps, float32 ``[N, size, size]``; None of a method that has none.
        training_seconds: without writing and reading pictures once.
        milliseconds_an_image: of the judged pictures, in batches, reading them included.
        network: the trained ``AnomalibModule``, in evaluation mode on the CPU.
    """

    scores: np.ndarray
    maps: np.ndarray | None
    training_seconds: float
    milliseconds_an_image: float
    network: Any


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
        source: the same set, prepared for methods with their own network.
        classes: the normal ones.
        methods: of `METHODS`.
        seeds: of each method.
        on_run: called after each run with its result, or with None where the result was there already.

    Raises:
        MissingAnomalibError: where anomalib is not installed.
        NoNetworkError: see `answer`.
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
                seen = series.source if "pools" in METHODS[method] else source
                training = choose_training(series, seen.training(name))
                pixels, anomalous = seen.test(name)
                measured = _measure(series, method, seed, training, pixels, anomalous)
                on_run(run, write_result(series, run, training, pixels, anomalous, measured))


def write_folders(folder: Path, training: np.ndarray, pixels: np.ndarray, anomalous: np.ndarray) -> None:
    """Writes pictures ``[N, H, W, 3]`` as ``train``, ``test/normal`` and ``test/anomalous``, PNG files.

    A file's name is the picture's place in its array.
    """
    places = np.arange(len(pixels))
    for name, images, chosen in (
        ("train", training, np.arange(len(training))),
        ("test/normal", pixels, places[~anomalous]),
        ("test/anomalous", pixels, places[anomalous]),
    ):
        (folder / name).mkdir(parents=True)
        for index in chosen:
            _, png = cv2.imencode(".png", cv2.cvtColor(images[index], cv2.COLOR_RGB2BGR))
            (folder / name / f"{index:06}.png").write_bytes(png.tobytes())


def backbone_of(teacher: Teacher) -> nn.Sequential:
    """The same network as modules ``pool1`` to ``pool5``, each of which ends with that pool; weights are shared."""
    stages: list[list[nn.Module]] = [[]]
    for layer in teacher.features:
        stages[-1].append(layer)
        if isinstance(layer, nn.MaxPool2d):
            stages.append([])
    return nn.Sequential(OrderedDict((f"pool{i}", nn.Sequential(*stage)) for i, stage in enumerate(stages[:-1], 1)))


def untrained(backbone: nn.Sequential) -> nn.Sequential:
    """A network of the same shape and names with new weights, and BatchNorm after each convolution.

    STFPM's rate (0.4) is made for networks with BatchNorm, which VGG16 lacks.
    """
    stages = OrderedDict[str, nn.Module]()
    for name, stage in backbone.named_children():
        layers: list[nn.Module] = []
        for layer in stage.children():
            if isinstance(layer, nn.Conv2d):
                layers.append(nn.Conv2d(layer.in_channels, layer.out_channels, kernel_size=3, padding=1, bias=False))
                layers.append(nn.BatchNorm2d(layer.out_channels))
            elif isinstance(layer, nn.ReLU):
                layers.append(nn.ReLU(inplace=True))
            else:
                layers.append(nn.MaxPool2d(2))
        stages[name] = nn.Sequential(*layers)
    return nn.Sequential(stages)


def build(method: str, teacher: Teacher, image_size: int) -> Any:
    """The untrained ``AnomalibModule`` of a method.

    Args:
        method: of `METHODS`.
        teacher: for a method that uses it; others ignore it.
        image_size: side of what it sees, in pixels; it resizes other pictures.

    Raises:
        NoNetworkError: if it cannot download its pretrained network.
    """
    chosen = METHODS[method]
    kind = getattr(import_module("anomalib.models"), chosen["class"])
    shared = {
        "pre_processor": kind.configure_pre_processor(image_size=(image_size, image_size)),
        "post_processor": False, "evaluator": False, "visualizer": False,
    }  # fmt: skip
    if "pools" not in chosen:
        with _downloads(method):
            return kind(**shared)
    backbone = backbone_of(teacher)
    layers = [f"pool{pool}" for pool in chosen["pools"]]
    network = kind(backbone=backbone, layers=layers, **shared)
    if chosen["class"] == "Stfpm":  # it would share the teacher's weights with its student
        extractor = type(network.model.student_model)
        network.model.student_model = extractor(untrained(backbone), layers, pre_trained=False, requires_grad=True)
    return network


def answer(
    method: str,
    training: np.ndarray,
    pixels: np.ndarray,
    anomalous: np.ndarray,
    *,
    teacher: Teacher,
    image_size: int,
    epochs: int,
    batch_size: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> Answers:
    """Trains one method on pictures of normal parts and asks it about others.

    Args:
        method: of `METHODS`.
        training: uint8 RGB ``[M, H, W, 3]``.
        pixels: to judge, uint8 RGB ``[N, H, W, 3]``.
        anomalous: which of them are anomalous, bool ``[N]``; it has no influence on what comes out.
        teacher: for a method that uses it.
        image_size: side of what the method sees, in pixels.
        epochs: passes over the training pictures, unless the method sets its own number.
        batch_size: pictures a step, unless the method insists on another.
        seed: of weights and order.
        device: where to compute.

    Raises:
        NoNetworkError: if the method cannot download what it needs.
    """
    data, engines = import_module("anomalib.data"), import_module("anomalib.engine")
    device = torch.device(device)
    with tempfile.TemporaryDirectory() as folder:
        write_folders(Path(folder), training, pixels, anomalous)
        import_module("lightning").seed_everything(seed)
        pictures = data.Folder(
            name="set",
            root=folder,
            normal_dir="train",
            normal_test_dir="test/normal",
            abnormal_dir="test/anomalous",
            train_batch_size=METHODS[method].get("batch_size", batch_size),
            eval_batch_size=batch_size,
            num_workers=0,
            val_split_mode="from_train",
            val_split_ratio=VALIDATION_SHARE,
            seed=seed,
        )
        network = build(method, teacher, image_size)
        engine = engines.Engine(
            default_root_dir=folder,
            max_epochs=epochs,
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1 if device.index is None or device.type == "cpu" else [device.index],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        started = time.monotonic()
        with _downloads(method):
            engine.fit(network, datamodule=pictures)
        training_seconds = time.monotonic() - started
        started = time.monotonic()
        answers = engine.predict(network, datamodule=pictures)
        milliseconds = 1000 * (time.monotonic() - started) / len(pixels)
    places = np.concatenate([[int(Path(path).stem) for path in one.image_path] for one in answers])
    order = np.argsort(places)
    scores = torch.cat([one.pred_score.float().cpu().reshape(-1) for one in answers]).numpy()[order]
    maps = None
    if answers[0].anomaly_map is not None:
        maps = torch.cat([one.anomaly_map.float().cpu().squeeze(1) for one in answers]).numpy()[order]
    return Answers(scores, maps, training_seconds, milliseconds, network.cpu().eval())


@contextmanager
def _downloads(method: str) -> Iterator[None]:
    """A download that fails becomes a `NoNetworkError`."""
    try:
        yield
    except (URLError, ConnectionError, FileNotFoundError) as error:  # the last is huggingface_hub's, without internet
        without = ", ".join(name for name, one in METHODS.items() if "pools" in one or one["class"] == "Ganomaly")
        raise NoNetworkError(
            f"{method} needs a pretrained network, which cannot be downloaded ({error}); "
            f"these need no download: {without}"
        ) from error


def _measure(
    series: Series, method: str, seed: int, training: np.ndarray, pixels: np.ndarray, anomalous: np.ndarray
) -> dict[str, Any]:
    """Trains one method and judges it by its raw scores."""
    found = answer(
        method,
        training,
        pixels,
        anomalous,
        teacher=series.teacher,
        image_size=series.benchmark.image_size if "pools" in METHODS[method] else IMAGE_SIZE,
        epochs=series.epochs,
        batch_size=series.batch_size,
        seed=seed,
        device=series.device,
    )
    return {
        **judge(found.scores[~anomalous], found.scores[anomalous]),
        "milliseconds_an_image_in_batches": round(found.milliseconds_an_image, 3),
        "training_seconds": round(found.training_seconds, 1),
    }
