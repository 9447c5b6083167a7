"""What the first screen of the report says of the design choices: claims, shapes, and ingredients of the recipes."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from html import escape

import numpy as np
from markupsafe import Markup

from tpsnet_lib import stats
from tpsnet_lib.analysis.architecture import LONG, design_variables, largest_run, steps
from tpsnet_lib.analysis.final_runs import Final, leading
from tpsnet_lib.analysis.training import ABLATIONS, AblationRow, ablation
from tpsnet_lib.claims import judge
from tpsnet_lib.claims.claims import TOPICS
from tpsnet_lib.config import MEMBERS
from tpsnet_lib.model_cost import count_macs
from tpsnet_lib.report import elements
from tpsnet_lib.runs.experiments import collect, load_experiment
from tpsnet_lib.runs.records import Store

INGREDIENTS = "nb04-data-ablation"  # the records of the figure of chapter 4
RECIPE_IN_WORDS = "nb04-cell-id=recipe"  # its table of what each ingredient is
LATE_CHOICES = '<a href="#limitations">late choices</a>'


def design_choices(
    rows: Sequence[judge.Row], late: AbstractSet[str], best: Final, was_tried: bool = False
) -> list[str]:
    """What is known of the design choices: the settled headlines of the original's claims; empty without records.
    `best`: the leading recipe; `was_tried`: whether its ingredients were left out one at a time."""
    measured = [row for row in rows if row.n]
    if not measured:
        return []
    most_parameters = max(row.largest_run[0] for row in measured)
    longest = max(measured, key=lambda row: row.largest_run[1])
    batch, name = longest.answer.groups[0].config.train.batch_size, f"<em>{escape(best.name)}</em>"
    times = count_macs(best.run.model) / count_macs(MEMBERS["tpsnet"])
    variants = (
        '; its variants are in <a href="#nb04">chapter 4</a>'
        if best.was_tuned
        else f', and its ingredients were tried <a href="#{INGREDIENTS}">only small</a>'
        if was_tried
        else ", and no variant of it was trained"
    )
    unsettled = {row.claim: elements.test_link(row, _topic(row, measured)) for row in measured if not row.settled}
    settled = [row for row in measured if row.settled]
    by_late = sum(row.name in late for row in measured)
    still_open = f", {len(measured) - len(settled)} open ({'; '.join(unsettled.values())})" if unsettled else ""
    waiting = f", {len(rows) - len(measured)} not run" if len(rows) > len(measured) else ""
    shown = [
        row
        for verdict in (stats.HOLDS, stats.DOES_NOT_HOLD, stats.NO_DIFFERENCE)
        for row in measured
        if row.test.headline and row.verdict == verdict and row.largest_run[1] >= LONG
    ]
    marked = ", †" if any(row.name in late for row in shown) else ""
    doubts = [f"{by_late} of these {len(settled)} only by {LATE_CHOICES}{marked}"] if by_late else []
    doubts += [f"{turn} turn round in other runs, ‡"] if (turn := sum(row.turns for row in settled)) else []
    doubtful = f" ({'; '.join(doubts)})" if doubts else ""
    long_runs = [row for row in settled if row.largest_run[1] >= LONG]
    said = (
        f"<b>Which design choices make it so?</b> Not isolated: {name} differs from TPSNet in recipe, shape and"
        f" arithmetic ({times:.1f} times the MACs){variants}. We tested"
        f' <a href="#claims">the original\'s claims</a> on smaller networks (at most {most_parameters:,} parameters)'
        f" and shorter runs (at most {longest.largest_run[1]:,} steps of {batch} images; {name} took"
        f" {steps(best.run):,} of {best.run.train.batch_size}); they may not carry over."
        f" Of {len(rows)} tests {judge.count_verdicts(settled)}{doubtful}{still_open}{waiting}. Of the"
        f" {len(long_runs)} settled in {LONG:,} steps or more (one block a layer unless said),"
        f" {judge.count_verdicts(long_runs)}; {len(shown)} that we picked"
        " (<em>holds</em>: above 0, <em>does not hold</em>: below a point):"
    )
    lines = [
        {
            "claim": _claim_and_note(row, late),
            "points": _points(row),
            "verdict": row.verdict.removeprefix("shows "),
        }
        for row in shown
    ]
    return [said] + ([elements.table(lines, list(lines[0]))] if lines else [])


def _topic(row: judge.Row, rows: Sequence[judge.Row]) -> str:
    """What an unsettled test is about: the topic of its claim, or its own name where it alone of several is open."""
    settled = [each.settled for each in rows if each.claim == row.claim]
    return row.name if any(settled) and settled.count(False) == 1 else TOPICS[row.claim]


def _claim_and_note(row: judge.Row, late: AbstractSet[str]) -> Markup:
    """A settled test, and under it what must be known beside it; that it has one block a layer is said above."""
    beside = elements.under_points("; ".join(filter(None, (row.remark, row.elsewhere))))
    return elements.with_note(elements.test_link(row, row.short) + "†" * (row.name in late) + "‡" * row.turns, beside)


def _points(row: judge.Row) -> Markup:
    """The size of a test in points of accuracy, and under it the interval."""
    size, interval = map(elements.under_points, (row.size, row.answer.interval))
    return elements.with_note(Markup(size), interval)


SHAPES = {  # choices of shape that are no claims of the original's, in words: the variable, and the levels compared
    "skips at {} blocks a layer": ("skips", [(f"B={blocks}", f"B={blocks}, plain") for blocks in (1, 3, 5)]),
    "3×3 kernels in place of 1×1": ("F", [("F=3", "F=1")]),
}


def shapes(store: Store) -> str:
    """What `SHAPES` bring, each with the size of its runs, as a sentence in HTML; empty without records."""
    variables, said = design_variables(store), dict[str, list[str]]()  # effects by the size of their runs
    for words, (symbol, compared) in SHAPES.items():
        groups = {group.label: group for group in variables[symbol][1] if group.records}
        if pairs := [pair for pair in compared if groups.keys() >= set(pair)]:
            both = [groups[level] for pair in pairs for level in pair]
            leads = [groups[better].lead_over(groups[worse]) for better, worse in pairs]
            size, length = largest_run(both)
            runs = f"at most {size:,} parameters, {length:,} steps"
            if any(judge.at_the_border(group.config) for group in both):
                runs += ", in part the largest rate tried"
            counts = " and ".join(", ".join(level.removeprefix("B=") for level, _ in pairs).rsplit(", ", 1))
            brings = elements.under_points(", ".join(f"{each:points}" for each in leads))
            said.setdefault(runs, []).append(f"{words.format(counts)} {brings}")
    if not said:
        return ""
    each = "; ".join(f"{'; '.join(effects)} ({runs})" for runs, effects in said.items())
    return f'Of what else <a href="#nb02">chapter 2</a> measured: {each}.'


def ablations(recipes: Sequence[Final], store: Store) -> dict[str, list[AblationRow]]:
    """The ablations of the leading recipes that have one with records, by the name of the recipe."""
    names = [final.name for final in leading(recipes) if final.name in ABLATIONS] if recipes else []
    changes = {name: ablation(collect(load_experiment(ABLATIONS[name]), store)) for name in names}
    return {name: rows for name, rows in changes.items() if rows}


def ingredients(changes: Mapping[str, Sequence[AblationRow]]) -> str:
    """What `ablations` show of the recipes' ingredients, as a paragraph in HTML; empty where nothing is settled."""
    said = [_ingredients(name, rows) for name, rows in changes.items()]
    if not any(said):
        return ""
    return (
        f'<p class="beside"><a href="#{RECIPE_IN_WORDS}">Ingredients</a> that bring most in'
        f' <a href="#{INGREDIENTS}">small networks and short runs</a>, of recipes scaled to them'
        " (rates tuned for SGD alone; harms may pay in longer runs):"
        f" {' '.join(filter(None, said))}</p>"
    )


def _ingredients(recipe: str, changes: Sequence[AblationRow]) -> str:
    """What the ingredients of a recipe bring to a small network of its kind; empty if nothing is settled."""
    brought: dict[str, AblationRow] = {}  # by ingredient, of the rows that lack it
    for row in changes:
        if row.verdict == stats.HOLDS:
            for name in row.ingredients:
                brought[name] = min(brought.get(name, row), row, key=lambda each: each.brings.value)
    harmful = {row.name: row for row in changes if row.harms}
    if not brought and not harmful:
        return ""
    largest, longest = largest_run([changes[0].group])  # the whole recipe's
    largest_first = sorted(brought.items(), key=lambda item: -item[1].brings.value)
    parts = [f"{escape(name)} {_brought(row)}" for name, row in largest_first]
    widths = [row.brings.high - row.brings.low for row in changes[1:] if row.brings.has_interval]
    up_to = "up to " * bool(np.ptp(widths) > stats.EQUAL) if widths else ""
    none = f"none is shown to help (intervals {up_to}±{50 * max(widths, default=0):.1f}, verdicts adjusted)"
    harms = "".join(f"; {escape(name)} {_brought(row)}" for name, row in harmful.items())
    whole = changes[0].group.estimate
    size = f"{largest:,} parameters, {longest:,} steps" + (f", {whole.value:.0%} right" if whole.n else "")
    return f"<em>{escape(recipe)}</em> ({size}): {', '.join(parts) or none}{harms}."


def _brought(row: AblationRow) -> str:
    """What an ingredient brings, by a row that lacks it, and where a larger rate of that might have lost less."""
    limit = f" ({row.group.config.train.optimizer.upper()} at the largest rate tried)" if row.rate == "largest" else ""
    return f"{elements.under_points(f'{row.brings:points}')}{row.at_what_size}{limit}"
