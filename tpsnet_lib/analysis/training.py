"""The final training's numbers: what each ingredient of a recipe brings, and what a seed changes."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from typing import Any

import torch

from tpsnet_lib import optim, stats
from tpsnet_lib.analysis import recipe_glossary
from tpsnet_lib.analysis.final_runs import Final
from tpsnet_lib.analysis.groups import Group, Pairs, by_machine, groups_by_label
from tpsnet_lib.config import RunConfig
from tpsnet_lib.model import ResNet, build
from tpsnet_lib.model_cost import count_parameters
from tpsnet_lib.runs.experiments import load_experiment
from tpsnet_lib.stats import Estimate

SMALLEST_GAIN = 0.001  # of test accuracy over a published network that would matter: a tenth of a point


def start(config: RunConfig) -> tuple[ResNet, torch.optim.Optimizer]:
    """The network of a run with its first weights, which its seed draws, and its optimizer."""
    torch.manual_seed(config.seed)
    network = build(config.model)
    return network, optim.optimizer(network, config.train)


ABLATIONS = {"card_broad": "ablation_broad", "two_cores": "ablation"}  # a final recipe: what tries its ingredients
EQUAL_SIZE = 0.03  # the most that networks called equal differ in parameters, as a fraction


def scaled(recipe: str, run: RunConfig) -> str:
    """The settings of a final recipe that its ablation scales to shorter runs, in words, such as `lr 0.1 (0.2)`."""
    whole = load_experiment(recipe).runs[0].config.train
    names = [spec.name for spec in fields(whole) if type(spec.default) in (int, float) and spec.name != "epochs"]
    pairs = [(name, getattr(run.train, name), getattr(whole, name)) for name in names]
    return ", ".join(f"{name.replace('_', ' ')} {here:g} ({there:g})" for name, here, there in pairs if here != there)


@dataclass(frozen=True)
class AblationRow:
    """A row of an ablation: the whole recipe without one ingredient.

    `brings` is the accuracy of the whole recipe minus that of this row, as a fraction: what the ingredient brings, more
    than 0 if it earns its place. It has no seeds for the whole recipe itself."""

    group: Group
    brings: Estimate
    ingredients: tuple[str, ...]  # what the row lacks, in the words of the glossary
    verdict: str = ""  # on "the ingredient helps", those of all rows adjusted together by Holm's method
    harms: bool = False  # whether "the recipe is better without it" holds, all rows' differences from 0 adjusted (Holm)
    larger: float = 0.0  # how much more parameters the whole recipe has than the row, as a fraction
    rate: str = ""  # of another optimizer: "best", "largest" (the best, and no larger one was tried), or "other"

    @property
    def label(self) -> str:
        """What the row is called in its experiment."""
        return self.group.label

    @property
    def name(self) -> str:
        """The ingredients in words, the label where the glossary has none; of several the one that the label names."""
        named = [word for word in self.ingredients if word in self.label]
        return " and ".join(named or self.ingredients) or self.label

    @property
    def size(self) -> str:
        """What the ingredient brings, in words: at most that where a rate beyond those tried might lose less."""
        if self.rate != "largest":
            return f"{self.brings:points}{self.at_what_size}"
        used = self.group.config.train
        return (
            f"{self.brings:points} or less, because {used.optimizer.upper()} is best at the largest rate, {used.lr:g}"
        )

    @property
    def at_what_size(self) -> str:
        """How much larger the ingredient makes the network, in words; empty where the sizes are about equal."""
        share = f"{abs(self.larger):.0%} {'more' if self.larger > 0 else 'fewer'}"
        return f" (and {share} parameters)" if abs(self.larger) > EQUAL_SIZE else ""

    @property
    def title(self) -> str:
        """The ingredient and what stood in its place: `dirac, not Kaiming` of the label `Kaiming, not dirac`."""
        if not self.ingredients:
            return self.label
        instead, parted, own = re.split(r"(, (?:not|none) |$)", self.label, maxsplit=1)
        if not parted:
            return self.name
        named = own in self.name or self.name in own or parted == ", none "
        return f"{self.name}, not {instead}" if named else f"{self.name}: {own}, not {instead}"


def ablation(pairs: Pairs) -> list[AblationRow]:
    """The rows of an ablation: the whole recipe, which is declared first, then the rows by what is lost without them.

    Where all rows have runs on one kind of machine, those alone are compared. The spread between seeds is pooled over
    all rows, which have few seeds each. Rows without a record are left out;
    without a record of the whole recipe there is nothing to compare with, and no row."""
    groups = list(groups_by_label(pairs).values())
    if not groups or not groups[0].records:
        return []
    whole, *changed = by_machine([group for group in groups if group.records])[0]
    sd, freedom = stats.pooled_sd([group.accuracies for group in (whole, *changed)])
    brings = {
        group.label: stats.pooled_difference(whole.accuracies, group.accuracies, sd, freedom) for group in changed
    }
    helps = stats.holm({label: (estimate, stats.SMALLEST_EFFECT) for label, estimate in brings.items()})
    harms = stats.holm({label: (estimate.taken_from(0), 0.0) for label, estimate in brings.items()})
    rows = [AblationRow(whole, stats.pooled_difference(whole.accuracies, [], sd, freedom), ())]
    for group in sorted(changed, key=lambda group: -brings[group.label].value):
        ingredients, label = recipe_glossary.left_out(whole.config, group.config), group.label
        settled = helps[label].verdict, harms[label].verdict == stats.HOLDS
        larger = count_parameters(whole.config.model) / count_parameters(group.config.model) - 1
        rate = _rate(group, changed, whole)
        rows.append(AblationRow(group, brings[label], tuple(ingredients), *settled, larger, rate))
    return rows


def _rate(group: Group, rows: Sequence[Group], whole: Group) -> str:
    """How the learning rate of another optimizer than the whole recipe's did among those that were tried; empty if the
    optimizer is the same."""
    used = group.config.train.optimizer
    if used == whole.config.train.optimizer:
        return ""
    tried = [row for row in rows if row.config.train.optimizer == used]
    if group is not max(tried, key=lambda row: row.estimate.value):
        return "other"
    rates = {row.config.train.lr for row in tried}
    return "largest" if len(rates) > 1 and group.config.train.lr == max(rates) else "best"


def against_published(final: Final, row: Mapping[str, Any], others: Iterable[Final]) -> Estimate:
    """The test accuracy of a final recipe minus one published accuracy, a row of `peers.published`, of one run.

    Its interval has the noise of the seeds (of ours, and of the single run), whose spread is pooled over all final
    recipes, and of the test images; see `stats.published_difference`."""
    tests = [test.metrics for _, test in final.opened]
    pooled = stats.pooled_sd(list(seed_groups(others).values()))
    images = int(tests[0]["n"]) if tests else int(row["n"])
    accuracies = [test["accuracy"] for test in tests]
    return stats.published_difference(accuracies, images, row["accuracy"], int(row["n"]), pooled if pooled[1] else None)


def verdicts_against_published(finals: Iterable[Final], row: Mapping[str, Any]) -> dict[str, str]:
    """The verdict on "ours is better than this published run", by recipe: those of all recipes that were opened are
    adjusted together by Holm's method."""
    opened = [final for final in finals if final.opened]
    comparisons = {final.name: (against_published(final, row, opened), SMALLEST_GAIN) for final in opened}
    return {name: adjusted.verdict for name, adjusted in stats.holm(comparisons).items()}


# The single seed ----------------------------------------------------------------------------------------------------


def seed_groups(finals: Iterable[Final], looks: bool = False) -> dict[str, list[float]]:
    """The test accuracies of each final recipe that was opened for several seeds: runs that differ by seed alone.

    They are read to measure the noise of a published difference; nothing is chosen by them. With `looks`, those of the
    runs that were opened undeclared too."""
    several = (final for final in finals if len(final.opened) > 1)
    opened = {final.name: (*final.opened, *(final.looks if looks else ())) for final in several}
    return {name: [test.metrics["accuracy"] for _, test in tests] for name, tests in opened.items()}


def pairs_apart(groups: Iterable[Sequence[float]], difference: float) -> tuple[int, int]:
    """How many pairs of runs within a group differ by at least `difference`, and how many pairs there are."""
    gaps = [abs(a - b) for values in groups for a, b in combinations(values, 2)]
    return sum(gap >= difference - stats.EQUAL for gap in gaps), len(gaps)
