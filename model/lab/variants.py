"""The paper's ablations (section 4.3) and what else they need: experiments. No category is served with them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.choices import Schedule
from model.lab.choices import DEFAULT
from model.lifecycle.recipe import Recipe
from model.networks.attention import ECA
from model.networks.vgg import Layers, Student, Teacher, relu, student_plan

SE_REDUCTION = 16
SCSE_REDUCTION = 2
DY_RELU_REDUCTION = 8


class SE(nn.Module):
    """Squeeze and excitation (Hu et al., 2018; equation 12): ``[N, C, H, W]`` to the same shape, channels weighed."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // SE_REDUCTION)
        self.weights = nn.Sequential(
            nn.Linear(channels, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, channels, bias=False), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        weighed: Tensor = x * self.weights(x.mean(dim=(2, 3)))[:, :, None, None]
        return weighed


class ScSE(nn.Module):
    """Concurrent spatial and channel squeeze and excitation (Roy et al., 2018): the larger of both, element by element.

    Maps ``[N, C, H, W]`` to the same shape.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // SCSE_REDUCTION)
        self.of_channels = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid()
        )
        self.of_places = nn.Sequential(nn.Conv2d(channels, 1, kernel_size=1, bias=False), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        by_channel = x * self.of_channels(x.mean(dim=(2, 3)))[:, :, None, None]
        return torch.maximum(by_channel, x * self.of_places(x))


class DyReLU(nn.Module):
    """Dynamic ReLU, form B (Chen et al., 2020; equation 11): the larger of two lines, chosen by image and channel.

    ``y = max(a1 x + b1, a2 x + b2)`` with ``a1 = 1 + t``, ``a2 = t``, ``b = t / 2``, each t in (-1, 1) from the pooled
    image: at t = 0 it is ReLU. Maps ``[N, C, H, W]`` to the same shape.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // DY_RELU_REDUCTION)
        self.coefficients = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, 4 * channels))

    def forward(self, x: Tensor) -> Tensor:
        t = torch.tanh(self.coefficients(x.mean(dim=(2, 3))) / 2)  # = 2 sigmoid - 1
        a1, a2, b1, b2 = t[:, :, None, None].chunk(4, dim=1)
        return torch.maximum((1 + a1) * x + b1 / 2, a2 * x + b2 / 2)


@dataclass(frozen=True)
class Variant:
    """One configuration of student and training; the defaults are the paper's ECA-MKDAD as this project trains it.

    Attributes:
        title: for tables; the paper's own name where it has one.
        between: what follows a convolution that another one follows.
        before_pool: what follows a convolution right before a max-pool.
        full_width: every convolution as wide as the teacher's.
        weigh_distillation_layers: multiply the compared maps by omega.
        lambda_on_squared: lambda weighs the squared term of equation 13 in place of the direction term.
        learning_rate: of Adam, the same at every step, as the paper has it.
    """

    title: str
    between: Layers = (nn.BatchNorm2d, ECA)
    before_pool: Layers = (relu,)
    full_width: bool = False
    weigh_distillation_layers: bool = True
    lambda_on_squared: bool = False
    learning_rate: float = 0.001

    def build(self, teacher: Teacher, recipe: Recipe) -> Student:
        """This variant's student for a teacher, not trained yet."""
        return Student(
            teacher.plan if self.full_width else student_plan(teacher.plan),
            weigh_distillation_layers=recipe.weigh_distillation_layers,
            between=self.between,
            before_pool=self.before_pool,
        )

    def recipe(
        self, *, image_size: int, epochs: int, direction_weight: float, seed: int, batch_size: int = Recipe.batch_size
    ) -> Recipe:
        """How to train it where ECA-MKDAD has this lambda."""
        return Recipe(
            image_size=image_size,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=self.learning_rate,
            schedule=Schedule.CONSTANT,
            direction_weight=1.0 if self.lambda_on_squared else direction_weight,
            squared_weight=direction_weight if self.lambda_on_squared else 1.0,
            weigh_distillation_layers=self.weigh_distillation_layers,
            seed=seed,
        )


VARIANTS = {
    DEFAULT: Variant("ECA-MKDAD (61.5 % of the ReLUs replaced)"),
    "mkdad": Variant(
        "MKDAD (0 %: BatchNorm and ReLU, no attention)", between=(nn.BatchNorm2d, relu), weigh_distillation_layers=False
    ),
    "eca-all": Variant("ECA_MKDAD_ALL (100 %)", before_pool=(nn.BatchNorm2d, ECA)),
    "eca-after-relu": Variant("MKDAD_ECA_NULL (0 %: ECA after ReLU)", between=(nn.BatchNorm2d, relu, ECA)),
    "se": Variant("SE_MKDAD (SE in ECA's place)", between=(nn.BatchNorm2d, SE)),
    "scse": Variant("scSE_MKDAD (scSE in ECA's place)", between=(nn.BatchNorm2d, ScSE)),
    "dy-relu": Variant("DY-ReLU in ECA's place", between=(nn.BatchNorm2d, DyReLU)),
    "no-attention": Variant("BatchNorm alone in ECA's place", between=(nn.BatchNorm2d,)),
    "full-width": Variant("student as wide as the teacher", full_width=True),
    "no-omega": Variant("no omega on the distillation layers", weigh_distillation_layers=False),
    "lambda-on-squared": Variant("lambda on the squared term", lambda_on_squared=True),
    "learning-rate-0.1": Variant("learning rate 0.1, the paper's", learning_rate=0.1),
}
"""By the name that the command line knows. Learning rate 0.001 is that of every variant but the last."""
