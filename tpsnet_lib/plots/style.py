"""One look for every figure: palette, colours of verdicts, captions that name the data, how a notebook shows one."""

import io
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import matplotlib as mpl
import numpy as np
from matplotlib import path as paths
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import PathPatch
from numpy.typing import ArrayLike
from PIL import Image

from tpsnet_lib import stats
from tpsnet_lib.plots.phone import Stack, narrow, stack_panels
from tpsnet_lib.runs.records import Record
from tpsnet_lib.stats import Estimate

mpl.rc_file(Path(__file__).parents[1] / "report" / "assets" / "tpsnet.mplstyle")  # and no setting of a user's

PALETTE = tuple(mpl.rcParams["axes.prop_cycle"].by_key()["color"])  # Okabe & Ito, colour-blind safe
BLUE, VERMILION, GREEN, PINK, ORANGE, SKY, GREY = PALETTE
INK, MUTED, GRID = (mpl.rcParams[name] for name in ("axes.labelcolor", "axes.edgecolor", "grid.color"))
WIDTH = 7.2  # inches, of a figure as wide as the text
FONT = "DejaVu Sans"
FONTS = f"{FONT},Verdana,sans-serif"  # of an SVG where it is shown: Verdana is as wide, others are narrower
NUMBER_CELL = re.compile(r"(?<=\| )[-+−]?\d[^|\n]{,36}(?= \|)")  # of a Markdown table: maybe with an interval
VERDICTS = {  # the colour of a verdict in every figure and table
    stats.HOLDS: GREEN,
    stats.DOES_NOT_HOLD: VERMILION,
    stats.NO_DIFFERENCE: SKY,
    stats.NOT_SETTLED: GREY,
}


def figure(
    rows: int = 1, columns: int = 1, height: float = 3.2, width: float = WIDTH, **options: Any
) -> tuple[Figure, Any]:
    """A figure and its axes, as `plt.subplots` gives them; `height` and `width` in inches.

    pyplot does not know it: a slider draws beside the running cell, at whose end Jupyter shows what pyplot holds."""
    fig = Figure(figsize=(width, height))
    FigureCanvasAgg(fig)
    return fig, fig.subplots(rows, columns, **options)


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
    machines = "; ".join(sorted({record.hardware for record in records}))
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


def phone_svg(fig: Figure) -> str:
    """A figure as SVG text as wide as a phone: drawn anew or stacked as it was described; else a lone panel drawn
    narrow, and several one below the other.

    The figure itself is changed: it is drawn in its own shape first."""
    phone = description(fig).phone
    if callable(phone):
        return svg(phone())
    placed = [(axes, place.num1) for axes in fig.axes if (place := axes.get_subplotspec()) is not None]
    panels, count = [axes for axes, _ in placed], len({at for _, at in placed})
    if phone is None and count <= 1:
        narrow(fig, panels)
    else:
        stack_panels(fig, panels, phone or Stack(1, 0.9 * count * fig.get_figheight()))
    return svg(fig)


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
    display({kind: content, "text/plain": about.alt}, metadata={kind: metadata}, raw=True)
    folded = f"<details><summary>Source</summary>{escape(about.provenance)}</details>" if about.provenance else ""
    html = f"<p><em>{escape(about.caption)}</em></p>{folded}"
    display({"text/markdown": f"*{about.caption}*", "text/html": html, "text/plain": about.caption}, raw=True)


def finding(text: str, records: Records = (), intervals: Iterable[Estimate] | Mapping[str, Estimate] = ()) -> None:
    """Show a sentence, in Markdown, in a notebook, and folded away beneath it n and method of the `intervals` in it,
    by their names where they have some and differ in these.

    The report has one fold for these and for the records that the sentence stands on."""
    from IPython.display import Markdown, display

    provenance, ids, rows = _sources(records)
    method = _method(intervals)
    text = NUMBER_CELL.sub(lambda cell: cell[0].replace(" ", "\u00a0"), text)  # spaces at which no line breaks
    if method:
        text += f'\n\n<details class="method"><summary>Method</summary>{method}</details>'
    metadata: dict[str, Any] = {"records": list(ids), "provenance": f"{provenance} {method}".strip()}
    metadata["rows"] = {name: list(row) for name, row in rows.items()}
    display(Markdown(text), metadata=metadata if ids or method else None)


def _method(intervals: Iterable[Estimate] | Mapping[str, Estimate]) -> str:
    """What some intervals rest on, in a sentence: each basis once, with the names of its estimates if bases differ."""
    named = intervals.items() if isinstance(intervals, Mapping) else [("", each) for each in intervals]
    names: dict[str, list[str]] = {}  # of the estimates, by basis
    for name, estimate in named:
        names.setdefault(estimate.basis, []).extend([name] if name else [])
    told = [f"{basis} ({', '.join(of)})" if of and len(names) > 1 else basis for basis, of in names.items()]
    return f"95% intervals: {'; '.join(told)}." if told else ""
