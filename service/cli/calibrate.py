"""``calibrate`` and ``rollback``."""

from pathlib import Path
from typing import Annotated

import typer

from model.choices import ANY_NAME, NORMAL_QUANTILE, Score
from service.cli.options import (
    Category,
    Data,
    Device,
    Pattern,
    Quantile,
    SkipUnreadable,
    Teachers,
    Weights,
    WithoutAnomalous,
    torch_device,
)
from service.settings import read_settings


def calibrate(
    category: Category,
    normal: Annotated[Path | None, typer.Option(help="Folder of images of normal parts, not trained on.")] = None,
    anomalous: Annotated[Path | None, typer.Option(help="Folder of images of defective parts.")] = None,
    pattern: Pattern = ANY_NAME,
    data: Data = None,
    share: Annotated[float, typer.Option(min=0, max=1, help="With --data: how much of its test images to use.")] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of that share.")] = 0,
    score: Annotated[
        Score | None, typer.Option(help="Change to this score; the same pair has them all. Else as the card has it.")
    ] = None,
    quantile: Quantile = NORMAL_QUANTILE,
    without_anomalous: WithoutAnomalous = False,
    skip_unreadable: SkipUnreadable = False,
    weights: Weights = None,
    teachers: Teachers = None,
    device: Device = None,
) -> None:
    """Set the threshold: Youden's where there are anomalous images, else from defects pasted on normal ones."""
    from model.lifecycle import datasets
    from model.lifecycle.calibrate import calibrate_category
    from model.store.store import Store
    from service.cli.samples import by_label, judged_samples, report, warn_of_few

    settings = read_settings(weights=weights, teachers=teachers, device=device)
    listing = judged_samples(data, normal, anomalous, None, pattern, with_masks=False)
    report(listing.remarks)
    samples = datasets.split(listing, share, seed)[0] if data is not None and share < 1 else listing
    good, bad = by_label(samples)
    before = Store(settings.weights).card(category)
    card, about_images = calibrate_category(
        settings.weights,
        settings.teachers_folder,
        category,
        good,
        bad,
        score=score,
        quantile=quantile,
        without_anomalous=without_anomalous,
        device=torch_device(settings.device),
        precision=settings.dtype,
        skip_unreadable=skip_unreadable,
    )
    report(about_images)
    found = card.calibration
    typer.echo(f"{category}: {card.score.value} score, threshold {found.threshold:.6g}, method {found.method}")
    was = before.calibration
    typer.echo(f"before: {before.score.value} score, threshold {was.threshold:.6g}, method {was.method}")
    typer.echo(f"{found.normal_images} normal and {found.anomalous_images} anomalous images")
    if found.interval is not None:
        low, high = found.interval.low, found.interval.high
        typer.echo(f"Youden index {found.youden_index:.4f}, AUROC {found.auroc:.4f}, 95 % [{low:.4f}, {high:.4f}]")
    warn_of_few(found.normal_images, found.anomalous_images)
    if found.warning:
        typer.echo(
            f"warning: {category} {found.warning}. Do not decide about parts by it: calibrate with more images, or "
            "train for more epochs or on another teacher",
            err=True,
        )
    if found.auroc is not None and found.auroc < 0.5:
        typer.echo(
            f"warning: the AUROC is {found.auroc:.3f}: most anomalous images score lower than normal ones, so this "
            "threshold is of no use. Are the folders exchanged? If not, train for more epochs, or on another teacher",
            err=True,
        )


def rollback(
    category: Category,
    to: Annotated[str | None, typer.Option(help="Name of a kept version; else the one before the present one.")] = None,
    weights: Weights = None,
) -> None:
    """Go back to the version before, or to a kept one by name. What is left is kept too, and --to brings it back."""
    from model.store.store import Store

    store = Store(read_settings(weights=weights).weights)
    card = store.roll_back(category, to)
    found = card.calibration
    typer.echo(
        f"{store.folder(category)}: version {card.model_version}, threshold {found.threshold:.6g} ({found.method})"
    )
    for one in store.kept(category):
        found = one.card.calibration
        left = "; left by going back" if one.rolled_back else ""
        typer.echo(f"kept: version {one.version}, threshold {found.threshold:.6g} ({found.method}){left}")
