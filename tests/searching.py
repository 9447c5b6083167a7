"""What the tests of both backends share: a small search, its table, and ways to do it harm at a chosen moment."""

import contextlib
import fcntl
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from conftest import TINY
from forks import Fork

from tpsnet_lib.runs.experiments import Experiment, collect, load_experiment, pending
from tpsnet_lib.runs.local_backend import RunOptions, work
from tpsnet_lib.runs.records import Store
from tpsnet_lib.train import TrainOptions

KILLS = int(os.environ.get("TPSNET_KILLS", "2"))  # of a search on each backend; 10 before a release
PATIENCE = 300  # seconds, before a test that waits in vain gives up
SILENT = {**os.environ, "TPSNET_PROGRESS": "none", "OMP_NUM_THREADS": "1"}
Table = dict[str, tuple[object, ...]]


def declare(path: Path, **tree: object) -> Experiment:
    """An experiment of runs that take part of a second each."""
    base = {
        "model": TINY["model"],
        "train": {**TINY["train"], "epochs": 1},
        "data": {**TINY["data"], "train_size": 100},
    }
    path.write_text(yaml.safe_dump({"question": "?", "base": base, **tree}))
    return load_experiment(path)


def rates(count: int, **more: object) -> dict[str, object]:
    """So many learning rates as an experiment's runs."""
    return {"runs": [{"train.lr": round(0.01 * (1 + number), 2), **more} for number in range(count)]}


def quiet(store: Store, execution: str = "auto", progress: str = "none", **more: Any) -> RunOptions:
    """Runs on the CPU into a store, without lines of progress."""
    return RunOptions(store, training=TrainOptions("cpu", execution, progress=progress), **more)


def alone(experiment: Experiment, store: Store, execution: str = "auto") -> None:
    """Do an experiment's runs one after another in this process, where nothing befalls them."""
    for run in experiment.runs:
        work(run.config, experiment.weights, quiet(store, execution).worker(1))


def table(experiment: Experiment, store: Store) -> Table:
    """What a search came to, without its times: each run's figures, or why it failed."""
    timed = ("seconds", "images_per_second")
    return {
        run.label: tuple(sorted((k, v) for k, v in record.metrics.items() if k not in timed))
        for run, record in collect(experiment, store)
        if record is not None
    }


def until(happens: Callable[[], bool], what: str) -> None:
    """Wait for what the store shows."""
    ends = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < ends, f"waited in vain for {what}"
        threading.Event().wait(0.02)


def in_training(store: Store) -> list[Path]:
    """The locks of runs that are being trained at this moment."""
    return [path for path in (store.writable / ".locks").glob("*") if _held(path)]


def _held(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _open_files(pid: int) -> list[str]:
    """The files that a process has open; fewer if it or they are closed while this looks."""
    files = []
    with contextlib.suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                files.append(os.readlink(f"/proc/{pid}/fd/{number}"))
    return files


def kill_holder(lock: Path) -> bool:
    """Kill the process that trains a run; False if it has ended meanwhile."""
    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]:
        if str(lock) in _open_files(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return True
    return False


def command(path: Path, store: Store, *more: str) -> list[str]:
    """The words of `tpsnet run`."""
    return ["run", str(path), "--device", "cpu", "--out", str(store.writable), *more]


def start(path: Path, store: Store, *more: str) -> subprocess.Popen[bytes]:
    """`tpsnet run` by an interpreter of its own, whose workers have one each too."""
    call = [sys.executable, "-m", "tpsnet_lib", *command(path, store, *more)]
    return subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=SILENT)


def finished(store: Store) -> dict[str, tuple[int, int]]:
    """The records that are there, each with what a second training would change."""
    found = {path.parent.name: path.stat() for path in store.writable.glob("[0-9a-f]*/SHA256SUMS")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


def kill_again_and_again(folder: Path, *backend: str) -> None:
    """Kill a search `KILLS` times at random moments, resume it each time, and compare with one that nobody killed."""
    path, rng = folder / "search.yaml", random.Random(0)
    code = "import sys; from tpsnet_lib.cli import main; sys.exit(main.main(sys.argv[1:]))"
    experiment = declare(path, **rates(KILLS + 3))
    whole, killed = Store(folder / "whole"), Store(folder / "killed")
    alone(experiment, whole)
    kept: dict[str, tuple[int, int]] = {}
    for _ in range(KILLS):
        search = Fork(code, *command(path, killed, *backend), environment=SILENT)
        wanted = len(finished(killed)) + rng.randrange(2)

        def moment(search: Fork = search, wanted: int = wanted) -> bool:
            assert search.poll() is None, f"it ended before it could be killed: {search.communicate()}"
            return len(finished(killed)) >= wanted and bool(in_training(killed))

        until(moment, f"{wanted} records and a run in training")
        search.kill()
        search.communicate()
        assert pending([experiment], killed), "there was nothing left to resume"
        now = finished(killed)
        assert kept.items() <= now.items(), "a finished run was lost, or trained once more"
        kept = now
    last = Fork(code, *command(path, killed, *backend), environment=SILENT)
    said = last.communicate(timeout=PATIENCE)
    assert last.returncode == 0, said
    assert kept.items() <= finished(killed).items(), "a finished run was lost, or trained once more"
    assert backend or said[1] == ""
    assert table(experiment, killed) == table(experiment, whole)
    assert len(finished(killed)) == len(experiment.runs)
