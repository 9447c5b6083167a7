"""Figures of the data itself: what the images are, how alike, what augmentation does, what a split can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from tpsnet_lib import metrics
from tpsnet_lib.analysis.dataset import SAME_PHOTOGRAPH, ChannelStatistics, Choice, Components, Pairs
from tpsnet_lib.data.datasets import MEAN
from tpsnet_lib.plots.style import INK, MUTED, PALETTE, figure

RGB = (PALETTE[1], PALETTE[2], PALETTE[0])  # stand for red, green and blue
LOOKS = [(colour, marker) for marker in "ox" for colour in PALETTE[:5]]  # ten classes: five colours, two markers


def source(text: str, stamp: str, n: int, unit: str = "images") -> str:
    """A caption that ends with the data set and how much of it the figure stands on; no run, so no hardware."""
    return f"{text} {stamp}, n = {n:,} {unit}."


def _tile(ax: Axes, image: Tensor, title: str = "", size: float = 8) -> None:
    """One image [3, H, W], uint8 or float in [0, 1], as a thumbnail without axes; an SVG keeps its very pixels."""
    pixels = image if image.dtype == torch.uint8 else (255 * image).round().clamp(0, 255).to(torch.uint8)
    ax.imshow(pixels.permute(1, 2, 0).numpy(), interpolation="none")
    ax.set_axis_off()
    if title:
        ax.set_title(title, fontsize=size, fontweight="normal", loc="center", pad=3, color=INK)


def gallery(images: Tensor, positions: Tensor, names: Sequence[str]) -> Figure:
    """Some images of each class, a column a class; `positions` int64 [10, rows]."""
    rows = positions.shape[1]
    fig, axes = figure(rows, len(names), height=0.75 * rows + 0.2)
    for column, name in enumerate(names):
        for row in range(rows):
            _tile(axes[row, column], images[positions[column, row]], name if row == 0 else "")
    return fig


def channels(found: ChannelStatistics) -> Figure:
    """How often each pixel value occurs in each channel, with the measured mean and the constant used for it."""
    fig, axes = figure(1, 3, height=2.3, sharey=True)
    for ax, name, colour, counts, mean, constant in zip(
        axes, ("red", "green", "blue"), RGB, found.counts, found.mean, MEAN, strict=True
    ):
        share = 100 * counts.view(-1, 4).sum(1).double() / counts.sum()
        ax.stairs(share.numpy(), np.arange(0, 257, 4), fill=True, color=colour, alpha=0.35)
        ax.axvline(255 * mean, color=colour, label=f"mean {mean:.4f}")
        ax.axvline(255 * constant, color=INK, linestyle=":", label=f"constant {constant:.4f}")
        ax.set_xlabel(f"{name}, pixel value")
        ax.legend(fontsize=7, loc="upper right", handlelength=1.2, frameon=False)
        ax.set_ylim(0, 1.4 * float(share.max()))
    axes[0].set_ylabel("pixels (%)")
    return fig


def mean_images(means: Tensor, names: Sequence[str]) -> Figure:
    """The mean image of each class; `means` float [10, 3, H, W] in 0 to 255."""
    fig, axes = figure(1, len(names), height=0.95)
    for ax, mean, name in zip(axes, means, names, strict=True):
        _tile(ax, mean / 255, name)
    return fig


def pairs_of_images(images: Tensor, labels: Tensor, pairs: Pairs, names: Sequence[str], columns: int = 4) -> Figure:
    """The closest pairs (first row) and those around the threshold (second), each with how much its detail agrees."""
    middle = max(columns, min(len(pairs.above()) - columns // 2, len(pairs) - columns))
    fig, axes = figure(2, columns, height=2.6)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, number in zip(axes.flat, [*range(columns), *range(middle, middle + columns)], strict=True):
        if number < len(pairs):
            first, second = int(pairs.first[number]), int(pairs.second[number])
            gap = torch.full((3, 32, 2), 255, dtype=torch.uint8)
            words = " / ".join(dict.fromkeys(names[int(labels[place])] for place in (first, second)))
            title = f"{words}, {float(pairs.detail[number]):.2f}"
            _tile(ax, torch.cat([images[first], gap, images[second]], 2), title)
    return fig


def detail_of_pairs(pairs: Pairs) -> Figure:
    """How much the detail of nearest neighbours agrees, and where the line for near-duplicates is."""
    fig, ax = figure(height=2.3)
    ax.hist(pairs.detail.numpy(), bins=np.arange(-0.3, 1.01, 0.02).tolist(), color=PALETTE[5], histtype="stepfilled")
    ax.axvline(SAME_PHOTOGRAPH, color=PALETTE[1], label=f"near-duplicates: {SAME_PHOTOGRAPH} or more")
    ax.set_xlabel("correlation of detail")
    ax.set_ylabel("pairs")
    ax.legend(fontsize=8, frameon=False)
    return fig


def components(found: Components, count: int = 8) -> Figure:
    """The first principal components as images, each stretched to the full range about grey."""
    fig, axes = figure(1, count, height=1.2)
    for number, (ax, direction) in enumerate(zip(axes, found.directions[:count], strict=True), 1):
        image = 0.5 + 0.5 * direction / direction.abs().max()
        _tile(ax, image, f"{number}: {100 * float(found.explained[number - 1]):.1f}%")
    return fig


def maps(points: Mapping[str, Tensor], labels: Tensor, names: Sequence[str]) -> Figure:
    """Two-dimensional maps of the same images, side by side; colour and marker tell the class."""
    fig, axes = figure(1, len(points), height=3.9)
    fig.set_dpi(120)
    for ax, (title, where) in zip(axes, points.items(), strict=True):
        for label, (name, (colour, marker)) in enumerate(zip(names, LOOKS, strict=True)):
            x, y = where[labels == label].T.numpy()
            ax.scatter(x, y, s=8, color=colour, marker=marker, linewidths=0.8, label=name)
        ax.set_rasterization_zorder(3)  # all points as one picture within the SVG: as shapes they would be megabytes
        ax.grid(False)
        ax.set_title(title, fontsize=9.5, loc="left")
        ax.set_xticks([])
        ax.set_yticks([])
    handles, words = axes[0].get_legend_handles_labels()
    fig.legend(handles, words, loc="outside lower center", ncols=5, fontsize=8, markerscale=1.6, frameon=False)
    return fig


def strips(rows: Mapping[str, Tensor], original: Tensor) -> Figure:
    """One image as the first epochs of each augmentation show it, a row an augmentation; the original on the left."""
    columns = 1 + max(len(row) for row in rows.values())
    fig, axes = figure(len(rows), columns, height=0.98 * len(rows) + 0.2, width=5.4)
    for ax in axes[:, 0]:
        ax.set_axis_off()
    _tile(axes[0, 0], original, "original")
    for number, (name, row) in enumerate(rows.items()):
        for epoch, image in enumerate(row):
            _tile(axes[number, 1 + epoch], image, f"epoch {epoch}" if number == 0 else "")
        _name_row(axes[number, 1], name)
    return fig


def _name_row(ax: Axes, name: str) -> None:
    ax.text(-0.1, 0.5, name.replace(" ", "\n"), transform=ax.transAxes, ha="right", va="center", fontsize=8)


def mixes(rows: Mapping[str, tuple[Tensor, Tensor]], names: Sequence[str]) -> Figure:
    """Batches with the target of each image written above it; each row is (images, targets [B, 10])."""
    columns = len(next(iter(rows.values()))[1])
    fig, axes = figure(len(rows), columns, height=1.6 * len(rows) + 0.1, width=6.6)
    for number, (name, (images, targets)) in enumerate(rows.items()):
        for ax, image, target in zip(axes[number], images, targets, strict=True):
            _tile(ax, image, target_words(target, names))
        _name_row(axes[number, 0], name)
    return fig


def target_words(target: Tensor, names: Sequence[str]) -> str:
    """A target as `0.63 cat + 0.37 ship`, the larger part first."""
    order = target.argsort(descending=True, stable=True).tolist()
    parts = [f"{float(target[label]):.2f} {names[label]}" for label in order if target[label] > 0.005]
    return "\n+ ".join(parts)


def split_noise(counts: np.ndarray[Any, Any], stratified: int, deviation: float, scores: Mapping[str, Any]) -> Figure:
    """Class counts of random splits against the stratified one, and how far a difference of two classifiers varies."""
    fig, (left, right) = figure(1, 2, height=2.7)
    edges = np.arange(counts.min() - 0.5, counts.max() + 2.5, max(1, (counts.max() - counts.min()) // 40))
    left.hist(
        counts.ravel(), bins=edges.tolist(), density=True, color=PALETTE[5], histtype="stepfilled", label="random"
    )
    x = np.linspace(edges[0], edges[-1], 200)
    bell = np.exp(-(((x - stratified) / deviation) ** 2) / 2) / (deviation * np.sqrt(2 * np.pi))
    left.plot(x, bell, color=INK, linewidth=1.2, label="theory")
    left.axvline(stratified, color=PALETTE[1], label="stratified")
    left.set_xlabel("validation images of one class")
    left.set_ylabel("density")
    left.legend(fontsize=8, frameon=False)
    for colour, (name, values) in zip((PALETTE[1], MUTED), scores.items(), strict=True):
        right.hist(100 * values, bins=20, density=True, histtype="step", color=colour, linewidth=1.6, label=name)
    right.set_xlabel("difference of two scores (points)")
    right.set_yticks([])
    right.legend(fontsize=8, frameon=False)
    return fig


def interval_width(accuracies: Sequence[float], marks: Mapping[str, int]) -> Figure:
    """Half the width of the 95% Wilson interval of an accuracy, against the number of images."""
    fig, ax = figure(height=2.8)
    sizes = np.unique(np.geomspace(200, 100_000, 60).astype(int))
    for colour, style, accuracy in zip(PALETTE, ("-", "--", "-."), accuracies, strict=False):
        halves = [_half(accuracy, int(n)) for n in sizes]
        ax.plot(sizes, halves, style, color=colour, label=f"accuracy {100 * accuracy:.0f}%")
    for name, n in marks.items():
        ax.axvline(n, color=MUTED, linewidth=1, linestyle=":")
        ax.annotate(f"{name}\n{n:,}", (n, _half(accuracies[0], n)), (4, 6), textcoords="offset points", fontsize=8)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_yticks([0.1, 0.2, 0.5, 1, 2, 5], ["0.1", "0.2", "0.5", "1", "2", "5"])
    ax.minorticks_off()
    ax.set_xlabel("images the accuracy is measured on")
    ax.set_ylabel("half-width (points)")
    ax.legend(fontsize=8, frameon=False)
    return fig


def _half(accuracy: float, n: int) -> float:
    low, high = metrics.wilson(round(accuracy * n), n)
    return 50 * (high - low)


def inflation(choices: Mapping[str, Sequence[Choice]], accuracy: float) -> Figure:
    """The score of the best of k equal models on the images that chose it and on fresh ones, with the middle 95%."""
    fig, ax = figure(height=2.9)
    for colour, style, (name, rows) in zip(PALETTE[1::-1], ("-", "--"), choices.items(), strict=True):
        k = [row.models for row in rows]
        low, high = [100 * row.low for row in rows], [100 * row.high for row in rows]
        ax.plot(k, [100 * row.chosen for row in rows], style, marker="o", markersize=4, color=colour, label=name)
        ax.fill_between(k, low, high, color=colour, alpha=0.15, linewidth=0)
    fresh = next(iter(choices.values()))
    k = [row.models for row in fresh]
    ax.plot(
        k, [100 * row.fresh for row in fresh], ":", marker="s", markersize=4, color=PALETTE[2], label="on fresh images"
    )
    ax.axhline(100 * accuracy, color=INK, linewidth=1, label="true accuracy of every model")
    ax.set_xscale("log")
    ax.set_xticks(k, [f"{value:,}" for value in k])
    ax.minorticks_off()
    ax.set_xlabel("models among which the best was chosen")
    ax.set_ylabel("accuracy of the chosen (%)")
    fig.legend(loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    return fig
