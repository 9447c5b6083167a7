"""The table of claims: every test with its verdict, adjusted over the whole table, its budget and its records.

Of the budgets of a test the largest answers whose declared runs are all done; where there is none, the largest that has
an estimate, which settles nothing: the runs are declared beforehand, so that no look at a half-finished experiment
decides."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tpsnet_lib import stats
from tpsnet_lib.analysis.architecture import describe_budget, largest_run
from tpsnet_lib.analysis.groups import Group, hardware
from tpsnet_lib.claims.claims import CLAIMS, TESTS, Test
from tpsnet_lib.claims.evidence import Answer, Evidence
from tpsnet_lib.runs.experiments import Experiment
from tpsnet_lib.runs.records import Record, Store
from tpsnet_lib.stats import Estimate


@dataclass(frozen=True)
class Row:
    """A test of a claim, judged: the verdict and p-value after Holm's adjustment over the table."""

    name: str
    claim: str  # its letter
    original: str  # what the original says, with its figure and the place of it
    short: str  # the sentence in a few words
    sentence: str
    estimate: Estimate
    judged: Estimate  # above 0 where the claim is right
    difference: str  # the estimate in words, with its interval
    size: str  # the same without it
    remark: str  # what else is to be known beside the size; or empty
    elsewhere: str  # what larger runs say that are not all done, and smaller ones of the other sign; or empty
    smallest_effect: float
    budget: str  # size and length of the runs in words
    largest_run: tuple[int, int]  # parameters of the largest network, steps of the longest run
    records: tuple[Record, ...]
    pending: str  # the commands that are still to be run, of this budget and of larger ones
    notes: tuple[str, ...]
    others: tuple[str, ...]  # how many runs are done, if not all; what larger runs say that are not, and smaller ones
    tuned: bool  # whether the learning rate was tuned for each network
    complete: bool  # whether all declared runs are done; others settle nothing
    verdict: str = stats.PENDING
    p: float = 1.0
    p_is_of: str = ""  # the verdict that p belongs to (`stats.Adjusted`)

    @property
    def n(self) -> int:
        """How many seeds, trials or networks the estimate rests on, on the smaller side."""
        return self.estimate.n


Table = Mapping[str, tuple[Estimate, float]]  # (what is judged, smallest effect) by the name of a test


def judge_claims(
    store: Store, declared: Mapping[str, Experiment] | None = None, one_machine: bool = False
) -> list[Row]:
    """Every test of the claims (a) to (j) from the records of a store; their verdicts are adjusted together.

    `declared` stands in for declared experiments of the same names, and `one_machine` is of `Evidence`."""
    evidence = Evidence(store, declared, one_machine)
    answers = {test.name: list(test.answers(evidence)) for test in TESTS}
    chosen = {name: largest_answer(candidates) for name, candidates in answers.items()}
    pending = {name: _pending(answers[name], answer, evidence) for name, answer in chosen.items()}
    rows = []
    for test in TESTS:
        answer = chosen[test.name]
        rows.append(_row(test, answers[test.name], answer, pending[test.name]))
    return judged_by(stats.holm, rows)


def judged_by(holm: Callable[[Table], Mapping[str, stats.Adjusted]], rows: Sequence[Row]) -> list[Row]:
    """The rows with the verdicts and p-values that a rule gives to their whole table."""
    adjusted = holm({row.name: (row.judged, row.smallest_effect) for row in rows})
    verdicts = {name: each.verdict for name, each in adjusted.items()}
    verdicts |= {row.name: stats.NOT_SETTLED for row in rows if row.n and not row.complete}
    return [
        replace(row, verdict=verdicts[row.name], p=adjusted[row.name].p, p_is_of=adjusted[row.name].p_is_of)
        for row in rows
    ]


def holm_of_verdicts(table: Table) -> dict[str, stats.Adjusted]:
    """The verdicts by the rule that was in force when the first data were seen: each comparison has the verdict of its
    own interval, and one p-value, of all that this verdict says; these are adjusted over the table."""
    alone, p = {name: stats.verdict(*comparison) for name, comparison in table.items()}, []
    for name, comparison in table.items():
        above, below, other = stats.p_values(*comparison)
        p.append(max(below, other) if alone[name] == stats.NO_DIFFERENCE else min(above, below))
    adjusted = stats.holm_adjusted(p)
    return {
        name: stats.Adjusted(
            verdict if each <= stats.ALPHA or verdict == stats.PENDING else stats.NOT_SETTLED, each, verdict
        )
        for (name, verdict), each in zip(alone.items(), adjusted.tolist(), strict=True)
    }


def describe_table(rows: Sequence[Row]) -> str:
    """How many tests were made, and how many have which verdict: tests are counted, and not claims."""
    counts = Counter(row.verdict for row in rows)
    words = [f"{counts[one]} {many if counts[one] > 1 else one}" for one, many in stats.PLURALS.items() if counts[one]]
    claims = len({row.claim for row in rows})
    waiting = sum(row.n > 0 and not row.complete for row in rows)
    part = f" ({waiting} of those not settled wait for the rest of their runs)" if waiting else ""
    return f"Of {len(rows)} tests of {claims} claims, adjusted together by Holm's method, {', '.join(words)}{part}."


def largest_answer(answers: Sequence[Answer]) -> Answer:
    """The first answer whose declared runs are all done, else the first that has an interval; budgets fall."""
    complete = [answer for answer in answers if answer.complete]
    estimated = [answer for answer in answers if answer.estimate.has_interval]
    return [*complete, *estimated, answers[-1]][0]


def _other_runs(answers: Sequence[Answer], chosen: Answer) -> list[tuple[str, Answer]]:
    """Larger runs that are not all done, and smaller ones, with a word on which they are; neither judges anything."""
    if not chosen.estimate.n:
        return []
    at = answers.index(chosen)
    larger = [("larger runs, not all done", each) for each in answers[:at] if each.estimate.has_interval]
    smaller = [("smaller runs", each) for each in answers[at + 1 :] if each.complete]
    return [*larger, *smaller]


def _row(test: Test, answers: Sequence[Answer], answer: Answer, pending: str) -> Row:
    records = {record.id: record for group in answer.groups for record in group.records}
    others = [(which, each, _estimate_text(each.estimate, each.form)) for which, each in _other_runs(answers, answer)]
    notes = [
        f"{which.capitalize()}: {said}. They judge nothing: {describe_budget(each.groups)}."
        for which, each, said in others
    ]
    elsewhere = [
        f"{_size(each)} in {largest_run(each.groups)[1]:,}{', not all done' * which.startswith('larger')}"
        for which, each, _ in others
        if which.startswith("larger") or each.estimate.value * answer.estimate.value < 0
    ]
    has_runs = answer.estimate.n > 0
    done = sum(len(group.records) for group in answer.groups)
    declared = done + sum(group.missing for group in answer.groups)
    part = [f"{done} of {declared} declared runs; judged when all are done"]
    part *= has_runs and not answer.complete
    return Row(
        name=test.name,
        claim=test.claim,
        original=CLAIMS[test.claim],
        short=test.short,
        sentence=test.sentence + answer.scope,
        estimate=answer.estimate,
        judged=answer.judged,
        difference=f"{answer.measure * has_runs} {_estimate_text(answer.estimate, answer.form)}".lstrip(),
        size=f"{answer.measure * has_runs} {_size(answer)}".lstrip(),
        remark=answer.remark or _unequal_macs(answer.groups),
        elsewhere="; ".join(elsewhere),
        smallest_effect=answer.smallest_effect,
        budget=describe_budget(answer.groups),
        largest_run=largest_run(answer.groups),
        records=tuple(records.values()) if has_runs else (),
        pending=pending,
        notes=(*answer.notes, *notes, *_run_notes(answer.groups)) if has_runs else (),
        others=(*part, *(f"{which}: {said}" for which, _, said in others)),
        complete=answer.complete,
        tuned=all(group.experiment.startswith("study_") for group in answer.groups),
    )


def _run_notes(groups: Sequence[Group]) -> list[str]:
    """Notes on runs that are not in the means: those of another kind of machine, and those that failed; and on networks
    that no machine has in common."""
    notes, left_out = [], sum(group.left_out for group in groups)
    machines = [{hardware(record) for record in group.records} for group in groups]
    if left_out:
        names = " and ".join(sorted(set().union(*machines)))
        notes.append(f"Runs of one kind of machine are compared ({names}); {left_out} of another are left out.")
    if len(machines) > 1 and not set.intersection(*machines):
        notes.append("No kind of machine has runs of all these networks: the difference may be that of the machines.")
    if failed := sum(group.failed for group in groups if group.label):  # a failed trial of a search is at chance level
        notes.append(f"{failed} of the runs could not be finished, and no mean counts them.")
    return notes


def _estimate_text(estimate: Estimate, form: str, part: str = "") -> str:
    if form == "distance":  # has no sign
        return format(estimate, f"points {part}".strip()).replace("+", "")
    if form != "ratio":
        return format(estimate, f"{form} {part}".strip())
    if not estimate.n:
        return f"{estimate}"
    value, low, high = (math.exp(log) for log in (estimate.value, estimate.low, estimate.high))
    return f"{format(replace(estimate, value=value, low=low, high=high), f'.2 {part}'.strip())} times"


def _size(answer: Answer) -> str:
    """The value of an answer without its interval."""
    return _estimate_text(answer.estimate, answer.form, "value")


def _unequal_macs(groups: Sequence[Group]) -> str:
    """How many times the multiplications of the second network the first one has, of two that have runs; empty if they
    are about equal."""
    if len(groups) != 2 or not all(group.configs and group.label for group in groups):
        return ""
    times = groups[0].macs / groups[1].macs
    return "" if abs(math.log(times)) < math.log(1.25) else f"at {times:.2g} times the MACs"


def _pending(answers: Sequence[Answer], chosen: Answer, evidence: Evidence) -> str:
    """The commands that the chosen budget and larger ones still need, with their runs and minutes; empty if none."""
    groups = [group for answer in answers[: answers.index(chosen) + 1] for group in answer.groups]
    missing: dict[str, int] = {}
    for group in {(group.experiment, group.configs): group for group in groups}.values():
        if group.missing or not group.configs:
            missing[group.experiment] = missing.get(group.experiment, 0) + group.missing
    experiments = {name: evidence.experiment(name) for name in missing}
    names = [f"`{name}`" for name, e in experiments.items() if e is None]
    commands = [_command(e, missing[name]) for name, e in experiments.items() if e is not None]
    undeclared = [f"{', '.join(names)} (declared when the learning rates are known)"] if names else []
    return ", ".join(commands + undeclared)


def _command(experiment: Experiment, count: int) -> str:
    machine = "a GPU" if experiment.needs == "gpu" else "two CPU cores"
    runs = f"{count} run{'s' if count > 1 else ''}, about {count * experiment.minutes:,.0f} min on {machine}"
    return f"`tpsnet run {experiment.name}` ({runs})"
