"""What a run costs, and where it stands: the profile of a step, fresh records, the table beside published results."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import QUIET

from tpsnet_lib import stats
from tpsnet_lib.analysis import peers
from tpsnet_lib.analysis.final_runs import Final
from tpsnet_lib.benchmarks import step_profile
from tpsnet_lib.config import MEMBERS, RECIPES, DataConfig, ModelConfig, RunConfig, TrainConfig
from tpsnet_lib.data.datasets import fit_and_validation
from tpsnet_lib.errors import Interrupted
from tpsnet_lib.files import project_root
from tpsnet_lib.model_cost import count_macs, training_flops
from tpsnet_lib.plain_yaml import read_yaml
from tpsnet_lib.runs import fresh_runs
from tpsnet_lib.runs.experiments import load_experiment
from tpsnet_lib.runs.load_or_run import load_or_run
from tpsnet_lib.runs.records import Record
from tpsnet_lib.runs.test_set import TestResult

TINY = RunConfig(
    ModelConfig(blocks=(1,), channels=(4,), stem=2, pool=32),
    TrainConfig(epochs=1, batch_size=20, precision="fp32"),
    DataConfig("shapes10", 40, 20),
)


def record(accuracy: float = 0.9, stamp: str = "CIFAR-10", config: RunConfig = TINY, minutes: float = 2) -> Record:
    measured = {"validation_accuracy": accuracy, "seconds": 60.0 * minutes, "images_per_second": 500.0, "epochs": 2.0}
    measured |= {"parameters": 1_000_000, "macs": 50_000_000}
    made = {"fingerprint": {"stamp": stamp}, "hardware": "a machine"}
    return Record(Path("nowhere"), config, measured, made, ())


def opened(accuracy: float) -> TestResult:
    return TestResult(Path("nowhere"), {"accuracy": accuracy, "n": 10_000}, torch.empty(0, 10))


def test_operators_are_grouped_by_name_and_what_comes_before_the_forward_pass_is_data() -> None:
    events = [
        ("tpsnet: step", 0.0, 1e6),
        ("aten::index_select", 1.0, 2e6),
        ("tpsnet: forward", 2.0, 0.0),
        ("aten::mkldnn_convolution", 3.0, 3e6),
        ("aten::index_select", 4.0, 0.5e6),
        ("aten::convolution_backward", 5.0, 4e6),
        ("aten::native_batch_norm_backward", 6.0, 4e6),
        ("_FusedNormBackward", 6.5, 1e6),
        ("_FusedNorm", 6.6, 0.5e6),
        ("aten::clamp_min", 6.7, 0.25e6),
        ("aten::max_pool2d_with_indices", 7.0, 6e6),
        ("aten::_fused_sgd_", 8.0, 7e6),
    ]
    found = step_profile.group_events(reversed(events))
    assert found[step_profile.DATA] == pytest.approx(2)
    assert found[step_profile.OTHER] == pytest.approx(1.5)
    assert found["convolution, forward"] == pytest.approx(3)
    assert found["convolution, backward"] == pytest.approx(4)
    assert found["norm and activation, forward"] == pytest.approx(0.75)
    assert found["norm and activation, backward"] == pytest.approx(5)
    assert (found["pool"], found["optimizer"]) == pytest.approx((6, 7))
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_the_copies_that_lay_maps_side_by_side_are_copies_and_the_optimizers_are_the_optimizers() -> None:
    events = [
        ("tpsnet: step", 0.0, 0.0),
        ("tpsnet: forward", 1.0, 0.0),
        ("aten::constant_pad_nd", 2.0, 1e6),
        ("aten::fill_", 3.0, 2e6),
        ("aten::copy_", 4.0, 3e6),
        ("aten::add", 4.5, 0.5e6),
        ("Optimizer.step#Muon.step", 5.0, 1e6),
        ("tpsnet: optimizer", 6.0, 0.0),
        ("aten::copy_", 7.0, 4e6),
        ("aten::mm", 8.0, 5e6),
        ("tpsnet: after", 9.0, 0.0),
        ("aten::argmax", 10.0, 7e6),
    ]
    found = step_profile.group_events(events)
    assert found["copies, casts and padding"] == pytest.approx(6)
    assert found["sums of maps"] == pytest.approx(0.5)
    assert found["optimizer"] == pytest.approx(10)
    assert found[step_profile.OTHER] == pytest.approx(7)


def test_the_matrix_products_of_a_muon_step_are_the_optimizers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, float, float]] = []

    def grouped(events: list[tuple[str, float, float]]) -> dict[str, float]:
        seen.extend(events)
        return {"seen": 1.0}

    monkeypatch.setattr(step_profile, "group_events", grouped)
    muon = replace(TINY, train=replace(TINY.train, optimizer="muon"))
    step_profile.profile_step(muon, fit_and_validation(TINY.data)[0], steps=1, device="cpu")
    ordered = [name for name, _, _ in sorted(seen, key=lambda event: event[1])]
    of_optimizer = ordered[ordered.index("tpsnet: optimizer") : ordered.index("tpsnet: after")]
    assert "aten::mm" in of_optimizer
    assert "tpsnet: forward" in ordered[: ordered.index("tpsnet: optimizer")]


def test_profile_of_a_step_accounts_for_all_of_it(capfd: pytest.CaptureFixture[str]) -> None:
    step = step_profile.profile_step(TINY, fit_and_validation(TINY.data)[0], steps=2, device="cpu")
    os.write(2, b"standard error works again\n")
    assert sum(step.values()) == pytest.approx(1)
    assert min(step[group] for group in ("convolution, forward", step_profile.DATA, "optimizer")) > 0
    assert capfd.readouterr().err == "standard error works again\n"


def test_training_costs_six_operations_a_mac_and_image() -> None:
    config = RunConfig(MEMBERS["classroom"])
    assert training_flops(config, 1000) == 6000 * count_macs(config.model)
    halved = replace(config, train=TrainConfig(epochs=4, small_epochs=2, small_size=16))
    assert training_flops(halved, 1000) == (1 + 1 / 4) / 2 * training_flops(config, 1000)


def test_a_fresh_store_is_empty_and_its_record_is_found_as_the_latest(tmp_path: Path) -> None:
    assert fresh_runs.latest_fresh(tmp_path) is None
    first, second = fresh_runs.fresh_store(tmp_path), fresh_runs.fresh_store(tmp_path)
    assert first.writable != second.writable
    assert first.all() == []
    for store, run in ((first, TINY), (second, TINY.with_seed(1))):
        load_or_run(run, QUIET, store=store)
    latest = fresh_runs.latest_fresh(tmp_path)
    assert latest is not None
    assert latest.config.seed == 1
    assert fresh_runs.fresh_folder(latest.id, tmp_path) == latest.path
    assert fresh_runs.fresh_folder("0" * 12, tmp_path) is None


def test_a_fresh_store_whose_run_was_interrupted_is_taken_again(tmp_path: Path) -> None:
    first = fresh_runs.fresh_store(tmp_path)
    with pytest.raises(Interrupted):
        load_or_run(TINY, replace(QUIET, deadline=0.0), store=first)
    again = fresh_runs.fresh_store(tmp_path)
    assert again.writable == first.writable
    load_or_run(TINY, QUIET, store=again)
    assert fresh_runs.fresh_store(tmp_path).writable != first.writable


@pytest.mark.parametrize("experiment", ["quick", "smoke"])
def test_what_notebook_4_trains_is_declared_final(experiment: str) -> None:
    declared = load_experiment(experiment)
    assert declared.final
    assert declared.weights
    profiles = read_yaml(project_root() / "report" / "profiles.yaml")["profiles"]
    given = profiles[experiment]["notebooks"]["04_final_training"]["parameters"]
    assert given["experiment"] == experiment
    for dataset in {run.config.data.dataset for run in declared.runs}:
        config = fresh_runs.declared_run(experiment, dataset)
        trained = replace(config, train=replace(config.train, epochs=given["epochs"]))
        assert trained in [run.config for run in declared.runs]


def test_the_defaults_of_notebook_4_are_those_of_the_quick_profile() -> None:
    notebook = json.loads((project_root() / "notebooks" / "04_final_training.ipynb").read_text("utf-8"))
    cell = next(cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", []))
    defaults: dict[str, object] = {}
    exec("".join(cell["source"]), defaults)
    quick = read_yaml(project_root() / "report" / "profiles.yaml")["profiles"]["quick"]
    for name, value in quick["notebooks"]["04_final_training"]["parameters"].items():
        assert defaults[name] == value


def test_on_a_data_set_that_no_run_is_declared_for_the_run_is_another() -> None:
    moved = fresh_runs.declared_run("smoke", "cifar10")
    assert moved.data.dataset == "cifar10"
    assert moved not in [run.config for run in load_experiment("smoke").runs]


def test_peers_are_numbers_within_reason_with_a_source() -> None:
    rows = peers.published()
    by_name = {row["model"]: row for row in rows}
    assert by_name["TPSNet"]["parameters"] == 4_959_770
    assert by_name["TPSNet"]["accuracy"] == 0.9484
    assert by_name["TPSNet"]["macs"] == count_macs(MEMBERS["tpsnet"])
    assert by_name["DARTS"]["macs"] is None
    for row in rows:
        assert 0.9 < row["accuracy"] < 1
        assert 5e5 < row["parameters"] < 5e6
        assert row["source"]
        assert row["checked"] in ("yes", "no")


def test_a_source_leads_to_its_repository_and_a_long_name_may_break() -> None:
    assert peers.source_link("quark0/darts") == '<a href="https://github.com/quark0/darts">quark0/<wbr>darts</a>'
    assert peers.source_link("a/b", "its <name>") == '<a href="https://github.com/a/b">its &lt;name&gt;</a>'
    assert peers.source_link("the literature") == "the literature"


def test_frontier_keeps_what_nothing_beats_at_its_cost() -> None:
    rows = [
        {"model": "a", "parameters": 1, "accuracy": 0.9},
        {"model": "b", "parameters": 2, "accuracy": 0.8},
        {"model": "c", "parameters": 3, "accuracy": 0.95},
        {"model": "d", "parameters": 3, "accuracy": 0.94},
        {"model": "e", "parameters": None, "accuracy": 0.99},
        {"model": "f", "parameters": 1, "accuracy": None},
    ]
    assert [row["model"] for row in peers.frontier(rows, "parameters")] == ["a", "c"]


def test_what_is_not_opened_has_no_accuracy_and_a_shared_machine_is_named() -> None:
    run = record()
    finals = [Final("unopened", (run,), (None,)), Final("ours", (run,), (opened(0.9),), alone=(run,))]
    shut, ours, *others = peers.beside_published(finals)
    assert (shut["accuracy"], shut["n"], shut["hardware"]) == (None, None, "a machine, beside other runs")
    assert (ours["accuracy"], ours["n"], ours["hardware"]) == (0.9, 10_000, "a machine")
    assert ours["estimate"] == stats.proportion(9000, 10_000)
    assert [{**row, "time": None} for row in others] == [{**row, "time": None} for row in peers.published()]
    assert {row["time"] for row in others if row["minutes"] is None} == {None}
    assert next(row["time"] for row in others if row["model"] == "airbench94 (Muon)") == "3 s"


def test_the_seeds_of_a_recipe_are_one_row_with_their_interval() -> None:
    seeds = tuple(record(config=TINY.with_seed(seed), minutes=minutes) for seed, minutes in enumerate((1, 2, 297)))
    tests = (opened(0.94), opened(0.95), opened(0.96))
    row = peers.final_row(Final("ours", seeds, tests))
    assert (row["accuracy"], row["minutes"]) == (pytest.approx(0.95), pytest.approx(100))
    assert row["estimate"] == stats.proportion(9500, 10_000)
    assert (row["range of seeds"], row["95% over images"]) == ("94.00\u00a0to\u00a096.00", "94.6\u00a0to\u00a095.4")
    assert (row["n"], row["n_of"], row["hardware"]) == (3, "seeds", "a machine, beside other runs")
    assert all(each.id in row["source"] for each in seeds)


def test_the_climb_ends_with_ingredients_of_the_recipe_it_climbs_to() -> None:
    first, *_, last = load_experiment("climb").runs
    assert replace(first.config.train, epochs=300.0, precision="auto") == RECIPES["original"]
    ours = RECIPES["sprint"]
    for name in ("schedule", "nesterov", "flip", "crop_padding", "rotation"):
        assert getattr(last.config.train, name) == getattr(ours, name)
