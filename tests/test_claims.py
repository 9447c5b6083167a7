"""Every claim of the original is judged by declared runs, at the largest budget that is done; other records, another
verdict."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bs4 import BeautifulSoup

from tpsnet_lib import stats
from tpsnet_lib.analysis import search
from tpsnet_lib.analysis.groups import Group, by_machine, hardware_and_threads
from tpsnet_lib.claims import claims, judge, studies
from tpsnet_lib.claims.evidence import Answer, Evidence, at_least, at_most, better, cost_ratio
from tpsnet_lib.claims.judge import Row
from tpsnet_lib.config import RunConfig
from tpsnet_lib.report import elements, limitations
from tpsnet_lib.runs.experiments import Experiment, Run, load_experiment
from tpsnet_lib.runs.publish import write_trials
from tpsnet_lib.runs.records import Record, Store, committed_folder
from tpsnet_lib.stats import DOES_NOT_HOLD, HOLDS, NO_DIFFERENCE, NOT_SETTLED, PENDING, Estimate

PROVENANCE = {"fingerprint": {"stamp": "CIFAR-10"}, "hardware": "a machine", "threads": 1}
Value = Callable[[str, RunConfig], float]
TESTS = {test.name: test for test in claims.TESTS}


def recorded(config: RunConfig, accuracy: float, train_accuracy: float = 0.5, seconds: float = 1.0) -> Record:
    metrics = {"validation_accuracy": accuracy, "train_accuracy": train_accuracy}
    curve = tuple({"epoch": float(n), "seconds": n * seconds} for n in (1, 2))
    return Record(Path("nowhere"), config, metrics, PROVENANCE, curve)


def store_of(folder: Path, values: Mapping[str, Value], **more: float) -> Store:
    """A store with the records of whole experiments, each as accurate as a function of label and config says."""
    runs = [(run, values[name]) for name in values for run in declared(name).runs]
    records = {run.config.id: recorded(run.config, value(run.label, run.config), **more) for run, value in runs}
    write_trials(folder / "all.trials.jsonl", list(records.values()))
    return Store(folder)


@functools.cache
def declared(name: str) -> Experiment:
    """A declared experiment; drawing a search takes a while."""
    return load_experiment(name)


def by_label(**levels: float) -> Value:
    """Accuracies by label, with a standard deviation of a tenth of a point between runs."""
    return lambda label, config: levels[label.replace("=", "")] + 0.001 * noise(config)


def noise(config: RunConfig) -> float:
    """A standard normal number that is always the same for a run."""
    return float(np.random.default_rng(int(config.id, 16)).standard_normal())


def group(values: Mapping[int, float]) -> Group:
    """Runs with the given accuracies, by seed."""
    records = tuple(recorded(RunConfig(seed=seed), value) for seed, value in values.items())
    return Group("", tuple(record.config for record in records), records)


def row(name: str, store: Store, **more: Any) -> Row:
    return next(each for each in judge.judge_claims(store, **more) if each.name == name)


# The claims -----------------------------------------------------------------------------------------------------------


def test_every_claim_of_the_original_has_a_test_and_every_row_its_sentence(tmp_path: Path) -> None:
    rows = judge.judge_claims(Store(tmp_path))
    assert sorted({each.claim for each in rows}) == list("abcdefghij") == list(claims.CLAIMS)
    assert len({each.sentence for each in rows}) == len(rows) == len(claims.TESTS)
    assert [each.claim for each in rows] == sorted(each.claim for each in rows)
    assert {each.verdict for each in rows} == {PENDING}
    for each in rows:
        assert each.pending
        assert not each.records


def test_every_place_that_a_claim_names_is_declared() -> None:
    evidence = Evidence(Store())
    looked_at = [group for test in claims.TESTS for answer in test.answers(evidence) for group in answer.groups]
    empty = {group.experiment for group in looked_at if not group.configs}
    assert all(name.startswith("study_") and evidence.experiment(name) is None for name in empty), empty


@pytest.mark.parametrize("test", claims.TESTS, ids=lambda test: test.name)
def test_what_is_compared_was_fitted_and_scored_on_the_same_images(test: claims.Test) -> None:
    """Test accuracy after 50,000 images is not set beside validation accuracy after 45,000."""
    for answer in test.answers(Evidence(Store())):
        assert len({config.data for group in answer.groups for config in group.configs}) <= 1


@pytest.mark.parametrize("test", claims.TESTS, ids=lambda test: test.name)
def test_networks_that_a_sentence_calls_matched_are(test: claims.Test) -> None:
    costs = {
        "parameters": lambda group: group.parameters if "parameters" in test.sentence else 1,
        "MACs": lambda group: group.macs if "MACs" in test.sentence else 1,
    }
    if not any(word in test.sentence for word in ("matched", "equal parameters")):
        return
    for answer in test.answers(Evidence(Store())):
        for cost in costs.values():
            values = [cost(group) for group in answer.groups if group.configs]
            assert max(values, default=1) <= 1.06 * min(values, default=1)


def test_a_difference_turns_round_with_its_records_and_names_them(tmp_path: Path) -> None:
    names = "effects_layers", "effects_width"
    for folder, ahead in (("up", 0.05), ("down", -0.05)):
        values = by_label(N2=0.5, N3=0.5, N4=0.5, w4=0.5, w8=0.5, w12=0.5 + ahead)
        store = store_of(tmp_path / folder, dict.fromkeys(names, values))
        width = row("width at one block", store)
        assert width.verdict == (HOLDS if ahead > 0 else DOES_NOT_HOLD)
        assert width.estimate.value == pytest.approx(ahead, abs=0.001)
        assert width.n == 8
        assert len(width.records) == 16
        assert width.budget.startswith("in small, short runs: 77,000 to 172,000 parameters, 312 steps")


def test_verdicts_are_adjusted_over_the_whole_table(tmp_path: Path) -> None:
    store = store_of(tmp_path, {"effects_layers": by_label(N2=0.499, N3=0.5, N4=0.4)})
    rows = {each.name: each for each in judge.judge_claims(store)}
    close = rows["three layers against two"]
    needed = max(stats.p_values(close.estimate, close.answer.smallest_effect)[1:])
    assert needed < 0.05 / len(rows)
    assert close.verdict == NO_DIFFERENCE
    assert rows["three layers against four"].verdict == HOLDS
    assert close.p == pytest.approx(needed * (len(rows) - 1), rel=0.1)


@pytest.mark.slow
def test_a_part_of_the_declared_runs_settles_nothing() -> None:
    """However small p is: the look was not declared, and there may be many before the end."""
    whole = next(each for each in judge.judge_claims(Store(committed_folder())) if each.verdict == HOLDS)
    first, *others = whole.answer.groups
    fewer = replace(first, records=first.records[:-1])
    part = replace(whole, answer=replace(whole.answer, groups=(fewer, *others)))
    assert [each.verdict for each in judge.judged_by(stats.holm, [part])] == [NOT_SETTLED]
    assert [each.verdict for each in judge.judged_by(stats.holm, [whole])] == [HOLDS]


def test_the_largest_budget_that_is_done_answers() -> None:
    estimates = stats.mean([]), stats.mean([0.1, 0.2, 0.3]), stats.mean([0.1, 0.2])
    answers = [Answer(estimate, estimate, 0.01, ()) for estimate in estimates]
    config = load_experiment("smoke").runs[0].config
    done = (recorded(config, 0.5), recorded(config.with_seed(1), 0.5))
    half, whole = (Group("", (config, config.with_seed(1)), records) for records in (done[:1], done))
    parts = [replace(answer, groups=(runs,)) for answer, runs in zip(answers, (half, half, whole), strict=True)]
    assert judge.largest_answer(parts) is parts[2]  # the middle one has an estimate and is not done yet
    assert judge.largest_answer(parts[:2]) is parts[1]
    assert judge.largest_answer(parts[:1]) is parts[0]


def test_a_bound_from_below_and_one_from_above_can_hold_and_fail() -> None:
    def verdict(answer: Answer) -> str:
        return stats.verdict(answer.judged, answer.smallest_effect)

    near, far = Estimate(-0.002, -0.006, 0.002, 3), Estimate(-0.02, -0.024, -0.016, 3)
    unsure = Estimate(-0.01, -0.014, -0.006, 3)
    assert [verdict(at_least(each, [], -0.01)) for each in (near, far, unsure)] == [HOLDS, DOES_NOT_HOLD, NOT_SETTLED]
    assert [verdict(at_most(each, [], -0.01)) for each in (near, far, unsure)] == [DOES_NOT_HOLD, HOLDS, NOT_SETTLED]
    assert at_most(near, [], -0.01).estimate == near


def test_a_control_with_more_seeds_is_used_whole() -> None:
    control = group({seed: 0.5 + 0.01 * seed for seed in range(10)})
    other = group({seed: 0.4 + 0.01 * seed for seed in range(5)})
    estimate = better(control, other).estimate
    assert estimate.method == "Welch t"
    assert estimate.value == pytest.approx(0.125)


def test_runs_of_one_kind_of_machine_are_compared_with_one_another(tmp_path: Path) -> None:
    """A control with runs on two kinds stands beside three runs with those of their kind, and a note says so."""
    store = store_of(tmp_path, {"effects_layers": by_label(N2=0.4, N3=0.5, N4=0.5)})
    path = next(tmp_path.glob("*.trials.jsonl"))
    made = [replace(r, provenance={**r.provenance, "hardware": "two"}) if r.config.seed > 2 else r for r in store.all()]
    kept = [r for r in made if r.config.seed < 3 or len(r.config.model.blocks) == 3]
    write_trials(path, kept)
    rows = {each.name: each for each in judge.judge_claims(Store(tmp_path))}
    two = rows["three layers against two"]
    assert (two.n, len(two.records)) == (3, 6)
    assert "; 5 of another are left out." in two.notes[-1]


def test_runs_of_two_kinds_of_machine_are_compared_within_each_and_all_count(tmp_path: Path) -> None:
    """A machine on which all networks are ten points better makes no difference, and no run is left out."""
    store = store_of(tmp_path, {"effects_layers": by_label(N2=0.48, N3=0.5, N4=0.5)})

    def elsewhere(one: Record) -> Record:
        score = one.metrics["validation_accuracy"] + 0.1
        return replace(one, metrics={"validation_accuracy": score}, provenance={**one.provenance, "hardware": "two"})

    made = [
        elsewhere(one) if one.config.seed in (0, 1, 2 + len(one.config.model.blocks)) else one for one in store.all()
    ]
    before = row("three layers against two", store)
    write_trials(next(tmp_path.glob("*.trials.jsonl")), made)
    two = row("three layers against two", Store(tmp_path))
    assert (two.n, len(two.records), two.verdict) == (8, 16, HOLDS)
    assert two.estimate.method == "stratified Welch t"
    assert two.estimate.value == pytest.approx(before.estimate.value, abs=0.001)
    assert two.estimate.high - two.estimate.low < 0.004
    assert "By kind of machine: a machine +" in two.notes[0]


def test_networks_that_no_machine_has_in_common_say_so(tmp_path: Path) -> None:
    """With two seeds a side, all on one machine here and on another there, network and machine differ together."""
    store = store_of(tmp_path, {"effects_layers": by_label(N2=0.4, N3=0.5, N4=0.5)})
    moved = [
        replace(one, provenance={**one.provenance, "hardware": f"machine of {len(one.config.model.blocks)}"})
        for one in store.all()
    ]
    write_trials(next(tmp_path.glob("*.trials.jsonl")), moved)
    assert "may be that of the machines" in row("three layers against two", Store(tmp_path)).notes[-1]


def test_runs_that_failed_are_in_no_mean_choose_no_machine_and_are_counted_in_a_note(tmp_path: Path) -> None:
    store = store_of(tmp_path, {"effects_layers": by_label(N2=0.4, N3=0.5, N4=0.5)})

    def failed(one: Record) -> Record:
        return replace(one, metrics={"failed": "diverged"}, provenance={**one.provenance, "hardware": "another"})

    two = [one for one in store.all() if len(one.config.model.blocks) == 2 and one.config.seed < 5]
    others = [one for one in store.all() if one not in two]
    write_trials(next(tmp_path.glob("*.trials.jsonl")), [*map(failed, two), *others])
    against_two = row("three layers against two", Store(tmp_path))
    assert (against_two.n, against_two.verdict) == (3, HOLDS)
    assert against_two.notes == ("5 of the runs could not be finished, and no mean counts them.",)


def test_a_budget_of_one_seed_a_network_displaces_no_smaller_one_that_is_settled() -> None:
    single = better(group({0: 0.9}), group({0: 0.8}))
    several = better(group({0: 0.9, 1: 0.91}), group({0: 0.8, 1: 0.82}))
    assert judge.largest_answer([single, several]) is several


def test_what_later_seeds_say_alone_stands_in_the_full_table_only() -> None:
    later = {row.name: row for row in judge.judge_claims(Store(committed_folder())) if row.answer.later}
    seeds = {"shallow, short run": 8, "width at three blocks": 8}  # a side, of the tests with a second look
    seeds |= dict.fromkeys(("deep, longer run", "gain in points", "gain in logits", "overfitting"), 5)
    assert {name: row.n for name, row in later.items()} == seeds
    for row in later.values():
        assert row.answer.later.startswith("Later seeds alone: ")
        assert "later seeds" not in row.remark  # which the first screen shows too


def test_pairs_of_depths_that_were_judged_before_count_in_the_table_and_mark_the_verdict_as_late() -> None:
    rows = judge.judge_claims(Store(committed_folder()))
    looked = {row.name: set(row.answer.before) for row in rows if row.answer.before}
    of_depth = ("shallow, short run", "deep, longer run", "gain in points", "gain in logits", "overfitting")
    assert all({studies.ONE_BLOCK, studies.FIVE_BLOCKS} & looked[name] for name in of_depth)
    assert judge.earlier_looks(rows) == sum(map(len, looked.values())) == 15
    late = {row.name for row in limitations.by_late_runs(rows)}
    assert late >= {row.name for row in rows if row.name in of_depth and row.settled}
    notes = next(row.notes for row in rows if row.name == "overfitting")
    assert f"{studies.FIVE_BLOCKS}: +0.9" in " ".join(notes), "the look as it is shown, not as it is judged"


def test_odd_against_even_sees_the_jump_beyond_the_trend(tmp_path: Path) -> None:
    def blocks(label: str, config: RunConfig) -> float:
        depth = 1 if label[0] == "N" else int(label[2:])
        return 0.5 + 0.02 * depth + 0.003 * depth**2 + 0.03 * (depth % 2) + 0.001 * noise(config)

    store = store_of(tmp_path, dict.fromkeys(("effects_layers", "effects_blocks"), blocks))
    odd = row("odd", store)
    assert odd.verdict == HOLDS
    assert odd.estimate.value == pytest.approx(0.03, abs=0.001)


def test_a_gain_can_hold_in_points_and_not_in_logits(tmp_path: Path) -> None:
    levels = {"N2": 0.9, "N3": 0.9, "N4": 0.9, "B1": 0.9, "B2": 0.9, "B3": 0.9, "B4": 0.9, "B5": 0.5}
    store = store_of(
        tmp_path,
        {
            "effects_layers": by_label(**levels),
            "effects_blocks": by_label(**levels),
            "effects_blocks_long": by_label(B1=0.9, B3=0.95, B5=0.65),
        },
    )
    rows = {each.name: each for each in judge.judge_claims(store)}
    assert rows["gain in points"].verdict == HOLDS
    assert rows["gain in points"].estimate.value == pytest.approx(0.10, abs=0.001)
    assert rows["gain in logits"].verdict == DOES_NOT_HOLD
    assert rows["gain in logits"].estimate.value == pytest.approx(0.62 - 0.75, abs=0.02)
    assert rows["gain in points"].budget.startswith("in small, short runs: 77,000 parameters, 312 to 1,248 steps")


@pytest.mark.parametrize(("spread", "verdict"), [(0.002, HOLDS), (0.05, DOES_NOT_HOLD)])
def test_equal_size_is_an_equivalence_of_the_two_furthest_apart(tmp_path: Path, spread: float, verdict: str) -> None:
    levels = dict.fromkeys(("N2", "N3", "N4", "B1", "B2", "B3", "B4"), 0.5) | {"B5": 0.5 - spread}
    store = store_of(tmp_path, dict.fromkeys(("effects_layers", "effects_blocks"), by_label(**levels)))
    found = row("equal size", store)
    assert found.verdict == verdict
    assert found.estimate.value == pytest.approx(spread, abs=0.001)
    assert found.estimate.method == "Tukey"
    assert found.size == f"{100 * spread:.1f} points apart"  # a distance has no sign


@pytest.mark.parametrize(("ahead", "verdict"), [(0.0, HOLDS), (0.05, DOES_NOT_HOLD)])
def test_overfitting_is_training_accuracy_ahead_of_validation(tmp_path: Path, ahead: float, verdict: str) -> None:
    values = {"effects_blocks_long": by_label(B1=0.6, B3=0.6, B5=0.6 - ahead)}
    found = row("overfitting", store_of(tmp_path, values, train_accuracy=0.7))
    assert found.verdict == verdict
    assert found.estimate.value == pytest.approx(ahead, abs=0.001)


def test_cost_is_the_ratio_of_the_fastest_epochs_on_one_machine() -> None:
    config = load_experiment("smoke").runs[0].config
    there = {**PROVENANCE, "hardware": "another"}

    def runs(*seconds: float) -> Group:
        records = [recorded(config.with_seed(n), 0.5, seconds=each) for n, each in enumerate(seconds)]
        return Group("", (), (*records, replace(records[0], provenance=there)))

    deep, wide = by_machine([runs(2.0, 2.2, 2.1), runs(1.0, 1.1)], hardware_and_threads)[0]
    ratio = cost_ratio(deep, wide)
    assert ratio.n == 2
    assert ratio.value == pytest.approx(np.mean(np.log([2.0, 2.2, 2.1])) - np.mean(np.log([1.0, 1.1])))
    assert cost_ratio(runs(2.0, 2.2), runs(1.0, 1.1)).n == 0, "two machines"


def test_a_search_is_asked_by_the_medians_of_its_groups(tmp_path: Path) -> None:
    def accuracy(label: str, config: RunConfig) -> float:
        sgd = config.train.optimizer == "sgd"
        return 0.5 + 0.1 * config.model.block_dropout - 0.05 * sgd + 0.01 * noise(config)

    store = store_of(tmp_path, {"search_classroom": accuracy})
    rows = {each.name: each for each in judge.judge_claims(store)}
    assert rows["optimizer"].verdict == DOES_NOT_HOLD
    assert rows["optimizer"].sentence.startswith("SGD beats the Adam family, in random trials, SGD at rates of")
    assert rows["block dropout"].verdict == HOLDS
    assert len(rows["optimizer"].records) == len(declared("search_classroom").runs)


@pytest.mark.slow
def test_sgd_is_judged_where_its_best_rates_are_once_they_are_searched(tmp_path: Path) -> None:
    """SGD is best at 0.3, beyond the rates of the first search; a search that is half done changes nothing."""

    def accuracy(label: str, config: RunConfig) -> float:
        best = 0.3 if config.train.optimizer == "sgd" else 0.003
        return 0.8 - 0.2 * abs(float(np.log10(config.train.lr / best))) + 0.001 * noise(config)

    def of_sgd(label: str, config: RunConfig) -> float:
        return accuracy(label, config) + 0.2

    def judged(folder: str, more: Mapping[str, Value], share: float = 1) -> dict[str, Answer]:
        store_of(tmp_path / folder, {"search_classroom": accuracy})
        if more:
            records = store_of(tmp_path / f"{folder} more", more).all()
            write_trials(tmp_path / folder / "more.trials.jsonl", records[: int(share * len(records))])
        evidence, names = Evidence(Store(tmp_path / folder)), ("optimizer", "learning rate")
        return {name: judge.largest_answer(list(TESTS[name].answers(evidence))) for name in names}

    first, half = judged("first", {}), judged("half", {"search_sgd_rate": of_sgd}, 0.5)
    assert stats.verdict(first["optimizer"].judged, 0.01) == DOES_NOT_HOLD
    assert first["optimizer"].scope == ", in random trials, SGD at rates of 0.001 to 0.1, best near the end"
    for name in first:
        assert (half[name].estimate, half[name].scope) == (first[name].estimate, first[name].scope)
    whole = judged("whole", {"search_sgd_rate": of_sgd})
    assert stats.verdict(whole["optimizer"].judged, 0.01) == HOLDS
    assert whole["optimizer"].scope == ", in random trials, SGD at rates of 0.01 to 1, others at 0.001 to 0.1"
    assert stats.verdict(whole["learning rate"].judged, 0.0) == DOES_NOT_HOLD
    assert whole["learning rate"].notes[0].startswith("Of rates from 0.0011 to 0.99,")


@pytest.mark.parametrize(("behind", "verdict"), [(0.0, HOLDS), (0.03, DOES_NOT_HOLD)])
def test_random_trials_are_an_earlier_look_once_the_study_has_asked(
    behind: float, verdict: str, tmp_path: Path
) -> None:
    def trial(label: str, config: RunConfig) -> float:
        return 0.8 - 0.1 * abs(float(np.log10(config.train.lr / 0.01))) + 0.001 * noise(config)

    random = row("learning rate", store_of(tmp_path / "random", {"search_classroom": trial}))
    assert (random.n > 5, random.verdicts_before) == (True, {})
    levels = {"B=1": 0.88, "B=1, rate 0.01": 0.88 - behind}

    def run(label: str, config: RunConfig) -> float:
        return levels[label] + 0.001 * noise(config)

    all_runs = {"search_classroom": trial, "study_control": run, "study_sgd_rate": run}
    found = row("learning rate", store_of(tmp_path / "both", all_runs))
    assert (found.verdict, found.n) == (verdict, 5)
    assert found.estimate.value == pytest.approx(-behind, abs=0.002)
    assert found.verdicts_before == {"random trials": random.verdict}
    assert "before: random trials (" in found.remark


def test_chapter_3_says_of_sgd_in_the_study_what_the_claims_say() -> None:
    store = Store(committed_folder())
    rows = {each.name: each for each in judge.judge_claims(store)}
    for name, experiment, sign, said in (
        ("optimizer", "study_adam", -1, "Adam at 0.003 minus SGD at 0.3, the best of five"),
        ("learning rate", "study_sgd_rate", 1, "SGD at 0.01 minus SGD at 0.3, the best of five"),
    ):
        text, records, (lead,) = search.beside_tuned_sgd(experiment, store)
        assert lead.value == pytest.approx(sign * rows[name].estimate.value)
        assert sum(map(len, records.values())) == len(rows[name].records)
        assert said in text


@pytest.mark.parametrize(("best", "verdict"), [(0.01, HOLDS), (0.1, DOES_NOT_HOLD), (None, NOT_SETTLED)])
def test_a_rate_is_among_the_best_only_if_trials_near_it_beat_others(
    best: float | None, verdict: str, tmp_path: Path
) -> None:
    def accuracy(label: str, config: RunConfig) -> float:
        loss = 0.2 * abs(np.log10(config.train.lr / best)) if best else 0.0
        return 0.8 - float(loss) + 0.02 * noise(config)

    evidence = Evidence(store_of(tmp_path, {"search_classroom": accuracy}))
    *_, answer = TESTS["learning rate"].answers(evidence)
    assert stats.verdict(answer.judged, answer.smallest_effect) in (verdict, NO_DIFFERENCE if best is None else verdict)
    assert "without any effect of the rate" in answer.notes[1]


@pytest.mark.parametrize(("accuracy", "verdict"), [(0.9470, HOLDS), (0.9100, DOES_NOT_HOLD), (0.94, NOT_SETTLED)])
def test_a_reproduction_may_be_a_point_below_and_no_more(accuracy: float, verdict: str) -> None:
    evidence, runs = Evidence(Store()), group({seed: accuracy + 0.001 * (seed - 1) for seed in range(3)})
    evidence.group = lambda place: runs  # type: ignore[method-assign]
    (answer,) = TESTS["reproduction"].answers(evidence)
    assert stats.verdict(answer.judged, answer.smallest_effect) == verdict
    assert answer.estimate.value == pytest.approx(accuracy - 0.9484)


def test_a_test_is_of_the_runs_that_its_experiments_declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [
        Run(label, replace(declared("study_rates").runs[at].config, seed=seed), {})
        for at, label in ((0, "B=1, wide"), (4, "B=1"))
        for seed in (0, 1)
    ]
    study = {
        name: Experiment(name=name, minutes=9.0, runs=[run for run in runs if run.label == label])
        for name, label in (("study_width", "B=1, wide"), ("study_control", "B=1"))
    }
    records = [recorded(run.config, 0.8 + 0.1 * ("wide" in run.label) + 0.001 * run.config.seed) for run in runs]
    write_trials(tmp_path / "all.trials.jsonl", records)
    monkeypatch.setattr(
        "tpsnet_lib.claims.evidence.load_experiment", lambda name: study.get(name) or load_experiment(name)
    )
    width = row("width at one block", Store(tmp_path))
    assert width.estimate.value == pytest.approx(0.1)
    assert width.n == 2
    assert not width.pending


def test_tests_are_counted_and_not_claims(tmp_path: Path) -> None:
    said = judge.describe_table(judge.judge_claims(Store(tmp_path)))
    assert said.startswith(f"Of {len(claims.TESTS)} tests of 10 claims")
    assert said.endswith(f"{len(claims.TESTS)} are pending.")


def test_the_page_names_the_budget_before_the_verdict_and_links_the_records(tmp_path: Path) -> None:
    rows = judge.judge_claims(store_of(tmp_path, {"effects_layers": by_label(N2=0.4, N3=0.5, N4=0.4)}))
    soup = BeautifulSoup(elements.claims(rows, {}), "html.parser")
    assert [head.text[:3] for head in soup.select("tbody th")] == [f"({letter})" for letter in "abcdefghij"]
    cells = {line("td")[1].text: line("td") for line in soup("tr") if line.td is not None}
    assert len(cells) == len(rows)
    verdict, _, grounds, records = cells["Three residual layers beat two, at matched parameters"]
    assert verdict.text.startswith("in small, short runs: 77,000 to 78,000 parameters")
    assert verdict.text.endswith(HOLDS)
    assert "n = 8 seeds a side" in grounds.text
    assert rows[1].records[0].id in str(records)
    assert "Pending: tpsnet run reproduction" in cells[rows[0].sentence][3].text


def test_equal_macs_with_unequal_parameters_are_said_of_either_side() -> None:
    rows = {row.name: row for row in judge.judge_claims(Store(committed_folder()))}
    groups = rows["three layers against four, MACs"].answer.groups
    times = groups[1].parameters / groups[0].parameters
    assert rows["three layers against four, MACs"].remark == f"where the other has {times:.2g} times the parameters"
    assert judge._unequal_costs(groups[::-1]) == f"with {times:.2g} times the parameters"
    assert judge._unequal_costs([groups[0], groups[0]]) == ""


def test_other_runs_are_named_by_size_and_by_length() -> None:
    rows = {row.name: row for row in judge.judge_claims(Store(committed_folder()))}
    chosen = rows["overfitting"].answer
    kinds = [judge.OTHER, judge.OTHER, judge.SHORTER, judge.SMALLER_AND_SHORTER]  # two of other pairs of depths
    assert [which for which, _ in rows["overfitting"].others] == kinds
    assert judge._kind_of_runs(chosen, chosen) == judge.OTHER


def test_a_rate_is_at_the_border_until_a_larger_one_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = Evidence(Store(committed_folder())).groups(("study_width/B=1, wide", claims.CONTROL))
    assert judge._rates(groups) == "rates 0.7 and 0.3"
    monkeypatch.setattr(judge, "RATES_BEYOND", judge.RATES)  # as before that one
    assert judge._rates(groups) == "rates 0.7 (largest tried) and 0.3"
    assert judge._rates(groups[1:] * 2) == "", "0.3 and 0.3"
    others = Evidence(Store()).groups(("study_dropout/B=1, dropout 0.2", claims.CONTROL))
    assert judge._rates(others) == "", "one rate, and none was tried with dropout"
