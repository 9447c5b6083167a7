"""Answers to the original's claims: each judged from the records there are, at the largest budget that has some.

`compare` judges; a verdict changes when its records do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tpsnet_lib import stats
from tpsnet_lib.analysis import architecture, original_results, search
from tpsnet_lib.analysis.architecture import FAILS, HOLDS, MATTERS, OPEN, PENDING, Claim, Group, Key, Part
from tpsnet_lib.analysis.search import Trial
from tpsnet_lib.claims.book import Book, Case, Original, load
from tpsnet_lib.config import RunConfig
from tpsnet_lib.data.datasets import split
from tpsnet_lib.files import ConfigError
from tpsnet_lib.metrics import mean_interval
from tpsnet_lib.model_cost import count_macs, count_parameters
from tpsnet_lib.runs.experiments import Experiment, collect, load_experiment
from tpsnet_lib.runs.records import Record, Store
from tpsnet_lib.runs.test_set import find_test

FEW = 10  # trials in a group; the median of fewer is not bootstrapped


@dataclass
class Evidence:
    """The records that claims are judged by, read when they are asked for.

    `experiments` stand in for the declared ones of their names, `groups` and `searches` for what a store holds."""

    store: Store
    experiments: dict[str, Experiment] = field(default_factory=dict)
    groups: dict[Key, Group] = field(default_factory=dict)
    searches: dict[str, list[Trial]] = field(default_factory=dict)

    def experiment(self, name: str) -> Experiment:
        """A declared experiment."""
        if name not in self.experiments:
            self.experiments[name] = load_experiment(name)
        return self.experiments[name]

    def group(self, key: Key) -> Group:
        """The runs of one label; `ConfigError` where the experiment declares none such."""
        if key not in self.groups:
            self.groups |= architecture.gather([self.experiment(key[0])], self.store)
        if key not in self.groups:
            raise ConfigError(f"claims.yaml: experiment {key[0]} has no run labelled {key[1]!r}")
        return self.groups[key]

    def trials(self, name: str) -> list[Trial]:
        """The trials of a search that have records."""
        if name not in self.searches:
            self.searches[name] = search.completed_trials(collect(self.experiment(name), self.store))
        return self.searches[name]


@dataclass(frozen=True)
class Answer:
    """What the records say on a case: the judged sentence, the budget in words, the records, and what is missing."""

    case: Case
    original: Original | None  # the claim that the case is of
    claim: Claim
    budget: str
    records: tuple[Record, ...]
    waiting: str

    @property
    def verdict(self) -> str:
        """*Holds*, *does not hold*, *not settled* or *pending*."""
        return self.claim.verdict


def judge(book: Book, name: str, evidence: Evidence) -> Answer:
    """A case judged from the largest budget that has records; the sentence on what is missing names that budget's gaps
    and those of larger ones."""
    case = book.cases[name]
    ranked = sorted(case.answers, key=lambda answer: _work(_configs(book, answer, evidence)))
    found = [_claim(book, case, answer, evidence) for answer in ranked]
    at = next((at for at in reversed(range(len(found))) if found[at].verdict != PENDING), 0)
    gaps = [_waiting(book, answer, evidence, answer is not ranked[at]) for answer in ranked[at:]]
    records = {record.id: record for record in _records(book, ranked[at], evidence)}
    budget = said_of_budget(_configs(book, ranked[at], evidence))
    return Answer(
        case, book.claims.get(case.claim), found[at], budget, tuple(records.values()), "; ".join(filter(None, gaps))
    )


def judged(letters: str, evidence: Evidence | Store, book: Book | None = None) -> list[Answer]:
    """Every case of some of the claims (a) to (h), such as `dg`, judged from a store or from other evidence."""
    book, evidence = book or load(), Evidence(evidence) if isinstance(evidence, Store) else evidence
    return [judge(book, case.name, evidence) for case in book.cases.values() if case.claim and case.claim in letters]


def _claim(book: Book, case: Case, answer: Mapping[str, Any], evidence: Evidence) -> Claim:
    parts = _TESTS[answer["test"]](book, answer, evidence)
    notes = [_gap(book, answer, evidence)] if answer.get("gap") else []
    return Claim(case.says, tuple(parts), tuple(filter(None, notes)))


# The tests ----------------------------------------------------------------------------------------------------------


def _paired(book: Book, answer: Mapping[str, Any], evidence: Evidence) -> list[Part]:
    parts: list[Part] = []
    for one, other in answer["pairs"]:
        better, worse = (evidence.group(book.key(level, answer.get("factor", ""))) for level in (one, other))
        (factor_a, _, level_a), (factor_b, _, level_b) = one.rpartition("/"), other.rpartition("/")
        same = factor_a == factor_b
        label = f"{level_a} minus {level_b}" if same else f"{factor_a} minus {factor_b}, {level_a}"
        parts.append(architecture.compare(label, architecture.paired(better, worse)))
    return parts


def _odd(book: Book, answer: Mapping[str, Any], evidence: Evidence) -> list[Part]:
    groups = [evidence.group(key) for key in book.keys(answer)]
    by_blocks = {group.config.model.blocks[0]: group for group in groups}
    return [architecture.compare("odd B minus even B", architecture.odd_minus_even(by_blocks))]


def _gain(book: Book, answer: Mapping[str, Any], evidence: Evidence) -> list[Part]:
    first, second = (
        architecture.by_seed(*(evidence.group(book.key(level)) for level in answer[side])) for side in ("of", "less")
    )
    more = [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]
    return [architecture.compare(answer["label"], more)]


def _trials(book: Book, answer: Mapping[str, Any], evidence: Evidence) -> list[Part]:
    found, name = _among(answer, evidence), search.VARIABLES[answer["variable"]]
    (how, value), values = next(iter(answer["better"].items())), [trial.values[answer["variable"]] for trial in found]
    if how == "above":
        border = float(np.median(values)) if values else 0.0
        picked, label = [v > border for v in values], f"{name} above {border:.2g} minus the rest"
    elif how == "odd":
        picked, label = [v % 2 == 1 for v in values], f"an odd number of {name} minus an even one"
    else:
        picked, label = [v == value for v in values], f"{name} {str(value).upper()} minus the others"
    first = [trial.accuracy for trial, chosen in zip(found, picked, strict=True) if chosen]
    rest = [trial.accuracy for trial, chosen in zip(found, picked, strict=True) if not chosen]
    if min(len(first), len(rest)) < FEW:
        return [architecture.compare(label, [])]
    difference = stats.median_difference(first, rest)
    ends = (difference.low, difference.high) if difference.has_interval else (difference.value, difference.value)
    interval = difference.value, *ends
    return [architecture.settle(f"median, {label}", len(found), interval, "trials")]


def _range(book: Book, answer: Mapping[str, Any], evidence: Evidence) -> list[Part]:
    found, name = _among(answer, evidence), search.VARIABLES[answer["variable"]]
    values = [float(trial.values[answer["variable"]]) for trial in found]
    if len(found) < 2 * FEW:
        return [architecture.Range(name, 0, math.nan, math.nan, (math.nan, math.nan), answer["value"], PENDING)]
    log, value = answer["variable"] in search.LOGARITHMIC, answer["value"]
    scaled, x = (np.log10(values), math.log10(value)) if log else (np.array(values), value)
    test = search.among_the_best(scaled, search.accuracies(found), x)
    ends = [10**end if log else end for end in (test.winners.low, test.winners.high)]
    part = architecture.contains(name, len(found), (ends[0], ends[1]), (min(values), max(values)), value)
    return [replace(part, verdict=test.verdict if test.verdict in (HOLDS, FAILS) else OPEN)]


def _among(answer: Mapping[str, Any], evidence: Evidence) -> list[Trial]:
    only = answer.get("among", {})
    found = evidence.trials(answer["experiment"])
    return [trial for trial in found if all(trial.values[name] == value for name, value in only.items())]


def _figure(book: Book, answer: Mapping[str, Any], evidence: Evidence) -> list[Part]:
    """A reproduction is as good if it is at most `MATTERS` below: so the difference is judged with that much added."""
    name, epochs = answer["figure"]
    theirs = original_results.TABLE_1[name][0 if epochs == 30 else 1]
    found = ((record, find_test(record, evidence.store)) for record in _records(book, answer, evidence))
    opened = [(record, result.metrics) for record, result in found if result is not None]
    label = "ours minus theirs"
    if not opened or theirs is None:
        return [architecture.compare(label, [])]
    best = max((said for _, said in opened), key=lambda said: float(said["accuracy"]))
    interval = original_results.difference_of_fractions(best["accuracy"], theirs, int(best["n"]))
    part = architecture.settle(label, int(best["n"]), interval, "test images")
    return [replace(part, verdict=architecture.verdict_of(interval[1] + MATTERS, interval[2] + MATTERS))]


_TESTS: dict[str, Callable[[Book, Mapping[str, Any], Evidence], list[Part]]] = {
    "paired": _paired,
    "odd": _odd,
    "gain": _gain,
    "trials": _trials,
    "range": _range,
    "figure": _figure,
}


def _gap(book: Book, answer: Mapping[str, Any], evidence: Evidence) -> str:
    """How much further training accuracy is ahead of validation accuracy in the last network than in the first."""
    groups = [(level, evidence.group(book.key(level, answer["factor"]))) for level in book.factors[answer["factor"]]]
    (first, few), (last, many) = groups[0], groups[-1]
    ahead = [
        {r.config.seed: float(r.metrics["train_accuracy"]) - float(r.metrics["validation_accuracy"]) for r in g.records}
        for g in (few, many)
    ]
    seeds = sorted(ahead[0].keys() & ahead[1].keys())
    if len(seeds) < 2:
        return ""
    mean, low, high = mean_interval([ahead[1][seed] - ahead[0][seed] for seed in seeds])
    said = [architecture.points(float(np.mean([side[seed] for seed in seeds]))) for side in ahead]
    return (
        f"Training accuracy less validation accuracy is {said[0]} points at {first} and {said[1]} at {last}: a change"
        f" of {architecture.points(mean)} ({architecture.points(low)} to {architecture.points(high)})."
        " Training images are augmented, which makes them the harder ones; to overfit is to gain there and to lose on"
        " validation."
    )


# Budgets and records ------------------------------------------------------------------------------------------------


def _configs(book: Book, answer: Mapping[str, Any], evidence: Evidence) -> list[RunConfig]:
    if "experiment" in answer:
        return [run.config for run in evidence.experiment(answer["experiment"]).runs]
    return [evidence.group(key).config for key in book.keys(answer)]


def _records(book: Book, answer: Mapping[str, Any], evidence: Evidence) -> list[Record]:
    if answer["test"] in ("trials", "range"):
        return [trial.record for trial in _among(answer, evidence)]
    if "experiment" in answer:
        pairs = collect(evidence.experiment(answer["experiment"]), evidence.store)
        return [record for _, record in pairs if record is not None and not record.failed]
    return [record for key in book.keys(answer) for record in evidence.group(key).records]


def _images(config: RunConfig) -> int:
    return config.data.train_size or len(split(config.data.dataset)[0])


def _work(configs: Sequence[RunConfig]) -> float:
    """Multiply-accumulates of a mean run, by which budgets are ordered."""
    return float(np.mean([config.train.epochs * _images(config) * count_macs(config.model) for config in configs]))


def said_of_length(configs: Sequence[RunConfig]) -> str:
    """How long some runs are and on how many images, in words."""
    lengths = " and ".join(f"{epochs:g}" for epochs in sorted({config.train.epochs for config in configs}))
    longer = {config.train.schedule_epochs for config in configs if config.train.schedule_epochs > config.train.epochs}
    cut = f" of a schedule of {max(longer):g}" if longer else ""
    images = _span([_images(config) for config in configs], lambda count: f"{count:,.0f}")
    others = sorted({config.data.dataset for config in configs} - {"cifar10"})
    unit = "epoch" if lengths == "1" else "epochs"
    return f"{lengths} {unit}{cut} on {images} images{''.join(f' of {name}' for name in others)}"


def said_of_budget(configs: Sequence[RunConfig]) -> str:
    """How long some runs are, on how many images, and how large their networks, in words."""
    size = _span([count_parameters(config.model) for config in configs], _thousands)
    return f"{said_of_length(configs)}, {size} parameters"


def _span(values: Sequence[float], form: Callable[[float], str]) -> str:
    low, high = form(min(values)), form(max(values))
    return low if low == high else f"{low} to {high}"


def _thousands(count: float) -> str:
    return f"{count / 1e6:.2f} million" if count >= 999_500 else f"{round(count, -3):,.0f}"


def _minutes(minutes: float) -> str:
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _waiting(book: Book, answer: Mapping[str, Any], evidence: Evidence, larger: bool) -> str:
    """What an answer still lacks: the command, how many runs, on what, and a larger budget; empty if nothing."""
    gaps: dict[str, int] = {}
    if "experiment" in answer:
        name, test = answer["experiment"], answer["test"]
        there = _records(book, answer, evidence) if test == "figure" else [t.record for t in evidence.trials(name)]
        gaps[name] = len(evidence.experiment(name).runs) - len(there)
        if there and test == "figure" and math.isnan(_figure(book, answer, evidence)[0].low):
            return f"`tpsnet test {there[0].id}`: trained, the test images not opened yet"
    for key in book.keys(answer):
        group = evidence.group(key)
        gaps[key[0]] = gaps.get(key[0], 0) + group.declared - len(group.records)
    said = []
    for name, count in gaps.items():
        if count:
            needs = evidence.experiment(name)
            where = "a GPU" if needs.needs == "gpu" else "two CPU cores"
            runs = f"{count} run{'s' if count > 1 else ''}, about {_minutes(count * needs.minutes)} on {where}"
            said.append(f"`tpsnet run {name}` ({runs})")
    lengths = f" for {said_of_length(_configs(book, answer, evidence))}" if larger else ""
    return f"{', '.join(said)}{lengths}" if said else ""


def said_of_answer(answer: Answer) -> str:
    """A case's verdict, its grounds and the budget they stand on, and what is missing, as Markdown."""
    budget = f" *{answer.budget}.*" if any(part.n for part in answer.claim.parts) else ""
    waiting = f" Pending: {answer.waiting}." if answer.waiting else ""
    return f"{architecture.said_of_claim(answer.claim)}{budget}{waiting}"


def said_of_answers(found: Sequence[Answer]) -> str:
    """How many claims are settled, and which way their cases went, in a sentence of Markdown."""
    letters = sorted({answer.case.claim for answer in found})
    settled = sorted({answer.case.claim for answer in found if answer.verdict in (HOLDS, FAILS)})
    named = ", ".join(f"({letter})" for letter in settled)
    said = f"{len(settled)} {'is' if len(settled) == 1 else 'are'}" if settled else "none is"
    return (
        f"Of {len(letters)} claims, {said} settled by at least one test at the budget that it names"
        f"{f': {named}' if named else ''}. Of their {len(found)} tests,"
        f" {said_of_verdicts([answer.verdict for answer in found])}."
    )


def said_of_verdicts(verdicts: Sequence[str]) -> str:
    """How many of each verdict: `5 hold, 1 does not hold, 2 pending`."""
    counts = {verdict: list(verdicts).count(verdict) for verdict in (HOLDS, FAILS, OPEN, PENDING)}
    many = {HOLDS: "hold", FAILS: "do not hold"}
    return ", ".join(f"{n} {many.get(verdict, verdict) if n > 1 else verdict}" for verdict, n in counts.items() if n)
