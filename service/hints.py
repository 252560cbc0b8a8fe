"""Which command or option fixes an error of `model/`. The error says what is wrong, this table says what to type."""

from collections.abc import Callable
from typing import Any

from model.choices import COMPACT, IMAGENET
from model.error_rates import TooFewPartsError
from model.errors import ExpectedError, MissingSetError
from model.lifecycle.calibrate import YoudenThresholdError
from model.lifecycle.datasets import MasksAmongImagesError
from model.lifecycle.evaluate import SeenImagesError
from model.lifecycle.train import InterruptedTrainingError, NoCategoryError, NotNewError, ReplacesYoudenError
from model.store.store import CategoryExistsError, ChangedMeanwhileError, NoCandidateError, StoreNotWritableError
from model.store.teachers import VGG16_FILE, DownloadError, MissingTeacherError


def _of_teacher(error: MissingTeacherError) -> str:
    if error.name == IMAGENET:
        return (
            f"get it with `eca-inspect teacher fetch`; without internet, copy the file {VGG16_FILE} here and run "
            f"`eca-inspect teacher fetch --from {VGG16_FILE}`"
        )
    return f"copy its weights file here and run `eca-inspect teacher fetch --name {error.name} --from FILE`"


HINTS: dict[type[ExpectedError], Callable[[Any], str]] = {
    CategoryExistsError: lambda error: "add --replace to train it again",
    ChangedMeanwhileError: lambda error: "run the command again",
    DownloadError: lambda error: (
        f"without internet, copy the file {VGG16_FILE} from another machine and run `eca-inspect teacher fetch --from "
        f"{VGG16_FILE}`; or train with the built-in teacher: `--teacher {COMPACT}`"
    ),
    InterruptedTrainingError: lambda error: "add --resume to continue it, or delete that file to start again",
    MasksAmongImagesError: lambda error: "or, in a plain folder, select the image files: --pattern '*.jpg'",
    MissingSetError: lambda error: "add --download to let torchvision download these files",
    MissingTeacherError: _of_teacher,
    NoCategoryError: lambda error: "leave out --candidate to train its first version",
    NotNewError: lambda error: "leave out --new to train it again",
    NoCandidateError: lambda error: "make one with `eca-inspect train CATEGORY --candidate`",
    StoreNotWritableError: lambda error: "name another folder with --weights, or run as the user who owns this one",
    ReplacesYoudenError: lambda error: (
        "add --without-anomalous, and run `eca-inspect calibrate` with anomalous images afterwards"
    ),
    TooFewPartsError: lambda error: (
        "allow more false alarms, or bring more images of good parts: `train` holds out a fifth of its images for "
        "this, `calibrate` takes all that --normal names"
    ),
    YoudenThresholdError: lambda error: "give them with --anomalous or --data, or add --without-anomalous",
    SeenImagesError: lambda error: "leave them out with --seen skip, or include them with --seen include",
}


def with_hint(error: Exception) -> str:
    """The message of an error, followed by what to type if that is known."""
    hint = HINTS.get(type(error)) if isinstance(error, ExpectedError) else None
    return f"{error}; {hint(error)}" if hint is not None else str(error)
