"""The images as a network meets them: whole sets of tensors, the split, the fingerprint, the normalised input.

The split (cifar10_split.npy, uint16 [50000]) was drawn once from the official training labels and is only ever
read: the positions of each class were permuted by numpy's PCG64(20241), dealt out in tens that hold every class once
(in an order drawn anew for each ten), and written down. The first 45,000 are fitted, the last 5,000 validate. So each
part is stratified, and so is every prefix of either whose length is a multiple of ten.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from tpsnet_lib.config import DataConfig
from tpsnet_lib.data import cifar10, own, shapes10
from tpsnet_lib.data.cifar10 import Fingerprint, content_sum
from tpsnet_lib.errors import ConfigError, DataError

MEAN = (0.4914, 0.4822, 0.4465)  # of CIFAR-10's training pixels by channel, in [0, 1]; used for every data set
STD = (0.2023, 0.1994, 0.2010)  # the original's: the mean of the images' own deviations, not the pixels' deviation


@dataclass(frozen=True)
class ImageSet:
    """Images with their labels, held whole in the memory of one device.

    `images` uint8 [N, C, 32, 32] of C = 3 colours, or 1; `labels` int64 [N]; `indices` int64 [N], each image's position
    in the official train or test order; `stamp` names the data set wherever a result is shown."""

    images: Tensor
    labels: Tensor
    indices: Tensor
    stamp: str

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, positions: Tensor) -> Self:
        """The images at the given positions (int64 [M], in this set), in that order."""
        rows = positions.to(self.labels.device)
        return replace(self, images=self.images[rows], labels=self.labels[rows], indices=self.indices[rows])

    def to(self, device: torch.device | str) -> Self:
        """The same images on a device."""
        return replace(
            self, images=self.images.to(device), labels=self.labels.to(device), indices=self.indices.to(device)
        )


def resolve_dataset(name: str, data: str | Path | None = None) -> str:
    """The data set of a chapter by name; `auto` is CIFAR-10 where it is found, or `data` names its place, else
    shapes10. Raises `DataError` for any other, and for a folder of one's own as `data`."""
    if name not in ("auto", "cifar10", "shapes10"):
        other = f" (the chapters are about CIFAR-10; `tpsnet train --set data.dataset={name}` trains on that)"
        raise DataError(f"dataset is {name!r}: give cifar10, shapes10 or auto{other * own.is_own(name)}")
    if data:
        own.refuse_class_folder(data)
    return name if name != "auto" else "cifar10" if data or cifar10.find_root() else "shapes10"


def class_names(dataset: str) -> tuple[str, ...]:
    """The names of the ten classes of the built-in data set or CIFAR-10, in the order of their labels.

    The classes of other data stand in the records of their runs (`Record.class_names`)."""
    return shapes10.CLASSES if dataset == "shapes10" else cifar10.CLASSES


def load_train(dataset: str, root: str | Path | None = None) -> ImageSet:
    """All training images (CIFAR-10: 50,000; shapes10: 10,000) in the official order; the test file is not touched.

    Raises `DataError` when a file is missing, damaged or not what it claims to be."""
    return _load(dataset, "train", root)


def load_test(dataset: str, root: str | Path | None = None) -> ImageSet:
    """All test images (CIFAR-10: 10,000; shapes10: 2,000). But for this, only the test file's own check
    and that of a download open it.

    Raises `DataError` as `load_train` does."""
    return _load(dataset, "test", root)


def fingerprint(dataset: str, root: str | Path | None = None) -> Fingerprint:
    """Which copy the training images are. The layout makes no difference: labels, then pixels, are hashed."""
    return _fingerprint(dataset, "train", root)


def test_fingerprint(dataset: str, root: str | Path | None = None) -> Fingerprint:  # noqa: PT028 - no test
    """Which copy the test images are; opens the test file."""
    return _fingerprint(dataset, "test", root)


@lru_cache
def _committed_split() -> Tensor:
    path = Path(__file__).parent / "cifar10_split.npy"
    return torch.from_numpy(np.load(path, allow_pickle=False).astype(np.int64))


def split(dataset: str, root: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """The positions that are fitted and those that validate, int64 [45000] and [5000] (shapes10: [9000], [1000]).

    Every prefix of a multiple of ten holds each class equally often. Of data of one's own a tenth of each class
    validates, and `root` says where they are."""
    if own.is_own(dataset):
        train = own.read(dataset, "train", root)
        positions, count = torch.arange(len(train.labels)), train.fitted
    elif dataset == "shapes10":
        positions, count = torch.arange(shapes10.SIZES["train"]), shapes10.FIT_SIZE
    else:
        positions, count = _committed_split(), 45_000
    return positions[:count].clone(), positions[count:].clone()


def image_counts(config: DataConfig, root: str | Path | None = None) -> tuple[int, int]:
    """How many images a run fits, and on how many it is validated; `root` as in `split`."""
    fit, validation = map(len, split(config.dataset, root))
    return config.train_size or fit + validation * (config.fit_on == "all"), config.validation_size or validation


def fit_and_validation(config: DataConfig, root: str | Path | None = None) -> tuple[ImageSet, ImageSet]:
    """The images that a run fits and those that it is validated on, each a prefix of its part of the split.

    With `fit_on: all` the validation images are fitted too, after the others; they are still evaluated, and their
    score is then not held out. Raises `ConfigError` for a size that the data set does not have."""
    fit, validation = split(config.dataset, root)
    if config.fit_on == "all":
        fit = torch.cat([fit, validation])
    fit = _prefix("data.train_size", config.train_size, fit, config.dataset)
    validation = _prefix("data.validation_size", config.validation_size, validation, config.dataset)
    if config.dataset == "shapes10":  # drawn as asked for: a few images take milliseconds
        return _shapes("train", fit), _shapes("train", validation)
    train = load_train(config.dataset, root)
    return train.subset(fit), train.subset(validation)


def _prefix(name: str, size: int, positions: Tensor, dataset: str) -> Tensor:
    if size > len(positions):
        raise ConfigError(f"{name} is {size}, {dataset} has {len(positions)} for it: give at most that, or 0 for all")
    return positions[:size] if size else positions


def normalise(images: Tensor) -> Tensor:
    """(x / 255 - MEAN) / STD of uint8 images [N, C, H, W]: the network's input, in channels_last, on their device.

    Images of one colour take the first of the three constants."""
    count, channels, height, width = images.shape
    scale, offset = _affine(images.device, height * width, channels)
    rows = images.permute(0, 2, 3, 1).flatten(1).float()  # laid out as bytes, which are the least to move
    torch.addcmul(offset, rows, scale, out=rows)
    return rows.view(count, height, width, channels).permute(0, 3, 1, 2)


@lru_cache
def _affine(device: torch.device, pixels: int, channels: int) -> tuple[Tensor, Tensor]:
    mean, std = torch.tensor(MEAN[:channels], device=device), torch.tensor(STD[:channels], device=device)
    return (1 / (255 * std)).repeat(pixels), (-mean / std).repeat(pixels)


def _shapes(part: str, positions: Tensor) -> ImageSet:
    images, labels = shapes10.draw(part, positions.numpy())
    return ImageSet(torch.from_numpy(images), torch.from_numpy(labels), positions, "shapes10")


def _load(dataset: str, part: str, root: str | Path | None) -> ImageSet:
    if dataset == "shapes10":
        return _shapes(part, torch.arange(shapes10.SIZES[part]))
    if own.is_own(dataset):
        own_set = own.read(dataset, part, root)
        return ImageSet(own_set.images, own_set.labels, torch.arange(len(own_set.labels)), own_set.fingerprint.stamp)
    own.refuse_class_folder(root)
    labels, pixels, copy = cifar10.read(part, root)
    images = torch.from_numpy(pixels.reshape(-1, 3, 32, 32))
    return ImageSet(images, torch.from_numpy(labels.astype(np.int64)), torch.arange(len(labels)), copy.stamp)


def _fingerprint(dataset: str, part: str, root: str | Path | None) -> Fingerprint:
    if own.is_own(dataset):
        return own.read(dataset, part, root).fingerprint
    if dataset == "shapes10":
        return _drawn_fingerprint(part)
    own.refuse_class_folder(root)
    return cifar10.identify(part, root)


@lru_cache
def _drawn_fingerprint(part: str) -> Fingerprint:
    shapes = _load("shapes10", part, None)
    return Fingerprint("shapes10", content_sum(shapes.labels.numpy(), shapes.images.numpy()), True)
