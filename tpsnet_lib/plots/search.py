"""Figures of the random search: what is drawn, how good it comes out, and what that says of the choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from tpsnet_lib.analysis.importance import NOISE, Importance
from tpsnet_lib.analysis.search import (
    LOGARITHMIC,
    OPTIMIZERS,
    VARIABLES,
    Array,
    Interval,
    Trial,
    accuracies,
    best_of_n,
    distribution,
    good_range,
)
from tpsnet_lib.analysis.search_budgets import Contest
from tpsnet_lib.plots.style import GRID, INK, MUTED, PALETTE, figure

SCORES = plt.get_cmap("cividis")  # readable without colour vision, and in grey


def budget(
    fits: Any, blocks: Sequence[int], widths: Sequence[int], drawn: Mapping[str, tuple[Array, Array]], points: Any = ()
) -> Figure:
    """What fits a budget of depth and width [blocks, widths], and the shares drawn before and after it.

    `drawn`: for `before` and `after` the drawn blocks and widths; `points`: (blocks, width, name) to mark."""
    fig, (ax, left, right) = figure(1, 3, height=2.9, width_ratios=(1.25, 1, 1))
    ax.pcolormesh(widths, blocks, np.where(fits, 1.0, np.nan), cmap="Blues", vmin=0, vmax=3, rasterized=True)
    for depth, width, name in points:
        ax.plot(width, depth, "o", color=PALETTE[1], markersize=4)
        ax.annotate(name, (width, depth), (5, 1), textcoords="offset points", fontsize=7.5)
    ax.set(xlabel="base width w, channels", ylabel="blocks a layer B")
    for axis, number, values, label in ((left, 0, blocks, "blocks a layer B"), (right, 1, widths, "base width w")):
        bins = np.linspace(min(values) - 0.5, max(values) + 0.5, 13)
        for (name, sides), colour, filled in zip(drawn.items(), (MUTED, PALETTE[0]), (False, True), strict=True):
            shares = np.full(len(sides[number]), 100 / len(sides[number]))
            axis.hist(
                sides[number],
                bins,
                weights=shares,
                histtype="stepfilled" if filled else "step",
                color=colour,
                alpha=0.55 if filled else 1,
                label=f"{name} the budget",
            )
        axis.set(xlabel=label, ylabel="share of draws, %")
    fig.legend(*left.get_legend_handles_labels(), loc="outside upper right", ncols=2, fontsize=8)
    return fig


def shares(before: Mapping[str, float], after: Mapping[str, float]) -> Figure:
    """The share of draws that make each choice, before a budget and after it, one row a choice."""
    fig, ax = figure(height=0.9 + 0.24 * len(before))
    rows = np.arange(len(before))[::-1]
    old, new = [100 * before[name] for name in before], [100 * after[name] for name in before]
    ax.hlines(rows, old, new, color=GRID, linewidth=3)
    ax.plot(old, rows, "o", color=MUTED, markerfacecolor="white", label="before the budget")
    ax.plot(new, rows, "o", color=PALETTE[0], label="after it")
    ax.set_yticks(rows, list(before))
    ax.set_xlabel("share of draws, %")
    ax.set_xlim(left=0)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return fig


def parallel(found: Sequence[Trial], names: Sequence[str]) -> Figure:
    """Parallel coordinates: a line a trial through its drawn values to its accuracy, coloured by it, best on top.

    Lines are spread a little about a value that many share; failed trials end at chance level, dashed."""
    fig, ax = figure(height=3.6)
    scores = 100 * accuracies(found)
    worst = float(np.quantile(scores, 0.1))  # the few that failed would take most of the colours
    norm = Normalize(worst, max(scores.max(), worst + 1))
    axes = [_Axis(VARIABLES[name], name, [trial.values[name] for trial in found]) for name in names]
    axes.append(_Axis("validation\naccuracy, %", "accuracy", list(scores)))
    draw = np.random.default_rng(0)
    heights = np.stack([axis.places(draw) for axis in axes], axis=1)
    for index in np.argsort(scores):
        style = "--" if found[index].record.failed else "-"
        ax.plot(heights[index], color=SCORES(norm(scores[index])), linewidth=1, alpha=0.85, linestyle=style)
    for position, axis in enumerate(axes):
        ax.axvline(position, color=INK, linewidth=0.8)
        for height, text in axis.ticks():
            ax.plot([position - 0.012, position], [height, height], color=INK, linewidth=0.8)
            box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.8}  # readable over the lines
            ax.text(position - 0.025, height, text, ha="right", va="center", fontsize=7.5, color=INK, bbox=box)
    ax.set_xticks(range(len(axes)), [axis.label for axis in axes])
    ax.tick_params(length=0, labelcolor=INK)
    ax.set_yticks([])
    ax.grid(False)
    ax.set_xlim(-0.3, len(axes) - 0.98)
    ax.spines[:].set_visible(False)
    fig.colorbar(plt.cm.ScalarMappable(norm, SCORES), ax=ax, pad=0.02, extend="min", label="validation accuracy, %")
    return fig


class _Axis:
    """One axis of a parallel-coordinate plot: numbers, numbers on a log scale, or choices; heights 0 to 1."""

    def __init__(self, label: str, name: str, values: Sequence[Any]) -> None:
        self.label, self.values = label, values
        self.choices = sorted(set(values), key=_order) if len(set(values)) <= 6 and name != "accuracy" else []
        self.log = name in LOGARITHMIC and not self.choices

    def places(self, draw: np.random.Generator) -> Array:
        if self.choices:
            spread = min(0.04, 0.15 / len(self.choices))
            return self._height([self.choices.index(value) for value in self.values]) + draw.uniform(
                -spread, spread, len(self.values)
            )
        return self._height(self.values)

    def _height(self, values: Any) -> Array:
        numbers = np.log(values) if self.log else np.asarray(values, dtype=float)
        whole = np.arange(len(self.choices)) if self.choices else np.log(self.values) if self.log else self.values
        low, high = float(np.min(whole)), float(np.max(whole))
        heights: Array = (numbers - low) / (high - low) if high > low else np.full(len(numbers), 0.5)
        return heights

    def ticks(self) -> list[tuple[float, str]]:
        if self.choices:
            names = [f"{choice:g}" if isinstance(choice, float) else str(choice) for choice in self.choices]
            return list(zip(self._height(range(len(names))).tolist(), names, strict=True))
        low, high = min(self.values), max(self.values)
        marks = np.geomspace(low, high, 5) if self.log else np.linspace(low, high, 5)
        whole = all(isinstance(value, int) for value in self.values)
        marks = np.unique(np.round(marks)) if whole else marks
        texts = [f"{mark:.0f}" if whole else f"{mark:.2g}" if self.log else f"{mark:.3g}" for mark in marks]
        return list(zip(self._height(marks).tolist(), texts, strict=True))


def _order(value: Any) -> Any:
    return OPTIMIZERS.index(value) if isinstance(value, str) else value


def best_of(found: Sequence[Trial]) -> Figure:
    """The best accuracy that n random trials reach: expected, with its bootstrap band, and what 95% of searches
    reach, against the top 5% of the trials, which 60 draws hit with a chance of 95%."""
    fig, ax = figure(height=3.2)
    mean, low, high, exceeded = (100 * curve for curve in best_of_n(accuracies(found)))
    n = np.arange(1, len(mean) + 1)
    ax.fill_between(n, low, high, color=PALETTE[0], alpha=0.18, linewidth=0, label="95% bootstrap band")
    ax.plot(n, mean, color=PALETTE[0], label="expected best")
    ax.step(n, exceeded, where="post", color=PALETTE[1], linewidth=1.3, label="reached by 95% of searches")
    ax.set_ylim(bottom=low[0] - 4)  # the first steps of the last curve lie far below, where trials failed
    top = 100 * float(np.quantile(accuracies(found), 0.95))
    ax.axhline(top, color=MUTED, linestyle="--", linewidth=1)
    ax.text(n[-1], top, "border of the top 5% ", ha="right", va="bottom", fontsize=8, color=MUTED)
    if len(n) >= 60:
        ax.axvline(60, color=MUTED, linestyle=":", linewidth=1.2)
        ax.text(60, ax.get_ylim()[0], " 60 draws", va="bottom", fontsize=8, color=MUTED)
    ax.set(xlabel="trials n", ylabel="best validation accuracy, %")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 0.06))
    return fig


def error_distributions(found: Sequence[Trial], questions: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Error distribution functions: a panel a question, a curve and bootstrap band for each group of trials (given as
    flags, see `analyse.questions`); a curve further left is a better choice. Groups below two trials are left out."""
    rows = -(-len(questions) // 2)
    fig, axes = figure(rows, 2, height=2.5 * rows + 0.2, sharex=True, sharey=True)
    errors = 100 * (1 - accuracies(found))
    grid = np.linspace(errors.min() - 1, errors.max() + 1, 70)
    for ax, (variable, groups) in zip(axes.flat, questions.items(), strict=False):
        for (name, picked), colour, line in zip(groups.items(), PALETTE, ("-", "--"), strict=False):
            if picked.sum() >= 2:
                share, low, high = distribution(errors[picked], grid)
                ax.fill_between(grid, low, high, color=colour, alpha=0.15, linewidth=0)
                ax.plot(grid, share, color=colour, linestyle=line, label=f"{name} (n = {picked.sum()})")
        ax.set_title(VARIABLES[variable].partition(",")[0], loc="left", fontsize=9.5)
        ax.legend(fontsize=7.5, loc="lower right")
    for ax in axes[-1]:
        ax.set_xlabel("validation error, %")
    for ax in axes[:, 0]:
        ax.set_ylabel("share of trials below")
    return fig


def good_ranges(found: Sequence[Trial], names: Sequence[str]) -> Figure:
    """A panel a variable: its value against accuracy, one point a trial, and the bootstrap range of the best trials'
    values shaded, with its median."""
    rows = -(-len(names) // 3)
    fig, axes = figure(rows, 3, height=2.2 * rows + 0.1, sharey=True, squeeze=False)
    scores = accuracies(found)
    for ax in axes.flat[len(names) :]:
        ax.axis("off")
    for ax, name in zip(axes.flat, names, strict=False):
        values = np.array([trial.values[name] for trial in found], dtype=float)
        middle, low, high = good_range(values, scores)
        ax.axvspan(low, high, color=PALETTE[2], alpha=0.16, linewidth=0)
        ax.axvline(middle, color=PALETTE[2])
        ax.plot(values, 100 * scores, "o", color=PALETTE[0], markersize=3, alpha=0.7, markeredgewidth=0)
        ax.set_xlabel(VARIABLES[name])
        if name in LOGARITHMIC:
            ax.set_xscale("log")
        if len(set(values)) <= 6:
            ax.set_xticks(sorted(set(values)), [f"{value:g}" for value in sorted(set(values))])
            ax.minorticks_off()
    for ax in axes[:, 0]:
        ax.set_ylabel("validation accuracy, %")
    return fig


def importance_bars(found: Sequence[Importance]) -> Figure:
    """The importance of each variable, the greatest on top, with the interval over resamples of the trials."""
    fig, ax = figure(height=0.8 + 0.26 * len(found))
    rows = np.arange(len(found))[::-1]
    for row, each in zip(rows, found, strict=True):
        middle, low, high = (100 * end for end in each.share)
        ax.barh(row, middle, color=MUTED if each.variable == NOISE else PALETTE[0], alpha=0.75, height=0.62)
        ax.plot([low, high], [row, row], color=INK, linewidth=1.2)
    labels = [VARIABLES.get(each.variable, "a column of noise").partition(",")[0] for each in found]
    ax.set_yticks(rows, labels)
    ax.set_xlim(left=0)
    ax.set_xlabel("variance of the accuracy explained by the variable alone, % (95% of resamples)")
    ax.grid(axis="y", visible=False)
    return fig


def budgets(panels: Mapping[str, tuple[Array, Array, Interval]], xlabels: Sequence[str], ylabel: str) -> Figure:
    """Accuracy at a short budget against that of the same draws at a long one, a panel a way to keep the schedule;
    each with its rank correlation."""
    fig, axes = figure(1, len(panels), height=3.2, sharey=True, squeeze=False)
    for ax, (title, (short, long, rho)), xlabel in zip(axes[0], panels.items(), xlabels, strict=True):
        ax.plot(100 * short, 100 * long, "o", color=PALETTE[0], markersize=4.5, alpha=0.75, markeredgewidth=0)
        best = int(np.argmax(short)) if len(short) else None
        if best is not None:
            ax.plot(
                100 * short[best], 100 * long[best], "o", color=PALETTE[1], markersize=7, label="chosen by the short"
            )
            ax.legend(loc="upper left", fontsize=8)
        said = f"{rho[0]:.2f} ({rho[1]:.2f} to {rho[2]:.2f})" if rho[0] == rho[0] else "too few draws"
        ax.set_title(f"{title}: {said}", loc="left", fontsize=9)
        ax.set_xlabel(xlabel)
    axes[0, 0].set_ylabel(ylabel)
    return fig


def contest(found: Contest) -> Figure:
    """Random search against successive halving and ASHA over the epochs that all spend: the accuracy to expect of the
    network chosen on the left, what either gains on the right, each with its bootstrap band."""
    fig, (left, right) = figure(1, 2, height=3.1, width_ratios=(1.25, 1))
    sides = {"successive halving": found.halving, "random search": found.random, "ASHA": found.asha}
    for (name, curve), colour, line in zip(sides.items(), PALETTE, ("-", "--", "-."), strict=False):
        left.fill_between(found.epochs, 100 * curve[1], 100 * curve[2], color=colour, alpha=0.12, linewidth=0)
        left.plot(found.epochs, 100 * curve[0], color=colour, linestyle=line, marker="o", markersize=3, label=name)
    for gain, colour, line in ((found.halving_gain, PALETTE[0], "-"), (found.asha_gain, PALETTE[2], "-.")):
        right.fill_between(found.epochs, 100 * gain[1], 100 * gain[2], color=colour, alpha=0.15, linewidth=0)
        right.plot(found.epochs, 100 * gain[0], color=colour, linestyle=line, marker="o", markersize=3)
    right.axhline(0, color=INK, linewidth=0.8)
    left.set_ylabel("accuracy of the chosen, %")
    right.set_ylabel("gain over random search, points")
    for ax in (left, right):
        ax.set_xlabel("epochs trained in all")
    left.legend(loc="lower right")
    return fig


def slopes(names: Sequence[str], matched: Sequence[Interval], stretched: Sequence[Interval]) -> Figure:
    """One line a network from its accuracy with a matched schedule to that with one it never ends, with intervals."""
    fig, ax = figure(height=3.3, width=5.6)
    for index, (name, *ends) in enumerate(zip(names, matched, stretched, strict=True)):
        places = np.array([0, 1]) + 0.015 * (index - (len(names) - 1) / 2)
        middle, low, high = (np.array([100 * end[part] for end in ends]) for part in range(3))
        colour = PALETTE[index % len(PALETTE)]
        ax.errorbar(places, middle, (middle - low, high - middle), fmt="o-", color=colour, capsize=3, label=name)
    ax.set_xticks([0, 1], ["schedule ends with the run", "schedule made for a longer run"])
    ax.set_xlim(-0.35, 1.35)
    ax.set_ylabel("validation accuracy, % (95% Wilson)")
    ax.legend()
    return fig


def curse(sizes: Sequence[int], simulated: Mapping[str, Array], measured: Mapping[str, Array]) -> Figure:
    """How much too good the best of k looks: by validation noise alone (`simulated` [sizes]), and measured again
    (`measured` [3, sizes]: mean, low, high)."""
    fig, ax = figure(height=3.1)
    for (name, gaps), colour, line in zip(simulated.items(), PALETTE, ("-", "--", "-."), strict=False):
        ax.plot(sizes, 100 * gaps, color=colour, linestyle=line, marker="o", markersize=3.5, label=name)
    for (name, curve), colour in zip(measured.items(), PALETTE[3:], strict=False):
        at = sizes[: curve.shape[1]]
        ax.fill_between(at, 100 * curve[1], 100 * curve[2], color=colour, alpha=0.15, linewidth=0)
        ax.plot(at, 100 * curve[0], color=colour, marker="s", markersize=3.5, label=name)
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.set(xlabel="trials k that the winner is chosen from", ylabel="looks too good by, points")
    ax.set_xscale("log")
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.minorticks_off()
    ax.legend(fontsize=8)
    return fig
