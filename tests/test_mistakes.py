"""The size of each of three mistakes is read from the records, and is another with other records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tpsnet_lib import stats
from tpsnet_lib.analysis import peers
from tpsnet_lib.claims import mistakes
from tpsnet_lib.config import DataConfig, RunConfig
from tpsnet_lib.runs.experiments import find_record, load_experiment
from tpsnet_lib.runs.records import Record, Store

MADE = {"fingerprint": {"stamp": "CIFAR-10"}, "hardware": "a machine"}


def record(config: RunConfig, *curve: float, losses: tuple[float, ...] = ()) -> Record:
    config = config if config.train.precision != "auto" else config.with_precision("fp32")
    losses = losses or tuple(1 - value for value in curve)
    rows = tuple(
        {"epoch": float(at), "lr": config.train.lr, "validation_accuracy": value, "validation_loss": loss}
        for at, (value, loss) in enumerate(zip(curve, losses, strict=True), 1)
    )
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


def test_the_epoch_is_that_of_the_lowest_loss_and_not_of_the_highest_accuracy() -> None:
    runs = [
        record(RunConfig(seed=0), 0.5, 0.9, 0.88),
        record(RunConfig(seed=1), 0.5, 0.6, 0.7),
        record(RunConfig(seed=2), 0.71, 0.69, 0.70, losses=(0.9, 0.5, 0.6)),
    ]
    found = mistakes.choices_by_lowest_loss(Shelf(*runs))
    excess, others = [each.excess for each in found], sum(each.is_another for each in found)
    assert excess == pytest.approx([0.02, 0, -0.01])
    assert others == 2
    sentence = mistakes.best_epoch(Shelf(*runs))
    assert sentence.startswith("In 2 of our 3 runs")
    assert f"{stats.mean(excess, 'runs'):points.3}" in sentence
    fitted_too = record(RunConfig(data=DataConfig(fit_on="all")), 0.9, 0.1)
    other_data = replace(record(RunConfig(seed=3), 0.9, 0.1), provenance={**MADE, "fingerprint": {"stamp": "shapes10"}})
    assert mistakes.best_epoch(Shelf(*runs, fitted_too, other_data)) == sentence
    assert mistakes.best_epoch(Shelf(*runs[:2])) != sentence
    assert mistakes.best_epoch(Shelf()) == ""


def draws(name: str, curve: Callable[[int], list[float]], count: int = 12) -> list[Record]:
    configs = [run.config.with_precision("bf16") for run in load_experiment(name).runs[:count]]
    return [record(config, *curve(at)) for at, config in enumerate(configs)]


def test_a_trial_that_was_cut_off_ranks_as_its_record_at_that_epoch() -> None:
    short = draws(mistakes.SHORT, lambda at: [0.1] * 4 + [0.5 + 0.01 * at])
    long = draws(mistakes.LONG, lambda at: [0.1] * 4 + [0.5 - 0.01 * at] + [0.6] * 9 + [0.7 + 0.01 * at])
    measured = mistakes.rankings(Shelf(*short, *long))
    assert measured is not None
    cut, annealed, lengths = measured
    assert (cut.value, annealed.value, lengths) == (pytest.approx(-1), pytest.approx(1), (5, 15, 1))
    sentence = mistakes.unannealed_ranking(Shelf(*short, *long))
    assert sentence.startswith("Of 12 random networks trained for 15 epochs, the ranking after 5 of them")
    turned = draws(mistakes.SHORT, lambda at: [0.1] * 4 + [0.5 - 0.01 * at])
    assert mistakes.unannealed_ranking(Shelf(*turned, *long)) != sentence
    assert mistakes.unannealed_ranking(Shelf(*short, *long[:3])) == ""


def test_a_single_seed_is_measured_by_runs_that_differ_in_nothing_else() -> None:
    rows = {row["model"]: row for row in peers.published()}
    models = rows["Model 2"], rows["Model 1"]
    near = {"a": [0.94, 0.9401, 0.9402], "b": [0.95, 0.9501]}
    far = {"a": [0.94, 0.95, 0.96], "b": [0.95, 0.96]}
    assert "our 4 pairs" in mistakes.seed_sentence(near, *models)
    assert "**another seed, 0 differ" in mistakes.seed_sentence(near, *models)
    assert "**another seed, 4 differ" in mistakes.seed_sentence(far, *models)
    assert "+0.22 points" in mistakes.seed_sentence(far, *models)
    assert mistakes.single_seed(Shelf()) == ""


@pytest.mark.parametrize("name", [mistakes.SHORT, mistakes.LONG])
def test_the_experiments_that_they_look_at_are_declared(name: str) -> None:
    assert all(find_record(run, Shelf()) is None for run in load_experiment(name).runs)
