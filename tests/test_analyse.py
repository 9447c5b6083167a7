"""What a search is said to show follows from its trials: against formulas, hand-worked cases, and swapped numbers."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny

from tpsnet_lib.config import MEMBERS, RunConfig
from tpsnet_lib.model import count_parameters
from tpsnet_lib.study import analyse
from tpsnet_lib.study import search_findings as say
from tpsnet_lib.study.analyse import Trial
from tpsnet_lib.study.experiments import Run
from tpsnet_lib.study.importance import Importance, importance
from tpsnet_lib.study.records import Record, Store
from tpsnet_lib.study.search import load_spaces


def record(config: RunConfig, accuracy: float = 0.5, failed: str = "", epochs: int = 3) -> Record:
    """A record in memory, whose accuracy rises evenly to its last epoch."""
    metrics: dict[str, Any] = {"failed": failed} if failed else {"validation_accuracy": accuracy}
    curve = [{"epoch": float(e), "validation_accuracy": accuracy * e / epochs} for e in range(1, epochs + 1)]
    return Record(Path("nowhere"), config, metrics, {}, () if failed else tuple(curve))


def trials(scores: list[float], **changes: list[Any]) -> list[Trial]:
    """Trials with given accuracies; `changes` hold one value a trial."""
    pairs = []
    for index, score in enumerate(scores):
        config = tiny(**{name: values[index] for name, values in changes.items()})
        pairs.append((Run(f"draw {index}", config, {}), record(config, score)))
    return analyse.trials(pairs)


def test_runs_without_a_record_are_left_out_and_failed_ones_count_as_a_guess() -> None:
    run = Run("draw 0", tiny(), {})
    found = analyse.trials(
        [(run, None), (run, record(tiny(), failed="the loss is not a number")), (run, record(tiny()))]
    )
    assert [trial.accuracy for trial in found] == [0.1, 0.5]
    assert "1 failed" in say.say_trials(found, 3)
    assert "2 of 3 declared" in say.say_trials(found, 3)


def test_the_same_draw_is_found_at_another_budget_data_set_and_precision() -> None:
    short = trials([0.3, 0.4], train__lr=[0.01, 0.02])
    long = trials([0.8, 0.7], train__lr=[0.02, 0.01], train__epochs=[9, 9], train__precision=["bf16", "bf16"])
    pairs = analyse.same_draws(short, long)
    assert [(a.accuracy, b.accuracy) for a, b in pairs] == [(0.3, 0.7), (0.4, 0.8)]
    assert analyse.same_draws(short, trials([0.5], train__lr=[0.5])) == []


def test_a_long_run_cut_short_gives_its_accuracy_at_that_epoch() -> None:
    trial = trials([0.6])[0]
    assert analyse.accuracy_at(trial, 1) == pytest.approx(0.2)
    assert math.isnan(analyse.accuracy_at(trial, 1.5))


def test_only_variables_that_vary_are_asked_about() -> None:
    found = trials([0.1, 0.2], train__lr=[0.01, 0.02], train__optimizer=["sgd", "adam"])
    assert analyse.varied(found) == ["optimizer", "lr"]


def test_what_fits_the_budget_is_what_counts_below_it() -> None:
    fits = analyse.under_budget(load_spaces()["original_blocks_width"], range(1, 24), range(8, 49))
    for name in ("model1", "model2", "tpsnet", "deep17", "deep23"):
        member = MEMBERS[name]
        row = fits[member.blocks[0] - 1]
        assert 8 + row.sum() - 1 == member.stem, "the original's models are the widest of their depth"
        assert count_parameters(member) <= 5_000_000
        assert all(np.diff(row.astype(int)) <= 0), "what is wider is larger"


def test_the_best_of_n_is_the_mean_over_all_choices_of_n() -> None:
    values = [0.1, 0.5, 0.3, 0.9, 0.4]
    expected, low, high, exceeded = analyse.best_of_n(values, repeats=200)
    for n in range(1, 6):
        every = [max(chosen) for chosen in combinations(values, n)]
        assert expected[n - 1] == pytest.approx(np.mean(every))
        assert exceeded[n - 1] == pytest.approx(np.quantile(every, 0.05, method="inverted_cdf"))
    assert all(np.diff(expected) >= 0)
    assert all(low <= high)


def test_sixty_of_many_trials_hit_the_top_twentieth_with_ninety_five_percent() -> None:
    n = 60
    missed = analyse.first_best(2000)[n - 1, 1899]  # the best of 60 is among the worst 95%
    assert 1 - missed == pytest.approx(1 - 0.95**60, abs=0.003)


def test_an_error_distribution_counts_the_trials_below_within_its_band() -> None:
    share, low, high = analyse.distribution([0.2, 0.4, 0.4, 0.8], np.array([0.1, 0.4, 1.0]))
    assert share.tolist() == [0, 0.75, 1]
    assert low[1] < 0.75 <= high[1]
    assert (low[0], high[0], low[2], high[2]) == (0, 0, 1, 1), "where no resample differs the band has no width"


def test_medians_that_differ_clearly_have_an_interval_on_one_side() -> None:
    draw = np.random.default_rng(0)
    a, b = draw.normal(0.5, 0.02, 60), draw.normal(0.4, 0.02, 40)
    difference, low, high = analyse.median_difference(a, b)
    assert 0.07 < low < difference < high < 0.13
    assert analyse.median_difference(b, a)[2] < 0


def test_good_values_are_found_where_they_are_and_everywhere_if_they_do_not_matter() -> None:
    x = np.linspace(0, 1, 100)
    middle, low, high = analyse.good_range(x, -((x - 0.3) ** 2))
    assert low < 0.3 < high
    assert high - low < 0.2
    assert middle == pytest.approx(0.3, abs=0.05)
    _, low, high = analyse.good_range(x, np.random.default_rng(1).random(100))
    assert high - low > 0.5


def test_ranks_share_ties_and_rank_correlation_agrees_with_the_formula() -> None:
    assert analyse.ranks(np.array([3.0, 1.0, 3.0, 7.0])).tolist() == [2.5, 1, 2.5, 4]
    a, b = [1, 2, 3, 4, 5], [2, 1, 4, 3, 5]
    rho, low, high = analyse.rank_correlation(a, b)
    assert rho == pytest.approx(1 - 6 * 4 / (5 * 24))  # 1 - 6 sum d^2 / (n (n^2 - 1))
    assert low <= rho <= high
    assert analyse.rank_correlation(a, np.exp(a))[0] == pytest.approx(1), "only the order counts"
    assert math.isnan(analyse.rank_correlation([1, 2], [1, 2])[0])
    assert math.isnan(analyse.rank_correlation([1, 1, 1], [1, 2, 3])[0])


def test_pairs_in_the_same_order_are_counted_and_ties_are_not() -> None:
    assert analyse.ordered_alike([1, 2, 3], [1, 3, 2]) == (2, 3)
    assert analyse.ordered_alike([1, 1], [1, 2]) == (0, 1)


def test_choosing_by_the_score_that_counts_costs_nothing_and_by_another_it_does() -> None:
    draw = np.random.default_rng(0)
    truth = draw.normal(0.6, 0.05, 40)
    noisy = truth + draw.normal(0, 0.05, 40)
    assert analyse.regret(truth, truth, [1, 5], repeats=20)[0].tolist() == [0, 0]
    mean, low, high = analyse.regret(noisy, truth, [10], repeats=60)[:, 0]
    assert 0 < low < high
    assert 0 < mean < 0.1


def test_a_winner_falls_back_when_it_is_measured_again_and_one_chosen_beforehand_does_not() -> None:
    draw = np.random.default_rng(0)
    first, second = (0.6 + draw.normal(0, 0.02, 400) for _ in range(2))
    gap = analyse.surprise(first, second, [1, 20], repeats=40)[0]
    assert abs(gap[0]) < 0.004
    assert 0.025 < gap[1] < 0.05  # the best of 20 normal scores lies 1.87 deviations up


def test_the_curse_grows_with_the_choice_and_shrinks_with_the_images() -> None:
    truth = [0.8] * 40
    small = analyse.optimism(truth, 500, [1, 10, 40])
    large = analyse.optimism(truth, 5000, [1, 10, 40])
    deviation = math.sqrt(0.8 * 0.2 / 500)
    assert abs(small[0]) < 0.002
    assert small[0] < small[1] < small[2]
    assert small[2] == pytest.approx(2.16 * deviation, rel=0.1)  # the expected best of 40 normal draws
    assert large[2] == pytest.approx(small[2] / math.sqrt(10), rel=0.1)


def test_a_forest_finds_the_variable_that_decides_and_puts_noise_near_zero() -> None:
    draw = np.random.default_rng(0)
    rates, drops = 10 ** draw.uniform(-4, -1, 50), draw.uniform(0, 0.5, 50)
    found = trials(
        [0.6 - 0.1 * abs(math.log10(r) + 2) for r in rates], train__lr=list(rates), model__dropout=list(drops)
    )
    ordered, quality = importance(found, resamples=3)
    assert ordered[0].variable == "lr"
    assert {each.variable for each in ordered} == {"lr", "dropout", "(noise)"}
    assert ordered[0].points[1] > 3 * max(abs(each.points[0]) for each in ordered[1:])
    assert quality[0] > 0.5
    assert importance(found[:4]) == ([], pytest.approx((math.nan,) * 3, nan_ok=True))


def test_a_diverging_run_is_recorded_as_failed_and_the_next_goes_on(tmp_path: Path) -> None:
    wild = Run("wild", tiny(train__lr=100, train__weight_decay=1, train__epochs=8), {})
    calm = Run("calm", tiny(train__epochs=1), {})
    store = Store(tmp_path / "with space")
    pairs = analyse.run_here([wild, calm], store=store, progress="none")
    found = analyse.trials(pairs)
    assert "not a number" in pairs[0][1].failed
    assert [trial.label for trial in found] == ["wild", "calm"]
    assert found[0].accuracy == analyse.CHANCE
    again = analyse.run_here([wild, calm], store=store, progress="none")
    assert [record.id for _, record in again] == [record.id for _, record in pairs], "nothing is run twice"


def test_findings_turn_when_their_numbers_do() -> None:
    better, worse = (-0.05, -0.08, -0.02), (0.05, 0.02, 0.08)
    assert "**SGD is better**" in say.say_choice("Optimizer", "SGD", "Adam", better, (9, 9))
    assert "**Adam is better**" in say.say_choice("Optimizer", "SGD", "Adam", worse, (9, 9))
    assert "do not tell" in say.say_choice("Optimizer", "SGD", "Adam", (0.01, -0.02, 0.04), (9, 9))
    high, low = (0.9, 0.85, 0.95), (0.5, 0.3, 0.7)
    assert "the matched one is ahead by more" in say.say_ranking(high, low, 40, 4, 12)
    assert "the unmatched one is ahead by more" in say.say_ranking(low, high, 40, 4, 12)
    assert "too few" in say.say_ranking(high, low, 2, 4, 12)
    assert "turns the order round" in say.say_annealing(["a", "b"], [0.5, 0.3], [0.2, 0.4], 5000)
    kept = say.say_annealing(["a", "b"], [0.5, 0.3], [0.4, 0.2], 5000)
    assert "keeps the order" in kept
    assert "cannot tell" not in kept
    assert "cannot tell" in say.say_annealing(["a", "b"], [0.50, 0.49], [0.4, 0.2], 1000)
    assert "agree on the best" in say.say_live([0.1, 0.2], [0.3, 0.4], (1, 1))
    assert "name another best" in say.say_live([0.2, 0.1], [0.3, 0.4], (0, 1))
    assert "it falls back" in say.say_surprise([1, 10], (0.02, 0.01, 0.03), 40)
    assert "not settled" in say.say_surprise([1, 10], (0.02, -0.01, 0.03), 40)
    assert "nothing is ruled out" in say.say_range("lr", (0.01, 0.001, 0.1), (0.001, 0.1))
    assert "nothing is ruled out" not in say.say_range("lr", (0.01, 0.005, 0.02), (0.001, 0.1))


def test_a_variable_counts_only_above_the_column_of_noise() -> None:
    noise = Importance("(noise)", (0.1, -0.1, 0.4))
    quality = (0.5, 0.3, 0.7)
    assert "**learning rate**" in say.say_importance([Importance("lr", (2.0, 1.0, 3.0)), noise], quality, 50)
    assert "no variable" in say.say_importance([Importance("lr", (2.0, 0.2, 3.0)), noise], quality, 50)
    assert "do not trust" in say.say_importance([noise], (0.1, -0.2, 0.3), 50)
