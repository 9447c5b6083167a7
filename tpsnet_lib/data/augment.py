"""Augmentation of whole batches on the device they live on: `augment` for uint8 images, `mix` for inputs and targets.

An operation, such as `crop`, takes what was drawn for it, so that each can be compared with torchvision's."""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from tpsnet_lib.config import IMAGE_SIZE, TrainConfig
from tpsnet_lib.data.datasets import MEAN
from tpsnet_lib.data.random_draws import Draw, uniform, uniforms
from tpsnet_lib.data.trivial_augment import LEVELS, OPS, trivial
from tpsnet_lib.data.warp import rotate


def crop(images: Tensor, top: Tensor, left: Tensor, padding: int, mode: str = "zero") -> Tensor:
    """The window of the images' own size at (top, left) of each image padded by `padding` pixels (zero or reflect).

    `images` is uint8 [B,C,H,W]; `top` and `left` int64 [B] from 0 to 2 * padding."""
    count, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4) if mode == "zero" else _reflected(images, padding)
    padded = padded.contiguous()
    padded_height, padded_width = padded.shape[-2:]
    # Every run of `width` pixels as a row of an overlapping view: index_select copies whole rows, 10 times as fast as
    # advanced indexing, which goes pixel by pixel.
    runs = padded.as_strided((padded.numel() - width + 1, width), (1, 1))
    planes = torch.arange(count * channels, device=images.device).view(count, channels, 1) * (
        padded_height * padded_width
    )
    rows = (top.view(-1, 1, 1) + torch.arange(height, device=images.device)) * padded_width + left.view(-1, 1, 1)
    return runs.index_select(0, (planes + rows).flatten()).view(images.shape)


def _reflected(images: Tensor, padding: int) -> Tensor:
    """The images continued by reflection without repeating the edge (F.pad has this for uint8 on the CPU alone)."""
    for side in (2, 3):
        before = images.narrow(side, 1, padding).flip(side)
        after = images.narrow(side, images.shape[side] - padding - 1, padding).flip(side)
        images = torch.cat((before, images, after), side)
    return images


def flip(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the chosen images (bool [B]) left to right."""
    # Row i is image i, and row B + i its mirror image: whole images are copied, faster than a choice for each pixel.
    either = torch.cat((images, images.flip(3)))
    return either.index_select(0, torch.arange(len(images), device=images.device) + len(images) * chosen)


def cutout(images: Tensor, y: Tensor, x: Tensor, side: int) -> Tensor:
    """Fill a square around (y, x), int64 [B], clipped at the border, with the mean colour (DeVries & Taylor 2017)."""
    return _fill(images, _box(y, x, torch.full_like(y, side), images.shape[-1]))


def erase(images: Tensor, chosen: Tensor, area_draw: Tensor, ratio_draw: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Fill a rectangle of the chosen images (bool [B]) with the mean colour: random erasing (Zhong et al. 2020, arXiv
    1708.04896), with the ranges of torchvision's RandomErasing.

    The others are uniforms, float [B]: `area_draw` is for 2 to 33% of the image, `ratio_draw` for a height of 0.3 to
    3.3 widths (evenly in its logarithm), `y` and `x` for the place, wholly inside. A side that would not fit is cut to
    one pixel less than the image's, where the authors draw again (6 in 1,000)."""
    size = images.shape[-1]
    area = size * size * torch.lerp(torch.full_like(area_draw, 0.02), torch.full_like(area_draw, 0.33), area_draw)
    ratio = torch.exp(math.log(0.3) + ratio_draw * (math.log(3.3) - math.log(0.3)))
    height, width = ((area * part).sqrt().round().clamp(1, size - 1) for part in (ratio, 1 / ratio))
    top, left = ((draw * (size + 1 - side)).to(torch.int64) for draw, side in ((y, height), (x, width)))
    return _fill(images, _rectangle(top, left, height, width, size) & chosen.view(-1, 1, 1, 1))


def _fill(images: Tensor, inside: Tensor) -> Tensor:
    """The images with the mean colour (of its first channel, where they have one) where bool `inside` [B,1,H,W] is."""
    return torch.where(inside, _mean_colour(images.device)[:, : images.shape[1]], images)


@lru_cache
def _mean_colour(device: torch.device) -> Tensor:
    """The mean colour of an image, uint8 [1,3,1,1]; made once for a device."""
    return torch.tensor([round(255 * value) for value in MEAN], dtype=torch.uint8, device=device).view(1, 3, 1, 1)


def _box(y: Tensor, x: Tensor, side: Tensor, size: int) -> Tensor:
    """The pixels of a square of `side` centred on (y, x) that are in an image of `size`: bool [B,1,size,size]."""
    return _rectangle(y - side // 2, x - side // 2, side, side, size)


def _rectangle(top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: int) -> Tensor:
    """The pixels of a rectangle that are in an image of `size`: bool [B,1,size,size]."""
    places = torch.arange(size, device=top.device)
    from_top, from_left = (places - start.unsqueeze(1) for start in (top, left))
    rows = (from_top >= 0) & (from_top < height.unsqueeze(1))
    columns = (from_left >= 0) & (from_left < width.unsqueeze(1))
    return (rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1)


def augment(images: Tensor, indices: Tensor, recipe: TrainConfig, seed: int, epoch: int | Tensor) -> Tensor:
    """The images as an epoch shows them: crop, rotation, flip, TrivialAugment, cutout and erasing, as the recipe asks.

    `images` is uint8 [B,3,32,32], `indices` int64 [B] their positions in the data set; the result has the same form."""
    draws = uniforms(seed, epoch, indices, *range(Draw.TRIVIAL_SIGN + 1))  # by operation, [draws, B]
    if recipe.crop:
        top, left = (draws[Draw.CROP_Y : Draw.CROP_X + 1] * (2 * recipe.crop + 1)).to(torch.int64)
        images = crop(images, top, left, recipe.crop, recipe.crop_padding)
    if recipe.rotation:
        images = rotate(images, (2 * draws[Draw.ROTATION] - 1) * recipe.rotation)
    if recipe.flip == "random":
        images = flip(images, draws[Draw.FLIP] < 0.5)
    elif recipe.flip == "alternate":  # every other epoch, the first drawn by chance (Jordan 2024, arXiv 2404.00498)
        images = flip(images, (uniform(seed, 0, indices, Draw.FLIP) < 0.5) ^ (epoch % 2 == 1))
    if recipe.trivial:
        op = (draws[Draw.TRIVIAL_OP] * len(OPS)).to(torch.int64)
        level = (draws[Draw.TRIVIAL_LEVEL] * LEVELS).to(torch.int64)
        images = trivial(images, op, level, draws[Draw.TRIVIAL_SIGN] < 0.5, recipe.trivial_space)
    if recipe.cutout:
        y, x = (draws[Draw.CUTOUT_Y : Draw.CUTOUT_X + 1] * IMAGE_SIZE).to(torch.int64)
        images = cutout(images, y, x, recipe.cutout)
    if recipe.erasing:
        chosen, *place = uniforms(seed, epoch, indices, *range(Draw.ERASE_CHOSEN, Draw.ERASE_X + 1))
        images = erase(images, chosen < recipe.erasing, *place)
    return images


def mix(
    images: Tensor, targets: Tensor, indices: Tensor, recipe: TrainConfig, seed: int, epoch: int | Tensor
) -> tuple[Tensor, Tensor]:
    """Blend each image with its neighbour in the batch, and their targets in the same fraction.

    mixup (Zhang 2018) blends all pixels by lambda, CutMix (Yun 2019) replaces a box of 1 - lambda of them; lambda is
    Beta(alpha, alpha); with both set, one of the two is drawn. Each image draws for itself; with `mix_per` batch, the
    first one draws for all, as in torchvision's recipes. `images` is float [B,3,32,32], `targets` is float [B,classes].
    Nothing here waits for the device; `epoch` may be int64 [] on it."""
    if not recipe.mixup and not recipe.cutmix:
        return images, targets
    indices = indices[:1] if recipe.mix_per == "batch" else indices  # the first one draws for all
    numbers = *range(Draw.MIX_KIND, Draw.MIX_X + 1), Draw.MIX_CHOSEN
    kind, radius, angle, y, x, chosen = uniforms(seed, epoch, indices, *numbers)

    # CutMix or mixup, and lambda. (`torch.where` would copy its two numbers to a GPU.)
    cuts = kind < 0.5 if recipe.mixup and recipe.cutmix else torch.full_like(kind, bool(recipe.cutmix)).bool()
    alpha = torch.full_like(kind, recipe.mixup).masked_fill_(cuts, recipe.cutmix)
    share = _beta(alpha, radius, angle)

    # What is kept of an image, by pixel [B or 1,1,32,32]: all outside the box, or lambda; and of its target.
    side = (IMAGE_SIZE * (1 - share).sqrt()).to(torch.int64)
    centre_y, centre_x = ((place * IMAGE_SIZE).to(torch.int64) for place in (y, x))
    outside = ~_box(centre_y, centre_x, side, IMAGE_SIZE)
    kept = torch.where(cuts.view(-1, 1, 1, 1), outside, share.view(-1, 1, 1, 1))
    kept_target = torch.where(cuts, outside.float().mean((1, 2, 3)), share).unsqueeze(1)
    if recipe.mix_probability < 1:
        unmixed = (chosen >= recipe.mix_probability).view(-1, 1)
        kept = kept.masked_fill(unmixed[:, :, None, None], 1.0)
        kept_target = kept_target.masked_fill(unmixed, 1.0)

    # An image is mixed with the one before it, the first one with the last.
    others, other_targets = (torch.cat((value[-1:], value[:-1])) for value in (images, targets))
    return torch.lerp(others, images, kept.to(images.dtype)), torch.lerp(other_targets, targets, kept_target)


def shrink(images: Tensor, size: int) -> Tensor:
    """Float `images` [B,3,H,W] at `size` pixels a side, each the weighted mean of those it covers. A network learns the
    coarse things from small images at a fraction of the price (progressive resizing; Howard 2018, DAWNBench)."""
    small = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return small.contiguous(memory_format=torch.channels_last)


def _beta(alpha: Tensor, radius_draw: Tensor, angle_draw: Tensor) -> Tensor:
    """Beta(alpha, alpha) from two uniforms, exactly: Student's t by the polar method (Bailey 1994), put into (0, 1)."""
    squared = torch.expm1(-radius_draw.log() / alpha).clamp(max=1e30)
    t = squared.sqrt() * (2 * math.pi * angle_draw).cos()
    return 0.5 + 0.5 * t / (1 + t * t).sqrt()
