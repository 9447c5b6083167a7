"""Experiments on Ray Tune: the jobs of `local_backend`, into the same store, here or on a cluster; ASHA if asked for.

The store is the truth and Tune keeps no state of its own: a search whose driver was killed is started again, and runs
what has no record yet. Importing this module imports Ray; `ConfigError` where it is not installed."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tpsnet_lib.config import RunConfig, parse
from tpsnet_lib.data.datasets import fingerprint
from tpsnet_lib.device import native_precision, resolve_device
from tpsnet_lib.files import ConfigError, Interrupted, TpsnetError
from tpsnet_lib.locks import Held, lock
from tpsnet_lib.runs.experiments import Run, find_record
from tpsnet_lib.runs.local_backend import Job, OnRecord, Tally, Workplace, sigterm_as_ctrl_c, work
from tpsnet_lib.runs.provenance import now, provenance
from tpsnet_lib.runs.record_files import write_failure
from tpsnet_lib.runs.records import Record, Store, default_store

for _name, _value in {  # no reports home, no logs beside ours, no tables in the terminal
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}.items():
    os.environ.setdefault(_name, _value)
try:
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
except ImportError:
    raise ConfigError('--backend ray needs Ray: pip install "ray[tune]"') from None

ETA = 3  # ASHA: each rung trains three times as long, and about one trial in three reaches it
RETRIES = 2  # of a trial whose worker or node is lost
POLL_SECONDS = 0.5
STARTS = 5  # attempts at Ray itself: on a busy machine its parts miss its own time limits
CONNECT_SECONDS = 10.0  # for a cluster's address to answer


def run_all(
    jobs: Sequence[Job],
    *,
    root: str | Path | None = None,
    device: str = "auto",
    store: Store | None = None,
    workers: int | None = None,
    minutes: float | None = None,
    progress: str = "auto",
    on_record: OnRecord | None = None,
    address: str | None = None,
    gpus_per_run: float | None = None,
    asha: bool = False,
    eta: int = ETA,
    execution: str = "auto",
) -> list[Record]:
    """Run jobs as `local_backend.run_all` does, on Ray Tune; returns their records.

    Without `address` Ray is started here with `workers` (default 1) of one thread each; with it (`HOST:PORT`, or
    `auto`) trials go to a running cluster, whose nodes share the store's folder and find the data under the same path.
    `gpus_per_run` may be a fraction: 0.25 packs four runs on a GPU. A trial whose worker or node is lost is tried
    again; one whose training cannot go on is recorded as failed. With `asha` a job is trained for 1, eta, eta^2 ...
    epochs, each a run of its own (`rungs`), and stops where it is not among the best 1/eta (Li et al. 2020, arXiv
    1810.05934); the record of its last run is returned, and a job that was stopped stays pending.

    Raises as `local_backend.run_all`; `ConfigError` if no cluster answers or it has too few GPUs."""
    store = store or default_store()
    if not jobs:
        return []
    for dataset in {run.config.data.dataset for _, run in jobs}:
        fingerprint(dataset, root)  # missing data is one error here, not one a trial
    workplace = Workplace(
        root=None if root is None else Path(root).resolve(),
        device=device,
        folders=tuple(folder.resolve() for folder in store.folders),
        threads=1,
        ends=None if minutes is None else time.time() + 60 * minutes,
        execution=execution,
    )
    workers = workers or (None if address else 1)
    with connected(address, workers or 1), Tally(jobs, store, progress, on_record) as tally, sigterm_as_ctrl_c():
        _Search(jobs, store, workplace, tally, rungs_eta=eta if asha else 0).run(gpus_per_run, address, workers)
    return tally.records


@contextlib.contextmanager
def connected(address: str | None, workers: int) -> Iterator[None]:
    """Ray, for as long as the block lasts; one that is connected already is used and left as it is."""
    if address and ":" in address:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        except (OSError, ValueError) as error:
            raise ConfigError(f"--address {address}: no Ray cluster answers ({error})") from None
    if ray.is_initialized():
        yield
        return
    here = {} if address else {"num_cpus": workers, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    for attempt in range(STARTS):
        try:
            ray.init(address or "local", log_to_driver=False, logging_level="CRITICAL", **here)  # type: ignore[arg-type]
            break
        except Exception as error:  # Ray has no narrower one for a node that does not start in its 30 seconds
            ray.shutdown()
            if attempt + 1 == STARTS or "timed out" not in str(error):
                reason = str(error).strip().splitlines()[0][:150]
                raise TpsnetError(f"Ray did not start ({reason}): is this machine busy? Use --backend local") from None
    try:
        yield
    finally:
        ray.shutdown()


def rungs(config: RunConfig, eta: int = ETA) -> list[RunConfig]:
    """The runs that ASHA leads a job through: for 1, eta, eta^2 ... epochs, each annealed to its own length, and last
    the job's own, unchanged."""
    found, epochs = [], 1.0
    while epochs < config.train.epochs:
        found.append(replace(config, train=config.train.shortened(epochs)))
        epochs *= eta
    return [*found, config]


class Trial(tune.Trainable):
    """A job of a search: its runs one after another, one a step, so that a scheduler may end it between them.

    A class, not a function: a step runs in its process's main thread, where training answers a signal."""

    def setup(self, config: dict[str, Any], workplace: Workplace, stop: Path) -> None:  # type: ignore[override]
        """`config["job"]`: its key, its runs as trees, whether their weights are kept, the minutes that it needs."""
        self.workplace, self.stop_file = workplace, stop
        threading.Thread(target=_interrupt_when, args=(stop,), daemon=True).start()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up the next job in the same process, where torch is loaded already."""
        return True

    def step(self) -> dict[str, Any]:
        """Train or read the next run; the last run of a job, a failure and an interruption say `done`."""
        job = self.config["job"]
        config, is_last = parse(job["runs"][self.iteration]), self.iteration + 1 == len(job["runs"])
        result = {"epochs": config.train.epochs, "validation_accuracy": 0.0, "recorded": False, "done": True}
        if self.stop_file.exists() or not self.workplace.has_time_for(job["minutes"]):
            return result
        try:
            record = Store(*self.workplace.folders).load(work(config, job["weights"], self.workplace))
        except Interrupted:
            return result
        if record.failed:
            return {**result, "recorded": True}
        accuracy = record.metrics["validation_accuracy"]
        return {**result, "validation_accuracy": accuracy, "recorded": True, "done": is_last}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing: what a trial has done lies in the store."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing, as `save_checkpoint`."""


def _interrupt_when(stop: Path) -> None:
    """In a worker: answer the stop file with the signal on which training leaves a checkpoint."""
    while not stop.exists():
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


class _Search:
    """One search on a Ray that runs: its trials by key, and which of them have been counted."""

    def __init__(
        self, jobs: Sequence[Job], store: Store, workplace: Workplace, tally: Tally, *, rungs_eta: int
    ) -> None:
        self.jobs, self.store, self.workplace, self.tally, self.eta = jobs, store, workplace, tally, rungs_eta
        self.counted: set[str] = set()
        self.trials: dict[str, dict[str, Any]] = {}
        for experiment, run in jobs:  # jobs of one config are one trial
            key, runs = _key(run.config), rungs(run.config, rungs_eta) if rungs_eta else [run.config]
            trees = [config.to_dict() for config in runs]
            fresh = {"key": key, "runs": trees, "weights": False, "minutes": experiment.minutes}
            trial = self.trials.setdefault(key, fresh)
            trial["weights"] = trial["weights"] or experiment.weights

    def run(self, gpus_per_run: float | None, address: str | None, workers: int | None) -> None:
        """Run all trials with Tune in a thread, since signals come to the main one; count those that end meanwhile."""
        folder = self.store.writable.resolve() / ".ray" / "+".join(dict.fromkeys(e.name for e, _ in self.jobs))[:80]
        stop = folder.with_suffix(".stop")
        with lock(folder.with_suffix(".lock"), self._refuse), contextlib.ExitStack() as at_end:
            at_end.callback(shutil.rmtree, folder, ignore_errors=True)
            at_end.callback(stop.unlink, missing_ok=True)
            stop.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)  # of a driver that was killed
            tuner = self._tuner(folder, stop, self._resources(gpus_per_run, address, workers), workers)
            thread = ThreadPoolExecutor(1)
            try:
                fitting = thread.submit(tuner.fit)
                while not wait([fitting], POLL_SECONDS).done:
                    self._count()
            except KeyboardInterrupt:
                stop.touch()  # every worker leaves its checkpoint, and Tune ends
                wait([fitting])
                self._count()
                raise
            finally:
                thread.shutdown(wait=False)
            for result in list(fitting.result()):  # type: ignore[call-overload]
                self._settle(result)

    def _refuse(self, who: Held) -> None:
        raise TpsnetError(f"{who} runs this search on Ray with this store already: wait for it, or stop it")

    def _resources(self, gpus: float | None, address: str | None, workers: int | None) -> dict[str, float]:
        """What a trial takes of a node: one core, and a share of the GPUs (of a cluster's none unless asked for)."""
        if gpus is None:
            here = address is None and resolve_device(self.workplace.device).type == "cuda"
            gpus = torch.cuda.device_count() / (workers or 1) if here else 0.0
        available = ray.cluster_resources().get("GPU", 0.0)  # type: ignore[no-untyped-call]
        if gpus > available:
            raise ConfigError(f"--gpus-per-run is {gpus:g}: Ray has {available:g} GPUs")
        return {"cpu": 1, "gpu": gpus}

    def _tuner(self, folder: Path, stop: Path, resources: dict[str, float], at_once: int | None) -> tune.Tuner:
        scheduler = None
        if self.eta:
            longest = math.ceil(max(run.config.train.epochs for _, run in self.jobs))
            scheduler = ASHAScheduler(time_attr="epochs", max_t=longest, grace_period=1, reduction_factor=self.eta)
        trainable = tune.with_parameters(Trial, workplace=self.workplace, stop=stop)
        return tune.Tuner(
            tune.with_resources(trainable, resources),
            param_space={"job": tune.grid_search(list(self.trials.values()))},
            tune_config=tune.TuneConfig(
                metric="validation_accuracy",
                mode="max",
                scheduler=scheduler,
                max_concurrent_trials=at_once,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=folder.name,
                storage_path=str(folder.parent),
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                verbose=0,
            ),
        )

    def _count(self) -> None:
        """Count the trials whose last run has a record by now."""
        for key, trial in self.trials.items():
            self._add(key, trial["runs"][-1:])
        self.tally.look()

    def _add(self, key: str, runs: Sequence[dict[str, Any]]) -> bool:
        """Count a trial once, for each job that asks for it, if one of these runs has a record (the last that has)."""
        if key in self.counted:
            return True
        for config in map(parse, reversed(runs)):
            if (record := find_record(Run("", config, {}), self.store)) is not None:
                self.counted.add(key)
                for job in self._asking(key):
                    self.tally.add(job, record)
                return True
        return False

    def _asking(self, key: str) -> list[Job]:
        return [job for job in self.jobs if _key(job[1].config) == key]

    def _settle(self, result: Any) -> None:
        """Say what became of a trial that has no record, once Tune has ended; one whose time was up stays pending."""
        key = result.config["job"]["key"]
        if self._add(key, self.trials[key]["runs"]):
            return
        reason = str(result.error or "").strip()
        if "low on memory" in reason:  # Ray ends the worker that takes the most before the system does
            self._fail(key, "out of memory: Ray ended its worker, as the machine ran low on memory")
        elif "ActorDied" in reason or "ActorUnavailable" in reason or "actor died" in reason:
            self._lose(key, f"its worker was lost {RETRIES + 1} times")
        elif reason:
            self._lose(key, reason.splitlines()[-1].strip())
        elif (result.metrics or {}).get("recorded"):
            self._lose(key, f"its record is not in {self.store.writable}: a cluster's nodes must share this folder")

    def _lose(self, key: str, reason: str) -> None:
        for job in self._asking(key):
            self.tally.lose(job, reason)

    def _fail(self, key: str, reason: str) -> None:
        """Record that a trial cannot be finished, where its worker could not say so."""
        config, device = parse(self.trials[key]["runs"][-1]), resolve_device(self.workplace.device)
        made_by = provenance(device, fingerprint(config.data.dataset, self.workplace.root), now())
        write_failure(self.store.writable, config.with_precision(native_precision(device)), reason, made_by)
        self._add(key, self.trials[key]["runs"])


def _key(config: RunConfig) -> str:
    return config.with_precision("fp32").id  # names a trial whatever precision its worker's machine has
