"""What stands after the chapters: references, the openings of the test set in order, and what is still to be run."""

import csv
from collections.abc import Container, Mapping
from typing import Any

from markupsafe import Markup

from tpsnet_lib.old_words import NEW_WORDS
from tpsnet_lib.profiles import profile_names
from tpsnet_lib.progress import duration
from tpsnet_lib.report import elements
from tpsnet_lib.report.elements import ASSETS, Section
from tpsnet_lib.report.limitations import replaced, undeclared_seeds, what_the_first_lacked
from tpsnet_lib.runs import experiments, openings
from tpsnet_lib.runs.records import Store, committed_folder
from tpsnet_lib.runs.test_set import find_test


def sections(store: Store, names: Mapping[str, str] | None = None) -> list[Section]:
    """The sections after the chapters, the last two folded: references, openings in order, what is still to be run.

    `names` has what a record is called, by id."""
    return [
        Section("References", _references(), "references"),
        Section("Openings of the test set, in order", _openings(store, names or {}), "openings", "Show the openings"),
        Section("What is still to be run", _pending(store), "pending", "Show the experiments"),
    ]


def _references() -> str:
    rows = csv.DictReader((ASSETS / "references.csv").read_text("utf-8").splitlines(), strict=True)
    items = (Markup('<li><a href="{address}">{reference}</a></li>').format(**row) for row in rows)
    return str(Markup("<ol>{}</ol>").format(Markup("").join(items)))


def _openings(store: Store, names: Mapping[str, str]) -> str:
    """Every opening of the test set, oldest first; those before the rule of declaration say so."""
    early, lines = openings.before_the_rule(), openings.all_openings(store)
    rows = [
        {
            "opened": line["opened"][:16].replace("T", " "),
            "record": elements.record_link(line["record"]),
            "test accuracy": _accuracy(line["record"], store),
            "recipe": names.get(line["record"]),
            "declared by": line.get("experiment") or "nothing: exploratory",
            "rule": _rule(line, early),
        }
        for line in lines
    ]
    heads = ["opened", "record", "test accuracy", "recipe", "declared by", "rule"]
    committed = openings.all_openings(Store(committed_folder()))
    count = sum(line["record"] in early for line in committed)
    called: dict[str, str] = {}  # what was opened under another name, by its name of today, in the order of opening
    for line in lines:
        if line.get("experiment") in NEW_WORDS["name"] and (today := names.get(line["record"])):
            called[today] = line["experiment"]
    names_then = ", ".join(f"<em>{new}</em> was called <em>{old}</em>" for new, old in called.items())
    about = (
        "<p>A run is declared final in a commit before it trains, and the test set opens for it once."
        f" {count} of the {len(committed)} openings in the committed log are older than this rule:"
        f" {what_the_first_lacked()}. Replaced once they had been opened were {replaced()} ({names_then}). The table"
        " lists the openings of the records that this page stands on."
        " Chapter 4 opens the test set once more, for a network that is trained where the page is made: its record and"
        " the log of that opening stay there.</p>"
    )
    return (
        about
        + elements.table(rows, heads, "Openings of the test set.")
        + undeclared_seeds(store)
        + _scored_again(store)
    )


def _rule(line: Mapping[str, Any], early: Container[str]) -> str:
    """How an opening stands to the rule that a final run is declared in a commit."""
    if line.get("declaration"):
        return "declared in a commit"
    return "before the rule" if line["record"] in early else "exploratory"


def _accuracy(run_id: str, store: Store) -> str | None:
    record = store.find(run_id)
    opened = None if record is None else find_test(record, store)
    return None if opened is None else f"{100 * opened.metrics['accuracy']:.2f}%"


def _scored_again(store: Store) -> str:
    """What weights scored later, where that was kept: they were published in half precision."""
    scores, early = [], openings.before_the_rule()
    for line in (line for line in openings.scored_again() if line["record"] in early):
        opened = find_test(store.load(line["record"]), store)
        if opened is not None:
            then = f"{opened.metrics['correct']:,} when it was opened"
            if not store.load(line["record"]).has_weights:
                then += "; no longer shipped"
            when = line["opened"][:16].replace("T", " ")
            scores.append(
                f"{elements.record_link(line['record'])} {line['correct']:,} of {line['n']:,} on {when} ({then})"
            )
    if not scores:
        return ""
    return (
        "<p>The first weights were scored in bf16 before they were rounded for publication. As rounded, in fp32, they"
        f" classify correctly: {'; '.join(scores)}. Since then weights are rounded before they are scored.</p>"
    )


def _pending(store: Store) -> str:
    """A row for each declared experiment that has runs without a record."""
    rows = []
    for experiment in experiments.all_experiments():
        left = len(experiments.pending([experiment], store))
        if experiment.is_check or experiment.name in profile_names() or not left:
            continue
        rows.append(
            {
                "name": experiment.name,
                "left": f"{left} of {len(experiment.runs)}",
                "needs": "one GPU" if experiment.needs == "gpu" else "two CPU cores",
                "time": duration(60 * left * experiment.minutes),
                "asks": elements.inline_markdown(experiment.question),
            }
        )
    if not rows:
        return "<p>Every declared experiment has its records.</p>"
    heads = {"name": "experiment", "left": "runs left", "needs": "needs", "time": "about", "asks": "question"}
    return "<p><code>tpsnet run NAME</code> runs one of them.</p>" + elements.table(rows, heads)
