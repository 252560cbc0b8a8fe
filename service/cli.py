"""The command line, ``eca-inspect``: reads options, calls the room that knows, prints."""

import json
import logging
import os
import signal
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from pydantic import ValidationError
from tqdm import tqdm

from model.calibration import CalibrationError
from model.images import ImageError, preprocess, read_image
from model.lab import pretraining
from model.lab.reproduction import comparison, runs, tables
from model.lab.reproduction.sets import SETS
from model.lab.synthetic import write_dataset
from model.lab.variants import DEFAULT, VARIANTS
from model.lifecycle import datasets, many
from model.lifecycle.calibrate import NORMAL_QUANTILE, calibrate_category
from model.lifecycle.datasets import DatasetError, LoadedImages, Sample
from model.lifecycle.distillation import FEATURE_MEMORY_BYTES, Epoch, Recipe, TrainingError, TrainingInterrupted
from model.lifecycle.evaluate import Evaluation, SeenPolicy, judge_category, measure_judged
from model.lifecycle.train import check_trainable, train_category
from model.localization import MapForm
from model.networks.vgg import vgg16_plan
from model.score import Score
from model.store.pair import PairError, load_detector, read_card, roll_back
from model.store.teachers import (
    COMPACT,
    IMAGENET,
    TeacherError,
    check_plan,
    fingerprint,
    imagenet_teacher,
    read_teacher,
    resolve_teacher,
    save_teacher,
    teacher_path,
)
from service.app import MissingExtraError, choose_device, create_app
from service.catalogue import Ready
from service.http.keys import KeyFileError, Role, create_key, read_keys, revoke_key
from service.http.server import Server
from service.inspection import Limits, Wanted, inspect_offline
from service.observe import logs
from service.problems import Problem
from service.schemas import Inspection, Localize
from service.settings import Settings

log = logging.getLogger(__name__)
GIB = 1 << 30
EXIT_INTERRUPTED = 130
EXIT_NOT_STARTED = 3

app = typer.Typer(
    help="Anomaly inspection: train a pair for a category, calibrate it, evaluate it, and serve it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
teacher_app = typer.Typer(help="Get and make teachers.", no_args_is_help=True)
app.add_typer(teacher_app, name="teacher")
key_app = typer.Typer(help="Say who may call the server.", no_args_is_help=True)
app.add_typer(key_app, name="key")

Category = Annotated[str, typer.Argument(help="Name of the category.")]
Weights = Annotated[Path | None, typer.Option(help="Folder of categories; INSPECT_WEIGHTS, else weights.")]
Teachers = Annotated[
    Path | None, typer.Option(help="Folder of teachers; INSPECT_TEACHERS, else teachers in the folder of categories.")
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1 ...; INSPECT_DEVICE, else auto, which prefers a GPU.")
]
Data = Annotated[Path | None, typer.Option(help="The category in the MVTec AD layout.")]
Quantile = Annotated[
    float, typer.Option(help="For a threshold without anomalous images: one minus the rate of false alarms aimed at.")
]
Pattern = Annotated[
    str, typer.Option(help="In plain folders, the files whose names match are images; '*.jpg' where masks lie beside.")
]
FeatureMemory = Annotated[
    float, typer.Option(min=0, help="GiB of memory for teacher features; beyond it they go to a file.")
]
SpillFolder = Annotated[Path | None, typer.Option(help="Where that file goes; else the temporary folder.")]
SkipUnreadable = Annotated[bool, typer.Option("--skip-unreadable", help="Go on without files that cannot be read.")]
KeyFile = Annotated[Path | None, typer.Option("--file", help="File of keys; INSPECT_KEYS_FILE.")]
KeyName = Annotated[str, typer.Argument(help="Name of the key, for people.")]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class UsageError(ValueError):
    """Options that do not go together."""


@contextmanager
def _errors_in_plain_words() -> Iterator[None]:
    """Prints an expected error as one message and ends with status 1."""
    try:
        yield
    except (
        CalibrationError,
        DatasetError,
        ImageError,
        KeyFileError,
        comparison.MissingAnomalibError,
        MissingExtraError,
        PairError,
        TeacherError,
        TrainingError,
        UsageError,
    ) as error:
        message = str(error)
    except KeyboardInterrupt:
        typer.echo("stopped; nothing was written", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    else:
        return
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(1)


def _device(name: str) -> torch.device:
    try:
        return choose_device(name)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _settings(**given: Any) -> Settings:
    """The settings of the environment, with those given in place of them; None is not given."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        messages = []
        for item in error.errors():
            name = "INSPECT_" + "_".join(map(str, item["loc"])).upper() if item["loc"] else "settings"
            messages.append(f"{name}: {item['msg']}")
        raise UsageError("; ".join(messages)) from None


def _report_unreadable(messages: list[str]) -> None:
    for message in messages:
        typer.echo(f"left out: {message}", err=True)


@app.command()
def train(
    category: Category,
    data: Data = None,
    normal: Annotated[Path | None, typer.Option(help="Folder of images of normal parts.")] = None,
    pattern: Pattern = datasets.ANY_NAME,
    teacher: Annotated[
        str, typer.Option(help=f"{IMAGENET}, {COMPACT}, another in the folder of teachers, or a file of VGG16 weights.")
    ] = IMAGENET,
    epochs: Annotated[int, typer.Option(min=1)] = Recipe.epochs,
    image_size: Annotated[int, typer.Option(min=32, max=2048, help="Side in pixels.")] = Recipe.image_size,
    batch_size: Annotated[int, typer.Option(min=1)] = Recipe.batch_size,
    learning_rate: Annotated[float, typer.Option()] = Recipe.learning_rate,
    direction_weight: Annotated[float, typer.Option(min=0, help="Lambda of the loss.")] = Recipe.direction_weight,
    omega: Annotated[
        bool, typer.Option("--omega/--no-omega", help="Weigh the distillation layers by their own attention.")
    ] = Recipe.weigh_distillation_layers,
    seed: Annotated[int, typer.Option(min=0)] = Recipe.seed,
    score: Annotated[
        Score, typer.Option(help="local: the largest distance at one location; global: the paper's score.")
    ] = Score.LOCAL,
    quantile: Quantile = NORMAL_QUANTILE,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a training that was stopped.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Put the pair in place of one that exists.")] = False,
    skip_unreadable: SkipUnreadable = False,
    feature_memory: FeatureMemory = FEATURE_MEMORY_BYTES / GIB,
    spill_folder: SpillFolder = None,
    weights: Weights = None,
    teachers: Teachers = None,
    device: Device = None,
) -> None:
    """Train a pair on images of normal parts (8 at least; a fifth is held out for the first threshold)."""
    with _errors_in_plain_words():
        recipe = Recipe(
            image_size=image_size,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            direction_weight=direction_weight,
            weigh_distillation_layers=omega,
            seed=seed,
        )
        settings = _settings(weights=weights, teachers=teachers, device=device)
        used_device = _device(settings.device)
        samples = _training_samples(data, normal, pattern)
        # Before the teacher, which may have to be downloaded.
        check_trainable(settings.weights, category, resume=resume, replace=replace, quantile=quantile)
        name, network = resolve_teacher(settings.teachers_folder, teacher)
        try:
            with closing(_EpochBar(category, epochs)) as bar:
                card, _ = train_category(
                    category,
                    samples,
                    settings.weights,
                    name,
                    network,
                    recipe,
                    score=score,
                    device=used_device,
                    skip_unreadable=skip_unreadable,
                    resume=resume,
                    replace=replace,
                    quantile=quantile,
                    memory_bytes=round(feature_memory * GIB),
                    spill_folder=spill_folder,
                    on_start=_report_start,
                    on_epoch=bar.show,
                )
        except TrainingInterrupted as stop:
            typer.echo(f"{stop}; the same command with --resume goes on", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
    typer.echo(f"{settings.weights / category}: version {card.model_version}, loss {card.training.final_loss:.4g}")
    typer.echo(
        f"threshold {card.calibration.threshold:.4g}: from {card.calibration.normal_images} held-out images and "
        "defects pasted on them; `eca-inspect calibrate` with real ones does better"
    )


def _report_start(images: LoadedImages, held_out: int) -> None:
    _report_unreadable(images.unreadable)
    typer.echo(f"{len(images.digests) - held_out} images to train on, {held_out} held out", err=True)


class _EpochBar:
    """A progress bar that appears with the first epoch, so that a training that is refused leaves none behind."""

    def __init__(self, name: str, epochs: int) -> None:
        self._name = name
        self._epochs = epochs
        self._bar: Any = None

    def show(self, epoch: Epoch) -> None:
        """Another epoch is done."""
        loss = f"{epoch.loss:.4g}"
        if self._bar is None:
            self._bar = tqdm(
                total=self._epochs,
                initial=epoch.number,
                unit="epoch",
                desc=self._name,
                dynamic_ncols=True,
                postfix={"loss": loss},
            )
        else:
            self._bar.set_postfix(loss=loss, refresh=False)
            self._bar.update()

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def _training_samples(data: Path | None, normal: Path | None, pattern: str) -> list[Sample]:
    match data, normal:
        case Path(), None:
            _refuse_pattern(pattern)
            return datasets.mvtec_training(data)
        case None, Path():
            return datasets.normal_samples(normal, pattern)
    raise UsageError("say either --data or --normal")


def _refuse_pattern(pattern: str) -> None:
    if pattern != datasets.ANY_NAME:
        raise UsageError("--pattern is for plain folders, it does not go with --data")


def _judged_samples(
    data: Path | None, normal: Path | None, anomalous: Path | None, masks: Path | None, pattern: str
) -> list[Sample]:
    match data, normal:
        case Path(), None if anomalous is None and masks is None:
            _refuse_pattern(pattern)
            return datasets.mvtec_test(data)
        case None, Path():
            bad = datasets.anomalous_samples(anomalous, masks, pattern) if anomalous is not None else []
            return datasets.normal_samples(normal, pattern) + bad
    raise UsageError("say either --data alone, or --normal (and --anomalous)")


def _by_label(samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    return [one for one in samples if one.defect is None], [one for one in samples if one.defect is not None]


@app.command()
def train_many(
    root: Annotated[Path, typer.Argument(help="Folder of categories in the MVTec AD layout.")],
    teacher: Annotated[
        str, typer.Option(help=f"{IMAGENET}, {COMPACT}, another in the folder of teachers, or a file of VGG16 weights.")
    ] = IMAGENET,
    epochs: Annotated[int, typer.Option(min=1)] = Recipe.epochs,
    image_size: Annotated[int, typer.Option(min=32, max=2048, help="Side in pixels.")] = Recipe.image_size,
    batch_size: Annotated[int, typer.Option(min=1)] = Recipe.batch_size,
    seed: Annotated[int, typer.Option(min=0)] = Recipe.seed,
    retries: Annotated[int, typer.Option(min=0, help="Of each category, after a failure that may go away.")] = 1,
    on_ray: Annotated[
        bool, typer.Option("--ray", help="In parallel, on the cluster of INSPECT_RAY_ADDRESS or here; an extra.")
    ] = False,
    cpus: Annotated[float, typer.Option(min=0, help="With --ray: cores for each category.")] = 1,
    gpus: Annotated[float, typer.Option(min=0, help="With --ray: GPUs for each category.")] = 0,
    weights: Weights = None,
    teachers: Teachers = None,
    device: Device = None,
) -> None:
    """Train and calibrate every category under a folder. The same command again goes on where it was stopped."""
    with _errors_in_plain_words():
        settings = _settings(weights=weights, teachers=teachers, device=device)
        used_device = settings.device if on_ray else str(_device(settings.device))
        folders = many.categories_of(root.absolute())
        name, network = resolve_teacher(settings.teachers_folder, teacher)
        recipe = Recipe(image_size=image_size, epochs=epochs, batch_size=batch_size, seed=seed)
        orders = [
            many.Order(
                folder.name,
                folder,
                settings.weights.absolute(),
                settings.teachers_folder.absolute(),
                (name, fingerprint(network)),
                recipe,
                used_device,
                retries,
            )
            for folder in folders
        ]
        made = []
        try:
            for one in _make_on_ray(orders, settings.ray_address, cpus, gpus) if on_ray else many.make_in_turn(orders):
                made.append(one)
                typer.echo(f"{one.category}: {one.reason or one.outcome} ({len(made)} of {len(orders)})", err=True)
        except (TrainingInterrupted, KeyboardInterrupt):
            typer.echo("stopped; the same command goes on", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
    typer.echo(many.table(made))
    if any(one.outcome == "failed" for one in made):
        raise typer.Exit(1)


def _make_on_ray(orders: list[many.Order], address: str | None, cpus: float, gpus: float) -> Iterator[many.Made]:
    with _ray_or_the_extra():
        from service.on_ray.training import make_on_ray  # brings Ray
    return make_on_ray(orders, address, cpus, gpus)


@contextmanager
def _ray_or_the_extra() -> Iterator[None]:
    """Says which extra has Ray, where it is imported and not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise MissingExtraError("--ray needs the extra: pip install 'eca-inspect[ray]'") from None


@app.command()
def calibrate(
    category: Category,
    normal: Annotated[Path | None, typer.Option(help="Folder of images of normal parts, not trained on.")] = None,
    anomalous: Annotated[Path | None, typer.Option(help="Folder of images of defective parts.")] = None,
    pattern: Pattern = datasets.ANY_NAME,
    data: Data = None,
    share: Annotated[float, typer.Option(min=0, max=1, help="With --data: how much of its test images to use.")] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of that share.")] = 0,
    score: Annotated[
        Score | None, typer.Option(help="Change to this score; the same pair has both. Else as the card has it.")
    ] = None,
    quantile: Quantile = NORMAL_QUANTILE,
    skip_unreadable: SkipUnreadable = False,
    weights: Weights = None,
    teachers: Teachers = None,
    device: Device = None,
) -> None:
    """Set the threshold: Youden's where there are anomalous images, else from defects pasted on normal ones."""
    with _errors_in_plain_words():
        settings = _settings(weights=weights, teachers=teachers, device=device)
        samples = _judged_samples(data, normal, anomalous, None, pattern)
        if data is not None and share < 1:
            samples, _ = datasets.split(samples, share, seed)
        good, bad = _by_label(samples)
        card, unreadable = calibrate_category(
            settings.weights,
            settings.teachers_folder,
            category,
            good,
            bad,
            score=score,
            quantile=quantile,
            device=_device(settings.device),
            precision=settings.dtype,
            skip_unreadable=skip_unreadable,
        )
    _report_unreadable(unreadable)
    found = card.calibration
    typer.echo(f"{category}: {card.score.value} score, threshold {found.threshold:.6g}, method {found.method}")
    typer.echo(f"{found.normal_images} normal and {found.anomalous_images} anomalous images")
    if found.method == "youden":
        typer.echo(f"Youden index {found.youden_index:.4f}, AUROC {found.auroc:.4f}")
    if found.auroc is not None and found.auroc < 0.5:
        typer.echo(
            f"warning: the AUROC is {found.auroc:.3f}: most anomalous images score lower than normal ones, so this "
            "threshold is of no use. Are the folders exchanged? If not, train for more epochs, or on another teacher",
            err=True,
        )


@app.command()
def rollback(category: Category, weights: Weights = None) -> None:
    """Go back to the version that train --replace or calibrate replaced last; once more brings the newer one back."""
    with _errors_in_plain_words():
        folder = _settings(weights=weights).weights
        roll_back(folder, category)
        card = read_card(folder / category)
    typer.echo(f"{folder / category}: version {card.model_version}, threshold {card.calibration.threshold:.6g}")


@app.command()
def evaluate(
    category: Category,
    data: Data = None,
    normal: Annotated[Path | None, typer.Option(help="Folder of images of normal parts.")] = None,
    anomalous: Annotated[Path | None, typer.Option(help="Folder of images of defective parts.")] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Folder of NAME_mask.png or NAME.png for the anomalous images.")
    ] = None,
    pattern: Pattern = datasets.ANY_NAME,
    seen: Annotated[
        SeenPolicy, typer.Option(help="What to do with images that training or calibration has seen.")
    ] = SeenPolicy.REFUSE,
    skip_unreadable: SkipUnreadable = False,
    json_output: JsonOutput = False,
    report: Annotated[
        Path | None, typer.Option(help="New folder for a page with figures, the figures, and the numbers as JSON.")
    ] = None,
    weights: Weights = None,
    teachers: Teachers = None,
    device: Device = None,
) -> None:
    """Judge a category on images it has not seen; measures with 95 % bootstrap intervals."""
    with _errors_in_plain_words():
        settings = _settings(weights=weights, teachers=teachers, device=device)
        good, bad = _by_label(_judged_samples(data, normal, anomalous, masks, pattern))
        if not good or not bad:
            raise UsageError("evaluation needs normal and anomalous images")
        if report is not None:
            from model.lifecycle.report import (  # brings matplotlib, which only this should wait for
                new_folder,
                write_report,
            )

            new_folder(report)
        judged = judge_category(
            settings.weights,
            settings.teachers_folder,
            category,
            good,
            bad,
            seen_policy=seen,
            device=_device(settings.device),
            precision=settings.dtype,
            skip_unreadable=skip_unreadable,
        )
        found = measure_judged(judged)
        if report is not None:
            typer.echo(f"report: {write_report(report, judged, found)}", err=True)
    _report_unreadable(found.unreadable)
    typer.echo(json.dumps(found.as_dict(), indent=2) if json_output else _evaluation_table(found))


def _evaluation_table(found: Evaluation) -> str:
    lines = [
        f"{found.category} {found.model_version}: {found.normal_images} normal and {found.anomalous_images} anomalous "
        f"images, threshold {found.threshold:.6g} ({found.calibration})"
    ]
    if found.left_out_seen:
        lines.append(f"{found.left_out_seen} images left out: training or calibration has seen them")
    for name, estimate in (
        ("AUROC", found.image.auroc),
        ("false-alarm rate (FPR)", found.image.false_alarm_rate),
        ("miss rate (FNR)", found.image.miss_rate),
        ("g-mean", found.image.g_mean),
    ):
        lines.append(f"  {name:<24}{estimate.value:.4f}  95 % [{estimate.low:.4f}, {estimate.high:.4f}]")
    if found.pixel_auroc is not None:
        lines.append(f"  {'pixel AUROC':<24}{found.pixel_auroc:.4f}  ({found.pixel_images} images with a mask)")
        lines.append(f"  {'AUPRO (FPR <= 0.3)':<24}{found.aupro:.4f}")
    lines += [f"  AUROC of {defect:<15}{value:.4f}" for defect, value in found.auroc_by_defect.items()]
    return "\n".join(lines)


@app.command()
def inspect(
    category: Category,
    images: Annotated[list[Path], typer.Argument(help="Image files.", show_default=False)],
    localize: Annotated[Localize, typer.Option(help="Whether to find the place of the fault.")] = Localize.AUTO,
    map_form: Annotated[
        MapForm | None, typer.Option("--map", help="What the map shows; else the category's own form.")
    ] = None,
    overlay: Annotated[Path | None, typer.Option(help="Folder to write NAME.overlay.png to.")] = None,
    json_output: JsonOutput = False,
    weights: Weights = None,
    teachers: Teachers = None,
    device: Device = None,
) -> None:
    """Inspect image files exactly as the server does. Ends with status 1 if a file could not be inspected."""
    failed = False
    answers: list[dict[str, object]] = []
    with _errors_in_plain_words():
        settings = _settings(weights=weights, teachers=teachers, device=device)
        device_and_precision = _device(settings.device), settings.dtype
        card, detector = load_detector(settings.weights, settings.teachers_folder, category, *device_and_precision)
        ready = Ready(card, detector.teacher, lambda: detector)
        limits = Limits(settings.max_image_bytes, settings.max_image_pixels)
        places = _overlay_places(overlay, images) if overlay is not None else {}
        for path in images:
            try:
                found, picture = inspect_offline(
                    ready, path.read_bytes(), Wanted(localize, map_form), limits, with_overlay=overlay is not None
                )
            except (ImageError, OSError, Problem) as error:
                failed = True
                reason = error.strerror if isinstance(error, OSError) else error
                typer.echo(f"error: {path}: {reason}", err=True)
                continue
            if picture is not None:
                places[path].parent.mkdir(parents=True, exist_ok=True)
                places[path].write_bytes(picture)
            if json_output:
                answers.append({"path": str(path), **found.model_dump(mode="json")})
            else:
                typer.echo(_inspection_line(path, found))
    if json_output:
        typer.echo(json.dumps(answers, indent=2))
    if failed:
        raise typer.Exit(1)


def _overlay_places(folder: Path, images: list[Path]) -> dict[Path, Path]:
    """Where to write the picture of each image: in its folder below the one that all share, so that no two collide."""
    shared = Path(os.path.commonpath([path.absolute().parent for path in images]))
    places = {path: folder / path.absolute().parent.relative_to(shared) / f"{path.name}.overlay.png" for path in images}
    given = {path.resolve() for path in images}
    for path, place in places.items():
        if place.resolve() in given:
            raise UsageError(f"the overlay of {path} would take the place of {place}, which is to be inspected itself")
    folder.mkdir(parents=True, exist_ok=True)
    return places


def _inspection_line(path: Path, found: Inspection) -> str:
    regions = f"  {len(found.localization.regions)} regions" if found.localization else ""
    return f"{found.decision:<10}{found.score:.6g} (threshold {found.threshold:.6g})  {path}{regions}"


@app.command()
def features(
    category: Category,
    image: Annotated[Path, typer.Argument(help="Image file.", show_default=False)],
    output: Annotated[Path | None, typer.Option(help="New PNG file; else NAME.features.png in this folder.")] = None,
    weights: Weights = None,
    teachers: Teachers = None,
    device: Device = None,
) -> None:
    """Draw what student and teacher make of an image at each distillation layer, and where they differ."""
    with _errors_in_plain_words():
        settings = _settings(weights=weights, teachers=teachers, device=device)
        place = output or Path(f"{image.name}.features.png")
        if place.suffix.lower() != ".png":
            raise UsageError(f"{place} should end in .png")
        if place.exists():
            raise UsageError(f"{place} exists; name another file with --output")
        from model.lab import features
        from model.lifecycle import figures  # brings matplotlib, which only this should wait for

        used_device = _device(settings.device)
        card, detector = load_detector(
            settings.weights, settings.teachers_folder, category, used_device, settings.dtype
        )
        pixels = preprocess(read_image(image), card.image_size)
        score, threshold = float(detector(pixels[None]).scores[0]), card.calibration.threshold
        title = (
            f"{category} {card.model_version}, {image.name}: score {score:.3g}, threshold {threshold:.3g}, "
            f"{'anomalous' if score >= threshold else 'normal'}"
        )
        picture = figures.png(figures.features(pixels, features.layers_of(detector, pixels), title))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(picture)
    typer.echo(str(place))


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; INSPECT_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; INSPECT_PORT.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Folder of categories; INSPECT_WEIGHTS.")] = None,
    on_ray: Annotated[
        bool,
        typer.Option(
            "--ray", help="On Ray Serve: many replicas, on the cluster of INSPECT_RAY_ADDRESS or here; an extra."
        ),
    ] = False,
) -> None:
    """Serve all categories over HTTP. Every setting is an environment variable INSPECT_...; see docs/deploying.md."""
    with _errors_in_plain_words():
        settings = _settings(host=host, port=port, weights=weights)
        _device(settings.device)
        if settings.asks_nobody_elsewhere and not settings.allow_anonymous:
            raise UsageError(
                f"other machines can reach {settings.host}, and anybody could call the server: name a file of keys in "
                "INSPECT_KEYS_FILE (eca-inspect key create makes one), or set INSPECT_ALLOW_ANONYMOUS=true"
            )
        logs.configure(settings.log_level, settings.log_format)
        if on_ray:
            _serve_on_ray(settings)
            return
        application = create_app(settings)
    if settings.asks_nobody_elsewhere:
        log.warning("other machines can reach %s, and the server does not ask who is calling", settings.host)
    # uvicorn sends SIGTERM to itself once more when it has shut down in order; that must not look like a failure.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server = Server(application, settings)
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        raise typer.Exit(EXIT_NOT_STARTED)


def _serve_on_ray(settings: Settings) -> None:
    with _ray_or_the_extra():
        from service.on_ray.server import serve_on_ray  # brings Ray
    if settings.port == 0:
        raise UsageError("with --ray say which port: INSPECT_PORT")
    if settings.asks_nobody_elsewhere:
        log.warning("other machines can reach %s, and the server does not ask who is calling", settings.host)
    try:
        serve_on_ray(settings)
    except ValueError as error:
        raise UsageError(str(error)) from None


@app.command()
def synthesize(
    root: Annotated[Path, typer.Argument(help="New folder, in the MVTec AD layout.")],
    train_images: Annotated[int, typer.Option("--train", min=1)] = 200,
    test_good: Annotated[int, typer.Option(min=1)] = 100,
    test_each: Annotated[int, typer.Option(min=1, help="Images of each kind of defect.")] = 25,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Generate pictures of the built-in category, with defects and their masks."""
    with _errors_in_plain_words():
        write_dataset(root, train=train_images, test_good=test_good, test_each=test_each, seed=seed)
    typer.echo(str(root))


@app.command()
def reproduce(
    output: Annotated[Path, typer.Option(help="Folder of results: what is there is not run again.")],
    dataset: Annotated[
        str | None, typer.Option(help=f"{', '.join(SETS)}; without it only the tables are written.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Where the set lies: torchvision's files, folders of classes, or of categories.")
    ] = None,
    variant: Annotated[
        str, typer.Option(help=f"{', '.join(VARIANTS)}; several with commas between them, or all.")
    ] = DEFAULT,
    classes: Annotated[str | None, typer.Option(help="The normal classes, with commas between them; else all.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many: 0, 1, 2 ...")] = 1,
    epochs: Annotated[int | None, typer.Option(min=1, help="Else the paper's for the set.")] = None,
    train_images: Annotated[
        int | None, typer.Option(min=1, help="Of a class at most, drawn once; else all, as in the paper.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = Recipe.batch_size,
    teacher: Annotated[
        str, typer.Option(help=f"{IMAGENET}, {COMPACT}, another in the folder of teachers, or a file of VGG16 weights.")
    ] = IMAGENET,
    compare: Annotated[
        str | None,
        typer.Option(help=f"Methods of anomalib to run as well: {', '.join(comparison.METHODS)}, or all; an extra."),
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Let torchvision fetch the set into the root.")] = False,
    tables_file: Annotated[
        Path | None, typer.Option("--tables", help="Where to write the tables; else tables.md in the output.")
    ] = None,
    feature_memory: FeatureMemory = FEATURE_MEMORY_BYTES / GIB,
    spill_folder: SpillFolder = None,
    weights: Weights = None,
    teachers: Teachers = None,
    device: Device = None,
) -> None:
    """Run the paper's experiments, and write its tables with ours beside them."""
    with _errors_in_plain_words():
        if dataset is not None:
            benchmark = SETS[_known("data set", dataset, SETS)]
            variants = {name: VARIANTS[name] for name in _several("variant", variant, VARIANTS)}
            methods = _several("method of anomalib", compare, comparison.METHODS) if compare else []
            if methods:
                comparison.require_anomalib()
            if root is None:
                raise UsageError("say where the data set lies: --root")
            settings = _settings(weights=weights, teachers=teachers, device=device)
            used_device = _device(settings.device)
            source = benchmark.open(root, download=download)
            normal = _several(f"class of {dataset}", classes or "all", source.classes)
            name, network = resolve_teacher(settings.teachers_folder, teacher)
            series = runs.Series(
                dataset,
                benchmark,
                source,
                name,
                network,
                output,
                epochs or benchmark.epochs,
                train_images,
                batch_size,
                used_device,
                round(feature_memory * GIB),
                spill_folder,
            )
            try:
                with closing(_RunBar(series.epochs)) as bar:
                    runs.reproduce(series, normal, variants, range(seeds), on_epoch=bar.show, on_run=bar.report)
                    if methods:
                        side = comparison.IMAGE_SIZE if benchmark.read is None else None
                        prepared = benchmark.open(root, image_size=side)
                        comparison.compare(series, prepared, normal, methods, range(seeds), on_run=bar.report)
            except (TrainingInterrupted, KeyboardInterrupt):
                typer.echo("stopped; the same command goes on", err=True)
                raise typer.Exit(EXIT_INTERRUPTED) from None
        results = runs.read_results(output)
        if not results:
            raise UsageError(f"{output} holds no results; say --dataset and --root")
        page = tables_file or output / "tables.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(tables.write_tables(results))
    typer.echo(str(page))


class _RunBar:
    """A progress bar for each run of a series, and a line when it is done."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._bar: _EpochBar | None = None

    def show(self, run: runs.Run, epoch: Epoch) -> None:
        """Another epoch of a run is done."""
        if self._bar is None:
            self._bar = _EpochBar(f"{run.normal_class} {run.variant} {run.seed}", self._epochs)
        self._bar.show(epoch)

    def report(self, run: runs.Run, result: dict[str, Any] | None) -> None:
        """A run is done, or was there already."""
        self.close()
        if result is None:
            found = "there already"
        elif "failed" in result:
            found = str(result["failed"])
        else:
            found = f"AUROC {result['auroc']:.4f}, {result['training_seconds']:.0f} s of training"
        typer.echo(f"{run.dataset} {run.normal_class}, {run.variant}, seed {run.seed}: {found}", err=True)

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _known(kind: str, name: str, names: Collection[str]) -> str:
    if name not in names:
        raise UsageError(f"there is no {kind} {name!r}; there are {', '.join(names)}")
    return name


def _several(kind: str, given: str, names: Collection[str]) -> list[str]:
    """The names in a list with commas, each of them known; ``all`` is all of them."""
    chosen = names if given == "all" else dict.fromkeys(part.strip() for part in given.split(","))
    return [_known(kind, name, names) for name in chosen]


@key_app.command("create")
def key_create(
    name: KeyName,
    role: Annotated[Role, typer.Option(help="inspect: ask for verdicts; admin: also change what is served.")],
    file: KeyFile = None,
) -> None:
    """Make a key, print it once, and add its hash to the file; a running server takes it at once."""
    with _errors_in_plain_words():
        typer.echo(create_key(_key_file(file), name, role))


@key_app.command("list")
def key_list(file: KeyFile = None) -> None:
    """Print name and role of every key."""
    with _errors_in_plain_words():
        for key in read_keys(_key_file(file)):
            typer.echo(f"{key.name}  {key.role}")


@key_app.command("revoke")
def key_revoke(name: KeyName, file: KeyFile = None) -> None:
    """Take a key out of the file; a running server refuses it at once."""
    with _errors_in_plain_words():
        revoke_key(_key_file(file), name)


def _key_file(given: Path | None) -> Path:
    path = given or _settings().keys_file
    if path is None:
        raise UsageError("say --file, or set INSPECT_KEYS_FILE")
    return path


@teacher_app.command()
def fetch(
    source: Annotated[
        Path | None, typer.Option("--from", help="Take the weights from this file (.pth or .safetensors) instead.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name to keep it under.")] = IMAGENET,
    weights: Weights = None,
    teachers: Teachers = None,
) -> None:
    """Fetch torchvision's VGG16 for ImageNet (528 MB), or import a file; the features alone are kept (59 MB)."""
    with _errors_in_plain_words():
        if source is None and name != IMAGENET:
            raise UsageError("a teacher of another name comes from a file: say --from")
        folder = _settings(weights=weights, teachers=teachers).teachers_folder
        path = teacher_path(folder, name)
        was_there = path.exists()
        if source is None:
            teacher = imagenet_teacher(folder)
        else:
            teacher = read_teacher(source)
            save_teacher(teacher, folder, name)
    typer.echo(f"{path}{' is there already' if was_there else ''}: SHA-256 of its weights {fingerprint(teacher)}")


@teacher_app.command()
def pretrain(
    name: Annotated[str, typer.Argument(help="Name to keep it under.")],
    data: Annotated[Path, typer.Option(help="Folder with one sub-folder of images for each class.")],
    epochs: Annotated[int, typer.Option(min=1)] = 7,
    widths: Annotated[str, typer.Option(help="Channels of the five stages; VGG16 has 64,128,256,512,512.")] = (
        "24,48,96,192,192"
    ),
    image_size: Annotated[int, typer.Option(min=32, help="Side in pixels.")] = 32,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    source: Annotated[str, typer.Option(help="What the data is and where it comes from, for the record.")] = "",
    weights: Weights = None,
    teachers: Teachers = None,
    device: Device = None,
) -> None:
    """Pretrain a narrow VGG16 on pictures sorted into classes, for machines without ImageNet weights."""
    with _errors_in_plain_words():
        settings = _settings(weights=weights, teachers=teachers, device=device)
        used_device = _device(settings.device)
        folder = settings.teachers_folder
        path = teacher_path(folder, name)
        if path.exists():
            raise UsageError(f"{path} exists, and students may depend on it; choose another name")
        try:
            a, b, c, d, e = (int(width) for width in widths.split(","))
        except ValueError:
            raise UsageError(f"--widths must be five numbers, got {widths!r}") from None
        plan = vgg16_plan((a, b, c, d, e))
        check_plan(name, plan)
        images, labels, classes = _class_folders(data, image_size)
        with tqdm(unit="step", desc=name, dynamic_ncols=True) as bar:

            def on_step(step: int, steps: int, loss: float) -> None:
                bar.total = steps
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                bar.update(step - bar.n)

            started = datetime.now(UTC)
            teacher, accuracy = pretraining.pretrain(
                images,
                labels,
                plan,
                epochs=epochs,
                seed=seed,
                device=used_device,
                on_step=on_step,
            )
        save_teacher(teacher, folder, name)
        record = {
            "name": name,
            "sha256": fingerprint(teacher),
            "widths": [a, b, c, d, e],
            "source": source,
            "images": len(images),
            "classes": classes,
            "image_size": image_size,
            "epochs": epochs,
            "seed": seed,
            "held_out_share": pretraining.HELD_OUT_SHARE,
            "held_out_top1_accuracy": accuracy,
            "torch": torch.__version__,
            "device": str(used_device),
            "seconds": round((datetime.now(UTC) - started).total_seconds()),
            "date": started.date().isoformat(),
        }
        path.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    typer.echo(f"{path}: top-1 accuracy {accuracy:.3f} on the held-out share")


def _class_folders(root: Path, image_size: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder")
    classes = sorted(path for path in root.iterdir() if path.is_dir())
    if len(classes) < 2:
        raise DatasetError(f"{root} needs a sub-folder of images for each of two classes at least")
    samples = [(sample, label) for label, folder in enumerate(classes) for sample in datasets.normal_samples(folder)]
    images = datasets.load_images([sample for sample, _ in samples], image_size)
    return torch.from_numpy(images.pixels), torch.tensor([label for _, label in samples]), len(classes)


def main() -> None:
    """Entry point of ``eca-inspect``."""
    app()
