"""The landing page: the answer so far, where it stands, three mistakes and their size, the claims, what is pending."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

from matplotlib.figure import Figure

from tpsnet_lib.analysis import cost
from tpsnet_lib.analysis.final_runs import Final, finals
from tpsnet_lib.claims import judge, mistakes
from tpsnet_lib.config import PARAMETER_BUDGET
from tpsnet_lib.data import datasets
from tpsnet_lib.plots import style, training
from tpsnet_lib.progress import duration
from tpsnet_lib.report import page, run_notebooks
from tpsnet_lib.report.page import Section
from tpsnet_lib.runs import experiments
from tpsnet_lib.runs.records import Record, Store, held_out
from tpsnet_lib.runs.test_set import TestResult
from tpsnet_lib.stats import SMALLEST_EFFECT


def final_records(store: Store) -> list[Final]:
    """The recipes that were opened on the test set because their experiment is declared final, each with all its seeds,
    the best validation accuracy first, and last those that have none."""
    return [final for final in finals(store) if final.opened]


def leading(found: Sequence[Final]) -> list[Final]:
    """The best recipe by validation accuracy; the best of those that no GPU trained, if that is another one; and one
    that has no run with held-out images yet, so that nothing can choose it."""
    without = [final for final in found if all(record.provenance["device"] == "cpu" for record in final.counted)]
    unchosen = [final for final in found if not final.held_out and found[0].held_out]
    return [*found[:1], *(final for final in without[:1] if final is not found[0]), *unchosen[:1]]


def _head(final: Final, found: Sequence[Final]) -> str:
    if final is found[0]:
        return f"The best {'network that has a record' if len(final.counted) == 1 else 'recipe that has records'}"
    if found[0].held_out and not final.held_out:
        return f"The recipe of {final.name}, which has no held-out run yet and takes no part in that choice,"
    return "The best without a GPU"


def sections(facts: Mapping[str, Any], store: Store, fresh: Record | None, synthetic: bool) -> list[Section]:
    """The sections before the notebooks: the answer so far, where it stands among published networks, three mistakes
    of the original, its claims, this machine's run, what is pending."""
    found, judged = final_records(store), judge.judged(store)
    about = f'<p>{judge.describe_table(judged)} <a href="#claims">Each with its records.</a></p>'
    shown = [
        Section("The answer so far", answer(found) + _seeds(found) + about, "answer"),
        Section("Where that stands", _standing(found), "pareto"),
        Section("Three mistakes, and their size", _mistakes(store), "mistakes"),
        Section("The original's claims, tested", _claims(judged), "claims"),
    ]
    if synthetic:
        note = (
            "<p><strong>The notebooks below ran on shapes10, small synthetic pictures that the library draws"
            " itself.</strong> Their figures show that everything works; they say nothing about CIFAR-10.</p>"
        )
        shown.insert(0, Section("Synthetic images", note, "synthetic"))
    if fresh is not None:
        shown.append(Section("This machine's own run", _own_run(fresh, facts), "own"))
    return [*shown, Section("What is still to be run", _pending(store), "pending")]


def answer(found: Sequence[Final]) -> str:
    """The results of the leading recipes, a paragraph each: test accuracy with its interval and n, what it took, on
    what."""
    original = next(row for row in cost.published() if row["model"] == "TPSNet")
    if not found:
        return (
            "<p>No committed record has been opened on the test set yet. The published TPSNet reports"
            f" {100 * original['accuracy']:.2f}% at {original['parameters']:,} parameters; the notebooks below say how"
            " the question is being answered.</p>"
        )
    told = (f"{_head(final, found)} reaches {_result(final, original)}" for final in leading(found))
    return "".join(f"<p>{each}</p>" for each in told)


def _result(final: Final, original: Mapping[str, Any]) -> str:
    """What one recipe reached, from its accuracy on, to how far that is from the original's."""
    records, said = final.counted, final.opened[0][1].metrics
    single = len(records) == 1
    grounds = (
        "one network, one crop, n = 1 seed, Wilson interval at 95%"
        if single
        else f"the mean of n = {len(records)} networks from different seeds, one crop each, t interval at 95%"
    )
    fitted = ""
    if (given := records[0].config.data).fit_on == "all":
        fitted = f" fitted on {given.train_size or sum(map(len, datasets.split(given.dataset))):,} training images,"
    links = " ".join(page.record_link(record.id) for record in records)
    exact = ""
    if "exact_n" in said:
        of_exact = f"{final.accuracy('exact_'):%}"
        exact = f" On the {said['exact_n']:,} images with exactly the original pixels it is {of_exact}."
    gap = 100 * (final.accuracy().value - original["accuracy"])
    theirs = f"{100 * original['accuracy']:.2f}% ({original['epochs']:g} epochs on a {original['hardware']})"
    return (
        f"<strong>{final.accuracy():%}</strong> on the {said['n']:,} test images of"
        f" {said['fingerprint']['stamp']}, {abs(gap):.2f} points {'above' if gap >= 0 else 'below'} the published"
        f" TPSNet's {theirs}, with {records[0].metrics['parameters']:,} of {PARAMETER_BUDGET:,} parameters,{fitted}"
        f" {records[0].config.train.epochs:g} epochs and {_time(records)}: experiment <em>{final.name}</em>,"
        f" record{'' if single else 's'} {links}, {grounds}.{exact}"
    )


def _time(records: Sequence[Record]) -> str:
    """What the training of each took, on what: a range for those that ran on the same."""
    if len({_machine(record) for record in records}) == 1:
        return f"{_range(records)} of training{' each' if len(records) > 1 else ''} on {records[0].hardware}"
    told = []
    for machine in dict.fromkeys(map(_machine, records)):
        there = [record for record in records if _machine(record) == machine]
        seeds = ", ".join(str(record.config.seed) for record in there)
        told.append(f"{_range(there)} (seed{'s' if len(there) > 1 else ''} {seeds}, {machine})")
    return f"training of {', '.join(told)}"


def _range(records: Sequence[Record]) -> str:
    times = sorted(record.metrics["seconds"] for record in records)
    return " to ".join(dict.fromkeys(map(duration, (times[0], times[-1]))))


def _machine(record: Record) -> str:
    """What a run trained on, a processor with how many threads; an older record does not say how many."""
    threads = record.provenance.get("threads") if record.provenance["device"] == "cpu" else None
    return record.hardware + (f", {threads} thread{'s' if threads > 1 else ''}" if threads else "")


def said_of_seeds(final: Final) -> str:
    """The accuracy of each network of a recipe, if it has several seeds, each with its Wilson interval."""
    if len(final.opened) == 1:
        return ""
    each = [f"{_percent(_interval(test, ''))} from seed {record.config.seed}" for record, test in final.opened]
    return f"Each alone, with its Wilson interval: {', '.join(each)}."


def _seeds(found: Sequence[Final]) -> str:
    """A row for each network of the leading recipes of several seeds: accuracy with Wilson's interval, and cost."""
    several = [final for final in leading(found) if len(final.opened) > 1]
    pairs = [(final, record, test) for final in several for record, test in final.opened]
    if not pairs:
        return ""
    rows = [
        {
            "recipe": final.name,
            "seed": record.config.seed,
            "all": _percent(_interval(test, "")),
            "exact": _percent(_interval(test, "exact_")) if "exact_n" in test.metrics else None,
            "time": duration(record.metrics["seconds"]),
            "on": _machine(record),
            "record": page.record_link(record.id),
        }
        for final, record, test in pairs
    ]
    said = pairs[0][2].metrics
    heads = {"recipe": "recipe", "seed": "seed", "all": f"all {said['n']:,} images"}
    heads |= {"exact": f"the {said['exact_n']:,} exact ones"} if "exact_n" in said else {}
    heads |= {"time": "training", "on": "on", "record": "record"}
    return page.table(rows, heads, "Each network, with its Wilson interval at 95%.")


def _standing(found: Sequence[Final]) -> str:
    alt = "Test accuracy against parameters: the published networks, and the best of this report's records."
    records = [record for final in leading(found) for record in final.counted]
    text = "Test accuracy against parameters. Published figures are as their authors report them."
    shown = page.figure(frontier(found), alt, style.caption(text, records), records=[record.id for record in records])
    return f"{shown}<p>What each published network used, with its source, is in notebook 4.</p>"


def frontier(found: Sequence[Final]) -> Figure:
    """The leading recipes among the published networks: test accuracy against parameters."""
    best = [cost.final_row(replace(final, name=f"ours, {final.name}")) for final in leading(found)]
    return training.pareto([*best, *cost.published()], "parameters")


MISTAKES = {  # what the original did, what our records say of it, and where a notebook shows it
    "The best test epoch": (
        "It kept the epoch with the lowest test loss and reported that one's test accuracy.",
        mistakes.best_epoch,
        (
            "Notebook 4, the best epoch on two halves of the images",
            "nb04-the-epoch-that-does-best-on-the-images-that-judge-it",
        ),
    ),
    "A ranking that was never annealed": (
        "Its trials of 30 epochs ran on a schedule made for 300, and were ranked where it cut them off.",
        mistakes.unannealed_ranking,
        (
            "Notebook 4, short trials that rank as long ones do",
            "nb04-a-ranking-of-networks-that-were-not-ready-to-be-ranked",
        ),
    ),
    "The single seed": (
        "It compared networks by one run each.",
        mistakes.single_seed,
        ("Notebook 4, runs that differ by nothing else", "nb04-the-single-seed"),
    ),
}


def _mistakes(store: Store) -> str:
    """The mistakes as a list, each with the sentence that the records give, if there are any, and a link."""
    items = []
    for name, (did, say, (where, target)) in MISTAKES.items():
        said = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escape(say(store)))
        items.append(f'<li><em>{name}.</em> {did} {said} <a href="#{target}">{where}</a>.</li>')
    return f"<p>The original made three, and they are easily made.</p><ol>{''.join(items)}</ol>"


def _claims(rows: Sequence[judge.Row]) -> str:
    about = (
        "A comparison holds if the interval of the difference lies above 0, and does not hold if the interval leaves no"
        f" room for an advantage of the smallest effect of interest, {100 * SMALLEST_EFFECT:.0f} point unless the test"
        " names another; it shows no difference that matters if the interval lies within that effect of 0."
        " Else it is not settled. Each verdict is about networks of that size in runs of that length."
    )
    return f"{page.claims(rows)}<p>{about}</p>"


def _interval(test: TestResult, kind: str) -> tuple[float, float, float]:
    accuracy, low, high = (float(test.metrics[kind + name]) for name in ("accuracy", "low", "high"))
    return accuracy, low, high


def _percent(interval: tuple[float, float, float]) -> str:
    accuracy, low, high = (100 * value for value in interval)
    return f"{accuracy:.2f}% ({low:.2f} to {high:.2f})"


def _own_run(record: Record, facts: Mapping[str, Any]) -> str:
    measured = record.metrics
    _, validation = _sizes(record)
    reached = held_out(record)
    row = {
        "network": f"{measured['parameters']:,} parameters, {measured['macs'] / 1e6:.0f} million MACs an image",
        "data": record.stamp,
        "validation accuracy": "–, fitted on these images too"
        if reached is None
        else f"{100 * reached:.2f}% (n = {validation:,} images)",
        "epochs": f"{measured['epochs']:g}",
        "time": duration(measured["seconds"]),
        "images a second": f"{measured['images_per_second']:,.0f}",
        "hardware": record.hardware,
        "started": f"{record.provenance['started']}, host {facts['host'] or record.provenance['host']}",
    }
    rows = [{"what": key, "figure": value} for key, value in row.items()]
    return "<p>Notebook 4 trained this network afresh for this page.</p>" + page.table(rows, {"what": "", "figure": ""})


def _sizes(record: Record) -> tuple[int, int]:
    fit, validation = datasets.split(record.config.data.dataset)
    return record.config.data.train_size or len(fit), record.config.data.validation_size or len(validation)


def _pending(store: Store) -> str:
    rows = []
    afresh = (
        run_notebooks.profile_names()
    )  # an experiment of a profile's name is what that profile trains for every page
    for experiment in (e for e in experiments.all_experiments() if not (e.is_check or e.name in afresh)):
        left = len(experiments.pending([experiment], store))
        if left:
            minutes = left * experiment.minutes
            needs = "one GPU" if experiment.needs == "gpu" else "two CPU cores"
            total = len(experiment.runs)
            rows.append(
                {
                    "name": experiment.name,
                    "asks": page.with_code(experiment.question),
                    "left": f"{left} of {total}",
                    "needs": needs,
                }
                | {"time": duration(60 * minutes)}
            )
    if not rows:
        return "<p>Every declared experiment has its records.</p>"
    heads = {"name": "experiment", "left": "runs left", "needs": "needs", "time": "about", "asks": "question"}
    return (
        "<p>Declared and not run yet; <code>tpsnet run NAME</code> runs one, <code>tpsnet run --pending</code> all that"
        " this machine can.</p>" + page.table(rows, heads)
    )
