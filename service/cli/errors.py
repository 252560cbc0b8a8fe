"""The one place that turns an expected error into one line and status 1."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from model.errors import ExpectedError, MissingExtraError
from model.text import make_readable

EXIT_INTERRUPTED = 130


class UsageError(ExpectedError):
    """Options that do not go together."""


class CommandLine(TyperGroup):
    """All commands. An expected error of any of them is printed as one line, and the status is 1."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Reads the arguments and runs the command that they name; prints any file name whatever the encoding."""
        make_readable(sys.stdout, sys.stderr)
        return super().main(*args, **options)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Runs the command that was named."""
        try:
            return super().invoke(ctx)
        except ExpectedError as error:
            message = str(error)
            if type(error).__module__.startswith("model."):  # already imported then, with all that it brings
                from service.hints import with_hint

                message = with_hint(error)
        except KeyboardInterrupt:
            typer.echo("stopped; nothing was written", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except OSError as error:
            if error.errno == errno.EPIPE:  # who reads the output has closed it; that is not a failure to explain
                raise
            message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        typer.echo(f"error: {message}", err=True)
        raise typer.Exit(1)


@contextmanager
def ray_or_the_extra() -> Iterator[None]:
    """Says which extra has Ray, where it is imported and not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise MissingExtraError("--ray needs the extra: pip install 'eca-inspect[ray]'") from None
