"""A part that is judged by several views: which images belong to it, and the one verdict on all of them.

Only a part whose views were all there, all judged and all normal is normal.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from model.errors import ExpectedError
from model.store.parts import PartCard, PartCards, UnknownPartError
from model.store.reading import StoreError
from service.catalogue import Catalogue, Refused
from service.schemas import Decision, PartDecision, PartSummary

T = TypeVar("T")


class PartRefusedError(ExpectedError):
    """The card of a part cannot be used; the message says why."""


class WrongViewsError(ExpectedError):
    """An image is not one that the card of the part asks for."""


@dataclass(frozen=True)
class Missing:
    """In the place of an image that the card of a part asks for, and that was not sent.

    Attributes:
        needed: images of this category that the part must have.
        sent: those that were sent.
    """

    needed: int
    sent: int


def read_part_card(cards: PartCards, part: str, most_images: int) -> PartCard:
    """The card of a part.

    Args:
        cards: all cards.
        part: its name.
        most_images: that can be sent at once.

    Raises:
        UnknownPartError: if there is no card of this name.
        PartRefusedError: if it cannot be read, or asks for more images than can be sent.
    """
    try:
        card = cards.read(part)
    except UnknownPartError:
        raise
    except (StoreError, OSError) as error:
        raise PartRefusedError(f"the card of the part {part!r} cannot be used: {error}") from None
    if card.images > most_images:
        raise PartRefusedError(
            f"the card of the part {part!r} asks for {card.images} images; at most {most_images} can be sent at once "
            "(INSPECT_MAX_BATCH_IMAGES)"
        )
    return card


def arrange(card: PartCard | None, images: Sequence[tuple[str, T]]) -> list[tuple[str, T | Missing]]:
    """The views of a part, each with its category: in the order of the card, or as they were sent if there is none.

    Args:
        card: of the part.
        images: what was sent, each with its category; those of one category in their own order.

    Raises:
        WrongViewsError: if there is an image that the card does not ask for.
    """
    if card is None:
        return list(images)
    sent: dict[str, list[T]] = {}
    for category, image in images:
        sent.setdefault(category, []).append(image)
    places: list[tuple[str, T | Missing]] = []
    for view in card.views:
        found = sent.pop(view.category, [])
        if len(found) > view.images:
            raise WrongViewsError(f"the part has {_count(view.images)} of {view.category!r}; {len(found)} came")
        places += [(view.category, image) for image in found]
        places += [(view.category, Missing(view.images, len(found)))] * (view.images - len(found))
    if sent:
        views = ", ".join(repr(view.category) for view in card.views)
        raise WrongViewsError(f"the part has no view {next(iter(sent))!r}; its views: {views}")
    return places


def _count(images: int) -> str:
    return "one image" if images == 1 else f"{images} images"


def decide(decisions: Iterable[Decision | None]) -> PartDecision:
    """The verdict on a part.

    An anomalous view is enough to reject the part, whatever else is missing. Otherwise a view without a decision
    leaves it incomplete.

    Args:
        decisions: on its views; None for one that is missing or could not be judged.
    """
    found = set(decisions)
    if "anomalous" in found:
        return "anomalous"
    return "normal" if found == {"normal"} else "incomplete"


def summaries(cards: PartCards, catalogue: Catalogue, most_images: int) -> list[PartSummary]:
    """All parts as clients see them."""
    try:
        names = cards.names()
    except OSError as error:
        raise PartRefusedError(f"the folder of the parts' cards cannot be read: {error.strerror}") from None
    return [_summary_of(name, cards, catalogue, most_images) for name in names]


def _summary_of(part: str, cards: PartCards, catalogue: Catalogue, most_images: int) -> PartSummary:
    try:
        card = read_part_card(cards, part, most_images)
    except (UnknownPartError, PartRefusedError) as error:
        return PartSummary(part=part, part_version=None, status="refused", reason=str(error), views=None)
    reason = _hindrance(card, catalogue)
    return PartSummary(
        part=part,
        part_version=card.version,
        status="ready" if reason is None else "incomplete",
        reason=reason,
        views=list(card.views),
    )


def _hindrance(card: PartCard, catalogue: Catalogue) -> str | None:
    """Why no part can be judged completely now, or None."""
    for view in card.views:
        entry = catalogue.get(view.category)
        if entry is None:
            return f"there is no category {view.category!r}"
        if isinstance(entry, Refused):
            return f"category {view.category!r} cannot be served: {entry.reason}"
    return None
