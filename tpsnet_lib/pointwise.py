"""Strided 1x1 convolutions, which oneDNN gets wrong on a CPU: a network's own are exchanged for sound ones."""

import torch.nn.functional as F
from torch import Tensor, nn


class Pointwise(nn.Conv2d):
    """A strided 1x1 convolution. On a CPU the stride is taken of its input, to the same result.

    oneDNN's backward pass of it writes beyond its memory for maps that are channels last, at some small widths (torch
    2.15): the process dies of it, on processors without AVX-512 in fp32 too."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        return F.conv2d(self.every(x), self.weight, self.bias, groups=self.groups)

    def every(self, x: Tensor) -> Tensor:
        """The rows and columns of maps [B, C, H, W] that the stride comes to."""
        down, right = self.stride
        return x[:, :, ::down, ::right]


def exchange_pointwise(network: nn.Module) -> None:
    """Make every strided 1x1 convolution of a network, and of the blocks of one's own in it, a `Pointwise`."""
    for module in network.modules():
        if type(module) is not nn.Conv2d or module.padding != (0, 0):
            continue
        if module.kernel_size == (1, 1) and max(module.stride) > 1:
            module.__class__ = Pointwise
