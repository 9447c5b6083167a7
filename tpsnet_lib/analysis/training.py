"""The final training's numbers: what each ingredient of a recipe brings, what was tried, and what a seed changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch

from tpsnet_lib import optim, stats
from tpsnet_lib.analysis.final_runs import Final
from tpsnet_lib.config import RunConfig
from tpsnet_lib.data.datasets import split
from tpsnet_lib.model import ResNet, build
from tpsnet_lib.model_cost import count_parameters
from tpsnet_lib.runs.experiments import Run
from tpsnet_lib.runs.records import Record, held_out
from tpsnet_lib.stats import Adjusted, Estimate

SMALLEST_GAIN = 0.001  # of test accuracy over a published network that would matter: a tenth of a point


def start(config: RunConfig) -> tuple[ResNet, torch.optim.Optimizer]:
    """The network of a run with its first weights, which its seed draws, and its optimizer."""
    torch.manual_seed(config.seed)
    network = build(config.model)
    return network, optim.optimizer(network, config.train)


@dataclass(frozen=True)
class AblationRow:
    """A row of an ablation: the whole recipe without one ingredient.

    `brings` is the accuracy of the whole recipe minus that of this row, as a fraction: what the ingredient brings, more
    than 0 if it earns its place. It has no seeds for the whole recipe itself. `seconds` are those of one run."""

    label: str
    config: RunConfig
    accuracy: dict[int, float]  # on validation images, by seed
    brings: Estimate
    seconds: float

    @property
    def mean(self) -> float:
        """The mean accuracy over seeds."""
        return float(np.mean(list(self.accuracy.values())))


def ablation(pairs: Iterable[tuple[Run, Record | None]]) -> list[AblationRow]:
    """The rows of an ablation: the whole recipe, which is declared first, then the rows by what is lost without them.

    The spread between seeds is pooled over all rows, which have few seeds each. Rows without a record are left out;
    without a record of the whole recipe there is nothing to compare with, and no row."""
    groups: dict[str, list[tuple[Run, Record]]] = {}
    whole = ""
    for run, record in pairs:
        whole = whole or run.label
        if record is not None and not record.failed:
            groups.setdefault(run.label, []).append((run, record))
    if whole not in groups:
        return []
    accuracy = {label: _by_seed(runs) for label, runs in groups.items()}
    sd, freedom = stats.pooled_sd([list(scores.values()) for scores in accuracy.values()])
    reference = list(accuracy[whole].values())
    rows = []
    for label, runs in groups.items():
        scores = [] if label == whole else list(accuracy[label].values())
        brings = stats.pooled_difference(reference, scores, sd, freedom)
        seconds = float(np.mean([record.metrics["seconds"] for _, record in runs]))
        rows.append(AblationRow(label, runs[0][0].config, accuracy[label], brings, seconds))
    return sorted(rows, key=lambda row: (row.label != whole, -row.brings.value))


def _by_seed(runs: Sequence[tuple[Run, Record]]) -> dict[int, float]:
    return {run.config.seed: float(record.metrics["validation_accuracy"]) for run, record in runs}


def ablation_verdicts(rows: Sequence[AblationRow], smallest: float = stats.SMALLEST_EFFECT) -> dict[str, Adjusted]:
    """The verdict of each row on "the ingredient helps", adjusted together by Holm's method."""
    return stats.holm({row.label: (row.brings, smallest) for row in rows if row.brings.n})


def tried(experiments: Mapping[str, Iterable[tuple[Run, Record | None]]]) -> list[dict[str, str]]:
    """Every configuration that was tried on held-out images, by experiment, as a table's text, best first."""
    runs = [
        (name, run.label, record)
        for name, pairs in experiments.items()
        for run, record in pairs
        if record is not None and not record.failed and held_out(record) is not None
    ]
    runs.sort(key=lambda row: -row[2].metrics["validation_accuracy"])
    return [
        {
            "configuration": label,
            "experiment": name,
            "held out": f"{_held_out_share(record):%}",
            "epochs": f"{record.config.train.epochs:g}",
            "parameters": f"{count_parameters(record.config.model):,}",
            "record": record.id,
        }
        for name, label, record in runs
    ]


def _held_out_share(record: Record) -> Estimate:
    data = record.config.data
    n = data.validation_size or len(split(data.dataset)[1])
    return stats.proportion(round(record.metrics["validation_accuracy"] * n), n)


def against_published(final: Final, row: Mapping[str, Any], others: Iterable[Final]) -> Estimate:
    """The test accuracy of a final recipe minus one published accuracy, a row of `cost.published` of a single run.

    Its interval has the noise of the seeds (of ours, and of the single run), whose spread is pooled over all final
    recipes, and of the test images; see `stats.against_published`."""
    tests = [test.metrics for _, test in final.opened]
    pooled = stats.pooled_sd(list(seed_groups(others).values()))
    images = int(tests[0]["n"]) if tests else int(row["n"])
    accuracies = [test["accuracy"] for test in tests]
    return stats.against_published(accuracies, images, row["accuracy"], int(row["n"]), pooled if pooled[1] else None)


# The single seed ----------------------------------------------------------------------------------------------------


def seed_groups(finals: Iterable[Final]) -> dict[str, list[float]]:
    """The test accuracies of each final recipe that was opened for several seeds: runs that differ by seed alone.

    They are read to measure the noise of a published difference; nothing is chosen by them."""
    return {
        final.name: [test.metrics["accuracy"] for _, test in final.opened] for final in finals if len(final.opened) > 1
    }


def pairs_apart(groups: Iterable[Sequence[float]], difference: float) -> tuple[int, int]:
    """How many pairs of runs within a group differ by at least `difference`, and how many pairs there are."""
    gaps = [abs(a - b) for values in groups for a, b in combinations(values, 2)]
    return sum(gap >= difference - stats.EQUAL for gap in gaps), len(gaps)
