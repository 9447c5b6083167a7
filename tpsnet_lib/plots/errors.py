"""Figures of the error analysis: what one network gets wrong, how sure it is, and what it looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from tpsnet_lib import metrics
from tpsnet_lib.analysis.corruptions import Ratios
from tpsnet_lib.analysis.errors import Agreement, Bin, ClassScores, Interval, Standing
from tpsnet_lib.analysis.explain import BlockNorms
from tpsnet_lib.plots.style import GRID, INK, MUTED, PALETTE, STYLE, WIDTH, figure

TEN = (*PALETTE, "#000000", "#882255", "#B8A000")  # one a class, each also named beside its points
HEAT = LinearSegmentedColormap.from_list("heat", ["#FFFFFF", "#FBD9B5", PALETTE[1], "#7A2E00"])


@mpl.rc_context(STYLE)
def confusion_matrix(confusion: Tensor, names: Sequence[str]) -> Figure:
    """Counts of label (row) against prediction (column); only the errors are coloured, the diagonal is in grey."""
    fig, ax = figure(height=4.9, width=6.2)
    counts = confusion.numpy()
    wrong = np.ma.masked_array(counts, np.eye(len(names), dtype=bool))
    highest = max(1, int(wrong.max()))
    ax.imshow(wrong, cmap=HEAT.with_extremes(bad=GRID), vmin=0, vmax=highest)
    for row, column in np.ndindex(counts.shape):
        value = counts[row, column]
        if value:
            colour = "white" if row != column and value > 0.6 * highest else INK
            bold = "bold" if row == column else "normal"
            ax.text(column, row, f"{value}", ha="center", va="center", fontsize=7.5, color=colour, fontweight=bold)
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel("predicted class")
    ax.set_ylabel("label")
    ax.grid(False)
    ax.tick_params(length=0)
    return fig


@mpl.rc_context(STYLE)
def scores_by_class(scores: Sequence[ClassScores], names: Sequence[str]) -> Figure:
    """Precision, recall and F1 of each class with their intervals, the hardest class (by F1) at the bottom."""
    fig, ax = figure(height=4.0)
    order = sorted(range(len(names)), key=lambda index: np.nan_to_num(scores[index].f1[0]))
    for offset, (kind, colour, marker) in enumerate(
        zip(("precision", "recall", "f1"), (PALETTE[5], PALETTE[1], INK), ("s", "o", "D"), strict=True)
    ):
        values = [getattr(scores[index], kind) for index in order]
        places = np.arange(len(order)) + 0.24 * (1 - offset)
        _points(ax, values, places, horizontal=True, fmt=marker, color=colour, label="F1" if kind == "f1" else kind)
    ax.set_yticks(range(len(order)), [names[index] for index in order])
    ax.set_xlabel("score, % of images (95% interval)")
    _legend_above(ax)
    return fig


@mpl.rc_context(STYLE)
def reliability(panels: Sequence[tuple[str, Sequence[Bin]]]) -> Figure:
    """Accuracy against confidence in bins of equal counts, a panel for each (title, bins); the line is calibrated."""
    fig, axes = figure(1, len(panels), height=3.3, sharey=True, squeeze=False)
    lowest = min(min(part.confidence, part.accuracy[1]) for _, bins in panels for part in bins)
    for ax, (title, bins) in zip(axes[0], panels, strict=True):
        ax.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle="--")
        places = np.array([100 * part.confidence for part in bins])
        _points(ax, [part.accuracy for part in bins], places, fmt="o", color=PALETTE[0])
        ax.set_xlim(100 * max(0.0, lowest - 0.05), 101)
        ax.set_ylim(100 * max(0.0, lowest - 0.05), 101)
        ax.set_title(title)
        ax.set_xlabel("confidence, %")
    axes[0][0].set_ylabel("accuracy, %")
    return fig


@mpl.rc_context(STYLE)
def risk_coverage(coverage: Tensor, accuracy: Tensor) -> Figure:
    """The error on the images answered, against the share answered, the surest first, with its Wilson band."""
    fig, ax = figure(height=3.0)
    total = len(coverage)
    at = torch.linspace(min(total, 20) - 1, total - 1, min(total, 150)).long()
    reached, n = accuracy[at].numpy(), (at + 1).tolist()
    ends = np.array([metrics.wilson(round(value * count), count) for value, count in zip(reached, n, strict=True)])
    x = 100 * coverage[at].numpy()
    ax.fill_between(x, 100 * (1 - ends[:, 1]), 100 * (1 - ends[:, 0]), color=PALETTE[0], alpha=0.2, linewidth=0)
    ax.plot(x, 100 * (1 - reached), color=PALETTE[0], label="surest first")
    overall = 100 * (1 - float(accuracy[-1]))
    ax.axhline(overall, color=MUTED, linewidth=1, linestyle="--", label="in any order")
    ax.set_xlim(0, 100)
    ax.set_ylim(0, 1.25 * max(overall, 1))
    ax.set_xlabel("coverage: images answered, %")
    ax.set_ylabel("error on them, %")
    _legend_above(ax)
    return fig


@mpl.rc_context(STYLE)
def gallery(images: Tensor, lines: Sequence[str], columns: int = 6, side: float = 0.8) -> Figure:
    """Thumbnails (uint8 [N, 3, H, W]) of so many inches in a grid, each with its lines of text beneath."""
    rows = max(1, -(-len(images) // columns))
    deepest = max((text.count("\n") + 1 for text in lines), default=1)
    wide, high = WIDTH / columns, side + 0.13 * deepest + 0.12
    fig = plt.figure(figsize=(WIDTH, rows * high), layout="none")
    for position, (image, text) in enumerate(zip(images, lines, strict=True)):
        row, column = divmod(position, columns)
        left, bottom = (column + 0.5) * wide - side / 2, (rows - row) * high - side
        ax = fig.add_axes((left / WIDTH, bottom / (rows * high), side / WIDTH, side / (rows * high)))
        _picture(ax, image)
        ax.text(0.5, -0.05, text, transform=ax.transAxes, ha="center", va="top", fontsize=7, color=INK)
    return fig


@mpl.rc_context(STYLE)
def standings(rows: Sequence[Standing], accuracy: Interval, name: str) -> Figure:
    """The error of published models and of ours on the same images, with Wilson intervals; the colour says whether
    the paired difference is clear."""
    fig, ax = figure(height=0.6 + 0.17 * (len(rows) + 1))
    n = 10_000
    entries = [(row.name, row.accuracy, _verdict(row)) for row in rows]
    entries = sorted([*entries, (name, accuracy[0], "ours")], key=lambda entry: -entry[1])
    looks = {
        "clearly better": PALETTE[2],
        "not told apart": PALETTE[6],
        "clearly worse": PALETTE[0],
        "ours": PALETTE[1],
    }
    ax.axvspan(100 * (1 - accuracy[2]), 100 * (1 - accuracy[1]), color=PALETTE[1], alpha=0.15, linewidth=0)
    for verdict, colour in looks.items():
        places = [place for place, entry in enumerate(entries) if entry[2] == verdict]
        if places:
            values = [_error(entries[place][1], n) for place in places]
            marker = "D" if verdict == "ours" else "o"
            _points(ax, values, np.array(places), horizontal=True, fmt=marker, color=colour, label=verdict)
    ax.set_yticks(range(len(entries)), [entry[0] for entry in entries], fontsize=7.5)
    for label, entry in zip(ax.get_yticklabels(), entries, strict=True):
        label.set_color(PALETTE[1] if entry[2] == "ours" else INK)
    ax.invert_yaxis()
    ax.set_xscale("log")
    ticks = [tick for tick in (2, 3, 5, 10, 15, 20, 30, 50) if tick >= 0.7 * 100 * (1 - entries[0][1])]
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
    ax.set_xlabel("error on the test images, % (log scale, 95% interval)")
    _legend_above(ax)
    return fig


def _verdict(row: Standing) -> str:
    _, low, high = row.ours.difference
    return "clearly better" if high < 0 else "clearly worse" if low > 0 else "not told apart"


def _error(accuracy: float, n: int) -> Interval:
    low, high = metrics.wilson(round(accuracy * n), n)
    return 1 - accuracy, 1 - high, 1 - low


@mpl.rc_context(STYLE)
def people(groups: Sequence[Agreement]) -> Figure:
    """By how many people agree with the label: the network's error, and its uncertainty beside people's."""
    fig, (left, right) = figure(1, 2, height=3.1)
    places = np.arange(len(groups))
    _points(left, [group.error for group in groups], places, fmt="o", color=PALETTE[1])
    left.set_ylabel("network's error, %")
    _points(right, [group.ours for group in groups], places - 0.08, fmt="o", color=PALETTE[1], label="network", scale=1)
    theirs = [group.people for group in groups]
    right.plot(places + 0.08, theirs, "s", color=PALETTE[0], markersize=5, label="people")
    right.set_ylabel("mean uncertainty (entropy), nats")
    _legend_above(right)
    for ax in (left, right):
        ax.set_ylim(0, None)
        ax.set_xticks(places, [f"{group.name}\n{group.n:,}" for group in groups], fontsize=8)
        ax.set_xlabel("people who agree with the label; images")
    return fig


@mpl.rc_context(STYLE)
def heat_maps(images: Tensor, heat: Tensor, lines: Sequence[str]) -> Figure:
    """Images above, the same with what speaks for the class laid over them (heat [N, H, W] in 0 to 1) below."""
    width = min(WIDTH, 0.95 * len(images))
    fig, axes = figure(2, len(images), height=2 * width / len(images) + 0.45, width=width, squeeze=False)
    for column, (image, where, text) in enumerate(zip(images, heat, lines, strict=True)):
        _picture(axes[0][column], image)
        _picture(axes[1][column], image, grey=True)
        axes[1][column].imshow(where.numpy(), cmap="magma", alpha=0.55, vmin=0, vmax=1, interpolation="bilinear")
        axes[0][column].set_title(text, fontsize=7, loc="center", fontweight="normal")
    return fig


@mpl.rc_context(STYLE)
def embedding(points: Tensor, labels: Tensor, correct: Tensor, names: Sequence[str], axes: tuple[str, str]) -> Figure:
    """Images as points in a plane (float [N, 2]), coloured and named by label, with the errors crossed."""
    fig, ax = figure(height=4.6)
    for index, (name, colour) in enumerate(zip(names, TEN, strict=True)):
        of_class = labels == index
        if not of_class.any():
            continue
        ax.scatter(*points[of_class].T.numpy(), s=10, color=colour, alpha=0.65, linewidths=0)
        middle = points[of_class].median(0).values.tolist()
        box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5}
        ax.text(*middle, name, fontsize=8.5, color=colour, ha="center", va="center", fontweight="bold", bbox=box)
    ax.scatter(*points[~correct].T.numpy(), s=24, marker="x", color=INK, linewidths=0.9, label="wrong prediction")
    ax.set_xlabel(axes[0])
    ax.set_ylabel(axes[1])
    ax.set_xticks([])
    ax.set_yticks([])
    _legend_above(ax)
    return fig


@mpl.rc_context(STYLE)
def block_norms(norms: Sequence[BlockNorms]) -> Figure:
    """What comes along the skip and out of the branch of each block, mean over images and the middle 90% of them."""
    fig, ax = figure(height=3.0)
    places = np.arange(len(norms))
    for kind, colour, marker, offset in (("skip", PALETTE[0], "o", -0.1), ("branch", PALETTE[1], "s", 0.1)):
        values = torch.stack([getattr(norm, kind) for norm in norms]).double()
        if values.isnan().all():
            continue
        middle, low, high = values.mean(1), values.quantile(0.05, 1), values.quantile(0.95, 1)
        spread = list(zip(middle.tolist(), low.tolist(), high.tolist(), strict=True))
        _points(ax, spread, places + offset, fmt=marker, color=colour, label=kind, scale=1)
    for place, norm in enumerate(norms):
        if place and norm.layer != norms[place - 1].layer:
            ax.axvline(place - 0.5, color=MUTED, linewidth=0.8, linestyle=":")
    ticks = places[:: max(1, len(norms) // 20)]
    ax.set_xticks(ticks, [f"{norms[place].layer}.{norms[place].position}" for place in ticks], fontsize=8)
    ax.set_xlabel("block (layer.position); a dotted line opens a layer")
    ax.set_ylabel("root mean square")
    ax.set_ylim(0, None)
    _legend_above(ax)
    return fig


@mpl.rc_context(STYLE)
def filters(kernels: Tensor) -> Figure:
    """First-layer kernels (float [C, 3, k, k] in 0 to 1) side by side, grey for a weight of zero."""
    columns = min(16, len(kernels))
    rows = -(-len(kernels) // columns)
    fig, axes = figure(rows, columns, height=rows * WIDTH / columns * 1.02, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, kernel in zip(axes.flat, kernels, strict=False):
        ax.imshow(kernel.permute(1, 2, 0).numpy(), interpolation="nearest")
    return fig


@mpl.rc_context(STYLE)
def corruption_curves(hits: dict[str, list[int]], clean: int, n: int) -> Figure:
    """Accuracy under each corruption by severity, from the undamaged images (severity 0) on, with Wilson intervals."""
    fig, ax = figure(height=3.2)
    for offset, (name, counts) in enumerate(hits.items()):
        values = [(count / n, *metrics.wilson(count, n)) for count in (clean, *counts)]
        places = np.arange(len(values)) + 0.06 * (offset - (len(hits) - 1) / 2)
        ax.plot(places, [100 * value[0] for value in values], color=PALETTE[offset], linewidth=1, alpha=0.7)
        _points(ax, values, places, fmt="osD^v"[offset % 5], color=PALETTE[offset], label=name)
    ax.set_xlabel("severity (0: the images as they are)")
    ax.set_ylabel("accuracy, %")
    _legend_above(ax, columns=len(hits))
    return fig


@mpl.rc_context(STYLE)
def corruption_ratios(plain: Ratios, relative: Ratios) -> Figure:
    """Errors by corruption as a share of a baseline's, with intervals, the mean of them last; at the line they are
    equal. What has no ratio is left out."""
    fig, ax = figure(height=2.7)
    names = [*plain.by_name, "mean"]
    for offset, (label, found, colour, marker) in enumerate(
        (("error", plain, PALETTE[0], "o"), ("error beyond that on clean images", relative, PALETTE[1], "s"))
    ):
        values = [*found.by_name.values(), found.mean]
        places = np.arange(len(names)) + 0.2 * (offset - 0.5)
        _points(ax, values, places, horizontal=True, fmt=marker, color=colour, label=label)
    ax.axvline(100, color=MUTED, linewidth=1, linestyle="--")
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlabel("% of the baseline's (95% interval)")
    _legend_above(ax)
    return fig


def _points(
    ax: Any, values: Sequence[Interval], at: Any, horizontal: bool = False, scale: float = 100, **look: Any
) -> None:
    """Values with their intervals at places of the other axis; fractions are shown in percent unless scaled by 1."""
    middle, low, high = scale * np.array(values, dtype=float).reshape(-1, 3).T
    spread = np.abs(np.stack([middle - low, high - middle]))
    look = {"markersize": 4, "linestyle": "none", "elinewidth": 1.2, "capsize": 0, **look}
    if horizontal:
        ax.errorbar(middle, at, xerr=spread, **look)
    else:
        ax.errorbar(at, middle, yerr=spread, **look)


def _picture(ax: Any, image: Tensor, grey: bool = False) -> None:
    pixels = image.permute(1, 2, 0).numpy()
    if grey:
        ax.imshow(pixels.mean(2), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    else:
        ax.imshow(pixels, interpolation="nearest")
    ax.axis("off")


def _legend_above(ax: Any, columns: int = 4) -> None:
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, borderaxespad=0, handletextpad=0.2)
