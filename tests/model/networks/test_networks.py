"""The networks are the paper's: its own counts say so, and torchvision's VGG16 agrees layer by layer."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import vgg16

from model.networks.attention import ECA, eca_kernel_size
from model.networks.vgg import VGG16, Student, Teacher, student_plan, vgg16_plan


def parameters_in_millions(network: nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


def giga_macs(network: nn.Module, shape: tuple[int, ...]) -> float:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.eval()(torch.zeros(shape))
    return counter.get_total_flops() / 2e9  # a multiply-accumulate counts as two there


def test_parameters_are_those_of_table_6():
    assert round(parameters_in_millions(Teacher()), 2) == 14.71
    assert round(parameters_in_millions(Student()), 2) == 0.34


def test_multiply_accumulates_are_those_of_table_6():
    assert giga_macs(Teacher(), (32, 3, 128, 128)) == pytest.approx(160.35, rel=0.02)
    assert giga_macs(Student(), (32, 3, 128, 128)) == pytest.approx(7.38, rel=0.02)


@pytest.mark.parametrize(("channels", "k"), [(16, 3), (64, 3), (128, 5), (256, 5), (512, 5)])
def test_eca_kernel_size_is_equation_9(channels: int, k: int):
    assert eca_kernel_size(channels) == k
    assert ECA(channels).conv.weight.shape == (1, 1, k)


def test_eca_kernel_size_refuses_no_channels():
    with pytest.raises(ValueError, match="at least 1"):
        eca_kernel_size(0)


def test_eca_weighs_each_channel_by_its_neighbours():
    eca = ECA(16)
    x = torch.rand(2, 16, 4, 4)
    pooled = x.mean(dim=(2, 3))
    kernel = eca.conv.weight.flatten()
    padded = nn.functional.pad(pooled, (1, 1))
    weights = torch.sigmoid(sum(kernel[i] * padded[:, i : i + 16] for i in range(3)))
    torch.testing.assert_close(eca(x), x * weights[:, :, None, None])


def test_student_is_slim_except_where_it_is_compared():
    assert student_plan(VGG16) == (16, 16, "M", 16, 128, "M", 16, 16, 256, "M", 16, 16, 512, "M", 16, 16, 512, "M")


def test_student_of_a_narrow_teacher_matches_its_maps():
    plan = vgg16_plan((8, 12, 20, 24, 28))
    x = torch.rand(2, 3, 64, 64)
    shapes = [taps.shape for taps in Teacher(plan)(x)]
    assert [taps.shape for taps in Student(student_plan(plan))(x)] == shapes
    assert shapes[0] == (2, 12, 16, 16)


def test_eight_of_thirteen_relus_are_replaced_by_batchnorm_and_eca():
    layers = list(Student().features)
    kinds = [type(layer) for layer in layers]
    assert (kinds.count(nn.Conv2d), kinds.count(nn.ReLU), kinds.count(ECA), kinds.count(nn.BatchNorm2d)) == (
        13,
        5,
        8,
        8,
    )
    for before, after in pairwise(layers):
        if isinstance(after, nn.MaxPool2d):
            assert isinstance(before, nn.ReLU)
    assert all(layer.bias is None for layer in layers if isinstance(layer, nn.Conv2d))


def test_omega_is_a_switch():
    torch.manual_seed(0)
    weighted = Student(weigh_distillation_layers=True).eval()
    plain = Student(weigh_distillation_layers=False).eval()
    plain.features.load_state_dict(weighted.features.state_dict())
    x = torch.rand(1, 3, 32, 32)
    for with_omega, without, omega in zip(weighted(x), plain(x), weighted.omega, strict=True):
        torch.testing.assert_close(with_omega, omega(without))
        assert not torch.equal(with_omega, without)


def test_teacher_is_torchvisions_vgg16_and_in_place_relu_harms_no_tap():
    reference = vgg16(weights=None).eval()
    teacher = Teacher.from_state_dict(reference.state_dict())
    x = torch.rand(2, 3, 64, 64)
    expected = []
    with torch.no_grad():
        y = x
        for layer in reference.features:
            y = nn.functional.relu(y) if isinstance(layer, nn.ReLU) else layer(y)  # never in place
            if isinstance(layer, nn.MaxPool2d):
                expected.append(y.clone())
    for tap, reference_tap in zip(teacher(x), expected[1:], strict=True):
        torch.testing.assert_close(tap, reference_tap)


def test_teacher_never_learns():
    teacher = Teacher(vgg16_plan((4, 4, 4, 4, 4))).train()
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_teacher_refuses_other_networks():
    with pytest.raises(ValueError, match=r"no tensor 'features.2.weight'"):
        Teacher.from_state_dict({"conv.weight": torch.zeros(3)})
    state = dict(Teacher(vgg16_plan((4, 4, 4, 4, 4))).state_dict())
    with pytest.raises(ValueError, match="not a VGG16"):
        Teacher.from_state_dict({**state, "features.5.weight": torch.zeros(9, 9, 3, 3)})
    with pytest.raises(ValueError, match="not finite"):
        Teacher.from_state_dict({**state, "features.0.bias": torch.full((4,), torch.nan)})


def test_images_too_small_for_five_poolings_are_refused():
    with pytest.raises(ValueError, match="32x32"):
        Student()(torch.rand(1, 3, 31, 40))
