"""Which variable matters: fANOVA (optuna's) over the trials of a search, with bootstrap intervals."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tpsnet_lib.analysis.search import LOGARITHMIC, Trial, accuracies, varied
from tpsnet_lib.stats import Estimate

Array = NDArray[Any]
TREES = 32
LEAST = 20  # trials; a forest of fewer says nothing
NOISE = "(noise)"  # the name of a column of random numbers
Column = Sequence[str] | Array


@dataclass(frozen=True)
class Importance:
    """The share of the accuracy's variance over the drawn ranges that a variable explains by itself, 0 to 1."""

    variable: str
    share: Estimate


def importance(trials: Sequence[Trial], resamples: int = 30) -> tuple[list[Importance], float]:
    """The importance of each varied variable, the greatest first, and how much of the variance (R^2) such a forest
    explains of trials that its trees have not seen. Empty and nan below `LEAST` trials or where all are equally good.

    The share is optuna's fANOVA on all trials (Hutter, Hoos & Leyton-Brown 2014); what no variable explains by itself,
    several explain together. Its interval is from resamples of the trials. In these a column of random numbers goes
    along, new in each: the variable `(noise)`, whose share is the median; what is not above it may be nothing."""
    names, y, draw = varied(trials), accuracies(trials), np.random.default_rng([2014, 0])
    if len(y) < LEAST or np.ptp(y) == 0 or not names:
        return [], math.nan
    columns = {name: column(trials, name) for name in names}
    whole = fanova(columns, y, seed=0)
    shares: dict[str, list[float]] = {name: [] for name in (*names, NOISE)}
    while len(shares[NOISE]) < resamples:
        chosen = draw.integers(0, len(y), len(y))
        if np.ptp(y[chosen]) == 0:
            continue  # a forest of equals has no variance to share out
        with_noise = {**columns, NOISE: draw.random(len(y))}
        for name, share in fanova(with_noise, y, int(draw.integers(2**31)), chosen, TREES // 2).items():
            shares[name].append(share)
    whole[NOISE] = float(np.median(shares[NOISE]))
    ordered = sorted(whole, key=lambda name: -whole[name])
    return [Importance(name, _share(whole[name], shares[name], len(y))) for name in ordered], explained(columns, y)


def column(trials: Sequence[Trial], name: str) -> Column:
    """What was drawn of a variable, a value a trial: names, or numbers, as logarithms where they were so drawn.

    fANOVA weighs a range evenly: of plain learning rates it would give the upper of three decades nine tenths of
    the weight."""
    values = [trial.values[name] for trial in trials]
    if isinstance(values[0], str):
        return values
    return np.log10(values) if name in LOGARITHMIC else np.asarray(values, dtype=float)


def fanova(columns: dict[str, Any], y: Array, seed: int, chosen: Any = None, trees: int = TREES) -> dict[str, float]:
    """Each column's share of the variance of `y` [N] by optuna's fANOVA, of the `chosen` rows (all of them if None).

    The ranges are those of all rows, so that resamples answer one question."""
    import optuna

    spans = {name: _span(values) for name, values in columns.items()}
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it tells of each study and of what is experimental in it
    study = optuna.create_study(direction="maximize")
    for row in range(len(y)) if chosen is None else chosen:
        drawn = {name: values[row] for name, values in columns.items()}
        study.add_trial(optuna.create_trial(params=drawn, distributions=spans, value=float(y[row])))
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=trees, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # so it calls `normalize`
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)
    return dict(shares)


def _span(values: Column) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(values[0], str):
        return CategoricalDistribution(sorted({str(value) for value in values}))
    return FloatDistribution(float(np.min(values)), float(np.max(values)))


def explained(columns: dict[str, Any], y: Array) -> float:
    """R^2 of a forest's guesses of `y` [N] for trials that its trees have not seen; 0 is no better than the mean."""
    from sklearn.ensemble import RandomForestRegressor

    table = pd.DataFrame(columns)
    encoded = pd.concat([pd.get_dummies(table[[name]], dtype=float) for name in table], axis=1)
    forest = RandomForestRegressor(4 * TREES, oob_score=True, random_state=0).fit(encoded.to_numpy(), y)
    return float(forest.oob_score_)


def _share(share: float, resampled: Sequence[float], n: int) -> Estimate:
    """The share of all trials, whose interval reaches it even if every resample of few trials misses it."""
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(share, min(share, float(low)), max(share, float(high)), n, "trials", "percentile bootstrap")
