"""What a search is said to show follows from its trials: against formulas, hand-worked cases, and swapped numbers."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny

from tpsnet_lib.analysis import search
from tpsnet_lib.analysis import search_findings as say
from tpsnet_lib.analysis.importance import NOISE, TREES, Importance, importance
from tpsnet_lib.analysis.search import Trial
from tpsnet_lib.config import MEMBERS, RunConfig
from tpsnet_lib.files import ConfigError
from tpsnet_lib.model_cost import count_parameters
from tpsnet_lib.runs.experiments import Run
from tpsnet_lib.runs.records import Record, Store
from tpsnet_lib.runs.search_space import load_spaces


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
    return search.trials(pairs)


def test_runs_without_a_record_are_left_out_and_failed_ones_count_as_a_guess() -> None:
    run = Run("draw 0", tiny(), {})
    found = search.trials(
        [(run, None), (run, record(tiny(), failed="the loss is not a number")), (run, record(tiny()))]
    )
    assert [trial.accuracy for trial in found] == [0.1, 0.5]
    assert "1 failed" in say.say_trials(found, 3)
    assert "2 of 3 declared" in say.say_trials(found, 3)


def test_the_same_draw_is_found_at_another_budget_data_set_and_precision() -> None:
    short = trials([0.3, 0.4], train__lr=[0.01, 0.02])
    length = {"train__epochs": [9, 9], "train__warmup_epochs": [1, 1], "train__precision": ["bf16", "bf16"]}
    long = trials([0.8, 0.7], train__lr=[0.02, 0.01], **length)
    pairs = search.same_draws(short, long)
    assert [(a.accuracy, b.accuracy) for a, b in pairs] == [(0.3, 0.7), (0.4, 0.8)]
    assert search.same_draws(short, trials([0.5], train__lr=[0.5])) == []


def test_a_long_run_cut_short_gives_its_accuracy_at_that_epoch() -> None:
    trial = trials([0.6])[0]
    assert search.accuracy_at(trial, 1) == pytest.approx(0.2)
    assert math.isnan(search.accuracy_at(trial, 1.5))


def test_only_variables_that_vary_are_asked_about() -> None:
    found = trials([0.1, 0.2], train__lr=[0.01, 0.02], train__optimizer=["sgd", "adam"])
    assert search.varied(found) == ["optimizer", "lr"]


def test_groups_part_at_the_median_and_each_trial_is_in_one_of_two() -> None:
    found = trials([0.1, 0.2, 0.3, 0.4], model__block_dropout=[0.0, 0.1, 0.2, 0.3])
    for groups in search.questions(found).values():
        assert (sum(picked.astype(int) for picked in groups.values()) == 1).all()
    assert {"at most 0.15", "above 0.15"} == set(search.questions(found)["block_dropout"])


def test_what_fits_the_budget_is_what_counts_below_it() -> None:
    fits = search.under_budget(load_spaces()["original_blocks_width"], range(1, 24), range(8, 49))
    for name in ("model1", "model2", "tpsnet", "deep17", "deep23"):
        member = MEMBERS[name]
        row = fits[member.blocks[0] - 1]
        assert 8 + row.sum() - 1 == member.stem, "the original's models are the widest of their depth"
        assert count_parameters(member) <= 5_000_000
        assert all(np.diff(row.astype(int)) <= 0), "what is wider is larger"


def test_the_best_of_n_is_the_mean_over_all_choices_of_n() -> None:
    values = [0.1, 0.5, 0.3, 0.9, 0.4]
    expected, low, high, exceeded = search.best_of_n(values, repeats=200)
    for n in range(1, 6):
        every = [max(chosen) for chosen in combinations(values, n)]
        assert expected[n - 1] == pytest.approx(np.mean(every))
        assert exceeded[n - 1] == pytest.approx(np.quantile(every, 0.05, method="inverted_cdf"))
    assert all(np.diff(expected) >= 0)
    assert all(low <= high)


def test_sixty_of_many_trials_hit_the_top_twentieth_with_ninety_five_percent() -> None:
    n = 60
    missed = search.first_best(2000)[n - 1, 1899]  # the best of 60 is among the worst 95%
    assert 1 - missed == pytest.approx(1 - 0.95**60, abs=0.003)


def test_an_error_distribution_counts_the_trials_below_within_its_band() -> None:
    share, low, high = search.distribution([0.2, 0.4, 0.4, 0.8], np.array([0.1, 0.4, 1.0]))
    assert share.tolist() == [0, 0.75, 1]
    assert low[1] < 0.75 <= high[1]
    assert (low[0], high[0], low[2], high[2]) == (0, 0, 1, 1), "where no resample differs the band has no width"


def test_medians_that_differ_clearly_have_an_interval_on_one_side() -> None:
    draw = np.random.default_rng(0)
    a, b = draw.normal(0.5, 0.02, 60), draw.normal(0.4, 0.02, 40)
    difference, low, high = search.median_difference(a, b)
    assert 0.07 < low < difference < high < 0.13
    assert search.median_difference(b, a)[2] < 0


def test_good_values_are_found_where_they_are_and_everywhere_if_they_do_not_matter() -> None:
    x = np.linspace(0, 1, 100)
    middle, low, high = search.good_range(x, -((x - 0.3) ** 2))
    assert low < 0.3 < high
    assert high - low < 0.2
    assert middle == pytest.approx(0.3, abs=0.05)
    _, low, high = search.good_range(x, np.random.default_rng(1).random(100))
    assert high - low > 0.5


def deciding_rates() -> list[Trial]:
    """Fifty trials whose accuracy the learning rate decides, and dropout not at all."""
    draw = np.random.default_rng(0)
    rates, drops = 10 ** draw.uniform(-4, -1, 50), draw.uniform(0, 0.5, 50)
    scores = [0.6 - 0.1 * abs(math.log10(rate) + 2) for rate in rates]
    optimizers = [("sgd", "adam", "adamw")[index % 3] for index in range(50)]
    return trials(scores, train__lr=list(rates), model__dropout=list(drops), train__optimizer=optimizers)


def test_importance_finds_the_variable_that_decides_and_puts_the_others_no_higher_than_noise() -> None:
    ordered, unseen = importance(deciding_rates(), resamples=3)
    assert ordered[0].variable == "lr"
    assert {each.variable for each in ordered} == {"lr", "dropout", "optimizer", NOISE}
    assert ordered[0].share[1] > 0.5 > 10 * max(each.share[0] for each in ordered[1:])
    assert all(each.share[1] <= each.share[0] <= each.share[2] for each in ordered)
    assert unseen > 0.5
    assert "**learning rate**" in say.say_importance(ordered, unseen, 50)
    assert "**dropout**" not in say.say_importance(ordered, unseen, 50)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_importance_on_all_trials_is_optunas_own_figure() -> None:
    import optuna

    found = deciding_rates()
    study = optuna.create_study(direction="maximize")
    for trial in found:
        study.enqueue_trial({**trial.values, "lr": math.log10(trial.values["lr"])}, skip_if_exists=False)
    rates, drops = ([trial.values[name] for trial in found] for name in ("lr", "dropout"))

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("dropout", min(drops), max(drops))
        trial.suggest_categorical("optimizer", ["adam", "adamw", "sgd"])
        trial.suggest_float("lr", math.log10(min(rates)), math.log10(max(rates)))
        return found[trial.number].accuracy

    study.optimize(objective, n_trials=len(found))
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=0)
    theirs = optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)
    ours = {each.variable: each.share[0] for each in importance(found, resamples=1)[0]}
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs)
    assert sum(theirs.values()) > 0.5


def test_importance_says_nothing_of_too_few_or_of_equal_trials() -> None:
    for found in (deciding_rates()[:4], trials([0.5] * 20, train__lr=list(np.linspace(0.01, 0.1, 20)))):
        ordered, unseen = importance(found, resamples=1)
        assert ordered == []
        assert math.isnan(unseen)
        assert "too few" in say.say_importance(ordered, unseen, len(found))


def test_a_space_is_found_by_name_or_written_out_and_a_fault_is_one_line() -> None:
    spaces = load_spaces()
    assert search.space_of("classroom", spaces) is spaces["classroom"]
    written = search.space_of("variables: {lr: {log: [0.001, 0.1]}}", spaces)
    assert written == search.space_of({"variables": {"lr": {"log": [0.001, 0.1]}}}, spaces)
    for wrong, named in {
        "clasroom": "clasroom",
        "variables: {lr: [": "not YAML",
        "": "no space",
        "variables: {}": "no variables",
        "variables: {speed: [1]}": "speed",
        "variables: {lr: []}": "lr",
        "varables: {lr: [0.1]}": "varables",
    }.items():
        with pytest.raises(ConfigError, match=named) as caught:
            search.space_of(wrong, spaces)
        assert "\n" not in str(caught.value)


def test_an_error_of_ours_in_a_notebook_is_its_line_alone() -> None:
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shell.user_ns["give"] = lambda: search.space_of("clasroom", load_spaces())
    shown: list[str] = []
    shell._showtraceback = lambda kind, value, lines: shown.extend(lines)  # type: ignore[method-assign]
    shell.run_cell("give()")
    assert len(shown) == 1
    assert shown[0].startswith("ConfigError: there is no space 'clasroom'")


def test_the_originals_search_stands_beside_ours_and_turns_with_the_records() -> None:
    spaces = load_spaces()
    changes = {"train__optimizer": ["sgd", "adam"], "train__lr": [0.02, 0.003]}
    rows = {}
    for scores in ([0.7, 0.4], [0.4, 0.7]):
        table = say.beside_original(trials(scores, **changes), spaces["original_rates"], spaces["classroom"])
        rows[scores[0]] = {row[""]: row for row in table}
    assert rows[0.7]["optimizer"]["it chose"] == "sgd"
    assert rows[0.7]["learning rate"]["it chose"] == "0.01"
    assert rows[0.7]["blocks a layer"]["it chose"] == "[13, 13, 13]"
    assert rows[0.7]["blocks a layer"]["the original drew"] == "1 to 23"
    assert (rows[0.7]["optimizer"]["best here"], rows[0.4]["optimizer"]["best here"]) == ("sgd", "adam")
    assert (rows[0.7]["learning rate"]["best here"], rows[0.4]["learning rate"]["best here"]) == ("0.02", "0.003")


def test_a_diverging_run_is_recorded_as_failed_and_the_next_goes_on(tmp_path: Path) -> None:
    wild = Run("wild", tiny(train__lr=100, train__weight_decay=1, train__epochs=8), {})
    calm = Run("calm", tiny(train__epochs=1), {})
    store = Store(tmp_path / "with space")
    pairs = search.run_here([wild, calm], store=store, progress="none")
    found = search.trials(pairs)
    assert "not a number" in pairs[0][1].failed
    assert [trial.label for trial in found] == ["wild", "calm"]
    assert found[0].accuracy == search.CHANCE
    again = search.run_here([wild, calm], store=store, progress="none")
    assert [record.id for _, record in again] == [record.id for _, record in pairs], "nothing is run twice"


def test_findings_turn_when_their_numbers_do() -> None:
    better, worse = (-0.05, -0.08, -0.02), (0.05, 0.02, 0.08)
    assert "**SGD is better**" in say.say_choice("Optimizer", "SGD", "Adam", better, (9, 9))
    assert "**Adam is better**" in say.say_choice("Optimizer", "SGD", "Adam", worse, (9, 9))
    assert "do not tell" in say.say_choice("Optimizer", "SGD", "Adam", (0.01, -0.02, 0.04), (9, 9))
    high, low = (0.9, 0.85, 0.95), (0.5, 0.3, 0.7)
    assert "**the matched one ranks better**" in say.say_ranking(high, low, (0.4, 0.1, 0.6), 40, 4, 12)
    assert "**the unmatched one ranks better**" in say.say_ranking(low, high, (-0.4, -0.6, -0.1), 40, 4, 12)
    assert "is not settled" in say.say_ranking(high, low, (0.4, -0.1, 0.6), 40, 4, 12)
    assert "too few" in say.say_ranking(high, low, (0.4, 0.1, 0.6), 2, 4, 12)
    assert "turns the order round" in say.say_annealing(["a", "b"], [0.5, 0.3], [0.2, 0.4], 5000)
    kept = say.say_annealing(["a", "b"], [0.5, 0.3], [0.4, 0.2], 5000)
    assert "keeps the order" in kept
    assert "cannot tell" not in kept
    assert "cannot tell" in say.say_annealing(["a", "b"], [0.50, 0.49], [0.4, 0.2], 1000)
    assert "agree on the best" in say.say_live([0.1, 0.2], [0.3, 0.4], (1, 1))
    assert "name another best" in say.say_live([0.2, 0.1], [0.3, 0.4], (0, 1))
    fall = say.say_surprise([1, 10], (0.02, 0.01, 0.03), (0.015, 0.005, 0.02), 40)
    assert "changes by -2.0 points (-3.0 to -1.0)" in fall
    assert "nobody chose changes by -0.5; what is left for being chosen is -1.5 points (-2.0 to -0.5)" in fall
    assert "the curse is there" in fall
    assert "not settled" in say.say_surprise([1, 10], (0.02, 0.01, 0.03), (0.01, -0.01, 0.02), 40)
    assert "nothing is ruled out" in say.say_range("lr", (0.01, 0.001, 0.1), (0.001, 0.1))
    assert "nothing is ruled out" not in say.say_range("lr", (0.01, 0.005, 0.02), (0.001, 0.1))


def test_a_variable_counts_only_above_the_column_of_noise() -> None:
    noise = Importance(NOISE, (0.02, 0.01, 0.08))
    assert "**learning rate**" in say.say_importance([Importance("lr", (0.4, 0.2, 0.6)), noise], 0.5, 50)
    assert "no variable" in say.say_importance([Importance("lr", (0.4, 0.05, 0.6)), noise], 0.5, 50)
    assert "no variable" in say.say_importance([Importance("lr", (0.4, 0.2, 0.6)), noise], -0.1, 50)
    assert "do not trust" in say.say_importance([noise], 0.1, 50)
