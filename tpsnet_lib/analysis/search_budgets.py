"""Draws that were measured twice: what one measurement, short or of another seed, says of the other, with intervals."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tpsnet_lib.analysis.search import Array, Interval

Indices = NDArray[np.int64]
Scores = Sequence[float] | Array
SEARCHES = 100  # searches that are averaged over for each resample of the draws
_NOTHING = (math.nan, math.nan, math.nan)
LEAST_PAIRS = 9  # draws at two budgets; with fewer there are no three rungs to compare


def rank_correlation(a: Scores, b: Scores, repeats: int = 1000, seed: int = 0) -> Interval:
    """Spearman's rank correlation of paired values with its bootstrap interval over the pairs; nan below three, and
    where one of the two does not vary."""
    return _with_interval(_spearman(*_ranks([a, b], repeats, seed))) if len(a) >= 3 else _NOTHING


def ranks_better(a: Scores, b: Scores, truth: Scores, repeats: int = 1000, seed: int = 0) -> Interval:
    """By how much the rank correlation of `a` with `truth` is above that of `b`, with its bootstrap interval over the
    draws, which all three share: two correlations may differ for sure though their own intervals overlap."""
    if len(truth) < 3:
        return _NOTHING
    first, second, counts = _ranks([a, b, truth], repeats, seed)
    return _with_interval(_spearman(first, counts) - _spearman(second, counts))


def _ranks(values: Sequence[Scores], repeats: int, seed: int) -> list[Array]:
    """The ranks of paired values, and of `repeats` resamples of the pairs [1 + repeats, n]; the first row is no
    resample."""
    from scipy.stats import rankdata  # type: ignore[import-untyped]

    table = np.array([np.asarray(each, dtype=float) for each in values])
    count = table.shape[1]
    chosen = np.random.default_rng(seed).integers(0, count, (repeats, count))
    chosen = np.vstack([np.arange(count), chosen])
    return [rankdata(row[chosen], axis=1) for row in table]


def _spearman(a: Array, b: Array) -> Array:
    from scipy.stats import pearsonr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a resample of one pair alone has no correlation: it is left out
        found: Array = pearsonr(a, b, axis=1).statistic
    return found


def _with_interval(found: Array) -> Interval:
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


def surprise(
    chosen_by: Scores, scored_by: Scores, sizes: Sequence[int], repeats: int = 300, seed: int = 0, beyond: bool = False
) -> Array:
    """How much better the winner of k trials looked when it was chosen than when it is measured again: the winner's
    curse, from trials that were run twice; rows mean, low, high (bootstrap over trials) for each size k.

    With `beyond`, less what a trial that nobody chose falls: the second measurements may all be lower by chance."""
    x, y = np.asarray(chosen_by, dtype=float), np.asarray(scored_by, dtype=float)

    def fallen(orders: Indices) -> Array:
        tried, fall = [orders[:, :size] for size in sizes], x - y
        everyone = fall[orders].mean() if beyond else 0.0
        return np.array([_at(fall[each], x[each].argmax(1)).mean() - everyone for each in tried])

    return _over_searches(fallen, len(x), repeats, seed)


def optimism(truth: Scores, images: int, sizes: Sequence[int], repeats: int = 4000, seed: int = 0) -> Array:
    """The winner's curse of validation noise alone, simulated: networks of known accuracy are scored on `images`
    random images, the best of k wins, and its score less its true accuracy is averaged: [sizes]."""
    p, draw = np.sort(np.asarray(truth, dtype=float)), np.random.default_rng(seed)  # in whatever order they came
    gaps = []
    for size in sizes:
        chosen = p[draw.random((repeats, len(p))).argsort(1)[:, :size]]
        scores = draw.binomial(images, chosen) / images
        best = scores.argmax(1)
        gaps.append(float((_at(scores, best) - _at(chosen, best)).mean()))
    return np.array(gaps)


@dataclass(frozen=True)
class Contest:
    """Random search against successive halving and ASHA where all spend the same epochs: for each sum of epochs [J]
    the accuracy to expect of the network chosen, rows mean, low, high [3, J]; a gain is that over random search."""

    n: int  # draws that were trained at both budgets
    rate: int  # one in so many is promoted
    epochs: Array  # spent by each
    random: Array
    halving: Array
    asha: Array
    halving_gain: Array
    asha_gain: Array

    def draws(self, index: int) -> tuple[int, int, int]:
        """What the epochs at an index buy: long trials of random search; short and then long ones of halving."""
        return 2 * (index + 1), self.rate * (index + 1), index + 1


def contest(
    short: Scores, long: Scores, budgets: tuple[float, float], repeats: int = 200, seed: int = 0
) -> Contest | None:
    """Random search against successive halving and ASHA at equal compute, from draws that were trained at both
    `budgets` (short and long, in epochs); None below `LEAST_PAIRS` draws or where the long one is not at least twice
    the short.

    With the rate r = long / short, halving trains r j draws short, promotes the best j and trains them anew and long,
    so that each rung anneals to its own budget; random search trains 2 j draws long, which costs as many epochs. Both
    then choose by the long accuracy. ASHA does not wait for a rung to fill (see `_asha`). Means are over searches drawn
    without replacement, bands a bootstrap over the draws. Synchronous halving with two rungs: Jamieson & Talwalkar
    2016, arXiv 1502.07943; ASHA: Li et al. 2020, arXiv 1810.05934."""
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
        early = _asha(first, late, rate, [2.0 * step for step in steps]).mean(0)
        return np.array([plain, halved, early, np.subtract(halved, plain), early - plain])

    found = _over_searches(chosen, len(x), repeats, seed)
    epochs = np.array([2 * step * budgets[1] for step in steps])
    return Contest(len(x), rate, epochs, *(found[:, row] for row in range(5)))


def _asha(first: Array, late: Array, rate: int, spent: Sequence[float]) -> Array:
    """The best long accuracy that ASHA has reached where so much is `spent`, in long trials: [searches, J].

    One worker takes up draws in their order [searches, draws]: each costs 1 / rate for its short accuracy `first`, and
    whatever is then among the best 1 / rate of the draws so far, and was not promoted before, is trained long at once,
    for its accuracy `late`. -inf before the first promotion."""
    count = first.shape[1]
    promoted = np.zeros(first.shape, dtype=bool)
    best, cost = np.full(first.shape, -np.inf), np.empty(first.shape)
    for n in range(1, count + 1):
        if top := n // rate:
            np.put_along_axis(promoted, np.argpartition(-first[:, :n], top - 1, axis=1)[:, :top], True, axis=1)
            best[:, n - 1] = np.where(promoted[:, :n], late[:, :n], -np.inf).max(1)
        cost[:, n - 1] = n / rate + promoted.sum(1)
    found: Array = np.stack(
        [_at(best, (cost <= limit + 1e-9).sum(1) - 1) for limit in spent],
        axis=1,
    )
    return found


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
