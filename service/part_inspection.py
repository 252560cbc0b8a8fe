"""A part of several views, from the images that were sent to the one answer; see `service.parts`."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from uuid_utils.compat import uuid7

from model.images import ImageError
from model.store.parts import PartCard
from service.catalogue import Catalogue, CategoryRefusedError, Ready, UnknownCategoryError
from service.inspection import Inspector, Limits, Wanted, inspect_offline
from service.observe.logs import RECORD
from service.observe.telemetry import UNKNOWN_CATEGORY, Telemetry
from service.parts import Missing, decide
from service.problems import Problem, problem_of
from service.schemas import Inspection, PartAnswer, ProblemBody, View

Place = tuple[str, bytes | Missing]
"""A view of a part: its category, and what was sent; see `service.parts.arrange`."""


async def inspect_part(
    inspector: Inspector,
    catalogue: Catalogue,
    telemetry: Telemetry,
    places: Sequence[Place],
    wanted: Wanted,
    part: str | None,
    card: PartCard | None,
) -> PartAnswer:
    """The answer for a part, whose images go through the inspector together.

    Args:
        inspector: answers the images.
        catalogue: of the categories.
        telemetry: counts the part.
        places: the views in order.
        wanted: of every image.
        part: name of the card, if one is to go by.
        card: of the part.

    Raises:
        Problem: 422 if a category has no map of the form that is wanted.
        QueueFullError, EngineClosedError: if none of the images is accepted.
    """
    wanted = replace(wanted, part=part, part_inspection=uuid7())
    images = _images_of(places, catalogue.require, wanted, part)
    good = [image for image in images if not isinstance(image, Problem)]
    answers = iter(await inspector.inspect_many(good, wanted))
    views = []
    for (category, _), image in zip(places, images, strict=True):
        if isinstance(image, Problem):
            known = category if catalogue.get(category) is not None else UNKNOWN_CATEGORY
            views.append(view_of(category, inspector.refuse(known, image)))
        else:
            views.append(view_of(category, next(answers)))
    answer = part_answer(views, wanted, part, card)
    telemetry.count_part(answer)
    if (record := RECORD.get()) is not None:
        record.part = answer
    return answer


def inspect_part_offline(
    require: Callable[[str], Ready],
    places: Sequence[Place],
    wanted: Wanted,
    limits: Limits,
    part: str | None,
    card: PartCard | None,
) -> PartAnswer:
    """The answer for a part as the server gives it, without the server.

    Args:
        require: the category of a name; raises `UnknownCategoryError` or `CategoryRefusedError` where there is none.
        places: the views in order.
        wanted: of every image.
        limits: of each image.
        part: name of the card, if one is to go by.
        card: of the part.

    Raises:
        Problem: 422 if a category has no map of the form that is wanted.
    """
    views = []
    for (category, _), image in zip(places, _images_of(places, require, wanted, part), strict=True):
        try:
            if isinstance(image, Problem):
                raise image
            inspection, _ = inspect_offline(*image, wanted, limits, with_overlay=False)
            views.append(view_of(category, inspection))
        except (Problem, ImageError) as error:
            views.append(view_of(category, problem_of(error).body()))
    return part_answer(views, wanted, part, card)


def _images_of(
    places: Sequence[Place], require: Callable[[str], Ready], wanted: Wanted, part: str | None
) -> list[tuple[Ready, bytes] | Problem]:
    """Each image with its category, or why it cannot be judged."""
    images: list[tuple[Ready, bytes] | Problem] = []
    for category, found in places:
        if isinstance(found, Missing):
            images.append(missing_view(part, category, found))
            continue
        try:
            ready = require(category)
        except (UnknownCategoryError, CategoryRefusedError) as error:
            images.append(problem_of(error))
        else:
            wanted.check(ready.card)
            images.append((ready, found))
    return images


def missing_view(part: str | None, category: str, missing: Missing) -> Problem:
    """What stands in the place of an image that was not sent."""
    needed = "one image" if missing.needed == 1 else f"{missing.needed} images"
    return Problem("missing-view", part=part, category=category, needed=needed, sent=missing.sent or "none")


def view_of(category: str, result: Inspection | ProblemBody) -> View:
    """A view of the answer."""
    if isinstance(result, Inspection):
        return View(category=category, inspection=result)
    return View(category=category, problem=result)


def part_answer(views: list[View], wanted: Wanted, part: str | None, card: PartCard | None) -> PartAnswer:
    """The answer with the one verdict on all views."""
    return PartAnswer(
        **dict(wanted.part_info),
        id=wanted.part_inspection or uuid7(),
        part=part,
        part_version=None if card is None else card.version,
        decision=decide(None if view.inspection is None else view.inspection.decision for view in views),
        views=views,
    )
