"""One version of a category on disk: ``student.safetensors``, its passport ``card.json``, and what it has seen."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from model.choices import TermWeights
from model.detector import Detector
from model.networks.vgg import Student, Teacher, student_plan
from model.store.card import Card, SeenImages
from model.store.files import sync_folder, write_file
from model.store.reading import StoreError as StoreError
from model.store.reading import read_bytes, read_json

CARD = "card.json"
STUDENT = "student.safetensors"
SEEN = "images.json"
LOSSES = "losses.json"
LOSS_CURVE = "losses.png"
TRACES = (LOSSES, LOSS_CURVE)
"""What training leaves for people to look at; a pair is whole without it, and nothing but the eye reads it."""

MAX_CARD_BYTES = 16 << 20
"""A ROC curve of a hundred thousand points fits."""
MAX_SEEN_BYTES = 256 << 20
"""The hashes of three million images fit."""
MAX_STUDENT_BYTES = 256 << 20
"""A student of the full VGG16 has 1.4 MB."""

Stamp = tuple[tuple[int, int, int] | None, ...]
"""When the files of a version were written, their sizes and their inodes; None for one that is not there."""


def encode_student(student: Student) -> bytes:
    """The student as the bytes of a safetensors file."""
    return save_tensors({name: tensor.contiguous() for name, tensor in student.state_dict().items()})


def read_card(folder: Path, category: str | None = None) -> Card:
    """Reads and validates a version's card.

    Args:
        folder: of the version.
        category: whose card it must be; else the one that the folder is named after.

    Raises:
        StoreError: if it is missing, damaged, of a newer schema, or says something impossible.
    """
    path = folder / CARD
    card = read_json(path, MAX_CARD_BYTES, Card, "a valid card")
    if card.category != (category or folder.name):
        raise StoreError(f"{path} is the card of {card.category!r}")
    return card


def read_encoded_student(folder: Path, card: Card) -> bytes:
    """Reads the bytes of the student a card describes.

    Raises:
        StoreError: if the file is missing, or is not the one the card was written for.
    """
    path = folder / STUDENT
    data = read_bytes(path, MAX_STUDENT_BYTES)
    found = hashlib.sha256(data).hexdigest()
    if found != card.student_sha256:
        raise StoreError(f"{path} is not the file its card was written for (SHA-256 {found})")
    return data


def read_student(folder: Path, card: Card) -> Student:
    """Reads the student a card describes.

    Raises:
        StoreError: if the file is missing, is not the one the card was written for, or does not fit the architecture.
    """
    path, data = folder / STUDENT, read_encoded_student(folder, card)
    student = Student(card.architecture.plan, weigh_distillation_layers=card.architecture.weigh_distillation_layers)
    try:
        student.load_state_dict(load_tensors(data))
    except (RuntimeError, SafetensorError) as error:
        raise StoreError(f"{path} does not fit its card: {error}") from None
    return student.eval()


def build_detector(
    folder: Path,
    card: Card,
    teacher: Teacher,
    device: torch.device | str = "cpu",
    precision: torch.dtype = torch.float32,
) -> Detector:
    """Composes the pair of a card with its teacher, whose fingerprint the caller has checked.

    Raises:
        StoreError: if the card's plan is not that of a student of this teacher, or the student's weights are not
            finite; otherwise see `read_student`.
    """
    if card.architecture.plan != student_plan(teacher.plan):
        raise StoreError(f"{folder / CARD} is not a valid card: architecture.plan: does not fit the teacher")
    weights = TermWeights(card.squared_weight, card.direction_weight)
    detector = Detector(teacher, read_student(folder, card), weights, device, precision, card.score)
    # As it is served: a negative variance is finite until it is folded.
    if not all(tensor.isfinite().all() for tensor in detector.student.state_dict().values()):
        raise StoreError(f"{folder / STUDENT} holds values that are not finite")
    return detector


def read_seen(folder: Path) -> SeenImages:
    """The hashes of the images a pair has seen.

    Raises:
        StoreError: if the file is missing or damaged.
    """
    return read_json(folder / SEEN, MAX_SEEN_BYTES, SeenImages, "a list of images")


def read_traces(folder: Path) -> dict[str, bytes]:
    """The files of `TRACES` that a pair has, by name."""
    return {name: (folder / name).read_bytes() for name in TRACES if (folder / name).is_file()}


def write_version(
    folder: Path, card: Card, student: bytes, seen: SeenImages, traces: Mapping[str, bytes] = MappingProxyType({})
) -> None:
    """Makes a new folder with these files, and waits until the disk has them.

    Args:
        folder: must not exist.
        card: the passport; its hash must be that of ``student``.
        student: from `encode_student`.
        seen: the images it has seen.
        traces: the content of further files, by name; see `TRACES`.

    Raises:
        OSError: if they cannot be written.
    """
    folder.mkdir()
    for name, content in traces.items():
        write_file(folder / name, content)
    write_file(folder / STUDENT, student)
    write_file(folder / SEEN, seen.model_dump_json(indent=1).encode() + b"\n")
    write_file(folder / CARD, card.model_dump_json(indent=2).encode() + b"\n")
    sync_folder(folder)


def stamp_of(folder: Path) -> Stamp:
    """Changes whenever the files in a version's folder do."""

    def stamp(path: Path) -> tuple[int, int, int] | None:
        try:
            found = path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    return stamp(folder / CARD), stamp(folder / STUDENT)


def is_whole(folder: Path, category: str) -> bool:
    """Whether all files of a version of this category are there and fit together."""
    try:
        read_encoded_student(folder, read_card(folder, category))
        read_seen(folder)
    except StoreError:
        return False
    return True
