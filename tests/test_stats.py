"""Intervals, comparisons and verdicts beside formulas, tables, simulations and the libraries that they come from."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats
from statsmodels.stats import proportion as proportions
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_ind

from tpsnet_lib import metrics, stats
from tpsnet_lib.stats import DOES_NOT_HOLD, HOLDS, NO_DIFFERENCE, NOT_SETTLED, PENDING, Estimate

NAN, POINT = math.nan, 0.01
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 7: 2.365, 10: 2.228, 29: 2.045, 120: 1.980}  # two-sided, tabulated


def ends(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def normal(value: float, se: float, n: int = 1000) -> Estimate:
    half = 1.959964 * se
    return Estimate(value, value - half, value + half, n)


def coverage(draw: Callable[[np.random.Generator], Estimate], truth: float, times: int = 1500) -> float:
    rng = np.random.default_rng(0)
    drawn = [draw(rng) for _ in range(times)]
    return float(np.mean([each.low <= truth <= each.high for each in drawn]))


# How an estimate is written


def test_an_estimate_is_written_as_percent_points_or_a_plain_number() -> None:
    share = stats.proportion(9484, 10_000)
    assert f"{share:%} ({share.basis})" == "94.84% (94.39 to 95.26) (n = 10,000 images, Wilson interval)"
    assert f"{share:%.1 value}, {share:% interval}" == "94.8%, 94.39 to 95.26"
    gain = Estimate(0.031, 0.004, 0.058, 3)
    assert f"{gain:points}, {gain.basis}" == "+3.1 points (+0.4 to +5.8), n = 3 seeds, t interval"
    assert f"{Estimate(-0.031, -0.058, 0.004, 3):points.2}" == "−3.10 points (−5.80 to +0.40)"
    assert f"{Estimate(-0.0001, -0.01, 0.01, 3):points value}" == "0.0 points"
    assert f"{Estimate(0.007, -0.0002, 0.01, 3):points interval}" == "−0.0 to +1.0", "it has 0 inside"
    assert f"{Estimate(0.007, -0.0, 0.01, 3):points interval}" == "+0.0 to +1.0"
    assert f"{Estimate(0.81234, 0.62, 0.91, 9)}" == "0.81 (0.62 to 0.91)"
    assert f"{Estimate(-0.81234, -0.91, -0.62, 9):.3 value}" == "−0.812"
    with pytest.raises(ValueError, match="percent"):
        f"{share:percent}"


def test_what_has_no_interval_says_so() -> None:
    one = stats.mean([0.9])
    assert f"{one:%}, {one.basis}" == "90.00% (no interval, n = 1), n = 1 seed, no interval"
    assert f"{stats.mean([0.9, 0.9]):%}" == "90.00% (no interval: equal values in a group, n = 2)"
    assert (
        f"{stats.welch_difference([0.9, 0.9], [0.8, 0.7]):.2 interval}" == "no interval: equal values in a group, n = 2"
    )
    assert f"{stats.bootstrap([0.9, 0.8], np.mean):%}" == "85.00% (no interval, n = 2)", "too few to resample"
    assert f"{stats.mean([]):%}" == "no runs"
    assert f"{stats.proportion(0, 0):%}" == "no images"
    assert stats.paired_difference([0.9], [0.8]).basis == "n = 1 pair of seeds, no interval"
    assert f"{stats.rank_correlation([1, 1, 1], [1, 2, 3])}" == "undefined (no interval, n = 3)"
    assert stats.mean([1, 2]).basis == "n = 2 seeds, t interval"


# Fractions


def test_the_wilson_interval_is_the_published_one() -> None:
    for hits, n, low, high in [  # the first of the original's 94.84%; the rest Newcombe 1998, table I, method 3
        (9484, 10_000, 0.9439, 0.9526),
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert ends(stats.proportion(hits, n)) == pytest.approx((hits / n, low, high), abs=5e-5)


def test_the_wilson_interval_stays_within_0_and_1() -> None:
    for n in (1, 7, 10_000):
        for hits in {0, 1, n - 1, n}:
            value, low, high = ends(stats.proportion(hits, n))
            assert 0 <= low <= value <= high <= 1
            mirrored = stats.proportion(n - hits, n)
            assert (1 - high, 1 - low) == pytest.approx((mirrored.low, mirrored.high))
    assert stats.proportion(0, 7).low == 0.0
    assert stats.proportion(7, 7).high == 1.0
    nothing = stats.proportion(0, 0)
    assert math.isnan(nothing.value)
    assert not nothing.has_interval


def test_the_difference_of_fractions_is_newcombes() -> None:
    found = stats.proportion_difference(56, 70, 48, 80)  # Newcombe 1998, table II, example (a), method 10
    assert ends(found) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    (a, low_a, high_a), (b, low_b, high_b) = (ends(stats.proportion(hits, 500)) for hits in (471, 460))
    expected = (a - b, a - b - math.hypot(a - low_a, high_b - b), a - b + math.hypot(high_a - a, b - low_b))
    assert ends(stats.proportion_difference(471, 500, 460, 500)) == pytest.approx(expected)
    assert ends(stats.proportion_difference(10, 10, 0, 10)) == pytest.approx((1.0, 0.6075, 1.0), abs=5e-5)
    assert stats.verdict(stats.proportion_difference(0, 0, 1, 2), POINT) == PENDING
    # the original's 94.24 against 94.02, one run each
    assert stats.verdict(stats.proportion_difference(9424, 10_000, 9402, 10_000), POINT) == NO_DIFFERENCE


def flags(both: int, only_a: int, only_b: int, neither: int = 0) -> tuple[list[bool], list[bool]]:
    none = [False] * neither
    return (
        [True] * (both + only_a) + [False] * only_b + none,
        [True] * both + [False] * only_a + [True] * only_b + none,
    )


def test_mcnemar_is_the_exact_binomial_test_of_the_images_on_which_two_networks_disagree() -> None:
    assert stats.mcnemar(*flags(50, 10, 2)) == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert stats.mcnemar(*flags(50, 2, 10)) == stats.mcnemar(*flags(0, 10, 2))
    assert stats.mcnemar(*flags(3, 0, 5)) == pytest.approx(2 / 32)
    assert stats.mcnemar(*flags(9, 0, 0)) == stats.mcnemar(*flags(9, 4, 4)) == 1.0
    assert stats.mcnemar(*(torch.tensor(side) for side in flags(50, 10, 2))) == stats.mcnemar(*flags(50, 10, 2))
    normal = math.erfc((200 - 1) / math.sqrt(10_000) / math.sqrt(2))  # with the continuity correction
    assert stats.mcnemar(*flags(0, 5100, 4900)) == pytest.approx(normal, rel=1e-3)


def test_the_difference_on_the_same_images_has_agresti_and_mins_interval() -> None:
    found = stats.paired_proportions(*flags(794, 150, 86, 570))  # 1,600 people asked twice: Agresti & Min 2005
    b, c, n = 150.5, 86.5, 1602
    half = 1.959964 * math.sqrt(b + c - (b - c) ** 2 / n) / n
    assert ends(found) == pytest.approx((0.04, (b - c) / n - half, (b - c) / n + half), rel=1e-5)
    assert (found.n, found.method) == (1600, "Agresti-Min")
    agree = stats.paired_proportions(*flags(10, 0, 0))
    assert agree.low < agree.value == 0 < agree.high
    assert stats.verdict(agree, POINT) == NOT_SETTLED
    assert stats.verdict(stats.paired_proportions([], []), POINT) == PENDING


def test_intervals_on_the_same_images_cover_the_truth() -> None:
    def draw(rng: np.random.Generator) -> Estimate:
        only_a, only_b, _ = rng.multinomial(300, [0.04, 0.02, 0.94])
        return stats.paired_proportions(*flags(300 - only_a - only_b, only_a, only_b))

    assert 0.935 < coverage(draw, 0.02) < 0.975


# Seeds


def test_the_interval_of_a_mean_uses_students_t_as_tabulated() -> None:
    for freedom, t in T_95.items():
        values = np.arange(freedom + 1) * 2.0
        half = t * values.std(ddof=1) / math.sqrt(freedom + 1)
        value, low, high = ends(stats.mean(values))
        assert (value, value - low, high - value) == pytest.approx((freedom, half, half), rel=3e-4)
    assert ends(stats.mean([0.94, 0.95, 0.96])) == pytest.approx((0.95, 0.92516, 0.97484), abs=1e-5)


@pytest.mark.parametrize("values", [[0.9], [0.005, 0.005], [0.1 + 0.2, 0.3]])
def test_values_without_a_spread_have_no_interval_and_settle_nothing(values: list[float]) -> None:
    found = stats.mean(values)
    assert found.value == pytest.approx(values[0])
    assert not found.has_interval
    assert stats.verdict(found, POINT) == NOT_SETTLED
    assert stats.p_values(found, POINT) == (1.0, 1.0, 1.0)


def test_a_paired_difference_cancels_what_the_pairs_share() -> None:
    shared = np.array([0.80, 0.90, 0.70])
    found = stats.paired_difference(shared + np.array([0.010, 0.012, 0.014]), shared)
    half = 4.3027 * 0.002 / math.sqrt(3)
    assert ends(found) == pytest.approx((0.012, 0.012 - half, 0.012 + half), rel=1e-4)
    assert found.correlation == pytest.approx(1, abs=1e-3)
    assert found.basis == "n = 3 pairs of seeds, paired t interval, correlation of pairs 1.00"
    # a difference that every pair shows alike has no spread: that is no certainty
    assert not stats.paired_difference([0.905, 0.805], [0.9, 0.8]).has_interval


def test_welchs_interval_is_that_of_its_formula() -> None:
    a, b = np.array([0.91, 0.92, 0.95, 0.93]), np.array([0.90, 0.905, 0.90])
    va, vb = a.var(ddof=1) / 4, b.var(ddof=1) / 3
    freedom = (va + vb) ** 2 / (va**2 / 3 + vb**2 / 2)
    half, middle = scipy_stats.t.ppf(0.975, freedom) * math.sqrt(va + vb), a.mean() - b.mean()
    found = stats.welch_difference(a, b)
    assert ends(found) == pytest.approx((middle, middle - half, middle + half))
    assert found.freedom == pytest.approx(freedom)
    assert found.basis == "n = 3 seeds a side, up to 4, Welch t interval"
    assert not stats.welch_difference(a, [0.9]).has_interval
    assert not stats.welch_difference(a, [0.9, 0.9]).has_interval
    assert stats.verdict(stats.welch_difference(a, []), POINT) == PENDING


def test_a_stratified_contrast_is_made_within_strata_and_no_lucky_stratum_decides_it() -> None:
    a, b = [[0.91, 0.93, 0.92], [0.81, 0.86, 0.82, 0.83, 0.85]], [[0.90, 0.91, 0.89], [0.80, 0.79, 0.84, 0.80, 0.82]]
    strata = list(zip(a, b, strict=True))
    found = stats.contrast(strata, [1, -1])
    apart = [np.mean(x) - np.mean(y) for x, y in strata]
    assert found.value == pytest.approx((3 * apart[0] + 5 * apart[1]) / 8), "equal counts: weights are the counts"
    variance = sum((n / 8) ** 2 * (np.var(x, ddof=1) + np.var(y, ddof=1)) / n for x, y in strata for n in [len(x)])
    assert (found.high - found.value) / scipy_stats.t.ppf(0.975, found.freedom) == pytest.approx(math.sqrt(variance))
    assert (found.n, found.basis) == (8, "n = 8 seeds a group, stratified Welch t interval")
    shifted = [strata[0], [[value - 0.3 for value in group] for group in strata[1]]]
    assert ends(stats.contrast(shifted, [1, -1])) == pytest.approx(ends(found)), "strata may differ"
    steady = [[[0.92 + 1e-6 * n for n in range(3)], [0.90 + 1e-6 * n for n in range(3)]], strata[1]]
    assert stats.contrast(steady, [1, -1]).value == pytest.approx((3 * 0.02 + 5 * apart[1]) / 8)
    assert stats.contrast(strata[:1], [1, -1], "seeds a side") == stats.welch_difference(*strata[0])


def test_a_stratified_interval_misses_no_more_often_than_it_says_though_strata_differ_and_are_small() -> None:
    rng, misses = np.random.default_rng(0), 0
    for _ in range(1000):
        strata = [[rng.normal(level, 0.013, n) for _ in "ab"] for level, n in ((0.54, 3), (0.55, 5))]
        found = stats.contrast(strata, [1, -1])
        misses += not found.low < 0 < found.high
    assert 20 < misses < 70


def test_the_p_value_of_resampled_numbers_is_the_share_of_their_draws_and_not_of_a_normal_curve() -> None:
    rng = np.random.default_rng(0)
    skewed, level = rng.exponential(0.02, 60), np.linspace(-0.001, 0.001, 60)
    found = stats.median_difference(skewed, level)
    assert found.resampled is not None
    share = float((found.resampled >= 0.02).mean())
    assert found.p_below(0.02) == pytest.approx(share, abs=1e-3)
    assert found.minus(0.02).p_below(0) == found.taken_from(0.02).p_above(0) == found.p_below(0.02)
    assert found.p_above(-1) == pytest.approx(1 / (1 + len(found.resampled))), "never less than one draw"
    assert stats.median_difference([0.5] * 9, [0.4] * 9).p_above(0) == 1.0, "without spread there is no certainty"


def test_the_two_furthest_apart_have_tukeys_interval_and_no_certainty_without_spread() -> None:
    groups = [0.90, 0.91, 0.92], [0.88, 0.90, 0.89], [0.95, 0.96, 0.94]
    apart = stats.furthest_apart(groups)
    assert apart.value == pytest.approx(0.06)
    half = scipy_stats.studentized_range.ppf(0.95, 3, 6) * 0.01 / math.sqrt(3)  # the groups' common deviation is 0.01
    assert (apart.high - apart.low) / 2 == pytest.approx(half, rel=1e-3)
    assert (apart.n, apart.freedom) == (3, 6)
    equal = stats.furthest_apart([[0.9, 0.9], [0.9, 0.9]])
    assert not equal.has_interval
    assert stats.verdict(equal, POINT) == NOT_SETTLED
    assert not stats.furthest_apart([[0.9], [0.8, 0.81]]).has_interval
    assert stats.furthest_apart([[], [0.8, 0.81]]).n == 0


def test_a_published_run_is_compared_with_the_noise_of_seeds_and_images_of_both() -> None:
    ours = np.array([0.946, 0.949, 0.952])
    found = stats.published_difference(ours, 10_000, 0.9484, 10_000)
    seeds, images = 0.003**2 * (1 / 3 + 1), (0.949 * 0.051 + 0.9484 * 0.0516) / 10_000
    freedom = 2 * ((seeds + images) / seeds) ** 2
    half = scipy_stats.t.ppf(0.975, freedom) * math.sqrt(seeds + images)
    assert ends(found) == pytest.approx((0.0006, 0.0006 - half, 0.0006 + half))
    assert found.basis == "n = 3 seeds against one run, seed-and-image t interval"
    single = stats.published_difference([0.949], 10_000, 0.9484, 10_000, pooled=(0.002, 6))
    seeds = 2 * 0.002**2
    images = (0.949 * 0.051 + 0.9484 * 0.0516) / 10_000
    half = scipy_stats.t.ppf(0.975, 6 * ((seeds + images) / seeds) ** 2) * math.sqrt(seeds + images)
    assert single.high - single.value == pytest.approx(half)
    assert not stats.published_difference([0.949], 10_000, 0.9484, 10_000).has_interval
    assert stats.verdict(stats.published_difference([], 10_000, 0.9484, 10_000), POINT) == PENDING


def test_a_published_run_cannot_be_compared_by_a_spread_of_nothing() -> None:
    assert not stats.published_difference([0.9, 0.9], 10_000, 0.9, 10_000, pooled=(0.0, 3)).has_interval


def test_the_interval_against_a_published_run_covers_the_truth() -> None:
    def draw(rng: np.random.Generator) -> Estimate:
        image_noise = rng.normal(0, math.sqrt(0.95 * 0.05 / 10_000))  # shared by all of our runs
        ours = 0.95 + image_noise + rng.normal(0, 0.002, 3)
        theirs = rng.binomial(10_000, 0.94 + rng.normal(0, 0.002)) / 10_000
        return stats.published_difference(ours, 10_000, theirs, 10_000)

    assert 0.93 < coverage(draw, 0.01) < 0.99


# Bootstrap and ranks


def test_the_bootstrap_finds_the_spread_of_a_mean_and_repeats() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    half = 1.96 * values.std() / math.sqrt(400)
    found = stats.bootstrap(values, np.mean)
    assert ends(found) == pytest.approx((values.mean(), values.mean() - half, values.mean() + half), abs=0.03)
    assert stats.bootstrap(values, np.mean) == found
    rows = np.column_stack([values, 3 * values])  # rows stay together
    assert stats.bootstrap(rows, lambda drawn: float(np.ptp(drawn[:, 1] / drawn[:, 0])), draws=50).value < 1e-9
    assert not stats.bootstrap([0.5, 0.5, 0.5], np.mean).has_interval
    assert math.isnan(stats.bootstrap([], np.mean).value)
    assert ends(stats.bootstrap([0.5], np.mean))[0] == 0.5


def test_the_difference_of_medians_has_the_spread_of_both_groups() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(1, 1, 3000), rng.normal(0, 1, 4000)
    found = stats.median_difference(a, b)
    half = 1.96 * math.sqrt(math.pi / 2 * (1 / 3000 + 1 / 4000))  # the asymptotic error of a normal sample's median
    assert found.value == np.median(a) - np.median(b)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.2)
    assert found.low < 1 < found.high
    assert stats.verdict(stats.median_difference([], b), POINT) == PENDING
    assert not stats.median_difference([1.0], b).has_interval


def test_a_rank_correlation_is_spearmans_with_an_interval_that_covers() -> None:
    rng = np.random.default_rng(3)
    a = rng.normal(size=200)
    b = a + rng.normal(size=200)
    found = stats.rank_correlation(a, b)
    r = scipy_stats.spearmanr(a, b).statistic
    half = 1.96 * math.sqrt((1 + r**2 / 2) / 197)  # Bonett & Wright 2000, on Fisher's scale
    fisher = (r, math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half))
    assert ends(found) == pytest.approx(fisher, abs=0.03)
    assert math.isnan(stats.rank_correlation([1, 2], [1, 2]).value)
    assert stats.verdict(stats.rank_correlation([1, 1, 1], [1, 2, 3]), 0.1) == NOT_SETTLED


def test_two_rank_correlations_are_compared_on_the_same_trials() -> None:
    rng = np.random.default_rng(4)
    truth = rng.normal(size=150)
    near, far = truth + 0.3 * rng.normal(size=150), truth + 3 * rng.normal(size=150)
    found = stats.rank_correlation_difference(near, far, truth)
    single = [scipy_stats.spearmanr(each, truth).statistic for each in (near, far)]
    assert found.value == pytest.approx(single[0] - single[1])
    assert stats.verdict(found, 0.1) == HOLDS
    same = stats.rank_correlation_difference(near, near, truth)
    assert (same.value, same.has_interval) == (0.0, False)


# Verdicts


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (0.03, 0.004, 0.058, HOLDS),
        (0.03, -0.001, 0.061, NOT_SETTLED),
        (0.004, 0.001, 0.007, NO_DIFFERENCE),  # above 0, and too small to matter
        (-0.001, -0.009, 0.007, NO_DIFFERENCE),
        (-0.004, -0.015, 0.007, DOES_NOT_HOLD),
        (-0.03, -0.05, -0.01, DOES_NOT_HOLD),
        (0.0, -0.02, 0.02, NOT_SETTLED),
        (0.005, NAN, NAN, NOT_SETTLED),
    ],
)
def test_the_verdict_is_what_the_interval_settles(value: float, low: float, high: float, expected: str) -> None:
    estimate = Estimate(value, low, high, 3)
    assert stats.verdict(estimate, POINT) == expected
    assert (min(stats.p_values(estimate, POINT)[:2]) < 0.05) == (expected != NOT_SETTLED)


def test_p_values_are_those_of_the_tests_behind_the_intervals() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(0.002, 0.01, 12), rng.normal(0, 0.01, 9)
    welch, paired = stats.welch_difference(a, b), stats.paired_difference(a[:9], b)
    assert welch.p_above(0) == pytest.approx(scipy_stats.ttest_ind(a, b, equal_var=False, alternative="greater").pvalue)
    assert paired.p_below(0.01) == pytest.approx(scipy_stats.ttest_1samp(a[:9] - b, 0.01, alternative="less").pvalue)
    close = stats.welch_difference(rng.normal(0, 0.01, 60), rng.normal(0, 0.01, 60))
    assert stats.verdict(close, POINT) == NO_DIFFERENCE
    a, b = np.random.default_rng(6).normal(0, 0.01, (2, 60))
    close, theirs = stats.welch_difference(a, b), ttost_ind(a, b, -POINT, POINT, usevar="unequal")[0]
    assert max(stats.p_values(close, POINT)[1:]) == pytest.approx(2 * theirs)
    for hits in (40, 45, 50, 58):  # asymmetric intervals: p is 2.5% where the end is at the bound
        share = stats.proportion(hits, 60)
        assert share.p_above(share.low) == pytest.approx(0.025)
        assert share.p_below(share.high) == pytest.approx(0.025)
        assert share.p_above(0.5) + share.p_below(0.5) == pytest.approx(1)


def test_holms_adjustment_is_as_worked_by_hand() -> None:
    def with_p(p: float, of: float = 0.0) -> Estimate:  # an advantage of 5 points with that two-sided p-value
        return normal(0.05, 0.05 / scipy_stats.norm.isf(p / 2))

    table = {name: (with_p(p), POINT) for name, p in {"a": 0.04, "b": 0.008, "c": 0.009, "d": 0.03}.items()}
    table["equal"] = (normal(0.0, 0.001), POINT)
    found = stats.holm(table)
    alone = {name: stats.p_values(*entry)[0] for name, entry in table.items()}
    assert alone == pytest.approx({"a": 0.04, "b": 0.008, "c": 0.009, "d": 0.03, "equal": 1.0}, abs=1e-6)
    # is it above 0? p times 5, 4, 3, 2, 1 in their order, and never below the one before
    assert {name: each.p for name, each in found.items()} == pytest.approx(
        {"equal": 0.0, "b": 0.04, "c": 0.04, "d": 0.09, "a": 0.09}, abs=1e-6
    )
    assert {name: each.verdict for name, each in found.items()} == {
        "a": NOT_SETTLED, "b": HOLDS, "c": HOLDS, "d": NOT_SETTLED, "equal": NO_DIFFERENCE
    }  # fmt: skip
    assert {name: each.p_is_of for name, each in found.items()} == {
        "a": HOLDS, "b": HOLDS, "c": HOLDS, "d": HOLDS, "equal": NO_DIFFERENCE
    }  # fmt: skip
    assert stats.holm({"a": (normal(-0.05, 0.05), POINT)})["a"] == (
        NOT_SETTLED,
        pytest.approx(0.23, abs=0.01),
        DOES_NOT_HOLD,
    )
    assert all(stats.verdict(*entry) != NOT_SETTLED for entry in table.values())


def test_a_narrower_interval_never_loses_a_verdict() -> None:
    """Its p of "no difference that matters" is larger than that of "does not hold", which it still settles."""
    wide, narrow = Estimate(-0.0047, -0.0105, 0.0012, 5), Estimate(-0.0040, -0.0093, 0.0012, 5)
    others = {str(i): (Estimate(0.0, -0.02, 0.02, 5), POINT) for i in range(10)}
    assert stats.verdict(narrow, POINT) == NO_DIFFERENCE
    assert {stats.holm({"a": (each, POINT), **others})["a"].verdict for each in (wide, narrow)} == {DOES_NOT_HOLD}
    strength = {NOT_SETTLED: 0, HOLDS: 1, DOES_NOT_HOLD: 1, NO_DIFFERENCE: 2}
    for value in (-0.012, -0.004, 0.0, 0.004, 0.012):
        said = [
            stats.holm({"a": (normal(value, half / 1.96), POINT), **others})["a"].verdict
            for half in np.geomspace(0.1, 1e-4, 60)
        ]
        assert [strength[each] for each in said] == sorted(strength[each] for each in said)
        assert len({each for each in said if strength[each] == 1}) <= 1


@pytest.mark.slow
def test_each_question_of_a_table_is_answered_wrongly_as_rarely_as_it_promises() -> None:
    """At the bounds themselves: differences of 0, and of the smallest effect in either direction."""
    rng, truths, smallest = np.random.default_rng(9), [-0.5, -0.5, -0.5, 0.5, 0.5, 0.0], 0.5
    wrong: dict[str, list[bool]] = {HOLDS: [], DOES_NOT_HOLD: [], NO_DIFFERENCE: []}
    for rows in rng.normal(0, 1, (800, 6, 60)):
        table = {str(i): (stats.mean(truths[i] + row), smallest) for i, row in enumerate(rows)}
        said = [each.verdict for each in stats.holm(table).values()]
        wrong[HOLDS].append(HOLDS in said[:3] + said[5:])
        wrong[DOES_NOT_HOLD].append(DOES_NOT_HOLD in said[3:5])
        wrong[NO_DIFFERENCE].append(NO_DIFFERENCE in said[:5])
    rates = {verdict: np.mean(each) for verdict, each in wrong.items()}
    assert max(rates[HOLDS], rates[DOES_NOT_HOLD]) <= 0.025 + 0.01  # two standard errors of 800 tables
    assert 0 < rates[NO_DIFFERENCE] <= 0.05 + 0.01  # which answers two of the questions


def test_adjusted_p_values_are_those_of_statsmodels() -> None:
    p = np.random.default_rng(3).uniform(0, 0.3, 20).round(2)  # with ties
    assert stats.holm_adjusted(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert stats.holm_adjusted([]).tolist() == []


def test_pending_comparisons_count_in_a_table() -> None:
    gain = normal(0.05, 0.05 / 2.1)  # p = 0.036
    assert stats.holm({"a": (gain, POINT)})["a"].verdict == HOLDS
    found = stats.holm({"a": (gain, POINT), "b": (stats.mean([]), POINT)})
    assert (found["a"].verdict, found["b"].verdict) == (NOT_SETTLED, PENDING)
    assert stats.holm({}) == {}


def test_holds_and_equal_are_said_wrongly_as_often_as_their_level() -> None:
    rng = np.random.default_rng(7)

    def rate(said: str, effect: float, smallest: float, n: int) -> float:
        draws = rng.normal(0, 1, (3000, 2, n))
        return float(
            np.mean([stats.verdict(stats.welch_difference(a + effect, b), smallest) == said for a, b in draws])
        )

    assert 0.015 < rate(HOLDS, 0.0, 0.1, 5) < 0.035  # 2.5% a side
    assert 0.015 < rate(NO_DIFFERENCE, 1.5, 1.5, 20) < 0.035
    assert 0.015 < rate(DOES_NOT_HOLD, 0.5, 0.5, 5) < 0.035


def test_a_table_under_no_effect_rarely_says_holds() -> None:
    rng = np.random.default_rng(8)
    tables = [{str(i): (stats.mean(row), 0.01) for i, row in enumerate(rng.normal(0, 1, (5, 4)))} for _ in range(600)]
    wrong = [any(each.verdict == HOLDS for each in stats.holm(table).values()) for table in tables]
    alone = [any(stats.verdict(*each) == HOLDS for each in table.values()) for table in tables]
    assert np.mean(wrong) < 0.05
    assert np.mean(alone) > 0.08


# Power


def test_the_seeds_that_a_difference_needs() -> None:
    assert stats.seeds_needed(0.2, 0.22) == 15
    assert stats.seeds_needed(1, 0.5) == 64  # Cohen 1988, table 2.4.1
    assert stats.seeds_needed(1, 0.1) == 1571
    assert stats.seeds_needed(0.2, 5) == stats.seeds_needed(0, 5) == 2
    draws = np.random.default_rng(9).normal(0, 0.2, (2, 15, 20_000))
    shown = scipy_stats.ttest_ind(draws[0] + 0.22, draws[1]).pvalue < 0.05
    assert shown.mean() == pytest.approx(0.82, abs=0.015)


def test_the_pooled_deviation_weighs_groups_by_their_degrees_of_freedom() -> None:
    assert stats.pooled_sd([[1, 3], [2, 4, 6], [9]]) == (pytest.approx(math.sqrt((2 + 8) / 3)), 3)
    assert math.isnan(stats.pooled_sd([[1], []])[0])


# Calibration


def test_calibration_error_is_the_gap_of_confidence_and_accuracy_over_bins_of_equal_mass() -> None:
    confidence, correct = [0.9, 0.6, 0.8, 0.7], [True, True, True, False]
    assert metrics.expected_calibration_error(confidence, correct, bins=1) == pytest.approx(0)
    low, high = abs((0.6 + 0.7) / 2 - 1 / 2), abs((0.8 + 0.9) / 2 - 1)
    assert metrics.expected_calibration_error(confidence, correct, bins=2) == pytest.approx((low + high) / 2)
    assert metrics.expected_calibration_error(confidence, correct) == pytest.approx((0.4 + 0.7 + 0.2 + 0.1) / 4)
    assert math.isnan(metrics.expected_calibration_error([], []))


def test_the_order_of_equally_sure_images_does_not_change_the_calibration_error() -> None:
    half = np.arange(1000) < 500
    for correct in (half, ~half, half[::-1], np.random.default_rng(0).permutation(half)):
        assert metrics.expected_calibration_error(np.full(1000, 0.5), correct) == pytest.approx(0, abs=1e-12)
    rng = np.random.default_rng(1)
    confidence, correct = rng.integers(1, 9, 500) / 10, rng.random(500) < 0.6
    order = rng.permutation(500)
    one, other = ((confidence, correct), (confidence[order], correct[order]))
    assert metrics.expected_calibration_error(*one) == pytest.approx(metrics.expected_calibration_error(*other))


# What is refused


@pytest.mark.parametrize(
    "call",
    [
        lambda: stats.proportion(11, 10),
        lambda: stats.proportion(-1, 10),
        lambda: stats.proportion(2.5, 10),  # type: ignore[arg-type]
        lambda: stats.proportion(NAN, 10),  # type: ignore[arg-type]
        lambda: stats.mean([0.9, NAN]),
        lambda: stats.mean([0.9, math.inf]),
        lambda: stats.welch_difference([0.9, 0.8], [0.9, NAN]),
        lambda: stats.paired_difference([0.1, 0.2], [0.1]),
        lambda: stats.proportion_difference(1, 2, 3, 2),
        lambda: stats.mcnemar([True], [True, False]),
        lambda: stats.paired_proportions([True], [True, False]),
        lambda: stats.rank_correlation([1, 2, 3], [1, 2, NAN]),
        lambda: stats.rank_correlation([1, 2, 3], [1, 2]),
        lambda: stats.median_difference([1, 2], [NAN, 1]),
        lambda: stats.bootstrap([1, NAN], np.mean),
        lambda: stats.published_difference([0.9, NAN], 10, 0.9, 10),
        lambda: stats.published_difference([0.9, 0.8], 10, NAN, 10),
        lambda: stats.published_difference([0.9, 0.8], 0, 0.9, 10),
        lambda: stats.published_difference([90, 80], 10, 0.9, 10),
        lambda: stats.seeds_needed(0.2, 0),
        lambda: stats.seeds_needed(NAN, 0.1),
        lambda: metrics.expected_calibration_error([0.5, NAN], [True, False]),
        lambda: metrics.expected_calibration_error([0.5], [True, False]),
        lambda: metrics.expected_calibration_error([0.5], [True], bins=0),
        lambda: stats.pooled_sd([[1, NAN]]),
    ],
)
def test_what_cannot_be_meant_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        call()


def test_the_interval_of_independent_fractions_agrees_with_statsmodels_score_interval() -> None:
    score = proportions.confint_proportions_2indep(9400, 10_000, 9300, 10_000, method="score", correction=False)
    found = stats.proportion_difference(9400, 10_000, 9300, 10_000)
    assert (found.low, found.high) == pytest.approx(score, abs=2e-5)


def test_a_pooled_difference_has_the_spread_of_all_rows_and_none_without_one() -> None:
    rows = [[0.70, 0.72, 0.71], [0.60, 0.61, 0.62], [0.5, 0.52, 0.54]]
    sd, freedom = stats.pooled_sd(rows)
    found = stats.pooled_difference(rows[0], rows[1], sd, freedom)
    half = scipy_stats.t.ppf(0.975, 6) * sd * math.sqrt(2 / 3)
    assert (found.value, found.low, found.high) == pytest.approx((0.1, 0.1 - half, 0.1 + half))
    assert (found.n, found.freedom) == (3, 6)
    assert not stats.pooled_difference([0.5], [0.4], math.nan, 0).has_interval
    assert stats.pooled_difference([], [0.4], 0.01, 3).n == 0
