"""Half an hour of a card is spent by a plan: choices, the declared best, a queue; it can be killed and gone on with."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import QUIET
from searching import until
from test_airbench import SCRIPT

from tpsnet_lib.analysis import final_runs
from tpsnet_lib.analysis.cost import run_flops
from tpsnet_lib.cli import main, record_commands
from tpsnet_lib.config import DataConfig, RunConfig
from tpsnet_lib.files import TpsnetError, write_json
from tpsnet_lib.model import build
from tpsnet_lib.model_cost import count_macs, count_parameters
from tpsnet_lib.runs import card, card_plan, openings, test_set
from tpsnet_lib.runs.experiments import all_experiments, load_experiment
from tpsnet_lib.runs.local_backend import RunOptions
from tpsnet_lib.runs.provenance import now
from tpsnet_lib.runs.record_files import write_record, write_sums
from tpsnet_lib.runs.records import Record, Store, default_store
from tpsnet_lib.runs.search_results import Unfinished
from tpsnet_lib.train_state import TrainState

ROOT = Path(__file__).parent.parent
FULL, SMOKE = card_plan.load_scale("full"), card_plan.load_scale("smoke")
NO_QUEUE = replace(SMOKE, queue={})
QUEUED = list(FULL.queue)
RUN = subprocess.run
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
    pending = [each for each in all_experiments() if each.needs == "gpu" and card.pending([each], default_store())]
    assert {each.name for each in pending} <= set(QUEUED)
    names = ["bench card", "choices", "members", *QUEUED]
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
    (tmp_path / "report" / "records").mkdir()
    for name in (
        "pyproject.toml",
        "report/spaces.yaml",
        "report/card_plan.yaml",
        "report/experiments/smoke.yaml",
        "report/card.sh",
    ):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".gitignore").write_text("/out/\n/report/local/\n")
    who = ["config", "user.name", "a"], ["config", "user.email", "a@b"]
    for call in (["init", "-q"], *who, ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", *call], cwd=tmp_path, check=True)
    return tmp_path


class Rented:
    """A machine without git and without what the project has beside its engine, on which a tree is brought."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder, self.home, self.store = folder / "rented", home, Store(folder / "rented/report/local/records")
        (folder / "bin").mkdir()
        for name, text in {
            "git": "exit 127",
            "python": f'shift 2\nexec {sys.executable} {ROOT}/tests/rented.py "$@"',  # -m tpsnet_lib
        }.items():
            (folder / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / "bin" / name).chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHON": "python",
            "TPSNET_DATA": str(folder / "data"),
            "CARD_OPTIONS": "--scale smoke --device cpu --execution captured",
        }

    def carry(self) -> None:
        """Bring the tree as it is at home, without its history; what git ignores there stays."""
        (self.folder / "report").mkdir(parents=True, exist_ok=True)
        shutil.copy(self.home / "pyproject.toml", self.folder)
        for path in self.folder.glob("report/experiments/*.yaml"):
            path.unlink()
        for path in (self.home / "report").glob("*"):
            if path.is_file():
                shutil.copy(path, self.folder / "report")
        shutil.copytree(self.home / "report/experiments", self.folder / "report/experiments", dirs_exist_ok=True)

    def call(self, *words: str, **more: str) -> str:
        """One call: `report/card.sh` with some words."""
        done = subprocess.run(
            ["report/card.sh", *words], cwd=self.folder, env={**self.environment, **more}, capture_output=True,
            text=True, timeout=500, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (done.stdout, done.stderr, self.log())
        return done.stdout

    def log(self) -> str:
        return (self.store.writable / "log").read_text()

    def kill(self) -> None:
        """Kill the process that carries out the plan, as soon as two runs are recorded."""
        until(lambda: len(self.store.all()) >= 2, "two records")
        asked = b"run\x00--card\x0030"
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if asked in path.read_bytes() and os.readlink(path.parent / "cwd") == str(self.folder):
                    os.kill(int(path.parent.name), signal.SIGKILL)
                    return
        raise AssertionError(self.log())


def head(home: Path) -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=home, check=True, capture_output=True, text=True)
    return done.stdout.strip()[:12]


def bring_home(packed: Path) -> str:
    """Commit what was packed, in the project of the working directory; returns the commit."""
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    call = ["report/card.sh", "home", str(packed)]
    done = subprocess.run(call, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_half_an_hour_on_a_machine_without_git_is_killed_goes_on_and_ends_in_committed_records(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    rented, packed = Rented(tmp_path_factory.mktemp("card"), project), tmp_path_factory.mktemp("out")
    rented.carry()
    (rented.folder / "report/local").mkdir()
    (rented.folder / "report/local/airbench95.py").write_text(SCRIPT % 1)
    rented.call("start", "30", TPSNET_COMMIT=head(project))
    rented.kill()
    before = {record.id: record.provenance["finished"] for record in rented.store.all()}
    rented.call("wait", "400", str(packed))
    assert "the best is declared: bring home and commit report/experiments/card_smoke_choices.yaml" in rented.log()
    assert not any(record.has_weights for record in rented.store.all())  # nothing was trained before its declaration

    monkeypatch.chdir(project)
    declared_in = bring_home(packed)
    assert declared_in == head(project)
    log = subprocess.run(["git", "log", "--format=%s"], capture_output=True, text=True, check=True).stdout
    assert log.splitlines() == ["What 30 minutes of a card have come to", "Declare what 30 minutes buy", "first"]

    rented.carry()  # the running plan finds its declarations in the new tree
    rented.call("declared", declared_in)
    rented.call("wait", "400", str(packed))
    assert "nothing waits" in rented.log()
    assert rented.log().count("card_smoke_best_split, ") == 1
    state = json.loads((packed / "card.json").read_text())
    parts = {part["name"]: part for part in state["parts"]}
    runs = ["card_smoke_choices", "card_smoke_members", "card_smoke_best"]
    assert list(parts) == ["bench card", *runs, "bench loop", "bench airbench"]
    assert all(part["finished"] and part["minutes"] > 0 < part["predicted_minutes"] for part in parts.values())
    assert state["speed"] == parts["bench card"]["result"]["speed"] == state["bench"]["speed"]
    assert parts["bench loop"]["result"]["ratio"]["median"] > 0
    assert [len(parts["bench airbench"]["result"][side]) for side in ("airbench95", "ours")] == [1, 1]
    assert sorted(path.name for path in packed.iterdir()) == ["card.json", "records.tar.00"]

    assert bring_home(packed) == head(project)
    assert json.loads((project / "report/records/card.json").read_text()) == state
    kept = subprocess.run(["git", "ls-files", "report"], capture_output=True, text=True, check=True).stdout
    arrived = Store(project / "report/local/records", project / "report/records")
    after = {record.id: record for record in arrived.all()}
    assert len(after) == 4 + 3 + 4
    assert {run_id: after[run_id].provenance["finished"] for run_id in before} == before  # none was run again
    label, winner = card_plan.winner([f"card_smoke_{part}" for part in ("choices", "members")], arrived)
    best, (split,) = load_experiment("card_smoke_best"), load_experiment("card_smoke_best_split").runs
    assert label in best.question
    assert {run.config.model for run in best.runs} == {winner.config.model}
    assert [run.config.seed for run in best.runs] == [0, 1, 2]
    assert "temperature" in after[split.config.id].metrics
    assert {record.provenance["execution"] for record in after.values()} == {"captured"}
    for record in (after[run.config.id] for run in best.runs):
        declared = test_set.declaration(record)
        assert (declared.experiment, declared.commit) == ("card_smoke_best", declared_in)
        assert record.config.data.fit_on == "all"
        assert f"report/records/{record.id}/weights.safetensors" in kept
    assert {f"report/records/card_smoke_{part}.trials.jsonl" for part in ("choices", "members", "best_split")} <= set(
        kept.splitlines()
    )
    assert main.main(["test", record.id, "--device", "cpu"]) == 0  # the ordinary opening, at home


@pytest.mark.parametrize("text", ['{"speed": NaN}', '{"speed": 0}', "{}", "[]", None])
def test_a_card_that_is_not_measured_is_planned_with_a_usual_speed(
    text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / "bench_card.json").write_text(text)
    assert card.measured(tmp_path / "bench_card.json") == {"speed": SPEED}
    assert "tpsnet: the card is not measured (" in capsys.readouterr().err


def test_a_plan_takes_what_bench_card_prints(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr(card, "run_all", lambda jobs, options: [])
    small = [f"--set=model.{name}={value}" for name, value in SMOKE.model.items()]
    call = ["bench", "card", "--device", "cpu", "--json", "--seconds", "0.4", "--set", "train.batch_size=50", *small]
    assert main.main([word.replace(" ", "") for word in call]) == 0
    printed = capsys.readouterr().out
    (project / "out").mkdir()
    (project / "out" / "bench_card.json").write_text(printed)
    spent = card.begin(30, SMOKE, RunOptions(Store(project / "out"), training=QUIET))
    assert spent.spend() == ["card_smoke_best", "bench loop", "bench airbench"]
    assert spent.state["bench"] == json.loads(printed)
    assert spent.state["speed"] == json.loads(printed)["speed"] > 0


def test_a_run_that_is_lost_is_named_and_the_plan_goes_on(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)

    def run_all(jobs: Any, options: RunOptions) -> list[Record]:
        for number, (_, run) in enumerate(jobs[:-1]):  # the last of each part is lost
            recorded(options.store, run.config.with_precision("fp32"), 0.5 + 0.01 * number)
        raise Unfinished("1 runs could not be finished: the last")

    monkeypatch.setattr(card, "run_all", run_all)
    spent = card.begin(30, NO_QUEUE, RunOptions(Store(project / "out"), training=QUIET))
    write_json(spent.path.with_name("bench_card.json"), {"speed": 4e10})
    assert spent.spend() == []
    assert capsys.readouterr().err.count("tpsnet: 1 runs could not be finished: the last; the plan goes on") == 3
    assert [part["name"] for part in spent.state["parts"]] == [
        f"card_smoke_{n}" for n in ("choices", "members", "best")
    ]
    log = subprocess.run(["git", "log", "--format=%s"], capture_output=True, text=True, check=True).stdout
    assert log.count("What 30 minutes of a card have come to") == 3  # as they come
    assert log.count("Declare what") == 1


def measured(call: list[str], done: list[tuple[str, float]], **given: Any) -> subprocess.CompletedProcess[bytes]:
    """Stands in for `subprocess.run` where a bench is called."""
    if call[0] == "git":
        return RUN(call, **given)
    assert call[1:4] == ["-m", "tpsnet_lib", "bench"]
    done.append((f"bench {call[4]}", 0))
    return subprocess.CompletedProcess(call, 0, json.dumps({"ours": len(done), "seconds": given["timeout"]}).encode())


def test_a_bench_is_measured_once_within_its_minutes_and_one_that_fails_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    spent = card.begin(30, SMOKE, RunOptions(Store(project / "report/local/records"), training=QUIET))
    name, row = "bench airbench", SMOKE.queue["bench airbench"]
    assert spent._bench(name, {**row, "options": "--repeats few"})  # it is left out, and the plan goes on
    error = capfd.readouterr().err
    assert "argument --repeats: invalid int value: 'few'" in error
    assert re.search("tpsnet: bench airbench: .* returned non-zero exit status 2.; the plan goes on without", error)

    done: list[tuple[str, float]] = []
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", partial(measured, done=done))
        assert not spent._bench(name, {**row, "minutes": 31})
        assert spent._bench(name, row)
        assert spent._bench(name, row)  # the second time its result is there
    assert done == [(name, 0)]
    (part,) = json.loads((project / "report/records/card.json").read_text())["parts"]  # committed
    assert (part["name"], part["finished"], part["runs"], "lost" in part) == (name, True, 0, False)
    assert part["result"] == json.loads((project / "report/local/records/bench_airbench.json").read_text())
    assert part["result"]["seconds"] == pytest.approx(60 * spent.left, abs=5)
    assert name in card_plan.table([part])
    spent.ends = time.time() + 0.1
    assert not spent._bench("bench loop", {"minutes": 0.001})  # it is ended when the minutes are over
    assert "tpsnet: bench loop: " in capfd.readouterr().err


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
    before = card.commit()
    spent = card.begin(28, replace(FULL, prefix="best"), RunOptions(Store(tmp_path), training=QUIET))
    spent.state["speed"] = SPEED
    spent.state["experiments"] = {}
    monkeypatch.setattr(subprocess, "run", partial(measured, done=ran))
    for name, row in FULL.queue.items():
        spent._do(name, row)
    assert [name for name, _ in ran] == QUEUED
    ran.clear()
    short = "card_distilled", "table1_matched", "table1_unmatched", "search_original_9", "search_original_30"
    short += "best_split", "best_choices"  # of the benches each is there already
    spent.state["began"] -= 60 * 20  # 7.5 minutes are left
    spent.state["parts"].clear()
    for name, row in FULL.queue.items():
        spent._do(name, row)
    assert [name for name, _ in ran] == [name for name in QUEUED if name in short]
    assert card.commit() == before  # what is kept elsewhere is not committed here


def test_a_plan_is_as_long_as_the_speed_that_was_measured_allows(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr(card, "run_all", lambda jobs, options: [])
    epochs = {}
    for name, speed in (("fast", 4e11), ("slow", 1e11)):
        options = RunOptions(Store(project / name))
        write_json(project / name / "bench_card.json", {"speed": speed, "peak": 7e14})
        spent = card.begin(0.6, replace(SMOKE, prefix=name, choice_epochs=10**6), options)
        assert spent.spend()  # something waits: nothing was run
        write_json(project / name / "bench_card.json", {})  # which is read once a plan
        assert spent.spend()
        assert json.loads((project / name / "card.json").read_text())["bench"] == {"speed": speed, "peak": 7e14}
        epochs[name] = load_experiment(f"{name}_choices").runs[0].config.train.epochs
    assert epochs["fast"] == pytest.approx(4 * epochs["slow"], rel=0.1)


def test_minutes_that_are_over_are_said_in_a_line(tmp_path: Path, project: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(project)
    options = RunOptions(Store(project / "out"), training=QUIET)
    card.begin(30, SMOKE, options)._save()
    state = json.loads((project / "out" / "card.json").read_text())
    (project / "out" / "card.json").write_text(json.dumps({**state, "began": time.time() - 1801}))
    with pytest.raises(TpsnetError, match=r"the 30 minutes that began at .* are over: delete .*card\.json"):
        card.begin(30, SMOKE, options)


def test_nothing_is_declared_from_a_tree_that_differs_from_its_commit(project: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(project)
    (project / "report" / "spaces.yaml").write_text("{}\n")
    with pytest.raises(TpsnetError, match="tracked files differ from the commit"):
        card.begin(30, SMOKE, RunOptions(Store(project / "out"), training=QUIET)).spend()


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
        line = {"record": path.name, **{name: said[name] for name in ("opened", "accuracy", "n")}}
        openings.append(openings.log_of(store.writable), line)


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
    assert final_runs.rank_records(store, "cifar10")[0].id == first.with_seed(0).id
