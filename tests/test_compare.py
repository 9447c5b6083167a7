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
from tpsnet_lib.study.compare import FAILS, HOLDS, OPEN, PENDING, Claim, Group
from tpsnet_lib.study.experiments import load_experiment
from tpsnet_lib.study.records import Record

PROVENANCE = {"fingerprint": {"stamp": "shapes10"}, "hardware": "a machine"}


def group(label: str, values: Mapping[int, float], model: ModelConfig = MEMBERS["classroom"]) -> Group:
    """A group whose runs reached the given accuracies, by seed."""
    config = RunConfig(model)
    records = tuple(
        Record(Path("nowhere"), config.with_seed(seed), {"validation_accuracy": value}, PROVENANCE, ())
        for seed, value in values.items()
    )
    return Group(label, config, records, len(values))


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


@pytest.mark.parametrize("differences", [[0.05, 0.01, 0.06], [-0.03, 0.02, -0.02], [0.03, -0.02, 0.01]])
def test_fewer_pairs_would_do_if_mean_and_spread_stay(differences: list[float]) -> None:
    part = compare.compare("", differences)
    spread = float(np.std(differences, ddof=1))
    assert part.verdict == OPEN
    assert part.n < part.likely < part.needed
    verdicts = []
    for pairs in (part.likely - 1, part.likely):
        half = compare.width(pairs, spread) / 2
        verdicts.append(compare.verdict_of(part.mean - half, part.mean + half))
    assert verdicts[0] == OPEN
    assert verdicts[1] in (HOLDS, FAILS)
    said = compare.said_of_doubt(Claim("", (part,)))
    assert f"about {part.needed} would settle 1 point, and about {part.likely} would do if what was seen stays" in said


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
    assert "worth" not in compare.said_of_match(blocks, widths[:1])


def test_an_interval_made_elsewhere_is_judged_by_the_same_rule() -> None:
    verdicts = [compare.settle("", 100, each, "trials").verdict for each in ((2, 1, 3), (0, -3, 0.005), (0, -3, 3))]
    assert verdicts == [HOLDS, FAILS, OPEN]
    part = compare.settle("", 100, (0.005, -0.005, 0.015), "trials")
    assert part.needed == pytest.approx(401, abs=1)  # twice as wide as a point: four times the trials
    assert part.seen == pytest.approx(0.0143, abs=1e-4)  # (1.96 + 0.84) standard errors
    doubt = compare.said_of_doubt(Claim("", (part,)))
    assert "100 trials show a true difference of 1.4 points" in doubt
    assert f"about {part.needed} would settle" in doubt
    assert compare.settle("", 100, (0.03, -0.01, 0.07), "trials").likely == 179  # 100 (4 / 3)^2, and one more


def test_a_value_is_among_the_best_only_where_the_range_leaves_something_out() -> None:
    ranges = [compare.contains("rate", 50, found, (0.001, 0.1), 0.01) for found in ((0.005, 0.05), (0.02, 0.1), (0, 1))]
    assert [part.verdict for part in ranges] == [HOLDS, FAILS, OPEN]
    assert "0.005 to 0.05, of 0.001 to 0.1 drawn" in compare.said_of_part(ranges[0])


def test_the_map_holds_the_networks_that_differ_in_depth_and_width_alone() -> None:
    base = group("base", {0: 0.5}, ModelConfig(blocks=(1, 1, 1), channels=(16, 32, 64), stem=8))
    deep = group("deep", {0: 0.6, 1: 0.62}, replace(base.config.model, blocks=(2, 2, 2)))
    narrow = group("narrow", {0: 0.3}, replace(base.config.model, channels=(8, 16, 32), stem=4))
    others = [
        group("plain", {0: 0.5}, replace(base.config.model, residual=False)),
        group("two layers", {0: 0.5}, replace(base.config.model, blocks=(1, 1), channels=(32, 64))),
        group("uneven", {0: 0.5}, replace(base.config.model, blocks=(1, 2, 1))),
        replace(deep, records=(), config=replace(deep.config, model=replace(deep.config.model, blocks=(3, 3, 3)))),
    ]
    points = compare.plane([base, deep, narrow, *others], base)
    assert set(points) == {(1, 8.0), (2, 8.0), (1, 4.0)}
    assert "best is B = 2, w = 8 with 61.0%" in compare.said_of_plane(points, base.parameters)
    same = group("same cost", {0: 0.7}, replace(deep.config.model, channels=(11, 22, 43), stem=5))
    assert "from 50.0% at B = 1 to 70.0% at B = 2: +20.0 points" in compare.said_of_plane(
        compare.plane([base, same], base), base.parameters
    )


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
