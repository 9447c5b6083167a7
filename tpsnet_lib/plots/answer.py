"""What is seen first: accuracy against parameters, and the verdicts on the original's claims."""

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import Bbox

from tpsnet_lib import stats
from tpsnet_lib.analysis.peers import frontier
from tpsnet_lib.plots.phone import PHONE
from tpsnet_lib.plots.style import BLUE, GREY, INK, SKY, VERDICTS, VERMILION, WIDTH, describe, draw_intervals, figure
from tpsnet_lib.runs.records import Record
from tpsnet_lib.stats import Estimate

BESIDE = [(9, 0, "left"), (-9, 0, "right"), (0, 11, "center"), (0, -11, "center")]  # of a name, in points from its dot
BESIDE += [(9, 9, "left"), (-9, 9, "right"), (9, -9, "left"), (-9, -9, "right"), (0, 20, "center"), (0, -20, "center")]
Rows = Sequence[Mapping[str, Any]]


def accuracy_against_parameters(rows: Rows, width: float = WIDTH) -> Figure:
    """Test accuracy, on a scale of the error's logarithm, against parameters, with the frontier over all rows.

    Rows are those of `peers`: one with an `estimate` is ours, drawn with its interval; one that is not `checked`
    is hollow, and one without an accuracy is left out. Named are ours, the original, those that no other beats and the
    best that was read at its source; of these, two in a figure for a phone, narrower than
    4 inches."""
    narrow = width < 4
    measured = [row for row in rows if row.get("accuracy") is not None]
    edge = frontier(measured, "parameters")
    ours = sorted((r for r in measured if r.get("estimate") is not None), key=lambda r: -r["accuracy"])
    height = min(3.6, 0.64 * width)
    if narrow:
        height = 5.0 if len(ours) > 3 else 4.1  # so that there is room for each name of ours
    fig, axes = figure(width=width, height=height)
    original = [row for row in measured if row["model"] == "TPSNet"]
    others = [row for row in measured if row not in ours and row not in original]
    read, unread = ([row for row in others if (row.get("checked") == "no") == hollow] for hollow in (False, True))
    dots: Any = {"color": BLUE, "markersize": 5, "zorder": 5}  # above ours, which are larger
    axes.step(*_places(edge), where="post", color=SKY, zorder=1, label="best for its size")
    axes.plot(*_places(read), "o", **dots, label="published")
    axes.plot(*_places(unread), "o", **dots, markerfacecolor="white", label="published, known at second hand")
    axes.plot(*_places(original), "s", color=INK, markersize=6, label="TPSNet, the original", zorder=3)
    look: Any = {
        "marker": "D",
        "color": VERMILION,
        "capsize": 3,
        "zorder": 4,
        "label": "ours, 95% interval",
    }
    draw_intervals(axes, [row["estimate"] for row in ours], _places(ours)[0], **look)
    _set_scales(axes, min([100 * row["accuracy"] for row in measured], default=90), 5.6 if width == WIDTH else 6.2)
    place: Any = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0), "ncols": 1 if narrow else 2}
    axes.legend(fontsize=8, handletextpad=0.4, columnspacing=1, **place)
    best = [row for row in edge if row not in ours and row not in original]
    best += [row for row in sorted(read, key=lambda row: -row["accuracy"])[:1] if row not in best]
    _name(axes, [*ours, *original, *(best[-2:] if narrow else best)], measured)
    above = [row for row in others if all(row["accuracy"] > mine["accuracy"] for mine in ours)]
    counted = f"{len(above)} of {len(others)} published networks besides TPSNet report more than any of ours;"
    rank = f"{counted} each" if ours else "Each"
    on_it = ", ".join(row["model"] for row in edge if row in ours)
    among = f" (of ours, {on_it} is on it)" if on_it else ""
    caption = f"{rank} point of the line{among} beats all smaller networks."
    alt = (
        f"Test accuracy against parameters. Ours: {_listed(ours)}. The original: {_listed(original)}. Best for their"
        f" size: {_listed(edge)}. {len(others)} published networks in all besides the original."
    )
    records = {row["model"]: list(row.get("records", ())) for row in ours}
    phone = None if narrow else lambda: accuracy_against_parameters(rows, PHONE)
    return describe(fig, caption=caption, alt=alt, records=records, phone=phone)


def _set_scales(axes: Axes, lowest: float, end: float) -> None:
    """Millions of parameters to `end`, and accuracy in percent from below `lowest`, by the error's logarithm."""
    axes.set_yscale("function", functions=(lambda y: -np.log10(100.001 - y), lambda y: 100.001 - 10**-y))
    axes.set(xlabel="parameters (millions)", ylabel="test accuracy (%, log of the error)")
    below = lowest - 0.3 * (100 - lowest)  # a name may stand below the lowest
    axes.set(xlim=(-0.12, end), ylim=(below, 98.6))
    axes.xaxis.set_major_locator(FixedLocator(range(6)))
    axes.yaxis.set_major_locator(FixedLocator([50, 60, 70, 80, 85, 90, 92, 94, 95, 96, 97, 98]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _places(rows: Rows) -> tuple[list[float], list[float]]:
    return [row["parameters"] / 1e6 for row in rows], [100 * row["accuracy"] for row in rows]


def _listed(rows: Rows) -> str:
    named = (f"{row['model']} {100 * row['accuracy']:.2f}% at {row['parameters'] / 1e6:.2f} million" for row in rows)
    return ", ".join(named) or "none"


def _name(axes: Axes, named: Rows, dots: Rows) -> None:
    """Write each name beside its dot, at the first of several places free of dots, intervals, lines and names, in one
    line or two; a name that finds none is left out."""
    axes.figure.canvas.draw()
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in axes.transData.transform(np.transpose(_places(dots)))]
    for row in (row for row in dots if row.get("estimate") is not None):
        ends = [(row["parameters"] / 1e6, 100 * end) for end in (row["estimate"].low, row["estimate"].high)]
        (x, low), (_, high) = axes.transData.transform(ends)
        taken.append(Bbox.from_extents(x - 6, low, x + 6, high))
    corners = axes.transData.transform(np.transpose(_places(frontier(dots, "parameters"))))
    for (x, y), (beyond, above) in itertools.pairwise(corners):
        taken += [Bbox.from_extents(x, y - 1, beyond, y + 1), Bbox.from_extents(beyond - 5, y, beyond + 5, above)]
    inside = axes.get_window_extent()
    for row in named:
        ours = row.get("estimate") is not None
        look: Any = {"color": VERMILION if ours else INK, "va": "center", "fontsize": 8.5, "linespacing": 1.0}
        look["fontweight"] = "bold" if ours or row["model"] == "TPSNet" else "normal"
        parts = textwrap.fill(row["model"].replace("_", "_ "), 16).replace("_ ", "_")  # `two_cores_`, `narrow`
        texts = dict.fromkeys((row["model"], parts))
        for text, (across, up, side) in itertools.product(texts, BESIDE):
            place = row["parameters"] / 1e6, 100 * row["accuracy"]
            written = axes.annotate(text, place, (across, up), textcoords="offset points", ha=side, **look)
            box = written.get_window_extent()
            within = inside.x0 < box.x0 and box.x1 < inside.x1 + 60 and inside.y0 < box.y0
            if within and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            written.remove()


def claims(tests: Sequence[tuple[str, str, Estimate]], budget: str, records: Sequence[Record] = ()) -> Figure:
    """Tests of the original's claims in points of accuracy that speak for the claim: (sentence, verdict, estimate).

    `budget`: of which runs, in words that begin the caption."""
    fig, axes = figure(height=0.9 + 0.36 * len(tests))
    axes.axvspan(-100 * stats.SMALLEST_EFFECT, 100 * stats.SMALLEST_EFFECT, color=GREY, alpha=0.15, linewidth=0)
    axes.axvline(0, color=INK, linewidth=1)
    for verdict, colour in VERDICTS.items():
        places = [at for at, test in enumerate(tests) if test[1] == verdict]
        if places:
            chosen = [tests[at][2] for at in places]
            draw_intervals(axes, chosen, places, horizontal=True, color=colour, label=verdict)
    axes.set_yticks(range(len(tests)), [textwrap.fill(sentence, 52) for sentence, _, _ in tests], fontsize=8)
    axes.set_ylim(len(tests) - 0.4, -0.6)
    axes.set_xlabel("points of accuracy in favour of the claim")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=4, fontsize=8.5)
    known = [test[1] for test in tests]
    counts = ", ".join(f"{verdict}: {known.count(verdict)}" for verdict in VERDICTS if verdict in known)
    return describe(
        fig,
        caption=f"{budget} {known.count(stats.HOLDS)} of {len(known)} tests of the original's claims hold. A dot right"
        " of 0 speaks for the claim; bars are 95% intervals of one test; the colours are verdicts after Holm's"
        " adjustment; the band is one point.",
        alt=f"Tests of the original's claims with their intervals. {counts}.",
        records=records,
    )
