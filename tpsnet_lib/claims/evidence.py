"""The records that answer a claim: runs by experiment and label, and what one budget's runs say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import tukey_hsd  # type: ignore[import-untyped]

from tpsnet_lib import stats
from tpsnet_lib.analysis.architecture import shared_machine
from tpsnet_lib.analysis.search import CHANCE
from tpsnet_lib.config import RunConfig
from tpsnet_lib.runs.experiments import Experiment, collect, experiments_folder, load_experiment
from tpsnet_lib.runs.records import Record, Store, held_out
from tpsnet_lib.runs.search_space import drawn_values
from tpsnet_lib.runs.test_set import find_final_test
from tpsnet_lib.stats import Estimate


@dataclass(frozen=True)
class Runs:
    """Runs that a claim looks at: declared configs, the records that are compared, and their accuracies by seed.

    The accuracy is that of the images held out, or of the test set where a network was fitted on all others."""

    experiment: str
    configs: tuple[RunConfig, ...]
    records: tuple[Record, ...]
    accuracies: Mapping[int, float]
    missing: int = 0  # declared runs that have no record yet
    left_out: int = 0  # records of another kind of machine than those compared

    @property
    def values(self) -> list[float]:
        """The accuracies in the order of their seeds."""
        return [value for _, value in sorted(self.accuracies.items())]

    def on(self, machine: str) -> Runs:
        """The runs of one kind of machine."""
        records = tuple(record for record in self.records if record.hardware == machine)
        seeds = {record.config.seed for record in records}
        accuracies = {seed: value for seed, value in self.accuracies.items() if seed in seeds}
        return replace(self, records=records, accuracies=accuracies, left_out=len(self.records) - len(records))


class Evidence:
    """The records of a store, by experiment and label; `declared` stands in for experiments of the same names."""

    def __init__(self, store: Store, declared: Mapping[str, Experiment] | None = None) -> None:
        self.store, self._declared = store, dict(declared or {})
        self._collected: dict[str, list[tuple[str, RunConfig, Record | None]]] = {}

    def experiment(self, name: str) -> Experiment | None:
        """A declared experiment; None for one of the study whose learning rates are not known yet."""
        if name not in self._declared and (experiments_folder() / f"{name}.yaml").is_file():
            self._declared[name] = load_experiment(name)
        return self._declared.get(name)

    def runs(self, place: str) -> Runs:
        """The runs at `experiment/label`, or all of an `experiment`; failed runs count as done, without accuracy."""
        name, slash, wanted = place.partition("/")
        if name not in self._collected:
            experiment = self.experiment(name)
            pairs = collect(experiment, self.store) if experiment else []
            self._collected[name] = [(run.label, run.config, record) for run, record in pairs]
        chosen = [(config, record) for label, config, record in self._collected[name] if not slash or label == wanted]
        records = tuple(record for _, record in chosen if record is not None)
        final = any(experiment.final for experiment in [self.experiment(name)] if experiment)
        scored = {record.config.seed: self._accuracy(record, final) for record in records}
        accuracies = {seed: value for seed, value in scored.items() if value is not None}
        return Runs(name, tuple(config for config, _ in chosen), records, accuracies, len(chosen) - len(records))

    def compared(self, places: Sequence[str]) -> list[Runs]:
        """The runs at several places, of one kind of machine if all places have runs of it.

        Machines draw and round in other ways, and seeds that were added on another one are another sample."""
        groups = [self.runs(place) for place in places]
        machine = shared_machine(group.records for group in groups)
        return groups if machine is None else [group.on(machine) for group in groups]

    def trials(self, name: str) -> list[tuple[dict[str, Any], float]]:
        """What each recorded trial of a search drew, and its accuracy: chance level for one that failed."""
        records = self.runs(name).records
        return [(drawn_values(record.config), self._accuracy(record, False) or CHANCE) for record in records]

    def _accuracy(self, record: Record, final: bool) -> float | None:
        if record.failed:
            return None
        if (value := held_out(record)) is not None:
            return value
        test = find_final_test(record, self.store) if final else None
        return float(test.metrics["accuracy"]) if test else None


@dataclass(frozen=True)
class Answer:
    """What the runs of one budget say.

    `judged` is the estimate that a verdict is made of: above 0 where the claim is right; `estimate` is how it is shown
    (the same, unless the claim says "at most" or "within")."""

    estimate: Estimate
    judged: Estimate
    smallest_effect: float
    runs: tuple[Runs, ...]
    form: str = "points"  # points, ratio, or a format of Estimate
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every declared run is done, and there is something to judge."""
        return bool(self.estimate.n) and not any(runs.missing or not runs.configs for runs in self.runs)


def greater(estimate: Estimate, runs: Sequence[Runs], smallest_effect: float = stats.SMALLEST_EFFECT) -> Answer:
    """The claim that a difference is above 0."""
    return Answer(estimate, estimate, smallest_effect, tuple(runs))


def at_least(estimate: Estimate, runs: Sequence[Runs], bound: float) -> Answer:
    """The claim that an estimate is above a bound: it does not hold if the whole interval is below."""
    moved = replace(estimate, value=estimate.value - bound, low=estimate.low - bound, high=estimate.high - bound)
    return Answer(estimate, moved, 0.0, tuple(runs))


def at_most(estimate: Estimate, runs: Sequence[Runs], bound: float) -> Answer:
    """The claim that an estimate is below a bound: it does not hold if the whole interval is above."""
    turned = replace(estimate, value=bound - estimate.value, low=bound - estimate.high, high=bound - estimate.low)
    return Answer(estimate, turned, 0.0, tuple(runs))


def better(first: Runs, second: Runs) -> Answer:
    """The claim that the first runs are more accurate, over all seeds of both."""
    return greater(stats.difference_by_seed(first.accuracies, second.accuracies), (first, second))


def furthest_apart(groups: Sequence[Runs]) -> Estimate:
    """The largest difference among the means of several groups, with Tukey's simultaneous interval (Tukey 1949)."""
    values = [runs.values for runs in groups]
    if min(map(len, values)) < 2:
        return Estimate(math.nan, math.nan, math.nan, 0)
    means = [float(np.mean(accuracies)) for accuracies in values]
    best, worst = int(np.argmax(means)), int(np.argmin(means))
    interval = tukey_hsd(*values).confidence_interval(stats.LEVEL)
    low, high = (float(np.asarray(end)[best, worst]) for end in (interval.low, interval.high))
    n, freedom = min(map(len, values)), sum(map(len, values)) - len(values)
    return Estimate(means[best] - means[worst], low, high, n, "seeds a network", "Tukey", freedom=freedom)


def overfitting(runs: Runs) -> list[float]:
    """How far training accuracy (on augmented images) is ahead of validation accuracy, one value a seed."""
    return [
        float(record.metrics["train_accuracy"]) - runs.accuracies[record.config.seed]
        for record in runs.records
        if record.config.seed in runs.accuracies
    ]


def log_epoch_times(first: Runs, second: Runs) -> list[list[float]]:
    """The logarithm of the seconds of each run's fastest epoch, of the machine on which most runs of both were made.

    The fastest epoch is the one that other work on the machine disturbed least."""
    machines = [[(r.hardware, r.provenance.get("threads")) for r in runs.records] for runs in (first, second)]
    shared = sorted(set(machines[0]) & set(machines[1]), key=lambda m: min(side.count(m) for side in machines))
    return [
        [math.log(_fastest(r)) for r, m in zip(runs.records, side, strict=True) if shared and m == shared[-1]]
        for runs, side in zip((first, second), machines, strict=True)
    ]


def _fastest(record: Record) -> float:
    seconds = [row["seconds"] for row in record.history()]
    return float(min(np.diff(seconds, prepend=0.0)))
