"""Copies of the notebooks for students: without outputs, and without the worked solutions."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from tpsnet_lib.files import write_whole
from tpsnet_lib.report import run_notebooks

HIDE = "course.hide_solutions()"


def student_copy(notebook: Any) -> Any:
    """The notebook without outputs, in which an exercise stays unanswered until its student answers it."""
    copy = deepcopy(notebook)
    for cell in copy.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if "course.open_lab(" in cell.source:
                cell.source = f"{cell.source}\n{HIDE}"
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
