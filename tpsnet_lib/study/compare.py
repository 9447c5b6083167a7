"""Comparisons of architectures: groups of runs that differ by seed, paired differences, and what they settle."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

import numpy as np

from tpsnet_lib.config import DataConfig, RunConfig
from tpsnet_lib.metrics import mean_interval, t_quantile
from tpsnet_lib.model import count_macs, count_parameters
from tpsnet_lib.study.experiments import Experiment, Run, collect
from tpsnet_lib.study.records import Record, Store

MATTERS = 0.01  # the smallest difference of accuracy that is worth a decision: one percentage point
POWER = 0.8  # a difference counts as one that could have been seen if it is seen four times in five
MOST = 1000  # pairs; a question that needs more is not for this experiment
HOLDS, FAILS, OPEN, PENDING = "holds", "does not hold", "not settled", "pending"

Key = tuple[str, str]  # the name of an experiment and the label of one of its runs
_BASE = ("effects_blocks", "B=1")  # the network that every factor but N, B and w starts from

FACTORS: dict[str, dict[str, Key]] = {  # level -> where its runs are declared; a level is declared only once
    "layers": {f"N={n}": ("effects_layers", f"N={n}") for n in (2, 3, 4)},
    "layers at matched MACs": {
        f"N={n}": ("effects_layers" if n == 3 else "effects_layers_macs", f"N={n}") for n in (2, 3, 4)
    },
    "blocks": {f"B={b}": ("effects_blocks", f"B={b}") for b in range(1, 6)},
    "blocks at matched MACs": {
        f"B={b}": ("effects_blocks_macs" if b in (2, 3, 4) else "effects_blocks", f"B={b}") for b in range(1, 6)
    },
    "width": {f"w={w}": ("effects_width", f"w={w}") for w in (4, 8, 12)},
    "kernel": {"F=1": ("effects_kernels", "F=1"), "F=3": _BASE, "F=5": ("effects_kernels", "F=5")},
    "skip kernel": {"K=1": _BASE, "K=3": ("effects_skip_kernels", "K=3")},
    "pool": {"P=3": ("effects_pool", "P=3"), "P=5": ("effects_pool", "P=5"), "P=8": _BASE},
    "residual": {f"B={b}": ("effects_blocks", f"B={b}") for b in (1, 3, 5)},
    "plain": {f"B={b}": ("effects_plain", f"plain B={b}") for b in (1, 3, 5)},
}

# A claim is one comparison or several, each (factor, level) expected to be better than (factor, level).
CLAIMS: dict[str, tuple[str, list[tuple[tuple[str, str], tuple[str, str]]]]] = {
    "layers": (
        "Three residual layers beat two and four, at matched parameters",
        [(("layers", "N=3"), ("layers", other)) for other in ("N=2", "N=4")],
    ),
    "layers at matched MACs": (
        "Three residual layers beat two and four, at matched MACs",
        [(("layers at matched MACs", "N=3"), ("layers at matched MACs", other)) for other in ("N=2", "N=4")],
    ),
    "depth": (
        "In a short run at matched parameters, shallow and wide beats deep and narrow",
        [(("blocks", "B=1"), ("blocks", "B=3")), (("blocks", "B=3"), ("blocks", "B=5"))],
    ),
    "width": (
        "Wider is better, at a fixed depth",
        [(("width", "w=8"), ("width", "w=4")), (("width", "w=12"), ("width", "w=8"))],
    ),
    "kernel": (
        "3x3 kernels beat 1x1 and 5x5, at matched parameters",
        [(("kernel", "F=3"), ("kernel", other)) for other in ("F=1", "F=5")],
    ),
    "skip kernel": (
        "A 3x3 kernel on the projection skips beats 1x1",
        [(("skip kernel", "K=3"), ("skip kernel", "K=1"))],
    ),
    "pool": (
        "Averaging the whole last map beats a pool that drops its border",
        [(("pool", "P=8"), ("pool", other)) for other in ("P=5", "P=3")],
    ),
    "residual": (
        "Skips help at every depth tried",
        [(("residual", level), ("plain", level)) for level in ("B=1", "B=3", "B=5")],
    ),
}
GROWTH = "Skips are worth more in deeper networks"
ODD = "Odd block counts beat even ones, at matched parameters"


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


def levels(found: Mapping[Key, Group], factor: str) -> list[Group]:
    """The groups of a factor, one a level, under the level's label."""
    return [replace(found[key], label=level) for level, key in FACTORS[factor].items()]


def pending(found: Mapping[Key, Group], factor: str) -> str:
    """Which experiments a factor still waits for, in a sentence; empty if all of its runs have records."""
    gaps: dict[str, list[int]] = {}
    for key in FACTORS[factor].values():
        counts = gaps.setdefault(key[0], [0, 0])
        counts[0] += found[key].declared - len(found[key].records)
        counts[1] += found[key].declared
    said = [f"`{name}` ({short} of {declared} runs)" for name, (short, declared) in gaps.items() if short]
    if not said:
        return ""
    command = "`, `".join(f"tpsnet run {name}" for name, (short, _) in gaps.items() if short)
    return f"**Pending:** {' and '.join(said)}. To add them: `{command}`; what is said here is from those there are."


def paired(better: Group, worse: Group) -> list[float]:
    """The difference in accuracy of two groups, one value for each seed that both have."""
    return list(_by_seed(better, worse).values())


def _by_seed(better: Group, worse: Group) -> dict[int, float]:
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
    verdict = HOLDS if low > 0 else FAILS if high < matters else OPEN
    return Comparison(label, n, mean, low, high, seen, needed, verdict)


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
    parts: tuple[Comparison, ...]

    @property
    def verdict(self) -> str:
        """*Holds* if every part does; *does not hold* if one part does not; *pending* if a part has no runs."""
        verdicts = [part.verdict for part in self.parts]
        return next((each for each in (FAILS, PENDING, OPEN) if each in verdicts), HOLDS)


def judge(found: Mapping[Key, Group], name: str, matters: float = MATTERS) -> Claim:
    """A claim of `CLAIMS` by its name, or `odd`, `odd at matched MACs` or `growth`, from the groups found."""
    if name == "growth":
        pairs = zip(levels(found, "residual"), levels(found, "plain"), strict=True)
        gains = [_by_seed(residual, plain) for residual, plain in pairs]
        more = [gains[-1][seed] - gains[0][seed] for seed in sorted(gains[0].keys() & gains[-1].keys())]
        return Claim(GROWTH, (compare("gain from skips at B=5 minus the gain at B=1", more, matters),))
    if name.startswith("odd"):
        factor = "blocks at matched MACs" if "MACs" in name else "blocks"
        groups = dict(enumerate(levels(found, factor), 1))
        label = "odd B minus even B" + (", matched MACs" if "MACs" in name else "")
        part = compare(label, odd_minus_even(groups), matters)
        return Claim(ODD.replace("parameters", "MACs") if "MACs" in name else ODD, (part,))
    text, parts = CLAIMS[name][0], []
    for (factor_a, level_a), (factor_b, level_b) in CLAIMS[name][1]:
        better, worse = found[FACTORS[factor_a][level_a]], found[FACTORS[factor_b][level_b]]
        label = f"{level_a} minus {level_b}" if factor_a == factor_b else f"{factor_a} minus {factor_b}, {level_a}"
        parts.append(compare(label, paired(better, worse), matters))
    return Claim(text, tuple(parts))


# Sentences ----------------------------------------------------------------------------------------------------------


def points(value: float) -> str:
    """A difference of accuracies in percentage points, with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def said_of_part(part: Comparison) -> str:
    """One comparison in a sentence: mean, interval, pairs."""
    label = part.label if "=" in part.label[:2] else part.label[0].upper() + part.label[1:]  # w=8 keeps its w
    if part.n == 0:
        return f"{label}: no pair of runs yet."
    if part.n == 1:
        return f"{label}: {points(part.mean)} points from one pair, which has no interval."
    interval = f"95% interval {points(part.low)} to {points(part.high)}"
    return f"{label}: {points(part.mean)} points ({interval}; {part.n} seeds, paired)."


def in_short(part: Comparison) -> str:
    """One comparison for a table: mean and interval in points."""
    if part.n < 2:
        return f"{part.label}: " + (points(part.mean) if part.n else "no pair yet")
    return f"{part.label}: {points(part.mean)} ({points(part.low)} to {points(part.high)})"


def said_of_claim(claim: Claim, matters: float = MATTERS) -> str:
    """A claim's verdict and its grounds, as Markdown; for what is not settled, what could have been seen and the
    number of seeds that would settle it."""
    sentences = [f"**{claim.text}: {claim.verdict}.**", *(said_of_part(part) for part in claim.parts)]
    still_open = [part for part in claim.parts if part.verdict == OPEN and part.n > 1]
    if claim.verdict == OPEN and still_open:
        worst = max(still_open, key=lambda part: part.needed)
        many = f"more than {MOST}" if worst.needed > MOST else f"about {worst.needed}"
        sentences.append(
            f"{worst.n} seeds show a true difference of {100 * worst.seen:.1f} points four times in five;"
            f" {many} would settle {100 * matters:.0f} point."
        )
    return " ".join(sentences)


def said_of_group(group: Group) -> str:
    """A group's mean accuracy with its interval over seeds."""
    mean, low, high = group.interval()
    if math.isnan(mean):
        return f"{group.label}: no record yet"
    if math.isnan(low):
        return f"{group.label}: {100 * mean:.1f}% (one seed)"
    return f"{group.label}: {100 * mean:.1f}% ({100 * low:.1f} to {100 * high:.1f}, {len(group.records)} seeds)"


def said_of_seeds(groups: Iterable[Group]) -> str:
    """How far apart two runs of one network are by chance alone; empty where no network has two."""
    spread, freedom = seeds_spread({group.config.model: group for group in groups}.values())
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
