"""Comparisons of architectures: groups of runs that differ by seed, paired differences, and what they settle."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean, stdev

import numpy as np

from tpsnet_lib.config import DataConfig, RunConfig
from tpsnet_lib.metrics import mean_interval, t_quantile
from tpsnet_lib.model_cost import count_macs, count_parameters
from tpsnet_lib.runs.experiments import Experiment, Run, collect
from tpsnet_lib.runs.records import Record, Store

MATTERS = 0.01  # the smallest difference of accuracy that is worth a decision: one percentage point
POWER = 0.8  # a difference counts as one that could have been seen if it is seen four times in five
MOST = 1000  # pairs; a question that needs more is not for this experiment
HOLDS, FAILS, OPEN, PENDING = "holds", "does not hold", "not settled", "pending"

Key = tuple[str, str]  # the name of an experiment and the label of one of its runs


@dataclass(frozen=True)
class Group:
    """Runs of one network and recipe that differ by seed alone; some may not have been run yet."""

    label: str
    config: RunConfig
    records: tuple[Record, ...]
    declared: int  # runs asked for

    @property
    def values(self) -> dict[int, float]:
        """Validation accuracy by seed."""
        return {record.config.seed: float(record.metrics["validation_accuracy"]) for record in self.records}

    @property
    def parameters(self) -> int:
        """Parameters of the network."""
        return count_parameters(self.config.model)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image's forward pass."""
        return count_macs(self.config.model)

    def interval(self) -> tuple[float, float, float]:
        """Mean accuracy and its t interval over seeds."""
        return mean_interval(list(self.values.values()))


def gather(experiments: Iterable[Experiment], store: Store) -> dict[Key, Group]:
    """The groups of some experiments, by (experiment, label); runs that failed or are pending leave a gap."""
    found: dict[Key, Group] = {}
    for experiment in experiments:
        for run, record in collect(experiment, store):
            key = (experiment.name, run.label)
            group = found.get(key, Group(run.label, run.config, (), 0))
            done = (record,) if record is not None and not record.failed else ()
            found[key] = replace(group, records=(*group.records, *done), declared=group.declared + 1)
    return found


def smaller(
    experiment: Experiment, data: DataConfig, epochs: float, batch_size: int, seeds: Sequence[int]
) -> Experiment:
    """The same experiment on other, fewer images, in shorter runs: a rehearsal, not a result."""
    runs = []
    for run in experiment.runs:
        train = replace(run.config.train, epochs=epochs, batch_size=batch_size, precision="auto")
        if run.config.seed in seeds:
            runs.append(Run(run.label, replace(run.config, data=data, train=train), run.factors))
    return replace(experiment, runs=runs)


def levels(found: Mapping[Key, Group], factor: Mapping[str, Key]) -> list[Group]:
    """The groups of a factor (level -> where its runs are declared), one a level, under the level's label."""
    return [replace(found[key], label=level) for level, key in factor.items()]


def paired(better: Group, worse: Group) -> list[float]:
    """The difference in accuracy of two groups, one value for each seed that both have."""
    return list(by_seed(better, worse).values())


def by_seed(better: Group, worse: Group) -> dict[int, float]:
    """The difference in accuracy of two groups, by the seeds that both have."""
    a, b = better.values, worse.values
    return {seed: a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())}


def odd_minus_even(groups: Mapping[int, Group]) -> list[float]:
    """By how much odd block counts beat even ones, one value for each seed that all have.

    Accuracy may change with depth anyhow. So for each seed a parabola in B is fitted together with a jump between odd
    and even B, by least squares, and the jump is returned. At least four counts are needed; fewer give no value."""
    counts = sorted(groups)
    seeds = set.intersection(*(set(groups[b].values) for b in counts)) if counts else set()
    if len(counts) < 4:
        return []
    b = np.array(counts, dtype=float)
    design = np.stack([np.ones_like(b), b, b**2, np.where(b % 2 == 1, 0.5, -0.5)], axis=1)
    weights = np.linalg.pinv(design)[3]
    return [float(sum(w * groups[n].values[seed] for w, n in zip(weights, counts, strict=True))) for seed in seeds]


@dataclass(frozen=True)
class Comparison:
    """What paired differences say about `better - worse`; figures are fractions, nan where there are too few pairs."""

    label: str
    n: int
    mean: float
    low: float
    high: float
    seen: float  # the smallest true difference that so many pairs show in POWER of all cases
    needed: int  # pairs for an interval so narrow that it cannot hold both 0 and `matters`; MOST + 1: more than MOST
    verdict: str
    of: str = "seeds, paired"  # what n counts
    likely: int = 0  # pairs that would settle it if mean and spread stayed as they are


@dataclass(frozen=True)
class Range:
    """Which values of a variable the best trials have, and whether the claimed one is among them."""

    label: str
    n: int
    low: float
    high: float
    drawn: tuple[float, float]  # least and largest value of all trials
    value: float  # the claimed one
    verdict: str
    of: str = "trials"


Part = Comparison | Range


def compare(label: str, differences: Sequence[float], matters: float = MATTERS, level: float = 0.95) -> Comparison:
    """The verdict on 'the first is better than the second' from paired differences, one a seed.

    It *holds* if the t interval of their mean lies above 0. It *does not hold* if the interval leaves no room for an
    advantage of `matters`. Else the interval allows both, and the question is *not settled* by so few pairs."""
    n = len(differences)
    mean, low, high = mean_interval(differences, level)
    if n < 2:
        return Comparison(label, n, mean, low, high, math.nan, 0, OPEN if n else PENDING)
    spread = stdev(differences)
    seen = (t_quantile(n - 1, level) + t_quantile(n - 1, 2 * POWER - 1)) * spread / math.sqrt(n)
    needed = 2 + bisect_left(range(2, MOST + 1), True, key=lambda pairs: width(pairs, spread, level) < matters)
    enough = 2 * max(mean, matters - mean)  # wide may an interval be that settles it
    likely = 2 + bisect_left(range(2, MOST + 1), True, key=lambda pairs: width(pairs, spread, level) < enough)
    return Comparison(label, n, mean, low, high, seen, needed, verdict_of(low, high, matters), likely=likely)


def verdict_of(low: float, high: float, matters: float = MATTERS) -> str:
    """The verdict on an advantage, from the 95% interval of it."""
    return HOLDS if low > 0 else FAILS if high < matters else OPEN


def settle(
    label: str, n: int, interval: tuple[float, float, float], of: str, matters: float = MATTERS, level: float = 0.95
) -> Comparison:
    """The verdict from an interval (middle, low, high) that is made already, by bootstrap or from counts.

    What could have been seen, and the n that would settle it, take the interval to shrink as 1 / sqrt(n)."""
    middle, low, high = interval
    normal = NormalDist()
    reach = 1 + normal.inv_cdf(POWER) / normal.inv_cdf((1 + level) / 2)
    needed = math.ceil(n * ((high - low) / matters) ** 2) + 1
    likely = math.ceil(n * ((high - low) / 2 / max(middle, matters - middle)) ** 2) + 1
    verdict = verdict_of(low, high, matters)
    return Comparison(label, n, middle, low, high, reach * (high - low) / 2, needed, verdict, of, likely)


def contains(label: str, n: int, found: tuple[float, float], drawn: tuple[float, float], value: float) -> Range:
    """The verdict on 'this value is among the best trials': their range holds it, and leaves out some of what was
    drawn; where it leaves out nothing, the question is not settled."""
    low, high = found
    verdict = FAILS if not low <= value <= high else OPEN if low <= drawn[0] and high >= drawn[1] else HOLDS
    return Range(label, n, low, high, drawn, value, verdict)


def width(n: int, deviation: float, level: float = 0.95) -> float:
    """The width of the t interval of a mean of n values with a standard deviation."""
    return 2 * t_quantile(n - 1, level) * deviation / math.sqrt(n)


def seeds_spread(groups: Iterable[Group]) -> tuple[float, int]:
    """The standard deviation of accuracy between seeds of one network, pooled over groups, and its degrees of
    freedom; nan where no group has two."""
    several = [list(group.values.values()) for group in groups if len(group.values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    squares = sum((value - fmean(values)) ** 2 for values in several for value in values)
    return (math.sqrt(squares / freedom) if freedom else math.nan), freedom


@dataclass(frozen=True)
class Claim:
    """A claim and the comparisons that it stands or falls with."""

    text: str
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()  # sentences that say more and decide nothing

    @property
    def verdict(self) -> str:
        """*Holds* if every part does; *does not hold* if one part does not; *pending* if a part has no runs."""
        verdicts = [part.verdict for part in self.parts]
        return next((each for each in (FAILS, PENDING, OPEN) if each in verdicts), HOLDS)


def plane(found: Iterable[Group], base: Group) -> dict[tuple[int, float], Group]:
    """The networks of `base`'s recipe and data that differ from it only in depth and width and have records, by blocks
    a layer and width (half the channels of the first layer)."""
    recipe, model = (base.config.train, base.config.data), base.config.model
    points: dict[tuple[int, float], Group] = {}
    for group in found:
        other = group.config.model
        alike = replace(other, blocks=model.blocks, channels=model.channels, stem=model.stem) == model
        alike = alike and other.blocks == other.blocks[:1] * len(model.blocks)
        if alike and group.records and recipe == (group.config.train, group.config.data):
            points[other.blocks[0], other.channels[0] / 2] = group
    return points


# Sentences ----------------------------------------------------------------------------------------------------------


def points(value: float) -> str:
    """A difference of accuracies in percentage points, with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def said_of_part(part: Part) -> str:
    """One comparison in a sentence: mean, interval, pairs."""
    if isinstance(part, Range):
        return f"{in_short(part)}" + (f" ({part.n:,} {part.of})." if part.n else ".")
    label = part.label if "=" in part.label[:2] else part.label[0].upper() + part.label[1:]  # w=8 keeps its w
    if part.n == 0:
        return f"{label}: no runs yet."
    if part.n == 1:
        return f"{label}: {points(part.mean)} points from one pair, which has no interval."
    interval = f"95% interval {points(part.low)} to {points(part.high)}"
    return f"{label}: {points(part.mean)} points ({interval}; {part.n:,} {part.of})."


def in_short(part: Part) -> str:
    """One comparison for a table: mean and interval in points."""
    if isinstance(part, Range):
        if not part.n:
            return f"{part.label}: no runs yet"
        drawn = f"{part.drawn[0]:.2g} to {part.drawn[1]:.2g}"
        return f"{part.label}: the best have {part.low:.2g} to {part.high:.2g}, of {drawn} drawn"
    if part.n < 2:
        return f"{part.label}: " + (points(part.mean) if part.n else "no runs yet")
    return f"{part.label}: {points(part.mean)} ({points(part.low)} to {points(part.high)})"


def said_of_claim(claim: Claim, matters: float = MATTERS) -> str:
    """A claim's verdict and its grounds, as Markdown; for what is not settled, what could have been seen and the
    number of seeds that would settle it."""
    sentences = [f"**{claim.text}: {claim.verdict}.**", *(said_of_part(part) for part in claim.parts)]
    return " ".join([*sentences, *filter(None, [said_of_doubt(claim, matters)]), *claim.notes])


def said_of_doubt(claim: Claim, matters: float = MATTERS) -> str:
    """For a claim that is not settled, the difference that could have been seen and the n that would settle it; else
    nothing."""
    unsure = [part for part in claim.parts if isinstance(part, Comparison) and part.verdict == OPEN and part.n > 1]
    if claim.verdict != OPEN or not unsure:
        return ""
    worst = max(unsure, key=lambda part: part.needed)
    most = max(MOST, 10 * worst.n)
    many = f"more than {most:,}" if worst.needed > most else f"about {worst.needed:,}"
    likely = max(part.likely for part in unsure)
    fewer = (
        f", and about {likely:,} would do if what was seen stays as it is" if likely < min(worst.needed, most) else ""
    )
    return (
        f"{worst.n:,} {worst.of.split(',')[0]} show a true difference of {100 * worst.seen:.1f} points four times in"
        f" five; {many} would settle {100 * matters:.0f} point{fewer}."
    )


def said_of_group(group: Group) -> str:
    """A group's mean accuracy with its interval over seeds."""
    mean, low, high = group.interval()
    if math.isnan(mean):
        return f"{group.label}: no record yet"
    if math.isnan(low):
        return f"{group.label}: {100 * mean:.1f}% (one seed)"
    return f"{group.label}: {100 * mean:.1f}% ({100 * low:.1f} to {100 * high:.1f}, {len(group.records)} seeds)"


def said_of_plane(plane: Mapping[tuple[int, float], Group], parameters: int) -> str:
    """Which network of a map is the best, and what depth costs or brings where the parameters stay within a tenth."""
    (b, w), best = max(plane.items(), key=lambda item: item[1].interval()[0])
    said = f"Of {len(plane)} networks the best is B = {b}, w = {w:g} with {100 * best.interval()[0]:.1f}%."
    alike = {key: group for key, group in plane.items() if abs(group.parameters / parameters - 1) < 0.1}
    if len(alike) < 2:
        return said
    ends = [(blocks, 100 * alike[blocks, width].interval()[0]) for blocks, width in (min(alike), max(alike))]
    change = points((ends[1][1] - ends[0][1]) / 100)
    steps = f"from {ends[0][1]:.1f}% at B = {ends[0][0]} to {ends[1][1]:.1f}% at B = {ends[1][0]}"
    return f"{said} At equal parameters, accuracy goes {steps}: {change} points."


def said_of_seeds(groups: Iterable[Group]) -> str:
    """How far apart two runs of one network are by chance alone; empty where no network has two."""
    spread, freedom = seeds_spread({group.config: group for group in groups}.values())
    if not freedom:
        return ""
    return (
        "Two runs of one network differ by chance: **the standard deviation between seeds is"
        f" {100 * spread:.1f} points** (pooled, {freedom} degrees of freedom). Between single runs of two equal"
        f" networks, chance alone gives up to {100 * t_quantile(freedom, 0.95) * math.sqrt(2) * spread:.1f} points, 19"
        " times in 20."
    )


def said_of_live(live: float, recorded: Comparison, same_data: bool) -> str:
    """Whether one fresh pair of shorter runs points the way that the recorded pairs do."""
    fresh = f"The live pair differs by {points(live)} points, the recorded pairs by {points(recorded.mean)}"
    if recorded.n == 0:
        return f"The live pair differs by {points(live)} points; there are no recorded pairs yet to set beside it."
    if not same_data:
        return f"{fresh}, on another data set: they cannot agree or disagree."
    agree = live * recorded.mean > 0
    weight = "" if recorded.verdict != OPEN else " But the records themselves do not settle the sign."
    return (
        f"{fresh}: **they {'agree' if agree else 'disagree'} in sign.** The live runs are shorter and one seed each, so"
        f" nothing more than the sign is compared.{weight}"
    )


def said_of_match(blocks: Sequence[Group], widths: Sequence[Group]) -> str:
    """How exact a match of odd with even block counts is, and what the rest of it is worth in points of accuracy, by
    the slope of accuracy over log parameters in the groups of `widths`."""
    sizes = [[group.parameters for group in blocks[start::2]] for start in (0, 1)]  # odd counts, even counts
    gap = fmean(sizes[1]) / fmean(sizes[0]) - 1
    said = f"Channels are whole numbers, so no match is exact: the even networks have {100 * gap:+.1f}% parameters."
    known = [group for group in widths if group.records]
    if len(known) < 2:
        return said.replace("-", "−")
    slope = np.polyfit(np.log([group.parameters for group in known]), [group.interval()[0] for group in known], 1)[0]
    worth = points(float(slope) * math.log1p(gap))
    return f"{said} By the slope of the width experiment, that alone is worth {worth} points.".replace("-", "−")
