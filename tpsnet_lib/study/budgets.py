"""Draws that were measured twice: what one measurement, short or of another seed, says of the other, with intervals."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tpsnet_lib.study.analyse import Array, Interval

Indices = NDArray[np.int64]
Scores = Sequence[float] | Array
SEARCHES = 100  # searches that are averaged over for each resample of the draws
LEAST_PAIRS = 9  # draws at two budgets; with fewer there are no three rungs to compare


def rank_correlation(a: Scores, b: Scores, repeats: int = 1000, seed: int = 0) -> Interval:
    """Spearman's rank correlation of paired values with its bootstrap interval over the pairs; nan below three, and
    where one of the two does not vary."""
    from scipy.stats import pearsonr, rankdata  # type: ignore[import-untyped]

    pairs = np.stack([np.asarray(a, dtype=float), np.asarray(b, dtype=float)])
    count = pairs.shape[1]
    if count < 3:
        return math.nan, math.nan, math.nan
    chosen = np.random.default_rng(seed).integers(0, count, (repeats, count))
    chosen = np.vstack([np.arange(count), chosen])  # the first row is no resample but the pairs themselves
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a resample of one pair alone has no correlation: it is left out below
        found = pearsonr(*(rankdata(values[chosen], axis=1) for values in pairs), axis=1).statistic
    resampled = found[1:][np.isfinite(found[1:])]
    low, high = np.quantile(resampled, [0.025, 0.975]) if len(resampled) else (math.nan, math.nan)
    return float(found[0]), float(low), float(high)


def ordered_alike(a: Scores, b: Scores) -> tuple[int, int]:
    """How many pairs of trials two measurements put in the same order, and how many pairs there are; a tie is not."""
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    upper = np.triu_indices(len(x), 1)
    alike = np.sign(x[:, None] - x)[upper] * np.sign(y[:, None] - y)[upper]
    return int((alike > 0).sum()), len(upper[0])


def regret(chosen_by: Scores, scored_by: Scores, sizes: Sequence[int], repeats: int = 300, seed: int = 0) -> Array:
    """What a search of k trials loses by choosing with one measurement where another counts: the best by the other
    less the chosen one's, on average over searches; rows mean, low, high (bootstrap over trials) for each size k."""
    x, y = np.asarray(chosen_by, dtype=float), np.asarray(scored_by, dtype=float)

    def lost(orders: Indices) -> Array:
        tried = [orders[:, :size] for size in sizes]
        return np.array([(y[each].max(1) - _at(y[each], x[each].argmax(1))).mean() for each in tried])

    return _over_searches(lost, len(x), repeats, seed)


def surprise(chosen_by: Scores, scored_by: Scores, sizes: Sequence[int], repeats: int = 300, seed: int = 0) -> Array:
    """How much better the winner of k trials looked when it was chosen than when it is measured again: the winner's
    curse, from trials that were run twice; rows mean, low, high (bootstrap over trials) for each size k."""
    x, y = np.asarray(chosen_by, dtype=float), np.asarray(scored_by, dtype=float)

    def fallen(orders: Indices) -> Array:
        tried = [orders[:, :size] for size in sizes]
        return np.array([(_at(x[each] - y[each], x[each].argmax(1))).mean() for each in tried])

    return _over_searches(fallen, len(x), repeats, seed)


def optimism(truth: Scores, images: int, sizes: Sequence[int], repeats: int = 4000, seed: int = 0) -> Array:
    """The winner's curse of validation noise alone, simulated: networks of known accuracy are scored on `images`
    random images, the best of k wins, and its score less its true accuracy is averaged: [sizes]."""
    p, draw = np.asarray(truth, dtype=float), np.random.default_rng(seed)
    gaps = []
    for size in sizes:
        chosen = p[draw.random((repeats, len(p))).argsort(1)[:, :size]]
        scores = draw.binomial(images, chosen) / images
        best = scores.argmax(1)
        gaps.append(float((_at(scores, best) - _at(chosen, best)).mean()))
    return np.array(gaps)


@dataclass(frozen=True)
class Contest:
    """Random search against successive halving where both spend the same epochs: for each sum of epochs [J] the
    accuracy to expect of the network chosen, rows mean, low, high [3, J]; `gain` is halving less random search."""

    n: int  # draws that were trained at both budgets
    rate: int  # one in so many is promoted
    epochs: Array  # spent by either
    random: Array
    halving: Array
    gain: Array

    def draws(self, index: int) -> tuple[int, int, int]:
        """What the epochs at an index buy: long trials of random search; short and then long ones of halving."""
        return 2 * (index + 1), self.rate * (index + 1), index + 1


def contest(
    short: Scores, long: Scores, budgets: tuple[float, float], repeats: int = 300, seed: int = 0
) -> Contest | None:
    """Random search against successive halving at equal compute, from draws that were trained at both `budgets`
    (short and long, in epochs); None below `LEAST_PAIRS` draws or where the long one is not at least twice the short.

    With the rate r = long / short, halving trains r j draws short, promotes the best j and trains them anew and long,
    so that each rung anneals to its own budget; random search trains 2 j draws long, which costs as many epochs. Both
    then choose by the long accuracy. Means are over searches drawn without replacement, bands a bootstrap over the
    draws. Synchronous halving with two rungs (Jamieson & Talwalkar 2016, arXiv 1502.07943); ASHA (Li et al. 2020,
    arXiv 1810.05934) makes the same choice without waiting for a rung to fill."""
    x, y = np.asarray(short, dtype=float), np.asarray(long, dtype=float)
    rate = round(budgets[1] / budgets[0]) if budgets[0] > 0 else 0
    if len(x) < LEAST_PAIRS or rate < 2:
        return None
    steps = range(1, len(x) // rate + 1)

    def chosen(orders: Indices) -> Array:
        first, late = x[orders], y[orders]
        halved = []
        for step in steps:
            promoted = np.argpartition(-first[:, : rate * step], step - 1, axis=1)[:, :step]
            halved.append(np.take_along_axis(late, promoted, 1).max(1).mean())
        plain = [late[:, : 2 * step].max(1).mean() for step in steps]
        return np.array([plain, halved, np.subtract(halved, plain)])

    found = _over_searches(chosen, len(x), repeats, seed)
    epochs = np.array([2 * step * budgets[1] for step in steps])
    return Contest(len(x), rate, epochs, found[:, 0], found[:, 1], found[:, 2])


def _at(values: Array, columns: Indices) -> Array:
    return np.take_along_axis(values, columns[:, None], 1)[:, 0]


def _over_searches(measure: Callable[[Indices], Array], count: int, repeats: int, seed: int) -> Array:
    """The mean, low and high end of a measure over searches [3, ...]: `measure` takes orders in which trials are
    drawn [searches, count] and averages over them; the ends are a bootstrap over the trials."""
    draw = np.random.default_rng(seed)

    def orders(population: Indices) -> Indices:
        return population[draw.random((SEARCHES, count)).argsort(1)]

    everyone = np.arange(count)
    resampled = [measure(orders(draw.choice(everyone, count))) for _ in range(repeats)]
    whole = np.mean([measure(orders(everyone)) for _ in range(20)], axis=0)
    return np.stack([whole, *np.quantile(resampled, [0.025, 0.975], axis=0)])
