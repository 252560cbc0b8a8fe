"""``evaluate``, ``inspect`` and ``features``."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model.choices import ANY_NAME, MapForm, Reason, SeenPolicy
from model.text import json_text, readable
from service.choices import Localize
from service.cli.errors import UsageError
from service.cli.options import (
    Category,
    Data,
    Device,
    JsonOutput,
    Lot,
    Metadata,
    PartId,
    Pattern,
    SkipUnreadable,
    Station,
    Teachers,
    Weights,
    part_info_of,
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
        SeenPolicy, typer.Option(help="What to do with images that were used for training or calibration.")
    ] = SeenPolicy.REFUSE,
    skip_unreadable: SkipUnreadable = False,
    json_output: JsonOutput = False,
    report: Annotated[
        Path | None, typer.Option(help="New folder for a report: an HTML page, its figures, and the numbers as JSON.")
    ] = None,
    weights: Weights = None,
    teachers: Teachers = None,
    device: Device = None,
) -> None:
    """Evaluate a category on images it has not seen; prints measures with 95 % intervals."""
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
        evaluation = measure_judged(judged)
        page = None if report is None else write_report(report, judged, evaluation)
    if page is not None:
        typer.echo(f"report: {page}", err=True)
    report_remarks(evaluation.remarks)
    warn_of_few(evaluation.normal_images, evaluation.anomalous_images)
    typer.echo(json_text(evaluation.as_dict(), indent=2) if json_output else _evaluation_table(evaluation))


def _evaluation_table(evaluation: "Evaluation") -> str:
    lines = [
        f"{evaluation.category} {evaluation.model_version}: {evaluation.normal_images} normal and "
        f"{evaluation.anomalous_images} anomalous images, "
        f"threshold {evaluation.threshold:.6g} ({evaluation.calibration})"
    ]
    for name, estimate in (
        ("AUROC", evaluation.image.auroc),
        ("false-alarm rate (FPR)", evaluation.image.false_alarm_rate),
        ("miss rate (FNR)", evaluation.image.miss_rate),
        ("g-mean", evaluation.image.g_mean),
    ):
        lines.append(f"  {name:<24}{estimate.value:.4f}  95 % [{estimate.low:.4f}, {estimate.high:.4f}]")
    lines += [f"  here: {evaluation.seen_here}", f"  said at calibration: {evaluation.promise}"]
    if any(evaluation.by_check):
        normal, anomalous = evaluation.by_check
        lines.append(f"  rejected by the check of the picture alone: {normal} normal, {anomalous} anomalous")
    if evaluation.pixel_auroc is not None:
        lines.append(
            f"  {'pixel AUROC':<24}{evaluation.pixel_auroc:.4f}  ({evaluation.pixel_images} images with a mask)"
        )
        lines.append(f"  {'AUPRO (FPR <= 0.3)':<24}{evaluation.aupro:.4f}")
    else:
        lines.append("  no masks, so pixel AUROC and AUPRO were not measured")
    lines += [
        f"  AUROC of {defect:<15}{one.value:.4f}  95 % [{one.low:.4f}, {one.high:.4f}]"
        for defect, one in evaluation.by_defect.items()
    ]
    return "\n".join(lines)


def inspect(
    category: Category,
    images: Annotated[
        list[Path], typer.Argument(help="Image files, or folders: all images in them and below.", show_default=False)
    ],
    localize: Annotated[Localize, typer.Option(help="Whether to locate the fault.")] = Localize.AUTO,
    map_form: Annotated[
        MapForm | None, typer.Option("--map", help="Form of the anomaly map. Default: the category's own form.")
    ] = None,
    overlay: Annotated[Path | None, typer.Option(help="Folder to write NAME.overlay.png to.")] = None,
    part_id: PartId = None,
    lot: Lot = None,
    station: Station = None,
    metadata: Metadata = None,
    json_output: JsonOutput = False,
    weights: Weights = None,
    teachers: Teachers = None,
    device: Device = None,
) -> None:
    """Inspect image files exactly as the server does. Ends with status 1 if a file could not be inspected."""
    from model.images import ImageError
    from model.store.store import Store
    from service.catalogue import Ready
    from service.cli.samples import all_images
    from service.inspection import Limits, Wanted, inspect_offline
    from service.problems import Problem

    failed = False
    wanted = Wanted(localize, map_form, part_info_of(part_id, lot, station, metadata))
    images = all_images(images)
    answers: list[dict[str, object]] = []
    settings = read_settings(weights=weights, teachers=teachers, device=device)
    device_and_precision = torch_device(settings.device), settings.dtype
    card, detector = Store(settings.weights, settings.teachers_folder).load(category, *device_and_precision)
    ready = Ready(card, detector.teacher, lambda: detector)
    limits = Limits(settings.max_image_bytes, settings.max_image_pixels)
    places = _overlay_places(overlay, images) if overlay is not None else {}
    for path in images:
        try:
            inspection, picture = inspect_offline(
                ready, path.read_bytes(), wanted, limits, with_overlay=overlay is not None
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
            answers.append({"path": str(path), **inspection.model_dump(mode="json")})
        else:
            typer.echo(_inspection_line(path, inspection))
    if json_output:
        typer.echo(json_text(answers, indent=2))
    if failed:
        raise typer.Exit(1)


def _overlay_places(folder: Path, images: list[Path]) -> dict[Path, Path]:
    """The overlay file for each image. Keeps the sub-folders below the images' common folder, so that none collide."""
    shared = Path(os.path.commonpath([path.absolute().parent for path in images]))
    places = {path: folder / path.absolute().parent.relative_to(shared) / f"{path.name}.overlay.png" for path in images}
    given = {path.resolve() for path in images}
    for path, place in places.items():
        if place.resolve() in given:
            raise UsageError(f"the overlay of {path} would overwrite {place}, which is one of the images to inspect")
    folder.mkdir(parents=True, exist_ok=True)
    return places


def _inspection_line(path: Path, inspection: "Inspection") -> str:
    regions = f"  {len(inspection.localization.regions)} regions" if inspection.localization else ""
    rejected = [zone.name for zone in inspection.zones or () if zone.decision == "anomalous"]
    zones = f"  zones: {', '.join(rejected)}" if rejected else ""
    wrong = [reason for reason in inspection.reasons if reason is not Reason.SCORE]
    picture = f"  picture: {', '.join(wrong)}" if wrong else ""
    numbers = f"{inspection.score:.6g} (threshold {inspection.threshold:.6g})"
    return f"{inspection.decision:<10}{numbers}  {path}{picture}{zones}{regions}"


def model_card(
    category: Category,
    output: Annotated[Path | None, typer.Option(help="New HTML file. Default: CATEGORY.model-card.html here.")] = None,
    weights: Weights = None,
) -> None:
    """Write the model card of a category: data, training, threshold, error rates and limits, as a page to print."""
    from model.lifecycle.model_card import model_card
    from model.store.store import Store

    place = output or Path(f"{category}.model-card.html")
    if place.exists():
        raise UsageError(f"{place} exists; choose another file with --output")
    store = Store(read_settings(weights=weights).weights)
    page = model_card(store.card(category), store.seen(category))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(page, encoding="utf-8")
    typer.echo(str(place))


def features(
    category: Category,
    image: Annotated[Path, typer.Argument(help="Image file.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option(help="New PNG file. Default: NAME.features.png in this folder.")
    ] = None,
    weights: Weights = None,
    teachers: Teachers = None,
    device: Device = None,
) -> None:
    """Draw the features of student and teacher for one image at each distillation layer, and where they differ."""
    from model.detector import scores_of
    from model.images import read_photograph
    from model.lab import features
    from model.lifecycle import figures
    from model.quality import look_of
    from model.store.store import Store

    settings = read_settings(weights=weights, teachers=teachers, device=device)
    place = output or Path(f"{image.name}.features.png")
    if place.suffix.lower() != ".png":
        raise UsageError(f"{place} must end in .png")
    if place.exists():
        raise UsageError(f"{place} exists; choose another file with --output")
    used_device = torch_device(settings.device)
    card, detector = Store(settings.weights, settings.teachers_folder).load(category, used_device, settings.dtype)
    preprocessor = card.preprocessor
    photograph = read_photograph(image, preprocessor.reading, preprocessor.scale)
    (views, pose), layout = preprocessor.prepare(photograph), preprocessor.layout(photograph.width, photograph.height)
    scores = scores_of(detector, views, layout.masks)
    score, threshold = float(card.part_scores(scores)[0]), card.calibration.threshold
    reasons = card.reasons(score, look_of(views, photograph.width / photograph.height, layout.masks), pose)
    view = int((scores * card.sensitivities).argmax())
    pixels, mask = views[view], None if layout.masks is None else layout.masks[view]
    which = "" if len(views) == 1 else f" (view {view + 1} of {len(views)}, where the score is largest)"
    title = (
        f"{category} {card.model_version}, {readable(image.name)}{which}: score {score:.3g}, "
        f"threshold {threshold:.3g}, {'anomalous' if reasons else 'normal'}"
    )
    picture = figures.png(figures.features(pixels, features.layers_of(detector, pixels, mask), title))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(picture)
    typer.echo(str(place))
