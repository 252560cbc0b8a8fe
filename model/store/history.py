"""The versions of a category that were replaced: ``.versions/CATEGORY/NUMBER``, the highest number last put aside.

``-rolled-back`` after the number says that the version was left by going back, so that the next step back passes it
over. Older software kept one version, in ``.previous/CATEGORY``; it counts as number 0.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from model.store.card import Card
from model.store.version import StoreError, read_card

VERSIONS = ".versions"
PREVIOUS = ".previous"
KEPT_VERSIONS = 5
"""How many replaced versions of a category are kept."""
ROLLED_BACK = "-rolled-back"
_NAME = re.compile(rf"(\d{{1,9}})({ROLLED_BACK})?")


class NoPreviousVersionError(StoreError):
    """No such version of this category is kept."""


@dataclass(frozen=True)
class Kept:
    """A version that was replaced.

    Attributes:
        number: its place in the order in which versions were put aside.
        rolled_back: it was left by going back.
        folder: where it lies.
        card: its passport.
    """

    number: int
    rolled_back: bool
    folder: Path
    card: Card

    @property
    def version(self) -> str:
        """Its name."""
        return self.card.model_version


def numbered(weights: Path, category: str) -> list[tuple[int, bool, Path]]:
    """Number, whether rolled back, and folder of all that is kept, last put aside first."""
    folder, legacy = weights / VERSIONS / category, weights / PREVIOUS / category
    found = [(0, False, legacy)] if legacy.is_dir() else []
    if folder.is_dir():
        names = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
        found += [(int(name[1]), name[2] is not None, path) for name, path in names if name]
    return sorted(found, reverse=True)


def kept(weights: Path, category: str, present: str | None) -> list[Kept]:
    """The versions that can be gone back to, last put aside first.

    A copy of the present version, a second one of another, and a version whose card cannot be read are not among them.

    Args:
        weights: the folder of categories.
        category: its name.
        present: the version in its place, or None if there is none.
    """
    found: dict[str | None, Kept] = {}
    for number, rolled_back, folder in numbered(weights, category):
        try:
            card = read_card(folder, category)
        except StoreError:
            continue
        found.setdefault(card.model_version, Kept(number, rolled_back, folder, card))
    found.pop(present, None)
    return list(found.values())


def surplus(weights: Path, category: str, present: str) -> list[Path]:
    """Folders that need not be kept: copies of the present version, second copies of others, and the oldest ones."""
    seen, gone, count = {present}, [], 0
    for _, _, folder in numbered(weights, category):
        try:
            version = read_card(folder, category).model_version
        except StoreError:  # damaged, or of newer software
            version = None
        if version in seen or count == KEPT_VERSIONS:
            gone.append(folder)
            continue
        count += 1
        if version is not None:
            seen.add(version)
    return gone


def choose(versions: list[Kept], category: str, present: str | None, to: str | None) -> Kept:
    """The version to go back to: the one named, or else the one that was in place before the present one.

    Args:
        versions: from `kept`.
        category: its name.
        present: the version to start from.
        to: the version's name, or None for one step back. Versions that were rolled back are no step.

    Raises:
        NoPreviousVersionError: if it is not among these.
    """
    names = ", ".join(one.version for one in versions) or "none"
    if to is not None:
        for one in versions:
            if one.version == to:
                return one
        raise NoPreviousVersionError(f"no version {to!r} of {category!r} is kept to go back to; kept are: {names}")
    for one in versions:
        if not one.rolled_back:
            return one
    raise NoPreviousVersionError(f"no version before {present!r} of {category!r} is kept; kept are: {names}")
