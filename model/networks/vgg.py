"""The teacher and the student: VGG16's thirteen convolutions, full and slim (figures 3 and 4 of the paper)."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Literal, Self

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.networks.attention import ECA

Plan = tuple[int | Literal["M"], ...]
"""Output channels of each 3x3 convolution in order; ``"M"`` is a 2x2 max-pool."""

VGG16: Plan = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")

DISTILLATION_POOLS = (2, 3, 4, 5)
"""The max-pools whose outputs are compared, counted from one."""

STUDENT_WIDTH = 16
"""Channels of every student convolution whose output is not distilled."""

Layers = Sequence[Callable[[int], nn.Module]]
"""What follows a convolution in order; each makes its layer for this many channels."""


def vgg16_plan(widths: tuple[int, int, int, int, int]) -> Plan:
    """VGG16's plan with other channel counts, one for each of its five stages."""
    plan: list[int | Literal["M"]] = []
    stage = 0
    for step in VGG16:
        plan.append("M" if step == "M" else widths[stage])
        stage += step == "M"
    return tuple(plan)


def student_plan(teacher: Plan) -> Plan:
    """The student's plan for a teacher: slim everywhere, as wide as the teacher where the two are compared.

    For VGG16 this is ``16 16 M 16 128 M 16 16 256 M 16 16 512 M 16 16 512 M`` (figure 4).
    """
    plan: list[int | Literal["M"]] = []
    pool = 1
    for index, step in enumerate(teacher):
        if step == "M":
            plan.append("M")
            pool += 1
        else:
            distilled = teacher[index + 1] == "M" and pool in DISTILLATION_POOLS
            plan.append(step if distilled else STUDENT_WIDTH)
    return tuple(plan)


class _Taps(nn.Module):
    """Runs ``self.features`` and returns the outputs of the distillation pools."""

    features: nn.Sequential

    def _taps(self, x: Tensor) -> list[Tensor]:
        if min(x.shape[-2:]) < 32:
            raise ValueError(f"images must be at least 32x32 pixels for five poolings, got {tuple(x.shape[-2:])}")
        taps, pool = [], 0
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                pool += 1
                if pool in DISTILLATION_POOLS:
                    taps.append(x)
        return taps


class Teacher(_Taps):
    """The frozen feature extractor T; ``Teacher()`` is the paper's VGG16.

    Layer names are torchvision's (``features.0.weight`` ...), so its state dictionaries fit as they are.
    Always in evaluation mode, its parameters take no gradients.
    """

    def __init__(self, plan: Plan = VGG16) -> None:
        super().__init__()
        self.plan = plan
        layers: list[nn.Module] = []
        channels = 3
        for step in plan:
            if step == "M":
                layers.append(nn.MaxPool2d(2))
            else:
                # In place is safe: only pool outputs are tapped, and the next layer after a pool is a convolution.
                layers += [nn.Conv2d(channels, int(step), kernel_size=3, padding=1), nn.ReLU(inplace=True)]
                channels = int(step)
        self.features = nn.Sequential(*layers)
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> Self:
        """Builds a teacher from VGG16 weights of any width, a whole VGG16 or its feature extractor alone.

        Raises:
            ValueError: if names or shapes are not those of a VGG16 feature extractor, or a value is not finite.
        """
        weights = {name: tensor.float() for name, tensor in state.items() if not name.startswith("classifier.")}
        if "0.weight" in weights:  # saved from vgg16().features
            weights = {f"features.{name}": tensor for name, tensor in weights.items()}
        # Five stages; in VGG16's numbering these are the convolutions right before each max-pool.
        last_of_stage = [f"features.{index}.weight" for index in (2, 7, 14, 21, 28)]
        if missing := [name for name in last_of_stage if name not in weights]:
            raise ValueError(f"not a VGG16 feature extractor: no tensor {missing[0]!r}")
        a, b, c, d, e = (weights[name].shape[0] for name in last_of_stage)
        teacher = cls(vgg16_plan((a, b, c, d, e)))
        try:
            teacher.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"not a VGG16 feature extractor: {error}") from None
        if not all(tensor.isfinite().all() for tensor in weights.values()):
            raise ValueError("the teacher's weights hold values that are not finite")
        return teacher

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode: the teacher never learns."""
        return super().train(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Normalised images ``[N, 3, H, W]`` to the maps of pools 2-5, ``[N, C_i, H / 2^p, W / 2^p]`` each."""
        return self._taps(x)


def relu(channels: int) -> nn.Module:
    """ReLU, whatever the channels, as an element of `Layers`."""
    return nn.ReLU(inplace=True)


class Student(_Taps):
    """The slim network S; ``Student()`` is the paper's student of the full VGG16.

    Convolutions have no bias. The one right before a max-pool is followed by ReLU; each of the other eight by
    BatchNorm and then ECA *in place of* ReLU (61.5 % of the ReLUs replaced, section 4.3).

    Args:
        plan: channels, see `student_plan`.
        weigh_distillation_layers: multiply the map of each distillation layer by its own ECA weight omega, as
            equation 13 has it.
        between: what follows a convolution that another one follows; others than the paper's are experiments.
        before_pool: what follows a convolution right before a max-pool; likewise.
    """

    def __init__(
        self,
        plan: Plan | None = None,
        *,
        weigh_distillation_layers: bool = True,
        between: Layers = (nn.BatchNorm2d, ECA),
        before_pool: Layers = (relu,),
    ) -> None:
        super().__init__()
        plan = student_plan(VGG16) if plan is None else plan
        layers: list[nn.Module] = []
        distilled: list[int] = []
        channels, pool = 3, 0
        for index, step in enumerate(plan):
            if step == "M":
                layers.append(nn.MaxPool2d(2))
                pool += 1
                if pool in DISTILLATION_POOLS:
                    distilled.append(channels)
                continue
            layers.append(nn.Conv2d(channels, int(step), kernel_size=3, padding=1, bias=False))
            channels = int(step)
            layers += [layer(channels) for layer in (before_pool if plan[index + 1] == "M" else between)]
        self.features = nn.Sequential(*layers)
        self.omega = nn.ModuleList(ECA(c) if weigh_distillation_layers else nn.Identity() for c in distilled)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Normalised images ``[N, 3, H, W]`` to maps of the teacher's shapes, weighted by omega if so built."""
        return [omega(tap) for omega, tap in zip(self.omega, self._taps(x), strict=True)]


def fold_batch_norm(student: Student) -> Student:
    """A copy of a trained student that computes the same with every BatchNorm folded into its convolution.

    The copy is in evaluation mode and takes no gradients; it cannot be trained any further.
    """
    folded = deepcopy(student).eval().requires_grad_(False)
    layers: list[nn.Module] = []
    for layer in folded.features:
        if isinstance(layer, nn.BatchNorm2d):
            convolution = layers.pop()
            assert isinstance(convolution, nn.Conv2d)
            layer = fuse_conv_bn_eval(convolution, layer).requires_grad_(False)
        layers.append(layer)
    folded.features = nn.Sequential(*layers)
    return folded
