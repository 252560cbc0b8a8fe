"""``history backup``."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.errors import UsageError
from service.cli.options import Weights
from service.settings import read_settings


def backup(
    folder: Annotated[Path, typer.Argument(help="New folder for the copy.", show_default=False)],
    weights: Weights = None,
) -> None:
    """Copy the history of INSPECT_STATE, with its images, while the server runs. Of PostgreSQL use pg_dump after it."""
    from sqlalchemy import make_url

    from service.history.backup import back_up

    settings = read_settings(weights=weights)
    if settings.database_url is None:
        raise UsageError("INSPECT_DATABASE=none: there is no history to copy")
    url = make_url(settings.database_url)
    is_sqlite = url.get_backend_name() == "sqlite"
    done = back_up(settings.state_folder, Path(url.database or "") if is_sqlite else None, folder)
    typer.echo(f"{folder}: {', '.join(done.files)} and {done.images} images, {done.bytes} bytes")
    if not is_sqlite:
        typer.echo("the database is not in it; copy it now with pg_dump", err=True)
