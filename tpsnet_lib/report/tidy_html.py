"""The HTML of a chapter or of a section made fit for the page: what it leaves out, folds, links and numbers."""

import re
from collections.abc import Mapping, Sequence
from html import escape

from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString

from tpsnet_lib.report.elements import ASSETS

NO_ALT = ("", "No description has been provided for this image")  # the latter is nbconvert's
COLOURED = frozenset(re.findall(r"\.highlight \.(\w+)", (ASSETS / "page.css").read_text("utf-8")))
ASIDE = re.compile(
    r"Task \d|Afterwards you|Predict|A hint for your prediction|(What to )?[Rr]ead next|Summary$|Yours to change"
    r"|\d+\. The design game"
)  # said to a student
LONG = 6  # rows of a chapter's table, above which it folds
WIDE = 5  # columns, from which on a table is too wide for a phone; or three, if a cell holds `A_SENTENCE` of letters
A_SENTENCE = 60
RECORD = re.compile(r"\b[0-9a-f]{12}\b")
WITH_INTERVAL = re.compile(r"[-+−]?\d.{,36}")  # a number, maybe with its interval, which stays in one line
NUMBER = re.compile(r"[-+−±]?\s*[\d.,]+(e[-+]?\d+)?\s*(%|s|ms|M)?|nan|–|", re.IGNORECASE)


def leave_out_asides(soup: BeautifulSoup) -> None:
    """In place: tasks, questions to predict, and what a chapter teaches, takes and recommends stay in the notebook.

    A task is the rest of its paragraph, or its heading with all that follows to the next; a question ends with `?`.
    The method of an interval stands with the records of its sentence."""
    for fold in soup.select("details.method"):
        fold.decompose()
    for heading in soup(re.compile("^h[1-6]$"), string=ASIDE):
        for part in list(heading.next_siblings):
            if isinstance(part, Tag) and re.match("h[1-6]$", part.name):
                break
            part.extract()
        heading.decompose()
    for word in soup.select(".prose p > strong, .prose p > em"):
        if not ASIDE.match(word.get_text()):
            continue
        question = word.name == "em"
        for part in list(word.next_siblings) if not question or "?" not in word.get_text() else []:
            end = str(part).find("?") + 1 if question and isinstance(part, NavigableString) else 0
            if end:
                part.replace_with(str(part)[end:])
                break
            part.extract()
        word.extract()
    for table in soup.select(".prose table"):
        if table.find("strong", string="Reads"):
            table.decompose()
    for paragraph in soup.select(".prose p"):
        if not paragraph.get_text(strip=True) and not paragraph.find("img"):
            paragraph.decompose()


def fold_shown_code(soup: BeautifulSoup) -> None:
    """In place: code that a cell shows (the source of a function, a file) waits under its first line, as cells do."""
    for code in soup.select(".output .highlight"):
        lines = code.get_text().strip().splitlines()
        first, more = (
            soup.new_tag("code", string=lines[0] if lines else ""),
            soup.new_tag("span", attrs={"class": "more"}),
        )
        more.string = f"{len(lines)} lines"
        summary = soup.new_tag("summary")
        summary.extend([first, more])
        code.wrap(soup.new_tag("details", attrs={"class": "code"})).insert(0, summary)


def fold_long_tables(soup: BeautifulSoup) -> None:
    """In place: a table that a cell shows and that is longer than `LONG` rows waits under the number of its rows."""
    for table in soup.select(".output table"):
        if (rows := len(table.select("tbody tr"))) > LONG:
            step = table.find_parent(class_="step")
            if isinstance(step, Tag) and not step.find(id=(name := str(step.get("id")).replace("cell-", "table-", 1))):
                table["id"] = name  # what a link leads to
            summary = soup.new_tag("summary", string=f"The table: {rows} rows")
            table.wrap(soup.new_tag("details", attrs={"class": "folded"})).insert(0, summary)


def link_records(soup: BeautifulSoup) -> None:
    """In place: an id of a record that a sentence or a table names leads to it; the page unlinks what it lacks."""
    for text in soup(string=RECORD):
        if text.find_parent(["a", "pre", "summary"]) is None:
            linked = RECORD.sub(r'<a href="#record-\g<0>">\g<0></a>', escape(text))
            text.replace_with(BeautifulSoup(linked, "html.parser"))


def tidy(soup: BeautifulSoup, name: str, problems: list[str]) -> None:
    """In place, in HTML that `clean` has read: links to notebooks lead to chapters, tables scroll, or are cards on a
    phone, with their numbers to the right; an image without alternative text is noted."""
    for tag in [*soup("img", src=False), *soup("a", href=False)]:  # what `clean` has left of a hostile one
        tag.unwrap()
    for image in soup("img"):
        if "prefers-color-scheme" in str(image["src"]):
            image["class"] = " ".join([*(image.get("class") or ()), "adapts"])  # needs no light card in the dark
        if str(image.get("alt", "")).strip() in NO_ALT:
            cell = image.find_parent(attrs={"data-cell": True})
            place = f"{name}, cell {cell['data-cell']}" if cell else name
            problems.append(f"{place}: an image without alternative text")
    for code in soup("pre"):
        code["tabindex"] = "0"  # what may scroll is reached by the keyboard
    for link in soup("a", href=True):
        _local_link(link)
    for table in soup("table"):
        _tidy_table(soup, table)
    for word in soup.select(".highlight span[class]"):  # a word of code that the style sheet gives no colour
        if not COLOURED.intersection(word["class"]):
            word.unwrap()


def _local_link(link: Tag) -> None:
    """A link to another notebook leads to its chapter; one to a file beside the notebook becomes text."""
    href = str(link["href"])
    if other := re.fullmatch(r"(?:\./)?(\d\d)_\w+\.ipynb(?:#(data-|cell-id=)?.*)?", href):
        link["href"] = f"#nb{other[1]}-{href.partition('#')[2]}" if other[2] else f"#nb{other[1]}"
    elif not re.match(r"#|data:|https?://|mailto:", href):
        link.unwrap()


def refer_to_shown(soup: BeautifulSoup, shown: Mapping[str, int]) -> None:
    """In place: a figure that stands before the chapters, by its caption, gives way to a link to its number there."""
    for caption in soup.select("figure > figcaption"):
        number = shown.get(str(caption.contents[0]).strip())
        if number is not None and caption.parent is not None:
            link = soup.new_tag("a", attrs={"href": f"#figure-{number}"}, string=f"Figure {number}")
            paragraph = soup.new_tag("p")
            paragraph.extend([link, " stands above."])
            caption.parent.replace_with(paragraph)


def number_figures(parts: Sequence[BeautifulSoup], prefix: str = "") -> None:
    """Number the figures with captions, such as `Figure 2.3.`, through all parts, and the tables, `Table 2.1.`.

    A folded table, which is not printed, has no number."""
    for kind, selector in (("Figure", "figure > figcaption"), ("Table", "table > caption:not(details *)")):
        captions = [(soup, caption) for soup in parts for caption in soup.select(selector)]
        for count, (soup, caption) in enumerate(captions, 1):
            caption.insert(0, soup.new_tag("b", attrs={"class": "label"}, string=f"{kind} {prefix}{count}. "))


def _tidy_table(soup: BeautifulSoup, table: Tag) -> None:
    """In place: a table without the look that pandas gives it; its numbers are aligned, and it fits a phone."""
    for tag in [table, *table("tr")]:
        for attribute in ("border", "style", "class"):
            tag.attrs.pop(attribute, None)
    for text in table(string=re.compile("\u00a0")):  # in JupyterLab they keep a number and its interval in one line
        text.replace_with(str(text).replace("\u00a0", " "))
    for cell in table("td"):
        if WITH_INTERVAL.fullmatch(cell.get_text(strip=True)):
            _add_class(cell, "whole")
    body = [row.find_all(["td", "th"]) for row in table("tr") if row.find("td")]
    heads = [row.find_all("th") for row in table("tr") if not row.find("td")]
    _mark_numbers(body, heads)
    for head in table("th"):
        head["scope"] = "col" if head.find_parent("thead") else "row"
    for corner in [head for head in table("th") if not head.get_text(strip=True)]:
        corner.name, corner.attrs = "td", {}  # a head without a text says nothing
    longest = max((len(cell.get_text()) for row in body for cell in row), default=0)
    fewest = 3 if longest > A_SENTENCE else WIDE
    if heads and len(heads[-1]) >= fewest:
        _make_cards(table, body)
    for name in table(string=re.compile(r"\w_\w")):  # a long name may go on in the next line
        *parts, last = str(name).split("_")
        broken = [piece for part in parts for piece in (f"{part}_", soup.new_tag("wbr"))]
        name.replace_with(*broken, last)
    if table.find_parent(class_="scroll") is None:
        table.wrap(soup.new_tag("div", attrs={"class": "scroll", "tabindex": "0"}))


def _mark_numbers(body: Sequence[Sequence[Tag]], heads: Sequence[Sequence[Tag]]) -> None:
    """In place: the cells of a column that holds numbers alone, and its heads, are of the class `number`."""
    for column in range(max((len(row) for row in body), default=0)):
        cells = [row[column] for row in body if len(row) > column and row[column].name == "td"]
        if cells and all(NUMBER.fullmatch(cell.get_text(strip=True)) for cell in cells):
            for cell in [*cells, *(row[column] for row in heads if len(row) > column)]:
                _add_class(cell, "number")


def _make_cards(table: Tag, body: Sequence[Sequence[Tag]]) -> None:
    """In place: a table that is a card a row on a phone, each cell behind the name of its column."""
    table["class"] = "cards"
    names = [head.get_text(" ", strip=True) for head in table("tr")[0].find_all(["td", "th"])]
    for row in body:
        for cell, name in zip(row, names, strict=False):
            cell["data-label"] = name
            if cell.get_text(strip=True) == "–":
                _add_class(cell, "empty")


def _add_class(tag: Tag, name: str) -> None:
    tag["class"] = " ".join([*filter(None, tag.get_attribute_list("class")), name])
