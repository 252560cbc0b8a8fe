"""Pretraining learns, and folding BatchNorm away changes nothing."""

import numpy as np
import pytest
import torch
from torch import nn

from model.lab.pretraining import _classifier, _fold, pretrain
from model.networks.vgg import DISTILLATION_POOLS, vgg16_plan

PLAN = vgg16_plan((8, 8, 8, 8, 8))


def test_a_classifier_learns_and_leaves_a_teacher():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 1200)
    pixels = rng.integers(0, 100, (1200, 32, 32, 3)) + 100 * labels[:, None, None, None]
    steps: list[tuple[int, int]] = []
    teacher, accuracy = pretrain(
        torch.from_numpy(pixels.astype(np.uint8)),
        torch.from_numpy(labels),
        PLAN,
        epochs=2,
        on_step=lambda step, of, loss: steps.append((step, of)),
    )
    assert accuracy > 0.9
    assert steps[-1] == (18, 18)
    assert len(teacher(torch.rand(1, 3, 32, 32))) == 4


def test_folding_batchnorm_keeps_the_features():
    torch.manual_seed(0)
    classifier = _classifier(PLAN, 3)
    for layer in classifier:
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 2)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    x = torch.randn(2, 3, 64, 64)
    expected, pools = [], 0
    y = x
    with torch.no_grad():
        for layer in classifier.eval():
            y = layer(y)
            if isinstance(layer, nn.MaxPool2d):
                pools += 1
                if pools in DISTILLATION_POOLS:
                    expected.append(y)
    for tap, reference in zip(_fold(classifier, PLAN)(x), expected, strict=True):
        torch.testing.assert_close(tap, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_decides(seed: int):
    images = torch.randint(0, 256, (64, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    labels = torch.arange(64) % 2
    first, _ = pretrain(images, labels, PLAN, epochs=1, seed=seed)
    again, _ = pretrain(images, labels, PLAN, epochs=1, seed=seed)
    other, _ = pretrain(images, labels, PLAN, epochs=1, seed=seed + 1)
    assert torch.equal(first.features[0].weight, again.features[0].weight)
    assert not torch.equal(first.features[0].weight, other.features[0].weight)
