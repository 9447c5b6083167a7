"""Every task of the five notebooks takes any answer: its worked solution passes, all else gets one helpful line."""

from __future__ import annotations

from typing import Any

import nbformat
import pytest
import torch
import yaml

from tpsnet_lib import tasks
from tpsnet_lib.files import project_root

CELLS = {  # of each notebook, the cells that make its tasks and what these lean on; of one, some statements
    "01": ("imports", "open", "deviations", "task-nearest-mean", "task-deviation"),
    "02": ("imports", "open", "tasks", "tasks-numbers"),
    "03": ("s03", "s05", "s13", "s24", ("s35", "example = ", "trap_guess = "), "s39"),
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


@pytest.mark.parametrize("number", CELLS)
def test_every_task_takes_any_answer(number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(tasks, "finding", said.append)
    monkeypatch.setattr("tpsnet_lib.course.explore", lambda draw, **knobs: None)
    room, asked = tasks_of(number)
    monkeypatch.setattr(tasks, "_notebook_names", lambda: room)
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
            assert "\n" not in line
            assert len(line) < 600
            assert "Traceback" not in line
