"""An executed notebook as a chapter of the page: through nbconvert, without scripts, addresses or loose ends."""

from __future__ import annotations

import base64
import io
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jinja2
from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString
from markupsafe import Markup

from tpsnet_lib.files import TpsnetError, brief
from tpsnet_lib.report.notebook_files import read_notebook
from tpsnet_lib.report.pictures import png_source, slim_svg, svg_source, with_dark
from tpsnet_lib.report.sanitise import check_depth, clean

ASSETS = Path(__file__).resolve().parent / "assets"
NO_ALT = ("", "No description has been provided for this image")  # the latter is nbconvert's
MARKS = "papermill-error-cell-tag"  # of the cells that papermill adds to a failed notebook
LEFT_OUT = {
    "parameters",
    "injected-parameters",
    "exercise",
    "solution",
    "task",
    "plumbing",
    "game",
    MARKS,
}  # tags of cells that stay in the notebook
ACTIVE = ("script", "iframe", "object", "embed", "link", "meta", "base", "form")  # what a page that only shows lacks
COLOURED = frozenset(re.findall(r"\.highlight \.(\w+)", (ASSETS / "page.css").read_text("utf-8")))
ASIDE = re.compile(
    r"Task \d|Afterwards you|Predict|A hint for your prediction|(What to )?[Rr]ead next|Yours to change"
    r"|\d+\. The design game"
)  # said to a student
LONG = 12  # rows of a chapter's table, above which it folds
NUMBER = re.compile(r"[-+−±]?\s*[\d.,]+(e[-+]?\d+)?\s*(%|s|ms|M)?|nan|–|", re.IGNORECASE)


@dataclass(frozen=True)
class Chapter:
    """An executed notebook as HTML, with what the table of contents needs: ids and texts of its headings."""

    id: str
    title: str
    eyebrow: str
    html: Markup
    headings: list[tuple[str, str]]


def chapter(path: Path, problems: list[str], notice: bool = True) -> Chapter:
    """One executed notebook through nbconvert, its headings one level down and its ids its own.

    `notice`: whether it shows the line on the copy of CIFAR-10, which a page says once. Raises `TpsnetError` that names
    a file that is no notebook, or that cannot be shown."""
    notebook = read_notebook(path)
    try:
        return _chapter(path, notebook, problems, notice)
    except Exception as error:  # Pillow, nbconvert and jinja raise dozens of types
        raise TpsnetError(f"{path} cannot be shown ({brief(error)}): execute it again") from error


def _chapter(path: Path, notebook: Any, problems: list[str], notice: bool) -> Chapter:
    number, _, name = path.stem.partition("_")
    prefix = f"nb{number}" if number.isdigit() else f"nb-{_slug(path.stem)}"
    _prepare(notebook)
    for text in _html_of(notebook):
        check_depth(text)  # before nbconvert, whose parser takes minutes
    html, _ = _exporter(path.name, problems).from_notebook_node(notebook)
    soup = BeautifulSoup(clean(html), "html.parser")
    leave_out_asides(soup)
    for line in [] if notice else soup.select(".output_markdown > p"):
        if line.get_text().startswith("Data: CIFAR-10"):
            line.decompose()
    fold_shown_code(soup)
    fold_long_tables(soup)
    tidy(soup, path.name, problems)
    number_figures(soup, f"{int(number)}." if number.isdigit() else "")
    title, headings = _headings(soup, prefix)
    return Chapter(
        prefix, title or name.replace("_", " ").capitalize(), f"Notebook {path.name}", Markup(soup), headings
    )


def _prepare(notebook: Any) -> None:
    """Leave out what a page cannot show (widgets, progress, papermill's marks) and find the images' descriptions."""
    notebook.cells = [cell for cell in notebook.cells if not LEFT_OUT.intersection(cell.metadata.get("tags", []))]
    for position, cell in enumerate(notebook.cells, 1):
        cell.metadata["position"] = position
        if cell.cell_type != "code":
            continue
        outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        cell.outputs = [output for output in outputs if not any("widget" in kind for kind in output.get("data", {}))]
        _captions(cell)
        for output in cell.outputs:
            if "text" in output:  # of a line that was rewritten in place, what stood last
                output.text = "\n".join(_last_written(line) for line in output.text.split("\n"))
            for kind in [kind for kind in output.get("data", {}) if kind.startswith("image/")]:
                output.metadata.update(_image_metadata(cell, output, kind))
                if kind == "image/svg+xml":
                    output.data[kind] = with_dark(slim_svg(output.data[kind]))


def _html_of(notebook: Any) -> Iterator[str]:
    for cell in notebook.cells:
        yield cell.source if cell.cell_type == "markdown" else ""
        for output in cell.get("outputs", []):
            yield from (str(output.get("data", {}).get(kind, "")) for kind in ("text/html", "text/markdown"))


def _last_written(line: str) -> str:
    """What stands in a line that was rewritten in place."""
    body = line.removesuffix("\r")
    return body.rpartition("\r")[2] + line[len(body) :]


def _captions(cell: Any) -> None:
    """An image that is followed by one line in italics (so a notebook shows a caption) takes it as its caption."""
    for image, after in itertools.pairwise(list(cell.outputs)):
        line = re.fullmatch(r"\*([^*\n]+)\*", after.get("data", {}).get("text/markdown", "").strip())
        if line and any(kind.startswith("image/") for kind in image.get("data", {})):
            image.metadata["caption"] = line[1]
            cell.outputs.remove(after)


def _image_metadata(cell: Any, output: Any, kind: str) -> dict[str, Any]:
    """Alt text, caption, records and width of an image: from the output's metadata, else the cell's, else its title."""
    layers = [output.metadata.get(kind, {}), output.metadata, cell.metadata]
    found = {
        name: next((layer[name] for layer in layers if layer.get(name)), "")
        for name in ("alt", "caption", "provenance", "records", "width")
    }
    title, wide = _look_inside(kind, output.data[kind])
    return {**found, "alt": found["alt"] or title, "wide": wide}


def _look_inside(kind: str, data: str) -> tuple[str, bool]:
    """An image's own title (`<title>` of an SVG, the text chunk `Title` of a PNG: matplotlib's `savefig` writes them
    from `metadata={"Title": ...}`), and whether it is at least twice as wide as high."""
    if kind == "image/svg+xml":
        title = re.search(r"<(?:dc:)?title>\s*(.+?)\s*</", data, re.DOTALL)
        box = re.search(r'viewBox="\S+ \S+ (\S+) (\S+)"', data)
        return title[1] if title else "", box is not None and float(box[1]) >= 2 * float(box[2])
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return str(image.info.get("Title", "")), image.width >= 2 * image.height


def _exporter(name: str, problems: list[str]) -> Any:
    """nbconvert's `basic` template under ours, with formulas turned into MathML, which needs no script."""
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        def inline_math(self, body: str) -> str:
            return _mathml(body, "inline", name, problems)

        def block_math(self, body: str) -> str:
            return f'<span class="formula">{_mathml(body, "block", name, problems)}</span>'

        def latex_environment(self, name: str, body: str) -> str:
            return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")

    @jinja2.pass_context
    def markdown2html(context: Any, source: str) -> str:
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = Renderer(escape=False, attachments=attachments, exclude_anchor_links=True)
        return MarkdownWithMath(renderer=renderer).render(source)

    return HTMLExporter(  # type: ignore[no-untyped-call]
        template_name="basic",
        template_file=str(ASSETS / "notebook.html.j2"),
        filters={"markdown2html": markdown2html, "svg_source": svg_source, "png_source": png_source},
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )


def _mathml(tex: str, display: str, name: str, problems: list[str]) -> str:
    from latex2mathml.converter import convert

    try:
        math = BeautifulSoup(convert(tex.strip(), display=display), "html.parser")
    except Exception as error:  # latex2mathml raises a dozen types
        problems.append(f"{name}: formula {tex.strip()!r} cannot be read ({type(error).__name__})")
        return f"<code>{escape(tex)}</code>"
    if unknown := re.search(r"\\[a-zA-Z]+", math.get_text()):  # what it does not know it sets as it stands
        problems.append(f"{name}: formula {tex.strip()!r} has the unknown command {unknown[0]}")
    for tag in math("math"):
        del tag["xmlns"]  # an address, which HTML does not need
    for tag in math(["msub", "msubsup"]) if display == "block" else []:
        if tag.contents[0].get_text() in "∑∏":  # latex2mathml sets the limits of a displayed sum beside it
            tag.name = {"msub": "munder", "msubsup": "munderover"}[tag.name]
    return str(math)


def leave_out_asides(soup: BeautifulSoup) -> None:
    """In place: tasks, questions to predict, and what a chapter teaches, takes and recommends stay in the notebook.

    A task is the rest of its paragraph, or its heading with all that follows to the next; a question ends with `?`."""
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
            summary = soup.new_tag("summary", string=f"The table: {rows} rows")
            table.wrap(soup.new_tag("details", attrs={"class": "folded"})).insert(0, summary)


def tidy(soup: BeautifulSoup, name: str, problems: list[str]) -> None:
    """In place, in HTML that `clean` has read: links to notebooks lead to chapters, tables scroll, with their numbers
    to the right; an image without alternative text is noted."""
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
    for found in soup("table"):
        _tidy_table(soup, found)
    for word in soup.select(".highlight span[class]"):  # a word of code that the style sheet gives no colour
        if not COLOURED.intersection(word["class"]):
            word.unwrap()


def _local_link(link: Tag) -> None:
    """A link to another notebook leads to its chapter; one to a file beside the notebook becomes text."""
    href = str(link["href"])
    if other := re.fullmatch(r"(?:\./)?(\d\d)_\w+\.ipynb(#.*)?", href):
        link["href"] = f"#nb{other[1]}"
    elif not re.match(r"#|data:|https?://|mailto:", href):
        link.unwrap()


def number_figures(soup: BeautifulSoup, prefix: str) -> None:
    """Give every figure with a caption its number, such as `Figure 2.3.`, and every table with one `Table 2.1.`."""
    for kind, selector in (("Figure", "figure > figcaption"), ("Table", "table > caption:not(details *)")):
        for count, caption in enumerate(soup.select(selector), 1):
            label = soup.new_tag("b", attrs={"class": "label"})
            label.string = f"{kind} {prefix}{count}. "
            caption.insert(0, label)


def _tidy_table(soup: BeautifulSoup, found: Tag) -> None:
    for tag in [found, *found("tr")]:
        for attribute in ("border", "style", "class"):
            tag.attrs.pop(attribute, None)
    body = [row.find_all(["td", "th"]) for row in found("tr") if row.find("td")]
    heads = [row.find_all("th") for row in found("tr") if not row.find("td")]
    for column in range(max((len(row) for row in body), default=0)):
        cells = [row[column] for row in body if len(row) > column and row[column].name == "td"]
        if cells and all(NUMBER.fullmatch(cell.get_text(strip=True)) for cell in cells):
            for cell in [*cells, *(row[column] for row in heads if len(row) > column)]:
                cell["class"] = " ".join([*(cell.get("class") or ()), "number"])
    for head in found("th"):
        head["scope"] = "col" if head.find_parent("thead") else "row"
    for corner in [head for head in found("th") if not head.get_text(strip=True)]:
        corner.name, corner.attrs = "td", {}  # a head without a text says nothing
    if found.find_parent(class_="scroll") is None:
        found.wrap(soup.new_tag("div", attrs={"class": "scroll", "tabindex": "0"}))


def _headings(soup: BeautifulSoup, prefix: str) -> tuple[str, list[tuple[str, str]]]:
    """Make every id the notebook's own, lower its headings by a level, and return its title and sections."""
    for tag in soup.find_all(id=True):
        tag["id"] = f"{prefix}-{tag['id']}"
    title, taken, headings = "", {prefix}, []
    known: dict[str, str] = {}
    for tag in soup(re.compile("^h[1-6]$")):
        text, level = tag.get_text(" ", strip=True), int(tag.name[1])
        if level == 1 and not title:
            title, known[text.replace(" ", "-")] = text, prefix
            tag.decompose()
            continue
        base = f"{prefix}-{_slug(text)}"
        chosen = next(name for n in range(1, 1000) if (name := f"{base}-{n}" if n > 1 else base) not in taken)
        taken.add(chosen)
        known[text.replace(" ", "-")] = tag["id"] = chosen
        tag.name = f"h{min(6, level + 1)}"
        if level <= 2:
            headings.append((chosen, text))
    for link in soup("a", href=re.compile("^#(?!record-|nb)")):
        target = unquote(str(link["href"])[1:])
        link["href"] = f"#{known.get(target, f'{prefix}-{target}')}"
    return title, headings


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "part"
