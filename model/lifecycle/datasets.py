"""Folders of images: the MVTec AD layout, and plain folders named one by one."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import cv2
import numpy as np

from model.choices import ANY_NAME
from model.errors import ExpectedError
from model.images import SUFFIXES, ImageError, decode_image
from model.preprocessing import Preprocessing


class DatasetError(ExpectedError):
    """A folder does not hold what was asked of it; the message says what is missing."""


class MasksAmongImagesError(DatasetError):
    """Masks seem to lie among the images of a folder."""


@dataclass(frozen=True)
class Sample:
    """One image file. ``defect`` is None for a normal part, ``mask`` is None where there is no ground truth."""

    path: Path
    defect: str | None = None
    mask: Path | None = None


@dataclass(frozen=True)
class LoadedImages:
    """Images ready for a detector, in the order of ``samples``; what could not be read is not among them.

    Attributes:
        samples: where each came from.
        pixels: uint8 RGB ``[N, size, size, 3]``.
        digests: SHA-256 of each file, hexadecimal.
        unreadable: one message for each file left out.
    """

    samples: list[Sample]
    pixels: np.ndarray
    digests: list[str]
    unreadable: list[str]


def list_images(folder: Path, pattern: str = ANY_NAME) -> list[Path]:
    """The image files in a folder and below it, sorted by path; hidden files are passed over.

    Args:
        folder: where to look.
        pattern: what the name of a file must match, such as ``*.jpg``.

    Raises:
        DatasetError: if the folder does not exist or holds no such image, or masks seem to lie beside the images.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder")
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not path.name.startswith(".")
        and fnmatchcase(path.name, pattern)
        and path.is_file()
    )
    if not paths:
        matching = "" if pattern == ANY_NAME else f" whose name matches {pattern!r}"
        raise DatasetError(f"{folder} holds no image{matching} ({', '.join(sorted(SUFFIXES))})")
    _refuse_masks(paths)
    return paths


def _refuse_masks(paths: Sequence[Path]) -> None:
    """A mask is told by its name, ``NAME_mask.*`` or ``NAME.*`` of another kind, beside an image ``NAME.*``."""
    by_name: dict[tuple[Path, str], Path] = {}
    for path in paths:
        other = by_name.setdefault((path.parent, path.stem.removesuffix("_mask")), path)
        if other is not path:
            raise MasksAmongImagesError(
                f"{other} and {path.name} seem to be an image and its mask, and masks would be taken for images; keep "
                "masks in a folder of their own"
            )


def normal_samples(folder: Path, pattern: str = ANY_NAME) -> list[Sample]:
    """Every image of a folder as a normal part; see `list_images`."""
    return [Sample(path) for path in list_images(folder, pattern)]


def anomalous_samples(folder: Path, masks: Path | None = None, pattern: str = ANY_NAME) -> list[Sample]:
    """Every image of a folder as a defective part; its defect is the name of the sub-folder it lies in, if any.

    Args:
        folder: the images.
        masks: a folder with the same sub-folders and one ``NAME_mask.png`` or ``NAME.png`` for each ``NAME.*``; it may
            be the folder of the images.
        pattern: see `list_images`.

    Raises:
        DatasetError: see `list_images`; or if there is no mask for any of the images in a folder of masks.
    """
    samples = []
    for path in list_images(folder, pattern):
        inside = path.relative_to(folder)
        defect = inside.parts[0] if len(inside.parts) > 1 else folder.name
        samples.append(Sample(path, defect, _mask_of(path, folder, masks) if masks else None))
    if masks and not any(sample.mask for sample in samples):
        raise DatasetError(
            f"{masks} holds no mask for any image of {folder}; for {samples[0].path.name} it should be "
            f"{(masks / samples[0].path.relative_to(folder)).with_name(samples[0].path.stem + '_mask.png')}"
        )
    return samples


def _mask_of(image: Path, folder: Path, masks: Path) -> Path | None:
    place = masks / image.parent.relative_to(folder)
    for mask in (place / f"{image.stem}_mask.png", place / f"{image.stem}.png"):
        if mask.is_file() and not mask.samefile(image):
            return mask
    return None


def mvtec_training(root: Path) -> list[Sample]:
    """``root/train/good`` of a category in the MVTec AD layout."""
    return normal_samples(root / "train" / "good")


def mvtec_test(root: Path) -> list[Sample]:
    """``root/test/good`` and ``root/test/<defect>``, with the masks of ``root/ground_truth`` where there are any.

    Raises:
        DatasetError: if there is no test folder, or nothing in it.
    """
    test = root / "test"
    if not test.is_dir():
        raise DatasetError(f"{root} is not in the MVTec AD layout: it has no folder 'test'")
    samples: list[Sample] = []
    for folder in sorted(path for path in test.iterdir() if path.is_dir()):
        if folder.name == "good":
            samples += normal_samples(folder)
        else:
            masks = root / "ground_truth" / folder.name
            samples += [Sample(path, folder.name, _mask_of(path, folder, masks)) for path in list_images(folder)]
    if not samples:
        raise DatasetError(f"{test} holds no folder of images")
    return samples


def load_images(
    samples: Sequence[Sample], preprocessing: Preprocessing, *, skip_unreadable: bool = False
) -> LoadedImages:
    """Reads and prepares images.

    Args:
        samples: what to read.
        preprocessing: applied to each.
        skip_unreadable: go on without a file that cannot be read, and report it.

    Raises:
        DatasetError: naming every unreadable file, unless told to skip them; or if none is left.
    """
    kept: list[Sample] = []
    pixels: list[np.ndarray] = []
    digests: list[str] = []
    unreadable: list[str] = []
    for sample in samples:
        try:
            data = sample.path.read_bytes()
            pixels.append(preprocessing.apply(decode_image(data)))
        except (ImageError, OSError) as error:
            unreadable.append(f"{sample.path}: {error.strerror if isinstance(error, OSError) else error}")
            continue
        digests.append(hashlib.sha256(data).hexdigest())
        kept.append(sample)
    if unreadable and not skip_unreadable:
        raise DatasetError("cannot read " + "; ".join(unreadable))
    if not kept:
        raise DatasetError("none of the images can be read: " + "; ".join(unreadable))
    return LoadedImages(kept, np.stack(pixels), digests, unreadable)


def read_mask(path: Path, size: int) -> np.ndarray:
    """A ground-truth mask as boolean ``[size, size]``: any value above half of its own maximum is faulty.

    A fault too thin for the size keeps the pixels that it touches.

    Raises:
        DatasetError: if the file cannot be read.
    """
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise DatasetError(f"cannot read the mask {path}")
    faulty = (mask > mask.max() / 2).astype(np.float32)
    small = cv2.resize(faulty, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
    if not small.any():
        small = cv2.resize(faulty, (size, size), interpolation=cv2.INTER_AREA)
    found: np.ndarray = small > 0
    return found


def split(samples: Sequence[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Splits samples into a share and the rest, at random, each defect (and the normal parts) in proportion.

    Each group gives at least one sample to the share if it has two or more.

    Raises:
        DatasetError: if the share is not strictly between 0 and 1.
    """
    if not 0 < share < 1:
        raise DatasetError(f"the share must lie between 0 and 1, got {share}")
    rng = np.random.default_rng(seed)
    groups: dict[str | None, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.defect, []).append(sample)
    chosen: list[Sample] = []
    rest: list[Sample] = []
    for group in groups.values():
        count = min(max(round(share * len(group)), 1), len(group) - 1)
        order = rng.permutation(len(group))
        chosen += [group[index] for index in sorted(order[:count])]
        rest += [group[index] for index in sorted(order[count:])]
    return chosen, rest


def unique(images: LoadedImages) -> LoadedImages:
    """Drops images whose file content came before."""
    first = sorted({digest: index for index, digest in reversed(list(enumerate(images.digests)))}.values())
    return pick(images, first)


def pick(images: LoadedImages, indices: Iterable[int]) -> LoadedImages:
    """The images at these positions."""
    chosen = list(indices)
    return LoadedImages(
        [images.samples[index] for index in chosen],
        images.pixels[chosen],
        [images.digests[index] for index in chosen],
        images.unreadable,
    )


def refuse_two_labels(good: LoadedImages, bad: LoadedImages) -> None:
    """Raises `DatasetError` if an image is given both as normal and as anomalous."""
    both = set(good.digests) & set(bad.digests)
    if both:
        paths = [str(sample.path) for sample, digest in zip(good.samples, good.digests, strict=True) if digest in both]
        raise DatasetError(f"{len(both)} images are given both as normal and as anomalous (first: {paths[0]})")
