"""The notebooks' compared cells notice when the library changes: one block, one shape, one index of the split."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
SPLIT = ("01_explore_data", lambda cell: cell in ("imports", "split"), "split")
COSTS = ("02_architecture_effects", lambda cell: True, "costs-of-five")
CHANGES = {  # in the library: the notebook that is run with it, and which of its cells must turn red
    "none in the split": (SPLIT, set()),
    "none in the networks": (COSTS, set()),
    "split": (SPLIT, {"split"}),
    "block": (COSTS, {"costs-of-five"}),
    "shape": (COSTS, {"same-output"}),
}


def compared_cells(target: Path, name: str, kept: Callable[[str], bool], last: str) -> list[str]:
    """A notebook on the built-in images, cut down to the cells that are kept, up to its compared cell `last`; their
    ids."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    code = code[: 1 + [cell.id for cell in code].index(last)]
    notebook.cells = [cell for cell in code if kept(cell.id)]
    assert "nbval-check-output" in notebook.cells[-1].metadata["tags"]
    for number, cell in enumerate(notebook.cells, 1):
        cell.execution_count = number  # as a notebook that was run has it; outputs without it are an error to nbval
        cell.source = cell.source.replace('dataset = "auto"', 'dataset = "shapes10"')
    nbformat.write(notebook, target)
    return [cell.id for cell in notebook.cells]


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
    for change, (notebook, _) in CHANGES.items():
        folder = tmp_path / change  # where the kernel starts, and so finds its copy of the library first
        shutil.copytree(ROOT / "tpsnet_lib", folder / "tpsnet_lib", ignore=shutil.ignore_patterns("__pycache__"))
        if not change.startswith("none"):
            mutate(folder / "tpsnet_lib", change)
        cells[change] = compared_cells(folder / "some.ipynb", *notebook)
    call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env"]
    environment = {**os.environ, "TPSNET_HOME": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [*call, "-rfE", "--tb=no", *(str(tmp_path / change / "some.ipynb") for change in CHANGES)],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=environment,
    )  # fmt: skip
    red = re.findall(r"^(?:FAILED|ERROR) (.*)/some\.ipynb::Cell (\d+)", done.stdout, re.MULTILINE)
    for change, (_, expected) in CHANGES.items():
        assert {cells[change][int(number)] for at, number in red if at == change} == expected, done.stdout[-2000:]
