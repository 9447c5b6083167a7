"""What a search is said to show follows from its trials: hand-worked cases, simulations without an effect, optuna."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny

from tpsnet_lib import stats
from tpsnet_lib.analysis import search
from tpsnet_lib.analysis.importance import NOISE, TREES, importance
from tpsnet_lib.analysis.search import Trial
from tpsnet_lib.config import RunConfig
from tpsnet_lib.errors import ConfigError
from tpsnet_lib.runs.experiments import Run
from tpsnet_lib.runs.records import Record, Store
from tpsnet_lib.runs.search_space import load_spaces


def record(config: RunConfig, accuracy: float = 0.5, failed: str = "", epochs: int = 3) -> Record:
    """A record in memory, whose accuracy rises evenly to its last epoch."""
    metrics: dict[str, Any] = {"failed": failed} if failed else {"validation_accuracy": accuracy}
    curve = [{"epoch": float(e), "validation_accuracy": accuracy * e / epochs} for e in range(1, epochs + 1)]
    made = {"fingerprint": {"stamp": "shapes10"}, "hardware": "a CPU"}
    return Record(Path("nowhere"), config, metrics, made, () if failed else tuple(curve))


def trials(scores: list[float], **changes: list[Any]) -> list[Trial]:
    """Trials with given accuracies; `changes` hold one value a trial."""
    pairs = []
    for index, score in enumerate(scores):
        config = tiny(**{name: values[index] for name, values in changes.items()})
        pairs.append((Run(f"draw {index}", config, {}), record(config, score)))
    return search.completed_trials(pairs)


def test_runs_without_a_record_are_left_out_and_failed_ones_count_as_a_guess() -> None:
    run = Run("draw 0", tiny(), {})
    pairs = [(run, None), (run, record(tiny(), failed="the loss is not a number")), (run, record(tiny()))]
    completed = search.completed_trials(pairs)
    assert [trial.accuracy for trial in completed] == [0.1, 0.5]
    table = search.trial_table(completed)
    assert table["failed"].tolist() == [True, False]
    assert table["accuracy"].tolist() == [0.1, 0.5]
    assert list(table.index) == ["draw 0", "draw 0"]


def test_the_table_of_no_trials_has_its_columns() -> None:
    assert list(search.trial_table([]).columns) == [*search.VARIABLES, "accuracy", "failed"]


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
    assert search.accuracy_at(trial, 1.5) == pytest.approx(0.2)


def test_only_variables_that_vary_are_asked_about() -> None:
    two = trials([0.1, 0.2], train__lr=[0.01, 0.02], train__optimizer=["sgd", "adam"])
    assert search.varied(two) == ["optimizer", "lr"]


@pytest.mark.parametrize(("pools", "asked"), [([16, 8], False), ([8, 8], False), ([16, 4], True)])
def test_a_pool_that_follows_the_layers_is_no_variable(pools: list[int], asked: bool) -> None:
    shapes = {"model__blocks": [(1, 1), (1, 1, 1)], "model__channels": [(4, 4), (4, 4, 4)]}
    assert ("pool" in search.varied(trials([0.1, 0.2], **shapes, model__pool=pools))) is asked


# Whether a value is among the best -----------------------------------------------------------------------------------


def test_winners_have_the_good_values_or_any_if_the_variable_does_not_matter() -> None:
    x = np.linspace(0, 1, 100)
    near = search.winners_range(x, -((x - 0.3) ** 2))
    assert near.low < 0.3 < near.high
    assert near.high - near.low < 0.2
    assert near.value == pytest.approx(0.3, abs=0.05)
    anywhere = search.winners_range(x, np.random.default_rng(1).random(100))
    assert anywhere.high - anywhere.low > 0.5
    assert (near.n, near.of) == (100, "trials")


def searched(n: int, optimum: float, effect: float) -> tuple[Any, Any]:
    """Log rates over two decades and accuracies that fall from an optimum by an effect a decade, with noise."""
    rng = np.random.default_rng(n)
    rates = rng.uniform(-3, -1, n)
    return rates, 0.6 - effect * np.abs(rates - optimum) + rng.normal(0, 0.03, n)


@pytest.mark.parametrize(
    ("optimum", "effect", "verdict"),
    [
        (-2, 0.15, stats.HOLDS),
        (-1, 0.15, stats.DOES_NOT_HOLD),  # winners have rates near 0.1
        (-3, 0.15, stats.DOES_NOT_HOLD),
    ],
)
def test_a_rate_is_among_the_best_where_its_neighbours_win_and_nowhere_else(
    optimum: float, effect: float, verdict: str
) -> None:
    found = search.among_the_best(*searched(400, optimum, effect), -2)
    decided_by = "by the trials nearest to it" if verdict == stats.HOLDS else "as winners have other values"
    assert (found.verdict, found.decided_by) == (verdict, decided_by)


def test_many_trials_show_that_a_rate_makes_no_difference_and_few_settle_nothing() -> None:
    assert search.among_the_best(*searched(3000, -2, 0.0), -2).verdict == stats.NO_DIFFERENCE
    assert search.among_the_best(*searched(12, -2, 0.0), -2).verdict == stats.NOT_SETTLED


@pytest.mark.parametrize("n", [29, 130])
def test_without_an_effect_a_rate_is_said_to_be_among_the_best_in_at_most_one_search_in_thirty(n: int) -> None:
    rates, _ = searched(n, -2, 0)
    skewed = np.random.default_rng(0).exponential(0.1, n)  # the level does not rest on a normal distribution
    for scores in (searched(n, -2, 0)[1], skewed):
        holds = search.rate_of_holds_without_effect(rates, scores, -2, simulations=300)
        assert 0 < holds.value < 0.035, "near 2.5%, and not 90%"
        assert holds.n == 300


def test_the_neighbours_are_those_nearest_on_the_scale_given() -> None:
    accuracy = [0.1, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1]
    difference = search.nearest_against_random(range(8), accuracy, 1.5)
    assert difference.value == pytest.approx(0.8), "two of eight are nearest: the median is 0.9, and 0.1 at random"
    assert search.nearest_against_random(range(8), accuracy, 6.5).value == pytest.approx(0)


# Importance ----------------------------------------------------------------------------------------------------------


def deciding_rates() -> list[Trial]:
    """Fifty trials whose accuracy the learning rate decides, and dropout not at all."""
    draw = np.random.default_rng(0)
    rates, drops = 10 ** draw.uniform(-4, -1, 50), draw.uniform(0, 0.5, 50)
    scores = [0.6 - 0.1 * abs(math.log10(rate) + 2) for rate in rates]
    optimizers = [("sgd", "adam", "adamw")[index % 3] for index in range(50)]
    return trials(scores, train__lr=list(rates), model__dropout=list(drops), train__optimizer=optimizers)


def test_importance_finds_the_variable_that_decides_and_puts_the_others_no_higher_than_noise() -> None:
    ranked, unseen = importance(deciding_rates(), resamples=3)
    assert ranked[0].variable == "lr"
    assert {each.variable for each in ranked} == {"lr", "dropout", "optimizer", NOISE}
    noise = next(each.share for each in ranked if each.variable == NOISE)
    assert ranked[0].share.low > 0.5 > 10 * max(each.share.value for each in ranked[1:])
    assert ranked[0].share.low > noise.high
    assert all(each.share.low <= each.share.value <= each.share.high for each in ranked)
    assert unseen > 0.5
    assert ranked[0].share.n == 50


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_importance_on_all_trials_is_optunas_own_figure() -> None:
    import optuna

    decided = deciding_rates()
    study = optuna.create_study(direction="maximize")
    for trial in decided:
        study.enqueue_trial({**trial.values, "lr": math.log10(trial.values["lr"])}, skip_if_exists=False)
    rates, drops = ([trial.values[name] for trial in decided] for name in ("lr", "dropout"))

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("dropout", min(drops), max(drops))
        trial.suggest_categorical("optimizer", ["adam", "adamw", "sgd"])
        trial.suggest_float("lr", math.log10(min(rates)), math.log10(max(rates)))
        return decided[trial.number].accuracy

    study.optimize(objective, n_trials=len(decided))
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=0)
    theirs = optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)
    ours = {each.variable: each.share.value for each in importance(decided, resamples=1)[0]}
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs)
    assert sum(theirs.values()) > 0.5


def test_there_is_no_importance_of_too_few_or_of_equal_trials() -> None:
    for few in (deciding_rates()[:4], trials([0.5] * 20, train__lr=list(np.linspace(0.01, 0.1, 20)))):
        ranked, unseen = importance(few, resamples=1)
        assert ranked == []
        assert math.isnan(unseen)


# Spaces and training -------------------------------------------------------------------------------------------------


def test_a_space_is_found_by_name_or_written_out_and_a_fault_is_one_line() -> None:
    spaces = load_spaces()
    assert search.read_space("classroom", spaces) is spaces["classroom"]
    written = search.read_space("variables: {lr: {log: [0.001, 0.1]}}", spaces)
    assert written == search.read_space({"variables": {"lr": {"log": [0.001, 0.1]}}}, spaces)
    for wrong, named in {
        "clasroom": "did you mean classroom",
        "variables: {lr: [": "not YAML",
        "": "is empty",
        "variables: {}": "no variables",
        "variables: {speed: [1]}": "speed",
        "variables: {lr: []}": "lr",
        "varables: {lr: [0.1]}": "varables",
        "{variables: {lr: [0.1, 0.2]}, budget: {macs: 15}}": "no draw of 1000 is under its budget",
        "{variables: {layers: [2], blocks: [1], width: [2]}}": "all of its draws are one and the same",
        "mine": "run the cell in which it is written",
    }.items():
        with pytest.raises(ConfigError, match=named) as caught:
            search.read_space(wrong, spaces)
        assert "\n" not in str(caught.value)


def test_an_error_of_ours_in_a_notebook_is_its_line_alone() -> None:
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shell.user_ns["give"] = lambda: search.read_space("clasroom", load_spaces())
    shown: list[str] = []
    shell._showtraceback = lambda kind, value, lines: shown.extend(lines)  # type: ignore[method-assign]
    shell.run_cell("give()")
    assert len(shown) == 1
    assert shown[0].startswith("ConfigError: there is no space 'clasroom'")


def test_fewer_draws_than_tell_anything_of_each_other_are_refused(tmp_path: Path) -> None:
    runs = [Run(str(seed), tiny().with_seed(seed), {}) for seed in range(3)]
    with pytest.raises(ConfigError, match="3 different networks, and 4 are the fewest to compare: give a larger n"):
        search.train_in_process(runs, Store(tmp_path))


def test_a_diverging_run_is_recorded_as_failed_and_the_next_goes_on(tmp_path: Path) -> None:
    wild = Run("wild", tiny(train__lr=100, train__weight_decay=1, train__epochs=8), {})
    calm = [Run(f"calm {seed}", tiny(train__epochs=1).with_seed(seed), {}) for seed in range(3)]
    store = Store(tmp_path / "with space")
    completed = search.train_in_process([wild, *calm], store)
    assert "not a number" in completed[0].record.failed
    assert [trial.label for trial in completed] == ["wild", "calm 0", "calm 1", "calm 2"]
    assert completed[0].accuracy == search.CHANCE
    again = search.train_in_process([wild, *calm], store)
    assert [trial.record.id for trial in again] == [trial.record.id for trial in completed], "nothing is run twice"
