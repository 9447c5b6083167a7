"""What a search has come to: its records, the jobs that could not be finished, and lines about the running ones."""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from tpsnet_lib.config import RunConfig
from tpsnet_lib.errors import Interrupted, TpsnetError
from tpsnet_lib.progress import Progress
from tpsnet_lib.runs.experiments import Job, find_record
from tpsnet_lib.runs.records import Record, Store, in_percent

OnRecord = Callable[[Job, Record], None]
EPOCHS_FILE = "epochs"  # beside a checkpoint: how many epochs a run has done, in how many seconds
POLL_SECONDS = 5.0  # between two writings, and two readings, of such a file
LINE_SECONDS = 60.0  # between lines about running jobs
JOBS_IN_A_LINE = 3


class Unfinished(TpsnetError):  # noqa: N818 - the others of a search are there
    """Runs of a search that could not be finished."""


class SearchResults:
    """The records of a search and the jobs that could not be finished, with a bar or lines that say the time left, in
    which running jobs count by the epochs that they have done; as a context manager it ends with one line."""

    def __init__(self, jobs: Sequence[Job], store: Store, progress: str, on_record: OnRecord | None) -> None:
        self.jobs, self.store, self.on_record = jobs, store, on_record
        self.records: list[Record] = []
        self.unfinished: list[str] = []
        self.bar = Progress(len(jobs), "runs", mode=progress)
        self.began, self.polled, self.reported = time.time(), time.monotonic(), time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Raise what befell the search in one line: a stop on request, or the runs that could not be finished."""
        self.bar.__exit__()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            done = sum(find_record(job.run, self.store) is not None for job in self.jobs)  # also what just ended
            raise Interrupted(f"stopped with {done} of {len(self.jobs)} runs done; the same command goes on") from None
        if kind is None and self.unfinished:
            raise Unfinished(f"{len(self.unfinished)} runs could not be finished: {'; '.join(self.unfinished)}")

    def add(self, job: Job, record: Record) -> None:
        """Count a job that has a record, also one that says why it failed."""
        self.records.append(record)
        self.bar.advance()
        scores = [score for done in self.records if not done.failed and (score := done.validation_accuracy) is not None]
        best = f", best {100 * max(scores):.2f}%" if scores else ""
        self.report(f"{job.name}: {record.failed or in_percent(record)}{best}")
        if self.on_record is not None:
            self.on_record(job, record)

    def give_up(self, job: Job, reason: str) -> None:
        """Note a job that has no record and cannot have one now; it stays pending."""
        self.unfinished.append(f"{job.experiment.name}, {job.run.label}: {reason}")

    def report(self, text: str) -> None:
        """One line, with the time that is left."""
        self._update_bar()
        self.bar.stage(text)
        self.reported = time.monotonic()

    def report_running(self) -> None:
        """Say how far the running jobs are: in a bar every few seconds, in a line every minute."""
        if time.monotonic() - self.polled < POLL_SECONDS:
            return
        self.polled, running = time.monotonic(), self._update_bar()
        if running and (not self.bar.lines or time.monotonic() - self.reported >= LINE_SECONDS):
            parts = [
                f"{job.name}: epoch {epochs:.4g}/{job.run.config.train.epochs:g}"
                for job, epochs in running[:JOBS_IN_A_LINE]
            ]
            more = [f"{len(running) - JOBS_IN_A_LINE} more"] if len(running) > JOBS_IN_A_LINE else []
            self.report("; ".join(parts + more))

    def _update_bar(self) -> list[tuple[Job, float]]:
        """Count in the bar how far the running jobs are, by what their workers have written since the search began;
        returns these jobs with the epochs done."""
        running = []
        self.bar.partial, self.bar.partial_before = 0.0, 0.0
        for job in self.jobs:
            for checkpoint in checkpoints(self.store, job.run.config):
                path = checkpoint.with_name(EPOCHS_FILE)
                with contextlib.suppress(OSError, ValueError):  # none there, or taken away at this moment
                    if path.stat().st_mtime >= self.began:
                        epochs, seconds = map(float, path.read_text("utf-8").split())
                        running.append((job, epochs))
                        share = epochs / job.run.config.train.epochs
                        self.bar.partial += share
                        self.bar.partial_before += share * max(0.0, 1 - (time.time() - self.began) / seconds)
        return running


def checkpoints(store: Store, config: RunConfig) -> list[Path]:
    """Where a run may leave a checkpoint, in either precision."""
    return [store.checkpoint(run_id) for run_id in config.possible_ids]
