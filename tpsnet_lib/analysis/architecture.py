"""Comparisons of architectures: groups of runs that differ by seed, and what each design variable changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tpsnet_lib import stats
from tpsnet_lib.config import RunConfig
from tpsnet_lib.data.datasets import split
from tpsnet_lib.model_cost import count_macs, count_parameters
from tpsnet_lib.runs.experiments import Experiment, collect, experiment_names, load_experiment
from tpsnet_lib.runs.records import Record, Store
from tpsnet_lib.stats import Estimate

LARGE = 300_000  # parameters; networks of fewer are called small
LONG = 4_000  # steps; runs of fewer are called short

Array = NDArray[np.float64]
Key = tuple[str, str]  # the name of an experiment and the label of one of its runs


@dataclass(frozen=True)
class Group:
    """Runs of one network and recipe that differ by seed alone; some may not have been run yet."""

    label: str
    config: RunConfig
    records: tuple[Record, ...]
    declared: int  # runs asked for

    @property
    def values(self) -> dict[int, float]:
        """Validation accuracy by seed."""
        return {record.config.seed: float(record.metrics["validation_accuracy"]) for record in self.records}

    @property
    def accuracies(self) -> Array:
        """Validation accuracies [runs], in the order of their seeds."""
        return np.array([value for _, value in sorted(self.values.items())])

    @property
    def estimate(self) -> Estimate:
        """The mean validation accuracy over seeds, with its interval."""
        return stats.mean(self.accuracies)

    @property
    def parameters(self) -> int:
        """Parameters of the network."""
        return count_parameters(self.config.model)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image's forward pass."""
        return count_macs(self.config.model)


def shared_machine(groups: Iterable[Iterable[Record]]) -> str | None:
    """The hardware on which every group has runs, or None: runs of one kind of machine are compared with one another.

    Of several kinds it is the one on which the smallest group is largest."""
    counts = [Counter(record.hardware for record in records) for records in groups]
    kinds = set(counts[0]).intersection(*counts[1:]) if counts else set()
    return max(sorted(kinds), key=lambda kind: min(count[kind] for count in counts), default=None)


def gather(experiments: Iterable[Experiment], store: Store) -> dict[Key, Group]:
    """The groups of some experiments, by (experiment, label); runs that failed or are pending leave a gap."""
    found: dict[Key, Group] = {}
    for experiment in experiments:
        for run, record in collect(experiment, store):
            key = (experiment.name, run.label)
            group = found.get(key, Group(run.label, run.config, (), 0))
            done = (record,) if record is not None and not record.failed else ()
            found[key] = replace(group, records=(*group.records, *done), declared=group.declared + 1)
    return found


# What each design variable changes ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class DesignVariable:
    """A design variable: its levels, each with the label of its runs, and what is expected of them beforehand.

    `pairs`: (expected to be better, expected to be worse), as the original or the field has it."""

    symbol: str
    name: str
    labels: Mapping[str, str]
    pairs: tuple[tuple[str, str], ...]


_DEPTHS = (("B=1", "B=3"), ("B=3", "B=5"))
_SKIPS = tuple((f"B={blocks}", f"B={blocks}, plain") for blocks in (1, 3, 5))
_SMALL_SKIPS = {level: " ".join(reversed(level.split(", "))) for pair in _SKIPS for level in pair}
_PAIRED = tuple(level for pair in _SKIPS for level in pair)
_NAMES = {"N": "residual layers", "B": "blocks a layer", "w": "width", "F": "kernel", "K": "skip kernel"}


def _variable(symbol: str, labels: Mapping[str, str], *pairs: tuple[str, str]) -> DesignVariable:
    return DesignVariable(symbol, {**_NAMES, "P": "pool", "skips": "residual or plain"}[symbol], labels, pairs)


def _same(*levels: str) -> dict[str, str]:
    return {level: level for level in levels}


STUDY = {  # at 310,000 parameters: labels of the experiments `study_*`
    variable.symbol: variable
    for variable in (
        _variable("N", {"N=2": "N=2", "N=3": "B=1", "N=4": "N=4"}, ("N=3", "N=2"), ("N=3", "N=4")),
        _variable("B", _same("B=1", "B=2", "B=3", "B=4", "B=5", "B=6"), *_DEPTHS),
        _variable("w", {"w=16": "B=1", "w=23": "B=1, wide"}, ("w=23", "w=16")),
        _variable("F", {"F=1": "F=1", "F=3": "B=1", "F=5": "F=5"}, ("F=3", "F=1"), ("F=3", "F=5")),
        _variable("K", {"K=1": "B=1", "K=3": "K=3"}, ("K=3", "K=1")),
        _variable("skips", _same(*_PAIRED), *_SKIPS),
    )
}
_CONTROL = "N=3"  # one block a layer: the network of this label has the most seeds
SMALL = {  # at 77,000 parameters: labels of the experiments `effects_*`
    variable.symbol: variable
    for variable in (
        _variable("N", _same("N=2", "N=3", "N=4"), ("N=3", "N=2"), ("N=3", "N=4")),
        _variable("B", _same("B=1", "B=2", "B=3", "B=4", "B=5") | {"B=1": _CONTROL}, *_DEPTHS),
        _variable("w", _same("w=4", "w=8", "w=12"), ("w=8", "w=4"), ("w=12", "w=8")),
        _variable("F", {"F=1": "F=1", "F=3": _CONTROL, "F=5": "F=5"}, ("F=3", "F=1"), ("F=3", "F=5")),
        _variable("K", {"K=1": _CONTROL, "K=3": "K=3"}, ("K=3", "K=1")),
        _variable("P", {"P=3": "P=3", "P=5": "P=5", "P=8": _CONTROL}, ("P=8", "P=5"), ("P=8", "P=3")),
        _variable("skips", {**_SMALL_SKIPS, "B=1": _CONTROL}, *_SKIPS),
    )
}
EQUAL_MACS = "N at equal MACs"
SMALL_EXPERIMENTS = tuple(
    f"effects_{name}" for name in ("blocks", "layers", "width", "kernels", "skip_kernels", "pool", "plain")
)


def design_variables(store: Store) -> dict[str, tuple[DesignVariable, list[Group]]]:
    """Each design variable with one group of runs for each of its levels, by symbol.

    The runs are those of the study at 310,000 parameters for a variable of which each level has two or more records
    there, else those of the small, short runs. Layers at equal MACs come last: small, short runs too."""
    study = _experiments(name for name in experiment_names() if name.startswith("study_") and name != "study_rates")
    small, found = _experiments(SMALL_EXPERIMENTS), {}
    studied, smaller_ones = gather(study, store), gather(small, store)
    for symbol, variable in SMALL.items():
        groups = _levels(STUDY[symbol], studied) if symbol in STUDY else []
        enough = bool(groups) and all(len(group.records) > 1 for group in groups)
        found[symbol] = (STUDY[symbol], groups) if enough else (variable, _levels(variable, smaller_ones))
    layers = replace(SMALL["N"], symbol=EQUAL_MACS)
    at_equal_macs = smaller_ones | gather(_experiments(["effects_layers_macs"]), store)  # its N=2 and N=4 come last
    return found | {EQUAL_MACS: (layers, _levels(layers, at_equal_macs))}


def small_networks(store: Store) -> list[Group]:
    """The networks of the small, short runs that have records, one group a network, all under one recipe."""
    groups = gather(_experiments(SMALL_EXPERIMENTS), store).values()
    recorded = sorted((group for group in groups if group.records), key=lambda group: len(group.records))
    return list({group.config.model: group for group in recorded}.values())


def _experiments(names: Iterable[str]) -> list[Experiment]:
    return [load_experiment(name) for name in sorted(names)]


def _levels(variable: DesignVariable, groups: Mapping[Key, Group]) -> list[Group]:
    """The groups of a variable's levels, under the levels' names; empty if the runs of one level are not declared.

    Where all levels have runs on one kind of machine, those alone are taken."""
    by_label = {label: group for (_, label), group in groups.items()}  # of two with one label, the later one
    if any(label not in by_label for label in variable.labels.values()):
        return []
    levels = [replace(by_label[label], label=level) for level, label in variable.labels.items()]
    machine = shared_machine(group.records for group in levels)
    if machine is None:
        return levels
    return [replace(g, records=tuple(r for r in g.records if r.hardware == machine)) for g in levels]


def difference(better: Group, worse: Group) -> Estimate:
    """By how much the first group is more accurate; paired by seed only if both have the same seeds and it helps."""
    return stats.difference_by_seed(better.values, worse.values)


def describe_budget(groups: Iterable[Group]) -> str:
    """How large the networks of some groups are and how long they were trained, as `describe_runs` has it."""
    return describe_runs([group.config for group in groups])


def describe_runs(configs: Sequence[RunConfig]) -> str:
    """The size of networks and the length of their runs: `77,000 parameters, 312 steps (4 epochs of 10,000 images)`.

    Networks under 300,000 parameters and runs under 4,000 steps are called so first: "in small, short runs: "."""
    if not configs:
        return "no runs"
    sizes = [count_parameters(config.model) for config in configs]
    images = [config.data.train_size or len(split(config.data.dataset)[0]) for config in configs]
    recipes = [config.train for config in configs]
    steps = [round(train.epochs * n / train.batch_size) for train, n in zip(recipes, images, strict=True)]
    adjectives = [*(["small"] if min(sizes) < LARGE else []), *(["short"] if min(steps) < LONG else [])]
    lead = f"in {', '.join(adjectives)} runs: " if adjectives else ""
    names = sorted({config.data.dataset for config in configs} - {"cifar10"})
    pictures = " ".join(["images", *(f"of {name}" for name in names)])
    epochs = f"{_span([train.epochs for train in recipes])} epochs of {_span(images)} {pictures}"
    return f"{lead}{_span([round(size, -3) for size in sizes])} parameters, {_span(steps)} steps ({epochs})"


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:,.7g}" if low == high else f"{low:,.7g} to {high:,.7g}"
