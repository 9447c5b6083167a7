"""Running many: the jobs of some experiments, side by side in processes of their own on this machine."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import torch

from tpsnet_lib.config import RunConfig
from tpsnet_lib.data.datasets import fingerprint
from tpsnet_lib.device import native_precision, resolve_device
from tpsnet_lib.files import Interrupted, TpsnetError, TrainingError, write_whole
from tpsnet_lib.locks import Held, signals_answered_by
from tpsnet_lib.progress import Progress
from tpsnet_lib.runs.experiments import Experiment, Run
from tpsnet_lib.runs.provenance import now, provenance
from tpsnet_lib.runs.record_files import write_failure
from tpsnet_lib.runs.records import Record, Store, default_store, held_out, in_percent, load_or_run

Job = tuple[Experiment, Run]
OnRecord = Callable[[Run, Record], None]
NOTE = "epochs"  # beside a checkpoint: how many a worker has done, in how many seconds
LOOK_SECONDS = 5.0  # between a worker's notes of how far its run is, and the driver's looks at them
SAY_SECONDS = 60.0  # between lines about runs that are going
SAID_OF = 3  # of so many of them


@dataclass(frozen=True)
class Workplace:
    """What every worker is told, whatever it runs: where the data and the records lie, its device, when to stop."""

    root: str | Path | None
    device: str
    folders: tuple[Path, ...]  # of the store; the first takes the records
    threads: int  # of one worker
    ends: float | None  # by `time.time()`: what runs then leaves a checkpoint
    minutes: float | None = None  # from the start to `ends`
    execution: str = "auto"  # of a step

    def has_time_for(self, minutes: float, begun: bool = False) -> bool:
        """Whether a run that is expected to take so long may start; a tenth more than is left is let pass.

        One that was begun, or that is longer than all of the time, is done in pieces: it may start while a tenth of
        the time is left."""
        if self.ends is None:
            return True
        left = (self.ends - time.time()) / 60
        if self.minutes is not None and (begun or 0.9 * minutes > self.minutes):
            return left >= 0.1 * self.minutes
        return left >= 0.9 * minutes


@dataclass(frozen=True)
class RunOptions:
    """How jobs are run, on either back end: where records and data lie, on what, how many at once, for how long."""

    store: Store = field(default_factory=default_store)
    root: str | Path | None = None  # of the data
    device: str = "auto"
    workers: int | None = None  # by default 1, and 3 on CUDA, which they share: one alone leaves it idle at times
    minutes: float | None = None  # after which what runs leaves a checkpoint
    progress: str = "auto"
    on_record: OnRecord | None = None  # called with each record as it is made
    execution: str = "auto"  # of a step

    def workplace(self, threads: int) -> Workplace:
        """What a worker of so many threads is told; the time runs from now."""
        ends = None if self.minutes is None else time.time() + 60 * self.minutes
        root = None if self.root is None else Path(self.root).resolve()
        folders = tuple(folder.resolve() for folder in self.store.folders)
        return Workplace(root, self.device, folders, threads, ends, self.minutes, self.execution)


class Tally:
    """What a search has come to: its records, what could not be finished, and one line of progress."""

    def __init__(self, jobs: Sequence[Job], options: RunOptions) -> None:
        self.jobs, self.store, self.total, self.on_record = jobs, options.store, len(jobs), options.on_record
        self.records: list[Record] = []
        self.lost: list[str] = []
        self.bar = Progress(self.total, "runs", mode=options.progress)
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
            raise TpsnetError(f"{len(self.lost)} runs could not be finished: {'; '.join(self.lost)}")

    def add(self, job: Job, record: Record) -> None:
        """Count a job that has a record, also one that says why it failed."""
        self.records.append(record)
        self.bar.advance()
        scores = [score for done in self.records if not done.failed and (score := held_out(done)) is not None]
        best = f", best {100 * max(scores):.2f}%" if scores else ""
        came_to = record.failed or in_percent(record)
        self._going()
        self.say(f"{_named(job)}: {came_to}{best}")
        if self.on_record is not None:
            self.on_record(job[1], record)

    def look(self) -> None:
        """Say how far the runs are that are going: in a bar every few seconds, in a line every minute."""
        if time.monotonic() - self.looked < LOOK_SECONDS:
            return
        self.looked, going = time.monotonic(), self._going()
        if going and (not self.bar.lines or time.monotonic() - self.said >= SAY_SECONDS):
            parts = [f"{_named(job)}: epoch {done:.4g}/{job[1].config.train.epochs:g}" for job, done in going[:SAID_OF]]
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
            for checkpoint in _checkpoints(self.store, job[1].config):
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


def _named(job: Job) -> str:
    experiment, run = job
    return f"{experiment.name}, {run.label}, seed {run.config.seed}"


def _checkpoints(store: Store, config: RunConfig) -> list[Path]:
    """Where a run may leave a checkpoint, in either precision."""
    return [store.checkpoint(run_id) for run_id in config.possible_ids]


def run_all(jobs: Sequence[Job], options: RunOptions) -> list[Record]:
    """Run jobs in order, several side by side in processes of their own; returns their records.

    With `minutes`, a job whose expected minutes do not fit in what is left is passed over, and at the end of the time
    the running ones leave checkpoints, from which the next call goes on; a job longer than `minutes` is done in such
    pieces, call after call. A run that diverges or runs out of memory is recorded as failed, with its
    reason, and the rest goes on; so it does when a worker is killed, whose run is tried once more, alone. A CPU's
    cores are shared out among workers.

    Raises `Interrupted` after Ctrl-C or SIGTERM, with checkpoints; `TpsnetError` if runs could not be finished."""
    workers = options.workers or default_workers(resolve_device(options.device), len(jobs))
    workplace = options.workplace(max(1, torch.get_num_threads() // workers))
    with Tally(jobs, options) as tally, signals_answered_by(signal.default_int_handler, signal.SIGTERM):
        _LocalPool(jobs, workers, workplace, options.store, tally).run()
    return tally.records


def default_workers(device: torch.device, jobs: int) -> int:
    """How many runs go side by side where nobody says: on CUDA 3, if there are as many."""
    return max(1, min(3 if device.type == "cuda" else 1, jobs))


class _LocalPool:
    """Jobs that wait, jobs that run, and the processes that run them; the processes are made anew when one dies."""

    def __init__(self, jobs: Sequence[Job], workers: int, workplace: Workplace, store: Store, tally: Tally) -> None:
        self.waiting, self.workers, self.workplace = list(jobs), workers, workplace
        self.store, self.tally = store, tally
        self.going: dict[Future[str], Job] = {}
        self.suspects: set[RunConfig] = set()  # ran when a worker was killed: each is tried once more, alone
        self.held: dict[RunConfig, float] = {}  # which another process holds, and when each is tried again

    def run(self) -> None:
        """Run until nothing waits."""
        others = set(multiprocessing.active_children())
        while self.waiting:
            with ProcessPoolExecutor(self.workers, multiprocessing.get_context("spawn"), _end_with_parent) as processes:
                try:
                    self._use(processes)
                except BrokenProcessPool:
                    self._sort_out()
                except KeyboardInterrupt:
                    processes.shutdown(wait=False, cancel_futures=True)
                    for process in set(multiprocessing.active_children()) - others:
                        process.terminate()  # each leaves its checkpoint
                    raise

    def _use(self, processes: ProcessPoolExecutor) -> None:
        while self.waiting or self.going:
            while self.waiting and self._may_start(self.waiting[0]):
                experiment, run = job = self.waiting[0]
                if self.workplace.has_time_for(experiment.minutes, self._begun(run.config)):
                    self.going[processes.submit(work, run.config, experiment.weights, self.workplace, False)] = job
                del self.waiting[0]
            for future in wait(self.going, LOOK_SECONDS, FIRST_COMPLETED).done:
                try:
                    self.tally.add(self.going[future], self.store.load(future.result()))
                except Interrupted:  # its time was up: it stays pending
                    pass
                except Held as holder:
                    self._pass_over(self.going[future], holder)
                del self.going[future]
            if self.waiting and not self.going:  # what others hold
                time.sleep(LOOK_SECONDS / 10)
            self.tally.look()

    def _pass_over(self, job: Job, holder: Held) -> None:
        """Leave a job that another process holds until the others are done; a stopped holder is not waited for then."""
        config = job[1].config
        if config not in self.held:
            self.tally.say(f"{_named(job)}: {holder} holds it, and the others go on")
        self.held[config] = time.monotonic() + LOOK_SECONDS
        if holder.stopped and all(run.config in self.held for _, run in (*self.waiting, *self.going.values())):
            self.tally.lose(job, f"{holder} holds it")
        else:
            self.waiting.append(job)

    def _begun(self, config: RunConfig) -> bool:
        return any(checkpoint.is_file() for checkpoint in _checkpoints(self.store, config))

    def _may_start(self, job: Job) -> bool:
        if time.monotonic() < self.held.get(job[1].config, 0.0):
            return False
        alone = {job[1].config, *(run.config for _, run in self.going.values())} & self.suspects
        return len(self.going) < (1 if alone else self.workers)

    def _sort_out(self) -> None:
        """After a worker was killed, which ends all of them: what ran goes on, unless it was alone and so to blame."""
        for job in reversed(list(self.going.values())):
            if job[1].config in self.suspects:
                self.tally.lose(job, "its worker was killed twice")
            else:
                self.suspects.add(job[1].config)
                self.waiting.insert(0, job)
        self.going.clear()


def _end_with_parent() -> None:
    """In a worker: leave a checkpoint and go when the driver is gone, however it went; Ctrl-C is the driver's."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        while True:  # the first ends a run, with its checkpoint; a later one the worker, which nobody feeds now
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


def work(config: RunConfig, keep_weights: bool, workplace: Workplace, wait_for_others: bool = True) -> str:
    """One run in a worker's process: the id of its record, also of the one that says why it failed.

    Raises `Held` if another process trains it and that is not to be waited for; `Interrupted` when the workplace's time
    is up or the process is asked to end, with a checkpoint."""
    torch.set_num_threads(workplace.threads)
    left = None if workplace.ends is None else max(0.0, workplace.ends - time.time())
    store, device, started = Store(*workplace.folders), resolve_device(workplace.device), now()
    config = config.with_precision(native_precision(device))
    note, noted = store.checkpoint(config.id).with_name(NOTE), -math.inf

    def tell(row: dict[str, float]) -> None:
        nonlocal noted
        if time.monotonic() - noted >= LOOK_SECONDS:
            noted = time.monotonic()
            with contextlib.suppress(OSError):  # no run ends for want of a note
                write_whole(note, f"{row['epoch']:.4g} {row['seconds']:.4g}")

    try:
        return load_or_run(
            config,
            root=workplace.root,
            device=device.type,
            store=store,
            progress="none",
            keep_weights=keep_weights,
            deadline=None if left is None else time.monotonic() + left,
            on_epoch=tell,
            execution=workplace.execution,
            wait=wait_for_others,
        ).id
    except (TrainingError, MemoryError, RuntimeError) as error:  # torch's own error of memory is a RuntimeError
        known = store.find(config.id)
        if known is not None and known.failed:  # another worker had it before
            return known.id
        if not (reason := _no_way_on(error)):
            raise
        made_by = provenance(device, fingerprint(config.data.dataset, workplace.root), started)
        return write_failure(store.writable, config, reason, made_by).name
    finally:
        with contextlib.suppress(OSError):
            note.unlink()


def _no_way_on(error: Exception) -> str:
    """Why a run cannot be finished, where trying again would not help; empty for any other error."""
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, TrainingError):
        return first
    short = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
    return f"out of memory: {first}" if short else ""
