"""The landing page says what the records say, names synthetic data, and changes when the records change."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
import torch
from bs4 import BeautifulSoup
from conftest import tiny

from tpsnet_lib import stats
from tpsnet_lib.analysis import architecture
from tpsnet_lib.analysis.final_runs import Final, finals, leading
from tpsnet_lib.analysis.groups import Group
from tpsnet_lib.analysis.training import AblationRow
from tpsnet_lib.claims import judge, mistakes
from tpsnet_lib.errors import DataError
from tpsnet_lib.files import project_root
from tpsnet_lib.progress import duration
from tpsnet_lib.report import build, closing, design_choices, first_screen, landing, limitations, notebook_html
from tpsnet_lib.runs import openings
from tpsnet_lib.runs.experiments import collect, load_experiment
from tpsnet_lib.runs.records import Record, Store, committed_folder
from tpsnet_lib.runs.test_set import TestResult
from tpsnet_lib.stats import Estimate


def opened(accuracy: float, exact: bool = True) -> TestResult:
    share = stats.proportion(round(accuracy * 10_000), 10_000)
    said = {"accuracy": accuracy, "low": share.low, "high": share.high}
    exacts = {f"exact_{name}": value - 0.001 for name, value in said.items()} | {"exact_n": 9979} if exact else {}
    return TestResult(
        Path(),
        {**said, "n": 10_000, **exacts, "not_choosing": False, "fingerprint": {"stamp": "CIFAR-10"}},
        torch.empty(0),
    )


def recipe(record: Record, accuracies: Sequence[float], name: str = "a", minutes: Sequence[float] = ()) -> Final:
    """A recipe of so many seeds, each with its test accuracy and minutes."""
    runs = []
    for seed in range(len(accuracies)):
        seconds = 60 * minutes[seed] if minutes else record.metrics["seconds"]
        config, measured = record.config.with_seed(seed), {**record.metrics, "seconds": seconds}
        runs.append(replace(record, config=config, metrics=measured))
    return Final(name, tuple(runs), tuple(map(opened, accuracies)))


def on(final: Final, *machines: tuple[str, int]) -> Final:
    """The same runs as if on other machines, each with its number of threads."""
    made = [{"hardware": hardware, "threads": threads} for hardware, threads in machines]
    pairs = zip(final.records, made, strict=True)
    return replace(final, records=tuple(replace(r, provenance={**r.provenance, **new}) for r, new in pairs))


def text(html: str) -> str:
    return " ".join(BeautifulSoup(html, "html.parser").get_text(" ").split()).replace(" ,", ",")


@pytest.mark.slow
def test_swapping_two_records_changes_the_answer(tiny_record: Record) -> None:
    other = replace(tiny_record, config=tiny(train__epochs=9))
    first = first_screen.answer([recipe(tiny_record, [0.95]), recipe(other, [0.94])])
    swapped = first_screen.answer([recipe(other, [0.94]), recipe(tiny_record, [0.95])])
    assert first != swapped
    assert "<strong>95.00%</strong></a> of the 10,000 test images correctly: one run" in first
    assert "The original, TPSNet, reports 94.84%; the difference is +0.16 points" in first
    assert "No committed record has been opened" in first_screen.answer([])


def test_the_answer_of_several_seeds_is_their_mean_with_its_interval(tiny_record: Record) -> None:
    scores = [0.951, 0.949, 0.956]
    three = replace(recipe(tiny_record, scores, "two_cores", [50, 55, 52]), at_once=3)
    said = text(first_screen.answer([three]) + first_screen.times([three]))
    mean = stats.mean(scores)
    assert f"{100 * mean.value:.2f}% of the 10,000 test images" in said
    assert "the mean of 3 seeds (94.90 to 95.60), 95% interval over the images 94.8 to 95.6" in said
    assert f"A run takes: two_cores 52:20 min on {tiny_record.hardware} (mean of 3, 3 side by side)" in said
    worse = recipe(tiny_record, [0.951, 0.949, 0.946], "two_cores", [50, 55, 52])
    assert text(first_screen.answer([worse])) != said


def test_a_clear_lead_and_a_clear_lag_have_their_verdicts(tiny_record: Record) -> None:
    ahead = text(first_screen.answer([recipe(tiny_record, [0.980, 0.981, 0.979])]))
    behind = text(first_screen.answer([recipe(tiny_record, [0.900, 0.901, 0.899])]))
    assert "ours is better" in ahead
    assert "ours is not better" in behind


def test_each_class_of_hardware_has_its_recipe_and_test_accuracy_chooses_none(tiny_record: Record) -> None:
    card = replace(tiny_record, provenance={**tiny_record.provenance, "device": "cuda"})
    longer = replace(card, config=tiny(train__epochs=9))
    found = [
        recipe(longer, [0.92], "best"),
        recipe(tiny_record, [0.93], "two_cores"),
        recipe(tiny_record, [0.99], "other"),
    ]
    assert [final.name for final in leading(found)] == ["best", "two_cores"]  # in the order that validation gave
    said = text(first_screen.answer(found))
    assert "on one GPU" in said
    assert "on two CPU cores" in said


def test_the_most_accurate_network_and_the_best_by_validation_have_their_names(tiny_record: Record) -> None:
    card = replace(tiny_record, provenance={**tiny_record.provenance, "device": "cuda"}, config=tiny(train__epochs=9))
    judged = replace(recipe(tiny_record, [0.93], "two_cores"), held_out=(tiny_record,))
    best = recipe(card, [0.95], "best")
    said = text(first_screen.answer([best, judged]))
    assert said.startswith("Our most accurate network (recipe best, ")
    assert "Our best network by validation (recipe two_cores, " in said
    assert "channels, the highest of 2 recipes opened on the test set, not chosen by validation." in said
    both = text(first_screen.answer([replace(best, held_out=(card,)), judged]))
    assert both.startswith("Our best network (recipe best, ")
    assert "not chosen" not in both


def test_a_verdict_on_runs_that_were_declared_late_is_marked_and_these_are_named() -> None:
    rows = [replace(row, verdict=stats.HOLDS) for row in judge.judge_claims(Store(committed_folder())) if row.n]
    late = {row.name for row in limitations.by_late_runs(rows)}  # were all settled
    assert not late & {"three layers against two", "three layers against four"}  # of the study, declared whole
    assert "optimizer" in late, "of 520 draws, 400 of them later"
    assert late <= limitations.only_by_late_choices(rows, {})
    assert "cost" in late, "timed anew when the study's own times had not settled it"
    assert "width at one block" in late, "at a rate that was added when the first had been seen"
    assert "overfitting" in late, "of a pair of depths that was chosen when another had been judged"
    assert not limitations.by_late_runs([replace(row, verdict=stats.NOT_SETTLED) for row in rows])
    said = text(limitations._of_runs(limitations.by_late_runs(rows)))
    assert "of search_classroom 400 of the 520 draws" in said
    assert "of study_rates the rate of 0.7" in said


def test_a_rate_is_tuned_for_the_networks_that_the_rates_were_tried_on_alone() -> None:
    rows = {row.name: row for row in judge.judge_claims(Store(committed_folder()))}
    assert rows["three layers against four"].tuned
    assert not any(rows[name].tuned for name in ("three layers against four, MACs", "block dropout"))
    assert rows["cost"].tuned, "of networks of the study, at its rates"
    assert not rows["learning rate"].tuned, "0.01 is what it asks about"
    assert rows["optimizer"].tuned, "by five rates for each optimizer"
    assert not any(row.drawn and row.n for row in rows.values())


def test_a_recipe_that_was_tried_after_the_test_is_named_in_chapter_4() -> None:
    store = Store(committed_folder())
    opened = {final.name: min(test.metrics["opened"] for _, test in final.opened) for final in finals(store)}
    first = opened["two_cores"]
    tried = [pair for name in ("two_cores_choices", "two_cores_harder") for pair in collect(name, store)]
    after = {run.label for run, record in tried if record and record.provenance["started"] > first}
    chapter = (project_root() / "notebooks" / "04_final_training.ipynb").read_text("utf-8")
    assert after == set(re.findall(r"\*([^*]+)\* when that of `two_cores` was", chapter))
    after_narrow = [
        record for _, record in tried if record and record.provenance["started"] > opened["two_cores_narrow"]
    ]
    assert 0 < len(after_narrow) < len(tried)
    assert "Some variants were trained when the test result of `two_cores_narrow` was known" in chapter


def test_a_limitation_says_what_a_new_rule_changed() -> None:
    def row(name: str, claim: str, verdict: str) -> Any:
        settled = verdict != stats.NOT_SETTLED
        return SimpleNamespace(name=name, claim=claim, verdict=verdict, settled=settled, short=name)

    rows = [row("a b", "c", stats.HOLDS), row("d", "d", stats.DOES_NOT_HOLD)]
    earlier = [row("a b", "c", stats.NOT_SETTLED), row("d", "d", stats.DOES_NOT_HOLD)]
    changed = text(limitations._of_rule("A rule", rows, earlier))
    assert changed.endswith("It settles 2 tests of the claims, the earlier one 1; (c) a b only now.")
    same = text(limitations._of_rule("A rule", earlier, earlier))
    assert same.endswith("settles 1 test of the claims, the earlier one 1.")


def test_what_the_first_openings_lacked_is_read_from_the_log() -> None:
    lacked = text(limitations.what_the_first_lacked())
    assert lacked.startswith(
        "card_wide, classroom, sprint10 and two_cores_narrow trained or opened from a tree that was not clean,"
        " 1 undeclared, for a look; "
    )


def test_a_recipe_that_replaced_another_was_begun_after_that_one_was_tested() -> None:
    store = Store(committed_folder())
    recipes = {final.name: final for final in finals(store)}
    looked = {line["record"]: datetime.fromisoformat(line["opened"]) for line in openings.all_openings(store)}
    for old, new in limitations.REPLACED.items():
        first_look = min(looked[record.id] for record in recipes[old].counted)
        assert first_look < min(record.span[0] for record in recipes[new].counted), old


@pytest.mark.slow
def test_each_test_of_the_claims_leads_to_its_records() -> None:
    rows = judge.judge_claims(Store(committed_folder()))
    soup = BeautifulSoup(landing._claims(rows, [], {}), "html.parser")
    links = soup.select("table tbody td a[href^='#test-']")
    assert len(links) == sum(row.n > 0 for row in rows)
    for link in links:
        assert soup.find(id=link["href"][1:]).select("a[href^='#record-']"), link["href"]


def test_the_first_screen_names_what_holds_what_does_not_and_what_helps(
    tiny_record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimate, small = Estimate(0.05, 0.04, 0.06, 3), Estimate(0.001, -0.002, 0.004, 3)
    rows = [
        AblationRow(
            Group("SGD, not Muon", (tiny(train__lr=0.4),), ()), estimate, ("Muon",), stats.HOLDS, rate="largest"
        ),
        AblationRow(Group("no cutout", (), ()), estimate.taken_from(0), ("cutout",), stats.DOES_NOT_HOLD, True),
        AblationRow(Group("random flips", (), ()), small, ("flip",), stats.DOES_NOT_HOLD),
    ]
    monkeypatch.setattr(design_choices, "ablation", lambda pairs: rows)
    monkeypatch.setattr(design_choices, "ABLATIONS", {"ours": "ablation"})
    verdicts = {"a": stats.HOLDS, "b": stats.DOES_NOT_HOLD, "c, d": stats.HOLDS, "e": stats.NOT_SETTLED}
    verdicts |= {"f": stats.HOLDS, "b, longer": stats.DOES_NOT_HOLD}
    measured: Any = [
        SimpleNamespace(
            n=3,
            name=name,
            claim=name,
            short=f"{name} is so",
            size="+3.0 points" if name == "b, longer" else "+2.0 points",
            answer=SimpleNamespace(interval="+1.0 to +4.0", groups=[SimpleNamespace(config=tiny_record.config)]),
            turns=name == "a",
            test=SimpleNamespace(headline=name != "b, longer"),
            remark={"a": "at 2 times the MACs", "c, d": "overfit by less than a point"}.get(name, ""),
            elsewhere="−1.0 points in 30" if name == "b" else "",
            verdict=verdict,
            settled=verdict != stats.NOT_SETTLED,
            records=(tiny_record,),
            largest_run=(1, {"f": 90, "b, longer": 9600}.get(name, 4800)),
        )
        for name, verdict in verdicts.items()
    ]
    shown = design_choices.design_choices(measured, {"a"}, recipe(tiny_record, [0.9], "ours"), True)
    claims, table = (BeautifulSoup(each, "html.parser") for each in shown)
    batch = tiny_record.config.train.batch_size
    assert claims.get_text("") == (
        "Which design choices make it so? Not isolated: ours differs from TPSNet in recipe, shape and arithmetic (0.0"
        " times the MACs), and its ingredients were tried only small. We tested the original's claims on smaller"
        f" networks (at most 1 parameters) and shorter runs (at most 9,600 steps of {batch} images; ours took"
        f" {architecture.steps(tiny_record.config):,} of {batch}); they may not carry over. Of 6 tests 3 hold, 2 do not"
        " hold (1 of these 5 only by late choices, †; 1 turn round in other runs, ‡), 1 open (depth and the length"
        " of a run). Of the 4 settled in"
        " 4,000 steps or more (one block a layer unless said), 2 hold, 2 do not hold; 3 that we picked (holds: above 0,"
        " does not hold: below a point):"
    )
    lines = [[cell.get_text("|") for cell in row.select("td")] for row in table.select("tbody tr")]
    assert lines == [
        ["a is so|†‡|at 2 times the MACs", "+2.0|+1.0 to +4.0", "holds"],
        ["c, d is so|overfit by less than a point", "+2.0|+1.0 to +4.0", "holds"],
        ["b is so|−1.0 in 30", "+2.0|+1.0 to +4.0", "does not hold"],
    ]
    unknown = design_choices.design_choices(measured, {"a"}, recipe(tiny_record, [0.9], "ours"))
    assert "0.0 times the MACs), and no variant of it was trained." in text(unknown[0])
    changes = design_choices.ablations([recipe(tiny_record, [0.9], "ours")], Store())
    sentence = text(design_choices.ingredients(changes))
    assert sentence.startswith(
        "Ingredients that bring most in small networks and short runs, of recipes scaled to them (rates tuned"
        " for SGD alone; harms may pay in longer runs): ours ("
    )
    assert sentence.endswith(
        " steps): Muon +5.0 (+4.0 to +6.0) (SGD at the largest rate tried); cutout −5.0 (−6.0 to −4.0)."
    )
    assert design_choices.ablations([recipe(tiny_record, [0.9], "theirs")], Store()) == {}
    assert design_choices.ingredients({}) == ""


def test_the_first_screen_says_what_skips_and_kernels_bring_only_where_both_sides_have_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def group(label: str, runs: int) -> Group:
        records: Any = [
            SimpleNamespace(config=SimpleNamespace(seed=seed), validation_accuracy=0.5, hardware="a")
            for seed in range(runs)
        ]
        return Group(label, (tiny(),), tuple(records))

    skips = [group(f"B={blocks}{plain}", 3) for blocks in (1, 3, 5) for plain in ("", ", plain")]
    variables = architecture.DESIGN_VARIABLES
    sides: Any = {"skips": (variables["skips"], skips), "F": (variables["F"], [group("F=3", 3), group("F=1", 0)])}
    monkeypatch.setattr(design_choices, "design_variables", lambda store: sides)
    said = text(design_choices.shapes(Store()))
    assert "skips at 1, 3 and 5 blocks a layer 0.0 (no interval: equal values in a group, n = 3), 0.0" in said
    assert "8 steps)" in said
    assert "kernels" not in said
    skips.pop()
    assert "skips at 1 and 3 blocks a layer" in text(design_choices.shapes(Store()))
    del skips[:]
    assert design_choices.shapes(Store()) == ""


def test_a_network_fitted_on_all_images_has_no_validation_accuracy(tiny_record: Record) -> None:
    whole = replace(tiny_record, config=tiny(data__fit_on="all"))
    reached = f"{100 * tiny_record.metrics['validation_accuracy']:.2f}%"
    assert reached in landing._own_run(tiny_record)
    said = landing._own_run(whole)
    assert reached not in said
    assert "fitted on these images too" in said


def test_the_readme_says_what_the_landing_page_says(tiny_record: Record) -> None:
    readme = "# T\n<!-- findings: from the records -->\nold\n<!-- end of findings -->\nrest"
    one, three = [recipe(tiny_record, [0.95])], [recipe(tiny_record, [0.95, 0.96, 0.94])]
    said = [" ".join(build.with_findings(readme, found).split()) for found in (one, three, [])]
    assert len(set(said)) == 3
    assert "95.00% of the 10,000 test images" in said[0]
    assert "the mean of 3 seeds" in said[1]
    assert all(len(each.split()) < 140 for each in said)
    assert all("old" not in each and each.endswith("<!-- end of findings --> rest") for each in said)


def test_the_mistakes_lead_to_a_section_of_a_notebook() -> None:
    folder, known = project_root() / "notebooks", set()
    for path in folder.glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells  # type: ignore[no-untyped-call]
        lines = [line for cell in cells if cell.cell_type == "markdown" for line in cell.source.splitlines()]
        heads = [line.lstrip("#") for line in lines if line.startswith("#")]
        known |= {f"nb{path.stem[:2]}-{notebook_html._slug(head)}" for head in heads}
    assert landing.MISTAKES_SHOWN in known
    assert landing._mistakes(Store(), {}).count("<li>") == 3


def test_the_runs_that_another_epoch_would_speak_for_are_listed() -> None:
    store = Store(committed_folder())
    listed = BeautifulSoup(landing._earlier_epochs(store, {}), "html.parser")
    assert len(listed("a")) == sum(each.is_another for each in mistakes.choices_by_lowest_loss(store)) > 10
    assert landing._earlier_epochs(Store(), {}) == ""


def test_a_page_from_synthetic_images_says_so_first(tiny_record: Record, tiny_store: Store) -> None:
    sections = landing.sections(tiny_store, tiny_record, synthetic=True)
    assert sections[0].id == "synthetic"
    assert "say nothing about CIFAR-10" in sections[0].html
    own = next(section for section in sections if section.id == "own")
    assert "shapes10" in own.html
    assert f"{100 * tiny_record.metrics['validation_accuracy']:.2f}%" in own.html


def test_what_is_to_be_run_is_named_with_what_it_needs_and_its_minutes(tmp_path: Path) -> None:
    rows = BeautifulSoup(closing._pending(Store(tmp_path)), "html.parser")("tr")
    heads = [cell.text for cell in rows[0]("th")]
    assert heads == ["experiment", "runs left", "needs", "about", "question"]
    cells = {row.td.text: [cell.text for cell in row("td")] for row in rows[1:] if row.td}
    gpu, cores = load_experiment("card_wide"), load_experiment("two_cores")
    assert cells["card_wide"][1:4] == [
        f"{len(gpu.runs)} of {len(gpu.runs)}",
        "one GPU",
        duration(60 * gpu.minutes * len(gpu.runs)),
    ]
    assert cells["card_wide"][4] == gpu.question
    assert cells["two_cores"][2] == "two CPU cores"
    assert cells["two_cores"][3] == duration(60 * cores.minutes * len(cores.runs))


def test_without_data_the_report_falls_back_and_a_wrong_place_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TPSNET_DATA", raising=False)
    monkeypatch.setattr("tpsnet_lib.data.cifar10.find_root", lambda *_, **__: None)
    assert build._dataset("quick", {}).startswith("shapes10")
    assert build._dataset("smoke", {}).startswith("shapes10")
    with pytest.raises(DataError, match=str(tmp_path)):
        build._dataset("quick", {"data": str(tmp_path)})


def test_chapters_that_are_older_than_records_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, path = Store(committed_folder()), tmp_path / "a.ipynb"
    for end, said in (("2020-01-01T00:00:00+00:00", True), ("9999-01-01T00:00:00+00:00", False)):
        notebook = nbformat.v4.new_notebook(metadata={"papermill": {"end_time": end}})
        nbformat.write(notebook, path)
        build._warn_of_older_chapters([path], store)
        assert ("records are newer than the chapters" in capsys.readouterr().err) == said


def test_a_page_lists_the_run_that_its_chapter_trained_where_no_record_is_known_by_its_id(
    tiny_record: Record, tmp_path: Path
) -> None:
    (chapter := tmp_path / "04.ipynb").write_text(f"Record {tiny_record.id}, 15.9 minutes")
    (another := tmp_path / "05.ipynb").write_text("no record of it")
    assert build._is_new(tiny_record, [], [another, chapter])
    assert not build._is_new(tiny_record, [], [another])
    assert not build._is_new(tiny_record, [tiny_record], [chapter])
