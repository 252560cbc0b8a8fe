"""``teacher fetch``, ``teacher pretrain`` and ``teacher distil``."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model.choices import IMAGENET
from model.text import json_text
from service.cli.errors import UsageError
from service.cli.options import Device, Teachers, Weights, torch_device
from service.settings import read_settings

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from model.networks.vgg import Plan, Teacher


Widths = Annotated[str, typer.Option(help="Channels of the five stages; VGG16 has 64,128,256,512,512.")]
NARROW = "24,48,96,192,192"
Source = Annotated[
    str, typer.Option(help="Origin and licence of what the teacher learns from; stored in the teacher's record.")
]


def fetch(
    source: Annotated[
        Path | None, typer.Option("--from", help="Import the weights from this file (.pth or .safetensors) instead.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name to keep it under.")] = IMAGENET,
    weights: Weights = None,
    teachers: Teachers = None,
) -> None:
    """Download torchvision's VGG16 for ImageNet (528 MB), or import a file; keeps only the feature layers (59 MB)."""
    from model.store.teachers import fingerprint, imagenet_teacher, read_teacher, save_teacher, teacher_path

    if source is None and name != IMAGENET:
        raise UsageError("a teacher with another name must come from a file: give --from")
    folder = read_settings(weights=weights, teachers=teachers).teachers_folder
    path = teacher_path(folder, name)
    was_there = path.exists()
    if source is None:
        teacher = imagenet_teacher(folder)
    else:
        teacher = read_teacher(source)
        save_teacher(teacher, folder, name)
    typer.echo(f"{path}{' already exists' if was_there else ''}: SHA-256 of its weights {fingerprint(teacher)}")


def pretrain(
    name: Annotated[str, typer.Argument(help="Name to keep it under.")],
    data: Annotated[Path, typer.Option(help="Folder with one sub-folder of images for each class.")],
    epochs: Annotated[int, typer.Option(min=1)] = 7,
    widths: Widths = NARROW,
    image_size: Annotated[int, typer.Option(min=32, help="Side in pixels.")] = 32,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    source: Source = "",
    weights: Weights = None,
    teachers: Teachers = None,
    device: Device = None,
) -> None:
    """Pretrain a narrow VGG16 on images sorted into classes, for machines without ImageNet weights."""
    from tqdm import tqdm

    from model.lab import pretraining

    settings = read_settings(weights=weights, teachers=teachers, device=device)
    used_device = torch_device(settings.device)
    folder = settings.teachers_folder
    plan = _plan(folder, name, widths)
    images, labels, classes = _class_folders(data, image_size)
    with tqdm(unit="step", desc=name, dynamic_ncols=True) as bar:

        def on_step(step: int, steps: int, loss: float) -> None:
            bar.total = steps
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update(step - bar.n)

        started = datetime.now(UTC)
        teacher, accuracy = pretraining.pretrain(
            images,
            labels,
            plan,
            epochs=epochs,
            seed=seed,
            device=used_device,
            on_step=on_step,
        )
    record: dict[str, object] = {
        "source": source,
        "images": len(images),
        "classes": classes,
        "image_size": image_size,
        "epochs": epochs,
        "seed": seed,
        "held_out_share": pretraining.HELD_OUT_SHARE,
        "held_out_top1_accuracy": accuracy,
    }
    path = _save(folder, name, teacher, record, device=str(used_device), started=started)
    typer.echo(f"{path}: top-1 accuracy {accuracy:.3f} on the held-out share")


def distil(
    name: Annotated[str, typer.Argument(help="Name to keep it under.")],
    full: Annotated[str, typer.Option("--from", help="The full teacher: a name, or a file of VGG16 weights.")],
    pictures: Annotated[list[Path], typer.Option(help="Folder of any images. Repeatable; all folders weigh the same.")],
    start: Annotated[
        str | None,
        typer.Option(help="Narrow teacher to start from: a name or a file. Default: random weights, of --widths."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps, each with 16 images.")] = 1200,
    widths: Widths = NARROW,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    source: Source = "",
    weights: Weights = None,
    teachers: Teachers = None,
    device: Device = None,
) -> None:
    """Distil a full teacher into a narrow one on any images, for machines without ImageNet weights."""
    from tqdm import tqdm

    from model.lab.compression import BATCH
    from model.lab.compression import distil as distil_teacher
    from model.lab.pictures import Pictures
    from model.store.teachers import fingerprint

    settings = read_settings(weights=weights, teachers=teachers, device=device)
    used_device = torch_device(settings.device)
    folder = settings.teachers_folder
    plan = _plan(folder, name, widths)
    full_teacher = _teacher(folder, full)
    first = _teacher(folder, start) if start else None
    groups = [_pictures(one) for one in pictures]
    started = datetime.now(UTC)
    with tqdm(unit="step", desc=name, total=steps, dynamic_ncols=True) as bar:

        def on_step(step: int, losses: "Tensor") -> None:
            bar.set_postfix(cosine=" ".join(f"{value:.3f}" for value in losses[:, 0].tolist()), refresh=False)
            bar.update()

        teacher = distil_teacher(
            full_teacher,
            first or plan,
            Pictures(groups, seed=seed),
            steps=steps,
            seed=seed,
            device=used_device,
            on_step=on_step,
        )
    record: dict[str, object] = {
        "source": source,
        "full_teacher_sha256": fingerprint(full_teacher),
        "started_from_sha256": fingerprint(first) if first else None,
        "pictures": [len(group) for group in groups],
        "steps": steps,
        "batch_size": BATCH,
        "seed": seed,
    }
    typer.echo(_save(folder, name, teacher, record, device=str(used_device), started=started))


def _teacher(folder: Path, name_or_file: str) -> "Teacher":
    """A teacher of the folder, or from a file, which is not copied into the folder: no student learns from it."""
    from model.store.teachers import read_teacher, resolve_teacher

    path = Path(name_or_file)
    return read_teacher(path) if path.is_file() else resolve_teacher(folder, name_or_file)[1]


def _plan(folder: Path, name: str, widths: str) -> "Plan":
    """The plan of a new teacher.

    Raises:
        UsageError: if the name is taken, or the widths are not five numbers.
        TeacherError: if the name or the widths are invalid.
    """
    from model.networks.vgg import vgg16_plan
    from model.store.teachers import check_plan, teacher_path

    path = teacher_path(folder, name)
    if path.exists():
        raise UsageError(f"{path} exists and students may depend on it; choose another name")
    try:
        a, b, c, d, e = (int(width) for width in widths.split(","))
    except ValueError:
        raise UsageError(f"--widths must be five numbers, got {widths!r}") from None
    plan = vgg16_plan((a, b, c, d, e))
    check_plan(name, plan)
    return plan


def _save(
    folder: Path, name: str, teacher: "Teacher", record: dict[str, object], *, device: str, started: datetime
) -> Path:
    """Saves a new teacher, and its record in the same folder. Returns the path of the teacher."""
    import torch

    from model.store.files import replace_file
    from model.store.teachers import fingerprint, save_teacher, teacher_path

    save_teacher(teacher, folder, name)
    path = teacher_path(folder, name)
    convolutions = [step for step in teacher.plan if step != "M"]
    whole = {
        "name": name,
        "sha256": fingerprint(teacher),
        "widths": [convolutions[index] for index in (1, 3, 6, 9, 12)],
        **record,
        "torch": torch.__version__,
        "device": device,
        "seconds": round((datetime.now(UTC) - started).total_seconds()),
        "date": started.date().isoformat(),
    }
    replace_file(path.with_suffix(".json"), json_text(whole, indent=2).encode() + b"\n")
    return path


def _pictures(folder: Path) -> list["np.ndarray"]:
    """All readable images in a folder and its sub-folders."""
    from model.images import read_image
    from model.lifecycle.datasets import normal_samples
    from service.cli.samples import report

    listing = normal_samples(folder)
    report(listing.remarks)
    return [read_image(sample.path) for sample in listing]


def _class_folders(root: Path, image_size: int) -> tuple["Tensor", "Tensor", int]:
    import torch

    from model.lifecycle import datasets
    from model.lifecycle.datasets import DatasetError
    from model.lifecycle.folders import sub_folders
    from model.preprocessing import Preprocessing
    from service.cli.samples import report

    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder")
    classes, remarks = sub_folders(root)
    if len(classes) < 2:
        raise DatasetError(f"{root} needs at least two sub-folders, one per class, with images")
    listings = [datasets.normal_samples(folder) for folder in classes]
    report(sum((listing.remarks for listing in listings), remarks))
    samples = [(sample, label) for label, listing in enumerate(listings) for sample in listing]
    images = datasets.load_images([sample for sample, _ in samples], Preprocessing(image_size))
    return torch.from_numpy(images.pixels), torch.tensor([label for _, label in samples]), len(classes)
