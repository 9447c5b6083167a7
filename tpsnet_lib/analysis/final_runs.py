"""Final networks: the seeds of one recipe as one result, and whether a run's validation accuracy is a fair one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tpsnet_lib import metrics
from tpsnet_lib.config import read_yaml
from tpsnet_lib.runs.experiments import Experiment, collect, experiments_folder, load_experiment
from tpsnet_lib.runs.records import Record, Store
from tpsnet_lib.runs.test_set import TestResult, find_test


@dataclass(frozen=True)
class Final:
    """The runs of one recipe that differ by seed alone, with what the test set said of each; None where it is shut."""

    name: str
    records: tuple[Record, ...]
    tests: tuple[TestResult | None, ...]

    @property
    def opened(self) -> list[tuple[Record, TestResult]]:
        """The runs that the test set was opened for, by seed."""
        pairs = zip(self.records, self.tests, strict=True)
        return [(record, test) for record, test in pairs if test is not None]

    @property
    def counted(self) -> tuple[Record, ...]:
        """The runs that the figures are of: those that were opened; all of them while none is."""
        return tuple(record for record, _ in self.opened) or self.records

    def interval(self, kind: str = "") -> tuple[float, float, float]:
        """Test accuracy as (mean, low, high) over the opened seeds; all nan where there is none.

        With several seeds the ends are a t interval, which says what other seeds would give on these images; with one
        they are Wilson's, over the images. `kind`: empty, or `exact_` for the images with the original pixels."""
        tests = [test.metrics for _, test in self.opened]
        if len(tests) == 1:
            accuracy, low, high = (float(tests[0][kind + name]) for name in ("accuracy", "low", "high"))
            return accuracy, low, high
        return metrics.mean_interval([float(said[f"{kind}accuracy"]) for said in tests])

    @property
    def minutes(self) -> tuple[float, float, float]:
        """Minutes that the training of one run took: (mean, least, most) over seeds."""
        each = [record.metrics["seconds"] / 60 for record in self.counted]
        return sum(each) / len(each), min(each), max(each)

    @property
    def hardware(self) -> str:
        """What the runs ran on, in words."""
        return " and ".join(sorted({record.hardware for record in self.counted}))


def finals(store: Store, but: str = "") -> list[Final]:
    """The CIFAR-10 results of what is declared final, one a recipe, best test accuracy first, unopened ones last.

    The record of id `but` is left out. A recipe that several experiments declare has the name of the first."""
    groups: dict[tuple[str, str], dict[str, Record]] = {}
    names: dict[tuple[str, str], tuple[str, str]] = {}
    for experiment in _declared():
        for run, record in collect(experiment, store):
            if record is None or record.failed or record.id == but or not record.stamp.startswith("CIFAR-10"):
                continue
            key = record.group_id, record.stamp
            groups.setdefault(key, {})[record.id] = record
            names.setdefault(key, (experiment.name, run.label))
    shared = Counter(name for name, _ in names.values())
    found = []
    for key, members in groups.items():
        name, label = names[key]
        records = tuple(sorted(members.values(), key=lambda record: record.config.seed))
        tests = tuple(find_test(record, store) for record in records)
        found.append(Final(f"{name}, {label}" if shared[name] > 1 else name, records, tests))
    return sorted(found, key=_rank)


def _declared() -> Iterator[Experiment]:
    for path in sorted(experiments_folder().glob("*.yaml")):
        if read_yaml(path).get("final"):  # a search takes seconds to draw, and is none
            yield load_experiment(path)


def _rank(final: Final) -> float:
    accuracy = final.interval()[0]
    return 1.0 if math.isnan(accuracy) else -accuracy
