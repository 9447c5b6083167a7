"""What can be known of a data set before any network sees it: counts, statistics, copies, a map, the split's noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tpsnet_lib.config import CLASSES, TrainConfig
from tpsnet_lib.data.augment import augment, mix

SAME_PHOTOGRAPH = 0.8  # correlation of fine detail from which two images are called near-duplicates
_COARSE = 4  # pixels averaged along a side: 32 x 32 becomes 8 x 8
_BLOCK = 2000  # rows of a block of the product of all images with all: 16 MB, which stays near the processor

_PLAIN: dict[str, Any] = {"crop": 0, "flip": "none", "rotation": 0.0}
AUGMENTATIONS: dict[str, TrainConfig] = {  # one step each, at the strengths the recipes use
    "random crop": TrainConfig(**{**_PLAIN, "crop": 4}),
    "random flip": TrainConfig(**{**_PLAIN, "flip": "random"}),
    "alternating flip": TrainConfig(**{**_PLAIN, "flip": "alternate"}),
    "rotation": TrainConfig(**{**_PLAIN, "rotation": 5.0}),
    "cutout": TrainConfig(**{**_PLAIN, "cutout": 12}),
    "TrivialAugment": TrainConfig(**_PLAIN, trivial=True),
}
MIXES: dict[str, TrainConfig] = {
    "mixup": TrainConfig(**_PLAIN, mixup=1.0),
    "CutMix": TrainConfig(**_PLAIN, cutmix=1.0),
}


def _chunks(images: Tensor, size: int = 5000) -> Iterator[Tensor]:
    """The images a few at a time, so that no float copy of all of them is ever made."""
    return (images[start : start + size] for start in range(0, len(images), size))


# Counts and statistics ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChannelStatistics:
    """Mean and deviations of red, green and blue in [0, 1]: `pixel_std` of all pixels together, `image_std` the mean
    over images of each image's own deviation, `counts` int64 [3, 256] how many pixels have each value."""

    mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    image_std: tuple[float, ...]
    counts: Tensor


def class_counts(labels: Tensor) -> Tensor:
    """How many images each class has, int64 [10]."""
    return torch.bincount(labels, minlength=CLASSES)


def examples(labels: Tensor, count: int) -> Tensor:
    """The first `count` positions of every class, int64 [10, count]: a choice nobody made by eye."""
    return torch.stack([(labels == label).nonzero()[:count, 0] for label in range(CLASSES)])


def channel_statistics(images: Tensor) -> ChannelStatistics:
    """Channel statistics of uint8 images [N, 3, H, W], from counts of their values and so without rounding."""
    counts = torch.zeros(3, 256, dtype=torch.int64)
    own = torch.zeros(3, dtype=torch.float64)
    for chunk in _chunks(images):
        counts += torch.stack([torch.bincount(plane.flatten(), minlength=256) for plane in chunk.unbind(1)])
        own += chunk.float().std((2, 3), correction=0).double().sum(0) / (255 * len(images))
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = counts.double() @ values / counts.sum(1)
    variance = counts.double() @ values.square() / counts.sum(1) - mean.square()
    return ChannelStatistics(tuple(mean.tolist()), tuple(variance.sqrt().tolist()), tuple(own.tolist()), counts)


def class_means(values: Tensor, labels: Tensor) -> Tensor:
    """The mean of every class, float [10, ...], of images or thumbnails [N, ...]."""
    return torch.stack([values[labels == label].float().mean(0) for label in range(CLASSES)])


def nearest_mean(values: Tensor, means: Tensor) -> Tensor:
    """The class whose mean is the closest, int64 [N]: the simplest classifier there is."""
    flat = means.flatten(1)
    return torch.cat([torch.cdist(chunk.flatten(1).float(), flat).argmin(1) for chunk in _chunks(values)])


# Near-duplicates ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairs:
    """Pairs of images, the most alike first: positions `first` < `second` int64 [P], and `detail` float [P], the
    correlation of what remains of the two when their 8 x 8 thumbnails are taken away."""

    first: Tensor
    second: Tensor
    detail: Tensor

    def above(self, threshold: float = SAME_PHOTOGRAPH) -> Pairs:
        """The pairs whose detail agrees at least so much."""
        count = int((self.detail >= threshold).sum())
        return Pairs(self.first[:count], self.second[:count], self.detail[:count])

    def __len__(self) -> int:
        return len(self.first)


def thumbnails(images: Tensor) -> Tensor:
    """The images at 8 x 8 pixels, float [N, 192] in [0, 1]."""
    return torch.cat([F.avg_pool2d(chunk.float() / 255, _COARSE).flatten(1) for chunk in _chunks(images)])


def exact_duplicates(images: Tensor) -> int:
    """How many images are, byte for byte, an image that came before them."""
    return len(images) - len({image.tobytes() for image in images.numpy()})


def nearest(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's closest other row by correlation: (float [N], int64 [N]).

    All pairs are compared: a product of blocks with blocks, half of them, since each pair serves both its rows."""
    units = F.normalize(vectors - vectors.mean(1, keepdim=True))
    best = torch.full((len(units),), -2.0)
    other = torch.zeros(len(units), dtype=torch.int64)
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(units), _BLOCK)]
    for number, rows in enumerate(blocks):
        for columns in blocks[number:]:
            product = torch.mm(units[rows], units[columns].T)
            if rows == columns:
                product.fill_diagonal_(-2.0)  # an image is not its own neighbour
            _improve(best[rows], other[rows], product.max(1), columns.start)
            _improve(best[columns], other[columns], product.max(0), rows.start)
    return best, other


def _improve(best: Tensor, other: Tensor, found: Any, offset: int) -> None:
    better = found.values > best
    best[better] = found.values[better]
    other[better] = found.indices[better] + offset


def closest_pairs(images: Tensor, similarity: Tensor, other: Tensor, candidates: int = 4000) -> Pairs:
    """The pairs of nearest neighbours that may be one photograph, ordered by how much their detail agrees.

    Two skies have the same thumbnail and nothing else in common, so the candidates with the most similar thumbnails
    are compared once more without them. A pair that is shifted or mirrored is not found: the count is a lower bound."""
    chosen = similarity.argsort(descending=True, stable=True)[: 2 * candidates]
    ends = torch.stack([chosen, other[chosen]]).sort(0).values
    first, second = torch.unique(ends, dim=1)
    detail = (_detail(images[first]) * _detail(images[second])).sum(1)
    order = detail.argsort(descending=True, stable=True)
    return Pairs(first[order], second[order], detail[order])


def _detail(images: Tensor) -> Tensor:
    """What an image has beyond its 8 x 8 thumbnail, as unit vectors [N, 3072]."""
    pixels = images.float()
    coarse = F.interpolate(F.avg_pool2d(pixels, _COARSE), scale_factor=_COARSE)
    return F.normalize((pixels - coarse).flatten(1))


def across(pairs: Pairs, validation: Tensor) -> Tensor:
    """The validation positions, sorted, that make a pair with an image that is fitted, int64 [M]."""
    first, second = torch.isin(pairs.first, validation), torch.isin(pairs.second, validation)
    found: Tensor = torch.unique(torch.cat([pairs.first[first & ~second], pairs.second[second & ~first]]))
    return found


# A map --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Components:
    """Principal components of 8 x 8 thumbnails: `coordinates` float [N, k], `directions` float [k, 3, 8, 8], and
    `explained`, the share of the variance along each, float [k]."""

    coordinates: Tensor
    directions: Tensor
    explained: Tensor


def principal_components(vectors: Tensor, count: int = 30) -> Components:
    """The `count` directions along which thumbnails [N, 192] vary most (PCA, Pearson 1901), through the covariance."""
    centred = vectors - vectors.mean(0)
    variances, directions = torch.linalg.eigh((centred.T @ centred).double() / len(vectors))
    directions = directions.flip(1)[:, :count].T
    signs = torch.where(directions.sum(1, keepdim=True) < 0, -1.0, 1.0)  # eigh leaves the sign to chance
    directions = (directions * signs).float()
    explained = (variances.flip(0) / variances.sum())[:count]
    return Components(centred @ directions.T, directions.reshape(-1, 3, 8, 8), explained)


def maps(coordinates: Tensor, embedding: str = "tsne", seed: int = 0) -> dict[str, Tensor]:
    """Two maps of points [N, k], each float [N, 2]: the first two principal components, and beside them t-SNE, on which
    neighbours stay neighbours (van der Maaten & Hinton 2008), or the next two components (`embedding`: `pca`)."""
    if embedding == "pca":
        return {"components 1 and 2": coordinates[:, :2], "components 3 and 4": coordinates[:, 2:4]}
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1):  # its threads wait for each other at every turn: on a busy machine more are slower
        fitted = TSNE(perplexity=30, init="pca", random_state=seed).fit_transform(coordinates.numpy())
    points = torch.tensor(fitted)
    return {"components 1 and 2": coordinates[:, :2], "t-SNE": points}


def neighbour_agreement(points: Tensor, labels: Tensor) -> float:
    """The fraction of points [N, k] whose nearest other point has their label; by chance it is about 1 / classes."""
    distances = torch.cdist(points, points)
    distances.fill_diagonal_(torch.inf)
    return float((labels[distances.argmin(1)] == labels).double().mean())


# Augmentation -------------------------------------------------------------------------------------------------------


def variants(image: Tensor, index: int, recipe: TrainConfig, epochs: int, seed: int = 0) -> Tensor:
    """One image uint8 [3, 32, 32] as so many epochs show it, uint8 [epochs, 3, 32, 32]."""
    indices = torch.tensor([index])
    return torch.cat([augment(image[None], indices, recipe, seed, epoch) for epoch in range(epochs)])


def pixel_change(images: Tensor, recipe: TrainConfig, seed: int = 0) -> tuple[float, float]:
    """What a recipe does to uint8 images on average: the fraction of pixels it changes, and by how much the values of
    all pixels differ from before (0 to 255)."""
    after = augment(images, torch.arange(len(images)), recipe, seed, epoch=0).to(torch.int16)
    difference = (after - images).abs()
    return float((difference.amax(1) > 0).double().mean()), float(difference.double().mean())


def both_ways(recipe: TrainConfig, epochs: int, count: int = 2000, seed: int = 0) -> float:
    """The fraction of images that a flip has shown in both directions after so many epochs."""
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    image[:, :, 16:] = 255  # light on the right, so that a corner tells the direction
    indices = torch.arange(count)
    left = [
        augment(image.expand(count, -1, -1, -1), indices, recipe, seed, epoch)[:, 0, 0, 0] for epoch in range(epochs)
    ]
    seen = torch.stack(left) > 0
    return float((seen.any(0) & ~seen.all(0)).double().mean())


def mixed(images: Tensor, labels: Tensor, recipe: TrainConfig, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A batch after mixup or CutMix: images float [B, 3, 32, 32] in [0, 1] and targets float [B, 10].

    Blending commutes with normalising, so this shows what the network gets."""
    targets = F.one_hot(labels, CLASSES).float()
    return mix(images.float() / 255, targets, torch.arange(len(images)), recipe, seed, epoch=0)


# What a split and a choice do to a score -----------------------------------------------------------------------------


def random_split_counts(counts: Tensor, size: int, draws: int, seed: int = 0) -> Any:
    """Class counts of `size` images drawn without regard to class, int64 [draws, 10] (multivariate hypergeometric)."""
    return np.random.default_rng(seed).multivariate_hypergeometric(counts.numpy(), size, draws)


def hypergeometric_deviation(of_class: int, total: int, size: int) -> float:
    """The standard deviation of one class's count among `size` of `total` images drawn at random."""
    share = of_class / total
    return float(np.sqrt(size * share * (1 - share) * (total - size) / (total - 1)))


def score_deviation(correct: Tensor, labels: Tensor, size: int, stratified: bool) -> float:
    """The standard deviation of one classifier's score over validation sets of `size` images drawn anew each time.

    `correct` bool [N] says which of all images it gets right. How many of them are drawn is hypergeometric; in a
    stratified set it is a sum of ten such numbers, one a class."""
    groups = [labels == label for label in range(CLASSES)] if stratified else [torch.ones_like(labels).bool()]
    each = [
        hypergeometric_deviation(int(correct[group].sum()), int(group.sum()), size // len(groups)) for group in groups
    ]
    return float(np.linalg.norm(each)) / size


def difference_scores(
    correct_a: Tensor, correct_b: Tensor, size: int, draws: int, seed: int = 0
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Score of a minus score of b, on random validation sets that both see and on a set of its own for each:
    two float [draws]. `correct_a` and `correct_b`, bool [N], are about the same images."""
    a, b = correct_a, correct_b
    kinds = [int(kind.sum()) for kind in (a & b, a & ~b, ~a & b, ~a & ~b)]
    draw = np.random.default_rng(seed)
    shared = draw.multivariate_hypergeometric(kinds, size, draws)
    own_a = draw.hypergeometric(kinds[0] + kinds[1], kinds[2] + kinds[3], size, draws)
    own_b = draw.hypergeometric(kinds[0] + kinds[2], kinds[1] + kinds[3], size, draws)
    return (shared[:, 1] - shared[:, 2]) / size, (own_a - own_b) / size


@dataclass(frozen=True)
class Choice:
    """The best of `models` equally good ones, chosen by its score on a test set: the expected `chosen` score with the
    middle 95% of it (`low`, `high`), and the expected score `fresh` on images that took no part in the choice."""

    models: int
    chosen: float
    low: float
    high: float
    fresh: float


def choose_among(
    models: Sequence[int], accuracy: float, n: int, agree: float = 0.0, repeats: int = 2000, seed: int = 0
) -> list[Choice]:
    """Simulate choosing the best of k models of the same true accuracy by their scores on `n` test images.

    On a fraction `agree` of the images all models are right or wrong together, so only the others tell them apart."""
    draw, largest = np.random.default_rng(seed), max(models)
    common = round(agree * n)
    together = draw.binomial(common, accuracy, (repeats, 1))
    scores = (together + draw.binomial(n - common, accuracy, (repeats, largest))) / n
    fresh = draw.binomial(n, accuracy, (repeats, largest)) / n
    rows = []
    for k in models:
        best = scores[:, :k].argmax(1)
        chosen = scores[np.arange(repeats), best]
        low, high = np.quantile(chosen, [0.025, 0.975])
        later = float(fresh[np.arange(repeats), best].mean())
        rows.append(Choice(k, float(chosen.mean()), float(low), float(high), later))
    return rows
