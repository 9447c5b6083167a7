"""What Ray Tune runs: a job of a search, in rungs. Only `ray_pool` imports this room, and Ray with it, when asked."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

from ray import tune

from tpsnet_lib.config import parse
from tpsnet_lib.files import Interrupted
from tpsnet_lib.runs.local_backend import Workplace, work
from tpsnet_lib.runs.records import Store

POLL_SECONDS = 0.2  # between looks for a request to stop


class Trial(tune.Trainable):
    """A job: its runs one after another, one a step, so that a scheduler may end it between them.

    A class, not a function: a step runs in its process's main thread, where training answers a signal."""

    def setup(  # type: ignore[override]
        self, config: dict[str, Any], workplace: Workplace, stop: Path
    ) -> None:
        """`config["job"]`: its key, its runs as trees, whether their weights are kept, the minutes that it needs."""
        self.workplace = workplace
        threading.Thread(target=_end_on_request, args=(stop,), daemon=True).start()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up the next job in the same process, where torch is loaded already."""
        return True

    def step(self) -> dict[str, Any]:
        """The next run, trained or read; the last of a job, a failure and an interruption say `done`."""
        job = self.config["job"]
        config = parse(job["runs"][self.iteration])
        ended = {"epochs": config.train.epochs, "validation_accuracy": 0.0, "recorded": False, "done": True}
        if not self.workplace.has_time_for(job["minutes"]):
            return ended
        try:
            record = Store(*self.workplace.folders).load(work(config, job["weights"], self.workplace))
        except Interrupted:
            return ended
        if record.failed:
            return {**ended, "recorded": True}
        accuracy, last = record.metrics["validation_accuracy"], self.iteration + 1 == len(job["runs"])
        return {**ended, "validation_accuracy": accuracy, "recorded": True, "done": last}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing: what a trial has done lies in the store."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing, as `save_checkpoint`."""


def _end_on_request(stop: Path) -> None:
    """In a worker: answer the stop file with the signal by which training leaves a checkpoint."""
    waiting = threading.Event()
    while not stop.exists():
        waiting.wait(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


class StopFile(tune.Stopper):
    """Ends a search once a file is there. Plain data, since Tune keeps it for a search that is taken up again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No single trial is stopped by it."""
        return False

    def stop_all(self) -> bool:
        """Whether the file is there."""
        return self.path.exists()


class Marks(tune.Callback):
    """Leaves a file for each trial that has ended, for the driver to count."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The trial is done, or the scheduler has stopped it."""
        (self.folder / trial.config["job"]["key"]).touch()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The trial failed more often than it may."""
        (self.folder / trial.config["job"]["key"]).touch()
