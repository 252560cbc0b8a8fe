"""Lists the images that the options select."""

from collections.abc import Sequence
from pathlib import Path

import typer

from model.choices import ANY_NAME, FalseAlarmTarget
from model.error_rates import parts_needed
from model.lifecycle import datasets
from model.lifecycle.datasets import Listing, Sample
from model.lifecycle.recipe import ENOUGH_STEPS
from model.lifecycle.remarks import Remarks
from model.measures import rate_estimate
from model.store.card import Card
from service.cli.errors import UsageError

FEW_IMAGES = 10
"""With fewer images of one kind, a result without errors still allows an error rate of about one third."""


def training_samples(data: Path | None, normal: Path | None, pattern: str) -> Listing:
    match data, normal:
        case Path(), None:
            _refuse_pattern(pattern)
            return datasets.mvtec_training(data)
        case None, Path():
            return datasets.normal_samples(normal, pattern)
    raise UsageError("give either --data or --normal")


def judged_samples(
    data: Path | None,
    normal: Path | None,
    anomalous: Path | None,
    masks: Path | None,
    pattern: str,
    *,
    with_masks: bool = True,
) -> Listing:
    match data, normal:
        case Path(), None if anomalous is None and masks is None:
            _refuse_pattern(pattern)
            return datasets.mvtec_test(data, with_masks=with_masks)
        case None, Path():
            bad = datasets.anomalous_samples(anomalous, masks, pattern) if anomalous is not None else Listing()
            return datasets.normal_samples(normal, pattern) + bad
    raise UsageError("give either --data alone, or --normal (and --anomalous)")


def all_images(paths: Sequence[Path]) -> list[Path]:
    """The files themselves, and in the place of each folder the images in it; says what was left out."""
    images: list[Path] = []
    for path in paths:
        if path.is_dir():
            found, remarks = datasets.list_images(path)
            report(remarks)
            images += found
        else:
            images.append(path)
    return images


def by_label(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    return [one for one in samples if one.defect is None], [one for one in samples if one.defect is not None]


def _refuse_pattern(pattern: str) -> None:
    if pattern != ANY_NAME:
        raise UsageError("--pattern is for plain folders and cannot be combined with --data")


def report(remarks: Remarks) -> None:
    for line in remarks.lines():
        typer.echo(line, err=True)


def warn_of_few(normal: int, anomalous: int) -> None:
    """Warns if there are too few images of one kind to rely on, but not if there are none."""
    for count, kind, outcome, rate in (
        (normal, "normal", "rejected", "false-alarm rate"),
        (anomalous, "anomalous", "missed", "miss rate"),
    ):
        if 0 < count < FEW_IMAGES:
            images = f"{count} {kind} images are" if count > 1 else f"1 {kind} image is"
            typer.echo(
                f"warning: {images} too few to rely on: even if none of them is {outcome}, the {rate} may still be "
                f"{rate_estimate(0, count).high:.0%}",
                err=True,
            )


def warn_of_few_steps(card: Card) -> None:
    """Warns if the student had too few steps to learn from."""
    if card.training.steps < ENOUGH_STEPS:
        typer.echo(
            f"warning: {card.training.steps} training steps are too few, use at least {ENOUGH_STEPS}: the scores may "
            "not tell faulty parts from good ones; train for more epochs",
            err=True,
        )


def report_promise(card: Card) -> None:
    """Says how often the threshold will be wrong on new parts, and what it would take to be surer."""
    found = card.calibration
    if found.max_false_alarms is not None:
        surely = parts_needed(FalseAlarmTarget(found.max_false_alarms, with_confidence=True))
        enough = "" if found.with_confidence else f"; with 95 % confidence that takes {surely} good parts or more"
        kept = "with 95 % confidence" if found.with_confidence else "on average"
        typer.echo(f"asked for: at most {100 * found.max_false_alarms:g} % false alarms {kept}{enough}")
    typer.echo(card.promise)
    if found.review is not None:
        typer.echo(f"a person looks at scores from {found.review.low:.6g} to below {found.review.high:.6g}")
    if found.method != "manual":
        return
    scores = found.histogram.edges
    if found.rejects(scores[0]):
        typer.echo("warning: every image of the calibration is at or above this threshold", err=True)
    elif not found.rejects(scores[-1]):
        typer.echo(
            f"note: the threshold is above every score of the calibration, the highest is {scores[-1]:.6g}", err=True
        )
