"""The notebooks' compared cells notice when the library changes: one block, one shape, one index of the split."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


def compared_cells(target: Path, name: str, kept: Callable[[str], bool], last: str) -> None:
    """A notebook on the built-in images, cut down to the cells that are kept, up to its compared cell `last`."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    code = code[: 1 + [cell.id for cell in code].index(last)]
    notebook.cells = [cell for cell in code if kept(cell.id)]
    assert "nbval-check-output" in notebook.cells[-1].metadata["tags"]
    for number, cell in enumerate(notebook.cells, 1):
        cell.execution_count = number  # as a notebook that was run has it; outputs without it are an error to nbval
        cell.source = cell.source.replace('dataset = "auto"', 'dataset = "shapes10"')
    nbformat.write(notebook, target)


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
@pytest.mark.parametrize("change", ["none", "block", "shape", "split"])
def test_nbval_turns_red_when_the_library_changes(change: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tpsnet_lib", tmp_path / "tpsnet_lib", ignore=shutil.ignore_patterns("__pycache__"))
    if change != "none":
        mutate(tmp_path / "tpsnet_lib", change)
    compared_cells(tmp_path / "02.ipynb", "02_architecture_effects", lambda cell: True, "costs-of-five")
    compared_cells(tmp_path / "01.ipynb", "01_explore_data", lambda cell: cell in ("imports", "split"), "split")
    call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env"]
    done = subprocess.run(
        [*call, str(tmp_path / "01.ipynb"), str(tmp_path / "02.ipynb")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "TPSNET_HOME": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode == 0) == (change == "none"), done.stdout[-2000:]
