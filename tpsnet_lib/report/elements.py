"""What the parts of the page are made of: sections, tables, figures, verdicts and links to records, as HTML."""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from tpsnet_lib.claims.judge import Row
from tpsnet_lib.plots import style
from tpsnet_lib.report.pictures import slim_svg, svg_source, with_dark

ASSETS = Path(__file__).resolve().parent / "assets"
ENVIRONMENT = jinja2.Environment(loader=jinja2.FileSystemLoader(ASSETS), autoescape=True, trim_blocks=True)
MACROS = ENVIRONMENT.get_template("elements.html.j2").module


@dataclass(frozen=True)
class Section:
    """A part of the landing page: its heading, its HTML (see `table`, `figure`) and the id that links point to; a
    part with a `summary` waits folded under it."""

    title: str
    html: str
    id: str
    summary: str = ""


def _html(macro: str, *values: Any) -> Markup:
    return Markup(getattr(MACROS, macro)(*values))


def table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | Mapping[str, str], caption: str = "") -> str:
    """Rows as an HTML table; `columns` are keys, or keys with their headings. Values are escaped unless `Markup`."""
    heads = dict(columns) if isinstance(columns, Mapping) else {name: name for name in columns}
    cells = [[_shown(row.get(key)) for key in heads] for row in rows]
    return str(_html("table", list(heads.values()), cells, caption))


def _shown(value: Any) -> Any:
    if value is None:
        return "–"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else value


def record_link(record_id: str) -> Markup:
    """A link to a record of the appendix; where the page does not list it, the id stays as text."""
    return _html("link", record_id)


def group_link(group_id: str, text: str) -> str:
    """HTML that leads to the line of a recipe's records in the appendix."""
    return f'<a href="#group-{group_id}">{text}</a>'


def test_link(row: Row, text: str) -> Markup:
    """A link to the records of a test in `claims`."""
    return _html("test_link", row.name, text)


def verdict(name: str) -> Markup:
    """A verdict with a dot in its colour, that of the figures."""
    return _html("verdict", name)


def with_note(text: Markup, note: str) -> Markup:
    """A text with a note in small letters under it; an empty note leaves the text as it is."""
    return text + Markup("<br><small>{}</small>").format(note) if note else text


def under_points(words: str) -> str:
    """Words as a column of points has them, whose head says the unit."""
    return words.replace(" points", "")


def inline_markdown(text: str) -> Markup:
    """A line of Markdown as HTML: its code, strong words, emphasis and links; all else is escaped."""
    html = str(escape(text))
    for pattern, replacement in _MARKDOWN.items():
        html = re.sub(pattern, replacement, html)
    return Markup(html)


_MARKDOWN = {
    "`(.+?)`": r"<code>\1</code>",
    r"\*\*(.+?)\*\*": r"<strong>\1</strong>",
    r"\*(.+?)\*": r"<em>\1</em>",
    r"\[(.+?)\]\((https?://\S+)\)": r'<a href="\2">\1</a>',
}


WORDS = (
    "n counts a side; Welch: a t interval of two sides whose spreads may differ; Tukey: of the largest of several"
    " differences; bootstrap: of runs drawn again; permutation: of labels exchanged at random."
)


def claims(rows: Sequence[Row], names: Mapping[str, str]) -> str:
    """The original's claims as an HTML table: under each claim, its tests: budget, verdict, estimate and records.

    Records that share a name, which `names` has by id, stand together behind it."""
    records = {record.id: record for row in rows for record in row.records}
    caption = (
        "Every verdict names its budget first, and is adjusted over all tests of the table (Holm); chapter 2 has fewer,"
        f" so that it can settle more. Intervals at 95%. {WORDS} {style.stands_on(list(records.values()))}"
    )
    groups = [(letter, list(tests)) for letter, tests in itertools.groupby(rows, key=lambda row: row.claim)]
    return str(_html("claims", groups, caption, {row.name: _by_name(row, names) for row in rows}, inline_markdown))


def _by_name(row: Row, names: Mapping[str, str]) -> dict[str, list[str]]:
    by_name: dict[str, list[str]] = {}
    for record in row.records:
        by_name.setdefault(names.get(record.id, "others"), []).append(record.id)
    return by_name if len(by_name) < len(row.records) else {}  # of draws, each record has a name of its own


def figure(fig: Figure) -> str:
    """A figure as an embedded SVG, with the caption, alternative text and records that it carries; on a phone
    `style.phone_svg` takes its place."""
    about = style.description(fig)
    across, down = fig.get_size_inches()
    source = _source(style.svg(fig))
    described = {**vars(about), "wide": across >= 2 * down, "narrow": _source(style.phone_svg(fig))}
    return str(_html("figure", source, described))


def _source(svg: str) -> str:
    return svg_source(with_dark(slim_svg(svg)))
