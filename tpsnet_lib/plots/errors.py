"""Figures of the error analysis: what one network gets wrong, how confident it is, and what it looks at."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import interpolate

from tpsnet_lib.plots.dataset import thumbnail
from tpsnet_lib.plots.phone import PHONE, Stack
from tpsnet_lib.plots.style import (
    BLUE,
    GREEN,
    GRID,
    INK,
    MUTED,
    VERDICTS,
    VERMILION,
    WIDTH,
    describe,
    draw_intervals,
    figure,
    label_ticks,
)
from tpsnet_lib.runs.records import Record
from tpsnet_lib.stats import HOLDS

HEAT = LinearSegmentedColormap.from_list("heat", ["#FFFFFF", "#FBD9B5", VERMILION, "#7A2E00"])
_LOOK: Any = {"markersize": 4, "elinewidth": 1.2, "capsize": 0, "clip_on": False}  # a point at 0 is whole
OURS = "this network"
COLOURS = {**VERDICTS, OURS: INK}  # of "this network is better"


def confusion_matrix(counts: Tensor, names: Sequence[str], record: Record) -> Figure:
    """Counts of label (row) against prediction (column), int64 [10, 10]: only the errors are coloured, the diagonal is
    grey, and a row's name holds its recall."""
    table, hits = counts.numpy(), counts.diagonal()
    diagonal = np.eye(len(names), dtype=bool)
    recalls = [f"{100 * hit / max(1, n):.0f}%" for hit, n in zip(hits, counts.sum(1), strict=True)]
    words = np.where(table == 0, "", table.astype(str))

    def draw(width: float, between: str) -> Figure:
        """`between`: what parts the name of a class and its recall."""
        fig, ax = figure(height=4.9, width=width)
        rows = [f"{name}{between}{recall}" for name, recall in zip(names, recalls, strict=True)]
        look = {"annot": words, "fmt": "", "cbar": False, "annot_kws": {"fontsize": 8}, "ax": ax, "linewidths": 0.5}
        sns.heatmap(table, mask=diagonal, cmap=HEAT, vmin=0, xticklabels=names, yticklabels=rows, **look)
        look["annot_kws"] = {"fontsize": 8, "fontweight": "bold", "color": INK}
        sns.heatmap(table, mask=~diagonal, cmap=[GRID], xticklabels=names, yticklabels=rows, **look)
        for label in ax.get_xticklabels():
            label.set(rotation=40, ha="right", rotation_mode="anchor")
        ax.set_xlabel("predicted class")
        ax.set_ylabel("label, recall")
        ax.tick_params(length=0)
        return fig

    errors = np.where(diagonal, 0, table)
    label, taken = map(int, np.unravel_index(errors.argmax(), errors.shape))
    return describe(
        draw(6.4, ", "),
        caption=f"The most frequent error is {names[label]} → {names[taken]} ({errors.max():,} times); the stronger the"
        f" colour, the more frequent. The grey diagonal holds the hits ({int(counts.sum()):,} test images).",
        alt="Confusion matrix of label and prediction. The strongest colour marks the most frequent confusions.",
        records=[record],
        phone=lambda: draw(PHONE, "\n"),
    )


def worst_errors(images: Tensor, lines: Sequence[str], record: Record) -> Figure:
    """The wrong predictions of the highest confidence (images uint8 [N, 3, H, W]), each with its lines of text."""
    rows, deepest = max(1, -(-len(images) // 5)), max((text.count("\n") + 1 for text in lines), default=1)
    fig, axes = figure(rows, 5, height=rows * (0.95 + 0.14 * deepest), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, text in zip(axes.flat, images, lines, strict=False):
        thumbnail(ax, image)
        ax.text(0.5, -0.06, text, transform=ax.transAxes, ha="center", va="top", fontsize=8, color=INK)
    return describe(
        fig,
        caption=f"The {len(images)} errors of the highest confidence: label → prediction.",
        alt="The wrong predictions of the highest confidence, each with label, prediction and confidence.",
        records=[record],
        phone=Stack(2, 2.9 * fig.get_figheight()),
    )


def reliability(bins: Mapping[str, pd.DataFrame], risks: Mapping[float, float], record: Record) -> Figure:
    """Accuracy beside confidence, a panel for each title, and the error (`risks`) by the share of the images that are
    answered. A table has a row a bin, the least sure first: `confidence` and `accuracy`, the latter an `Estimate`."""
    fig, (*axes, last) = figure(1, len(bins) + 1, height=3.0)
    lowest = min(min(part.confidence.min(), *(e.low for e in part.accuracy)) for part in bins.values())
    for ax, (title, part) in zip(axes, bins.items(), strict=True):
        places = np.arange(1, len(part) + 1)
        ax.plot(places, 100 * part.confidence, color=VERMILION, linewidth=1.2, marker="_", label="mean confidence")
        draw_intervals(ax, list(part.accuracy), places, **_LOOK, color=BLUE, label="accuracy")
        ax.set(ylim=(100 * max(0.0, lowest - 0.05), 101), xlabel="bin, the surest last", title=title)
        ax.set_xticks(range(5, len(part) + 1, 5))
    axes[0].set_ylabel("% of a bin's images")
    axes[0].legend(loc="lower right", fontsize=8)
    percent = 100 * np.array([*risks.items()])
    sns.lineplot(x=percent[:, 0], y=percent[:, 1], color=VERMILION, ax=last)
    last.set(xlabel="images answered (%)", ylabel="error on them (%)", title="the surest alone")
    last.set_ylim(0, None)
    titles = "; ".join(bins).replace("\n", ", ")
    as_trained = next(iter(bins.values()))
    sizes = [estimate.n for estimate in as_trained.accuracy]
    ahead = sum(estimate.value for estimate in as_trained.accuracy) - as_trained.confidence.sum()
    return describe(
        fig,
        caption=f"As trained, the network is right {'more' if ahead > 0 else 'less'} often than it says; a calibrated"
        f" network's accuracy lies on its confidence ({sum(sizes):,} test images in {len(sizes)} bins of about"
        f" {max(sizes):,} each; 95% Wilson intervals). Last: its error on the images of the highest"
        " confidence (with T) alone.",
        alt=f"Accuracy and confidence of each bin: {titles}. Last: error by share answered.",
        records=[record],
    )


def published_models(table: pd.DataFrame, record: Record) -> Figure:
    """The error of published models and of this network on the same images. `table` has the columns `name`, `accuracy`
    (an `Estimate`) and `verdict` ("this network is better": a verdict of `stats`, or `OURS`)."""
    rows = table.sort_values("accuracy", key=lambda column: [-e.value for e in column]).reset_index(drop=True)
    fig, ax = figure(height=0.7 + 0.17 * len(rows))
    for verdict, colour in COLOURS.items():
        chosen = rows[rows.verdict == verdict]
        if len(chosen):
            wrong = [accuracy.taken_from(1) for accuracy in chosen.accuracy]
            look: dict[str, Any] = {"marker": "D" if verdict == OURS else "o", "color": colour}
            look["label"] = None if verdict == OURS else verdict
            draw_intervals(ax, wrong, chosen.index.to_numpy(), horizontal=True, **_LOOK, **look)
    ax.set_yticks(range(len(rows)), rows.name.str.replace("_", " "), fontsize=8)  # they are names of files
    ax.invert_yaxis()
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    label_ticks(ax.xaxis, (tick for tick in (1, 2, 3, 5, 10, 15, 20, 30, 50) if low <= tick <= high))
    ax.set_xlabel("error on the test images (%, log scale)")
    ax.legend(loc="upper right", title="this network is better:", alignment="left")  # the sorted models leave it free
    worse = int((rows.verdict == HOLDS).sum())
    return describe(
        fig,
        caption=f"This network is better than {worse} of {len(rows) - 1} models published by 2018, on the same"
        f" {rows.accuracy[0].n:,} images (95% Wilson intervals; colour: the verdict of a paired test, after Holm).",
        alt="Errors of published models and of this network on the same test images, sorted.",
        records=[record],
    )


def people(groups: pd.DataFrame, record: Record) -> Figure:
    """By how many people agree with the label (`agreement`): the network's `error`, and the mean entropy of `network`
    and `people`, each an `Estimate`."""
    fig, (left, right) = figure(1, 2, height=3.1)
    places = np.arange(len(groups))
    draw_intervals(left, list(groups.error), places, **_LOOK, color=VERMILION)
    left.set_ylabel("network's error (%)")
    for kind, colour, marker, offset in (("network", VERMILION, "o", -0.1), ("people", BLUE, "s", 0.1)):
        look = _LOOK | {"color": colour, "marker": marker, "label": kind}
        draw_intervals(right, list(groups[kind]), places + offset, scale=1, **look)
    right.set_ylabel("mean entropy (nats)")
    _legend_above(right)
    for ax in (left, right):
        ax.set_ylim(0, None)
        ax.set_xticks(places, [f"{row.agreement}\nn = {row.error.n:,}" for row in groups.itertuples()], fontsize=8)
        ax.set_xlabel("people who agree with the label")
    errs, unsure = ([part.value for part in groups[kind][1:]] for kind in ("error", "network"))  # "all" is the first
    more = "errs more often" if errs == sorted(errs) else "does not always err more often"
    less = "less" if unsure == sorted(unsure) else "not always less"
    return describe(
        fig,
        caption=f"Where fewer people agree with the label, the network {more} and is {less} certain (CIFAR-10H,"
        f" {sum(e.n for e in groups.error):,} test images, 95% intervals).",
        alt="The network's error, and the entropy of network and people, by how many people agree with the label.",
        records=[record],
    )


def heat_maps(images: Tensor, heat: Tensor, titles: Sequence[str], record: Record) -> Figure:
    """Images (uint8 [N, 3, H, W]) above, and below the same in grey under their heat maps [N, H, W] in 0 to 1."""
    width = min(WIDTH, 1.2 * len(images))
    fig, axes = figure(2, len(images), height=2 * width / len(images) + 0.5, width=width, squeeze=False)
    for above, below, image, places, title in zip(*axes, images, heat, titles, strict=True):
        thumbnail(above, image)
        thumbnail(below, _lit(image, places))
        above.set_title(title, fontsize=8, loc="center", fontweight="normal")
    return describe(
        fig,
        caption="Bright places speak for the predicted class. Above each image: label → prediction.",
        alt="Test images, and below each the same with the places lit up that speak for the predicted class.",
        records=[record],
        phone=Stack(3, 2 * fig.get_figheight(), together=True),
    )


def _lit(image: Tensor, places: Tensor) -> Tensor:
    """An image (uint8 [3, H, W]) in grey, three times as large, under its heat map ([H, W] in 0 to 1): uint8."""
    size = [3 * side for side in image.shape[1:]]
    grey = interpolate(image[None].float().mean(1, keepdim=True), size)[0] / 255
    smooth = interpolate(places[None, None].float(), size, mode="bilinear")[0, 0].clamp(0, 1)
    colours = torch.from_numpy(sns.color_palette("magma", as_cmap=True)(smooth.numpy())[..., :3]).permute(2, 0, 1)
    return (255 * (0.45 * grey + 0.55 * colours)).byte()


def block_sizes(sizes: pd.DataFrame, record: Record) -> Figure:
    """The size of skip and branch in each block. A row is a block of one image: `block` (layer and place in it, from
    1), `skip` and `branch`, root mean squares."""
    fig, ax = figure(height=3.0)
    long = sizes.melt("block", ["skip", "branch"], "part", "size").dropna()
    blocks, parts = list(sizes.block.unique()), list(long.part.unique())
    look: dict[str, Any] = {"linestyle": "none", "markersize": 4, "err_kws": {"linewidth": 1.2}, "ax": ax}
    look |= {"hue_order": parts, "order": blocks, "dodge": 0.25 if len(parts) > 1 else False}
    look |= {"palette": {"skip": GREEN, "branch": VERMILION}, "markers": ["o", "s"][-len(parts) :]}
    sns.pointplot(long, x="block", y="size", hue="part", errorbar=("pi", 90), **look)
    for place in range(1, len(blocks)):
        if blocks[place].split(".")[0] != blocks[place - 1].split(".")[0]:
            ax.axvline(place - 0.5, color=MUTED, linewidth=0.8, linestyle=":")
    labelled = range(0, len(blocks), max(1, len(blocks) // 20))
    ax.set_xticks(list(labelled), [blocks[place] for place in labelled], fontsize=8)
    ax.set_xlabel("layer.block, counted from 1; a dotted line opens a layer")
    ax.set_ylabel("root mean square of the maps")
    ax.set_ylim(0, None)
    _legend_above(ax)
    means = sizes.groupby("block")[["skip", "branch"]].mean()
    larger = int((means.branch > means.skip).sum())
    return describe(
        fig,
        caption=f"In {larger} of {means.skip.count()} blocks with a skip the branch is larger than what it is added to."
        f" The mean, and the middle 90% of {len(sizes) // len(blocks):,} test images.",
        alt="Root mean square of skip and branch in each block, with the middle 90% of the images.",
        records=[record],
    )


def corruptions(table: pd.DataFrame, examples: Mapping[str, Tensor], records: Sequence[Record]) -> Figure:
    """Accuracy by severity, a panel a corruption, below an image [3, 32, 32] under its highest severity. A row of
    `table` is a `network` under a `corruption` (`none` at severity 0) at a `severity`, with its `accuracy`, an
    `Estimate`."""
    fig, axes = figure(2, len(examples), height=3.6, sharey="row", height_ratios=[1, 2.2])
    networks = list(table.network.unique())
    for above, ax, (name, image) in zip(*axes, examples.items(), strict=True):
        thumbnail(above, image)
        above.set_title(name, fontsize=8.5, loc="center")
        for shift, network, colour, marker in zip((-0.08, 0.08), networks, (VERMILION, BLUE), "os", strict=False):
            rows = table[(table.network == network) & table.corruption.isin([name, "none"])].sort_values("severity")
            places = rows.severity.to_numpy() + shift
            ax.plot(places, [100 * e.value for e in rows.accuracy], color=colour, linewidth=1, alpha=0.7)
            look = _LOOK | {"color": colour, "marker": marker, "label": network}
            draw_intervals(ax, list(rows.accuracy), places, **look)
        ax.set_xticks(sorted(table.severity.unique()))
        ax.set_xlabel("severity")
    axes[1][0].set(ylabel="accuracy (%)", ylim=(0, 103))
    handles, labels = axes[1][0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=2)
    worst = table[(table.network == networks[0]) & (table.severity == table.severity.max())]
    ends = worst.iloc[worst.accuracy.map(lambda e: e.value).argsort().to_numpy()[[0, -1]]]
    (low, high), (least, most) = ends.corruption, (f"{e:%.0 value}" for e in ends.accuracy)
    return describe(
        fig,
        caption=f"At the highest severity {networks[0]} is right on {least} ({low}) to {most} ({high})"
        f" ({table.accuracy.iloc[0].n:,} test images, 95% Wilson intervals; severity 0: undamaged;"
        " the image: one under the highest severity).",
        alt="Accuracy by severity under noise, blur, fog, lower contrast and pixelation, a panel each.",
        records=records,
        phone=Stack(2, 7.5, together=True),
    )


def _legend_above(ax: Any) -> None:
    look = {"borderaxespad": 0, "handletextpad": 0.2, "columnspacing": 1.2, "title": None}
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, **look)
