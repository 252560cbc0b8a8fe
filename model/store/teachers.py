"""The teachers a weights folder holds: ``teachers/NAME.safetensors``, each known by a hash of its weights."""

import hashlib
import re
import tempfile
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from model.choices import COMPACT, IMAGENET
from model.errors import ExpectedError
from model.networks.vgg import VGG16, Plan, Teacher
from model.store.files import replace_file

SHIPPED_COMPACT = Path(__file__).parents[2] / "weights" / "teachers" / f"{COMPACT}.safetensors"
"""The compact teacher as this project ships it."""
VGG16_FILE = "vgg16-397923af.pth"
"""The name under which torchvision publishes VGG16 for ImageNet."""
VGG16_URL = f"https://download.pytorch.org/models/{VGG16_FILE}"
"""Where torchvision says that it is. Written down here, because importing torchvision takes seconds."""
VGG16_SHA256 = "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"
"""Of that file. torchvision itself checks the eight digits that are in the name."""
TEACHER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


_FILES = (".pth", ".pt", ".safetensors")
"""How the name of a file of weights ends."""


class TeacherError(ExpectedError):
    """A teacher is missing, damaged or not the one asked for; the message says which is needed."""


class MissingTeacherError(TeacherError):
    """The teacher of this name is not there, or another one is in its place.

    Attributes:
        name: of the teacher.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(name, message)
        self.name = name

    def __str__(self) -> str:
        return str(self.args[1])


class DownloadError(TeacherError):
    """torchvision's VGG16 cannot be downloaded."""


def fingerprint(teacher: Teacher) -> str:
    """SHA-256 over the names, shapes and float32 values of the weights, hexadecimal.

    It is the same for one teacher however it was stored: a whole VGG16 or features only, ``.pth`` or safetensors.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(teacher.state_dict().items()):
        digest.update(f"{name} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def read_teacher(path: Path) -> Teacher:
    """Reads VGG16 weights of any width from a file: all of VGG16 or its features only, ``.pth`` or ``.safetensors``.

    Raises:
        TeacherError: if the file is missing, damaged or holds something else, or has the name of torchvision's VGG16
            and not its SHA-256.
    """
    if not path.is_file():
        raise TeacherError(f"there is no file {path}")
    if path.name == VGG16_FILE and (found := _sha256_of(path)) != VGG16_SHA256:
        raise TeacherError(
            f"{path} is not the file that torchvision publishes under this name: its SHA-256 is {found} instead of "
            f"{VGG16_SHA256}. Download it again, or give weights of your own another name"
        )
    try:
        if path.suffix == ".safetensors":
            state = load(path.read_bytes())
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of odd pickles, which are refused or read all the same
                state = torch.load(path, map_location="cpu", weights_only=True)
            if not (isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())):
                raise ValueError("it holds no dictionary of tensors")
        return Teacher.from_state_dict(state)
    except (SafetensorError, ValueError) as error:
        raise TeacherError(f"cannot read a teacher from {path}: {error}") from None
    except OSError as error:
        raise TeacherError(f"cannot read a teacher from {path}: {error.strerror}") from None
    except Exception:  # torch.load fails in many ways, and its advice to read the file unsafely is not ours
        raise TeacherError(
            f"cannot read a teacher from {path}: the file is damaged, or holds more than tensors, which is never read "
            "because it could run code"
        ) from None


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def teacher_path(folder: Path, name: str) -> Path:
    """Where a teacher of this name lies in a folder of teachers.

    Raises:
        TeacherError: if the name could not be a file's.
    """
    if not TEACHER_NAME.fullmatch(name):
        raise TeacherError(f"{name!r} is not a teacher's name: letters, digits, '.', '_' and '-' only")
    return folder / f"{name}.safetensors"


def load_teacher(folder: Path, name: str, sha256: str | None = None) -> Teacher:
    """Loads the teacher of this name, and makes sure that it is the one meant.

    Args:
        folder: the folder of teachers.
        name: the teacher's name.
        sha256: the fingerprint it must have, or None for any.

    Raises:
        MissingTeacherError: if it is missing or another one.
        TeacherError: if it is damaged.
    """
    path = teacher_path(folder, name)
    if not path.is_file():
        raise MissingTeacherError(name, f"the teacher {name!r} is not in {folder}")
    teacher = read_teacher(path)
    found = fingerprint(teacher)
    if sha256 is not None and found != sha256:
        raise MissingTeacherError(
            name,
            f"the teacher in {path} is not the one this student learned from (SHA-256 of its weights is {found}, "
            f"needed is {sha256})",
        )
    return teacher


def check_plan(name: str, plan: Plan) -> None:
    """Raises `TeacherError` if a teacher of this shape cannot have this name: ``imagenet`` is VGG16 at full width."""
    if name == IMAGENET and plan != VGG16:
        raise TeacherError(
            f"the name {IMAGENET!r} is kept for VGG16 at its full width, and this teacher has other numbers of "
            "channels; choose another name"
        )


def save_teacher(teacher: Teacher, folder: Path, name: str) -> Path:
    """Writes a teacher into a folder of teachers in one step; the same teacher there already is left alone.

    Raises:
        TeacherError: if another teacher of this name is there, which students may depend on, or see `check_plan`.
    """
    check_plan(name, teacher.plan)
    path = teacher_path(folder, name)
    if path.exists():
        if fingerprint(read_teacher(path)) == fingerprint(teacher):
            return path
        raise TeacherError(f"{path} is another teacher, and students may depend on it; choose another name")
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in teacher.state_dict().items()}
    replace_file(path, save(state))  # safetensors' save_file would make it readable by its owner alone
    return path


def fetch_imagenet() -> Teacher:
    """Downloads torchvision's VGG16 ``IMAGENET1K_V1`` (528 MB) and keeps its feature extractor.

    Raises:
        DownloadError: if it cannot be downloaded or its hash is wrong.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vgg16.pth")
        try:
            torch.hub.download_url_to_file(VGG16_URL, str(path), hash_prefix=VGG16_SHA256)
        except (OSError, RuntimeError) as error:
            raise DownloadError(f"cannot fetch VGG16 from {VGG16_URL}: {error}") from None
        return read_teacher(path)


def imagenet_teacher(folder: Path) -> Teacher:
    """The folder's teacher ``imagenet``; it is fetched if it is not there.

    Raises:
        DownloadError: if it cannot be downloaded.
        TeacherError: if what is there is damaged or not VGG16 at its full width.
    """
    path = teacher_path(folder, IMAGENET)
    if path.exists():
        teacher = read_teacher(path)
        if teacher.plan != VGG16:
            raise TeacherError(f"{path} is not VGG16 at its full width; choose another folder of teachers")
        return teacher
    teacher = fetch_imagenet()
    save_teacher(teacher, folder, IMAGENET)
    return teacher


def teacher_names(folder: Path) -> list[str]:
    """The teachers that `resolve_teacher` finds by name without the internet, sorted."""
    found = {path.stem for path in folder.glob("*.safetensors") if TEACHER_NAME.fullmatch(path.stem)}
    if SHIPPED_COMPACT.is_file():
        found.add(COMPACT)
    return sorted(name for name in found if Path(name).suffix not in _FILES)


def resolve_teacher(folder: Path, name_or_path: str) -> tuple[str, Teacher]:
    """The teacher a user asks for: one of the folder's by name, or a file, which is then copied into the folder.

    Where the folder lacks them, ``imagenet`` is fetched, and ``compact`` is copied from what this project ships.

    Returns:
        Its name in the folder, and the teacher.

    Raises:
        MissingTeacherError: if it is not there.
        DownloadError: if it is ``imagenet`` and cannot be downloaded.
        TeacherError: if it is damaged.
    """
    if (path := Path(name_or_path)).suffix in _FILES:
        teacher = read_teacher(path)
        save_teacher(teacher, folder, path.stem)
        return path.stem, teacher
    if name_or_path == IMAGENET:
        return IMAGENET, imagenet_teacher(folder)
    path = teacher_path(folder, name_or_path)
    if path.exists():
        return name_or_path, read_teacher(path)
    if name_or_path == COMPACT and SHIPPED_COMPACT.is_file():
        teacher = read_teacher(SHIPPED_COMPACT)
        save_teacher(teacher, folder, COMPACT)
        return COMPACT, teacher
    raise MissingTeacherError(name_or_path, f"there is no teacher {name_or_path!r} in {folder}")
