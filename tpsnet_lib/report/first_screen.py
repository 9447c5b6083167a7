"""The first screen of the report: the answer in a few sentences, its figure and its table."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from html import escape
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from tpsnet_lib import stats
from tpsnet_lib.analysis import peers
from tpsnet_lib.analysis.final_runs import Final, best_by_validation, finals, leading, role
from tpsnet_lib.analysis.training import against_published, verdicts_against_published
from tpsnet_lib.claims import judge
from tpsnet_lib.config import PARAMETER_BUDGET
from tpsnet_lib.plots.answer import accuracy_against_parameters
from tpsnet_lib.progress import duration
from tpsnet_lib.report import elements
from tpsnet_lib.report.design_choices import design_choices
from tpsnet_lib.runs import openings
from tpsnet_lib.runs.records import Store

PUBLISHED = "nb04-table-beside"  # the table of chapter 4 with every network's source


def opened_recipes(store: Store) -> list[Final]:
    """The recipes that were declared final and opened on the test set, the best validation accuracy first."""
    return [final for final in finals(store) if final.opened]


def answer(
    recipes: Sequence[Final],
    rows: Sequence[judge.Row] = (),
    late: AbstractSet[str] = frozenset(),
    tried: Iterable[str] = (),
    shapes: str = "",
) -> str:
    """The answer as a list in HTML: `sentences`, then what the README leaves out.

    That is what the leading network is, why validation did not choose it, and, from the judged tests `rows`, what is
    known of the design choices. `late`: the tests that only rules or runs settle which were chosen after data had been
    seen. `tried`: the recipes whose ingredients were left out one at a time. `shapes`: a sentence to end with."""
    shown, details = sentences(recipes), []
    if recipes:
        details = [_described(recipes)]
        best = leading(recipes)[0]
        details += [*design_choices(rows, late, best, best.name in tried), *filter(None, [shapes])]
    items = [f"<li>{sentence} </li>" for sentence in shown] + [f'<li class="details">{each} </li>' for each in details]
    return f'<ul class="sentences">{"".join(items)}</ul>'


def times(recipes: Sequence[Final]) -> str:
    """How long a run of each leading recipe takes, as a paragraph in HTML; empty without recipes."""
    return f'<p class="beside">A run takes: {"; ".join(map(_time, leading(recipes)))}.</p>' if recipes else ""


def sentences(recipes: Sequence[Final]) -> list[str]:
    """How good, with what network, beside the original, beside the others: the README says it too."""
    original = peers.published_model("TPSNet")
    if not recipes:
        return [
            "No committed record has been opened on the test set yet. The published TPSNet reports"
            f" {100 * original['accuracy']:.2f}% at {original['parameters']:,} parameters."
        ]
    best, *others = leading(recipes)
    answers = [
        f"{_introduced(best, recipes, ' parameters')} classifies"
        f" {_linked(best, f'<strong>{best.accuracy():% value}</strong>')} of"
        f" the {best.opened[0][1].metrics['n']:,} test images correctly: {_mean_of(best)}.",
        f"The original, TPSNet, reports {100 * original['accuracy']:.2f}%;"
        f" the difference is {_difference(best, original, recipes)}{_why_not_settled(best, original, recipes)}.",
    ]
    answers += [
        f"{_introduced(other, recipes)} reaches {_linked(other, f'{other.accuracy():% value}')}"
        f" ({other.over_images():%.1 interval}), against TPSNet {_difference(other, original, recipes)}."
        for other in others
    ]
    theirs = peers.others_in_budget()
    above = [row for row in theirs if row["accuracy"] > best.accuracy().value]
    read = [row["accuracy"] for row in above if row["checked"] != "no"]
    highest = f" ({len(read)} checked, at most {100 * max(read):.2f}%)" if read else ""
    beside = "".join(
        f", {sum(row['accuracy'] > other.accuracy().value for row in theirs)} more than <em>{escape(other.name)}</em>"
        for other in others
    )
    networks = f'<a href="#{PUBLISHED}">published networks</a>'
    answers.append(
        f"Of {len(theirs)} other {networks} under {PARAMETER_BUDGET / 1e6:g} million, {len(above)} report more than"
        f" <em>{escape(best.name)}</em>{highest}{beside}."
    )
    return answers


def _introduced(final: Final, recipes: Sequence[Final], unit: str = "") -> str:
    """A leading recipe, its name and parameters in millions, and where it was trained if the subject is silent."""
    subject, where = as_subject(final, recipes), final.trained_on
    trained = "" if subject.endswith(where) else f", {where}"
    millions = final.records[0].metrics["parameters"] / 1e6
    return f"{subject} (recipe <em>{escape(final.name)}</em>, {millions:.2f} million{unit}{trained})"


def as_subject(final: Final, recipes: Sequence[Final]) -> str:
    """What a leading recipe is among all, as the subject of a sentence."""
    subject = role(final, recipes) or f"our choice {final.trained_on}"
    return subject[0].upper() + subject[1:]


def _linked(final: Final, number: str) -> str:
    """A recipe's number, linked to the group of its records."""
    return elements.group_link(final.counted[0].group_id, number)


def _described(recipes: Sequence[Final]) -> str:
    """What the leading network is, what a published one of its layout reports, and what chose it."""
    best = leading(recipes)[0]
    model = best.run.model
    blocks, channels = ("-".join(map(str, numbers)) for numbers in (model.blocks, model.channels))
    kind = "" if model.residual else "plain, "
    shape = f"<em>{escape(best.name)}</em>: {kind}{blocks} blocks, {channels} channels"
    if alike := peers.of_layout(model):
        shape += f" (a published one: {alike['accuracy']:.2%})"
    if not best.held_out:
        count = sum(not each.of_a_profile for each in recipes if each.opened)
        rule = '<a href="#openings-shown">the rule of declaration</a>'
        older = [each for each in leading(recipes) if {r.id for r in each.counted} <= openings.before_the_rule()]
        names = " and ".join(f"<em>{escape(each.name)}</em>" for each in older)
        said = f"; {names} {'are' if len(older) > 1 else 'is'} older than {rule}" if older else ""
        return f"{shape}, the highest of {count} recipes opened on the test set, not chosen by validation{said}."
    judged = best_by_validation(recipes)
    return f"{shape}." if judged in (best, None) else f"{shape}; validation chose <em>{escape(judged.name)}</em>."


def _time(final: Final) -> str:
    """The time of one run on its hardware, and whether it is of one run or the mean of several, so many at a time."""
    time = _linked(final, duration(60 * final.minutes))
    runs = f"mean of {len(final.timed)}, {final.at_once} side by side" if len(final.timed) > 1 else "one run"
    reached = [test.metrics["accuracy"] for record, test in final.opened if (record,) == final.timed]
    if reached and len(final.opened) > 1:  # one of several seeds was timed
        runs += f", of {reached[0]:.2%}"
    alone = ", alone" if final.alone else ""
    return f"<em>{escape(final.name)}</em> {time} on {final.timed[0].hardware} ({runs}{alone})"


def _why_not_settled(final: Final, original: Mapping[str, Any], recipes: Sequence[Final]) -> str:
    """What "not settled" means here: the interval has the noise of the one published run too, and includes 0."""
    verdict = verdicts_against_published(recipes, original)[final.name]
    measured = against_published(final, original, recipes).has_interval
    return " (its one run has noise too)" if measured and verdict == stats.NOT_SETTLED else ""


def _mean_of(final: Final) -> str:
    interval = f"95% interval over the images {final.over_images():%.1 interval}"
    if len(final.opened) == 1:
        return f"one run, {interval}"
    return f"the mean of {_linked(final, f'{len(final.opened)} seeds')} ({final.range_of_seeds}), {interval}"


VERDICTS = {  # on `ours is better than the original`, in words
    stats.HOLDS: "ours is better",
    stats.DOES_NOT_HOLD: "ours is not better",
    stats.NO_DIFFERENCE: "no difference that matters",
    stats.NOT_SETTLED: "not settled",
    stats.PENDING: "pending",
}


def _difference(final: Final, original: Mapping[str, Any], recipes: Sequence[Final]) -> str:
    """The difference from the original and its verdict, with the noise of seeds, of images and of the one run."""
    verdict = VERDICTS[verdicts_against_published(recipes, original)[final.name]]
    how = f'<a href="#intervals"><em>{verdict}</em></a>'  # where the limitations say how it is made
    return f"{against_published(final, original, recipes):points.2}: {how}"


ACROSS = 4.95  # inches, of the figure beside the sentences


def frontier(recipes: Sequence[Final]) -> Figure:
    """The leading recipes among the published networks: test accuracy against parameters."""
    return accuracy_against_parameters(peers.beside_published(leading(recipes)), ACROSS)


def answer_table(recipes: Sequence[Final]) -> str:
    """At most six rows: ours, the original, and the best published ones."""
    published = sorted(peers.published(), key=lambda row: -row["accuracy"])
    checked = [row for row in published if row["checked"] == "yes" and row["model"] != "TPSNet"][:3]
    ours = [peers.final_row(final) | {"model": f"{final.name} (ours)", "ours": True} for final in leading(recipes)]
    rows = [*ours, peers.published_model("TPSNet"), *checked]
    table = [
        {
            "network": Markup("<strong>{}</strong>").format(row["model"])
            if row.get("ours")
            else Markup(peers.source_link(row.get("source") or "", row["model"])),
            "parameters": f"{row['parameters'] / 1e6:.2f} M",
            "accuracy": f"{100 * row['accuracy']:.2f}%",
            "n": _runs_of(row),
            "epochs": f"{row['epochs']:g}" if row.get("epochs") else None,
        }
        for row in sorted(rows[:6], key=lambda row: -row["accuracy"])
    ]
    return elements.table(
        table,
        list(table[0]),
        "Test accuracy: ours, the original, the best three checked at their source (best of: readings of the images).",
    )


def _runs_of(row: Mapping[str, Any]) -> str:
    """How many runs an accuracy is the mean of: one, where the number is that of the test images, and of how many
    readings on these it is the best."""
    if row.get("n_of") == "images":
        return f"best of {row['readings']:g}" if row.get("readings") else "1 run"
    return f"{row['n']:,.0f} {row['n_of']}" if row.get("n") else "not given"
