"""Which images the options name."""

from pathlib import Path

import typer

from model.choices import ANY_NAME
from model.lifecycle import datasets
from model.lifecycle.datasets import Sample
from service.cli.errors import UsageError


def training_samples(data: Path | None, normal: Path | None, pattern: str) -> list[Sample]:
    match data, normal:
        case Path(), None:
            _refuse_pattern(pattern)
            return datasets.mvtec_training(data)
        case None, Path():
            return datasets.normal_samples(normal, pattern)
    raise UsageError("say either --data or --normal")


def judged_samples(
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


def by_label(samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    return [one for one in samples if one.defect is None], [one for one in samples if one.defect is not None]


def _refuse_pattern(pattern: str) -> None:
    if pattern != ANY_NAME:
        raise UsageError("--pattern is for plain folders, it does not go with --data")


def report_unreadable(messages: list[str]) -> None:
    for message in messages:
        typer.echo(f"left out: {message}", err=True)
