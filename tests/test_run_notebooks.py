"""What a user can rely on when notebooks are run with a profile: checked parameters, kept results, named failures."""

from __future__ import annotations

import sys
from math import ceil
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tpsnet_lib.errors import ConfigError, Interrupted, TpsnetError
from tpsnet_lib.profiles import Profile, check_parameters, load_profile, refusal
from tpsnet_lib.report import run_notebooks

DECLARED = 'profile = "quick"\ndataset = "auto"\ndata = ""\nstore = ""\ntrials = 4\nrate = 0.1\nseeds = [0]'
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def toy(folder: Path, name: str, *sources: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    parameters = new_code_cell(DECLARED, metadata={"tags": ["parameters"]})
    cells = [new_markdown_cell("# A toy"), parameters, *(new_code_cell(source) for source in sources)]
    path = folder / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata=KERNEL), path)
    return path


def printed(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


@pytest.fixture
def smoke() -> Profile:
    return load_profile("smoke")


def test_parameters_reach_the_notebook_which_runs_in_this_interpreter(tmp_path, smoke, monkeypatch, capsys):
    folder = tmp_path / "with {braces} and spaces é"
    toy(folder, "01_good", "import sys\nprint(profile, dataset, trials, sys.executable)")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(tmp_path)
    (result,) = run_notebooks.run(smoke, folder=folder, out=Path("out {x}"), parameters={"trials": 9})
    assert (result.status, result.path) == ("ok", tmp_path / "out {x}" / "01_good.ipynb")
    assert printed(result.path) == f"smoke shapes10 9 {sys.executable}\n"
    assert capsys.readouterr().err.startswith("01_good: done in ")


@pytest.mark.slow
def test_a_failure_keeps_its_part_and_the_last_good_copy_names_the_cell_and_skips_the_rest(tmp_path, smoke, capsys):
    toy(tmp_path, "01_bad", "print('before')", "x = 1\nraise ValueError('the\\nlast line')", "print('after')")
    toy(tmp_path, "02_next", "1")
    out = tmp_path / "out"
    out.mkdir()
    (out / "01_bad.ipynb").write_text("an earlier success")
    failed, skipped = run_notebooks.run(smoke, folder=tmp_path, out=out)
    assert (failed.status, failed.cell, skipped.status) == ("failed", 4, "skipped")
    assert failed.error == "`x = 1`: ValueError: last line"
    assert failed.path == out / "01_bad.failed.ipynb"
    assert printed(failed.path) == "before\n"
    assert (out / "01_bad.ipynb").read_text() == "an earlier success"
    lines = capsys.readouterr().err.splitlines()
    assert "01_bad: failed in cell 4" in lines[0]
    assert str(failed.path) in lines[0]


@pytest.mark.parametrize(("last", "cell", "error"), [("1", 3, "`assert 0,"), ("1 / 0", 4, "`1 / 0`: ZeroDivision")])
@pytest.mark.slow
def test_a_cell_that_may_raise_is_named_if_nothing_else_failed(tmp_path, smoke, last, cell, error):
    path = toy(tmp_path, "01_open", "assert 0, 'not solved yet'", last)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[2].metadata["tags"] = ["raises-exception"]
    nbformat.write(notebook, path)
    (failed,) = run_notebooks.run(smoke, folder=tmp_path, out=tmp_path / "out")
    assert (failed.status, failed.cell) == ("failed", cell)
    assert failed.error.startswith(error)


@pytest.mark.slow
def test_keep_going_runs_the_rest_and_a_success_replaces_what_was_left_of_a_failure(tmp_path, smoke):
    toy(tmp_path, "01_bad", "import os\nos._exit(1)")
    toy(tmp_path, "02_good", "print('ran')")
    out = tmp_path / "out"
    out.mkdir()
    (out / "02_good.failed.ipynb").write_text("an earlier failure")
    bad, good = run_notebooks.run(smoke, folder=tmp_path, out=out, keep_going=True, progress="none")
    assert (bad.status, bad.cell, good.status) == ("failed", 3, "ok")
    assert "DeadKernelError" in bad.error
    assert sorted(path.name for path in out.glob("[0-9]*")) == ["01_bad.failed.ipynb", "02_good.ipynb"]


@pytest.mark.slow
def test_sigterm_is_one_line_and_leaves_no_partial_copy(tmp_path, smoke):
    toy(tmp_path, "01_long", "import os, signal, time\nos.kill(os.getppid(), signal.SIGTERM)\ntime.sleep(60)")
    with pytest.raises(Interrupted, match="stopped in 01_long"):
        run_notebooks.run(smoke, folder=tmp_path, out=tmp_path / "out", progress="none")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


@pytest.mark.slow
def test_a_cell_that_hangs_is_stopped_at_the_time_out(tmp_path, smoke):
    toy(tmp_path, "01_slow", "while True:\n    pass")
    profile = Profile("x", smoke.parameters, {}, {}, 1, "2 cores")
    (result,) = run_notebooks.run(profile, folder=tmp_path, out=tmp_path / "out", progress="none")
    assert (result.status, result.cell) == ("failed", 3)
    assert "cell_timeout" in result.error


def test_an_unknown_parameter_is_refused_before_anything_runs(tmp_path, smoke):
    toy(tmp_path, "01_toy")
    with pytest.raises(ConfigError, match=r"^01_toy.ipynb has no parameter 'trails': did you mean trials\?$"):
        run_notebooks.run(smoke, folder=tmp_path, out=tmp_path / "out", parameters={"trails": 9})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [{"trials": "many"}, {"trials": 1.5}, {"rate": "1e-3"}, {"seeds": 3}, {"data": True}])
def test_a_parameter_of_another_type_is_refused(tmp_path, smoke, wrong):
    path = toy(tmp_path, "01_toy")
    with pytest.raises(ConfigError, match=f"parameter {next(iter(wrong))} is"):
        run_notebooks.parameters_for(path, smoke, wrong)


def test_parameters_of_the_right_type_pass(tmp_path, smoke):
    path = toy(tmp_path, "01_toy")
    given = run_notebooks.parameters_for(path, smoke, {"rate": 1, "seeds": [1, 2], "trials": 2})
    assert given == {**smoke.parameters, "rate": 1, "seeds": [1, 2], "trials": 2}


def test_prepared_copies_have_the_parameters_and_have_not_run(tmp_path, smoke):
    toy(tmp_path, "01_toy", "print(profile)")
    (path,) = run_notebooks.prepare(smoke, tmp_path / "out", folder=tmp_path)
    cells = nbformat.read(path, as_version=4).cells
    assert 'profile = "smoke"' in cells[2].source
    assert printed(path) == ""


def test_notebooks_are_chosen_by_number_or_name(tmp_path):
    for name in ("01_explore_data", "02_effects"):
        toy(tmp_path, name)
    assert [path.stem for path in run_notebooks.choose(["02"], tmp_path)] == ["02_effects"]
    assert [path.stem for path in run_notebooks.choose((), tmp_path)] == ["01_explore_data", "02_effects"]
    with pytest.raises(ConfigError, match="did you mean 02_effects"):
        run_notebooks.choose(["02_efects"], tmp_path)
    with pytest.raises(ConfigError, match="holds no notebook"):
        run_notebooks.choose((), tmp_path / "empty")


def test_a_damaged_notebook_and_an_output_folder_that_is_a_file_are_one_line(tmp_path, smoke):
    path = toy(tmp_path, "01_toy")
    (tmp_path / "file").write_text("")
    with pytest.raises(TpsnetError, match="cannot be written"):
        run_notebooks.run(smoke, folder=tmp_path, out=tmp_path / "file")
    path.write_text("{")
    with pytest.raises(TpsnetError, match=r"01_toy\.ipynb is not whole JSON"):
        run_notebooks.parameters_for(path, smoke)


def test_the_committed_profiles_name_common_parameters_and_seconds():
    for name in ("smoke", "quick", "full"):
        profile = load_profile(name)
        assert profile.parameters["profile"] == name
        assert set(profile.parameters) >= {"profile", "dataset", "data", "store"}
        assert set(profile.seconds) == set(profile.notebooks)
    assert load_profile("smoke").parameters["dataset"] == "shapes10"
    with pytest.raises(ConfigError, match="choose one of smoke, quick, full"):
        load_profile("slow")


def test_a_misspelt_key_of_a_profile_is_refused(tmp_path):
    path = tmp_path / "profiles.yaml"
    path.write_text("profiles: {smoke: {cell_timout: 3}}")
    with pytest.raises(ConfigError, match=r"smoke\.cell_timout is not a field: did you mean cell_timeout"):
        load_profile("smoke", path)


def test_the_estimate_is_the_sum_of_the_seconds_of_the_chosen_notebooks(tmp_path):
    for name in ("01_a", "02_b", "03_unknown"):
        toy(tmp_path, name)
    profile = Profile("x", {}, {}, {"01_a": 70, "02_b": 400}, 60, "2 cores")
    assert run_notebooks.estimate(profile, folder=tmp_path) == "about 8 minutes on 2 cores"
    assert run_notebooks.estimate(profile, only=["01"], folder=tmp_path) == "about 1 minute on 2 cores"


# In the kernel of a notebook


ALL_IMAGES = ("05_error_analysis", "live_train_size")  # 0 is all of them
MAY_BE_ZERO = {"seed", "live_seed", "live_seeds", "seeds", "latency_seconds", ALL_IMAGES}
LEAST = {"draws": 100, "live_draws": 4, "habit_size": 2, "epochs": 0.001, "live_epochs": 0.001}


def declared(path):
    """The parameters of a notebook with their defaults."""
    (cell,) = (c for c in nbformat.read(path, as_version=4).cells if "parameters" in c.metadata.get("tags", []))
    names = {}
    exec(cell.source, {}, names)
    return names


def of_another_type(value):
    """The smallest values of another type than a parameter's."""
    if isinstance(value, list):
        return [value[0], [], [str(value[0])]]
    return [[value], len if isinstance(value, str) else "six"]


def out_of_range(least, value):
    """Numbers below the least that a parameter may be, in its own form: in a list behind those that are right."""
    return [[*value, number] if isinstance(value, list) else type(value)(number) for number in range(-1, ceil(least))]


@pytest.mark.parametrize("path", run_notebooks.choose(), ids=lambda path: path.stem)
def test_every_parameter_of_another_type_is_refused_in_one_line_that_names_it(path):
    given = declared(path)
    check_parameters(given)
    for name in (name for name in given if given[name] != []):  # of photographs, whose paths may be anything
        for wrong in of_another_type(given[name]):
            with pytest.raises(ConfigError, match=f"^parameter {name} is [^\n]*: give a value such as [^\n]*$"):
                check_parameters({**given, name: wrong})


def test_a_text_in_place_of_a_list_that_is_empty_at_first_is_refused_with_a_list_that_has_values():
    assert refusal("photos", "a.jpg", [[]]) == "give a value such as [a, b]"


@pytest.mark.parametrize("path", run_notebooks.choose(), ids=lambda path: path.stem)
@pytest.mark.slow
def test_every_number_out_of_range_is_refused_in_a_kernel_and_before_one_is_started(path, smoke):
    given = declared(path)
    for name, value in given.items():
        least = 0 if MAY_BE_ZERO & {name, (path.stem, name)} else LEAST.get(name, 1)
        if isinstance(value, (str, bool)) or value == []:
            continue
        for wrong in out_of_range(least, value):
            line = rf"parameter {name} is [^\n]*: give (a number|numbers) of at least [\d.]+$"
            with pytest.raises(ConfigError, match=f"^{line}"):
                check_parameters({**given, name: wrong})
            with pytest.raises(ConfigError, match=rf"^{path.stem}\.ipynb: {line}"):
                run_notebooks.parameters_for(path, smoke, {name: wrong})
        right = [least] if isinstance(value, list) else least
        check_parameters({**given, name: right})
        run_notebooks.parameters_for(path, smoke, {name: right})
