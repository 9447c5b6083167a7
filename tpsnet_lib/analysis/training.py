"""What a change gains, and two habits that make it look larger: the best epoch, and the single seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tpsnet_lib import metrics, train
from tpsnet_lib.config import RunConfig
from tpsnet_lib.data.datasets import ImageSet
from tpsnet_lib.device import native_precision, resolve_device
from tpsnet_lib.model_cost import count_macs, count_parameters
from tpsnet_lib.runs.experiments import Run
from tpsnet_lib.runs.records import Record, held_out

Values = NDArray[np.float64]

# One ingredient at a time -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A row of a climb or an ablation: its accuracy by seed, and what it gains over another row, paired by seed.

    `gain` is (mean, low, high) as fractions; nan for the row that the others start from and for the ends where fewer
    than two seeds pair. `seconds` are those of one run, the mean over its seeds."""

    label: str
    config: RunConfig
    accuracy: dict[int, float]
    gains: tuple[float, ...]
    gain: tuple[float, float, float]
    over: str = ""  # the other row; empty for the start
    seconds: float = math.nan

    @property
    def mean(self) -> float:
        """The mean accuracy over seeds."""
        return float(np.mean(list(self.accuracy.values())))

    @property
    def verdict(self) -> str:
        """`gain`, `loss`, or `not settled` where the interval holds 0 or there is none; `start` for the start."""
        if not self.over:
            return "start"
        _, low, high = self.gain
        return "gain" if low > 0 else "loss" if high < 0 else "not settled"


def climb(found: Iterable[tuple[Run, Record | None]], over: str = "") -> list[Step]:
    """Rows in their declared order, from runs and their records; rows without any are left out.

    What a row gains is counted over the row before it, or over the row labelled `over`."""
    rows: dict[str, list[tuple[Run, Record]]] = {}
    for run, record in found:
        if record is not None and not record.failed:
            rows.setdefault(run.label, []).append((run, record))
    steps: dict[str, Step] = {}
    accuracy = {
        label: {run.config.seed: float(record.metrics["validation_accuracy"]) for run, record in runs}
        for label, runs in rows.items()
    }
    for label, runs in rows.items():
        base = over or next(reversed(steps), "")
        base = "" if base == label else base
        scores, before = accuracy[label], accuracy.get(base, {})
        seeds = sorted(before.keys() & scores.keys())
        gain = metrics.paired_difference([scores[seed] for seed in seeds], [before[seed] for seed in seeds])
        gains = tuple(scores[seed] - before[seed] for seed in seeds)
        seconds = float(np.mean([record.metrics["seconds"] for _, record in runs]))
        steps[label] = Step(label, runs[0][0].config, scores, gains, gain, base, seconds)
    return list(steps.values())


def left_out(found: Sequence[tuple[Run, Record | None]]) -> list[Step]:
    """The rows of an ablation: the first that is declared, with everything, then each that lacks one ingredient, with
    what it gains over the first (less than nothing, where the ingredient earns its place), the largest loss first.

    None where the first row has no record."""
    whole = found[0][0].label
    steps = climb(found, over=whole)
    if not any(step.label == whole for step in steps):
        return []
    return sorted(steps, key=lambda step: (step.label != whole, not step.gains, step.gain[0]))


def said_of_climb(steps: Sequence[Step]) -> str:
    """What the climb comes to in all, and which rows gain, lose, or are not told from nothing."""
    if len(steps) < 2:
        return "The climb has no two rows with records yet: `tpsnet run climb` makes them."
    seeds = sorted(set.intersection(*(set(step.accuracy) for step in steps)))
    first, last = steps[0], steps[-1]
    total = metrics.paired_difference([last.accuracy[s] for s in seeds], [first.accuracy[s] for s in seeds])
    said = (
        f"From {100 * first.mean:.1f}% to {100 * last.mean:.1f}% in {len(steps) - 1} steps:"
        f" **{points(total)}** over {len(seeds)} seeds."
    )
    return " ".join([said, *_by_verdict(steps, gain="Gains", loss="Losses")])


def said_of_ablation(steps: Sequence[Step]) -> str:
    """What the whole recipe reaches, and which ingredients are missed when they are left out, one at a time."""
    if not any(step.gains for step in steps):
        return "The ablation has no two rows with records yet: `tpsnet run ablation` makes them."
    whole, worst = steps[0], steps[1]
    said = (
        f"The whole recipe reaches {100 * whole.mean:.1f}% here (mean of {len(whole.accuracy)} seeds). Of"
        f" {len(steps) - 1} rows that leave one ingredient out, the worst is *{worst.label}*: **{points(worst.gain)}**."
    )
    missed = f"Of {len(steps) - 1} intervals at 95%, {0.05 * (len(steps) - 1):.1f} miss their truth on average."
    return " ".join([said, *_by_verdict(steps, gain="Better so", loss="Worse so"), missed])


def _by_verdict(steps: Sequence[Step], **words: str) -> list[str]:
    """The rows that gain, those that lose, and the others, each kind in a sentence that begins with its word."""
    said = []
    for verdict, word in {**words, "not settled": "Not told from nothing"}.items():
        named = [
            f"{step.label} ({100 * step.gain[0]:+.1f})" for step in steps if step.gains and step.verdict == verdict
        ]
        if named:
            said.append(f"{word}: {'; '.join(named)}.")
    return said


def as_rows(steps: Sequence[Step]) -> list[dict[str, str]]:
    """Steps as a table's text: accuracy, seeds, gain with its interval, and what a network and a run of it cost."""
    return [
        {
            "accuracy (%)": f"{100 * step.mean:.2f}",
            "n": f"{len(step.accuracy)}",
            "gain (points)": points(step.gain).replace(" points", "") if step.gains else "–",
            "verdict": step.verdict if step.over else "–",
            "parameters": f"{count_parameters(step.config.model):,}",
            "MACs (M)": f"{count_macs(step.config.model) / 1e6:.1f}",
            "seconds a run": f"{step.seconds:.0f}",
        }
        for step in steps
    ]


def as_choices(found: Iterable[tuple[Run, Record | None]], n: int) -> list[dict[str, str]]:
    """The configurations that were tried and have a record, the best on the n held-out images first, as a table's
    text."""
    done = [
        (run.label, record)
        for run, record in found
        if record is not None and not record.failed and held_out(record) is not None
    ]
    done.sort(key=lambda row: -row[1].metrics["validation_accuracy"])
    return [
        {
            "configuration": label,
            "held out (%)": _with_interval(record, n),
            "training (%)": f"{100 * record.metrics['train_accuracy']:.2f}",
            "epochs": f"{record.config.train.epochs:g}",
            "parameters": f"{count_parameters(record.config.model):,}",
            "record": record.id,
        }
        for label, record in done
    ]


def _with_interval(record: Record, n: int) -> str:
    reached = record.metrics["validation_accuracy"]
    low, high = metrics.wilson(round(reached * n), n)
    return f"{100 * reached:.2f} ({100 * low:.2f} to {100 * high:.2f})"


def points(value: tuple[float, float, float]) -> str:
    """A difference of accuracies with its interval, in percentage points; without ends where there are none."""
    mean, low, high = (100 * each for each in value)
    return f"{mean:+.2f} points" + ("" if math.isnan(low) else f" ({low:+.2f} to {high:+.2f})")


# The best epoch -----------------------------------------------------------------------------------------------------


def correct_by_epoch(
    config: RunConfig,
    fit_set: ImageSet,
    validation: ImageSet,
    device: str = "auto",
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Train a run without a record and say after each epoch which validation images it gets right: bool [E, N].

    `progress` is called with the number of epochs done."""
    where = resolve_device(device)
    config = config.with_precision(native_precision(where))
    labels, rows = validation.labels.cpu(), []
    for state in train.train(config, fit_set, validation, train.TrainOptions(where, progress="none")):
        if state.epoch_ended and state.validation_logits is not None:
            rows.append(state.validation_logits.argmax(1) == labels)
            if progress is not None:
                progress(len(rows))
    return torch.stack(rows)


@dataclass(frozen=True)
class Halves:
    """The best epoch chosen on one half of the images and read on the other, over many random halves.

    Arrays of one value a division: the epoch (from 0), its accuracy on the half that chose it and on the other half,
    and the last epoch's accuracy on the other half."""

    epoch: NDArray[np.int64]
    chosen: Values
    honest: Values
    last: Values


def best_epoch_on_halves(correct: Tensor, repeats: int = 400, seed: int = 0) -> Halves:
    """Divide the images at random into halves A and B, take the epoch that is best on A, and read it on both.

    `correct` bool [E, N], epochs by images. The first of equally good epochs is taken."""
    right, draw = correct.numpy().astype(np.float64), np.random.default_rng(seed)
    rows = []
    for _ in range(repeats):
        order = draw.permutation(right.shape[1])
        a, b = order[: len(order) // 2], order[len(order) // 2 :]
        on_a, on_b = right[:, a].mean(1), right[:, b].mean(1)
        best = int(on_a.argmax())
        rows.append((best, on_a[best], on_b[best], on_b[-1]))
    epoch, chosen, honest, last = (np.array(column) for column in zip(*rows, strict=True))
    return Halves(epoch, chosen, honest, last)


def said_of_halves(halves: Halves) -> str:
    """By how much the best epoch flatters itself on the images that chose it, in a sentence."""
    flattery = 100 * float(np.mean(halves.chosen - halves.honest))
    gain = 100 * float(np.mean(halves.honest - halves.last))
    optimistic = float(np.mean(halves.chosen > halves.honest))
    return (
        f"On the images that chose it, the best epoch scores {100 * np.mean(halves.chosen):.2f}% on average, on the"
        f" other half {100 * np.mean(halves.honest):.2f}%: **{flattery:+.2f} points of it are the choosing**. The half"
        f" that chose is the kinder one in {optimistic:.0%} of {len(halves.chosen)} divisions. What the choice truly"
        f" brings over the last epoch is {gain:+.2f} points."
    )


# The single seed ----------------------------------------------------------------------------------------------------


def pooled_deviation(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """The standard deviation between runs that differ by seed alone, pooled over groups, and its degrees of freedom.

    nan where no group has two runs."""
    squares = [(float(np.var(values, ddof=1)), len(values) - 1) for values in groups if len(values) > 1]
    freedom = sum(count for _, count in squares)
    return (math.sqrt(sum(value * count for value, count in squares) / freedom) if freedom else math.nan), freedom


def pairs_apart(groups: Sequence[Sequence[float]], difference: float) -> tuple[int, int]:
    """How many pairs of runs within a group differ by at least so much, and how many pairs there are."""
    gaps = [abs(a - b) for values in groups for a, b in combinations(values, 2)]
    return sum(gap >= difference for gap in gaps), len(gaps)


def said_of_seeds(groups: Sequence[Sequence[float]], better: Mapping[str, Any], worse: Mapping[str, Any]) -> str:
    """What a difference between two published runs of one seed each is worth beside runs that differ by seed alone.

    `better` and `worse` are rows of `cost.published`, with `accuracy` and the number `n` of test images."""
    deviation, _ = pooled_deviation(groups)
    gap, n = better["accuracy"] - worse["accuracy"], int(worse["n"])
    apart, pairs = pairs_apart(groups, gap)
    low, high = metrics.wilson(round(worse["accuracy"] * n), n)
    inside = "holds" if low <= better["accuracy"] <= high else "does not hold"
    return (
        f"{better['model']} beats {worse['model']} by {100 * gap:.2f} points, one seed each. Of our {pairs} pairs of"
        f" runs that differ in **nothing but the seed, {apart} differ by at least as much** (standard deviation"
        f" {100 * deviation:.2f} points in these small runs). And {n:,} test images alone leave"
        f" {100 * worse['accuracy']:.2f}% uncertain from {100 * low:.2f} to {100 * high:.2f}, which {inside}"
        f" {100 * better['accuracy']:.2f}%."
    )


def seeds_needed(deviation: float, difference: float, power: float = 0.8, level: float = 0.95) -> int:
    """Seeds a side that show a difference of means with such a power, by the normal approximation; at least 2.

    n = 2 ((z_level + z_power) deviation / difference)^2, both in the same unit."""
    z = NormalDist().inv_cdf((1 + level) / 2) + NormalDist().inv_cdf(power)
    return max(2, math.ceil(2 * (z * deviation / difference) ** 2))


def said_of_pairs(changed: Sequence[Record], plain: Sequence[Record]) -> str:
    """What a change brought, from runs with it and without it, in the order of the same seeds."""
    with_it, without = ([run.metrics["validation_accuracy"] for run in runs] for runs in (changed, plain))
    gain = metrics.paired_difference(with_it, without)
    _, low, high = gain
    verdict = "it helps" if low > 0 else "it harms" if high < 0 else "not told from nothing"
    return f"{points(gain)}, {len(plain)} pairs: {verdict}."


# Exercises ----------------------------------------------------------------------------------------------------------


def checked(given: float | None, truth: float, hint: str, within: float = 0.02) -> str:
    """What to say of a student's number: not answered yet, right (within a fraction of the truth), or a hint."""
    if given is None:
        return "Not answered yet: put a number in place of None and run the cell again."
    if abs(given - truth) <= within * max(abs(truth), 1e-12):
        return f"Right: {truth:,.4g}."
    return f"Not yet. {hint}"


def check_steps(given: float | None, images: int, batch_size: int, epochs: float) -> str:
    """Whether a student's number of optimizer steps is that of a run."""
    return checked(
        given,
        round(images // batch_size * epochs),
        f"An epoch of {images:,} images has {images:,} / {batch_size} steps, without the batch that is not full.",
        within=0,
    )
