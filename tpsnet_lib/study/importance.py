"""Which variable matters: permutation importance in a random forest over the trials of a search, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tpsnet_lib.study.analyse import LOGARITHMIC, OPTIMIZERS, Array, Interval, Trial, accuracies, varied


@dataclass(frozen=True)
class Importance:
    """How much a forest's error grows where a variable's column is shuffled, in points of accuracy, with its interval
    over resamples of the trials."""

    variable: str
    points: Interval


def importance(found: Sequence[Trial], resamples: int = 30, seed: int = 0) -> tuple[list[Importance], Interval]:
    """The permutation importance of each varied variable in a random forest (Breiman 2001), and the forest's R^2.

    Each resample of the trials trains a forest; errors are of the trials that it left out. The variable `(noise)` is a
    column of random numbers: what is not above it cannot be told from nothing. Empty below six trials."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.metrics import r2_score

    names, y, draw = [*varied(found), "(noise)"], 100 * accuracies(found), np.random.default_rng([2001, seed])
    table = np.array([[_number(name, trial) for name in names[:-1]] + [draw.random()] for trial in found])
    grown, quality = [], []
    for resample in range(resamples):
        chosen = draw.integers(0, len(y), len(y))
        left = np.setdiff1d(np.arange(len(y)), chosen)
        if len(y) < 6 or len(left) < 2:
            continue
        forest = RandomForestRegressor(50, min_samples_leaf=2, max_features=0.5, random_state=resample)
        forest.fit(table[chosen], y[chosen])
        shuffled = permutation_importance(
            forest, table[left], y[left], scoring="neg_mean_absolute_error", n_repeats=4, random_state=resample
        )
        grown.append(shuffled.importances_mean)
        quality.append(r2_score(y[left], forest.predict(table[left])))
    if not grown:
        return [], (math.nan,) * 3
    rows = np.array(grown).T
    found_importances = [Importance(name, _spread(row)) for name, row in zip(names, rows, strict=True)]
    return sorted(found_importances, key=lambda each: -each.points[0]), _spread(np.array(quality))


def _number(name: str, trial: Trial) -> float:
    value = trial.values[name]
    if isinstance(value, str):
        return float(OPTIMIZERS.index(value))
    return math.log(value) if name in LOGARITHMIC else float(value)


def _spread(values: Array) -> Interval:
    low, middle, high = np.quantile(values, [0.025, 0.5, 0.975])
    return float(middle), float(low), float(high)
