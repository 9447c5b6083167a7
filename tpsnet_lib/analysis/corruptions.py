"""Images damaged on purpose, to see how a network's predictions hold up.

The corruptions (noise, blur, weather, digital) are in the style of CIFAR-10-C (Hendrycks & Dietterich 2019, arXiv
1903.12261), but our own: they are drawn here, on the device, from the images at hand, and their scores are not to be
compared with published ones."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tpsnet_lib.data.random_draws import uniform

_FOG, _FOG_LIGHT = 5, 225.0  # patches of fog along a side, and how light it is, of 255


def gaussian_noise(images: Tensor, indices: Tensor, deviation: float) -> Tensor:
    """Normal noise of a standard deviation in [0, 1] of the pixel range, the same for an image in any batch.

    `images` uint8 [B, 3, H, W], `indices` int64 [B] their positions in the data set."""
    pixels = images[0].numel()
    keys = (indices.to(images.device).unsqueeze(1) * pixels + torch.arange(pixels, device=images.device)).flatten()
    radius = (-2 * (1 - uniform(0, 0, keys, 0)).log()).sqrt()  # Box & Muller 1958
    noise = radius * (2 * math.pi * uniform(0, 0, keys, 1)).cos()
    return _to_uint8(images + 255 * deviation * noise.view(images.shape))


def gaussian_blur(images: Tensor, deviation: float) -> Tensor:
    """Each pixel is the mean of its surroundings, weighed by a normal curve of this standard deviation in pixels
    ([B, 3, H, W])."""
    reach = max(1, math.ceil(3 * deviation))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=images.device) / deviation) ** 2)
    weights = (weights / weights.sum()).expand(images.shape[1], 1, -1)
    padded = F.pad(images.float(), (reach,) * 4, mode="reflect")
    rows = F.conv2d(padded, weights.unsqueeze(2), groups=images.shape[1])
    return _to_uint8(F.conv2d(rows, weights.unsqueeze(3), groups=images.shape[1]))


def fog(images: Tensor, indices: Tensor, density: float) -> Tensor:
    """A light grey veil, thicker here and thinner there, that hides so much of the image on average (0 to 1).

    What is seen through fog is the scene at lower contrast plus the fog's own light (Koschmieder 1924). The thickness,
    from half the density to half as much again, varies smoothly and is drawn for each image by its position in the
    data set (`indices` int64 [B]), so that it is the same in any batch; `images` uint8 [B, 3, H, W]."""
    keys = indices.to(images.device)[:, None] * _FOG**2 + torch.arange(_FOG**2, device=images.device)
    drawn = uniform(0, 0, keys.flatten(), 2).view(-1, 1, _FOG, _FOG)
    field = F.interpolate(drawn, images.shape[-2:], mode="bilinear", align_corners=True)
    veil = (density * (0.5 + field)).clamp(max=1)
    return _to_uint8(images * (1 - veil) + _FOG_LIGHT * veil)


def contrast(images: Tensor, factor: float) -> Tensor:
    """Colours of images [B, 3, H, W] drawn to each one's mean colour: factor 1 changes nothing, 0 leaves it alone."""
    mean = images.float().mean((2, 3), keepdim=True)
    return _to_uint8(mean + (images - mean) * factor)


def pixelate(images: Tensor, factor: float) -> Tensor:
    """Images [B, 3, H, W] at a factor of their size, each pixel the mean of the area it covers, and back in blocks."""
    size = images.shape[-1]
    side = round(size * factor)
    edges = torch.arange(side + 1, device=images.device) * (size / side)
    places = torch.arange(size, device=images.device)
    covered = (edges[1:, None].minimum(places + 1) - edges[:-1, None].maximum(places)).clamp(min=0) * (side / size)
    small = covered @ images.float() @ covered.T
    return _to_uint8(F.interpolate(small, images.shape[-2:], mode="nearest-exact"))


# name: (the strength at each severity, what it measures, (images, indices, strength) -> images)
CORRUPTIONS: dict[str, tuple[tuple[float, ...], str, Callable[[Tensor, Tensor, float], Tensor]]] = {
    "gaussian noise": ((0.04, 0.06, 0.08, 0.09, 0.10), "deviation, of the pixel range", gaussian_noise),
    "gaussian blur": ((0.4, 0.6, 0.7, 0.8, 1.0), "deviation, pixels", lambda x, _, s: gaussian_blur(x, s)),
    "fog": ((0.15, 0.3, 0.45, 0.55, 0.65), "mean share that is hidden", fog),
    "contrast": ((0.75, 0.5, 0.4, 0.3, 0.15), "factor", lambda x, _, s: contrast(x, s)),
    "pixelate": ((0.95, 0.9, 0.85, 0.75, 0.65), "factor of the size", lambda x, _, s: pixelate(x, s)),
}


def corrupt(images: Tensor, indices: Tensor, name: str, severity: int) -> Tensor:
    """The images (uint8 [B, 3, H, W]) under one of `CORRUPTIONS` at severity 1 to 5; at severity 0 as they are.

    `indices` int64 [B]: their positions in the data set, from which what is random is drawn."""
    if severity == 0:
        return images
    strengths, _, apply = CORRUPTIONS[name]
    return apply(images, indices, strengths[severity - 1])


def _to_uint8(pixels: Tensor) -> Tensor:
    return pixels.round().clamp_(0, 255).to(torch.uint8)
