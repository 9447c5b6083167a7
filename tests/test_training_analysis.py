"""What a change gains: the climb paired by seed, the best epoch on two halves, runs that differ by seed alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tpsnet_lib.analysis import cost, training
from tpsnet_lib.config import MEMBERS, RECIPES, DataConfig, ModelConfig, RunConfig, TrainConfig
from tpsnet_lib.data.datasets import fit_and_validation
from tpsnet_lib.device import native_precision, resolve_device
from tpsnet_lib.model_cost import count_parameters
from tpsnet_lib.runs.experiments import Run, load_experiment
from tpsnet_lib.runs.records import Record
from tpsnet_lib.train import TrainOptions, fit

TINY = RunConfig(
    ModelConfig(blocks=(1,), channels=(4,), stem=2, pool=32),
    TrainConfig(epochs=3, batch_size=20, lr=0.05, precision="fp32"),
    DataConfig("shapes10", 60, 40),
)


def pair(label: str, seed: int, accuracy: float | None, **failure: str | float) -> tuple[Run, Record | None]:
    run = Run(label, TINY.with_seed(seed), {})
    if accuracy is None:
        return run, None
    return run, Record(
        Path("nowhere"), run.config, {"validation_accuracy": accuracy, "seconds": 10.0 + seed, **failure}, {}, ()
    )


def climb(*rows: tuple[str, list[float]]) -> list[training.Step]:
    return training.climb(pair(label, seed, value) for label, values in rows for seed, value in enumerate(values))


def test_the_climb_is_paired_by_seed() -> None:
    _, better, level = climb(
        ("original", [0.50, 0.60, 0.70]), ("rate", [0.55, 0.651, 0.749]), ("ema", [0.56, 0.65, 0.74])
    )
    assert better.gain[0] == pytest.approx(0.05)
    assert better.verdict == "gain"
    assert level.verdict == "not settled"
    assert level.gains == pytest.approx((0.01, -0.001, -0.009))


def test_the_climb_uses_only_seeds_that_both_rows_have() -> None:
    found = [pair("a", 0, 0.5), pair("a", 1, 0.6), pair("a", 2, 0.9, failed="diverged"), pair("b", 0, 0.7)]
    found += [pair("b", 1, None), pair("b", 2, 0.8), pair("c", 0, None)]
    steps = training.climb(found)
    assert [step.label for step in steps] == ["a", "b"]
    assert steps[1].gains == pytest.approx((0.2,))
    assert np.isnan(steps[1].gain[1])
    assert steps[1].verdict == "not settled"


def test_what_was_tried_is_shown_best_first_without_what_has_no_held_out_accuracy() -> None:
    found = [pair("a", 0, 0.5, train_accuracy=0.9), pair("none", 0, None), pair("b", 0, 0.7, train_accuracy=0.8)]
    found.append(pair("diverged", 0, 0.9, failed="diverged", train_accuracy=0.1))
    rows = training.as_choices(found, 100)
    assert [row["configuration"] for row in rows] == ["b", "a"]
    assert rows[1]["held out (%)"] == "50.00 (40.38 to 59.62)"  # Wilson's interval of 50 of 100
    assert rows[0]["training (%)"] == "80.00"
    assert training.as_choices(found[1:2], 100) == []


def ablation(*rows: tuple[str, list[float | None]]) -> list[training.Step]:
    return training.left_out([pair(label, seed, value) for label, values in rows for seed, value in enumerate(values)])


def test_what_is_left_out_is_counted_over_the_whole_and_not_over_the_row_above() -> None:
    steps = ablation(
        ("whole", [0.70, 0.80, 0.90]),
        ("no rate", [0.71, 0.81, 0.911]),
        ("no stem", [0.60, 0.701, 0.80]),
        ("no flip", [0.70, 0.81, 0.89]),
        ("not run", [None, None, None]),
    )
    assert [step.label for step in steps] == ["whole", "no stem", "no flip", "no rate"]
    assert [step.verdict for step in steps] == ["start", "loss", "not settled", "gain"]
    assert steps[1].gains == pytest.approx((-0.1, -0.099, -0.1))
    assert steps[2].over == "whole"
    assert steps[0].seconds == 11


def test_a_row_that_shares_no_seed_with_the_whole_is_shown_last_and_not_judged() -> None:
    steps = ablation(("whole", [0.7, 0.8, None]), ("other seed", [None, None, 0.9]), ("better", [0.8, 0.95, None]))
    assert [(step.label, step.verdict) for step in steps[1:]] == [
        ("better", "not settled"),
        ("other seed", "not settled"),
    ]
    said = training.said_of_ablation(steps)
    assert "other seed" not in said
    assert "nan" not in str(training.as_rows(steps)).replace("10.5", "") + said
    assert ablation(("whole", [None]), ("no stem", [0.5])) == []


def test_what_is_said_of_an_ablation_turns_with_its_records() -> None:
    high, low = [0.70, 0.80, 0.901], [0.60, 0.70, 0.80]
    missed = training.said_of_ablation(ablation(("whole", high), ("no stem", low)))
    assert "Worse so: no stem (-10.0)" in missed
    assert "80.0% here (mean of 3 seeds)" in missed
    spared = training.said_of_ablation(ablation(("whole", low), ("no stem", high)))
    assert "Better so: no stem (+10.0)" in spared
    assert "no two rows" in training.said_of_ablation(ablation(("whole", high)))


def test_a_table_of_steps_says_what_each_gains_and_costs() -> None:
    first, second = training.as_rows(climb(("a", [0.5, 0.6, 0.7]), ("b", [0.6, 0.7, 0.801])))
    assert (first["gain (points)"], first["verdict"]) == ("–", "–")
    assert (second["gain (points)"], second["verdict"]) == ("+10.03 (+9.89 to +10.18)", "gain")
    assert (second["n"], second["seconds a run"]) == ("3", "11")
    assert second["parameters"] == f"{count_parameters(TINY.model):,}"


# What is set by a network's size or a run's length, and what the original's recipe had and ours has not.
NO_INGREDIENTS = {
    "blocks",
    "channels",
    "stem",
    "pool",
    "epochs",
    "batch_size",
    "lr",
    "momentum",
    "weight_decay",
    "rotation",
}


def test_each_ingredient_of_the_laptops_network_and_recipe_is_left_out_once() -> None:
    chosen = {**RunConfig(MEMBERS["laptop"], RECIPES["laptop"]).to_dict()}
    ingredients = {name for section in ("model", "train") for name in chosen[section]} - NO_INGREDIENTS
    runs = load_experiment("ablation").runs
    whole = runs[0].config.to_dict()
    left = set()
    for run in runs[len({run.config.seed for run in runs}) :]:
        given = run.config.to_dict()
        left |= {name for s in ("model", "train") for name in whole[s] if given[s].get(name) != whole[s][name]}
        left |= {name for s in ("model", "train") for name in given[s] if name not in whole[s]}
    assert ingredients <= left


def test_what_is_said_of_the_climb_turns_with_its_records() -> None:
    low, high = [0.5, 0.6, 0.7], [0.6, 0.7, 0.801]
    up, down = (
        training.said_of_climb(climb(("a", low), ("b", high))),
        training.said_of_climb(climb(("a", high), ("b", low))),
    )
    assert "Gains: b (+10.0)" in up
    assert "+10.03 points" in up
    assert "Losses: b (-10.0)" in down
    assert "-10.03 points" in down
    assert "no two rows" in training.said_of_climb(climb(("a", low)))


def test_epochs_scored_one_by_one_are_those_of_the_same_run() -> None:
    fit_set, validation = fit_and_validation(TINY.data)
    device = resolve_device("cpu")
    config = TINY.with_precision(native_precision(device))
    history = fit(config, fit_set, validation, TrainOptions(device, progress="none")).history
    done: list[int] = []
    correct = training.correct_by_epoch(TINY, fit_set, validation, "cpu", done.append)
    assert correct.shape == (3, 40)
    assert correct.dtype == torch.bool
    assert done == [1, 2, 3]
    assert correct.double().mean(1).tolist() == pytest.approx([row["validation_accuracy"] for row in history])


def test_the_best_of_equal_epochs_flatters_itself_and_the_only_epoch_does_not() -> None:
    chance = torch.Generator().manual_seed(0)
    correct = torch.rand(20, 1000, generator=chance) < 0.5
    halves = training.best_epoch_on_halves(correct)
    assert (halves.chosen - halves.honest).mean() > 0.01
    single = training.best_epoch_on_halves(correct[:1])
    assert abs((single.chosen - single.honest).mean()) < 0.005
    assert np.array_equal(single.honest, single.last)


def test_the_same_divisions_are_drawn_again() -> None:
    correct = torch.rand(5, 100, generator=torch.Generator().manual_seed(1)) < 0.5
    first, again = training.best_epoch_on_halves(correct), training.best_epoch_on_halves(correct)
    assert np.array_equal(first.epoch, again.epoch)
    assert not np.array_equal(first.chosen, training.best_epoch_on_halves(correct, seed=1).chosen)


def test_what_is_said_of_the_halves_is_their_difference() -> None:
    halves = training.Halves(np.array([1, 1]), np.array([0.8, 0.9]), np.array([0.7, 0.6]), np.array([0.6, 0.6]))
    said = training.said_of_halves(halves)
    assert "+20.00 points" in said
    assert "100% of 2 divisions" in said
    assert "+5.00 points" in said


def test_pairs_of_a_group_are_counted_and_groups_are_not_mixed() -> None:
    groups = [[0.90, 0.91, 0.95], [0.1, 0.1]]
    assert training.pairs_apart(groups, 0.02) == (2, 4)
    deviation, freedom = training.pooled_deviation(groups)
    assert freedom == 3
    assert deviation == pytest.approx(np.sqrt(np.var(groups[0], ddof=1) * 2 / 3))
    assert np.isnan(training.pooled_deviation([[0.5]])[0])


def test_what_is_said_of_the_seeds_turns_with_the_difference() -> None:
    rows = {row["model"]: row for row in cost.published()}
    groups = [[0.60, 0.61, 0.64]]
    close = training.said_of_seeds(groups, rows["Model 2"], rows["Model 1"])
    assert "0.22 points" in close
    assert "3 pairs" in close
    assert "3 differ" in close
    assert "which holds 94.24%" in close
    far = training.said_of_seeds(groups, {**rows["Model 2"], "accuracy": 0.99}, rows["Model 1"])
    assert "0 differ" in far
    assert "does not hold 99.00%" in far


def test_more_scatter_needs_more_seeds() -> None:
    assert training.seeds_needed(0.2, 0.22) == 13
    assert training.seeds_needed(0.4, 0.22) > 3 * training.seeds_needed(0.2, 0.22)
    assert training.seeds_needed(0.001, 0.22) == 2


def test_exercises_say_whether_an_answer_is_right() -> None:
    assert training.checked(None, 3, "Think.").startswith("Not answered yet")
    assert training.checked(2.99, 3, "Think.").startswith("Right")
    assert training.checked(4, 3, "Think.") == "Not yet. Think."
    assert training.check_steps(105_300, 45_000, 128, 300).startswith("Right")
    assert "45,000 / 128" in training.check_steps(105_469, 45_000, 128, 300)


def test_a_change_of_ones_own_is_judged_by_its_pairs() -> None:
    plain = [pair("", seed, 0.5 + seed / 10)[1] for seed in range(3)]
    better = [pair("", seed, 0.55 + seed / 10 + seed / 1000)[1] for seed in range(3)]
    runs, changed = [run for run in plain if run], [run for run in better if run]
    assert training.said_of_pairs(changed, runs).endswith("3 pairs: it helps.")
    assert training.said_of_pairs(runs, changed).endswith("3 pairs: it harms.")
    assert training.said_of_pairs(runs, runs).endswith("not told from nothing.")


def test_a_change_of_length_is_another_run() -> None:
    longer = replace(TINY, train=replace(TINY.train, epochs=4)).with_precision("fp32")
    assert longer.id != TINY.with_precision("fp32").id
