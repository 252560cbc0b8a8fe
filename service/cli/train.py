"""``train``, ``retrain`` and ``train-many``."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model.choices import (
    ANY_NAME,
    COMPACT,
    DEFAULT_SCORE,
    IMAGENET,
    LARGEST_SEED,
    LARGEST_SIDE,
    OVERLAP,
    SMALLEST_SIDE,
    Align,
    Fit,
    Schedule,
    Score,
)
from model.lifecycle.recipe import FEATURE_MEMORY_BYTES, Recipe
from service.cli.errors import EXIT_INTERRUPTED, UsageError, ray_or_the_extra
from service.cli.options import (
    GIB,
    Alignment,
    AsCandidate,
    BayerOrder,
    BlackLevel,
    Category,
    Channels,
    Data,
    Device,
    EachZone,
    FeatureMemory,
    Grid,
    MaxFalseAlarms,
    NormaliseLight,
    Overlap,
    Pattern,
    Quantile,
    ReferenceFile,
    RegionFile,
    SkipUnreadable,
    SmallestFault,
    SpillFolder,
    Teachers,
    Weights,
    WhiteLevel,
    WithConfidence,
    WithoutAnomalous,
    grid_of,
    level_of,
    rule_of,
    torch_device,
)
from service.settings import read_settings

if TYPE_CHECKING:
    from model.lifecycle.datasets import LoadedImages
    from model.lifecycle.distillation import Epoch
    from model.lifecycle.many import CategoryTraining, TrainingResult


def train(
    category: Category,
    data: Data = None,
    normal: Annotated[Path | None, typer.Option(help="Folder of images of normal parts.")] = None,
    pattern: Pattern = ANY_NAME,
    teacher: Annotated[
        str,
        typer.Option(help=f"{IMAGENET}, {COMPACT}, another one in the teachers folder, or a file of VGG16 weights."),
    ] = IMAGENET,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Passes over the images.",
            show_default=f"{Recipe.epochs}, divided by the images of each picture",
        ),
    ] = None,
    image_size: Annotated[
        int, typer.Option(min=SMALLEST_SIDE, max=LARGEST_SIDE, help="Side in pixels.")
    ] = Recipe.image_size,
    batch_size: Annotated[int, typer.Option(min=1)] = Recipe.batch_size,
    learning_rate: Annotated[float, typer.Option()] = Recipe.learning_rate,
    schedule: Annotated[
        Schedule,
        typer.Option(help="one-cycle: the learning rate rises in the first tenth of the steps and falls to nothing."),
    ] = Recipe.schedule,
    direction_weight: Annotated[float, typer.Option(min=0, help="Lambda of the loss.")] = Recipe.direction_weight,
    omega: Annotated[
        bool, typer.Option("--omega/--no-omega", help="Weight the distillation layers by their own attention.")
    ] = Recipe.weigh_distillation_layers,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED)] = Recipe.seed,
    white_level: WhiteLevel = None,
    black_level: BlackLevel = None,
    channels: Channels = Recipe.colour,
    bayer: BayerOrder = None,
    normalise_light: NormaliseLight = Recipe.light,
    score: Annotated[
        Score,
        typer.Option(
            help="weighted: the largest distances, weighted by the strength of the teacher's features; local: the same "
            "without weights; global: the score of the paper."
        ),
    ] = DEFAULT_SCORE,
    quantile: Quantile = None,
    max_false_alarms: MaxFalseAlarms = None,
    with_confidence: WithConfidence = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a training that was stopped.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the category if it exists.")] = False,
    candidate: AsCandidate = False,
    without_anomalous: WithoutAnomalous = False,
    region: RegionFile = None,
    each_zone: EachZone = False,
    tiles: Grid = None,
    smallest_fault: SmallestFault = None,
    overlap: Overlap = OVERLAP,
    fit: Annotated[
        Fit,
        typer.Option(
            help="How a picture, or each tile, becomes a square: stretched, with a border, or cropped to the middle."
        ),
    ] = Fit.STRETCH,
    align: Alignment = Align.NONE,
    reference: ReferenceFile = None,
    skip_unreadable: SkipUnreadable = False,
    feature_memory: FeatureMemory = FEATURE_MEMORY_BYTES / GIB,
    spill_folder: SpillFolder = None,
    weights: Weights = None,
    teachers: Teachers = None,
    device: Device = None,
) -> None:
    """Train a pair on at least 8 images of normal parts; a fifth of them is held out to set the first threshold.

    In tiles, 4 are enough.
    """
    from model.lifecycle.distillation import TrainingInterrupted
    from model.lifecycle.preparation import reference_alignment
    from model.lifecycle.regions import prepared, read_region
    from model.lifecycle.train import check_trainable, train_category
    from model.store.store import Store
    from model.store.teachers import resolve_teacher
    from service.cli.progress import EpochBar
    from service.cli.samples import report, report_promise, training_samples, warn_of_few_steps

    recipe = Recipe(
        image_size=image_size,
        epochs=epochs or Recipe.epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        schedule=schedule,
        direction_weight=direction_weight,
        weigh_distillation_layers=omega,
        seed=seed,
        colour=channels,
        white_level=level_of("--white-level", white_level),
        black_level=level_of("--black-level", black_level),
        bayer=bayer,
        light=normalise_light,
        align=align,
    )
    settings = read_settings(weights=weights, teachers=teachers, device=device)
    rule = rule_of(quantile, max_false_alarms, with_confidence)
    grid = grid_of(tiles, smallest_fault)
    drawn = None if region is None else read_region(region)
    if candidate and replace:
        raise UsageError("--candidate replaces nothing that serves: leave out --replace")
    if reference is not None and align is Align.NONE:
        raise UsageError("--reference goes with --align")
    if region is not None and align is not Align.NONE and reference is None:
        raise UsageError("with --align, a --region is drawn on the reference picture: name that with --reference")
    used_device = torch_device(settings.device)
    samples = training_samples(data, normal, pattern)
    report(samples.remarks)
    # Before the teacher, which may have to be downloaded.
    check_trainable(
        settings.weights,
        category,
        resume=resume,
        replace=replace,
        without_anomalous=without_anomalous,
        candidate=candidate,
        rule=rule,
    )
    alignment = None if reference is None else reference_alignment(reference, recipe, samples)
    preprocessing = prepared(
        samples,
        image_size,
        fit=fit,
        region=drawn,
        grid=grid,
        smallest_fault=smallest_fault,
        overlap=overlap,
        alignment=alignment,
    )
    views = len(preprocessing.zones)
    if views > 1:
        if epochs is None:
            recipe = recipe.for_views(views)
        typer.echo(f"each picture is {views} images for the networks; {recipe.epochs} epochs", err=True)
    name, network = resolve_teacher(settings.teachers_folder, teacher)
    try:
        with closing(EpochBar(category, recipe.epochs)) as bar:
            card, _ = train_category(
                category,
                samples,
                settings.weights,
                name,
                network,
                recipe,
                preprocessing=preprocessing,
                zone_thresholds={} if drawn is None else drawn.thresholds,
                each_zone=each_zone,
                score=score,
                device=used_device,
                skip_unreadable=skip_unreadable,
                resume=resume,
                replace=replace,
                without_anomalous=without_anomalous,
                candidate=candidate,
                rule=rule,
                memory_bytes=round(feature_memory * GIB),
                spill_folder=spill_folder,
                on_start=_report_start,
                on_epoch=bar.show,
            )
    except TrainingInterrupted as stop:
        typer.echo(f"{stop}; run the same command with --resume to continue", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    store = Store(settings.weights)
    place = (store.candidates if candidate else store).folder(category)
    typer.echo(f"{place}: version {card.model_version}, loss {card.training.final_loss:.4g}")
    if card.preprocessing.levels is not None:
        typer.echo(f"white level {card.preprocessing.levels.white}, black level {card.preprocessing.levels.black}")
    if card.preprocessing.reference_brightness is not None:
        typer.echo(f"brightness {card.preprocessing.reference_brightness:g}, to which each image will be brought")
    warn_of_few_steps(card)
    pasted = " and defects pasted on them" if card.calibration.method == "synthetic" else ""
    typer.echo(
        f"threshold {card.calibration.threshold:.4g}: from {card.calibration.normal_images} held-out images{pasted}; "
        f"to improve it, run `eca-inspect calibrate{' --candidate' if candidate else ''}` with images of real defects"
    )
    report_promise(card)


def retrain(
    category: Category,
    normal: Annotated[
        list[Path],
        typer.Option(help="Folder of images of normal parts; may be given several times.", show_default=False),
    ],
    new: Annotated[
        bool, typer.Option("--new", help="The category does not exist yet; the candidate is its first version.")
    ] = False,
    teacher: Annotated[
        str | None, typer.Option(help="As of `train`.", show_default="as before; of a new category imagenet")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Passes over the images.", show_default=f"as before; of a new category {Recipe.epochs}"
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            min=SMALLEST_SIDE,
            max=LARGEST_SIDE,
            help="Side in pixels.",
            show_default=f"as before; of a new category {Recipe.image_size}",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=LARGEST_SEED, show_default=f"as before; of a new category {Recipe.seed}"),
    ] = None,
    skip_unreadable: SkipUnreadable = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Progress as a JSON object per line. The command ends with its standard input."),
    ] = False,
    weights: Weights = None,
    teachers: Teachers = None,
    device: Device = None,
) -> None:
    """Train a category again on these images, as it was trained before, and make the new pair its candidate."""
    from model.lifecycle.again import Changes, recipe_of, train_again, train_first
    from model.lifecycle.datasets import Listing, normal_samples
    from model.store.store import Store
    from service.cli.progress import EpochBar
    from service.cli.samples import report, report_promise, warn_of_few_steps

    if as_json:
        threading.Thread(target=_end_with_input, daemon=True).start()
    settings = read_settings(weights=weights, teachers=teachers, device=device)
    used_device = torch_device(settings.device)
    store = Store(settings.weights, settings.teachers_folder)
    changes = Changes(teacher, epochs, image_size, seed)
    passes = changes.of(Recipe() if new else recipe_of(store.card(category))).epochs
    listing = sum((normal_samples(folder) for folder in normal), Listing())
    report(listing.remarks)

    def say(epoch: "Epoch") -> None:
        typer.echo(json.dumps({"epoch": epoch.number, "epochs": passes, "loss": epoch.loss}))

    work = train_first if new else train_again
    with closing(EpochBar(category, passes)) as bar:
        card = work(
            category,
            listing,
            settings.weights,
            settings.teachers_folder,
            changes,
            device=used_device,
            skip_unreadable=skip_unreadable,
            on_start=_report_start,
            on_epoch=say if as_json else bar.show,
        )
    warn_of_few_steps(card)
    if as_json:
        typer.echo(json.dumps({"model_version": card.model_version}))
        return
    typer.echo(f"{store.candidates.folder(category)}: version {card.model_version}")
    report_promise(card)


def _end_with_input() -> None:
    """Ends the process when the one that started it is gone."""
    while os.read(0, 1 << 16):  # not by sys.stdin, whose lock the end of the interpreter asks for
        pass
    os._exit(EXIT_INTERRUPTED)


def _report_start(images: "LoadedImages", held_out: int) -> None:
    from service.cli.samples import report

    report(images.remarks)
    typer.echo(f"{len(images.digests) - held_out} images to train on, {held_out} held out", err=True)


def train_many(
    root: Annotated[Path, typer.Argument(help="Folder of categories in the MVTec AD layout.")],
    teacher: Annotated[
        str,
        typer.Option(help=f"{IMAGENET}, {COMPACT}, another one in the teachers folder, or a file of VGG16 weights."),
    ] = IMAGENET,
    epochs: Annotated[int, typer.Option(min=1)] = Recipe.epochs,
    image_size: Annotated[
        int, typer.Option(min=SMALLEST_SIDE, max=LARGEST_SIDE, help="Side in pixels.")
    ] = Recipe.image_size,
    batch_size: Annotated[int, typer.Option(min=1)] = Recipe.batch_size,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED)] = Recipe.seed,
    white_level: WhiteLevel = None,
    black_level: BlackLevel = None,
    channels: Channels = Recipe.colour,
    bayer: BayerOrder = None,
    normalise_light: NormaliseLight = Recipe.light,
    align: Alignment = Align.NONE,
    max_false_alarms: MaxFalseAlarms = None,
    with_confidence: WithConfidence = False,
    retries: Annotated[int, typer.Option(min=0, help="Retries per category after a temporary failure.")] = 1,
    on_ray: Annotated[
        bool,
        typer.Option("--ray", help="Train in parallel, on the cluster INSPECT_RAY_ADDRESS or here. Needs an extra."),
    ] = False,
    cpus: Annotated[float, typer.Option(min=0, help="With --ray: cores per category.")] = 1,
    gpus: Annotated[float, typer.Option(min=0, help="With --ray: GPUs per category.")] = 0,
    weights: Weights = None,
    teachers: Teachers = None,
    device: Device = None,
) -> None:
    """Train and calibrate every category in a folder. If it was stopped, the same command continues."""
    from model.lifecycle import many
    from model.lifecycle.distillation import TrainingInterrupted
    from model.store.teachers import fingerprint, resolve_teacher
    from service.cli.samples import report

    settings = read_settings(weights=weights, teachers=teachers, device=device)
    used_device = settings.device if on_ray else str(torch_device(settings.device))
    folders, remarks = many.categories_of(root.absolute())
    report(remarks)
    name, network = resolve_teacher(settings.teachers_folder, teacher)
    recipe = Recipe(
        image_size=image_size,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        colour=channels,
        white_level=level_of("--white-level", white_level),
        black_level=level_of("--black-level", black_level),
        bayer=bayer,
        light=normalise_light,
        align=align,
    )
    rule = rule_of(None, max_false_alarms, with_confidence)
    trainings = [
        many.CategoryTraining(
            folder.name,
            folder,
            settings.weights.absolute(),
            settings.teachers_folder.absolute(),
            (name, fingerprint(network)),
            recipe,
            used_device,
            retries,
            rule,
        )
        for folder in folders
    ]
    results = []
    try:
        for one in (
            _train_on_ray(trainings, settings.ray_address, cpus, gpus) if on_ray else many.train_in_turn(trainings)
        ):
            results.append(one)
            typer.echo(f"{one.category}: {one.reason or one.outcome} ({len(results)} of {len(trainings)})", err=True)
            report(one.remarks)
            if one.warning:
                typer.echo(f"warning: {one.category} {one.warning}", err=True)
    except (TrainingInterrupted, KeyboardInterrupt):
        typer.echo("stopped; run the same command to continue", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    typer.echo(many.table(results))
    if any(one.outcome == "failed" for one in results):
        raise typer.Exit(1)


def _train_on_ray(
    trainings: list["CategoryTraining"], address: str | None, cpus: float, gpus: float
) -> Iterator["TrainingResult"]:
    with ray_or_the_extra():
        from service.on_ray.training import train_on_ray
    return train_on_ray(trainings, address, cpus, gpus)
