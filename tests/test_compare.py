"""A verdict follows from its records: it changes when they change, and it says what it cannot settle."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tpsnet_lib.config import MEMBERS, DataConfig, ModelConfig, RunConfig
from tpsnet_lib.files import ConfigError
from tpsnet_lib.model import count_macs, widest
from tpsnet_lib.study import compare, original, surrogate
from tpsnet_lib.study.compare import FAILS, HOLDS, OPEN, PENDING, Claim, Group, Key
from tpsnet_lib.study.experiments import load_experiment
from tpsnet_lib.study.records import Record, Store, write_failure

PROVENANCE = {"fingerprint": {"stamp": "shapes10"}, "hardware": "a machine"}


def group(label: str, values: Mapping[int, float], model: ModelConfig = MEMBERS["classroom"]) -> Group:
    """A group whose runs reached the given accuracies, by seed."""
    config = RunConfig(model)
    records = tuple(
        Record(Path("nowhere"), config.with_seed(seed), {"validation_accuracy": value}, PROVENANCE, ())
        for seed, value in values.items()
    )
    return Group(label, config, records, len(values))


def all_groups(accuracy: float = 0.5) -> dict[Key, Group]:
    """Every group that a factor asks for, with two seeds of the same accuracy."""
    keys = {key for levels in compare.FACTORS.values() for key in levels.values()}
    return {key: group(key[1], {0: accuracy, 1: accuracy + 0.001}) for key in keys}


def test_every_level_and_claim_is_declared_by_an_experiment() -> None:
    names = {name for levels in compare.FACTORS.values() for name, _ in levels.values()}
    declared = {(name, run.label) for name in names for run in load_experiment(name).runs}
    assert {key for levels in compare.FACTORS.values() for key in levels.values()} <= declared
    for _, pairs in compare.CLAIMS.values():
        for pair in pairs:
            assert all(level in compare.FACTORS[factor] for factor, level in pair)


def test_levels_at_matched_cost_differ_by_less_than_a_tenth() -> None:
    store = Store()
    for factor, cost in (("layers", "parameters"), ("blocks", "parameters"), ("blocks at matched MACs", "macs")):
        names = {name for name, _ in compare.FACTORS[factor].values()}
        found = compare.gather([load_experiment(name) for name in names], store)
        costs = [getattr(each, cost) for each in compare.levels(found, factor)]
        assert max(costs) < 1.12 * min(costs), factor


def test_pairs_are_of_the_same_seed_and_a_seed_that_one_lacks_is_left_out() -> None:
    a, b = group("a", {0: 0.5, 1: 0.6, 2: 0.9}), group("b", {2: 0.8, 0: 0.3})
    assert compare.paired(a, b) == pytest.approx([0.2, 0.1])


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.021, 0.019, 0.020], HOLDS),
        ([-0.021, -0.019, -0.020], FAILS),
        ([0.001, -0.001, 0.0005], FAILS),  # there is no room for a point
        ([0.05, -0.03, 0.02], OPEN),
        ([0.02], OPEN),
        ([], PENDING),
    ],
)
def test_the_verdict_follows_from_the_interval(differences: list[float], verdict: str) -> None:
    assert compare.compare("a minus b", differences).verdict == verdict


def test_an_interval_is_the_t_interval_of_the_pairs() -> None:
    part = compare.compare("", [0.01, 0.02, 0.03])
    half = 4.3027 * 0.01 / math.sqrt(3)
    assert (part.mean, part.low, part.high) == pytest.approx((0.02, 0.02 - half, 0.02 + half), abs=1e-5)


def test_a_difference_called_visible_is_seen_four_times_in_five() -> None:
    part = compare.compare("", [0.01, 0.0, -0.01, 0.005, -0.005])
    spread = np.std([0.01, 0.0, -0.01, 0.005, -0.005], ddof=1)
    draws = np.random.default_rng(0).normal(part.seen, spread, (20_000, 5))
    t = draws.mean(1) / (draws.std(1, ddof=1) / math.sqrt(5))
    assert (t > 2.776).mean() == pytest.approx(0.8, abs=0.03)


def test_the_pairs_called_needed_leave_no_room_for_not_settled() -> None:
    part = compare.compare("", [0.03, -0.02, 0.01])
    spread = float(np.std([0.03, -0.02, 0.01], ddof=1))
    assert part.verdict == OPEN
    assert part.needed > part.n
    assert compare.width(part.needed, spread) < compare.MATTERS <= compare.width(part.needed - 1, spread)
    assert compare.compare("", [1.0, -1.0]).needed == compare.MOST + 1


@pytest.mark.parametrize("jump", [0.0, 0.03, -0.02])
def test_odd_minus_even_sees_the_jump_and_not_a_smooth_trend(jump: float) -> None:
    accuracy = {b: 0.5 + 0.04 * b - 0.006 * b**2 + (jump if b % 2 else 0) for b in range(1, 6)}
    groups = {b: group(f"B={b}", {0: value, 1: value + 0.01}) for b, value in accuracy.items()}
    assert compare.odd_minus_even(groups) == pytest.approx([jump, jump], abs=1e-9)
    del groups[1], groups[2]
    assert compare.odd_minus_even(groups) == []


def test_a_claim_stands_only_if_all_its_parts_do() -> None:
    good, bad = compare.compare("", [0.02, 0.021]), compare.compare("", [-0.02, -0.021])
    unsure, missing = compare.compare("", [0.1, -0.1]), compare.compare("", [])
    verdicts = [Claim("", parts).verdict for parts in [(good, good), (good, bad), (good, unsure), (good, missing)]]
    assert verdicts == [HOLDS, FAILS, OPEN, PENDING]


@pytest.mark.parametrize("name", [*compare.CLAIMS, "odd", "odd at matched MACs", "growth"])
def test_every_claim_can_be_judged_and_said_also_with_nothing_run(name: str) -> None:
    full, empty = all_groups(), {key: replace(each, records=()) for key, each in all_groups().items()}
    assert compare.judge(full, name).verdict == FAILS  # equal everywhere: no advantage of a point
    assert compare.judge(empty, name).verdict == PENDING
    assert "pending" in compare.said_of_claim(compare.judge(empty, name))
    assert "nan" not in compare.said_of_claim(compare.judge(empty, name))


def test_swapping_two_groups_of_records_turns_the_sentence_round() -> None:
    found = all_groups()
    wide, narrow = ("effects_width", "w=12"), ("effects_width", "w=4")
    found[wide], found[narrow] = group("w=12", {0: 0.6, 1: 0.601}), group("w=4", {0: 0.4, 1: 0.401})
    before = compare.said_of_claim(compare.judge(found, "width"))
    found[wide], found[narrow] = replace(found[narrow], label="w=12"), replace(found[wide], label="w=4")
    after = compare.said_of_claim(compare.judge(found, "width"))
    assert "holds.**" in before
    assert "does not hold.**" in after
    assert "+10.0 points" in before
    assert "−10.0 points" in after


def test_what_is_not_settled_says_what_it_would_take() -> None:
    found = all_groups()
    found["effects_skip_kernels", "K=3"] = group("K=3", {0: 0.53, 1: 0.49})
    said = compare.said_of_claim(compare.judge(found, "skip kernel"))
    assert "not settled" in said
    assert "four times in five" in said
    assert "would settle 1 point" in said


def test_a_gap_names_its_experiment_and_the_command(tmp_path: Path) -> None:
    experiment = load_experiment("effects_width")
    write_failure(tmp_path, experiment.runs[0].config, "the loss is not a number", PROVENANCE)
    found = compare.gather([experiment], Store(tmp_path))
    assert compare.pending(found, "width").startswith("**Pending:** `effects_width` (9 of 9 runs)")
    assert "`tpsnet run effects_width`" in compare.pending(found, "width")
    assert compare.pending(all_groups(), "width") == ""


def test_a_rehearsal_keeps_the_networks_and_asks_for_less() -> None:
    experiment = load_experiment("effects_plain")
    small = compare.smaller(experiment, DataConfig("shapes10", 100, 100), 1.0, 20, [0, 1])
    assert [run.config.model for run in small.runs[::2]] == [run.config.model for run in experiment.runs[::3]]
    assert {run.config.seed for run in small.runs} == {0, 1}
    assert {(run.config.train.epochs, run.config.data.dataset) for run in small.runs} == {(1.0, "shapes10")}


def test_a_live_pair_agrees_only_in_sign_and_only_on_the_same_data() -> None:
    recorded = compare.compare("", [0.02, 0.021, 0.019])
    assert "they agree in sign" in compare.said_of_live(0.01, recorded, True)
    assert "they disagree in sign" in compare.said_of_live(-0.01, recorded, True)
    assert "cannot agree" in compare.said_of_live(0.01, recorded, False)
    assert "no recorded pairs" in compare.said_of_live(0.01, compare.compare("", []), True)


def test_table_1_tells_image_noise_from_more() -> None:
    assert "more than the choice" in original.said_of_table_1("model1", "tpsnet", 30)
    assert "within what the choice" in original.said_of_table_1("model2", "model1", 300)
    assert "no figure" in original.said_of_table_1("deep17", "tpsnet", 300)
    mean, low, high = original.difference_of_fractions(0.56, 0.48, 100)
    assert (mean, low, high) == pytest.approx((0.08, -0.0576, 0.2134), abs=1e-4)  # worked by hand from Wilson's ends
    assert len(original.table_1_rows()) == 8


def test_the_spread_between_seeds_is_pooled() -> None:
    groups = [group("a", {0: 0.5, 1: 0.52}), group("b", {0: 0.6, 1: 0.6}), group("c", {0: 0.7})]
    assert compare.seeds_spread(groups) == pytest.approx((0.01, 2))
    assert math.isnan(compare.seeds_spread(groups[2:])[0])


def test_an_inexact_match_is_priced() -> None:
    found = all_groups()
    widths = [
        group(f"w={w}", {0: a}, widest((1, 1, 1), parameters=n)) for w, n, a in ((4, 20_000, 0.4), (8, 80_000, 0.5))
    ]
    blocks = [
        group("B=1", {}, widest((1, 1, 1), parameters=80_000)),
        group("B=2", {}, widest((2, 2, 2), parameters=70_000)),
    ]
    said = compare.said_of_match(blocks, widths)
    assert "even networks have −" in said
    assert "worth −" in said
    assert "worth" not in compare.said_of_match(blocks, compare.levels(found, "width")[:1])


# The surrogate ------------------------------------------------------------------------------------------------------


@pytest.fixture
def recorded() -> list[Group]:
    """Twelve networks whose accuracy is a plane over log parameters, log MACs and log depth."""
    models = [
        widest((blocks,) * layers, macs=macs)
        for blocks in (1, 2, 4)
        for layers in (2, 3)
        for macs in (3_000_000, 20_000_000)
    ]
    values = [0.3 + 0.1 * surrogate.features(model)[1] - 0.05 * surrogate.features(model)[2] for model in models]
    return [
        group(f"network {at}", {0: value, 1: value}, model)
        for at, (model, value) in enumerate(zip(models, values, strict=True))
    ]


def test_the_guess_is_by_the_rule_that_is_least_wrong_about_unseen_networks(recorded: list[Group]) -> None:
    fitted = surrogate.Surrogate(recorded)
    assert fitted.rule == "a linear fit"
    assert fitted.errors["a linear fit"] == pytest.approx(0, abs=1e-6)
    assert fitted.errors["the mean of all"] > 0.01
    unseen = widest((3, 3, 3), macs=10_000_000)
    expected = 0.3 + 0.1 * surrogate.features(unseen)[1] - 0.05 * surrogate.features(unseen)[2]
    assert fitted.predict(unseen).accuracy == pytest.approx(expected)


def test_a_guess_beyond_the_records_is_marked(recorded: list[Group]) -> None:
    fitted = surrogate.Surrogate(recorded)
    far = surrogate.said_of_prediction("TPSNet", fitted.predict(MEMBERS["tpsnet"]))
    assert "outside the range" in far
    near = surrogate.said_of_prediction("mine", fitted.predict(recorded[3].config.model))
    assert "network 3" in near
    assert fitted.predict(recorded[3].config.model).nearest[0] == "network 3"


def test_too_few_networks_are_refused(recorded: list[Group]) -> None:
    with pytest.raises(ConfigError, match="2 networks have records"):
        surrogate.Surrogate([*recorded[:2], replace(recorded[2], records=())])


def test_a_network_recorded_under_two_labels_counts_once(recorded: list[Group]) -> None:
    assert len(surrogate.Surrogate([*recorded, replace(recorded[0], label="again")]).groups) == len(recorded)


@pytest.mark.parametrize("name", ["tpsnet", "model1", "classroom"])
def test_a_design_shrinks_to_the_macs_asked_for_and_keeps_its_form(name: str) -> None:
    design = MEMBERS[name]
    small = surrogate.shrink(design, 4_000_000)
    assert small.blocks == design.blocks
    assert 2_500_000 < count_macs(small) <= 4_000_000
    assert surrogate.shrink(small, 4_000_000) == small
    with pytest.raises(ConfigError, match="take fewer"):
        surrogate.shrink(design, 1000)


def test_latency_is_a_positive_median_between_its_quartiles() -> None:
    timing = surrogate.latency(MEMBERS["classroom"], seconds=0.0)
    assert 0 < timing.low <= timing.median <= timing.high
    assert timing.n == 5


def test_the_outcome_says_whether_the_guess_held() -> None:
    guess = surrogate.Prediction(0.5, 0.45, 0.55, True, ())
    assert "within the interval" in surrogate.said_of_outcome(guess, 0.54)
    assert "outside the interval" in surrogate.said_of_outcome(guess, 0.56)


def test_the_cost_that_follows_latency_best_is_named(recorded: list[Group]) -> None:
    by_depth = [surrogate.Timing(float(sum(each.config.model.blocks)), 0, 0, 5) for each in recorded]
    by_macs = [surrogate.Timing(float(each.macs), 0, 0, 5) for each in recorded]
    assert "What tells most about it: depth" in surrogate.said_of_latency(recorded, by_depth)
    assert "What tells most about it: MACs" in surrogate.said_of_latency(recorded, by_macs)
    assert "MACs +1.00" in surrogate.said_of_latency(recorded, by_macs)
    assert "Too few" in surrogate.said_of_latency(recorded[:2], by_macs[:2])


def test_a_design_over_the_budget_is_refused_with_its_count() -> None:
    assert "4,959,770 parameters** (99.2% of the budget)" in surrogate.said_of_design("TPSNet", MEMBERS["tpsnet"])
    with pytest.raises(ConfigError, match="over the budget"):
        surrogate.said_of_design("too wide", widest((1, 1, 1), parameters=9_000_000))


def test_the_spread_is_said_only_where_a_network_has_two_seeds() -> None:
    assert "standard deviation between seeds is 1.4 points" in compare.said_of_seeds([group("a", {0: 0.5, 1: 0.52})])
    assert compare.said_of_seeds([group("a", {0: 0.5})]) == ""
