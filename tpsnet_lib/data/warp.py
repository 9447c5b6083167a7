"""Images turned, sheared and moved: each pixel is filled from the nearest one of another place."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Turn each image counter-clockwise about its centre; nearest neighbour, zero fill (torchvision's defaults).

    `images` is uint8 [B,C,H,W], `degrees` float [B]."""
    radians = degrees * (math.pi / 180)
    cos, sin = radians.cos(), radians.sin()
    return warp(images, xx=cos, xy=-sin, yx=sin, yy=cos)


def warp(
    images: Tensor,
    xx: Tensor | float = 1.0,
    xy: Tensor | float = 0.0,
    x0: Tensor | float = 0.0,
    yx: Tensor | float = 0.0,
    yy: Tensor | float = 1.0,
    y0: Tensor | float = 0.0,
) -> Tensor:
    """Fill pixel (x, y) from the one nearest to (xx x + xy y + x0, yx x + yy y + y0), with zero from outside.

    Coordinates are pixels from the centre; coefficients are numbers or float [B]."""
    count, channels, height, width = images.shape
    xx, xy, x0, yx, yy, y0 = (c.view(-1, 1, 1) if isinstance(c, Tensor) else c for c in (xx, xy, x0, yx, yy, y0))
    x = (torch.arange(width, device=images.device) - (width - 1) / 2).view(1, 1, -1)
    y = (torch.arange(height, device=images.device) - (height - 1) / 2).view(1, -1, 1)
    # A border of one black pixel stands for all that is outside, so positions are clamped into it, not masked.
    columns = (xx * x + xy * y + x0 + (width + 1) / 2).round_().clamp_(0, width + 1)
    rows = (yx * x + yy * y + y0 + (height + 1) / 2).round_().clamp_(0, height + 1)
    sources = (rows * (width + 2) + columns).to(torch.int64).expand(count, -1, -1).reshape(count, 1, -1)
    bordered = F.pad(images, (1,) * 4).reshape(count, channels, -1)
    return bordered.gather(2, sources.expand(-1, channels, -1)).view(images.shape)
