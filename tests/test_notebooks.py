"""The five notebooks keep their promises: parameters, short cells, compared outputs, and no other outputs."""

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from nbconvert import HTMLExporter, SlidesExporter

ROOT = Path(__file__).parent.parent
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
COMMON = {"profile", "dataset", "data", "store"}


def test_there_are_five_in_order() -> None:
    assert [path.stem[:2] for path in PATHS] == ["01", "02", "03", "04", "05"]


def code_of(path: Path) -> list[Any]:
    """The code cells of a notebook."""
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def imported(trees: list[ast.Module]) -> dict[str, Any]:
    """What a notebook imports from the library, by the name that it has there."""
    found = {}
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("tpsnet_lib"):
            for alias in node.names:
                home = importlib.import_module(str(node.module))
                whole = f"{node.module}.{alias.name}"
                value = getattr(home, alias.name) if hasattr(home, alias.name) else importlib.import_module(whole)
                found[alias.asname or alias.name] = value
    return found


def library_functions(trees: list[ast.Module]) -> set[str]:
    """The functions of the library that cells call, and methods of the lab; a class, or what it returns, is none."""
    known, called = imported(trees), set()
    for node in (node.func for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)):
        first, _, name = ast.unparse(node).partition(".")
        value = getattr(known.get(first), name, None) if name else known.get(first)
        if inspect.isfunction(value):
            called.add(f"{value.__module__}.{value.__qualname__}")
        elif first == "lab" and name.isidentifier():
            called.add(f"lab.{name}")
    return called


def computing_share(trees: list[ast.Module]) -> float:
    """The share of lines, as `ast` writes them, that compute: arithmetic, comparisons, calls of torch, numpy, pandas.

    Imports, and what only prints, draws or says something, compute nothing."""
    lines = sum(len(ast.unparse(tree).splitlines()) for tree in trees)
    found = set()
    for number, tree in enumerate(trees):
        plain = ast.parse(ast.unparse(tree))
        for statement in plain.body:
            if isinstance(statement, ast.Expr | ast.Import | ast.ImportFrom):
                continue
            for node in ast.walk(statement):
                call = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
                libraries = ("torch.", "np.", "pd.", "F.", "nn.")
                if isinstance(node, ast.BinOp | ast.Compare) or call.startswith(libraries):
                    found.add((number, node.lineno))
    return len(found) / lines


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_science_is_in_the_cells(path: Path) -> None:
    trees = [ast.parse(cell.source) for cell in code_of(path) if "parameters" not in cell.metadata.get("tags", [])]
    functions = library_functions(trees)
    assert 20 <= len(functions) <= 40, sorted(functions)
    assert 0.15 <= computing_share(trees) < 1


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_chapter_is_short_in_short_cells_and_its_outputs_are_those_that_are_compared(path: Path) -> None:
    cells, code = nbformat.read(path, as_version=4).cells, code_of(path)
    assert 30 <= len(cells) <= 40
    kinds = [cell.metadata.get("slideshow", {}).get("slide_type") for cell in cells]
    assert kinds[0] == "slide"
    assert kinds.count("slide") >= 6
    for cell, kind in zip(cells, kinds, strict=True):
        assert cell.source.startswith("#") or kind != "slide", f"a slide begins within a section: {cell.source[:80]}"
    figures = sum(cell.source.count("lab.show(") + cell.source.count("course.explore(") for cell in code)
    assert 4 <= figures <= 8
    assert max(len(cell.source.splitlines()) for cell in code) <= 15
    assert max(len(line) for cell in code for line in cell.source.splitlines()) <= 95
    compared = [cell for cell in code if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert len(compared) >= 3
    for cell in code:
        assert bool(cell.outputs) == (cell in compared), cell.source
        assert cell.execution_count is not None or not cell.outputs, "nbval takes outputs without a count for an error"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_parameters_cell_has_the_values_of_the_quick_profile(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    (cell,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    defaults = {
        node.targets[0].id: ast.literal_eval(node.value)  # type: ignore[attr-defined]
        for node in ast.parse(cell.source).body
        if isinstance(node, ast.Assign)
    }
    quick = yaml.safe_load((ROOT / "report" / "profiles.yaml").read_text())["profiles"]["quick"]
    asked = {**quick["parameters"], **quick["notebooks"][path.stem]["parameters"]}
    assert defaults.keys() >= COMMON
    assert {name: defaults[name] for name in asked} == asked


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_lesson_plan_names_every_section_and_task_and_the_head_gives_the_measured_seconds(path: Path) -> None:
    number, plan = path.stem[:2], (ROOT / "notebooks" / "README.md").read_text("utf-8")
    lesson = plan.split(f"| {number} | minutes |")[1].split("Cut: ")[0]
    rows = re.findall(r"^\| (.+) \| (\d+) \|$", lesson, re.MULTILINE)
    assert sum(int(minutes) for _, minutes in rows) == 90
    cells = nbformat.read(path, as_version=4).cells
    sections = re.findall(r"^## (\d\. .+)$", "\n".join(cell.source for cell in cells), re.MULTILINE)
    planned = [name for name, _ in rows if re.match(r"\d\. ", name)]
    assert len(sections) == len(planned)
    assert all(name.startswith(section) for name, section in zip(planned, sections, strict=True))
    tasks = sum("exercise" in cell.metadata.get("tags", []) for cell in cells)
    assert f"Task {tasks}" in lesson or f"Tasks 1 to {tasks}" in lesson
    assert f"Task {tasks + 1}" not in lesson
    (seconds,) = re.findall(rf"^\| `quick` .*?\|{' (?:[0-9]+) [|]' * (int(number) - 1)} (\d+) \|", plan, re.MULTILINE)
    assert f"90 minutes, planned in `notebooks/README.md`; {seconds} s of computing" in cells[0].source
    quick = yaml.safe_load((ROOT / "report" / "profiles.yaml").read_text())["profiles"]["quick"]
    assert quick["notebooks"][path.stem]["seconds"] == int(seconds)


@pytest.mark.parametrize("path", PATHS[:3], ids=lambda path: path.stem)
def test_what_chooses_does_not_open_the_test_set(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert "load_test" not in cell.source
            assert "open_test" not in cell.source
            assert "test_fingerprint" not in cell.source


@pytest.mark.parametrize(
    ("exporter", "kind", "ending"), [(HTMLExporter, "html", ".html"), (SlidesExporter, "slides", ".slides.html")]
)
def test_the_template_gives_figures_their_alternative_text_and_links_to_pages(
    exporter: type[HTMLExporter], kind: str, ending: str
) -> None:
    drawing, about = "<svg xmlns='http://www.w3.org/2000/svg'/>", {"image/svg+xml": {"alt": 'Loss, "falling".'}}
    output = nbformat.v4.new_output("display_data", {"image/svg+xml": drawing}, metadata=about)
    link = "[there](03_random_search.ipynb#cell-id=ranking), [all](03_random_search.ipynb)"
    said = nbformat.v4.new_output("display_data", {"text/markdown": link})
    cells = [nbformat.v4.new_code_cell("draw()", outputs=[output, said]), nbformat.v4.new_markdown_cell(link)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    html, _ = exporter(template_file=str(ROOT / "notebooks" / "alt_text.html.j2")).from_notebook_node(notebook)
    assert ('class="reveal"' in html) == (kind == "slides")
    assert re.findall(r"<img alt=['\"](.+?)['\"] src=['\"]data:image/svg", html) == ['Loss, "falling".']
    links = [f"03_random_search{ending}#cell-id=ranking", f"03_random_search{ending}"]
    assert re.findall(r'href="(03_[^"]+)"', html) == 2 * links
    command = rf"--to {kind} .*--template-file notebooks/alt_text\.html\.j2 report"
    assert re.search(command, (ROOT / "notebooks" / "README.md").read_text("utf-8"))
