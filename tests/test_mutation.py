"""The notebooks' compared cells notice when the library changes: one block, one shape, one index of the split."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
CELLS = {  # of a notebook: up to which compared cell they are taken, and which of them
    "01_explore_data": ("split", lambda cell: cell in ("imports", "split")),
    "02_architecture_effects": ("costs-of-five", lambda cell: True),
}
TURNS_RED = {"split": "split", "block": "costs-of-five", "shape": "same-output"}  # a change in the library: the cell
STOPPED = {"exercise-network", "feature-maps"}  # the worked network is then none of the library's, and has no weights


def compared_cells(target: Path) -> list[str]:
    """The cells of both notebooks as one, on the built-in images; their ids."""
    cells = []
    for name, (last, wanted) in CELLS.items():
        notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        code = code[: 1 + [cell.id for cell in code].index(last)]
        assert "nbval-check-output" in code[-1].metadata["tags"]
        cells += [cell for cell in code if wanted(cell.id)]
    for number, cell in enumerate(cells, 1):
        cell.execution_count = number  # as a notebook that was run has it; outputs without it are an error to nbval
        cell.source = cell.source.replace('dataset = "auto"', 'dataset = "shapes10"')
    ids = [cell.id for cell in cells]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"  # which a notebook has but once
    notebook.cells = cells
    nbformat.write(notebook, target)
    return ids


def mutate(library: Path, change: str) -> None:
    """Change one thing in a copy of the library."""
    if change == "split":
        path = library / "data" / "cifar10_split.npy"
        split = np.load(path)
        split[[7, 11]] = split[[11, 7]]
        np.save(path, split)
        return
    file, old, new = {
        "block": ("family.yaml", "model2: {blocks: [7, 7, 7]", "model2: {blocks: [7, 7, 6]"),
        "shape": ("model.py", ".mean((2, 3))", ".mean((2, 3))[:1]"),
    }[change]  # fmt: skip
    text = (library / file).read_text()
    assert old in text
    (library / file).write_text(text.replace(old, new))


@pytest.mark.slow
def test_nbval_turns_red_when_the_library_changes(tmp_path: Path) -> None:
    cells = {}
    for changes in ((), tuple(TURNS_RED)):
        folder = tmp_path / ("changed" if changes else "whole")  # the kernel finds the copy of the library here first
        shutil.copytree(ROOT / "tpsnet_lib", folder / "tpsnet_lib", ignore=shutil.ignore_patterns("__pycache__"))
        for change in changes:
            mutate(folder / "tpsnet_lib", change)
        cells[folder.name] = compared_cells(folder / "some.ipynb")
    call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env"]
    environment = {**os.environ, "TPSNET_HOME": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [*call, "-rfE", "--tb=no", *(str(tmp_path / name / "some.ipynb") for name in cells)],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=environment,
    )  # fmt: skip
    red = re.findall(r"^(?:FAILED|ERROR) (.*)/some\.ipynb::Cell (\d+)", done.stdout, re.MULTILINE)
    assert {name for name, _ in red} == {"changed"}, done.stdout[-2000:]
    assert {cells[name][int(number)] for name, number in red} == {*TURNS_RED.values(), *STOPPED}, done.stdout[-2000:]
