"""Exercises that check themselves: one helpful line for any answer, hints by steps, worked solutions in files.

    size = task("images needed", number(45_600, within=0.05), hints=["The width falls with the root of n."])
    size.check(answer)

A task stands in a cell with the tag `task`, whose source is hidden because it gives the answer away; the blank that a
student fills stands in the next cell, with the tag `exercise`, and calls `check` in its last line. The worked solution
is a section of a file in `notebooks/solutions/`, under a line `# %% name of the task`; its last statement defines the
answer. While an exercise is not answered, its solution is run and checked in its place, so that a notebook runs whole.
Copies for students (`tpsnet notebooks --student`) call `hide_solutions()` first: then no line leads to a worked
solution, and one that is code stands in unseen, because the cells below call it. A number or a name would be the answer
itself: there the cells below go on with the `solution` that the task was given, if any."""

import ast
import difflib
import linecache
import re
import symtable
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any

from tpsnet_lib.answer_checks import NO_POWER, NOT_ANSWERED, Check, Slip, notebook_names, raised
from tpsnet_lib.errors import TpsnetError, brief
from tpsnet_lib.files import project_root
from tpsnet_lib.plots.style import finding


@dataclass
class Solutions:
    """Where the worked solutions lie, from the project's root, and whether they are hidden from students."""

    folder: Path = Path("notebooks/solutions")
    hidden: bool = False


solutions = Solutions()


@dataclass(repr=False)
class Task:
    """An exercise: what is wrong with an answer (a check, as `number`, `names`, `ranges`, `function` and `module` make
    one), hints of which each new wrong answer gets another, and a solution that stands in for the answer where no
    worked one is found. `passed`: whether the student's own answer was right.

    Hints are given in their order. If each comes with a part of what is wrong, or several between `|`, one that fits
    comes first, and again while no other fits as well (empty: always fits). `faults` are likely faults with the same:
    the first that fits is said in place of what is wrong, with a hint only when it is met again."""

    name: str
    wrong: Check
    hints: Sequence[str] | Mapping[str, str] = ()
    solution: Any = None
    faults: Mapping[str, str] = field(default_factory=dict)
    given: list[str] = field(default_factory=list, init=False)  # hints, in the order in which they were first given
    last_hint: str = field(default="", init=False)  # empty once there is none left
    passed: bool = field(default=False, init=False)
    last_wrong: Any = field(default=None, init=False)
    faults_named: set[str] = field(default_factory=set, init=False)
    stand_in: Any = field(default=None, init=False)
    returned: tuple[Any, ...] = field(default=(), init=False)  # by the last check, in a tuple of one

    def __repr__(self) -> str:
        return f"<task {self.name!r}: .check(answer), .hint()>"

    def outcome(self) -> Any:
        """What the cells below go on with: what the last check returned, or a solution if none has ended, as where the
        cell of the exercise fails before its check."""
        return self.returned[0] if self.returned else self._solution()

    def _solution(self) -> Any:
        worked = _worked(self.name)
        return self.solution if worked is None or (solutions.hidden and not callable(worked)) else worked

    def check(self, answer: Any = None) -> Any:
        """Say in one line how right an answer is; returns it if it is right, else a solution if there is one.

        Raises `TpsnetError` only if the worked solution itself fails, as it does where a cell above it is wrong."""
        self.returned = ()
        self.returned = (self._checked(answer),)
        return self.returned[0]

    def _checked(self, answer: Any) -> Any:
        bare = answer.strip() if isinstance(answer, str) else answer
        blank = answer is None or answer is ... or (isinstance(bare, str | list | tuple | set | dict) and not bare)
        blank |= solutions.hidden and callable(answer) and answer is self.stand_in  # handed back from an earlier check
        problem = NOT_ANSWERED if blank else self._problem(answer)
        if not blank and (problem or answer is self.stand_in):  # the value may be that of an earlier cell
            stale = (said for name, said in without_value().items() if notebook_names().get(name) is answer)
            problem = next(stale, problem)
            if isinstance(answer, int | float) and any(
                isinstance(part, ast.BitXor) for part in ast.walk(_running_cell())
            ):
                problem = Slip(NO_POWER)
        self.passed = not problem
        if self.passed:
            finding("**Right.**")
            return answer
        solution = self.stand_in = self._solution()
        if solution is not None and (fault := self._problem(solution)):
            cause = "it builds on the cells above: run those again whose answer you changed, or restart and run all"
            raise TpsnetError(f"the worked solution of task {self.name!r} fails ({cause}): {fault}")
        notice = " Until it is right, the worked solution stands in for it."
        if solution is None:
            notice = "" if solutions.hidden else f" No worked solution of it was found in {solutions.folder}."
        if problem == NOT_ANSWERED:
            problem += " Put your answer into the cell above this line and run it again."
            name = next((name for name, value in notebook_names().items() if value is self), "")
            problem += f" `{name}.hint()` gives a hint." if name and self.hints else ""
        if problem.startswith(NOT_ANSWERED):
            finding(f"{problem}{notice}")
        else:
            enough = isinstance(problem, Slip) or problem in self.faults.keys() - self.faults_named
            self.faults_named.add(problem)
            hint = "" if enough else self._hint(answer, problem)
            if hint == self._all_hints():  # a list comes last
                finding(f"**Not yet.** {problem}{notice} {hint}")
            else:
                finding(f"**Not yet.** {problem} {hint}".rstrip() + notice)
        return answer if solution is None else solution

    def hint(self) -> None:
        """Show the next hint, without an answer; after the last one the worked solution."""
        finding(self._hint(("asked", len(self.given)), ""))

    def _hint(self, answer: Any, problem: str) -> str:
        """A hint that was not shown yet; the last one again for the same answer, and in the end the worked solution."""
        hints = self.hints if isinstance(self.hints, Mapping) else dict.fromkeys(self.hints, "")
        if (content := _content(answer)) != self.last_wrong:
            left = [hint for hint in hints if hint not in self.given]
            fitting = [hint for hint, parts in hints.items() if parts and _fits(parts, problem)]
            new = [hint for hint in fitting if hint in left]
            general = [hint for hint in left if not hints[hint]]
            self.last_hint = (new or fitting or general or left)[0] if left else ""
            self.given += [self.last_hint] if self.last_hint in left else []
        self.last_wrong = content
        if self.last_hint:
            parts = hints[self.last_hint]
            about = "" if not problem or not parts or _fits(parts, problem) else ", on the task as a whole"
            return f"*Hint {self.given.index(self.last_hint) + 1} of {len(hints)}{about}: {self.last_hint}*"
        return self._all_hints()

    def _all_hints(self) -> str:
        """The hints, and the worked solution, each folded away."""
        folded = {"All hints": "\n".join(f"- {hint}" for hint in self.hints)} if self.hints else {}
        if not solutions.hidden and (worked := worked_sections().get(self.name, "").strip()):
            folded["Worked solution"] = f"```python\n{worked}\n```"
        return "".join(
            f"\n\n<details><summary>{head}</summary>\n\n{text}\n\n</details>" for head, text in folded.items()
        )

    def _problem(self, answer: Any) -> str:
        try:
            with warnings.catch_warnings(action="ignore"):
                problem = self.wrong(answer)
        except Exception as error:  # whatever a student's answer raises is a sentence, not a traceback
            problem = raised(error)
        return next((fault for fault, parts in self.faults.items() if _fits(parts, problem)), problem)


def without_value() -> dict[str, Slip]:
    """The names that the running cell hands to `check` and gives no value, as misspelt ones, with a sentence on each.

    Such a name is not defined, or still holds the value of an earlier cell."""
    handed: set[str] = set()
    others: list[ast.stmt] = []
    for statement in _running_cell().body:
        checks = _checks(statement)
        handed |= {part.id for call in checks for part in call.args if isinstance(part, ast.Name)}
        others += [] if checks else [statement]
    given = names_given(ast.unparse(ast.Module(others, [])))
    near = {name: difflib.get_close_matches(name, given, 1) for name in handed - given}
    return {
        name: Slip(f"This cell gives no value to `{name}`{f': is it `{meant[0]}`, misspelt?' if meant else '.'}")
        for name, meant in near.items()
    }


def _running_cell() -> ast.Module:
    """The code of the running cell; an empty one of a cell that is no plain Python, as one with a magic."""
    try:
        return ast.parse(str(notebook_names().get("In", [""])[-1]))
    except SyntaxError:
        return ast.Module([], [])


def keys_without_quotes() -> set[str]:
    """The names that stand as keys in the dicts that the running cell writes out."""
    dicts = [part for part in ast.walk(_running_cell()) if isinstance(part, ast.Dict)]
    return {key.id for each in dicts for key in each.keys if isinstance(key, ast.Name)}


def _checks(tree: ast.AST) -> list[ast.Call]:
    """The calls of a `check` in some code."""
    calls = [part for part in ast.walk(tree) if isinstance(part, ast.Call)]
    return [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "check"]


def words_of_answers() -> set[str]:
    """The words of the names among which the tasks of the running cell ask to choose."""
    names, checks = notebook_names(), _checks(_running_cell())
    asked = [names.get(ast.unparse(call.func.value)) for call in checks if isinstance(call.func, ast.Attribute)]
    known = [name for each in asked if isinstance(each, Task) for name in getattr(each.wrong, "known", ())]
    return {word for name in known for word in name.split()}


def names_given(source: str) -> set[str]:
    """The names that a cell gives values to, by assignment, definition or import."""
    symbols = symtable.symtable(source, "<cell>", "exec").get_symbols()
    return {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}


def _fits(parts: str, problem: str) -> bool:
    """Whether one of several parts, between `|`, stands in what is wrong."""
    return any(part in problem for part in parts.split("|"))


task = Task  # as a notebook writes it


def hide_solutions() -> None:
    """Show no worked solution, as the copies for students do: an exercise stays open until its student solves it."""
    solutions.hidden = True


def worked_sections() -> dict[str, str]:
    """The worked solutions, as source text by the name of the task."""
    sections: dict[str, str] = {}
    for path in _solution_files():
        parts = re.split(r"^# %% (.+)$", path.read_text("utf-8"), flags=re.MULTILINE)
        sections |= dict(zip(map(str.strip, parts[1::2]), parts[2::2], strict=True))
    return sections


def _solution_files() -> list[Path]:
    return sorted((project_root() / solutions.folder).glob("*.py"))


def _worked(name: str) -> Any:
    """A worked solution, run where the notebook's names are known; None without one.

    Raises `TpsnetError` where it cannot run, as without the cells above."""
    if (code := worked_sections().get(name)) is None:
        return None
    try:
        return _last_value(code, f"worked solution of {name}")
    except Exception as error:
        raise TpsnetError(
            f"the worked solution of task {name!r} cannot run ({brief(error)}): was a cell above not run? Run all cells"
            " from the top"
        ) from error


def _last_value(code: str, path: str) -> Any:
    """What the last statement of a section defines, as a function, a class or a variable."""
    names, tree = notebook_names(), ast.parse(code, path)
    linecache.cache[path] = (len(code), None, code.splitlines(keepends=True), path)  # for inspect, and for tracebacks
    exec(compile(tree, path, "exec"), names)
    last = tree.body[-1]
    return names[last.targets[0].id if isinstance(last, ast.Assign) else last.name]  # type: ignore[attr-defined]


def _content(answer: Any) -> Any:
    """What an answer says, so that a cell that is run again gives the same: of code its steps, else its text."""
    if isinstance(answer, type):
        return [(name, _content(part)) for name, part in vars(answer).items() if callable(part)]
    code = answer if isinstance(answer, CodeType) else getattr(answer, "__code__", None)
    if isinstance(code, CodeType):
        return code.co_code, code.co_names, [_content(part) for part in code.co_consts]
    return re.sub(r" at 0x[0-9a-f]+", "", repr(answer))
