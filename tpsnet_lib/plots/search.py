"""Figures of the random search: what is drawn, how accurate it becomes, and what that says of the choices."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from tpsnet_lib.analysis.importance import NOISE, Importance
from tpsnet_lib.analysis.search import (
    LOGARITHMIC,
    VARIABLES,
    Trial,
    accuracies,
    expected_best,
    trial_table,
    winners_range,
)
from tpsnet_lib.plots.parallel_coordinates import is_choice, rank, round_numbers
from tpsnet_lib.plots.phone import Stack
from tpsnet_lib.plots.style import (
    BLUE,
    GREEN,
    GRID,
    INK,
    MUTED,
    PALETTE,
    PINK,
    VERMILION,
    by_name,
    describe,
    draw_as_one_path,
    draw_intervals,
    figure,
    label_ticks,
    set_space,
)
from tpsnet_lib.runs.records import Record
from tpsnet_lib.stats import Estimate

Array = NDArray[np.float64]

FEWEST_FOR_A_BAND = 10  # trials; the bands of fewer cover the panel


def short_label(variable: str) -> str:
    """A variable without its unit, as a title or a tick names it."""
    return VARIABLES.get(variable, "random numbers").partition(",")[0]


def _records(trials: Sequence[Trial]) -> dict[str, list[Record]]:
    return by_name((trial.label, [trial.record]) for trial in trials)


def budget(fits: pd.DataFrame, drawn: pd.DataFrame, members: Mapping[str, tuple[int, int]]) -> Figure:
    """What fits a budget, and how often each depth and width is drawn before the budget and after it.

    `fits`: blocks a layer (rows) by base width (columns), whether that network fits; `drawn`: a row a draw with the
    columns `blocks`, `width` and `draws` (*before the budget* or *after it*); `members`: (blocks, width) by name."""
    fig, (grid, *sides) = figure(1, 3, height=2.9, width_ratios=(1.25, 1, 1))
    grid.set_facecolor(GRID)
    grid.grid(False)
    rows, fitting = np.arange(len(fits)) + 0.5, fits.sum(axis=1).to_numpy()  # the narrowest that fit, in each row
    grid.barh(rows, fitting, height=1.0, color=sns.light_palette(BLUE, 5)[2], linewidth=0)
    grid.set(xlim=(0, len(fits.columns)), ylim=(0, len(fits) + 1))
    for axis, values in ((grid.xaxis, list(fits.columns)), (grid.yaxis, list(fits.index))):
        step = max(1, len(values) // 20) * 4
        every = [place for place, value in enumerate(values) if value % step == 0]
        axis.set_ticks([place + 0.5 for place in every], [str(values[place]) for place in every], rotation=0)
    for name, (blocks, width) in members.items():
        place = fits.columns.get_loc(width) + 0.5, fits.index.get_loc(blocks) + 0.5
        grid.plot(*place, "o", color=VERMILION, markersize=4)
        grid.annotate(name, place, (6, 0), textcoords="offset points", fontsize=8, va="center")
    grid.set(xlabel="base width w, channels", ylabel="blocks a layer B")
    grid.set_title("blue: fits the budget", fontsize=9.5)
    colour = dict(zip(drawn["draws"].unique(), (MUTED, BLUE), strict=False))
    options: Any = {"hue": "draws", "palette": colour, "stat": "percent", "common_norm": False, "element": "step"}
    for ax, name, label in zip(sides, ("blocks", "width"), ("blocks a layer B", "base width w, channels"), strict=True):
        sns.histplot(drawn, x=name, ax=ax, bins=12, alpha=0.25, legend=ax is sides[0], **options)
        ax.set(xlabel=label, ylabel="share of draws (%)")
    sns.move_legend(sides[0], "upper right", title=None, fontsize=8)
    before, after = (drawn[drawn["draws"] == each] for each in colour)
    caption = (
        f"The budget leaves no network that is deep and wide: from {len(before):,} draws before it to {len(after):,}"
        f" after it the mean width falls from {before['width'].mean():.1f} to {after['width'].mean():.1f} channels, the"
        f" mean depth from {before['blocks'].mean():.1f} to {after['blocks'].mean():.1f} blocks a layer. The map: which"
        " pairs fit. The histograms: shares of draws."
    )
    alt = (
        "A map of blocks against width; the pairs that fit narrow as networks get deeper, with five published networks"
    )
    return describe(fig, caption=caption, alt=f"{alt} on the border; histograms of blocks and width.")


# How many, which, and where ------------------------------------------------------------------------------------------


def best_of_n(trials: Sequence[Trial], searches: Array, draws: int = 60) -> Figure:
    """The best accuracy that a search of n draws reaches: its mean, and the band of nine in ten searches.

    `searches` [R, N]: the best of the first n trials, in R random orders of the trials. A line marks `draws`."""
    fig, ax = figure(height=3.2)
    count = searches.shape[1]
    counts = np.unique(np.geomspace(1, count, 60).round().astype(int))
    means = [100 * expected_best(accuracies(trials), n) for n in counts]
    sns.lineplot(x=counts, y=means, color=BLUE, label="mean; band: 90% of searches", ax=ax)
    ax.fill_between(
        counts, *np.quantile(100 * searches[:, counts - 1], (0.05, 0.95), axis=0), color=BLUE, alpha=0.2, lw=0
    )
    top = 100 * float(np.quantile(accuracies(trials), 0.95))
    ax.axhline(top, color=VERMILION, linestyle="--", linewidth=1.2, label="border of the best 5% of the trials")
    draws = min(draws, count)
    ax.axvline(draws, color=MUTED, linestyle=":", linewidth=1.2)
    place: Any = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    side, offset = ("right", -3) if draws**2 > count else ("left", 3)  # into the axes, whose scale is logarithmic
    ax.annotate(f"{draws} draws", (draws, 0), (offset, 4), fontsize=8, ha=side, **place)
    ax.set(xlabel="draws n", ylabel="best validation accuracy (%)", xscale="log")
    label_ticks(ax.xaxis, (n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500) if n <= count))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    half = max(1, draws // 2)
    low, high = (100 * expected_best(accuracies(trials), n) for n in (half, draws))
    more = f"Draws {half + 1} to {draws} add" if draws > half + 1 else f"Draw {draws} adds"
    caption = (
        f"{more} {high - low:.1f} points: the best of {half} is expected at {low:.1f}%, the"
        f" best of {draws} at {high:.1f}%. All orders of {count} trials; the band is of {len(searches)}."
    )
    alt = "The expected best accuracy rises steeply over the first draws and flattens; a band of 90% of searches."
    return describe(fig, caption=caption, alt=alt, records=_records(trials), unit="trials")


def error_distributions(trials: Sequence[Trial], groups: Mapping[str, ArrayLike]) -> Figure:
    """Error distribution functions: a panel a variable, a curve for each group of trials.

    `groups`: by variable, the name of each trial's group [N]; one with a single name is left out, if another has more.
    A curve further left reaches that error more often."""
    groups = {variable: names for variable, names in groups.items() if len(set(np.asarray(names))) > 1} or groups
    rows = -(-len(groups) // 2)
    fig, axes = figure(rows, 2, height=2.5 * rows, sharex=True, sharey=True, squeeze=False)
    errors = 100 * (1 - trial_table(trials)["accuracy"].to_numpy())
    lowest = []
    for ax, (variable, names) in zip(axes.flat, groups.items(), strict=False):
        grouped = pd.Series(errors).groupby(np.asarray(names))
        sizes, medians = grouped.size(), grouped.median().sort_values()
        lowest.append(f"by {short_label(variable)}, {medians.index[0]} ({medians.iloc[0]:.0f}%)")
        labels = [f"{name} (n = {sizes[name]})" for name in np.asarray(names)]
        palette = {f"{name} (n = {sizes[name]})": colour for name, colour in zip(medians.index, PALETTE, strict=False)}
        sns.ecdfplot(x=errors, hue=labels, hue_order=list(palette), palette=palette, ax=ax)
        look: dict[str, Any] = {"fontsize": 8, "ncols": 2, "columnspacing": 1, "handlelength": 1.2}  # fits a phone
        sns.move_legend(ax, "lower left", bbox_to_anchor=(0, 0.98), title=None, **look)
        ax.set(xlabel=f"validation error by {short_label(variable)} (%)", ylabel="share of trials")
    for ax in axes.flat[len(groups) :]:
        ax.axis("off")
    caption = f"Lowest median error: {'; '.join(lowest)}."
    if any(len(set(np.asarray(names))) > 1 for names in groups.values()):
        caption += " Further left is better, on average over the other variables; where curves cross, neither is better"
        caption += " throughout."
    alt = f"Error distribution functions of groups of trials, by {', '.join(map(short_label, groups))}."
    return describe(fig, caption=caption, alt=alt, records=_records(trials), unit="trials")


def good_values(
    trials: Sequence[Trial], names: Sequence[str], ranges: Mapping[str, Estimate], of_sgd: Sequence[Trial] = ()
) -> Figure:
    """A panel a variable: its value against the accuracy, a point a trial, with a local regression line (choices:
    strips with their medians) and the range of the winners' values shaded, where `ranges` has one.

    `of_sgd`: trials of SGD alone, whose learning rates get a panel of their own."""
    if len(of_sgd) < 2 or [trial.label for trial in of_sgd] == [trial.label for trial in trials]:
        of_sgd = ()  # no other panel
    rows = -(-(len(names) + bool(of_sgd)) // 3)
    fig, axes = figure(rows, 3, height=2.3 * rows, sharey=True, squeeze=False)
    set_space(fig, wspace=0.06)  # so that the ticks of neighbours do not touch
    table = trial_table(trials)
    table["accuracy"] *= 100
    for ax, name in zip(axes.flat, names, strict=False):
        _values_panel(ax, table, name, ranges.get(name))
        ax.set(xlabel=VARIABLES[name], ylabel="validation accuracy (%)" if ax in axes[:, 0] else "")
    drawn = {name: table[name].between(each.low, each.high).mean() for name, each in ranges.items()}
    winners = [
        f"{short_label(name)} {each.low:.2g} to {each.high:.2g} ({drawn[name]:.0%} of all)"
        for name, each in ranges.items()
    ]
    if of_sgd:
        rates = trial_table(of_sgd)
        best = winners_range(rates["lr"], rates["accuracy"])
        rates["accuracy"] *= 100
        ax = axes.flat[len(names)]
        _values_panel(ax, rates, "lr", best)
        ax.set(xlabel="learning rate, SGD alone", ylabel="")
        winners.append(f"SGD's learning rate {best.low:.2g} to {best.high:.2g} (n = {len(rates)})")
    for ax in axes.flat[len(names) + bool(of_sgd) :]:
        ax.axis("off")
    caption = (
        f"95% of winners have these values (shaded): {'; '.join(winners)}. A winner is the best of a random quarter of"
        f" a panel's trials ({len(table)}).{' Lines: local regressions.' * (len(table) >= SMOOTHED)} Bars: medians."
    )
    alt = f"The accuracy of each trial against {', '.join(map(short_label, names))}, a panel a variable."
    records, phone = _records([*trials, *of_sgd]), Stack(2, 3 * rows)
    return describe(fig, caption=caption, alt=alt, records=records, unit="trials", phone=phone)


SMOOTHED = 20  # trials, below which a local regression follows single points
_SHADE: Any = {"color": GREEN, "alpha": 0.12, "linewidth": 0}


def _values_panel(ax: Axes, table: pd.DataFrame, name: str, winners: Estimate | None) -> None:
    if is_choice(table[name]):
        order = sorted(set(table[name]), key=rank)
        _points(ax, table[name].map(order.index), table["accuracy"], jitter=0.1)
        median: Any = {"estimator": "median", "errorbar": None, "linestyle": "none", "marker": "_", "markersize": 16}
        sns.pointplot(table, x=name, y="accuracy", order=order, color=VERMILION, ax=ax, **median)
        ax.tick_params(axis="x", labelsize=8)
        if winners and (inside := [row for row, value in enumerate(order) if winners.low <= value <= winners.high]):
            ax.axvspan(inside[0] - 0.5, inside[-1] + 0.5, **_SHADE)
        return
    log, whole = name in LOGARITHMIC, table[name].dtype.kind == "i"
    x = np.log10(table[name]) if log else table[name].astype(float)
    line: Any = {"color": VERMILION, "linewidth": 1.6}
    _points(ax, x, table["accuracy"], jitter=0.15 if whole else 0.0)
    if len(table) >= SMOOTHED:
        sns.regplot(x=x, y=table["accuracy"], lowess=True, scatter=False, line_kws=line, ax=ax)
    if winners:
        ends = np.array([winners.low, winners.high])
        ax.axvspan(*(np.log10(ends) if log else ends), **_SHADE)
    marks = round_numbers(table[name].min(), table[name].max(), log, wide=30, whole=whole)  # in a narrow panel
    ax.set_xticks(np.log10(marks) if log else marks, [f"{mark:g}" for mark in marks])


def _points(ax: Axes, x: "pd.Series[Any]", y: "pd.Series[Any]", jitter: float) -> None:
    """A point a trial: the round ends of a line without length, a tenth of the bytes of a mark."""
    places = x + np.random.default_rng(0).uniform(-jitter, jitter, len(x))
    ends = [np.column_stack([each, each]) for each in (y, places)]
    draw_as_one_path(ax, *ends, color=BLUE, alpha=0.8, linewidth=3, capstyle="round")


def importance_bars(trials: Sequence[Trial], ranked: Sequence[Importance], explained: float) -> Figure:
    """The importance of each variable, the greatest on top, with the interval over resamples of the trials.

    `explained`: R^2 of the forest for trials that it has not seen; without any, no variable stands out."""
    fig, ax = figure(height=0.8 + 0.26 * len(ranked))
    names = [short_label(each.variable) for each in ranked]
    shares = [100 * each.share.value for each in ranked]
    palette = [MUTED if each.variable == NOISE else BLUE for each in ranked]
    sns.barplot(x=shares, y=names, hue=names, palette=palette, legend=False, orient="h", ax=ax)
    for row, each in enumerate(ranked):
        ax.plot([100 * each.share.low, 100 * each.share.high], [row, row], color=INK, linewidth=1.4)
    ax.set(xlabel="variance of the accuracy explained by the variable alone (%)", ylabel="")
    ax.set_xlim(left=0)
    noise = max((each.share.high for each in ranked if each.variable == NOISE), default=0.0)
    ax.axvline(100 * noise, color=MUTED, linestyle=":", linewidth=1.2)
    clear = explained > 0 and ranked[0].variable != NOISE and ranked[0].share.low > noise
    first = (
        f"Within the ranges that were drawn, the {names[0]} matters most"
        if clear
        else "No variable stands clearly above random numbers"
    )
    caption = (
        f"{first}. fANOVA importance, with 95% intervals over resamples of {len(trials)} trials. A variable whose"
        " interval is not above that of the random numbers (dotted) tells the forest no more than they do."
    )
    alt = "Bars of importance with intervals, the greatest on top, and a grey bar for random numbers."
    return describe(fig, caption=caption, alt=alt, records=_records(trials), unit="trials")


# Two measurements of a draw ------------------------------------------------------------------------------------------


def two_budgets(trials: Sequence[Trial], table: pd.DataFrame, correlations: Mapping[str, Estimate]) -> Figure:
    """The accuracy of short trials against that of the same draws trained for long, a panel a kind of short trial.

    `table`: a row a draw, the column `long` and one for each panel (0 to 1); `correlations` name the panels; `trials`
    are both."""
    fig, axes = figure(1, len(correlations), height=3.2, sharey=True, squeeze=False)
    percent, has_band = 100 * table, len(table) >= FEWEST_FOR_A_BAND
    for ax, (name, correlation) in zip(axes[0], correlations.items(), strict=True):
        points: Any = {"s": 20, "alpha": 0.7, "linewidths": 0}
        line: Any = {"color": MUTED, "linewidth": 1}
        band = 95 if has_band else None
        sns.regplot(percent, x=name, y="long", color=BLUE, ci=band, scatter_kws=points, line_kws=line, ax=ax)
        chosen = percent.loc[percent[name].idxmax()]
        ax.plot(chosen[name], chosen["long"], "o", color=VERMILION, markersize=7, label="best short trial")
        ax.set_title(f"{name}:\nrank correlation {correlation:.2}", fontsize=9.5)
        ax.set(xlabel="accuracy of the short trial (%)", ylabel="accuracy of the long trial (%)")
        ax.legend(loc="best", fontsize=8)
    axes[0, -1].set_ylabel("" if len(correlations) > 1 else "accuracy of the long trial (%)")
    ranks = ", ".join(f"{name} {each:.2 value}" for name, each in correlations.items())
    caption = (
        f"How alike short and long trials rank the draws: {ranks}. The same {len(table)} draws at two budgets; lines:"
        f" linear regressions{' with 95% bands' * has_band}."
    )
    alt = (
        "Accuracy after a short run against accuracy after a long one, a panel a schedule, with the rank correlations."
    )
    return describe(fig, caption=caption, alt=alt, records=_records(trials), unit="trials")


def winners_curse(trials: Sequence[Trial], simulated: pd.DataFrame, measured: Mapping[int, Estimate]) -> Figure:
    """By how much the best of k trials looks too good: from validation images alone, and measured by a second seed.

    `simulated`: a row a k, a column a number of images, in fractions; `measured`: the fall of the winner of k trials
    in excess of the mean fall, when it is trained from a fresh seed."""
    fig, ax = figure(height=3.2)
    percent = (100 * simulated).rename_axis(index="k").reset_index().melt("k", var_name="images", value_name="gap")
    percent["images"] = [f"simulated, {int(images):,} images" for images in percent["images"]]
    options: Any = {"hue": "images", "style": "images", "markers": True, "palette": list(PALETTE[: simulated.shape[1]])}
    sns.lineplot(percent, x="k", y="gap", ax=ax, **options)
    if measured:
        look: Any = {"marker": "s", "color": PINK, "capsize": 3, "markersize": 5}
        falls = list(measured.values())
        draw_intervals(ax, falls, list(measured), label="trained again, fresh seed (95%)", **look)
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.set(xlabel="trials k that the winner is chosen from", ylabel="looks too good by, points", xscale="log")
    label_ticks(ax.xaxis, simulated.index)
    ax.legend(fontsize=8, loc="upper left")
    few, many = simulated.columns[0], simulated.columns[-1]
    caption = (
        f"In simulation, the more trials, the more the best flatters itself: the best of {simulated.index[-1]} looks"
        f" {100 * simulated[few].iloc[-1]:.1f} points too good on {int(few):,} images,"
        f" {100 * simulated[many].iloc[-1]:.1f} on {int(many):,}. Lines are simulated"
        f"{'; squares are draws trained twice' if measured else ''}."
    )
    alt = "How much too good the best of k trials looks, against k: a curve for few images and one for many."
    return describe(fig, caption=caption, alt=alt, records=_records(trials), unit="trials")
