"""Folders of images: the MVTec AD layout, and plain folders named one by one."""

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import overload

import numpy as np

from model.alignment import Found
from model.choices import ANY_NAME
from model.images import SUFFIXES, ImageError
from model.lifecycle.copies import near_copies, pixel_hash
from model.lifecycle.folders import DatasetError as DatasetError
from model.lifecycle.folders import files_below, read_file, sub_folders
from model.lifecycle.masks import MASK_NAMES, MaskFolder, name_key, seem_image_and_mask
from model.lifecycle.remarks import NONE, Kind, Remarks, remark
from model.preprocessing import Preprocessing
from model.quality import Look, look_of
from model.text import readable

GOOD = "good"
GROUND_TRUTH = "ground_truth"


class MasksAmongImagesError(DatasetError):
    """Masks seem to lie among the images of a folder."""


@dataclass(frozen=True)
class Sample:
    """One image file. ``defect`` is None for a normal part, ``mask`` is None where there is no ground truth."""

    path: Path
    defect: str | None = None
    mask: Path | None = None


@dataclass(frozen=True)
class Listing(Sequence[Sample]):
    """The images that were found, in a fixed order, and what was left out."""

    samples: tuple[Sample, ...] = ()
    remarks: Remarks = NONE

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Sample, ...]: ...
    def __getitem__(self, index: int | slice) -> Sample | tuple[Sample, ...]:
        return self.samples[index]

    def __add__(self, other: "Listing") -> "Listing":
        return Listing(self.samples + other.samples, self.remarks + other.remarks)


@dataclass(frozen=True)
class LoadedImages:
    """Images ready for a detector, in the order of ``samples``; what could not be read is not among them.

    Attributes:
        samples: where each came from.
        pixels: their views one after the other, uint8 RGB ``[N * V, size, size, 3]``; most categories have V = 1, see
            `model.preprocessing.Preprocessing`.
        masks: where the views count, bool ``[N * V, size, size]``; None where they count everywhere.
        digests: SHA-256 of each file, hexadecimal.
        shapes: height and width of each image before it was prepared, upright.
        remarks: what was left out.
        copies: digests of other files that have the pixels of each, where `unique` dropped them.
        poses: of their parts; None where pictures are not aligned.
    """

    samples: list[Sample]
    pixels: np.ndarray
    masks: np.ndarray | None
    digests: list[str]
    shapes: list[tuple[int, int]]
    remarks: Remarks
    copies: list[tuple[str, ...]]
    poses: list[Found | None]

    def seen_as(self, index: int) -> tuple[str, ...]:
        """The digests of all files that show the image at this position."""
        return self.digests[index], *self.copies[index]

    @property
    def views(self) -> int:
        """V, how many views each has."""
        return len(self.pixels) // len(self.samples) if self.samples else 1

    def looks(self) -> list[Look]:
        """The plain measures of each."""
        v = self.views
        found = []
        for start, (height, width) in zip(range(0, len(self.pixels), v), self.shapes, strict=True):
            of_views = slice(start, start + v)
            masks = None if self.masks is None else self.masks[of_views]
            found.append(look_of(self.pixels[of_views], width / height, masks))
        return found

    @property
    def stacked(self) -> np.ndarray:
        """The views of each image one below the other, uint8 RGB ``[N, V * size, size, 3]``."""
        return self.pixels.reshape(len(self.samples), -1, *self.pixels.shape[2:])


def list_images(folder: Path, pattern: str = ANY_NAME) -> tuple[list[Path], Remarks]:
    """The image files in a folder and below it, sorted by path, and what was left out.

    Links are followed; hidden and system files and folders are left out, and so are files that are no images by their
    suffix.

    Args:
        folder: where to look.
        pattern: what the name of a file must match, such as ``*.jpg``; small and capital letters are the same.

    Raises:
        DatasetError: if the folder does not exist or holds no such image, or masks seem to lie among the images.
        OSError: if a folder cannot be read.
    """
    if not folder.is_dir():
        raise DatasetError(f"{readable(folder)} is not a folder")
    found = files_below(folder)
    images = [path for path in found.files if path.suffix.lower() in SUFFIXES]
    remarks = found.remarks + remark(
        Kind.OTHER_TYPE, *(path for path in found.files if path.suffix.lower() not in SUFFIXES)
    )
    paths = [path for path in images if _matches(path.name, pattern)]
    remarks += remark(Kind.OTHER_NAME, *(path for path in images if not _matches(path.name, pattern)))
    if not paths:
        matching = "" if pattern == ANY_NAME else f" whose name matches {pattern!r}"
        instead = "; ".join(remarks.lines())
        raise DatasetError(
            f"{readable(folder)} holds no image{matching} ({', '.join(sorted(SUFFIXES))})"
            + (f"; {instead}" if instead else "")
        )
    _refuse_masks(paths)
    return paths, remarks


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(*(unicodedata.normalize("NFC", one).lower() for one in (name, pattern)))


def _refuse_masks(paths: Sequence[Path]) -> None:
    """Raises `MasksAmongImagesError` if two images of a folder have the names of an image and its mask."""
    by_name: dict[tuple[Path, str], Path] = {}
    for path in paths:
        name, _ = name_key(path.stem)
        other = by_name.setdefault((path.parent, name), path)
        if other is not path and seem_image_and_mask(other, path):
            raise MasksAmongImagesError(
                f"{readable(other)} and {readable(path.name)} seem to be an image and its mask, and masks would be "
                "taken for images; keep masks in a folder of their own"
            )


def normal_samples(folder: Path, pattern: str = ANY_NAME) -> Listing:
    """Every image of a folder as a normal part; see `list_images`."""
    paths, remarks = list_images(folder, pattern)
    return Listing(tuple(map(Sample, paths)), remarks)


def anomalous_samples(folder: Path, masks: Path | None = None, pattern: str = ANY_NAME) -> Listing:
    """Every image of a folder as a defective part; its defect is the name of the sub-folder it lies in, if any.

    Args:
        folder: the images.
        masks: a folder with the same sub-folders and one mask for each image, see `model.lifecycle.masks.MASK_NAMES`;
            it may be the folder of the images.
        pattern: see `list_images`.

    Raises:
        DatasetError: see `list_images`; or if there is no mask for any of the images in a folder of masks.
        OSError: if a folder cannot be read.
    """
    paths, remarks = list_images(folder, pattern)

    def defect(path: Path) -> str:
        inside = path.relative_to(folder)
        return readable(inside.parts[0] if len(inside.parts) > 1 else folder.name)

    if masks is None:
        return Listing(tuple(Sample(path, defect(path)) for path in paths), remarks)
    of_images = MaskFolder(masks)
    mask_of = {path: of_images.mask_of(path, path.relative_to(folder)) for path in paths}
    if not any(mask_of.values()):
        raise _no_mask(of_images, folder, paths[0])
    remarks = remarks.without(Kind.OTHER_NAME, mask_of.values()) + of_images.unused(paths)
    return Listing(tuple(Sample(path, defect(path), mask_of[path]) for path in paths), remarks)


def _no_mask(masks: MaskFolder, folder: Path, image: Path) -> DatasetError:
    inside = image.relative_to(folder)
    return DatasetError(
        f"{readable(masks.folder)} holds no mask for any image of {readable(folder)}; that of {readable(inside.name)} "
        f"should be {readable(masks.folder / inside.parent)}/{readable(inside.stem)}_mask.png. {MASK_NAMES}"
    )


def mvtec_training(root: Path) -> Listing:
    """``root/train/good`` of a category in the MVTec AD layout."""
    return normal_samples(root / "train" / "good")


def mvtec_test(root: Path, *, with_masks: bool = True) -> Listing:
    """``root/test/good`` and ``root/test/<defect>``, with the masks of ``root/ground_truth`` where there are any.

    Args:
        root: the category.
        with_masks: look for masks; who needs none is not refused because of them.

    Raises:
        DatasetError: if there is no test folder, or nothing in it; or if a folder of masks holds none for any image of
            its defect.
        OSError: if a folder cannot be read.
    """
    test = root / "test"
    if not test.is_dir():
        raise DatasetError(f"{readable(root)} is not in the MVTec AD layout: it has no folder 'test'")
    folders, remarks = sub_folders(test)
    listing = Listing((), remarks)
    masks = _ground_truth(root) if with_masks else None
    for folder in folders:
        if folder.name == GOOD:
            listing += normal_samples(folder)
            continue
        paths, remarks = list_images(folder)
        mask_of = {path: masks.mask_of(path, path.relative_to(test)) if masks else None for path in paths}
        if masks and not any(mask_of.values()) and masks.has_folder(folder.name):
            raise _no_mask(masks, test, paths[0])
        listing += Listing(tuple(Sample(path, readable(folder.name), mask_of[path]) for path in paths), remarks)
    if not listing:
        raise DatasetError(f"{readable(test)} holds no folder of images")
    if not masks:
        return listing
    images = [sample.path for sample in listing if sample.defect is not None]
    remarks = masks.unused(images)
    if images and remarks.of(Kind.UNUSED_MASK) and not any(sample.mask for sample in listing):
        raise _no_mask(masks, test, images[0])
    return listing + Listing((), remarks)


def _ground_truth(root: Path) -> MaskFolder | None:
    """The masks of a category, without those of good parts, which mark nothing."""
    for folder in sorted(path for path in root.iterdir() if path.name.lower() == GROUND_TRUTH and path.is_dir()):
        return MaskFolder(folder, without=GOOD)
    return None


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
    poses: list[Found | None] = []
    masks: list[np.ndarray | None] = []
    digests: list[str] = []
    shapes: list[tuple[int, int]] = []
    unreadable: list[str] = []
    for sample in samples:
        try:
            data = read_file(sample.path)
            if not data:
                raise ImageError("the file is empty")
            photograph = preprocessing.read(data)
            prepared, pose = preprocessing.prepare(photograph)
        except (ImageError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            unreadable.append(f"{readable(sample.path)}: {reason}")
            continue
        pixels.append(prepared)
        poses.append(pose)
        masks.append(preprocessing.layout(photograph.width, photograph.height).masks)
        shapes.append((photograph.height, photograph.width))
        digests.append(hashlib.sha256(data).hexdigest())
        kept.append(sample)
    if unreadable and not skip_unreadable:
        raise DatasetError("cannot read " + "; ".join(unreadable))
    if not kept:
        raise DatasetError("none of the images can be read: " + "; ".join(unreadable))
    remarks = remark(Kind.UNREADABLE, *unreadable)
    of_views = None
    if any(mask is not None for mask in masks):
        everywhere = np.ones(pixels[0].shape[:3], bool)
        of_views = np.concatenate([everywhere if mask is None else mask for mask in masks])
    return LoadedImages(kept, np.concatenate(pixels), of_views, digests, shapes, remarks, [()] * len(kept), poses)


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
    """Drops images whose file, or whose prepared pixels, came before, and remarks on them.

    A picture that was saved again in another format, or by another program, has the same pixels in another file. Saved
    again with losses it has nearly the same; such images are kept and remarked on.
    """
    copies: dict[int, list[str]] = {}
    dropped: dict[Kind, list[str]] = {Kind.SAME_CONTENT: [], Kind.SAME_PIXELS: []}
    by_digest: dict[str, int] = {}
    by_pixels: dict[bytes, int] = {}
    for index, digest in enumerate(images.digests):
        of_pixels = pixel_hash(images.stacked[index])
        known = digest in by_digest
        first = by_digest.setdefault(digest, by_pixels.setdefault(of_pixels, index))
        if first == index:
            copies[index] = []
            continue
        if not known:
            copies[first].append(digest)
        dropped[Kind.SAME_CONTENT if known else Kind.SAME_PIXELS].append(
            f"{readable(images.samples[index].path)} = {readable(images.samples[first].path)}"
        )
    once = pick(images, copies)
    remarks = sum((remark(kind, *files) for kind, files in dropped.items()), images.remarks)
    remarks += remark(Kind.NEAR_COPY, *(once.samples[index].path for index in near_copies(once.stacked)))
    return replace(once, copies=[tuple(of_one) for of_one in copies.values()], remarks=remarks)


def pick(images: LoadedImages, indices: Iterable[int]) -> LoadedImages:
    """The images at these positions."""
    chosen = list(indices)
    of_views = [view for index in chosen for view in range(index * images.views, (index + 1) * images.views)]
    return LoadedImages(
        [images.samples[index] for index in chosen],
        images.pixels[of_views],
        None if images.masks is None else images.masks[of_views],
        [images.digests[index] for index in chosen],
        [images.shapes[index] for index in chosen],
        images.remarks,
        [images.copies[index] for index in chosen],
        [images.poses[index] for index in chosen],
    )


def aligned(images: LoadedImages) -> LoadedImages:
    """Drops images whose part was looked for and not found, and remarks on them.

    Raises:
        DatasetError: if these are more than half.
    """
    kept = [index for index, pose in enumerate(images.poses) if pose is None or pose.aligned]
    lost = [sample.path for index, sample in enumerate(images.samples) if index not in set(kept)]
    if 2 * len(lost) > len(images.samples):
        raise DatasetError(
            f"{len(lost)} of {len(images.samples)} images cannot be aligned with the reference picture (first: "
            f"{readable(lost[0])}); take another reference, another way to align, or none"
        )
    remarks = images.remarks + remark(Kind.NOT_ALIGNED, *lost)
    return replace(pick(images, kept), remarks=remarks)


def refuse_two_labels(good: LoadedImages, bad: LoadedImages) -> None:
    """Raises `DatasetError` if an image, by its prepared pixels, is given both as normal and as anomalous."""
    anomalous = {pixel_hash(pixels): sample for pixels, sample in zip(bad.stacked, bad.samples, strict=True)}
    both = [
        (sample, anomalous[of_pixels])
        for pixels, sample in zip(good.stacked, good.samples, strict=True)
        if (of_pixels := pixel_hash(pixels)) in anomalous
    ]
    if both:
        first = " and ".join(readable(sample.path) for sample in both[0])
        raise DatasetError(f"{len(both)} images are given both as normal and as anomalous (first: {first})")
