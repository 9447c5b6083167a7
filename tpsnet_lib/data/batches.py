"""The batches of a training run: each epoch in a new order, augmented on the device where the images are."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from tpsnet_lib.config import TrainConfig
from tpsnet_lib.data.augment import augment
from tpsnet_lib.data.datasets import ImageSet
from tpsnet_lib.data.random_draws import permutation

AUGMENTED_TOGETHER = 8192  # images, on a GPU
COPY = 2**20  # more than any data set has images: the draws of copy c are those of index + c * COPY


@dataclass(frozen=True)
class Batch:
    """The images of one step: augmented uint8 [B, 3, 32, 32], with their labels int64 [B] and their indices in the data
    set int64 [B], by which they draw. `step` counts from 0 through the whole run, `epoch` from 0.

    A recipe of k copies shows every image of a step k times, one copy of all after another, so B is k times the batch
    size; the indices of copy c are higher by c * `COPY` (batch augmentation; Hoffer et al. 2020, arXiv 1901.09335)."""

    step: int
    epoch: int | Tensor  # int64 [] where a step is recorded and replayed, which keeps numbers as they were
    images: Tensor
    labels: Tensor
    indices: Tensor


class Phase(NamedTuple):
    """What a step does or leaves out; it changes a few times in a run."""

    may_mix: bool  # images and targets are mixed, if the recipe mixes any
    small: bool  # images are shrunk
    stem_frozen: bool

    @classmethod
    def at(cls, step: int, recipe: TrainConfig, epoch_steps: int, steps: int) -> Self:
        """The phase of a step, counted from 0, of a run of `steps` steps."""
        return cls(
            may_mix=step < steps - recipe.mix_off_epochs * epoch_steps,
            small=step < recipe.small_epochs * epoch_steps,
            stem_frozen=recipe.stem_epochs > 0 and step >= recipe.stem_epochs * epoch_steps,
        )


def batch_size(recipe: TrainConfig, images: int) -> int:
    """The recipe's batch size, or all images where they are fewer."""
    return min(recipe.batch_size, images)


def run_steps(recipe: TrainConfig, images: int) -> int:
    """Steps of a run on so many images."""
    return max(1, round(recipe.epochs * (images // batch_size(recipe, images))))


def batches(
    fit_set: ImageSet, recipe: TrainConfig, seed: int, start: int, stop: int, epoch_ahead: bool = False
) -> Iterator[Batch]:
    """The batches of steps `start` to `stop` - 1 of a run. Every draw is keyed by (seed, epoch, image), so a run that
    is resumed at any step sees the same ones.

    An epoch leaves out the images that do not fill its last batch; the next epoch's order is another. `epoch_ahead`:
    augment all images of an epoch before its first batch, which is fewer operations for a GPU."""
    size = batch_size(recipe, len(fit_set))
    epoch_steps = len(fit_set) // size
    copy = torch.arange(recipe.copies, device=fit_set.images.device).repeat_interleave(size) * COPY

    def shown(positions: Tensor, epoch: int | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images, labels and indices [S, B, ...] of S steps, whose positions in the data set are [S, size]."""
        every = positions.repeat(1, recipe.copies)
        indices = fit_set.indices[every] + copy
        parts = (torch.split(each.flatten(), AUGMENTED_TOGETHER) for each in (every, indices))
        images = [
            augment(fit_set.images.index_select(0, some), of, recipe, seed, epoch)
            for some, of in zip(*parts, strict=True)
        ]
        augmented: Tensor = torch.cat(images).unflatten(0, every.shape)
        return augmented, fit_set.labels[every], indices

    device = fit_set.images.device
    for epoch in range(start // epoch_steps, math.ceil(stop / epoch_steps)):
        # On a GPU a number that Python makes a tensor of is waited for; one that fills a tensor is not.
        epoch_there = epoch if device.type == "cpu" else torch.full((), epoch, device=device)
        order = permutation(seed, epoch_there, len(fit_set), device)[: epoch_steps * size].view(-1, size)
        first = epoch * epoch_steps
        steps = range(max(start, first), min(stop, first + epoch_steps))
        together = len(steps) if epoch_ahead else 1  # steps whose images are augmented at once
        for begin in range(steps.start, steps.stop, together):
            made = shown(order[begin - first : begin - first + together], epoch_there)
            for step, parts in enumerate(zip(*made, strict=True), begin):
                yield Batch(step, epoch, *parts)
