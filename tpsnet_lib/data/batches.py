"""The batches of a training run: each epoch in a new order, augmented on the device where the images are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tpsnet_lib.config import TrainConfig
from tpsnet_lib.data.augment import augment, permutation
from tpsnet_lib.data.datasets import ImageSet

AUGMENTED_TOGETHER = 8192  # images, on a GPU
COPY = 2**20  # more than any data set has images: the draws of copy c are those of index + c * COPY


@dataclass(frozen=True)
class Batch:
    """The images of one step: augmented uint8 [B, 3, 32, 32], with their labels int64 [B] and their indices in the data
    set int64 [B], by which they draw. `step` counts from 0 through the whole run, `epoch` from 0.

    A recipe of k copies shows every image of a step k times, one copy of all after another, so B is k times the batch
    size; the indices of copy c are higher by c * `COPY` (batch augmentation; Hoffer et al. 2020, arXiv 1901.09335)."""

    step: int
    epoch: int
    images: Tensor
    labels: Tensor
    indices: Tensor


def batch_size(recipe: TrainConfig, images: int) -> int:
    """The recipe's batch size, or all images where they are fewer."""
    return min(recipe.batch_size, images)


def batches(
    fit_set: ImageSet, recipe: TrainConfig, seed: int, start: int, stop: int, epoch_ahead: bool = False
) -> Iterator[Batch]:
    """The batches of steps `start` to `stop` - 1 of a run. Every draw is keyed by (seed, epoch, image), so a run that
    is resumed at any step sees the same ones.

    An epoch leaves out the images that do not fill its last batch; the next epoch's order is another. `epoch_ahead`:
    augment all images of an epoch before its first batch. On a GPU some of that waits for the device, and no later step
    of the epoch does."""
    size = batch_size(recipe, len(fit_set))
    epoch_steps = len(fit_set) // size

    copies = range(recipe.copies)

    def augmented(positions: Tensor, epoch: int, copy: int) -> Tensor:
        images = fit_set.images.index_select(0, positions)
        return augment(images, fit_set.indices[positions] + copy * COPY, recipe, seed, epoch)

    for epoch in range(start // epoch_steps, math.ceil(stop / epoch_steps)):
        order = permutation(seed, epoch, len(fit_set), fit_set.images.device)[: epoch_steps * size]
        if epoch_ahead:
            parts = torch.split(order, AUGMENTED_TOGETHER)
            epoch_images = [torch.cat([augmented(part, epoch, copy) for part in parts]) for copy in copies]
        first = epoch * epoch_steps
        for step in range(max(start, first), min(stop, first + epoch_steps)):
            part = slice((step - first) * size, (step - first + 1) * size)
            positions = order[part]
            images = [epoch_images[copy][part] if epoch_ahead else augmented(positions, epoch, copy) for copy in copies]
            indices = torch.cat([fit_set.indices[positions] + copy * COPY for copy in copies])
            yield Batch(step, epoch, torch.cat(images), fit_set.labels[positions].repeat(recipe.copies), indices)
