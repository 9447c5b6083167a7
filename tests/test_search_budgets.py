"""What draws that were measured twice say of each other: formulas, every search there is, swapped records."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from tpsnet_lib.analysis import search_budgets
from tpsnet_lib.analysis import search_findings as say


def test_rank_correlation_agrees_with_the_formula_and_ties_share_their_rank() -> None:
    a, b = [1, 2, 3, 4, 5], [2, 1, 4, 3, 5]
    rho, low, high = search_budgets.rank_correlation(a, b)
    assert rho == pytest.approx(1 - 6 * 4 / (5 * 24))  # 1 - 6 sum d^2 / (n (n^2 - 1))
    assert low <= rho <= high
    assert search_budgets.rank_correlation(a, np.exp(a))[0] == pytest.approx(1), "only the order counts"
    tied = search_budgets.rank_correlation([3, 1, 3, 7], [2.5, 1, 2.5, 4])[0]
    assert tied == pytest.approx(1), "equal values have the mean of their ranks"
    assert math.isnan(search_budgets.rank_correlation([1, 2], [1, 2])[0])
    assert math.isnan(search_budgets.rank_correlation([1, 1, 1], [1, 2, 3])[0])


def test_a_difference_of_rank_correlations_is_judged_on_the_draws_that_they_share() -> None:
    draw = np.random.default_rng(0)
    truth = draw.normal(0, 1, 40)
    good = truth + draw.normal(0, 0.3, 40)
    less = good + draw.normal(0, 0.8, 40)
    gain, low, high = search_budgets.ranks_better(good, less, truth)
    assert gain == pytest.approx(
        search_budgets.rank_correlation(good, truth)[0] - search_budgets.rank_correlation(less, truth)[0]
    )
    assert 0 < low < gain < high
    assert search_budgets.ranks_better(less, good, truth) == pytest.approx((-gain, -high, -low))
    assert search_budgets.ranks_better(good, good, truth) == (0, 0, 0), "the draws are shared, not drawn twice"
    assert math.isnan(search_budgets.ranks_better([1, 2], [1, 2], [1, 2])[0])


def test_pairs_in_the_same_order_are_counted_and_ties_are_not() -> None:
    assert search_budgets.ordered_alike([1, 2, 3], [1, 3, 2]) == (2, 3)
    assert search_budgets.ordered_alike([1, 1], [1, 2]) == (0, 1)


def test_choosing_by_the_score_that_counts_costs_nothing_and_by_another_it_does() -> None:
    draw = np.random.default_rng(0)
    truth = draw.normal(0.6, 0.05, 40)
    noisy = truth + draw.normal(0, 0.05, 40)
    assert search_budgets.regret(truth, truth, [1, 5], repeats=20)[0].tolist() == [0, 0]
    mean, low, high = search_budgets.regret(noisy, truth, [10], repeats=60)[:, 0]
    assert 0 < low < high
    assert 0 < mean < 0.1


def test_a_winner_falls_back_when_it_is_measured_again_and_one_chosen_beforehand_does_not() -> None:
    draw = np.random.default_rng(0)
    first, second = (0.6 + draw.normal(0, 0.02, 400) for _ in range(2))
    gap = search_budgets.surprise(first, second, [1, 20], repeats=40)[0]
    assert abs(gap[0]) < 0.004
    assert 0.025 < gap[1] < 0.05  # the best of 20 normal scores lies 1.87 deviations up


def test_a_second_seed_that_is_worse_for_all_is_no_curse() -> None:
    draw = np.random.default_rng(0)
    first = 0.6 + draw.normal(0, 0.02, 400)
    second = 0.57 + draw.normal(0, 0.02, 400)
    gap, beyond = (search_budgets.surprise(first, second, [1, 20], repeats=40, beyond=each) for each in (False, True))
    assert gap[0, 0] == pytest.approx(0.03, abs=0.004)
    assert beyond[0, 0] == pytest.approx(0, abs=0.002)
    assert beyond[0, 1] == pytest.approx(gap[0, 1] - gap[0, 0], abs=0.004)
    level = search_budgets.surprise(first, first - 0.03, [1, 20], repeats=40, beyond=True)
    assert np.abs(level).max() < 1e-9, "the same fall for everyone"


def test_the_curse_grows_with_the_choice_and_shrinks_with_the_images() -> None:
    truth = [0.8] * 40
    small = search_budgets.optimism(truth, 500, [1, 10, 40])
    large = search_budgets.optimism(truth, 5000, [1, 10, 40])
    deviation = math.sqrt(0.8 * 0.2 / 500)
    assert abs(small[0]) < 0.002
    assert small[0] < small[1] < small[2]
    assert small[2] == pytest.approx(2.16 * deviation, rel=0.1)  # the expected best of 40 normal draws
    assert large[2] == pytest.approx(small[2] / math.sqrt(10), rel=0.1)


def test_halving_wins_where_short_trials_rank_well_and_loses_where_they_do_not() -> None:
    draw = np.random.default_rng(0)
    long = draw.normal(0.6, 0.05, 36)
    true, false = search_budgets.contest(long - 0.1, long, (4, 12)), search_budgets.contest(-long, long, (4, 12))
    assert true is not None
    assert false is not None
    assert true.rate == 3
    assert true.draws(0) == (2, 3, 1)
    assert true.epochs[:2].tolist() == [24, 48], "two long trials cost as much as three short and one long"
    assert (true.halving_gain[0, :-2] > 0).all(), "the best of 3 is better than the best of 2"
    assert (false.halving_gain[0] < 0).all(), "promoting the worst is worse than anything"
    assert "**halving is the better" in say.say_contest(true, 36, (4, 12))
    assert "**random search is the better" in say.say_contest(false, 36, (4, 12))
    assert (true.asha_gain[0, :-2] > 0).all()
    assert (true.asha[0] <= true.halving[0] + 1e-9).all(), "who does not wait promotes some that others would not"
    assert say.say_contest(true, 36, (4, 12)).endswith("a gain.")
    assert say.say_contest(false, 36, (4, 12)).endswith("a loss.")


def test_what_halving_is_expected_to_reach_is_the_mean_over_all_searches() -> None:
    short, long = [1, 5, 3, 2, 9, 4, 8, 6, 7], [0.5, 0.3, 0.8, 0.1, 0.4, 0.9, 0.6, 0.2, 0.7]
    found = search_budgets.contest(short, long, (1, 3))
    assert found is not None
    for index in range(2):
        plain, first, promoted = found.draws(index)
        halved = [
            max(long[i] for i in sorted(tried, key=short.__getitem__)[-promoted:])
            for tried in combinations(range(9), first)
        ]
        every = [max(long[i] for i in tried) for tried in combinations(range(9), plain)]
        assert found.halving[0, index] == pytest.approx(np.mean(halved), abs=0.01)
        assert found.random[0, index] == pytest.approx(np.mean(every), abs=0.01)
    best = sorted(range(9), key=short.__getitem__)[-3:]
    assert found.halving[0, 2] == pytest.approx(max(long[i] for i in best)), "all are drawn"


def asha(short: list[float], long: list[float], rate: int, limit: float) -> float:
    """ASHA with one worker, told step by step: its best long accuracy once it has spent `limit` long trials."""
    spent, promoted = 0.0, set[int]()
    best = -math.inf
    for n in range(1, len(short) + 1):
        spent += 1 / rate
        top = sorted(range(n), key=lambda index: -short[index])[: n // rate]
        new = [index for index in top if index not in promoted]
        spent += len(new)
        promoted |= set(new)
        if spent > limit + 1e-9:
            break
        best = max((long[index] for index in promoted), default=-math.inf)
    return best


def test_asha_promotes_what_is_among_the_best_so_far_and_stops_where_the_epochs_end() -> None:
    draw = np.random.default_rng(0)
    short, long = draw.random((50, 12)), draw.random((50, 12))
    limits = [2.0, 4.0, 6.0, 8.0]
    found = search_budgets._asha(short, long, 3, limits)
    told = [[asha(a.tolist(), b.tolist(), 3, limit) for limit in limits] for a, b in zip(short, long, strict=True)]
    assert found.tolist() == told
    assert np.isfinite(found).all(), "three short trials and a long one are within the first limit"


def test_too_few_pairs_or_budgets_too_close_are_said_and_not_judged() -> None:
    assert search_budgets.contest([0.1] * 8, [0.2] * 8, (4, 12)) is None
    assert search_budgets.contest([0.1] * 20, [0.2] * 20, (4, 5)) is None
    assert search_budgets.contest([], [], (0, 0)) is None
    assert "8 draws have a record at both" in say.say_contest(None, 8, (4, 12))


def test_two_swapped_records_change_what_is_said_of_halving() -> None:
    long = [0.50, 0.52, 0.54, 0.56, 0.58, 0.60, 0.62, 0.64, 0.90]
    told = []
    for short in (long, [long[-1], *long[1:-1], long[0]]):  # the best and the worst of the short trials change places
        found = search_budgets.contest(short, long, (4, 12))
        told.append(say.say_contest(found, 9, (4, 12)))
    assert "+" in told[0].partition("random is ")[2][:1]
    assert "-" in told[1].partition("random is ")[2][:1]
