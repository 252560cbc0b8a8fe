"""``key create``, ``key list`` and ``key revoke``."""

from pathlib import Path
from typing import Annotated

import typer

from service.choices import Role
from service.cli.errors import UsageError
from service.cli.options import KeyFile, KeyName
from service.settings import read_settings


def create(
    name: KeyName,
    role: Annotated[
        Role,
        typer.Option(help="inspect: request inspections; review: also label them; admin: also change what is served."),
    ],
    file: KeyFile = None,
) -> None:
    """Create a key, print it once, and add its hash to the file; a running server accepts it at once."""
    from service.http.keys import create_key

    typer.echo(create_key(_file_of(file), name, role))


def list_(file: KeyFile = None) -> None:
    """Print name and role of every key."""
    from service.http.keys import read_keys

    for key in read_keys(_file_of(file)):
        typer.echo(f"{key.name}  {key.role}")


def revoke(name: KeyName, file: KeyFile = None) -> None:
    """Remove a key from the file; a running server refuses it at once."""
    from service.http.keys import revoke_key

    revoke_key(_file_of(file), name)


def _file_of(given: Path | None) -> Path:
    path = given or read_settings().keys_file
    if path is None:
        raise UsageError("give --file, or set INSPECT_KEYS_FILE")
    return path
