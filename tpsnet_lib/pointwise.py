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
        height, width = self.padding if isinstance(self.padding, tuple) else (0, 0)  # as "valid" says
        padded = F.pad(x, (width, width, height, height)) if height or width else x
        return F.conv2d(self.subsampled(padded), self.weight, self.bias, groups=self.groups)

    def subsampled(self, x: Tensor) -> Tensor:
        """The rows and columns of maps [B, C, H, W] on which the stride lands: [B, C, H / stride, W / stride]."""
        down, right = self.stride
        return x[:, :, ::down, ::right]


def exchange_pointwise(network: nn.Module) -> None:
    """Make every strided 1x1 convolution of a network, and of the blocks of one's own in it, a `Pointwise`."""
    for module in network.modules():
        if type(module) is not nn.Conv2d or module.padding_mode != "zeros":
            continue
        if module.kernel_size == (1, 1) and max(module.stride) > 1:
            module.__class__ = Pointwise
