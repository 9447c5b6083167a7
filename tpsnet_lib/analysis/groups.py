"""Runs that differ by seed alone: how they are gathered, on which machine they are compared, and which are better."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpsnet_lib import stats
from tpsnet_lib.config import RunConfig
from tpsnet_lib.model_cost import count_macs, count_parameters
from tpsnet_lib.runs.experiments import Run
from tpsnet_lib.runs.records import Record
from tpsnet_lib.stats import Estimate

Pairs = Iterable[tuple[Run, Record | None]]  # as `experiments.collect` gives them


NEAR = 1.25  # costs are called unequal beyond this ratio


@dataclass(frozen=True)
class Group:
    """Runs of one network and recipe that differ by seed alone; some may have failed, others not been made yet."""

    label: str
    configs: tuple[RunConfig, ...]  # of the runs that are declared
    records: tuple[Record, ...]  # of those that were finished
    experiment: str = ""
    failed: int = 0  # runs that could not be finished
    left_out: int = 0  # finished runs on another kind of machine than those compared
    tested: Mapping[int, float] = field(default_factory=dict)  # test accuracy by seed, of runs fitted on all images

    @property
    def config(self) -> RunConfig:
        """The run config of the first seed."""
        return self.configs[0]

    @property
    def missing(self) -> int:
        """How many declared runs have no record yet; one that failed has one."""
        return len(self.configs) - len(self.records) - self.failed - self.left_out

    @property
    def by_seed(self) -> dict[int, float]:
        """Accuracy by seed: on the images held out, or on the test set where a run was fitted on all others."""
        scores = {run.config.seed: self.tested.get(run.config.seed, run.validation_accuracy) for run in self.records}
        return {seed: score for seed, score in sorted(scores.items()) if score is not None}

    @property
    def accuracies(self) -> NDArray[np.float64]:
        """The accuracies [runs] of `by_seed`, in the order of their seeds."""
        return np.array(list(self.by_seed.values()))

    @property
    def estimate(self) -> Estimate:
        """The mean accuracy over seeds, with its interval."""
        return stats.mean(self.accuracies)

    @property
    def parameters(self) -> int:
        """Parameters of the network."""
        return count_parameters(self.config.model)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image's forward pass."""
        return count_macs(self.config.model)

    def lead_over(self, other: "Group") -> Estimate:
        """By how much these runs are more accurate (`contrast_within_machines`)."""
        return contrast_within_machines([self, other], [1, -1])

    def cost_beside(self, other: "Group") -> str:
        """How many times the other network's multiplications and parameters this one has, if more, or, at as many
        multiplications, how many times its parameters the other one has; else empty."""
        macs, parameters = self.macs / other.macs, self.parameters / other.parameters
        ratios = {"arithmetic": macs, "parameters": parameters}
        more = [f"{ratio:.2g} times the {what}" for what, ratio in ratios.items() if ratio > NEAR]
        if len(more) == 2 and f"{macs:.2g}" == f"{parameters:.2g}":
            more = [f"{macs:.2g} times the arithmetic and parameters"]
        if more:
            return f"{'at' if macs > NEAR else 'with'} {', '.join(more)}"
        fewer = macs > 1 / NEAR and parameters < 1 / NEAR
        return f"where the other has {1 / parameters:.2g} times the parameters" if fewer else ""


def group_of(label: str, pairs: Pairs, experiment: str = "") -> Group:
    """The group of some runs with their records, whatever their labels are."""
    pairs = list(pairs)
    records = [record for _, record in pairs if record is not None]
    finished = tuple(record for record in records if not record.failed)
    configs = tuple(run.config for run, _ in pairs)
    return Group(label, configs, finished, experiment, failed=len(records) - len(finished))


def groups_by_label(pairs: Pairs, experiment: str = "") -> dict[str, Group]:
    """The runs of an experiment with their records in one group a label, in the order in which they are declared."""
    labelled: dict[str, list[tuple[Run, Record | None]]] = {}
    for run, record in pairs:
        labelled.setdefault(run.label, []).append((run, record))
    return {label: group_of(label, members, experiment) for label, members in labelled.items()}


def hardware_and_threads(record: Record) -> tuple[str, str]:
    """The kind of machine that decides how long a run takes."""
    return record.hardware, str(record.provenance.get("threads"))


def by_machine(groups: Sequence[Group], kind: Callable[[Record], object] = attrgetter("hardware")) -> list[list[Group]]:
    """The groups once for each kind of machine, with the runs that it made, so that like is compared with like.

    Only kinds with two or more runs of every group count, that with the most runs of its smallest group first; where
    there is none, one with a run of every group. If no kind has runs of them all, the groups once as they are."""
    counts = [Counter(kind(record) for record in each.records) for each in groups]
    fewest = {machine: min(count[machine] for count in counts) for machine in set().union(*counts)}
    ranked = sorted(sorted(fewest, key=str), key=lambda machine: -fewest[machine])
    several = [machine for machine in ranked if fewest[machine] > 1]
    machines = several or [machine for machine in ranked[:1] if fewest[machine]]
    return [_made_by([machine], groups, kind) for machine in machines] or [list(groups)]


def on_shared_machines(groups: Sequence[Group]) -> list[Group]:
    """The groups with the runs that count in `by_machine`, those of all its kinds of machine together."""
    counted = {record.hardware for parts in by_machine(groups) for each in parts for record in each.records}
    return _made_by(counted, groups, attrgetter("hardware"))


def _made_by(machines: Collection[object], groups: Sequence[Group], kind: Callable[[Record], object]) -> list[Group]:
    chosen = ([record for record in each.records if kind(record) in machines] for each in groups)
    return [
        replace(each, records=tuple(records), left_out=each.left_out + len(each.records) - len(records))
        for each, records in zip(groups, chosen, strict=True)
    ]


def contrast_within_machines(
    groups: Sequence[Group],
    weights: Sequence[float],
    values: Callable[[Group], ArrayLike] = lambda group: group.accuracies,
) -> Estimate:
    """A weighted sum of the means of groups (their accuracies, or other `values`), within each kind of machine.

    Machines round in other ways, and seeds that were added on another machine are another sample: the sum is made on
    each kind of machine by itself and averaged (`stats.contrast`), so that a difference of machines cancels
    and every run counts that has runs of the other groups beside it. To compare on one kind of machine alone would
    leave out runs that were declared, and which of them would be our choice."""
    strata = [[values(group) for group in parts] for parts in by_machine(groups)]
    return stats.contrast(strata, weights, "seeds a side" if len(groups) == 2 else "seeds a group")
