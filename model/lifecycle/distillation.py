"""Trains a student: Adam on the distillation loss, against teacher features that are computed once."""

import copy
import hashlib
import io
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.choices import Schedule
from model.detector import BEST_BATCH
from model.lifecycle.recipe import FEATURE_MEMORY_BYTES, Recipe, TrainingError
from model.memory import images_at_once
from model.networks.vgg import Student, Teacher, student_plan
from model.preprocessing import as_input
from model.score import distillation_score, distillation_terms
from model.store.files import replace_file

MINIMUM_IMAGES = 8
CHECKPOINT_SECONDS = 60.0


class DivergedError(TrainingError):
    """The loss or the scores are no longer finite."""


class TrainingInterrupted(Exception):
    """Training was stopped after this many epochs; the checkpoint holds all of them."""

    def __init__(self, epochs_done: int) -> None:
        super().__init__(f"stopped after {epochs_done} epochs")
        self.epochs_done = epochs_done


@dataclass(frozen=True)
class Epoch:
    """One finished pass: its number from 1 and the mean loss per image."""

    number: int
    loss: float


def teacher_features(
    teacher: Teacher,
    pixels: np.ndarray,
    *,
    device: torch.device | str = "cpu",
    memory_bytes: int = FEATURE_MEMORY_BYTES,
    spill_folder: Path | None = None,
) -> list[Tensor]:
    """The teacher's maps of all images, computed once.

    They stay in memory up to ``memory_bytes``; beyond that each layer is a memory-mapped file in ``spill_folder``
    (the system's temporary folder if None). The files have no name, so they are gone when the tensors are, even
    if the process is killed.

    Args:
        teacher: the teacher T.
        pixels: uint8 RGB ``[N, H, W, 3]``.
        device: where to run the teacher.
        memory_bytes: how much memory the maps may take.
        spill_folder: where to put what does not fit.

    Returns:
        One float32 tensor ``[N, C_i, H_i, W_i]`` for each layer, on the CPU.
    """
    teacher = teacher.to(device).to(memory_format=torch.channels_last)
    batch_size = images_at_once(BEST_BATCH[torch.device(device).type], max(pixels.shape[1:3]))
    layers: list[Tensor] = []
    with torch.no_grad():
        for start in range(0, len(pixels), batch_size):
            batch = torch.from_numpy(pixels[start : start + batch_size])
            maps = [taps.cpu() for taps in teacher(as_input(batch.to(device)))]
            if not layers:
                shapes = [(len(pixels), *taps.shape[1:]) for taps in maps]
                total = sum(4 * int(np.prod(shape)) for shape in shapes)
                if total <= memory_bytes:  # in the layout that the student's maps will have
                    layers = [torch.empty(shape, memory_format=torch.channels_last) for shape in shapes]
                else:
                    layers = [_mapped(shape, spill_folder) for shape in shapes]
            for layer, taps in zip(layers, maps, strict=True):
                layer[start : start + len(taps)] = taps
    return layers


def _mapped(shape: Sequence[int], folder: Path | None) -> Tensor:
    n, c, h, w = shape
    with tempfile.TemporaryFile(dir=folder, prefix="teacher-features-") as file:
        return torch.from_numpy(np.memmap(file, dtype=np.float32, mode="w+", shape=(n, h, w, c))).permute(0, 3, 1, 2)


def student_of(teacher: Teacher, recipe: Recipe) -> Student:
    """The paper's student for a teacher, not trained yet."""
    return Student(student_plan(teacher.plan), weigh_distillation_layers=recipe.weigh_distillation_layers)


def train(
    teacher: Teacher,
    pixels: np.ndarray,
    recipe: Recipe,
    *,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    memory_bytes: int = FEATURE_MEMORY_BYTES,
    spill_folder: Path | None = None,
    features: Sequence[Tensor] | None = None,
    build: Callable[[Teacher, Recipe], Student] = student_of,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> tuple[Student, list[float]]:
    """Trains a student on normal images.

    The order of the images depends on the seed and the epoch alone, and the learning rate on the step and their number,
    so a run that is stopped and resumed with as many epochs ends with the same student as one that is not.

    Args:
        teacher: the frozen teacher; its plan shapes the student's.
        pixels: uint8 RGB ``[N, size, size, 3]`` of normal parts, N >= 1, size as the recipe has it.
        recipe: how to train.
        device: where to train.
        checkpoint: file to keep progress in, every minute, when interrupted and at the end. If it exists training
            goes on from there. The caller removes it when the student is safe.
        memory_bytes: see `teacher_features`.
        spill_folder: see `teacher_features`.
        features: the `teacher_features` of these images, where they are known already.
        build: makes the student; its first weights are drawn under the recipe's seed.
        on_epoch: called after each epoch.

    Returns:
        The student in evaluation mode on the CPU, and the mean loss of each epoch.

    Raises:
        TrainingError: if the checkpoint belongs to other images, another teacher or another recipe, or has more epochs
            than the recipe.
        DivergedError: if the loss is no longer finite.
        TrainingInterrupted: after Ctrl-C.
    """
    torch.manual_seed(recipe.seed)
    student = build(teacher, recipe).to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(student.parameters(), lr=recipe.learning_rate)
    identity = _identity(teacher, pixels, recipe)
    losses: list[float] = []
    if checkpoint is not None and checkpoint.exists():
        losses = _restore(checkpoint, identity, student, optimizer)
        if len(losses) > recipe.epochs:
            raise TrainingError(
                f"the checkpoint {checkpoint} has {len(losses)} epochs already, {recipe.epochs} are asked for; ask for "
                "more to go on"
            )
    images = torch.from_numpy(pixels)
    state = _snapshot(identity, student, optimizer, losses)
    try:
        if features is None:
            features = teacher_features(
                teacher, pixels, device=device, memory_bytes=memory_bytes, spill_folder=spill_folder
            )
        saved = time.monotonic()
        student.train()
        steps = math.ceil(len(images) / recipe.batch_size)  # of an epoch
        while len(losses) < recipe.epochs:
            order = torch.randperm(
                len(images), generator=torch.Generator().manual_seed(recipe.seed * 1_000_003 + len(losses))
            )
            total = torch.zeros((), device=device)
            for step, batch in enumerate(order.split(recipe.batch_size), len(losses) * steps):
                for group in optimizer.param_groups:
                    group["lr"] = recipe.rate_at(step, recipe.epochs * steps)
                student_maps = student(as_input(images[batch].to(device)))
                teacher_maps = [layer[batch].to(device) for layer in features]
                scores = distillation_score(distillation_terms(teacher_maps, student_maps), recipe.term_weights)
                optimizer.zero_grad()
                scores.mean().backward()
                optimizer.step()
                total += scores.detach().sum()
            loss = float(total) / len(images)
            if not np.isfinite(loss):
                raise DivergedError(f"the loss is {loss} after {len(losses)} epochs; try a smaller learning rate")
            losses.append(loss)
            state = _snapshot(identity, student, optimizer, losses)
            if checkpoint is not None and time.monotonic() - saved > CHECKPOINT_SECONDS:
                _save(state, checkpoint)
                saved = time.monotonic()
            on_epoch(Epoch(len(losses), loss))
        if checkpoint is not None:  # whatever fails afterwards need not train again
            _save(state, checkpoint)
    except KeyboardInterrupt:
        if checkpoint is not None:
            _save(state, checkpoint)
        raise TrainingInterrupted(len(state["losses"])) from None
    return student.cpu().eval(), losses


def _identity(teacher: Teacher, pixels: np.ndarray, recipe: Recipe) -> dict[str, Any]:
    """What a checkpoint must have in common with the run that goes on from it. More epochs are welcome."""
    fields = {name: value for name, value in asdict(recipe).items() if name != "epochs"}
    plain = {name: value.value if isinstance(value, Enum) else value for name, value in fields.items()}
    first = next(teacher.parameters()).detach().cpu().contiguous().numpy()
    return {
        **plain,
        "images": hashlib.sha256(pixels.tobytes()).hexdigest(),
        "teacher": hashlib.sha256(first.tobytes()).hexdigest(),
    }


def _snapshot(
    identity: dict[str, Any], student: Student, optimizer: torch.optim.Optimizer, losses: list[float]
) -> dict[str, Any]:
    return copy.deepcopy(
        {"identity": identity, "student": student.state_dict(), "optimizer": optimizer.state_dict(), "losses": losses}
    )


def _save(state: dict[str, Any], checkpoint: Path) -> None:
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    torch.save(state, content)
    replace_file(checkpoint, content.getvalue())


def _restore(
    checkpoint: Path, identity: dict[str, Any], student: Student, optimizer: torch.optim.Optimizer
) -> list[float]:
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        # A checkpoint of an older version lacks what a recipe could not choose then.
        known = asdict(Recipe(schedule=Schedule.CONSTANT)) | state["identity"]
        differing = [name for name in identity if known.get(name) != identity[name]]
        if differing:
            raise TrainingError(f"{checkpoint} is of a run with other {', '.join(differing)}; delete it to start again")
        student.load_state_dict(state["student"])
        optimizer.load_state_dict(state["optimizer"])
        return list(state["losses"])
    except TrainingError:
        raise
    except Exception:  # a damaged file fails in many ways inside torch
        raise TrainingError(
            f"cannot read the checkpoint {checkpoint}: it is damaged; delete it to start again"
        ) from None
