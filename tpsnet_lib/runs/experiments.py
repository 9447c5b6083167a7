"""Experiments: questions as YAML, the runs that answer them, their records, and the runs that are still pending."""

import contextlib
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from tpsnet_lib.config import RunConfig
from tpsnet_lib.config_fields import Checked, from_mapping, option
from tpsnet_lib.config_parsing import merged, parse
from tpsnet_lib.errors import ConfigError, brief, way_to
from tpsnet_lib.files import project_root
from tpsnet_lib.model_cost import check_budget
from tpsnet_lib.old_words import current_word
from tpsnet_lib.plain_yaml import read_yaml
from tpsnet_lib.runs.records import Record, Store
from tpsnet_lib.runs.search_space import MAX_DRAWS, Draws, load_spaces, sample, spaces_file

MAX_RUNS = 10_000  # of an experiment


@dataclass(frozen=True, kw_only=True)
class ExperimentFields(Checked):
    """What an experiment's file says of all its runs."""

    question: str = option("")
    needs: str = option("cpu", choices=("cpu", "gpu"))
    priority: int = option(100)  # lower runs first
    minutes: float = option(1.0, 0, 1e6)  # expected for one run on what it needs
    final: bool = option(False)  # its records may be opened on the test set
    weights: bool = option(False)  # its records keep their weights


@dataclass(frozen=True, kw_only=True)
class ExperimentFile(ExperimentFields):
    """The fields of an experiment's file."""

    base: dict[str, Any] = option({})  # of every run
    runs: list[Mapping[str, Any]] = option([{}])  # what each varies, and its label
    grid: dict[str, list[Any]] = option({})  # values that every run is crossed with
    search: dict[str, Any] = option({})  # or a `Search` in place of both
    seeds: list[int] = option([0])

    def __post_init__(self) -> None:
        super().__post_init__()
        for run in self.runs:
            if not isinstance(run, dict):
                raise ConfigError(f"runs holds {brief(run)}: give mappings")
        for name, values in (*self.grid.items(), ("runs", self.runs), ("seeds", self.seeds)):
            if not isinstance(values, list) or not values:
                raise ConfigError(f"{brief(name)} is {brief(values)}: give a list with content")
        if (count := len(self.runs) * len(self.seeds) * math.prod(map(len, self.grid.values()))) > MAX_RUNS:
            raise ConfigError(f"these are {count:,} runs: give at most {MAX_RUNS:,}")


@dataclass(frozen=True)
class Search(Checked):
    """A random search: so many draws of a space of `report/spaces.yaml`."""

    section = "search"

    space: str = option("")
    draws: int = option(0, 1, MAX_DRAWS)  # 0: not given
    seed: int = option(0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.draws:
            raise ConfigError(f"search.draws is 0: give a value from 1 to {MAX_DRAWS}")


@dataclass(frozen=True)
class Run:
    """One run of an experiment: its label, its config, and what it varies."""

    label: str
    config: RunConfig
    factors: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Experiment(ExperimentFields):
    """A question and the runs that answer it."""

    name: str = option("")
    runs: list[Run] = option([])

    @property
    def is_check(self) -> bool:
        """Whether it checks that things work and answers nothing, so that the report leaves it out."""
        return self.priority >= 1000


def experiments_folder() -> Path:
    """Where experiments are declared."""
    return project_root() / "report" / "experiments"


def experiment_names() -> list[str]:
    """The names of all declared experiments, sorted."""
    return sorted(path.stem for path in experiments_folder().glob("*.yaml"))


def load_experiment(name: str | Path) -> Experiment:
    """An experiment by its name in `report/experiments`, or by the path of its YAML file.

    Raises `ConfigError` for a field that is not known, a config that is not valid, or a network over the budget."""
    if str(name).endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise ConfigError(f"{path} is {'no file' if path.exists() else 'missing'}")
    elif not (path := experiments_folder() / f"{name}.yaml").is_file():
        path = path.with_stem(current_word("name", path.stem, experiment_names()))
    if not path.is_file():
        raise ConfigError(f"no experiment {name or 'without a name'}: {way_to(str(name), experiment_names())}")
    return _load(path, *(file.stat().st_mtime_ns for file in (path, spaces_file()) if file.is_file()))


@functools.lru_cache(maxsize=256)
def _load(path: Path, *modified: int) -> Experiment:
    tree = read_yaml(path)
    try:
        declared = from_mapping(ExperimentFile, {"weights": tree.get("final", False), **tree})
        runs = _runs(path.stem, declared, _search_draws(declared))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    head = {spec.name: getattr(declared, spec.name) for spec in fields(ExperimentFields)}
    return Experiment(name=path.stem, runs=runs, **head)


def all_experiments(faults: list[str] | None = None) -> list[Experiment]:
    """Every declared experiment, by priority. A file that cannot be read breaks none of the others: what is wrong with
    it is added to `faults`; without such a list it is raised, as `ConfigError`."""
    experiments = []
    for name in experiment_names():
        try:
            experiments.append(load_experiment(name))
        except ConfigError as error:
            if faults is None:
                raise
            faults.append(str(error))
    return sorted(experiments, key=lambda experiment: (experiment.priority, experiment.name))


def _search_draws(declared: ExperimentFile) -> Draws | None:
    if not declared.search:
        return None
    search, spaces = from_mapping(Search, declared.search), load_spaces()
    if search.space not in spaces:
        raise ConfigError(f"search.space is {brief(search.space)}: known are {', '.join(spaces)}")
    return sample(spaces[search.space], search.seed, search.draws, declared.base)


def _runs(name: str, declared: ExperimentFile, draws: Draws | None) -> list[Run]:
    if draws is not None:
        drawn = enumerate(zip(draws.configs, draws.values, strict=True))
        runs = [Run(f"draw {index}", config, values) for index, (config, values) in drawn]
    else:
        pairs = _crossed(declared.runs, declared.grid)
        runs = [Run(label or name, parse(merged(declared.base, factors)), factors) for label, factors in pairs]
    seeded = [Run(run.label, run.config.with_seed(seed), run.factors) for run in runs for seed in declared.seeds]
    for run in seeded:
        check_budget(run.config.model)
    if any(run.config.seed for run in runs):
        raise ConfigError("a run or the base has a seed of its own: `seeds` lists those of all runs")
    return seeded


def _crossed(runs: Sequence[Mapping[str, Any]], grid: Mapping[str, Sequence[Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Each of `runs` with each point of `grid`, as its label and its factors; a run without a label of its own is named
    by its factors. A grid without variables is one point, which changes nothing."""
    crossed = []
    for run, values in itertools.product(runs, itertools.product(*grid.values())):
        point = dict(zip(grid, values, strict=True))
        factors = {key: value for key, value in run.items() if key != "label"}
        given, named = ([str(run["label"])], point) if "label" in run else ([], {**factors, **point})
        label = ", ".join([*given, *(f"{key}={value}" for key, value in named.items())])
        crossed.append((label, merged(factors, point) if factors and point else {**factors, **point}))
    return crossed


def find_record(run: Run, store: Store) -> Record | None:
    """A run's record; where its precision is left to the machine, of either precision, bf16 first."""
    for run_id in run.config.possible_ids:
        if (record := store.find(run_id)) is not None:
            return record
    return None


def collect(experiment: Experiment | str, store: Store) -> list[tuple[Run, Record | None]]:
    """Each run of an experiment, or of one known by its name, with its record, or None where it has not been run."""
    experiment = load_experiment(experiment) if isinstance(experiment, str) else experiment
    return [(run, find_record(run, store)) for run in experiment.runs]


def final_ids() -> dict[str, str]:
    """The ids that may be opened on the test set, with the experiment that declares each `final`."""
    names: dict[str, str] = {}
    for experiment in final_experiments():
        for run in experiment.runs:
            names |= dict.fromkeys(run.config.possible_ids, experiment.name)
    return names


def final_experiments() -> list[Experiment]:
    """The experiments that are declared `final`; a file that cannot be read declares nothing."""
    experiments = []
    for name in experiment_names():
        with contextlib.suppress(ConfigError):
            if read_yaml(experiments_folder() / f"{name}.yaml").get("final"):  # the others may take seconds to load
                experiments.append(load_experiment(name))
    return experiments


class Job(NamedTuple):
    """A run of an experiment that is to be trained."""

    experiment: Experiment
    run: Run

    @property
    def name(self) -> str:
        """The job in words."""
        return f"{self.experiment.name}, {self.run.label}, seed {self.run.config.seed}"


def pending(experiments: Sequence[Experiment], store: Store) -> list[Job]:
    """The runs that have no record, in the order of their experiments."""
    return [Job(e, run) for e in experiments for run, record in collect(e, store) if record is None]
