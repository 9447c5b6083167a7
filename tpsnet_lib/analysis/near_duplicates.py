"""The vectors in which near-duplicates lie close: one photograph twice, or one scene a moment later.

Notebook 01 searches with them, in section 4."""

import torch
from torch import Tensor
from torch.nn import functional as F

# The likeness (the product of two `detail` vectors) from which two images are called near-duplicates. Chosen on
# CIFAR-10's training images alone: of 3,000, 3 reach it with one of 47,000 others that has another label, so 1 in
# 1,000 by chance, but 81 with any. Of those between 0.85 and 0.9, 17 in 20 are the same thing by eye, between 0.8 and
# 0.85 half.
NEAR_DUPLICATE = 0.85
PART = 5000  # images at a time, so that no float copy of all of them is ever made


def thumbnails(images: Tensor) -> Tensor:
    """Images uint8 [N, 3, 32, 32] at 8 x 8 pixels, less their mean, as unit vectors float [N, 192]: the product of two
    is their correlation."""
    small = torch.cat([F.avg_pool2d(chunk.float(), 4).flatten(1) for chunk in torch.split(images, PART)])
    return F.normalize(small - small.mean(1, keepdim=True))


def detail(images: Tensor) -> Tensor:
    """What images uint8 [N, 3, 32, 32] have at 16 x 16 pixels beyond their 4 x 4 thumbnail, as unit vectors [N, 768].

    Neither two skies share it, nor does a change of brightness, colour or sharpness take it away; a shift by more than
    a pixel or two does."""
    fine = [F.avg_pool2d(chunk.float(), 2) for chunk in torch.split(images, PART)]
    beyond = [part - F.interpolate(F.avg_pool2d(part, 4), scale_factor=4) for part in fine]
    return F.normalize(torch.cat(beyond).flatten(1))
