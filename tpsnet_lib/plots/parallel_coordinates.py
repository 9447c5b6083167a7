"""Parallel coordinates: a line a trial, through the values that were drawn for it to its accuracy."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from tpsnet_lib.analysis.search import LOGARITHMIC, OPTIMIZERS, VARIABLES, Trial, trial_table
from tpsnet_lib.plots.phone import PHONE, in_lines
from tpsnet_lib.plots.style import INK, WIDTH, describe, draw_as_one_path, figure, set_space

Array = NDArray[np.float64]
BEST = 0.2  # the share of the trials that is drawn in colour
SHADES = 8  # steps of colour from the worst line in colour to the best, short of a yellow that is pale on white
GREY_LINE: Any = {"color": "#A3AAB3", "alpha": 0.7}
ROOM = 120  # so many lines have their full width; more are thinner, so that single ones can be followed
FEW = 6  # a variable of at most so many values is drawn as choices


def parallel(trials: Sequence[Trial], views: Mapping[str, Sequence[str]]) -> Figure:
    """Parallel coordinates, a panel for each view (title: variables): a line a trial, through what was drawn to its
    accuracy. The best fifth is in colour, the rest is grey; failed trials are dashed and end at chance level."""
    table = trial_table(trials)
    table["accuracy"] *= 100

    def draw(width: float) -> Figure:
        fig, axes = figure(len(views), height=2.9 * len(views), width=width, squeeze=False)
        set_space(fig, hspace=0.07)
        for ax, (title, names) in zip(axes[:, 0], views.items(), strict=True):
            _parallel_view(ax, table, names, width)
            ax.set_title(in_lines(title, round(11 * width)), fontsize=9.5)
        return fig

    best = table.nlargest(max(1, round(BEST * len(table))), "accuracy")
    whose, ends = ("eight in ten", [0.1, 0.9]) if len(best) >= 10 else ("all", [0, 1])
    rates = best["lr"].quantile(ends)
    reached = _span(f"{best['accuracy'].min():.1f}%", f"{best['accuracy'].max():.1f}%")
    drawn = _span(f"{rates.iloc[0]:.2g}", f"{rates.iloc[1]:.2g}")
    many = (
        f"The best fifth of {len(table)} trials (in colour, brighter is better) reaches {reached}; {whose} of them have"
        f" learning rates of {drawn}."
    )
    one = f"The best of {len(table)} trials (in colour) reaches {reached}, with a learning rate of {drawn}."
    caption = f"{many if len(best) > 1 else one} The rest is grey. Lines are spread out within a choice."
    alt = "Parallel coordinates: lines from the drawn variables to the accuracy, the best fifth in colour."
    records = {trial.label: [trial.record] for trial in trials}
    return describe(draw(WIDTH), caption=caption, alt=alt, records=records, unit="trials", phone=lambda: draw(PHONE))


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _parallel_view(ax: Axes, table: pd.DataFrame, names: Sequence[str], width: float) -> None:
    order = np.argsort(table["accuracy"].to_numpy(), kind="stable")
    columns = [*names, "accuracy"]
    scales = [_scale(name, table[name].iloc[order]) for name in columns]
    heights = np.stack([places for places, _ in scales], axis=1)
    scores, failed = table["accuracy"].to_numpy()[order], table["failed"].to_numpy()[order]
    first = len(order) - max(1, round(BEST * len(order)))
    norm, colours = Normalize(scores[first] - 1e-6, scores[-1]), sns.color_palette("viridis", as_cmap=True)
    failing, thinner = failed[:first], min(1.0, (ROOM / len(order)) ** 0.5)
    draw_as_one_path(ax, heights[:first][failing], **GREY_LINE, linewidth=0.7 * thinner, linestyle="--")
    draw_as_one_path(ax, heights[:first][~failing], **GREY_LINE, linewidth=0.7 * thinner)
    shades = np.round(SHADES * norm(scores[first:])) / SHADES
    for shade in np.unique(shades):
        draw_as_one_path(
            ax, heights[first:][shades == shade], color=colours(0.9 * shade), linewidth=1.3 * thinner, alpha=0.9
        )
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.2}  # readable over the lines
    for position, (_, ticks) in enumerate(scales):
        ax.axvline(position, color=INK, linewidth=0.8)
        places = np.array([height for height, _ in ticks])[:, None]
        draw_as_one_path(ax, np.tile(places, 2), (position - 0.012, position), color=INK, linewidth=0.8)
        for height, text in ticks:
            ax.text(position - 0.025, height, text, ha="right", va="center", fontsize=8, color=INK, bbox=box, zorder=4)
    letters = round(15.5 * width / len(columns))
    labels = [in_lines(VARIABLES.get(name, "accuracy (%)"), letters) for name in columns]
    ax.set_xticks(range(len(columns)), labels, fontsize=8.5)
    ax.tick_params(length=0, labelcolor=INK)
    ax.set(yticks=[], xlim=(-0.3, len(columns) - 0.9))
    ax.grid(False)
    ax.spines[:].set_visible(False)


def _scale(name: str, values: "pd.Series[Any]") -> tuple[Array, list[tuple[float, str]]]:
    """Where the lines cross an axis, 0 to 1, and the axis's ticks; `values` in the order of accuracy."""
    unique = sorted(set(values), key=rank)
    if name != "accuracy" and is_choice(values):
        return _choices(values, unique)
    log = name in LOGARITHMIC
    low, high = float(values.min()), float(values.max())
    whole = values.dtype.kind == "i"
    marks = round_numbers(low, high, log, whole=whole)
    width = min(0.25, 0.02 * (high - low)) if whole else 0.0  # less than to a tick that it may be taken for
    spread = np.random.default_rng(0).uniform(-width, width, len(values))
    norm = (LogNorm if log else Normalize)(low, high)
    middle = 0.0 if high > low else 0.5  # of the axis of a variable that does not vary
    ticks = list(zip((np.asarray(norm(marks)) + middle).tolist(), [f"{mark:g}" for mark in marks], strict=True))
    return np.asarray(norm(values.to_numpy(dtype=float) + spread)) + middle, ticks


def is_choice(values: "pd.Series[Any]") -> bool:
    """Whether a variable is drawn as choices: by names, or by few numbers, each of several trials."""
    different = values.nunique()
    return values.dtype.kind not in "if" or (different <= FEW and 2 * different <= len(values))


def rank(choice: Any) -> Any:
    """The place of a choice among others of its variable: optimizers in their usual order, numbers by size."""
    return OPTIMIZERS.index(choice) if choice in OPTIMIZERS else choice


def _choices(values: "pd.Series[Any]", unique: Sequence[Any]) -> tuple[Array, list[tuple[float, str]]]:
    """Choices at even heights; the trials of one choice are spread over a band in the order of their accuracy."""
    places = np.zeros(len(values))
    for index, choice in enumerate(unique):
        rows = np.flatnonzero((values == choice).to_numpy())
        places[rows] = index + np.linspace(-0.3, 0.3, len(rows) + 2)[1:-1]
    scale = max(1, len(unique) - 1)
    names = [f"{choice:g}" if isinstance(choice, int | float) else str(choice) for choice in unique]
    return places / scale, [(index / scale, name) for index, name in enumerate(names)]


def round_numbers(low: float, high: float, log: bool, wide: float = 300, whole: bool = False) -> list[float]:
    """Numbers that a person would choose for the ticks of an axis: powers of 10, with 3 times these between them unless
    the highest is so many times the lowest (`wide`); or steps of 1, 2, 4 and 5, perhaps of whole numbers alone."""
    if log:
        decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
        marks = [factor * 10.0**decade for decade in decades for factor in ((1, 3) if high < wide * low else (1,))]
    else:
        marks = list(MaxNLocator(5, steps=[1, 2, 4, 5, 10], integer=whole).tick_values(low, high))
    ends = (low / 1.1, high * 1.1) if log else (low - 0.02 * (high - low), high + 0.02 * (high - low))
    return [mark for mark in marks if ends[0] <= mark <= ends[1]]
