"""Experiments are data; many runs go side by side; what fails is said and the rest goes on; the test set stays shut."""

from pathlib import Path

import pytest
import yaml
from conftest import QUIET, TINY, tiny

from tpsnet_lib.cli import main
from tpsnet_lib.config import EPOCH_SPANS, RECIPES
from tpsnet_lib.errors import ConfigError, DataError, RecordError
from tpsnet_lib.model_cost import count_parameters
from tpsnet_lib.runs import experiments, test_set
from tpsnet_lib.runs.experiments import all_experiments, collect, load_experiment, pending
from tpsnet_lib.runs.local_backend import RunOptions, run_all
from tpsnet_lib.runs.records import Record, Store

TINY_BASE = {"model": TINY["model"], "train": {**TINY["train"], "epochs": 0.5}, "data": TINY["data"]}


def declare(path: Path, **tree: object) -> Path:
    path.write_text(yaml.safe_dump({"question": "?", "base": TINY_BASE, **tree}))
    return path


def test_every_declared_experiment_is_valid_and_under_the_budget() -> None:
    found = all_experiments()
    assert found
    assert [e.priority for e in found] == sorted(e.priority for e in found)
    for experiment in found:
        ids = [run.config.with_precision("fp32").id for run in experiment.runs]
        is_search = experiment.runs[0].label == "draw 0"
        assert is_search or len(ids) == len(set(ids)), f"{experiment.name} asks for one run twice"
        assert experiment.question


def test_what_a_gpu_needs_is_proven_small_first_every_recipe_in_a_network_of_its_kind() -> None:
    prove = load_experiment("prove")
    assert (prove.needs, prove.final, prove.weights, prove.is_check) == ("cpu", False, False, True)
    assert [e.name for e in all_experiments() if e.is_check] == ["prove", "smoke"]
    recipes = {run.factors["train"]["recipe"]: run.config for run in prove.runs}
    assert recipes.keys() == RECIPES.keys()
    for name, config in recipes.items():
        assert (config.train.epochs, config.data.train_size) == (2, 5000)
        assert count_parameters(config.model) < 200_000
        for span in EPOCH_SPANS:  # each part of a recipe has its turn
            assert 0 <= getattr(config.train, span) < 2
            assert bool(getattr(config.train, span)) == bool(getattr(RECIPES[name], span))


def test_runs_grids_and_seeds_multiply(tmp_path: Path) -> None:
    path = declare(tmp_path / "e.yaml", grid={"train.lr": [0.1, 0.2], "model.stem": [4, 8, 16]}, seeds=[0, 1])
    assert len(load_experiment(path).runs) == 12
    labelled = declare(tmp_path / "f.yaml", runs=[{"label": "wide", "model": {"channels": [8, 16]}}])
    (run,) = load_experiment(labelled).runs
    assert (run.label, run.config.model.channels) == ("wide", (8, 16))
    networks = [{"model.stem": 4}, {"model.stem": 8}]  # without labels: their factors tell them apart in every point
    crossed = load_experiment(declare(tmp_path / "g.yaml", runs=networks, grid={"train.lr": [0.1, 0.2]})).runs
    assert len({run.label for run in crossed}) == 4


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"sedes": [1]}, "sedes is not a field"),
        ({"needs": "tpu"}, "choose one of cpu, gpu"),
        ({"runs": [{"train.lr": -1}]}, "train.lr is -1"),
        ({"runs": [{"model": {"member": "tpsnet", "blocks": [99, 99, 99]}}]}, "over the budget of 5,000,000"),
        ({"search": {"space": "nowhere", "draws": 3}}, "search.space is 'nowhere'"),
        (
            {"search": {"space": "classroom", "draws": 1_000_000_000}},
            "search.draws is 1000000000: give a value from 1 to",
        ),
        ({"search": {"space": "classroom"}}, "search.draws is 0: give"),
        ({"seeds": 5}, "seeds is 5: give a list"),
        ({"runs": [{"label": "a", "seed": 3}]}, "a run or the base has a seed of its own"),
        ({"seeds": [0] * 2000, "grid": {"train.lr": [0.1] * 2000}}, "these are 4,000,000 runs"),
        ({"runs": ["x"]}, "runs holds 'x'"),
        ({"minutes": float("nan")}, "minutes is nan"),
        ({"base": 3}, "base is 3"),
    ],
)
def test_what_cannot_be_asked_is_refused(tree: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_experiment(declare(tmp_path / "e.yaml", **tree))


def test_an_experiment_that_cannot_be_read_breaks_none_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    declare(tmp_path / "bad.yaml", seeds=5)
    declare(tmp_path / "good.yaml")
    monkeypatch.setattr(experiments, "experiments_folder", lambda: tmp_path)
    assert main.main(["run", "--out", str(tmp_path / "store")]) == 1
    shown = capsys.readouterr()
    assert shown.out.split()[1] == "good"
    assert shown.err.count("\n") == 1
    assert f"{tmp_path / 'bad.yaml'}: seeds is 5" in shown.err
    assert experiments.final_ids() == {}


@pytest.mark.slow
def test_two_workers_fill_the_store_and_a_diverging_run_is_recorded_as_failed(tmp_path: Path) -> None:
    path = declare(
        tmp_path / "e.yaml",
        runs=[
            {"label": "good"},
            {"label": "bad", "train.lr": 100, "train.weight_decay": 1, "train.epochs": 8},
            {"label": "ok", "train.lr": 0.1},
        ],
    )
    experiment, store = load_experiment(path), Store(tmp_path / "store")
    records = run_all(pending([experiment], store), RunOptions(store, training=QUIET, workers=2))
    assert len(records) == 3
    by_label = {run.label: record for run, record in collect(experiment, store) if record is not None}
    assert "not a number at step" in by_label["bad"].failed
    assert not by_label["good"].failed
    assert not pending([experiment], store)


def test_an_opening_that_nothing_is_chosen_by_says_so(tiny_record: Record, tmp_path: Path) -> None:
    from tpsnet_lib.runs.publish import publish_record

    store = Store(publish_record(tiny_record, tmp_path / "store", weights=True).parent)
    result = test_set.open_test(store.load(tiny_record.id), store=store, device="cpu", exploratory=True)
    assert result.metrics["not_choosing"] is True
    (result.path / "metrics.json").write_text("{}")
    with pytest.raises(RecordError, match="altered"):
        test_set.find_test(tiny_record, store)


def test_training_needs_no_test_file(tmp_path: Path) -> None:
    from tpsnet_lib.data import cifar10, datasets

    root = cifar10.find_root()
    if root is None:
        pytest.skip("needs CIFAR-10 (TPSNET_DATA)")
    source = next(
        path for path in (root, root / "cifar-10-batches-bin", root / "cifar-10-batches-py") if path.glob("data_batch*")
    )
    source = root / "cifar-10-batches-bin" if (root / "cifar-10-batches-bin").is_dir() else source
    folder = tmp_path / source.name
    folder.mkdir()
    for file in source.glob("data_batch*"):
        (folder / file.name).symlink_to(file)
    assert len(datasets.fit_and_validation(tiny(data__dataset="cifar10").data, tmp_path)[0]) == 200
    with pytest.raises(DataError, match="test_batch"):
        datasets.load_test("cifar10", tmp_path)
