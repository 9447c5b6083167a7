"""Notebooks as files: read within bounds, and held against the format's own schema before they are used."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from tpsnet_lib.files import TpsnetError, brief, read_json

LARGEST = 2**26  # bytes of a notebook with its figures
LARGEST_SOURCE = 2**17  # characters of a cell; the project's have a fiftieth of it


def read_notebook(path: Path) -> Any:
    """A notebook of format 4. Raises `TpsnetError` that names a file that is missing, torn or no such notebook."""
    import nbformat

    tree = read_json(path, TpsnetError, LARGEST)
    try:
        if not isinstance(tree, dict) or tree.get("nbformat") != 4:
            raise ValueError("it is not of format 4")
        with warnings.catch_warnings(action="ignore"):  # cells without an id, which an older minor format allows
            nbformat.validate(tree)
            notebook = nbformat.v4.to_notebook(tree)
        if any(len(cell.source) > LARGEST_SOURCE for cell in notebook.cells):
            raise ValueError(f"a cell has over {LARGEST_SOURCE:,} characters")
    except Exception as error:  # jsonschema's, and whatever a tree of another shape gives
        raise TpsnetError(f"{path} is no notebook ({brief(error)}): save or execute it again") from error
    return notebook
