"""Copies of the notebooks: for students, without worked solutions; and solved ones, with the answers in their place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from tpsnet_lib.files import write_whole
from tpsnet_lib.report import run_notebooks
from tpsnet_lib.tasks import worked_sections

HIDE = "course.hide_solutions()"
TASK = re.compile(r'(\w+) = course\.task\(\s*"([^"]+)"')


def student_copy(notebook: Any) -> Any:
    """The notebook without outputs, in which an exercise stays unanswered until its student answers it."""
    copy = deepcopy(notebook)
    for cell in copy.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if "course.open(" in cell.source:
                cell.source = f"{cell.source}\n{HIDE}"
    return copy


def solved_copy(notebook: Any) -> Any:
    """The student's copy with each worked solution before the line that checks the exercise."""
    copy, sections = student_copy(notebook), worked_sections()
    names = {variable: task for cell in copy.cells for variable, task in TASK.findall(cell.source)}
    for cell in copy.cells:
        if "exercise" in cell.metadata.get("tags", []):
            for variable in re.findall(r"(\w+)\.check\(", cell.source):
                line_of_check = rf"^(.*\b{variable}\.check\(.*)$"
                before, line, after = re.split(line_of_check, cell.source, maxsplit=1, flags=re.MULTILINE)
                cell.source = f"{before}{sections[names[variable]].strip()}\n\n{line}{after}"
    return copy


def write_student_copies(out: Path, only: Sequence[str] = (), folder: Path | None = None) -> list[Path]:
    """Write the students' copies of the notebooks to a folder; returns their paths.

    Raises `ConfigError` for a choice that fits no notebook."""
    import nbformat

    paths = []
    for path in run_notebooks.choose(only, folder):
        copy = student_copy(nbformat.read(path, as_version=4))  # type: ignore[no-untyped-call]
        target = out.resolve() / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, nbformat.writes(copy))  # type: ignore[no-untyped-call]
        paths.append(target)
    return paths
