"""`make lab`: a copy of notebook 01 in front, options handed on to JupyterLab, nothing that git knows changed."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell
from searching import PATIENCE, until

from tpsnet_lib import chapter_copies, course, progress
from tpsnet_lib.cli import kernel_start, main, setup_venv
from tpsnet_lib.files import project_root
from tpsnet_lib.report import student_copies

CHAPTER = {"cells": [{"source": ["a\n", "b"], "outputs": []}], "metadata": {}}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The command lines that a lab in a project of two notebooks begins."""
    found: list[list[str]] = []
    (tmp_path / "notebooks").mkdir()
    for name in ("01_explore_data", "02_architecture_effects"):
        (tmp_path / "notebooks" / f"{name}.ipynb").write_text(json.dumps(CHAPTER))
    monkeypatch.setattr(setup_venv, "project_root", lambda: tmp_path)
    monkeypatch.setattr(setup_venv, "venv_python", lambda: Path("python"))
    monkeypatch.setattr(setup_venv, "_run", lambda command: found.append(list(command)) or 0)
    return found


@pytest.mark.parametrize("between", [[], ["--"]])
def test_a_lab_opens_a_copy_of_notebook_01_and_hands_options_on(
    between: list[str], calls: list[list[str]], tmp_path: Path
) -> None:
    assert main.main(["lab", *between, "--port", "9999", "--no-browser"]) == 0
    (command,) = calls
    copy = tmp_path / "report" / "local" / "lab" / "01_explore_data.ipynb"
    assert command[:4] == ["python", "-m", "jupyterlab", str(copy)]
    assert command[-3:] == ["--port", "9999", "--no-browser"]
    assert f"--ServerApp.root_dir={tmp_path}" in command
    assert "--LabApp.default_url=/lab/tree/report/local/lab/01_explore_data.ipynb" in command
    assert ("--allow-root" in command) == (os.geteuid() == 0)
    (folder,) = (Path(word.partition("=")[2]) for word in command if word.startswith("--LabApp.workspaces_dir="))
    (workspace,) = folder.iterdir()
    layout = json.loads(workspace.read_text())["data"]["layout-restorer:data"]
    assert layout["left"]["current"] == "@jupyterlab/toc:plugin"
    assert layout["main"]["current"] == "notebook:report/local/lab/01_explore_data.ipynb"


def test_a_copy_that_a_student_changed_is_kept_and_one_of_an_older_chapter_is_named(
    calls: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, chapter = (tmp_path / where / "01_explore_data.ipynb" for where in ("report/local/lab", "notebooks"))
    setup_venv.lab()
    made = json.loads(copy.read_text())
    assert made["cells"] == CHAPTER["cells"]
    made["cells"][0] = {"source": "a\nmy work", "outputs": ["3"]}
    copy.write_text(json.dumps(made))
    setup_venv.lab()
    assert json.loads(copy.read_text()) == made
    assert chapter_copies.OLDER not in capsys.readouterr().err
    assert not chapter_copies.is_older(copy, chapter.parent)
    chapter.write_text(json.dumps(CHAPTER | {"cells": [{"source": "c"}]}))
    setup_venv.lab()
    assert json.loads(copy.read_text()) == made, "somebody's work"
    assert f"{copy} {chapter_copies.OLDER}: rename it" in capsys.readouterr().err
    assert chapter_copies.is_older(copy, chapter.parent)


def test_a_copy_that_nobody_changed_follows_its_chapter(
    calls: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, chapter = (tmp_path / where / "01_explore_data.ipynb" for where in ("report/local/lab", "notebooks"))
    setup_venv.lab()
    made = json.loads(copy.read_text())
    made["cells"] = [{"source": "a\nb", "outputs": ["as JupyterLab saves what a cell printed"]}]
    copy.write_text(json.dumps(made))
    setup_venv.lab()
    assert json.loads(copy.read_text()) == made, "outputs stay while the chapter does"
    chapter.write_text(json.dumps(CHAPTER | {"cells": [{"source": "c"}]}))
    setup_venv.lab()
    assert json.loads(copy.read_text())["cells"] == [{"source": "c"}]
    assert chapter_copies.OLDER not in capsys.readouterr().err
    assert not chapter_copies.is_older(copy, chapter.parent)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"cells": 3, "metadata": []}', '{"cells": [], "metadata": {}}'])
def test_what_is_no_copy_is_kept_and_the_terminal_alone_names_it(
    text: str, calls: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "report" / "local" / "lab" / "01_explore_data.ipynb"
    copy.parent.mkdir(parents=True)
    copy.write_text(text)
    setup_venv.lab()
    assert copy.read_text() == text
    assert f"{copy} {chapter_copies.OLDER}" in capsys.readouterr().err, "it is in the way of a new one"
    assert not chapter_copies.is_older(copy, tmp_path / "notebooks")
    assert not chapter_copies.is_older(tmp_path / "nothing.ipynb", tmp_path / "notebooks")


def test_an_older_copy_says_so_when_it_is_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As after `git pull`: the library's names may have changed under a copy that somebody worked in."""
    said: list[str] = []
    monkeypatch.setattr(course, "finding", said.append)
    (copy,) = student_copies.write_student_copies(tmp_path, ["01"])
    monkeypatch.setenv("JPY_SESSION_NAME", str(copy))
    course.open_lab("shapes10")
    assert not any(chapter_copies.OLDER in line for line in said)
    notebook = json.loads(copy.read_text())
    notebook["metadata"][chapter_copies.MARK] = "another"
    copy.write_text(json.dumps(notebook))
    course.open_lab("shapes10")
    assert sum(chapter_copies.OLDER in line for line in said) == 1


def test_a_kernel_of_the_lab_says_how_to_come_by_a_name_before_a_chapter_is_opened(
    calls: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PYTHONSTARTUP", raising=False)
    setup_venv.lab()
    start = Path(kernel_start.__file__).relative_to(project_root())
    assert os.environ["PYTHONSTARTUP"].endswith(str(start))
    shell = InteractiveShell()
    monkeypatch.setattr(progress, "running_shell", lambda: shell)
    runpy.run_path(kernel_start.__file__)
    shell.run_cell("answer = task_4.check(3)")
    assert kernel_start.FROM_THE_TOP in capsys.readouterr().out
    assert "*" not in kernel_start.FROM_THE_TOP, "it is printed as it stands"


def test_the_lab_keeps_what_sliders_show(calls: list[list[str]], tmp_path: Path) -> None:
    setup_venv.lab()
    settings = json.loads((tmp_path / ".venv/share/jupyter/lab/settings/overrides.json").read_text())
    assert settings["@jupyter-widgets/jupyterlab-manager:plugin"] == {"saveState": True}


def test_a_request_to_end_reaches_what_was_started(tmp_path: Path) -> None:
    started = "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(60)"
    code = (
        f"from tpsnet_lib.cli.setup_venv import _run; import sys; sys.exit(_run([sys.executable, '-c', {started!r}]))"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(project_root())}) as parent:
        until(lambda: (tmp_path / "pid").is_file() and bool((tmp_path / "pid").read_text()), "its start")
        parent.terminate()
        parent.wait(PATIENCE)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
