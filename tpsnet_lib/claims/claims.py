"""The original's claims (a) to (j), and the tests of them: what is compared, at which budgets, the largest first.

The smallest effect of interest is one point of accuracy (`stats.SMALLEST_EFFECT`) unless a test says otherwise. A place
such as `study_layers/N=2` names the runs of one label of an experiment. `TESTS`, at the end, is the table."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

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
    too_short_to_overfit,
    uneven_epochs,
)

LOGIT = 0.05  # the smallest effect of interest in logits: one point at an accuracy of 70%
TENTH = math.log(1.1)  # the smallest effect of interest for a ratio of times

CLAIMS = {  # what the original says, with its figure and the place of it
    "a": "TPSNet reaches 94.84% with 4.96 million parameters (its paper, Table 2; 300 epochs, one run)",
    "b": "Three residual layers beat two and four (its paper, section 4, Figure 3)",
    "c": "Odd numbers of blocks in a layer beat even ones (its paper, section 4, Figure 3)",
    "d": "Dropout lowers the test error (its paper, section 4)",
    "e": "After 30 epochs the shallow, wide networks win, with 88.20% against 84.65%; after 300 the deep, narrow ones,"
    " with 94.84% against 94.02% (its paper, Tables 1 and 2; its own public curve has"
    f" {original_results.CURVE[30]:.2%} at epoch 30)",
    "f": "Wider is better at a fixed depth, across depths (its paper, section 4)",
    "g": "SGD with a learning rate of 0.01 comes out of the search (its paper, section 3, and its README)",
    "h": "Deeper networks generalise without overfitting, at equal parameters (its README)",
    "i": "Models of comparable size give about the same accuracy: 94.02% to 94.84% after 300 epochs (its Table 1)",
    "j": "Widening costs less than deepening (its paper, section 4)",
}


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
    at_equal_macs: str = ""  # the name of the same test, of networks of equal MACs


CONTROL, CONTROL_LONG = "study_control/B=1", "study_long/B=1, 48 epochs"  # one block in each of three layers
SMALL, SMALL_LONG = "effects_layers/N=3", "effects_blocks_long/B=1"  # the same at 77,000 parameters
DEEP, DEEP_LONG = "study_blocks/B=5", "study_long/B=5, 48 epochs"
SMALL_DEEP, SMALL_DEEP_LONG = "effects_blocks/B=5", "effects_blocks_long/B=5"


# Runs ---------------------------------------------------------------------------------------------------------------


def differences(*budgets: tuple[str, str]) -> Answers:
    """That the runs at the first place of each budget are more accurate than those at the second."""

    def answers(evidence: Evidence) -> Iterator[Answer]:
        for places in budgets:
            yield better(*evidence.groups(places))

    return answers


def gain_of_dropout(*budgets: tuple[str, str]) -> Answers:
    """As `differences`, of networks with dropout and one without it: does that one overfit at all?"""

    def answers(evidence: Evidence) -> Iterator[Answer]:
        for places, answer in zip(budgets, differences(*budgets)(evidence), strict=True):
            without = evidence.group(places[1])
            yield replace(answer, too_short=too_short_to_overfit([without]))

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
        groups = evidence.groups([control, *_depths(experiment, depths)])
        deeper = contrast_within_machines(groups[1:], _odd_minus_even(2, depths))
        notes = (f"The trend is a parabola in the number of blocks. Without one block a layer: {deeper:points}.",)
        remark = f"{deeper:points value} without one block a layer" if deeper.n else ""
        answer = greater(contrast_within_machines(groups, _odd_minus_even(1, depths)), groups)
        yield replace(answer, notes=notes, remark=remark)


def _odd_minus_even(first: int, last: int) -> list[float]:
    """The weights of the means of depths `first` to `last` in the jump that `odd_blocks` fits beside a parabola."""
    blocks = np.arange(float(first), last + 1)
    jump = np.where(blocks % 2 == 1, 0.5, -0.5)
    weights: list[float] = np.linalg.pinv(np.stack([blocks**0, blocks, blocks**2, jump], axis=1))[3].tolist()
    return weights


def shallow_and_wide(evidence: Evidence) -> Iterator[Answer]:
    """That the shallow network beats the deep one, with the means of the depths between them."""
    for (shallow, deep), between in (
        (("table1_matched/model=model1", "table1_matched/model=tpsnet"), []),
        ((CONTROL, DEEP), _depths("study_blocks", 6)),
        ((SMALL, SMALL_DEEP), _depths("effects_blocks", 5)),
    ):
        answer = better(*evidence.groups((shallow, deep)))
        done = [group for place in (shallow, *between) if (group := evidence.group(place)).records]
        if between and done:
            best = max(done, key=lambda group: group.estimate.value)
            pair = " against ".join(
                "1" if place in (CONTROL, SMALL) else place.split("/B=")[1] for place in (shallow, deep)
            )
            most = best.label.removeprefix("B=")
            means = ", ".join(f"{group.label} {group.estimate:% value}" for group in done)
            answer = replace(
                answer, remark=f"{pair} blocks a layer, best are {most}", notes=(*answer.notes, f"Means: {means}.")
            )
        yield answer


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
        answer = at_most(ahead, groups, stats.SMALLEST_EFFECT)
        yield replace(answer, notes=notes, too_short=too_short_to_overfit(groups))


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
        "The ratio is an epoch of the deep network to one of the wide, each run's fastest, on one kind of machine; the"
        f" smallest that matters is {math.exp(TENTH):.1f}."
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


# The table ----------------------------------------------------------------------------------------------------------


TESTS = [
    Test(
        "reproduction",
        "a",
        "the recipe reaches 94.84% again",
        "TPSNet, by the original's recipe to its last epoch, reaches 94.84% but for a point at most",
        reproduction,
    ),
    Test(
        "three layers against two",
        "b",
        "three layers beat two of equal size",
        "Three residual layers beat two, at matched parameters",
        differences((CONTROL, "study_layers/N=2"), (SMALL, "effects_layers/N=2")),
        at_equal_macs="three layers against two, MACs",
    ),
    Test(
        "three layers against two, MACs",
        "b",
        "three layers beat two of equal MACs",
        "Three residual layers beat two, at matched MACs",
        differences((SMALL, "effects_layers_macs/N=2")),
    ),
    Test(
        "three layers against four",
        "b",
        "three layers beat four of equal size",
        "Three residual layers beat four, at matched parameters",
        differences((CONTROL, "study_layers/N=4"), (SMALL, "effects_layers/N=4")),
        at_equal_macs="three layers against four, MACs",
    ),
    Test(
        "three layers against four, MACs",
        "b",
        "three layers beat four of equal MACs",
        "Three residual layers beat four, at matched MACs",
        differences((SMALL, "effects_layers_macs/N=4")),
    ),
    Test(
        "odd",
        "c",
        "odd block counts beat even ones",
        "Odd numbers of blocks beat even ones, at matched parameters and MACs, beyond the trend with depth",
        odd_blocks,
    ),
    Test(
        "odd in the search",
        "c",
        "odd block counts beat even ones in random networks",
        "Odd numbers of blocks beat even ones, in random networks of the original's space",
        searches.odd_depths,
    ),
    Test(
        "dropout",
        "d",
        "dropout before the classifier helps",
        "Dropout of 0.2 before the classifier raises the accuracy",
        gain_of_dropout(("study_dropout/B=1, dropout 0.2", CONTROL), ("effects_dropout/D=0.2", SMALL)),
    ),
    Test(
        "dropout, longer run",
        "d",
        "dropout before the classifier helps a longer run",
        "Dropout of 0.2 before the classifier raises the accuracy of a run four times as long",
        gain_of_dropout(("study_dropout_long/B=1, dropout 0.2, 48 epochs", CONTROL_LONG)),
    ),
    Test(
        "block dropout",
        "d",
        "dropout inside the blocks helps",
        "Dropout of 0.2 inside the blocks raises the accuracy",
        gain_of_dropout(("study_dropout/B=1, block dropout 0.2", CONTROL), ("effects_dropout/Db=0.2", SMALL)),
    ),
    Test(
        "block dropout, longer run",
        "d",
        "dropout inside the blocks helps a longer run",
        "Dropout of 0.2 inside the blocks raises the accuracy of a run four times as long",
        gain_of_dropout(("study_dropout_long/B=1, block dropout 0.2, 48 epochs", CONTROL_LONG)),
    ),
    Test(
        "dropout in the search",
        "d",
        "random networks gain by dropout before the classifier",
        "Random networks with more than the median dropout before the classifier beat those with less",
        functools.partial(searches.more_dropout, variable="dropout"),
    ),
    Test(
        "block dropout in the search",
        "d",
        "random networks gain by dropout inside the blocks",
        "Random networks with more than the median dropout inside the blocks beat those with less",
        functools.partial(searches.more_dropout, variable="block_dropout"),
    ),
    Test(
        "shallow, short run",
        "e",
        "shallow and wide wins a short run",
        "In a short run, shallow and wide beats deep and narrow, at matched parameters",
        shallow_and_wide,
    ),
    Test(
        "shallow, run cut off",
        "e",
        "shallow and wide wins a run that is cut off",
        "So it does where the short run is cut off a longer schedule, as the original's were",
        differences(("table1_unmatched/model=model1", "table1_unmatched/model=tpsnet")),
    ),
    Test(
        "deep, longer run",
        "e",
        "deep and narrow is ahead after a longer run",
        "In a longer run, deep and narrow beats shallow and wide, at matched parameters",
        differences(
            ("reproduction/reproduction", "reproduction_models/model=model1"),
            (DEEP_LONG, CONTROL_LONG),
            (SMALL_DEEP_LONG, SMALL_LONG),
        ),
    ),
    Test(
        "gain in points",
        "e",
        "a longer run brings deep networks more points",
        "A longer run brings the deep, narrow network more than the shallow, wide one, in points",
        functools.partial(gain_of_depth, logits=False),
    ),
    Test(
        "gain in logits",
        "e",
        "a longer run brings deep networks more log-odds",
        "A longer run brings the deep, narrow network more than the shallow, wide one, in log-odds, log(p / (1 - p))",
        functools.partial(gain_of_depth, logits=True),
    ),
    Test(
        "width at one block",
        "f",
        "wider (and larger) is better at one block",
        "Wider is better at one block a layer",
        differences(("study_width/B=1, wide", CONTROL), ("effects_width/w=12", SMALL)),
    ),
    Test(
        "width at three blocks",
        "f",
        "wider (and larger) is better at three blocks",
        "Wider is better at three blocks a layer",
        differences(("study_width/B=3, wide", "study_blocks/B=3"), ("effects_depth/B=3", "effects_blocks/B=3")),
    ),
    Test(
        "optimizer",
        "g",
        "the median SGD trial beats that of the Adam family",
        "Random trials with SGD beat those with the Adam family",
        searches.optimizers,
    ),
    Test(
        "learning rate",
        "g",
        "0.01 is among the best rates for SGD",
        "0.01 is among the best rates for SGD: trials near it beat random ones, and winners have it",
        searches.rate_of_the_original,
    ),
    Test(
        "overfitting",
        "h",
        "depth overfits no more than width",
        "The deep network overfits by at most a point more than the shallow one of equal parameters",
        more_overfitting,
    ),
    Test(
        "equal size",
        "i",
        "networks of equal size are equally good",
        "Networks of equal parameters and different depth are all within a point of one another",
        equal_size,
    ),
    Test(
        "cost",
        "j",
        "width costs less time than depth",
        "Parameters cost less training time as width than as depth",
        cost_of_depth,
    ),
]
