"""Half an hour of a card is spent by a plan: choices, the declared best, a queue; it can be killed and gone on with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tpsnet_lib.analysis import errors, final_runs
from tpsnet_lib.analysis.cost import run_flops
from tpsnet_lib.cli import main, record_commands
from tpsnet_lib.config import DataConfig, RunConfig
from tpsnet_lib.files import RecordError, TpsnetError, write_json
from tpsnet_lib.model import build
from tpsnet_lib.model_cost import count_macs, count_parameters
from tpsnet_lib.runs import card, card_plan, export, test_set
from tpsnet_lib.runs.experiments import load_experiment
from tpsnet_lib.runs.local_backend import RunOptions
from tpsnet_lib.runs.provenance import now
from tpsnet_lib.runs.record_files import write_record, write_sums
from tpsnet_lib.runs.records import Record, Store
from tpsnet_lib.train_state import TrainState

ROOT = Path(__file__).parent.parent
FULL, SMOKE = card_plan.SCALES["full"], card_plan.SCALES["smoke"]
SPEED = card_plan.PEAK * card_plan.SHARE


# The plan -------------------------------------------------------------------------------------------------------------


def test_choices_and_members_take_8_minutes_at_most_and_each_as_much_arithmetic() -> None:
    for minutes, speed in ((28.0, SPEED), (28.0, 3 * SPEED), (10.0, SPEED)):
        tried = card_plan.choices(FULL, "bf16", minutes, speed)
        label, first = next(iter(tried.items()))
        beside = card_plan.members(FULL, label, first)
        assert [len(tried), len(beside)] == [4, 3]
        runs = [*tried.values(), *beside.values()]
        assert card_plan.predicted_minutes(runs, speed) <= min(8, 0.3 * minutes) * 1.02
        assert max(config.train.epochs for config in tried.values()) <= 60
        assert [run_flops(config) / run_flops(first) for config in runs] == pytest.approx([1] * 7, abs=0.05)
        assert all(config.data.fit_on == "split" for config in runs)
    assert {config.train.asam for config in beside.values()} == {0.0, 2.0}
    assert all(count_parameters(config.model) <= 5_000_000 for config in runs)


def test_the_declared_run_fits_into_the_minutes_left_with_a_margin() -> None:
    first = card_plan.choices(FULL, "bf16", 28, SPEED)["CutMix"]
    for minutes in (5.0, 18.0):
        run = card_plan.best(FULL, first, minutes, SPEED)
        four = [run] * 3 + [replace(run, data=first.data)]
        assert 0.8 * minutes < card_plan.predicted_minutes(four, SPEED) <= 0.86 * minutes
        assert (run.data.fit_on, run.train.schedule_epochs) == ("all", 0)
        assert run.train.warmup_epochs / run.train.epochs == pytest.approx(4 / 60, rel=0.01)
    assert card_plan.best(FULL, first, 1e6, SPEED).train.epochs == FULL.most_epochs


def test_a_declaration_is_an_experiment_of_these_very_runs(tmp_path: Path) -> None:
    tried = card_plan.choices(FULL, "bf16", 28, SPEED)
    path = tmp_path / "some.yaml"
    path.write_text(card_plan.declaration("Which: a 'quoted' one?", tried, 1.26, (0, 1), True), "utf-8")
    experiment = load_experiment(path)
    assert (experiment.question, experiment.final, experiment.needs) == ("Which: a 'quoted' one?", True, "gpu")
    assert [run.config.id for run in experiment.runs] == [c.with_seed(s).id for c in tried.values() for s in (0, 1)]
    assert experiment.runs[0].label == "TrivialAugment"


def test_the_plan_predicts_every_part_and_every_queued_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["run", "--card", "28", "--plan"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = ["choices", "members", *FULL.queue, "loop, batch 128", "airbench95"]
    minutes = {name: float(line.split()[-1]) for line in lines for name in names if line.startswith(f"{name} ")}
    assert list(minutes) == names
    assert all(value > 0 for value in minutes.values())
    (long,) = {run.config for run in load_experiment("card_long").runs if run.config.seed == 0}
    expected = 6 * count_macs(long.model) * 50_000 * 1200 / SPEED / 60
    assert minutes["card_long"] == pytest.approx(3 * expected, abs=0.1)
    assert expected < 28  # one fits into a half hour at the share that is assumed
    assert main.main(["run", "--card", "0", "--plan"]) == 1


# The whole, in miniature ----------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of its own with a git repository, so that declarations can be committed."""
    (tmp_path / "report" / "experiments").mkdir(parents=True)
    for name in ("pyproject.toml", "report/spaces.yaml", "report/experiments/smoke.yaml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / ".gitignore").write_text("/out/\n/home/\n")
    who = ["config", "user.name", "a"], ["config", "user.email", "a@b"]
    for call in (["init", "-q"], *who, ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", *call], cwd=tmp_path, check=True)
    return tmp_path


def start(project: Path, *more: str, **environment: str) -> subprocess.Popen[str]:
    call = [sys.executable, "-m", "tpsnet_lib", "run", "--card", "30", "--scale", "smoke", "--device", "cpu", "--plain"]
    there = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen(
        [*call, "--out", "out", *more], cwd=project, env=there, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip


def commit_all(project: Path) -> str:
    for call in (["add", "."], ["commit", "-q", "-m", "declared"]):
        subprocess.run(["git", *call], cwd=project, check=True)
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=project, check=True, capture_output=True, text=True)
    return done.stdout.strip()[:12]


@pytest.mark.slow
def test_a_plan_killed_on_a_machine_without_git_goes_on_and_ends_in_the_declared_records(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, store = project.rename(project.parent / "home"), Store(project / "out")

    def carry() -> None:
        """The tree as it is at home, without its history; the store stays where the card is."""
        (project / "report").mkdir(parents=True, exist_ok=True)
        shutil.rmtree(project / "report")
        shutil.copytree(home / "report", project / "report")
        shutil.copy(home / "pyproject.toml", project)

    carry()
    killed = start(project, TPSNET_COMMIT="1" * 12)
    while len(store.all()) < 2:
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.2)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    before = {record.id: record.provenance["finished"] for record in store.all()}

    carry()
    first = start(project, "--pack", "pack", TPSNET_COMMIT="1" * 12)
    _, err = first.communicate(timeout=580)
    said = "the best is declared: commit report/experiments/card_smoke_choices.yaml"
    assert said in err.splitlines()[-1]
    assert first.returncode == 1
    assert not any(record.has_weights for record in store.all())  # nothing was trained before its declaration
    for path in (project / "pack" / "experiments").iterdir():
        shutil.copy(path, home / "report" / "experiments")
    commit = commit_all(home)

    carry()
    second = start(project, "--pack", "pack", TPSNET_COMMIT=commit)
    out, err = second.communicate(timeout=580)
    assert second.returncode == 0, err
    assert "nothing waits" in out
    parts = {part["name"]: part for part in json.loads((project / "pack" / "card.json").read_text())["parts"]}
    assert list(parts) == ["card_smoke_choices", "card_smoke_members", "card_smoke_best"]
    assert all(part["finished"] and part["minutes"] > 0 < part["predicted_minutes"] for part in parts.values())

    arrived = Store(home / "arrived")
    came, _ = export.import_records(project / "pack" / "records.tar.00", arrived.writable)
    assert len(came) == 4 + 3 + 4
    after = {record.id: record for record in arrived.all()}
    assert {run_id: after[run_id].provenance["finished"] for run_id in before} == before  # none was run again
    monkeypatch.chdir(home)
    label, winner = card_plan.winner(
        [load_experiment(f"card_smoke_{part}") for part in ("choices", "members")], arrived
    )
    best, (split,) = load_experiment("card_smoke_best"), load_experiment("card_smoke_best_split").runs
    assert label in best.question
    assert {run.config.model for run in best.runs} == {winner.config.model}
    assert [run.config.seed for run in best.runs] == [0, 1, 2]
    assert "temperature" in after[split.config.id].metrics
    for record in (after[run.config.id] for run in best.runs):
        declared = test_set.declaration(record)
        assert (declared.experiment, declared.commit) == ("card_smoke_best", commit)
        assert record.config.data.fit_on == "all"
        assert record.has_weights
    assert main.main(["test", record.id, "--out", "arrived", "--device", "cpu"]) == 0  # the ordinary opening, at home


def test_a_declaration_is_committed_once_where_git_is(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    path = project / "report" / "experiments" / "card_best.yaml"
    path.write_text("question: x\n")
    (project / "other.txt").write_text("not asked for")
    for _ in range(2):
        card._commit([path], "Declare it")
    log = subprocess.run(
        ["git", "log", "--format=%s", "--stat"], cwd=project, capture_output=True, text=True, check=True
    )
    assert log.stdout.count("Declare it") == 1
    assert "other.txt" not in log.stdout
    path.write_text("question: y\n")
    (project / ".git" / "hooks" / "pre-commit").write_text("#!/bin/sh\nexit 1\n")
    (project / ".git" / "hooks" / "pre-commit").chmod(0o755)
    with pytest.raises(TpsnetError, match="git could not commit the declaration"):
        card._commit([path], "Declare it")


def test_the_queue_runs_in_order_what_fits_into_the_minutes_that_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, int]] = []

    def run_all(jobs: Any, options: RunOptions) -> list[Record]:
        ran.append((jobs[0][0].name, len(jobs)))
        return []

    monkeypatch.setattr(card, "run_all", run_all)
    spent = card.Card(28, replace(FULL, prefix="best"), RunOptions(Store(tmp_path), device="cpu"))
    spent.state["speed"] = SPEED
    spent.state["experiments"] = {}
    for name, beside in FULL.queue.items():
        spent._run([load_experiment(name)], beside, queued=True)
    assert [name for name, _ in ran] == list(FULL.queue)
    ran.clear()
    spent.state["began"] -= 60 * 20  # 7.5 minutes are left
    spent.state["parts"].clear()
    for name, beside in FULL.queue.items():
        spent._run([load_experiment(name)], beside, queued=True)
    assert [name for name, _ in ran] == [
        "table1_matched",
        "table1_unmatched",
        "search_original_9",
        "search_original_30",
    ]


def test_a_plan_is_as_long_as_the_speed_that_was_measured_allows(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr(card, "run_all", lambda jobs, options: [])
    calls: list[int] = []

    def measure(speed: float) -> Any:
        return lambda: calls.append(1) or {"speed": speed, "peak": 7e14}

    epochs = {}
    for name, speed in (("fast", 4e11), ("slow", 1e11)):
        spent = card.Card(
            0.6, replace(SMOKE, prefix=name, choice_epochs=10**6), RunOptions(Store(project / name)), measure(speed)
        )
        assert spent.spend()  # something waits: nothing was run
        assert spent.spend()
        assert json.loads((project / name / "card.json").read_text())["bench"] == {"speed": speed, "peak": 7e14}
        epochs[name] = load_experiment(f"{name}_choices").runs[0].config.train.epochs
    assert len(calls) == 2  # measured once a plan
    assert epochs["fast"] == pytest.approx(4 * epochs["slow"], rel=0.1)


def test_minutes_that_are_over_are_said_in_a_line(tmp_path: Path, project: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(project)
    options = RunOptions(Store(project / "out"), device="cpu")
    card.Card(30, SMOKE, options)._save()
    state = json.loads((project / "out" / "card.json").read_text())
    (project / "out" / "card.json").write_text(json.dumps({**state, "began": time.time() - 1801}))
    with pytest.raises(TpsnetError, match=r"the 30 minutes that began at .* are over: delete .*card\.json"):
        card.Card(30, SMOKE, options)


def test_nothing_is_declared_from_a_tree_that_differs_from_its_commit(project: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(project)
    (project / "report" / "spaces.yaml").write_text("{}\n")
    with pytest.raises(TpsnetError, match="tracked files differ from the commit"):
        card.Card(30, SMOKE, RunOptions(Store(project / "out"), device="cpu")).spend()


# Who takes the winner -------------------------------------------------------------------------------------------------


def recorded(store: Store, config: RunConfig, validation: float, correct: int | None = None) -> None:
    """A record of CIFAR-10 with weights and the figures that are given, opened on the test set if `correct` is."""
    model = build(config.model)
    row = {"epoch": 1.0, "train_loss": 1.0, "train_accuracy": 0.9, "validation_loss": 1.0}
    history = [{**row, "validation_accuracy": validation}]
    state = TrainState(config, 50_000, model, torch.optim.SGD(model.parameters()), None, 1, 60.0, history)
    made = {"fingerprint": {"stamp": "CIFAR-10"}, "hardware": "a card", "finished": now(), "started": now()}
    path = write_record(store.writable, config, state, made)
    if correct is not None:
        (path / "test").mkdir()
        share = {"correct": correct, "n": 10_000, "accuracy": correct / 10_000, "low": 0.0, "high": 1.0}
        said = {"opened": now(), **share, **{f"exact_{name}": value for name, value in share.items()}}
        write_json(path / "test" / "metrics.json", said)
        np.savez_compressed(path / "test" / "logits.npz", logits=np.zeros((10_000, 10), np.float16))
        write_sums(path / "test")


@pytest.mark.parametrize("better", [True, False])
def test_the_notebooks_and_the_test_command_take_the_winner_from_the_records(
    better: bool, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    store, small = Store(project / "out"), replace(SMOKE, data={})
    tried = card_plan.choices(small, "bf16", 28, 1e9)
    before, card_best = (card_plan.best(small, tried[name], 28, 1e9) for name in ("TrivialAugment", "CutMix"))
    for name, run in (("earlier", before), ("card_best", card_best)):
        text = card_plan.declaration("?", {name: run}, 1, (0, 1, 2), final=True)
        (project / "report" / "experiments" / f"{name}.yaml").write_text(text)
    for run, validation, correct in ((before, 0.95, 9_990), (card_best, 0.96 if better else 0.94, 9_000)):
        recorded(store, replace(run, data=DataConfig()), validation)
        for seed in range(3):
            recorded(store, run.with_seed(seed), 0.999, correct)
    wins, first = ("card_best", card_best) if better else ("earlier", before)  # whatever the test set says
    ranked = final_runs.finals(store)
    assert (ranked[0].name, len(ranked[0].records), len(ranked)) == (wins, 3, 2)
    assert record_commands._best_opened(store) == first.with_seed(0).id
    assert errors.rank_records(store, "cifar10")[0].id == first.with_seed(0).id


# What travels ---------------------------------------------------------------------------------------------------------


def test_an_archive_in_pieces_is_one_archive(tiny_record: Record, tmp_path: Path) -> None:
    pieces = export.export_pieces([tiny_record], tmp_path / "records.tar", 5000)
    assert len(pieces) > 1
    assert [piece.name for piece in pieces] == [f"records.tar.{n:02}" for n in range(len(pieces))]
    assert max(piece.stat().st_size for piece in pieces) == 5000
    assert export.import_records(pieces[0], tmp_path / "store")[0] == [tiny_record.id]
    pieces[1].unlink()
    with pytest.raises(RecordError, match="is torn"):
        export.import_records(pieces[0], tmp_path / "other")
    assert not list((tmp_path / "other").glob("*/config.json"))
