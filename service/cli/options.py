"""The options that several commands share, and the device that one of them names."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.errors import UsageError

if TYPE_CHECKING:
    import torch


GIB = 1 << 30

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
WithoutAnomalous = Annotated[
    bool, typer.Option("--without-anomalous", help="Replace a threshold that comes from anomalous images.")
]
KeyFile = Annotated[Path | None, typer.Option("--file", help="File of keys; INSPECT_KEYS_FILE.")]
KeyName = Annotated[str, typer.Argument(help="Name of the key, for people.")]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def torch_device(name: str) -> "torch.device":
    """The device of this name; `UsageError` where it cannot be used."""
    from service.app import choose_device

    try:
        return choose_device(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
