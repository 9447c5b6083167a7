"""Running many: the jobs of some experiments, side by side on this machine: on a CPU in processes of their own, on a
CUDA device by turns in this one."""

import contextlib
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from tpsnet_lib import captured_step
from tpsnet_lib.config import RunConfig
from tpsnet_lib.device import native_precision, resolve_device
from tpsnet_lib.errors import Interrupted, TpsnetError, TrainingError, brief
from tpsnet_lib.locks import Held, do_not_wait, signals_answered_by
from tpsnet_lib.runs.experiments import Job
from tpsnet_lib.runs.load_or_run import finished, record_failure, run_in_steps
from tpsnet_lib.runs.provenance import now
from tpsnet_lib.runs.records import Record, Store, default_store
from tpsnet_lib.runs.round_robin import RoundRobin
from tpsnet_lib.runs.search_results import (
    EPOCHS_FILE,
    POLL_SECONDS,
    OnRecord,
    SearchResults,
    checkpoints,
)
from tpsnet_lib.train import TrainOptions
from tpsnet_lib.whole_files import write_whole

OnWait = Callable[[Held], None] | None


class NoRoom(TpsnetError):  # noqa: N818 - alone it may have room
    """A run that found no memory beside others."""


@dataclass(frozen=True)
class WorkerSettings:
    """What every worker is told, whatever it runs: where the records and the data lie, how to train, when to stop."""

    store: Store  # whose first folder takes the records
    root: str | Path | None = None  # of the data
    training: TrainOptions = field(default_factory=TrainOptions)
    threads: int = 1  # of one worker
    ends: float | None = None  # by `time.time()`: what runs then leaves a checkpoint
    minutes: float | None = None  # from the start to `ends`

    @property
    def deadline(self) -> float | None:
        """`ends` by the clock that training goes by."""
        return None if self.ends is None else time.monotonic() + max(0.0, self.ends - time.time())

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
    """How jobs are run, on either back end: where records and data lie, how to train, how many at once, for how long.

    Of `training` the progress is that of all jobs; each run has a checkpoint and a deadline of its own."""

    store: Store = field(default_factory=default_store)
    root: str | Path | None = None  # of the data
    training: TrainOptions = field(default_factory=TrainOptions)
    workers: int | None = None  # by default 1, and 3 on CUDA, which they share: one alone leaves it idle at times
    minutes: float | None = None  # after which what runs leaves a checkpoint
    on_record: OnRecord | None = None  # called with each record as it is made

    def results(self, jobs: Sequence[Job]) -> SearchResults:
        """The results of some jobs, of which there are none yet."""
        return SearchResults(jobs, self.store, self.training.progress, self.on_record)

    def worker(self, threads: int) -> WorkerSettings:
        """What a worker of so many threads is told; the time runs from now."""
        ends = None if self.minutes is None else time.time() + 60 * self.minutes
        root = None if self.root is None else Path(self.root).resolve()
        store = Store(*(folder.resolve() for folder in self.store.folders))
        return WorkerSettings(store, root, replace(self.training, progress="none"), threads, ends, self.minutes)


def run_all(jobs: Sequence[Job], options: RunOptions) -> list[Record]:
    """Run jobs in order, several side by side; returns their records.

    With `minutes`, a job whose expected minutes do not fit in what is left is passed over, and at the end of the time
    the running ones leave checkpoints, from which the next call goes on; a job longer than `minutes` is done in such
    pieces, call after call. A run that diverges or runs out of memory is recorded as failed, with its
    reason, and the rest goes on; so it does when a worker is killed or a run finds no memory beside others: that run is
    tried once more, alone. A CPU's cores are shared out among workers.

    Raises `Interrupted` after Ctrl-C or SIGTERM, with checkpoints; `Unfinished` if runs could not be finished."""
    device = resolve_device(options.training.device)
    places = options.workers or default_workers(device, len(jobs))
    by_turns = captured_step.can_capture(device)
    settings = options.worker(max(1, torch.get_num_threads() // (1 if by_turns else places)))
    with options.results(jobs) as results, signals_answered_by(signal.default_int_handler, signal.SIGTERM):
        pool = _LocalPool(places, settings, results)
        pool.run_round_robin(device) if by_turns else pool.run_in_processes()
    return results.records


def default_workers(device: torch.device, jobs: int) -> int:
    """How many runs go side by side where nobody says: on CUDA 3, if there are as many."""
    return max(1, min(3 if device.type == "cuda" else 1, jobs))


Submit = Callable[[RunConfig, bool], "Future[str]"]  # a run, and whether its weights are kept


class _LocalPool:
    """Jobs that wait and jobs that run, a number of `places` at most."""

    def __init__(self, places: int, settings: WorkerSettings, results: SearchResults) -> None:
        self.waiting, self.places, self.settings, self.results = list(results.jobs), places, settings, results
        self.running: dict[Future[str], Job] = {}
        self.suspects: set[RunConfig] = set()  # ran when a worker was killed or memory lacked: each once more, alone
        self.held: dict[RunConfig, float] = {}  # which another process holds, and when each is tried again

    def run_in_processes(self) -> None:
        """Run until nothing waits, each job in a process; the processes are made anew when one dies."""
        others = set(multiprocessing.active_children())
        while self.waiting:
            with ProcessPoolExecutor(self.places, multiprocessing.get_context("spawn"), _end_with_parent) as processes:

                def submit(config: RunConfig, weights: bool) -> Future[str]:
                    return processes.submit(work, config, weights, self.settings, do_not_wait)

                try:
                    self._use(submit, lambda: wait(self.running, POLL_SECONDS, FIRST_COMPLETED).done)
                except BrokenProcessPool:
                    self._sort_out()
                except KeyboardInterrupt:
                    processes.shutdown(wait=False, cancel_futures=True)
                    while workers := set(multiprocessing.active_children()) - others:
                        for process in workers:
                            process.terminate()  # as `_end_with_parent`: first a run, then the worker
                        for process in workers:
                            process.join(2)  # seconds
                    raise

    def run_round_robin(self, device: torch.device) -> None:
        """Run until nothing waits, all jobs in this process."""
        with RoundRobin[str](device, self.places) as round_robin:

            def submit(config: RunConfig, weights: bool) -> Future[str]:
                run = work_in_steps(config, weights, self.settings, do_not_wait, lambda: len(round_robin.running) > 1)
                return round_robin.add(run)

            self._use(submit, lambda: round_robin.step_until_one_ends(POLL_SECONDS))

    def _use(self, submit: Submit, ended: Callable[[], set[Future[str]]]) -> None:
        """Start jobs in their order as they may start, and settle those that have ended, until none is left."""
        while self.waiting or self.running:
            while self.waiting and self._may_start(self.waiting[0]):
                experiment, run = job = self.waiting[0]
                begun = any(path.is_file() for path in checkpoints(self.settings.store, run.config))
                if self.settings.has_time_for(experiment.minutes, begun):
                    self.running[submit(run.config, experiment.weights)] = job
                del self.waiting[0]
            for future in ended():
                self._settle(self.running[future], future)
                del self.running[future]
            if self.waiting and not self.running:  # what others hold
                time.sleep(POLL_SECONDS / 10)
            self.results.report_running()

    def _settle(self, job: Job, future: Future[str]) -> None:
        """Count a run that has ended, or see to what it ended with."""
        try:
            self.results.add(job, self.settings.store.load(future.result()))
        except Interrupted:  # its time was up: it stays pending
            pass
        except Held as holder:
            self._pass_over(job, holder)
        except NoRoom as short:
            self.results.report(f"{job.name}: {short}; it is tried alone")
            self._try_alone(job)
        except (BrokenProcessPool, TpsnetError):  # of all runs, such as data that are missing
            raise
        except Exception as error:  # of this run alone, unless the device answers no more: then this raises
            if captured_step.can_capture(device := resolve_device(self.settings.training.device)):
                torch.cuda.synchronize(device)
            self.results.give_up(job, f"{type(error).__name__}: {brief(error)}")

    def _try_alone(self, job: Job) -> None:
        """Run a job next, with no other beside it."""
        self.suspects.add(job.run.config)
        self.waiting.insert(0, job)

    def _pass_over(self, job: Job, holder: Held) -> None:
        """Leave a job that another process holds until the others are done; a stopped holder is not waited for then."""
        config = job.run.config
        if config not in self.held:
            self.results.report(f"{job.name}: {holder} holds it, and the others go on")
        self.held[config] = time.monotonic() + POLL_SECONDS
        if holder.stopped and all(run.config in self.held for _, run in (*self.waiting, *self.running.values())):
            self.results.give_up(job, f"{holder} holds it")
        else:
            self.waiting.append(job)

    def _may_start(self, job: Job) -> bool:
        config, running = job.run.config, {run.config for _, run in self.running.values()}
        if len(self.running) == self.places or time.monotonic() < self.held.get(config, 0.0):
            return False
        return not running or self.suspects.isdisjoint({config, *running})

    def _sort_out(self) -> None:
        """After a worker was killed, which ends all of them: what ran goes on, unless it was alone and so to blame."""
        for job in reversed(list(self.running.values())):
            if job.run.config in self.suspects:
                self.results.give_up(job, "its worker was killed twice")
            else:
                self._try_alone(job)
        self.running.clear()


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


def work(config: RunConfig, keep_weights: bool, settings: WorkerSettings, on_wait: OnWait = None) -> str:
    """One run in a worker's process: the id of its record, also of the one that says why it failed.

    Raises `Held` if another process trains it and `on_wait` is `do_not_wait`; `Interrupted` when the worker's time is
    up or the process is asked to end, with a checkpoint."""
    return finished(work_in_steps(config, keep_weights, settings, on_wait))


def work_in_steps(
    config: RunConfig,
    keep_weights: bool,
    settings: WorkerSettings,
    on_wait: OnWait,
    beside_others: Callable[[], bool] = lambda: False,
) -> Generator[None, None, str]:
    """The same, with a pause after every step. Raises `NoRoom` where memory lacks while runs go `beside_others`."""
    torch.set_num_threads(settings.threads)
    store, device, started = settings.store, resolve_device(settings.training.device), now()
    config = config.with_precision(native_precision(device))
    note = store.checkpoint(config.id).with_name(EPOCHS_FILE)
    options = replace(settings.training, device=device, deadline=settings.deadline, on_epoch=_noting(note))
    try:
        record = yield from run_in_steps(config, options, store, settings.root, keep_weights, on_wait)
        return record.id
    except (TrainingError, MemoryError, RuntimeError) as error:  # torch's own error of memory is a RuntimeError
        known = store.find(config.id)
        if known is not None and known.failed:  # another worker had it before
            return known.id
        if not (reason := _no_way_on(error)):
            raise
    finally:
        with contextlib.suppress(OSError):
            note.unlink()
    if beside_others() and reason.startswith(OUT_OF_MEMORY):  # the error is forgotten here, and what it held on to
        raise NoRoom(reason)
    return record_failure(config, reason, store, settings.root, device, started).id


def _noting(note: Path) -> Callable[[dict[str, float]], None]:
    """What is to be called with each epoch's row: it writes down, from time to time, how far the run is."""
    noted = -math.inf

    def write(row: dict[str, float]) -> None:
        nonlocal noted
        if row["seconds"] - noted >= POLL_SECONDS:  # of training: a run that goes on shows all its epochs again at once
            noted = row["seconds"]
            with contextlib.suppress(OSError):  # no run ends for want of a note
                write_whole(note, f"{row['epoch']:.4g} {row['seconds']:.4g}")

    return write


OUT_OF_MEMORY = "out of memory"


def _no_way_on(error: Exception) -> str:
    """Why a run cannot be finished, where trying again would not help; empty for any other error."""
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, TrainingError):
        return first
    short = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
    return f"{OUT_OF_MEMORY}: {first}" if short else ""
