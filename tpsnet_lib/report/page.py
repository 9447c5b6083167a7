"""One self-contained HTML page: a landing part, the executed notebooks, and the records behind their figures."""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup
from markupsafe import Markup

from tpsnet_lib.errors import TpsnetError
from tpsnet_lib.plots import style
from tpsnet_lib.report import appendix
from tpsnet_lib.report.elements import ASSETS, ENVIRONMENT, Section
from tpsnet_lib.report.notebook_html import chapter
from tpsnet_lib.report.pictures import darkened_colours
from tpsnet_lib.report.sanitise import clean
from tpsnet_lib.report.tidy_html import number_figures, tidy
from tpsnet_lib.whole_files import write_whole

SIZE_LIMIT = 5 * 2**20  # bytes of a page, above which it warns
ACTIVE = ("script", "iframe", "object", "embed", "link", "meta", "base", "form")  # what a page that only shows lacks
POLICY = "Content-Security-Policy"
ADDRESSES = ("src", "href", "srcset", "poster", "action", "data", "background", "xlink:href")


def render(
    sections: Sequence[Section],
    notebooks: Sequence[Path],
    records: Sequence[Any],
    meta: Mapping[str, Any],
    closing: Sequence[Section] = (),
    tests: appendix.Tests | None = None,
    names: Mapping[str, str] | None = None,
) -> str:
    """The whole page as HTML: sections, the notebooks as chapters, and what closes it, folded.

    `tests` has the metrics of each test that was opened, and `names` what a record is called, both by a record's id.
    `meta` has `title`, and may have `question`; the rest of it (`started`, `profile` ...) are facts for the foot of the
    page, in the order given.

    Raises `TpsnetError` that lists every image without alternative text and every formula that cannot be read."""
    problems: list[str] = []
    around = [*sections, *closing]
    landing: list[BeautifulSoup] = []
    for section in around:
        soup = BeautifulSoup(clean(section.html), "html.parser")
        tidy(soup, f"section {section.id}", problems)
        landing.append(soup)
    figures = _number_across(landing)
    chapters = [chapter(path, problems, figures, notice=place == 0) for place, path in enumerate(notebooks)]
    shown = [replace(s, html=Markup(soup)) for s, soup in zip(around, landing, strict=True)]
    if problems:
        raise TpsnetError(f"the page has {len(problems)} fault(s): {'; '.join(problems)}")
    html = ENVIRONMENT.get_template("page.html.j2").render(
        title=meta["title"],
        question=meta.get("question"),
        facts=[(key.capitalize(), value) for key, value in meta.items() if value and key not in ("title", "question")],
        css=Markup((ASSETS / "page.css").read_text("utf-8") + _verdict_rules()),
        sections=shown[: len(sections)],
        closing=shown[len(sections) :],
        chapters=chapters,
        groups=appendix.groups(records, tests or {}, names or {}),
    )
    return _with_new_marked(_without_dangling_links(html), [r.id for r in records if appendix.is_fresh(r)])


def write(path: Path, html: str) -> Path:
    """Write the page, whole or not at all, after checking that it stands alone; says so on standard error if it is
    over 5 MB. Raises `TpsnetError` that lists what keeps it from standing alone."""
    if problems := faults(html):
        raise TpsnetError(f"{path.name} would not stand alone: {'; '.join(problems)}")
    size = len(html.encode("utf-8"))
    if size > SIZE_LIMIT:
        limit = SIZE_LIMIT / 2**20
        print(f"{path.name} has {size / 2**20:.1f} MB, over {limit:.0f} MB: use smaller figures", file=sys.stderr)
    write_whole(path, html)
    return path.resolve()


def faults(html: str) -> list[str]:
    """What keeps a page from standing alone: scripts, outside addresses, ids twice."""
    soup = BeautifulSoup(html, "html.parser")
    problems = [
        f"a <{tag.name}> element"
        for tag in soup(ACTIVE)
        if tag.name != "meta" or tag.get("http-equiv", POLICY) != POLICY
    ]
    ids: set[str] = set()
    for tag in soup.find_all(True):
        for name, value in tag.attrs.items():
            text = str(value).strip()
            followed = tag.name == "a" and name == "href" and text.startswith(("http://", "https://", "mailto:"))
            if name in ADDRESSES and not text.startswith(("#", "data:")) and not followed:
                problems.append(f"an outside address in <{tag.name} {name}={text[:80]!r}>")
            if name.startswith("on"):
                problems.append(f"a script in <{tag.name} {name}>")
            if name == "id" and text in ids:
                problems.append(f"the id {text!r} twice")
        ids.add(str(tag.get("id", "")))
        styles = str(tag.get("style", "")) + (tag.get_text() if tag.name == "style" else "")
        if re.search(r"@import|url\((?!\s*['\"]?(data:|#))", styles):
            problems.append(f"an outside address in the style of <{tag.name}>")
    return problems


def _number_across(parts: Sequence[BeautifulSoup]) -> dict[str, int]:
    """Number the figures and tables of several parts in one row; returns the numbers of the figures by their
    captions."""
    figures = {}
    for number, caption in enumerate([one for part in parts for one in part.select("figure > figcaption")], 1):
        figures[str(caption.contents[0]).strip()] = number
        if caption.parent is not None:
            caption.parent["id"] = f"figure-{number}"
    number_figures(parts)
    return figures


def _without_dangling_links(html: str) -> str:
    """Links into the page that lead nowhere (a record that is not listed) become plain text."""
    ids = set(re.findall(r'\bid="([^"]+)"', html))
    link = re.compile(r'<a href="#([^"]+)">(.*?)</a>', re.DOTALL)
    return link.sub(lambda found: found[0] if found[1] in ids else found[2], html)


def _with_new_marked(html: str, fresh: Iterable[str]) -> str:
    """Behind every link to a record that was made for this page, that no committed file has it."""
    known = "|".join(fresh)
    mark = r'\g<0> <small class="new">(new, not committed)</small>'
    return re.sub(rf'<a href="#record-(?:{known})">.*?</a>', mark, html) if known else html


def _verdict_rules() -> str:
    """The style rules that give a verdict's dot its colour on light and on dark paper."""
    light = "".join(f".{name.replace(' ', '-')}{{--verdict:{colour}}}" for name, colour in style.VERDICTS.items())
    return f"{light}@media(prefers-color-scheme:dark){{{darkened_colours(light)}}}"
