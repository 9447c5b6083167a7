"""What each design variable changes: its levels, the runs of each, and the budget of those runs in words."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from tpsnet_lib.analysis.groups import Group, groups_by_label, on_shared_machines
from tpsnet_lib.config import RunConfig
from tpsnet_lib.data.batches import run_steps
from tpsnet_lib.data.datasets import image_counts
from tpsnet_lib.model_cost import count_parameters
from tpsnet_lib.runs.experiments import collect, experiment_names
from tpsnet_lib.runs.records import Store

LARGE = 300_000  # parameters; networks of fewer are called small
LONG = 4_000  # steps; runs of fewer are called short


@dataclass(frozen=True)
class DesignVariable:
    """A design variable: its levels, each with the label of its runs, and what is expected of them beforehand.

    `pairs`: (expected to be better, expected to be worse), as the original or the field has it."""

    symbol: str
    name: str
    labels: Mapping[str, str]
    pairs: tuple[tuple[str, str], ...]


_LAYERS = (("N=3", "N=2"), ("N=3", "N=4"))
_SKIPS = tuple((f"B={blocks}", f"B={blocks}, plain") for blocks in (1, 3, 5))
EQUAL_MACS, THREE_BLOCKS = "N at equal MACs", "w at three blocks"  # of which no panel is drawn
_NAMES = {
    "N": "residual layers",
    EQUAL_MACS: "residual layers",
    "B": "blocks a layer",
    "w": "width",
    THREE_BLOCKS: "width",
    "F": "kernel",
    "K": "skip kernel",
    "P": "pool",
    "skips": "residual or plain",
}


def _variable(symbol: str, labels: Mapping[str, str], *pairs: tuple[str, str]) -> DesignVariable:
    return DesignVariable(symbol, _NAMES[symbol], labels, pairs)


def _same(*levels: str) -> dict[str, str]:
    return {level: level for level in levels}


DESIGN_VARIABLES = {  # at 310,000 parameters: labels of the experiments `study_*`
    variable.symbol: variable
    for variable in (
        _variable("N", {"N=2": "N=2", "N=3": "B=1", "N=4": "N=4"}, *_LAYERS),
        _variable("B", _same("B=1", "B=2", "B=3", "B=4", "B=5", "B=6"), ("B=1", "B=3"), ("B=3", "B=5")),
        _variable("w", {"w=16": "B=1", "w=23": "B=1, wide"}, ("w=23", "w=16")),
        _variable("F", {"F=1": "F=1", "F=3": "B=1", "F=5": "F=5"}, ("F=3", "F=1"), ("F=3", "F=5")),
        _variable("K", {"K=1": "B=1", "K=3": "K=3"}, ("K=3", "K=1")),
        _variable("P", {"P=3": "P=3", "P=5": "P=5", "P=8": "B=1"}, ("P=8", "P=5"), ("P=8", "P=3")),
        _variable("skips", _same(*(level for pair in _SKIPS for level in pair)), *_SKIPS),
        _variable(EQUAL_MACS, {"N=2": "N=2, MACs", "N=3": "B=1", "N=4": "N=4, MACs"}, *_LAYERS),
        _variable(THREE_BLOCKS, {"w=9": "B=3", "w=12": "B=3, wide"}, ("w=12", "w=9")),
    )
}
SMALL_EXPERIMENTS = tuple(
    f"effects_{name}" for name in ("blocks", "layers", "width", "kernels", "skip_kernels", "pool", "plain")
)


def design_variables(store: Store) -> dict[str, tuple[DesignVariable, list[Group]]]:
    """Each design variable with one group of runs of the study for each of its levels, by symbol.

    Where all levels have runs on the same kinds of machine, those alone are taken."""
    names = [name for name in experiment_names() if name.startswith("study_") and not name.startswith("study_rates")]
    first_seeds = [name for name in names if not name.endswith("_again")]  # later seeds are for the table of claims
    groups, found = _by_label(first_seeds, store), {}
    for symbol, variable in DESIGN_VARIABLES.items():
        levels = [replace(groups[label], label=level) for level, label in variable.labels.items()]
        found[symbol] = variable, on_shared_machines(levels)
    return found


def small_networks(store: Store) -> list[Group]:
    """The networks of the small, short runs that have records, one group a network, all under one recipe."""
    groups = _by_label(SMALL_EXPERIMENTS, store).values()
    recorded = sorted((group for group in groups if group.records), key=lambda group: len(group.records))
    return list({group.config.model: group for group in recorded}.values())


def _by_label(experiments: Iterable[str], store: Store) -> dict[str, Group]:
    """The groups of several experiments, no two of which have a label in common."""
    found: dict[str, Group] = {}
    for name in sorted(experiments):
        found |= groups_by_label(collect(name, store), name)
    return found


class Budget(NamedTuple):
    """What some runs are, in words; as a text `in small, short runs: 77,000 parameters, 312 steps (4 epochs ...)`."""

    kind: str  # small: under 300,000 parameters (partly: some are); short: under 4,000 steps; empty if neither is true
    sizes: str  # parameters, to a thousand
    length: str

    def __str__(self) -> str:
        kind = f"{self.kind}: " if self.kind else ""
        return f"{kind}{self.sizes} parameters, {self.length}" if self.sizes else "no runs"


def budget(groups: Sequence[Group]) -> Budget:
    """The size of the groups' networks and the length of their runs."""
    configs = [config for group in groups for config in group.configs]
    if not configs:
        return Budget("", "", "")
    sizes = [count_parameters(config.model) for config in configs]
    lengths = [steps(config) for config in configs]
    adjectives = ["small" if max(sizes) < LARGE else "partly small"] if min(sizes) < LARGE else []
    adjectives += ["short"] if min(lengths) < LONG else []
    return Budget(
        f"in {', '.join(adjectives)} runs" if adjectives else "",
        _span([round(size, -3) for size in sizes]),
        f"{_span(lengths)} steps ({describe_length(groups)})",
    )


def describe_length(groups: Iterable[Group]) -> str:
    """The length of the groups' runs: `4 epochs of 10,000 images`."""
    configs = [config for group in groups for config in group.configs]
    images = _span([image_counts(config.data)[0] for config in configs])
    names = sorted({config.data.dataset for config in configs} - {"cifar10"})
    pictures = " ".join(["images", *(f"of {name}" for name in names)])
    return f"{_span([config.train.epochs for config in configs])} epochs of {images} {pictures}"


def largest_run(groups: Iterable[Group]) -> tuple[int, int]:
    """The parameters of the largest network, to a thousand as in `budget`, and the steps of the longest run; 0 and
    0 without runs."""
    configs = [config for group in groups for config in group.configs]
    sizes = [round(count_parameters(config.model), -3) for config in configs]
    return max(sizes, default=0), max(map(steps, configs), default=0)


def steps(config: RunConfig) -> int:
    """The updates of a whole run: each epoch leaves out the last batch if it is not full."""
    return run_steps(config.train, image_counts(config.data)[0])


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:,.7g}" if low == high else f"{low:,.7g} to {high:,.7g}"
