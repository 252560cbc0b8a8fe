"""What a user should know about the files of a data set: what was left out of the work, and why."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from model.text import readable

EXAMPLES = 3
"""Files that a line names."""


class Kind(StrEnum):
    """A kind of remark."""

    SYSTEM_FOLDER = "system-folder"
    SYSTEM_FILE = "system-file"
    OTHER_TYPE = "other-type"
    OTHER_NAME = "other-name"
    OUTSIDE = "outside"
    NO_TRAINING = "no-training"
    BROKEN_LINK = "broken-link"
    SECOND_PATH = "second-path"
    SPECIAL_FILE = "special-file"
    UNREADABLE = "unreadable"
    SAME_CONTENT = "same-content"
    SAME_PIXELS = "same-pixels"
    NEAR_COPY = "near-copy"
    SEEN = "seen"
    NO_MASK = "no-mask"
    EMPTY_MASK = "empty-mask"
    TURNED = "turned"
    UNUSED_MASK = "unused-mask"
    SHADED_MASK = "shaded-mask"
    NOT_ALIGNED = "not-aligned"
    OTHER_ZONE = "other-zone"


_IN_WORDS = {
    Kind.SYSTEM_FOLDER: ("left out", "hidden or system folder", "hidden or system folders"),
    Kind.SYSTEM_FILE: ("left out", "hidden or system file", "hidden or system files"),
    Kind.OTHER_TYPE: ("left out", "file of another type", "files of other types"),
    Kind.OTHER_NAME: ("left out", "image whose name does not match", "images whose names do not match"),
    Kind.OUTSIDE: ("left out", "file outside the folders of images", "files outside the folders of images"),
    Kind.NO_TRAINING: ("left out", "folder without train/good", "folders without train/good"),
    Kind.BROKEN_LINK: ("left out", "link that leads nowhere", "links that lead nowhere"),
    Kind.SECOND_PATH: ("left out", "second path to what is read anyway", "second paths to what is read anyway"),
    Kind.SPECIAL_FILE: ("left out", "pipe, socket or device", "pipes, sockets or devices"),
    Kind.UNREADABLE: ("left out", "file that cannot be read", "files that cannot be read"),
    Kind.SAME_CONTENT: ("left out", "copy of another file", "copies of other files"),
    Kind.SAME_PIXELS: (
        "left out",
        "image with the same pixels as another, in another file",
        "images with the same pixels as others, in other files",
    ),
    Kind.NEAR_COPY: (
        "note",
        "image differs from another by less than 1.5 grey levels, so it teaches and proves little more",
        "images differ from another by less than 1.5 grey levels (saved again, or a scene that did not move), so they "
        "teach and prove little more than one",
    ),
    Kind.SEEN: (
        "left out",
        "image that training or calibration has seen",
        "images that training or calibration has seen",
    ),
    Kind.NO_MASK: (
        "left out of the pixel measures",
        "anomalous image without a mask",
        "anomalous images without a mask",
    ),
    Kind.EMPTY_MASK: (
        "left out of the pixel measures",
        "anomalous image whose mask marks no pixel",
        "anomalous images whose masks mark no pixel",
    ),
    Kind.TURNED: (
        "left out of the pixel measures",
        "image turned by its EXIF orientation, whose mask fits with and without the turn (save the image upright)",
        "images turned by their EXIF orientation, whose masks fit with and without the turn (save the images upright)",
    ),
    Kind.UNUSED_MASK: ("left out", "mask that belongs to no image", "masks that belong to no image"),
    Kind.SHADED_MASK: (
        "note",
        "mask is shaded, so it was resized or compressed once; it marks what is above half of its largest value",
        "masks are shaded, so they were resized or compressed once; they mark what is above half of their largest "
        "value",
    ),
    Kind.NOT_ALIGNED: (
        "left out",
        "image that cannot be aligned with the reference, so it is rejected whatever its score",
        "images that cannot be aligned with the reference, so they are rejected whatever their scores",
    ),
    Kind.OTHER_ZONE: (
        "left out",
        "anomalous image that a zone with a threshold of its own rejects, whatever the threshold of the others is",
        "anomalous images that zones with a threshold of their own reject, whatever the threshold of the others is",
    ),
}


@dataclass(frozen=True)
class Remarks:
    """Files by kind of remark.

    Attributes:
        files: for each kind the files, as people read them; some with a reason or another file behind.
    """

    files: Mapping[Kind, tuple[str, ...]] = field(default_factory=dict)

    def __add__(self, other: "Remarks") -> "Remarks":
        kinds = [kind for kind in Kind if kind in self.files or kind in other.files]
        return Remarks({kind: self.files.get(kind, ()) + other.files.get(kind, ()) for kind in kinds})

    def __bool__(self) -> bool:
        return any(self.files.values())

    def without(self, kind: Kind, files: Iterable[Path | None]) -> "Remarks":
        """The same without these files of one kind."""
        names = {readable(file) for file in files if file is not None}
        return Remarks({**self.files, kind: tuple(file for file in self.of(kind) if file not in names)})

    def of(self, kind: Kind) -> tuple[str, ...]:
        """The files of one kind."""
        return self.files.get(kind, ())

    def lines(self) -> list[str]:
        """One line per kind, for people."""
        return [
            f"{_in_words(kind, len(files))}: {_examples(kind, files)}" for kind, files in self.files.items() if files
        ]

    def as_list(self) -> list[dict[str, Any]]:
        """Plain values for JSON, with every file."""
        return [
            {"kind": kind.value, "meaning": _in_words(kind, len(files)), "count": len(files), "files": list(files)}
            for kind, files in self.files.items()
            if files
        ]


NONE = Remarks()


def remark(kind: Kind, *files: object) -> Remarks:
    """Remarks of one kind."""
    return Remarks({kind: tuple(map(readable, files))}) if files else NONE


def _in_words(kind: Kind, count: int) -> str:
    verb, one, many = _IN_WORDS[kind]
    return f"{verb}: {count} {one if count == 1 else many}"


def _examples(kind: Kind, files: tuple[str, ...]) -> str:
    if kind is Kind.OTHER_TYPE:
        suffixes = Counter(Path(file).suffix.lower() or "without a suffix" for file in files)
        return ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common())
    more = len(files) - EXAMPLES
    return ", ".join(files[:EXAMPLES]) + (f" and {more} more" if more > 0 else "")
