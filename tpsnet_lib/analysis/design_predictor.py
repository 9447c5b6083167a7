"""Guesses before training: what accuracy and latency a design should have, from the runs there are and a stopwatch."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from tpsnet_lib.analysis.architecture import Group, points
from tpsnet_lib.config import PARAMETER_BUDGET, ModelConfig
from tpsnet_lib.files import ConfigError
from tpsnet_lib.metrics import t_quantile
from tpsnet_lib.model import build
from tpsnet_lib.model_cost import check_budget, count_macs, count_parameters

Array = NDArray[np.float64]
Rule = Callable[[Array, Array, Array], float]  # (features [N, 3], accuracies [N], features [3]) -> accuracy

NEIGHBOURS = 3
LEAST = 6  # networks; from fewer no rule is worth fitting


def features(config: ModelConfig) -> Array:
    """What a guess is made from [3]: log10 of the parameters, of the MACs, and of the depth in convolutions."""
    depth = 1 + 2 * sum(config.blocks)
    return np.log10([count_parameters(config), count_macs(config), depth])


def _scaled(rows: Array, at: Array) -> tuple[Array, Array]:
    centre, spread = rows.mean(0), np.maximum(rows.std(0), 1e-9)
    return (rows - centre) / spread, (at - centre) / spread


def _mean(rows: Array, values: Array, at: Array) -> float:
    return float(values.mean())


def _nearest(rows: Array, values: Array, at: Array) -> float:
    scaled, here = _scaled(rows, at)
    order = np.linalg.norm(scaled - here, axis=1).argsort(kind="stable")
    return float(values[order[:NEIGHBOURS]].mean())


def _linear(rows: Array, values: Array, at: Array) -> float:
    scaled, here = _scaled(rows, at)
    weights, *_ = np.linalg.lstsq(np.column_stack([np.ones(len(rows)), scaled]), values, rcond=None)
    return float(weights[0] + here @ weights[1:])


RULES: dict[str, Rule] = {
    "the mean of all": _mean,
    f"the {NEIGHBOURS} nearest": _nearest,
    "a linear fit": _linear,
}


@dataclass(frozen=True)
class Prediction:
    """A guess of one run's accuracy with its interval; `inside`: whether the design lies among the recorded ones."""

    accuracy: float
    low: float
    high: float
    inside: bool
    nearest: tuple[str, ...]  # labels of the recorded networks closest to it


class Surrogate:
    """The best of a few simple rules, chosen by how wrong each is about networks that it has not seen.

    `errors` holds each rule's root mean squared error, in accuracy, when all runs of one network at a time are left
    out and guessed from the others. Raises `ConfigError` if there are fewer than `LEAST` networks."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = [group for group in {group.config.model: group for group in groups}.values() if group.records]
        if len(self.groups) < LEAST:
            raise ConfigError(f"{len(self.groups)} networks have records: give at least {LEAST} to guess from")
        self.rows = np.array([features(group.config.model) for group in self.groups])
        self.means = np.array([group.interval()[0] for group in self.groups])
        self.left_out = {name: self._guess_left_out(rule) for name, rule in RULES.items()}
        self.errors = {name: self._error(guesses) for name, guesses in self.left_out.items()}
        self.rule = min(self.errors, key=lambda name: self.errors[name])

    def _guess_left_out(self, rule: Rule) -> list[float]:
        others = [np.arange(len(self.rows)) != index for index in range(len(self.rows))]
        return [rule(self.rows[keep], self.means[keep], self.rows[index]) for index, keep in enumerate(others)]

    def _error(self, guesses: Sequence[float]) -> float:
        wrong = [
            (value - guess) ** 2
            for group, guess in zip(self.groups, guesses, strict=True)
            for value in group.values.values()
        ]
        return math.sqrt(statistics.fmean(wrong))

    def predict(self, config: ModelConfig, level: float = 0.95) -> Prediction:
        """The accuracy that one run of a network should have, under the recipe of the records.

        The interval is as wide as the rule's errors on networks left out; for a design that is not `inside` it
        promises nothing."""
        at = features(config)
        guess = RULES[self.rule](self.rows, self.means, at)
        half = t_quantile(len(self.groups) - 1, level) * self.errors[self.rule]
        inside = bool((at >= self.rows.min(0) - 0.05).all() and (at <= self.rows.max(0) + 0.05).all())
        scaled, here = _scaled(self.rows, at)
        order = np.linalg.norm(scaled - here, axis=1).argsort(kind="stable")[:NEIGHBOURS]
        nearest = tuple(self.groups[index].label for index in order)
        return Prediction(guess, max(0.0, guess - half), min(1.0, guess + half), inside, nearest)


def shrink(config: ModelConfig, macs: int) -> ModelConfig:
    """The same depth, kernels and proportions with fewer channels: the widest that stays within so many MACs.

    A design that is within them already comes back as it is. Raises `ConfigError` if one channel is too many."""
    for percent in range(100, 0, -1):
        channels = tuple(max(1, round(width * percent / 100)) for width in config.channels)
        smaller = replace(config, channels=channels, stem=max(1, round(config.stem * percent / 100)))
        if count_macs(smaller) <= macs:
            return smaller
    raise ConfigError(f"{list(config.blocks)} blocks do not fit into {macs:,} MACs: take fewer model.blocks")


@dataclass(frozen=True)
class Timing:
    """Milliseconds that one image takes: the median of many forward passes, and the quartiles."""

    median: float
    low: float
    high: float
    n: int


@torch.inference_mode()
def latency(config: ModelConfig, seconds: float = 0.2) -> Timing:
    """How long one core of this machine takes for one image, in fp32, weights untrained (they make no difference).

    At least five passes are timed, after two that are not."""
    model = build(config, budget=None).eval().to(memory_format=torch.channels_last)
    image = torch.zeros(1, 3, 32, 32).to(memory_format=torch.channels_last)
    times: list[float] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # one image keeps no second core busy, and cores that wait for each other blur the time
    try:
        began = time.perf_counter()
        while len(times) < 7 or time.perf_counter() - began < seconds:
            start = time.perf_counter()
            model(image)
            times.append(1000 * (time.perf_counter() - start))
    finally:
        torch.set_num_threads(threads)
    low, median, high = statistics.quantiles(times[2:], n=4)
    return Timing(median, low, high, len(times) - 2)


# Sentences ----------------------------------------------------------------------------------------------------------


def said_of_latency(groups: Sequence[Group], timings: Sequence[Timing]) -> str:
    """How well each cost goes with the latency measured, by rank correlation, over the networks timed."""
    if len(groups) < 3:
        return "Too few networks have records to compare their costs."
    measured = [timing.median for timing in timings]
    measures = {
        "parameters": [float(group.parameters) for group in groups],
        "MACs": [float(group.macs) for group in groups],
        "depth": [float(sum(group.config.model.blocks)) for group in groups],
    }
    ranked = {name: _rank_correlation(values, measured) for name, values in measures.items()}
    best = max(ranked, key=lambda name: ranked[name])
    each = ", ".join(f"{name} {value:+.2f}" for name, value in ranked.items()).replace("-", "−")
    return f"Rank correlation with the latency of one image, here: {each}. **What tells most about it: {best}.**"


def _rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's, with ties at their mean rank; 0 where one does not vary."""
    from scipy.stats import spearmanr  # type: ignore[import-untyped]

    return float(spearmanr(a, b).statistic) if len(set(a)) > 1 and len(set(b)) > 1 else 0.0


def said_of_design(name: str, config: ModelConfig, timing: Timing | None = None) -> str:
    """What a design costs; one over the budget of parameters is a `ConfigError` with the count."""
    check_budget(config)
    count, macs = count_parameters(config), count_macs(config)
    share = f"{count / PARAMETER_BUDGET:.1%} of the budget"
    here = f", about {timing.median:.1f} ms for one image here" if timing else ""
    return f"{name}: **{count:,} parameters** ({share}), {macs / 1e6:,.1f} million MACs{here}."


def said_of_errors(surrogate: Surrogate) -> str:
    """How far each rule is from the truth about networks that it has not seen."""
    each = ", ".join(f"{name} {100 * error:.1f}" for name, error in surrogate.errors.items())
    return (
        f"Left out one network at a time, the rules are wrong by (root mean square, points): {each}. "
        f"**The guess is taken from {surrogate.rule}**, fitted to {len(surrogate.groups)} networks."
    )


def said_of_prediction(name: str, prediction: Prediction) -> str:
    """A guess in a sentence, with a warning where it reaches beyond the records."""
    where = (
        f"nearest records: {', '.join(prediction.nearest)}"
        if prediction.inside
        else "**outside the range of the records: a guess far from any evidence**"
    )
    interval = f"{100 * prediction.low:.0f} to {100 * prediction.high:.0f}"
    return f"{name}: {100 * prediction.accuracy:.1f}% ({interval}) is the guess; {where}."


def said_of_outcome(prediction: Prediction, measured: float) -> str:
    """Whether a trained design came out within the interval that was guessed."""
    within = prediction.low <= measured <= prediction.high
    return (
        f"Guessed {100 * prediction.accuracy:.1f}%, trained to {100 * measured:.1f}%:"
        f" {points(measured - prediction.accuracy)} points, **{'within' if within else 'outside'} the interval**."
    )
