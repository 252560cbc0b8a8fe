"""Pretrains a compact teacher: a narrow VGG16 that learns to tell classes of everyday pictures apart.

BatchNorm makes the short training work and is folded into the convolutions afterwards, so that what is left has
exactly VGG16's layers.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.networks.vgg import Plan, Teacher
from model.preprocessing import as_input

HELD_OUT_SHARE = 0.05
BATCH = 128
PEAK_LEARNING_RATE = 0.1


def _classifier(plan: Plan, classes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for step in plan:
        if step == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            width = int(step)
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True)]
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def _fold(classifier: nn.Sequential, plan: Plan) -> Teacher:
    """The classifier's convolutions with their BatchNorm folded in, as a teacher."""
    layers = list(classifier.eval().cpu())
    folded = [
        fuse_conv_bn_eval(layer, norm)
        for layer, norm in pairwise(layers)
        if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    ]
    teacher = Teacher(plan)
    convolutions = [layer for layer in teacher.features if isinstance(layer, nn.Conv2d)]
    for mine, source in zip(convolutions, folded, strict=True):
        mine.load_state_dict(source.state_dict())
    return teacher


def _augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors half of the images ``[N, 3, H, W]`` and shifts each by up to an eighth of its side."""
    n, _, height, width = images.shape
    flip = torch.rand(n, generator=generator) < 0.5
    images = torch.where(flip.to(images.device)[:, None, None, None], images.flip(3), images)
    shift = height // 8
    padded = F.pad(images, (shift,) * 4)
    top, left = torch.randint(0, 2 * shift + 1, (2, n), generator=generator).to(images.device)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    pick = torch.arange(n, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[pick, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def pretrain(
    images: Tensor,
    labels: Tensor,
    plan: Plan,
    *,
    epochs: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_step: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> tuple[Teacher, float]:
    """Trains a classifier of the plan's shape and returns its feature extractor.

    Args:
        images: uint8 RGB, ``[N, H, W, 3]``, at least 32x32.
        labels: class numbers from 0, ``[N]``.
        plan: channels of the teacher to make.
        epochs: passes over the training share.
        seed: for the held-out share, the initial weights, order and augmentation.
        device: where to train.
        on_step: called after each step with its number from 1, the number of steps and the loss.

    Returns:
        The teacher, and the top-1 accuracy (0 to 1) of its classifier on the held-out share.
    """
    device = torch.device(device)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    held_out, training = order.tensor_split([max(1, round(HELD_OUT_SHARE * len(images)))])
    classifier = _classifier(plan, int(labels.max()) + 1).to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = epochs * -(-len(training) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps, pct_start=0.2)
    step = 0
    for _ in range(epochs):
        classifier.train()
        for batch in training[torch.randperm(len(training), generator=generator)].split(BATCH):
            x = _augment(as_input(images[batch].to(device)), generator).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(classifier(x), labels[batch].to(device), label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            on_step(step, steps, loss.item())
    classifier.eval()
    with torch.inference_mode():
        correct = sum(
            int((classifier(as_input(images[batch].to(device))).argmax(1).cpu() == labels[batch]).sum())
            for batch in held_out.split(BATCH)
        )
    return _fold(classifier, plan), correct / len(held_out)
