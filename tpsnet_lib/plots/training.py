"""Figures of the final training: schedules, learning curves, a step's time, the climb, two habits, the frontier."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from torch import Tensor

from tpsnet_lib import metrics
from tpsnet_lib.analysis.cost import frontier
from tpsnet_lib.analysis.step_profile import StepProfile
from tpsnet_lib.analysis.training import Halves, Step
from tpsnet_lib.plots.style import INK, MUTED, PALETTE, STYLE, figure
from tpsnet_lib.runs.records import Record, held_out

BLUE, VERMILION, GREEN, PINK, ORANGE, SKY, GREY = PALETTE
DASHES = ("-", "--", "-.", ":")
LEADER, BROWN = "#B8C0C8", "#8B5E3C"
P = ParamSpec("P")


def _styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Titles and legends take their style when they are made, so a figure is drawn with the sheet on."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **options: P.kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **options)

    return drawn


@_styled
def schedules(shapes: Mapping[str, Sequence[float]], trials: Mapping[str, Sequence[float]], epochs: int) -> Figure:
    """Learning rates as shares of their peak: `shapes` over a whole run, and short `trials` of so many epochs."""
    fig, (left, right) = figure(1, 2, height=2.9, sharey=True)
    for axes, curves, length in ((left, shapes, 100), (right, trials, epochs)):
        for (name, values), dash in zip(curves.items(), DASHES, strict=False):
            axes.plot(np.linspace(0, length, len(values)), values, dash, label=name)
    left.set(xlabel="share of the run (%)", ylabel="learning rate / its peak", title="Schedules of a whole run")
    right.set(xlabel="epoch", title=f"A trial of {epochs} epochs")
    left.legend(fontsize=8, loc="lower left")
    right.legend(fontsize=8, loc="lower left")
    return fig


@_styled
def learning_curves(record: Record, n: int) -> Figure:
    """Accuracy, with the Wilson band of the n validation images, and loss, by epoch; of a run that was fitted on the
    validation images too, those of training alone."""
    rows = record.history()
    epochs = [row["epoch"] for row in rows]
    fig, (left, right) = figure(1, 2, height=3.0)
    if held_out(record) is not None:
        seen = [row["validation_accuracy"] for row in rows]
        bands = [metrics.wilson(round(accuracy * n), n) for accuracy in seen]
        ends = [100 * low for low, _ in bands], [100 * high for _, high in bands]
        left.fill_between(epochs, *ends, color=BLUE, alpha=0.2)
        left.plot(epochs, [100 * accuracy for accuracy in seen], "o-", color=BLUE, markersize=4, label="validation")
        right.plot(epochs, [row["validation_loss"] for row in rows], "o-", color=BLUE, markersize=4, label="validation")
        last = 100 * seen[-1]
        left.annotate(f"{last:.1f}%", (epochs[-1], last), xytext=(-4, 8), textcoords="offset points", ha="right")
    fitted = [100 * row["train_accuracy"] for row in rows]
    left.plot(epochs, fitted, "s--", color=VERMILION, markersize=4, label="training")
    right.plot(epochs, [row["train_loss"] for row in rows], "s--", color=VERMILION, markersize=4, label="training")
    left.set(xlabel="epoch", ylabel="accuracy (%)", title="Accuracy")
    right.set(xlabel="epoch", ylabel="cross-entropy (nats)", title="Loss")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(0, None)
    left.legend(loc="lower right")
    return fig


@_styled
def step_time(step: StepProfile) -> Figure:
    """One horizontal bar: the shares of a training step, largest first, named beneath."""
    fig, axes = figure(height=1.9)
    colours = dict(zip(sorted(step.seconds), [*PALETTE, INK, LEADER, BROWN], strict=True))
    left = 0.0
    for group in step.seconds:
        share = 100 * step.share(group)
        axes.barh(
            0, share, left=left, height=0.6, color=colours[group], edgecolor="white", label=f"{group}, {share:.1f}%"
        )
        if share >= 6:
            ink = INK if colours[group] in (LEADER, ORANGE, SKY) else "white"
            axes.text(left + share / 2, 0, f"{share:.0f}%", ha="center", va="center", color=ink, fontweight="bold")
        left += share
    axes.set(xlim=(0, 100), ylim=(-0.4, 0.4), yticks=[], xlabel="share of a step (%)")
    axes.spines["left"].set_visible(False)
    axes.grid(False)
    fig.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=8)
    return fig


@_styled
def climb(steps: Sequence[Step], over: str = "the row above", gain: str = "Gain") -> Figure:
    """Left, each row's accuracy with its seeds; right, what it gains over another row, paired, with the interval.

    `over` names that row, and `gain` what is seen of it, in the right panel's label and title."""
    fig, (left, right) = figure(1, 2, height=0.9 + 0.42 * len(steps), sharey=True)
    colours = {"gain": GREEN, "loss": VERMILION, "not settled": MUTED, "start": INK}
    for row, step in enumerate(steps):
        colour = colours[step.verdict]
        left.plot(
            [100 * value for value in step.accuracy.values()], [row] * len(step.accuracy), "o", color=colour, alpha=0.35
        )
        left.plot(100 * step.mean, row, "|", color=colour, markersize=16, markeredgewidth=2.5)
        if step.gains:
            mean, low, high = (100 * value for value in step.gain)
            right.plot([low, high], [row, row], color=colour, linewidth=2.2)
            right.plot([100 * value for value in step.gains], [row] * len(step.gains), "o", color=colour, alpha=0.35)
            right.plot(mean, row, "D", color=colour, markersize=5)
            right.annotate(
                f"{mean:+.1f}", (mean, row), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8
            )
    right.axvline(0, color=INK, linewidth=1)
    left.set_yticks(range(len(steps)), [_wrapped(step.label) for step in steps], fontsize=8)
    left.invert_yaxis()
    left.set(xlabel="validation accuracy (%)", title="Accuracy, each seed a dot")
    right.set(xlabel=f"points over {over}", title=f"{gain}, paired, 95% interval")
    return fig


def _wrapped(label: str, width: int = 30) -> str:
    if len(label) <= width:
        return label
    cut = label.rfind(" ", 0, len(label) // 2 + 8)
    return f"{label[:cut]}\n{label[cut + 1 :]}"


@_styled
def halves(correct: Tensor, result: Halves) -> Figure:
    """Left, accuracy by epoch with the epochs that the halves chose; right, the chosen epoch on both halves."""
    fig, (left, right) = figure(1, 2, height=3.0)
    accuracy = 100 * correct.double().mean(1).numpy()
    epochs = np.arange(1, len(accuracy) + 1)
    counts = np.bincount(result.epoch, minlength=len(accuracy)) / len(result.epoch)
    bars = left.twinx()
    bars.bar(epochs, 100 * counts, color=ORANGE, alpha=0.55, width=0.7)
    bars.set(ylabel="chosen in (% of divisions)", ylim=(0, 100))
    bars.grid(False)
    left.set_zorder(bars.get_zorder() + 1)
    left.patch.set_visible(False)
    left.plot(epochs, accuracy, "o-", color=BLUE, markersize=4)
    left.set(xlabel="epoch", ylabel="accuracy on all images (%)", title="Which epoch is best?")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    edges = np.histogram_bin_edges(100 * np.concatenate([result.chosen, result.honest]), 24)
    named = ((result.chosen, "on the half that chose it", VERMILION), (result.honest, "on the other half", BLUE))
    for values, name, colour in named:
        right.hist(100 * values, edges, histtype="stepfilled", color=colour, alpha=0.45, label=name)
        right.axvline(100 * values.mean(), 0, 0.74, color=colour, linewidth=2)
    right.set(xlabel="accuracy of the chosen epoch (%)", ylabel="divisions", title="What it is said to reach")
    right.set_ylim(0, 1.35 * right.get_ylim()[1])
    right.legend(fontsize=8, loc="upper left")
    return fig


@_styled
def seeds(groups: Mapping[str, Sequence[float]], difference: float) -> Figure:
    """Each run's distance from the mean of its group, whose runs differ by seed alone, with a published difference."""
    fig, axes = figure(height=0.9 + 0.33 * len(groups))
    axes.axvspan(-50 * difference, 50 * difference, color=ORANGE, alpha=0.3, linewidth=0)
    for row, values in enumerate(groups.values()):
        apart = 100 * (np.asarray(values) - np.mean(values))
        axes.plot([apart.min(), apart.max()], [row, row], color=MUTED, linewidth=1)
        axes.plot(apart, [row] * len(apart), "o", color=BLUE, alpha=0.7)
    axes.set_yticks(range(len(groups)), [_wrapped(name, 44) for name in groups], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("points from the mean of the group's runs")
    axes.set_title(f"Runs that differ by seed alone; the band is {100 * difference:.2f} points wide", fontsize=9.5)
    return fig


COSTS: dict[str, tuple[str, float]] = {  # of a row: the axis that shows it, and its unit
    "parameters": ("parameters (millions)", 1e6),
    "macs": ("MACs an image (millions)", 1e6),
    "minutes": ("minutes of training (each on its own machine)", 1.0),
}


@_styled
def pareto(rows: Sequence[Mapping[str, Any]], *costs: str) -> Figure:
    """Test accuracy, on a scale of the error's logarithm, against one cost a panel, with the frontier.

    Rows are those of `cost.published` and `cost.final_row`: one with `low` and `high` is ours, and drawn with its
    interval; one that is not `checked` is drawn hollow. What is not known of a row is left out."""
    fig, panels = figure(1, len(costs), height=4.0, sharey=True, squeeze=False)
    for axes, name in zip(panels[0], costs, strict=True):
        label, unit = COSTS[name]
        shown = [row for row in rows if row.get(name) is not None and row.get("accuracy") is not None]
        edge = frontier(shown, name)
        corners = [row[name] / unit for row in edge], [100 * row["accuracy"] for row in edge]
        axes.step(*corners, where="post", color=SKY, zorder=1)
        for row in shown:
            _point(axes, row, row[name] / unit)
        axes.set_yscale("function", functions=(lambda y: -np.log10(100.001 - y), lambda y: 100.001 - 10**-y))
        values = [row[name] for row in shown]
        if values and max(values) > 8 * min(values):
            axes.set_xscale("log")
            wide = max(values) > 200 * min(values)
            axes.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(label)
        axes.margins(x=0.12, y=0.06)
    for axes, name in zip(panels[0], costs, strict=True):  # once the shared axis is settled
        axes.yaxis.set_major_locator(FixedLocator([0, 50, 70, 80, 85, 90, 92, 94, 95, 96, 97, 98, 99]))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        _names(axes, [row for row in rows if row.get(name) is not None and row.get("accuracy") is not None], name)
    panels[0][0].set_ylabel("test accuracy (%)")
    return fig


def _point(axes: Axes, row: Mapping[str, Any], x: float) -> None:
    y = 100 * row["accuracy"]
    if row.get("low") is not None:
        ends = [[y - 100 * row["low"]], [100 * row["high"] - y]]
        axes.errorbar(x, y, ends, color=VERMILION, fmt="D", capsize=3, zorder=3)
    else:
        filled = row.get("checked") != "no"
        axes.plot(x, y, "o", color=BLUE, markerfacecolor=BLUE if filled else "white", markersize=5, zorder=2)


def _names(axes: Axes, rows: Sequence[Mapping[str, Any]], name: str, gap: float = 0.052) -> None:
    """Names in a column right of the panel, by accuracy, each as near its point's height as the others let it be."""
    low, high = (axes.transScale.transform((1, end))[1] for end in axes.get_ylim())
    points = [(row, (axes.transScale.transform((1, 100 * row["accuracy"]))[1] - low) / (high - low)) for row in rows]
    points.sort(key=lambda point: (-point[1], -point[0][name]))
    heights = [at for _, at in points]
    for _ in range(500):  # neighbours that overlap give way to either side
        for above in range(len(heights) - 1):
            push = max(0.0, gap - (heights[above] - heights[above + 1])) / 2
            heights[above] += push
            heights[above + 1] -= push
    for (row, _), height in zip(points, heights, strict=True):
        ours = row.get("low") is not None
        axes.annotate(
            row["model"],
            (row[name] / COSTS[name][1], 100 * row["accuracy"]),
            xytext=(1.02, height),
            textcoords="axes fraction",
            va="center",
            fontsize=7,
            color=VERMILION if ours else INK,
            fontweight="bold" if ours else "normal",
            arrowprops={
                "arrowstyle": "-",
                "color": LEADER,
                "linewidth": 0.6,
                "shrinkA": 0,
                "shrinkB": 3,
                "relpos": (0, 0.5),
            },
            zorder=0,
        )
