"""Three mistakes of the original, each with what the records say of its size: a sentence, empty without records."""

from __future__ import annotations

import numpy as np

from tpsnet_lib import metrics, stats
from tpsnet_lib.analysis import cost, search, training
from tpsnet_lib.runs.experiments import collect, load_experiment
from tpsnet_lib.runs.records import Record, Store, held_out

LEAST_PAIRS = 9  # draws at two budgets; a rank correlation of fewer says little
SHORT, LONG = "search_classroom", "search_classroom_long"  # the same draws at two budgets
SEEDS = "climb"  # its rows are run from several seeds each


def best_epoch(store: Store) -> str:
    """How much more a run would claim if the images that judge it had chosen its epoch, over all CIFAR-10 records."""
    curves = [_validated(record) for record in store.all() if _counts(record)]
    more = [100 * (max(curve) - curve[-1]) for curve in curves if len(curve) > 1]
    if len(more) < 2:
        return ""
    mean, low, high = metrics.mean_interval(more)
    others = sum(gap > 0 for gap in more)
    return (
        f"In {others:,} of our {len(more):,} runs another epoch than the last scores best on the validation images."
        f" Named by its best epoch, a run would claim **{mean:.2f} points more** on average ({low:.2f} to {high:.2f}),"
        f" {max(more):.1f} at most, on the very images that chose it."
    )


def _counts(record: Record) -> bool:
    return not record.failed and record.stamp.startswith("CIFAR-10") and held_out(record) is not None


def _validated(record: Record) -> list[float]:
    return [row["validation_accuracy"] for row in record.history()]


def unannealed_ranking(store: Store) -> str:
    """How well short trials rank networks as long ones do, with a schedule of their own and cut off a longer one."""
    short, long = (search.completed_trials(collect(load_experiment(name), store)) for name in (SHORT, LONG))
    both = search.same_draws(short, long)
    if len(both) < LEAST_PAIRS:
        return ""
    few, many = (trial.record.config.train.epochs for trial in both[0])
    final = np.array([late.accuracy for _, late in both])
    annealed = np.array([early.accuracy for early, _ in both])
    cut = np.array([search.accuracy_at(late, few) for _, late in both])
    own, off = (stats.rank_correlation(scores, final) for scores in (annealed, cut))
    return (
        f"Of {len(both)} random networks trained for {many:g} epochs, the ranking after {few:g} of them, cut off before"
        f" the rate had fallen, agrees with the last one at a rank correlation of **{off:.2}**; that of trials of"
        f" {few:g} epochs on a schedule of their own agrees at **{own:.2}**."
    )


def single_seed(store: Store) -> str:
    """What the original's difference between two networks of one seed each is worth beside runs of several seeds."""
    rows = training.climb(collect(load_experiment(SEEDS), store))
    groups = [list(row.accuracy.values()) for row in rows if len(row.accuracy) > 1]
    published = {row["model"]: row for row in cost.published()}
    return training.said_of_seeds(groups, published["Model 2"], published["Model 1"]) if groups else ""
