"""Notebook 02: the student's network is the library's, tasks take any answer, and the live cells show what they say."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import nbformat
import pytest

from tpsnet_lib import answer_checks, tasks
from tpsnet_lib.analysis import architecture
from tpsnet_lib.files import project_root
from tpsnet_lib.runs.records import Store

(PATH,) = (project_root() / "notebooks").glob("02_*.ipynb")
SOURCES = {cell.id: cell.source for cell in nbformat.read(PATH, as_version=4).cells if cell.cell_type == "code"}
SETTINGS = {"dataset": "shapes10", "data": "", "store": "", "live_images": 16, "live_steps": 10, "live_seeds": [0, 1]}
BUILD = ("imports", "open", "tasks", "exercise-block", "exercise-layer", "exercise-network")
Chapter = Callable[..., tuple[dict[str, Any], list[str]]]


@pytest.fixture
def chapter(monkeypatch: pytest.MonkeyPatch) -> Chapter:
    """Runs cells by their ids, some of them changed: the names that they leave, and what is said."""
    said: list[str] = []
    monkeypatch.setattr(tasks, "finding", said.append)
    room: dict[str, Any] = {**SETTINGS, "live_depths": [1, 4]}
    for home in (tasks, answer_checks):
        monkeypatch.setattr(home, "notebook_names", lambda: room)

    def run(*ids: str, **changes: tuple[str, str]) -> tuple[dict[str, Any], list[str]]:
        for cell in ids:
            old, new = changes.get(cell.replace("-", "_"), ("", ""))
            assert old in SOURCES[cell]
            exec(compile(SOURCES[cell].replace(old, new) if old else SOURCES[cell], cell, "exec"), room)
            if cell == "open":
                room["lab"].show = lambda figure: None
            room["finding"] = lambda text, *_, **__: said.append(text)
        return room, said

    return run


def test_the_worked_solutions_build_the_librarys_network(chapter: Chapter, capsys: pytest.CaptureFixture[str]) -> None:
    _, said = chapter(*BUILD, "same-output")
    assert [line.startswith(answer_checks.NOT_ANSWERED) for line in said] == [True] * 3
    assert capsys.readouterr().out.count("library's: True") == 2


BLANK = "raise NotImplementedError  # your lines, the last one a return"
NO_SKIP = "return F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))"
ALWAYS = "return F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))) + self.projection(x))"
RIGHT = ALWAYS.replace("self.projection(x)", "(self.projection(x) if self.skip else 0)")
F_OF_X = "self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))"
AFTER = f"return F.relu({F_OF_X[:-1]} + (self.projection(x) if self.skip else 0)))"
PLAIN = f"return F.relu({F_OF_X} + self.projection(x)) if self.skip else {F_OF_X}"
TWICE = RIGHT.replace("(self.norm2", "(F.relu(self.norm2").replace(" + ", ") + ")


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (RIGHT, "**Right.**"),
        (NO_SKIP, "With `skip=True`: Nothing is added: the sum with `self.projection(x)` is left out."),
        (AFTER, "With `skip=True`: `self.norm2` comes after the sum"),
        (RIGHT.replace("norm1", "norm").replace("norm2", "norm1").replace("norm(", "norm2("), "are exchanged: each"),
        (PLAIN, "With `skip=False (nothing is added)`: The last ReLU is left out: it comes last, with a skip"),
        (ALWAYS, "With `skip=False (nothing is added)`: "),
        (ALWAYS, "*Hint 1 of 3: If `self.skip`, add `self.projection(x)`; only then the ReLU.*"),
        (TWICE, "With `skip=True`: There is one ReLU too many: none between `self.norm2` and the sum."),
        (RIGHT.replace("F.relu(self.norm2", "(self.norm2"), "The last ReLU is left out: it comes last"),
        (NO_SKIP + " + (self.projection(x) if self.skip else 0)", "The last ReLU comes too early: first the sum"),
        (RIGHT.replace("self.norm1(self.conv1(x))", "self.conv1(x)"), "`self.norm1` is left out: it follows"),
        (RIGHT.replace("F.relu(self.norm1(self.conv1(x)))", "self.norm1(self.conv1(x))"), "The ReLU of the first half"),
        (RIGHT.replace("F.relu(self.norm1(", "nn.ReLU(self.norm1("), "write `nn.ReLU()(x)`"),
        (RIGHT.replace("return F.relu(", "return nn.ReLU("), "write `nn.ReLU()(x)`"),
        ("return self.conv1(x)[:, :3]", "*Hint 1 of 3, on the task as a whole: Begin with"),
        ("return self.conv1(x)[:, :3]", "shape"),
        ("return self.conv9(x)", "conv9"),
        ("return None", "Your function returns None: is a `return` missing?"),
    ],
)
def test_any_block_gets_a_line_and_the_chapter_goes_on(chapter: Chapter, answer: str, line: str) -> None:
    room, said = chapter(*BUILD[:4], exercise_block=(BLANK, answer))
    assert line in said[0]
    room["ResidualBlock"](16, 32, 2)(room["maps"])


LAYER = "nn.Sequential(ResidualBlock(inputs, outputs, stride, {}),"
LAYER += " *[ResidualBlock(outputs, outputs{}) for _ in range(blocks - 1)])"


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (LAYER.format("skip", ", 1, skip"), "**Right.**"),
        (LAYER.format("skip", ""), "With `skip=False`: The shape is right"),
        (LAYER.format("True", ", 1, skip"), "With `skip=False`: It has `0.projection"),
        (LAYER.format("skip", ", 1, skip").replace("stride, ", "skip=", 1), "returns the shape [2, 32, 32, 32]"),
        (LAYER.format("skip", ", 1, skip").replace("stride, ", "skip=", 1), "Only the first has the stride"),
        (LAYER.format("skip", ", skip"), "an argument is missing before it"),
        ("nn.Sequential(ResidualBlock)", "`ResidualBlock` is the class: make a part of it, `ResidualBlock(...)`"),
        ("nn.Sequential()", "Your nn.Sequential has 0 parts; expected: 3 blocks"),
        ("ResidualBlock(inputs, outputs, stride, skip)", "expected is an nn.Sequential of 3 blocks"),
        ("nn.Sequential(nn.ReLU(), nn.ReLU(), nn.ReLU())", "It has no `0.conv1.weight`"),
    ],
)
def test_any_layer_gets_a_line_and_the_next_cell_says_whose_it_is(
    chapter: Chapter, answer: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    layer = ("raise NotImplementedError  # your lines", f"return {answer}")
    network = tasks.worked_sections()["network"] + "\nNetwork = task_3.check(Network)"
    answers = {"exercise_layer": layer, "exercise_network": (SOURCES["exercise-network"], network)}
    _, said = chapter(*BUILD, "same-output", exercise_block=(BLANK, RIGHT), **answers)
    assert said[0] == "**Right.**"
    assert line in said[1]
    whose = "Your" if line == "**Right.**" else "The worked solution's"
    printed = capsys.readouterr().out
    assert "Your block gives the output of the library's: True" in printed
    assert f"{whose} network gives the output of the library's: True" in printed


@pytest.mark.parametrize("answer", ["18874368", "'18874368'", "[1]", "'block'", "float('nan')", "12"])
def test_a_number_of_multiplications_in_any_form_gets_a_line(chapter: Chapter, answer: str) -> None:
    _, said = chapter("imports", "tasks-numbers", "exercise-multiplications", exercise_multiplications=("None", answer))
    assert said[0].startswith("**Right.**" if answer == "18874368" else "**Not yet.**")


@pytest.mark.parametrize("answer", ["'holds'", "'hold'", "0.5", "['not settled']"])
def test_a_verdict_in_any_form_gets_a_line(chapter: Chapter, answer: str) -> None:
    _, said = chapter("imports", "tasks-numbers", "exercise-verdict", exercise_verdict=("None", answer))
    right = "'not settled'" in answer
    assert said[0].startswith("**Right.**" if right else "**Not yet.**")


def test_skips_keep_the_gradient_and_lower_the_loss_of_deep_networks(chapter: Chapter) -> None:
    room, said = chapter(*BUILD, "gradients", "train", "live-residual")
    factors = {kind: max(values) / min(values) for kind, values in room["norms"].items()}
    assert factors["plain"] > 20 * factors["residual"]
    assert len(room["norms"]["plain"]) == 30
    assert room["gains"][4].value > 0.1
    assert "| B=1 |" in said[-1]
    assert "| B=4 |" in said[-1]


def test_a_misspelt_key_of_a_design_gets_a_line_and_the_game_goes_on(chapter: Chapter) -> None:
    room, _ = chapter("imports")
    room |= {"game_macs": 3_500_000}
    room["networks"] = architecture.small_networks(Store(project_root() / "report" / "records"))
    _, said = chapter("game", game=('"stem"', '"stm"'))
    assert "did you mean stem" in said[0]
    assert "The classroom network has" in said[1]
    assert room["small"].blocks == (1, 1, 1)
    _, said = chapter("game", game=("[64, 128, 256]", "[640, 1280, 2560]"))
    assert "over the budget" in said[2]
    _, said = chapter("game")
    assert "Your design has 2,760,490 parameters" in said[-1]


def test_the_spread_of_small_short_runs_is_not_that_of_the_study(chapter: Chapter) -> None:
    room, said = chapter("imports", "open", "tasks")
    found = architecture.design_variables(room["lab"].store)
    room.update(variables=found, noise_guess=None, compare=lambda guess, result: said.append(f"{result}"))
    room["finding"] = lambda text, *_, **__: said.append(text)
    chapter("seeds")
    table = next(each for each in said if each.startswith("| runs"))
    spreads = {
        row.split(" | ")[0].strip("| "): float(row.split(" | ")[1])
        for row in table.splitlines()[2:]
        if row.startswith("|")
    }
    assert list(spreads) == ["of the study", "small, short"]
    assert spreads["small, short"] > 2 * spreads["of the study"]


def test_every_task_has_a_worked_solution_and_every_solution_a_task() -> None:
    text = (PATH.parent / "solutions" / f"{PATH.stem}.py").read_text("utf-8")
    titles = re.findall(r"^# %% (.+)$", text, re.MULTILINE)
    asked = re.findall(r'course\.task\(\s*"([^"]+)"', "\n".join(SOURCES.values()))
    assert sorted(titles) == sorted(asked)
    assert len(asked) == 5
