"""What is declared beforehand runs on a rented card's machine, without git and Ray, and its records come home."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from searching import finished, until

from tpsnet_lib.cli import main
from tpsnet_lib.runs import test_set
from tpsnet_lib.runs.experiments import load_experiment
from tpsnet_lib.runs.records import Store

ROOT = Path(__file__).parent.parent
DECLARATION = """
question: What does it reach?
needs: gpu
final: true
base:
  model: {blocks: [1, 1], stem: 4, channels: [4, 8]}
  train: {epochs: 3, batch_size: 50, precision: fp32}
  data: {dataset: shapes10, train_size: 200, validation_size: 100, fit_on: all}
seeds: [0, 1, 2, 3]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of its own with a git repository, whose last commit declares an experiment."""
    home = tmp_path / "home"
    (home / "report" / "experiments").mkdir(parents=True)
    (home / "report" / "records").mkdir()
    shutil.copy(ROOT / "pyproject.toml", home)
    shutil.copy(ROOT / "report" / "spaces.yaml", home / "report")
    (home / "report" / "experiments" / "declared.yaml").write_text(DECLARATION)
    (home / ".gitignore").write_text("/report/local/\n")
    who = ["config", "user.name", "a"], ["config", "user.email", "a@b"]
    for call in (["init", "-q"], *who, ["add", "."], ["commit", "-q", "-m", "Declare it"]):
        subprocess.run(["git", *call], cwd=home, check=True)
    return home


@pytest.mark.slow
def test_what_is_declared_runs_on_a_machine_without_git_and_ray_and_comes_home(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=project, check=True, capture_output=True, text=True)
    commit = head.stdout.strip()[:12]
    rented, store = tmp_path / "rented", Store(tmp_path / "rented/report/local/records")
    shutil.copytree(project, rented, ignore=shutil.ignore_patterns(".git"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").write_text("#!/bin/sh\nexit 127\n")
    (tmp_path / "bin" / "git").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TPSNET_COMMIT": commit,
    }

    def start(*words: str) -> subprocess.Popen[str]:
        call = [sys.executable, str(ROOT / "tests" / "rented.py"), *words]
        return subprocess.Popen(call, cwd=rented, env=environment, stdout=subprocess.PIPE, text=True)

    run = "run", "declared", "--workers", "2", "--device", "cpu", "--execution", "captured", "--minutes", "9"
    killed = start(*run)
    until(lambda: len(store.all()) >= 2, "two records")
    killed.kill()
    killed.communicate()
    before = finished(store)
    assert start(*run).communicate()[0].endswith(" 0 failed, 0 pending\n")
    assert before.items() <= finished(store).items()  # none was run again
    assert start("records", "export", "--out", "records.tar").communicate()[0] == "4 records in records.tar\n"

    monkeypatch.chdir(project)
    assert main.main(["records", "import", str(rented / "records.tar")]) == 0
    arrived = Store(project / "report/local/records")
    records = [arrived.load(run.config.id) for run in load_experiment("declared").runs]
    for record in records:
        declared = test_set.declaration(record)
        assert (declared.experiment, declared.commit) == ("declared", commit)
        assert record.provenance["execution"] == "captured"
    assert main.main(["test", records[0].id, "--device", "cpu"]) == 0  # the ordinary opening, at home
    assert json.loads((records[0].path / "test" / "metrics.json").read_text())["n"] > 0
