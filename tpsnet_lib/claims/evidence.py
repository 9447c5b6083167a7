"""The records that answer a claim: runs by experiment and label, and what one budget's runs say."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tpsnet_lib import stats
from tpsnet_lib.analysis.groups import (
    Group,
    Pairs,
    by_machine,
    group_of,
    hardware_and_threads,
    on_shared_machines,
)
from tpsnet_lib.analysis.search import Trial, completed_trials
from tpsnet_lib.runs.experiments import Experiment, collect, experiments_folder, load_experiment
from tpsnet_lib.runs.records import Record, Store
from tpsnet_lib.runs.test_set import find_final_test
from tpsnet_lib.stats import Estimate


class Evidence:
    """The records of a store, by experiment and label.

    `one_machine`: compare on one kind of machine alone, as the claims did at first."""

    def __init__(self, store: Store, one_machine: bool = False) -> None:
        self.store, self._one_machine = store, one_machine
        self._collected: dict[str, Pairs] = {}

    def experiment(self, name: str) -> Experiment | None:
        """A declared experiment; None for one of the study whose learning rates are not known yet."""
        return load_experiment(name) if (experiments_folder() / f"{name}.yaml").is_file() else None

    def group(self, place: str) -> Group:
        """The runs at `experiment/label`; those of all labels, such as the draws of a search, at `experiment`; with
        more seeds that a later look declares at `experiment+later/label`."""
        names, slash, label = place.partition("/")
        every = [pair for name in names.split("+") for pair in self._pairs(name)]
        pairs = [(run, record) for run, record in every if not slash or run.label == label]
        name = names.split("+")[-1]
        group, experiment = group_of(label, pairs, name), self.experiment(name)
        return replace(group, tested=self._tested(group)) if experiment and experiment.final else group

    def groups(self, places: Sequence[str]) -> list[Group]:
        """The runs at each of several places, on the kinds of machine that all of them have runs of."""
        groups = [self.group(place) for place in places]
        return by_machine(groups)[0] if self._one_machine else on_shared_machines(groups)

    def trials(self, name: str) -> list[Trial]:
        """The recorded trials of a search; one that failed is at chance level."""
        return completed_trials(self._pairs(name))

    def _pairs(self, name: str) -> Pairs:
        if name not in self._collected:
            experiment = self.experiment(name)
            self._collected[name] = collect(experiment, self.store) if experiment else []
        return self._collected[name]

    def _tested(self, final: Group) -> dict[int, float]:
        """The test accuracy of the runs that were fitted on all images, by seed, where the test set was opened."""
        fitted = [record for record in final.records if record.validation_accuracy is None]
        tests = {record.config.seed: find_final_test(record, self.store) for record in fitted}
        return {seed: float(test.metrics["accuracy"]) for seed, test in tests.items() if test is not None}


@dataclass(frozen=True)
class Answer:
    """What the runs of one budget say.

    `judged` is the estimate that a verdict is made of: above 0 where the claim is right; `estimate` is how it is shown
    (the same, unless the claim says "at most" or "within")."""

    estimate: Estimate
    judged: Estimate
    smallest_effect: float
    groups: tuple[Group, ...]
    form: str = "points"  # points, distance, ratio, or a format of Estimate
    measure: str = ""  # what the estimate is, in a word, where it is no difference of means
    remark: str = ""  # what the first page adds to its size
    later: str = ""  # what the seeds say alone that were declared after a first look
    before: "Mapping[str, Answer]" = field(default_factory=dict)  # what was judged in its place, each a test too
    too_short: bool = False  # that no network of these runs overfits, where the claim is about that
    scope: str = ""  # what these runs add to the sentence of the test, such as the rates that were drawn
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every declared run is done, and their estimate has an interval: one seed alone judges nothing."""
        return self.estimate.has_interval and not any(group.missing or not group.configs for group in self.groups)

    @property
    def size(self) -> str:
        """The value of the estimate in words."""
        return self._said("value") + (" apart" if self.form == "distance" else "")

    @property
    def interval(self) -> str:
        """The ends of the interval in words."""
        return self._said("interval")

    def in_words(self) -> str:
        """The estimate with its interval, and what it is."""
        return f"{self.measure if self.estimate.n else ''} {self._said()}".lstrip()

    def _said(self, part: str = "") -> str:
        estimate, kind = self.estimate, self.form
        if not estimate.n:
            return f"{estimate}"
        if self.form == "ratio":  # which was estimated as a logarithm
            value, low, high = (math.exp(log) for log in (estimate.value, estimate.low, estimate.high))
            estimate, kind = replace(estimate, value=value, low=low, high=high), ".2"
        said = format(estimate, f"{'points' if kind == 'distance' else kind} {part}".strip())
        if self.form == "distance":
            said = said.replace("+", "")
        return f"{said}{' times' * (self.form == 'ratio')}"


def greater(estimate: Estimate, groups: Sequence[Group], smallest_effect: float = stats.SMALLEST_EFFECT) -> Answer:
    """The claim that a difference is above 0."""
    return Answer(estimate, estimate, smallest_effect, tuple(groups))


def at_least(estimate: Estimate, groups: Sequence[Group], bound: float) -> Answer:
    """The claim that an estimate is above a bound: it does not hold if the whole interval is below."""
    return Answer(estimate, estimate.minus(bound), 0.0, tuple(groups))


def at_most(estimate: Estimate, groups: Sequence[Group], bound: float) -> Answer:
    """The claim that an estimate is below a bound: it does not hold if the whole interval is above."""
    return Answer(estimate, estimate.taken_from(bound), 0.0, tuple(groups))


def better(first: Group, second: Group) -> Answer:
    """The claim that the first runs are more accurate, over all seeds of both; a note says what each machine says."""
    answer, machines = greater(first.lead_over(second), (first, second)), by_machine([first, second])
    if len(machines) == 1:
        return answer
    leads = ", ".join(f"{a.records[0].hardware} {a.lead_over(b):points}" for a, b in machines)
    (a, b), (c, d) = machines[:2]
    apart = stats.contrast([[group.accuracies for group in (a, b, c, d)]], [1, -1, -1, 1])
    return replace(answer, notes=(f"By kind of machine: {leads}. The first two differ by {apart:points}.",))


def too_short_to_overfit(groups: Sequence[Group]) -> bool:
    """Whether no network of these runs overfits by what would matter."""
    return all(stats.mean(overfitting(group)).value < stats.SMALLEST_EFFECT for group in groups)


def overfitting(group: Group) -> list[float]:
    """How far training accuracy (on augmented images) is ahead of validation accuracy, one value a seed."""
    return [
        float(record.metrics["train_accuracy"]) - group.by_seed[record.config.seed]
        for record in group.records
        if "train_accuracy" in record.metrics
    ]


def cost_ratio(deep: Group, wide: Group) -> Estimate:
    """The logarithm of the seconds of an epoch of the first runs over those of the second; without runs on one machine
    with one number of threads there is none.

    A run's epoch is its fastest, the one that other work on the machine disturbed least."""
    machines = {hardware_and_threads(record) for group in (deep, wide) for record in group.records}
    times = [[math.log(_fastest(record)) for record in group.records] for group in (deep, wide)]
    return stats.welch_difference(*times if len(machines) == 1 else ([], []))


def _fastest(record: Record) -> float:
    return float(min(_epochs(record)))


def uneven_epochs(record: Record) -> float:
    """The seconds of a run's slowest epoch over those of its fastest: what other work on the machine cost it."""
    return float(max(_epochs(record))) / _fastest(record)


def _epochs(record: Record) -> Any:
    """Seconds of each epoch, as an array."""
    return np.diff([row["seconds"] for row in record.history()], prepend=0.0)
