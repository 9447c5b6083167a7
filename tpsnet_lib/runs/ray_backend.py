"""Running many on Ray Tune: the jobs of `pool`, in the same store, on this machine or a cluster; ASHA if asked for."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tpsnet_lib.config import RunConfig, parse
from tpsnet_lib.data.datasets import fingerprint
from tpsnet_lib.device import native_precision, resolve_device
from tpsnet_lib.files import ConfigError, RecordError, TpsnetError, lock, read_json, write_json
from tpsnet_lib.runs.experiments import Run, find_record
from tpsnet_lib.runs.local_backend import Job, OnRecord, Tally, Workplace, sigterm_as_ctrl_c
from tpsnet_lib.runs.provenance import now, provenance
from tpsnet_lib.runs.ray_start import connected
from tpsnet_lib.runs.records import Record, Store, default_store, local_folder, write_failure

ETA = 3  # ASHA: each rung trains so many times longer, and about one trial in so many reaches it
RETRIES = 2  # of a trial whose worker or node is lost
LOOK_SECONDS = 0.2  # between the driver's looks at what has ended


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
    """Run jobs as `pool.run_all` does, on Ray Tune; returns their records.

    Without `address` Ray is started here for as long as this takes, with `workers` (default 1) of one thread each;
    with it (`HOST:PORT`, or `auto` for the cluster that this machine belongs to) the trials go to a running cluster,
    `workers` side by side, or as many as fit. The nodes of a cluster must share the store's folder and find the data
    under the same path. `gpus_per_run` may be a fraction: 0.25 packs four runs on a GPU.

    A trial whose worker or node is lost is tried again; one whose training cannot go on is recorded as failed. A
    search whose driver was killed is taken up by `Tuner.restore` where Tune's own notes allow it, else from the store.
    With `asha` a job is trained for 1, eta, eta^2 ... epochs, each a run of its own (`rungs`), and stops where it is
    not among the best 1/eta (Li et al. 2020, arXiv 1810.05934); the record of the last run that it came to is
    returned, and a job that was stopped stays pending.

    Raises as `pool.run_all`; `ConfigError` if Ray is not installed, no cluster answers, or it has too few GPUs."""
    store = store or default_store()
    if not jobs:
        return []
    for dataset in {run.config.data.dataset for _, run in jobs}:
        fingerprint(dataset, root)  # data that is missing is said once, and here
    place = Workplace(
        root=None if root is None else Path(root).resolve(),
        device=device,
        folders=tuple(folder.resolve() for folder in store.folders),
        threads=1,
        ends=None if minutes is None else time.time() + 60 * minutes,
        execution=execution,
    )
    with connected(address, workers or 1), Tally(jobs, store, progress, on_record) as tally, sigterm_as_ctrl_c():
        gpus = _gpus(device, address, workers or 1) if gpus_per_run is None else gpus_per_run
        at_once = workers or (None if address else 1)
        _Search(jobs, store, place, tally, _trials(jobs, asha, eta), asha, eta).run(_resources(gpus), at_once)
    return tally.records


def rungs(config: RunConfig, eta: int = ETA) -> list[RunConfig]:
    """The runs that ASHA leads a job through: for 1, eta, eta^2 ... epochs, and last the job's own, unchanged.

    Each is annealed to its own length; its warm-up, its start on small images and its end without mixing are shortened
    in proportion."""
    recipe, found, epochs = config.train, [], 1.0
    while epochs < recipe.epochs:
        found.append(replace(config, train=recipe.shortened(epochs)))
        epochs *= eta
    return [*found, config]


def _key(config: RunConfig) -> str:
    return config.with_precision("fp32").id  # names a trial whatever precision its worker's machine has


def _trials(jobs: Sequence[Job], asha: bool, eta: int) -> dict[str, dict[str, Any]]:
    """What Tune is given, by key, in order; jobs of one config are one trial."""
    found: dict[str, dict[str, Any]] = {}
    for experiment, run in jobs:
        key = _key(run.config)
        runs = rungs(run.config, eta) if asha else [run.config]
        trees = [config.to_dict() for config in runs]
        trial = found.setdefault(key, {"key": key, "runs": trees, "weights": False, "minutes": experiment.minutes})
        trial["weights"] |= experiment.weights
    return found


@dataclass
class _Search:
    """One search on a Ray that runs: its trials, Tune's notes of them in a folder, and what has ended."""

    jobs: Sequence[Job]
    store: Store
    place: Workplace
    tally: Tally
    trials: dict[str, dict[str, Any]]
    asha: bool
    eta: int

    def __post_init__(self) -> None:
        names = dict.fromkeys(experiment.name for experiment, _ in self.jobs)
        writable = self.store.writable.resolve()
        base = writable.parent / "ray" if writable == local_folder().resolve() else writable / ".ray"
        self.folder = base / ("+".join(names)[:80] + ("-asha" if self.asha else ""))  # Tune's own
        self.stop, self.marks, self.plan = (self.folder.with_suffix(kind) for kind in (".stop", ".ended", ".json"))
        self.counted: set[str] = set()

    def run(self, resources: dict[str, float], at_once: int | None) -> None:
        """Take the search up where Tune can, then run in a new one what is left."""
        with lock(self.folder.with_suffix(".lock"), self._refuse):
            self._clear(self.marks, self.stop)
            self.marks.mkdir(parents=True)
            trainable = self._trainable(resources)
            try:
                if (tuner := self._restored(trainable)) is not None:
                    self._fit(tuner)
                if left := [trial for key, trial in self.trials.items() if key not in self.counted]:
                    self._clear(self.folder)
                    write_json(self.plan, self._planned(left))
                    self._fit(self._new(trainable, left, at_once))
            finally:  # a driver that is killed does not come here: it leaves its notes, to be taken up
                self._clear(self.folder, self.plan, self.marks, self.stop)

    def _refuse(self) -> None:
        raise TpsnetError(f"{self.folder.name} is running on Ray with this store already: wait for it, or stop it")

    def _clear(self, *paths: Path) -> None:
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _planned(self, trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {"trials": trials, "asha": self.asha, "eta": self.eta}

    def _trainable(self, resources: dict[str, float]) -> Any:
        from ray import tune

        from tpsnet_lib.runs.ray_trial import Trial

        told = tune.with_parameters(Trial, workplace=self.place, stop=self.stop)
        return tune.with_resources(told, resources)

    def _restored(self, trainable: Any) -> Any:
        """The Tuner of a search whose driver was killed, if what it left undone is what is asked for; else None."""
        from ray import tune

        try:
            plan = read_json(self.plan)
            undone = [trial for trial in plan["trials"] if self._record(trial["runs"][-1:]) is None]
            same = {**plan, "trials": undone} == self._planned(list(self.trials.values()))
            if same and tune.Tuner.can_restore(str(self.folder)):
                return tune.Tuner.restore(str(self.folder), trainable, resume_errored=True)
        except (RecordError, LookupError, TypeError, ValueError, RuntimeError, EOFError, OSError):
            pass  # notes that are torn, or of another version: the store knows all that counts
        return None

    def _record(self, trees: Sequence[dict[str, Any]]) -> Record | None:
        """The record of the last of some runs that has one."""
        for config in (parse(tree) for tree in reversed(trees)):
            if (record := find_record(Run("", config, {}), self.store)) is not None:
                return record
        return None

    def _new(self, trainable: Any, trials: Sequence[dict[str, Any]], at_once: int | None) -> Any:
        from ray import tune
        from ray.tune.schedulers import ASHAScheduler

        from tpsnet_lib.runs.ray_trial import Marks, StopFile

        scheduler = None
        if self.asha:
            longest = math.ceil(max(run.config.train.epochs for _, run in self.jobs))
            scheduler = ASHAScheduler(time_attr="epochs", max_t=longest, grace_period=1, reduction_factor=self.eta)
        return tune.Tuner(
            trainable,
            param_space={"job": tune.grid_search(list(trials))},
            tune_config=tune.TuneConfig(
                metric="validation_accuracy",
                mode="max",
                scheduler=scheduler,
                max_concurrent_trials=at_once,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=self.folder.name,
                storage_path=str(self.folder.parent),
                stop=StopFile(self.stop),
                callbacks=[Marks(self.marks)],
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                verbose=0,
            ),
        )

    def _fit(self, tuner: Any) -> None:
        """Run a Tuner in a thread, since signals come to the main one; count what ends meanwhile."""
        thread = ThreadPoolExecutor(1)
        try:
            fitting = thread.submit(tuner.fit)
            while not wait([fitting], LOOK_SECONDS).done:
                self._count()
                self.tally.look()
        except KeyboardInterrupt:
            self.stop.touch()  # every worker leaves its checkpoint, and Tune ends
            wait([fitting])
            self._count()
            raise
        finally:
            thread.shutdown(wait=False)
        for result in fitting.result():
            self._settle(result)

    def _count(self) -> None:
        """Count the trials that have ended since the last look; a search taken up may repeat the end of others."""
        for key in sorted({path.name for path in self.marks.iterdir()} & set(self.trials) - self.counted):
            self._add(key)

    def _add(self, key: str) -> bool:
        """Count a trial, if it has a record, for each job that asks for it."""
        record = self._record(self.trials[key]["runs"])
        if record is None:
            return False
        self.counted.add(key)
        for job in self._asking(key):
            self.tally.add(job, record)
        return True

    def _asking(self, key: str) -> list[Job]:
        return [job for job in self.jobs if _key(job[1].config) == key]

    def _settle(self, result: Any) -> None:
        """What became of a trial, once Tune has ended; one whose time was up is left as it is."""
        key = result.config["job"]["key"]
        if key in self.counted or key not in self.trials or self._add(key):
            return
        if result.error is not None:
            reason = str(result.error)
            if "low on memory" in reason:  # Ray ends the worker that takes the most before the system does
                self._fail(key, "out of memory: Ray ended its worker, as the machine ran low on memory")
            elif "ActorDied" in reason or "ActorUnavailable" in reason or "actor died" in reason:
                self._lose(key, f"its worker was lost {RETRIES + 1} times")
            else:
                self._lose(key, reason.strip().splitlines()[-1].strip())
        elif (result.metrics or {}).get("recorded"):
            self._lose(key, f"its record is not in {self.store.writable}: a cluster's nodes must share this folder")

    def _lose(self, key: str, reason: str) -> None:
        self.counted.add(key)
        for job in self._asking(key):
            self.tally.lose(job, reason)

    def _fail(self, key: str, reason: str) -> None:
        """Record that a trial cannot be finished, where its worker could not say so."""
        config, device = parse(self.trials[key]["runs"][-1]), resolve_device(self.place.device)
        made_by = provenance(device, fingerprint(config.data.dataset, self.place.root), now())
        write_failure(self.store.writable, config.with_precision(native_precision(device)), reason, made_by)
        self._add(key)


def _gpus(device: str, address: str | None, workers: int) -> float:
    """A run's share of this machine's GPUs; on a cluster, and where runs go to the CPU, none unless it is asked for."""
    if address is not None or resolve_device(device).type != "cuda":
        return 0.0
    return torch.cuda.device_count() / workers


def _resources(gpus: float) -> dict[str, float]:
    """What a trial takes of a node: one core, and a share of its GPUs."""
    import ray

    there = ray.cluster_resources().get("GPU", 0.0)  # type: ignore[no-untyped-call]
    if gpus > there:
        raise ConfigError(f"--gpus-per-run is {gpus:g}: Ray has {there:g} GPUs")
    return {"cpu": 1, "gpu": gpus}
