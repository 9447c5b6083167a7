"""Copies of the notebooks for students: without outputs, and without the worked solutions."""

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from tpsnet_lib.chapter_copies import MARK, digest
from tpsnet_lib.errors import ConfigError
from tpsnet_lib.profiles import load_profile
from tpsnet_lib.report import run_notebooks
from tpsnet_lib.whole_files import write_whole

HIDE = "course.hide_solutions()  # nothing to do here: worked solutions stay hidden in this copy"


def student_copy(notebook: Any) -> Any:
    """The notebook without outputs, in which an exercise stays unanswered until its student answers it.

    Below each exercise stands a cell that fails until its check has passed; where an answer fails before its check,
    Run All goes on with the worked function. It carries the metadata of nbgrader, under the name of the task, by which
    its worked solution is found too, and so do the cells that check, which are locked. The exercise has none: nbgrader
    would empty it when it makes an assignment."""
    copy, cells = deepcopy(notebook), []
    copy.metadata[MARK] = digest(notebook)
    tasks = dict(re.findall(r'(\w+) = course\.task\(\s*"([^"]+)"', "\n".join(cell.source for cell in copy.cells)))
    for cell in copy.cells:
        cells.append(cell)
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if "course.open_lab(" in cell.source:
                cells.append(_locked(HIDE, "hide-solutions"))
            if "task" in tags:
                cell.metadata |= {"nbgrader": _nbgrader(cell.id), "cellView": "form"}  # which folds it on Colab
        if "exercise" in tags:
            cell.metadata["tags"] = [*tags, "raises-exception"]  # Run All goes on after an answer that fails
            ((answer, task),) = re.findall(r"(\w+) = (\w+)\.check\(", cell.source)
            name = re.sub(r"[^a-z0-9]+", "-", tasks[task].lower()).strip("-")
            is_code = re.search(r"^(def|class) ", cell.source, re.MULTILINE)
            comment = "  # the worked one if yours failed, for the cells below" if is_code else ""
            graded = f"{answer} = {task}.outcome(){comment}\n"
            graded += f'assert {task}.passed, "the task {tasks[task]!r} is not solved yet"'
            cells.append(_locked(graded, f"{name}-graded", points=1))
    copy.cells = cells
    return copy


def _locked(source: str, name: str, points: int = 0) -> Any:
    """A cell that nbgrader locks; one that is worth points fails until its task is solved, and Run All goes on."""
    import nbformat

    tags = ["raises-exception"] if points else []
    metadata = {"nbgrader": _nbgrader(name, points), "slideshow": {"slide_type": "skip"}, "tags": tags}
    return nbformat.v4.new_code_cell(source, id=name, metadata=metadata)


def _nbgrader(name: str, points: int = 0) -> dict[str, Any]:
    """The metadata of a cell that nbgrader locks: it is put back as it was before a copy is graded."""
    graded = {"grade": True, "points": points} if points else {"grade": False}
    return {"schema_version": 3, "grade_id": name, "task": False, "solution": False, "locked": True, **graded}


BOOTSTRAP = """# On Colab this brings the project and its packages; where they are, it does nothing.
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("tpsnet_lib") is None:
    subprocess.run(["git", "clone", "--depth", "1", "{address}", "tpsnet"], check=True)
    packages = [sys.executable, "-m", "pip", "install", "-q", "./tpsnet[report,search]"]
    subprocess.run(packages, check=True)
    os.environ["TPSNET_HOME"] = os.path.abspath("tpsnet")"""


def with_badges(notebook: Any, address: str, place: str) -> Any:
    """The notebook begun by links that open it on Colab and Binder, and by the cell that sets Colab up.

    `address` is that of a repository on GitHub, `place` the notebook's path in it. Raises `ConfigError`."""
    import nbformat

    if not (repository := re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?", address)):
        raise ConfigError(f"--address {address}: give a repository on GitHub, such as https://github.com/owner/name")
    colab = f"https://colab.research.google.com/github/{repository[1]}/blob/HEAD/{place}"
    binder = f"https://mybinder.org/v2/gh/{repository[1]}/HEAD?labpath={place}"
    badges = (
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})"
        f" [![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})"
    )
    cells = [nbformat.v4.new_markdown_cell(badges, id="badges")]
    cells += [nbformat.v4.new_code_cell(BOOTSTRAP.format(address=address), id="bootstrap")]
    notebook.cells = [*cells, *notebook.cells]
    return notebook


def write_student_copies(
    out: Path,
    only: Sequence[str] = (),
    address: str = "",
    profile: str | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write the students' copies of the notebooks to a folder; returns their paths.

    With the `address` of the repository that will hold this folder they begin with badges; a `profile` and `parameters`
    stand in a cell below the chapter's own. Raises `ConfigError` for a choice that fits no notebook, for a parameter
    that one does not have, and for a copy that is there already and may hold somebody's work."""
    import nbformat
    from papermill.parameterize import parameterize_notebook

    paths = []
    chosen = run_notebooks.choose(only)
    chosen_profile = load_profile(profile) if profile else None
    given = {path: run_notebooks.parameters_for(path, chosen_profile, parameters) for path in chosen}
    if there := [path.name for path in chosen if (out / path.name).exists()]:
        raise ConfigError(f"--student {out}: {', '.join(there)} would be overwritten: name another folder")
    for path in chosen:
        copy = student_copy(nbformat.read(path, as_version=4))
        if given[path]:
            copy.metadata.setdefault("papermill", {})
            for cell in copy.cells:
                cell.metadata.setdefault("tags", [])  # papermill looks for its own in each cell
            copy = parameterize_notebook(copy, given[path])
        target = out.resolve() / path.name
        if address:
            top = next((folder for folder in target.parents if (folder / ".git").exists()), target.parent.parent)
            copy = with_badges(copy, address, target.relative_to(top).as_posix())
        write_whole(target, nbformat.writes(copy))
        paths.append(target)
    return paths
