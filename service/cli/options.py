"""The options that several commands share, and what becomes of them: settings, and the device."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.errors import UsageError

if TYPE_CHECKING:
    import torch

    from service.settings import Settings

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
KeyFile = Annotated[Path | None, typer.Option("--file", help="File of keys; INSPECT_KEYS_FILE.")]
KeyName = Annotated[str, typer.Argument(help="Name of the key, for people.")]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def read_settings(**given: Any) -> "Settings":
    """The settings of the environment, with those given in place of them; None is not given."""
    from pydantic import ValidationError

    from service.settings import Settings

    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        messages = []
        for item in error.errors():
            name = "INSPECT_" + "_".join(map(str, item["loc"])).upper() if item["loc"] else "settings"
            messages.append(f"{name}: {item['msg']}")
        raise UsageError("; ".join(messages)) from None


def torch_device(name: str) -> "torch.device":
    """The device of this name; `UsageError` where it cannot be used."""
    from service.app import choose_device

    try:
        return choose_device(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
