"""The size of each of three mistakes is read from the records, and is another with other records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tpsnet_lib.claims import mistakes
from tpsnet_lib.config import DataConfig, RunConfig
from tpsnet_lib.metrics import mean_interval
from tpsnet_lib.runs.experiments import find_record, load_experiment
from tpsnet_lib.runs.records import Record, Store

MADE = {"fingerprint": {"stamp": "CIFAR-10"}, "hardware": "a machine"}


def record(config: RunConfig, *curve: float) -> Record:
    config = config if config.train.precision != "auto" else config.with_precision("fp32")
    rows = tuple({"epoch": float(at), "validation_accuracy": value} for at, value in enumerate(curve, 1))
    measured = {"validation_accuracy": curve[-1], "seconds": 60.0, "epochs": float(len(curve))}
    return Record(Path("nowhere"), config, measured, MADE, rows)


class Shelf(Store):
    """A store of records that were never written."""

    def __init__(self, *records: Record) -> None:
        super().__init__(Path("nowhere"))
        self.records = {record.id: record for record in records}

    def find(self, run_id: str) -> Record | None:
        return self.records.get(run_id)

    def all(self) -> list[Record]:
        return list(self.records.values())


def test_the_best_epoch_claims_what_the_last_one_does_not_reach() -> None:
    runs = [
        record(RunConfig(seed=0), 0.5, 0.9, 0.88),
        record(RunConfig(seed=1), 0.5, 0.6, 0.7),
        record(RunConfig(seed=2), 0.5, 0.71, 0.7),
    ]
    mean, low, high = mean_interval([2, 0, 1])
    said = mistakes.best_epoch(Shelf(*runs))
    assert said.startswith("In 2 of our 3 runs")
    assert f"**{mean:.2f} points more** on average ({low:.2f} to {high:.2f}), 2.0 at most" in said
    unfair = record(RunConfig(data=DataConfig(fit_on="all")), 0.9, 0.1)
    others = replace(record(RunConfig(seed=3), 0.9, 0.1), provenance={**MADE, "fingerprint": {"stamp": "shapes10"}})
    assert mistakes.best_epoch(Shelf(*runs, unfair, others)) == said
    assert mistakes.best_epoch(Shelf(*runs[:2])) != said
    assert mistakes.best_epoch(Shelf()) == ""


def draws(name: str, curve: Callable[[int], list[float]], count: int = 12) -> list[Record]:
    configs = [run.config.with_precision("bf16") for run in load_experiment(name).runs[:count]]
    return [record(config, *curve(at)) for at, config in enumerate(configs)]


def test_a_trial_that_was_cut_off_ranks_as_its_record_at_that_epoch() -> None:
    short = draws(mistakes.SHORT, lambda at: [0.1] * 4 + [0.5 + 0.01 * at])
    long = draws(mistakes.LONG, lambda at: [0.1] * 4 + [0.5 - 0.01 * at] + [0.6] * 9 + [0.7 + 0.01 * at])
    said = mistakes.unannealed_ranking(Shelf(*short, *long))
    assert said.startswith("Of 12 random networks trained for 15 epochs, the ranking after 5 of them")
    assert "cut off before the rate had fallen, agrees with the last one at a rank correlation of **−1.00" in said
    assert "schedule of their own agrees at **1.00" in said
    turned = draws(mistakes.SHORT, lambda at: [0.1] * 4 + [0.5 - 0.01 * at])
    assert "schedule of their own agrees at **−1.00" in mistakes.unannealed_ranking(Shelf(*turned, *long))
    assert mistakes.unannealed_ranking(Shelf(*short, *long[:3])) == ""


def test_a_single_seed_is_measured_by_runs_that_differ_in_nothing_else() -> None:
    runs = [run.config.with_precision("bf16") for run in load_experiment(mistakes.SEEDS).runs]
    near = Shelf(*(record(config, 0.5 + 0.0001 * config.seed) for config in runs))
    far = Shelf(*(record(config, 0.5 + 0.1 * config.seed) for config in runs))
    pairs = sum(one.seed < other.seed for one in runs for other in runs if one.group_id == other.group_id)
    assert f"our {pairs} pairs" in mistakes.single_seed(near)
    assert "**nothing but the seed, 0 differ" in mistakes.single_seed(near)
    assert f"**nothing but the seed, {pairs} differ" in mistakes.single_seed(far)
    assert mistakes.single_seed(Shelf()) == ""


@pytest.mark.parametrize("name", [mistakes.SHORT, mistakes.LONG, mistakes.SEEDS])
def test_the_experiments_that_they_look_at_are_declared(name: str) -> None:
    assert all(find_record(run, Shelf()) is None for run in load_experiment(name).runs)
