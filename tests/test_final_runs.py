"""Final networks: the seeds of one recipe are one result, and only honest validation is shown."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tpsnet_lib import stats
from tpsnet_lib.analysis import final_runs
from tpsnet_lib.analysis.final_runs import Final
from tpsnet_lib.cli import record_commands
from tpsnet_lib.config import RECIPES, DataConfig, RunConfig
from tpsnet_lib.config_parsing import parse
from tpsnet_lib.model import build
from tpsnet_lib.runs import openings, test_set
from tpsnet_lib.runs.experiments import load_experiment
from tpsnet_lib.runs.provenance import now
from tpsnet_lib.runs.publish import write_trials
from tpsnet_lib.runs.record_files import write_record, write_sums
from tpsnet_lib.runs.records import Record, Store, committed_folder
from tpsnet_lib.runs.test_set import TestResult
from tpsnet_lib.train_state import TrainState
from tpsnet_lib.whole_files import write_json


def record(seed: int = 0, minutes: float = 2.0, config: RunConfig | None = None, accuracy: float = 0.9) -> Record:
    measured = {"validation_accuracy": accuracy, "seconds": 60 * minutes}
    made = {"fingerprint": {"stamp": "CIFAR-10"}, "hardware": "a machine"}
    return Record(Path("nowhere"), (config or RunConfig()).with_seed(seed), measured, made, ())


def opened(accuracy: float, n: int = 10_000) -> TestResult:
    said = {"accuracy": accuracy, "n": n, "exact_accuracy": accuracy - 0.01, "exact_n": n - 21}
    return TestResult(Path("nowhere"), said, torch.empty(0, 10))


def store_of(folder: Path, *records: Record) -> Store:
    """A store that holds records as rows of one file."""
    write_trials(folder / "made.trials.jsonl", records)
    return Store(folder)


def test_one_seed_has_the_interval_of_its_images_and_several_that_of_the_seeds() -> None:
    single = Final("one", (record(),), (opened(0.95),))
    assert single.accuracy() == stats.proportion(9500, 10_000)
    three = Final("three", tuple(record(seed) for seed in range(3)), (opened(0.94), opened(0.95), opened(0.96)))
    assert three.accuracy() == stats.mean([0.94, 0.95, 0.96])
    assert three.accuracy("exact_").value == pytest.approx(0.94)


def test_seeds_that_were_not_opened_do_not_count() -> None:
    runs = (record(0, 10), record(1, 20), record(2, 60))
    part = Final("part", runs, (opened(0.94), opened(0.95), None))
    assert part.accuracy() == stats.mean([0.94, 0.95])
    assert part.minutes == 15
    shut = Final("shut", runs, (None, None, None))
    assert shut.accuracy().n == 0
    assert shut.minutes == 30


def test_the_minutes_are_those_of_runs_that_had_the_machine_to_themselves() -> None:
    def ran(seed: int, at: str, minutes: float, host: str = "a") -> Record:
        made = {"fingerprint": {"stamp": "CIFAR-10"}, "hardware": "2 cores", "host": host, "started": at}
        return replace(record(seed, minutes, RunConfig().with_precision("fp32")), provenance=made)

    alone = ran(0, "2026-11-26T05:28:00+00:00", 26)
    one, two = (ran(seed, f"2026-11-26T04:2{seed}:00+00:00", 63) for seed in (1, 2))
    elsewhere = ran(3, "2026-11-26T05:30:00+00:00", 10, host="b")
    every = [alone, one, two, elsewhere]
    assert [final_runs.runs_at_once(run, every) for run in every] == [1, 2, 2, 1]
    later = ran(4, "2026-11-26T05:53:00+00:00", 10)  # from the last minute of the first on
    assert final_runs.runs_at_once(alone, [*every, later]) == 2
    final = Final("a", (alone, one, two), (None, None, None), alone=(alone,))
    assert final.minutes == 26
    assert final.timed == (alone,)


def test_the_minutes_of_runs_that_took_turns_on_a_card_are_those_from_start_to_end() -> None:
    def ran(seed: int, seconds: float, execution: str) -> Record:
        times = {"started": "2026-11-27T17:59:00+00:00", "finished": "2026-11-27T18:22:00+00:00"}
        made = {**times, "hardware": "a card", "execution": execution}
        return replace(record(seed, seconds / 60, RunConfig()), provenance=made)

    by_turns = tuple(ran(seed, seconds, "captured-compiled") for seed, seconds in enumerate((103, 468, 199)))
    assert Final("a", by_turns, (None,) * 3).minutes == 23
    in_processes = tuple(ran(seed, 600, "compiled") for seed in range(3))
    assert Final("a", in_processes, (None,) * 3).minutes == 10


def test_recipes_are_ordered_by_validation_accuracy_and_never_by_test_accuracy(tmp_path: Path) -> None:
    wide, narrow = (load_experiment(name).runs[0].config for name in ("two_cores", "two_cores_narrow"))
    split = [replace(run, data=DataConfig(), seed=9) for run in (wide, narrow)]
    sprint = load_experiment("sprint10").runs[0].config

    def order(accuracies: tuple[float, float]) -> list[str]:
        kept_out = [record(9, config=run, accuracy=value) for run, value in zip(split, accuracies, strict=True)]
        fitted = [record(run.seed, config=run, accuracy=0.999) for run in (wide, narrow)]
        folder = tmp_path / str(accuracies)
        folder.mkdir()
        return [final.name for final in final_runs.finals(store_of(folder, *fitted, *kept_out, record(config=sprint)))]

    assert order((0.95, 0.94)) == ["two_cores", "two_cores_narrow", "sprint10"]
    assert order((0.94, 0.95)) == ["two_cores_narrow", "two_cores", "sprint10"]


def test_a_recipe_that_validation_did_not_judge_stands_by_its_arithmetic(tmp_path: Path) -> None:
    shorter, recipe, longer = (
        replace(load_experiment("two_cores").runs[0].config, train=replace(RECIPES["two_cores"], epochs=epochs))
        for epochs in (1.0, 10.0, 90.0)
    )
    judged = Final("judged", (record(config=recipe),), (None,), held_out=(record(accuracy=0.9),))
    better = Final("better", (record(config=longer),), (None,), held_out=(record(accuracy=0.95),))
    short, long = (Final(name, (record(config=run),), (None,)) for name, run in (("short", shorter), ("long", longer)))
    longest = Final("longest", (record(config=replace(longer, train=replace(longer.train, epochs=200.0))),), (None,))
    ranked = final_runs._ranked([short, judged, long, better])
    assert [final.name for final in ranked] == ["better", "long", "judged", "short"]
    assert final_runs._ranked([judged, better, longest])[0] is longest


def test_a_recipe_of_a_profile_is_the_best_of_nothing() -> None:
    run = record()
    named = Final("named", (replace(run, provenance=run.provenance | {"device": "cpu"}),), (opened(0.13),))
    assert final_runs.role(named, [named]) == "our most accurate network"
    tried = replace(named, name="smoke")
    assert final_runs.role(tried, [tried]) == ""


def test_records_are_taken_recipe_by_recipe_the_opened_seeds_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(seed: int, finished: str, weights: bool = True) -> Record:
        path = tmp_path / str(seed)
        path.mkdir()
        if weights:
            (path / "weights.safetensors").touch()
        return replace(record(seed), path=path, provenance={"finished": finished})

    bare, second, early, late, first = trained(0, "1", False), *(trained(n, str(n)) for n in (1, 2, 3, 4))
    recipes = [
        Final("a", (bare, second), (opened(0.9), opened(0.1))),
        Final("b", (early, late, first), (None, None, opened(0.99))),
    ]
    monkeypatch.setattr(final_runs, "finals", lambda store, dataset: recipes)
    assert final_runs.rank_records(Store(tmp_path), "cifar10") == [second, first, late, early]


def test_the_seeds_of_a_declared_recipe_are_one_result(tmp_path: Path) -> None:
    runs = [run.config.with_precision("bf16") for run in load_experiment("two_cores").runs]
    other = load_experiment("sprint10").runs[0].config
    here = [record(config.seed, config=config) for config in runs]
    there = store_of(tmp_path, *here, record(config=other), record(7, config=runs[0]))
    found = {final.name: [r.config.seed for r in final.records] for final in final_runs.finals(there)}
    assert found == {"two_cores": [config.seed for config in runs], "sprint10": [0]}


def test_a_run_fitted_on_the_validation_images_has_no_held_out_accuracy() -> None:
    assert record().validation_accuracy == 0.9
    fitted = replace(RunConfig(), data=DataConfig(fit_on="all"))
    assert record(config=fitted).validation_accuracy is None


def test_a_record_that_was_opened_for_a_look_alone_is_in_no_result(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs = [run.config.with_precision("bf16") for run in load_experiment("two_cores").runs]
    here = [record(config.seed, config=config) for config in runs]
    found = {here[0].id: opened(0.99), here[1].id: opened(0.94)}
    found[here[0].id].metrics["not_choosing"] = True
    monkeypatch.setattr(test_set, "find_test", lambda one, store=None: found.get(one.id))
    monkeypatch.setattr(final_runs, "find_test", lambda one, store=None: found.get(one.id))
    (final,) = final_runs.finals(store_of(tmp_path, *here))
    assert [one.config.seed for one in final.records] == [config.seed for config in runs[1:]]
    assert final.accuracy().value == 0.94


def test_no_committed_result_of_a_look_alone_is_counted() -> None:
    store = Store(committed_folder())
    counted = {one.id for final in final_runs.finals(store) for one in final.records}
    looks = {line["record"] for line in openings.read(openings.log_of(committed_folder())) if line.get("not_choosing")}
    assert looks
    assert not looks & counted


def finished(store: Store, config: RunConfig, validation: float, correct: int | None = None) -> None:
    """A record of CIFAR-10 with weights and the figures that are given, opened on the test set if `correct` is."""
    model = build(config.model)
    row = {"epoch": 1.0, "train_loss": 1.0, "train_accuracy": 0.9, "validation_loss": 1.0}
    history = [{**row, "validation_accuracy": validation}]
    state = TrainState(config, 50_000, model, torch.optim.SGD(model.parameters()), None, 1, 60.0, history)
    made = {"fingerprint": {"stamp": "CIFAR-10"}, "hardware": "a card", "finished": now(), "started": now()}
    path = write_record(store.writable, config, state, made)
    if correct is not None:
        (path / "test").mkdir()
        share = {"correct": correct, "n": 10_000, "accuracy": correct / 10_000, "low": 0.0, "high": 1.0}
        said = {"opened": now(), **share, **{f"exact_{name}": value for name, value in share.items()}}
        write_json(path / "test" / "metrics.json", said)
        np.savez_compressed(path / "test" / "logits.npz", logits=np.zeros((10_000, 10), np.float16))
        write_sums(path / "test")
        line = {"record": path.name, **{name: said[name] for name in ("opened", "accuracy", "n")}}
        openings.append(openings.log_of(store.writable), line)


@pytest.mark.parametrize("better", [True, False])
def test_the_notebooks_and_the_test_command_take_the_winner_from_the_records(
    better: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report" / "experiments").mkdir(parents=True)
    for name in ("pyproject.toml", "report/spaces.yaml"):
        shutil.copy(Path(__file__).parent.parent / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "out")
    small = {"model": {"blocks": [1, 1], "stem": 4, "channels": [4, 8]}, "data": {"fit_on": "all"}}
    runs = {
        name: parse({**small, "train": {"recipe": recipe, "epochs": 3, "precision": "bf16"}})
        for name, recipe in (("earlier", "card_trivial"), ("later", "card_cutmix"))
    }
    for name, run in runs.items():
        declaration = {"question": "?", "final": True, "seeds": [0, 1, 2], "runs": [run.to_dict()]}
        (tmp_path / "report" / "experiments" / f"{name}.yaml").write_text(yaml.safe_dump(declaration))
    for name, validation, correct in (("earlier", 0.95, 9_990), ("later", 0.96 if better else 0.94, 9_000)):
        finished(store, replace(runs[name], data=DataConfig()), validation)
        for seed in range(3):
            finished(store, runs[name].with_seed(seed), 0.999, correct)
    wins = "later" if better else "earlier"  # whatever the test set says
    ranked = final_runs.finals(store)
    assert (ranked[0].name, len(ranked[0].records), len(ranked)) == (wins, 3, 2)
    assert record_commands._best_opened(store) == runs[wins].id
    assert final_runs.rank_records(store, "cifar10")[0].id == runs[wins].id


def test_a_run_that_chose_a_recipe_does_not_judge_it_where_another_seed_does() -> None:
    store = Store(committed_folder())
    chose = {run_id for run in load_experiment("two_cores_choices").runs for run_id in run.config.possible_ids}
    (final,) = [final for final in final_runs.finals(store) if final.name == "two_cores"]
    everyone = {run.id for run in final_runs._held_out_runs(final.records[0], store.all())}
    assert everyone & chose
    assert {run.id for run in final.held_out} == everyone - chose != set()
