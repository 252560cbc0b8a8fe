"""A narrow teacher learns what a full one shows, on pictures of many kinds."""

from itertools import islice

import numpy as np
import pytest
import torch

from model.lab.compression import distil, distillation_losses
from model.lab.pictures import Pictures
from model.networks.vgg import Teacher, vgg16_plan

WIDE, NARROW = vgg16_plan((16, 16, 16, 16, 16)), vgg16_plan((8, 8, 8, 8, 8))


@pytest.fixture(scope="module")
def images() -> list[list[np.ndarray]]:
    """Small images, and a large one."""
    rng = np.random.default_rng(0)
    sizes = [(32, 32)] * 8, [(300, 200)]
    return [[rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in group] for group in sizes]


def full_teacher() -> Teacher:
    torch.manual_seed(0)
    teacher = Teacher(WIDE)
    for parameter in teacher.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    return teacher


def test_a_narrow_teacher_comes_nearer_to_the_full_one(images: list[list[np.ndarray]]):
    losses: list[torch.Tensor] = []
    teacher = distil(
        full_teacher(), NARROW, Pictures(images, side=64), steps=60, on_step=lambda step, loss: losses.append(loss)
    )
    assert teacher.plan == NARROW
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(torch.isfinite(loss).all() for loss in losses)
    first, last = torch.stack(losses[:10]).mean(dim=0), torch.stack(losses[-10:]).mean(dim=0)
    assert (last[:, 0] < first[:, 0]).all()  # the cosine of every layer
    assert last.sum() < 0.8 * first.sum()


def test_a_teacher_can_be_distilled_further(images: list[list[np.ndarray]]):
    start = distil(full_teacher(), NARROW, Pictures(images, side=64), steps=1)
    before = {name: tensor.clone() for name, tensor in start.state_dict().items()}
    further = distil(full_teacher(), start, Pictures(images, side=64), steps=1)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in further.state_dict().items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in start.state_dict().items())


def test_equal_maps_have_no_loss_and_scaled_ones_keep_likeness_and_energy():
    maps = [torch.rand(2, 4, 8, 8)]
    losses = distillation_losses(maps, maps, [torch.eye(4)], torch.Generator().manual_seed(0))
    torch.testing.assert_close(losses, torch.zeros(1, 4), atol=1e-6, rtol=0)
    scaled = distillation_losses(maps, [3 * maps[0]], [torch.eye(4)], torch.Generator().manual_seed(0))[0]
    assert scaled[[0, 2, 3]].max() < 1e-6
    assert scaled[1] == pytest.approx(4.0, rel=1e-4)  # (3 - 1) squared


def test_pictures_differ_and_the_seed_decides(images: list[list[np.ndarray]]):
    one, again = (list(islice(Pictures(images, side=64, seed=3), 20)) for _ in range(2))
    other = next(iter(Pictures(images, side=64, seed=4)))
    np.testing.assert_array_equal(one, again)
    assert all(picture.shape == (64, 64, 3) and picture.dtype == np.uint8 for picture in one)
    assert len({picture.tobytes() for picture in [*one, other]}) == 21
