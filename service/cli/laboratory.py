"""``synthesize`` and ``reproduce``."""

from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from model.choices import COMPACT, IMAGENET
from model.lab.choices import DATASETS, DEFAULT, DEFAULT_KIND, KINDS, METHODS, VARIANTS
from model.lifecycle.recipe import FEATURE_MEMORY_BYTES, Recipe
from model.text import encodable
from service.cli.errors import EXIT_INTERRUPTED, UsageError
from service.cli.options import (
    GIB,
    Device,
    FeatureMemory,
    SpillFolder,
    Teachers,
    Weights,
    torch_device,
)
from service.settings import read_settings


def synthesize(
    root: Annotated[Path, typer.Argument(help="New folder, in the MVTec AD layout.")],
    train_images: Annotated[int, typer.Option("--train", min=1)] = 200,
    test_good: Annotated[int, typer.Option(min=1)] = 100,
    test_each: Annotated[int, typer.Option(min=1, help="Images of each kind of defect.")] = 25,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    kind: Annotated[
        str, typer.Option(help=f"{', '.join(KINDS)}: ground steel plates, or bolts in any pose on a background.")
    ] = DEFAULT_KIND,
) -> None:
    """Generate images of the built-in category or of another kind of part, with defects and their masks."""
    from model.lab.synthetic import write_dataset

    if kind not in KINDS:
        raise UsageError(f"--kind {kind!r} is not one of {', '.join(KINDS)}")
    write_dataset(root, train=train_images, test_good=test_good, test_each=test_each, seed=seed, kind=kind)
    typer.echo(str(root))


def reproduce(
    output: Annotated[Path, typer.Option(help="Folder of results. Runs whose results are there are not repeated.")],
    dataset: Annotated[
        str | None, typer.Option(help=f"{', '.join(DATASETS)}. Without it, only the tables are written.")
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Folder of the data set: torchvision's files, folders of classes, or of categories."),
    ] = None,
    variant: Annotated[
        str, typer.Option(help=f"{', '.join(VARIANTS)}; several separated by commas, or all.")
    ] = DEFAULT,
    classes: Annotated[str | None, typer.Option(help="The normal classes, separated by commas. Default: all.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds: 0, 1, 2 ...")] = 1,
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: as in the paper for this data set.")] = None,
    train_images: Annotated[
        int | None, typer.Option(min=1, help="Most training images per class. Default: all, as in the paper.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = Recipe.batch_size,
    teacher: Annotated[
        str,
        typer.Option(help=f"{IMAGENET}, {COMPACT}, another one in the teachers folder, or a file of VGG16 weights."),
    ] = IMAGENET,
    compare: Annotated[
        str | None,
        typer.Option(help=f"Also run these methods of anomalib: {', '.join(METHODS)}, or all. Needs an extra."),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Let torchvision download the data set to --root.")
    ] = False,
    tables_file: Annotated[
        Path | None, typer.Option("--tables", help="File for the tables. Default: tables.md in --output.")
    ] = None,
    feature_memory: FeatureMemory = FEATURE_MEMORY_BYTES / GIB,
    spill_folder: SpillFolder = None,
    weights: Weights = None,
    teachers: Teachers = None,
    device: Device = None,
) -> None:
    """Run the experiments of the paper, and write its tables together with our results."""
    from model.lab.reproduction import comparison, runs, tables
    from model.lab.reproduction.sets import SETS
    from model.lab.variants import VARIANTS as VARIANT_OF
    from model.lifecycle.distillation import TrainingInterrupted
    from model.store.teachers import resolve_teacher
    from service.cli.progress import RunBar

    if dataset is not None:
        benchmark = SETS[_known("data set", dataset, DATASETS)]
        variants = {name: VARIANT_OF[name] for name in _several("variant", variant, VARIANTS)}
        methods = _several("method of anomalib", compare, METHODS) if compare else []
        if methods:
            comparison.require_anomalib()
        if root is None:
            raise UsageError("give the folder of the data set with --root")
        settings = read_settings(weights=weights, teachers=teachers, device=device)
        used_device = torch_device(settings.device)
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
            with closing(RunBar(series.epochs)) as bar:
                runs.reproduce(series, normal, variants, range(seeds), on_epoch=bar.show, on_run=bar.report)
                if methods:
                    side = comparison.IMAGE_SIZE if benchmark.read is None else None
                    prepared = benchmark.open(root, image_size=side)
                    comparison.compare(series, prepared, normal, methods, range(seeds), on_run=bar.report)
        except (TrainingInterrupted, KeyboardInterrupt):
            typer.echo("stopped; run the same command to continue", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
    results = runs.read_results(output)
    if not results:
        raise UsageError(f"{output} contains no results; give --dataset and --root")
    page = tables_file or output / "tables.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(encodable(tables.write_tables(results)), encoding="utf-8")
    typer.echo(str(page))


def _known(kind: str, name: str, names: Collection[str]) -> str:
    if name not in names:
        raise UsageError(f"there is no {kind} {name!r}; there are {', '.join(names)}")
    return name


def _several(kind: str, given: str, names: Collection[str]) -> list[str]:
    """The names in a comma-separated list, each checked; ``all`` means all of them."""
    chosen = names if given == "all" else dict.fromkeys(part.strip() for part in given.split(","))
    return [_known(kind, name, names) for name in chosen]
