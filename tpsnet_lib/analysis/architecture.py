"""What each design variable changes: its levels, the runs of each, and the budget of those runs in words."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from tpsnet_lib import stats
from tpsnet_lib.analysis.groups import Group, groups_by_label, on_shared_machines
from tpsnet_lib.config import RunConfig
from tpsnet_lib.data.batches import run_steps
from tpsnet_lib.data.datasets import image_counts
from tpsnet_lib.model_cost import count_parameters
from tpsnet_lib.runs.experiments import collect, experiment_names
from tpsnet_lib.runs.records import Store
from tpsnet_lib.stats import Estimate

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
_DEPTHS = (("B=1", "B=3"), ("B=3", "B=5"))
_SKIPS = tuple((f"B={blocks}", f"B={blocks}, plain") for blocks in (1, 3, 5))
_PAIRED = tuple(level for pair in _SKIPS for level in pair)
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


STUDY = {  # at 310,000 parameters: labels of the experiments `study_*`
    variable.symbol: variable
    for variable in (
        _variable("N", {"N=2": "N=2", "N=3": "B=1", "N=4": "N=4"}, *_LAYERS),
        _variable(EQUAL_MACS, {"N=2": "N=2, MACs", "N=3": "B=1", "N=4": "N=4, MACs"}, *_LAYERS),
        _variable("B", _same("B=1", "B=2", "B=3", "B=4", "B=5", "B=6"), *_DEPTHS),
        _variable("w", {"w=16": "B=1", "w=23": "B=1, wide"}, ("w=23", "w=16")),
        _variable(THREE_BLOCKS, {"w=9": "B=3", "w=12": "B=3, wide"}, ("w=12", "w=9")),
        _variable("F", {"F=1": "F=1", "F=3": "B=1", "F=5": "F=5"}, ("F=3", "F=1"), ("F=3", "F=5")),
        _variable("K", {"K=1": "B=1", "K=3": "K=3"}, ("K=3", "K=1")),
        _variable("P", {"P=3": "P=3", "P=5": "P=5", "P=8": "B=1"}, ("P=8", "P=5"), ("P=8", "P=3")),
        _variable("skips", _same(*_PAIRED), *_SKIPS),
    )
}
_CONTROL = "N=3"  # one block a layer: the network of this label has the most seeds
_SMALL_SKIPS = {
    "B=1": _CONTROL,
    "B=1, plain": "plain B=1",
    "B=3": "B=3",
    "B=3, plain": "plain B=3",
    "B=5": "B=5",
    "B=5, plain": "plain B=5",
}
SMALL = {  # at 77,000 parameters: labels of the experiments `effects_*`
    variable.symbol: variable
    for variable in (
        _variable("N", _same("N=2", "N=3", "N=4"), *_LAYERS),
        _variable("B", _same("B=1", "B=2", "B=3", "B=4", "B=5") | {"B=1": _CONTROL}, *_DEPTHS),
        _variable("w", _same("w=4", "w=8", "w=12"), ("w=8", "w=4"), ("w=12", "w=8")),
        _variable("F", {"F=1": "F=1", "F=3": _CONTROL, "F=5": "F=5"}, ("F=3", "F=1"), ("F=3", "F=5")),
        _variable("K", {"K=1": _CONTROL, "K=3": "K=3"}, ("K=3", "K=1")),
        _variable("P", {"P=3": "P=3", "P=5": "P=5", "P=8": _CONTROL}, ("P=8", "P=5"), ("P=8", "P=3")),
        _variable("skips", _SMALL_SKIPS, *_SKIPS),
    )
}
SMALL_EXPERIMENTS = tuple(
    f"effects_{name}" for name in ("blocks", "layers", "width", "kernels", "skip_kernels", "pool", "plain")
)


def design_variables(store: Store) -> dict[str, tuple[DesignVariable, list[Group]]]:
    """Each design variable with one group of runs for each of its levels, by symbol.

    The runs are those of the study at 310,000 parameters for a variable of which all runs of a pair are done there,
    with the levels of such pairs; else those of the small, short runs, if they have the variable."""
    names = [name for name in experiment_names() if name.startswith("study_") and not name.startswith("study_rates")]
    study = [name for name in names if not name.endswith("_again")]  # a second look is for the table of claims
    studied, small = _by_label(study, store), _by_label(SMALL_EXPERIMENTS, store)
    declared = {symbol: (variable, small) for symbol, variable in SMALL.items()}
    at_equal_macs = small | _by_label(["effects_layers_macs"], store)  # its N=2 and N=4 take the others' place
    declared[EQUAL_MACS] = replace(SMALL["N"], symbol=EQUAL_MACS), at_equal_macs
    variables = {symbol: (variable, _levels(variable, groups)) for symbol, (variable, groups) in declared.items()}
    done = {symbol: _done(variable, studied) for symbol, variable in STUDY.items()}
    return variables | {symbol: (each, _levels(each, studied)) for symbol, each in done.items() if each is not None}


def _done(variable: DesignVariable, groups: Mapping[str, Group]) -> DesignVariable | None:
    """A variable with those of its pairs of which all runs are done, and without the levels of others; None without
    such a pair."""
    whole = {level for level, label in variable.labels.items() if label in groups and not groups[label].missing}
    pairs = tuple(pair for pair in variable.pairs if whole.issuperset(pair))
    kept = whole - {level for pair in variable.pairs for level in pair} | {level for pair in pairs for level in pair}
    labels = {level: label for level, label in variable.labels.items() if level in kept}
    return replace(variable, labels=labels, pairs=pairs) if pairs else None


def lead(better: Group, worse: Group, small: Iterable[Group]) -> Estimate:
    """By how much some runs are more accurate: those of the study by their own spread (Welch), small, short ones by
    that of all `small_networks` with skips, pooled, since three seeds say little of their own."""
    if better.experiment.startswith("study_"):
        return better.lead_over(worse)
    sd, freedom = stats.pooled_sd([group.accuracies for group in small if group.config.model.residual])
    return stats.pooled_difference(better.accuracies, worse.accuracies, sd, freedom)


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


def _levels(variable: DesignVariable, groups: Mapping[str, Group]) -> list[Group]:
    """The groups of a variable's levels, under the levels' names; empty if the runs of one level are not declared.

    Where all levels have runs on the same kinds of machine, those alone are taken."""
    if any(label not in groups for label in variable.labels.values()):
        return []
    return on_shared_machines([replace(groups[label], label=level) for level, label in variable.labels.items()])


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
