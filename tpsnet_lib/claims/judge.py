"""The table of claims: every test with its verdict, adjusted over the whole table, its budget and its records.

Of the budgets of a test the largest answers whose declared runs are all done; where there is none, the largest that has
an estimate, which settles nothing: the runs are declared beforehand, so that no look at a half-finished experiment
decides."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tpsnet_lib import stats
from tpsnet_lib.analysis import recipe_glossary
from tpsnet_lib.analysis.architecture import budget, largest_run
from tpsnet_lib.analysis.groups import NEAR, Group
from tpsnet_lib.claims.claims import CLAIMS, TESTS, Test
from tpsnet_lib.claims.evidence import Answer, Evidence
from tpsnet_lib.config import RunConfig
from tpsnet_lib.runs.experiments import Experiment, load_experiment
from tpsnet_lib.runs.records import Record, Store
from tpsnet_lib.runs.study import RATES, RATES_BEYOND, RATES_OF_ADAM
from tpsnet_lib.stats import Estimate


@dataclass(frozen=True)
class Row:
    """A test of a claim, judged: the answer of one budget, beside what other budgets say, which judges nothing.

    `others` come with a word on which runs they are; `pending` has the commands that are still to be run, of this
    budget and of larger ones."""

    test: Test
    answer: Answer
    others: tuple[tuple[str, Answer], ...]
    pending: str
    verdict: str = stats.PENDING  # after Holm's adjustment over the table, as p
    p: float = 1.0
    p_is_of: str = ""  # the verdict that p belongs to (`stats.Adjusted`)
    verdicts_before: Mapping[str, str] = field(default_factory=dict)  # on what was judged in its place, by name

    @property
    def name(self) -> str:
        """The name of the test."""
        return self.test.name

    @property
    def claim(self) -> str:
        """The letter of the claim that the test belongs to."""
        return self.test.claim

    @property
    def original(self) -> str:
        """What the original says, with its figure and the place of it."""
        return CLAIMS[self.claim]

    @property
    def short(self) -> str:
        """The sentence in a few words."""
        return self.test.short

    @property
    def sentence(self) -> str:
        """The sentence, with what these runs add to it."""
        return self.test.sentence + self.answer.scope

    @property
    def estimate(self) -> Estimate:
        """What the runs say, as it is shown."""
        return self.answer.estimate

    @property
    def n(self) -> int:
        """How many seeds, trials or networks the estimate rests on, on the smaller side."""
        return self.estimate.n

    @property
    def size(self) -> str:
        """The value of the estimate in words, without its interval."""
        return self.answer.size

    @property
    def remark(self) -> str:
        """What else is to be known beside the size, or empty."""
        groups = self.answer.groups
        costs = ", ".join(filter(None, (_unequal_costs(groups), _rates(groups))))
        said = "where runs overfit by under a point" if self.answer.too_short else self.answer.remark
        verdicts = self.verdicts_before
        looks = ", ".join(
            f"{name} ({each.size}, {verdicts[name]})" for name, each in self.answer.before.items() if verdicts
        )
        return "; ".join(filter(None, (costs, said, looks and f"before: {looks}")))

    @property
    def budget(self) -> str:
        """The size and the length of the runs in words."""
        return str(budget(self.answer.groups))

    @property
    def largest_run(self) -> tuple[int, int]:
        """The parameters of the largest network, and the steps of the longest run."""
        return largest_run(self.answer.groups)

    @property
    def records(self) -> tuple[Record, ...]:
        """The records that the estimate rests on."""
        records = {record.id: record for group in self.answer.groups for record in group.records}
        return tuple(records.values()) if self.n else ()

    @property
    def tuned(self) -> bool:
        """Whether the learning rate was tuned for each network; with dropout, or at equal MACs, it was not."""
        return all(each.configs and each.config.train.lr in _rates_tried(each.config) for each in self.answer.groups)

    @property
    def drawn(self) -> bool:
        """Whether the runs are trials of a search, which draws their learning rates."""
        return _drawn(self.answer)

    @property
    def settled(self) -> bool:
        """Whether its runs decide it, one way or the other."""
        return self.verdict not in (stats.NOT_SETTLED, stats.PENDING)

    @property
    def turns(self) -> bool:
        """Whether the interval of other runs, such as another pair of networks, or of an earlier look says the
        opposite: it lies above 0 where the test does not hold, or below the smallest effect where it holds."""
        others = [each for _, each in self.others] + list(self.answer.before.values())
        if self.verdict == stats.HOLDS:
            return any(each.judged.high < each.smallest_effect for each in others)
        return self.verdict == stats.DOES_NOT_HOLD and any(each.judged.low > 0 for each in others)

    @property
    def elsewhere(self) -> str:
        """What larger runs say that are not all done, and smaller ones of the other sign, or empty."""
        said = []
        for which, each in self._other_views:
            here = f"{each.size}{each.scope or f' in {largest_run(each.groups)[1]:,} steps'}"
            said.append(f"{here}, not all done" if which == LARGER else f"yet {here}")
        return "; ".join(said)

    @property
    def _other_views(self) -> list[tuple[str, Answer]]:
        """Those of the other budgets that a reader must see: larger ones, those of the other sign, and times of equally
        large networks that do not agree. Beside runs of the study a search is an earlier look, and no view."""
        return [
            (which, each)
            for which, each in self.others
            if _drawn(each) == self.drawn
            and (
                which == LARGER
                or (which == OTHER and each.form == "ratio" and each.estimate.low <= 0)
                or each.estimate.value * self.estimate.value < 0
            )
        ]

    @property
    def beside(self) -> tuple[str, ...]:
        """How many runs are done, if not all, and what larger runs and those of the other sign say."""
        done = sum(len(group.records) for group in self.answer.groups)
        declared = done + sum(group.missing for group in self.answer.groups)
        waiting = self.n > 0 and not self.answer.complete
        part = [f"{done} of {declared} declared runs; judged when all are done"] * waiting
        views = dict[str, list[str]]()
        for which, each in self._other_views:
            views.setdefault(which, []).append(f"{each.in_words()}{each.scope}")
        return (*part, *(f"{which}: {', '.join(said)}" for which, said in views.items()))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the estimate is, what other budgets say, and which runs it leaves out."""
        said = [
            f"{which.capitalize()}: {each.in_words()}{each.scope}. Not used for the verdict: {budget(each.groups)}"
            f"{_other_recipe(each.groups, self.answer.groups)}."
            for which, each in self.others
        ]
        before = self.answer.before.items()
        said_before = [f"{name}: {each.in_words()}, {self.verdicts_before.get(name)}" for name, each in before]
        looks = [f"Judged before, each a test of this table: {'; '.join(said_before)}."] * bool(before)
        later = [f"{self.answer.later}."] * bool(self.answer.later)
        return (*self.answer.notes, *looks, *later, *said, *_run_notes(self.answer.groups)) if self.n else ()


LARGER, OTHER = "larger runs, not all done", "other runs"
SMALLER, SHORTER, SMALLER_AND_SHORTER = "smaller runs", "shorter runs", "smaller, shorter runs"
Table = Mapping[str, tuple[Estimate, float]]  # (what is judged, smallest effect) by the name of a test


def judge_claims(store: Store, one_machine: bool = False) -> list[Row]:
    """Every test of the claims (a) to (j) from the records of a store; their verdicts are adjusted together.

    `one_machine` is of `Evidence`."""
    evidence = Evidence(store, one_machine)
    rows = []
    for test in TESTS:
        answers = list(test.answers(evidence))
        answer = largest_answer(answers)
        rows.append(Row(test, answer, _other_runs(answers, answer), _pending(answers, answer, evidence)))
    return judged_by(stats.holm, rows)


def judged_by(holm: Callable[[Table], Mapping[str, stats.Adjusted]], rows: Sequence[Row]) -> list[Row]:
    """The rows with the verdicts and p-values that a rule gives to their whole table.

    What was judged before in the place of a test counts in it as a comparison of its own."""
    table = {row.name: (row.answer.judged, row.answer.smallest_effect) for row in rows}
    for row in rows:
        before = row.answer.before.items()
        table |= {f"{row.name}, {name}": (each.judged, each.smallest_effect) for name, each in before}
    adjusted = holm(table)
    verdicts = {name: each.verdict for name, each in adjusted.items()}
    verdicts |= {row.name: stats.NOT_SETTLED for row in rows if row.n and not row.answer.complete}
    return [
        replace(
            row,
            verdict=verdicts[row.name],
            p=adjusted[row.name].p,
            p_is_of=adjusted[row.name].p_is_of,
            verdicts_before={name: verdicts[f"{row.name}, {name}"] for name in row.answer.before},
        )
        for row in rows
    ]


def holm_by_the_earlier_rule(table: Table) -> dict[str, stats.Adjusted]:
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


def earlier_looks(rows: Sequence[Row]) -> int:
    """How many comparisons were judged before in the place of these tests, and count in their table."""
    return sum(len(row.answer.before) for row in rows)


def describe_table(rows: Sequence[Row]) -> str:
    """How many tests were made, and how many have which verdict: tests are counted, and not claims."""
    claims = len({row.claim for row in rows})
    waiting = sum(row.n > 0 and not row.answer.complete for row in rows)
    part = f" ({waiting} of those not settled wait for the rest of their runs)" if waiting else ""
    looks = earlier_looks(rows)
    adjusted = f"adjusted together{f', with {looks} earlier looks,' * bool(looks)} by Holm's method"
    return f"Of {len(rows)} tests of {claims} claims, {adjusted}, {count_verdicts(rows)}{part}."


def count_verdicts(rows: Sequence[Row]) -> str:
    """How many of some tests have which verdict, in words."""
    counts = Counter(row.verdict for row in rows)
    words = [f"{counts[one]} {many if counts[one] > 1 else one}" for one, many in stats.PLURALS.items() if counts[one]]
    return ", ".join(words)


def largest_answer(answers: Sequence[Answer]) -> Answer:
    """The first answer whose declared runs are all done, else the first that has an interval; budgets fall."""
    complete = [answer for answer in answers if answer.complete]
    estimated = [answer for answer in answers if answer.estimate.has_interval]
    return [*complete, *estimated, answers[-1]][0]


def _other_runs(answers: Sequence[Answer], chosen: Answer) -> tuple[tuple[str, Answer], ...]:
    """Larger runs that are not all done, and smaller or equally long ones, unless they are among the chosen ones; none
    where the chosen answer has no runs."""
    if not chosen.estimate.n:
        return ()
    at = answers.index(chosen)
    larger = [(LARGER, each) for each in answers[:at] if each.estimate.has_interval and _has_more(each, chosen)]
    others = [each for each in answers[at + 1 :] if each.complete and _has_more(each, chosen)]
    return (*larger, *((_kind_of_runs(each, chosen), each) for each in others))


def _drawn(answer: Answer) -> bool:
    """Whether the runs of an answer are trials of a search."""
    return any(group.experiment.startswith("search_") for group in answer.groups)


def _other_recipe(groups: Sequence[Group], beside: Sequence[Group]) -> str:
    """The ingredients that the recipe of some runs has and that of others lacks, or the reverse; empty if none."""
    configs = [group.config for group in (groups[0], beside[0]) if group.configs]
    if len(configs) < 2:
        return ""
    if groups[0].experiment.startswith("search_"):
        return "; the recipe is drawn"
    words = [
        word.name for word in recipe_glossary.WORDS if len({bool(word.setting(config)) for config in configs}) == 2
    ]
    return f"; the recipe differs in {', '.join(words)}" if words else ""


def _has_more(answer: Answer, chosen: Answer) -> bool:
    """Whether an answer has runs that the chosen one lacks."""
    return not _runs(answer) <= _runs(chosen)


def _runs(answer: Answer) -> set[str]:
    return {record.id for group in answer.groups for record in group.records}


def _kind_of_runs(answer: Answer, chosen: Answer) -> str:
    """How the runs of one answer compare with those of the chosen one, in size and length."""
    (parameters, steps), (most, longest) = largest_run(answer.groups), largest_run(chosen.groups)
    smaller, shorter = parameters < most / NEAR, steps < longest
    if smaller:
        return SMALLER_AND_SHORTER if shorter else SMALLER
    return SHORTER if shorter else OTHER


def _run_notes(groups: Sequence[Group]) -> list[str]:
    """Notes on runs that are not in the means: those of another kind of machine, and those that failed; and on networks
    that no machine has in common."""
    notes, left_out = [], sum(group.left_out for group in groups)
    machines = [{record.hardware for record in group.records} for group in groups]
    if left_out:
        names = " and ".join(sorted(set().union(*machines)))
        notes.append(f"Runs of one kind of machine are compared ({names}); {left_out} of another are left out.")
    if len(machines) > 1 and not set.intersection(*machines):
        notes.append("No kind of machine has runs of all these networks: the difference may be that of the machines.")
    if failed := sum(group.failed for group in groups if group.label):  # a failed trial of a search is at chance level
        notes.append(f"{failed} of the runs could not be finished, and no mean counts them.")
    return notes


def _unequal_costs(groups: Sequence[Group]) -> str:
    """What the first of two networks that have runs costs beside the second; empty if no more."""
    known = len(groups) == 2 and all(group.configs and group.label for group in groups)
    return groups[0].cost_beside(groups[1]) if known else ""


def _rates(groups: Sequence[Group]) -> str:
    """The learning rates of two networks of the study where they differ, and which is the largest that was tried for
    its network, so that a larger one might be better; empty: neither."""
    configs = [group.config for group in groups if group.experiment.startswith("study_")]
    rates = [f"{config.train.lr:g}{' (largest tried)' * at_the_border(config)}" for config in configs]
    if len(rates) != 2 or (rates[0] == rates[1] and not at_the_border(configs[0])):
        return ""
    return f"rates {' and '.join(rates)}"


def at_the_border(config: RunConfig) -> bool:
    """Whether a run has the largest rate that was tried for its network and optimizer; False where none was."""
    tried = _rates_tried(config)
    return bool(tried) and config.train.lr >= max(tried)


def _rates_tried(config: RunConfig) -> set[float]:
    """The rates that were tried for the network and optimizer of a run, to choose one."""
    runs = [run.config for name in (RATES, RATES_BEYOND, *RATES_OF_ADAM) for run in load_experiment(name).runs]
    same = [run for run in runs if (run.model, run.train.optimizer) == (config.model, config.train.optimizer)]
    return {run.train.lr for run in same}


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
