"""A search on processes of this machine loses nothing and repeats nothing, whatever is killed."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from conftest import QUIET
from searching import (
    PATIENCE,
    declare,
    in_training,
    kill_again_and_again,
    kill_holder,
    quiet,
    rates,
    start,
    table,
    until,
)

from tpsnet_lib import train
from tpsnet_lib.checkpoint import read_checkpoint
from tpsnet_lib.errors import Interrupted, TpsnetError
from tpsnet_lib.runs import local_backend, search_results
from tpsnet_lib.runs.experiments import collect, pending
from tpsnet_lib.runs.local_backend import WorkerSettings, run_all
from tpsnet_lib.runs.records import Store
from tpsnet_lib.whole_files import write_whole

proc_only = pytest.mark.skipif(sys.platform != "linux", reason="finds the process to kill in /proc")


@proc_only
@pytest.mark.slow
def test_a_search_killed_at_random_moments_ends_in_the_same_table(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path)


@proc_only
@pytest.mark.slow
def test_a_killed_worker_costs_no_run(tmp_path: Path) -> None:
    experiment, store = declare(tmp_path / "e.yaml", **rates(3, **{"train.epochs": 8})), Store(tmp_path / "store")
    harm: list[bool] = []

    def hurt() -> None:
        until(lambda: any(kill_holder(lock) for lock in in_training(store)), "a run in training whose worker dies")
        harm.append(True)

    threading.Thread(target=hurt).start()
    records = run_all(pending([experiment], store), quiet(store))
    assert harm == [True]
    assert len(records) == len(table(experiment, store)) == 3


@proc_only
@pytest.mark.slow
def test_a_run_whose_worker_dies_every_time_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    runs = [{"train.lr": 0.01, "train.epochs": 200}, {"train.lr": 0.02}, {"train.lr": 0.03}]  # the first is never done
    experiment, store = declare(tmp_path / "e.yaml", runs=runs), Store(tmp_path / "store")
    unlucky = experiment.runs[0].config.id
    ended = threading.Event()

    def hurt() -> None:
        while not ended.wait(0.005):
            for lock in in_training(store):
                if lock.name == unlucky:
                    kill_holder(lock)

    killer = threading.Thread(target=hurt)
    killer.start()
    try:
        with pytest.raises(TpsnetError, match=r"1 runs could not be finished: e, .*train.lr=0.01: .*killed twice"):
            run_all(pending([experiment], store), quiet(store, workers=2))
    finally:
        ended.set()
        killer.join()
    assert [run.config.id for _, run in pending([experiment], store)] == [unlucky]


@proc_only
@pytest.mark.slow
def test_a_stopped_process_that_holds_a_run_is_named_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_backend, "POLL_SECONDS", 0.1)  # after which a run that was held is tried again
    experiment, store = declare(tmp_path / "e.yaml", **rates(2)), Store(tmp_path / "store")
    held = store.writable / ".locks" / experiment.runs[0].config.id
    script = "import sys, os, signal, pathlib; from tpsnet_lib.locks import lock\n"
    script += "with lock(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGSTOP)"
    holder = subprocess.Popen([sys.executable, "-c", script, str(held)])
    try:
        until(lambda: held.is_file() and held.read_text().startswith(f"{holder.pid} "), "a lock")
        stopped = rf"1 runs could not be finished: .*lr=0.01: process {holder.pid}, which is stopped .* holds it"
        with pytest.raises(TpsnetError, match=stopped):
            run_all(pending([experiment], store), quiet(store))
    finally:
        holder.kill()
        holder.wait()
    assert [run.label for _, run in pending([experiment], store)] == [experiment.runs[0].label]


@proc_only
@pytest.mark.slow
def test_a_stopped_worker_whose_driver_was_killed_is_named_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_backend, "POLL_SECONDS", 0.1)
    runs = [{"train.lr": 0.01, "train.epochs": 5000}, {"train.lr": 0.02}, {"train.lr": 0.03}]
    experiment, store = declare(tmp_path / "e.yaml", runs=runs), Store(tmp_path / "store")
    search = start(tmp_path / "e.yaml", store)
    until(lambda: any(lock.read_text() for lock in in_training(store)), "a run in training")
    (held,) = in_training(store)
    worker = int(held.read_text().split()[0])
    os.kill(worker, signal.SIGSTOP)
    search.kill()
    search.wait()
    try:
        said = re.escape(f"process {worker}, which is stopped (`kill -CONT {worker}` lets it go on), holds it")
        with pytest.raises(TpsnetError, match=f"1 runs could not be finished: .*lr=0.01: {said}"):
            run_all(pending([experiment], store), quiet(store))
    finally:
        os.kill(worker, signal.SIGKILL)
    assert [run.config.id for _, run in pending([experiment], store)] == [held.name]


@pytest.mark.slow
def test_sigterm_leaves_a_checkpoint_and_one_line(tmp_path: Path) -> None:
    path, store = tmp_path / "e.yaml", Store(tmp_path / "store")
    declare(path, runs=[{"train.epochs": 5000}])
    search = start(path, store)
    until(
        lambda: bool(list(store.writable.glob(".work/*/epochs"))) or search.poll() is not None, "an epoch that is done"
    )
    search.terminate()
    said = search.communicate(timeout=PATIENCE)[1].decode()
    assert said.splitlines() == ["tpsnet: stopped with 0 of 1 runs done; the same command goes on"]
    assert search.returncode == 130
    assert len(list(store.writable.glob(".work/*/checkpoint"))) == 1


@pytest.mark.slow
def test_sigterm_ends_a_search_of_which_a_worker_waits_for_nothing(tmp_path: Path) -> None:
    path, store = tmp_path / "e.yaml", Store(tmp_path / "store")
    declare(path, runs=[{"train.lr": 0.02}, {"train.epochs": 5000}])
    search = start(path, store, "--workers", "2")
    until(lambda: len(store.all()) == 1 and bool(list(store.writable.glob(".work/*/epochs"))), "a run that is done")
    search.terminate()
    said = search.communicate(timeout=PATIENCE)[1].decode()
    assert said.splitlines() == ["tpsnet: stopped with 1 of 2 runs done; the same command goes on"]
    assert len(list(store.writable.glob(".work/*/checkpoint"))) == 1


def test_a_stop_counts_a_run_that_has_a_record_which_nobody_has_collected_yet(tmp_path: Path) -> None:
    experiment, store = declare(tmp_path / "e.yaml", **rates(2)), Store(tmp_path / "store")
    jobs = pending([experiment], store)
    results = quiet(store).results(jobs)
    local_backend.work(jobs[0].run.config, False, quiet(store).worker(1))
    assert results.records == []
    with pytest.raises(Interrupted, match="stopped with 1 of 2 runs done"):
        results.__exit__(KeyboardInterrupt, None, None)


def test_what_does_not_fit_in_the_time_is_passed_over_and_what_is_longer_than_all_of_it_is_done_in_pieces() -> None:
    def place(left: float, minutes: float | None = 10) -> WorkerSettings:
        return WorkerSettings(Store(), ends=time.time() + 60 * left, minutes=minutes)

    assert place(10).has_time_for(9)
    assert place(5).has_time_for(5.5)
    assert not place(5).has_time_for(6)
    assert place(5).has_time_for(6, begun=True)
    assert place(5).has_time_for(25)
    assert not place(0.9).has_time_for(25)
    assert not place(0.9).has_time_for(6, begun=True)
    assert WorkerSettings(Store()).has_time_for(1000)


@pytest.mark.slow
def test_minutes_leave_checkpoints_from_which_the_next_call_goes_on(tmp_path: Path) -> None:
    experiment, store = declare(tmp_path / "e.yaml", **rates(1, **{"train.epochs": 5000}), minutes=30), Store(tmp_path)
    came_to = []
    for _ in range(2):
        jobs = pending([experiment], store)
        assert len(jobs) == 1
        assert run_all(jobs, quiet(store, minutes=0.05)) == []
        config = jobs[0][1].config
        came_to.append(read_checkpoint(store.checkpoint(config.id), config)["step"])
    assert 0 < came_to[0] < came_to[1]


def test_a_run_in_pieces_ends_in_the_weights_of_the_whole_one(tmp_path: Path) -> None:
    ((_, run),) = pending([declare(tmp_path / "e.yaml", runs=[{"train.epochs": 2}])], Store(tmp_path / "none"))
    whole, pieces = Store(tmp_path / "whole"), Store(tmp_path / "pieces")
    local_backend.work(run.config, True, WorkerSettings(whole, training=QUIET))
    for step in (1, 2, 3):  # its time is up when it starts: it takes a step all the same
        with pytest.raises(Interrupted, match=f"stopped at step {step} of 4"):
            local_backend.work(run.config, True, WorkerSettings(pieces, training=QUIET, ends=time.time()))
    local_backend.work(run.config, True, WorkerSettings(pieces, training=QUIET, ends=time.time()))
    one, other = (store.load(run.config.id).load_model().state_dict() for store in (whole, pieces))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not pieces.checkpoint(run.config.id).exists()


@pytest.mark.slow
def test_it_says_how_far_the_runs_are_that_are_going(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, store = declare(tmp_path / "e.yaml", **rates(2, **{"train.epochs": 5000})), Store(tmp_path / "store")
    for module in (search_results, local_backend):
        monkeypatch.setattr(module, "POLL_SECONDS", 0.1)  # of the driver: a run notes its epochs every 5 s
    monkeypatch.setattr(search_results, "LINE_SECONDS", 0.1)
    report = search_results.SearchResults.report

    def report_until_both_go(progress: search_results.SearchResults, text: str) -> None:
        report(progress, text)
        if text.count("epoch ") == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(search_results.SearchResults, "report", report_until_both_go)
    with pytest.raises(Interrupted, match="stopped with 0 of 2 runs done"):
        run_all(pending([experiment], store), quiet(store, progress="lines", workers=2))
    going = [line for line in capsys.readouterr().err.splitlines() if "epoch " in line]
    assert re.fullmatch(r"runs: e, .*train.lr=0.0[12].*, seed 0: epoch 1/5000.* left", going[0])
    assert going[-1].count("epoch ") == 2
    until(lambda: not list(store.writable.glob(".work/*/epochs")), "both to have taken their notes away")


def test_the_time_left_counts_what_is_begun_but_not_as_work_of_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, store = declare(tmp_path / "e.yaml", **rates(4, **{"train.epochs": 8})), Store(tmp_path / "store")
    progress = quiet(store).results(pending([experiment], store))
    notes = "4 30", "4 120", "2", "torn"  # half a run of this minute; another half, begun before it; two that are none
    for run, note in zip(experiment.runs, notes, strict=True):
        write_whole(store.checkpoint(run.config.with_precision("bf16").id).with_name("epochs"), note)
    monkeypatch.setattr(search_results, "POLL_SECONDS", 0.0)
    progress.began -= 60
    progress.bar.began -= 60
    progress.report_running()
    assert progress.bar.partial == 1.0
    assert progress.bar.partial_before == pytest.approx(0.25, abs=0.01)
    assert progress.bar.time_left() == "4:00 min"  # three runs at three quarters of one a minute


def test_three_runs_share_a_gpu_where_nobody_says_how_many() -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert [local_backend.default_workers(cuda, jobs) for jobs in (0, 2, 9)] == [1, 2, 3]
    assert local_backend.default_workers(cpu, 9) == 1


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError("no room")])
def test_a_run_that_needs_too_much_memory_is_recorded_as_failed(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, store = declare(tmp_path / "e.yaml", **rates(1)), Store(tmp_path / "store")

    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(train, "batches", full)
    for _ in range(2):  # the second time it is known
        local_backend.work(experiment.runs[0].config, False, WorkerSettings(store, training=QUIET))
    ((_, record),) = collect(experiment, store)
    assert record is not None
    assert record.failed == f"out of memory: {error}"


def test_an_error_of_ours_is_no_failure_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, store = declare(tmp_path / "e.yaml", **rates(1)), Store(tmp_path / "store")

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(train, "batches", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        local_backend.work(experiment.runs[0].config, False, WorkerSettings(store, training=QUIET))
    assert len(pending([experiment], store)) == 1


def test_a_run_that_goes_on_notes_the_last_of_the_epochs_it_shows_again(tmp_path):
    note = local_backend._noting(tmp_path / "epochs")
    for epoch in (1, 2, 3):  # all at once, as a checkpoint restores them; each took a minute when it was trained
        note({"epoch": epoch, "seconds": 60.0 * epoch})
    assert (tmp_path / "epochs").read_text() == "3 180"
