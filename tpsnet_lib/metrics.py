"""Predictions of a network, and what to say about them: numbers in, numbers with their uncertainty out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tpsnet_lib.config import CLASSES
from tpsnet_lib.data.datasets import normalise

Values = Sequence[float] | NDArray[Any]
Flags = Sequence[bool] | NDArray[Any] | Tensor


@torch.inference_mode()
def predict(
    model: nn.Module,
    images: Tensor,
    *,
    batch_size: int = 500,
    precision: str = "fp32",
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Logits float32 [N, 10], on the CPU, of images uint8 [N, 3, 32, 32], computed on the model's device.

    The model runs in evaluation mode and then returns to the mode it was in. `precision`: `fp32`, or `bf16` for
    autocast. `progress` is called with the number of images of each batch done."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    logits = []
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            for start in range(0, len(images), batch_size):
                batch = images[start : start + batch_size].to(device)
                logits.append(model(normalise(batch)).float())
                if progress is not None:
                    progress(len(batch))
    finally:
        model.train(was_training)
    return torch.cat(logits).cpu() if logits else torch.empty(0, CLASSES)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """The fraction of images whose largest logit is their label's; logits [N, 10], labels [N]."""
    return (logits.argmax(1) == labels).double().mean().item()


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a fraction, which stays within 0 and 1 and holds its level at the ends, where the
    textbook interval does not (Wilson 1927). Nothing observed (n = 0) gives (0, 1)."""
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    p = successes / n
    centre, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    low, high = (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)
    return (0.0 if successes == 0 else low), (1.0 if successes == n else high)


def mean_interval(values: Values, level: float = 0.95) -> tuple[float, float, float]:
    """The mean of independent values, such as one a seed, and its t interval: (mean, low, high).

    One value has no interval: its ends are nan, as is everything of none."""
    n = len(values)
    if n < 2:
        return (float(values[0]) if n else math.nan), math.nan, math.nan
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = t_quantile(n - 1, level) * deviation / math.sqrt(n)
    return mean, mean - half, mean + half


def paired_difference(values_a: Values, values_b: Values, level: float = 0.95) -> tuple[float, float, float]:
    """The mean of a - b and its t interval, where a and b are paired (one pair a seed): what they share cancels.

    Raises `ValueError` where the lengths differ."""
    return mean_interval([float(a) - float(b) for a, b in zip(values_a, values_b, strict=True)], level)


def bootstrap(
    values: Values, statistic: Callable[[Any], float], n: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """The percentile bootstrap interval of a statistic of rows drawn with replacement (Efron 1979).

    `values` [N] or [N, ...]; `statistic` takes an array of the same shape. The same seed gives the same interval."""
    rows, draw = np.asarray(values), np.random.default_rng(seed)
    statistics = [statistic(rows[draw.integers(0, len(rows), len(rows))]) for _ in range(n)]
    low, high = np.quantile(statistics, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mcnemar(correct_a: Flags, correct_b: Flags) -> float:
    """The exact two-sided p-value that two networks are equally accurate, from the same images (McNemar 1947).

    Only images that one gets right and the other wrong tell; if none does, p is 1."""
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    n = only_a + only_b
    tail = term = 1
    for k in range(min(only_a, only_b)):  # whole numbers: n over k + 1 from n over k
        term = term * (n - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << n))


def confusion(predicted: Tensor, labels: Tensor, classes: int = CLASSES) -> Tensor:
    """How often images of a class (row) are taken for another (column): int64 [classes, classes]."""
    return torch.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def per_class(confusion: Tensor) -> Tensor:
    """The accuracy within each class, float64 [classes], from a confusion matrix; nan for a class without images."""
    counts = confusion.double()
    return counts.diagonal() / counts.sum(1)


def nll(probabilities: Tensor, labels: Tensor) -> float:
    """The mean negative log likelihood of the labels, in nats; a probability below 1e-12 counts as 1e-12."""
    chosen = probabilities.double().gather(1, labels[:, None])
    return -chosen.clamp(min=1e-12).log().mean().item()


def brier(probabilities: Tensor, labels: Tensor) -> float:
    """The squared distance of the probabilities from the truth, summed over classes, 0 to 2 (Brier 1950)."""
    truth = torch.nn.functional.one_hot(labels, probabilities.shape[1])
    return (probabilities.double() - truth).square().sum(1).mean().item()


def ece(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """The expected calibration error: how far confidence is from accuracy, on average over bins of equal mass.

    Guo et al. 2017 (arXiv 1706.04599), with equal counts of images in the bins (Nguyen & O'Connor 2015): most
    confidences lie near 1, where bins of equal width would see nothing."""
    confidence, predicted = probabilities.double().max(1)
    order = confidence.argsort(stable=True)
    gap = (confidence - (predicted == labels).double())[order]
    return sum(abs(part.sum().item()) for part in gap.tensor_split(bins)) / len(labels)


def temperature(logits: Tensor, labels: Tensor) -> float:
    """The T in 0.01 to 100 for which softmax(logits / T) has the least negative log likelihood (Guo et al. 2017).

    Fit it on images that were not trained on, and apply it to others. In 1 / T the likelihood has one optimum, so
    halving the range finds it."""
    scores = logits.double()
    right = scores.gather(1, labels[:, None]).mean()
    low, high = math.log(0.01), math.log(100)
    for _ in range(50):
        middle = (low + high) / 2
        expected = (scores * (scores / math.exp(middle)).softmax(1)).sum(1).mean()
        if expected < right:  # d nll / d (1/T) < 0: the logits deserve more weight, a lower T
            high = middle
        else:
            low = middle
    return math.exp((low + high) / 2)


def t_quantile(freedom: int, level: float) -> float:
    """t with P(|T| < t) = level for Student's T, from its finite series (Abramowitz & Stegun 26.7.3 and 26.7.4)."""

    def inside(angle: float) -> float:  # P(|T| < sqrt(freedom) tan(angle))
        odd = freedom % 2
        term = total = 0.0 if freedom == 1 else math.cos(angle) if odd else 1.0
        for k in range(2 + odd, freedom - 1, 2):
            term *= (k - 1) / k * math.cos(angle) ** 2
            total += term
        return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total

    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < level else (low, middle)
    return math.sqrt(freedom) * math.tan(low)
