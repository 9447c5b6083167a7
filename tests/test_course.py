"""The opening line, predictions and tasks of the notebooks: one helpful line for any answer, and never a traceback."""

from __future__ import annotations

import ast
import inspect
import math
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from IPython.core.interactiveshell import InteractiveShell
from matplotlib import pyplot
from torch import nn

from tpsnet_lib import answer_checks, cell_errors, code_checks, course, stats, tasks
from tpsnet_lib.config import TrainConfig
from tpsnet_lib.errors import ConfigError, DataError, TpsnetError
from tpsnet_lib.files import project_root
from tpsnet_lib.plots import style
from tpsnet_lib.runs.records import Record

NONSENSE: list[Any] = ["18874368", "yes", [1, 2], {}, object(), True, float("nan"), torch.ones(3), len]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the course says."""
    said: list[str] = []
    for home in (course, tasks, cell_errors):
        monkeypatch.setattr(home, "finding", said.append)
    return said


# The opening line


def test_without_cifar_the_lab_opens_on_synthetic_images_and_says_so(
    lines: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TPSNET_DATA", str(tmp_path))
    lab = course.open_lab()
    assert (lab.dataset, lab.root, len(lines)) == ("shapes10", None, 1)
    assert "synthetic images" in lines[0]
    assert (len(lab.train), len(lab.validation), len(lab.all_train)) == (9000, 1000, 10_000)
    assert lab.class_names[0] == "disc"
    with pytest.raises(DataError, match=r"download.*`dataset = \"shapes10\"`"):
        course.open_lab("cifar10")
    with pytest.raises(DataError, match="shapes10"):
        course.open_lab("cifar")


def test_a_parameter_of_another_type_is_refused_before_anything_is_read(
    lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course, "notebook_names", lambda: {"profile": "quick", "live_depths": 8, "live_steps": 30})
    with pytest.raises(ConfigError, match=r"^parameter live_depths is 8: give a value such as \[1, 4, 8\]$"):
        course.open_lab("shapes10")
    assert lines == []


def fails(code: str, names: Mapping[str, Any] | None = None) -> None:
    """Run a cell that fails in a kernel whose errors are explained."""
    shell = InteractiveShell()
    shell.user_ns |= names or {}
    with pytest.MonkeyPatch.context() as patch:
        for home in (cell_errors, answer_checks):
            patch.setattr(home, "running_shell", lambda: shell)
        cell_errors.explain_errors()
        cell_errors.explain_errors()  # by a second chapter that is opened
        shell.run_cell(code, store_history=True)


def test_a_name_that_is_not_defined_is_explained(lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    known = {"pixel_std": 1, "STD": 2}
    for name in ("pixel_st", "std", "holds", "log", "perm", "relu", "cdist", "flip", "math", "abc"):
        fails(f"answer = {name}", known)
        assert f"name '{name}' is not defined" in capsys.readouterr().out, "the traceback"
    assert lines == [
        "`pixel_st` is not defined: did you mean `pixel_std`?",
        "`std` is not defined: did you mean `STD`?",
        "`holds` is not defined: was a cell above not run (a folded one too), or is a line missing that gives it a"
        " value? (If a text is meant, it stands in quotes.)",
        "`log` is not defined: write `np.log`, after `import numpy as np`.",
        "`perm` is not defined: write `math.perm`, after `import math`.",
        "`relu` is not defined: write `F.relu`, after `import torch.nn.functional as F`.",
        "`cdist` is not defined: write `torch.cdist`, after `import torch`.",
        "`flip` is not defined: write `np.flip`, after `import numpy as np`. (A text stands in quotes.)",
        "`math` is not defined: write `import math` before it.",
        "`abc` is not defined: a text stands in quotes. If the module is meant, write `import abc` before it.",
    ]


@pytest.mark.parametrize("given", ["02_architecture_effects.ipynb", "02 of mine.ipynb"])
def test_a_name_that_a_cell_of_the_chapter_gives_is_no_typing_error(
    lines: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str
) -> None:
    (chapter,) = (project_root() / "notebooks").glob("02_*.ipynb")
    shutil.copy(chapter, tmp_path / given)  # a copy of the chapter, or one of another name
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / given))
    for name in ("task_4", "epochs_of"):
        fails(f"answer = {name}", {"task_2": 1})
    assert lines[0] == (
        "`task_4` is not defined: the cell that gives it a value was not run to its end (it may be folded)."
        " It stands in *The family, and what a member costs*; after a restart, run all cells from the top."
    )
    assert "was not run to its end (it may be folded)" not in lines[1], "a name of another chapter"
    fails("anwser = 3\nanswer = task_4.check(answer)", {"task_4": course.task("size", course.number(3))})
    fails("anwser = 3\nanswer = task_4.check(answer)", {"task_2": 1})
    assert lines[2:] == ["This cell gives no value to `answer`: is it `anwser`, misspelt?", lines[0]]


@pytest.mark.parametrize("given", ["", "x, size", "torch.ones(2)"])
def test_a_function_that_is_called_in_the_line_of_the_check_is_to_be_handed_over(lines: list[str], given: str) -> None:
    known = {"area": math.sqrt, "area_task": course.task("area", course.number(3)), "torch": torch}
    fails(f"area = area_task.check(area({given}))", known)
    assert lines[-1] == "Hand over `area` itself, without the brackets behind it: the check calls it."


def test_an_id_among_the_parameters_stands_in_quotes(lines: list[str]) -> None:
    for record in ("3fa9c21b7d10", "12ab"):
        fails(f'profile = "quick"\nrecord = {record}')
    assert lines == ["An id stands in quotes."] * 2


def test_a_name_of_the_object_itself_is_written_behind_it(lines: list[str]) -> None:
    block = "class Block:\n    def __init__(self):\n        self.conv1 = 1\n        print(conv1)\n\n\nBlock()"
    fails(block, {"conv": 2})
    fails("len()")
    fails("Block = type('Block', (), {'__init__': lambda self, inputs: None})\nBlock()")
    assert lines[0] == "`conv1` is not defined: write `self.conv1`."
    assert lines[-1].startswith("Brackets call a function or class: leave them out")


def test_a_key_of_a_dict_without_quotes_is_told_to_stand_in_them(lines: list[str]) -> None:
    fails("mine = {layers: [3], 'blocks': {'int': [1, 8]}}", {"player": 1})
    fails("widths = {each: 1 for each in layers}", {"player": 1})
    assert lines[0] == '`layers` is not defined: a key of a dict stands in quotes, as in `{"layers": ...}`.'
    assert "key" not in lines[1]


ALONE = "Write the number alone, without words or a unit."
IN_QUOTES = "Words stand in quotes, several names in a list with each in quotes, and a number in digits."


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("answer =", "Nothing stands right of `=`: write your answer there."),
        ("answer =  # your number", "Nothing stands right of `=`: write your answer there."),
        *[(f"answer = {wrong}", ALONE) for wrong in ("about 1.22", "1.22%", "84 %", "45619 images", "18 million")],
        *[(f"answer = {wrong}", IN_QUOTES) for wrong in ("two words", "three hundred", "[random flip, other flip]")],
        ("def f(x):\n\nf = task.check(f)", "Below a line that ends with `:` stands at least one more, four spaces"),
        ("def f(x):\n    y = x\n   return y", "The lines of a block begin below one another"),
        ("logits = network(inputs", "The cell ends too early: a bracket that closes is missing"),
        ("logits = network(inputs\nx = 3", "Count the brackets: each that opens needs one that closes it."),
        ("def f(x):\n    compare distances", "Python cannot read the line above the mark"),
        ("for = 3", "Python cannot read the line above the mark"),
        ("profile = 'quick'\ndataset = cifar10", "`cifar10` is not defined: a text stands in quotes."),
        ("answer = 'two words", "A text begins and ends with the same quote"),
        ("answer = 64x128", "A product is written with `*`"),
        ("answer = 64×128", "A product is written with `*`"),
        ("answer = x[0] / y", "A tuple or list is not calculated with as a whole: take one of its values"),
        ("answer = x[3]", "An index is too large: counting begins with 0"),
        ("answer = size.chek(1.22)", "There is no `chek`: did you mean `check`?"),
        ("profile = 'quick'\ndraws = 0\nseed = 0", "**parameter draws is 0: give a number of at least 100**"),
    ],
)
def test_a_cell_that_fails_is_explained(cell: str, said: str, lines: list[str]) -> None:
    task = course.task("size", course.number(3))
    fails(cell, {"x": torch.zeros(3), "y": (1.0, 2.0), "size": task})
    (line,) = lines
    assert line.startswith(said)


@pytest.mark.parametrize("cell", ["answer = 1 / 0", "answer = 3", "%who", "a = b = 2"])
def test_a_cell_whose_meaning_is_unknown_gets_no_line(cell: str, lines: list[str]) -> None:
    fails(cell)
    assert lines == []


def test_a_place_without_cifar_is_told_in_the_parameters_of_a_notebook(
    lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TPSNET_DATA", raising=False)
    with pytest.raises(DataError, match=r"^no CIFAR-10 in /nowhere, which does not exist: .*the parameter `data`"):
        course.open_lab(data="/nowhere")
    assert lines == []


def test_a_question_with_other_choices_is_another_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "_asked", {})
    monkeypatch.setattr(course, "has_front_end", lambda: True)
    first, again, other = (course.predict("How many pairs?", low=0, high=high) for high in (15, 15, 1))
    assert first is again
    assert first is not other


def test_records_go_to_the_given_store_and_a_rehearsal_leaves_none(lines: list[str], tmp_path: Path) -> None:
    assert course.open_lab("shapes10", store=str(tmp_path)).store.writable == tmp_path
    lab = course.open_lab("shapes10", recompute=True)
    assert lab.store.all() == []
    assert course.open_lab("shapes10", store=str(tmp_path), recompute=True).store.writable == tmp_path
    assert len(course.open_lab("shapes10").store.folders) == 2
    assert not any("cannot be written" in line for line in lines)


def test_a_place_for_records_that_cannot_be_written_is_named_at_once(lines: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    course.open_lab("shapes10", store=str(tmp_path / "file" / "records"))
    assert lines[-1].startswith(f"**{tmp_path}/file/records cannot be written**")
    assert "the parameter `store`" in lines[-1]


@pytest.mark.parametrize(
    ("stamp", "part"),
    [
        ("CIFAR-10", "**CIFAR-10**, 50,000 training images."),
        ("CIFAR-10 (98 inexact images)", "98 inexact images among its 60,000"),
        ("CIFAR-10 (unverified)", "unverified"),
    ],
)
def test_the_notice_names_the_state_of_the_copy(
    stamp: str, part: str, lines: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = course.cifar10.Fingerprint(stamp, "0", True)
    monkeypatch.setattr(course.cifar10, "find_root", lambda data=None: tmp_path)
    monkeypatch.setattr(course.datasets, "fingerprint", lambda dataset, root: found)
    assert course.open_lab().root == tmp_path
    assert part in lines[0]


# Figures


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """What is displayed: the data by kind, and the metadata."""
    outputs: list[tuple[Any, Any]] = []
    monkeypatch.setattr(
        "IPython.display.display", lambda data, metadata=None, raw=False: outputs.append((data, metadata))
    )
    return outputs


def test_a_figure_carries_its_caption_to_the_output(tiny_record: Record, shown: list[tuple[Any, Any]]) -> None:
    fig, _ = style.figure()
    assert style.describe(fig, caption="Up.", alt="A rising line.", records=[tiny_record]) is fig
    course.Lab.show(fig)
    (_, metadata), (caption, _) = shown
    about = metadata["image/svg+xml"]
    assert (about["alt"], about["records"]) == ("A rising line.", [tiny_record.id])
    assert '<svg role="img" aria-label="A rising line." ' in shown[0][0]["image/svg+xml"]
    assert about["provenance"].startswith("shapes10, n = 1 run, ")
    assert caption["text/markdown"] == "*Up.*"
    assert "n = 1 run" in caption["text/html"]


def test_a_figure_without_a_description_is_refused(shown: list[tuple[Any, Any]]) -> None:
    fig, _ = style.figure()
    with pytest.raises(ValueError, match="describe"):
        style.show(fig)
    assert not shown


PHONES = {(1, 1): r"2\d\d", (1, 2): r"4\d\d", (1, 3): r"6\d\d", (2, 3): r"12\d\d"}  # by panels, the height


@pytest.mark.parametrize(("panels", "height"), PHONES.items())
def test_a_phone_has_one_panel_drawn_narrow_and_several_in_a_column(
    panels: tuple[int, int], height: str, shown: list[tuple[Any, Any]]
) -> None:
    fig, axes = style.figure(*panels, sharey=True, squeeze=False)
    axes[0][0].set_ylabel("height")
    style.show(style.describe(fig, caption="Up.", alt="Lines.", records={"one": [], "two": []}))
    narrow = shown[0][1]["image/svg+xml"]["narrow"]
    assert bool(narrow) == bool(height)
    assert not height or re.search(rf'viewBox="0 0 259\.\d+ {height}\.', narrow)
    assert not height or narrow.count(">height<") == panels[0] * panels[1]


def test_a_phone_has_the_legend_above_the_panel_and_long_names_above_their_rows(
    shown: list[tuple[Any, Any]],
) -> None:
    fig, axes = style.figure()
    axes.plot([0, 1], [0, 1], label="a line")
    axes.set_yticks([0, 1], ["short", "logits that are not scaled down"])
    axes.legend()
    style.show(style.describe(fig, caption="Up.", alt="A line."))
    assert axes.get_legend() is None
    assert not any(name.get_visible() for name in axes.get_yticklabels())
    assert [text.get_text() for text in axes.texts] == ["short", "logits that are not scaled down"]


def test_pyplot_knows_no_figure_so_that_no_other_cell_shows_it() -> None:
    style.figure()
    assert pyplot.get_fignums() == []


def test_a_finding_takes_its_records_along(tiny_record: Record, shown: list[tuple[Any, Any]]) -> None:
    style.finding("It holds.")
    style.finding("It holds.", {"draw 3": [tiny_record]})
    assert shown[0][1] is None
    assert shown[1][1]["rows"] == {"draw 3": [tiny_record.id]}
    assert shown[1][1]["provenance"].startswith("shapes10, n = 1 run, ")


def test_a_number_and_its_interval_stay_in_one_line_of_a_table(shown: list[tuple[Any, Any]]) -> None:
    style.finding("| claim | by | n |\n| --- | --- | --- |\n| N: 3 over 2 | +4.3 points (+3.9 to +4.7) | 5 : 6 |")
    *_, claim, gain, n = shown[0][0].data.strip("| ").split(" | ")
    assert claim.endswith("| N: 3 over 2")
    assert (gain, n) == tuple(cell.replace(" ", "\u00a0") for cell in ("+4.3 points (+3.9 to +4.7)", "5 : 6"))


def test_a_finding_says_on_demand_how_its_intervals_were_made(shown: list[tuple[Any, Any]]) -> None:
    rate = stats.proportion(9, 10)
    style.finding(f"{rate:%} are right.", intervals=[rate, rate])
    (sentence, about) = shown[0]
    method = "95% intervals: n = 10 images, Wilson interval."
    assert sentence.data.startswith("90.00% (")
    assert sentence.data.endswith(f"<summary>Method</summary>{method}</details>")
    assert about["provenance"] == method
    style.finding("Which is which.", intervals={"right": rate, "better": stats.welch_difference([1, 2], [3, 5])})
    assert "n = 10 images, Wilson interval (right); n = 2 seeds a side, Welch t interval (better)." in shown[1][0].data


def test_records_stay_with_the_rows_that_they_are_of(tiny_record: Record) -> None:
    fig, _ = style.figure()
    about = style.description(style.describe(fig, caption="Up.", alt="A line.", records={"no Muon": [tiny_record]}))
    assert (about.records, about.rows) == ((tiny_record.id,), {"no Muon": (tiny_record.id,)})


def test_the_state_of_the_copy_is_not_repeated_under_figures() -> None:
    assert style.data_set("CIFAR-10 (98 inexact images)") == "CIFAR-10"


# Predictions


def test_nobody_is_asked_where_nobody_is_there(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    guess = course.predict("How many?", low=0, high=10)
    course.compare(guess, 3)
    assert guess is None
    assert lines == []


@pytest.mark.parametrize(
    ("asked", "value"),
    [({"low": 0, "high": 10}, 7), ({"low": 0.0, "high": 1.0}, 0.25), ({"options": ["a", "b"]}, "b"), ({}, "many")],
)
def test_a_prediction_is_kept_before_the_result_and_not_after(
    asked: dict[str, Any], value: Any, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course, "has_front_end", lambda: True)
    monkeypatch.setattr(course, "_asked", {})
    boxes: list[Any] = []
    monkeypatch.setattr("IPython.display.display", boxes.append)
    guess = course.predict("How many?", unit="pairs", **asked)
    assert guess is not None
    _, above, row = boxes[0].children
    knob, line = above.children[0], row.children[-1]
    assert (guess.value, line.value) == (None, course.NOT_CHOSEN), "a slider shows a value and is no prediction"
    assert len(row.children) == (1 if "options" in asked else 2), "a click on an option keeps it"
    if "options" not in asked:
        row.children[0].click()
        middle = (asked["low"] + asked["high"]) / 2 if asked else None
        assert guess.value == middle, "the button keeps the value that a slider shows"
        assert asked or line.value == "Write an answer first."
    knob.value = value
    assert guess.value == value, "a choice is kept as it is made"
    assert course.predict("How many?", unit="pairs", **asked) is guess, "its cell was run again"
    assert boxes[-1].children[2].children[-1].value == f"Kept: {value} pairs"
    assert boxes[-1].children[1].children[0].value == value, "and it shows what was kept"
    course.compare(guess, 3)
    assert f"**{value} pairs**" in lines[0]
    knob.value = {"many": "few", "b": "a"}.get(value, 0)
    assert guess.value == value
    assert "restart the kernel" in line.value


def test_nothing_is_asked_that_makes_no_sense(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "has_front_end", lambda: True)
    monkeypatch.setattr(course, "_asked", {})
    boxes: list[Any] = []
    monkeypatch.setattr("IPython.display.display", boxes.append)
    course.compare(course.predict("What share has SGD?", low=0, high=100, when=False), 100)
    assert (lines, boxes) == ([], [])


def test_a_notebook_run_as_a_whole_says_once_how_to_predict(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "has_front_end", lambda: True)
    monkeypatch.setattr(course, "_asked", {})
    boxes: list[Any] = []
    monkeypatch.setattr("IPython.display.display", boxes.append)
    course.compare(course.predict("Which?", ["a", "b"]), "a")
    course.compare(course.predict("How many?", low=0, high=9), 3)
    assert lines == [f"*Which?* Result: **a**. ({course.NOT_KEPT})", "*How many?* Result: **3**."]
    assert [box.children[2].children[-1].value for box in boxes] == [course.SHOWN] * 2, "nothing waits for a click"
    course.predict("Which?", ["a", "b"])
    assert boxes[-1].children[2].children[-1].value == course.SHOWN
    monkeypatch.setattr(course, "has_front_end", lambda: False)
    course.open_lab("shapes10")
    monkeypatch.setattr(course, "has_front_end", lambda: True)
    course.predict("Which?", ["a", "b"])
    assert boxes[-1].children[2].children[-1].value == course.NOT_CHOSEN, "the chapter was opened again"


@pytest.mark.parametrize("high", [3.0, 5.0, 10.0])
def test_a_slider_can_keep_round_numbers(high: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "has_front_end", lambda: True)
    monkeypatch.setattr(course, "_asked", {})
    boxes: list[Any] = []
    monkeypatch.setattr("IPython.display.display", boxes.append)
    course.predict("How many points?", low=0.0, high=high)
    step = boxes[0].children[1].children[0].step
    assert 0.5 / step == pytest.approx(round(0.5 / step))
    assert high / step <= 1000


def test_knobs_of_one_value_show_a_figure_without_sliders(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(course, "has_front_end", lambda: True)
    monkeypatch.setattr(style, "show", shown.append)
    course.explore(lambda draws: f"of {draws}", draws=[2])
    assert shown == ["of 2"]


# Tasks


def doubled(values: torch.Tensor) -> torch.Tensor:
    return 2 * values


def squares(answer: Callable[[int], Any]) -> list[Any]:
    return [answer(1), answer(2)]


def refused() -> None:
    raise ConfigError("there is no such variable")


CHECKS: dict[str, tuple[answer_checks.Check, Any, Any]] = {  # a check, a right answer, a wrong one
    "number": (answer_checks.number(lambda: 1.221, within=0.02), 1.22, 1),
    "names": (
        answer_checks.names({"flip", "rotation"}, known=["crop", "flip", "rotation"]),
        ["rotation", "flip"],
        ["crop"],
    ),
    "function": (
        code_checks.function(doubled, torch.arange(3)),
        lambda values: values + values,
        lambda values: values + 1,
    ),
}


@pytest.mark.parametrize("kind", CHECKS)
def test_any_answer_gets_one_line(kind: str, lines: list[str]) -> None:
    check, right, wrong = CHECKS[kind]
    task = course.task("no such task", check, ["look again"])
    assert task.check(right) is right
    for blank in (None, ..., "", " "):
        task.check(blank)
    task.check(wrong)
    for answer in NONSENSE:
        task.check(answer)
    assert lines[0] == "**Right.**"
    assert all(line.startswith(answer_checks.NOT_ANSWERED) for line in lines[1:5])
    empty = [
        answer_checks.NOT_ANSWERED if isinstance(each, list | dict) and not each else "**Not yet.**"
        for each in NONSENSE
    ]
    for line, start in zip(lines[5:], ["**Not yet.**", *empty], strict=True):
        assert line.startswith(start)
        assert "\n" not in line.partition("\n\n<details>")[0]
    assert len(lines) == 6 + len(NONSENSE)


def test_hints_come_in_steps(lines: list[str]) -> None:
    task = course.task("size", answer_checks.number(10), ["first hint", "second hint"])
    for answer in (1, "about one", 2, [3], 3):
        task.check(answer)
    assert ["first hint" in lines[0], "second hint" in lines[2], "- first hint\n- second hint" in lines[4]] == [
        True
    ] * 3
    assert "too small" in lines[0]
    assert not any("hint" in line for line in (lines[1], lines[3])), "an answer of another form costs no hint"


def test_a_hint_that_fits_comes_again_before_one_that_does_not(lines: list[str]) -> None:
    task = course.task("sign", answer_checks.number(10), {"lower it": "large", "raise it": "small"})
    for answer in (20, 30, 5, 40):
        task.check(answer)
    assert [line.split("*Hint")[1].split("*")[0] for line in lines[:3]] == [
        " 1 of 2: lower it", " 1 of 2: lower it", " 2 of 2: raise it"
    ]  # fmt: skip
    assert "- lower it\n- raise it" in lines[3], "all have been given"


def test_a_hint_that_fits_nothing_is_on_the_task_as_a_whole(lines: list[str]) -> None:
    task = course.task("sign", answer_checks.number(10), {"lower it": "large"})
    task.check(5)
    assert "*Hint 1 of 1, on the task as a whole: lower it*" in lines[0]


def test_a_power_that_is_none_is_told(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    task = course.task("area", answer_checks.number(9), ["one"])
    monkeypatch.setattr(tasks, "_running_cell", lambda: ast.parse("answer = 3^2\nanswer = task.check(answer)"))
    task.check(3 ^ 2)
    assert "In Python `^` is no power: write `**`, as in `3**2`." in lines[0]
    task.check(9)
    assert "Right" in lines[1]


def test_hints_can_be_asked_for(lines: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "01.py").write_text("# %% sign\nanswer = 10\n# %% other\nanswer = 11\n")
    monkeypatch.setattr(tasks.solutions, "folder", tmp_path)
    task = course.task("sign", answer_checks.number(10), ["one", "two"])
    monkeypatch.setattr(tasks, "notebook_names", lambda: {"sign_task": task})
    task.check(None)
    assert "`sign_task.hint()` gives a hint." in lines[0]
    for part in ("*Hint 1 of 2: one*", "*Hint 2 of 2: two*", "answer = 10", "- one\n- two"):
        task.hint()
        assert part in lines[-1] or part == "- one\n- two"
    assert "11" not in lines[-1]


def test_steps_are_counted_where_somebody_waits(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert list(course.track(range(3))) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(course, "has_front_end", lambda: True)
    monkeypatch.setattr("tpsnet_lib.progress._in_jupyter", lambda: True)
    monkeypatch.setenv("TPSNET_PROGRESS", "auto")
    for step in course.track(range(3), "networks"):
        assert "networks" not in capsys.readouterr().err or step > 0, "no bar is left where the first step fails"
        time.sleep(0.25)
    assert "networks" in capsys.readouterr().err


def test_a_name_that_does_not_exist_costs_no_hint_and_the_last_line_leads_to_the_worked_solution(
    lines: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "01.py").write_text("# %% other\nx = 1\n# %% twice\ndef twice(values):\n    return 2 * values\n")
    monkeypatch.setattr(tasks.solutions, "folder", tmp_path)
    task = course.task("twice", code_checks.function(doubled, torch.ones(3)), ["only hint"])
    for answer in (lambda values: vlaues, lambda values: torch.dubble(values) + 1):  # type: ignore[name-defined]  # noqa: F821
        task.check(answer)
        assert "hint" not in lines.pop()
    for _ in range(2):
        task.check(lambda values: values)
    assert lines[0].count("Hint 1 of 1: only hint") == 1
    assert lines[1] == lines[0], "the same answer once more costs no hint"
    task.check(lambda values: -values)
    assert "only hint" in lines[2]
    assert "return 2 * values" in lines[2]
    assert "x = 1" not in lines[2]


@pytest.mark.parametrize(
    ("check", "answer", "part"),
    [
        (answer_checks.number(18_874_368), "18874368", "without quotes"),
        (answer_checks.number(1), math.inf, "finite"),
        (answer_checks.names({"flip"}, known=["flip", "crop"]), ["filp"], "did you mean 'flip'"),
        (answer_checks.names({"Random flip"}, known=["Random flip", "crop"]), "random flip ", "Right"),
        (answer_checks.number(37_748_737, 1e-9), 37_748_736, "37,748,736 is too small"),
        (answer_checks.names({"flip"}, known=["flip", "crop"]), ["flip", "crop"], "not belong there; none is missing."),
        (
            answer_checks.names({"flip", "cut"}, known=["flip", "crop", "cut"]),
            ["flip", "crop"],
            "1 of your 2 names does not belong there.",
        ),
        (answer_checks.names({"flip"}, known=["flip", "crop"]), "crop", "'crop' is not right."),
        (answer_checks.names({"crop"}, known=["flip", "crop"]), 3, "Give a name in quotes, such as 'flip', not `3`"),
        (
            answer_checks.names({"crop", "cut"}, known=["flip", "crop", "cut"]),
            3,
            "a list of names such as ['flip'], not `3`",
        ),
        (answer_checks.number(45_619), (45, 619), "A comma makes two numbers of one: write `45619` or `45.619`."),
        (answer_checks.number(1.22), (1, 22), "write `1.22`."),
        (answer_checks.number(40, whole=True), (32, 32), "Give one number: a comma makes 2 of it."),
        (answer_checks.number(0.5), lambda: 0.5, "such as 0.5, not a function: call it, or write its value."),
        (answer_checks.number(0.5), nn.ReLU(), "not a ReLU, which computes when it is called: call it"),
        (answer_checks.number(0.5), math, "not a module of functions"),
        (answer_checks.number(1.221), 1.2, "1.2 is rounded too much: give another digit."),
        (answer_checks.number(83.78, 0.008), 81.8, "81.8 is too small."),
        (answer_checks.number(1.221), 1, "1 is too small."),
        (answer_checks.number(1.221), 1.0, "1 is too small."),
        (
            code_checks.function(doubled, torch.ones(3)),
            nn.ReLU(),
            "Give the function (or class) itself, without brackets",
        ),
        (code_checks.function(2.0, 1.0), lambda x: torch.ones(1) ^ x, "In Python `^` is no power"),
        (code_checks.function(doubled, torch.ones(3)), nn.ReLU, "Your function returns a module: `nn.ReLU(...)` makes"),
        (code_checks.function(2.0, 1.0), lambda x: x ^ 2, "In Python `^` is no power: write `**`"),
        (
            code_checks.function(2.0, 1.0),
            lambda x: 1 + math(x),
            "A module of functions, as `F` or `np`, cannot be called",
        ),
        (answer_checks.ranges(["blocks"], str, "{}"), {"blocks": {"ints": [1, 8]}}, "`blocks`: 'ints' is not known"),
        (
            code_checks.function(doubled, torch.ones(3)),
            lambda values: torch.relu(nn.ReLU(values)),
            "`nn.ReLU(...)` makes a module, which computes when it is called: write `nn.ReLU()(x)`.",
        ),
        (code_checks.function(doubled, torch.ones(3)), lambda values: np.poly1d([1, 2]), "returns a function: call it"),
        (answer_checks.number(18_874_368), (18, 874, 368), "write `18874368`."),
        (answer_checks.number(45_600, example="20000"), 456, "456 is too small."),
        (answer_checks.number(83.9, example="80.0"), 0.839, "Give it in percent, such as 80.0."),
        (answer_checks.names({"crop"}, known=["flip", "crop"]), "flip, crop", "as a list: ['flip', 'crop']."),
        (answer_checks.names({"crop"}, known=["flip", "crop"]), [], "Not answered yet."),
        (answer_checks.names({"flip", "crop"}, known=["flip", "crop"]), "flip", "1 more is missing"),
        (answer_checks.ranges(["blocks"], str, "{}"), {"bloks": [1]}, "'bloks' is not known: did you mean 'blocks'?"),
        (answer_checks.ranges(["blocks"], str, "{}"), {"width": [1]}, "`blocks` is missing"),
        (answer_checks.ranges(["blocks"], str, "{}"), {"blocks": {"int": [8, 1]}}, "low end 8 is above the high end 1"),
        (answer_checks.ranges(["blocks"], str, "{}"), {"blocks": {int: [1, 8]}}, "`blocks`: `int` stands in quotes"),
        (answer_checks.ranges(["blocks"], str, "{}"), {8: [1]}, "The name of a variable stands in quotes, such as"),
        (answer_checks.ranges(["blocks"], str, "{}"), {"blocks": [1], "pool": "fits"}, "'pool': 'fits'"),
        (answer_checks.ranges(["blocks"], str, "{}"), {"blocks": 3}, "give a list of choices, such as [2, 3], or such"),
        (answer_checks.ranges(["blocks"], lambda each: "Too few.", "{}"), {"blocks": {"int": [1, 8]}}, "Too few."),
        (code_checks.function(doubled, torch.ones(3)), lambda values: values[:2], "shape [2]); expected are 3"),
        (code_checks.function(doubled, torch.ones(3)), torch.sum, "returns one number; expected are 3 numbers."),
        (code_checks.function(doubled, torch.ones(1)), lambda x: [[1], [2]], "a list; expected is a tensor"),
        (code_checks.function([1, 2], 3), lambda x: [[1], [2]], "2 rows of 1 (the shape [2, 1]); expected are 2"),
        (code_checks.function([1, 4], by=squares), lambda x: x + x, "For the input 1: Your function returns 2;"),
        (code_checks.function([1, 4], by=squares), lambda x: [x], "returns a row of 1 (the shape [1]); expected is"),
        (code_checks.function([1, 4], by=squares), lambda x: [1][x - 1], "For the input 2: Your answer raises Index"),
        (code_checks.function([1, 4], by=squares), lambda x: x * x, "Right"),
        (code_checks.function(["crop", "flip"], 3), lambda _: ["crop", "flip"], "Right"),
        (code_checks.function(["crop", "flip"], 3), lambda _: ["crop"], "is not the expected result"),
        (code_checks.function([1], by=lambda f: [f("x" * 9, "y" * 99)]), lambda x, y: 2, "Your function returns 2;"),
        (
            code_checks.function(doubled, torch.ones(3)),
            lambda values: 3 * values,
            "For the input [1, 1, 1]: Value 1 of 3 is",
        ),
        (
            code_checks.function(0.3, [torch.ones(9)], 0.75),
            lambda x, y: 0.7,
            "[a tensor of shape [9]], 0.75: Your function",
        ),
        (code_checks.function(0.5), lambda: torch.ones(2), "row of 2 (the shape [2]); expected is one number"),
        (
            code_checks.function(doubled, torch.ones(3)),
            lambda values: [2, 2, 2],
            "a list; expected is a tensor",
        ),
        (
            code_checks.function(torch.tensor([274.0, 0.05787]), 1),
            lambda _: torch.tensor([274.0, 0.0579]),
            "**Right.**",
        ),
        (code_checks.function(doubled, torch.ones(3)), lambda values: values.flaten(), "did you mean `flatten`?"),
        (code_checks.function(doubled, torch.ones(3)), lambda values: valuse, "did you mean `values`?"),  # noqa: F821
        (code_checks.function(1, torch.ones(3, 3)), lambda values: values.min(1), "take `.indices` of them."),
        (code_checks.function(torch.ones(3), torch.ones(3, 3)), lambda x: x.min(1), "take `.values` of them."),
        (code_checks.function(torch.arange(3), 1), lambda _: torch.arange(3.0), "int64: leave out `.float()`"),
        (code_checks.function(torch.zeros(3), torch.ones(3) > 0), lambda x: 1 - x, "the opposite of a tensor of them"),
        (code_checks.function(1, [torch.ones(3, 3)] * 2), len, "For the input a list of 2 tensors of shape [3, 3]:"),
        (code_checks.function(1), refused, "Your answer has a fault: there is no such variable."),
        (code_checks.function(doubled, torch.ones(3)), lambda values: values[7], "[1, 1, 1]: Your answer raises Ind"),
        (code_checks.function(doubled, torch.ones(3)), lambda: 1, "raises TypeError"),
        (
            code_checks.function(doubled, torch.ones(3)),
            lambda values: (values > 0).mean(),
            "write `.float().mean()`",
        ),
        (code_checks.function(doubled, torch.ones(3)), np.mean, "NumPy's functions do not"),
        (code_checks.function(doubled, torch.ones(3)), np.var, "NumPy's functions do not"),
        (
            code_checks.function(1, *[torch.ones(3)] * 2),
            nn.CrossEntropyLoss,
            "`nn.CrossEntropyLoss(...)` makes a module",
        ),
        (code_checks.function(1, torch.ones(3)), lambda values: F.ReLU(values + 1), "did you mean `relu`?"),
        (code_checks.function(1, torch.ones(3)), lambda values: F**2, "A letter of the formula is a module here"),
        (
            code_checks.function(1, 3),
            lambda _: "86.4%",
            "Your function returns a text (`'86.4%'`); expected is a number.",
        ),
        (code_checks.function(np.ones(2), by=lambda f: [f(1), f(2)]), lambda _: "86.4%", "returns a text"),
        (
            code_checks.function(doubled, torch.ones(3)),
            lambda values: not values,
            "for each value of a tensor write `~x`",
        ),
        (
            code_checks.function(1, *[torch.ones(3, 3)] * 2),
            torch.dot,
            "For the input tensors of shape [3, 3] and [3, 3]: Your",
        ),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(
    check: answer_checks.Check, answer: Any, part: str, lines: list[str]
) -> None:
    course.task("no such task", check).check(answer)
    assert part in lines[0]


def test_a_name_that_its_cell_gives_no_value_is_not_right_by_the_worked_solution(
    lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known: dict[str, Any] = {}
    monkeypatch.setattr(tasks, "notebook_names", lambda: known)
    task = course.task("images", answer_checks.number(299, 0), solution=299)

    def run(cell: str, answer: Any) -> str:
        known.update(In=["", cell], my_images=answer)
        known["my_images"] = task.check(answer)
        return lines[-1]

    last = "my_images = images.check(my_images)"
    assert run(f"my_images = 2\n{last}", 2).startswith("**Not yet.** 2 is too small.")
    misspelt = "**Not yet.** This cell gives no value to `my_images`: is it `my_imagse`, misspelt?"
    assert run(f"my_imagse = 300\n{last}", known["my_images"]).startswith(misspelt)
    assert run(last, known["my_images"]).startswith("**Not yet.** This cell gives no value to `my_images`.")
    assert not task.passed
    assert run(last, ["of another task"]).startswith("**Not yet.** This cell gives no value to `my_images`.")
    assert run(f"my_images = 299\n{last}", 299) == "**Right.**"


def test_a_name_of_an_answer_without_quotes_is_told_to_stand_in_them(
    lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = course.task("which", answer_checks.names(["random flip"], ["random flip", "cutout"]))
    known = {"In": ["", "answer = random\nchoice.check(answer)"], "choice": choice}
    monkeypatch.setattr(tasks, "notebook_names", lambda: known)
    assert tasks.words_of_answers() == {"random", "flip", "cutout"}
    fails("answer = cutout\nchoice.check(answer)", {"choice": choice, "recipe": TrainConfig()})
    assert lines.pop() == (
        "`cutout` is not defined: a name stands in quotes, and several names in a list, each in quotes."
    )
    known["In"][-1] = "answer = random"
    assert tasks.words_of_answers() == set()


def test_a_worked_solution_that_lacks_the_cells_above_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "01.py").write_text("# %% size\nsize = of_a_cell_above\n")
    monkeypatch.setattr(tasks.solutions, "folder", tmp_path)
    monkeypatch.setattr(tasks.solutions, "hidden", False)
    with pytest.raises(TpsnetError, match=r"'of_a_cell_above' is not defined.*: was a cell above not run"):
        course.task("size", answer_checks.number(3)).check(4)


def test_a_tensor_of_several_numbers_is_asked_for_one() -> None:
    assert answer_checks.number(3)(torch.ones(3)) == "Give one number: your tensor has 3."


@pytest.mark.parametrize("answer", [np.float32(3), np.int64(3), torch.tensor(3.0), 3])
def test_a_number_is_a_number_of_any_library(answer: Any) -> None:
    assert answer_checks.number(3)(answer) == ""


def test_an_answer_below_its_blank_is_told_what_to_delete(lines: list[str]) -> None:
    def below(values: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError
        return 2 * values

    course.task("no such task", code_checks.function(doubled, torch.ones(3))).check(below)
    assert lines[0].startswith("**Not answered yet.** `raise NotImplementedError` is still in the cell above this line")


def test_names_that_hold_all_right_ones_get_no_hint_on_these(lines: list[str]) -> None:
    task = course.task("no such task", answer_checks.names({"flip"}, known=["flip", "crop"]), ["Look at flip."])
    for answer in (["flip", "crop"], "crop"):
        task.check(answer)
    assert ["Hint" in line for line in lines] == [False, True]


def test_a_blank_function_is_not_answered_and_the_worked_solution_takes_its_place(
    lines: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "01.py").write_text("# %% other\nx = 1\n# %% twice\ndef twice(values):\n    return 2 * values\n")
    monkeypatch.setattr(tasks.solutions, "folder", tmp_path)
    monkeypatch.setattr(tasks.solutions, "hidden", False)
    task = course.task("twice", code_checks.function(doubled, torch.ones(3)), ["only hint"])

    def blank(values: torch.Tensor) -> None: ...

    assert task.check(blank)(4) == 8
    assert "the worked solution stands in for it" in lines[0]
    assert task.check("nonsense")(4) == 8
    assert lines[1].startswith("**Not yet.**")
    assert "the worked solution stands in for it" in lines[1]
    with pytest.raises(TpsnetError, match=r"task 'other' fails .it builds on the cells above"):
        course.task("other", answer_checks.number(2)).check(None)
    tasks.hide_solutions()
    number = course.task("other", answer_checks.number(1))
    assert number.check(None) is None, "a number would be the answer itself"
    for answer in (blank, lambda values: values, lambda values: -values):
        stand_in = task.check(answer)
        assert stand_in(4) == 8, "the cells below call it"
        assert not task.passed
    assert "01.py" not in lines[-1]
    assert "return 2 * values" in inspect.getsource(stand_in), "a block of one's own may be built on it"
    task.check(stand_in)
    assert not task.passed, "what stands in is no answer of the student's"
