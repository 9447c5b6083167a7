"""Populations of runs: what the trials of a search say together, each figure with its bootstrap interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from tpsnet_lib.config import CLASSES, ModelConfig, RunConfig, TrainConfig
from tpsnet_lib.data.datasets import fingerprint, split
from tpsnet_lib.device import native_precision, resolve_device
from tpsnet_lib.files import ConfigError, TrainingError
from tpsnet_lib.metrics import wilson
from tpsnet_lib.model_cost import count_parameters
from tpsnet_lib.runs.experiments import Run, find_record
from tpsnet_lib.runs.provenance import now, provenance
from tpsnet_lib.runs.records import Record, Store, load_or_run, read_record, write_failure
from tpsnet_lib.runs.search_space import Space, drawn_values, parse_space

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
    "mean kernel up to 2": lambda values: values["kernel"] <= 2,
    "mean kernel above 3": lambda values: values["kernel"] > 3,
    "width above 8": lambda values: values["width"] > 8,
    "more than 6 blocks": lambda values: values["depth"] > 6,
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
        """What was drawn: the same for the trials of one draw at different budgets (with the warm-up that goes along),
        data sets and precisions."""
        train = replace(self.record.config.train, epochs=1.0, schedule_epochs=0.0, warmup_epochs=0.0, precision="auto")
        return self.record.config.model, train


def trials(pairs: Iterable[tuple[Run, Record | None]]) -> list[Trial]:
    """The runs that have a record, as `experiments.collect` gives them; one that failed counts as chance level."""
    return [
        Trial(
            run.label,
            drawn_values(record.config),
            CHANCE if record.failed else float(record.metrics["validation_accuracy"]),
            record,
        )
        for run, record in pairs
        if record is not None
    ]


def varied(found: Sequence[Trial]) -> list[str]:
    """The variables that take more than one value in these trials."""
    return [name for name in VARIABLES if len({trial.values[name] for trial in found}) > 1]


def shares(configs: Sequence[RunConfig]) -> dict[str, float]:
    """The share of drawn configs that are of each kind of `CHOICES`."""
    values = [drawn_values(config) for config in configs]
    return {name: sum(map(test, values)) / len(values) for name, test in CHOICES.items()}


def questions(found: Sequence[Trial]) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Two groups of trials for each of four questions: by variable, the groups' names and which trials are in them.

    Kernel and dropout part at the median of these trials, so that the groups are of nearly one size."""
    column = {name: np.array([trial.values[name] for trial in found]) for name in VARIABLES}
    tests = {"optimizer": ("SGD", "the Adam family", column["optimizer"] == "sgd")}
    tests["layers"] = ("2 layers", "3 or 4 layers", column["layers"] == 2)
    for name in ("kernel", "block_dropout"):
        half = float(np.median(column[name]))
        tests[name] = (f"at most {half:.3g}", f"above {half:.3g}", column[name] <= half)
    return {variable: {one: picked, other: ~picked} for variable, (one, other, picked) in tests.items()}


def accuracies(found: Sequence[Trial]) -> Array:
    """The validation accuracies of trials, [N]."""
    return np.array([trial.accuracy for trial in found], dtype=float)


def space_of(given: str | Mapping[str, Any], spaces: Mapping[str, Space], name: str = "mine") -> Space:
    """The space that is meant: one of `spaces` by its name, or one written out, as YAML text or as a mapping.

    A name that is not there, text that is no YAML, and a space without variables are a `ConfigError` of one line."""
    if isinstance(given, str) and given in spaces:
        return spaces[given]
    known = f"give one of {', '.join(spaces)}, or the space itself: variables: {{lr: {{log: [0.001, 0.1]}}}}"
    try:
        tree = yaml.safe_load(given) if isinstance(given, str) else given
    except yaml.YAMLError as error:
        raise ConfigError(f"space {name}: not YAML ({' '.join(str(error).split())}); {known}") from None
    if not isinstance(tree, Mapping):
        raise ConfigError(f"there is no space {given!r}: {known}")
    strange = [str(key) for key in tree if key not in ("about", "variables", "each", "budget")]
    variables, budget = tree.get("variables"), tree.get("budget", {})
    if strange or not isinstance(variables, Mapping) or not variables or not isinstance(budget, Mapping):
        fault = f"{strange[0]} is no part of a space" if strange else "it has no variables to draw"
        raise ConfigError(f"space {name}: {fault}; {known}")
    return parse_space(name, tree)


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
