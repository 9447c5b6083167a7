"""The committed records with two of them in each other's place: what a sentence that rests on them must notice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tpsnet_lib.runs.experiments import collect, load_experiment
from tpsnet_lib.runs.publish import write_trials
from tpsnet_lib.runs.records import Record, Store, committed_folder

COMMITTED = Store(committed_folder())
HIGH, LOW = "draw 27", "draw 13"  # of the search: a good trial and a poor one that differ in every choice asked about


def recorded(experiment: str, label: str, seed: int | None = None) -> Record:
    """The committed record of a run, of a seed if it has several."""
    pairs = [(run, record) for run, record in collect(load_experiment(experiment), COMMITTED) if run.label == label]
    return next(record for run, record in pairs if record is not None and seed in (None, run.config.seed))


def swapped(folder: Path, one: Record, other: Record) -> Store:
    """The committed records, of which two have each other's measurements."""
    assert one.metrics["validation_accuracy"] != other.metrics["validation_accuracy"]
    pairs = (one, other), (other, one)
    rows = [replace(record, metrics=instead.metrics, curve=instead.curve) for record, instead in pairs]
    write_trials(folder / "swapped.trials.jsonl", rows)
    return Store(folder, *COMMITTED.folders)
