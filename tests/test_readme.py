"""What the README tells a newcomer to type works, and what it says was measured is what the records say."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tpsnet_lib.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
LINES = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]


def test_it_opens_with_the_answer_in_at_most_120_words() -> None:
    opening = re.sub(r"<!--.*?-->|!\[.*?\]\(.*?\)", "", README.partition("\n## ")[0], flags=re.DOTALL)
    assert README.partition("\n## ")[2].startswith("Two commands")
    assert len(opening.split()) <= 120
    assert opening.index("Our best network") < 150


def test_every_command_is_one_that_is_tested_here_or_run_by_ci() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    for line in LINES:
        if line.startswith("make "):
            target = line.split()[1]
            assert f"\n{target}:" in (ROOT / "Makefile").read_text()
            assert target == "lab" or f"make {target}" in ci
        else:
            assert line.startswith("tpsnet ")


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("tpsnet ")])
@pytest.mark.slow
def test_the_commands_run(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(line)[1:]
    if words[0] in ("train", "notebooks"):
        words += ["--out", str(tmp_path)]
    monkeypatch.chdir(ROOT)
    assert main.main(words) == 0
    assert capsys.readouterr().out or words[0] == "notebooks"


def test_the_line_that_reproduces_the_best_network_trains_the_experiments_recipe() -> None:
    from tpsnet_lib.cli.network_commands import _config
    from tpsnet_lib.cli.parser import command_line
    from tpsnet_lib.runs.experiments import load_experiment

    line = re.search(r"`tpsnet (train --set model=two_cores [^`]*)`", README).group(1)  # type: ignore[union-attr]
    config = _config(command_line().parse_args(shlex.split(line))).with_precision("bf16")
    runs = load_experiment("two_cores").runs
    assert config.group_id == runs[0].config.group_id
    assert config.id not in {run.config.id for run in runs}


def test_the_options_it_names_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for command, options in {"run": ["--workers", "--pending", "--minutes"], "train": ["--resume", "--set"]}.items():
        with pytest.raises(SystemExit):
            main.main([command, "--help"])
        text = capsys.readouterr().out
        assert all(option in text for option in options)


def test_the_papermill_line_names_a_notebook_and_parameter_that_exist() -> None:
    import papermill

    notebook, name = re.search(r"`papermill (\S+) \S+ -p (\w+) ", README).groups()  # type: ignore[union-attr]
    assert name in papermill.inspect_notebook(str(ROOT / notebook))


@pytest.mark.slow
def test_jupyterlab_is_there_to_open() -> None:
    call = [sys.executable, "-m", "jupyterlab", "--version"]
    assert subprocess.run(call, capture_output=True, check=True).returncode == 0
    assert (ROOT / "notebooks" / "01_explore_data.ipynb").is_file()


def test_its_findings_and_figure_are_those_of_the_committed_records() -> None:
    from tpsnet_lib.report.build import with_findings
    from tpsnet_lib.report.landing import opened_recipes
    from tpsnet_lib.runs.records import Store, committed_folder

    finals = opened_recipes(Store(committed_folder()))
    assert with_findings(README, finals) == README, "run `tpsnet figures`"
    assert (ROOT / "figures" / "accuracy.svg").is_file()
    if finals:  # other records, another sentence
        assert with_findings(README, []) != README
