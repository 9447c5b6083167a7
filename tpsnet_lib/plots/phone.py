"""How a figure is laid out as wide as a phone: panels below one another, a lone one with names above its rows."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.legend import Legend

PHONE = 3.6  # inches, of a figure as wide as a phone
SHORT_NAMES = 16  # letters that fit side by side below a panel of half a phone's width
ROW, LINE = 0.33, 0.13  # inches: of a row below its name, and of each further line of the name
LONG_NAME = 18  # letters of a row's name that leave a phone too little for the row itself


@dataclass(frozen=True)
class Stack:
    """How the panels of a figure stand on a phone: in so many columns, in the order of reading, and so many inches high
    in all; `together`: what stands below a panel stays below it (a curve below its image)."""

    columns: int
    height: float
    together: bool = False


def stack_panels(fig: Figure, panels: Sequence[Any], stack: Stack) -> None:
    """Put panels into the columns of a phone; one without a name of its y axis has that of the panel before it."""
    fig.canvas.draw()
    before = panels[0].get_gridspec()
    deep, across = (before.nrows, before.ncols) if stack.together else (1, before.nrows * before.ncols)
    wraps = -(-across // stack.columns)  # each line of panels breaks into so many
    ratios = before.get_height_ratios() if stack.together else [1]
    grid = fig.add_gridspec(deep * wraps, stack.columns, height_ratios=[*ratios] * wraps)
    names: list[str] = []
    for axes in panels:
        begins = stack.together and axes.get_subplotspec().num1 % across == 0
        names.append(axes.get_ylabel() or (names[-1] if names and not begins else ""))
    for axes, name in zip(panels, names, strict=True):
        row, place = divmod(axes.get_subplotspec().num1, across)
        wrap, column = divmod(place, stack.columns)
        axes.set_subplotspec(grid[wrap * deep + row, column])
        if len(axes.get_shared_y_axes().get_siblings(axes)) > 1:
            axes.tick_params(labelleft=column == 0)
        named = stack.columns == 1 or (stack.together and column == 0)
        axes.set_ylabel(name if named else "", visible=True)  # shared axes hide it
        if stack.columns > 1:
            axes.set_xlabel(in_lines(axes.get_xlabel(), 20))
            if sum(len(tick.get_text()) for tick in axes.get_xticklabels()) > SHORT_NAMES:
                axes.tick_params(axis="x", labelrotation=40)
    if stack.columns > 1 and any(names) and not stack.together:
        fig.supylabel(names[-1], fontsize=mpl.rcParams["axes.labelsize"])
    fig.set_size_inches(PHONE, stack.height)
    for legend in fig.legends[:]:
        free = across % stack.columns > 0  # the last place
        _move_above(fig, panels, legend, (1 - 0.5 / stack.columns, 0.5 / wraps) if free else None)


def narrow(fig: Figure, panels: Sequence[Any]) -> None:
    """Make a figure of one panel as wide as a phone: legend above, title in lines, long names above their rows."""
    for axes in panels:
        axes.set_title(in_lines(axes.get_title(loc="left"), 38), loc="left")
        axes.set_xlabel(in_lines(axes.get_xlabel(), 34))
    for legend in [*fig.legends, *(legend for axes in panels if (legend := axes.get_legend()))]:
        _move_above(fig, panels, legend)
    fig.canvas.draw()
    rows = panels[0].get_yscale() == "linear"  # the powers of a logarithmic axis are no names of rows
    names = [name.get_text() for name in panels[0].get_yticklabels()] if rows else []
    fig.set_figwidth(PHONE)
    if max(map(len, names), default=0) > LONG_NAME:
        _name_above_rows(fig, panels[0], [in_lines(name.replace("\n", " "), 52) for name in names])


def _name_above_rows(fig: Figure, axes: Any, names: Sequence[str]) -> None:
    """Write each name above its row, nearer to it than to the row before; no line of the panel crosses it."""
    axes.tick_params(axis="y", labelleft=False)
    row = ROW + LINE * max(name.count("\n") for name in names)
    look: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "fontsize": 8, "va": "bottom", "linespacing": 1.1}
    look |= {"zorder": 5, "bbox": {"facecolor": axes.get_facecolor(), "edgecolor": "none", "pad": 0}}
    for at, name in zip(axes.get_yticks(), names, strict=True):
        axes.text(0.01, at - 0.05 / row, name, **look)
    top, bottom = min(-0.9, *axes.get_ylim()), max(axes.get_ylim())  # with room for the first name
    axes.set_ylim(bottom, top)
    fig.canvas.draw()
    around = fig.get_figheight() * (1 - axes.get_position().height)  # the legend, the title and the axis
    fig.set_figheight(around + row * (bottom - top))


def _move_above(fig: Figure, panels: Sequence[Any], legend: Legend, free: tuple[float, float] | None = None) -> None:
    """Put a legend above the panels, in as many columns as fit the width of a phone; or around a `free` place."""
    texts = [text.get_text() for text in legend.get_texts()]
    drawn: dict[str, Any] = dict(zip(texts, legend.legend_handles, strict=True))
    for axes in panels:
        named = zip(*reversed(axes.get_legend_handles_labels()), strict=True)
        drawn |= {label: handle for label, handle in named if label in drawn}  # with the markers of an interval
    columns = 2 if max(map(len, texts)) < 20 and not free else 1
    look: dict[str, Any] = {"ncols": columns, "fontsize": 8}
    look |= {"loc": "center", "bbox_to_anchor": free} if free else {"loc": "outside upper left"}
    fig.legend(drawn.values(), drawn.keys(), title=legend.get_title().get_text() or None, **look)
    if not free:
        fig.set_figheight(fig.get_figheight() + 0.18 * -(-len(texts) // columns))
    legend.remove()


def in_lines(text: str, letters: int) -> str:
    """A text in as few lines of so many letters as hold it, which are about equally long; no word is broken."""
    fewest = len(textwrap.wrap(text, letters, break_long_words=False))
    widths = (width for width in range(1, letters) if len(textwrap.wrap(text, width, break_long_words=False)) <= fewest)
    return textwrap.fill(text, next(widths, letters), break_long_words=False)
