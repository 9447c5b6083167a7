"""Figures of the final training: learning rate, learning curves, ablation, three mistakes."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas
import seaborn
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from tpsnet_lib import stats
from tpsnet_lib.analysis.training import AblationRow, scaled
from tpsnet_lib.plots.style import BLUE, GREEN, INK, ORANGE, PALETTE, VERDICTS, VERMILION, describe, figure, set_space
from tpsnet_lib.runs.records import Record

LEADER = "#B8C0C8"


def learning_rate(whole: Mapping[str, Sequence[float]], trials: Mapping[str, Sequence[float]], epochs: int) -> Figure:
    """The learning rate as a share of its peak: schedules over a `whole` run, and short `trials` of so many epochs."""
    fig, panels = figure(1, 2, height=3.2, sharey=True)
    colours = dict(zip(dict.fromkeys([*whole, *trials]), PALETTE, strict=False))  # one for each schedule
    look: dict[str, Any] = {"hue": "schedule", "style": "schedule", "palette": colours, "errorbar": None}
    for axes, curves, length in zip(panels, (whole, trials), (100, epochs), strict=True):
        frame = pandas.concat(
            pandas.DataFrame({"at": np.linspace(0, length, len(values)), "rate": values, "schedule": name})
            for name, values in curves.items()
        )
        seaborn.lineplot(frame, x="at", y="rate", ax=axes, **look)
        axes.legend(title=None, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.25))  # beside no curve
    panels[0].set(xlabel="share of the run (%)", ylabel="learning rate / its peak", title="A whole run", ylim=(0, 1.05))
    panels[1].set(xlabel="epoch", ylabel="", title=f"A trial of {epochs} epochs")
    return describe(
        fig,
        caption=f"A trial of {epochs} epochs that was cut off a longer schedule ends near its peak rate; one with a"
        " schedule of its own ends at zero.",
        alt="Left, three schedules of the learning rate over a whole run. Right, a short trial whose rate falls to"
        " zero, and one that is cut off near its peak.",
        provenance="computed, no data",
    )


def learning_curves(record: Record, n: int) -> Figure:
    """Accuracy, with the interval of the n validation images, and loss by epoch.

    Of a run that was fitted on the validation images too, only the curves of training are drawn."""
    rows, sets = record.history(), {"training": "train"}
    if record.validation_accuracy is not None:
        sets = {"validation": "validation", **sets}
    parts = [
        {"epoch": row["epoch"], "images": name, "accuracy": 100 * row[f"{key}_accuracy"], "loss": row[f"{key}_loss"]}
        for name, key in sets.items()
        for row in rows
    ]
    fig, (left, right) = figure(1, 2, height=3.0)
    look: dict[str, Any] = {"hue": "images", "style": "images", "palette": {"validation": BLUE, "training": VERMILION}}
    look |= {"dashes": {"validation": "", "training": (4, 2)}, "errorbar": None}
    for axes, name, unit in ((left, "accuracy", "accuracy (%)"), (right, "loss", "cross-entropy (nats)")):
        seaborn.lineplot(pandas.DataFrame(parts), x="epoch", y=name, ax=axes, legend=axes is left, **look)
        axes.set(xlabel="epoch", ylabel=unit, title=name.capitalize(), xlim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    later = [row for row in rows if row["epoch"] > rows[-1]["epoch"] / 10]  # the steep first tenth leaves no room
    left.set_ylim(bottom=max(0.0, 100 * min(row[f"{key}_accuracy"] for row in later for key in sets.values()) - 5))
    network = f"a network of {record.metrics['parameters']:,.0f} parameters, {record.config.train.epochs:g} epochs"
    if "validation" in sets:
        seen = [stats.proportion(round(row["validation_accuracy"] * n), n) for row in rows]
        ends = [100 * each.low for each in seen], [100 * each.high for each in seen]
        left.fill_between([row["epoch"] for row in rows], *ends, color=BLUE, alpha=0.35, linewidth=0)
        left.annotate(f"{seen[-1]:%.1 value}", (rows[-1]["epoch"], 100 * seen[-1].value), (0, 9), color=BLUE, **_NEAR)
        caption = (
            f"Validation ends at {100 * rows[-1]['validation_accuracy']:.1f}%: {network}. The band is the 95% interval"
            f" of the {n:,} images held out; the steep beginning is cut off. Training images are augmented, and their"
            " loss contains the label smoothing."
        )
    else:
        caption = (
            f"Training ends at {100 * rows[-1]['train_accuracy']:.1f}% of augmented images{_mixing_ends(record)}:"
            f" {network}. All images were fitted, so that there is no validation curve."
        )
    left.legend(title=None, loc="lower right")
    return describe(
        fig,
        caption=caption,
        alt=f"Accuracy and loss by epoch of {' and '.join(sets)} images.",
        records=[record],
        unit="run",
    )


def _mixing_ends(record: Record) -> str:
    """Where the curves of a run jump because its images are no longer mixed, in words; empty if they do not."""
    train = record.config.train
    names = [name for name, alpha in (("mixup", train.mixup), ("CutMix", train.cutmix)) if alpha]
    if not names or not train.mix_off_epochs:
        return ""
    return f" and jumps at epoch {train.epochs - train.mix_off_epochs:g}, where {' and '.join(names)} ends"


_NEAR: Any = {"textcoords": "offset points", "ha": "right", "fontsize": 8}


def ablation(rows: Sequence[AblationRow], recipe: str) -> Figure:
    """What each ingredient of a recipe brings, with its interval: green if it helps, vermilion if it harms, grey if
    neither is settled after Holm's adjustment. The first row is the whole recipe, and is not drawn."""
    whole, *parts = rows
    fig, axes = figure(height=1.0 + 0.29 * len(parts))
    effects = [_effect(row) for row in parts]
    axes.axvspan(-100 * stats.SMALLEST_EFFECT, 100 * stats.SMALLEST_EFFECT, color=LEADER, alpha=0.25, linewidth=0)
    axes.axvline(0, color=INK, linewidth=1)
    points = [(row.label, 100 * row.brings.value) for row in parts]
    frame = pandas.DataFrame(points, columns=["ingredient", "points"]).assign(effect=effects)
    order = [name for name in _EFFECTS if name in effects]
    look: dict[str, Any] = {"hue": "effect", "hue_order": order, "palette": _EFFECTS, "size": 6, "jitter": False}
    seaborn.stripplot(frame, x="points", y="ingredient", ax=axes, **look)
    for at, (row, effect) in enumerate(zip(parts, effects, strict=True)):
        if row.brings.has_interval:
            axes.plot([100 * row.brings.low, 100 * row.brings.high], [at, at], color=_EFFECTS[effect], linewidth=2)
    axes.set(xlabel="points of accuracy that it brings", ylabel="")
    axes.set_title(f"What each ingredient brings to the recipe {recipe}")
    axes.set_yticks(range(len(parts)), [textwrap.fill(row.title, 42) for row in parts], fontsize=8)
    handles, names = axes.get_legend_handles_labels()
    axes.get_legend().remove()
    fig.legend(handles, names, loc="outside lower center", ncols=3, fontsize=8)
    run, size = whole.group.config.train, whole.group.config.data.train_size
    counts = "; ".join(f"{effect}: {effects.count(effect)}" for effect in order)
    rate = next((row.group.config.train.lr for row in parts if row.rate == "largest"), None)
    tried, helping = sum(bool(row.rate) for row in parts), effects.count("the ingredient helps")
    rates = f" ({tried} with SGD in its optimizer's place)" if tried else ""
    end = f" SGD is better at {rate:g}, the largest." if rate else ""
    return describe(
        fig,
        caption=f"In small, short runs ({run.epochs:g} epochs of {size:,} images, {len(whole.group.records)} seeds)"
        f" {len(parts)} changes were tried{rates}; {helping} show that the ingredient helps. Bars"
        f" are 95% intervals with the spread of all rows; the band is one point.{end} Scaled to these runs, in"
        f" parentheses as in {recipe}: {scaled(recipe, whole.group.config)}.",
        alt=f"Points of accuracy that each of {len(parts)} changes of {recipe} brings, with intervals. {counts}.",
        records={row.title: row.group.records for row in rows},
    )


_EFFECTS = {
    "the ingredient helps": VERDICTS[stats.HOLDS],
    "not settled, or too small to matter": VERDICTS[stats.NOT_SETTLED],
    "the ingredient harms": VERDICTS[stats.DOES_NOT_HOLD],
}


def _effect(row: AblationRow) -> str:
    if row.verdict == stats.HOLDS:
        return "the ingredient helps"
    return "the ingredient harms" if row.harms else "not settled, or too small to matter"


def chosen_epoch(losses: ArrayLike, epochs: ArrayLike, on_choosers: ArrayLike, on_others: ArrayLike) -> Figure:
    """Left, the mean of `losses` [E, images] by epoch, with how often one was chosen (`epochs` from 0, one a division);
    right, the loss of the chosen epoch on the half that chose it and on the other half, one value a division each."""
    curve, chosen, images = np.asarray(losses).mean(axis=1), np.asarray(epochs), np.shape(losses)[1]
    fig, (left, right) = figure(1, 2, height=2.9)
    set_space(fig, wspace=0.08)  # the names of two axes lie beside each other
    bests, times = np.unique(chosen + 1, return_counts=True)
    look: dict[str, Any] = {"width": 1, "color": ORANGE, "alpha": 0.5, "linewidth": 0}
    left.bar(bests, times / len(chosen), transform=left.get_xaxis_transform(), **look)  # between the grid and the line
    shares = left.twinx()
    shares.set(ylabel="bars: chosen in (% of divisions)", ylim=(0, 100))
    shares.grid(False)
    seaborn.lineplot(x=np.arange(1, len(curve) + 1), y=curve, marker="o", color=BLUE, ax=left)
    left.set(xlabel="epoch", ylabel="line: loss of all images (nats)", title="Which epoch is best?")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    ahead = np.asarray(on_others) - np.asarray(on_choosers)
    halves = {"on the half that chose it": on_choosers, "on the other half": on_others}
    frame = pandas.DataFrame({name: np.asarray(values) for name, values in halves.items()}).melt(var_name="read")
    palette = dict(zip(halves, (VERMILION, BLUE), strict=True))
    seaborn.histplot(frame, x="value", hue="read", palette=palette, element="step", bins=24, ax=right)
    right.set(xlabel="loss of the chosen epoch (nats)", ylabel="divisions", title="Its loss on both halves")
    right.set_ylim(0, 1.45 * right.get_ylim()[1])
    seaborn.move_legend(right, "upper right", title=None, fontsize=8)
    return describe(
        fig,
        caption="The loss of the chosen epoch, on the half that chose it and on the other:"
        f" {len(chosen)} random divisions of {images:,} validation images into halves (one run of {len(curve)} epochs)."
        f" The difference is {ahead.mean():.3f} nats on average, with a standard deviation of {ahead.std():.3f} between"
        " divisions.",
        alt="Left, loss by epoch with bars of how often each epoch is chosen. Right, the loss of the chosen epoch on"
        " the half that chose it and on the other half.",
        provenance="trained in this notebook",
    )


def dropout_while_scoring(right: Mapping[int, Mapping[str, ArrayLike]]) -> Figure:
    """Validation accuracy by blocks a layer, for each way of scoring the same networks, with the images' interval.

    `right`: by blocks and by way of scoring, which images are right: bool [N]."""
    flags = {(blocks, way): np.asarray(hits) for blocks, ways in right.items() for way, hits in ways.items()}
    shares = {key: stats.proportion(int(hits.sum()), len(hits)) for key, hits in flags.items()}
    rows = [(blocks, way, 100 * share.value) for (blocks, way), share in shares.items()]
    frame = pandas.DataFrame(rows, columns=["blocks", "scored in", "accuracy"])
    ways = list(dict.fromkeys(frame["scored in"]))
    fig, axes = figure(height=2.7)
    look = {"hue": "scored in", "hue_order": ways, "palette": [GREEN, ORANGE, VERMILION][: len(ways)]}
    seaborn.barplot(frame, x="blocks", y="accuracy", errorbar=None, ax=axes, **look)
    for bars, way in zip(axes.containers, ways, strict=True):
        for bar, blocks in zip(bars, right, strict=True):
            middle, share = bar.get_x() + bar.get_width() / 2, shares[blocks, way]
            axes.plot([middle, middle], [100 * share.low, 100 * share.high], color=INK, linewidth=1.5)
    axes.set(xlabel="blocks a layer", ylabel="validation accuracy (%)")
    axes.set_ylim(0, 1.3 * axes.get_ylim()[1])
    axes.legend(title=None, fontsize=8, ncols=len(ways), loc="upper center")
    axes.grid(False, axis="x")
    n = len(next(iter(flags.values())))
    return describe(
        fig,
        caption=f"The same networks, scored in {len(ways)} ways. Lines are 95% intervals of {n:,} images; one network"
        " each, and a short run.",
        alt=f"Bars of validation accuracy by blocks a layer, scored in {', '.join(ways)}.",
        provenance="trained in this notebook",
    )


def seeds(groups: Mapping[str, Sequence[float]], difference: float, records: Mapping[str, Sequence[Record]]) -> Figure:
    """How far apart the runs of each pair are that differ by seed alone, a row a group, and a published difference."""
    rows = [(name, 100 * abs(a - b)) for name, values in groups.items() for a, b in combinations(values, 2)]
    frame = pandas.DataFrame(rows, columns=["recipe", "points"])
    fig, axes = figure(height=1.0 + 0.33 * len(groups))
    axes.axvline(100 * difference, color=ORANGE, label="Models 1 and 2 of the original")
    seaborn.swarmplot(frame, x="points", y="recipe", color=BLUE, size=6, clip_on=False, ax=axes)
    axes.set(xlabel="points between two runs of a recipe with other seeds", ylabel="", xlim=(-0.01, None))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), fontsize=8)
    return describe(
        fig,
        caption="Each dot is a pair of runs of one recipe with other seeds; the line is how far apart Models 1 and 2 of"
        f" the original are, {100 * difference:.2f} points.",
        alt="The distance of each pair of runs of a recipe, with a line at the published difference.",
        records=records,
    )
