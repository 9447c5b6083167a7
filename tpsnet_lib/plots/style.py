"""One look for every figure: palette, colours of verdicts, captions that name the data, how a notebook shows one."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
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
WIDTH = 7.2  # inches, of a figure as wide as the text
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
