"""Which command or option puts a failure of `model/` right. The failure says what is wrong, this table what to type."""

from collections.abc import Callable
from typing import Any

from model.choices import COMPACT, IMAGENET
from model.errors import ExpectedError, MissingSetError
from model.lifecycle.calibrate import YoudenThresholdError
from model.lifecycle.datasets import MasksAmongImagesError
from model.lifecycle.evaluate import SeenImagesError
from model.lifecycle.train import InterruptedTrainingError, ReplacesYoudenError
from model.store.store import CategoryExistsError, ChangedMeanwhileError, StoreNotWritableError
from model.store.teachers import VGG16_FILE, DownloadError, MissingTeacherError


def _of_teacher(error: MissingTeacherError) -> str:
    if error.name == IMAGENET:
        return (
            f"get it with `eca-inspect teacher fetch`; without internet, bring the file {VGG16_FILE} and run "
            f"`eca-inspect teacher fetch --from {VGG16_FILE}`"
        )
    return f"bring the file of its weights and run `eca-inspect teacher fetch --name {error.name} --from FILE`"


HINTS: dict[type[ExpectedError], Callable[[Any], str]] = {
    CategoryExistsError: lambda error: "say --replace to train it anew",
    ChangedMeanwhileError: lambda error: "run the command again",
    DownloadError: lambda error: (
        f"without internet, bring the file {VGG16_FILE} from another machine and run `eca-inspect teacher fetch --from "
        f"{VGG16_FILE}`; or train on the teacher that is built in: `--teacher {COMPACT}`"
    ),
    InterruptedTrainingError: lambda error: "say --resume to go on with it, or remove that file to start anew",
    MasksAmongImagesError: lambda error: "or, in a plain folder, say which files are images: --pattern '*.jpg'",
    MissingSetError: lambda error: "torchvision fetches these files with --download",
    MissingTeacherError: _of_teacher,
    StoreNotWritableError: lambda error: "name another folder with --weights, or run as the user who owns this one",
    ReplacesYoudenError: lambda error: (
        "say --without-anomalous, and run `eca-inspect calibrate` with anomalous images afterwards"
    ),
    YoudenThresholdError: lambda error: "name them with --anomalous or --data, or say --without-anomalous",
    SeenImagesError: lambda error: "leave them out with --seen skip, or count them all the same with --seen include",
}


def with_hint(error: Exception) -> str:
    """The message of a failure, and what to type if that is known."""
    hint = HINTS.get(type(error)) if isinstance(error, ExpectedError) else None
    return f"{error}; {hint(error)}" if hint is not None else str(error)
