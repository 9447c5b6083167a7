"""An executed notebook as a chapter of the page: through nbconvert, without scripts, addresses or loose ends."""

import base64
import io
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jinja2
from bs4 import BeautifulSoup
from markupsafe import Markup

from tpsnet_lib.errors import TpsnetError, brief
from tpsnet_lib.report.elements import ASSETS
from tpsnet_lib.report.pictures import png_source, slim_svg, svg_source, with_dark
from tpsnet_lib.report.run_notebooks import read_notebook
from tpsnet_lib.report.sanitise import check_depth, clean
from tpsnet_lib.report.tidy_html import (
    fold_long_tables,
    fold_shown_code,
    leave_out_asides,
    link_records,
    number_figures,
    refer_to_shown,
    tidy,
)

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


@dataclass(frozen=True)
class Chapter:
    """An executed notebook as HTML, with what the table of contents needs: ids and texts of its headings."""

    id: str
    title: str
    eyebrow: str
    html: Markup
    headings: list[tuple[str, str]]


def chapter(path: Path, problems: list[str], shown: Mapping[str, int] | None = None, notice: bool = True) -> Chapter:
    """One executed notebook through nbconvert, its headings one level down and its ids its own.

    `shown`: the numbers of the figures that stand before the chapters, by their captions; a chapter refers to these.
    `notice`: whether it shows the line on the copy of CIFAR-10, which a page says once. Raises `TpsnetError` that names
    a file that is no notebook, or that cannot be shown."""
    notebook = read_notebook(path)
    try:
        return _chapter(path, notebook, problems, shown or {}, notice)
    except Exception as error:  # Pillow, nbconvert and jinja raise dozens of types
        raise TpsnetError(f"{path} cannot be shown ({brief(error)}): execute it again") from error


def _chapter(path: Path, notebook: Any, problems: list[str], shown: Mapping[str, int], notice: bool) -> Chapter:
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
    link_records(soup)
    tidy(soup, path.name, problems)
    title, headings = _headings(soup, prefix)  # which makes the chapter's ids its own: a link out of it comes after
    refer_to_shown(soup, shown)
    number_figures([soup], f"{int(number)}." if number.isdigit() else "")
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
            if "text/markdown" in output.get("data", {}):
                output.metadata["rows"] = _in_order(output.metadata.get("rows"))
            if "text" in output:  # of a line that was rewritten in place, what stood last
                output.text = "\n".join(_last_written(line) for line in output.text.split("\n"))
            for kind in [kind for kind in output.get("data", {}) if kind.startswith("image/")]:
                output.metadata.update(_image_metadata(cell, output, kind))
                if kind == "image/svg+xml":
                    output.data[kind] = with_dark(slim_svg(output.data[kind]))
        for output in [output for output in cell.outputs if output.get("metadata", {}).get("records")][:1]:
            output.metadata["id"] = f"data-{cell.get('id', position)}"  # what a link leads to


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
    given = {
        name: next((layer[name] for layer in layers if layer.get(name)), "")
        for name in ("alt", "caption", "provenance", "records", "rows", "width", "narrow")
    }
    title, wide = _look_inside(kind, output.data[kind])
    narrow = svg_source(with_dark(slim_svg(given["narrow"]))) if given["narrow"] else ""
    described = {"alt": given["alt"] or title, "wide": wide, "narrow": narrow, "rows": _in_order(given["rows"])}
    return {**given, **described}


def _in_order(rows: Any) -> dict[str, Any]:
    """Ids of records by the name of a row, in the order of the numbers in the names, which a notebook's file loses."""
    named = rows if isinstance(rows, dict) else {}  # of a hostile notebook anything
    return {name: named[name] for name in sorted(named, key=_by_number)}


def _by_number(name: str) -> list[tuple[int, str]]:
    """An order in which draw 10 comes after draw 9."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


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

    return HTMLExporter(
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
