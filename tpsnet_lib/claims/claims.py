"""The original's claims (a) to (j), and the tests of them: what is compared, at which budgets, the largest first.

The smallest effect of interest is one point of accuracy (`stats.SMALLEST_EFFECT`) unless a test says otherwise. A place
such as `study_layers/N=2` names the runs of one label of an experiment."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tpsnet_lib import stats
from tpsnet_lib.analysis import search
from tpsnet_lib.analysis.original_results import TABLE_1, TABLE_1_IMAGES
from tpsnet_lib.claims.evidence import (
    Answer,
    Evidence,
    Runs,
    at_least,
    at_most,
    better,
    furthest_apart,
    greater,
    log_epoch_times,
    overfitting,
)

POINT = 0.01  # the margin of "within a point"; the original's models span 0.82 points after 300 epochs
LOGIT = 0.05  # the smallest effect of interest in logits: one point at an accuracy of 70%
TENTH = math.log(1.1)  # the smallest effect of interest for a ratio of times
FEW = 10  # trials in a group; the median of fewer is not bootstrapped

CLAIMS = {  # what the original says, with its figure and the place of it
    "a": "TPSNet reaches 94.84% with 4.96 million parameters (its paper, Table 2; 300 epochs, one run)",
    "b": "Three residual layers beat two and four (its paper, section 4, Figure 3)",
    "c": "Odd numbers of blocks in a layer beat even ones (its paper, section 4, Figure 3)",
    "d": "Dropout lowers the test error (its paper, section 4)",
    "e": "After 30 epochs the shallow, wide networks win, with 88.20% against 84.65%; after 300 the deep, narrow ones,"
    " with 94.84% against 94.02% (its paper, Tables 1 and 2)",
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
    sentence: str
    answers: Answers


TESTS: dict[str, Test] = {}


def _test(name: str, claim: str, sentence: str) -> Callable[[Answers], Answers]:
    """Register a function that yields the answers of a test."""

    def register(answers: Answers) -> Answers:
        TESTS[name] = Test(name, claim, sentence, answers)
        return answers

    return register


def _difference(name: str, claim: str, sentence: str, *budgets: tuple[str, str]) -> None:
    """Register a test that the runs at the first place of each budget are more accurate than those at the second."""

    @_test(name, claim, sentence)
    def answers(evidence: Evidence) -> Iterator[Answer]:
        for first, second in budgets:
            yield better(*evidence.compared((first, second)))


CONTROL, CONTROL_LONG = "study_control/B=1", "study_long/B=1, 48 epochs"  # one block in each of three layers
SMALL, SMALL_LONG = "effects_layers/N=3", "effects_blocks_long/B=1"  # the same at 77,000 parameters


# (a) the headline; (b) layers; (c) odd and even numbers of blocks


@_test(
    "reproduction", "a", "TPSNet, by the original's recipe to its last epoch, reaches 94.84% but for a point at most"
)
def _reproduction(evidence: Evidence) -> Iterator[Answer]:
    runs, published = evidence.runs("reproduction"), TABLE_1["tpsnet"][1] or math.nan
    yield at_least(stats.published_difference(runs.values, TABLE_1_IMAGES, published, TABLE_1_IMAGES), [runs], -POINT)


for layers, word in ((2, "two"), (4, "four")):
    _difference(
        f"three layers against {word}",
        "b",
        f"Three residual layers beat {word}, at matched parameters",
        (CONTROL, f"study_layers/N={layers}"),
        (SMALL, f"effects_layers/N={layers}"),
    )
    _difference(
        f"three layers against {word}, MACs",
        "b",
        f"Three residual layers beat {word}, at matched MACs",
        (SMALL, f"effects_layers_macs/N={layers}"),
    )


@_test("odd", "c", "Odd numbers of blocks beat even ones, at matched parameters and MACs, beyond the trend with depth")
def _odd(evidence: Evidence) -> Iterator[Answer]:
    """Fit a parabola in B and a jump between odd and even B to the means by least squares; the jump is judged."""
    for control, experiment, depths in ((CONTROL, "study_blocks", 6), (SMALL, "effects_blocks", 5)):
        blocks = np.arange(1.0, depths + 1)
        jump = np.where(blocks % 2 == 1, 0.5, -0.5)
        weights = np.linalg.pinv(np.stack([np.ones_like(blocks), blocks, blocks**2, jump], axis=1))[3]
        places = [control, *(f"{experiment}/B={count}" for count in range(2, depths + 1))]
        runs = evidence.compared(places)
        yield greater(stats.contrast([group.values for group in runs], weights.tolist()), runs)


def _medians(evidence: Evidence, name: str, chosen: Callable[[Mapping[str, Any]], bool]) -> Answer:
    """The median accuracy of the trials of a search that are chosen, minus that of the others."""
    trials = evidence.trials(name)
    groups = [[accuracy for draw, accuracy in trials if chosen(draw) == side] for side in (True, False)]
    first, second = groups if min(map(len, groups)) >= FEW else ([], [])
    return greater(stats.median_difference(first, second), [evidence.runs(name)])


@_test("odd in the search", "c", "Odd numbers of blocks beat even ones, in random networks of the original's space")
def _odd_in_the_search(evidence: Evidence) -> Iterator[Answer]:
    for name in ("search_original_30", "search_original_9"):
        yield _medians(evidence, name, lambda draw: draw["depth"] % 2 == 1)


# (d) dropout, in runs and in the search


for kind, label, position in (
    ("dropout", "D=0.2", "before the classifier"),
    ("block dropout", "Db=0.2", "inside the blocks"),
):
    _difference(
        kind,
        "d",
        f"Dropout of 0.2 {position} raises the accuracy",
        (f"study_dropout/B=1, {kind} 0.2", CONTROL),
        (f"effects_dropout/{label}", SMALL),
    )
    _difference(
        f"{kind}, longer run",
        "d",
        f"Dropout of 0.2 {position} raises the accuracy of a run four times as long",
        (f"study_dropout_long/B=1, {kind} 0.2, 48 epochs", CONTROL_LONG),
    )


def _dropout_in_the_search(variable: str, position: str) -> None:
    @_test(
        f"{variable.replace('_', ' ')} in the search",
        "d",
        f"Random networks with more than the median dropout {position} beat those with less",
    )
    def answers(evidence: Evidence) -> Iterator[Answer]:
        rates = [values[variable] for values, _ in evidence.trials("search_classroom")]
        border = float(np.median(rates)) if rates else 0.0
        yield _medians(evidence, "search_classroom", lambda values: values[variable] > border)


_dropout_in_the_search("dropout", "before the classifier")
_dropout_in_the_search("block_dropout", "inside the blocks")

# (e) depth and the length of the run; (f) width

_difference(
    "shallow, short run",
    "e",
    "In a short run, shallow and wide beats deep and narrow, at matched parameters",
    ("table1_matched/model=model1", "table1_matched/model=tpsnet"),
    (CONTROL, "study_blocks/B=5"),
    (SMALL, "effects_blocks/B=5"),
)
_difference(
    "shallow, run cut off",
    "e",
    "So it does where the short run is cut off a longer schedule, as the original's were",
    ("table1_unmatched/model=model1", "table1_unmatched/model=tpsnet"),
)
_difference(
    "deep, longer run",
    "e",
    "In a longer run, deep and narrow beats shallow and wide, at matched parameters",
    ("reproduction", "reproduction_models/model=model1"),
    ("study_long/B=5, 48 epochs", CONTROL_LONG),
    ("effects_blocks_long/B=5", SMALL_LONG),
)


def _gain(evidence: Evidence, logits: bool) -> Iterator[Answer]:
    """The rise of the deep network's accuracy from the short run to the longer one, minus that of the shallow one."""
    for places in (
        ("study_long/B=5, 48 epochs", "study_blocks/B=5", CONTROL_LONG, CONTROL),
        ("effects_blocks_long/B=5", "effects_blocks/B=5", SMALL_LONG, SMALL),
    ):
        runs = evidence.compared(places)
        values = [np.array(group.values) for group in runs]
        scaled = [np.log(value / (1 - value)) for value in values] if logits else values
        answer = greater(stats.contrast(scaled, [1, -1, -1, 1]), runs, LOGIT if logits else stats.SMALLEST_EFFECT)
        yield replace(answer, form=".2") if logits else answer


_gain_of_depth = "A longer run brings the deep, narrow network more than the shallow, wide one"
_test("gain in points", "e", f"{_gain_of_depth}, in points")(functools.partial(_gain, logits=False))
_test("gain in logits", "e", f"{_gain_of_depth}, in logits, log(p / (1 - p))")(functools.partial(_gain, logits=True))
_difference(
    "width at one block",
    "f",
    "Wider is better at one block a layer",
    ("study_width/B=1, wide", CONTROL),
    ("effects_width/w=12", SMALL),
)
_difference(
    "width at three blocks",
    "f",
    "Wider is better at three blocks a layer",
    ("study_width/B=3, wide", "study_blocks/B=3"),
    ("effects_depth/B=3", "effects_blocks/B=3"),
)


# (g) the search; (h) overfitting; (i) size; (j) cost


@_test("optimizer", "g", "Random trials with SGD beat those with the Adam family")
def _optimizer(evidence: Evidence) -> Iterator[Answer]:
    yield _medians(evidence, "search_classroom", _sgd)


@_test(
    "learning rate", "g", "0.01 is among the best rates for SGD: trials near it beat random ones, and winners have it"
)
def _learning_rate(evidence: Evidence) -> Iterator[Answer]:
    """Judge how far winners are from 0.01 if they have other rates, else whether trials near it beat random ones."""
    for name in ("search_classroom", "search_sgd_rate"):
        runs = [evidence.runs(name)]
        trials = [(math.log10(draw["lr"]), accuracy) for draw, accuracy in evidence.trials(name) if _sgd(draw)]
        yield _near_the_original_rate(trials, runs, math.log10(0.01))


def _near_the_original_rate(trials: Sequence[tuple[float, float]], runs: list[Runs], x: float) -> Answer:
    """Whether the rate 10^x is among the best of some trials, each its log10 rate and its accuracy."""
    if len(trials) < 2 * FEW:
        return greater(stats.median_difference([], []), runs)
    rates, accuracies = zip(*trials, strict=True)
    test = search.among_the_best(rates, accuracies, x)
    winners = f"{10**test.winners.low:.2g} to {10**test.winners.high:.2g}"
    notes = (
        f"Of rates from {10 ** min(rates):.2g} to {10 ** max(rates):.2g}, 95% of winners have {winners}.",
        f"Without any effect of the rate this test holds in {_false_holds(rates, accuracies, x):%.1} of simulations.",
    )
    answer = greater(test.nearest, runs)
    if test.winners.high < x or test.winners.low > x:
        one_sided = at_least(test.winners, runs, x) if test.winners.high < x else at_most(test.winners, runs, x)
        answer = replace(answer, judged=one_sided.judged, smallest_effect=one_sided.smallest_effect)
    return replace(answer, notes=notes)


def _sgd(draw: Mapping[str, Any]) -> bool:
    return bool(draw["optimizer"] == "sgd")


@functools.cache
def _false_holds(rates: tuple[float, ...], accuracies: tuple[float, ...], x: float) -> stats.Estimate:
    return search.rate_of_holds_without_effect(rates, accuracies, x, simulations=200)


@_test("overfitting", "h", "The deep network overfits by at most a point more than the shallow one of equal parameters")
def _overfitting(evidence: Evidence) -> Iterator[Answer]:
    note = "Overfitting is the accuracy on augmented training images minus that on validation images."
    for places in (
        ("table1_matched/model=tpsnet", "table1_matched/model=model1"),
        ("study_long/B=5, 48 epochs", CONTROL_LONG),
        ("study_blocks/B=5", CONTROL),
        ("effects_blocks_long/B=5", SMALL_LONG),
    ):
        runs = evidence.compared(places)
        deep, shallow = runs
        estimate = stats.welch_difference(overfitting(deep), overfitting(shallow))
        yield replace(at_most(estimate, runs, POINT), notes=(note,))


@_test("equal size", "i", "Networks of equal parameters and different depth are all within a point of one another")
def _equal_size(evidence: Evidence) -> Iterator[Answer]:
    for places in (
        ["reproduction", "reproduction_models/model=model1", "reproduction_models/model=model2"],
        [f"table1_matched/model={name}" for name in TABLE_1],
        [CONTROL, *(f"study_blocks/B={count}" for count in range(2, 7)), "study_layers/N=2", "study_layers/N=4"],
        [SMALL, *(f"effects_blocks/B={count}" for count in range(2, 6)), "effects_layers/N=2", "effects_layers/N=4"],
    ):
        runs = evidence.compared(places)
        note = f"The difference is that of the two networks furthest apart, of {len(runs)}."
        yield replace(at_most(furthest_apart(runs), runs, POINT), notes=(note,))


@_test("cost", "j", "Parameters cost less training time as width than as depth")
def _cost(evidence: Evidence) -> Iterator[Answer]:
    note = "The ratio is an epoch of the deep network to one of the wide, each run's fastest, on one machine."
    for places in (
        ("table1_matched/model=tpsnet", "table1_matched/model=model1"),
        ("study_blocks/B=5", CONTROL),
        ("effects_depth/B=2", "effects_width/w=12"),
    ):
        runs = evidence.compared(places)
        deep, wide = log_epoch_times(*runs)
        answer = greater(stats.welch_difference(deep, wide), runs, TENTH)
        yield replace(answer, form="ratio", notes=(note,))
