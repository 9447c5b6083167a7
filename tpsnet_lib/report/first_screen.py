"""The first screen of the report: the answer in a few sentences, its figure and its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from matplotlib.figure import Figure

from tpsnet_lib import stats
from tpsnet_lib.analysis import cost
from tpsnet_lib.analysis.final_runs import Final, finals, leading
from tpsnet_lib.analysis.training import SMALLEST_GAIN, ablation, against_published
from tpsnet_lib.claims import judge
from tpsnet_lib.config import PARAMETER_BUDGET
from tpsnet_lib.plots import answer as answers
from tpsnet_lib.plots import style
from tpsnet_lib.progress import duration
from tpsnet_lib.report import page
from tpsnet_lib.runs.experiments import collect, load_experiment
from tpsnet_lib.runs.records import Store

CLASSES_OF_HARDWARE = {"cuda": "on one GPU", "cpu": "on two cores of a CPU"}


def final_records(store: Store) -> list[Final]:
    """The recipes that were declared final and opened on the test set, the best validation accuracy first."""
    return [final for final in finals(store) if final.opened]


def answer(found: Sequence[Final], rows: Sequence[judge.Row] = (), store: Store | None = None) -> str:
    """The answer in a few sentences: how good, with what network, beside the original, beside the others.

    Parts of the class `page-only` are left out where the answer is repeated (the README). With the judged tests `rows`
    and the ablation's records in `store` a sentence on the design choices follows."""
    original = _original()
    if not found:
        return (
            "<p>No committed record has been opened on the test set yet. The published TPSNet reports"
            f" {100 * original['accuracy']:.2f}% at {original['parameters']:,} parameters.</p>"
        )
    best, *others = leading(found)
    sentences = [
        f"Our best network {where_trained(best)} (recipe <em>{escape(best.name)}</em>, {_aside(_kind(best))}"
        f"{_millions(best)} million parameters) classifies <strong>{best.accuracy():% value}</strong> of the"
        f" {best.opened[0][1].metrics['n']:,} test images correctly: {_mean_of(best)}."
        f" {_time(best, _on(best))}",
        f"The published TPSNet reports {100 * original['accuracy']:.2f}%; the difference is"
        f" {_difference(best, original, found)}{_why_not_settled(best, original, found)}.",
    ]
    sentences += [
        f"Our best {where_trained(other)} (recipe <em>{escape(other.name)}</em>, {_millions(other)} million) reaches"
        f" {other.accuracy():%}, {_difference(other, original, found)}. {_time(other, _aside(_on(other)))}"
        for other in others
    ]
    better, known = _rank(best)
    sentences.append(
        f"Of {known} published networks under five million parameters, {better} report more than {best.name}."
    )
    chosen = _design_choices(rows, store)
    sentences += [_aside(chosen)] if chosen else []
    return f'<ul class="sentences">{"".join(f"<li>{sentence} </li>" for sentence in sentences)}</ul>'


def _kind(final: Final) -> str:
    """The network's family and size in words: blocks and channels of each layer."""
    model = final.run.model
    kind = "ResNet" if model.residual else "plain network"
    blocks, channels = ("-".join(map(str, numbers)) for numbers in (model.blocks, model.channels))
    return f"a {kind} of {blocks} blocks with {channels} channels, "


def _aside(words: str) -> str:
    """Words that the page has and the README leaves out."""
    return f'<span class="page-only">{words}</span>'


def _time(final: Final, hardware: str) -> str:
    """The time of one run on some hardware, and how the others of the recipe shared their machine."""
    beside = [record for record in final.counted if record not in final.timed]
    first = f"One run takes {duration(60 * final.minutes)}{hardware}"
    if not final.alone:
        return f"{first}{_aside(', shared with other runs')}."
    if not beside:
        return f"{first}."
    slower = duration(sum(record.metrics["seconds"] for record in beside) / len(beside))
    return f"{first}{_aside(f', alone; beside another, {slower}')}."


def _on(final: Final) -> str:
    """The hardware of the runs whose time is quoted."""
    return f" on {final.timed[0].hardware}"


def _why_not_settled(final: Final, original: Mapping[str, Any], found: Sequence[Final]) -> str:
    """What "not settled" means here: the interval has the noise of the one published run too, and includes 0."""
    estimate = against_published(final, original, found)
    if stats.verdict(estimate, SMALLEST_GAIN) != stats.NOT_SETTLED or not estimate.has_interval:
        return ""
    return _aside(" (its one run has noise too; the interval includes 0)")


def _design_choices(rows: Sequence[judge.Row], store: Store | None) -> str:
    """How many of the original's design claims hold, and what the ablation shows; empty without records."""
    measured = [row for row in rows if row.n]
    if not measured:
        return ""
    verdicts = (stats.HOLDS, stats.DOES_NOT_HOLD, stats.NO_DIFFERENCE)
    held, failed, alike = (sum(row.verdict == verdict for row in measured) for verdict in verdicts)
    parts = [
        f"Design choices{common_budget(rows)}: {held + failed + alike} of {len(measured)} tests of"
        f' <a href="#claims">the original\'s claims</a> are settled ({held} for it, {failed} against it)'
    ]
    changes = [] if store is None else ablation(collect(load_experiment("ablation"), store))
    if names := [name for row in changes if row.verdict == stats.HOLDS for name in row.ingredients]:
        missed = escape(", ".join(dict.fromkeys(names)))
        parts.append(f"a small <em>two_cores</em> loses accuracy without {missed}")
    return f"{'; '.join(parts)}."


def _original() -> Mapping[str, Any]:
    return next(row for row in cost.published() if row["model"] == "TPSNet")


def where_trained(final: Final) -> str:
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


def first_figure(found: Sequence[Final]) -> str:
    return shown(frontier(found), frontier(found, narrow=True))


def shown(fig: Figure, narrow: Figure | None = None) -> str:
    """A figure with the caption, alternative text and records that it carries."""
    about = style.description(fig)
    return page.figure(fig, about.alt, about.caption, records=about.records, narrow=narrow)


def answer_table(found: Sequence[Final]) -> str:
    """At most six rows: ours, the original, and the best published ones."""
    published = sorted(cost.published(), key=lambda row: -row["accuracy"])
    checked = [row for row in published if row["checked"] == "yes" and row["model"] != "TPSNet"][:3]
    ours = [
        cost.final_row(final) | {"model": f"ours, {where_trained(final)} ({final.name})"} for final in leading(found)
    ]
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


def common_budget(rows: Sequence[judge.Row]) -> str:
    small = "in small, short runs"
    measured = [row for row in rows if row.n]
    return f", {small} alone" if measured and all(row.budget.startswith(small) for row in measured) else ""
