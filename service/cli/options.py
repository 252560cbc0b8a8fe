"""The options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.errors import UsageError

if TYPE_CHECKING:
    import torch


GIB = 1 << 30

Category = Annotated[str, typer.Argument(help="Name of the category.")]
Weights = Annotated[Path | None, typer.Option(help="Folder of categories. Default: INSPECT_WEIGHTS, or weights.")]
Teachers = Annotated[
    Path | None,
    typer.Option(help="Folder of teachers. Default: INSPECT_TEACHERS, or teachers in the folder of categories."),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1 ... Default: INSPECT_DEVICE, or auto, which prefers a GPU.")
]
Data = Annotated[Path | None, typer.Option(help="Folder of the category's images in the MVTec AD layout.")]
Quantile = Annotated[
    float, typer.Option(help="For a threshold without anomalous images: one minus the desired false-alarm rate.")
]
Pattern = Annotated[
    str,
    typer.Option(help="In plain folders: only files that match are images; '*.jpg' if masks are in the same folder."),
]
FeatureMemory = Annotated[
    float, typer.Option(min=0, help="GiB of memory for teacher features. What does not fit is written to a file.")
]
SpillFolder = Annotated[Path | None, typer.Option(help="Folder of that file. Default: the system's temporary folder.")]
SkipUnreadable = Annotated[bool, typer.Option("--skip-unreadable", help="Leave out files that cannot be read.")]
WithoutAnomalous = Annotated[
    bool, typer.Option("--without-anomalous", help="Allow replacing a threshold that was set with anomalous images.")
]
KeyFile = Annotated[Path | None, typer.Option("--file", help="File of keys. Default: INSPECT_KEYS_FILE.")]
KeyName = Annotated[str, typer.Argument(help="Name of the key, for people.")]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def torch_device(name: str) -> "torch.device":
    """The device with this name. Raises `UsageError` if it cannot be used."""
    from service.app import choose_device

    try:
        return choose_device(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
