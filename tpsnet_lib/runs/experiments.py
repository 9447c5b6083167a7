"""Experiments: what is asked, as YAML; the runs that answer it, their records, and what is still pending."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpsnet_lib.config import RunConfig, merged, parse, read_yaml
from tpsnet_lib.files import ConfigError, project_root
from tpsnet_lib.model_cost import check_budget
from tpsnet_lib.runs.records import Record, Store, default_store
from tpsnet_lib.runs.search_space import Draws, load_spaces, sample, spaces_file

_FIELDS = {"question", "needs", "priority", "minutes", "final", "weights", "base", "runs", "grid", "search", "seeds"}


@dataclass(frozen=True)
class Run:
    """One run of an experiment: its label, its config, and what it varies."""

    label: str
    config: RunConfig
    factors: Mapping[str, Any]


@dataclass(frozen=True)
class Experiment:
    """A question and the runs that answer it."""

    name: str
    question: str
    needs: str  # cpu or gpu
    priority: int  # lower runs first
    minutes: float  # expected for one run on what it needs
    final: bool  # its records may be opened on the test set
    weights: bool  # its records keep their weights
    runs: list[Run]
    draws: Draws | None = None  # of a search

    @property
    def is_check(self) -> bool:
        """Whether it checks that things work and answers nothing, so that the report leaves it out."""
        return self.priority >= 1000


def experiments_folder() -> Path:
    """Where experiments are declared."""
    return project_root() / "report" / "experiments"


def load_experiment(name: str | Path) -> Experiment:
    """An experiment by its name in `report/experiments`, or by the path of its YAML file.

    Raises `ConfigError` for a field that is not known, a config that is not valid, or a network over the budget."""
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else experiments_folder() / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in experiments_folder().glob("*.yaml")))
        raise ConfigError(f"no experiment {name}: known are {known or 'none'}")
    return _load(path, *(file.stat().st_mtime_ns for file in (path, spaces_file()) if file.is_file()))


@functools.lru_cache(maxsize=256)
def _load(path: Path, *modified: int) -> Experiment:
    tree = read_yaml(path)
    if unknown := set(tree) - _FIELDS:
        raise ConfigError(f"{path}: {sorted(unknown)[0]} is not a field: known are {', '.join(sorted(_FIELDS))}")
    if tree.get("needs", "cpu") not in ("cpu", "gpu"):
        raise ConfigError(f"{path}: needs is {tree['needs']!r}: give cpu or gpu")
    draws = _search_draws(tree)
    return Experiment(
        name=path.stem,
        question=str(tree.get("question", "")),
        needs=str(tree.get("needs", "cpu")),
        priority=int(tree.get("priority", 100)),
        minutes=float(tree.get("minutes", 1)),
        final=bool(tree.get("final", False)),
        weights=bool(tree.get("weights", tree.get("final", False))),
        runs=_runs(path, tree, draws),
        draws=draws,
    )


def all_experiments() -> list[Experiment]:
    """Every declared experiment, by priority."""
    found = [load_experiment(path) for path in sorted(experiments_folder().glob("*.yaml"))]
    return sorted(found, key=lambda experiment: (experiment.priority, experiment.name))


def _search_draws(tree: Mapping[str, Any]) -> Draws | None:
    if not (search := tree.get("search")):
        return None
    spaces = load_spaces()
    if search.get("space") not in spaces:
        raise ConfigError(f"search.space is {search.get('space')!r}: known are {', '.join(spaces)}")
    return sample(spaces[search["space"]], int(search.get("seed", 0)), int(search["draws"]), tree.get("base", {}))


def _runs(path: Path, tree: Mapping[str, Any], draws: Draws | None) -> list[Run]:
    base, seeds = tree.get("base", {}), tree.get("seeds", [0])
    if draws is not None:
        pairs = zip(draws.configs, draws.values, strict=True)
        runs = [Run(f"draw {index}", config, values) for index, (config, values) in enumerate(pairs)]
    else:
        runs = []
        for given in _crossed(tree.get("runs", []), _grid(tree.get("grid", {}))):
            factors = {key: value for key, value in given.items() if key != "label"}
            label = str(given.get("label", ", ".join(f"{key}={value}" for key, value in factors.items()) or path.stem))
            runs.append(Run(label, parse(merged(base, factors)), factors))
    seeded = [Run(run.label, run.config.with_seed(seed), run.factors) for run in runs for seed in seeds]
    for run in seeded:
        check_budget(run.config.model)
    return seeded


def _crossed(runs: Sequence[Mapping[str, Any]], grid: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each of `runs` with each point of `grid`; where one of the two is empty, the other alone."""
    crossed = []
    for run, point in itertools.product(runs or [{}], grid or [{}]):
        factors = merged(run, point) if run and point else {**run, **point}
        named = [str(run["label"])] if "label" in run else []
        label = ", ".join([*named, *(f"{key}={value}" for key, value in point.items())])
        crossed.append({**factors, "label": label} if label else factors)
    return crossed


def _grid(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    if not grid:
        return []
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def find_record(run: Run, store: Store) -> Record | None:
    """A run's record; where its precision is left to the machine, of either precision, bf16 first."""
    for precision in ("bf16", "fp32"):
        if (record := store.find(run.config.with_precision(precision).id)) is not None:
            return record
    return None


def collect(experiment: Experiment, store: Store | None = None) -> list[tuple[Run, Record | None]]:
    """Each run of an experiment with its record, or None where it has not been run."""
    store = store or default_store()
    return [(run, find_record(run, store)) for run in experiment.runs]


def final_ids() -> dict[str, str]:
    """The ids that may be opened on the test set, with the experiment that declares each `final`."""
    declared = [path for path in sorted(experiments_folder().glob("*.yaml")) if read_yaml(path).get("final")]
    return {
        run.config.with_precision(precision).id: path.stem
        for path in declared
        for run in load_experiment(path).runs
        for precision in ("bf16", "fp32")
    }


def pending(experiments: Sequence[Experiment], store: Store | None = None) -> list[tuple[Experiment, Run]]:
    """The runs that have no record, in the order of their experiments."""
    store = store or default_store()
    return [(e, run) for e in experiments for run, record in collect(e, store) if record is None]
