"""Runs that differ by seed alone: how they are gathered, on which machine they are compared, and which are better."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tpsnet_lib import stats
from tpsnet_lib.config import RunConfig
from tpsnet_lib.model_cost import count_macs, count_parameters
from tpsnet_lib.runs.experiments import Run
from tpsnet_lib.runs.records import Record, held_out
from tpsnet_lib.stats import Estimate

Pairs = Iterable[tuple[Run, Record | None]]  # as `experiments.collect` gives them


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
        scores = {run.config.seed: self.tested.get(run.config.seed, held_out(run)) for run in self.records}
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

    def lead_over(self, other: Group) -> Estimate:
        """By how much these runs are more accurate; paired by seed only if both have the same seeds and it helps."""
        return stats.difference_by_seed(self.by_seed, other.by_seed)


def group(label: str, pairs: Pairs, experiment: str = "") -> Group:
    """The group of some runs with their records, whatever their labels are."""
    pairs = list(pairs)
    records = [record for _, record in pairs if record is not None]
    finished = tuple(record for record in records if not record.failed)
    configs = tuple(run.config for run, _ in pairs)
    return Group(label, configs, finished, experiment, failed=len(records) - len(finished))


def groups_by_label(pairs: Pairs) -> dict[str, Group]:
    """Runs with their records in one group a label, in the order in which they are declared."""
    labelled: dict[str, list[tuple[Run, Record | None]]] = {}
    for run, record in pairs:
        labelled.setdefault(run.label, []).append((run, record))
    return {label: group(label, members) for label, members in labelled.items()}


def hardware(record: Record) -> str:
    """The kind of machine that decides how a run draws and rounds."""
    return record.hardware


def hardware_and_threads(record: Record) -> tuple[str, str]:
    """The kind of machine that decides how long a run takes."""
    return record.hardware, str(record.provenance.get("threads"))


def on_one_machine(groups: Sequence[Group], kind: Callable[[Record], object] = hardware) -> list[Group]:
    """The groups with those of their runs that one kind of machine made, so that like is compared with like.

    Of several kinds it is the one on which the smallest group is largest. Where no kind has runs of every group, the
    groups are as they were."""
    counts = [Counter(kind(record) for record in each.records) for each in groups]
    shared = set(counts[0]).intersection(*counts[1:]) if counts else set()
    if not shared:
        return list(groups)
    machine = max(sorted(shared, key=str), key=lambda one: min(count[one] for count in counts))
    return [_only(each, [record for record in each.records if kind(record) == machine]) for each in groups]


def _only(whole: Group, records: Sequence[Record]) -> Group:
    return replace(whole, records=tuple(records), left_out=whole.left_out + len(whole.records) - len(records))
