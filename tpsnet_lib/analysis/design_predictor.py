"""Guesses before training: what accuracy and latency a design should have, from the runs there are and a stopwatch."""

import timeit
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats as scipy_stats  # type: ignore[import-untyped]
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tpsnet_lib.analysis.groups import Group
from tpsnet_lib.config import ModelConfig
from tpsnet_lib.errors import ConfigError
from tpsnet_lib.model import build
from tpsnet_lib.model_cost import count_macs, count_parameters
from tpsnet_lib.stats import Estimate

Array = NDArray[np.float64]

NEIGHBOURS = 3
FEWEST_NETWORKS = 6  # from fewer no rule is worth fitting
RULES: dict[str, Any] = {
    "the mean of all": DummyRegressor(),
    f"the {NEIGHBOURS} nearest": make_pipeline(StandardScaler(), KNeighborsRegressor(NEIGHBOURS)),
    "a linear fit": make_pipeline(StandardScaler(), LinearRegression()),
}


def features(config: ModelConfig) -> Array:
    """What a guess is made from [3]: log10 of the parameters, of the MACs, and of the depth in convolutions."""
    depth = 1 + 2 * sum(config.blocks)
    return np.log10([count_parameters(config), count_macs(config), depth])


@dataclass(frozen=True)
class Forecast:
    """A guess of one run's accuracy; `inside`: whether the design lies among the recorded ones."""

    accuracy: Estimate
    inside: bool


class DesignPredictor:
    """The best of a few simple rules, chosen by how wrong each is about networks that it has not seen.

    `errors` holds each rule's root mean squared error, in accuracy, over the runs of networks that were left out, one
    network at a time. Raises `ConfigError` if there are fewer than `FEWEST_NETWORKS` networks with records."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = [group for group in {group.config.model: group for group in groups}.values() if group.records]
        if len(self.groups) < FEWEST_NETWORKS:
            raise ConfigError(
                f"{len(self.groups)} networks have records: give at least {FEWEST_NETWORKS} to guess from"
            )
        self.rows = np.array([features(group.config.model) for group in self.groups])
        self.means = np.array([group.estimate.value for group in self.groups])
        self.errors = {name: self._error(rule) for name, rule in RULES.items()}
        self.rule = min(self.errors, key=lambda name: self.errors[name])

    def _error(self, rule: Any) -> float:
        guesses = cross_val_predict(rule, self.rows, self.means, cv=LeaveOneOut())
        wrong = [group.accuracies - guess for group, guess in zip(self.groups, guesses, strict=True)]
        return float(np.sqrt(np.mean(np.concatenate(wrong) ** 2)))

    def predict(self, config: ModelConfig) -> Forecast:
        """The accuracy that one run of a network should have, under the recipe of the records.

        The interval is as wide as the rule's errors on networks left out; for a design that is not `inside` it
        promises nothing."""
        at, n = features(config), len(self.groups)
        guess = float(RULES[self.rule].fit(self.rows, self.means).predict(at[None])[0])
        half = float(scipy_stats.t.ppf(0.975, n - 1)) * self.errors[self.rule]
        ends = max(0.0, guess - half), min(1.0, guess + half)
        inside = bool((at >= self.rows.min(0) - 0.05).all() and (at <= self.rows.max(0) + 0.05).all())
        return Forecast(Estimate(guess, *ends, n, "networks", "left-out errors, t", freedom=n - 1), inside)


def shrink(config: ModelConfig, macs: int) -> ModelConfig:
    """The same depth, kernels and proportions with fewer channels: the widest that stays within so many MACs.

    A design that is within them already comes back as it is. Raises `ConfigError` if one channel is too many."""
    for percent in range(100, 0, -1):
        channels = tuple(max(1, round(width * percent / 100)) for width in config.channels)
        smaller = replace(config, channels=channels, stem=max(1, round(config.stem * percent / 100)))
        if count_macs(smaller) <= macs:
            return smaller
    raise ConfigError(
        f"{list(config.blocks)} blocks do not fit into {macs:,} MACs: take smaller model.blocks, or more MACs"
    )


@torch.inference_mode()
def latency(config: ModelConfig, seconds: float = 0.2) -> float:
    """How many milliseconds one core of this machine takes for one image, in fp32, weights untrained (they make no
    difference): the median over so many seconds."""
    model = build(config, budget=None).eval().to(memory_format=torch.channels_last)
    image = torch.zeros(1, 3, 32, 32).to(memory_format=torch.channels_last)
    timer, times, threads = timeit.Timer(lambda: model(image)), list[float](), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        while not times or sum(times) < seconds:
            times.append(timer.timeit(1))
    finally:
        torch.set_num_threads(threads)
    return 1000 * float(np.median(times))
