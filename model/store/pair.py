"""A trained pair on disk: ``CATEGORY/student.safetensors``, its passport ``card.json``, and what it has seen."""

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from model.choices import TermWeights
from model.detector import Detector
from model.errors import ExpectedError
from model.networks.vgg import Student, Teacher, student_plan
from model.store.card import SCHEMA_VERSION, Card, SeenImages
from model.store.teachers import load_teacher

CARD = "card.json"
STUDENT = "student.safetensors"
SEEN = "images.json"
LOSSES = "losses.json"
LOSS_CURVE = "losses.png"
TRACES = (LOSSES, LOSS_CURVE)
"""What training leaves for people to look at; a pair is whole without it, and nothing but the eye reads it."""
PREVIOUS = ".previous"
"""Folder in the weights folder that keeps the version of each category that was replaced last."""
CATEGORY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
RESERVED_NAMES = frozenset(("teachers",))


class StoreError(ExpectedError):
    """A category cannot be read or written; the message says why."""


class CategoryExistsError(StoreError):
    """The category exists, and was not to be replaced."""


class NoPreviousVersionError(StoreError):
    """No version of this category has been replaced yet."""


def check_category_name(category: str) -> None:
    """Raises `StoreError` unless the name is safe as a folder's and in a URL."""
    if not CATEGORY_NAME.fullmatch(category) or category in RESERVED_NAMES:
        raise StoreError(
            f"{category!r} cannot name a category: 1 to 64 letters, digits, '_' or '-', not starting with '_' or '-', "
            f"and not {', '.join(sorted(RESERVED_NAMES))}"
        )


def encode_student(student: Student) -> bytes:
    """The student as the bytes of a safetensors file."""
    return save_tensors({name: tensor.contiguous() for name, tensor in student.state_dict().items()})


def read_card(folder: Path) -> Card:
    """Reads and validates a pair's card.

    Raises:
        StoreError: if it is missing, damaged, of a newer schema, or says something impossible.
    """
    path = folder / CARD
    try:
        fields = json.loads(path.read_bytes())
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is not JSON: {error}") from None
    version = fields.get("schema_version") if isinstance(fields, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise StoreError(f"{path} has schema version {version}, this software reads up to {SCHEMA_VERSION}: upgrade it")
    try:
        card = Card.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise StoreError(f"{path} is not a valid card: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if card.category != folder.name:
        raise StoreError(f"{path} is the card of {card.category!r}")
    return card


def read_encoded_student(folder: Path, card: Card) -> bytes:
    """Reads the bytes of the student a card describes.

    Raises:
        StoreError: if the file is missing, or is not the one the card was written for.
    """
    path = folder / STUDENT
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from None
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
    try:
        return SeenImages.model_validate_json((folder / SEEN).read_bytes())
    except OSError as error:
        raise StoreError(f"cannot read {folder / SEEN}: {error.strerror}") from None
    except ValidationError as error:
        raise StoreError(f"{folder / SEEN} is damaged: {error.errors()[0]['msg']}") from None


def read_traces(folder: Path) -> dict[str, bytes]:
    """The files of `TRACES` that a pair has, by name."""
    return {name: (folder / name).read_bytes() for name in TRACES if (folder / name).is_file()}


def write_pair(
    weights: Path,
    card: Card,
    student: bytes,
    seen: SeenImages,
    traces: Mapping[str, bytes] = MappingProxyType({}),
    *,
    replace: bool = False,
) -> Path:
    """Writes a pair into the weights folder: first beside its place, then moved there in one step.

    The version that it replaces is kept, see `roll_back`; the one that was kept before goes.

    Args:
        weights: the folder of categories.
        card: the passport; its hash must be that of ``student``.
        student: from `encode_student`.
        seen: the images it has seen.
        traces: the content of files to lie beside, by name; see `TRACES`.
        replace: put it in the place of an existing pair of that category.

    Returns:
        The pair's folder.

    Raises:
        CategoryExistsError: if the category exists and is not to be replaced.
        StoreError: if its name is impossible.
    """
    check_category_name(card.category)
    place = weights / card.category
    if place.exists() and not replace:
        raise CategoryExistsError(f"{place} exists")
    weights.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=weights, prefix=f".{card.category}-") as temporary:
        new = Path(temporary, "new")
        new.mkdir()
        (new / STUDENT).write_bytes(student)
        for name, content in traces.items():
            (new / name).write_bytes(content)
        (new / SEEN).write_text(seen.model_dump_json(indent=1) + "\n", encoding="utf-8")
        (new / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
        if place.exists():
            (weights / PREVIOUS).mkdir(exist_ok=True)
            _exchange(weights, card.category, Path(temporary, "older"), new)
        else:
            new.rename(place)
    return place


def roll_back(weights: Path, category: str) -> None:
    """Puts the version that was replaced last back in its place, and keeps the one that is there in its stead.

    Raises:
        NoPreviousVersionError: if there is none.
        StoreError: if the name is impossible.
        OSError: if the folder cannot be written; then nothing has changed.
    """
    check_category_name(category)
    place, previous = weights / category, weights / PREVIOUS / category
    if not previous.is_dir():
        raise NoPreviousVersionError(f"there is no previous version of {category!r} in {weights}")
    if not place.exists():
        previous.rename(place)
        return
    with tempfile.TemporaryDirectory(dir=weights, prefix=f".{category}-") as temporary:
        older = Path(temporary, "older")
        _exchange(weights, category, older, new=older)


def _exchange(weights: Path, category: str, older: Path, new: Path) -> None:
    """Moves the previous version aside, the present one to where previous ones are kept, and a new one to its place."""
    place, previous = weights / category, weights / PREVIOUS / category
    if previous.exists():
        previous.rename(older)
    try:
        place.rename(previous)
        new.rename(place)
    except BaseException:  # Ctrl-C too: all goes back, because what lies aside is about to be removed
        if not place.exists():
            previous.rename(place)
        if older.exists():
            older.rename(previous)
        raise


def load_detector(
    weights: Path,
    teachers: Path,
    category: str,
    device: torch.device | str = "cpu",
    precision: torch.dtype = torch.float32,
) -> tuple[Card, Detector]:
    """Loads one category with the teacher its card names.

    Raises:
        StoreError: if the category is not there or its files are damaged.
        TeacherError: if its teacher is not there or another one.
    """
    check_category_name(category)
    folder = weights / category
    if not folder.is_dir():
        raise StoreError(f"there is no category {category!r} in {weights}")
    card = read_card(folder)
    teacher = load_teacher(teachers, card.teacher.name, card.teacher.sha256)
    return card, build_detector(folder, card, teacher, device, precision)
