"""Efficient Channel Attention (ECA), equations 6-10 of the ECA-MKDAD paper."""

import math

import torch
from torch import Tensor, nn


def eca_kernel_size(channels: int, gamma: float = 2.0, b: float = 1.0) -> int:
    """Number of neighbouring channels that interact, equation 9.

    ``k = |log2(C) / gamma + b / gamma|`` brought to an odd number the way ECA-Net's own code does it:
    truncate, then add one if the result is even.

    Raises:
        ValueError: if ``channels`` is not positive.
    """
    if channels < 1:
        raise ValueError(f"channels must be at least 1, got {channels}")
    k = int(abs((math.log2(channels) + b) / gamma))
    return k if k % 2 else k + 1


class ECA(nn.Module):
    """Weighs each channel by its neighbours: pool, 1-D convolution over channels, sigmoid (equations 6-8).

    Maps ``[N, C, H, W]`` to the same shape, multiplied by weights in (0, 1) (equation 10). The same module
    yields the attention weight omega of equations 13-14 when it is applied to a distillation layer.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        k = eca_kernel_size(channels)
        self.conv = nn.Conv1d(1, 1, kernel_size=k, padding=k // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean(dim=(2, 3)).unsqueeze(1)  # [N, 1, C], equation 7
        weights = torch.sigmoid(self.conv(pooled)).squeeze(1)  # [N, C], equation 8
        return x * weights[:, :, None, None]
