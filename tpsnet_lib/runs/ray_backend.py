"""Experiments on Ray Tune: the jobs of `local_backend`, into the same store, here or on a cluster; ASHA if asked for.

The store is the truth and Tune keeps no state: a search whose driver was killed is started again, and runs what has no
record yet. Importing this module raises `ConfigError` where Ray is not installed."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpsnet_lib.config import RunConfig
from tpsnet_lib.data.datasets import fingerprint
from tpsnet_lib.device import resolve_device
from tpsnet_lib.errors import ConfigError, Interrupted, TpsnetError, brief
from tpsnet_lib.locks import signals_answered_by
from tpsnet_lib.runs.experiments import Job
from tpsnet_lib.runs.load_or_run import record_failure
from tpsnet_lib.runs.local_backend import RunOptions, WorkerSettings, work
from tpsnet_lib.runs.provenance import now
from tpsnet_lib.runs.records import Record
from tpsnet_lib.runs.search_results import SearchResults
from tpsnet_lib.whole_files import temporary

# no reports home, no logs beside ours, no tables in the terminal; signals are answered here
SET_TO_0 = "RAY_USAGE_STATS_ENABLED RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO RAY_AIR_NEW_OUTPUT TUNE_PRINT_ALL_TRIAL_ERRORS"
SET_TO_1 = "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS TUNE_DISABLE_SIGINT_HANDLER"
os.environ.update({**dict.fromkeys(SET_TO_0.split(), "0"), **dict.fromkeys(SET_TO_1.split(), "1"), **os.environ})
try:
    import ray
    from ray import tune
except ImportError:
    raise ConfigError('--backend ray needs Ray: pip install "ray[tune]"') from None

ETA, RUNGS = 3, 20  # ASHA: each rung trains three times as long, and about one trial in three reaches it
RETRIES, STARTS = 2, 5  # of a trial whose worker or node is lost; of Ray, whose parts are late on a busy machine


@dataclass(frozen=True)
class RayOptions(RunOptions):
    """The options of any back end, and Ray's own. Without an address Ray is started here with `workers` (default 1)."""

    address: str | None = None  # `HOST:PORT` or `auto`; its nodes share the store's folder and the data's path
    gpus_per_run: float | None = None  # 0.25 packs four runs on a GPU; of a cluster none, unless asked for
    asha: bool = False

    def runs(self, config: RunConfig) -> list[RunConfig]:
        """The runs of a job, the last one its own: under ASHA for 1, 3, 9 ... epochs, each annealed to its length."""
        shorter = [float(ETA**rung) for rung in range(RUNGS) if self.asha and ETA**rung < config.train.epochs]
        return [*map(config.with_epochs, shorter), config]


def run_all(jobs: Sequence[Job], options: RayOptions) -> list[Record]:
    """Run jobs as `local_backend.run_all` does, on Ray Tune; returns their records. A lost worker's trial is retried.

    With `asha` a job is trained for 1, 3, 9 ... epochs, each a run of its own, and stops where it is not among the best
    third (Li et al. 2020, arXiv 1810.05934): the record of its last run is returned, and the job stays pending. Raises
    as `local_backend.run_all`; `ConfigError` if no cluster answers or it has too few GPUs."""
    for dataset in {run.config.data.dataset for _, run in jobs}:
        fingerprint(dataset, options.root)  # missing data is one error here, not one a trial
    if not jobs:
        return []
    folder = options.store.writable.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    ray_here = connected(options.address, options.workers or 1)
    with ray_here, options.results(jobs) as results, temporary(folder / "ray") as work_folder:
        stop = work_folder / "stop"  # on this file every worker leaves its checkpoint, and Tune ends

        def request_stop(*_: object) -> None:
            if stop.exists():  # asked a second time
                raise KeyboardInterrupt
            stop.touch()

        with signals_answered_by(request_stop, signal.SIGINT, signal.SIGTERM):
            _tuner(jobs, _Ends(results, options), stop, options).fit()
            if stop.exists():
                raise KeyboardInterrupt
    return results.records


@contextlib.contextmanager
def connected(address: str | None, workers: int) -> Iterator[None]:
    """Ray, for as long as the block lasts; one that is connected already is used and left as it is.

    Raises `ConfigError` where no cluster answers at the address, and `TpsnetError` where Ray does not start."""
    if address and ":" in address:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, ValueError) as error:
            raise ConfigError(f"--address {address}: no Ray cluster answers ({error})") from None
    if ray.is_initialized():
        yield
        return
    local = {} if address else {"num_cpus": workers, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    for attempts_left in reversed(range(STARTS)):
        try:
            context = ray.init(address or "local", log_to_driver=False, logging_level="CRITICAL", **local)  # type: ignore[arg-type]
            break
        except Exception as error:  # Ray has no narrower one for a node that does not start in its 30 seconds
            ray.shutdown()
            if not attempts_left or "timed out" not in str(error):
                raise TpsnetError(f"Ray did not start ({brief(error)}): busy? Use --backend local") from None
    with context:
        yield


class RayTrial(tune.Trainable):
    """A job of a search: its runs, one a step, so that a scheduler may end it between them. A class, not a function:
    a step runs in its process's main thread, where training answers a signal."""

    def setup(self, config: dict[str, Any], jobs: Sequence[Any], settings: WorkerSettings, stop: Path) -> None:  # type: ignore[override]
        """Of jobs (minutes, weights kept, runs) the one of number `config["job"]`; the stop file gives SIGTERM."""
        self.jobs, self.settings, self.stop_file = jobs, settings, stop

        def watch() -> None:
            while not stop.exists():
                time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=watch, daemon=True).start()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up the next job in the same process, where torch is loaded already."""
        return True

    def step(self) -> dict[str, Any]:
        """Train or read the next run; the last run of a job, a failure and an interruption say `done`."""
        minutes, weights, runs = self.jobs[self.config["job"]]
        config = runs[self.iteration]
        result = {"epochs": config.train.epochs, "validation_accuracy": 0.0, "record": "", "done": True}
        if not self.stop_file.exists() and self.settings.has_time_for(minutes):
            with contextlib.suppress(Interrupted):
                record = self.settings.store.load(work(config, weights, self.settings))
                result |= {"record": record.id, "done": bool(record.failed) or config is runs[-1]}
                result["validation_accuracy"] = record.metrics.get("validation_accuracy", 0.0)
        return result


class _Ends(tune.Callback):
    """Sees to each trial as soon as it has ended."""

    def __init__(self, results: SearchResults, options: RayOptions) -> None:
        self.results, self.options = results, options
        self.running = dict(enumerate(results.jobs))

    def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
        return tune.Callback, ()  # Tune writes its settings to a file, which nothing reads

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Say how far the running trials are, and settle those that have ended."""
        self.results.report_running()
        for trial in trials:
            if trial.is_finished() and (job := self.running.pop(trial.config["job"], None)):
                error = Path(trial.error_file).read_text("utf-8").strip() if trial.status == trial.ERROR else ""
                self.settle(job, trial.last_result.get("record"), error)

    def settle(self, job: Job, run_id: str | None, error: str) -> None:
        """Count a job by its record, or say why it has none; one whose time was up stays pending."""
        options = self.options
        if "low on memory" in error:  # Ray ends the worker that takes the most before the system does
            reason = "out of memory: Ray ended its worker, as the machine ran low on memory"
            device = resolve_device(options.training.device)
            self.results.add(job, record_failure(job.run.config, reason, options.store, options.root, device, now()))
        elif error:
            self.results.give_up(job, f"{RETRIES + 1} attempts ended with {error.splitlines()[-1].strip()}")
        elif run_id and (record := options.store.find(run_id)):
            self.results.add(job, record)
        elif run_id:
            self.results.give_up(job, f"no record in {options.store.writable}, which a cluster's nodes must share")


def _tuner(jobs: Sequence[Job], ends: _Ends, stop: Path, options: RayOptions) -> tune.Tuner:
    """Tune over the numbers of the jobs, which are its only variable; it keeps no checkpoints of its own."""
    trials = [(experiment.minutes, experiment.weights, options.runs(run.config)) for experiment, run in jobs]
    trial = tune.with_parameters(RayTrial, jobs=trials, settings=options.worker(threads=1), stop=stop)
    asha = tune.schedulers.ASHAScheduler("epochs", "validation_accuracy", "max", ETA**RUNGS, reduction_factor=ETA)
    tune_config = tune.TuneConfig(reuse_actors=True, scheduler=asha if options.asha else None)
    tune_config.max_concurrent_trials = options.workers or (None if options.address else 1)
    run_config = tune.RunConfig(name="tune", storage_path=str(stop.parent), callbacks=[ends], verbose=0)
    run_config.failure_config = tune.FailureConfig(max_failures=RETRIES)
    run_config.checkpoint_config = tune.CheckpointConfig(checkpoint_at_end=False)
    trial = tune.with_resources(trial, {"cpu": 1, "gpu": _gpus(options)})
    numbers = tune.grid_search(list(range(len(jobs))))
    return tune.Tuner(trial, param_space={"job": numbers}, tune_config=tune_config, run_config=run_config)


def _gpus(options: RayOptions) -> float:
    """The share of the GPUs that a trial takes."""
    available = ray.cluster_resources().get("GPU", 0.0)
    is_local = options.address is None and resolve_device(options.training.device).type == "cuda"
    share = options.gpus_per_run if options.gpus_per_run is not None else is_local * available / (options.workers or 1)
    if share > available:
        raise ConfigError(f"--gpus-per-run is {share:g}: Ray has {available:g} GPUs")
    return share
