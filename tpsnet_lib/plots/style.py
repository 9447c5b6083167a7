"""One look for every figure: palette, colours of verdicts, captions that name the data, how a notebook shows one."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from tpsnet_lib import stats
from tpsnet_lib.runs.records import Record

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


def figure(rows: int = 1, columns: int = 1, height: float = 3.2, **options: Any) -> tuple[Figure, Any]:
    """A figure and its axes, as `plt.subplots` gives them; `height` and the option `width` in inches."""
    return plt.subplots(rows, columns, figsize=(options.pop("width", WIDTH), height), **options)


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


def stacked_svg(fig: Figure) -> str:
    """A figure of two or three panels in a row as SVG text for a phone, one below the other; empty for any other.

    The figure itself is changed: it is drawn in its own shape first."""
    places = {axes: place for axes in fig.axes if (place := axes.get_subplotspec()) is not None}
    grids = {place.get_gridspec() for place in places.values()}
    shapes = [grid.get_geometry() for grid in grids]
    if shapes not in ([(1, 2)], [(1, 3)]):
        return ""
    count = shapes[0][1]
    below = fig.add_gridspec(count, 1)
    for axes, place in places.items():
        axes.set_subplotspec(below[place.num1])
        if len(axes.get_shared_y_axes().get_siblings(axes)) > 1:
            axes.tick_params(labelleft=True)
            axes.set_ylabel(axes.get_ylabel() or fig.axes[0].get_ylabel())
    fig.set_size_inches(PHONE, 0.9 * count * fig.get_figheight())
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


_descriptions: WeakKeyDictionary[Figure, Description] = WeakKeyDictionary()


def describe(
    figure: Figure,
    *,
    caption: str,
    alt: str,
    records: Sequence[Record] | Mapping[str, Sequence[Record]] = (),
    unit: str = "runs",
    provenance: str = "",
) -> Figure:
    """The same figure, which now carries its caption, alternative text and records; `show` displays it with them.

    `caption` begins with what to see. Data set, n and hardware are taken from the records, which `unit` counts, unless
    `provenance` says what the figure stands on; records by the name of a row or a trial stay with that name."""
    rows = records if isinstance(records, Mapping) else {}
    listed = itertools.chain.from_iterable(records.values() if isinstance(records, Mapping) else [records])
    every = {record.id: record for record in listed}
    by_row = {name: tuple(record.id for record in row) for name, row in rows.items()}
    provenance = provenance or stands_on(list(every.values()), unit)
    _descriptions[figure] = Description(caption, alt, provenance, tuple(sorted(every)), by_row)
    return figure


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
    kind, content = "image/svg+xml", svg(fig)
    metadata: dict[str, Any] = {"alt": about.alt, "records": list(about.records), "provenance": about.provenance}
    metadata["rows"] = {name: list(ids) for name, ids in about.rows.items()}
    metadata["narrow"] = stacked_svg(fig)
    plt.close(fig)
    display({kind: content, "text/plain": about.alt}, metadata={kind: metadata}, raw=True)
    if about.caption:
        folded = f"<details><summary>Source</summary>{escape(about.provenance)}</details>" if about.provenance else ""
        html = f"<p><em>{escape(about.caption)}</em></p>{folded}"
        display({"text/markdown": f"*{about.caption}*", "text/html": html, "text/plain": about.caption}, raw=True)


def finding(text: str) -> None:
    """Show a sentence, in Markdown, in a notebook."""
    from IPython.display import Markdown, display

    display(Markdown(text))
