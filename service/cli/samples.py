"""Which images the options name."""

from collections.abc import Sequence
from pathlib import Path

import typer

from model.choices import ANY_NAME
from model.lifecycle import datasets
from model.lifecycle.datasets import Listing, Sample
from model.lifecycle.remarks import Remarks
from service.cli.errors import UsageError


def training_samples(data: Path | None, normal: Path | None, pattern: str) -> Listing:
    match data, normal:
        case Path(), None:
            _refuse_pattern(pattern)
            return datasets.mvtec_training(data)
        case None, Path():
            return datasets.normal_samples(normal, pattern)
    raise UsageError("say either --data or --normal")


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
    raise UsageError("say either --data alone, or --normal (and --anomalous)")


def by_label(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    return [one for one in samples if one.defect is None], [one for one in samples if one.defect is not None]


def _refuse_pattern(pattern: str) -> None:
    if pattern != ANY_NAME:
        raise UsageError("--pattern is for plain folders, it does not go with --data")


def report(remarks: Remarks) -> None:
    for line in remarks.lines():
        typer.echo(line, err=True)
