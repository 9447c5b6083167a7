"""Figures of notebook 01: what the images are, near-duplicates, augmentation, and what 5,000 images can tell."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from tpsnet_lib.analysis.near_duplicates import NEAR_DUPLICATE
from tpsnet_lib.data.datasets import MEAN, STD, ImageSet
from tpsnet_lib.plots.phone import PHONE, Stack
from tpsnet_lib.plots.style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    PALETTE,
    VERMILION,
    WIDTH,
    data_set,
    describe,
    figure,
    label_ticks,
)

RGB = (VERMILION, GREEN, BLUE)  # stand for red, green and blue


def thumbnail(ax: Axes, image: Tensor, title: str = "") -> None:
    """One image [3, H, W], or [4, H, W] with opacity, uint8 or float in [0, 1], without axes; an SVG keeps its very
    pixels."""
    pixels = image if image.dtype == torch.uint8 else (255 * image).round().clamp(0, 255).to(torch.uint8)
    ax.imshow(pixels.permute(1, 2, 0).numpy(), interpolation="none")
    ax.set_axis_off()
    if title:
        ax.set_title(title, fontsize=8, fontweight="normal", loc="center", pad=3, color=INK)


def gallery(source: ImageSet, positions: Tensor, names: Sequence[str]) -> Figure:
    """Some images of each class, a column a class; `positions` int64 [classes, rows]."""
    rows = positions.shape[1]
    fig, axes = figure(rows, len(names), height=0.75 * rows + 0.2)
    for column, chosen, name in zip(axes.T, positions, names, strict=True):
        for ax, image in zip(column, source.images[chosen], strict=True):
            thumbnail(ax, image, name if ax is column[0] else "")
    return describe(
        fig,
        caption="At 32 x 32 pixels some classes are plain and others hard to tell. The first images of each class.",
        alt=f"{positions.numel()} small colour images, {rows} for each class: {', '.join(names)}.",
        provenance=_source(source.stamp, positions.numel()),
        phone=Stack(len(names) // 2, 1.9 * fig.get_figheight(), together=True),
    )


def channel_histograms(counts: Tensor, stamp: str) -> Figure:
    """How often each pixel value occurs in each channel, with its mean and deviation and the constants used for them.

    `counts` int64 [3, 256]: pixels of each value."""
    fig, axes = figure(1, 3, height=2.5, sharey=True)
    values = np.arange(256)
    shares = 100 * (counts / counts.sum(1, keepdim=True)).numpy()
    means = shares @ values / 100 / 255
    deviations = np.sqrt(shares @ (values / 255) ** 2 / 100 - means**2)
    rows = zip(axes, ("red", "green", "blue"), RGB, shares, means, MEAN, deviations, STD, strict=True)
    for ax, name, colour, share, mean, constant, deviation, used in rows:
        look: Any = {"bins": list(range(0, 257, 4)), "element": "step", "color": colour, "alpha": 0.35}
        sns.histplot(x=values, weights=share, ax=ax, **look)
        ax.axvline(255 * mean, color=colour)
        ax.axvline(255 * constant, color=INK, linestyle=":")
        title = f"mean {mean:.4f} ({constant:.4f})\ndeviation {deviation:.4f} ({used:.4f})"
        ax.set_title(title, fontsize=8.5, fontweight="normal")
        ax.set(xlabel=f"{name}, pixel value", ylabel="pixels (%)")
    agree, alike = (np.abs(a - b).max() < 0.001 for a, b in ((means, MEAN), (deviations, STD)))
    are, other = "are" if agree else "are not", "unlike" if agree != alike else "as are" if agree else "nor are"
    return describe(
        fig,
        caption=f"The means {are} the constants that everybody copies (in brackets), {other} the deviations of all"
        " pixels. Solid line: the measured mean, dotted: the constant; a peak at 255 gathers all that is white or was"
        " too bright for the camera.",
        alt="Three histograms of pixel values, one a channel, each with a line for the mean and one for the constant.",
        provenance=_source(stamp, int(counts[0].sum()) // 1024),
    )


def means_and_components(
    means: Tensor, components: Any, explained: Sequence[float], names: Sequence[str], stamp: str
) -> Figure:
    """The mean image of each class (`means` float [10, 3, H, W], 0 to 255) above the first principal components of the
    thumbnails (`components` float [k, 192]) with the share of the variance that each explains (`explained` [k])."""

    def draw(width: float, lines: int) -> Figure:
        """The classes in so many lines, the components of each below its means."""
        across = -(-len(names) // lines)
        fig, axes = figure(2 * lines, across, height=2 * lines * (width / across + 0.25), width=width)
        for ax in axes.flat:
            ax.set_axis_off()
        for ax, mean, name in zip(axes[::2].flat, means, names, strict=False):
            thumbnail(ax, mean / 255, name)
        for ax, direction, share in zip(axes[1::2].flat, components, explained, strict=False):
            image = torch.as_tensor(direction).reshape(3, 8, 8).float()
            thumbnail(ax, 0.5 + 0.5 * image / image.abs().max(), f"{100 * share:.0f}%")
        for ax, name in zip(axes[:, 0], ("means", "components") * lines, strict=True):
            ax.set_axis_on()
            ax.set(xticks=[], yticks=[], ylabel=name)
            ax.spines[:].set_visible(False)
        return fig

    return describe(
        draw(WIDTH, 1),
        caption="Of photographs, a mean shows a ground, a sky or a dark centre, and little else. Above: the mean image"
        " of each class. Below: principal components of the thumbnails, with the share of the variance that each"
        " explains.",
        alt=f"Ten blurred colour fields, one a class, above {len(explained)} patterns that go from smooth to fine.",
        provenance=f"{data_set(stamp)}, the images that are fitted.",
        phone=lambda: draw(PHONE, 2),
    )


def near_duplicates(
    images: ImageSet, training: ImageSet, neighbour: Tensor, likeness: Tensor, names: Sequence[str]
) -> Figure:
    """The most similar pairs (first row) and those around the threshold (second), each with its likeness.

    `neighbour` int64 [M]: the position in `training` of the nearest neighbour of each of M `images`; `likeness` [M]."""
    columns, order = 4, likeness.argsort(descending=True)
    near = int((likeness >= NEAR_DUPLICATE).sum())
    middle = min(max(columns, near - columns // 2), len(order) - columns)
    fig, axes = figure(2, columns, height=2.6)
    for ax, position in zip(axes.flat, [*order[:columns], *order[middle : middle + columns]], strict=True):
        pair = images.images[position], training.images[neighbour[position]]
        labels = int(images.labels[position]), int(training.labels[neighbour[position]])
        words = " / ".join(dict.fromkeys(names[label] for label in labels))
        opaque = [torch.cat([image, torch.full_like(image[:1], 255)]) for image in pair]
        gap = torch.zeros_like(opaque[0][:, :, :2])  # transparent: the paper, light or dark
        thumbnail(ax, torch.cat([opaque[0], gap, opaque[1]], 2), f"{words}, {float(likeness[position]):.3f}")
    closest = "The closest pairs are one photograph, nearly." if near else "No pair is likely to be one photograph."
    return describe(
        fig,
        caption=f"{closest} Left of each pair: a validation image; right: its nearest neighbour among the fitted ones;"
        " above: label (both, if they differ) and likeness. The lower half is around the threshold.",
        alt="Eight pairs of images. Above, the closest: almost the same picture twice. Below, those at the threshold.",
        provenance=_source(images.stamp, 2 * columns, "pairs"),
        phone=Stack(columns // 2, 1.9 * fig.get_figheight()),
    )


def augmented(rows: Mapping[str, Tensor], original: Tensor, stamp: str) -> Figure:
    """One image uint8 [3, 32, 32] as the first epochs of each augmentation show it: two augmentations a row, so that
    all are seen below the sliders that change them; on a phone one."""
    epochs = max(len(row) for row in rows.values())

    def draw(width: float, beside: int) -> Figure:
        """So many augmentations beside each other, the original above the first."""
        lines, across = 1 + -(-len(rows) // beside), beside * (1 + epochs)
        fig, axes = figure(lines, across, height=lines * 0.92 * width / across, width=width)
        for ax in axes.flat:
            ax.set_axis_off()
        thumbnail(axes[0, 1], original, "original")
        for number, (name, row) in enumerate(rows.items()):
            places = axes[1 + number // beside, number % beside * (1 + epochs) :]
            places[0].text(1, 0.5, name.replace(" ", "\n"), **_BESIDE)
            for epoch, image in enumerate(row):
                thumbnail(places[1 + epoch], image, f"epoch {epoch}" if number < beside else "")
        return fig

    return describe(
        draw(WIDTH, 2),
        caption="One image, as each augmentation shows it in 3 epochs. Chance can leave it as it is, or darken it"
        " to black; a strength of 0 always leaves it.",
        alt=f"One image, and {epochs} versions of it from each of: {', '.join(rows)}.",
        provenance=_source(stamp, 1, "image"),
        phone=lambda: draw(PHONE, 1),
    )


def mixes(rows: Mapping[str, tuple[Tensor, Tensor]], names: Sequence[str], stamp: str) -> Figure:
    """Batches with the target of each image written above it; each row is (images in [0, 1], targets [B, 10])."""
    columns = len(next(iter(rows.values()))[1])

    def draw(width: float, across: bool = False) -> Figure:
        shape, height = (columns, len(rows)), 1.5 * columns
        if not across:
            shape, height = shape[::-1], 1.6 * len(rows)
        fig, axes = figure(*shape, height=height + 0.1, width=width, squeeze=False)
        for line, (name, (images, targets)) in zip(axes.T if across else axes, rows.items(), strict=True):
            for ax, image, target in zip(line, images, targets, strict=True):
                thumbnail(ax, image, target_words(target, names))
            if across:
                line[0].set_title(f"{name}\n{line[0].get_title()}", fontsize=8, fontweight="normal", loc="center")
            else:
                line[0].text(-0.1, 0.5, name.replace(" ", "\n"), transform=line[0].transAxes, **_BESIDE)
        return fig

    return describe(
        draw(6.6),
        caption="What is mixed in the image is mixed in its target, in the same proportion. Above each image: the"
        " target that the network is asked for.",
        alt="Four images; below, the same blended with their neighbours by mixup and by CutMix, with mixed targets.",
        provenance=_source(stamp, columns),
        phone=lambda: draw(PHONE, across=True),
    )


def target_words(target: Tensor, names: Sequence[str]) -> str:
    """A target [10] as `0.63 cat + 0.37 ship`, the larger part first."""
    order = target.argsort(descending=True, stable=True).tolist()
    parts = [f"{float(target[label]):.2f} {names[label]}" for label in order if target[label] > 0.005]
    return "\n+ ".join(parts)


def interval_width(table: pd.DataFrame, marks: Mapping[str, int]) -> Figure:
    """Half the width of an accuracy's interval against the number of images; `table` has the columns `images`,
    `accuracy` (in words) and `half-width` (in points), `marks` sizes by name."""
    fig, ax = figure(height=2.8)
    sns.lineplot(table, x="images", y="half-width", hue="accuracy", style="accuracy", palette=PALETTE[:3], ax=ax)
    widest = table.groupby("images")["half-width"].max()
    for name, n in marks.items():
        ax.axvline(n, color=MUTED, linewidth=1, linestyle=":")
        height = float(np.interp(np.log(n), np.log(widest.index), widest))
        beside = {"xy": (n, height), "xytext": (4, 6), "textcoords": "offset points"}
        foot = {**beside, "xy": (n, 0), "xytext": (-4, 4), "xycoords": ("data", "axes fraction"), "ha": "right"}
        ax.annotate(f"{name}\n{n:,}", **(beside if n > min(marks.values()) else foot), fontsize=8)
    ax.set(xscale="log", yscale="log", xlabel="images the accuracy is measured on", ylabel="half-width (points)")
    label_ticks(ax.yaxis, [0.1, 0.2, 0.5, 1, 2, 5])
    ax.xaxis.minorticks_off()
    ax.legend(fontsize=8, title=None)
    return describe(
        fig,
        caption="Four times the images halve the interval. Half the width of the 95% Wilson interval of an accuracy.",
        alt="Three falling straight lines on logarithmic axes: half-width against the number of images.",
        provenance="Computed from the binomial distribution; no data.",
    )


def best_of_k(table: pd.DataFrame, truth: float) -> Figure:
    """The score of the best of k equally good models; `table` has a row a repetition, with the columns `models`,
    `accuracy` (a fraction) and `scored on`."""
    fig, ax = figure(height=2.9)
    kinds = list(dict.fromkeys(table["scored on"]))
    beside = dict(zip(kinds, (1.0, 1.07, 0.93), strict=False))  # so that no bar covers another
    data = table.assign(percent=100 * table["accuracy"], models=table["models"] * table["scored on"].map(beside))
    options = {"errorbar": _middle, "err_style": "bars", "err_kws": {"elinewidth": 1}, "markers": True}
    keys = {"x": "models", "y": "percent", "hue": "scored on", "style": "scored on"}
    sns.lineplot(data, **keys, palette=PALETTE[: len(kinds)], ax=ax, **options)
    ax.axhline(100 * truth, color=INK, linewidth=1, linestyle=":", label="true accuracy of every model", zorder=1)
    counts = sorted(set(table["models"]))
    ax.set(xscale="log", xlabel="models among which the best was chosen", ylabel="accuracy of the chosen (%)")
    ax.set_xticks(counts, [f"{count:,}" for count in counts])
    ax.minorticks_off()
    ax.get_legend().remove()
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8)
    return describe(
        fig,
        caption="The more models are compared on the same images, the more luck the best score holds."
        " Mean and middle 95% (bars) of repeated simulations in which all models are equally good.",
        alt="Two rising lines, the score of the best of k equal models; a flat line at the truth, its score on fresh"
        " images.",
        provenance=f"Simulated, {len(table) // len(counts) // len(kinds):,} repetitions.",
    )


def _middle(values: Any) -> tuple[float, float]:
    """The ends of the middle 95% of some values, no nearer to each other than their mean allows."""
    low, high = np.percentile(values, [2.5, 97.5])
    return min(low, values.mean()), max(high, values.mean())


def _source(stamp: str, n: int, unit: str = "images") -> str:
    """What a figure of images stands on."""
    return f"{data_set(stamp)}, n = {n:,} {unit}."


_BESIDE: Any = {"ha": "right", "va": "center", "fontsize": 8}  # the name of a row
