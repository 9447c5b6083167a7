"""Other people's machines: how git checked the files out, what is left of an older `.venv`, what a user has set."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tpsnet_lib.cli import setup_venv
from tpsnet_lib.errors import TpsnetError
from tpsnet_lib.runs.records import Store, committed_folder

ROOT = Path(__file__).parent.parent


def python(code: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A process that has this checkout's library, in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [sys.executable, "-c", code], check=False, cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize("line_ends", ["true", "input", "false"])
@pytest.mark.slow
def test_a_clone_keeps_every_checksum_whatever_git_does_with_line_ends(line_ends: str, tmp_path: Path) -> None:
    clone = ["git", "clone", "-q", "--depth=1", "-c", f"core.autocrlf={line_ends}", "-c", "core.eol=crlf"]
    if subprocess.run([*clone, ROOT.as_uri(), str(tmp_path / "clone")], check=False).returncode:
        pytest.skip("not a git checkout")
    records = tmp_path / "clone" / committed_folder().relative_to(ROOT)
    places = {record.path for record in Store(records).all()}
    assert len(places) >= 10
    assert all(place.is_relative_to(records) for place in places)
    assert b"\r\n" not in (tmp_path / "clone" / "pins.txt").read_bytes()


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The commands by which `setup` makes the `.venv` of a checkout `tps[1]`, none of which is run."""
    called: list[str] = []

    def run(command: list[str], folder: Path | None = None) -> int:
        called.append(" ".join(command))
        if "venv" in command:
            place = Path(command[-1]) / "bin" / "python"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        return 0

    root = tmp_path / "tps[1]"
    root.mkdir()
    for name in ("pins-uv.txt", "pins.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    monkeypatch.setattr(setup_venv, "project_root", lambda: root)
    monkeypatch.setattr(setup_venv, "_run", run)
    return called


VENV_STEPS = 5  # the venv itself, uv, whether it is there, the pins, the project


def test_a_venv_is_made_once_and_anew_for_other_pins(commands: list[str], tmp_path: Path) -> None:
    for _ in range(2):
        assert setup_venv.venv_python() == tmp_path / "tps[1]" / ".venv" / "bin" / "python"
    assert len(commands) == VENV_STEPS
    assert commands[-1].endswith("-e .")  # where a path with [1] would name an option
    assert "--compile-bytecode" in commands[-2]  # or torch is compiled at each import, where nothing may be written
    with (tmp_path / "tps[1]" / "pins.txt").open("a") as file:
        file.write("# another\n")
    setup_venv.venv_python()
    assert len(commands) == 2 * VENV_STEPS - 1


def test_a_copied_checkout_makes_a_venv_of_its_own(
    commands: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup_venv.venv_python()
    shutil.copytree(tmp_path / "tps[1]", tmp_path / "copy")
    monkeypatch.setattr(setup_venv, "project_root", lambda: tmp_path / "copy")
    setup_venv.venv_python()
    assert len(commands) == 2 * VENV_STEPS
    assert commands[VENV_STEPS].endswith(f"--clear {tmp_path / 'copy' / '.venv'}")


@pytest.mark.parametrize("step", range(VENV_STEPS))
def test_a_half_made_venv_is_named_and_made_anew(
    step: int, commands: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = setup_venv._run
    monkeypatch.setattr(setup_venv, "_run", lambda *given: run(*given) or int(len(commands) == step + 1))
    with pytest.raises(TpsnetError, match=r"(cannot|elsewhere) .* failed"):
        setup_venv.venv_python()
    monkeypatch.setattr(setup_venv, "_run", run)
    commands.clear()
    setup_venv.venv_python()
    assert "--clear" in commands[0]
    assert len(commands) == VENV_STEPS


def test_what_a_user_has_set_for_pip_uv_and_git_reaches_no_child(
    commands: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = {"PIP_USER": "1", "PIP_TARGET": "/x", "PIP_PREFIX": "/x", "UV_SYSTEM_PYTHON": "1", "PYTHONHOME": "/x"}
    for name, value in {**hostile, "GIT_DIR": "/x", "GIT_WORK_TREE": "/x"}.items():
        monkeypatch.setenv(name, value)
    assert not {*hostile, "GIT_DIR", "GIT_WORK_TREE"} & setup_venv._own_environment().keys()
    setup_venv.venv_python()
    assert all("--no-user" in command for command in commands if " -m pip " in command)


@pytest.mark.parametrize("version", ["3, 8", "3, 10", "3, 14"])
def test_another_python_is_named_before_anything_is_done(version: str, tmp_path: Path) -> None:
    for name in ("__init__", "__main__"):  # what an old one reads up to these words
        ast.parse((ROOT / "tpsnet_lib" / f"{name}.py").read_text(), feature_version=(3, 8))
    code = f"import sys, runpy; sys.argv[1:] = ['setup']; sys.version_info = ({version}, 0)"
    refused = python(f"{code}; runpy.run_module('tpsnet_lib', run_name='__main__')", tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"tpsnet: Python {version.replace(', ', '.')} runs this")
    assert len(refused.stderr.splitlines()) == 1
    assert "make PYTHON=python3.12 setup" in refused.stderr


@pytest.mark.slow
def test_figures_are_drawn_whatever_a_user_has_set_for_matplotlib(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nsavefig.dpi: 9999\nbackend: nonsense\n")
    code = "from tpsnet_lib.cli import main; assert main.main(['describe', '--draw', 'a.svg']) == 0\n"
    code += "import subprocess, sys; ask = 'matplotlib.rcParams[\"text.usetex\"]'\n"
    code += "subprocess.run([sys.executable, '-c', f'import matplotlib; print({ask})'], cwd='/', check=True)\n"
    drawn = python(code, tmp_path, MATPLOTLIBRC=str(tmp_path))
    assert drawn.returncode == 0, drawn.stderr
    assert drawn.stdout.endswith("False\n")
    assert (tmp_path / "a.svg").is_file()
