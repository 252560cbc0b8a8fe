"""``calibrate``, ``region``, ``rollback``, ``promote`` and ``drop-candidate``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from model.choices import ANY_NAME, Score
from service.cli.errors import UsageError
from service.cli.options import (
    AsCandidate,
    Category,
    Data,
    Device,
    MaxFalseAlarms,
    Pattern,
    Quantile,
    ReviewFalsePasses,
    ReviewFalseRejects,
    ReviewLimits,
    SkipUnreadable,
    Teachers,
    Weights,
    WithConfidence,
    WithoutAnomalous,
    review_of,
    rule_of,
    torch_device,
)
from service.settings import Settings, read_settings

if TYPE_CHECKING:
    from model.lifecycle.datasets import Listing, Sample
    from model.lifecycle.regions import DrawnRegion
    from model.lifecycle.thresholds import Rule

NewNormal = Annotated[
    Path | None, typer.Option(help="Folder of images of normal parts that were not used for training.")
]
Anomalous = Annotated[Path | None, typer.Option(help="Folder of images of defective parts.")]
Share = Annotated[float, typer.Option(min=0, max=1, help="With --data: share of the test images to use.")]
ShareSeed = Annotated[int, typer.Option(min=0, help="Seed for the choice of that share.")]


def calibrate(
    category: Category,
    normal: NewNormal = None,
    anomalous: Anomalous = None,
    pattern: Pattern = ANY_NAME,
    data: Data = None,
    share: Share = 0.5,
    seed: ShareSeed = 0,
    score: Annotated[
        Score | None, typer.Option(help="Change to this score, without training again. Default: the card's score.")
    ] = None,
    quantile: Quantile = None,
    max_false_alarms: MaxFalseAlarms = None,
    with_confidence: WithConfidence = False,
    threshold: Annotated[
        float | None, typer.Option(help="Set the threshold by hand; images are not needed, but give its error rates.")
    ] = None,
    each_zone: Annotated[
        bool | None,
        typer.Option(
            "--each-zone/--no-each-zone",
            help="Judge each zone by its own level, which half of the normal images say, or all alike. Default: as "
            "before.",
        ),
    ] = None,
    without_anomalous: WithoutAnomalous = False,
    candidate: AsCandidate = False,
    skip_unreadable: SkipUnreadable = False,
    review_band: ReviewLimits = None,
    review_false_passes: ReviewFalsePasses = None,
    review_false_rejects: ReviewFalseRejects = None,
    from_history: Annotated[
        bool,
        typer.Option(
            "--from-history", help="From the labelled inspections of INSPECT_DATABASE and not from files of images."
        ),
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(help="With --from-history: only inspections not before this time, such as 2026-05-01T06:00:00Z."),
    ] = None,
    until: Annotated[str | None, typer.Option(help="With --from-history: only inspections before this time.")] = None,
    reason: Annotated[
        str | None,
        typer.Option(help="With --from-history: why, for the log of changes. --threshold needs it there."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --from-history: show the new threshold and change nothing.")
    ] = False,
    weights: Weights = None,
    teachers: Teachers = None,
    device: Device = None,
) -> None:
    """Set the threshold: by --threshold or --max-false-alarms, else Youden's, or from pasted defects without faults.

    With --candidate: of the candidate, or a candidate with the category's own student if there is none.
    """
    from model.lifecycle.datasets import Listing
    from service.cli.samples import judged_samples

    settings = read_settings(weights=weights, teachers=teachers, device=device)
    review = review_of(review_band, review_false_passes, review_false_rejects)
    rule = rule_of(quantile, max_false_alarms, with_confidence, threshold, review)
    of_files = {
        "--normal": normal, "--anomalous": anomalous, "--data": data, "--score": score, "--quantile": quantile,
        "--each-zone": each_zone, "--without-anomalous": without_anomalous or None,
        "--skip-unreadable": skip_unreadable or None,
    }  # fmt: skip
    of_labels = {"--since": since, "--until": until, "--reason": reason, "--dry-run": dry_run or None}
    wrong = [name for name, given in (of_files if from_history else of_labels).items() if given is not None]
    if wrong:
        raise UsageError(f"{', '.join(wrong)} {'cannot go' if from_history else 'goes only'} with --from-history")
    if from_history:
        from service.cli.labels import calibrate_from_history

        calibrate_from_history(settings, category, rule, since, until, reason, dry_run=dry_run)
        return
    if threshold is not None and data is None and normal is None and anomalous is None:
        listing = Listing()
    else:
        listing = judged_samples(data, normal, anomalous, None, pattern, with_masks=False)
    _calibrate(
        settings,
        category,
        _share_of(listing, data, share, seed),
        score,
        None,
        rule,
        without_anomalous,
        skip_unreadable,
        each_zone,
        candidate,
    )


def region(
    category: Category,
    file: Annotated[
        Path | None,
        typer.Argument(
            help="What of the picture counts: a JSON file of polygons, or a picture that is white there. Without it, "
            "all that the category was trained on.",
            show_default=False,
        ),
    ] = None,
    normal: NewNormal = None,
    anomalous: Anomalous = None,
    pattern: Pattern = ANY_NAME,
    data: Data = None,
    share: Share = 0.5,
    seed: ShareSeed = 0,
    quantile: Quantile = None,
    max_false_alarms: MaxFalseAlarms = None,
    with_confidence: WithConfidence = False,
    without_anomalous: WithoutAnomalous = False,
    skip_unreadable: SkipUnreadable = False,
    weights: Weights = None,
    teachers: Teachers = None,
    device: Device = None,
) -> None:
    """Change which places of the picture count, and set the threshold anew for them, without training again."""
    from model.lifecycle.regions import read_region
    from service.cli.samples import judged_samples

    settings = read_settings(weights=weights, teachers=teachers, device=device)
    rule = rule_of(quantile, max_false_alarms, with_confidence)
    drawn: DrawnRegion | Literal["all"] = "all" if file is None else read_region(file)
    listing = judged_samples(data, normal, anomalous, None, pattern, with_masks=False)
    _calibrate(
        settings, category, _share_of(listing, data, share, seed), None, drawn, rule, without_anomalous, skip_unreadable
    )


def _share_of(listing: "Listing", data: Path | None, share: float, seed: int) -> "Sequence[Sample]":
    from model.lifecycle import datasets
    from service.cli.samples import report

    report(listing.remarks)
    return datasets.split(listing, share, seed)[0] if data is not None and share < 1 else listing


def _calibrate(
    settings: Settings,
    category: str,
    samples: "Sequence[Sample]",
    score: Score | None,
    drawn: "DrawnRegion | Literal['all'] | None",
    rule: "Rule",
    without_anomalous: bool,
    skip_unreadable: bool,
    each_zone: bool | None = None,
    candidate: bool = False,
) -> None:
    from model.lifecycle.calibrate import calibrate_category, source_and_target
    from model.store.store import Store
    from service.cli.samples import by_label, report, report_promise, warn_of_few

    good, bad = by_label(samples)
    source, _ = source_and_target(Store(settings.weights), category, candidate=candidate)
    before = source.card(category)
    card, about_images = calibrate_category(
        settings.weights,
        settings.teachers_folder,
        category,
        good,
        bad,
        score=score,
        region=drawn,
        rule=rule,
        each_zone=each_zone,
        without_anomalous=without_anomalous,
        candidate=candidate,
        device=torch_device(settings.device),
        precision=settings.dtype,
        skip_unreadable=skip_unreadable,
    )
    report(about_images)
    new, old = card.calibration, before.calibration
    typer.echo(f"{category}: {card.score.value} score, threshold {new.threshold:.6g}, method {new.method}")
    for zone in card.zone_weights:
        typer.echo(f"zone {zone}: threshold {card.threshold_of(zone):.6g}")
    typer.echo(f"before: {before.score.value} score, threshold {old.threshold:.6g}, method {old.method}")
    typer.echo(f"{new.normal_images} normal and {new.anomalous_images} anomalous images")
    if new.interval is not None:
        low, high = new.interval.low, new.interval.high
        typer.echo(f"Youden index {new.youden_index:.4f}, AUROC {new.auroc:.4f}, 95 % [{low:.4f}, {high:.4f}]")
    report_promise(card)
    warn_of_few(new.normal_images, new.anomalous_images)
    if new.warning:
        typer.echo(
            f"warning: {category} {new.warning}. Do not use its verdicts: calibrate with more images, or train for "
            "more epochs or with another teacher",
            err=True,
        )
    if new.auroc is not None and new.auroc < 0.5:
        typer.echo(
            f"warning: the AUROC is {new.auroc:.3f}: most anomalous images score lower than normal ones, so this "
            "threshold is useless. Did you swap the two folders? If not, train for more epochs or with another teacher",
            err=True,
        )


def rollback(
    category: Category,
    to: Annotated[str | None, typer.Option(help="Name of a kept version. Default: the previous version.")] = None,
    weights: Weights = None,
) -> None:
    """Go back to the previous version, or to a kept version by name. The replaced version is kept; --to restores it."""
    from model.store.store import Store

    store = Store(read_settings(weights=weights).weights)
    card = store.roll_back(category, to)
    calibration = card.calibration
    typer.echo(
        f"{store.folder(category)}: version {card.model_version}, threshold {calibration.threshold:.6g} "
        f"({calibration.method})"
    )
    for one in store.kept(category):
        calibration = one.card.calibration
        note = "; replaced by a rollback" if one.rolled_back else ""
        typer.echo(f"kept: version {one.version}, threshold {calibration.threshold:.6g} ({calibration.method}){note}")


CandidateVersion = Annotated[
    str | None, typer.Option("--version", help="Only if the candidate is this version. Default: whichever is there.")
]


def promote(category: Category, version: CandidateVersion = None, weights: Weights = None) -> None:
    """Put the candidate in the place of the category. The version it replaces is kept; `rollback` restores it."""
    from model.store.store import Store

    store = Store(read_settings(weights=weights).weights)
    card = store.promote(category, version)
    calibration = card.calibration
    typer.echo(
        f"{store.folder(category)}: version {card.model_version}, threshold {calibration.threshold:.6g} "
        f"({calibration.method})"
    )


def drop_candidate(category: Category, version: CandidateVersion = None, weights: Weights = None) -> None:
    """Take the candidate of a category away; what serves stays as it is."""
    from model.store.store import Store

    dropped = Store(read_settings(weights=weights).weights).drop_candidate(category, version)
    typer.echo(f"the candidate of {category} is gone: version {dropped or 'unknown'}")
