"""Each claim is answered by runs that exist, at the largest budget that has some; other records, another verdict."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from bs4 import BeautifulSoup

from tpsnet_lib.analysis import architecture, search
from tpsnet_lib.analysis.architecture import FAILS, HOLDS, OPEN, PENDING, Group, Key
from tpsnet_lib.claims import book, judge
from tpsnet_lib.claims.judge import Answer, Evidence
from tpsnet_lib.config import RunConfig
from tpsnet_lib.files import ConfigError, project_root
from tpsnet_lib.report import page
from tpsnet_lib.runs.experiments import Experiment, load_experiment
from tpsnet_lib.runs.records import Record, Store, write_failure
from tpsnet_lib.runs.search_space import drawn_values
from tpsnet_lib.runs.test_set import TestResult

PROVENANCE = {"fingerprint": {"stamp": "CIFAR-10"}, "hardware": "a machine"}
BOOK = book.load()
PATH = project_root() / "report" / "claims.yaml"


def record(config: RunConfig, accuracy: float, training: float = 0.5) -> Record:
    metrics = {"validation_accuracy": accuracy, "train_accuracy": training}
    return Record(Path("nowhere"), config, metrics, PROVENANCE, ())


def groups_of(values: Mapping[Key, Mapping[int, float]], training: float = 0.5) -> dict[Key, Group]:
    """Groups in the place of declared ones, with the given accuracies by seed."""
    declared = architecture.gather([load_experiment(name) for name in {name for name, _ in values}], Store())
    return {
        key: replace(
            declared[key],
            records=tuple(record(declared[key].config.with_seed(s), a, training) for s, a in by_seed.items()),
        )
        for key, by_seed in values.items()
    }


def evidence_of(levels: Mapping[str, tuple[float, float]], factor: str, training: float = 0.5) -> Evidence:
    """Two seeds at each level of a factor; everything else is pending."""
    values = {BOOK.key(level, factor): dict(enumerate(pair)) for level, pair in levels.items()}
    return Evidence(Store(), groups=groups_of(values, training))


@functools.cache
def declared(name: str) -> Experiment:
    """A declared experiment; drawing a search takes a while."""
    return load_experiment(name)


def trials(name: str, accuracy: Callable[[dict[str, Any]], float], count: int = 0) -> list[search.Trial]:
    """Trials of a declared search, each as accurate as a function of its draw says."""
    configs = [run.config for run in declared(name).runs][: count or None]
    drawn = [(config, drawn_values(config)) for config in configs]
    return [search.Trial("", v, accuracy(v), record(config, accuracy(v))) for config, v in drawn]


# The file -----------------------------------------------------------------------------------------------------------


def test_the_claims_a_to_h_are_there_and_every_level_is_a_declared_run() -> None:
    assert "".join(BOOK.claims) == "abcdefgh"
    assert {case.claim for case in BOOK.cases.values()} == {"", *BOOK.claims}
    experiments = {name: load_experiment(name) for name in BOOK.experiments()}
    labels = {(name, run.label) for name, experiment in experiments.items() for run in experiment.runs}
    assert {key for factor in BOOK.factors.values() for key in factor.values()} <= labels
    for case in BOOK.cases.values():
        for answer in case.answers:
            search = experiments[answer["experiment"]].draws if "experiment" in answer else None
            assert (search is not None) == (answer["test"] in ("trials", "range"))


def test_the_originals_figures_are_its_tables() -> None:
    assert "94.84% after 300 epochs (its paper, Table 2)" in BOOK.claims["a"].said
    assert "84.65% after 30 epochs" in BOOK.claims["e"].said
    assert BOOK.claims["c"].said.startswith("no figure")


@pytest.mark.parametrize(
    ("factor", "cost"),
    [
        ("layers", "parameters"),
        ("blocks", "parameters"),
        ("layers at matched MACs", "macs"),
        ("blocks at matched MACs", "macs"),
    ],
)
def test_levels_at_matched_cost_differ_by_less_than_a_tenth(factor: str, cost: str) -> None:
    evidence = Evidence(Store())
    costs = [getattr(evidence.group(key), cost) for key in BOOK.factors[factor].values()]
    assert max(costs) < 1.12 * min(costs)


def altered(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    tree = yaml.safe_load(PATH.read_text("utf-8"))
    change(tree)
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump(tree), "utf-8")
    return path


def first(tree: dict[str, Any], letter: str = "b") -> Any:
    return next(iter(tree["claims"][letter]["cases"].values()))["answers"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: first(tree).update(test="guess"), "case layers: no test 'guess': known are paired, odd"),
        (lambda tree: first(tree, "g").update(experiment="nowhere"), "no experiment nowhere: known are"),
        (lambda tree: tree["factors"]["width"].update({"w=4": ["nowhere", "w=4"]}), "no experiment nowhere"),
        (lambda tree: first(tree).update(pairs=[["N=3", "N=5"]]), "N=5 is not a level of layers"),
        (lambda tree: first(tree).update(factor="height"), "case layers: no factor 'height'"),
        (lambda tree: first(tree).update(budget=4), "case layers: test paired has the fields factor, gap, pairs"),
        (lambda tree: first(tree, "d").pop("pairs"), "test paired has the fields"),
        (lambda tree: first(tree, "g").update(variable="colour"), "no variable 'colour'"),
        (lambda tree: tree.pop("factors"), "not in the form of claims.yaml"),
        (lambda tree: tree["claims"]["b"].pop("text"), "not in the form of claims.yaml"),
        (lambda tree: tree["others"].update({"odd": tree["others"]["pool"]}), "two cases have one name"),
    ],
)
def test_a_slip_in_the_file_is_one_line_that_names_it(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    assert book.load(altered(tmp_path, lambda tree: None)) == BOOK
    with pytest.raises(ConfigError) as raised:
        book.load(altered(tmp_path, change))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_label_that_no_run_has_is_named(tmp_path: Path) -> None:
    altered_book = book.load(
        altered(tmp_path, lambda t: t["factors"]["width"].update({"w=4": ["effects_width", "w=5"]}))
    )
    with pytest.raises(ConfigError, match="experiment effects_width has no run labelled 'w=5'"):
        judge.judge(altered_book, "width", Evidence(Store()))


# The tests ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOOK.cases)
def test_with_no_records_a_case_is_pending_and_says_what_to_run(name: str) -> None:
    answer = judge.judge(BOOK, name, Evidence(Store()))
    assert answer.verdict == PENDING
    for experiment in {e for given in BOOK.cases[name].answers for e in BOOK._experiments(given)}:
        assert f"`tpsnet run {experiment}`" in answer.waiting
    said = judge.said_of_answer(answer)
    assert "pending.**" in said
    assert "nan" not in said


def test_swapping_two_groups_of_records_turns_verdict_and_sentence_round() -> None:
    rising = evidence_of({"w=4": (0.4, 0.401), "w=8": (0.5, 0.501), "w=12": (0.6, 0.601)}, "width")
    falling = evidence_of({"w=4": (0.6, 0.601), "w=8": (0.5, 0.501), "w=12": (0.4, 0.401)}, "width")
    before, after = (judge.judge(BOOK, "width", evidence) for evidence in (rising, falling))
    assert (before.verdict, after.verdict) == (HOLDS, FAILS)
    assert "+10.0 points" in judge.said_of_answer(before)
    assert "−10.0 points" in judge.said_of_answer(after)
    assert judge.said_of_answers([before]) != judge.said_of_answers([after])
    assert "4 epochs on 10,000 images, 20,000 to 172,000 parameters" in before.budget
    assert {each.id for each in before.records} == {each.id for g in rising.groups.values() for each in g.records}


def test_what_is_not_settled_says_what_it_would_take() -> None:
    answer = judge.judge(BOOK, "skip kernel", evidence_of({"K=1": (0.5, 0.5), "K=3": (0.53, 0.49)}, "skip kernel"))
    said = judge.said_of_answer(answer)
    assert answer.verdict == OPEN
    assert "four times in five" in said
    assert "would settle 1 point" in said


def test_missing_runs_are_counted_beside_those_there_are(tmp_path: Path) -> None:
    experiment = load_experiment("effects_width")
    write_failure(tmp_path, experiment.runs[0].config, "the loss is not a number", PROVENANCE)
    answer = judge.judge(BOOK, "width", Evidence(Store(tmp_path)))
    assert "`tpsnet run effects_width` (24 runs, about 19 min on two CPU cores)" in answer.waiting


def test_odd_against_even_sees_the_jump_beyond_the_trend() -> None:
    levels = {f"B={b}": (0.5 + 0.02 * b + 0.03 * (b % 2), 0.51 + 0.02 * b + 0.03 * (b % 2)) for b in range(1, 6)}
    answer = judge.judge(BOOK, "odd", evidence_of(levels, "blocks"))
    assert answer.verdict == HOLDS
    assert "+3.0 points" in judge.said_of_answer(answer)


@pytest.mark.parametrize(("deep_later", "verdict"), [((0.60, 0.601), HOLDS), ((0.45, 0.451), FAILS)])
def test_a_gain_is_a_difference_of_differences(deep_later: tuple[float, float], verdict: str) -> None:
    short = evidence_of({"B=1": (0.5, 0.5), "B=5": (0.4, 0.4)}, "blocks, short run").groups
    longer = evidence_of({"B=1": (0.58, 0.58), "B=5": deep_later}, "blocks, longer run").groups
    answer = judge.judge(BOOK, "gain from a longer run", Evidence(Store(), groups=short | longer))
    assert answer.verdict == verdict
    assert answer.claim.parts[0].mean == pytest.approx(np.mean(deep_later) - 0.4 - 0.08)
    assert answer.budget.startswith("4 and 16 epochs on 10,000 images")


def test_a_search_is_asked_by_the_medians_of_its_groups() -> None:
    def judged(name: str, accuracy: Callable[[dict[str, Any]], float], count: int = 0) -> Answer:
        found = {"search_classroom": trials("search_classroom", accuracy, count), "search_classroom_long": []}
        return judge.judge(BOOK, name, Evidence(Store(), {each: declared(each) for each in found}, searches=found))

    def helps(sign: int) -> Callable[[dict[str, Any]], float]:
        return lambda v: 0.5 + sign * 0.1 * v["block_dropout"]

    assert judged("block dropout in the search", helps(+1)).verdict == HOLDS
    assert judged("block dropout in the search", helps(-1)).verdict == FAILS
    assert judged("optimizer", lambda v: 0.6 if v["optimizer"] == "sgd" else 0.5).verdict == HOLDS
    assert judged("optimizer", lambda v: 0.5 if v["optimizer"] == "sgd" else 0.6).verdict == FAILS
    few = judged("optimizer", lambda v: 0.5, count=12)
    assert few.verdict == PENDING
    assert "`tpsnet run search_classroom` (" in few.waiting


def test_odd_depths_of_a_search_are_told_from_even_ones() -> None:
    found = {"search_original_9": trials("search_original_9", lambda v: 0.5 + 0.05 * (v["depth"] % 2))}
    answer = judge.judge(BOOK, "odd in the search", Evidence(Store(), searches={**found, "search_original_30": []}))
    assert answer.verdict == HOLDS
    assert answer.claim.parts[0].mean == pytest.approx(0.05)


@pytest.mark.parametrize(("best", "verdict"), [(0.01, HOLDS), (0.1, FAILS)])
def test_a_rate_is_looked_for_among_those_of_the_best_trials_with_sgd(best: float, verdict: str) -> None:
    configs = [run.config for run in load_experiment("search_classroom").runs]
    rates = np.logspace(-3, -1, len(configs))
    found = []
    for config, lr in zip(configs, rates, strict=True):
        for optimizer, optimum in (("sgd", best), ("adam", 0.001)):
            values = {**drawn_values(config), "lr": float(lr), "optimizer": optimizer}
            accuracy = 0.8 - 0.1 * abs(np.log10(lr / optimum))
            found.append(search.Trial("", values, float(accuracy), record(config, float(accuracy))))
    searches = {"search_classroom": found, "search_classroom_long": []}
    answer = judge.judge(BOOK, "learning rate", Evidence(Store(), searches=searches))
    assert answer.verdict == verdict
    assert answer.claim.parts[0].n == len(configs)  # those with SGD


def test_overfitting_shows_as_a_gap_that_grows() -> None:
    levels = {"B=1": (0.5, 0.501), "B=2": (0.55, 0.551), "B=3": (0.6, 0.601)}
    answer = judge.judge(BOOK, "deeper", evidence_of(levels, "depth at a fixed width", training=0.7))
    assert answer.verdict == HOLDS
    assert "+19.9 points at B=1 and +9.9 at B=3: a change of −10.0" in answer.claim.notes[0]


@pytest.mark.parametrize(("accuracy", "verdict"), [(0.9470, HOLDS), (0.9300, FAILS), (0.9434, OPEN)])
def test_a_reproduction_may_be_a_point_below_and_no_more(
    monkeypatch: pytest.MonkeyPatch, accuracy: float, verdict: str
) -> None:
    run = load_experiment("reproduction").runs[0]
    monkeypatch.setattr(judge, "collect", lambda *_: [(run, record(run.config, 0.9))])
    monkeypatch.setattr(judge, "find_test", lambda *_: None)
    shut = judge.judge(BOOK, "reproduction", Evidence(Store()))
    assert shut.verdict == PENDING
    assert "not opened yet" in shut.waiting
    opened = TestResult(Path(), {"accuracy": accuracy, "n": 10_000}, None)  # type: ignore[arg-type]
    monkeypatch.setattr(judge, "find_test", lambda *_: opened)
    answer = judge.judge(BOOK, "reproduction", Evidence(Store()))
    assert answer.verdict == verdict
    assert answer.claim.parts[0].mean == pytest.approx(accuracy - 0.9484)


def test_the_largest_budget_that_has_records_answers_and_larger_ones_are_named() -> None:
    small = evidence_of({"B=1": (0.5, 0.5), "B=3": (0.4, 0.4), "B=5": (0.3, 0.3)}, "blocks").groups
    answer = judge.judge(BOOK, "depth", Evidence(Store(), groups=dict(small)))
    assert answer.verdict == HOLDS
    assert answer.budget.startswith("4 epochs on 10,000 images")
    minutes = 9 * load_experiment("table1_matched").minutes
    assert (
        f"`tpsnet run table1_matched` (9 runs, about {minutes:.0f} min on a GPU) for 30 epochs on 45,000"
        in answer.waiting
    )
    table = {"[3,3,3]": (0.8, 0.8), "[7,7,7]": (0.85, 0.85), "[13,13,13]": (0.9, 0.9)}
    large = evidence_of(table, "table 1, annealed").groups
    answer = judge.judge(BOOK, "depth", Evidence(Store(), groups=small | large))
    assert answer.verdict == FAILS
    assert answer.budget.startswith("30 epochs on 45,000 images, 4.87 million to 4.97 million")
    assert "effects_blocks" not in answer.waiting


# The table ----------------------------------------------------------------------------------------------------------


def test_the_table_says_for_every_case_its_verdict_its_n_and_its_budget() -> None:
    evidence = evidence_of({"w=4": (0.4, 0.401), "w=8": (0.5, 0.501), "w=12": (0.6, 0.601)}, "width")
    found = judge.judged("abcdefgh", evidence)
    assert {answer.case.claim for answer in found} == set("abcdefgh")
    soup = BeautifulSoup(page.claims(found), "html.parser")
    assert soup.caption is not None
    assert soup.caption.text.endswith("CIFAR-10, n = 6 runs, a machine.")
    assert [head.text[:3] for head in soup.select("tbody th")] == [f"({letter})" for letter in "abcdefgh"]
    rows = {row.td.text: [cell.get_text(" ") for cell in row("td")] for row in soup("tr") if row.td is not None}
    assert len(rows) == len(found)
    width = rows["Wider is better, at a fixed depth"]
    assert width[1] == HOLDS
    assert "w=8 minus w=4: +10.0" in width[2]
    assert "n = 2 seeds, paired" in width[2]
    assert "4 epochs on 10,000 images" in width[3]
    assert all(record.id in str(soup) for record in found[-4].records[:2])
    assert "Pending: tpsnet run reproduction" in soup.get_text(" ").replace("  ", " ")
    assert judge.said_of_answers(found).startswith("Of 8 claims, 1 is settled")
    assert judge.said_of_answers(judge.judged("abc", Store())).startswith("Of 3 claims, none is settled")


def test_cases_of_which_some_seeds_are_missing_say_how_many_pairs_each_difference_has() -> None:
    values = {"w=4": {0: 0.4, 1: 0.41}, "w=8": {0: 0.5, 1: 0.5, 2: 0.5}, "w=12": {0: 0.6, 1: 0.6, 2: 0.6}}
    groups = groups_of({BOOK.key(level, "width"): by_seed for level, by_seed in values.items()})
    found = judge.judged("f", Evidence(Store(), groups=groups))
    assert "n = 2 and 3 seeds, paired" in page.claims(found)
    assert "`tpsnet run effects_width` (16 runs, about 13 min" in found[0].waiting


def test_one_claim_at_a_time_can_be_asked_for() -> None:
    assert {answer.case.claim for answer in judge.judged("dg", Store())} == {"d", "g"}
    assert judge.said_of_verdicts([HOLDS, FAILS, FAILS, OPEN]) == "1 holds, 2 do not hold, 1 not settled"
