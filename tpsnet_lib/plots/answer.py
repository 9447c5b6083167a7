"""What is seen first: accuracy against parameters, and the verdicts on the original's claims."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator
from matplotlib.transforms import Bbox

from tpsnet_lib import stats
from tpsnet_lib.analysis.cost import frontier
from tpsnet_lib.plots.style import INK, PALETTE, STYLE, describe, figure
from tpsnet_lib.runs.records import Record
from tpsnet_lib.stats import Estimate

BLUE, VERMILION, GREEN, _, _, SKY, GREY = PALETTE
SMALL: Any = {"fontsize": 8.5}  # points; the figure is shown at its own size, so this is what a reader sees
ACROSS = 5.9  # inches, of a figure beside the sentences of the first screen
PHONE = 3.5  # inches, of the same on a phone
BESIDE = [(9, 0, "left"), (-9, 0, "right"), (0, 11, "center"), (0, -11, "center")]  # of a name, in points from its dot
BESIDE += [(9, 9, "left"), (-9, 9, "right"), (9, -9, "left"), (-9, -9, "right")]


@mpl.rc_context(STYLE)
def accuracy_against_parameters(rows: Sequence[Mapping[str, Any]], narrow: bool = False) -> Figure:
    """Test accuracy, on a scale of the error's logarithm, against parameters, with the frontier over all rows.

    Rows are those of `cost.published` and `cost.final_row` (one with an `estimate` is ours, drawn with its interval).
    Named are ours, the original and those that no other beats; in a `narrow` figure, for a phone, the former two."""
    fig, axes = figure(width=PHONE if narrow else ACROSS, height=4.1 if narrow else 3.6)
    shown = [row for row in rows if row.get("accuracy") is not None and row.get("parameters") is not None]
    edge = frontier(shown, "parameters")
    ours = [row for row in shown if row.get("estimate") is not None]
    original = [row for row in shown if row["model"] == "TPSNet"]
    others = [row for row in shown if row not in ours and row not in original]
    axes.step(*_places(edge), where="post", color=SKY, zorder=1, label="best for its size")
    kinds: list[tuple[str, list[Mapping[str, Any]], Any]] = [
        ("published", [row for row in others if row.get("checked") != "no"], {"markerfacecolor": BLUE}),
        ("published, not read at its source", [row for row in others if row.get("checked") == "no"],
         {"markerfacecolor": "white"}),
    ]  # fmt: skip
    for label, members, look in kinds:
        axes.plot(*_places(members), "o", color=BLUE, markersize=5, label=label, zorder=2, **look)
    axes.plot(*_places(original), "s", color=INK, markersize=6, label="TPSNet, the original", zorder=3)
    ends = [[100 * (row["accuracy"] - row["estimate"].low) for row in ours]]
    ends.append([100 * (row["estimate"].high - row["accuracy"]) for row in ours])
    axes.errorbar(*_places(ours), ends, color=VERMILION, fmt="D", capsize=3, zorder=4, label="ours, with 95% interval")
    axes.set_yscale("function", functions=(lambda y: -np.log10(100.001 - y), lambda y: 100.001 - 10**-y))
    axes.set(xlabel="parameters (millions)", ylabel="test accuracy (%)", xlim=(0, 5.6))
    low = min([100 * row["accuracy"] for row in shown], default=90)
    axes.set_ylim(np.floor(low) - 0.3, 98.6)
    axes.yaxis.set_major_locator(FixedLocator([80, 85, 90, 92, 93, 94, 95, 96, 97, 98]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    place: Any = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0), "ncols": 1 if narrow else 2}
    axes.legend(fontsize=8, handletextpad=0.4, columnspacing=1, **place)
    best = [row for row in edge if row not in ours and row not in original]
    _name(axes, [*ours, *original, *([] if narrow else best)], shown)
    alt = (
        f"Test accuracy against parameters. Ours: {_listed(ours)}. The original: {_listed(original)}. Best for their"
        f" size: {_listed(edge)}. {len(others)} published networks in all besides the original."
    )
    records = [record for row in ours for record in row.get("records", ())]
    return describe(
        fig,
        caption="At the parameters of ours, published networks reach more; each point of the line beats all smaller"
        " networks. Published figures are their authors'.",
        alt=alt,
        records=records,
    )


def _places(rows: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    return [row["parameters"] / 1e6 for row in rows], [100 * row["accuracy"] for row in rows]


def _listed(rows: Sequence[Mapping[str, Any]]) -> str:
    named = (f"{row['model']} {100 * row['accuracy']:.2f}% at {row['parameters'] / 1e6:.2f} million" for row in rows)
    return ", ".join(named) or "none"


def _name(axes: Axes, named: Sequence[Mapping[str, Any]], shown: Sequence[Mapping[str, Any]]) -> None:
    """Write each name beside its dot, at the first of several places free of dots, intervals, lines and names."""
    axes.figure.canvas.draw()
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in axes.transData.transform(np.transpose(_places(shown)))]
    for row in (row for row in shown if row.get("estimate") is not None):
        ends = [(row["parameters"] / 1e6, 100 * end) for end in (row["estimate"].low, row["estimate"].high)]
        (x, low), (_, high) = axes.transData.transform(ends)
        taken.append(Bbox.from_extents(x - 6, low, x + 6, high))
    corners = axes.transData.transform(np.transpose(_places(frontier(shown, "parameters"))))
    for (x, y), (beyond, above) in pairwise(corners):
        taken += [Bbox.from_extents(x, y - 1, beyond, y + 1), Bbox.from_extents(beyond - 1, y, beyond + 1, above)]
    inside = axes.get_window_extent()
    for row in named:
        for across, up, side in BESIDE:
            text = axes.annotate(
                row["model"],
                (row["parameters"] / 1e6, 100 * row["accuracy"]),
                (across, up),
                textcoords="offset points",
                ha=side,
                va="center",
                color=VERMILION if row.get("estimate") is not None else INK,
                fontweight="bold" if row.get("estimate") is not None or row["model"] == "TPSNet" else "normal",
                **SMALL,
            )
            box = text.get_window_extent()
            free = not any(box.overlaps(other) for other in taken) and inside.x0 < box.x0 and box.x1 < inside.x1 + 60
            if free or (across, up, side) == BESIDE[-1]:
                taken.append(box)
                break
            text.remove()


VERDICTS = {
    stats.HOLDS: GREEN,
    stats.DOES_NOT_HOLD: VERMILION,
    stats.NO_DIFFERENCE: SKY,
    stats.NOT_SETTLED: GREY,
}


@mpl.rc_context(STYLE)
def claims(tests: Sequence[tuple[str, str, Estimate]], budget: str, records: Sequence[Record] = ()) -> Figure:
    """Tests of the original's claims in points of accuracy that speak for the claim: (sentence, verdict, estimate).

    `budget`: of which runs, in words that begin the caption."""
    fig, axes = figure(height=0.9 + 0.36 * len(tests))
    axes.axvspan(-100 * stats.SMALLEST_EFFECT, 100 * stats.SMALLEST_EFFECT, color=GREY, alpha=0.15, linewidth=0)
    axes.axvline(0, color=INK, linewidth=1)
    for verdict, colour in VERDICTS.items():
        chosen = [(at, test[2]) for at, test in enumerate(tests) if test[1] == verdict]
        if chosen:
            middle = np.array([100 * estimate.value for _, estimate in chosen])
            low, high = (np.array([100 * getattr(e, end) for _, e in chosen]) for end in ("low", "high"))
            places = [at for at, _ in chosen]
            axes.errorbar(middle, places, xerr=[middle - low, high - middle], fmt="o", color=colour, label=verdict)
    axes.set_yticks(range(len(tests)), [textwrap.fill(sentence, 52) for sentence, _, _ in tests], fontsize=8)
    axes.set_ylim(len(tests) - 0.4, -0.6)
    axes.set_xlabel("points of accuracy in favour of the claim")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=4, fontsize=8.5)
    known = [test[1] for test in tests]
    counts = ", ".join(f"{verdict}: {known.count(verdict)}" for verdict in VERDICTS if verdict in known)
    return describe(
        fig,
        caption=f"{budget} some of the original's claims hold and others do not. A dot right of 0 speaks for the claim;"
        " bars are 95% intervals of one test; the colours are verdicts after Holm's adjustment; the band is one point.",
        alt=f"Tests of the original's claims with their intervals. {counts}.",
        records=records,
    )
