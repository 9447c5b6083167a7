"""What the trials of random searches say of the claims, and the runs of the study that ask the same at its size."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tpsnet_lib import stats
from tpsnet_lib.analysis import search
from tpsnet_lib.analysis.groups import Group
from tpsnet_lib.analysis.search import Trial
from tpsnet_lib.claims.evidence import Answer, Evidence, at_least, better, greater
from tpsnet_lib.claims.studies import CONTROL, Answers
from tpsnet_lib.runs.study import RATES_OF_ADAM

NAMES = {"adam": "Adam", "adamw": "AdamW", "adamax": "Adamax"}
FEW = 10  # trials in a group; the median of fewer is not bootstrapped
SGD_SEARCHES = {"search_sgd_rate": 0.01, "search_classroom": 0.001}  # with SGD; two decades of rates begin there


def medians(first: Sequence[Trial], second: Sequence[Trial], groups: Sequence[Group]) -> Answer:
    """The median accuracy of some trials minus that of others; without an estimate if either are fewer than `FEW`."""
    sides = [[trial.accuracy for trial in trials] for trials in (first, second)]
    difference = stats.median_difference(*(sides if min(map(len, sides)) >= FEW else ([], [])))
    return replace(greater(difference, groups), measure="medians")


def chosen_and_others(evidence: Evidence, name: str, chosen: Callable[[Mapping[str, Any]], bool]) -> Answer:
    """`medians` of the trials of a search that are chosen, and of its others."""
    trials = evidence.trials(name)
    first, second = ([trial for trial in trials if chosen(trial.values) == side] for side in (True, False))
    return medians(first, second, [evidence.group(name)])


def odd_depths(evidence: Evidence) -> Iterator[Answer]:
    """That networks with an odd number of blocks have the better median."""
    for name in ("search_original_30", "search_original_9"):
        yield chosen_and_others(evidence, name, lambda draw: draw["depth"] % 2 == 1)


def more_dropout(evidence: Evidence, variable: str) -> Iterator[Answer]:
    """That networks with more than the median of a kind of dropout have the better median."""
    rates = [trial.values[variable] for trial in evidence.trials("search_classroom")]
    border = float(np.median(rates)) if rates else 0.0
    answer = chosen_and_others(evidence, "search_classroom", lambda draw: draw[variable] > border)
    yield replace(answer, remark=f"above the median, {border:.2g}" if rates else "")


def after_random_trials(look: str, trials: Answers, study: Answers) -> Answers:
    """The answers of a study, whose test was of the random trials of a search before; these come after them.

    Trials are smaller and shorter than a verdict is asked at; theirs counts in the table as a test, named `look`."""

    def answers(evidence: Evidence) -> Iterator[Answer]:
        random = list(trials(evidence))
        first, *smaller = study(evidence)
        judged = next((each for each in random if each.complete), random[0])
        yield from (replace(first, before={look: judged}), *random, *smaller)

    return answers


def sgd_against_adam(evidence: Evidence) -> Iterator[Answer]:
    """That the network of the study is more accurate with SGD, at the best of five rates, than with the best of the
    Adam family at five or more each; a remark names those that were best at their largest."""
    answer = better(*evidence.groups((CONTROL, "study_adam/B=1, Adam family")))
    runs = [run for name in RATES_OF_ADAM for run in evidence.group(name).records]
    by_accuracy = sorted(runs, key=lambda run: run.metrics.get("validation_accuracy", 0.0))
    best = {run.config.train.optimizer: run.config.train.lr for run in by_accuracy}
    tried = {name: [run.config.train.lr for run in runs if run.config.train.optimizer == name] for name in best}
    at_the_end = [NAMES[name] for name, rate in sorted(best.items()) if rate == max(tried[name])]
    remark = f"{' and '.join(at_the_end)} best at the largest rate tried" if at_the_end else ""
    rates = "five rates each" if len(set(map(len, tried.values()))) < 2 else "five rates or more each"
    scope = f", the best of Adam, AdamW and Adamax at {rates}, on one network"
    yield replace(answer, scope=scope, remark=remark)


def rate_against_the_tuned(evidence: Evidence) -> Iterator[Answer]:
    """That at a rate of 0.01 the network of the study is at most a point behind that at the best of five rates."""
    groups = evidence.groups(("study_sgd_rate/B=1, rate 0.01", CONTROL))
    answer = at_least(groups[0].lead_over(groups[1]), groups, -stats.SMALLEST_EFFECT)
    yield replace(answer, scope=", on one network: at most a point behind the best of five, from 0.02 to 0.7")


def optimizers(evidence: Evidence) -> Iterator[Answer]:
    """Random trials with SGD against the Adam family, each at two decades of learning rates that hold its best.

    `search_classroom` draws 0.001 to 0.1 for all, and SGD is best near the end of that: once `search_sgd_rate` is done,
    SGD's rates are 0.01 to 1."""
    adam = [trial for trial in evidence.trials("search_classroom") if trial.values["optimizer"] != "sgd"]
    for name, trials in _sgd_trials(evidence).items():
        sgd = [trial for trial in trials if trial.values["lr"] >= SGD_SEARCHES[name]]
        answer = medians(sgd, adam, [evidence.group(each) for each in dict.fromkeys((name, "search_classroom"))])
        if answer.estimate.n:
            end = ", best near the end" if _best_at_the_end(sgd) else ""
            others = f", others at {_rates(adam)}" if _rates(adam) != _rates(sgd) else ""
            upper = [trial for trial in sgd if trial.values["lr"] >= 10 * SGD_SEARCHES[name]]
            remark = f"SGD at {_rates(sgd)}{others}; SGD's upper decade {medians(upper, adam, ()).estimate:points}"
            answer = replace(
                answer, scope=f", in random trials, SGD at rates of {_rates(sgd)}{end}{others}", remark=remark
            )
        yield answer


def rate_of_the_original(evidence: Evidence) -> Iterator[Answer]:
    """Judge how far winners are from 0.01 if they have other rates, else whether trials near it beat random ones."""
    for name, trials in _sgd_trials(evidence).items():
        yield _near_rate(trials, [evidence.group(name)], math.log10(0.01))


def _sgd_trials(evidence: Evidence) -> dict[str, list[Trial]]:
    """The trials with SGD of each search that has some: those over wider rates first, and none before all are done."""
    trials = {name: evidence.trials(name) for name in SGD_SEARCHES}
    if evidence.group("search_sgd_rate").missing:
        trials["search_sgd_rate"] = []
    return {name: [one for one in trials[name] if one.values["optimizer"] == "sgd"] for name in SGD_SEARCHES}


def _rates(trials: Sequence[Trial]) -> str:
    rates = [trial.values["lr"] for trial in trials]
    return f"{min(rates):.1g} to {max(rates):.1g}"


def _best_at_the_end(trials: Sequence[Trial]) -> bool:
    """Whether the learning rates of winners reach the largest that was drawn, so that a larger one may be better."""
    rates = [trial.values["lr"] for trial in trials]
    return bool(search.winners_range(rates, search.accuracies(trials)).high > 0.8 * max(rates))


def _near_rate(trials: Sequence[Trial], groups: Sequence[Group], x: float) -> Answer:
    """Whether the rate 10^x is among the best of some trials."""
    if len(trials) < 2 * FEW:
        return greater(stats.median_difference([], []), groups)
    rates = [math.log10(trial.values["lr"]) for trial in trials]
    test = search.among_the_best(rates, search.accuracies(trials), x)
    winners = f"{10**test.winners.low:.2g} to {10**test.winners.high:.2g}"
    outside = "" if test.winners.low <= x <= test.winners.high else "; 0.01 is not among them: that is what p is of"
    nearest = sorted(rates, key=lambda rate: abs(rate - x))[: round(len(rates) / 4)]
    quarter = f"The quarter nearest to 0.01 has rates of {10 ** min(nearest):.2g} to {10 ** max(nearest):.2g}."
    notes = (
        f"Of rates from {10 ** min(rates):.2g} to {10 ** max(rates):.2g}, 95% of winners have {winners}{outside}.",
        f"{quarter} Chapter 3 measures how often this test holds without any effect of the rate.",
    )
    asked = "trials near it beat random ones, and winners have it"
    scope, remark = f", of {_rates(trials)}: {asked}", f"p is of the winners' rates, {winners}" if outside else ""
    answer = Answer(test.nearest, *test.judged, tuple(groups), measure="nearest minus random", notes=notes)
    return replace(answer, remark=remark, scope=scope)
