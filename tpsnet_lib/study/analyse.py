"""Populations of runs: what the trials of a search say together, each figure with its bootstrap interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tpsnet_lib.config import CLASSES, ModelConfig, RunConfig, TrainConfig
from tpsnet_lib.data import fingerprint, split
from tpsnet_lib.files import TrainingError
from tpsnet_lib.metrics import wilson
from tpsnet_lib.model import count_parameters
from tpsnet_lib.study.experiments import Run, find_record
from tpsnet_lib.study.provenance import now, provenance
from tpsnet_lib.study.records import Record, Store, load_or_run, read_record, write_failure
from tpsnet_lib.study.search import Space
from tpsnet_lib.train import native_precision, resolve_device

Array = NDArray[np.float64]
Interval = tuple[float, float, float]  # middle, low, high
CHANCE = 1 / CLASSES  # the accuracy of a guess, which a failed trial counts as

VARIABLES: dict[str, str] = {  # what a search draws, with the words and units of a plot's axis
    "layers": "layers N",
    "depth": "blocks in all",
    "width": "base width w, channels",
    "kernel": "kernel F, mean of layers",
    "skip_kernel": "skip kernel K, mean",
    "pool": "pool P, pixels",
    "dropout": "dropout",
    "block_dropout": "dropout in blocks",
    "optimizer": "optimizer",
    "lr": "learning rate",
    "batch_size": "batch size, images",
}
LOGARITHMIC = ("lr", "batch_size")
OPTIMIZERS = ("sgd", "adam", "adamw", "adamax")
CHOICES: dict[str, Callable[[Mapping[str, Any]], bool]] = {  # kinds of draws that a budget may favour
    "2 layers": lambda values: values["layers"] == 2,
    "3 layers": lambda values: values["layers"] == 3,
    "4 layers": lambda values: values["layers"] == 4,
    "no kernel above 1x1": lambda values: values["kernel"] == 1,
    "mean kernel up to 3": lambda values: 1 < values["kernel"] <= 3,
    "mean kernel above 3": lambda values: values["kernel"] > 3,
    "width below 16": lambda values: values["width"] < 16,
    "more than 10 blocks": lambda values: values["depth"] > 10,
}


@dataclass(frozen=True)
class Trial:
    """A run of a search with its record; `values` are those of `VARIABLES`."""

    label: str
    values: Mapping[str, Any]
    accuracy: float  # on validation, 0 to 1; chance where the run failed
    record: Record

    @property
    def key(self) -> tuple[ModelConfig, TrainConfig]:
        """What was drawn: the same for the trials of one draw at different budgets, data sets and precisions."""
        plain = replace(self.record.config.train, epochs=1.0, schedule_epochs=0.0, precision="auto")
        return self.record.config.model, plain


def trials(pairs: Iterable[tuple[Run, Record | None]]) -> list[Trial]:
    """The runs that have a record, as `experiments.collect` gives them; one that failed counts as chance level."""
    return [
        Trial(
            run.label,
            values_of(record.config),
            CHANCE if record.failed else float(record.metrics["validation_accuracy"]),
            record,
        )
        for run, record in pairs
        if record is not None
    ]


def values_of(config: RunConfig) -> dict[str, Any]:
    """The drawn variables of a config, with one number a network where a draw has one a layer."""
    model, train = config.model, config.train
    layers = range(len(model.blocks))
    return {
        "layers": len(model.blocks),
        "depth": sum(model.blocks),
        "width": model.stem,
        "kernel": float(np.mean([model.kernel(layer) for layer in layers])),
        "skip_kernel": float(np.mean([model.skip_kernel(layer) for layer in layers])),
        "pool": model.pool,
        "dropout": model.dropout,
        "block_dropout": model.block_dropout,
        "optimizer": train.optimizer,
        "lr": train.lr,
        "batch_size": train.batch_size,
    }


def varied(found: Sequence[Trial]) -> list[str]:
    """The variables that take more than one value in these trials."""
    return [name for name in VARIABLES if len({trial.values[name] for trial in found}) > 1]


def shares(configs: Sequence[RunConfig]) -> dict[str, float]:
    """The share of drawn configs that are of each kind of `CHOICES`."""
    values = [values_of(config) for config in configs]
    return {name: sum(map(test, values)) / len(values) for name, test in CHOICES.items()}


def questions(found: Sequence[Trial]) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Two groups of trials for each of four questions: by variable, the groups' names and which trials are in them."""
    column = {name: np.array([trial.values[name] for trial in found]) for name in VARIABLES}
    half = float(np.median(column["block_dropout"]))
    tests = {
        "optimizer": ("SGD", "the Adam family", column["optimizer"] == "sgd"),
        "layers": ("2 layers", "3 or 4 layers", column["layers"] == 2),
        "kernel": ("1x1 kernels only", "some larger", column["kernel"] == 1),
        "block_dropout": (f"at most {half:.2f}", f"above {half:.2f}", column["block_dropout"] <= half),
    }
    return {variable: {one: picked, other: ~picked} for variable, (one, other, picked) in tests.items()}


def accuracies(found: Sequence[Trial]) -> Array:
    """The validation accuracies of trials, [N]."""
    return np.array([trial.accuracy for trial in found], dtype=float)


def run_here(
    runs: Sequence[Run], *, store: Store, root: str | Path | None = None, progress: str = "auto"
) -> list[tuple[Run, Record]]:
    """Runs with their records, trained one after another in this process where missing, on one thread: for a few small
    runs, too small to share between threads and done before `experiments.run_all` would have started its workers.

    One that diverges is recorded as failed."""
    threads, pairs = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for run in runs:
            started = now()
            try:
                record = load_or_run(run.config, root=root, store=store, progress=progress)
            except TrainingError as error:
                record = find_record(run, store) or _failed(run, store, root, str(error), started)
            pairs.append((run, record))
    finally:
        torch.set_num_threads(threads)
    return pairs


def _failed(run: Run, store: Store, root: str | Path | None, reason: str, started: str) -> Record:
    device = resolve_device()
    made_by = provenance(device, fingerprint(run.config.data.dataset, root), started)
    return read_record(
        write_failure(store.writable, run.config.with_precision(native_precision(device)), reason, made_by)
    )


def images(trial: Trial) -> int:
    """How many validation images a trial was scored on."""
    return trial.record.config.data.validation_size or len(split(trial.record.config.data.dataset)[1])


def scored(trial: Trial) -> Interval:
    """A trial's accuracy with the Wilson interval of its validation images."""
    count = images(trial)
    return trial.accuracy, *wilson(round(trial.accuracy * count), count)


def under_budget(space: Space, blocks: Sequence[int], widths: Sequence[int], factor: float = 2) -> NDArray[np.bool_]:
    """Which three-layer networks of equal depth fit a space's parameters: [blocks, widths], from the closed form."""

    def count(depth: int, width: int) -> int:
        channels = tuple(round(width * factor ** (layer + 1)) for layer in range(3))
        return count_parameters(ModelConfig(blocks=(depth,) * 3, channels=channels, stem=width))

    return np.array([[count(depth, width) <= space.parameters for width in widths] for depth in blocks])


def same_draws(first: Sequence[Trial], second: Sequence[Trial]) -> list[tuple[Trial, Trial]]:
    """The trials of two searches that come from the same draw, in the first's order."""
    others = {trial.key: trial for trial in second}
    return [(trial, others[trial.key]) for trial in first if trial.key in others]


def accuracy_at(trial: Trial, epoch: float) -> float:
    """A trial's validation accuracy after some of its epochs: as it would stand had its schedule been cut there.

    nan where its history has no such epoch; chance where it failed."""
    if trial.record.failed:
        return CHANCE
    rows = [row for row in trial.record.history() if abs(row["epoch"] - epoch) < 1e-6]
    return float(rows[0]["validation_accuracy"]) if rows else math.nan


def first_best(count: int) -> Array:
    """The chance that the best of n trials out of `count`, drawn without replacement, is at most the i-th worst:
    [n - 1, i - 1]."""
    chances = np.empty((count, count))
    at_most, ranks = np.ones(count), np.arange(1, count + 1)
    for n in range(count):
        at_most = at_most * np.maximum(ranks - n, 0) / (count - n)
        chances[n] = at_most
    return chances


def best_of_n(values: Sequence[float] | Array, repeats: int = 1000, seed: int = 0) -> tuple[Array, Array, Array, Array]:
    """The best accuracy that n random trials reach, for n = 1 ... N: expected, its bootstrap band (low, high), and the
    level that 95% of such searches exceed.

    Expected value of the maximum of draws without replacement, which is unbiased (Tang et al. 2020, arXiv 2004.13969;
    after Dodge et al. 2019, arXiv 1909.03004). Near n = N the band is too narrow: no resample beats the best trial."""
    ordered = np.sort(np.asarray(values, dtype=float))
    chances = first_best(len(ordered))
    weights = np.diff(chances, axis=1, prepend=0.0)
    draw = np.random.default_rng(seed)
    resamples = np.sort(draw.choice(ordered, (repeats, len(ordered))), axis=1)
    low, high = np.quantile(resamples @ weights.T, [0.025, 0.975], axis=0)
    exceeded = ordered[(chances < 0.05).sum(1).clip(max=len(ordered) - 1)]
    return weights @ ordered, low, high, exceeded


def distribution(errors: Sequence[float] | Array, grid: Array, repeats: int = 1000, seed: int = 0) -> tuple[Array, ...]:
    """The share of trials whose error is at most each value of the grid, with its bootstrap band: (share, low, high).

    The error distribution function of Radosavovic et al. 2019 (arXiv 1905.13214)."""
    values = np.asarray(errors, dtype=float)
    below = values[:, None] <= grid
    draw = np.random.default_rng(seed)
    shares = below[draw.integers(0, len(values), (repeats, len(values)))].mean(1)
    low, high = np.quantile(shares, [0.025, 0.975], axis=0)
    return below.mean(0), low, high


def median_difference(
    a: Sequence[float] | Array, b: Sequence[float] | Array, repeats: int = 2000, seed: int = 0
) -> Interval:
    """The median of a less that of b, with its bootstrap interval: two groups of trials drawn independently."""
    first, second, draw = np.asarray(a, dtype=float), np.asarray(b, dtype=float), np.random.default_rng(seed)
    medians = [np.median(draw.choice(values, (repeats, len(values))), axis=1) for values in (first, second)]
    low, high = np.quantile(medians[0] - medians[1], [0.025, 0.975])
    return float(np.median(first) - np.median(second)), float(low), float(high)


def good_range(
    values: Sequence[float] | Array,
    accuracy: Sequence[float] | Array,
    share: float = 0.25,
    repeats: int = 2000,
    seed: int = 0,
) -> Interval:
    """The value of a variable that the best trials have: median, low and high end of its bootstrap range.

    Of `share` of the trials, drawn with replacement, the best one's value is kept; 95% of what is kept lies in the
    range (the empirical bootstrap of Radosavovic et al. 2020, arXiv 2003.13678, section 3)."""
    x, y, draw = np.asarray(values, dtype=float), np.asarray(accuracy, dtype=float), np.random.default_rng(seed)
    chosen = draw.integers(0, len(x), (repeats, max(2, round(share * len(x)))))
    kept = x[np.take_along_axis(chosen, y[chosen].argmax(1)[:, None], 1)[:, 0]]
    low, middle, high = np.quantile(kept, [0.025, 0.5, 0.975])
    return float(middle), float(low), float(high)


def ranks(values: Array) -> Array:
    """Ranks from 1 along the last axis; equal values share the mean of theirs."""
    one, other = values[..., :, None], values[..., None, :]
    smaller: Array = (other < one).sum(-1) + ((other == one).sum(-1) + 1) / 2
    return smaller


def rank_correlation(
    a: Sequence[float] | Array, b: Sequence[float] | Array, repeats: int = 1000, seed: int = 0
) -> Interval:
    """Spearman's rank correlation of paired values with its bootstrap interval over the pairs; nan below three."""
    pairs = np.stack([np.asarray(a, dtype=float), np.asarray(b, dtype=float)])
    count = pairs.shape[1]
    if count < 3:
        return math.nan, math.nan, math.nan
    chosen = np.random.default_rng(seed).integers(0, count, (repeats, count))
    resampled = _correlation(ranks(pairs[0][chosen]), ranks(pairs[1][chosen]))
    resampled = resampled[np.isfinite(resampled)]  # a resample of one pair alone has no correlation
    low, high = np.quantile(resampled, [0.025, 0.975]) if len(resampled) else (math.nan, math.nan)
    return float(_correlation(ranks(pairs[0]), ranks(pairs[1]))), float(low), float(high)


def _correlation(a: Array, b: Array) -> Array:
    a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    scale = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    correlation: Array = (a * b).sum(-1) / np.where(scale > 0, scale, math.nan)
    return correlation


def ordered_alike(a: Sequence[float] | Array, b: Sequence[float] | Array) -> tuple[int, int]:
    """How many pairs of trials two measurements put in the same order, and how many pairs there are; a tie is not."""
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    upper = np.triu_indices(len(x), 1)
    alike = np.sign(x[:, None] - x)[upper] * np.sign(y[:, None] - y)[upper]
    return int((alike > 0).sum()), len(upper[0])


def regret(
    chosen_by: Sequence[float] | Array,
    scored_by: Sequence[float] | Array,
    sizes: Sequence[int],
    repeats: int = 300,
    seed: int = 0,
) -> Array:
    """What a search of k trials loses by choosing with one measurement where another counts: the best by the other
    less the chosen one's, on average over searches; rows mean, low, high (bootstrap over trials) for each size k."""
    return _over_searches(chosen_by, scored_by, sizes, repeats, seed, lambda x, y, best: y.max(1) - _at(y, best))


def surprise(
    chosen_by: Sequence[float] | Array,
    scored_by: Sequence[float] | Array,
    sizes: Sequence[int],
    repeats: int = 300,
    seed: int = 0,
) -> Array:
    """How much better the winner of k trials looked when it was chosen than when it is measured again: the winner's
    curse, from trials that were run twice; rows mean, low, high (bootstrap over trials) for each size k."""
    return _over_searches(chosen_by, scored_by, sizes, repeats, seed, lambda x, y, best: _at(x, best) - _at(y, best))


def _at(values: Array, columns: NDArray[np.int64]) -> Array:
    return np.take_along_axis(values, columns[:, None], 1)[:, 0]


def _over_searches(a: Any, b: Any, sizes: Sequence[int], repeats: int, seed: int, measure: Any) -> Array:
    x, y, draw = np.asarray(a, dtype=float), np.asarray(b, dtype=float), np.random.default_rng(seed)
    result = np.empty((3, len(sizes)))

    def mean_over_searches(population: NDArray[np.int64], size: int) -> float:
        searches = population[draw.random((100, len(population))).argsort(1)[:, :size]]
        return float(measure(x[searches], y[searches], x[searches].argmax(1)).mean())

    for column, size in enumerate(sizes):
        everyone = np.arange(len(x))
        means = [mean_over_searches(draw.choice(everyone, len(x)), size) for _ in range(repeats)]
        whole = np.mean([mean_over_searches(everyone, size) for _ in range(20)])
        result[:, column] = whole, *np.quantile(means, [0.025, 0.975])
    return result


def optimism(
    truth: Sequence[float] | Array, images: int, sizes: Sequence[int], repeats: int = 4000, seed: int = 0
) -> Array:
    """The winner's curse of validation noise alone, simulated: networks of known accuracy are scored on `images`
    random images, the best of k wins, and its score less its true accuracy is averaged: [sizes]."""
    p, draw = np.asarray(truth, dtype=float), np.random.default_rng(seed)
    gaps = []
    for size in sizes:
        chosen = p[draw.random((repeats, len(p))).argsort(1)[:, :size]]
        scores = draw.binomial(images, chosen) / images
        best = scores.argmax(1)
        gaps.append(float((_at(scores, best) - _at(chosen, best)).mean()))
    return np.array(gaps)
