"""The final training's numbers: an ablation with pooled spread, what was tried, seeds, the recipe in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tpsnet_lib import stats
from tpsnet_lib.analysis import peers, recipe_glossary, training
from tpsnet_lib.analysis.final_runs import Final
from tpsnet_lib.config import MEMBERS, RECIPES, DataConfig, ModelConfig, RunConfig, TrainConfig
from tpsnet_lib.runs.experiments import Run, load_experiment
from tpsnet_lib.runs.records import Record
from tpsnet_lib.runs.test_set import TestResult

TINY = RunConfig(
    ModelConfig(blocks=(1,), channels=(4,), stem=2, pool=32),
    TrainConfig(epochs=3, batch_size=20, lr=0.05, precision="fp32"),
    DataConfig("shapes10", 60, 40),
)


def pair(label: str, seed: int, accuracy: float | None, **failure: str) -> tuple[Run, Record | None]:
    run = Run(label, TINY.with_seed(seed), {})
    if accuracy is None:
        return run, None
    metrics = {"validation_accuracy": accuracy, "seconds": 10.0 + seed, **failure}
    return run, Record(Path("nowhere"), run.config, metrics, {}, ())


def ablation(**rows: list[float | None]) -> list[training.AblationRow]:
    return training.ablation(
        pair(label, seed, value) for label, values in rows.items() for seed, value in enumerate(values)
    )


WHOLE = [0.70, 0.72, 0.71]


def test_an_ingredient_harms_only_if_that_is_settled_among_all_rows() -> None:
    """Without `late` it is 1.9 points better, which its own interval settles and Holm's method does not."""
    same = {f"row {k}": WHOLE for k in range(10)}
    for more, harms in ((0.019, False), (0.06, True)):
        rows = {row.label: row for row in ablation(whole=WHOLE, late=[value + more for value in WHOLE], **same)}
        assert rows["late"].brings.high < 0
        assert rows["late"].harms is harms
        assert not any(rows[label].harms for label in same)


def test_an_ingredient_brings_what_the_whole_has_more_than_the_row_without_it() -> None:
    rows = ablation(whole=WHOLE, rate=[0.71, 0.73, 0.72], stem=[0.60, 0.62, 0.61], unrun=[None, None, None])
    assert [row.label for row in rows] == ["whole", "stem", "rate"]
    assert [round(row.brings.value, 6) for row in rows[1:]] == [0.1, -0.01]
    assert rows[0].brings.n == 0
    assert rows[0].group.estimate.value == pytest.approx(0.71)


def test_a_row_names_its_ingredient_and_what_stands_in_its_place() -> None:
    rows = {row.label: row for row in declared_rows()}
    assert rows["logits not scaled down"].title == "logit scale"
    assert rows["ReLU, not GELU"].title == "GELU, not ReLU"
    assert rows["no warm-up"].title == "warm-up"
    assert rows["average-pool head, not max"].title == "max-pool head, not average-pool head"
    padded = rows["padding with zeros, not reflection"]
    assert padded.title == "crop: reflection, not padding with zeros"
    assert len({row.title for row in rows.values()}) == len(rows)


def test_an_ingredient_that_makes_the_network_larger_says_so() -> None:
    rows = {row.label: row for row in declared_rows()}
    assert rows["strided convolutions, not early pooling"].size.endswith(" (and 54% more parameters)")
    assert rows["ReLU, not GELU"].at_what_size == ""


def test_another_optimizer_counts_at_its_best_rate_and_brings_at_most_that_if_no_larger_one_was_tried() -> None:
    slow, fast = "Nesterov SGD at a rate of 0.2, not Muon", "Nesterov SGD at a rate of 0.4, not Muon"
    for better, rates in ((fast, {slow: "other", fast: "largest"}), (slow, {slow: "best", fast: "other"})):
        rows = {row.label: row for row in declared_rows({better: 0.65})}
        assert {label: rows[label].rate for label in rates} == rates
        assert rows["no cutout"].rate == ""
        assert (" or less, because SGD is best at the largest rate" in rows[better].size) == (better == fast)


def declared_rows(accuracies: Mapping[str, float] = {}) -> list[training.AblationRow]:
    """The rows of the declared ablation with made-up accuracies: 70% for the whole recipe, else 60%."""
    runs = load_experiment("ablation").runs
    scores = {runs[0].label: 0.7, **accuracies}
    pairs = []
    for run in runs:
        measured = {"validation_accuracy": scores.get(run.label, 0.6) + 0.001 * run.config.seed, "seconds": 1.0}
        pairs.append((run, Record(Path("nowhere"), run.config, measured, {}, ())))
    return training.ablation(pairs)


def test_the_interval_has_the_spread_of_all_rows() -> None:
    rows = ablation(whole=WHOLE, stem=[0.60, 0.62, 0.61], wild=[0.2, 0.5, 0.8])
    sd, freedom = stats.pooled_sd([row.group.accuracies for row in rows])
    stem = next(row for row in rows if row.label == "stem")
    assert stem.brings == stats.pooled_difference(WHOLE, [0.60, 0.62, 0.61], sd, freedom)
    assert freedom == 6
    assert stem.verdict == stats.NOT_SETTLED


def test_the_verdicts_turn_with_the_records() -> None:
    good, poor = [0.80, 0.81, 0.82], [0.70, 0.71, 0.72]
    assert ablation(whole=good, stem=poor)[1].verdict == stats.HOLDS
    assert ablation(whole=poor, stem=good)[1].verdict == stats.DOES_NOT_HOLD


def test_runs_that_failed_do_not_count_and_without_the_whole_there_is_no_row() -> None:
    pairs = [pair("whole", seed, value) for seed, value in enumerate(WHOLE)]
    pairs += [pair("stem", 0, 0.6), pair("stem", 1, 0.9, failed="diverged")]
    assert [list(row.group.by_seed) for row in training.ablation(pairs)] == [[0, 1, 2], [0]]
    assert ablation(whole=[None], stem=[0.5]) == []
    assert ablation() == []


def test_rows_are_compared_on_the_machine_that_all_have_runs_on() -> None:
    pairs = [pair(label, seed, 0.7 + 0.01 * seed) for label in ("whole", "stem") for seed in range(2)]
    run, record = pair("stem", 2, 0.1)
    assert record is not None
    elsewhere = replace(record, provenance={"hardware": "another machine"})
    whole, stem = training.ablation([*pairs, (run, elsewhere)])
    assert (stem.brings.value, stem.group.left_out, len(whole.group.records)) == (0, 1, 2)


def final(name: str, *accuracies: float) -> Final:
    runs = tuple(pair(name, seed, 0.9)[1] for seed in range(len(accuracies)))
    tests = tuple(TestResult(Path(), {"accuracy": value, "n": 10_000}, torch.empty(0)) for value in accuracies)
    return Final(name, tuple(run for run in runs if run), tests)


def test_only_recipes_of_several_seeds_are_groups_and_pairs_are_counted_within_them() -> None:
    groups = training.seed_groups([final("a", 0.90, 0.91, 0.95), final("one", 0.99), final("b", 0.94, 0.9422)])
    assert groups == {"a": [0.90, 0.91, 0.95], "b": [0.94, 0.9422]}
    assert training.pairs_apart(groups.values(), 0.0022) == (4, 4)
    assert training.pairs_apart(groups.values(), 0.02) == (2, 4)


def test_a_recipe_is_set_beside_a_published_run_with_the_noise_of_all_recipes_seeds() -> None:
    original = next(row for row in peers.published() if row["model"] == "TPSNet")
    ours, wild = final("ours", 0.953, 0.954, 0.955), final("wild", 0.90, 0.95)
    gap = training.against_published(ours, original, [ours])
    assert gap.value == pytest.approx(0.954 - 0.9484)
    assert gap.low < 0 < gap.high, "half a point is within the noise of the test images alone"
    assert training.against_published(ours, original, [ours, wild]).low < gap.low
    assert training.against_published(Final("shut", ours.records, (None,) * 3), original, [ours]).n == 0


def test_verdicts_against_a_published_run_are_adjusted_over_all_recipes() -> None:
    original = next(row for row in peers.published() if row["model"] == "TPSNet")
    ahead = final("ahead", 0.9558, 0.9562, 0.9560, 0.9559, 0.9561)
    others = [final(f"even {n}", *(0.948 + 0.0001 * n + 0.0001 * seed for seed in range(5))) for n in range(5)]
    alone = training.verdicts_against_published([ahead], original)
    among = training.verdicts_against_published([ahead, *others], original)
    assert (alone["ahead"], among["ahead"]) == (stats.HOLDS, stats.NOT_SETTLED)


def test_the_first_weights_of_a_run_are_those_of_its_seed() -> None:
    (one, sgd), (again, _), (other, _) = (training.start(TINY.with_seed(seed)) for seed in (0, 0, 1))
    weights = [nn.utils.parameters_to_vector(network.parameters()) for network in (one, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert sgd.param_groups[0]["lr"] == 0.05


# The recipe in words ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_in_words_has_what_it_uses_and_nothing_else(name: str) -> None:
    run = RunConfig(MEMBERS.get(name, MEMBERS["tpsnet"]), RECIPES[name])
    words = {row["ingredient"]: row["setting"] for row in recipe_glossary.in_words(run)}
    assert ("Muon" in words) == (run.train.optimizer == "muon")
    assert ("cutout" in words) == bool(run.train.cutout)
    assert ("GELU" in words) == (run.model.activation == "gelu")
    assert ("EMA" in words) == bool(run.train.ema_decay)
    assert f"{run.train.weight_decay:g}" == words["weight decay"]
    table = recipe_glossary.as_markdown(run).splitlines()
    assert len(table) == len(words) + 2
    assert {line.count(" | ") for line in table} == {3}


def test_each_word_of_the_glossary_is_used_by_some_named_run() -> None:
    half = {"precision": "bf16"}
    used, taught = set(), replace(RECIPES["card"], teacher=("0b25b88ff21a",), **half)
    for name, train in [*RECIPES.items(), ("taught", taught)]:
        model = MEMBERS["wide"] if name == "long" else MEMBERS.get(name, MEMBERS["tpsnet"])
        used |= {row["ingredient"] for row in recipe_glossary.in_words(RunConfig(model, train))}
    assert used == {word.name for word in recipe_glossary.WORDS}


# The declared ablation ----------------------------------------------------------------------------------------------

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
    chosen = {**RunConfig(MEMBERS["two_cores"], RECIPES["two_cores"]).to_dict()}
    ingredients = {name for section in ("model", "train") for name in chosen[section]} - NO_INGREDIENTS
    runs = load_experiment("ablation").runs
    whole = runs[0].config.to_dict()
    left = set()
    for run in runs[len({run.config.seed for run in runs}) :]:
        given = run.config.to_dict()
        left |= {name for s in ("model", "train") for name in whole[s] if given[s].get(name) != whole[s][name]}
        left |= {name for s in ("model", "train") for name in given[s] if name not in whole[s]}
    assert ingredients <= left


def test_a_change_of_length_is_another_run() -> None:
    longer = replace(TINY, train=replace(TINY.train, epochs=4)).with_precision("fp32")
    assert longer.id != TINY.with_precision("fp32").id
