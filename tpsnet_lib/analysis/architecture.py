"""Comparisons of architectures: groups of runs that differ by seed, and what each design variable changes."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, stdev

import numpy as np
from numpy.typing import NDArray

from tpsnet_lib import stats
from tpsnet_lib.config import DataConfig, RunConfig
from tpsnet_lib.data.datasets import split
from tpsnet_lib.metrics import mean_interval, t_quantile
from tpsnet_lib.model_cost import count_macs, count_parameters
from tpsnet_lib.runs.experiments import Experiment, Run, collect, experiments_folder, load_experiment
from tpsnet_lib.runs.records import Record, Store
from tpsnet_lib.stats import Estimate

MATTERS = 0.01  # the smallest difference of accuracy that is worth a decision: one percentage point
POWER = 0.8  # a difference counts as one that could have been seen if it is seen four times in five
MOST = 1000  # pairs; a question that needs more is not for this experiment
HOLDS, FAILS, OPEN, PENDING = "holds", "does not hold", "not settled", "pending"

Array = NDArray[np.float64]
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
    def accuracies(self) -> Array:
        """Validation accuracies [runs], in the order of their seeds."""
        return np.array([value for _, value in sorted(self.values.items())])

    @property
    def estimate(self) -> Estimate:
        """The mean validation accuracy over seeds, with its interval."""
        return stats.mean(self.accuracies)

    @property
    def parameters(self) -> int:
        """Parameters of the network."""
        return count_parameters(self.config.model)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image's forward pass."""
        return count_macs(self.config.model)


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


# What each design variable changes ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class DesignVariable:
    """A design variable: its levels, each with the label of its runs, and what is expected of them beforehand.

    `pairs`: (expected to be better, expected to be worse), as the original or the field has it."""

    symbol: str
    name: str
    labels: Mapping[str, str]
    pairs: tuple[tuple[str, str], ...]


_DEPTHS = (("B=1", "B=3"), ("B=3", "B=5"))
_SKIPS = tuple((f"B={blocks}", f"B={blocks}, plain") for blocks in (1, 3, 5))
_SMALL_SKIPS = {level: " ".join(reversed(level.split(", "))) for pair in _SKIPS for level in pair}
_PAIRED = tuple(level for pair in _SKIPS for level in pair)
_NAMES = {"N": "residual layers", "B": "blocks a layer", "C": "channels", "F": "kernel", "K": "skip kernel"}


def _variable(symbol: str, labels: Mapping[str, str], *pairs: tuple[str, str]) -> DesignVariable:
    return DesignVariable(symbol, {**_NAMES, "P": "pool", "skips": "residual or plain"}[symbol], labels, pairs)


def _same(*levels: str) -> dict[str, str]:
    return {level: level for level in levels}


STUDY = {  # at 310,000 parameters: labels of the experiments `study_*`
    variable.symbol: variable
    for variable in (
        _variable("N", {"N=2": "N=2", "N=3": "B=1", "N=4": "N=4"}, ("N=3", "N=2"), ("N=3", "N=4")),
        _variable("B", _same("B=1", "B=2", "B=3", "B=4", "B=5", "B=6"), *_DEPTHS),
        _variable("C", {"w=16": "B=1", "w=23": "B=1, wide"}, ("w=23", "w=16")),
        _variable("F", {"F=1": "F=1", "F=3": "B=1", "F=5": "F=5"}, ("F=3", "F=1"), ("F=3", "F=5")),
        _variable("K", {"K=1": "B=1", "K=3": "K=3"}, ("K=3", "K=1")),
        _variable("skips", _same(*_PAIRED), *_SKIPS),
    )
}
_CONTROL = "N=3"  # one block a layer: the network of this label has the most seeds
SMALL = {  # at 77,000 parameters: labels of the experiments `effects_*`
    variable.symbol: variable
    for variable in (
        _variable("N", _same("N=2", "N=3", "N=4"), ("N=3", "N=2"), ("N=3", "N=4")),
        _variable("B", _same("B=1", "B=2", "B=3", "B=4", "B=5") | {"B=1": _CONTROL}, *_DEPTHS),
        _variable("C", _same("w=4", "w=8", "w=12"), ("w=8", "w=4"), ("w=12", "w=8")),
        _variable("F", {"F=1": "F=1", "F=3": _CONTROL, "F=5": "F=5"}, ("F=3", "F=1"), ("F=3", "F=5")),
        _variable("K", {"K=1": _CONTROL, "K=3": "K=3"}, ("K=3", "K=1")),
        _variable("P", {"P=3": "P=3", "P=5": "P=5", "P=8": _CONTROL}, ("P=8", "P=5"), ("P=8", "P=3")),
        _variable("skips", {**_SMALL_SKIPS, "B=1": _CONTROL}, *_SKIPS),
    )
}
SMALL_EXPERIMENTS = tuple(
    f"effects_{name}" for name in ("blocks", "layers", "width", "kernels", "skip_kernels", "pool", "plain")
)


def design_variables(store: Store) -> dict[str, tuple[DesignVariable, list[Group]]]:
    """Each design variable with one group of runs for each of its levels, by symbol.

    The runs are those of the study at 310,000 parameters for a variable of which each level has two or more records
    there, else those of the small, short runs."""
    study = _experiments(path.stem for path in experiments_folder().glob("study_*.yaml") if path.stem != "study_rates")
    small, found = _experiments(SMALL_EXPERIMENTS), {}
    studied, smaller_ones = gather(study, store), gather(small, store)
    for symbol, variable in SMALL.items():
        groups = _levels(STUDY[symbol], studied) if symbol in STUDY else []
        enough = bool(groups) and all(len(group.records) > 1 for group in groups)
        found[symbol] = (STUDY[symbol], groups) if enough else (variable, _levels(variable, smaller_ones))
    return found


def small_networks(store: Store) -> list[Group]:
    """The networks of the small, short runs that have records, one group a network, all under one recipe."""
    groups = gather(_experiments(SMALL_EXPERIMENTS), store).values()
    recorded = sorted((group for group in groups if group.records), key=lambda group: len(group.records))
    return list({group.config.model: group for group in recorded}.values())


def _experiments(names: Iterable[str]) -> list[Experiment]:
    return [load_experiment(name) for name in sorted(names)]


def _levels(variable: DesignVariable, groups: Mapping[Key, Group]) -> list[Group]:
    """The groups of a variable's levels, under the levels' names; empty if the runs of one level are not declared."""
    by_label = {label: group for (_, label), group in groups.items()}
    if any(label not in by_label for label in variable.labels.values()):
        return []
    return [replace(by_label[label], label=level) for level, label in variable.labels.items()]


def difference(better: Group, worse: Group) -> Estimate:
    """By how much the first group is more accurate; paired by seed only if both have the same seeds and it helps."""
    same_seeds = better.values.keys() == worse.values.keys()
    compared = stats.difference if same_seeds else stats.welch_difference
    return compared(better.accuracies, worse.accuracies)


def describe_budget(groups: Iterable[Group]) -> str:
    """How large some networks are and how long they were trained: `77,000 parameters, 4 epochs of 10,000 images`.

    Begins with "in small, short runs" where that is all they are (under 300,000 parameters or 12 epochs)."""
    groups = list(groups)
    if not groups:
        return "no runs"
    sizes = [group.parameters for group in groups]
    lengths = sorted({group.config.train.epochs for group in groups})
    images = sorted({group.config.data.train_size or len(split(group.config.data.dataset)[0]) for group in groups})
    small = "in small, short runs, " if min(sizes) < 300_000 or lengths[0] < 12 else ""
    size = _span([round(size, -3) for size in sizes])
    return f"{small}{size} parameters, {_span(lengths)} epochs of {_span(images)} images"


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:,.7g}" if low == high else f"{low:,.7g} to {high:,.7g}"


# Comparisons of the claims --------------------------------------------------------------------------------------------


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
