"""Three mistakes of the original, each with a sentence on its size from the records; empty without records."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tpsnet_lib import stats
from tpsnet_lib.analysis import peers, search
from tpsnet_lib.analysis.final_runs import finals
from tpsnet_lib.analysis.training import SMALLEST_GAIN, pairs_apart, seed_groups
from tpsnet_lib.runs.records import Record, Store, committed_folder
from tpsnet_lib.stats import Estimate

SHORT, LONG = "search_classroom", "search_classroom_long"  # the same draws at two budgets
LONG_RUN = 30  # epochs: the shortest run that says something of the original's 300
LEAST_PAIRS = 10  # networks, below which a rank correlation is not stated


class Choice(NamedTuple):
    """The epoch of a run that the original's rule reports: the one of the lowest loss on the images that judge it."""

    record: Record
    excess: float  # its validation accuracy minus the last epoch's
    is_another: bool  # than the last epoch


def choices_by_lowest_loss(store: Store) -> list[Choice]:
    """The original's rule, applied to every CIFAR-10 record with held-out images and more than one epoch.

    Where the store has the committed records, they alone count: a network that a reader trains changes no sentence."""
    choices = []
    committed = committed_folder()
    counted = Store(committed) if committed in store.folders else store
    for record in counted.all():
        if not record.failed and record.stamp.startswith("CIFAR-10") and record.validation_accuracy is not None:
            rows = record.history()
            chosen = min(rows, key=lambda row: row["validation_loss"])
            if len(rows) > 1:
                excess = chosen["validation_accuracy"] - rows[-1]["validation_accuracy"]
                choices.append(Choice(record, excess, chosen is not rows[-1]))
    return choices


def best_epoch(store: Store) -> str:
    """How much more a run would claim if the images that judge it had chosen its epoch by the lowest loss."""
    choices = choices_by_lowest_loss(store)
    if len(choices) < 2:
        return ""
    excess, added = [each.excess for each in choices], [each.excess for each in choices if each.is_another]
    long = [each.excess for each in choices if each.record.config.train.epochs >= LONG_RUN]
    there = f" (on average {stats.mean(long, 'runs'):points.2 value})" if long else ""
    return (
        f"In {len(added):,} of our {len(excess):,} runs another epoch than the last has the lowest validation loss."
        f" By that epoch a run would claim **{stats.mean(excess, 'runs'):points.3}** more, on average over all,"
        f" {stats.mean(added, 'runs'):points.2 value} over these, and {100 * max(excess):.1f} at most. It"
        f" cost little here; only {len(long):,} runs have {LONG_RUN} epochs or more{there}: this says"
        " little of 300."
    )


def rankings(store: Store) -> tuple[Estimate, Estimate, tuple[float, float, float]] | None:
    """How well two kinds of short trials rank networks as trials of the full length do, as rank correlations.

    First, the long trials read at the epoch where the short ones end, when their rate has hardly fallen; second, trials
    with a short schedule of their own. Last, the two lengths in epochs and the part of its peak that the rate has left
    where the long trials are cut off. None with fewer than `LEAST_PAIRS` networks."""
    if (trials := _short_and_long(store)) is None:
        return None
    cut, annealed = (stats.rank_correlation(short, trials.final, "networks") for short in (trials.cut, trials.annealed))
    return cut, annealed, (trials.short_epochs, trials.long_epochs, trials.rate_left)


class _ShortAndLong(NamedTuple):
    """The accuracies of the same networks, short and long, and the lengths."""

    cut: list[float]  # of the long trials where the short ones end
    annealed: list[float]  # of the short trials, with a schedule of their own
    final: list[float]  # of the long trials at their end
    short_epochs: float
    long_epochs: float
    rate_left: float  # where the long trials are cut off, as a part of the peak


def _short_and_long(store: Store) -> _ShortAndLong | None:
    """What `rankings` compares; None with fewer than `LEAST_PAIRS` networks."""
    short, long = (search.recorded_trials(name, store) for name in (SHORT, LONG))
    pairs = [pair for pair in search.same_draws(short, long) if not any(trial.record.failed for trial in pair)]
    if len(pairs) < LEAST_PAIRS:
        return None
    short_epochs, long_epochs = (trial.record.config.train.epochs for trial in pairs[0])
    annealed, final = ([trial.accuracy for trial in trials] for trials in zip(*pairs, strict=True))
    cut = [search.accuracy_at(trial, short_epochs) for _, trial in pairs]
    left = [search.rate_left_at(trial, short_epochs) for _, trial in pairs]
    return _ShortAndLong(cut, annealed, final, short_epochs, long_epochs, float(np.mean(left)))


def unannealed_ranking(store: Store) -> str:
    """How well short trials rank networks as long ones do, with a schedule of their own and cut off a longer one."""
    if (trials := _short_and_long(store)) is None:
        return ""
    cut, annealed, final, short_epochs, long_epochs, left = trials
    ahead = stats.rank_correlation_difference(annealed, cut, final, "networks")
    return (
        f"Of {len(final)} random networks trained for {long_epochs:g} epochs, the ranking after {short_epochs:g} of"
        f" them, cut off with {left:.0%} of the rate left, agrees with the last one at a rank correlation of"
        f" **{stats.rank_correlation(cut, final):}**; that of trials of {short_epochs:g} epochs on a schedule of"
        f" their own agrees at **{stats.rank_correlation(annealed, final):}**. The difference is {ahead:.3}."
    )


def single_seed(store: Store) -> str:
    """What the original's difference between two networks of one seed each is worth beside runs of several seeds."""
    better, worse = (peers.published_model(name) for name in ("Model 2", "Model 1"))
    recipes = finals(store)
    return seed_sentence(seed_groups(recipes), better, worse, seed_groups(recipes, looks=True))


def seed_sentence(
    groups: Mapping[str, list[float]],
    better: Mapping[str, Any],
    worse: Mapping[str, Any],
    with_looks: Mapping[str, list[float]] | None = None,
) -> str:
    """The sentence of `single_seed`; `better` and `worse` are rows of `peers.published`. Empty without groups.

    `with_looks`: the groups with the runs that were opened undeclared, for a look."""
    if not groups:
        return ""
    gap, n = better["accuracy"] - worse["accuracy"], int(worse["n"])
    apart, pairs = pairs_apart(groups.values(), gap)
    sd, _ = stats.pooled_sd(list(groups.values()))
    images = stats.proportion_difference(round(better["accuracy"] * n), n, round(worse["accuracy"] * n), n)
    verdict = stats.verdict(images, SMALLEST_GAIN)
    looked = ""
    if with_looks and with_looks != groups:
        apart_then, pairs_then = pairs_apart(with_looks.values(), gap)
        looked = f"{apart_then} of {pairs_then} with a run opened for a look; "
    said = f"is {verdict}" if verdict in (stats.NOT_SETTLED, stats.PENDING) else verdict
    return (
        f"{better['model']} beats {worse['model']} by {100 * gap:.2f} points, one seed each. Of our {pairs} pairs of"
        f" fully trained networks of one recipe with **another seed, {apart} differ by at least as much**"
        f" ({looked}standard deviation {100 * sd:.2f} points). And from {n:,} test images alone the difference is"
        f" {images:points.2}: that {better['model']} is better {said}."
    )
