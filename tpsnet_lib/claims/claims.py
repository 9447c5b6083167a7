"""The original's claims (a) to (j), and the tests of them: what is compared, at which budgets, the largest first.

The smallest effect of interest is one point of accuracy (`stats.SMALLEST_EFFECT`) unless a test says otherwise. A place
such as `study_layers/N=2` names the runs of one label of an experiment. `TESTS`, at the end, is the table."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.special import logit  # type: ignore[import-untyped]

from tpsnet_lib import stats
from tpsnet_lib.analysis import cost, original_results
from tpsnet_lib.analysis.groups import by_machine, contrast_within_machines, hardware_and_threads
from tpsnet_lib.claims import searches
from tpsnet_lib.claims.evidence import (
    Answer,
    Evidence,
    at_least,
    at_most,
    better,
    cost_ratio,
    greater,
    overfitting,
    uneven_epochs,
)
from tpsnet_lib.plain_yaml import read_yaml

LOGIT = 0.05  # the smallest effect of interest in logits: one point at an accuracy of 70%
TENTH = math.log(1.1)  # the smallest effect of interest for a ratio of times

Answers = Callable[[Evidence], Iterator[Answer]]


@dataclass(frozen=True)
class Test:
    """A sentence that is judged by itself, the claim that it belongs to, and its answers, the largest budget first."""

    __test__ = False  # not a test class, whatever pytest makes of its name

    name: str
    claim: str
    short: str  # the sentence in a few words, without its budget
    sentence: str
    answers: Answers


CONTROL, CONTROL_LONG = "study_control/B=1", "study_long/B=1, 48 epochs"  # one block in each of three layers
SMALL, SMALL_LONG = "effects_layers/N=3", "effects_blocks_long/B=1"  # the same at 77,000 parameters
DEEP, DEEP_LONG = "study_blocks/B=5", "study_long/B=5, 48 epochs"
SMALL_DEEP, SMALL_DEEP_LONG = "effects_blocks/B=5", "effects_blocks_long/B=5"


def differences(*budgets: tuple[str, str]) -> Answers:
    """That the runs at the first place of each budget are more accurate than those at the second."""

    def answers(evidence: Evidence) -> Iterator[Answer]:
        for places in budgets:
            yield better(*evidence.groups(places))

    return answers


def reproduction(evidence: Evidence) -> Iterator[Answer]:
    """That our runs of the original's recipe are at most a point below its published accuracy."""
    group, published = evidence.group("reproduction/reproduction"), cost.published_model("TPSNet")
    n = int(published["n"])
    difference = stats.published_difference(group.accuracies, n, published["accuracy"], n)
    yield at_least(difference, [group], -stats.SMALLEST_EFFECT)


def odd_blocks(evidence: Evidence) -> Iterator[Answer]:
    """Fit a parabola in B and a jump between odd and even B to the means by least squares; the jump is judged."""
    for control, experiment, depths in ((CONTROL, "study_blocks", 6), (SMALL, "effects_blocks", 5)):
        blocks = np.arange(1.0, depths + 1)
        jump = np.where(blocks % 2 == 1, 0.5, -0.5)
        weights = np.linalg.pinv(np.stack([np.ones_like(blocks), blocks, blocks**2, jump], axis=1))[3]
        groups = evidence.groups([control, *_depths(experiment, depths)])
        yield greater(contrast_within_machines(groups, weights.tolist()), groups)


def _depths(experiment: str, largest: int) -> list[str]:
    return [f"{experiment}/B={count}" for count in range(2, largest + 1)]


def gain_of_depth(evidence: Evidence, logits: bool) -> Iterator[Answer]:
    """The rise of the deep network's accuracy from the short run to the longer one, minus that of the shallow one."""
    for places in ((DEEP_LONG, DEEP, CONTROL_LONG, CONTROL), (SMALL_DEEP_LONG, SMALL_DEEP, SMALL_LONG, SMALL)):
        groups, weights = evidence.groups(places), (1, -1, -1, 1)
        if logits:
            estimate = contrast_within_machines(groups, weights, lambda group: logit(group.accuracies))
            note = f"The smallest effect that matters is {LOGIT} in logits: a point of accuracy at 70%."
            yield replace(greater(estimate, groups, LOGIT), form=".2", notes=(note,))
        else:
            yield greater(contrast_within_machines(groups, weights), groups)


def more_overfitting(evidence: Evidence) -> Iterator[Answer]:
    """That the deep network overfits at most a point more than the shallow one (`overfitting`)."""
    note = "Overfitting is the accuracy on augmented training images minus that on validation images."
    for places in (
        ("table1_matched/model=tpsnet", "table1_matched/model=model1"),
        (DEEP_LONG, CONTROL_LONG),
        (DEEP, CONTROL),
        (SMALL_DEEP_LONG, SMALL_LONG),
    ):
        groups = evidence.groups(places)
        ahead = contrast_within_machines(groups, (1, -1), overfitting)
        gaps = ", ".join(f"{group.label} {stats.mean(overfitting(group)):points value}" for group in groups)
        notes = (f"{note} By network: {gaps}. Below 0, a network is better on new images than on its augmented own.",)
        none = all(stats.mean(overfitting(group)).value < stats.SMALLEST_EFFECT for group in groups)
        answer = at_most(ahead, groups, stats.SMALLEST_EFFECT)
        yield replace(answer, notes=notes, remark="neither overfits" if none else "")


def equal_size(evidence: Evidence) -> Iterator[Answer]:
    """That the two networks of equal size whose means are furthest apart are at most a point apart."""
    five = ("model1", "model2", "tpsnet", "deep17", "deep23")
    for places in (
        ["reproduction/reproduction", "reproduction_models/model=model1", "reproduction_models/model=model2"],
        [f"table1_matched/model={name}" for name in five],
        [CONTROL, *_depths("study_blocks", 6), "study_layers/N=2", "study_layers/N=4"],
        [SMALL, *_depths("effects_blocks", 5), "effects_layers/N=2", "effects_layers/N=4"],
    ):
        groups = by_machine([evidence.group(place) for place in places])[0]
        done = [group for group in groups if group.configs and not group.missing]
        done = done if len(done) > 1 else groups
        best, worst = (choose(done, key=lambda group: group.estimate.value).label for choose in (max, min))
        note = f"The difference is that of {best} and {worst}, the two networks furthest apart of {len(done)}."
        apart = stats.furthest_apart([group.accuracies for group in done])
        answer = at_most(apart, groups, stats.SMALLEST_EFFECT)
        yield replace(answer, form="distance", measure="furthest apart", notes=(note,))


def cost_of_depth(evidence: Evidence) -> Iterator[Answer]:
    """That an epoch of the deep network takes longer than one of the wide network (`cost_ratio`)."""
    note = (
        "The ratio is an epoch of the deep network to one of the wide, each run's fastest, on one machine; the smallest"
        f" that matters is {math.exp(TENTH):.1f}."
    )
    for places in (
        ("table1_matched/model=tpsnet", "table1_matched/model=model1"),
        (DEEP, CONTROL),
        ("effects_depth/B=2", "effects_width/w=12"),
    ):
        groups = by_machine([evidence.group(place) for place in places], hardware_and_threads)[0]
        slowest = max((uneven_epochs(record) for group in groups for record in group.records), default=1.0)
        shared = f"The machine did other work too: a run's slowest epoch took up to {slowest:.1f} times its fastest."
        yield replace(greater(cost_ratio(*groups), groups, TENTH), form="ratio", notes=(f"{note} {shared}",))


ANSWERS: dict[str, Answers] = {  # by the name of the test, whose sentence is in `claims.yaml`
    "reproduction": reproduction,
    "three layers against two": differences((CONTROL, "study_layers/N=2"), (SMALL, "effects_layers/N=2")),
    "three layers against two, MACs": differences((SMALL, "effects_layers_macs/N=2")),
    "three layers against four": differences((CONTROL, "study_layers/N=4"), (SMALL, "effects_layers/N=4")),
    "three layers against four, MACs": differences((SMALL, "effects_layers_macs/N=4")),
    "odd": odd_blocks,
    "odd in the search": searches.odd_depths,
    "dropout": differences(("study_dropout/B=1, dropout 0.2", CONTROL), ("effects_dropout/D=0.2", SMALL)),
    "dropout, longer run": differences(("study_dropout_long/B=1, dropout 0.2, 48 epochs", CONTROL_LONG)),
    "block dropout": differences(("study_dropout/B=1, block dropout 0.2", CONTROL), ("effects_dropout/Db=0.2", SMALL)),
    "block dropout, longer run": differences(("study_dropout_long/B=1, block dropout 0.2, 48 epochs", CONTROL_LONG)),
    "dropout in the search": functools.partial(searches.more_dropout, variable="dropout"),
    "block dropout in the search": functools.partial(searches.more_dropout, variable="block_dropout"),
    "shallow, short run": differences(
        ("table1_matched/model=model1", "table1_matched/model=tpsnet"), (CONTROL, DEEP), (SMALL, SMALL_DEEP)
    ),
    "shallow, run cut off": differences(("table1_unmatched/model=model1", "table1_unmatched/model=tpsnet")),
    "deep, longer run": differences(
        ("reproduction/reproduction", "reproduction_models/model=model1"),
        (DEEP_LONG, CONTROL_LONG),
        (SMALL_DEEP_LONG, SMALL_LONG),
    ),
    "gain in points": functools.partial(gain_of_depth, logits=False),
    "gain in logits": functools.partial(gain_of_depth, logits=True),
    "width at one block": differences(("study_width/B=1, wide", CONTROL), ("effects_width/w=12", SMALL)),
    "width at three blocks": differences(
        ("study_width/B=3, wide", "study_blocks/B=3"), ("effects_depth/B=3", "effects_blocks/B=3")
    ),
    "optimizer": searches.optimizers,
    "learning rate": searches.rate_of_the_original,
    "overfitting": more_overfitting,
    "equal size": equal_size,
    "cost": cost_of_depth,
}
_WORDS = read_yaml(Path(__file__).parent / "claims.yaml")
CLAIMS: dict[str, str] = {  # what the original says
    letter: claim["original"].format(curve=original_results.CURVE) for letter, claim in _WORDS.items()
}
TESTS = [
    Test(name, letter, words["short"], words["sentence"], ANSWERS[name])
    for letter, claim in _WORDS.items()
    for name, words in claim["tests"].items()
]
