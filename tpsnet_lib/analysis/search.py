"""The trials of a random search: their records, their table, and whether a value is among the best of its variable."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import comb  # type: ignore[import-untyped]

from tpsnet_lib import stats
from tpsnet_lib.analysis.groups import groups_by_label
from tpsnet_lib.config import CLASSES, ModelConfig, TrainConfig
from tpsnet_lib.errors import ConfigError, brief, way_to
from tpsnet_lib.plain_yaml import plain_yaml
from tpsnet_lib.profiles import LEAST
from tpsnet_lib.progress import Progress
from tpsnet_lib.runs.experiments import Run, collect, load_experiment
from tpsnet_lib.runs.local_backend import WorkerSettings, work
from tpsnet_lib.runs.records import Record, Store
from tpsnet_lib.runs.search_space import Space, default_pool, drawn_values, parse_space, sample
from tpsnet_lib.stats import Estimate

CHANCE = 1 / CLASSES  # the accuracy of a guess, which a failed trial counts as

VARIABLES: dict[str, str] = {  # what a search draws, with the label and the unit of its axis
    "layers": "layers N",
    "depth": "blocks in all",
    "width": "base width w, channels",
    "kernel": "kernel F, mean of layers",
    "skip_kernel": "skip kernel K, mean of layers",
    "pool": "pool P, pixels",
    "dropout": "dropout",
    "block_dropout": "dropout in blocks",
    "optimizer": "optimizer",
    "lr": "learning rate",
    "batch_size": "batch size, images",
}
LOGARITHMIC = ("lr", "batch_size")
OPTIMIZERS = ("sgd", "adam", "adamw", "adamax", "muon")


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


def completed_trials(pairs: Iterable[tuple[Run, Record | None]]) -> list[Trial]:
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


def recorded_trials(experiment: str, store: Store) -> list[Trial]:
    """The trials of a declared search that a store has records of."""
    return completed_trials(collect(load_experiment(experiment), store))


def trial_table(trials: Sequence[Trial]) -> pd.DataFrame:
    """A row a trial in the order given, by its label: the columns of `VARIABLES`, `accuracy` (0 to 1) and `failed`."""
    rows = [{**trial.values, "accuracy": trial.accuracy, "failed": bool(trial.record.failed)} for trial in trials]
    return pd.DataFrame(rows, [trial.label for trial in trials], [*VARIABLES, "accuracy", "failed"])


def varied(trials: Sequence[Trial]) -> list[str]:
    """The variables that take more than one value in these trials, but for a pool that only follows the layers."""
    names = [name for name in VARIABLES if len({trial.values[name] for trial in trials}) > 1]
    follows = all(trial.values["pool"] == default_pool(trial.values["layers"]) for trial in trials)
    return [name for name in names if not (follows and name == "pool")]


def accuracies(trials: Sequence[Trial]) -> NDArray[np.float64]:
    """The validation accuracies of trials, [N]."""
    return np.array([trial.accuracy for trial in trials], dtype=float)


def expected_best(scores: ArrayLike, n: int) -> float:
    """The best of n draws without replacement from these scores, the mean over all choices of n (Tang et al. 2020)."""
    ordered = np.sort(np.asarray(scores, dtype=float))
    among_the_lowest = comb(np.arange(len(ordered) + 1), n)  # choices of n among the r lowest, for every r
    return float(ordered @ np.diff(among_the_lowest / among_the_lowest[-1]))


OWN = "mine"  # what a chapter calls the space that its reader writes


def read_space(space: str | Mapping[str, Any], spaces: Mapping[str, Space], name: str = OWN) -> Space:
    """One of `spaces` by its name, or a space that is written out, as YAML text or as a mapping.

    A name that is not there, text that is no YAML, and a space in which nothing fits are a one-line `ConfigError`."""
    if isinstance(space, str) and space in spaces:
        return spaces[space]
    try:
        tree = plain_yaml(space) if isinstance(space, str) else space
    except ValueError as error:
        raise ConfigError(f"space {name}: not YAML ({error})") from None
    if not tree:
        raise ConfigError(f"space {name} is empty: give a name of report/spaces.yaml, variables, or YAML text")
    if tree == OWN:
        raise ConfigError(f"there is no space {OWN} yet: run the cell in which it is written, and mend what it refuses")
    if isinstance(tree, str):
        raise ConfigError(f"there is no space {brief(tree)} in report/spaces.yaml: {way_to(tree, list(spaces))}")
    parsed = parse_space(name, tree)
    first, *others = sample(parsed, 0, 12).values
    if all(other == first for other in others):
        raise ConfigError(f"space {name}: all of its draws are one and the same; let a variable vary")
    return parsed


FEWEST_TRIALS = LEAST["live_draws"]  # that tell anything of each other; of draws, some may be the same network


def train_in_process(runs: Sequence[Run], store: Store, root: str | Path | None = None) -> list[Trial]:
    """The trials of runs, trained one after another in this process where missing, on one thread: for a few small
    runs, too small to share between threads and done before `local_backend.run_all` would have started its workers.

    One that diverges is recorded as failed. Raises `ConfigError` for fewer than `FEWEST_TRIALS` runs."""
    if len(runs) < FEWEST_TRIALS:
        raise ConfigError(
            f"{len(runs)} different networks, and {FEWEST_TRIALS} are the fewest to compare: give a larger n, or a"
            " space with more values"
        )
    threads, settings = torch.get_num_threads(), WorkerSettings(store, root, threads=1)

    def trained(bar: Progress) -> Iterator[tuple[Run, Record]]:
        for run in runs:
            yield run, store.load(work(run.config, False, settings))
            bar.advance()

    try:
        with Progress(len(runs), "draws") as bar:
            return completed_trials(trained(bar))
    finally:
        torch.set_num_threads(threads)


def same_draws(first: Sequence[Trial], second: Sequence[Trial]) -> list[tuple[Trial, Trial]]:
    """The trials of two searches that come from the same draw, in the first's order."""
    others = {trial.key: trial for trial in second}
    return [(trial, others[trial.key]) for trial in first if trial.key in others]


def accuracy_at(trial: Trial, epoch: float) -> float:
    """A trial's validation accuracy after the last of its epochs up to `epoch`, as if its schedule had been cut there.

    Chance where it failed."""
    if trial.record.failed:
        return CHANCE
    return _row_at(trial, epoch)["validation_accuracy"]


def rate_left_at(trial: Trial, epoch: float) -> float:
    """The learning rate of a trial at the last of its epochs up to `epoch`, as a part of its peak."""
    return _row_at(trial, epoch)["lr"] / trial.record.config.train.lr


def _row_at(trial: Trial, epoch: float) -> dict[str, float]:
    return [row for row in trial.record.history() if row["epoch"] <= epoch + 1e-6][-1]


def winners_range(values: ArrayLike, accuracy: ArrayLike, repeats: int = 2000) -> Estimate:
    """The values of a variable that winners have: their median, and the range of 95% of them; both lists are [N].

    Of a quarter of the trials, drawn with replacement, the best one's value is kept, `repeats` times (the empirical
    bootstrap of Radosavovic et al. 2020, arXiv 2003.13678, section 3). Without effect the range is nearly all that was
    drawn, so a value that lies in it need not be a good one: `among_the_best` asks for more."""
    x, y, rng = np.asarray(values, dtype=float), np.asarray(accuracy, dtype=float), np.random.default_rng(0)
    drawn = rng.integers(0, len(x), (repeats, max(2, round(len(x) / 4))))
    winners = x[np.take_along_axis(drawn, y[drawn].argmax(1)[:, None], 1)[:, 0]]
    low, middle, high = np.quantile(winners, [0.025, 0.5, 0.975])
    ends = float(low), float(high)
    return Estimate(float(middle), *ends, len(x), "trials", "bootstrap of winners", resampled=winners)


def nearest_against_random(values: ArrayLike, accuracy: ArrayLike, x: float, repeats: int = 2000) -> Estimate:
    """The median accuracy of the trials nearest to x, minus that of as many random trials.

    `values` [N] on the scale on which they were drawn (logarithms of a rate); the quarter of
    them whose value is nearest to x counts. The interval is that of a permutation test: as
    many trials are picked at random, `repeats` times. Where the variable has no effect, it
    lies above 0 in at most 2.5% of searches, whatever the distribution of the accuracies."""
    y = np.asarray(accuracy, dtype=float)
    distance = np.abs(np.asarray(values, dtype=float) - x)
    count = max(2, round(len(y) / 4))  # a quarter of the trials
    nearest = float(np.median(y[np.argsort(distance, kind="stable")[:count]]))
    shuffled = np.random.default_rng(0).permuted(np.tile(y, (repeats, 1)), axis=1)
    medians = np.median(shuffled[:, :count], axis=1)  # of as many random trials, [repeats]
    low, high = np.quantile(medians, [0.025, 0.975], method="inverted_cdf")
    gain, ends = nearest - float(np.median(medians)), (float(nearest - high), float(nearest - low))
    return Estimate(gain, *ends, len(y), "trials", "permutation", resampled=nearest - medians)


@dataclass(frozen=True)
class AmongTheBest:
    """Whether a value is among the best of a variable, with the two estimates that say so."""

    value: float
    nearest: Estimate  # median accuracy of the trials near it, minus that of random trials
    winners: Estimate  # the values that winners have

    @property
    def judged(self) -> tuple[Estimate, float]:
        """What is judged, and its smallest effect of interest: if winners have other values, how far these are from it
        (below 0); else by how much the trials near it beat random ones."""
        if self.winners.high < self.value:
            return self.winners.minus(self.value), 0.0
        if self.winners.low > self.value:
            return self.winners.taken_from(self.value), 0.0
        return self.nearest, stats.SMALLEST_EFFECT

    @property
    def decided_by(self) -> str:
        """What the verdict is made by, in words."""
        return "by the trials nearest to it" if self.judged[0] is self.nearest else "as winners have other values"

    @property
    def verdict(self) -> str:
        """The verdict on what is judged: it does not hold if winners have other values."""
        return stats.verdict(*self.judged)


def among_the_best(values: ArrayLike, accuracy: ArrayLike, x: float, repeats: int = 2000) -> AmongTheBest:
    """Whether x is among the best values of a variable: trials near x beat random ones, and x is in the winners' range.

    `values` [N] on the scale on which they were drawn, `accuracy` [N]. Unlike a look at the winners' range alone, this
    can fail: `rate_of_holds_without_effect` says how often it *holds* where the variable has no effect."""
    nearest = nearest_against_random(values, accuracy, x, repeats=repeats)
    return AmongTheBest(x, nearest, winners_range(values, accuracy, repeats=repeats))


def beside_tuned_sgd(experiment: str, store: Store) -> tuple[str, dict[str, list[Record]], list[Estimate]]:
    """How much more accurate the network of the study is in the runs of an experiment than with SGD at the best of its
    five rates: a sentence, the records by label, and the difference."""
    names = ("study_control", experiment)
    tuned, other = (group for name in names for group in groups_by_label(collect(name, store), name).values())
    first, train = tuned.config, other.config.train
    lead, name = other.lead_over(tuned), {"sgd": "SGD", "adamw": "AdamW"}.get(train.optimizer, train.optimizer.title())
    text = (
        f"Larger and longer ({tuned.parameters:,} parameters, {first.train.epochs:g} epochs of all images): {name} at"
        f" {train.lr:g} minus SGD at {first.train.lr:g}, the best of five rates: **{lead:points}**."
    )
    return text, {group.label: list(group.records) for group in (tuned, other)}, [lead]


def rate_of_holds_without_effect(values: ArrayLike, accuracy: ArrayLike, x: float, simulations: int = 400) -> Estimate:
    """How often `among_the_best` says *holds* where the variable has no effect: the accuracies change places at
    random among the trials [N], `simulations` times. A test at the 2.5% level says so in about 2.5% of them."""
    rng, y = np.random.default_rng(0), np.asarray(accuracy, dtype=float)
    tests = (among_the_best(values, rng.permutation(y), x, repeats=500) for _ in range(simulations))
    return stats.proportion(sum(test.verdict == stats.HOLDS for test in tests), simulations, "simulations")
