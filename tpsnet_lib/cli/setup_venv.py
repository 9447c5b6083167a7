"""What the Makefile calls, on every system: set up `.venv` from the pins, run all checks, open JupyterLab.

Only the standard library is imported here: `python3 -m tpsnet_lib setup` runs before anything is installed."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace as Options
from collections.abc import Sequence
from pathlib import Path

from tpsnet_lib.chapter_copies import working_copies
from tpsnet_lib.errors import TpsnetError
from tpsnet_lib.files import project_root
from tpsnet_lib.whole_files import write_whole

SETTINGS = """{
  "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false},
  "@jupyter-widgets/jupyterlab-manager:plugin": {"saveState": true}
}
"""  # no news is asked for; sliders and what they drew are there when a saved chapter is opened again
NBVAL = ["--nbval-lax", "--nbval-current-env"]
OLDEST, TOO_NEW = (3, 11), (3, 14)


def setup(options: Options | None = None) -> int:
    """Make `.venv` what the pins say."""
    venv_python()
    return 0


def venv_python() -> Path:
    """Create `.venv` from `pins.txt` if it is not there or the pins have changed; returns its Python.

    uv, installed into it, says how long downloading ("Prepared") and installing ("Installed") took. Raises
    `TpsnetError` for another Python than 3.11 to 3.13."""
    if not OLDEST <= sys.version_info[:2] < TOO_NEW:
        version = ".".join(map(str, sys.version_info[:2]))
        raise TpsnetError(f"Python {version} runs this: tpsnet needs 3.11 to 3.13; try `make PYTHON=python3.12 setup`")
    root = project_root()
    venv = root / ".venv"
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pins = b"".join((root / name).read_bytes() for name in ("pins-uv.txt", "pins.txt", "pyproject.toml"))
    place = f"{root} {'.'.join(map(str, sys.version_info[:2]))}"  # of a copied checkout, or another Python, another
    wanted = f"{place}\n{hashlib.sha256(pins).hexdigest()}\n"
    ready = venv / ".tpsnet-ready"
    mark = ready.read_text("utf-8", errors="replace") if python.exists() and ready.is_file() else ""
    if mark == wanted:
        return python
    print("setting up .venv from pins.txt (some 6 GB with torch)", file=sys.stderr, flush=True)
    began = time.monotonic()
    if not mark.startswith(f"{place}\n"):  # none, or one that was not finished, or is another checkout's or Python's
        _call(
            [sys.executable, "-m", "venv", "--clear", str(venv)],
            "cannot create .venv (delete it if it is no folder; on Debian: apt install python3-venv)",
        )
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-user", "--disable-pip-version-check"]
    _call([*pip, "--require-hashes", "-r", str(root / "pins-uv.txt")], "cannot install uv")
    elsewhere = "pip put uv elsewhere (`python3 -m pip config list`: take target, prefix and root out of its settings)"
    _call([str(python), "-m", "uv", "--quiet", "--version"], elsewhere)
    install = [str(python), "-m", "uv", "pip", "install", "--python", str(python)]
    # Compiled now: where Python may write no bytecode, as in many containers, each import of torch compiles it anew.
    pinned = ["--compile-bytecode", "--require-hashes", "-r", str(root / "pins.txt")]
    _call([*install, *pinned], "cannot install the pins")
    package = ["--quiet", "--no-deps", "--no-build-isolation", "-e", "."]  # built by the pinned setuptools
    _call([*install, *package], "cannot install tpsnet", root)  # in a path `[1]` is an option
    write_whole(ready, wanted)
    print(f".venv is ready after {time.monotonic() - began:.0f} s", file=sys.stderr)
    return python


def check(options: Options | None = None) -> int:
    """Run everything that must pass: ruff, mypy, the tests, and nbval over the smoke notebooks; 1 if one fails."""
    python, root = str(venv_python()), project_root()
    prepared = root / "report" / "local" / "nbval"
    tests = [python, "-m", "pytest"]
    steps = [
        ("ruff check", [python, "-m", "ruff", "check", "."]),
        ("ruff format", [python, "-m", "ruff", "format", "--check", "."]),
        ("mypy", [python, "-m", "mypy"]),
        ("pytest", [*tests, "-n", "2", "--dist=worksteal", "--durations=30", "tests"]),
        (
            "prepare",
            [python, "-m", "tpsnet_lib", "notebooks", "--prepare", "--profile", "smoke", "--out", str(prepared)],
        ),
        # One notebook at a time: of two kernels that start together, both may take the same free port, and one dies.
        ("nbval", [*tests, "-p", "no:cacheprovider", *NBVAL, str(prepared)]),
    ]
    failed = []
    for name, command in steps:
        began = time.monotonic()
        code = _run(command, root)
        print(f"-- {name}: {'ok' if code == 0 else 'FAILED'} in {time.monotonic() - began:.0f} s", flush=True)
        failed += [name] if code else []
    print(f"-- failed: {', '.join(failed)}" if failed else "-- all checks passed")
    return 1 if failed else 0


def lab(options: Options | None = None) -> int:
    """Open JupyterLab on a copy of notebook 01, rooted at the project; words after -- are handed on to it.

    The super-user, as in a container, is let in; the table of contents is open, and no news is asked for."""
    root, python = project_root(), str(venv_python())
    notebook = working_copies(root) / "01_explore_data.ipynb"
    settings = root / ".venv" / "share" / "jupyter" / "lab"
    write_whole(settings / "settings" / "overrides.json", SETTINGS)
    workspace = settings / "workspaces" / "default-37a8.jupyterlab-workspace"  # the name that JupyterLab looks for
    if not workspace.exists():
        write_whole(workspace, json.dumps(_workspace(notebook.relative_to(root).as_posix())))
    as_root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    address = f"--LabApp.default_url=/lab/tree/{notebook.relative_to(root).as_posix()}"  # which --no-browser prints
    folders = [f"--ServerApp.root_dir={root}", f"--LabApp.workspaces_dir={workspace.parent}", address]
    os.environ.setdefault("PYTHONSTARTUP", str(root / "tpsnet_lib" / "cli" / "kernel_start.py"))
    return _run([python, "-m", "jupyterlab", str(notebook), *folders, *as_root, *(options.jupyter if options else [])])


def _workspace(notebook: str) -> dict[str, object]:
    """What JupyterLab shows when it is opened for the first time: a notebook, and its table of contents."""
    widget = f"notebook:{notebook}"
    layout = {
        "main": {"dock": {"type": "tab-area", "currentIndex": 0, "widgets": [widget]}, "current": widget},
        "left": {"collapsed": False, "visible": True, "current": "@jupyterlab/toc:plugin", "widgets": []},
        "relativeSizes": [0.2, 0.8, 0],
    }
    data = {"layout-restorer:data": layout, widget: {"data": {"path": notebook, "factory": "Notebook"}}}
    return {"data": data, "metadata": {"id": "default"}}


def _run(command: Sequence[str], folder: Path | None = None) -> int:
    """The exit status of a command; a request to end (SIGTERM) is handed on to it."""
    with subprocess.Popen(command, cwd=folder, env=_own_environment()) as process:
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            return process.wait()
        finally:
            signal.signal(signal.SIGTERM, before)


def _own_environment() -> dict[str, str]:
    """The environment without what a user has set for pip, uv, git and Python elsewhere, which breaks this one."""
    places = ("USER", "TARGET", "PREFIX", "ROOT", "SYSTEM_PYTHON")
    out_of_the_way = {"PYTHONHOME", *(f"{tool}_{place}" for tool in ("PIP", "UV") for place in places)}
    return {k: value for k, value in os.environ.items() if k not in out_of_the_way and not k.startswith("GIT_")}


def _call(command: Sequence[str], failure: str, folder: Path | None = None) -> None:
    if _run(command, folder) != 0:
        raise TpsnetError(f"{failure}: `{' '.join(command)}` failed")
