"""Copies of the notebooks: students get no outputs and no worked solutions, of which each exercise has one."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tpsnet_lib.cli.main import main
from tpsnet_lib.report import run_notebooks, student_copies
from tpsnet_lib.tasks import worked_sections

PATHS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
CHAPTERS = [path for path in PATHS if "course.open_lab(" in path.read_text("utf-8")]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_students_copy_has_no_outputs_and_hides_the_solutions(path: Path, tmp_path: Path) -> None:
    assert main(["notebooks", "--student", str(tmp_path), "--only", path.stem]) == 0
    cells = nbformat.read(tmp_path / path.name, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in code)
    assert sum(student_copies.HIDE in cell.source for cell in code) == 1
    marked = {cell.metadata["nbgrader"]["grade_id"]: cell for cell in code if "nbgrader" in cell.metadata}
    assert all(cell.metadata["nbgrader"]["locked"] for cell in marked.values())
    exercises = [cell for cell in code if "exercise" in cell.metadata.get("tags", [])]
    assert all("raises-exception" in cell.metadata["tags"] for cell in exercises), "Run All goes on"
    blanks = [*exercises, *(cell for cell in code if "yours to change" in cell.source.lower())]
    assert not any("nbgrader" in cell.metadata for cell in blanks), "nbgrader would empty a blank, or put it back"
    ids = [name for name, cell in marked.items() if cell.metadata["nbgrader"]["grade"]]
    assert len(ids) == len(exercises)
    names = [re.sub(r"\W+", "-", name.lower()).strip("-") for name in worked_sections()]
    assert {name.removesuffix("-graded") for name in ids} <= set(names), "each is found by the name of its solution"


def test_a_copy_that_may_hold_somebodys_work_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["notebooks", "--student", str(tmp_path), "--only", "01"]
    assert main(given) == 0
    (tmp_path / PATHS[0].name).write_text("work")
    assert main(given) == 1
    assert "would be overwritten: name another folder" in capsys.readouterr().err
    assert (tmp_path / PATHS[0].name).read_text() == "work"
    new = ["notebooks", "--student", str(tmp_path / "new")]
    assert main([*new, "--out", str(tmp_path)]) == 1
    assert "--out has no effect with --student" in capsys.readouterr().err
    assert main([*new, "--only", "03", "-p", "live_drawn", "8"]) == 1
    assert "03_random_search.ipynb has no parameter 'live_drawn': did you mean live_draws?" in capsys.readouterr().err
    assert main([*new, "-p", "live_draws", "[8"]) == 1
    assert "-p live_draws '[8': the value is not plain YAML (line 1, character 3: " in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_copy_may_have_the_parameters_of_a_profile_and_its_own(tmp_path: Path) -> None:
    space = "variables: {lr: [0.1]}"
    asked = ["--profile", "smoke", "-p", "live_seed", "8", "-p", "live_space", space, "-p", "store", "8"]
    assert main(["notebooks", "--student", str(tmp_path), "--only", "03", *asked]) == 0
    cells = nbformat.read(tmp_path / "03_random_search.ipynb", as_version=4).cells
    tags = [cell.metadata.get("tags", []) for cell in cells]
    injected = tags.index(["injected-parameters"])
    assert "parameters" in tags[injected - 1]
    lines = cells[injected].source.splitlines()
    assert {'profile = "smoke"', 'dataset = "shapes10"', "live_seed = 8"} <= set(lines)
    assert {f'live_space = "{space}"', 'store = "8"'} <= set(lines), (
        "texts as they are given, whatever YAML makes of them"
    )


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_exercise_has_a_worked_solution_that_the_notebook_does_not_show(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    sections, shown = worked_sections(), "".join(cell.source for cell in notebook.cells)
    tasks = dict(re.findall(r'(\w+) = course\.task\(\s*"([^"]+)"', shown))
    exercises = [cell.source for cell in notebook.cells if "exercise" in cell.metadata.get("tags", [])]
    assert 3 <= len(exercises) <= 5
    for source in exercises:
        (variable,) = re.findall(r"(\w+)\.check\(", source)
        assert sections[tasks[variable]].strip() not in shown


@pytest.mark.slow
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_blank_copy_runs_to_its_end_and_its_tasks_stay_open(path: Path, tmp_path: Path) -> None:
    copies, store = tmp_path / "class", {"store": str(tmp_path / "store")}
    assert main(["notebooks", "--student", str(copies), "--only", path.stem]) == 0
    (prepared,) = run_notebooks.prepare("smoke", tmp_path / "prepared", folder=copies, parameters=store)
    notebook = nbformat.read(prepared, as_version=4)
    kernel = run_notebooks._kernel_of_this_interpreter()
    NotebookClient(notebook, timeout=300, kernel_manager_class=kernel).execute()  # papermill would call it failed
    cells = notebook.cells
    graded = [cell for cell in cells if cell.metadata.get("nbgrader", {}).get("points")]
    assert len(graded) >= 3
    for cell in graded:
        assert [output.get("ename") for output in cell.outputs] == ["AssertionError"], cell.source
    told = "".join(str(cell.get("outputs", "")) for cell in cells)
    assert told.count("Not answered yet.") == len(graded)
    assert "solutions/" not in told


@pytest.mark.slow
def test_after_an_answer_that_fails_before_its_check_a_copy_runs_to_its_end(tmp_path: Path) -> None:
    copies, store = tmp_path / "class", {"store": str(tmp_path / "store")}
    student_copies.write_student_copies(copies, ["02"])
    (prepared,) = run_notebooks.prepare("smoke", tmp_path / "prepared", folder=copies, parameters=store)
    notebook = nbformat.read(prepared, as_version=4)
    cells = {cell.id: cell for cell in notebook.cells}
    block, last = cells["exercise-block"], cells["exercise-multiplications"]
    block.source = block.source.replace("check(ResidualBlock)", "check(ResidulaBlock)")
    last.source = last.source.replace("answer = None", "answer = 64 * 128 * 3**2 * 16**2")
    kernel = run_notebooks._kernel_of_this_interpreter()
    NotebookClient(notebook, timeout=300, kernel_manager_class=kernel).execute()
    errors = {cell.id: out.ename for cell in notebook.cells for out in cell.get("outputs", []) if "ename" in out}
    assert errors["exercise-block"] == "NameError"
    assert errors["block-graded"] == errors["layer-graded"] == "AssertionError"
    assert "multiplications-graded" not in errors, "a right answer below counts"


def test_names_of_worked_solutions_are_unique() -> None:
    texts = [path.read_text("utf-8") for path in sorted((PATHS[0].parent / "solutions").glob("*.py"))]
    assert sum(text.count("\n# %% ") for text in texts) == len(worked_sections())


def test_copies_for_a_repository_begin_with_badges_and_a_cell_that_sets_colab_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".git").mkdir()
    given = ["notebooks", "--student", str(tmp_path / "course" / "class"), "--only", "01"]
    assert main([*given, "--address", "https://github.com/some-owner/course"]) == 0
    cells = nbformat.read(tmp_path / "course" / "class" / PATHS[0].name, as_version=4).cells
    assert (
        f"colab.research.google.com/github/some-owner/course/blob/HEAD/course/class/{PATHS[0].name})" in cells[0].source
    )
    assert f"mybinder.org/v2/gh/some-owner/course/HEAD?labpath=course/class/{PATHS[0].name})" in cells[0].source
    calls: list[list[str]] = []
    monkeypatch.setattr("subprocess.run", lambda command, check: calls.append(command))
    exec(cells[1].source, {})
    assert calls == [], "the library is here"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("TPSNET_HOME", "")
    exec(cells[1].source, {})
    assert calls[0][-2:] == ["https://github.com/some-owner/course", "tpsnet"]
    assert os.environ["TPSNET_HOME"] == str(Path("tpsnet").absolute())


def test_another_address_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["notebooks", "--student", str(tmp_path), "--only", "01", "--address", "github.com/course"]
    assert main(given) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_readme_tells_from_copies_that_were_run_who_solved_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["notebooks", "--student", str(tmp_path), "--only", "01"]) == 0
    copy = nbformat.read(tmp_path / PATHS[0].name, as_version=4)
    failed, solved, left = [cell for cell in copy.cells if cell.metadata.get("nbgrader", {}).get("grade")][:3]
    failed.execution_count = solved.execution_count = 1
    failed.outputs = [nbformat.v4.new_output("error", ename="AssertionError", evalue="", traceback=[])]
    nbformat.write(copy, tmp_path / PATHS[0].name)
    capsys.readouterr()
    readme = (PATHS[0].parent / "README.md").read_text("utf-8")
    exec(re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[0].replace('"DIR"', repr(str(tmp_path))), {})
    ids = [cell.metadata.nbgrader.grade_id for cell in (failed, solved, left)]
    lines = [f"{PATHS[0].name} {each} {state}" for each, state in zip(ids, ("open", "solved", "open"), strict=True)]
    assert capsys.readouterr().out.splitlines()[:3] == lines
