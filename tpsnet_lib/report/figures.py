"""The figures that people reuse: those of the committed page, and two that are drawn from the records, as SVG in light
and in dark, with a page of them."""

from dataclasses import dataclass
from html import escape
from pathlib import Path

from bs4 import BeautifulSoup, Tag
from matplotlib.figure import Figure

from tpsnet_lib.claims import judge
from tpsnet_lib.config import MEMBERS
from tpsnet_lib.errors import TpsnetError
from tpsnet_lib.plots import answer, network_drawing, style
from tpsnet_lib.report.pictures import darkened, light_svg, slim_svg
from tpsnet_lib.runs.records import Store
from tpsnet_lib.whole_files import write_whole

NAMED = 6  # record ids under a figure of `README.md`
ON_THE_PAGE = {  # the id of the part of the page that holds a figure
    "accuracy": "figure-1",
    "winner": "figure-2",
    "learning_curve": "figure-3",
    "block": "nb02-cell-open",
    "design_variables": "nb02-cell-budgets",
    "best_of_n": "nb03-cell-best-of-n",
    "ablation": "nb04-cell-ablation",
    "seeds": "nb04-cell-seeds",
    "confusion": "nb05-cell-confusion-shown",
    "calibration": "nb05-cell-knob",
    "published_models": "nb05-cell-published",
    "people": "nb05-cell-people-shown",
}
HEAD = """# Figures for slides

Made by `tpsnet figures` from the committed page and records; each is there in light and in dark. MIT licence, as the
project: reuse them with the names of the project and of the record. Votes and predictions of others keep their own
licences, which `tpsnet data reference` names.
"""


@dataclass(frozen=True)
class Picture:
    """A figure as SVG in light colours, with what is said of it."""

    svg: str
    alt: str
    caption: str
    provenance: str = ""  # data, n and hardware
    records: tuple[str, ...] = ()

    def entry(self, name: str) -> str:
        """Its part of the page of figures."""
        more = f" and {len(self.records) - NAMED} more" if len(self.records) > NAMED else ""
        records = f" Records: {', '.join(f'`{each}`' for each in self.records[:NAMED])}{more}." if self.records else ""
        return (
            f'\n## {name}\n\n<picture><source media="(prefers-color-scheme: dark)" srcset="{name}-dark.svg">'
            f'<img alt="{escape(self.alt)}" src="{name}.svg"></picture>\n\n{self.caption} {self.provenance}{records}\n'
        )


def pictures(page: Path, store: Store) -> dict[str, Picture]:
    """Every figure by its name; `TpsnetError` if the page lacks one."""
    soup = BeautifulSoup(page.read_text("utf-8"), "html.parser")
    made = {name: _of_page(soup, place) for name, place in ON_THE_PAGE.items()}
    drawn = {"tpsnet": network_drawing.draw_network(MEMBERS["tpsnet"]), "claims": _claims(store)}
    for name, figure in drawn.items():
        about = style.description(figure)
        svg = slim_svg(style.svg(figure))
        made[name] = Picture(svg, about.alt, about.caption, about.provenance, tuple(about.records))
    return made


def _of_page(soup: BeautifulSoup, place: str) -> Picture:
    """The figure of a part of the page."""
    picture = soup.select_one(f'[id="{place}"] img.broad')
    figure = picture.find_parent("figure") if picture is not None else None
    caption = figure.figcaption if isinstance(figure, Tag) else None
    if picture is None or caption is None:
        raise TpsnetError(f"the page has no figure in #{place}: build it with `tpsnet report --profile full`")
    sources = caption.select_one(".sources")
    provenance, records = "", list[str]()
    if sources is not None:
        sources.extract()
        provenance = sources.span.get_text() if sources.span is not None else ""
        records = list(dict.fromkeys(link.get_text() for link in sources.select("a code")))
    if caption.b is not None:
        caption.b.extract()  # its number on the page
    return Picture(
        light_svg(str(picture["src"])),
        str(picture["alt"]),
        " ".join(caption.get_text().split()),
        provenance,
        tuple(records),
    )


def _claims(store: Store) -> Figure:
    """The tests of the original's claims that are measured in points, with their intervals."""
    in_points = [row for row in judge.judge_claims(store) if row.n and row.answer.form in ("points", "distance")]
    rows = [row for row in in_points if row.answer.smallest_effect]
    tests = [(row.sentence, row.verdict, row.estimate) for row in rows]
    parameters, steps = map(max, zip(*(row.largest_run for row in rows), strict=True))
    budget = f"In networks of up to {parameters:,} parameters and runs of up to {steps:,} steps"
    return answer.claims(tests, budget, [record for row in rows for record in row.records])


def write(folder: Path, page: Path, store: Store) -> list[Path]:
    """Write each figure as `NAME.svg` and `NAME-dark.svg`, and `README.md`, which shows them; returns the paths."""
    paths, entries = [], []
    for name, picture in pictures(page, store).items():
        for end, text in (("", picture.svg), ("-dark", darkened(picture.svg))):
            paths.append(folder / f"{name}{end}.svg")
            write_whole(paths[-1], text)
        entries.append(picture.entry(name))
    write_whole(folder / "README.md", HEAD + "".join(entries))
    return [*paths, folder / "README.md"]
