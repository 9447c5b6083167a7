"""What the figures of the page do not say, from the records."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from tpsnet_lib import stats
from tpsnet_lib.analysis import original_results, peers, training
from tpsnet_lib.analysis.final_runs import Final, finals, leading
from tpsnet_lib.analysis.groups import Group
from tpsnet_lib.claims import judge
from tpsnet_lib.report import elements
from tpsnet_lib.runs import openings
from tpsnet_lib.runs.experiments import load_experiment
from tpsnet_lib.runs.records import Record, Store, committed_folder
from tpsnet_lib.runs.study import RATES

ROUNDED_WEIGHTS = (
    "The accuracies are those of the weights as they were opened; those that ship are rounded, and"
    ' <a href="#openings-shown">some score a few images fewer</a>.'
)


def items(
    recipes: Sequence[Final],
    rows: Sequence[judge.Row],
    earlier: Mapping[str, Sequence[judge.Row]],
) -> str:
    """A list in HTML, of all opened recipes. `rows` are the claims' tests, and `earlier` the same by each rule that was
    in force at first, by a sentence on what replaced it."""
    best = leading(recipes)
    shown = [
        *_of_accuracy(best),
        *_of_the_last_epoch(best, recipes),
        *_of_claims(rows),
        _of_rules(rows, earlier),
        _of_openings(best),
    ]
    folded = {
        "How the intervals of the first page are made": _of_intervals(best, recipes),
        "Times and weights": " ".join([*_of_minutes(best), ROUNDED_WEIGHTS]),
    }
    return f"<ul>{''.join(f'<li>{item}</li>' for item in shown)}</ul>" + "".join(
        f'<details class="folded"><summary>{title}</summary><p>{text}</p></details>'
        for title, text in folded.items()
        if text
    )


def _of_accuracy(best: Sequence[Final]) -> list[str]:
    stamps = {record.stamp for final in best for record in final.counted}
    data = [f"The images are one copy of the data set: {escape(stamp)}" for stamp in sorted(stamps) if "(" in stamp]
    exact = [final for final in best if "exact_n" in final.opened[0][1].metrics]
    if exact:
        n = exact[0].opened[0][1].metrics["exact_n"]
        links = (
            elements.group_link(
                final.counted[0].group_id,
                f"{final.over_images('exact_'):%.2 value} ({final.over_images('exact_'):%.1 interval})",
            )
            + f" {final.trained_on}"
            for final in exact
        )
        data.append(f"on the {n:,} test images with the original pixels, our accuracy is {' and '.join(links)}")
    notes = [f"{text[0].upper()}{text[1:]}." for text in ["; ".join(data)] if text]
    original = peers.published_model("TPSNet")
    own = sum(row["source"] == original["source"] for row in peers.others_in_budget())
    notes.append(
        "The original reports one run; lengths, recipes and choices of the published networks differ, and some kept the"
        " best of several readings of the test set: the ranks compare what is reported, not architectures. The list of"
        f" these is ours, not a survey: {own} are the original's own, and not all are residual."
    )
    return notes


def _of_the_last_epoch(best: Sequence[Final], recipes: Sequence[Final]) -> list[str]:
    """The differences from the original's last epoch; empty without recipes."""
    original, last = peers.published_model("TPSNet"), original_results.CURVE[max(original_results.CURVE)]
    differences = "; ".join(
        f"{final.trained_on} {training.against_published(final, {**original, 'accuracy': last}, recipes):points.2}"
        for final in best
    )
    curve = f"({100 * last:.2f}%, in its results/train_data.csv)"
    return [f"From the original's last epoch {curve} the differences are: {differences}."] if best else []


def _of_intervals(best: Sequence[Final], recipes: Sequence[Final]) -> str:
    """How the intervals of the first screen are made; empty where no recipe has two seeds."""
    groups = training.seed_groups(recipes)
    sd, freedom = stats.pooled_sd(list(groups.values()))
    if not best or not freedom:
        return ""
    each = ", ".join(
        f"<em>{escape(name)}</em> {100 * stats.pooled_sd([group])[0]:.2f}" for name, group in groups.items()
    )
    return (
        '<span id="intervals">'
        "The interval of an accuracy is Wilson's, over the choice of test images; what seeds change is their range. The"
        " interval of a difference from the original adds two variances: of seeds, s² (1/k + 1) for our k runs and its"
        f" one, with s = {100 * sd:.2f} points pooled over our recipes as if they had one spread ({each}; {freedom}"
        " degrees of freedom; the sum has Welch and Satterthwaite's); and of the images, p (1 − p) / n on either side,"
        " taken as independent, which makes it too wide rather than too narrow. Against the original a difference of"
        " less"
        f" than {100 * training.SMALLEST_GAIN:g} points would not matter. The verdicts of all opened recipes are"
        " adjusted together by Holm's method.</span>"
    )


# No record has the declaration.
CARD_WIDE_LENGTH = "<em>card_wide</em> had another length than its committed declaration named"


def what_the_first_lacked() -> str:
    """What the openings before the rule of declaration lacked, from the committed log and the records, in words."""
    early, store = openings.before_the_rule(), Store(committed_folder())
    lines = [line for line in openings.all_openings(store) if line["record"] in early]
    trained = {line["record"]: str(store.load(line["record"]).provenance["commit"]) for line in lines}
    called = {record.id: final.name for final in finals(store) for record, _ in final.opened}
    unclean = [line["record"] for line in lines if "+" in line["commit"] + trained[line["record"]]]
    names = sorted({called[run_id] for run_id in unclean if run_id in called})
    undeclared = sum(line["experiment"] is None for line in lines)
    unclean_part = f"{_listed(names)} trained or opened from a tree that was not clean" if names else ""
    undeclared_part = f"{undeclared} undeclared, for a look" if undeclared else ""
    return f"{', '.join(filter(None, (unclean_part, undeclared_part)))}; {CARD_WIDE_LENGTH}"


def undeclared_seeds(store: Store) -> str:
    """Which seeds were opened undeclared and are left out, and what their recipe's mean would be with them; empty if
    there are none. (The third mistake counts its pairs with them too.)"""
    recipes, parts = finals(store), []
    groups = training.seed_groups(recipes, looks=True)
    for final in (final for final in recipes if final.looks):
        seeds = ", ".join(f"{record.config.seed} ({test.metrics['accuracy']:.2%})" for record, test in final.looks)
        mean = f"{stats.mean(groups[final.name]):% value}"
        parts.append(f"seed {seeds} of <em>{escape(final.name)}</em>, whose mean would be {mean}")
    return f"<p>Opened undeclared and left out: {'; '.join(parts)}.</p>" if parts else ""


def _listed(names: Sequence[str]) -> str:
    words = [f"<em>{escape(name)}</em>" for name in names]
    return " and ".join(", ".join(part) for part in (words[:-1], words[-1:]) if part)


REPLACED = {"two_cores_narrow": "two_cores", "card_wide": "card_broad"}  # recipes, by those written after them


def replaced() -> str:
    """Which recipes were replaced when their test result was known, in words."""
    return ", ".join(f"<em>{old}</em> by <em>{new}</em>" for old, new in REPLACED.items())


def _of_openings(best: Sequence[Final]) -> str:
    store, early = Store(committed_folder()), openings.before_the_rule()
    opened = [store.load(line["record"]).group_id for line in openings.all_openings(store)]
    ours = [final.trained_on for final in best if all(record.id in early for record in final.counted)]
    among = f", those of our network {' and '.join(ours)} among them," if ours else ""
    return (
        f"The test set was opened for {len(opened)} runs of {len(set(opened))} recipes (not counting weights"
        " scored again and the run of chapter 4), some of which were replaced when their test result was known:"
        f" {replaced()}. {len(early)} of these openings{among} came before we required that a run is declared, in a"
        " clean tree, before its training. The"
        ' <a href="#openings-shown">list of openings</a> has them in order, with what they lacked.'
    )


def _of_minutes(best: Sequence[Final]) -> list[str]:
    """That the records of runs which took turns on a card have other seconds than the time that is quoted."""
    turns = [f"<em>{escape(final.name)}</em>" for final in best if any(map(_took_turns, final.counted))]
    said = (
        "is from start to finish: the <code>seconds</code> in the records of runs that took turns on a card are less;"
        " other times are these seconds"
    )
    return [f"The time of {' and '.join(turns)} {said}."] if turns else []


def _took_turns(record: Record) -> bool:
    return record.seconds > 1.5 * float(record.metrics["seconds"])


def _of_claims(rows: Sequence[judge.Row]) -> list[str]:
    rates = load_experiment(RATES).runs
    measured = [row for row in rows if row.n and row.answer.form != "ratio"]  # a rate changes no time
    tuned, drawn = sum(row.tuned for row in measured), sum(row.drawn for row in measured)
    return [
        f"In {tuned} of {len(measured)} tests of accuracy each network had its own tuned learning rate"
        f" (the best of {len({run.config.train.lr for run in rates})} or more, one run of"
        f" {rates[0].config.train.epochs:g} epochs each); {f'in {drawn}, of searches, it was drawn; ' * bool(drawn)}in"
        f" {len(measured) - tuned - drawn} it was another network's (with dropout, or at equal MACs) or is what the"
        " test asks.",
        "Intervals of claims are over seeds or draws: all runs are scored on one set of validation images, which chose"
        " the rates too.",
    ]


def earlier_rules(store: Store, rows: Sequence[judge.Row]) -> dict[str, list[judge.Row]]:
    """The claims' tests by each rule that was replaced after the data had been seen, by a sentence on the new one."""
    return {
        "Runs are compared within each kind of machine, in place of one kind of machine alone": judge.judge_claims(
            store, one_machine=True
        ),
        "Three questions of each test (above 0? below the smallest effect? above minus that?) are adjusted over the"
        " table, each for itself, in place of one p of what its own interval said": judge.judged_by(
            judge.holm_by_the_earlier_rule, rows
        ),
    }


LATE_RATE = 0.7  # of the study

RUNS_CHOSEN_LATE = {  # what of an experiment was declared when its first runs, or those of another, had been seen
    "effects_layers": "five of the eight seeds",
    "effects_width": "five of the eight seeds",
    "search_classroom": "400 of the 520 draws",
    "search_sgd_rate": "the range of the rates",
    RATES: f"the rate of {LATE_RATE:g}, when 0.3 was the best of four for three networks (a still larger one, of"
    " <em>study_rates_beyond</em>, did worse for the wide network, the only one that was tried at it)",
    "study_long": "three blocks as the shallow side, when that of one block had been judged (which counts among the"
    " tests)",
    "epoch_times": "all runs, when the times of the study's own (12 epochs) had not settled their test; one block"
    " stayed the wide side, where other tests took three",
    "study_blocks_again": "all runs, when five seeds a side had not settled their test, and three blocks as the shallow"
    " side (the original's have three or more), when that of one block had failed (both count among the tests)",
    "study_long_again": "all runs, when three seeds a side had not settled their tests (which count among the tests)",
    "study_sgd_rate": "all runs, when random trials had been judged (which count among the tests)",
    "study_adam": "all runs, and the rates of three optimizers that they were chosen from (<em>study_adam_rates</em>),"
    " when random trials had been judged (which count among the tests); larger rates, tried when its verdict was known"
    " (<em>study_adam_rates_beyond</em>), were no better",
    "study_width_again": "all runs, when five seeds a side had not settled their test (which counts among the tests)",
}


FIRST_SEEDS = {"effects_layers": {0, 1, 2}, "effects_width": {0, 1, 2}}  # declared before a run had been seen


LATE_LABELS = {"study_long": "B=3, 48 epochs"}  # of an experiment that was declared whole, what was judged late


def _chosen_late(group: Group) -> str:
    """The experiment of `RUNS_CHOSEN_LATE` that runs which count in a group are of, or owe their rate to; or empty."""
    if group.label != LATE_LABELS.get(group.experiment, group.label):
        return ""
    seeds = {record.config.seed for record in group.records}
    if group.experiment in RUNS_CHOSEN_LATE and not seeds <= FIRST_SEEDS.get(group.experiment, set()):
        return group.experiment
    at_the_late_rate = any(record.config.train.lr == LATE_RATE for record in group.records)
    return RATES if group.experiment.startswith("study_") and at_the_late_rate else ""


def by_late_runs(rows: Sequence[judge.Row]) -> list[judge.Row]:
    """The settled tests that rest on `RUNS_CHOSEN_LATE`."""
    return [row for row in rows if row.settled and any(map(_chosen_late, row.answer.groups))]


def only_by_late_choices(rows: Sequence[judge.Row], earlier: Mapping[str, Sequence[judge.Row]]) -> set[str]:
    """The names of the tests that only rules or runs settle which were chosen after data had been seen."""
    return only_by_new_rules(rows, earlier) | {row.name for row in by_late_runs(rows)}


def only_by_new_rules(rows: Sequence[judge.Row], earlier: Mapping[str, Sequence[judge.Row]]) -> set[str]:
    """The names of the tests that are settled now and were not by some earlier rule."""
    open_before = {row.name for then in earlier.values() for row in then if not row.settled}
    return {row.name for row in rows if row.settled and row.name in open_before}


def _of_rules(rows: Sequence[judge.Row], earlier: Mapping[str, Sequence[judge.Row]]) -> str:
    """Which tests are settled only by rules or runs that were chosen after data had been seen; what each rule changed,
    and which runs these are, waits in a fold."""
    late = len(only_by_late_choices(rows, earlier))
    each = "".join(f"<p>{_of_rule(sentence, rows, then)}</p>" for sentence, then in earlier.items())
    return (
        f"{late} verdicts (†) stand only by rules or runs that were chosen after data had been seen."
        '<details class="folded"><summary>The rules and those before them, and the runs</summary>'
        f"{each}{_of_runs(by_late_runs(rows))}{_of_looks(rows)}</details>"
    )


def _of_runs(rows: Sequence[judge.Row]) -> str:
    """Which runs were declared late, and the tests that rest on them."""
    if not rows:
        return ""
    runs = [f"of <em>{name}</em> {what}" for name, what in RUNS_CHOSEN_LATE.items()]
    tests = ", ".join(elements.test_link(row, f"({row.claim}) {row.short}") for row in rows)
    return (
        f"<p>When the first runs had been seen, these were declared or chosen: {'; '.join(runs)}. All these runs count,"
        f" so that the p of the settled tests that rest on them may be too small: {tests}.</p>"
    )


LOOKS = {  # that no test of the table counts, and at how many tests each was
    "at (j) in the study's own times": 1,
    "at both dropouts in the first 120 draws": 2,
    "at 0.01 in the first search": 1,
    "at SGD beside the Adam family in it and in its first 120 draws": 2,
}


def _of_looks(rows: Sequence[judge.Row]) -> str:
    """What `LOOKS` would change in the table of claims if each test that was looked at counted in it twice."""
    count = sum(LOOKS.values())
    none = stats.Estimate(math.nan, math.nan, math.nan, 0, "looks")
    more = {f"look {number}": (none, stats.SMALLEST_EFFECT) for number in range(count)}
    then = judge.judged_by(lambda table: stats.holm({**table, **more}), rows)
    lost = [elements.test_link(a, a.short) for a, b in zip(rows, then, strict=True) if a.settled and not b.settled]
    changed = f"not settled would be: {', '.join(lost)}" if lost else "all verdicts stand"
    return f"<p>Looks {', '.join(LOOKS)} are no tests of the table. With these {count} {changed}.</p>"


def _of_rule(sentence: str, rows: Sequence[judge.Row], earlier: Sequence[judge.Row]) -> str:
    """What a rule changed that was chosen after data had been seen."""
    now, before = ({row.name: row for row in each if row.settled} for each in (rows, earlier))
    parts = [
        f"; {', '.join(elements.test_link(row, f'({row.claim}) {row.short}') for row in these.values())} only {when}"
        for these, when in ((_without(now, before), "now"), (_without(before, now), "then"))
        if these
    ]
    tests = "test" if len(now) == 1 else "tests"
    return f"{sentence}. It settles {len(now)} {tests} of the claims, the earlier one {len(before)}{''.join(parts)}."


def _without(rows: Mapping[str, judge.Row], others: Mapping[str, judge.Row]) -> dict[str, judge.Row]:
    return {name: row for name, row in rows.items() if name not in others}
