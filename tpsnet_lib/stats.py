"""Every interval, comparison and verdict of the project, over scipy and statsmodels.

A number that was measured is an `Estimate`: a value, its 95% interval, what n counts and the method. A comparison is an
estimate of a difference, and `verdict` says what its interval settles. Fractions are in 0 to 1. Lists of numbers [n]
hold one a seed, trial or image, as the default of `of` says.

Wrong inputs (nan or infinite numbers, pairs of unequal length, more hits than images) raise `ValueError`. Too few are
no error: no numbers give an estimate without a value; one number, or equal numbers, which say nothing of their spread,
give a value without an interval."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats  # type: ignore[import-untyped]
from statsmodels.stats import contingency_tables  # type: ignore[import-untyped]
from statsmodels.stats import proportion as proportions
from statsmodels.stats.power import TTestIndPower  # type: ignore[import-untyped]

LEVEL = 0.95  # of every interval
ALPHA = 0.05  # of the tests of one table together
POWER = 0.8  # of the tests that a number of seeds is planned for
SMALLEST_EFFECT = 0.01  # the smallest difference in accuracy that is worth a decision: one percentage point
FEWEST_RESAMPLED = 6  # values of a bootstrap: all of five lie on one side of the median too often (6.25%)
EQUAL = 1e-12  # numbers no further apart than this are equal up to rounding

HOLDS, DOES_NOT_HOLD, NOT_SETTLED, PENDING = "holds", "does not hold", "not settled", "pending"
NO_DIFFERENCE = "shows no difference that matters"
PLURALS = {  # every verdict, as it is said of several comparisons
    HOLDS: "hold",
    DOES_NOT_HOLD: "do not hold",
    NO_DIFFERENCE: "show no difference that matters",
    NOT_SETTLED: "are not settled",
    PENDING: "are pending",
}
Array = NDArray[Any]


@dataclass(frozen=True)
class Estimate:
    """A measured number with its interval, which is nan at both ends where there is none.

    In an f-string the format is a kind, the digits after the point, and the part that is wanted, each of them optional:
    `{e:%}` 94.84% (94.39 to 95.26); `{e:points}` +3.1 points (+0.4 to +5.8); `{e:.3}` 0.812 (0.624 to 0.911);
    `{e:%.1 value}` 94.8%; `{e:% interval}` 94.39 to 95.26; `({e.basis})` (n = 3 seeds, t interval)."""

    value: float
    low: float
    high: float
    n: int
    of: str = "seeds"  # what n counts, in the plural
    method: str = "t"  # of the interval
    freedom: float = math.inf  # degrees of freedom of Student's t; infinite: the normal distribution
    correlation: float = math.nan  # of the pairs, where there are any
    resampled: Array | None = field(default=None, repr=False, compare=False)  # [draws] of a bootstrap or permutation

    @property
    def has_interval(self) -> bool:
        """Whether the estimate has an interval."""
        return not math.isnan(self.low)

    @property
    def basis(self) -> str:
        """What the interval rests on: `n = 3 seeds, t interval`."""
        unit = re.sub(r"^(\w+)s\b", r"\1", self.of) if self.n == 1 else self.of
        interval = f"{self.method} interval" if self.has_interval else "no interval"
        pairs = "" if math.isnan(self.correlation) else f", correlation of pairs {_signed(self.correlation, '.2f')}"
        return f"n = {self.n:,} {unit}, {interval}{pairs}"

    def __format__(self, spec: str) -> str:
        match = re.fullmatch(r"(%|points|)(?:\.(\d+))? ?(value|interval|)", spec)
        if match is None:
            raise ValueError(f"{spec!r} is no format of an Estimate; examples: %, %.1, points value, .2 interval")
        kind, digits, part = match.groups()
        scale, form, unit = {"%": (100, "z.2f", "%"), "points": (100, "+z.1f", " points"), "": (1, "z.2f", "")}[kind]
        form = form if digits is None else re.sub(r"\d", digits, form)
        if self.n == 0:
            return "no runs" if "seed" in self.of else f"no {self.of}"
        number = _signed(scale * self.value, form)
        number = number.lstrip("+") if number.strip("+0.") == "" else number  # what rounds to 0 has no sign
        value = "undefined" if math.isnan(self.value) else number + unit
        # An end that rounds to 0 from below keeps its minus: the interval has 0 inside. Adding 0 takes it from -0.0.
        ends = " to ".join(_signed(scale * end + 0.0, form.replace("z", "")) for end in (self.low, self.high))
        equal = self.n > 1 and not math.isnan(self.value) and "bootstrap" not in self.method
        interval = ends if self.has_interval else f"no interval{': equal values in a group' * equal}, n = {self.n:,}"
        return {"value": value, "interval": interval, "": f"{value} ({interval})"}[part]

    def minus(self, bound: float) -> Self:
        """How far the truth is above a bound."""
        draws = None if self.resampled is None else self.resampled - bound
        return replace(self, value=self.value - bound, low=self.low - bound, high=self.high - bound, resampled=draws)

    def taken_from(self, bound: float) -> Self:
        """How far the truth is below a bound."""
        draws = None if self.resampled is None else bound - self.resampled
        return replace(self, value=bound - self.value, low=bound - self.high, high=bound - self.low, resampled=draws)

    def p_above(self, bound: float) -> float:
        """One-sided p-value of the hypothesis that the truth is at most `bound`: small if the truth is above it.

        It is read off the interval: it is 2.5% if the lower end is at `bound`; 1 without an interval. Of a bootstrap or
        a permutation it is the share of its draws that are not above `bound`, of which that of the data is one."""
        if self.resampled is not None and self.has_interval:
            return float((1 + (self.resampled <= bound).sum()) / (1 + len(self.resampled)))
        distance = self.value - bound
        half = self.value - self.low if distance > 0 else self.high - self.value  # the half that faces the bound
        if not half > 0:  # no interval, or an end of what is possible, such as 100%
            return 0.0 if self.has_interval and distance > 0 else 1.0
        return float(stats.t.sf(stats.t.ppf((1 + LEVEL) / 2, self.freedom) * distance / half, self.freedom))

    def p_below(self, bound: float) -> float:
        """One-sided p-value of the hypothesis that the truth is at least `bound`: small if the truth is below it."""
        return self.taken_from(bound).p_above(0)


def _signed(number: float, form: str) -> str:
    """A number with a true minus sign."""
    return f"{number:{form}}".replace("-", "−")


def _numbers(values: ArrayLike) -> Array:
    """The values as float64, refused if one of them is nan or infinite."""
    numbers = np.atleast_1d(np.asarray(values, dtype=float))
    if not np.isfinite(numbers).all():
        raise ValueError("a number is nan or infinite: leave out the runs that failed")
    return numbers


def _pairs(*lists: ArrayLike) -> list[Array]:
    columns = [_numbers(values) for values in lists]
    if len({len(values) for values in columns}) > 1:
        raise ValueError(f"pairs need lists of one length, and these have {', '.join(str(len(x)) for x in columns)}")
    return columns


def _vary(*lists: Array) -> bool:
    return all(len(values) > 1 and np.ptp(values) > EQUAL for values in lists)


def _estimate(value: float, ends: Sequence[float] | None, n: int, of: str, method: str, **more: Any) -> Estimate:
    """An estimate, without an interval where there are no ends, or ends that are nan or equal."""
    low, high = ends if ends is not None and ends[1] - ends[0] > EQUAL else (math.nan, math.nan)
    return Estimate(float(value) if n else math.nan, float(low), float(high), n, of, method, **more)


def _t_estimate(value: float, error: float, freedom: float, n: int, of: str, method: str) -> Estimate:
    """An estimate with a t interval, from its standard error and degrees of freedom."""
    half = stats.t.ppf((1 + LEVEL) / 2, freedom) * error
    return _estimate(value, (value - half, value + half), n, of, method, freedom=freedom)


def proportion(hits: int, n: int, of: str = "images") -> Estimate:
    """A fraction with its Wilson score interval, which stays within 0 and 1 (Wilson 1927)."""
    if not (0 <= hits <= n and hits == int(hits) and n == int(n)):
        raise ValueError(f"{hits} of {n} is no fraction: hits are a whole number from 0 to n")
    if n == 0:
        return _estimate(math.nan, None, 0, of, "Wilson")
    low, high = proportions.proportion_confint(hits, n, 1 - LEVEL, method="wilson")
    return _estimate(hits / n, (low if hits else 0, high if hits < n else 1), n, of, "Wilson")


def mean(values: ArrayLike, of: str = "seeds") -> Estimate:
    """The mean of independent values, one a seed, with its t interval."""
    x = _numbers(values)
    value = x.mean() if len(x) else math.nan
    ends = stats.t.interval(LEVEL, len(x) - 1, value, stats.sem(x)) if _vary(x) else None
    return _estimate(value, ends, len(x), of, "t", freedom=len(x) - 1)


def bootstrap(values: ArrayLike, statistic: Callable[[Any], float], of: str = "images", draws: int = 2000) -> Estimate:
    """A statistic of rows with the percentile interval of its bootstrap (Efron 1979); a second call gives it again.

    `values` [N] or [N, ...]: whole rows are drawn with replacement. `statistic` takes an array of the same shape."""
    rows = _numbers(values)
    return _bootstrap([np.arange(len(rows))], lambda chosen: statistic(rows[chosen]), of, draws)


def _bootstrap(
    lists: Sequence[Array], statistic: Callable[..., Any], of: str, draws: int = 2000, vectorized: bool = False
) -> Estimate:
    """`statistic` takes a list each; with `vectorized` also an `axis` along which they lie."""
    n, method = min(len(values) for values in lists), "percentile bootstrap"
    if n < FEWEST_RESAMPLED:
        return _estimate(statistic(*lists) if n else math.nan, None, n, of, method)
    settings = {"n_resamples": draws, "confidence_level": LEVEL, "method": "percentile", "batch": 100, "rng": 0}
    result = stats.bootstrap(lists, statistic, vectorized=vectorized, **settings)
    resampled = result.bootstrap_distribution
    return _estimate(statistic(*lists), result.confidence_interval, n, of, method, resampled=resampled)


def _of(of: str, groups: Sequence[Array]) -> str:
    """What n counts in the smallest of several groups, and how many the largest has if they differ."""
    sizes = [len(group) for group in groups]
    return of if min(sizes) == max(sizes) else f"{of}, up to {max(sizes):,}"


def welch_difference(a: ArrayLike, b: ArrayLike) -> Estimate:
    """mean(a) - mean(b) of two independent groups, with Welch's t interval (Welch 1947); n is the smaller group's."""
    return contrast([[a, b]], [1, -1], "seeds a side")


def contrast(strata: Sequence[Sequence[ArrayLike]], weights: Sequence[float], of: str = "seeds a group") -> Estimate:
    """A weighted sum of the means of independent groups, with Welch and Satterthwaite's t interval (Welch 1947).

    A difference of differences has the weights 1, -1, -1, 1. Each of `strata`, such as kinds of machine, has values of
    every group: the sum is made within each, so that their differences cancel, and averaged. A stratum weighs
    1 / sum(w^2 / n), the inverse of its variance if all runs have one spread: measured variances of a few runs would
    give most weight to the stratum that looks steadiest by luck. The interval has the spread of each group in each
    stratum, and is about these strata. n is that of the smallest group, in all strata."""
    numbers, weight = [[_numbers(group) for group in groups] for groups in strata], np.asarray(weights, dtype=float)
    together = [np.concatenate(parts) for parts in zip(*numbers, strict=True)]  # of each group, all strata
    n, of, method = min(map(len, together)), _of(of, together), "Welch t" if len(numbers) == 1 else "stratified Welch t"

    # The weight of each cell, which is one group in one stratum: that of its stratum times that of its group.
    information = np.array([1 / sum(weight**2 / [max(1, len(x)) for x in groups]) for groups in numbers])
    cell_weights = np.outer(information / information.sum(), weight).ravel()
    cells = [x for groups in numbers for x in groups]
    value = float(cell_weights @ [x.mean() for x in cells]) if all(map(len, cells)) else math.nan
    if not _vary(*cells):
        return _estimate(value, None, n, of, method)

    # The variance of the sum has a part of each cell; Satterthwaite's degrees of freedom follow from these parts.
    variances = cell_weights**2 * [x.var(ddof=1) / len(x) for x in cells]
    variance = variances.sum()
    freedom = float(variance**2 / sum(part**2 / (len(x) - 1) for part, x in zip(variances, cells, strict=True)))
    return _t_estimate(value, math.sqrt(variance), freedom, n, of, method)


def furthest_apart(groups: Sequence[ArrayLike]) -> Estimate:
    """The largest difference among the means of several groups, with Tukey's simultaneous interval (Tukey 1949), which
    takes all groups to have one spread; n is the smallest group's."""
    numbers = [_numbers(group) for group in groups]
    n, freedom = min(map(len, numbers)), sum(map(len, numbers)) - len(numbers)
    of = _of("seeds a network", numbers)
    means = [x.mean() if len(x) else math.nan for x in numbers]
    best, worst = int(np.argmax(means)), int(np.argmin(means))
    if n < 2 or not _vary(np.concatenate([x - x.mean() for x in numbers])):
        return _estimate(means[best] - means[worst], None, n, of, "Tukey")
    interval = stats.tukey_hsd(*numbers).confidence_interval(LEVEL)
    ends = interval.low[best, worst], interval.high[best, worst]
    return _estimate(means[best] - means[worst], ends, n, of, "Tukey", freedom=freedom)


def paired_difference(a: ArrayLike, b: ArrayLike, of: str = "pairs of seeds") -> Estimate:
    """The mean of a - b with its t interval, where a and b are in one order: what a pair shares cancels.

    The correlation of the pairs is kept: pairing helps only if it is positive."""
    x, y = _pairs(a, b)
    correlation = float(np.corrcoef(x, y)[0, 1]) if _vary(x, y) else math.nan
    return replace(mean(x - y, of), method="paired t", correlation=correlation)


def pooled_difference(a: ArrayLike, b: ArrayLike, sd: float, freedom: int) -> Estimate:
    """mean(a) - mean(b) of two rows of a table, with a t interval from `pooled_sd`: all rows know the spread between
    seeds better than two rows of few seeds do, if they share it (as in Dunnett 1955). n is the smaller row's."""
    x, y = _numbers(a), _numbers(b)
    n, of, method = min(len(x), len(y)), "seeds a side", "pooled t"
    value = x.mean() - y.mean() if n else math.nan
    if n == 0 or freedom < 1:
        return _estimate(value, None, n, of, method)
    return _t_estimate(value, sd * math.sqrt(1 / len(x) + 1 / len(y)), freedom, n, of, method)


def proportion_difference(hits_a: int, n_a: int, hits_b: int, n_b: int) -> Estimate:
    """The difference of two fractions of independent images (Newcombe 1998, method 10); n is the smaller group's."""
    value, n = proportion(hits_a, n_a).value - proportion(hits_b, n_b).value, min(n_a, n_b)
    settings = {"method": "newcomb", "alpha": 1 - LEVEL, "correction": False}
    ends = proportions.confint_proportions_2indep(hits_a, n_a, hits_b, n_b, **settings) if n else None
    return _estimate(value, ends, n, "images a side", "Newcombe")


def paired_proportions(correct_a: ArrayLike, correct_b: ArrayLike) -> Estimate:
    """The accuracy of one network minus another's on the same images, from one flag an image of each.

    The interval is Agresti and Min's (2005): half an image is added to each outcome; networks may never disagree."""
    only_a, only_b, n = _disagreements(correct_a, correct_b)
    middle, disagree = (only_a - only_b) / (n + 2), (only_a + only_b + 1) / (n + 2)
    half = stats.norm.ppf((1 + LEVEL) / 2) * math.sqrt((disagree - middle**2) / (n + 2))
    ends = (max(-1, middle - half), min(1, middle + half)) if n else None
    return _estimate((only_a - only_b) / max(n, 1), ends, n, "images", "Agresti-Min")


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> float:
    """The exact two-sided p-value that two networks are equally accurate, from the same images (McNemar 1947)."""
    only_a, only_b, _ = _disagreements(correct_a, correct_b)
    return float(contingency_tables.mcnemar([[0, only_a], [only_b, 0]], exact=True).pvalue)


def _disagreements(correct_a: ArrayLike, correct_b: ArrayLike) -> tuple[int, int, int]:
    """How many images only the first gets right, how many only the second, and how many there are."""
    a, b = (flags.astype(bool) for flags in _pairs(correct_a, correct_b))
    return int((a & ~b).sum()), int((b & ~a).sum()), len(a)


def median_difference(a: ArrayLike, b: ArrayLike) -> Estimate:
    """median(a) - median(b) of two independent groups of trials, with its bootstrap interval."""
    sides = [_numbers(a), _numbers(b)]
    n = _of("trials a side", sides)
    return _bootstrap(sides, lambda x, y, axis=0: np.median(x, axis) - np.median(y, axis), n, 20_000, vectorized=True)


def rank_correlation(a: ArrayLike, b: ArrayLike, of: str = "trials", draws: int = 1000) -> Estimate:
    """Spearman's rank correlation of pairs with its bootstrap interval; undefined where one side does not vary."""
    return _of_ranks(lambda rows: _spearman(rows, 0, 1), _pairs(a, b), of, draws)


def rank_correlation_difference(a: ArrayLike, b: ArrayLike, truth: ArrayLike, of: str = "trials") -> Estimate:
    """The rank correlation of `a` with `truth` minus that of `b` with `truth`, over the same trials."""
    return _of_ranks(lambda rows: _spearman(rows, 0, 2) - _spearman(rows, 1, 2), _pairs(a, b, truth), of)


def _of_ranks(statistic: Callable[[Array], float], columns: list[Array], of: str, draws: int = 1000) -> Estimate:
    if len(columns[0]) < 3 or not _vary(*columns):
        return _estimate(math.nan, None, len(columns[0]), of, "percentile bootstrap")
    return bootstrap(np.column_stack(columns), statistic, of, draws)


def _spearman(rows: Array, i: int, j: int) -> float:
    """Spearman's correlation of two columns; 0 for a draw in which one of them does not vary."""
    return float(stats.spearmanr(rows[:, i], rows[:, j]).statistic) if _vary(rows[:, i], rows[:, j]) else 0.0


def published_difference(
    accuracies: ArrayLike,
    n_images: int,
    published: float,
    published_n_images: int,
    pooled: tuple[float, int] | None = None,
) -> Estimate:
    """The mean accuracy of our k runs minus one published accuracy, that of a single run.

    Four independent variances add up: of seeds, s^2 / k for our mean and s^2 for the single published run; of test
    images, p (1 - p) / n for either side. Ours does not shrink with k, because all runs are scored on the same images;
    if both sides used the same images, the interval is too wide rather than too narrow. s is that of `accuracies`, or
    `pooled` over more recipes (`pooled_sd`: s and its degrees of freedom). Those of the whole are Welch and
    Satterthwaite's, in which the noise of the images counts as known."""
    x, _ = _numbers(accuracies), _numbers([published, *(pooled or ())])
    if min(n_images, published_n_images) < 1 or any(not 0 <= p <= 1 for p in [*x, published]):
        raise ValueError("accuracies are from 0 to 1, and there is at least one test image")
    k, of, method = len(x), "seeds against one run", "seed-and-image t"
    if k == 0 or (not _vary(x) if pooled is None else pooled[0] == 0):
        return _estimate(x.mean() - published if k else math.nan, None, k, of, method)
    sd, seed_freedom = pooled or (float(x.std(ddof=1)), k - 1)
    seeds = sd**2 * (1 / k + 1)
    images = x.mean() * (1 - x.mean()) / n_images + published * (1 - published) / published_n_images
    freedom = seed_freedom * ((seeds + images) / seeds) ** 2
    return _t_estimate(x.mean() - published, math.sqrt(seeds + images), freedom, k, of, method)


def verdict(estimate: Estimate, smallest_effect: float) -> str:
    """What one difference by itself says about "the first is better than the second"; `holm` judges a table of them.

    *Shows no difference that matters* if the interval lies within the smallest effect of interest on both sides of 0
    (two one-sided tests, each at 2.5%); else *holds* if the interval lies above 0, and *does not hold* if it leaves no
    room for an advantage of the smallest effect. *Not settled* otherwise, and *pending* without runs."""
    if estimate.n == 0:
        return PENDING
    if abs(estimate.low) < smallest_effect and abs(estimate.high) < smallest_effect:
        return NO_DIFFERENCE
    return HOLDS if estimate.low > 0 else DOES_NOT_HOLD if estimate.high < smallest_effect else NOT_SETTLED


def p_values(estimate: Estimate, smallest_effect: float) -> tuple[float, float, float]:
    """Twice the one-sided p-values of three hypotheses: no advantage; an advantage of the smallest effect or more; a
    disadvantage of the smallest effect or more. Each is below 0.05 exactly if a 95% interval excludes the hypothesis
    (but for a step of a bootstrap's draws), and 1 without runs."""
    above, below = estimate.p_above(0), estimate.p_below(smallest_effect)
    return min(1.0, 2 * above), min(1.0, 2 * below), min(1.0, 2 * estimate.p_above(-smallest_effect))


class Adjusted(NamedTuple):
    """The verdict and p-value of one comparison in a table of several, after Holm's adjustment.

    `p_is_of`: the verdict that p belongs to; where nothing is settled the nearer of *holds* and *does not hold*."""

    verdict: str
    p: float
    p_is_of: str


def holm(table: Mapping[str, tuple[Estimate, float]]) -> dict[str, Adjusted]:
    """The verdicts of a table's comparisons, (estimate, smallest effect) by name, adjusted together (Holm 1979).

    Three questions are asked of each: is it above 0? Is it below the smallest effect? Is it above minus the smallest
    effect? The `p_values` of each question are adjusted over the table, so that each is answered wrongly in at most
    2.5% of tables, and a narrower interval loses no verdict. *Holds* needs the first, *does not hold* the second, *no
    difference that matters* the last two; p is the largest that a verdict needs, and the smallest of the first two
    where nothing is settled. What is pending counts among the comparisons (p = 1), so that no verdict is lost when its
    runs arrive."""
    raw = np.array([p_values(*comparison) for comparison in table.values()]).reshape(-1, 3)
    above, below, other = (holm_adjusted(question).tolist() for question in raw.T)
    verdicts = {}
    for row, (name, (estimate, _)) in enumerate(table.items()):
        p = {NO_DIFFERENCE: max(below[row], other[row]), HOLDS: above[row], DOES_NOT_HOLD: below[row]}
        settled = [word for word, each in p.items() if each <= ALPHA]  # the first one counts
        nearer = HOLDS if above[row] <= below[row] else DOES_NOT_HOLD
        of = settled[0] if settled else nearer
        word = of if settled else NOT_SETTLED
        verdicts[name] = Adjusted(word if estimate.n else PENDING, p[of], of)
    return verdicts


def holm_adjusted(p: ArrayLike) -> Array:
    """The p-values of a table, each times the number of those that are not smaller, and none below a smaller one.

    As statsmodels' `multipletests`, which collects garbage at each call: half a second in a notebook."""
    raw = _numbers(p)
    order = np.argsort(raw, kind="stable")
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1)))
    return adjusted


def pooled_sd(groups: Sequence[ArrayLike]) -> tuple[float, int]:
    """The standard deviation between seeds, pooled over groups of runs, and its degrees of freedom (0: nan)."""
    several = [x for x in map(_numbers, groups) if len(x) > 1]
    freedom = sum(len(x) - 1 for x in several)
    return (math.sqrt(sum(x.var(ddof=1) * (len(x) - 1) for x in several) / freedom) if freedom else math.nan), freedom


def seeds_needed(sd: float, effect: float) -> int:
    """Seeds a side with which the two-sample t test at 5% shows a true effect with a probability of `POWER`.

    `sd` is the standard deviation between seeds, in the unit of the effect; at least 2 seeds."""
    sd, effect = _numbers([sd, effect])
    if sd < 0 or effect <= 0:
        raise ValueError(f"the standard deviation is at least 0 and the effect above 0, not {sd} and {effect}")
    z = stats.norm.ppf([(1 + LEVEL) / 2, POWER]).sum()
    n: int = max(2, math.ceil(2 * (z * sd / effect) ** 2))  # by the normal distribution, which is never too many
    while sd and TTestIndPower().power(effect / sd, n, 1 - LEVEL) < POWER:
        n += 1
    return n
