"""One look for every figure: palette, style sheet, captions that name the data, and how a notebook shows one."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.figure import Figure
from PIL import Image

from tpsnet_lib.runs.records import Record

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


def caption(text: str, records: Sequence[Record], unit: str = "runs") -> str:
    """A caption that ends with what the figure stands on: data set, number of runs, hardware, as the records say."""
    stamps = " and ".join(sorted({record.stamp for record in records}))
    machines = ", ".join(sorted({record.hardware for record in records}))
    unit = unit.removesuffix("s") if len(records) == 1 else unit
    return f"{text} {stamps}, n = {len(records)} {unit}, {machines}." if records else text


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


def show(fig: Figure, alt: str, caption: str = "", records: Sequence[Record] = (), fmt: str = "svg") -> None:
    """Show a figure in a notebook, with the alternative text, caption and record ids that the report prints under it.

    `fmt`: `svg`, or `png` for images and for more than some thousand points."""
    from IPython.display import Markdown, display

    kind = "image/svg+xml" if fmt == "svg" else "image/png"
    about: dict[str, Any] = {"alt": alt, "records": sorted({record.id for record in records})}
    if fmt == "png":
        about["width"] = round(fig.get_figwidth() * 100)
    data = svg(fig) if fmt == "svg" else png(fig)
    plt.close(fig)
    content = data if isinstance(data, str) else base64.b64encode(data).decode("ascii")
    display({kind: content, "text/plain": alt}, metadata={kind: about}, raw=True)
    if caption:
        display(Markdown(f"*{caption}*"))
