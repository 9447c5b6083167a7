"""The notebooks read and run: papermill with a profile, parameters that are checked first, a failure that is kept."""

import ast
import contextlib
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpsnet_lib.errors import ConfigError, Interrupted, TpsnetError, brief, way_to
from tpsnet_lib.files import project_root, read_json
from tpsnet_lib.locks import lock, signals_answered_by
from tpsnet_lib.profiles import Profile, load_profile, profile_values, refusal

LARGEST_NOTEBOOK = 2**26  # bytes, with its figures
LARGEST_SOURCE = 2**17  # characters of a cell; the project's have a fiftieth of it
KERNEL = "python3"
CELLS = "{desc} {percentage:3.0f}%|{bar}| cell {n_fmt}/{total_fmt}, {elapsed}"  # too unlike to foretell an end
BAR = {"leave": False, "disable": None, "bar_format": CELLS}  # of tqdm, where there is a terminal


@dataclass(frozen=True)
class Result:
    """What became of one notebook: `ok`, `failed` or `skipped`; `cell` counts from 1 in the notebook's own cells."""

    name: str
    status: str
    seconds: float = 0.0
    path: Path | None = None  # the executed copy, of a failure the partial one
    cell: int | None = None
    error: str = ""  # of a failure: the cell's first line and the last line of what it raised

    def __str__(self) -> str:
        if self.status == "skipped":
            return f"{self.name}: skipped"
        if self.status == "ok":
            return f"{self.name}: done in {self.seconds:.0f} s"
        place = f" in cell {self.cell}" if self.cell else ""
        return f"{self.name}: failed{place} after {self.seconds:.0f} s, {self.error}; kept as {self.path}"


def choose(only: Sequence[str] = (), folder: Path | None = None) -> list[Path]:
    """The notebooks, in order; `only` keeps those whose name is given or begins so (`02`, `04_final_training`).

    Raises `ConfigError` for a choice that fits none, and if the folder holds no notebook."""
    folder = folder or project_root() / "notebooks"
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise ConfigError(f"{folder} holds no notebook: give a folder with files such as 01_explore_data.ipynb")
    wanted = [choice.removesuffix(".ipynb") for choice in only]
    for choice in wanted:
        if not choice or not any(path.stem.startswith(choice) for path in paths):
            raise ConfigError(f"no notebook is called {choice!r}: {way_to(choice, [path.stem for path in paths])}")
    return [path for path in paths if not wanted or any(path.stem.startswith(choice) for choice in wanted)]


def read_notebook(path: Path) -> Any:
    """A notebook of format 4. Raises `TpsnetError` that names a file that is missing, torn or no such notebook."""
    import nbformat

    tree = read_json(path, TpsnetError, LARGEST_NOTEBOOK)
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


def parameters_for(notebook: Path, profile: Profile | None, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The parameters one notebook gets: the profile's common ones and its own, if there is one, then `extra`.

    Raises `ConfigError` for one that the notebook's `parameters` cell does not declare (papermill only warns), or
    whose value is of another type or range than the default there, `DataError` for data that no chapter is about."""
    import papermill

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it says is in the notebook and the result
    given = {**profile.parameters, **profile.notebooks.get(notebook.stem, {})} if profile else {}
    given |= extra or {}
    read_notebook(notebook)
    try:
        declared = papermill.inspect_notebook(_plain(notebook))
    except (OSError, ValueError, AttributeError, LookupError, TypeError, SyntaxError, RecursionError) as error:
        raise ConfigError(f"{notebook} is not a notebook that can run: {_last_line(brief(error))}") from error
    examples = profile_values().get(notebook.stem, {})
    for name, value in given.items():
        if name not in declared:
            raise ConfigError(f"{notebook.name} has no parameter {brief(name)}: {way_to(name, sorted(declared))}")
        with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            default = ast.literal_eval(declared[name]["default"])  # of an expression any value may be right
            if way_out := refusal(name, value, [*examples.get(name, []), default]):
                raise ConfigError(f"{notebook.name}: parameter {name} is {brief(value)}: {way_out}")
    if extra and {"dataset", "data"} & extra.keys() & given.keys():
        from tpsnet_lib.data.datasets import resolve_dataset  # which needs torch

        resolve_dataset(given.get("dataset", "auto"), given.get("data"))
    return given


def run(
    profile: str | Profile,
    *,
    only: Sequence[str] = (),
    keep_going: bool = False,
    out: Path | None = None,
    parameters: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    progress: str = "auto",
) -> list[Result]:
    """Execute the notebooks in order and keep the executed copies as `out/<name>.ipynb` (default: report/local).

    All parameters are checked before anything starts. A failing notebook stops the rest unless `keep_going`; its
    partial copy is `out/<name>.failed.ipynb`, and the copy of an earlier success stays. `progress`: `auto` shows a bar
    in a terminal and prints a line a notebook on standard error, `none` is silent."""
    profile = load_profile(profile) if isinstance(profile, str) else profile
    plan = [(path, parameters_for(path, profile, parameters)) for path in choose(only, folder)]
    out = _folder(out or project_root() / "report" / "local" / "notebooks")
    results: list[Result] = []
    ends = signals_answered_by(signal.default_int_handler, signal.SIGTERM)
    with ends, lock(out / ".lock", lambda who: _say(progress, f"waiting for {who}: it runs notebooks into {out}")):
        for position, (path, given) in enumerate(plan, 1):
            if not keep_going and any(result.status == "failed" for result in results):
                results.append(Result(path.stem, "skipped"))
            else:
                bar = {"desc": f"{position}/{len(plan)} {path.stem}", **BAR} if progress == "auto" else False
                results.append(_execute(path, given, out, profile.cell_timeout, bar))
            _say(progress, f"{results[-1]} ({position}/{len(plan)})")
    return results


def _execute(path: Path, given: dict[str, Any], out: Path, timeout: int, bar: dict[str, Any] | bool) -> Result:
    import papermill
    from papermill.exceptions import PapermillException

    running, done, failed = (out / name.format(path.stem) for name in (".{}.ipynb", "{}.ipynb", "{}.failed.ipynb"))
    start = time.monotonic()
    try:
        papermill.execute_notebook(
            _plain(path),
            _plain(running),
            given,
            kernel_name=KERNEL,
            kernel_manager_class=_kernel_of_this_interpreter(),
            progress_bar=bar,
            execution_timeout=timeout,
        )
        os.replace(running, done)
        failed.unlink(missing_ok=True)
    except (PapermillException, OSError, RuntimeError) as error:  # of a cell, the disk, the kernel, or its time is out
        cell, reason = _where(running, error)
        if running.exists():
            os.replace(running, failed)
        return Result(path.stem, "failed", time.monotonic() - start, failed, cell, reason)
    except KeyboardInterrupt:  # or SIGTERM
        raise Interrupted(f"stopped in {path.stem}; the copies of the notebooks before it are kept in {out}") from None
    finally:
        running.unlink(missing_ok=True)
    return Result(path.stem, "ok", time.monotonic() - start, done)


def _where(partial: Path, error: Exception) -> tuple[int | None, str]:
    """The failing cell, counted from 1 as in the source notebook, with its first line and the error's last."""
    import nbformat
    from nbclient.exceptions import CellTimeoutError
    from papermill.exceptions import PapermillExecutionError

    reason = f"{type(error).__name__}: {_last_line(str(error))}"
    try:
        cells = nbformat.read(partial, as_version=4).cells
    except (OSError, ValueError):
        return None, reason
    cells = [cell for cell in cells if "papermill-error-cell-tag" not in cell.metadata.get("tags", [])]
    begun = [index for index, cell in enumerate(cells) if cell.metadata.get("papermill", {}).get("start_time")]
    if not begun:
        return None, reason
    index = begun[-1]
    if isinstance(error, PapermillExecutionError):  # it has the last cell that failed
        index, ename, evalue = error.cell_index, error.ename, error.evalue
        if "raises-exception" in cells[index].metadata.get("tags", []):  # as open tasks do: the first of them is named
            outputs = [(i, output) for i, each in enumerate(cells) for output in each.get("outputs", [])]
            index, ename, evalue = next((i, o.ename, o.evalue) for i, o in outputs if o.output_type == "error")
        reason = f"{ename}: {_last_line(evalue)}"
    elif isinstance(error, CellTimeoutError):
        reason = "stopped at the profile's cell_timeout"
    injected = sum("injected-parameters" in earlier.metadata.get("tags", []) for earlier in cells[:index])
    first = next((line.strip() for line in cells[index].source.splitlines() if line.strip()), "")
    return index + 1 - injected, f"`{first}`: {reason}"


def prepare(
    profile: str | Profile,
    out: Path,
    *,
    only: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> list[Path]:
    """Copies of the notebooks with the profile's parameters injected and nothing run, for nbval to execute."""
    import papermill

    profile = load_profile(profile) if isinstance(profile, str) else profile
    plan = [(path, parameters_for(path, profile, parameters)) for path in choose(only, folder)]
    out = _folder(out)
    for path, given in plan:
        target = _plain(out / path.name)
        papermill.execute_notebook(
            _plain(path), target, given, kernel_name=KERNEL, prepare_only=True, progress_bar=False
        )
    return [out / path.name for path, _ in plan]


def estimate(profile: str | Profile, *, only: Sequence[str] = (), folder: Path | None = None) -> str:
    """How long the notebooks take on the machine of the profiles: `about 9 minutes on 2 cores with AMX`."""
    profile = load_profile(profile) if isinstance(profile, str) else profile
    minutes = max(1, round(sum(profile.seconds.get(path.stem, 0.0) for path in choose(only, folder)) / 60))
    return f"about {minutes} minute{'s' if minutes > 1 else ''} on {profile.machine}"


def _kernel_of_this_interpreter() -> Any:
    """A kernel manager that starts this very Python, whatever kernels are registered here and whatever PATH says."""
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class ThisInterpreter(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            spec = get_kernel_dict()
            return KernelSpec(**{**spec, "argv": [*spec["argv"], "--log-level=CRITICAL"]})

    return ThisInterpreter


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TpsnetError(f"{path} cannot be written ({error.strerror}): give another output folder") from error
    return path.resolve()


def _plain(path: Path) -> str:
    """A path as papermill wants it: it fills `{...}` in paths, so braces in a folder's name are doubled."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _last_line(text: str) -> str:
    return ([line.strip() for line in text.splitlines() if line.strip()] or ["no message"])[-1]


def _say(progress: str, line: str) -> None:
    if progress != "none":
        print(line, file=sys.stderr, flush=True)
