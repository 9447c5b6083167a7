"""A verdict follows from its records: it changes when they change, and it says what it cannot settle."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tpsnet_lib.analysis import architecture, design_predictor
from tpsnet_lib.analysis.groups import Group
from tpsnet_lib.config import MEMBERS, DataConfig, ModelConfig, RunConfig
from tpsnet_lib.errors import ConfigError
from tpsnet_lib.files import project_root
from tpsnet_lib.model_cost import count_macs
from tpsnet_lib.runs.experiments import load_experiment
from tpsnet_lib.runs.records import Record, Store, committed_folder

PROVENANCE = {"fingerprint": {"stamp": "shapes10"}, "hardware": "a machine"}


def group(label: str, values: Mapping[int, float], model: ModelConfig = MEMBERS["classroom"]) -> Group:
    """A group whose runs reached the given accuracies, by seed."""
    config = RunConfig(model)
    records = tuple(
        Record(Path("nowhere"), config.with_seed(seed), {"validation_accuracy": value}, PROVENANCE, ())
        for seed, value in values.items()
    )
    return Group(label, tuple(record.config for record in records) or (config,), records)


# The design variables -----------------------------------------------------------------------------------------------


def test_seeds_are_never_paired_in_a_lead() -> None:
    noise = {seed: 0.03 * seed for seed in range(5)}
    better = group("a", {seed: 0.52 + value + 0.0001 * (seed % 2) for seed, value in noise.items()})
    worse = group("b", {seed: 0.5 + value for seed, value in noise.items()})
    lead = better.lead_over(worse)
    assert lead.method == "Welch t"
    assert lead.value == pytest.approx(0.02, abs=1e-3)
    assert better.lead_over(group("b", {})).n == 0


def test_each_level_of_each_design_variable_has_its_runs_of_the_study() -> None:
    found = architecture.design_variables(Store(committed_folder()))
    assert list(found) == ["N", "B", "w", "F", "K", "P", "skips", architecture.EQUAL_MACS, architecture.THREE_BLOCKS]
    for variable, groups in found.values():
        assert [group.label for group in groups] == list(variable.labels)
        assert {level for pair in variable.pairs for level in pair} <= set(variable.labels)
        assert all(len(group.records) >= 5 for group in groups)
        assert all(group.experiment.startswith("study_") for group in groups)
        assert len({group.config.train.epochs for group in groups}) == 1
    kernels = {group.label: group.config.model.kernels for group in found["F"][1]}
    assert kernels == {"F=1": (1,), "F=3": (3,), "F=5": (5,)}
    assert [group.config.model.pool for group in found["P"][1]] == [3, 5, 8]
    skips, recorded = found["skips"]
    assert [group.config.model.residual for group in recorded] == [True, False] * len(skips.pairs)
    pending = architecture.design_variables(Store())
    assert all(not group.records for _, groups in pending.values() for group in groups)


def test_the_number_of_layers_is_compared_at_equal_macs_too() -> None:
    found = architecture.design_variables(Store(project_root() / "report" / "records"))
    groups = found[architecture.EQUAL_MACS][1]
    macs, parameters = ([getattr(group, cost) for group in groups] for cost in ("macs", "parameters"))
    assert max(macs) < 1.05 * min(macs)
    assert max(parameters) > 2 * min(parameters)


def test_a_budget_says_small_and_short_before_anything_else() -> None:
    large = replace(RunConfig(MEMBERS["tpsnet"]), data=DataConfig(train_size=45_000))
    assert str(architecture.budget([Group("", (large,), ())])) == (
        "4,960,000 parameters, 105,300 steps (300 epochs of 45,000 images)"
    )
    small = replace(large, train=replace(large.train, epochs=4.0))
    assert str(architecture.budget([Group("", (small,), ())])).startswith("in short runs: 4,960,000 para")
    assert str(architecture.budget([])) == "no runs"


def test_the_small_networks_are_of_one_recipe_and_each_is_there_once() -> None:
    networks = architecture.small_networks(Store(project_root() / "report" / "records"))
    assert len({group.config.model for group in networks}) == len(networks) > 12
    assert len({group.config.train for group in networks}) == 1
    assert max(len(group.records) for group in networks) >= 8


# The predictor ------------------------------------------------------------------------------------------------------


@pytest.fixture
def recorded() -> list[Group]:
    """Twelve networks whose accuracy is a plane over log parameters, log MACs and log depth."""
    models = [
        ModelConfig((blocks,) * layers, tuple(width << layer for layer in range(1, 1 + layers)), stem=width)
        for blocks in (1, 2, 4)
        for layers in (2, 3)
        for width in (4, 10)
    ]
    values = [
        0.3 + 0.1 * design_predictor.features(model)[1] - 0.05 * design_predictor.features(model)[2] for model in models
    ]
    return [
        group(f"network {at}", {0: value, 1: value}, model)
        for at, (model, value) in enumerate(zip(models, values, strict=True))
    ]


def test_the_guess_is_by_the_rule_that_is_least_wrong_about_unseen_networks(recorded: list[Group]) -> None:
    fitted = design_predictor.DesignPredictor(recorded)
    assert fitted.rule == "a linear fit"
    assert fitted.errors["a linear fit"] == pytest.approx(0, abs=1e-6)
    assert fitted.errors["the mean of all"] > 0.01
    unseen = ModelConfig((3, 3, 3), (12, 24, 48), stem=6)
    expected = 0.3 + 0.1 * design_predictor.features(unseen)[1] - 0.05 * design_predictor.features(unseen)[2]
    assert fitted.predict(unseen).accuracy.value == pytest.approx(expected)


def test_a_guess_is_as_uncertain_as_its_rule_is_wrong_about_networks_left_out(recorded: list[Group]) -> None:
    noisy = [group(str(at), {0: 0.4 + 0.01 * (at % 3)}, each.config.model) for at, each in enumerate(recorded)]
    fitted = design_predictor.DesignPredictor(noisy)
    accuracy = fitted.predict(noisy[0].config.model).accuracy
    assert accuracy.high - accuracy.value == pytest.approx(2.201 * fitted.errors[fitted.rule], rel=1e-3)  # 11 degrees
    assert (accuracy.n, accuracy.of) == (12, "networks")


def test_a_guess_beyond_the_records_is_marked(recorded: list[Group]) -> None:
    fitted = design_predictor.DesignPredictor(recorded)
    assert not fitted.predict(MEMBERS["tpsnet"]).inside
    assert fitted.predict(recorded[3].config.model).inside


def test_too_few_networks_are_refused(recorded: list[Group]) -> None:
    with pytest.raises(ConfigError, match="2 networks have records"):
        design_predictor.DesignPredictor([*recorded[:2], replace(recorded[2], records=())])


def test_a_network_recorded_under_two_labels_counts_once(recorded: list[Group]) -> None:
    again = replace(recorded[0], label="again")
    assert len(design_predictor.DesignPredictor([*recorded, again]).groups) == len(recorded)


@pytest.mark.parametrize("name", ["tpsnet", "model1", "classroom"])
def test_a_design_shrinks_to_the_macs_asked_for_and_keeps_its_form(name: str) -> None:
    design = MEMBERS[name]
    small = design_predictor.shrink(design, 4_000_000)
    assert small.blocks == design.blocks
    assert 2_500_000 < count_macs(small) <= 4_000_000
    assert design_predictor.shrink(small, 4_000_000) == small
    with pytest.raises(ConfigError, match="or more MACs"):
        design_predictor.shrink(design, 1000)


def test_latency_is_in_milliseconds_and_leaves_the_threads_as_they_were() -> None:
    threads = torch.get_num_threads()
    assert 0.05 < design_predictor.latency(MEMBERS["classroom"], seconds=0.01) < 1000
    assert torch.get_num_threads() == threads


def test_budgets_that_are_small_or_short_say_so_first() -> None:
    def budget(name: str) -> str:
        return str(architecture.budget([Group("", (load_experiment(name).runs[0].config,), ())]))

    assert budget("table1_matched") == "4,866,000 parameters, 10,530 steps (30 epochs of 45,000 images)"
    assert budget("effects_width").startswith("in small, short runs: 20,000 parameters, 312 steps")
    assert budget("study_rates").startswith("in short runs: 304,000 parameters, 1,053 steps")
