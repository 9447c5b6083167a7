"""One look for every figure: palette, style sheet, captions that name the data, and how a notebook shows one."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any
from weakref import WeakKeyDictionary

import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.figure import Figure
from PIL import Image

from tpsnet_lib.runs.records import Record

mpl.rcdefaults()  # no setting of a user's or a folder's, such as text.usetex, reaches the figures

PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#6B6B6B",
)  # Okabe & Ito, colour-blind safe
INK, MUTED, GRID = "#1F2328", "#656D76", "#E4E7EB"
WIDTH = 7.2  # inches, of a figure as wide as the text
FONT = "DejaVu Sans"
FONTS = f"{FONT},Verdana,sans-serif"  # of an SVG where it is shown: Verdana is as wide, others are narrower

STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "font.family": FONT,  # ships with matplotlib, so a figure's layout is the same on every machine
    "font.size": 9.5,
    "grid.color": GRID,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",  # text as text: a fifth of the bytes of drawn letters, and it can be searched
    "svg.hashsalt": "tpsnet",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


def figure(rows: int = 1, columns: int = 1, height: float = 3.2, **options: Any) -> tuple[Figure, Any]:
    """A figure in the project's style and its axes, as `plt.subplots` gives them; `height` in inches."""
    with mpl.rc_context(STYLE):
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
    with mpl.rc_context(STYLE):
        fig.savefig(text, format="svg", metadata={"Date": None})
    drawn = re.sub(r"^.*?<svg", '<svg xml:space="preserve"', text.getvalue(), flags=re.DOTALL)
    drawn = re.sub(rf"; font-family: '{FONT}'[^;\"]*", "", drawn)  # of a text made without the sheet, with others
    return drawn.replace("</style>", f"text{{font-family: {FONTS}}}</style>", 1)


def png(fig: Figure) -> bytes:
    """A figure as PNG at twice its size on the page."""
    data = io.BytesIO()
    with mpl.rc_context(STYLE):
        fig.savefig(data, format="png", dpi=200)
    small = io.BytesIO()
    with Image.open(data) as image:  # 256 colours: a third of the bytes, and no eye sees it at this size
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()


@dataclass(frozen=True)
class Description:
    """What a figure carries besides its drawing: the caption, whose first sentence says what to see; the alternative
    text; what it stands on, which a page folds away; the ids of its records; and the format that it is shown in."""

    caption: str
    alt: str
    provenance: str = ""
    records: tuple[str, ...] = ()
    fmt: str = "svg"


_descriptions: WeakKeyDictionary[Figure, Description] = WeakKeyDictionary()


def describe(
    figure: Figure,
    *,
    caption: str,
    alt: str,
    records: Sequence[Record] = (),
    fmt: str = "svg",
    unit: str = "runs",
    provenance: str = "",
) -> Figure:
    """The same figure, which now carries its caption, alternative text and records; `show` displays it with them.

    `caption` begins with what to see. Data set, n and hardware are taken from the records, which `unit` counts, unless
    `provenance` says what the figure stands on. `fmt`: `svg`, or `png` for photographs and for thousands of points."""
    if fmt not in ("svg", "png"):
        raise ValueError(f"fmt is {fmt!r}: give svg or png")
    ids = tuple(sorted({record.id for record in records}))
    _descriptions[figure] = Description(caption, alt, provenance or stands_on(records, unit), ids, fmt)
    return figure


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
    kind = "image/svg+xml" if about.fmt == "svg" else "image/png"
    metadata: dict[str, Any] = {"alt": about.alt, "records": list(about.records), "provenance": about.provenance}
    if about.fmt == "png":
        metadata["width"] = round(fig.get_figwidth() * 100)
    content = svg(fig) if about.fmt == "svg" else base64.b64encode(png(fig)).decode("ascii")
    plt.close(fig)
    display({kind: content, "text/plain": about.alt}, metadata={kind: metadata}, raw=True)
    if about.caption:
        folded = f"<details><summary>Data</summary>{escape(about.provenance)}</details>" if about.provenance else ""
        html = f"<p><em>{escape(about.caption)}</em></p>{folded}"
        display({"text/markdown": f"*{about.caption}*", "text/html": html, "text/plain": about.caption}, raw=True)


def finding(text: str) -> None:
    """Show a sentence, in Markdown, in a notebook."""
    from IPython.display import Markdown, display

    display(Markdown(text))
