"""The one place that turns an expected error into one line and status 1."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from model.calibration import CalibrationError
from model.images import ImageError
from model.lab.reproduction.comparison import MissingAnomalibError
from model.lifecycle.datasets import DatasetError
from model.lifecycle.distillation import TrainingError
from model.store.pair import PairError
from model.store.teachers import TeacherError
from service.app import MissingExtraError
from service.http.keys import KeyFileError

EXIT_INTERRUPTED = 130


class UsageError(ValueError):
    """Options that do not go together."""


EXPECTED = (
    CalibrationError,
    DatasetError,
    ImageError,
    KeyFileError,
    MissingAnomalibError,
    MissingExtraError,
    PairError,
    TeacherError,
    TrainingError,
    UsageError,
)


class OneLineErrors(TyperGroup):
    """A group of commands. An expected error of any of them is printed as one line, and the status is 1."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Runs the command that was named."""
        try:
            return super().invoke(ctx)
        except EXPECTED as error:
            message = str(error)
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
