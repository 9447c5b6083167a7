"""A verdict follows from its records: it changes when they change, and it says what it cannot settle."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tpsnet_lib.analysis import architecture, design_predictor, original_results
from tpsnet_lib.analysis.architecture import FAILS, HOLDS, OPEN, PENDING, Claim, Group
from tpsnet_lib.config import MEMBERS, DataConfig, ModelConfig, RunConfig
from tpsnet_lib.files import ConfigError
from tpsnet_lib.model_cost import count_macs, widest
from tpsnet_lib.runs.experiments import load_experiment
from tpsnet_lib.runs.records import Record

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
    assert architecture.paired(a, b) == pytest.approx([0.2, 0.1])


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
    assert architecture.compare("a minus b", differences).verdict == verdict


def test_an_interval_is_the_t_interval_of_the_pairs() -> None:
    part = architecture.compare("", [0.01, 0.02, 0.03])
    half = 4.3027 * 0.01 / math.sqrt(3)
    assert (part.mean, part.low, part.high) == pytest.approx((0.02, 0.02 - half, 0.02 + half), abs=1e-5)


def test_a_difference_called_visible_is_seen_four_times_in_five() -> None:
    part = architecture.compare("", [0.01, 0.0, -0.01, 0.005, -0.005])
    spread = np.std([0.01, 0.0, -0.01, 0.005, -0.005], ddof=1)
    draws = np.random.default_rng(0).normal(part.seen, spread, (20_000, 5))
    t = draws.mean(1) / (draws.std(1, ddof=1) / math.sqrt(5))
    assert (t > 2.776).mean() == pytest.approx(0.8, abs=0.03)


def test_the_pairs_called_needed_leave_no_room_for_not_settled() -> None:
    part = architecture.compare("", [0.03, -0.02, 0.01])
    spread = float(np.std([0.03, -0.02, 0.01], ddof=1))
    assert part.verdict == OPEN
    assert part.needed > part.n
    assert architecture.width(part.needed, spread) < architecture.MATTERS <= architecture.width(part.needed - 1, spread)
    assert architecture.compare("", [1.0, -1.0]).needed == architecture.MOST + 1


@pytest.mark.parametrize("differences", [[0.05, 0.01, 0.06], [-0.03, 0.02, -0.02], [0.03, -0.02, 0.01]])
def test_fewer_pairs_would_do_if_mean_and_spread_stay(differences: list[float]) -> None:
    part = architecture.compare("", differences)
    spread = float(np.std(differences, ddof=1))
    assert part.verdict == OPEN
    assert part.n < part.likely < part.needed
    verdicts = []
    for pairs in (part.likely - 1, part.likely):
        half = architecture.width(pairs, spread) / 2
        verdicts.append(architecture.verdict_of(part.mean - half, part.mean + half))
    assert verdicts[0] == OPEN
    assert verdicts[1] in (HOLDS, FAILS)
    said = architecture.said_of_doubt(Claim("", (part,)))
    assert f"about {part.needed} would settle 1 point, and about {part.likely} would do if what was seen stays" in said


@pytest.mark.parametrize("jump", [0.0, 0.03, -0.02])
def test_odd_minus_even_sees_the_jump_and_not_a_smooth_trend(jump: float) -> None:
    accuracy = {b: 0.5 + 0.04 * b - 0.006 * b**2 + (jump if b % 2 else 0) for b in range(1, 6)}
    groups = {b: group(f"B={b}", {0: value, 1: value + 0.01}) for b, value in accuracy.items()}
    assert architecture.odd_minus_even(groups) == pytest.approx([jump, jump], abs=1e-9)
    del groups[1], groups[2]
    assert architecture.odd_minus_even(groups) == []


def test_a_claim_stands_only_if_all_its_parts_do() -> None:
    good, bad = architecture.compare("", [0.02, 0.021]), architecture.compare("", [-0.02, -0.021])
    unsure, missing = architecture.compare("", [0.1, -0.1]), architecture.compare("", [])
    verdicts = [Claim("", parts).verdict for parts in [(good, good), (good, bad), (good, unsure), (good, missing)]]
    assert verdicts == [HOLDS, FAILS, OPEN, PENDING]


def test_a_rehearsal_keeps_the_networks_and_asks_for_less() -> None:
    experiment = load_experiment("effects_plain")
    small = architecture.smaller(experiment, DataConfig("shapes10", 100, 100), 1.0, 20, [0, 1])
    assert [run.config.model for run in small.runs[::2]] == [run.config.model for run in experiment.runs[::3]]
    assert {run.config.seed for run in small.runs} == {0, 1}
    assert {(run.config.train.epochs, run.config.data.dataset) for run in small.runs} == {(1.0, "shapes10")}


def test_a_live_pair_agrees_only_in_sign_and_only_on_the_same_data() -> None:
    recorded = architecture.compare("", [0.02, 0.021, 0.019])
    assert "they agree in sign" in architecture.said_of_live(0.01, recorded, True)
    assert "they disagree in sign" in architecture.said_of_live(-0.01, recorded, True)
    assert "cannot agree" in architecture.said_of_live(0.01, recorded, False)
    assert "no recorded pairs" in architecture.said_of_live(0.01, architecture.compare("", []), True)


def test_table_1_tells_image_noise_from_more() -> None:
    assert "more than the choice" in original_results.said_of_table_1("model1", "tpsnet", 30)
    assert "within what the choice" in original_results.said_of_table_1("model2", "model1", 300)
    assert "no figure" in original_results.said_of_table_1("deep17", "tpsnet", 300)
    mean, low, high = original_results.difference_of_fractions(0.56, 0.48, 100)
    assert (mean, low, high) == pytest.approx((0.08, -0.0576, 0.2134), abs=1e-4)  # worked by hand from Wilson's ends
    assert len(original_results.table_1_rows()) == 8


def test_the_spread_between_seeds_is_pooled() -> None:
    groups = [group("a", {0: 0.5, 1: 0.52}), group("b", {0: 0.6, 1: 0.6}), group("c", {0: 0.7})]
    assert architecture.seeds_spread(groups) == pytest.approx((0.01, 2))
    assert math.isnan(architecture.seeds_spread(groups[2:])[0])


def test_an_inexact_match_is_priced() -> None:
    widths = [
        group(f"w={w}", {0: a}, widest((1, 1, 1), parameters=n)) for w, n, a in ((4, 20_000, 0.4), (8, 80_000, 0.5))
    ]
    blocks = [
        group("B=1", {}, widest((1, 1, 1), parameters=80_000)),
        group("B=2", {}, widest((2, 2, 2), parameters=70_000)),
    ]
    said = architecture.said_of_match(blocks, widths)
    assert "even networks have −" in said
    assert "worth −" in said
    assert "worth" not in architecture.said_of_match(blocks, widths[:1])


def test_an_interval_made_elsewhere_is_judged_by_the_same_rule() -> None:
    verdicts = [
        architecture.settle("", 100, each, "trials").verdict for each in ((2, 1, 3), (0, -3, 0.005), (0, -3, 3))
    ]
    assert verdicts == [HOLDS, FAILS, OPEN]
    part = architecture.settle("", 100, (0.005, -0.005, 0.015), "trials")
    assert part.needed == pytest.approx(401, abs=1)  # twice as wide as a point: four times the trials
    assert part.seen == pytest.approx(0.0143, abs=1e-4)  # (1.96 + 0.84) standard errors
    doubt = architecture.said_of_doubt(Claim("", (part,)))
    assert "100 trials show a true difference of 1.4 points" in doubt
    assert f"about {part.needed} would settle" in doubt
    assert architecture.settle("", 100, (0.03, -0.01, 0.07), "trials").likely == 179  # 100 (4 / 3)^2, and one more


def test_a_value_is_among_the_best_only_where_the_range_leaves_something_out() -> None:
    ranges = [
        architecture.contains("rate", 50, found, (0.001, 0.1), 0.01) for found in ((0.005, 0.05), (0.02, 0.1), (0, 1))
    ]
    assert [part.verdict for part in ranges] == [HOLDS, FAILS, OPEN]
    assert "0.005 to 0.05, of 0.001 to 0.1 drawn" in architecture.said_of_part(ranges[0])


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
    points = architecture.plane([base, deep, narrow, *others], base)
    assert set(points) == {(1, 8.0), (2, 8.0), (1, 4.0)}
    assert "best is B = 2, w = 8 with 61.0%" in architecture.said_of_plane(points, base.parameters)
    same = group("same cost", {0: 0.7}, replace(deep.config.model, channels=(11, 22, 43), stem=5))
    assert "from 50.0% at B = 1 to 70.0% at B = 2: +20.0 points" in architecture.said_of_plane(
        architecture.plane([base, same], base), base.parameters
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
    values = [
        0.3 + 0.1 * design_predictor.features(model)[1] - 0.05 * design_predictor.features(model)[2] for model in models
    ]
    return [
        group(f"network {at}", {0: value, 1: value}, model)
        for at, (model, value) in enumerate(zip(models, values, strict=True))
    ]


def test_the_guess_is_by_the_rule_that_is_least_wrong_about_unseen_networks(recorded: list[Group]) -> None:
    fitted = design_predictor.Surrogate(recorded)
    assert fitted.rule == "a linear fit"
    assert fitted.errors["a linear fit"] == pytest.approx(0, abs=1e-6)
    assert fitted.errors["the mean of all"] > 0.01
    unseen = widest((3, 3, 3), macs=10_000_000)
    expected = 0.3 + 0.1 * design_predictor.features(unseen)[1] - 0.05 * design_predictor.features(unseen)[2]
    assert fitted.predict(unseen).accuracy == pytest.approx(expected)


def test_a_guess_beyond_the_records_is_marked(recorded: list[Group]) -> None:
    fitted = design_predictor.Surrogate(recorded)
    far = design_predictor.said_of_prediction("TPSNet", fitted.predict(MEMBERS["tpsnet"]))
    assert "outside the range" in far
    near = design_predictor.said_of_prediction("mine", fitted.predict(recorded[3].config.model))
    assert "network 3" in near
    assert fitted.predict(recorded[3].config.model).nearest[0] == "network 3"


def test_too_few_networks_are_refused(recorded: list[Group]) -> None:
    with pytest.raises(ConfigError, match="2 networks have records"):
        design_predictor.Surrogate([*recorded[:2], replace(recorded[2], records=())])


def test_a_network_recorded_under_two_labels_counts_once(recorded: list[Group]) -> None:
    assert len(design_predictor.Surrogate([*recorded, replace(recorded[0], label="again")]).groups) == len(recorded)


@pytest.mark.parametrize("name", ["tpsnet", "model1", "classroom"])
def test_a_design_shrinks_to_the_macs_asked_for_and_keeps_its_form(name: str) -> None:
    design = MEMBERS[name]
    small = design_predictor.shrink(design, 4_000_000)
    assert small.blocks == design.blocks
    assert 2_500_000 < count_macs(small) <= 4_000_000
    assert design_predictor.shrink(small, 4_000_000) == small
    with pytest.raises(ConfigError, match="take fewer"):
        design_predictor.shrink(design, 1000)


def test_latency_is_a_positive_median_between_its_quartiles() -> None:
    timing = design_predictor.latency(MEMBERS["classroom"], seconds=0.0)
    assert 0 < timing.low <= timing.median <= timing.high
    assert timing.n == 5


def test_the_outcome_says_whether_the_guess_held() -> None:
    guess = design_predictor.Prediction(0.5, 0.45, 0.55, True, ())
    assert "within the interval" in design_predictor.said_of_outcome(guess, 0.54)
    assert "outside the interval" in design_predictor.said_of_outcome(guess, 0.56)


def test_the_cost_that_follows_latency_best_is_named(recorded: list[Group]) -> None:
    by_depth = [design_predictor.Timing(float(sum(each.config.model.blocks)), 0, 0, 5) for each in recorded]
    by_macs = [design_predictor.Timing(float(each.macs), 0, 0, 5) for each in recorded]
    assert "What tells most about it: depth" in design_predictor.said_of_latency(recorded, by_depth)
    assert "What tells most about it: MACs" in design_predictor.said_of_latency(recorded, by_macs)
    assert "MACs +1.00" in design_predictor.said_of_latency(recorded, by_macs)
    assert "Too few" in design_predictor.said_of_latency(recorded[:2], by_macs[:2])


def test_a_design_over_the_budget_is_refused_with_its_count() -> None:
    assert "4,959,770 parameters** (99.2% of the budget)" in design_predictor.said_of_design(
        "TPSNet", MEMBERS["tpsnet"]
    )
    with pytest.raises(ConfigError, match="over the budget"):
        design_predictor.said_of_design("too wide", widest((1, 1, 1), parameters=9_000_000))


def test_the_spread_is_said_only_where_a_network_has_two_seeds() -> None:
    assert "standard deviation between seeds is 1.4 points" in architecture.said_of_seeds(
        [group("a", {0: 0.5, 1: 0.52})]
    )
    assert architecture.said_of_seeds([group("a", {0: 0.5})]) == ""
