"""Fresh runs: those that are trained anew, whatever record there is, in a store of their own."""

import glob
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tpsnet_lib.config import RunConfig
from tpsnet_lib.files import project_root
from tpsnet_lib.runs.experiments import load_experiment
from tpsnet_lib.runs.records import Record, Store, read_record

FRESH = "report/local/fresh"  # from the project's root: records of runs that were trained anew


def fresh_store(folder: str | Path | None = None) -> Store:
    """An empty store, named by this moment, so that a run that is asked of it is trained anew.

    It lies in `folder`, by default `FRESH`, under the time in UTC. The newest one is taken again where it holds nothing
    but a run that was interrupted: that goes on."""
    base = Path(folder or project_root() / FRESH)
    newest = max(base.glob("*Z"), default=None)
    if newest is not None and any(newest.glob(".work/*/checkpoint")) and not any(newest.glob("*/config.json")):
        return Store(newest.resolve())
    return Store(base.resolve() / datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ"))


def latest_fresh(folder: str | Path | None = None) -> Record | None:
    """The newest record that was trained afresh, or None."""
    base = Path(folder or project_root() / FRESH)
    newest = max(base.glob("*/*/config.json"), key=str, default=None)
    return None if newest is None else read_record(newest.parent)


def fresh_folder(run_id: str, folder: str | Path | None = None) -> Path | None:
    """Where the newest record of an id lies that was trained afresh, or None."""
    base = Path(folder or project_root() / FRESH)
    return max((path.parent for path in base.glob(f"*/{glob.escape(run_id)}/config.json")), default=None)


def declared_run(experiment: str, dataset: str) -> RunConfig:
    """The first run that an experiment declares on a data set.

    If it declares none, its first run is moved to that data set: no experiment declares that run, so its test set stays
    shut."""
    configs = [run.config for run in load_experiment(experiment).runs]
    moved = replace(configs[0], data=replace(configs[0].data, dataset=dataset))
    return next((config for config in configs if config.data.dataset == dataset), moved)
