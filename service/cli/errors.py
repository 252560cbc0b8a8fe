"""Turns every expected error into one line on stderr and exit status 1."""

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
    """Options that are wrong or cannot be combined."""


class CommandLine(TyperGroup):
    """All commands. An expected error in any of them is printed as one line, and the exit status is 1."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Parses the arguments and runs the command. Makes sure that any file name can be printed."""
        make_readable(sys.stdout, sys.stderr)
        return super().main(*args, **options)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Runs the command that was named."""
        try:
            return super().invoke(ctx)
        except ExpectedError as error:
            message = str(error)
            if type(error).__module__.startswith("model."):  # only then: importing the hints is slow
                from service.hints import with_hint

                message = with_hint(error)
        except KeyboardInterrupt:
            typer.echo("stopped; nothing was written", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader has closed the pipe, which is not an error
                raise
            message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        typer.echo(f"error: {message}", err=True)
        raise typer.Exit(1)


@contextmanager
def ray_or_the_extra() -> Iterator[None]:
    """Raises `MissingExtraError` if an import in this block fails because Ray is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise MissingExtraError("--ray needs the extra: pip install 'eca-inspect[ray]'") from None
