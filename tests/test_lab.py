"""`make lab`: a copy of notebook 01 in front, options handed on to JupyterLab, nothing that git knows changed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tpsnet_lib.cli import main, setup_venv


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The command lines that a lab in a project of two notebooks begins."""
    found: list[list[str]] = []
    (tmp_path / "notebooks").mkdir()
    for name in ("01_explore_data", "02_architecture_effects"):
        (tmp_path / "notebooks" / f"{name}.ipynb").write_text("{}")
    monkeypatch.setattr(setup_venv, "project_root", lambda: tmp_path)
    monkeypatch.setattr(setup_venv, "venv_python", lambda: Path("python"))
    monkeypatch.setattr(setup_venv, "_run", lambda command: found.append(list(command)) or 0)
    return found


def test_a_lab_opens_a_copy_of_notebook_01_and_hands_options_on(calls: list[list[str]], tmp_path: Path) -> None:
    assert main.main(["lab", "--", "--port", "9999", "--no-browser"]) == 0
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


def test_a_students_copy_is_kept_and_the_chapter_is_not_touched(
    calls: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup_venv.lab()
    copy, chapter = (tmp_path / where / "01_explore_data.ipynb" for where in ("report/local/lab", "notebooks"))
    copy.write_text('{"my": "work"}')
    setup_venv.lab()
    assert (copy.read_text(), chapter.read_text()) == ('{"my": "work"}', "{}")
    assert "has changed" not in capsys.readouterr().err
    os.utime(chapter, (2e9, 2e9))
    setup_venv.lab()
    assert copy.read_text() == '{"my": "work"}'
    assert f"delete {copy}" in capsys.readouterr().err
