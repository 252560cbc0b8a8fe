"""The six data sets of the paper, each read class by class: what to train on, and what to judge.

Five of them hold pictures sorted into classes, and each class in turn is the normal one: the training split's pictures
of it are trained on, the whole test split is judged. MVTec AD says itself what is normal.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from model.errors import MissingSetError
from model.lifecycle.datasets import DatasetError, Sample, load_images, mvtec_test, mvtec_training, normal_samples
from model.lifecycle.folders import sub_folders
from model.preprocessing import Preprocessing

DIGITS = tuple("0123456789")


class Source(ABC):
    """A data set on disk, prepared to one image size.

    Attributes:
        classes: each of them is the normal one in turn.
    """

    classes: tuple[str, ...]

    @abstractmethod
    def training(self, name: str) -> np.ndarray:
        """The normal pictures to train on when this class is the normal one, uint8 RGB ``[N, size, size, 3]``.

        Raises:
            DatasetError, MissingSetError: if they cannot be read, or are not there.
        """

    @abstractmethod
    def test(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The pictures to judge, uint8 RGB ``[N, size, size, 3]``, and True where they are anomalous, ``[N]``.

        Where all classes share the pictures, every call returns the same array of them.

        Raises:
            DatasetError, MissingSetError: if they cannot be read, or are not there.
        """


class _Classified(Source):
    """A set sorted into classes: `_pictures` reads a split, and of it only the class asked for, if any."""

    @abstractmethod
    def _pictures(self, split: str, only: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Pictures ``[N, size, size, 3]`` of ``train`` or ``test`` and the position of each one's class, ``[N]``."""

    @cached_property
    def _test(self) -> tuple[np.ndarray, np.ndarray]:
        return self._pictures("test")

    def training(self, name: str) -> np.ndarray:
        return self._pictures("train", name)[0]

    def test(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        pixels, labels = self._test
        return pixels, labels != self.classes.index(name)


class ClassFolders(_Classified):
    """``root/train/<class>`` and ``root/test/<class>``, image files of any size.

    Raises:
        DatasetError: if a folder is missing, or both splits do not have the same classes, two at least.
    """

    def __init__(self, root: Path, preprocessing: Preprocessing) -> None:
        self._root, self._preprocessing = root, preprocessing
        self.classes = _folders(root / "train")
        if self.classes != _folders(root / "test") or len(self.classes) < 2:
            raise DatasetError(
                f"{root}: 'train' and 'test' must hold a folder for each of the same classes, two at least"
            )

    def _pictures(self, split: str, only: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        samples: list[Sample] = []
        labels: list[int] = []
        for label, name in enumerate(self.classes):
            if only in (None, name):
                of_class = normal_samples(self._root / split / name)
                samples += of_class
                labels += [label] * len(of_class)
        return load_images(samples, self._preprocessing).pixels, np.array(labels)


class TorchvisionSet(_Classified):
    """A set in the files that torchvision's reader knows, which fetches them if told to.

    Raises:
        DatasetError: if the files are not there, damaged or cannot be fetched.
    """

    def __init__(
        self, read: Callable[[Path, str, bool], tuple[np.ndarray, np.ndarray]], classes: tuple[str, ...], root: Path,
        preprocessing: Preprocessing, *, download: bool = False,
    ) -> None:  # fmt: skip
        self.classes = classes
        self._read, self._root, self._preprocessing, self._download = read, root, preprocessing, download
        self._split("test")  # refuses at once what is not there

    def _split(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        try:
            return self._read(self._root, split, self._download)
        except (OSError, RuntimeError, ValueError) as error:
            reason, _, _ = str(error).partition(" You can use download=True")
            raise MissingSetError(
                f"{self._root} holds neither folders of classes (train/<class>, test/<class>) nor the set's own files: "
                f"{reason}"
            ) from None

    @cached_property
    def _train(self) -> tuple[np.ndarray, np.ndarray]:
        return self._split("train")

    def _pictures(self, split: str, only: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        images, labels = self._train if split == "train" else self._split(split)
        if only is not None:
            chosen = labels == self.classes.index(only)
            images, labels = images[chosen], labels[chosen]
        return np.concatenate([self._preprocessing.apply(image) for image in images]), labels


class Categories(Source):
    """``root/<category>`` in the MVTec AD layout: those of the names known that are there, or all if none is known.

    Raises:
        DatasetError: if there is no such folder.
    """

    def __init__(self, root: Path, preprocessing: Preprocessing, known: tuple[str, ...] = ()) -> None:
        self._root, self._preprocessing = root, preprocessing
        found = (name for name in _folders(root) if not known or name in known)
        self.classes = tuple(name for name in found if (root / name / "train" / "good").is_dir())
        if not self.classes:
            raise DatasetError(f"{root} holds no category in the MVTec AD layout (<category>/train/good)")

    def training(self, name: str) -> np.ndarray:
        return load_images(mvtec_training(self._root / name), self._preprocessing).pixels

    def test(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        samples = mvtec_test(self._root / name)
        return load_images(samples, self._preprocessing).pixels, np.array(
            [sample.defect is not None for sample in samples]
        )


def _folders(root: Path) -> tuple[str, ...]:
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder")
    return tuple(path.name for path in sub_folders(root)[0])


def _torchvision(name: str) -> Callable[..., Any]:
    from torchvision import datasets  # brings torch's compiler: seconds and 200 MB, which no server should wait for

    reader: Callable[..., Any] = getattr(datasets, name)
    return reader


def _grey(name: str) -> Callable[[Path, str, bool], tuple[np.ndarray, np.ndarray]]:
    def read(root: Path, split: str, download: bool) -> tuple[np.ndarray, np.ndarray]:
        found = _torchvision(name)(root, train=split == "train", download=download)
        return np.repeat(found.data.numpy()[..., None], 3, axis=3), found.targets.numpy()

    return read


def _cifar10(root: Path, split: str, download: bool) -> tuple[np.ndarray, np.ndarray]:
    found = _torchvision("CIFAR10")(root, train=split == "train", download=download)
    return found.data, np.array(found.targets)


def _channels_first(name: str) -> Callable[[Path, str, bool], tuple[np.ndarray, np.ndarray]]:
    def read(root: Path, split: str, download: bool) -> tuple[np.ndarray, np.ndarray]:
        found = _torchvision(name)(root, split=split, download=download)
        return found.data.transpose(0, 2, 3, 1), np.asarray(found.labels)

    return read


@dataclass(frozen=True)
class BenchmarkSet:
    """One of the paper's data sets, and how the paper trains on it (section 4.1).

    Attributes:
        title: as the paper's tables have it.
        image_size: side in pixels.
        epochs: passes over the training images.
        direction_weight: lambda.
        read: torchvision's reader, from root, split and whether to fetch, to images ``[N, H, W, 3]`` and labels
            ``[N]``; None where the set is in the MVTec AD layout.
        classes: in the order of torchvision's labels; for MVTec AD the paper's fifteen, or () for any.
    """

    title: str
    image_size: int
    epochs: int
    direction_weight: float
    read: Callable[[Path, str, bool], tuple[np.ndarray, np.ndarray]] | None
    classes: tuple[str, ...]

    def open(self, root: Path, *, image_size: int | None = None, download: bool = False) -> Source:
        """Finds the set: folders of classes where there is ``root/train``, else torchvision's files; or categories.

        Args:
            root: where it lies.
            image_size: to prepare pictures to; the paper's if None.
            download: let torchvision fetch it.

        Raises:
            DatasetError: if it is not there.
        """
        preprocessing = Preprocessing(image_size or self.image_size)
        if self.read is None:
            return Categories(root, preprocessing, self.classes)
        if (root / "train").is_dir():
            return ClassFolders(root, preprocessing)
        return TorchvisionSet(self.read, self.classes, root, preprocessing, download=download)


_FASHION = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot",
)  # fmt: skip
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_STL10 = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
MVTEC_AD = (
    "bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill", "screw", "tile",
    "toothbrush", "transistor", "wood", "zipper",
)  # fmt: skip

OTHER = "other"
SETS = {
    "mvtec-ad": BenchmarkSet("MVTec AD", 128, 500, 0.1, None, MVTEC_AD),
    "mnist": BenchmarkSet("MNIST", 32, 100, 0.01, _grey("MNIST"), DIGITS),
    "fashion-mnist": BenchmarkSet("Fashion-MNIST", 32, 100, 0.01, _grey("FashionMNIST"), _FASHION),
    "cifar-10": BenchmarkSet("CIFAR-10", 32, 300, 0.01, _cifar10, _CIFAR10),
    "svhn": BenchmarkSet("SVHN", 32, 300, 0.01, _channels_first("SVHN"), DIGITS),
    "stl-10": BenchmarkSet("STL-10", 96, 300, 0.01, _channels_first("STL10"), _STL10),
    OTHER: BenchmarkSet("Other categories", 128, 500, 0.1, None, ()),
}
"""By the name that the command line knows; ``other`` is any folder of categories in the MVTec AD layout."""
