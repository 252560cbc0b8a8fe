"""Cards of parts: which views a part must have, one file ``NAME.json`` for each kind of part."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from model.store.card import CATEGORY_NAME
from model.store.reading import StoreError, read_json
from model.text import readable

PART_NAME = CATEGORY_NAME
SUFFIX = ".json"
MAX_CARD_BYTES = 1 << 20
MAX_VIEWS = 1000


class UnknownPartError(StoreError):
    """There is no card of this name.

    Attributes:
        part: the requested name.
        known: names of all cards.
    """

    def __init__(self, part: str, known: list[str]) -> None:
        super().__init__(f"there is no card of a part {part!r}; known: {', '.join(known) or 'none'}")
        self.part = part
        self.known = known


class PartView(BaseModel):
    """A view that the part must have."""

    model_config = ConfigDict(extra="forbid")

    category: Annotated[str, Field(pattern=f"^{CATEGORY_NAME.pattern}$", description="Category that judges it")]
    images: int = Field(default=1, ge=1, le=MAX_VIEWS, description="Images of it that the part must have")


class PartCard(BaseModel):
    """The views of one kind of part."""

    model_config = ConfigDict(extra="forbid")

    views: tuple[PartView, ...] = Field(min_length=1, max_length=MAX_VIEWS)

    @field_validator("views")
    @classmethod
    def _each_category_once(cls, views: tuple[PartView, ...]) -> tuple[PartView, ...]:
        category, times = Counter(view.category for view in views).most_common(1)[0]
        if times > 1:
            raise ValueError(f"{category!r} stands there {times} times; say in 'images' how many it needs")
        return views

    @property
    def images(self) -> int:
        """Images that a part must have in all."""
        return sum(view.images for view in self.views)

    @property
    def version(self) -> str:
        """Eight characters that change whenever the card says something else."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:8]


class PartCards:
    """A folder of cards. It is read anew whenever it is asked.

    Args:
        folder: where the cards lie; one that is missing holds none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Names of all cards in order, also of those that cannot be read. Hidden files are none.

        Raises:
            OSError: if the folder cannot be read.
        """
        if not self.folder.is_dir():
            return []
        files = (path for path in self.folder.iterdir() if path.suffix == SUFFIX and not path.name.startswith("."))
        return sorted(readable(path.stem) for path in files if path.is_file())

    def read(self, part: str) -> PartCard:
        """A card by name.

        Raises:
            UnknownPartError: if there is none.
            StoreError: if it cannot be read, or says something impossible.
            OSError: if the folder cannot be read.
        """
        path = self.folder / f"{part}{SUFFIX}"
        names = self.names()
        if part not in names:
            raise UnknownPartError(part, names)
        if not PART_NAME.fullmatch(part):
            raise StoreError(
                f"{readable(path)}: {part!r} cannot name a part: 1 to 64 letters, digits, '_' or '-', not starting "
                "with '_' or '-'"
            )
        return read_json(path, MAX_CARD_BYTES, PartCard, "a card of a part")
