"""Two records that change places change the sentences that depend on them, and no others: in the claims table, and in
the findings of notebooks 02 and 04, whose own cells are run on the committed records."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from swapping import COMMITTED, HIGH, LOW, recorded, swapped

from tpsnet_lib.analysis import design_predictor
from tpsnet_lib.claims import claims, judge
from tpsnet_lib.claims.evidence import Answer, Evidence
from tpsnet_lib.files import project_root
from tpsnet_lib.runs.records import Record, Store

Findings = dict[tuple[str, int], str]  # by cell, and number in the cell


# The claims table ---------------------------------------------------------------------------------------------------


TESTS = {test.name: test for test in claims.TESTS}


def estimates(store: Store, names: Iterable[str] = TESTS) -> dict[str, Answer]:
    """What the tests of the claims that have records say, by name."""
    evidence = Evidence(store)
    answers = {name: judge.largest_answer(list(TESTS[name].answers(evidence))) for name in names}
    return {name: answer for name, answer in answers.items() if answer.estimate.n}


@functools.cache
def standing() -> dict[str, Answer]:
    """What the tests of the claims say of the committed records."""
    return estimates(COMMITTED)


def ids(answer: Answer) -> set[str]:
    """The records that an answer looks at."""
    return {record.id for group in answer.groups for record in group.records}


def score(record: Record) -> float:
    return float(record.metrics["validation_accuracy"])


def apart(answer: Answer) -> tuple[Record, Record]:
    """Two records of a test whose places matter: one of each side, or the best and the worst of many networks."""
    if len(answer.groups) > 4:  # many networks, of which the furthest apart count
        records = [record for group in answer.groups for record in group.records]
        ranked = sorted(records, key=score)
        return ranked[-1], ranked[0]
    return answer.groups[0].records[0], answer.groups[-1].records[0]


def test_most_claims_that_a_cpu_can_answer_have_records() -> None:
    assert len(standing()) == 21


@pytest.mark.parametrize("name", TESTS)
def test_a_claim_turns_with_its_records_and_with_no_others(name: str, tmp_path: Path) -> None:
    if name not in standing():
        pytest.skip("no records yet")
    one, other = apart(standing()[name])
    others = [at for at, answer in standing().items() if not {one.id, other.id} & ids(answer)][:2]
    assert others
    after = estimates(swapped(tmp_path, one, other), [name, *others])
    changed, before = after[name], standing()[name]
    assert (changed.judged.value, changed.notes) != (before.judged.value, before.notes)
    for at in others:
        assert after[at].judged == standing()[at].judged


# The notebooks ------------------------------------------------------------------------------------------------------


class Silent:
    """Stands for what draws: any call of it shows nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


def by_tag(notebook: str, store: Store, **more: Any) -> dict[str, list[str]]:
    """What the cells tagged `records` of a notebook say where the records are those of a store, by their other tag.

    The cells tagged `setup` run before them; nothing is drawn, and `more` stands for what other cells leave."""
    (path,) = (project_root() / "notebooks").glob(f"{notebook}_*.ipynb")
    found: dict[str, list[str]] = {}
    room: dict[str, Any] = {
        "profile": "quick",
        "dataset": "shapes10",
        "data": "",
        "store": "",
        "live_images": 1,
        "recompute": False,
    }
    room |= dict.fromkeys(re.findall(r"\w+_guess", path.read_text("utf-8")))  # nobody has predicted anything
    for cell in nbformat.read(path, as_version=4).cells:
        tags = cell.metadata.get("tags", [])
        if not {"setup", "records"} & set(tags):
            continue
        if "records" in tags:
            lab = SimpleNamespace(store=store, show=lambda figure: None)
            said = found.setdefault(next(tag for tag in tags if tag != "records"), [])

            def keep(text: str, records: Any = (), intervals: Any = (), said: list[str] = said) -> None:
                said.append(text)

            room |= {"lab": lab, "plots": Silent(), "finding": keep, **more}
        exec(compile(cell.source, str(tags), "exec"), room)
    return found


def effects(store: Store) -> dict[str, list[str]]:
    """Notebook 02 from its records, without a stopwatch."""
    predictor = SimpleNamespace(**{**vars(design_predictor), "latency": lambda *args: 1.0})
    return by_tag("02", store, design_predictor=predictor, losses={}, game_macs=3_500_000, latency_seconds=0.0)


@functools.cache
def effects_as_they_are() -> dict[str, list[str]]:
    """What notebook 02 says of the committed records."""
    return effects(COMMITTED)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (("study_kernels", "F=1"), ("study_kernels", "F=5"), {"variables", "summary", "seeds"}),
        (("study_plain", "B=5, plain"), ("study_blocks", "B=5"), {"skips", "seeds", "variables", "summary"}),
        (("effects_layers", "N=3"), ("effects_blocks", "B=5"), {"seeds", "game"}),
    ],
)
def test_the_findings_on_a_design_variable_turn_with_its_runs_and_with_no_others(
    one: tuple[str, str], other: tuple[str, str], expected: set[str], tmp_path: Path
) -> None:
    before = effects_as_they_are()
    assert set(before) == {"skips", "seeds", "budgets", "variables", "costs", "game", "summary"}
    after = effects(swapped(tmp_path, recorded(*one, 0), recorded(*other, 0)))
    assert {tag for tag in before if before[tag] != after[tag]} == expected


def training(store: Store) -> dict[str, list[str]]:
    """Notebook 04 from its records; an earlier run stands for the one that it trains."""
    more = {"record": recorded("sprint10", "sprint10"), "test": None, "guess": None, "network_drawing": Silent()}
    return by_tag("04", store, display=lambda *args: None, experiment="quick", **more)


@functools.cache
def training_as_it_is() -> dict[str, list[str]]:
    """What notebook 04 says of the committed records."""
    return training(COMMITTED)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (("ablation", "the whole recipe"), ("ablation", "no cutout"), {"ablation"}),
        (("ablation_broad", "the whole recipe"), ("ablation_broad", "no cutout"), {"ablation"}),
        (("search_classroom_long", HIGH), ("search_classroom_long", LOW), {"annealed"}),
        (
            ("two_cores_choices", "cutout of 12 pixels, wider"),
            ("two_cores_narrow_split", "two_cores_narrow_split"),
            {"tried", "beside"},
        ),
        (
            ("card_broad_split", "card_broad_split"),
            ("two_cores_narrow_split", "two_cores_narrow_split"),
            {"winner", "tried", "beside"},
        ),
    ],
)
def test_the_findings_on_the_training_turn_with_their_runs_and_with_no_others(
    one: tuple[str, str], other: tuple[str, str], expected: set[str], tmp_path: Path
) -> None:
    before = training_as_it_is()
    assert set(before) == {"winner", "ablation", "tried", "lowest-loss", "annealed", "seeds", "beside"}
    runs = swapped(tmp_path, recorded(*one), recorded(*other))
    after = training(Store(runs.writable, *COMMITTED.folders))  # test results are read from the committed folder
    assert {tag for tag in before if before[tag] != after[tag]} == expected
