"""Copies of the notebooks: students get no outputs and no worked solutions, of which each exercise has one."""

import re
from pathlib import Path

import nbformat
import pytest

from tpsnet_lib.cli.main import main
from tpsnet_lib.report import student_copies
from tpsnet_lib.tasks import worked_sections

PATHS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
CHAPTERS = [path for path in PATHS if "course.open_lab(" in path.read_text("utf-8")]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_students_copy_has_no_outputs_and_hides_the_solutions(path: Path, tmp_path: Path) -> None:
    assert main(["notebooks", "--student", str(tmp_path), "--only", path.stem]) == 0
    cells = nbformat.read(tmp_path / path.name, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in code)
    assert sum(student_copies.HIDE in cell.source for cell in code) == 1


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_exercise_has_a_worked_solution_that_the_notebook_does_not_show(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    sections, shown = worked_sections(), "".join(cell.source for cell in notebook.cells)
    tasks = dict(re.findall(r'(\w+) = course\.task\(\s*"([^"]+)"', shown))
    exercises = [cell.source for cell in notebook.cells if "exercise" in cell.metadata.get("tags", [])]
    assert 3 <= len(exercises) <= 5
    for source in exercises:
        (variable,) = re.findall(r"(\w+)\.check\(", source)
        assert sections[tasks[variable]].strip() not in shown


def test_names_of_worked_solutions_are_unique() -> None:
    texts = [path.read_text("utf-8") for path in sorted((PATHS[0].parent / "solutions").glob("*.py"))]
    assert sum(text.count("\n# %% ") for text in texts) == len(worked_sections())
