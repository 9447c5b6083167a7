"""The final training's numbers: what each ingredient of a recipe brings, and what a seed changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch

from tpsnet_lib import optim, stats
from tpsnet_lib.analysis import recipe_glossary
from tpsnet_lib.analysis.final_runs import Final
from tpsnet_lib.config import RunConfig
from tpsnet_lib.model import ResNet, build
from tpsnet_lib.runs.experiments import Run
from tpsnet_lib.runs.records import Record
from tpsnet_lib.stats import Estimate

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
    than 0 if it earns its place. It has no seeds for the whole recipe itself."""

    label: str
    config: RunConfig
    accuracy: dict[int, float]  # on validation images, by seed
    brings: Estimate
    ingredients: tuple[str, ...]  # what the row lacks, in the words of the glossary
    verdict: str = ""  # on "the ingredient helps", those of all rows adjusted together by Holm's method

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
        ingredients = recipe_glossary.left_out(groups[whole][0][0].config, runs[0][0].config)
        rows.append(AblationRow(label, runs[0][0].config, accuracy[label], brings, tuple(ingredients)))
    verdicts = stats.holm({row.label: (row.brings, stats.SMALLEST_EFFECT) for row in rows if row.label != whole})
    rows = [replace(row, verdict=verdicts[row.label].verdict) if row.label != whole else row for row in rows]
    return sorted(rows, key=lambda row: (row.label != whole, -row.brings.value))


def _by_seed(runs: Sequence[tuple[Run, Record]]) -> dict[int, float]:
    return {run.config.seed: float(record.metrics["validation_accuracy"]) for run, record in runs}


def against_published(final: Final, row: Mapping[str, Any], others: Iterable[Final]) -> Estimate:
    """The test accuracy of a final recipe minus one published accuracy, a row of `cost.published` of a single run.

    Its interval has the noise of the seeds (of ours, and of the single run), whose spread is pooled over all final
    recipes, and of the test images; see `stats.published_difference`."""
    tests = [test.metrics for _, test in final.opened]
    pooled = stats.pooled_sd(list(seed_groups(others).values()))
    images = int(tests[0]["n"]) if tests else int(row["n"])
    accuracies = [test["accuracy"] for test in tests]
    return stats.published_difference(accuracies, images, row["accuracy"], int(row["n"]), pooled if pooled[1] else None)


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
