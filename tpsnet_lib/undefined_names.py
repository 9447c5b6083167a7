"""What a name that is not defined may stand for: a line below the traceback of a NameError in a chapter."""

import math
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tpsnet_lib.answer_checks import way_out_of
from tpsnet_lib.files import project_root, read_json
from tpsnet_lib.plots.style import finding
from tpsnet_lib.tasks import keys_without_quotes, names_given, without_value, words_of_answers


def explain_name(shell: Any, kind: type[NameError], error: NameError, trace: Any, tb_offset: int | None = None) -> None:
    """Say, below the traceback, what a name that is not defined may stand for; for `set_custom_exc` of IPython."""
    shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
    name = error.name or ""
    if name in keys_without_quotes():
        finding(f'`{name}` is not defined: a key of a dict stands in quotes, as in `{{"{name}": ...}}`.')
        return
    if said := without_value().get(name):
        finding(said)
        return
    if name in (given := _given_by_cells(open_notebook(shell.user_ns).name)):
        finding(
            f"`{name}` is not defined: the cell that gives it a value was not run to its end (it may be folded). It"
            f" stands in *{given[name]}*; after a restart, run all cells from the top."
        )
        return
    if name in words_of_answers():
        finding(f"`{name}` is not defined: a name stands in quotes, and several names in a list, each in quotes.")
        return
    way_out = way_out_of(name, shell.user_ns)
    in_numpy_alone = way_out.startswith("write `np.") and not hasattr(math, name)  # as `flip`, for "random flip"
    text = " (A text stands in quotes.)" if in_numpy_alone else ""
    finding(f"`{name}` is not defined: {way_out}{text}")


def open_notebook(given: Mapping[str, Any]) -> Path:
    """The notebook that is open, as VS Code and Jupyter say; an empty path where neither does."""
    return Path(given.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME", ""))


@cache
def _given_by_cells(notebook: str) -> dict[str, str]:
    """The names that the cells of a chapter give values to, of whatever kind, with the heading above the first such
    cell; none of what is no chapter."""
    path, given, heading = project_root() / "notebooks" / notebook, dict[str, str](), ""
    for cell in read_json(path)["cells"] if notebook and path.is_file() else ():
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            heading = (re.findall(r"^#+ (.+)$", source, re.MULTILINE) or [heading])[-1]
            continue
        given = dict.fromkeys(names_given(source), heading) | given
    return given
