"""Every variant of the paper's ablations is what it says, learns, and has the size the paper states."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from model.detector import Detector
from model.lab.choices import DEFAULT
from model.lab.reproduction.runs import multiply_accumulates, parameters
from model.lab.variants import SE, VARIANTS, DyReLU, ScSE, Variant
from model.networks.attention import ECA
from model.networks.vgg import VGG16, Student, Teacher, student_plan, vgg16_plan

PLAN = vgg16_plan((8, 12, 16, 20, 24))


def built(variant: Variant, teacher: Teacher) -> Student:
    return variant.build(teacher, variant.recipe(image_size=32, epochs=1, direction_weight=0.01, seed=0))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_gives_maps_of_the_teachers_shapes_and_takes_gradients_everywhere(name: str):
    torch.manual_seed(0)
    teacher = Teacher(PLAN)
    student = built(VARIANTS[name], teacher)
    x = torch.rand(2, 3, 64, 64)
    maps = student(x)
    assert [taps.shape for taps in maps] == [taps.shape for taps in teacher(x)]
    sum(taps.square().sum() for taps in maps).backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in student.parameters())


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_scores_alike_with_its_batchnorm_folded(name: str):
    torch.manual_seed(0)
    student = built(VARIANTS[name], Teacher(PLAN))
    for layer in student.features:
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.1, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    x = torch.rand(2, 3, 32, 32)
    folded = Detector(Teacher(PLAN), student).student
    with torch.inference_mode():
        for plain, served in zip(student.eval()(x), folded(x), strict=True):
            torch.testing.assert_close(served, plain, rtol=1e-3, atol=1e-5)


def after_convolutions(name: str) -> list[list[type[nn.Module]]]:
    """What follows each of the thirteen convolutions."""
    groups: list[list[type[nn.Module]]] = []
    for layer in built(VARIANTS[name], Teacher(PLAN)).features:
        if isinstance(layer, nn.Conv2d):
            groups.append([])
        else:
            groups[-1].append(type(layer))
    return groups


@pytest.mark.parametrize(
    ("name", "between", "before_pool", "relus_replaced"),
    [
        ("mkdad", [nn.BatchNorm2d, nn.ReLU], [nn.ReLU], 0),
        ("eca-after-relu", [nn.BatchNorm2d, nn.ReLU, ECA], [nn.ReLU], 0),
        ("eca-mkdad", [nn.BatchNorm2d, ECA], [nn.ReLU], 8),
        ("se", [nn.BatchNorm2d, SE], [nn.ReLU], 8),
        ("scse", [nn.BatchNorm2d, ScSE], [nn.ReLU], 8),
        ("dy-relu", [nn.BatchNorm2d, DyReLU], [nn.ReLU], 8),
        ("no-attention", [nn.BatchNorm2d], [nn.ReLU], 8),
        ("eca-all", [nn.BatchNorm2d, ECA], [nn.BatchNorm2d, ECA], 13),
    ],
)
def test_what_follows_the_convolutions(name: str, between: list, before_pool: list, relus_replaced: int):
    groups = after_convolutions(name)
    assert [group for group in groups if nn.MaxPool2d not in group] == [between] * 8
    assert [group for group in groups if nn.MaxPool2d in group] == [[*before_pool, nn.MaxPool2d]] * 5
    assert sum(nn.ReLU not in group for group in groups) == relus_replaced


def test_the_default_variant_is_the_student_that_is_served():
    served, variant = Student(), built(VARIANTS[DEFAULT], Teacher())
    assert list(variant.state_dict()) == list(served.state_dict())
    assert [type(layer) for layer in variant.features] == [type(layer) for layer in served.features]
    assert parameters(served) == 344_028


def test_sizes_are_those_the_paper_states():
    teacher = Teacher()
    for name, variant in VARIANTS.items():
        student = built(variant, teacher)
        if name == "full-width":  # the teacher's parameters without biases, with BatchNorm and ECA
            assert parameters(student) / 1e6 == pytest.approx(14.71, abs=0.01)
        else:
            assert parameters(student) / 1e6 == pytest.approx(0.344, rel=0.01), name
        if name != "full-width":
            assert 32 * multiply_accumulates(student, 128) / 1e9 == pytest.approx(7.38, rel=0.02)
    assert round(parameters(teacher) / 1e6, 2) == 14.71
    assert 32 * multiply_accumulates(teacher, 128) / 1e9 == pytest.approx(160.35, rel=0.02)


def test_counting_leaves_the_network_as_it_was():
    student = Student(student_plan(PLAN))
    before = {name: value.clone() for name, value in student.state_dict().items()}
    multiply_accumulates(student, 64)
    assert student.training
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_the_full_width_student_has_the_teachers_channels():
    channels = [
        layer.out_channels
        for layer in built(VARIANTS["full-width"], Teacher()).features
        if isinstance(layer, nn.Conv2d)
    ]
    assert channels == [step for step in VGG16 if step != "M"]


def test_omega_lambda_and_learning_rate_are_configurations():
    recipes = {
        name: variant.recipe(image_size=32, epochs=3, direction_weight=0.01, seed=4)
        for name, variant in VARIANTS.items()
    }
    assert recipes[DEFAULT].term_weights == (1.0, 0.01)
    assert recipes["lambda-on-squared"].term_weights == (0.01, 1.0)
    assert {name for name, recipe in recipes.items() if not recipe.weigh_distillation_layers} == {"mkdad", "no-omega"}
    assert {name for name, recipe in recipes.items() if recipe.learning_rate != 0.001} == {"learning-rate-0.1"}
    assert recipes["learning-rate-0.1"].learning_rate == 0.1
    assert {(recipe.image_size, recipe.epochs, recipe.seed, recipe.batch_size) for recipe in recipes.values()} == {
        (32, 3, 4, 32)
    }


def test_se_weighs_channels_by_a_bottleneck():
    module, x = SE(32), torch.rand(2, 32, 4, 4)
    down, _, up, _ = module.weights
    weights = torch.sigmoid(torch.relu(x.mean(dim=(2, 3)) @ down.weight.T) @ up.weight.T)
    assert down.weight.shape == (2, 32)
    torch.testing.assert_close(module(x), x * weights[:, :, None, None])


def test_scse_takes_the_larger_of_channel_and_place():
    module, x = ScSE(8), torch.randn(2, 8, 4, 4)
    by_channel = x * module.of_channels(x.mean(dim=(2, 3)))[:, :, None, None]
    by_place = x * torch.sigmoid((x * module.of_places[0].weight.reshape(1, 8, 1, 1)).sum(dim=1, keepdim=True))
    torch.testing.assert_close(module(x), torch.where(by_channel > by_place, by_channel, by_place))


def test_dynamic_relu_is_relu_where_its_coefficients_are_zero():
    module, x = DyReLU(16), torch.randn(2, 16, 4, 4)
    assert not torch.equal(module(x), torch.relu(x))
    nn.init.zeros_(module.coefficients[2].weight)
    nn.init.zeros_(module.coefficients[2].bias)
    torch.testing.assert_close(module(x), torch.relu(x))


def test_the_narrow_student_is_slim_in_every_variant_but_one():
    for name, variant in VARIANTS.items():
        pairs = pairwise([*built(variant, Teacher(PLAN)).features, nn.Identity()])
        widths = [layer.out_channels for layer, _ in pairs if isinstance(layer, nn.Conv2d)]
        expected = PLAN if name == "full-width" else student_plan(PLAN)
        assert widths == [step for step in expected if step != "M"], name
