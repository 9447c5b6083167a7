"""A line below the traceback of a cell that fails: what was likely meant, where a student would not know it."""

import keyword
import math
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tpsnet_lib.answer_checks import Slip, raised, way_out_of, with_its_owner
from tpsnet_lib.errors import ConfigError
from tpsnet_lib.files import project_root, read_json
from tpsnet_lib.plots.style import finding
from tpsnet_lib.profiles import check_parameters
from tpsnet_lib.progress import running_shell
from tpsnet_lib.tasks import keys_without_quotes, names_given, without_value, words_of_answers


def explain_errors() -> None:
    """From now on, say below each cell that fails what was likely meant, by `explain`; once a kernel."""
    if (shell := running_shell()) is not None:
        shell.set_custom_exc((), None)  # that of `cli/kernel_start`, which knows less
        shell.events.register("post_run_cell", explain)  # IPython takes a function once


def explain(result: Any) -> None:
    """Say in a line what was likely meant by a cell that failed; `result`: IPython's, of the cell that ran."""
    cell, error = result.info.raw_cell, result.error_before_exec or result.error_in_exec
    said = _said_of(error, cell) if error else _parameters_out_of_range(cell)
    if said:
        finding(said)


def _said_of(error: BaseException, cell: str) -> str:
    if isinstance(error, SyntaxError):
        return unreadable(error, cell)
    if isinstance(error, Exception) and (called := re.search(r"\.check\(\s*(\w+)\(", cell)):
        return f"Hand over `{called[1]}` itself, without the brackets behind it: the check calls it."
    if isinstance(error, NameError):
        owned = with_its_owner(error) if error.name not in words_of_answers() else ""
        return f"`{error.name}` is not defined: write `{owned}`." if owned else undefined(error.name or "", cell)
    if isinstance(error, TypeError) and "required positional argument" in str(error):
        return "Brackets call a function or class: leave them out to hand over itself, or give what is missing in them."
    if isinstance(error, TypeError) and re.search("unsupported operand .*'(tuple|list)'", str(error)):
        return "A tuple or list is not calculated with as a whole: take one of its values, such as `x[0]`."
    if isinstance(error, IndexError):
        return "An index is too large: counting begins with 0, so that the last of three has index 2."
    if isinstance(error, Exception):
        return said if isinstance(said := raised(error), Slip) and "Your answer" not in said else ""
    return ""


def unreadable(error: SyntaxError, cell: str) -> str:
    """What may be meant by a line that is no Python."""
    if isinstance(error, IndentationError):
        if "expected an indented block" in error.msg:
            return "Below a line that ends with `:` stands at least one more, four spaces further to the right."
        return "The lines of a block begin below one another: four spaces, or eight within a block of its own."
    lines = cell.splitlines()
    line = lines[error.lineno - 1] if error.lineno and error.lineno <= len(lines) else ""
    left, _, right = (part.strip() for part in line.partition("#")[0].partition("="))
    is_answer = left.isidentifier() and not keyword.iskeyword(left)
    if _sets_parameters(cell) and is_answer and re.fullmatch(r"[0-9a-f]{4,}", right):
        return "An id stands in quotes."
    if is_answer and not right:
        return "Nothing stands right of `=`: write your answer there."
    if is_answer and re.fullmatch(r"[^\W\d]*[ ~]*[\d.,]+ ?[^\W\d]*%?( [^\W\d]+)*", right):
        return "Write the number alone, without words or a unit."
    if is_answer and re.fullmatch(r"[\[({]?[^\W\d_]+([ ,]+[^\W\d_]+)*[\])}]?", right):
        return "Words stand in quotes, several names in a list with each in quotes, and a number in digits."
    if re.search("never closed|unmatched|does not match", error.msg):
        return "Count the brackets: each that opens needs one that closes it."
    if "incomplete input" in error.msg:
        return "The cell ends too early: a bracket that closes is missing, or the lines below one that ends with `:`."
    if "unterminated" in error.msg:
        return "A text begins and ends with the same quote, on one line."
    if "invalid character" in error.msg or "invalid decimal literal" in error.msg:
        return "A product is written with `*`, a power with `**`; a number has no spaces or letters in it."
    return "Python cannot read the line above the mark `^`: is an operator, comma, colon or quote missing there?"


def undefined(name: str, cell: str) -> str:
    """What a name that is not defined may stand for, in a cell."""
    shell: Any = running_shell()
    if _sets_parameters(cell):
        return f"`{name}` is not defined: a text stands in quotes."
    if name in keys_without_quotes():
        return f'`{name}` is not defined: a key of a dict stands in quotes, as in `{{"{name}": ...}}`.'
    if said := without_value().get(name):
        return said
    if name in (given := _given_by_cells(open_notebook(shell.user_ns))):
        return (
            f"`{name}` is not defined: the cell that gives it a value was not run to its end (it may be folded). It"
            f" stands in *{given[name]}*; after a restart, run all cells from the top."
        )
    if name in words_of_answers():
        return f"`{name}` is not defined: a name stands in quotes, and several names in a list, each in quotes."
    way_out = way_out_of(name, shell.user_ns)
    in_numpy_alone = way_out.startswith("write `np.") and not hasattr(math, name)  # as `flip`, for "random flip"
    return f"`{name}` is not defined: {way_out}{' (A text stands in quotes.)' if in_numpy_alone else ''}"


def open_notebook(given: Mapping[str, Any]) -> Path:
    """The notebook that is open, as VS Code and Jupyter say; an empty path where neither does."""
    return Path(given.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME", ""))


@cache
def _given_by_cells(notebook: Path) -> dict[str, str]:
    """The names that the cells of a chapter give values to, of whatever kind, with the heading above the first such
    cell; of a notebook of another name its own, as it was saved."""
    chapter, given, heading = project_root() / "notebooks" / notebook.name, dict[str, str](), ""
    path = chapter if chapter.is_file() else project_root() / notebook
    for cell in read_json(path)["cells"] if path.is_file() else ():
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            heading = (re.findall(r"^#+ (.+)$", source, re.MULTILINE) or [heading])[-1]
            continue
        given = dict.fromkeys(names_given(source), heading) | given
    return given


def _sets_parameters(cell: str) -> bool:
    return re.search(r"^profile *=", cell, re.MULTILINE) is not None  # the first parameter of every chapter


def _parameters_out_of_range(cell: str) -> str:
    """What is wrong with the parameters that a cell sets, which are checked again as the next cell opens the data."""
    if not _sets_parameters(cell):
        return ""
    shell: Any = running_shell()
    try:
        check_parameters(shell.user_ns)
    except ConfigError as error:
        return f"**{error}**"
    return ""
