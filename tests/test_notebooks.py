"""The five notebooks keep their promises: parameters, short cells, compared outputs, and no other outputs."""

import ast
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parent.parent
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
COMMON = {"profile", "dataset", "data", "store"}


def test_there_are_five_in_order() -> None:
    assert [path.stem[:2] for path in PATHS] == ["01", "02", "03", "04", "05"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_is_short_cells_and_its_outputs_are_those_that_are_compared(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    lengths = sorted(len(cell.source.splitlines()) for cell in code)
    assert 30 <= len(cells) <= 70
    assert lengths[-1] <= 15
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


@pytest.mark.parametrize("path", PATHS[:3], ids=lambda path: path.stem)
def test_what_chooses_does_not_open_the_test_set(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert "load_test" not in cell.source
            assert "open_test" not in cell.source
