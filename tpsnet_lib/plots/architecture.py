"""Figures on architectures: what a factor changes, what accuracy costs, and what a table can say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tpsnet_lib.analysis.architecture import MATTERS, Comparison, Group
from tpsnet_lib.analysis.design_predictor import Prediction, Surrogate, Timing
from tpsnet_lib.config import PARAMETER_BUDGET, ModelConfig
from tpsnet_lib.model_cost import count_parameters
from tpsnet_lib.plots.style import INK, MUTED, PALETTE, figure
from tpsnet_lib.runs.records import Record


def cost_map(costs: Mapping[tuple[int, int], tuple[int, int]], members: Mapping[str, ModelConfig]) -> Figure:
    """Parameters and MACs over depth and width; the budget as a line, named members as points.

    `costs`: (blocks a layer, width) -> (parameters, MACs), on a full grid."""
    blocks, widths = (sorted({key[axis] for key in costs}) for axis in (0, 1))
    fig, axes = figure(1, 2, height=3.6, sharey=True)
    titles = ("Parameters, millions", "MACs of one image, millions")
    for which, (ax, title, lines) in enumerate(
        zip(axes, titles, ([0.1, 0.5, 1, 2, 10], [10, 50, 100, 250, 500, 1000]), strict=True)
    ):
        values = np.array([[costs[b, w][which] / 1e6 for w in widths] for b in blocks])
        drawn = ax.contour(widths, blocks, values, levels=lines, colors=MUTED, linewidths=0.8)
        ax.clabel(drawn, fmt="%g", fontsize=8)
        parameters = np.array([[costs[b, w][0] for w in widths] for b in blocks])
        ax.contour(widths, blocks, parameters, levels=[PARAMETER_BUDGET], colors=PALETTE[1], linewidths=2.2)
        ax.contourf(widths, blocks, parameters, levels=[PARAMETER_BUDGET, 1e12], colors=[PALETTE[1]], alpha=0.08)
        for name, member in members.items():
            ax.plot(member.stem, member.blocks[0], "o", color=PALETTE[0], ms=5)
            ax.annotate(name, (member.stem, member.blocks[0]), (6, 3), textcoords="offset points", fontsize=8)
        _title(ax, title)
        ax.set(xlabel="width w (channels of the stem)", xscale="log")
        ax.set_xticks([4, 8, 16, 32, 64], ["4", "8", "16", "32", "64"])
        ax.minorticks_off()
        ax.grid(False)
    axes[0].set_ylabel("blocks in each of 3 layers, B")
    return fig


def accuracy_map(points: Mapping[tuple[int, float], Group], like: ModelConfig) -> Figure:
    """Validation accuracy over depth and width: a dot a network, with its mean and its number of seeds; the line joins
    networks with the parameters of `like`."""
    fig, ax = figure(height=3.9, width=6.4)
    blocks, widths = range(1, max(b for b, _ in points) + 1), np.arange(2.5, 2 + max(w for _, w in points), 0.5)
    models = [[replace(like, blocks=(b,) * 3, **_channels(w)) for w in widths] for b in blocks]
    sizes = np.array([[count_parameters(model) for model in row] for row in models])
    if len(blocks) > 1:
        ax.contour(widths, blocks, sizes, levels=[count_parameters(like)], colors=PALETTE[1], linewidths=1.4)
    means = [100 * group.interval()[0] for group in points.values()]
    where = [list(axis) for axis in zip(*points, strict=True)]
    drawn = ax.scatter(where[1], where[0], c=means, s=150, cmap="viridis", zorder=3)
    below: dict[int, bool] = {}  # in each row one label above its dot, the next below
    for (b, w), group in sorted(points.items()):
        below[b] = not below.get(b, True)
        text, shift = f"{100 * group.interval()[0]:.1f} ({len(group.records)})", -19 if below[b] else 10
        ax.annotate(text, (w, b), (0, shift), textcoords="offset points", ha="center", fontsize=8.5)
    ax.set(xlabel="width w (half the channels of the first layer)", ylabel="blocks in each of 3 layers, B")
    ax.set(yticks=list(blocks), ylim=(0.5, max(blocks) + 0.5), xlim=(min(where[1]) - 1.5, max(where[1]) + 1.5))
    fig.colorbar(drawn, ax=ax, label="validation accuracy (%)")
    ax.grid(False)
    return fig


def _channels(width: float) -> dict[str, Any]:
    return {"channels": tuple(round(width * 2**layer) for layer in (1, 2, 3)), "stem": max(1, round(width))}


def _title(ax: Any, text: str) -> None:
    ax.set_title(text, loc="left", fontsize=10.5, fontweight="bold")


def _size(count: float) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k"


def by_level(groups: Sequence[Group], xlabel: str, *, highlight: Sequence[str] = ()) -> Figure:
    """Validation accuracy of each level: a dot a seed, their mean and its t interval; cost under the level's name."""
    fig, ax = figure(height=3.1)
    for at, group in enumerate(groups):
        colour = PALETTE[1] if group.label in highlight else PALETTE[0]
        _mean_and_dots(ax, at, group, colour)
    labels = [f"{group.label}\n{_size(group.parameters)} par.\n{_size(group.macs)}MAC" for group in groups]
    ax.set_xticks(range(len(groups)), labels)
    ax.set_xlim(-0.6, len(groups) - 0.4)
    _zoom(ax, groups)
    ax.set(xlabel=xlabel, ylabel="validation accuracy (%)")
    ax.grid(axis="x", visible=False)
    return fig


def _zoom(ax: Any, groups: Sequence[Group]) -> None:
    """Limit the view to the seeds: the interval of two or three may be many times as long as what was seen."""
    seen = [100 * value for group in groups for value in group.values.values()]
    if seen:
        room = max(6.0, 0.6 * (max(seen) - min(seen)))
        ax.set_ylim(max(0.0, min(seen) - room), min(100.0, max(seen) + room))


def _mean_and_dots(ax: Any, at: float, group: Group, colour: str) -> None:
    values = [100 * value for value in group.values.values()]
    if not values:
        ax.annotate("pending", (at, 0.06), xycoords=("data", "axes fraction"), ha="center", color=MUTED)
        return
    mean, low, high = (100 * value for value in group.interval())
    spread = [[0.0], [0.0]] if math.isnan(low) else [[mean - low], [high - mean]]
    ax.errorbar([at], [mean], yerr=spread, fmt="_", ms=16, mew=2, capsize=3, color=colour)
    ax.plot(at + 0.14 + 0.05 * np.arange(len(values)), values, "o", ms=4, mfc="none", color=colour)


def forest(comparisons: Sequence[Comparison], xlabel: str, names: Sequence[str] = ()) -> Figure:
    """Paired differences with their intervals, one a row; the band holds differences too small to matter."""
    shown = list(zip(names or [part.label for part in comparisons], comparisons, strict=True))[::-1]
    fig, ax = figure(height=0.75 + 0.3 * len(shown))
    ax.axvspan(-100 * MATTERS, 100 * MATTERS, color=MUTED, alpha=0.12, lw=0)
    ax.axvline(0, color=INK, lw=1)
    colours = {"holds": PALETTE[2], "does not hold": PALETTE[1]}
    for at, (_, part) in enumerate(shown):
        colour = colours.get(part.verdict, PALETTE[6])
        mean, low, high = (100 * value for value in (part.mean, part.low, part.high))
        if part.n == 0:
            ax.annotate("pending", (0.5, at), xycoords=("axes fraction", "data"), va="center", color=MUTED)
            continue
        spread = [[0.0], [0.0]] if math.isnan(low) else [[mean - low], [high - mean]]
        ax.errorbar([mean], [at], xerr=spread, fmt="o", ms=5, capsize=3, color=colour)
    means = [100 * abs(part.mean) for part in comparisons if part.n] or [1.0]
    reach = 1.6 * max(*means, 5.0)
    ends = [100 * end for part in comparisons if part.n > 1 for end in (part.low, part.high)] or [0.0]
    ax.set_xlim(max(-reach, min(*ends, -2.0) - 1), min(reach, max(*ends, 2.0) + 1))
    ax.set_yticks(range(len(shown)), [name for name, _ in shown])
    ax.set_ylim(-0.6, len(shown) - 0.4)
    ax.set_xlabel(xlabel)
    ax.grid(axis="y", visible=False)
    return fig


def two_lines(first: Sequence[Group], second: Sequence[Group], names: tuple[str, str], xlabel: str) -> Figure:
    """Two kinds of network over the same levels: a dot a seed, means joined, t intervals."""
    fig, ax = figure(height=3.1)
    for groups, name, colour, shift in ((first, names[0], PALETTE[0], -0.12), (second, names[1], PALETTE[1], 0.12)):
        for at, group in enumerate(groups):
            _mean_and_dots(ax, at + shift, group, colour)
        known = [(at + shift, 100 * group.interval()[0]) for at, group in enumerate(groups) if group.records]
        ax.plot([x for x, _ in known], [y for _, y in known], color=colour, alpha=0.5, lw=1, label=name)
    _zoom(ax, [*first, *second])
    ax.set_xticks(range(len(first)), [group.label for group in first])
    ax.set_xlim(-0.6, len(first) - 0.4)
    ax.set(xlabel=xlabel, ylabel="validation accuracy (%)")
    ax.legend(frameon=False)
    return fig


def costs(groups: Sequence[Group], timings: Sequence[Timing]) -> Figure:
    """Accuracy against parameters, MACs, and the latency measured on this machine, for every recorded network."""
    fig, axes = figure(1, 3, height=3.0, sharey=True)
    latencies = [timing.median for timing in timings]
    panels = (
        ("parameters (thousands)", [group.parameters / 1e3 for group in groups]),
        ("MACs of one image (millions)", [group.macs / 1e6 for group in groups]),
        ("latency of one image (ms)", latencies),
    )
    depths = [sum(group.config.model.blocks) for group in groups]
    largest = max(depths, default=1)
    for ax, (xlabel, values) in zip(axes, panels, strict=True):
        for group, x, depth in zip(groups, values, depths, strict=True):
            plain = not group.config.model.residual
            mean, low, high = (100 * value for value in group.interval())
            spread = None if math.isnan(low) else [[mean - low], [high - mean]]
            shade = 0.35 + 0.65 * depth / largest
            colour = PALETTE[1] if plain else PALETTE[0]
            ax.errorbar([x], [mean], yerr=spread, fmt="^" if plain else "o", ms=5, color=colour, alpha=shade, lw=0.8)
        ax.set(xlabel=xlabel, xscale="log")
        ax.minorticks_off()
        _plain_log_ticks(ax, values)
    _zoom(axes[0], groups)
    below, above = (
        [timing.median - timing.low for timing in timings],
        [timing.high - timing.median for timing in timings],
    )
    means = [100 * group.interval()[0] for group in groups]
    axes[2].errorbar(latencies, means, xerr=[below, above], fmt="none", ecolor=MUTED, lw=0.8)
    axes[0].set_ylabel("validation accuracy (%)")
    return fig


def _plain_log_ticks(ax: Any, values: Sequence[float]) -> None:
    if not values:
        return
    low, high = min(values), max(values)
    steps = [base * 10.0**power for power in range(-3, 7) for base in (1, 2, 5)]
    ticks = [step for step in steps if low / 1.1 <= step <= high * 1.1]
    if len(ticks) < 2:  # too narrow a range for a logarithmic axis
        ax.set_xscale("linear")
        return
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])


def table_1(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The original's test accuracies over depth, after 30 and 300 epochs, with Wilson intervals of its test images."""
    fig, axes = figure(1, 2, height=3.0)
    for ax, epochs, colour in zip(axes, (30, 300), (PALETTE[1], PALETTE[0]), strict=True):
        chosen = [row for row in rows if row["epochs"] == epochs]
        depth = [row["blocks"] for row in chosen]
        accuracy = [100 * row["accuracy"] for row in chosen]
        spread = [
            [100 * (row["accuracy"] - row["low"]) for row in chosen],
            [100 * (row["high"] - row["accuracy"]) for row in chosen],
        ]
        ax.errorbar(depth, accuracy, yerr=spread, fmt="o-", lw=1, ms=5, capsize=3, color=colour)
        _title(ax, f"{epochs} epochs")
        ax.set(xlabel="blocks in each of 3 layers, B", xticks=depth)
    axes[0].set_ylabel("test accuracy (%), one seed")
    return fig


def live_beside_records(live: Mapping[str, Record], recorded: Mapping[str, Group]) -> Figure:
    """Learning curves of the live runs (thick) and of the recorded ones (thin) over the images seen."""
    fig, ax = figure(height=3.0)
    for (name, record), colour in zip(live.items(), PALETTE, strict=False):
        for old in recorded[name].records if name in recorded else ():
            ax.plot(*_curve(old), color=colour, lw=0.8, alpha=0.55)
        ax.plot(*_curve(record), "o-", ms=4, color=colour, lw=2.2, label=f"{name}, live")
    ax.set(xlabel="training images seen (thousands)", ylabel="validation accuracy (%)")
    ax.legend(frameon=False)
    return fig


def _curve(record: Record) -> tuple[list[float], list[float]]:
    rows, batch = record.history(), record.config.train.batch_size
    return [row["steps"] * batch / 1e3 for row in rows], [100 * row["validation_accuracy"] for row in rows]


def guesses(surrogate: Surrogate, prediction: Prediction | None = None, measured: float = math.nan) -> Figure:
    """Measured against guessed accuracy of each recorded network, guessed without it; the student's own in front."""
    fig, ax = figure(height=3.6, width=4.6)
    guessed = [100 * value for value in surrogate.left_out[surrogate.rule]]
    actual = [100 * group.interval()[0] for group in surrogate.groups]
    ax.plot(guessed, actual, "o", color=PALETTE[0], ms=5, label="recorded networks, each left out")
    ends = [min([*guessed, *actual]) - 2, max([*guessed, *actual]) + 2]
    if prediction is not None:
        spread = [[100 * (prediction.accuracy - prediction.low)], [100 * (prediction.high - prediction.accuracy)]]
        at = 100 * (prediction.accuracy if math.isnan(measured) else measured)
        ax.errorbar(
            [100 * prediction.accuracy], [at], xerr=spread, fmt="D", ms=7, capsize=3, color=PALETTE[1], label="yours"
        )
        ends = [min(ends[0], at - 2), max(ends[1], at + 2)]
    ax.plot(ends, ends, color=MUTED, lw=1)
    ax.set(xlabel="guessed accuracy (%)", ylabel="measured accuracy (%)")
    ax.legend(loc="upper left", frameon=False)
    return fig
