"""A run that is asked of a store: its record is read, or else it is trained, and the record is written."""

import shutil
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from tpsnet_lib.config import RunConfig
from tpsnet_lib.data.datasets import fingerprint, fit_and_validation
from tpsnet_lib.device import native_precision, resolve_device
from tpsnet_lib.errors import RecordError, TrainingError
from tpsnet_lib.files import sha256_of
from tpsnet_lib.locks import Held, lock
from tpsnet_lib.runs.provenance import now, provenance
from tpsnet_lib.runs.record_files import WEIGHTS, write_failure, write_record
from tpsnet_lib.runs.records import Record, Store, default_store, read_record
from tpsnet_lib.train import TrainOptions, training_steps

Result = TypeVar("Result")


def load_or_run(
    config: RunConfig,
    options: TrainOptions | None = None,
    *,
    store: Store | None = None,
    root: str | Path | None = None,
    keep_weights: bool = False,
    on_wait: Callable[[Held], None] | None = None,
) -> Record:
    """The record of a run, trained only if it is missing (or kept without the weights that are wanted).

    `store` is by default the local one over the committed one, `root` is of the data. Of two processes that ask for
    the same run, one trains; the other calls `on_wait` (which may raise what it is given), waits and reads. A run that
    was interrupted is taken up from its checkpoint; without `options.resume` the checkpoint is a `RecordError`: nothing
    is lost unasked. So is a teacher without a record that has its weights."""
    return finished(
        run_in_steps(config, options or TrainOptions(), store or default_store(), root, keep_weights, on_wait)
    )


def finished(run: Generator[object, None, Result]) -> Result:
    """What a run that is carried out step by step returns in the end."""
    while True:
        try:
            next(run)
        except StopIteration as end:
            result: Result = end.value
            return result


def run_in_steps(
    config: RunConfig,
    options: TrainOptions,
    store: Store,
    root: str | Path | None,
    keep_weights: bool,
    on_wait: Callable[[Held], None] | None = None,
) -> Generator[None, None, Record]:
    """The same as `load_or_run`, errors too, with a pause after every step that is trained."""
    device = resolve_device(options.device)
    config = config.with_precision(native_precision(device))
    checkpoint = store.checkpoint(config.id)

    def recorded() -> Record | None:
        record = store.find(config.id)
        if record is not None and record.failed:
            raise TrainingError(f"run {config.id} failed before: {record.failed}; delete {record.path} to try again")
        return record if record is None or record.has_weights or not keep_weights else None

    if (record := recorded()) is not None:
        return record
    fit_set, validation = fit_and_validation(config.data, root)  # an error of the data leaves nothing in the store
    data = fingerprint(config.data.dataset, root)
    with lock(store.writable / ".locks" / config.id, on_wait):
        if (record := recorded()) is not None:
            return record
        if checkpoint.exists() and not options.resume:
            raise RecordError(f"this run was interrupted: give --resume to go on, or delete {checkpoint}")
        started = now()
        teachers = [store.load(run_id) for run_id in config.train.teacher]
        networks = [record.load_model(device) for record in teachers]
        options = replace(options, device=device, checkpoint=checkpoint, teachers=networks)
        for state in training_steps(config, fit_set, validation, options):
            trained = state
            yield
        origin = provenance(device, data, started)
        origin |= {"execution": trained.execution, "threads_from_step": trained.threads}
        if teachers:  # an id names a run, these sums its very weights
            origin["teachers"] = {record.id: sha256_of(record.path / WEIGHTS) for record in teachers}
        path = write_record(store.writable, config, trained, origin, keep_weights)
        shutil.rmtree(checkpoint.parent, ignore_errors=True)
        return read_record(path)


def record_failure(
    config: RunConfig, reason: str, store: Store, root: str | Path | None, device: torch.device, started: str
) -> Record:
    """The record of a run that cannot be finished on a device, written as by `write_failure`."""
    origin = provenance(device, fingerprint(config.data.dataset, root), started)
    config = config.with_precision(native_precision(device))
    return read_record(write_failure(store.writable, config, reason, origin))
