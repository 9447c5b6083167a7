"""What stands before the chapters: the winner, claims, mistakes, limitations, how to cite."""

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from html import escape

from markupsafe import Markup

from tpsnet_lib import __version__, stats
from tpsnet_lib.analysis import recipe_glossary
from tpsnet_lib.analysis.architecture import LONG
from tpsnet_lib.analysis.final_runs import Final, leading, recipes_opened_before
from tpsnet_lib.claims import judge, mistakes
from tpsnet_lib.data.datasets import image_counts
from tpsnet_lib.model_cost import layer_costs
from tpsnet_lib.plots import network_drawing, training
from tpsnet_lib.progress import duration
from tpsnet_lib.report import elements, limitations
from tpsnet_lib.report.design_choices import ablations, ingredients, shapes
from tpsnet_lib.report.elements import Section
from tpsnet_lib.report.first_screen import answer, answer_table, as_subject, frontier, opened_recipes, times
from tpsnet_lib.runs.records import Record, Store, committed_folder


def sections(
    store: Store, fresh: Record | None, synthetic: bool, names: Mapping[str, str] | None = None
) -> list[Section]:
    """The sections before the chapters; `names` has what a record is called, by id."""
    recipes = opened_recipes(store)
    rows = judge.judge_claims(store)
    earlier = limitations.earlier_rules(store, rows)
    late = limitations.only_by_late_choices(rows, earlier)
    parts = [
        Section("The answer", _answer(recipes, rows, store, late), "answer"),
        *([Section("The network described", _winner(recipes), "winner")] if recipes else []),
        Section("The original's claims, tested", _claims(rows, late, names or {}), "claims"),
        Section("Three mistakes of the original, and their size", _mistakes(store, names or {}), "mistakes"),
        Section("Limitations", limitations.items(recipes, rows, earlier), "limitations"),
        Section("How this was made, and how to cite it", _made(), "made"),
    ]
    if synthetic:
        note = (
            "<p><strong>The chapters below ran on shapes10, small synthetic images that the library draws itself."
            "</strong> Their figures show that everything works; they say nothing about CIFAR-10.</p>"
        )
        parts.insert(0, Section("Synthetic images", note, "synthetic"))
    if fresh is not None:
        parts.append(Section("The run of this machine", _own_run(fresh), "own"))
    return parts


def _answer(recipes: Sequence[Final], rows: Sequence[judge.Row], store: Store, late: AbstractSet[str]) -> str:
    changes = ablations(recipes, store)
    parts = (
        answer(recipes, rows, late, changes, shapes(store)),
        elements.figure(frontier(recipes)),
        answer_table(recipes),
        ingredients(changes),
    )
    return "".join(parts)


# The winner ---------------------------------------------------------------------------------------------------------


def _winner(recipes: Sequence[Final]) -> str:
    """The drawing, the layers, the recipe in words and the learning curve of the leading network."""
    final = leading(recipes)[0]
    run, record = final.run, final.with_curve
    layers = [
        {
            "part": row.name,
            "what it is": re.sub(r"(\d)x(\d)", r"\1×\2", row.kind),
            "output (C×H×W)": "\xa0×\xa0".join(map(str, row.shape)),
            "parameters": row.parameters,
            "MACs": f"{row.macs / 1e6:.1f} M" if row.macs >= 1e5 else f"{row.macs:,}",
        }
        for row in layer_costs(run.model)
    ]
    columns = list(layers[0])
    recipe = [row | {"source": elements.inline_markdown(row["source"])} for row in recipe_glossary.in_words(run)]
    length = f"{run.train.epochs:g} epochs of {'all training images' if run.data.fit_on == 'all' else 'the split'}"
    _, validated = image_counts(record.config.data)
    curve = elements.figure(training.learning_curves(record, validated)) if record.curve else ""
    ingredients = ", ".join(row["ingredient"] for row in recipe)
    terms = " SE is squeeze-and-excitation." if run.model.squeeze else ""
    if run.model.block == "preact":
        terms += " A preact block has norm and activation before each convolution."
    words = elements.table(recipe, list(recipe[0]), "The recipe in words.")
    return (
        f"<p>{as_subject(final, recipes)} (recipe <em>{escape(final.name)}</em>): {length}, batches of"
        f" {run.train.batch_size}; {ingredients}."
        f"{_why_described(final, recipes)}</p>"
        + elements.figure(network_drawing.draw_network(run.model))
        + curve
        + '<details class="folded"><summary>The layers, the settings and the sources of the ingredients</summary>'
        + elements.table(layers, columns, f"The layers; the counts are computed from the config.{terms}")
        + f"{words}</details>"
        + _use(final)
        + times(recipes)
    )


def _use(final: Final) -> str:
    """How to take the network itself, where the weights of a run ship."""
    shipped = [record for record in final.counted if record.has_weights]
    if not shipped:
        return ""
    settings = elements.group_link(shipped[0].group_id, "All its settings")
    return (
        f"<p>The weights of seed {shipped[0].config.seed} ship with the project, in"
        f" <code>report/records/{shipped[0].id}</code>: <code>python3 test.py</code> scores them,"
        f" <code>tpsnet predict PHOTO</code> uses them. {settings}.</p>"
    )


def _why_described(final: Final, recipes: Sequence[Final]) -> str:
    """Why this network is described, and whether it was tuned."""
    judged = [each for each in recipes if each.held_out and not each.of_a_profile]
    alike = sum(each.trained_on == final.trained_on for each in judged)
    runs = "one run" if len(final.held_out) == 1 else f"{len(final.held_out)} runs"
    others = "the only one of them" if alike == 1 else f"one of {alike}"
    why = (
        f"On validation images it reaches {final.validation:% value} ({runs}), the highest of the {len(judged)}"
        f" recorded final recipes that held some out; it is {others} {final.trained_on}."
        if final.held_out
        else "Validation cannot judge it; it comes first for the arithmetic of its training alone (MACs of an image,"
        " times epochs)."
    )
    if not final.was_tuned:
        earlier = recipes_opened_before(final)
        known = f'<a href="#limitations">the test results of {earlier} earlier recipes were known</a>'
        checks = "short checks that every recipe trains, <em>prove</em>, chose nothing"
        why += f" No run was made to tune it ({checks}){f', but {known}' if earlier else ''}."
    return f" {why}"


# Claims, mistakes, limitations --------------------------------------------------------------------------------------


def _claims(rows: Sequence[judge.Row], late: AbstractSet[str], names: Mapping[str, str]) -> str:
    """A line a test, its verdict first; the original's words, grounds and records are folded."""
    smallest = f"{100 * stats.SMALLEST_EFFECT:.0f} point, unless the test names another"
    about = (
        f"{judge.describe_table(rows)} The smallest effect that"
        f" matters is {smallest}. Intervals are not adjusted; p and verdict are."
    )
    lines = [
        {
            "verdict": elements.verdict(row.verdict) + "†" * (row.name in late) + "‡" * row.turns,
            "tested": _tested(row),
            "difference (points)": elements.test_link(row, elements.under_points(row.answer.in_words())),
            "adjusted p": _p_value(row) if row.answer.complete else None,
            "parameters; steps; n": "; ".join(f"{count:,}" for count in (*row.largest_run, row.n)),
        }
        for row in rows
        if row.n
    ]
    caption = (
        f"Networks have one block a layer unless said. Runs of {LONG:,} steps or more have the original's recipe"
        " except rate, warm-up, bf16 and what they vary; others another. Parameters are the larger network's, n the"
        " smaller side's. In unsettled rows p belongs to the verdict that came closest, in brackets."
    )
    caption += " †: settled only by rules or runs chosen after the first data." if late else ""
    caption += " ‡: other runs say the opposite." if any(row.turns for row in rows) else ""
    table = elements.table(
        lines, ["verdict", "tested", "difference (points)", "adjusted p", "parameters; steps; n"], caption
    )
    summary = "<summary>The tests in full, the original's words, grounds and records</summary>"
    details = f'<details class="folded">{summary}{elements.claims(rows, names)}</details>'
    rule = elements.inline_markdown(_how_a_verdict_is_made(rows))
    made = f"<summary>How a verdict is made</summary><p>{rule}</p>"
    return f'<p>{about}</p>{table}<details class="folded">{made}</details>{details}'


def _how_a_verdict_is_made(rows: Sequence[judge.Row]) -> str:
    """The rule of the verdicts in a table of some tests, in Markdown."""
    tests = len(rows) + judge.earlier_looks(rows)
    again = " and ".join(f"({claim})" for claim in dict.fromkeys(row.claim for row in rows if row.answer.later))
    return (
        "Each difference is asked three questions, and each answer needs a p of its own of at most"
        f" {stats.ALPHA:g} after adjustment. Above 0? The test *holds*. Below the smallest effect? It *does not hold*:"
        " there is no gain that matters. That the reverse holds was not asked."
        " Smaller than the effect on both sides of 0? Then it *shows no difference that matters*; where only the second"
        " question is answered after adjustment, the test *does not hold*, though its interval may lie within a point"
        " of 0. A claim that a difference is small holds below the effect, and does not hold above it. A question is"
        f" asked of {tests} tests, those without runs and earlier looks too; about one of forty such tables that are"
        " looked at once has a wrong answer to it, and at most three of forty to any of the three, as far as the tests"
        " are exact (this one was looked at as its runs came in). Of searches and other resampled trials the smallest p"
        " before adjustment is that of one resample. Judged is the largest set of runs that is complete"
        f"{f' (only {again} take in later seeds)' * bool(again)}, of searches that of the widest rates, and of times"
        " those of runs alone on their machine; the full tests show the others."
    )


def _tested(row: judge.Row) -> Markup:
    """The sentence of a test in a few words, and under it what must be known beside it and what other budgets say."""
    said = [part for part in (row.remark, *row.beside) if part]
    beside = elements.under_points("; ".join(said))
    return elements.with_note(Markup("({}) {}").format(row.claim, row.short), beside)


def _p_value(row: judge.Row) -> str:
    """The p-value of a test, and what it is of where nothing is settled."""
    p = f"{row.p:.2g}" if row.p >= 0.001 else "< 0.001"
    return p if row.verdict == row.p_is_of or row.p == 1 else f"{p} ({row.p_is_of})"


MISTAKES = {  # what the original did, and what our records say of it
    "The epoch was chosen on the test set.": (
        "It kept the epoch of the lowest test loss and reported that epoch's test accuracy.",
        mistakes.best_epoch,
    ),
    "A ranking that was never annealed.": (
        "Its trials of 30 epochs ran on a schedule made for 300, and were ranked where it was cut off; its published"
        " script scores with dropout on (chapter 4).",
        mistakes.unannealed_ranking,
    ),
    "A single seed.": ("It compared networks by one run each.", mistakes.single_seed),
}
MISTAKES_SHOWN = "nb04-5-three-mistakes-of-the-original-and-their-size"  # the section of chapter 4
RANKINGS, SEEDS = "nb03-data-ranking", "nb04-data-seeds"  # the records of two figures of the chapters


def _mistakes(store: Store, names: Mapping[str, str]) -> str:
    items = [
        f"<li><strong>{name}</strong> {did} {elements.inline_markdown(say(store))}</li>"
        for name, (did, say) in MISTAKES.items()
    ]
    return (
        f"<ol>{''.join(items)}</ol>{_earlier_epochs(store, names)}"
        f'<p><a href="#{MISTAKES_SHOWN}">Chapter 4 shows how each was measured</a><span class="screen">;'
        f' <a href="#{RANKINGS}">the runs of the second</a>, <a href="#{SEEDS}">of the third</a></span>.</p>'
    )


def _earlier_epochs(store: Store, names: Mapping[str, str]) -> str:
    """The runs of the first mistake, folded, each with the points that its epoch of the lowest loss would add."""
    choices = mistakes.choices_by_lowest_loss(store)
    earlier = sorted((each for each in choices if each.is_another), key=lambda each: -each.excess)
    if not earlier:
        return ""
    points = [f"{100 * each.excess:+.2f}".replace("-", "−") for each in earlier]
    searched = sum(names.get(each.record.id, "").startswith("search") for each in earlier)
    trials = "all" if searched == len(earlier) else f"{searched:,} of them"
    links = [elements.record_link(each.record.id) for each in earlier]
    listed = ", ".join(f"{link} {more}" for link, more in zip(links, points, strict=True))
    return (
        '<details class="folded sources"><summary>The runs of the first mistake</summary>'
        f"<p>These {len(earlier):,} runs would report another epoch than the last, with so many points more"
        f" ({trials} are trials of random searches): {listed}. The"
        f" {len(choices) - len(earlier):,} others (every run that kept validation images out and has more than one"
        " epoch) would report the last epoch, and add 0.</p></details>"
    )


def _made() -> str:
    records = [record for record in Store(committed_folder()).all() if not record.failed]  # not this machine's runs
    finished = max((str(record.provenance.get("finished", "")) for record in records), default="")
    age = f" The newest of its {len(records):,} committed records is of {finished[:10]}." if finished else ""
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    return (
        "<p>Five notebooks, executed by Papermill, compute all figures and tables, from recorded runs or"
        " ones that they train,"
        f" with tpsnet {__version__}; code and records are under the MIT licence.</p>"
        f"<p>This page was built on {today}.{age}</p>"
        f"<p>Cite as: the TPSNet authors, <cite>{escape(TITLE)}</cite>, version {__version__}, report of {today}"
        " (<code>CITATION.cff</code>). The network and the"
        ' claims that are tested here are the <a href="https://github.com/taiyipan/TPSNet">original TPSNet\'s</a>.</p>'
    )


TITLE = "TPSNet re-examined: residual networks under five million parameters"


def _own_run(record: Record) -> str:
    measured, reached = record.metrics, record.validation_accuracy
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
    return "<p>Chapter 4 trained this network afresh for this page.</p>" + elements.table(
        rows, {"what": "", "value": ""}
    )
