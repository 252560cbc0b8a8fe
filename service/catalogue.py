"""The categories that the server knows, each ready to serve or refused with a reason."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from model.errors import ExpectedError
from model.preprocessing import Preprocessing
from model.store.card import Card
from service.schemas import CategorySummary, ErrorRates

if TYPE_CHECKING:  # so that importing the errors does not import torch
    from model.detector import Detector
    from model.networks.vgg import Teacher


class UnknownCategoryError(ExpectedError):
    """There is no such category.

    Attributes:
        category: the requested name.
        known: names of all categories.
    """

    def __init__(self, category: str, known: list[str]) -> None:
        super().__init__(f"there is no category {category!r}; known: {', '.join(known) or 'none'}")
        self.category = category
        self.known = known


class CategoryRefusedError(ExpectedError):
    """The category exists but cannot be served.

    Attributes:
        category: its name.
        reason: why.
    """

    def __init__(self, category: str, reason: str) -> None:
        super().__init__(f"category {category!r} cannot be served: {reason}")
        self.category = category
        self.reason = reason


class NoSuchVersionError(ExpectedError):
    """There is no such version of the category to go back to; the message lists the versions that exist."""


class NoSuchCandidateError(ExpectedError):
    """The category has no candidate, or another one than the one that was meant."""


class WeightsNotChangedError(ExpectedError):
    """The folder of weights cannot be changed; the message says what to do."""


class VersionRefusedError(ExpectedError):
    """A new version is refused; the previous version stays in use if possible. The message gives the reason."""


@dataclass(frozen=True, eq=False)
class Ready:
    """A category that can be served.

    Attributes:
        card: the category's card.
        teacher: on the device.
        detector: returns the pair; reads the student from disk if it is not in memory. Call it on the device thread.
    """

    card: Card
    teacher: "Teacher"
    detector: "Callable[[], Detector]"

    @property
    def category(self) -> str:
        """Its name."""
        return self.card.category

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """What happens to each picture."""
        return self.card.preprocessor

    @cached_property
    def views(self) -> int:
        """How many images for the networks each picture makes."""
        return len(self.preprocessing.zones)


@dataclass(frozen=True)
class Refused:
    """A category that cannot be served, and why."""

    category: str
    reason: str


class Catalogue:
    """All known categories. Any thread may read at any time, because each change is atomic."""

    def __init__(self) -> None:
        self._entries: dict[str, Ready | Refused] = {}

    def put(self, entry: Ready | Refused) -> None:
        """Adds a category or replaces its entry. Only one thread may call it at a time."""
        self._entries = dict(sorted({**self._entries, entry.category: entry}.items()))

    def get(self, category: str) -> Ready | Refused | None:
        """A category by name, or None if it does not exist."""
        return self._entries.get(category)

    def version_of(self, category: str) -> str | None:
        """The version of a category that serves; None if none does."""
        entry = self.get(category)
        return entry.card.model_version if isinstance(entry, Ready) else None

    def find(self, category: str) -> Ready | Refused:
        """A category by name.

        Raises:
            UnknownCategoryError: if it does not exist.
        """
        entry = self.get(category)
        if entry is None:
            raise UnknownCategoryError(category, self.names())
        return entry

    def require(self, category: str) -> Ready:
        """A category that can be served.

        Raises:
            UnknownCategoryError: if it does not exist.
            CategoryRefusedError: if it cannot be served.
        """
        entry = self.find(category)
        if isinstance(entry, Refused):
            raise CategoryRefusedError(category, entry.reason)
        return entry

    def ready(self) -> list[Ready]:
        """The categories that can be served."""
        return [entry for entry in self._entries.values() if isinstance(entry, Ready)]

    def names(self) -> list[str]:
        """Names of all categories, including refused ones."""
        return list(self._entries)

    def summaries(self) -> list[CategorySummary]:
        """The list as clients see it."""
        return [summary_of(entry) for entry in self._entries.values()]


def error_rates_of(card: Card) -> ErrorRates:
    """How often a card's threshold will be wrong; for older cards this takes scipy, and a second."""
    false_alarms, misses = card.calibration.error_rates
    return ErrorRates(false_alarms=false_alarms, misses=misses, text=card.promise)


def summary_of(entry: Ready | Refused) -> CategorySummary:
    """A category as clients see it."""
    if isinstance(entry, Refused):
        return CategorySummary(
            category=entry.category,
            status="refused",
            reason=entry.reason,
            model_version=None,
            teacher=None,
            image_size=None,
            threshold=None,
            calibration=None,
            separates=None,
            warning=None,
        )
    card = entry.card
    return CategorySummary(
        category=card.category,
        status="ready",
        reason=None,
        model_version=card.model_version,
        teacher=card.teacher.name,
        image_size=card.image_size,
        threshold=card.calibration.threshold,
        calibration=card.calibration.method,
        separates=card.calibration.separates,
        warning=card.calibration.warning,
    )
