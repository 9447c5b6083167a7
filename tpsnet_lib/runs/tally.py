"""What a search has come to: its records, what was lost, how far the runs are that are going, how long it will take."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from tpsnet_lib.config import RunConfig
from tpsnet_lib.files import Interrupted, TpsnetError
from tpsnet_lib.progress import Progress
from tpsnet_lib.runs.experiments import Experiment, Run
from tpsnet_lib.runs.records import Record, Store, held_out, in_percent

Job = tuple[Experiment, Run]
OnRecord = Callable[[Run, Record], None]
NOTE = "epochs"  # beside a checkpoint: how many a run has done, in how many seconds
LOOK_SECONDS = 5.0  # between a run's notes of how far it is, and looks at them
SAY_SECONDS = 60.0  # between lines about runs that are going
SAID_OF = 3  # of so many of them


class Unfinished(TpsnetError):  # noqa: N818 - the others of a search are there
    """Runs of a search that could not be finished."""


class Tally:
    """What a search has come to: its records, what could not be finished, and one line of progress."""

    def __init__(self, jobs: Sequence[Job], store: Store, progress: str, on_record: OnRecord | None) -> None:
        self.jobs, self.store, self.total, self.on_record = jobs, store, len(jobs), on_record
        self.records: list[Record] = []
        self.lost: list[str] = []
        self.bar = Progress(self.total, "runs", mode=progress)
        self.began, self.looked, self.said = time.time(), time.monotonic(), time.monotonic()

    def __enter__(self) -> Tally:
        self.bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise what befell the search in one line: a stop on request, or the runs that could not be finished."""
        self.bar.__exit__(kind, error, trace)
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            done = f"{len(self.records)} of {self.total} runs done"
            raise Interrupted(f"stopped with {done}; the same command goes on") from None
        if kind is None and self.lost:
            raise Unfinished(f"{len(self.lost)} runs could not be finished: {'; '.join(self.lost)}")

    def add(self, job: Job, record: Record) -> None:
        """Count a job that has a record, also one that says why it failed."""
        self.records.append(record)
        self.bar.advance()
        scores = [score for done in self.records if not done.failed and (score := held_out(done)) is not None]
        best = f", best {100 * max(scores):.2f}%" if scores else ""
        came_to = record.failed or in_percent(record)
        self._going()
        self.say(f"{named(job)}: {came_to}{best}")
        if self.on_record is not None:
            self.on_record(job[1], record)

    def look(self) -> None:
        """Say how far the runs are that are going: in a bar every few seconds, in a line every minute."""
        if time.monotonic() - self.looked < LOOK_SECONDS:
            return
        self.looked, going = time.monotonic(), self._going()
        if going and (not self.bar.lines or time.monotonic() - self.said >= SAY_SECONDS):
            parts = [f"{named(job)}: epoch {done:.4g}/{job[1].config.train.epochs:g}" for job, done in going[:SAID_OF]]
            more = f"; {len(going) - SAID_OF} more" if len(going) > SAID_OF else ""
            self.say("; ".join(parts) + more)

    def say(self, text: str) -> None:
        """One line, with the time that is left."""
        self.bar.stage(text)
        self.said = time.monotonic()

    def _going(self) -> list[tuple[Job, float]]:
        """The jobs that workers have left notes of since the search began, with the epochs that they have done."""
        found = []
        self.bar.begun, self.bar.before = 0.0, 0.0
        for job in self.jobs:
            for checkpoint in checkpoints(self.store, job[1].config):
                path = checkpoint.with_name(NOTE)
                with contextlib.suppress(OSError, ValueError):  # none there, or taken away at this moment
                    if path.stat().st_mtime >= self.began:
                        epochs, seconds = map(float, path.read_text("utf-8").split())
                        found.append((job, epochs))
                        share = epochs / job[1].config.train.epochs
                        self.bar.begun += share
                        self.bar.before += share * max(0.0, 1 - (time.time() - self.began) / seconds)
        return found

    def lose(self, job: Job, reason: str) -> None:
        """Note a job that has no record and cannot have one now; it stays pending."""
        self.lost.append(f"{job[0].name}, {job[1].label}: {reason}")


def named(job: Job) -> str:
    """A job in words."""
    experiment, run = job
    return f"{experiment.name}, {run.label}, seed {run.config.seed}"


def checkpoints(store: Store, config: RunConfig) -> list[Path]:
    """Where a run may leave a checkpoint, in either precision."""
    return [store.checkpoint(run_id) for run_id in config.possible_ids]
