"""Experiments: what is asked, as YAML; running many of them by priority and minutes; what is still pending."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tpsnet_lib.config import RunConfig, merged, parse, read_yaml
from tpsnet_lib.data import fingerprint
from tpsnet_lib.files import ConfigError, Interrupted, TpsnetError, TrainingError, project_root
from tpsnet_lib.model import check_budget
from tpsnet_lib.progress import Progress
from tpsnet_lib.study.provenance import now, provenance
from tpsnet_lib.study.records import Record, Store, default_store, load_or_run, write_failure
from tpsnet_lib.study.search import Draws, load_spaces, sample
from tpsnet_lib.train import native_precision, resolve_device

_FIELDS = {"question", "needs", "priority", "minutes", "final", "weights", "base", "runs", "grid", "search", "seeds"}


@dataclass(frozen=True)
class Run:
    """One run of an experiment: its label, its config, and what it varies."""

    label: str
    config: RunConfig
    factors: Mapping[str, Any]


@dataclass(frozen=True)
class Experiment:
    """A question and the runs that answer it."""

    name: str
    question: str
    needs: str  # cpu or gpu
    priority: int  # lower runs first
    minutes: float  # expected for one run on what it needs
    final: bool  # its records may be opened on the test set
    weights: bool  # its records keep their weights
    runs: list[Run]
    draws: Draws | None = None  # of a search


def experiments_folder() -> Path:
    """Where experiments are declared."""
    return project_root() / "report" / "experiments"


def load_experiment(name: str | Path) -> Experiment:
    """An experiment by its name in `report/experiments`, or by the path of its YAML file.

    Raises `ConfigError` for a field that is not known, a config that is not valid, or a network over the budget."""
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else experiments_folder() / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in experiments_folder().glob("*.yaml")))
        raise ConfigError(f"no experiment {name}: known are {known or 'none'}")
    tree = read_yaml(path)
    if unknown := set(tree) - _FIELDS:
        raise ConfigError(f"{path}: {sorted(unknown)[0]} is not a field: known are {', '.join(sorted(_FIELDS))}")
    if tree.get("needs", "cpu") not in ("cpu", "gpu"):
        raise ConfigError(f"{path}: needs is {tree['needs']!r}: give cpu or gpu")
    draws = _search_draws(tree)
    return Experiment(
        name=path.stem,
        question=str(tree.get("question", "")),
        needs=str(tree.get("needs", "cpu")),
        priority=int(tree.get("priority", 100)),
        minutes=float(tree.get("minutes", 1)),
        final=bool(tree.get("final", False)),
        weights=bool(tree.get("weights", tree.get("final", False))),
        runs=_runs(path, tree, draws),
        draws=draws,
    )


def all_experiments() -> list[Experiment]:
    """Every declared experiment, by priority."""
    found = [load_experiment(path) for path in sorted(experiments_folder().glob("*.yaml"))]
    return sorted(found, key=lambda experiment: (experiment.priority, experiment.name))


def _search_draws(tree: Mapping[str, Any]) -> Draws | None:
    if not (search := tree.get("search")):
        return None
    spaces = load_spaces()
    if search.get("space") not in spaces:
        raise ConfigError(f"search.space is {search.get('space')!r}: known are {', '.join(spaces)}")
    return sample(spaces[search["space"]], int(search.get("seed", 0)), int(search["draws"]), tree.get("base", {}))


def _runs(path: Path, tree: Mapping[str, Any], draws: Draws | None) -> list[Run]:
    base, seeds = tree.get("base", {}), tree.get("seeds", [0])
    if draws is not None:
        pairs = zip(draws.configs, draws.values, strict=True)
        runs = [Run(f"draw {index}", config, values) for index, (config, values) in enumerate(pairs)]
    else:
        runs = []
        for given in [*tree.get("runs", []), *_grid(tree.get("grid", {}))] or [{}]:
            factors = {key: value for key, value in given.items() if key != "label"}
            label = str(given.get("label", ", ".join(f"{key}={value}" for key, value in factors.items()) or path.stem))
            runs.append(Run(label, parse(merged(base, factors)), factors))
    seeded = [Run(run.label, run.config.with_seed(seed), run.factors) for run in runs for seed in seeds]
    for run in seeded:
        check_budget(run.config.model)
    return seeded


def _grid(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    if not grid:
        return []
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def find_record(run: Run, store: Store) -> Record | None:
    """A run's record; where its precision is left to the machine, of either precision, bf16 first."""
    for precision in ("bf16", "fp32"):
        if (record := store.find(run.config.with_precision(precision).id)) is not None:
            return record
    return None


def collect(experiment: Experiment, store: Store | None = None) -> list[tuple[Run, Record | None]]:
    """Each run of an experiment with its record, or None where it has not been run."""
    store = store or default_store()
    return [(run, find_record(run, store)) for run in experiment.runs]


def final_ids() -> dict[str, str]:
    """The ids that may be opened on the test set, with the experiment that declares each `final`."""
    declared = [path for path in sorted(experiments_folder().glob("*.yaml")) if read_yaml(path).get("final")]
    return {
        run.config.with_precision(precision).id: path.stem
        for path in declared
        for run in load_experiment(path).runs
        for precision in ("bf16", "fp32")
    }


def pending(experiments: Sequence[Experiment], store: Store | None = None) -> list[tuple[Experiment, Run]]:
    """The runs that have no record, in the order of their experiments."""
    store = store or default_store()
    return [(e, run) for e in experiments for run, record in collect(e, store) if record is None]


def run_all(
    jobs: Sequence[tuple[Experiment, Run]],
    *,
    root: str | Path | None = None,
    device: str = "auto",
    store: Store | None = None,
    workers: int = 1,
    minutes: float | None = None,
    progress: str = "auto",
    on_record: Callable[[Run, Record], None] | None = None,
) -> list[Record]:
    """Run jobs in order, several side by side in processes of their own; returns their records.

    With `minutes`, a job whose expected minutes do not fit in what is left is passed over, and at the end of the time
    the running ones leave checkpoints. A run that diverges is recorded as failed, with its reason, and the rest goes
    on; so it does when a worker is killed, whose run is tried once more. A CPU's cores are shared out among workers."""
    store = store or default_store()
    ends = time.monotonic() + 60 * minutes if minutes is not None else None
    threads = max(1, torch.get_num_threads() // workers)
    records: list[Record] = []
    waiting, tries = list(jobs), dict.fromkeys((run.config for _, run in jobs), 2)
    failed: list[str] = []
    with Progress(len(jobs), "runs", mode=progress) as bar:
        while waiting:
            going: dict[Future[str], tuple[Experiment, Run]] = {}
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(workers, context, _end_with_parent) as pool, _sigterm_as_ctrl_c():
                try:
                    while waiting or going:
                        while waiting and len(going) < workers:
                            experiment, run = waiting.pop(0)
                            left = None if ends is None else ends - time.monotonic()
                            if left is not None and left < 60 * experiment.minutes * 0.9:
                                continue
                            job = (run.config, root, device, store.folders, threads, experiment.weights, left)
                            going[pool.submit(_work, *job)] = (experiment, run)
                        for future in wait(going, return_when=FIRST_COMPLETED).done:
                            experiment, run = going.pop(future)
                            try:
                                record = store.load(future.result())
                            except Interrupted:
                                continue
                            except BrokenProcessPool:
                                tries[run.config] -= 1
                                if tries[run.config] > 0:
                                    waiting.insert(0, (experiment, run))
                                else:
                                    failed.append(f"{experiment.name}, {run.label}: its worker was killed twice")
                                raise
                            records.append(record)
                            bar.advance()
                            bar.stage(_said(experiment, run, record, records))
                            if on_record is not None:
                                on_record(run, record)
                except BrokenProcessPool:
                    waiting[:0] = going.values()  # the others died with the pool: they have their tries still
                except KeyboardInterrupt:
                    _stop(pool)
                    raise Interrupted(
                        f"stopped with {len(records)} of {len(jobs)} runs done; the same command goes on"
                    ) from None
    if failed:
        raise TpsnetError(f"{len(failed)} runs could not be finished: {'; '.join(failed)}")
    return records


def _said(experiment: Experiment, run: Run, record: Record, records: Sequence[Record]) -> str:
    scores = [done.metrics["validation_accuracy"] for done in records if not done.failed]
    best = f", best {100 * max(scores):.2f}%" if scores else ""
    came_to = record.failed or f"{100 * record.metrics['validation_accuracy']:.2f}%"
    return f"{experiment.name}, {run.label}, seed {run.config.seed}: {came_to}{best}"


def _stop(pool: ProcessPoolExecutor) -> None:
    pool.shutdown(wait=False, cancel_futures=True)
    for process in multiprocessing.active_children():
        if process.pid is not None:
            os.kill(process.pid, signal.SIGTERM)  # each leaves its checkpoint


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    main = threading.current_thread() is threading.main_thread()
    if main:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


def _end_with_parent() -> None:
    """In a worker: leave a checkpoint and go when the driver is gone, however it went."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _work(
    config: RunConfig,
    root: str | Path | None,
    device: str,
    folders: tuple[Path, ...],
    threads: int,
    weights: bool,
    seconds: float | None,
) -> str:
    """One run in a worker's process: the id of its record, also of its failure."""
    torch.set_num_threads(threads)
    deadline = None if seconds is None else time.monotonic() + seconds
    started = now()
    try:
        return load_or_run(
            config,
            root=root,
            device=device,
            store=Store(*folders),
            progress="none",
            keep_weights=weights,
            deadline=deadline,
        ).id
    except (TrainingError, torch.OutOfMemoryError) as error:
        where = resolve_device(device)
        made_by = provenance(where, fingerprint(config.data.dataset, root), started)
        config = config.with_precision(native_precision(where))
        return write_failure(folders[0], config, str(error).splitlines()[0], made_by).name
