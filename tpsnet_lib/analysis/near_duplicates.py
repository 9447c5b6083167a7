"""Images that are nearly in the training set: the same photograph again, or the same scene a moment later."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tpsnet_lib import stats
from tpsnet_lib.stats import Estimate

NEAR_DUPLICATE = 0.85  # likeness from which two images are called near-duplicates: `find_near_duplicates` says why
CANDIDATES = 5  # training images with the most similar thumbnails, whose shapes are then compared
_BLOCK = 500  # images at a time, against all of training: 100 MB


@dataclass(frozen=True)
class NearDuplicates:
    """The training image most like each of M images: its position int64 [M], the likeness float32 [M] of at most 1,
    and whether it is the mirrored image that is alike, bool [M]."""

    position: Tensor
    likeness: Tensor
    mirrored: Tensor

    @property
    def close(self) -> Tensor:
        """Which of the M images have a near-duplicate: bool [M]."""
        return self.likeness >= NEAR_DUPLICATE


def _chunks(images: Tensor, size: int = 5000) -> Iterator[Tensor]:
    """The images some at a time, so that no float copy of all of them is ever made."""
    return (images[start : start + size] for start in range(0, len(images), size))


def thumbnails(images: Tensor) -> Tensor:
    """Images uint8 [N, 3, 32, 32] at 8 x 8 pixels, less their mean, as unit vectors float [N, 192]: the product of two
    is their correlation."""
    small = torch.cat([F.avg_pool2d(chunk.float(), 4).flatten(1) for chunk in _chunks(images)])
    return F.normalize(small - small.mean(1, keepdim=True))


def shapes(images: Tensor) -> Tensor:
    """What images uint8 [N, 3, 32, 32] have at 16 x 16 pixels beyond their 4 x 4 thumbnail, as unit vectors [N, 768].

    Neither two skies share it, nor does a change of brightness, colour or sharpness take it away."""
    parts = [torch.zeros(0, 768)]
    for chunk in _chunks(images):
        fine = F.avg_pool2d(chunk.float(), 2)
        parts.append((fine - F.interpolate(F.avg_pool2d(fine, 4), scale_factor=4)).flatten(1))
    return F.normalize(torch.cat(parts))


def find_near_duplicates(
    images: Tensor, training: Tensor, other_labels: tuple[Tensor, Tensor] | None = None
) -> NearDuplicates:
    """The training image (uint8 [N, 3, 32, 32]) most like each of images (uint8 [M, 3, 32, 32]) or like its mirror.

    Five candidates have the most similar thumbnail. Among them the likeness decides, which is the correlation of the
    two `shapes`. `other_labels`, the labels of both, allows only pairs with different labels.

    `NEAR_DUPLICATE` was chosen on training images alone: of 3,000 of CIFAR-10's, 3 reach 0.85 with one of 47,000 others
    that has another label, so 1 in 1,000 by chance, but 81 with any; of those between 0.85 and 0.9, 17 in 20 are the
    same thing by eye, between 0.8 and 0.85 half. Pairs that are shifted by more than a pixel or two are missed, so what
    is found is a lower bound."""
    size = min(CANDIDATES, len(training))
    training_thumbnails, training_shapes = thumbnails(training), shapes(training)
    blocks = []
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK]
        sides = []
        for view in (block, block.flip(3)):
            similarity = torch.mm(thumbnails(view), training_thumbnails.T)
            if other_labels is not None:
                similarity[other_labels[0][start : start + _BLOCK, None] == other_labels[1]] = -2.0
            candidates = similarity.topk(size).indices
            likeness, best = (shapes(view)[:, None] * training_shapes[candidates]).sum(2).max(1)
            sides.append((candidates.gather(1, best[:, None])[:, 0], likeness))
        (position, likeness), (mirrored_position, mirrored_likeness) = sides
        mirrored = mirrored_likeness > likeness
        position = mirrored_position.where(mirrored, position)
        blocks.append((position, likeness.maximum(mirrored_likeness), mirrored))
    return NearDuplicates(*(torch.cat(parts) for parts in zip(*blocks, strict=True)))


@dataclass(frozen=True)
class AccuracyByNearDuplicate:
    """A network's accuracy on the images that have a near-duplicate in training, on the others and on all of them, and
    the first minus the second."""

    count: int  # of images that have a near-duplicate
    with_duplicate: Estimate
    without: Estimate
    everything: Estimate
    difference: Estimate


def accuracy_by_near_duplicate(correct: Tensor, close: Tensor) -> AccuracyByNearDuplicate:
    """What near-duplicates do to an accuracy; `correct`, `close` bool [M]: whether each image is right, and has one."""
    counts = [(int(part.sum()), len(part)) for part in (correct[close], correct[~close], correct)]
    with_duplicate, without, everything = (stats.proportion(*count) for count in counts)
    difference = stats.proportion_difference(*counts[0], *counts[1])
    return AccuracyByNearDuplicate(int(close.sum()), with_duplicate, without, everything, difference)


find_twins, accuracy_by_twin = find_near_duplicates, accuracy_by_near_duplicate  # until notebook 05 calls them anew
Seen = AccuracyByNearDuplicate
