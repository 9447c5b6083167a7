"""What stands before the chapters: the answer on one screen, the winner, claims, mistakes, limitations, how to cite."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from tpsnet_lib import __version__, stats
from tpsnet_lib.analysis import cost, recipe_glossary
from tpsnet_lib.analysis.final_runs import Final, finals
from tpsnet_lib.analysis.training import SMALLEST_GAIN, against_published
from tpsnet_lib.claims import judge, mistakes
from tpsnet_lib.config import PARAMETER_BUDGET
from tpsnet_lib.model_cost import layer_costs
from tpsnet_lib.plots import answer as answers
from tpsnet_lib.plots import network_drawing, style, training
from tpsnet_lib.progress import duration
from tpsnet_lib.report import limitations, page
from tpsnet_lib.report.page import Section
from tpsnet_lib.runs.records import Record, Store, committed_folder, held_out

CLASSES_OF_HARDWARE = {"cuda": "on one GPU", "cpu": "on two cores of a CPU"}


def final_records(store: Store) -> list[Final]:
    """The recipes that were declared final and opened on the test set, the best validation accuracy first."""
    return [final for final in finals(store) if final.opened]


def leading(found: Sequence[Final]) -> list[Final]:
    """For each class of hardware the recipe with the best validation accuracy; the larger training run comes first.

    Nothing is chosen by test accuracy: where a class has several recipes those with held-out runs come first."""
    chosen: dict[str, Final] = {}
    for final in found:
        chosen.setdefault(final.records[0].provenance["device"], final)
    return sorted(chosen.values(), key=lambda final: -_training_compute(final))


def _training_compute(final: Final) -> float:
    record = final.records[0]
    return float(record.metrics["macs"]) * final.run.train.epochs


def sections(store: Store, fresh: Record | None, synthetic: bool) -> list[Section]:
    """The sections before the chapters."""
    found = final_records(store)
    rows = judge.judge_claims(store)
    shown = [
        Section("The answer", answer(found) + _first_figure(found) + _answer_table(found), "answer"),
        *([Section("The network described", _winner(leading(found)[0]), "winner")] if found else []),
        Section("The original's claims, tested", _claims(rows), "claims"),
        Section("Three mistakes of the original, and their size", _mistakes(store), "mistakes"),
        Section(
            "Limitations", limitations.items([(_where(each), each) for each in leading(found)], rows), "limitations"
        ),
        Section("How this was made, and how to cite it", _made(), "made"),
    ]
    if synthetic:
        note = (
            "<p><strong>The chapters below ran on shapes10, small synthetic images that the library draws itself."
            "</strong> Their figures show that everything works; they say nothing about CIFAR-10.</p>"
        )
        shown.insert(0, Section("Synthetic images", note, "synthetic"))
    if fresh is not None:
        shown.append(Section("The run of this machine", _own_run(fresh), "own"))
    return shown


# The first screen ---------------------------------------------------------------------------------------------------


def answer(found: Sequence[Final]) -> str:
    """The answer in four sentences: how good, with what network, beside the original, beside the others."""
    original = _original()
    if not found:
        return (
            "<p>No committed record has been opened on the test set yet. The published TPSNet reports"
            f" {100 * original['accuracy']:.2f}% at {original['parameters']:,} parameters.</p>"
        )
    best, *others = leading(found)
    beside = "" if best.alone else ", beside other runs"
    sentences = [
        f"Our best network {_where(best)} (recipe <em>{escape(best.name)}</em>, {_millions(best)} million parameters)"
        f" classifies <strong>{best.accuracy():% value}</strong> of the {best.opened[0][1].metrics['n']:,} test images"
        f" correctly: {_mean_of(best)}. One run takes {duration(60 * best.minutes)} on"
        f" {best.timed[0].hardware}{beside}.",
        f"The published TPSNet reports {100 * original['accuracy']:.2f}%; the difference is"
        f" {_difference(best, original, found)}.",
    ]
    sentences += [
        f"Our best {_where(other)} (recipe <em>{escape(other.name)}</em>, {_millions(other)} million) reaches"
        f" {other.accuracy():%} in {duration(60 * other.minutes)}, {_difference(other, original, found)}."
        for other in others
    ]
    better, known = _rank(best)
    sentences.append(f"Of {known} published networks under five million parameters, {better} report more.")
    return f'<ul class="sentences">{"".join(f"<li>{sentence} </li>" for sentence in sentences)}</ul>'


def _original() -> Mapping[str, Any]:
    return next(row for row in cost.published() if row["model"] == "TPSNet")


def _where(final: Final) -> str:
    return CLASSES_OF_HARDWARE.get(final.records[0].provenance["device"], "here")


def _millions(final: Final) -> str:
    return f"{final.records[0].metrics['parameters'] / 1e6:.1f}"


def _mean_of(final: Final) -> str:
    estimate = final.accuracy()
    if len(final.opened) == 1:
        return f"one run, 95% interval over the images {estimate:% interval}"
    seeds = f'<a href="#openings">{len(final.opened)} seeds</a>'
    return f"the mean of {seeds}, 95% interval {estimate:% interval}"


VERDICTS = {  # on `ours is better than the original`, in words
    stats.HOLDS: "ours is better",
    stats.DOES_NOT_HOLD: "ours is not better",
    stats.NO_DIFFERENCE: "no difference that matters",
    stats.NOT_SETTLED: "not settled",
    stats.PENDING: "pending",
}


def _difference(final: Final, original: Mapping[str, Any], found: Sequence[Final]) -> str:
    """The difference from the original and its verdict, with the noise of seeds, of images and of the one run."""
    estimate = against_published(final, original, found)
    return f"{estimate:points.2}: <em>{VERDICTS[stats.verdict(estimate, SMALLEST_GAIN)]}</em>"


def _rank(final: Final) -> tuple[int, int]:
    theirs = [row["accuracy"] for row in cost.published() if row["parameters"] < PARAMETER_BUDGET]
    return sum(value > final.accuracy().value for value in theirs), len(theirs)


def frontier(found: Sequence[Final], narrow: bool = False) -> Figure:
    """The leading recipes among the published networks: test accuracy against parameters."""
    ours = [cost.final_row(final) for final in leading(found)]
    return answers.accuracy_against_parameters([*ours, *cost.published()], narrow)


def _first_figure(found: Sequence[Final]) -> str:
    return _shown(frontier(found), frontier(found, narrow=True))


def _shown(fig: Figure, narrow: Figure | None = None) -> str:
    """A figure with the caption, alternative text and records that it carries."""
    about = style.description(fig)
    return page.figure(fig, about.alt, about.caption, records=about.records, narrow=narrow)


def _answer_table(found: Sequence[Final]) -> str:
    """At most six rows: ours, the original, and the best published ones."""
    published = sorted(cost.published(), key=lambda row: -row["accuracy"])
    checked = [row for row in published if row["checked"] == "yes" and row["model"] != "TPSNet"][:3]
    ours = [cost.final_row(final) | {"model": f"ours, {_where(final)} ({final.name})"} for final in leading(found)]
    rows = [*ours, _original(), *checked]
    table = [
        {
            "network": row["model"],
            "parameters": f"{row['parameters'] / 1e6:.2f} M",
            "accuracy": f"{100 * row['accuracy']:.2f}%",
            "n": f"{row['n']:,.0f} {row['n_of']}" if row.get("n") else None,
            "epochs": f"{row['epochs']:g}" if row.get("epochs") else None,
        }
        for row in rows[:6]
    ]
    heads = {
        "network": "network",
        "parameters": "parameters",
        "accuracy": "test accuracy",
        "n": "n",
        "epochs": "epochs",
    }
    return page.table(table, heads, "Ours, the original, and the three best published figures that were checked.")


# The winner ---------------------------------------------------------------------------------------------------------


def _winner(final: Final) -> str:
    """The drawing, the layers, the recipe in words and the learning curve of the leading network."""
    run, record = final.run, final.counted[0]
    layers = [
        {
            "part": row.name,
            "what it is": row.kind,
            "output (C x H x W)": " x ".join(map(str, row.shape)),
            "parameters": row.parameters,
            "MACs": f"{row.macs / 1e6:.1f} M",
        }
        for row in layer_costs(run.model)
    ]
    columns = list(layers[0])
    recipe = [row | {"source": _linked(row["source"])} for row in recipe_glossary.in_words(run)]
    length = f"{run.train.epochs:g} epochs of {'all training images' if run.data.fit_on == 'all' else 'the split'}"
    curve = _shown(training.learning_curves(record, record.metrics.get("n", 0))) if record.curve else ""
    ingredients = ", ".join(row["ingredient"] for row in recipe)
    words = page.table(recipe, list(recipe[0]), "The recipe in words.")
    return (
        f"<p>The recipe <em>{escape(final.name)}</em>: {length}, batches of {run.train.batch_size}; {ingredients}."
        ' <a href="#nb04">Chapter 4</a> leaves out ingredients one at a time, of a smaller network in short runs.</p>'
        + _shown(network_drawing.draw_network(run.model))
        + page.table(layers, columns, "The layers; the counts are computed from the config.")
        + curve
        + f'<details class="folded"><summary>The settings and the sources of the ingredients</summary>{words}</details>'
    )


def _linked(text: str) -> str | Markup:
    """A Markdown link as HTML; any other text as it is."""
    link = re.fullmatch(r"\[(.+)\]\((https?://\S+)\)", text)
    return Markup('<a href="{}">{}</a>').format(link[2], link[1]) if link else text


# Claims, mistakes, limitations --------------------------------------------------------------------------------------


def _claims(rows: Sequence[judge.Row]) -> str:
    """A line a test, its verdict first; the original's words, grounds and records are folded."""
    smallest = f"{100 * stats.SMALLEST_EFFECT:.0f} point unless the test names another"
    about = (
        f"{judge.describe_table(rows)} A test holds if the interval of the difference lies above 0; it does not hold if"
        f" the interval leaves no room for the smallest effect of interest, {smallest}; it shows no difference that"
        " matters if the interval lies within that effect on both sides of 0. Else it is not settled. The intervals"
        " shown are those of one test; the adjusted ones, which decide, are wider."
    )
    lines = [
        {
            "verdict": Markup('<strong class="{}">{}</strong>').format(row.verdict.replace(" ", "-"), row.verdict),
            "tested": f"({row.claim}) {row.sentence}",
            "difference": row.shown if row.n else None,
        }
        for row in rows
    ]
    caption = f"What the tests of the original's claims (a) to (j) say{_common_budget(rows)}."
    table = page.table(lines, ["verdict", "tested", "difference"], caption)
    summary = "<summary>The original's words, grounds and records</summary>"
    return f'<p>{_emphasis(about)}</p>{table}<details class="folded">{summary}{page.claims(rows)}</details>'


def _common_budget(rows: Sequence[judge.Row]) -> str:
    small = "in small, short runs"
    measured = [row for row in rows if row.n]
    return f", {small} alone" if measured and all(row.budget.startswith(small) for row in measured) else ""


MISTAKES = {  # what the original did, and what our records say of it
    "The epoch was chosen on the test set.": (
        "It kept the epoch of the lowest test loss and reported that epoch's test accuracy.",
        mistakes.best_epoch,
    ),
    "A ranking that was never annealed.": (
        "Its trials of 30 epochs ran on a schedule made for 300, and were ranked where the schedule was cut off.",
        mistakes.unannealed_ranking,
    ),
    "A single seed.": ("It compared networks by one run each.", mistakes.single_seed),
}
MISTAKES_SHOWN = "nb04-5-three-mistakes-of-the-original-and-their-size"  # the section of chapter 4


def _mistakes(store: Store) -> str:
    items = [
        f"<li><strong>{name}</strong> {did} {_emphasis(escape(say(store)))}</li>"
        for name, (did, say) in MISTAKES.items()
    ]
    return f'<ol>{"".join(items)}</ol><p><a href="#{MISTAKES_SHOWN}">Chapter 4 shows how each was measured.</a></p>'


def _emphasis(text: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)


def _made() -> str:
    records = [record for record in Store(committed_folder()).all() if not record.failed]  # not this machine's runs
    finished = max((str(record.provenance.get("finished", "")) for record in records), default="")
    age = f" The newest of its {len(records):,} records is of {finished[:10]}; a younger run is not in it." * bool(
        finished
    )
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    return (
        "<p>Five notebooks read recorded runs and compute every figure and table of this page; each run is known by a"
        " hash of its config, and carries its commit, hardware and versions. The chapters"
        f" were executed by papermill with tpsnet {__version__}; code and records are under the MIT licence.</p>"
        f"<p>This page was built on {today}.{age}</p>"
        f"<p>Cite as: the TPSNet authors, <cite>{escape(TITLE)}</cite>, version {__version__}, report of {today}, MIT"
        " licence. The file <code>CITATION.cff</code> of the project says the same to machines. The network and the"
        ' claims that are tested here are the <a href="https://github.com/taiyipan/TPSNet">original TPSNet\'s</a>.</p>'
    )


TITLE = "TPSNet: residual networks under five million parameters"


def _own_run(record: Record) -> str:
    measured, reached = record.metrics, held_out(record)
    row = {
        "network": f"{measured['parameters']:,} parameters, {measured['macs'] / 1e6:.0f} million MACs an image",
        "data": record.stamp,
        "validation accuracy": "fitted on these images too" if reached is None else f"{100 * reached:.2f}%",
        "epochs": f"{measured['epochs']:g}",
        "time": duration(measured["seconds"]),
        "images a second": f"{measured['images_per_second']:,.0f}",
        "hardware": record.hardware,
        "started": record.provenance["started"],
    }
    rows = [{"what": key, "value": value} for key, value in row.items()]
    return "<p>Chapter 4 trained this network afresh for this page.</p>" + page.table(rows, {"what": "", "value": ""})
