"""One look for every figure: palette, colours of verdicts, captions that name the data, how a notebook shows one."""

import io
import itertools
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import path as paths
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.patches import PathPatch
from numpy.typing import ArrayLike
from PIL import Image

from tpsnet_lib import stats
from tpsnet_lib.runs.records import Record
from tpsnet_lib.stats import Estimate

mpl.rc_file(Path(__file__).parents[1] / "report" / "assets" / "tpsnet.mplstyle")  # and no setting of a user's

PALETTE = tuple(mpl.rcParams["axes.prop_cycle"].by_key()["color"])  # Okabe & Ito, colour-blind safe
BLUE, VERMILION, GREEN, PINK, ORANGE, SKY, GREY = PALETTE
INK, MUTED, GRID = (mpl.rcParams[name] for name in ("axes.labelcolor", "axes.edgecolor", "grid.color"))
WIDTH, PHONE = 7.2, 3.6  # inches, of a figure as wide as the text, and as a phone
FONT = "DejaVu Sans"
FONTS = f"{FONT},Verdana,sans-serif"  # of an SVG where it is shown: Verdana is as wide, others are narrower
VERDICTS = {  # the colour of a verdict in every figure and table
    stats.HOLDS: GREEN,
    stats.DOES_NOT_HOLD: VERMILION,
    stats.NO_DIFFERENCE: SKY,
    stats.NOT_SETTLED: GREY,
}


def figure(
    rows: int = 1, columns: int = 1, height: float = 3.2, width: float = WIDTH, **options: Any
) -> tuple[Figure, Any]:
    """A figure and its axes, as `plt.subplots` gives them; `height` and `width` in inches."""
    return plt.subplots(rows, columns, figsize=(width, height), **options)


def set_space(fig: Figure, wspace: float | None = None, hspace: float | None = None) -> None:
    """Set the room between the panels of a figure, as shares of a panel's width and height."""
    engine = fig.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(wspace=wspace, hspace=hspace)


def draw_as_one_path(ax: Axes, y: ArrayLike, x: ArrayLike | None = None, **look: Any) -> None:
    """Lines of the same look as one path of an SVG, in a third of the bytes of a path each.

    `y` [lines, points]; `x` the same or [points], by default 0, 1, 2, ..."""
    rows = np.asarray(y, dtype=float)
    columns = np.broadcast_to(np.arange(rows.shape[1]) if x is None else x, rows.shape)
    path = paths.Path.make_compound_path(*map(paths.Path, np.stack([columns, rows], axis=2)))
    path.should_simplify = False  # which would leave out a line without length, whose round ends are a point
    ax.add_patch(PathPatch(path, fill=False, joinstyle="round", **look))
    ax.autoscale_view()


def draw_intervals(
    ax: Axes, estimates: Sequence[Estimate], at: ArrayLike, horizontal: bool = False, scale: float = 100, **look: Any
) -> None:
    """Estimates as points with their intervals, at places of the other axis; in percent unless `scale` is 1."""
    values = np.array([estimate.value for estimate in estimates])
    ends = np.array([(estimate.low, estimate.high) for estimate in estimates]).reshape(-1, 2)
    spread = scale * np.nan_to_num(np.abs(ends.T - values))
    look = {"linestyle": "none", "marker": "o", **look}
    if horizontal:
        ax.errorbar(scale * values, at, xerr=spread, **look)
    else:
        ax.errorbar(at, scale * values, yerr=spread, **look)


def label_ticks(axis: Axis, values: Iterable[float]) -> None:
    """Ticks at these values alone, with the numbers themselves, as a logarithmic axis would not write them."""
    ticks = list(values)
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()


def data_set(stamp: str) -> str:
    """The name of a data set without the state of the copy, which a page says once: `CIFAR-10`."""
    return stamp.partition(" (")[0]


def stands_on(records: Sequence[Record], unit: str = "runs") -> str:
    """What a figure stands on, as its records say: data set, number of runs, hardware; empty without records."""
    names = " and ".join(sorted({data_set(record.stamp) for record in records}))
    machines = ", ".join(sorted({record.hardware for record in records}))
    unit = unit.removesuffix("s") if len(records) == 1 else unit
    return f"{names}, n = {len(records)} {unit}, {machines}." if records else ""


def svg(fig: Figure) -> str:
    """A figure as SVG text without the date and the header; the fonts of its texts are named once, with those that
    stand in for it on a machine without it, and spaces at the ends of a text stay."""
    text = io.StringIO()
    fig.savefig(text, format="svg", metadata={"Date": None})
    drawn = re.sub(r"^.*?<svg", '<svg xml:space="preserve"', text.getvalue(), flags=re.DOTALL)
    drawn = re.sub(rf"; font-family: '{FONT}'[^;\"]*", "", drawn)
    return drawn.replace("</style>", f"text{{font-family: {FONTS}}}</style>", 1)


def png(fig: Figure) -> bytes:
    """A figure as PNG at twice its size on the page."""
    data = io.BytesIO()
    fig.savefig(data, format="png", dpi=200)
    small = io.BytesIO()
    with Image.open(data) as image:  # 256 colours: a third of the bytes, and no eye sees it at this size
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()


@dataclass(frozen=True)
class Stack:
    """How the panels of a figure stand on a phone: in so many columns, in the order of reading, and so many inches high
    in all; `together`: what stands below a panel stays below it (a curve below its image)."""

    columns: int
    height: float
    together: bool = False


def phone_svg(fig: Figure) -> str:
    """A figure as SVG text as wide as a phone: drawn anew or stacked as it was described; else a lone panel drawn
    narrow, and several one below the other.

    The figure itself is changed: it is drawn in its own shape first."""
    phone = description(fig).phone
    if callable(phone):
        fig = phone()
        plt.close(fig)
        return svg(fig)
    placed = [(axes, place.num1) for axes in fig.axes if (place := axes.get_subplotspec()) is not None]
    panels, count = [axes for axes, _ in placed], len({at for _, at in placed})
    if phone is None and count <= 1:
        return _narrow_svg(fig, panels)
    _stack(fig, panels, phone or Stack(1, 0.9 * count * fig.get_figheight()))
    return svg(fig)


def _stack(fig: Figure, panels: Sequence[Any], stack: Stack) -> None:
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


def _narrow_svg(fig: Figure, panels: Sequence[Any]) -> str:
    """A figure of one panel as wide as a phone: its legend above, its title in lines, long names above their rows."""
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
    return svg(fig)


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


SHORT_NAMES = 16  # letters that fit side by side below a panel of half a phone's width
ROW, LINE = 0.33, 0.13  # inches: of a row below its name, and of each further line of the name
LONG_NAME = 18  # letters of a row's name that leave a phone too little for the row itself


@dataclass(frozen=True)
class Description:
    """What a figure carries besides its drawing: the caption, whose first sentence says what to see; the alternative
    text; what it stands on, which a page folds away; and the ids of its records, also by the row that they are of."""

    caption: str
    alt: str
    provenance: str = ""
    records: tuple[str, ...] = ()
    rows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    phone: Stack | Callable[[], Figure] | None = None  # how it stacks there, or what draws it anew


Records = Sequence[Record] | Mapping[str, Sequence[Record]]  # some by the name of a row or a trial
_descriptions: WeakKeyDictionary[Figure, Description] = WeakKeyDictionary()


def describe(
    figure: Figure,
    *,
    caption: str,
    alt: str,
    records: Records = (),
    unit: str = "runs",
    provenance: str = "",
    phone: Stack | Callable[[], Figure] | None = None,
) -> Figure:
    """The same figure, which now carries its caption, alternative text and records; `show` displays it with them.

    `caption` begins with what to see. Data set, n and hardware are taken from the records, which `unit` counts, unless
    `provenance` says what the figure stands on; records by the name of a row or a trial stay with that name. `phone`
    says how the panels stack there, or draws the figure anew, where `phone_svg` would not do."""
    stood_on, ids, by_row = _sources(records, unit)
    _descriptions[figure] = Description(caption, alt, provenance or stood_on, ids, by_row, phone)
    return figure


def _sources(records: Records, unit: str = "runs") -> tuple[str, tuple[str, ...], dict[str, tuple[str, ...]]]:
    """What records are, in words, their ids in order, and the ids of each name if the records have names."""
    named = dict(records) if isinstance(records, Mapping) else {}
    listed = itertools.chain(*named.values()) if isinstance(records, Mapping) else records
    every = {record.id: record for record in listed}
    by_row = {name: tuple(record.id for record in row) for name, row in named.items()}
    return stands_on(list(every.values()), unit), tuple(sorted(every)), by_row


def by_name(pairs: Iterable[tuple[str, Sequence[Record]]]) -> dict[str, list[Record]]:
    """Records by what they are called; those of one name stand together."""
    grouped: dict[str, list[Record]] = {}
    for name, records in pairs:
        grouped.setdefault(name, []).extend(records)
    return grouped


def description(figure: Figure) -> Description:
    """What a figure carries; `ValueError` if its plot function did not describe it."""
    if figure not in _descriptions:
        raise ValueError("this figure has no caption: its plot function ends with style.describe(figure, ...)")
    return _descriptions[figure]


def show(fig: Figure) -> None:
    """Show a figure in a notebook, with the alternative text, caption, provenance and records that it carries.

    The report reads them from the output's metadata, and the caption from the line under the figure. `ValueError` if
    its plot function did not describe the figure."""
    from IPython.display import display

    about = description(fig)
    kind, content = "image/svg+xml", svg(fig).replace("<svg", f'<svg role="img" aria-label="{escape(about.alt)}"', 1)
    metadata: dict[str, Any] = {"alt": about.alt, "records": list(about.records), "provenance": about.provenance}
    metadata["rows"] = {name: list(ids) for name, ids in about.rows.items()}
    metadata["narrow"] = phone_svg(fig)
    plt.close(fig)
    display({kind: content, "text/plain": about.alt}, metadata={kind: metadata}, raw=True)
    folded = f"<details><summary>Source</summary>{escape(about.provenance)}</details>" if about.provenance else ""
    html = f"<p><em>{escape(about.caption)}</em></p>{folded}"
    display({"text/markdown": f"*{about.caption}*", "text/html": html, "text/plain": about.caption}, raw=True)


def finding(text: str, records: Records = ()) -> None:
    """Show a sentence, in Markdown, in a notebook; the report folds the records that it stands on away beneath it."""
    from IPython.display import Markdown, display

    provenance, ids, rows = _sources(records)
    metadata = {"records": list(ids), "provenance": provenance, "rows": {name: list(row) for name, row in rows.items()}}
    display(Markdown(text), metadata=metadata if ids else None)
