"""Notebook 03: its functions against every search there is, its sizes, and findings that turn with their records."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from swapping import COMMITTED, HIGH, LOW, recorded, swapped

from tpsnet_lib import course, stats, tasks
from tpsnet_lib.analysis import importance, search
from tpsnet_lib.files import project_root
from tpsnet_lib.plots import parallel_coordinates
from tpsnet_lib.plots import search as plots
from tpsnet_lib.runs.records import Store
from tpsnet_lib.runs.search_space import load_spaces

PATH = project_root() / "notebooks" / "03_random_search.ipynb"
CELLS = nbformat.read(PATH, as_version=4).cells


def tagged(tag: str) -> list[Any]:
    return [cell for cell in CELLS if tag in cell.metadata.get("tags", [])]


def test_the_chapter_keeps_its_sizes() -> None:
    code = [cell.source.splitlines() for cell in CELLS if cell.cell_type == "code"]
    assert len(CELLS) <= 40
    assert max(len(lines) for lines in code) <= 15
    assert max(len(line) for lines in code for line in lines) <= 95
    assert sum("lab.show(" in line or "course.explore(" in line for lines in code for line in lines) <= 8
    assert len(tagged("exercise")) in (3, 4, 5)


# The functions of its cells ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cells() -> SimpleNamespace:
    """The functions that the notebook's cells define."""
    space: dict[str, Any] = {"np": np}
    for tag in ("best-of-n", "winners-curse", "winner-fall"):
        (cell,) = tagged(tag)
        source = cell.source.partition("\nsearches = ")[0].partition("\nright = ")[0].partition("\nretrained = ")[0]
        exec(compile(source, tag, "exec"), space)
    return SimpleNamespace(**space)


def test_the_best_of_n_is_the_mean_over_all_choices_of_n() -> None:
    values = [0.1, 0.5, 0.3, 0.9, 0.4, 0.3]
    for n in range(1, 7):
        every = [max(chosen) for chosen in combinations(values, n)]
        assert search.expected_best(values, n) == pytest.approx(np.mean(every))


def test_sixty_of_many_trials_reach_the_top_twentieth_with_ninety_five_percent(cells: SimpleNamespace) -> None:
    assert (cells.random_searches(2000, 60).max(1) >= 1900).mean() == pytest.approx(1 - 0.95**60, abs=0.03)


def test_a_random_search_draws_without_replacement(cells: SimpleNamespace) -> None:
    rows = cells.random_searches(10, 4)
    assert rows.shape == (500, 4)
    assert all(len(set(each)) == 4 for each in rows.tolist())
    assert set(rows.ravel()) == set(range(10))


def test_the_curse_grows_with_the_choice_and_shrinks_with_the_images(cells: SimpleNamespace) -> None:
    small, large = ([cells.winners_curse([0.8], images, k) for k in (1, 10, 40)] for images in (500, 5000))
    deviation = np.sqrt(0.8 * 0.2 / 500)
    assert abs(small[0]) < 0.002
    assert small[0] < small[1] < small[2]
    assert small[2] == pytest.approx(2.16 * deviation, rel=0.1)  # the expected best of 40 normal draws
    assert large[2] == pytest.approx(small[2] / np.sqrt(10), rel=0.1)


def test_a_winner_falls_back_and_a_seed_that_is_worse_for_all_is_no_curse(cells: SimpleNamespace) -> None:
    rng = np.random.default_rng(0)
    twice = 0.6 + rng.normal(0, 0.02, (400, 2))
    assert 0.025 < cells.winner_fall(twice, 20) < 0.05  # the best of 20 normal scores lies 1.87 deviations up
    worse = twice - [0, 0.03]
    assert cells.winner_fall(worse, 20) == pytest.approx(cells.winner_fall(twice, 20))
    level = np.column_stack([twice[:, 0], twice[:, 0] - 0.03])
    assert abs(cells.winner_fall(level, 20)) < 1e-9, "the same fall for everyone"


def test_a_tied_pair_neither_keeps_its_order_nor_breaks_it() -> None:
    (cell,) = [cell for cell in CELLS if "Pairs that keep their order" in cell.source]
    counting = "i, j = " + cell.source.partition("i, j = ")[2].partition("\ncompare(")[0]
    names: dict[str, Any] = {"np": np, "stats": stats, "a": np.array([0.1, 0.1, 0.2]), "b": np.array([0.3, 0.2, 0.4])}
    exec(counting, names)
    assert names["same"] == [True, True], "the first two are tied in the first search"
    assert names["order"].n == 2


def test_draws_of_another_seed_are_held_against_longer_runs_of_their_own() -> None:
    said: list[str] = []
    draws = search.recorded_trials("search_classroom_long", COMMITTED)[:4]
    others = search.recorded_trials("search_sgd_rate", COMMITTED)
    (cell,) = tagged("order")
    names: dict[str, Any] = {"np": np, "pd": pd, "search": search, "stats": stats, "live": draws, "epochs": 2.0}
    names |= {"trials_of": lambda *given: others, "train_draws": lambda epochs: draws, "more": "more epochs"}
    names |= {"finding": lambda text, *given: said.append(text), "compare": lambda *given: None, "order_guess": None}
    exec(cell.source, names | {"display": lambda shown: None})
    assert said == [
        "Pairs that keep their order: **6 of 6**, 100% (61 to 100). Chance: 50%. Ties are left out; the true"
        " interval is wider: pairs share draws."
    ]


# Its findings --------------------------------------------------------------------------------------------------------

Findings = Mapping[tuple[str, int], str]  # by tag, and number in the cell
TREES = 4  # of a forest, in place of 16 and 32, which take most of the notebook's time


def findings(store: Store, monkeypatch: pytest.MonkeyPatch) -> Findings:
    """What the notebook says where the records are those of a store. Nothing is trained or drawn: the first of the long
    trials stand for the live ones."""
    texts: dict[tuple[str, int], str] = {}
    tag = ""

    def keep(text: str, records: Any = (), intervals: Any = ()) -> None:
        texts[tag, sum(place[0] == tag for place in texts)] = text

    def small_forest(columns: Any, y: Any, seed: int, chosen: Any = None, trees: int = 0) -> dict[str, float]:
        return fanova(columns, y, seed, chosen, TREES)

    fanova = importance.fanova
    monkeypatch.setattr(importance, "fanova", small_forest)
    monkeypatch.setattr(tasks, "finding", lambda _: None)
    monkeypatch.setattr(course, "explore", lambda *_, **__: None)
    monkeypatch.setattr(parallel_coordinates, "parallel", lambda *_: None)
    for name in ("error_distributions", "importance_bars", "good_values", "two_budgets", "winners_curse"):
        monkeypatch.setattr(plots, name, lambda *_: None)
    long = search.recorded_trials("search_classroom_long", COMMITTED)

    def trials_of(experiment: str, *_: Any, **__: Any) -> list[search.Trial]:
        return search.recorded_trials(experiment, store)

    names: dict[str, Any] = {
        "live": [trial for trial in long if trial.label in (LOW, HIGH, "draw 0")],
        "trials_of": trials_of,
        "space": load_spaces()["classroom"],
        "more": "more epochs",
        "own_space": False,
        "lab": SimpleNamespace(show=lambda _: None, store=store),
        "epochs": 2.0,
        "forests": 1,
        "simulations": 3,
        "sgd_guess": None,
    }
    guesses = ("order", "gain", "top", "rate", "trap")
    names |= {f"{guess}_guess": None for guess in guesses}
    for cell in CELLS:
        tags = cell.metadata.get("tags", [])
        if {"setup", "records"} & set(tags):
            tag = tags[1] if tags[0] == "records" else ""
            exec(compile(cell.source, cell.id, "exec"), names)
            names |= {"display": lambda *_: None, "finding": keep}
    return {place: text for place, text in texts.items() if place[0]}


@pytest.fixture(scope="module")
def before() -> Findings:
    """What the notebook says of the committed records."""
    with pytest.MonkeyPatch.context() as patch:
        return findings(COMMITTED, patch)


TWO_BUDGETS = {("ranking", 0)}
TWO_SEEDS = {("curse", 0)}
OF_SGD = {("groups", 2), ("groups", 3), ("rate", 0)}  # of the search for SGD's rate
OF_THE_STUDY = {("groups", 4), ("rate", 1)}
OF_A_CROWD = {("second-half", 0)}  # of the accuracies in whatever order
OF_MEDIANS = {("groups", 0)}  # of hundreds of trials, which two of them need not move


@pytest.mark.parametrize(
    ("experiment", "expected"),
    [("search_classroom", None), ("search_classroom_long", TWO_BUDGETS), ("search_winners", TWO_SEEDS)],
)
@pytest.mark.slow
def test_the_findings_turn_with_their_trials_and_with_no_others(
    experiment: str, expected: set[tuple[str, int]] | None, before: Findings, tmp_path: Path, monkeypatch: Any
) -> None:
    after = findings(swapped(tmp_path, *(recorded(experiment, label) for label in (HIGH, LOW))), monkeypatch)
    assert before.keys() == after.keys()
    turned = {place for place in before if before[place] != after[place]}
    every = before.keys() - OF_A_CROWD - OF_MEDIANS - OF_SGD - OF_THE_STUDY
    assert len(every) >= 7
    if expected is None:
        assert turned >= every
    else:
        assert expected <= turned <= expected | {("ranking", 1)}


@pytest.mark.slow
def test_the_verdict_on_a_rate_stands_on_the_search_for_it_alone(
    before: Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = search.trial_table(search.recorded_trials("search_sgd_rate", COMMITTED))
    distance = np.abs(np.log10(table["lr"]) + 2)
    near = distance.nsmallest(round(len(table) / 4)).index
    worst_near, best_far = table["accuracy"][near].idxmin(), table["accuracy"].drop(near).idxmax()
    after = findings(
        swapped(tmp_path, *(recorded("search_sgd_rate", label) for label in (worst_near, best_far))), monkeypatch
    )
    turned = {place for place in before if before[place] != after[place]}
    assert ("rate", 0) in turned
    assert turned <= OF_SGD
