"""Images damaged on purpose, and images seen from slightly elsewhere: how a network's answers hold up.

The corruptions (noise, blur, weather, digital) are in the style of CIFAR-10-C (Hendrycks & Dietterich 2019, arXiv
1903.12261), but our own: they are drawn here, on the device, from the images at hand, and their scores are not to be
compared with published ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tpsnet_lib import metrics
from tpsnet_lib.analysis.errors import DRAWS, Interval
from tpsnet_lib.data.augment import uniform
from tpsnet_lib.data.datasets import ImageSet

NAME = "CIFAR-10-C-style, our own"
SEVERITIES = (1, 2, 3, 4, 5)
_FOG, _FOG_LIGHT = 5, 225.0  # patches of fog along a side, and how light it is, of 255
SHIFTS = ((0, 0), (-1, -1), (1, 1))  # pixels down and right; each also mirrored: six views


def gaussian_noise(images: Tensor, indices: Tensor, deviation: float, seed: int = 0) -> Tensor:
    """Normal noise of a deviation in [0, 1] of the pixel range, the same for an image in whatever batch it comes.

    `images` uint8 [B, 3, H, W], `indices` int64 [B] their positions in the data set."""
    pixels = images[0].numel()
    keys = (indices.to(images.device).unsqueeze(1) * pixels + torch.arange(pixels, device=images.device)).flatten()
    radius = (-2 * (1 - uniform(seed, 0, keys, 0)).log()).sqrt()  # Box & Muller 1958
    noise = radius * (2 * math.pi * uniform(seed, 0, keys, 1)).cos()
    return _bytes(images + 255 * deviation * noise.view(images.shape))


def gaussian_blur(images: Tensor, deviation: float) -> Tensor:
    """Each pixel the mean of its surroundings, weighed by a normal curve of so many pixels' deviation."""
    reach = max(1, math.ceil(3 * deviation))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=images.device) / deviation) ** 2)
    weights = (weights / weights.sum()).expand(images.shape[1], 1, -1)
    padded = F.pad(images.float(), (reach,) * 4, mode="reflect")
    rows = F.conv2d(padded, weights.unsqueeze(2), groups=images.shape[1])
    return _bytes(F.conv2d(rows, weights.unsqueeze(3), groups=images.shape[1]))


def fog(images: Tensor, indices: Tensor, density: float, seed: int = 0) -> Tensor:
    """A light grey veil, thicker here and thinner there, that hides so much of the image on average (0 to 1).

    What is seen through fog is the scene at lower contrast plus the fog's own light (Koschmieder 1924). The thickness,
    from half the density to half as much again, varies smoothly and is drawn for each image by its position in the
    data set (`indices` int64 [B]), so that it is the same in any batch; `images` uint8 [B, 3, H, W]."""
    keys = indices.to(images.device)[:, None] * _FOG**2 + torch.arange(_FOG**2, device=images.device)
    drawn = uniform(seed, 0, keys.flatten(), 2).view(-1, 1, _FOG, _FOG)
    field = F.interpolate(drawn, images.shape[-2:], mode="bilinear", align_corners=True)
    veil = (density * (0.5 + field)).clamp(max=1)
    return _bytes(images * (1 - veil) + _FOG_LIGHT * veil)


def contrast(images: Tensor, factor: float) -> Tensor:
    """Colours drawn towards the image's own mean colour: a factor of 1 changes nothing, 0 leaves it alone."""
    mean = images.float().mean((2, 3), keepdim=True)
    return _bytes(mean + (images - mean) * factor)


def pixelate(images: Tensor, factor: float) -> Tensor:
    """The image at a factor of its size, each pixel the mean of the area it covers, and back in blocks."""
    size = images.shape[-1]
    side = round(size * factor)
    edges = torch.arange(side + 1, device=images.device) * (size / side)
    places = torch.arange(size, device=images.device)
    covered = (edges[1:, None].minimum(places + 1) - edges[:-1, None].maximum(places)).clamp(min=0) * (side / size)
    small = covered @ images.float() @ covered.T
    return _bytes(F.interpolate(small, images.shape[-2:], mode="nearest-exact"))


# name: (the strength at each severity, what it measures, (images, indices, strength) -> images)
CORRUPTIONS: dict[str, tuple[tuple[float, ...], str, Callable[[Tensor, Tensor, float], Tensor]]] = {
    "gaussian noise": ((0.04, 0.06, 0.08, 0.09, 0.10), "deviation, of the pixel range", gaussian_noise),
    "gaussian blur": ((0.4, 0.6, 0.7, 0.8, 1.0), "deviation, pixels", lambda x, _, s: gaussian_blur(x, s)),
    "fog": ((0.15, 0.3, 0.45, 0.55, 0.65), "mean share that is hidden", fog),
    "contrast": ((0.75, 0.5, 0.4, 0.3, 0.15), "factor", lambda x, _, s: contrast(x, s)),
    "pixelate": ((0.95, 0.9, 0.85, 0.75, 0.65), "factor of the size", lambda x, _, s: pixelate(x, s)),
}


def corrupt(images: Tensor, indices: Tensor, name: str, severity: int) -> Tensor:
    """The images (uint8 [B, 3, H, W]) under one of `CORRUPTIONS` at severity 1 to 5."""
    strengths, _, apply = CORRUPTIONS[name]
    return apply(images, indices, strengths[severity - 1])


@dataclass(frozen=True)
class Answers:
    """Which of N images a network gets right: as they are, bool [N]; by corruption, at each severity, bool [5, N]."""

    clean: Tensor
    damaged: dict[str, Tensor]

    @property
    def hits(self) -> dict[str, list[int]]:
        """How many it gets right, by corruption: one count a severity."""
        return {name: right.sum(1).tolist() for name, right in self.damaged.items()}


def answers(models: Sequence[nn.Module], images: ImageSet, precision: str = "fp32") -> list[Answers]:
    """What each of the models makes of the same images, which are damaged once for all of them."""
    labels = images.labels.cpu()

    def right(seen: Tensor) -> list[Tensor]:
        return [metrics.predict(model, seen, precision=precision).argmax(1) == labels for model in models]

    clean = right(images.images)
    damaged: list[dict[str, Tensor]] = [{} for _ in models]
    for name in CORRUPTIONS:
        levels = [right(corrupt(images.images, images.indices, name, severity)) for severity in SEVERITIES]
        for found, of_model in zip(damaged, zip(*levels, strict=True), strict=True):
            found[name] = torch.stack(of_model)
    return [Answers(*pair) for pair in zip(clean, damaged, strict=True)]


@dataclass(frozen=True)
class Ratios:
    """Errors as multiples of a baseline's on the same images, by corruption, and their mean; nan, all three numbers,
    where the baseline's are not clearly above 0, so that the interval would have no end."""

    by_name: dict[str, Interval]
    mean: Interval


def corruption_errors(ours: Answers, baseline: Answers, relative: bool = False) -> Ratios:
    """A network's corruption errors against a baseline's (Hendrycks & Dietterich 2019, section 4), with the interval
    of a paired bootstrap of the images.

    Of a corruption (CE): the error summed over the severities, divided by the same of the baseline; then the mean of
    these (mCE). `relative` takes the error on the clean images off each, so that only what the corruptions add counts
    (relative CE and mCE)."""
    tables = []  # of each network: in how many severities more than expected of its clean error an image is missed
    for one in (ours, baseline):
        missed = torch.stack([(~right).sum(0) for right in one.damaged.values()], 1).double()
        tables.append(missed - relative * len(SEVERITIES) * (~one.clean).double()[:, None])
    rows, draw = torch.cat(tables, 1).numpy(), np.random.default_rng(0)
    size = len(rows)
    drawn = np.stack([rows.sum(0), *(rows[draw.integers(0, size, size)].sum(0) for _ in range(DRAWS))])
    above, below = drawn[:, : len(ours.damaged)], drawn[:, len(ours.damaged) :]
    ratios = np.divide(above, below, out=np.full_like(above, np.inf), where=below > 0)
    ratios = np.concatenate([ratios, ratios.mean(1, keepdims=True)], 1)
    with np.errstate(invalid="ignore"):
        found = np.stack([ratios[0], *np.quantile(ratios[1:], [0.025, 0.975], 0)], 1)
    found[~np.isfinite(found).all(1)] = np.nan
    *each, mean = [(float(value), float(low), float(high)) for value, low, high in found]
    return Ratios(dict(zip(ours.damaged, each, strict=True)), mean)


def shift(images: Tensor, down: int, right: int) -> Tensor:
    """The images moved by some pixels; what is missing at the edge is mirrored."""
    reach = max(abs(down), abs(right), 1)
    padded = F.pad(images.float(), (reach,) * 4, mode="reflect").to(images.dtype)
    top, left, (height, width) = reach - down, reach - right, images.shape[-2:]
    return padded[..., top : top + height, left : left + width]


def predict_views(model: nn.Module, images: Tensor, precision: str = "fp32") -> Tensor:
    """Logits of flip-and-shift test-time augmentation: the mean log probability over six views, float32 [N, 10].

    The views are the image, it moved by one pixel to either corner, and the three mirrored (Jordan 2024)."""
    total = torch.zeros(())
    for down, right in SHIFTS:
        moved = shift(images, down, right)
        for view in (moved, moved.flip(3)):
            total = total + metrics.predict(model, view, precision=precision).log_softmax(1)
    return total / (2 * len(SHIFTS))


def _bytes(pixels: Tensor) -> Tensor:
    return pixels.round().clamp_(0, 255).to(torch.uint8)
