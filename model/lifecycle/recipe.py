"""How to train a student: the values, without what carries them out."""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from model.choices import Align, Bayer, Colour, Level, Light, Schedule, TermWeights
from model.errors import ExpectedError

if TYPE_CHECKING:
    from model.preprocessing import Preprocessing

ENOUGH_STEPS = 500
"""Batches to learn from, at least; with fewer, scores of faults were often no higher than those of good parts."""
RISING = 0.1
"""Share of the steps in which the rate of one cycle rises."""
LOWEST = 0.04
"""What it rises from, as a share of what it rises to."""
FEATURE_MEMORY_BYTES = 4 << 30
"""For the teacher's features of the training images; beyond it they go to a file."""


class TrainingError(ExpectedError):
    """Training cannot start or go on; the message says why."""


@dataclass(frozen=True)
class Recipe:
    """How to train a student. The paper's values are the defaults, except the learning rate and its schedule.

    Attributes:
        image_size: side of the input in pixels; the paper has 128 for MVTec AD.
        epochs: passes over the training images.
        batch_size: images per step.
        learning_rate: of Adam, the largest. The paper says 0.1, which trains far worse on real surfaces.
        schedule: how it changes from step to step. The paper's is constant, as is MKDAD's with its rate of 0.001; on
            parts in any pose, one cycle finds more after as many steps (``benchmarks/accuracy.md``).
        direction_weight: lambda of equation 13.
        squared_weight: of the other term; 1 in the paper.
        weigh_distillation_layers: multiply the student's maps by omega, as equation 13 has it.
        seed: for the student's first weights and the order of the images.
        colour: which channels of the images are read.
        white_level: the largest value of a camera of more than 8 bits, or ``auto``; see `model.lifecycle.preparation`.
        black_level: its value without light, or ``auto``; None is 0. Only with a white level.
        bayer: where the colours are in raw sensor data.
        light: what is done about light that changes.
        align: how pictures are aligned with one of them.

    Raises:
        TrainingError: if a value is out of range.
    """

    image_size: int = 128
    epochs: int = 500
    batch_size: int = 32
    learning_rate: float = 0.003
    schedule: Schedule = Schedule.ONE_CYCLE
    direction_weight: float = 0.1
    squared_weight: float = 1.0
    weigh_distillation_layers: bool = True
    seed: int = 0
    colour: Colour = Colour.RGB
    white_level: Level | None = None
    black_level: Level | None = None
    bayer: Bayer | None = None
    light: Light = Light.NONE
    align: Align = Align.NONE

    def __post_init__(self) -> None:
        if not (self.epochs >= 1 and self.batch_size >= 1 and 0 < self.learning_rate < math.inf):
            raise TrainingError("epochs, batch size and learning rate must be above 0")
        if not (0 <= self.direction_weight < math.inf and 0 <= self.squared_weight < math.inf):
            raise TrainingError("the weights of the score's terms must be at least 0")
        if self.black_level is not None and self.white_level is None:
            raise TrainingError("a black level needs a white level")

    def for_views(self, views: int) -> "Recipe":
        """The same with as many steps where each picture makes so many images for the networks."""
        return replace(self, epochs=math.ceil(self.epochs / views))

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0, of a training of so many.

        One cycle is that of `torch.optim.lr_scheduler.OneCycleLR`, which divides by zero where there are 10 steps.
        """
        if self.schedule is Schedule.CONSTANT:
            return self.learning_rate
        top = max(RISING * steps - 1, 0)
        if step < top:
            share = LOWEST + (1 - LOWEST) * (1 - math.cos(math.pi * step / top)) / 2
        else:
            share = (1 + math.cos(math.pi * (step - top) / max(steps - 1 - top, 1))) / 2
        return self.learning_rate * share

    @property
    def preprocessing(self) -> "Preprocessing":
        """What happens to each image, but for what `model.lifecycle.preparation` takes from the images."""
        from model.preprocessing import Preprocessing  # brings OpenCV

        return Preprocessing(self.image_size, self.colour, bayer=self.bayer)

    @property
    def term_weights(self) -> TermWeights:
        """The weights of the score's two terms."""
        return TermWeights(self.squared_weight, self.direction_weight)
