"""Test images that were in training, nearly: the same photograph again, or the same scene a moment later."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tpsnet_lib.analysis.dataset import thumbnails
from tpsnet_lib.analysis.errors import Interval, share

TWIN = 0.85  # likeness from which two images are called near-duplicates: `find_twins` says why
CANDIDATES = 5  # training images with the most similar thumbnails, whose shapes are then compared
_BLOCK = 500  # images at a time, against all of training: 100 MB


@dataclass(frozen=True)
class Twins:
    """The training image most like each of M images: its position int64 [M], the likeness float32 [M] of at most 1,
    and whether it is the mirrored image that is alike, bool [M]."""

    position: Tensor
    likeness: Tensor
    mirrored: Tensor

    @property
    def close(self) -> Tensor:
        """Which of the M images have a near-duplicate: bool [M]."""
        return self.likeness >= TWIN


def find_twins(images: Tensor, training: Tensor, apart: tuple[Tensor, Tensor] | None = None) -> Twins:
    """The training image (uint8 [N, 3, 32, 32]) most like each of images (uint8 [M, 3, 32, 32]) or like its mirror.

    Five candidates have the most similar 8 x 8 colour thumbnail (correlation). Among them the likeness decides: the
    correlation of what the two show at 16 x 16 pixels beyond their 4 x 4 thumbnails, which neither two skies share nor
    a change of brightness, colour or sharpness takes away. `apart`, the labels of both, allows only pairs with
    different labels.

    `TWIN` was chosen on training images alone: of 3,000 of CIFAR-10's, 3 reach 0.85 with one of 47,000 others that has
    another label, so 1 in 1,000 by chance, but 81 with any; of those between 0.85 and 0.9, 17 in 20 are the same thing
    by eye, between 0.8 and 0.85 half. Pairs that are shifted by more than a pixel or two are missed, so what is
    found is a lower bound."""
    size = min(CANDIDATES, len(training))
    coarse, shapes = _units(thumbnails(training)), _shapes(training)
    found = []
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK]
        sides = []
        for seen in (block, block.flip(3)):
            alike = torch.mm(_units(thumbnails(seen)), coarse.T)
            if apart is not None:
                alike[apart[0][start : start + _BLOCK, None] == apart[1]] = -2.0
            at = alike.topk(size).indices
            likeness, best = (_shapes(seen)[:, None] * shapes[at]).sum(2).max(1)
            sides.append((at.gather(1, best[:, None])[:, 0], likeness))
        (position, likeness), (turned, other) = sides
        mirrored = other > likeness
        found.append((turned.where(mirrored, position), likeness.maximum(other), mirrored))
    return Twins(*(torch.cat(parts) for parts in zip(*found, strict=True)))


@dataclass(frozen=True)
class Seen:
    """How many test images have a near-duplicate in training; a network's accuracy on them, on the others and on all,
    each with its Wilson interval; and the first minus the second, with Newcombe's (1998, method 10)."""

    count: int
    twins: Interval
    others: Interval
    everything: Interval
    gap: Interval


def accuracy_by_twin(correct: Tensor, close: Tensor) -> Seen:
    """What near-duplicates do to an accuracy; `correct`, `close` bool [M]: whether each image is right, and has one."""
    twins, others, everything = (
        share(int(part.sum()), len(part)) for part in (correct[close], correct[~close], correct)
    )
    gap = twins[0] - others[0]
    low = gap - math.hypot(twins[0] - twins[1], others[2] - others[0])
    high = gap + math.hypot(twins[2] - twins[0], others[0] - others[1])
    return Seen(int(close.sum()), twins, others, everything, (gap, low, high))


def _shapes(images: Tensor) -> Tensor:
    """What an image has at 16 x 16 pixels beyond its 4 x 4 thumbnail, as unit vectors [N, 768]."""
    parts = [torch.zeros(0, 768)]
    for start in range(0, len(images), 5000):
        fine = F.avg_pool2d(images[start : start + 5000].float(), 2)
        parts.append((fine - F.interpolate(F.avg_pool2d(fine, 4), scale_factor=4)).flatten(1))
    return F.normalize(torch.cat(parts))


def _units(vectors: Tensor) -> Tensor:
    return F.normalize(vectors - vectors.mean(1, keepdim=True))
