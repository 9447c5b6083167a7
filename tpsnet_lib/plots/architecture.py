"""Figures of notebook 02: why skips and norms help, what each design variable changes, what accuracy costs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from tpsnet_lib import stats
from tpsnet_lib.analysis.architecture import DesignVariable, describe_length
from tpsnet_lib.analysis.groups import Group
from tpsnet_lib.plots.phone import PHONE, Stack
from tpsnet_lib.plots.style import BLUE, MUTED, PALETTE, VERMILION, WIDTH, by_name, describe, figure, label_ticks

COLOURS = {"residual": BLUE, "plain": VERMILION}
Losses = Mapping[tuple[int, str], Sequence[float]]  # (blocks a layer, `residual` or `plain`) -> final loss of each seed
Variables = Mapping[str, tuple[DesignVariable, Sequence[Group]]]


def gradient_norms(norms: Mapping[str, Sequence[float]]) -> Figure:
    """The norm of the loss's gradient at the output of each block, at initialisation, one line a kind of network.

    `norms`: kind -> one norm a block, from the first block to the last."""
    fig, ax = figure(height=2.9)
    _by_block(ax, norms, "norm of the gradient")
    parts = []
    for kind, values in norms.items():
        factor = values[0] / values[-1]
        whole, way = (factor, "grows") if factor >= 1 else (1 / factor, "shrinks")
        each = abs(factor ** (1 / max(1, len(values) - 1)) - 1)
        parts.append(f"{way} by a factor of {whole:,.0f} in the {kind} network ({each:.0%} a block)")
    if len({part.partition(" ")[0] for part in parts}) == 1:  # the verb once, if it is the same
        parts[1:] = [part.partition(" ")[2] for part in parts[1:]]
    trend = "From the last block back to the first, the gradient " + " and ".join(parts)
    text = f"{trend}. One batch, untrained weights."
    return describe(fig, caption=text, alt=f"Gradient norm over the blocks, on a logarithmic axis. {trend}.")


def batch_norm(before: Sequence[float], after: Sequence[float], spreads: Mapping[str, Sequence[float]]) -> Figure:
    """What a batch norm does to the values of some channels, and what that does to a deep network.

    `before`, `after`: values of one channel over a batch; `spreads`: kind -> standard deviation of each block's
    output, from the first to the last."""
    fig, axes = figure(1, 2, height=2.9)
    look: Any = {"bins": 40, "stat": "density", "element": "step", "alpha": 0.35, "ax": axes[0]}
    for values, label, colour in ((before, "before the norm", VERMILION), (after, "after it", BLUE)):
        sns.histplot(x=np.asarray(values), color=colour, label=label, **look)
    axes[0].set(xlabel="value in one channel", ylabel="density")
    axes[0].legend()
    _by_block(axes[1], spreads, "standard deviation")
    ends = {kind: [f"{float(f'{v:.2g}'):,g}" for v in (values[0], values[-1])] for kind, values in spreads.items()}
    ranges = "; ".join(f"{kind} {first} to {last}" for kind, (first, last) in ends.items())
    text = "A batch norm gives each channel mean 0 and standard deviation 1 over the batch, so values keep their size"
    text += f" (deviation, first block to last: {ranges})."
    alt = f"Left: histogram of a channel before and after the norm. Right: standard deviation over blocks. {ranges}."
    return describe(fig, caption=text, alt=alt)


def _by_block(ax: Any, series: Mapping[str, Sequence[float]], label: str) -> None:
    """A line a kind of network over its blocks, from the first to the last, on a logarithmic axis."""
    table = pd.DataFrame(series)
    table.index += 1
    sns.lineplot(table, palette=PALETTE[: len(series)], dashes=False, ax=ax)
    ax.set(xlabel="block, counted from the image", ylabel=label, yscale="log", xlim=(1, None))


def feature_maps(image: Tensor, maps: Mapping[str, Tensor], columns: int = 8) -> Figure:
    """An image [3, h, w] from 0 to 1, shown once, and the strongest channels of its feature maps, one row a layer.

    `maps`: layer -> [C, h, w]; the channels with the largest mean are shown."""

    def draw(width: float, lines: int) -> Figure:
        """Each layer in so many lines, the image before the first."""
        across = -(-columns // lines) + 1
        height = len(maps) * (0.9 * lines * width / across + 0.2)
        fig, axes = figure(lines * len(maps), across, height=height, width=width)
        for ax in np.ravel(axes):
            ax.set_axis_off()
        for row, (name, values) in zip(np.reshape(axes, (len(maps), lines, across)), maps.items(), strict=True):
            strongest = values.mean((1, 2)).argsort(descending=True)[:columns]
            for ax, channel in zip(row[:, 1:].flat, strongest.tolist(), strict=False):
                ax.imshow(values[channel].numpy(), cmap="viridis", interpolation="none")
            title = row[0, 1].set_title(f"{name}: {' × '.join(map(str, values.shape))}", fontsize=8.5, loc="left")
            title.set_in_layout(False)  # it may be wider than a map, and reaches over those beside it
        first = np.ravel(axes)[0]
        first.imshow(image.permute(1, 2, 0).numpy(), interpolation="none")  # an SVG keeps its very pixels
        first.set_title("image", fontsize=8.5, loc="left").set_in_layout(False)
        return fig

    sides = " to ".join(str(values.shape[-1]) for values in list(maps.values())[:: len(maps) - 1])
    text = f"Maps of the first layers follow edges and colours; later ones are coarse ({sides} pixels a side). Shown:"
    text += f" the {columns} strongest of each layer."
    alt = f"An image and the {columns} strongest feature maps of each of {len(maps)} layers."
    return describe(draw(WIDTH, 1), caption=text, alt=alt, phone=lambda: draw(PHONE, 2))


def residual_against_plain(losses: Losses, recorded: Sequence[Group]) -> Figure:
    """Residual against plain networks by depth: training loss of live runs, validation accuracy of recorded ones.

    A ring is a run; the points are means, those of the accuracies with their 95% t intervals.
    `recorded`: groups labelled as `B=3` and `B=3, plain`."""
    fig, axes = figure(1, 2, height=3.1)
    live = [(blocks, kind, value) for (blocks, kind), values in losses.items() for value in values]
    past = [(g.config.model.blocks[0], _kind(g), 100 * value) for g in recorded for value in g.accuracies]
    labels = "training loss (nats), trained here", "validation accuracy (%), recorded"
    for ax, rows, label in zip(axes, (live, past), labels, strict=True):
        if rows:
            table = pd.DataFrame(rows, columns=["blocks", "kind", "value"])
            depths = sorted(set(table["blocks"]))
            _points(ax, table, "blocks", interval=ax is axes[1], hue="kind", palette=COLOURS, order=depths)
        ax.set(xlabel="blocks in each of 3 layers, B", ylabel=label)
    top = max([2.9, *(1.3 * value for _, _, value in live)])  # ln 10 = 2.3 nats is a guess; the legend stands above
    axes[0].set_ylim(-0.03 * top, top)  # a ring at 0 is whole
    if axes[1].get_legend():
        axes[1].get_legend().remove()  # that of the other panel serves both
    losses_text = "; ".join(f"B = {blocks}, {kind}: {np.mean(values):.2f}" for (blocks, kind), values in losses.items())
    trained = sorted({blocks for blocks, _ in losses})
    lower = [f"{b}" for b in trained if np.mean(losses[b, "residual"]) < np.mean(losses[b, "plain"])]
    text = f"With skips the mean training loss is lower at B = {', '.join(lower)}. " if lower else ""
    text += "Rings are runs, points their means. Left: runs trained here; right: recorded ones, with 95% t intervals."
    alt = f"Loss and accuracy over depth. Loss: {losses_text}."
    return describe(fig, caption=text, alt=alt, records=by_name((group.label, group.records) for group in recorded))


def design_variables(variables: Variables) -> Figure:
    """Validation accuracy at each level of each design variable. Each panel has a scale of its own, and says in its
    corner how many points that spans. A ring is a run; the points are means with their 95% t intervals over seeds."""
    recorded = [(variable, groups) for variable, groups in variables.values() if any(group.records for group in groups)]
    fig, axes = figure(2, 3, height=4.9, gridspec_kw={"hspace": 0.12})
    for ax, (variable, groups) in zip(axes.flat, recorded, strict=False):
        levels = [group.label.removeprefix(f"{variable.symbol}=") for group in groups]  # the title names the variable
        rows = [
            {"level": level, "value": 100 * v} for level, g in zip(levels, groups, strict=True) for v in g.accuracies
        ]
        _points(ax, pd.DataFrame(rows), "level", order=levels)
        ax.set_title(f"{variable.symbol}, {variable.name}", loc="left", fontsize=9.5, fontweight="bold")
        ax.set_xlabel(f"{variable.symbol}; {describe_length(groups)}", fontsize=8.5)
        ax.set_ylabel("")
        low, high = ax.get_ylim()
        high += 0.12 * (high - low)  # room for the note
        ax.set_ylim(low, high)
        ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], min_n_ticks=3))
        paper = {"facecolor": ax.get_facecolor(), "edgecolor": "none", "pad": 1}  # which no line of the grid crosses
        note = f"axis: {high - low:.2g} points"
        ax.text(0.02, 0.99, note, transform=ax.transAxes, va="top", fontsize=8, color=MUTED, bbox=paper)
    for ax in axes.flat[len(recorded) :]:
        ax.set_axis_off()
    for ax in axes[:, 0]:
        ax.set_ylabel("validation accuracy (%)")
    every = [group for _, groups in recorded for group in groups]
    means = "; ".join(f"{group.label}: {group.estimate:%.1 value}" for group in every)
    ranges = {variable.name: _range(groups) for variable, groups in recorded}
    most = max(ranges, key=lambda name: ranges[name], default="")
    text = "No runs."
    if most:
        text = f"Of the levels tried, those of the {most} lie furthest apart: {ranges[most]:.1f} points, in its runs."
    text += " Below each panel: their length. Rings are runs; 95% t intervals. In the corner:"
    text += " how many points an axis spans."
    records = by_name((group.label, group.records) for group in every)
    alt = f"Six panels of accuracy by level. {means}."
    return describe(fig, caption=text, alt=alt, records=records, phone=Stack(2, 6.4))


def _range(groups: Sequence[Group]) -> float:
    """Points of accuracy between the best and the worst mean of some groups."""
    means = [100 * group.estimate.value for group in groups if group.records]
    return max(means) - min(means)


def costs(groups: Sequence[Group], milliseconds: Sequence[float]) -> Figure:
    """Accuracy against parameters, MACs, and the latency measured on this machine, one point a recorded network."""
    fig, axes = figure(1, 3, height=3.0, sharey=True)
    panels = {
        "parameters (thousands)": [group.parameters / 1e3 for group in groups],
        "MACs of one image (millions)": [group.macs / 1e6 for group in groups],
        "latency of one image (ms)": milliseconds,
    }
    accuracy = [100 * group.estimate.value for group in groups]
    kinds = [_kind(group) for group in groups]
    depths = [sum(group.config.model.blocks) for group in groups]
    for ax, (label, values) in zip(axes, panels.items(), strict=True):
        look: Any = {"hue": kinds, "size": depths, "palette": COLOURS, "sizes": (20, 90)}
        sns.scatterplot(x=values, y=accuracy, ax=ax, legend=ax is axes[1], **look)
        ax.set(xlabel=label, xscale="log")
        _plain_log_ticks(ax, values)
    axes[0].set_ylabel("validation accuracy (%)")
    handles, labels = axes[1].get_legend_handles_labels()
    axes[1].get_legend().remove()
    marks = dict(zip(labels, handles, strict=True))
    chosen = {name: marks[name] for name in COLOURS if name in marks}
    sizes = [name for name in labels if name.isdigit()]  # of depths, from the smallest mark to the largest
    chosen |= {f"{name} blocks in all": marks[name] for name in dict.fromkeys((sizes[0], sizes[-1]))} if sizes else {}
    fig.legend(chosen.values(), chosen.keys(), loc="outside upper right", ncols=4)
    middle = np.median([group.parameters for group in groups])
    near = [a for a, group in zip(accuracy, groups, strict=True) if abs(group.parameters / middle - 1) < 0.05]
    text = f"The {len(near)} networks of about {middle / 1e3:.0f},000 parameters reach"
    text += f" {min(near):.0f} to {max(near):.0f}%. Larger points are deeper. The latency is measured now."
    alt = f"Accuracy of {len(groups)} networks over parameters, MACs and latency."
    return describe(fig, caption=text, alt=alt, records=by_name((group.label, group.records) for group in groups))


def _points(ax: Any, table: Any, x: str, interval: bool = True, **options: Any) -> None:
    """A ring a run and, beside the rings, the mean, with its 95% t interval or without."""
    dodge = 0.25 if "hue" in options else False
    chosen = {"data": table, "x": x, "y": "value", "ax": ax, **({} if dodge else {"color": BLUE}), **options}
    sns.stripplot(**chosen, jitter=0.08, dodge=bool(dodge), legend=False, marker=r"$\circ$")
    bars: Any = _t_interval if interval else None
    sns.pointplot(**chosen, errorbar=bars, dodge=dodge, capsize=0.15, markersize=4, linewidth=1.2)
    for line in ax.lines:  # the means of neighbours are joined past a level that has no run
        places = np.array(line.get_data(), dtype=float)
        line.set_data(places[:, np.isfinite(places).all(0)])
    if ax.get_legend():
        ax.legend(title=None)
    low, high = table["value"].min(), table["value"].max()
    room = max(0.5 * (high - low), 0.005 * abs(high))
    ax.set_ylim(low - room, high + room)  # an interval may be many times as long
    ax.grid(axis="x", visible=False)


def _t_interval(values: Any) -> tuple[float, float]:
    estimate = stats.mean(values)
    return (estimate.low, estimate.high) if estimate.has_interval else (estimate.value, estimate.value)


def _kind(group: Group) -> str:
    return "residual" if group.config.model.residual else "plain"


def _plain_log_ticks(ax: Any, values: Sequence[float]) -> None:
    low, high = min(values), max(values)
    steps = [base * 10.0**power for power in range(-3, 7) for base in (1, 2, 5)]
    ticks = [step for step in steps if low / 1.1 <= step <= high * 1.1]
    if len(ticks) < 2:  # too narrow a range for a logarithmic axis
        ax.set_xscale("linear")
    else:
        label_ticks(ax.xaxis, ticks)
