"""``evaluate``, ``inspect`` and ``features``."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model.choices import ANY_NAME, MapForm, SeenPolicy
from model.text import json_text, readable
from service.choices import Localize
from service.cli.errors import UsageError
from service.cli.options import (
    Category,
    Data,
    Device,
    JsonOutput,
    Pattern,
    SkipUnreadable,
    Teachers,
    Weights,
    torch_device,
)
from service.settings import read_settings

if TYPE_CHECKING:
    from model.lifecycle.evaluate import Evaluation
    from service.schemas import Inspection


def evaluate(
    category: Category,
    data: Data = None,
    normal: Annotated[Path | None, typer.Option(help="Folder of images of normal parts.")] = None,
    anomalous: Annotated[Path | None, typer.Option(help="Folder of images of defective parts.")] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Folder of masks of the anomalous images: NAME_mask.png, NAME.png and the like.")
    ] = None,
    pattern: Pattern = ANY_NAME,
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
    """Judge a category on images it has not seen; measures with 95 % intervals."""
    from model.lifecycle.evaluate import judge_category, measure_judged
    from service.cli.samples import by_label, judged_samples, warn_of_few
    from service.cli.samples import report as report_remarks

    settings = read_settings(weights=weights, teachers=teachers, device=device)
    listing = judged_samples(data, normal, anomalous, masks, pattern)
    good, bad = by_label(listing)
    if not good or not bad:
        raise UsageError("evaluation needs normal and anomalous images")
    with ExitStack() as stack:
        if report is not None:
            from model.lifecycle.report import new_folder, write_report  # brings matplotlib

            stack.enter_context(new_folder(report))
        judged = judge_category(
            settings.weights,
            settings.teachers_folder,
            category,
            good,
            bad,
            seen_policy=seen,
            device=torch_device(settings.device),
            precision=settings.dtype,
            skip_unreadable=skip_unreadable,
            remarks=listing.remarks,
        )
        found = measure_judged(judged)
        page = None if report is None else write_report(report, judged, found)
    if page is not None:
        typer.echo(f"report: {page}", err=True)
    report_remarks(found.remarks)
    warn_of_few(found.normal_images, found.anomalous_images)
    typer.echo(json_text(found.as_dict(), indent=2) if json_output else _evaluation_table(found))


def _evaluation_table(found: "Evaluation") -> str:
    lines = [
        f"{found.category} {found.model_version}: {found.normal_images} normal and {found.anomalous_images} anomalous "
        f"images, threshold {found.threshold:.6g} ({found.calibration})"
    ]
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
    else:
        lines.append("  no mask to go by, so pixel AUROC and AUPRO were not measured")
    lines += [
        f"  AUROC of {defect:<15}{one.value:.4f}  95 % [{one.low:.4f}, {one.high:.4f}]"
        for defect, one in found.by_defect.items()
    ]
    return "\n".join(lines)


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
    from model.images import ImageError
    from model.store.store import Store
    from service.catalogue import Ready
    from service.inspection import Limits, Wanted, inspect_offline
    from service.problems import Problem

    failed = False
    answers: list[dict[str, object]] = []
    settings = read_settings(weights=weights, teachers=teachers, device=device)
    device_and_precision = torch_device(settings.device), settings.dtype
    card, detector = Store(settings.weights, settings.teachers_folder).load(category, *device_and_precision)
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
        typer.echo(json_text(answers, indent=2))
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


def _inspection_line(path: Path, found: "Inspection") -> str:
    regions = f"  {len(found.localization.regions)} regions" if found.localization else ""
    return f"{found.decision:<10}{found.score:.6g} (threshold {found.threshold:.6g})  {path}{regions}"


def features(
    category: Category,
    image: Annotated[Path, typer.Argument(help="Image file.", show_default=False)],
    output: Annotated[Path | None, typer.Option(help="New PNG file; else NAME.features.png in this folder.")] = None,
    weights: Weights = None,
    teachers: Teachers = None,
    device: Device = None,
) -> None:
    """Draw what student and teacher make of an image at each distillation layer, and where they differ."""
    from model.images import read_image
    from model.lab import features
    from model.lifecycle import figures
    from model.store.store import Store

    settings = read_settings(weights=weights, teachers=teachers, device=device)
    place = output or Path(f"{image.name}.features.png")
    if place.suffix.lower() != ".png":
        raise UsageError(f"{place} should end in .png")
    if place.exists():
        raise UsageError(f"{place} exists; name another file with --output")
    used_device = torch_device(settings.device)
    card, detector = Store(settings.weights, settings.teachers_folder).load(category, used_device, settings.dtype)
    pixels = card.preprocessor.apply(read_image(image))
    score, threshold = float(detector(pixels[None]).scores[0]), card.calibration.threshold
    title = (
        f"{category} {card.model_version}, {readable(image.name)}: score {score:.3g}, threshold {threshold:.3g}, "
        f"{'anomalous' if card.calibration.rejects(score) else 'normal'}"
    )
    picture = figures.png(figures.features(pixels, features.layers_of(detector, pixels), title))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(picture)
    typer.echo(str(place))
