"""The notebooks' compared cells notice when the library changes: one block, one shape, one index of the split."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


def compared_cells(target: Path) -> None:
    """Notebook 04 cut down to its imports and its compared cells."""
    notebook = nbformat.read(ROOT / "notebooks" / "04_final_training.ipynb", as_version=4)
    kept = [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code"
        and ("nbval-check-output" in cell.metadata.get("tags", []) or cell.source.startswith(("import ", "from ")))
    ]
    assert sum("nbval-check-output" in cell.metadata.get("tags", []) for cell in kept) >= 3
    for number, cell in enumerate(kept, 1):
        cell.execution_count = number  # as a notebook that was run has it; outputs without it are an error to nbval
    notebook.cells = kept
    nbformat.write(notebook, target)


def mutate(library: Path, change: str) -> None:
    """Change one thing in a copy of the library."""
    if change == "split":
        path = library / "assets" / "cifar10_split.npy"
        split = np.load(path)
        split[[7, 11]] = split[[11, 7]]
        np.save(path, split)
        return
    file, old, new = {
        "block": ("assets/family.yaml", "model2: {blocks: [7, 7, 7]", "model2: {blocks: [7, 7, 6]"),
        "shape": ("model.py", "pooled.mean((2, 3))", "pooled.mean((2, 3))[:2]"),
    }[change]  # fmt: skip
    text = (library / file).read_text()
    assert old in text
    (library / file).write_text(text.replace(old, new))


@pytest.mark.parametrize("change", ["none", "block", "shape", "split"])
def test_nbval_turns_red_when_the_library_changes(change: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tpsnet_lib", tmp_path / "tpsnet_lib", ignore=shutil.ignore_patterns("__pycache__"))
    if change != "none":
        mutate(tmp_path / "tpsnet_lib", change)
    compared_cells(tmp_path / "cells.ipynb")
    call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env"]
    done = subprocess.run(
        [*call, str(tmp_path / "cells.ipynb")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "TPSNET_HOME": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode == 0) == (change == "none"), done.stdout[-2000:]
