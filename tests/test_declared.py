"""What is imported is declared, and what is declared is imported: the packages in pyproject.toml."""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DISTRIBUTIONS = {  # by the name that is imported, where the two differ
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "jupyter_client": "jupyter-client",
    "mpl_toolkits": "matplotlib",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
TOOLS = {  # that are run by name or by another package, not imported
    *("html5lib", "jupyterlab", "mypy", "nbval", "onnxscript", "pytest-xdist", "ruff", "types-pyyaml", "types-tqdm"),
}
OWN = {"tpsnet_lib", "tests", "faults", "axe"} | {path.stem for path in (ROOT / "tests").glob("*.py")}


def declared(*groups: str) -> set[str]:
    """The names of the packages that the project asks for, of all groups or of some (`""`: those without one)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    by_group = {"": project["dependencies"], **project["optional-dependencies"]}
    items = [item for group in groups or by_group for item in by_group[group]]
    return {re.match(r"[\w.-]+", item)[0].lower() for item in items}  # type: ignore[index]


def imported(source: str) -> Iterator[str]:
    """The distributions that a text of Python imports, also inside functions, but for the standard library and ours."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        for name in names:
            top = name.partition(".")[0]
            if top not in OWN and top not in sys.stdlib_module_names:
                yield DISTRIBUTIONS.get(top, top).lower()


def sources(*folders: str) -> Iterator[tuple[Path, str]]:
    """Every file of Python and notebook in some folders, with its code."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path, path.read_text("utf-8")
        for path in sorted((ROOT / folder).glob("*.ipynb")):
            cells = json.loads(path.read_text("utf-8"))["cells"]
            code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
            yield path, re.sub(r"(?m)^\s*[%!].*$", "", "\n".join(code))


def test_what_is_imported_is_declared() -> None:
    missing = {
        (path.name, name)
        for path, code in sources("tpsnet_lib", "notebooks", "tests")
        for name in imported(code)
        if name not in declared()
    }
    assert missing == set()


def test_what_is_declared_is_imported() -> None:
    used = {name for _, code in sources("tpsnet_lib", "notebooks", "tests") for name in imported(code)}
    assert declared() - used - TOOLS == set()


def test_a_planted_import_is_seen() -> None:
    assert list(imported("import os\ndef f():\n    from yaml.nodes import Node\n    import nowhere")) == [
        "pyyaml",
        "nowhere",
    ]


@pytest.mark.parametrize("name", ["pins.txt", "pins-uv.txt"])
def test_every_pin_has_its_hashes(name: str) -> None:
    pins = re.split(r"\n(?=\w)", (ROOT / name).read_text())
    for pin in [pin for pin in pins if not pin.startswith("#")]:
        assert re.match(r"[\w.-]+==\S+", pin), pin[:80]
        assert re.findall(r"--hash=sha256:[0-9a-f]{64}\b", pin), pin[:80]
