"""The categories that the server knows, each ready to serve or refused with a reason."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.errors import ExpectedError
from model.store.card import Card
from service.schemas import CategorySummary

if TYPE_CHECKING:  # who asks here what an error means need not wait for torch
    from model.detector import Detector
    from model.networks.vgg import Teacher


class UnknownCategoryError(ExpectedError):
    """There is no such category.

    Attributes:
        category: the name that was asked for.
        known: all names that there are.
    """

    def __init__(self, category: str, known: list[str]) -> None:
        super().__init__(f"there is no category {category!r}; known: {', '.join(known) or 'none'}")
        self.category = category
        self.known = known


class CategoryRefusedError(ExpectedError):
    """The category is there and cannot be served.

    Attributes:
        category: its name.
        reason: why.
    """

    def __init__(self, category: str, reason: str) -> None:
        super().__init__(f"category {category!r} cannot be served: {reason}")
        self.category = category
        self.reason = reason


class NoSuchVersionError(ExpectedError):
    """There is no such version of the category to go back to; the message has those that there are."""


class VersionRefusedError(ExpectedError):
    """A version that was to serve is refused, and what served before goes on if it can; the message says why."""


@dataclass(frozen=True, eq=False)
class Ready:
    """A category that can be served.

    Attributes:
        card: its passport.
        teacher: on the device.
        detector: gives its pair, and reads the student from the disk if it is not in memory. For the device thread.
    """

    card: Card
    teacher: "Teacher"
    detector: "Callable[[], Detector]"

    @property
    def category(self) -> str:
        """Its name."""
        return self.card.category


@dataclass(frozen=True)
class Refused:
    """A category that cannot be served, and why."""

    category: str
    reason: str


class Catalogue:
    """What serves. Any thread may ask at any time: each change is made in one step."""

    def __init__(self) -> None:
        self._entries: dict[str, Ready | Refused] = {}

    def put(self, entry: Ready | Refused) -> None:
        """Adds a category, or replaces what was there of it. For one thread at a time."""
        self._entries = dict(sorted({**self._entries, entry.category: entry}.items()))

    def get(self, category: str) -> Ready | Refused | None:
        """A category by name, if it is there."""
        return self._entries.get(category)

    def find(self, category: str) -> Ready | Refused:
        """A category by name.

        Raises:
            UnknownCategoryError: if it is not there.
        """
        entry = self.get(category)
        if entry is None:
            raise UnknownCategoryError(category, self.names())
        return entry

    def require(self, category: str) -> Ready:
        """A category that can be served.

        Raises:
            UnknownCategoryError: if it is not there.
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
        """All categories, refused ones too."""
        return list(self._entries)

    def summaries(self) -> list[CategorySummary]:
        """The list as clients see it."""
        return [summary_of(entry) for entry in self._entries.values()]


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
