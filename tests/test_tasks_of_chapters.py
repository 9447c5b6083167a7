"""Every task of the five notebooks takes any answer: its worked solution passes, all else gets one helpful line."""

from __future__ import annotations

import ast
import functools
import math
import re
import symtable
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
import yaml

from tpsnet_lib import tasks
from tpsnet_lib.analysis.dataset import AUGMENTATIONS
from tpsnet_lib.data.augment import augment
from tpsnet_lib.files import project_root
from tpsnet_lib.report import student_copies

CELLS = {  # of each notebook, the cells that make its tasks and what these lean on; of one, some statements
    "01": ("imports", "open", "deviations", "task-nearest-mean", "task-deviation"),
    "02": ("imports", "open", "tasks", "tasks-numbers"),
    "03": ("imports", "open", "room-task", ("tasks", "hints = ", "tried = "), "curse"),
    "04": ("imports", "opening", "step-task", "cosine-task"),
    "05": ("imports", "tasks"),
}
NONSENSE: list[Any] = ["18874368", "yes", "misspelt", ["misspelt"], [1, 2], {}, {"a": 1}, True, float("nan"), -7, 1e99]
NONSENSE += [torch.ones(3), len, int, lambda *given: 0, lambda *given: "text", lambda *given: torch.ones(2)]
BLANK: list[Any] = [None, ..., "", "  "]


def tasks_of(number: str) -> tuple[dict[str, Any], dict[str, tasks.Task]]:
    """The names that the cells of a notebook leave, on built-in images and without figures, and its tasks by name."""
    (path,) = (project_root() / "notebooks").glob(f"{number}_*.ipynb")
    cells = {cell.id: cell for cell in nbformat.read(path, as_version=4).cells}
    profile = yaml.safe_load((project_root() / "report" / "profiles.yaml").read_text())["profiles"]["smoke"]
    room: dict[str, Any] = {"display": lambda *shown: None}
    (parameters,) = [cell for cell in cells.values() if "parameters" in cell.metadata.get("tags", [])]
    exec(parameters.source, room)
    room |= {**profile["parameters"], **profile["notebooks"][path.stem]["parameters"]}
    for cell, *ends in (each if isinstance(each, tuple) else (each,) for each in CELLS[number]):
        source = cells[cell].source
        begin, end = (source.index(text) for text in ends) if ends else (0, None)
        exec(compile(source[begin:end], cell, "exec"), room)
        if "lab" in room:
            room["lab"].show = lambda figure: None
    return room, {value.name: value for value in room.values() if isinstance(value, tasks.Task)}


once_tasks_of = functools.cache(tasks_of)  # for tests that change neither


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What tasks have said."""
    lines: list[str] = []
    monkeypatch.setattr(tasks, "finding", lines.append)
    return lines


@pytest.mark.parametrize("number", [pytest.param(n, marks=pytest.mark.slow) if n == "04" else n for n in CELLS])
def test_every_task_takes_any_answer(number: str, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tpsnet_lib.course.explore", lambda draw, **knobs: None)
    room, asked = tasks_of(number)
    monkeypatch.setattr(tasks, "notebook_names", lambda: room)
    solutions = project_root() / "notebooks" / "solutions"
    (solved,) = solutions.glob(f"{number}_*.py")
    assert sorted(asked) == sorted(
        line[5:].strip() for line in solved.read_text().splitlines() if line.startswith("# %%")
    )
    assert 3 <= len(asked) <= 5
    assert sum(callable(tasks._worked(name)) for name in asked) >= 1, "a task of code"
    for name, task in asked.items():
        assert task.hints, name
        right = tasks._worked(name)
        task.check(right)
        assert said.pop() == "**Right.**", name
        room |= {getattr(right, "__name__", "_"): right}  # later solutions build on it
        for answer in BLANK:
            task.check(answer)
            assert said.pop().startswith(tasks.NOT_ANSWERED), name
        for answer in NONSENSE:
            task.check(answer)
            (line,) = said
            said.clear()
            assert line.startswith(("**Not yet.**", tasks.NOT_ANSWERED)), (name, answer)
            assert "\n" not in line.partition("\n\n<details>")[0]
            assert len(line.partition("\n\n<details>")[0]) < 600
            assert "Traceback" not in line


@pytest.mark.parametrize("number", CELLS)
def test_the_checks_fail_in_a_students_copy_and_pass_once_it_is_solved(
    number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "finding", lambda text: None)
    monkeypatch.setattr("tpsnet_lib.course.explore", lambda draw, **knobs: None)
    room, asked = tasks_of(number)
    monkeypatch.setattr(tasks, "notebook_names", lambda: room)
    worked = {name: tasks._worked(name) for name in asked}
    (path,) = (project_root() / "notebooks").glob(f"{number}_*.ipynb")
    cells = student_copies.student_copy(nbformat.read(path, as_version=4)).cells
    graded = [cell.source for cell in cells if cell.metadata.get("nbgrader", {}).get("points")]
    monkeypatch.setattr(tasks.solutions, "folder", Path("nowhere"))
    for task in asked.values():
        task.check(None)
    for source in graded:
        with pytest.raises(AssertionError, match="not solved yet"):
            exec(source, room)
    for name, task in asked.items():
        right = task.check(worked[name])
        room |= {getattr(right, "__name__", "_"): right}  # later answers build on it
    for source in graded:
        exec(source, room)
    assert len(graded) == len(asked)


@pytest.mark.parametrize("number", CELLS)
def test_a_folded_task_cell_shows_a_comment_and_no_answer_and_an_exercise_holds_nothing_else(number: str) -> None:
    (path,) = (project_root() / "notebooks").glob(f"{number}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    folded = [cell for cell in cells if cell.metadata.get("jupyter", {}).get("source_hidden")]
    assert folded
    for cell in folded:
        assert cell.source.startswith(("# ", "def ")), "a folded cell shows its first line"
    made = [cell for cell in cells if "course.task(" in cell.source]
    assert all(cell in folded for cell in made), "hints and answers do not stand open above the blank"
    for cell in cells:
        if "exercise" in cell.metadata.get("tags", []):
            assert "predict(" not in cell.source, "a worked solution may take the place of the whole cell"


def names_read(tree: ast.AST) -> set[str]:
    """The names that functions and lambdas of some code read and do not define."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            names = [part for part in ast.walk(node) if isinstance(part, ast.Name)]
            own = {part.arg for part in ast.walk(node.args) if isinstance(part, ast.arg)}
            own |= {name.id for name in names if isinstance(name.ctx, ast.Store)}
            found |= {name.id for name in names if isinstance(name.ctx, ast.Load)} - own
    return found


def names_given(tree: ast.Module) -> set[str]:
    """The names that the statements of a cell give, those within functions, classes and comprehensions apart."""
    found: set[str] = set()
    inner = ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
    open_nodes: list[ast.AST] = list(tree.body)
    while open_nodes:
        node = open_nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif not isinstance(node, inner):
            open_nodes += ast.iter_child_nodes(node)
    return found


def clashes(cells: list[tuple[list[str], str]]) -> list[str]:
    """The names that a check of an earlier cell reads, and that a later cell gives another meaning."""
    read: set[str] = set()
    given: set[str] = set()
    found: list[str] = []
    for tags, source in cells:
        tree = ast.parse(source)
        if "exercise" not in tags:
            found += sorted(read & given & names_given(tree))
        given |= names_given(tree)
        if "task" in tags:
            read |= names_read(tree)
    return found


@pytest.mark.parametrize("number", CELLS)
def test_a_task_can_be_answered_after_the_whole_chapter_has_run(number: str) -> None:
    (path,) = (project_root() / "notebooks").glob(f"{number}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    assert not clashes([(cell.metadata.get("tags", []), cell.source) for cell in cells if cell.cell_type == "code"])


def names_used(source: str) -> set[str]:
    """The names of the notebook that a cell reads, within functions too."""
    used: set[str] = set()
    tables = [symtable.symtable(source, "cell", "exec")]
    for table in tables:
        tables += table.get_children()
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (table is tables[0] or symbol.is_global()):
                used.add(symbol.get_name())
    return used


def taken_over(sources: Sequence[str]) -> set[str]:
    """The names that a cell has from another where two cells or more give them: run again, it may get the other's."""
    given = [names_given(ast.parse(source)) for source in sources]
    often = {name for name, cells in Counter(name for each in given for name in each).items() if cells > 1}
    return {name for source, own in zip(sources, given, strict=True) for name in often & names_used(source) - own}


@pytest.mark.parametrize("number", CELLS)
def test_a_cell_that_is_run_again_finds_its_names_as_they_were(number: str) -> None:
    (path,) = (project_root() / "notebooks").glob(f"{number}_*.ipynb")
    assert not taken_over([cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"])


def test_a_name_that_two_cells_give_to_a_third_is_found() -> None:
    assert taken_over(["n = 5", "print(n)", "n = 10"]) == {"n"}
    assert taken_over(["n = 5", "f = lambda: [n for _ in range(2)]", "for n in (1, 2):\n    pass"]) == {"n"}
    assert not taken_over(["n = 5", "n = 10\nprint(n)", "def f(n):\n    return n"])


def test_a_name_that_a_check_reads_and_a_later_cell_gives_again_is_found() -> None:
    check = (["task"], "def run(x):\n    y = x\n    return y + scale\ntask = make(lambda a: run(a))")
    assert clashes([([], "scale = 2"), check, ([], "for scale in (1, 2):\n    run = scale")]) == ["run", "scale"]
    assert not clashes([check, (["exercise"], "run = 3"), ([], "[scale for scale in (1, 2)]\nx = y = a = 1")])


def without(line: str, instead: str = "pass") -> Any:
    """The worked training step with one of its lines changed."""
    source = tasks.worked_sections()["training step"]
    assert source.count(line) == 1
    room: dict[str, Any] = {"torch": torch}
    exec(source.replace(line, instead), room)
    return room["train_step"]


@pytest.mark.slow
def test_wrong_answers_to_chapter_04_are_told_what_is_wrong_with_them(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    room, asked = tasks_of("04")
    monkeypatch.setattr(tasks, "notebook_names", lambda: room)
    step = asked["training step"]
    for line, instead, told in (
        ("loss = F.cross_entropy(logits, labels)", "loss = F.cross_entropy(logits, labels).item()", "Keep the loss a"),
        (
            "cross_entropy(logits, labels)",
            "cross_entropy(logits.argmax(1), labels)",
            "not the classes that are largest",
        ),
        ("optimizer.zero_grad()", "pass", "The gradients add up from step to step"),
        ("optimizer.step()", "pass", "The weights do not move"),
        ("loss.backward()", "pass", "The weights do not move"),
        ("optimizer.step()", "optimizer.zero_grad(); optimizer.step()", "The weights do not move"),
        ("optimizer.step()", "optimizer.step(); optimizer.step()", "The weights move twice"),
        (
            "F.cross_entropy(logits",
            "torch.nn.CrossEntropyLoss(logits",
            "makes a module, which computes when it is called",
        ),
        ("logits = network(inputs)", "logits = network(inputs).softmax(1)", "A softmax comes before the loss"),
        ("logits = network(inputs)", "network.eval(); logits = network(inputs)", "The network is in evaluation mode"),
        ("optimizer.step()", "optimizer.step(); network.eval()", "The network is left in evaluation mode"),
        (
            "optimizer.step()",
            "torch.optim.SGD(network.parameters(), lr=1.0).step()",
            "The second loss is wrong: the weights were not moved as the first gradients say",
        ),
    ):
        step.check(without(line, instead))
        assert told in said.pop()
    step.check(without("logits = network(inputs)", "logits = network(inputs).detach()"))
    assert "leave out torch.no_grad() and .detach()" in said.pop()
    for wrong in ("return loss", "pass"):  # a tensor with a gradient, and a forgotten return
        step.check(without("return loss.item()", wrong))
        assert "**Not yet.** It returns no number: end with return loss.item()." in said.pop()
    step.check(without("return loss.item()", "raise NotImplementedError"))
    assert said.pop().startswith(tasks.NOT_ANSWERED)
    asked["cosine schedule"].check(room["rate"])
    assert "A function that takes one number is given a tensor of several." in said.pop()
    asked["cosine schedule"].check(lambda share: (1 + math.cos(math.pi * share)) / 2)
    assert "a function of `math` has one of torch's" in said.pop()
    step.check(without("loss = F.cross_entropy(logits, labels)", "loss = F.cross_entropy(labels, logits)"))
    assert "F.cross_entropy takes the logits first, then the labels." in said.pop()
    for answer, line in ((22, "22 is too small"), (30.6, "Give a whole"), (31, "Right"), (33, "33 is too large")):
        asked["seeds"].check(answer)
        assert line in said.pop()


@pytest.fixture
def reply(said: list[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What a task says of its worked solution with one part changed; it builds on those of `before`, by their names."""

    def ask(number: str, task: str, name: str, line: str, instead: str, before: Mapping[str, str]) -> str:
        made, asked = once_tasks_of(number)
        room = dict(made)
        monkeypatch.setattr(tasks, "notebook_names", lambda: room)
        room |= {each: tasks._worked(earlier) for each, earlier in before.items()}
        source = tasks.worked_sections()[task]
        assert line in source or line == "pass"
        exec(source.replace(line, instead), room)
        replace(asked[task]).check(room[name])  # as its first answer
        return said.pop().partition("Until it is right")[0]

    return ask


@pytest.mark.parametrize(
    ("line", "instead", "told"),
    [
        ("pass", "pass", "Right"),
        ("self.layers = nn.Sequential()", "raise NotImplementedError", tasks.NOT_ANSWERED),
        ("inputs = outputs", "pass", "the first inputs are `stem`"),
        ("2 if len(self.layers) else 1", "2", "stride 1"),
        ("2 if len(self.layers) else 1", "1", "Each layer after the first has stride 2"),
        (".mean((2, 3))", ".amax((2, 3))", "The head takes the mean over the map"),
        (".mean((2, 3))", "", "`.mean((2, 3))`"),
        (".mean((2, 3))", ".flatten(1)", "`.mean((2, 3))`"),
        ("blocks, stride, skip", "2, stride, skip", "Hand skip and blocks on"),
        ("2 if len(self.layers) else 1", "1 if outputs == stem else 2", "The first layer has stride 1"),
        ("for outputs in channels:", "for outputs in (channels[0], channels[1], channels[2]):", "for each number of"),
        ("blocks, stride, skip", "3, stride, skip", "Hand skip and blocks on"),
        ("blocks, stride, skip", "blocks, stride", "Hand skip and blocks on"),
        ("self.layers(self.stem(x))", "self.layers(x)", "begins with `self.stem(x)`"),
        ("self.layers = nn.Sequential()", "self.layers = []", "`self.layers` is a plain list"),
        (
            "self.head(self.layers(self.stem(x)).mean((2, 3)))",
            "F.softmax(self.head(self.layers(self.stem(x)).mean((2, 3))), 1)",
            "without a softmax",
        ),
        (
            "self.head(self.layers(self.stem(x)).mean((2, 3)))",
            "self.layers(self.stem(x)).mean((2, 3))",
            "the head comes",
        ),
    ],
)
def test_a_wrong_network_of_chapter_02_is_told_what_is_wrong_with_it(
    line: str, instead: str, told: str, reply: Callable[..., str]
) -> None:
    before = {"ResidualBlock": "block", "make_layer": "layer"}
    assert told in reply("02", "network", "Network", line, instead, before)


STEP = "step(network, optimizer, inputs, labels)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "instead", "told"),
    [
        ("pass", "pass", "Right"),
        ("order, losses =", "raise NotImplementedError\n        order, losses =", tasks.NOT_ANSWERED),
        (
            'group["lr"] = recipe.lr * rate(epoch * steps + k)',
            "pass",
            "The rate stays the same",
        ),
        ("recipe.lr * rate(epoch * steps + k)", "rate(epoch * steps + k)", "a step's rate is `recipe.lr * rate("),
        ("rate(epoch * steps + k)", "rate(k)", "counted from 0 anew in each epoch"),
        ("augment(images.images[batch], which, recipe, config.seed, epoch)", "images.images[batch]", "not augmented"),
        ("recipe, config.seed, epoch)", "recipe, config.seed, 0)", "the augmentation of the first"),
        ("order, losses =", "network.eval()\n        order, losses =", "is in evaluation mode"),
        ("images.labels[batch]", "images.labels[:size]", "The labels are of other images"),
        ("order.split(size)", "torch.arange(len(images)).split(size)", "not in the new order"),
        (
            "losses.append(step(network, optimizer, inputs, labels))",
            "losses = [step(network, optimizer, inputs, labels)]",
            "the last step's alone",
        ),
        ("range(int(recipe.epochs))", "range(int(recipe.epochs) - 1)", "no fewer and no more"),
        ("range(int(recipe.epochs))", "range(int(recipe.epochs) + 1)", "no fewer and no more"),
        (
            "step(network, optimizer, inputs, labels)",
            "torch.nn.functional.cross_entropy(network(inputs), labels)",
            "append what `step` returns, which",
        ),
        ("order.split(size)[:steps]", "order.split(size)", "The last batch is not whole"),
        (
            "enumerate(order.split(size)[:steps])",
            "order.split(size)[:steps]",
            "A batch is the places of several images",
        ),
        ("enumerate(order.split(size)[:steps])", "enumerate(order)", "A batch is the places of several images"),
        ("which, recipe, config.seed", "batch, recipe, config.seed", "takes the images' indices"),
        ("recipe, config.seed, epoch", "recipe, 0, epoch", "hand `config.seed` to"),
        (
            "normalise(shown), images",
            "augment(normalise(images.images[batch]), which, recipe, config.seed, epoch), images",
            "`augment` comes first",
        ),
        ("rate(epoch * steps + k)", "rate(epoch)", "The rate changes once an epoch"),
        ("rate(epoch * steps + k)", "rate(epoch * steps + k + 1)", "The steps are counted from 1"),
        ("order.split(size)", "order.split(steps)", "A batch has `size` images"),
        ("in optimizer.param_groups", "in optimizer", "The groups of an optimizer are `optimizer.param_groups`"),
        ('group["lr"] =', 'group["lr"] *=', "write `=`, not `*=`"),
        ('group["lr"]', "group.lr", "an entry of a dict"),
        ("losses.append(", "losses += (", "write `losses.append(...)`"),
        ("losses.append(", "losses = losses.append(", "without `losses =` before it"),
        ("images.labels[batch]", "images.labels", "are not of the same images"),
        ("yield network, losses", "yield network, torch.tensor(losses)", "Right"),
        ("losses.append(step(", "print(step(", "append what `step` returns, and `yield` below the loop"),
        ("normalise(shown)", "shown", "hand the result of `normalise`"),
        ("(network, optimizer, inputs, labels)", "(inputs, labels)", "`step` takes the network"),
        ("(images.images[batch], which, recipe, config.seed, epoch)", "(images.images[batch])", "their indices"),
        ("        yield network, losses", "        return network, losses", "It must `yield network, losses`"),
        ("        yield network, losses", "            yield network, losses", "It must `yield network, losses`"),
        ("        yield network, losses", "        yield 3", "It must `yield network, losses`"),
        ("        yield network, losses", "        yield losses, network", "It yields the other way round"),
        (STEP, "torch.nn.functional.cross_entropy(network(inputs), labels).item()", "The network does not learn"),
    ],
)
def test_a_wrong_loop_of_chapter_04_is_told_what_is_wrong_with_it(
    line: str, instead: str, told: str, reply: Callable[..., str]
) -> None:
    assert told in reply("04", "training loop", "epochs_of", line, instead, {"train_step": "training step"})


BLOCK = """
def __init__(self, inputs, outputs, stride=1, skip=True):
    nn.Module.__init__(self)
    self.conv1, self.norm1 = conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
    self.conv2, self.norm2 = conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
    self.skip, self.projection = skip, nn.Identity()
    if skip and (stride > 1 or inputs != outputs):
        self.projection = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
def forward(self, x):
    out = F.relu(self.norm1(self.conv1(x)))
    out = self.norm2(self.conv2(out))
    return F.relu(self.projection(x) + out if self.skip else out)
"""
LAST = "return F.relu(self.projection(x) + out if self.skip else out)"


@pytest.mark.parametrize(
    ("line", "instead", "told"),
    [
        ("x", "x", "Right"),
        ("out = self.norm2(self.conv2(out))", "out = self.conv2(out)", "`self.norm2` is left out"),
        ("out = self.norm2(self.conv2(out))", "out = self.norm1(self.conv2(out))", "`self.norm1` is used twice"),
        (
            "F.relu(self.norm1(self.conv1(x)))",
            "self.norm1(F.relu(self.conv1(x)))",
            "norm and the ReLU are exchanged",
        ),
        (LAST, "return F.relu(out)", "self.projection"),
        ("self.projection(x) + out", "x + out", "self.projection"),
        (LAST, "return F.relu(self.projection(x) + out)", "self.projection"),
        (LAST, "return self.projection(x) + out if self.skip else out", "The last ReLU is left out"),
        (
            "out = F.relu(self.norm1(self.conv1(x)))",
            "x = out = F.relu(self.norm1(self.conv1(x)))",
            "`x` is for the sum",
        ),
        ("self.norm2(self", "norm2(self", "`norm2` is not defined: write `self.norm2`."),
        (LAST, "x = self.projection(x) if self.skip else 0\n    out += x\n    return F.relu(out)", "Right"),
        (LAST, "x = self.projection(x) if self.skip else 0 * out\n    x += out\n    return F.relu(x)", "in place"),
    ],
)
def test_a_wrong_block_of_chapter_02_is_told_what_is_wrong_with_it(
    line: str, instead: str, told: str, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    room, asked = tasks_of("02")
    monkeypatch.setattr(tasks, "notebook_names", lambda: room)
    assert line in BLOCK
    exec(BLOCK.replace(line, instead), room)
    methods = {name: room[name] for name in ("__init__", "forward")}
    asked["block"].check(type("ResidualBlock", (torch.nn.Module,), methods))
    assert told in said.pop().partition("Until it is right")[0]


@pytest.mark.parametrize(
    ("blocks", "told"),
    [
        ("[first, *(ResidualBlock(outputs, outputs, 1, skip) for _ in range(blocks - 1))]", "Right"),
        ("[first, ResidualBlock(outputs, outputs, 1, skip)]", "2 parts; expected: 3 blocks"),  # whatever is asked
        ("[first, *(ResidualBlock(outputs, outputs, 1, skip) for _ in range(blocks))]", "1 of 3: Only the first has"),
        ("[first, *[ResidualBlock(outputs, outputs, 1, skip)] * (blocks - 1)]", "share weights: make a new one"),
        ("[ResidualBlock(inputs, outputs, stride, skip) for _ in range(blocks)]", "1 of 3: Only the first has"),
        ("[first, *(ResidualBlock(outputs, outputs, stride, skip) for _ in range(blocks - 1))]", "Only the first has"),
        ("[first, *(ResidualBlock(outputs, outputs) for _ in range(blocks - 1))]", "write `skip=skip`"),
    ],
)
def test_a_wrong_layer_of_chapter_02_is_told_what_is_wrong_with_it(
    blocks: str, told: str, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    room, asked = tasks_of("02")
    monkeypatch.setattr(tasks, "notebook_names", lambda: room)
    room["ResidualBlock"] = tasks._worked("block")
    first = "    first = ResidualBlock(inputs, outputs, stride, skip)\n"
    head = "def make_layer(inputs, outputs, blocks, stride=1, skip=True):\n"
    exec(f"{head}{first}    return nn.Sequential(*{blocks})", room)
    asked["layer"].check(room["make_layer"])
    assert told in said.pop().partition("Until it is right")[0]


def test_the_second_of_two_inputs_is_told_where_an_answer_fails_there(said: list[str]) -> None:
    _, asked = tasks_of("05")
    asked["accuracy on new images"].check(lambda old, new, ours: 0.8445)
    assert "0.8, 0.67], 0.5: Your function returns 0.8445; expected is 0.255." in said.pop()
    asked["risk at a coverage"].check(lambda sure, right, share: [0.25][round(share * 5) - 4])
    assert "True, True], 1: Your answer raises IndexError" in said.pop()


def test_what_breaks_a_check_is_told_in_words(said: list[str]) -> None:
    _, asked = tasks_of("03")
    asked["a space with room"].check({"blocks": {"int": ["a", 8]}, "width": {"int": [8, 9]}})
    assert "blocks is {'int': ['a', 8]}: give numbers" in said.pop()


def test_an_ensemble_of_chapter_05_averages_the_networks_all_of_them(said: list[str]) -> None:
    _, asked = tasks_of("05")
    for wrong in (
        lambda logits: torch.stack(logits).softmax(-1).mean(1),
        lambda logits: (logits[0].softmax(1) + logits[1].softmax(1)) / 2,
        lambda logits: sum(each.softmax(1) for each in logits) / 3,
    ):
        asked["ensemble"].check(wrong)
        assert said.pop().startswith("**Not yet.**")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda old, new, ours: np.polyval(np.polyfit(old, new, 1), ours), "Right"),
        (lambda old, new, ours: 0.864, "Not yet"),
        (lambda old, new, ours: np.polyval(np.polyfit(old, new, 1), 0.95), "Not yet"),
    ],
)
def test_a_line_of_chapter_05_is_read_where_it_is_asked(answer: Any, told: str, said: list[str]) -> None:
    tasks_of("05")[1]["accuracy on new images"].check(answer)
    assert said.pop().startswith(f"**{told}")


def test_the_values_of_one_schedule_are_no_schedule(said: list[str]) -> None:
    tasks_of("04")[1]["cosine schedule"].check(lambda share: torch.tensor([1, 0.853553, 0.5, 0.0244717]))
    assert said.pop().startswith("**Not yet.**")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda short, long: long.max() - long[short.argmax()], "Right"),
        (lambda short, long: long.max() - sorted(long)[-2], "Not yet"),
        (lambda short, long: long.max() - np.median(long), "Not yet"),
        (lambda short, long: long.max() - short.max(), "Not yet"),
        (lambda short, long: short.max() - short[long.argmax()], "Not yet"),
    ],
)
def test_a_regret_of_chapter_03_is_of_the_trial_that_the_short_ones_pick(
    answer: Any, told: str, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    room, asked = tasks_of("03")
    monkeypatch.setattr(tasks, "notebook_names", lambda: room)
    asked["regret"].check(answer)
    assert said.pop().startswith(f"**{told}")


def risk(sure: torch.Tensor, right: torch.Tensor, coverage: float, surest: bool | None, errors: bool) -> torch.Tensor:
    order = torch.arange(len(sure)) if surest is None else sure.argsort(descending=surest)
    chosen = order[: round(coverage * len(sure))]
    return (~right if errors else right)[chosen].float().mean()


@pytest.mark.parametrize("errors", [True, False])
@pytest.mark.parametrize("surest", [True, False, None])
def test_a_risk_of_chapter_05_is_the_error_of_the_surest_and_nothing_else(
    surest: bool | None, errors: bool, said: list[str]
) -> None:
    tasks_of("05")[1]["risk at a coverage"].check(partial(risk, surest=surest, errors=errors))
    assert said.pop().startswith("**Right.**" if surest and errors else "**Not yet.**")


def test_bytes_given_to_cdist_in_chapter_01_are_told_to_become_floats(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tpsnet_lib.course.explore", lambda draw, **knobs: None)
    room, asked = tasks_of("01")
    monkeypatch.setattr(tasks, "notebook_names", lambda: room)
    for _ in range(2):  # the first hint and the second
        asked["nearest mean"].check(lambda images, means: torch.cdist(images.flatten(1), means.flatten(1)).argmin(1))
        assert ".float()" in said.pop().partition("Hint")[2]


def test_a_nearest_mean_of_chapter_01_uses_the_means_that_it_is_given(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    room, asked = tasks_of("01")
    monkeypatch.setattr(tasks, "notebook_names", lambda: room)
    own = room["means"].flatten(1)
    asked["nearest mean"].check(lambda images, mean: torch.cdist(images.flatten(1).float(), own).argmin(1))
    assert "does it use its argument `means`?" in said.pop()


@pytest.mark.parametrize("number", [pytest.param(n, marks=pytest.mark.slow) if n == "04" else n for n in CELLS])
def test_no_name_that_a_chapter_leaves_is_an_answer(number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tpsnet_lib.course.explore", lambda draw, **knobs: None)
    room, asked = tasks_of(number)
    names = {name: value for name, value in room.items() if isinstance(value, int | float | str | list | np.number)}
    found = [(name, task.name) for name, value in names.items() for task in asked.values() if not task._problem(value)]
    assert found == []


def test_the_two_flips_of_chapter_01_differ_on_the_image_that_is_shown() -> None:
    (path,) = (project_root() / "notebooks").glob("01_*.ipynb")
    (seed,) = {
        int(found)
        for cell in nbformat.read(path, as_version=4).cells
        for found in re.findall(r"augment\(images\[photo\], photo, each, (\d+), epoch\)", cell.source)
    }
    ramp = torch.arange(32, dtype=torch.uint8).expand(1, 3, 32, 32)
    for photo in (7, 8):  # the first horse of CIFAR-10, and the first built-in image with its label
        shown = {
            name: [augment(ramp, torch.tensor([photo]), AUGMENTATIONS[name], seed, epoch) for epoch in range(3)]
            for name in ("random flip", "alternating flip")
        }
        assert not all(map(torch.equal, *shown.values()))
