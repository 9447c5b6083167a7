"""The network under test: what cannot be used is said in one line, and notebook 05 goes on with what there is."""

from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from conftest import QUIET, tiny

from tpsnet_lib import course, metrics, tasks
from tpsnet_lib.analysis import errors, final_runs
from tpsnet_lib.config import ModelConfig
from tpsnet_lib.data import datasets
from tpsnet_lib.errors import RecordError
from tpsnet_lib.model import build
from tpsnet_lib.runs import test_set
from tpsnet_lib.runs.experiments import Experiment, Run
from tpsnet_lib.runs.load_or_run import load_or_run
from tpsnet_lib.runs.record_files import WEIGHTS, write_sums, write_weights
from tpsnet_lib.runs.records import Store, read_record

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "05_error_analysis.ipynb"
SMALL = {  # parameters under which the notebook takes seconds
    "dataset": "shapes10",
    "live_epochs": 0.5,
    "live_train_size": 100,
    "stress_images": 40,
    "precision": "fp32",  # of which nothing is compiled
}


@pytest.fixture
def opened(record_copy):
    """A store with one record whose test part is there, to be damaged."""
    store = Store(record_copy.parent)
    test_set.open_test(store.load(record_copy.name), store=store, device="cpu", exploratory=True)
    return store


def swap_weights(folder):
    """Weights that are whole and carry the record's id, but are those of a wider network."""
    wider = build(ModelConfig(blocks=(1, 1), channels=(4, 16), stem=4))
    write_weights(folder / WEIGHTS, wider, read_record(folder).config)
    write_sums(folder)


def shorten(folder):
    """A test part of 1,999 predictions."""
    with np.load(folder / "test" / "logits.npz") as file:
        logits = file["logits"]
    np.savez_compressed(folder / "test" / "logits.npz", logits=logits[1:])
    write_sums(folder / "test")


def choose(store, run_id):
    """The network of an id, or a tiny one that is trained in its place."""
    return errors.choose_network(store, "shapes10", run_id, None, tiny(train__epochs=1))


@pytest.fixture
def notebook(monkeypatch, capsys):
    """Runs the code cells of notebook 05 one after another; gives their names, the findings and what was printed."""
    findings = []
    monkeypatch.setattr(course, "finding", lambda text, *_, **__: findings.append(text))
    monkeypatch.setattr(tasks, "finding", findings.append)
    monkeypatch.setattr(course.Lab, "show", staticmethod(lambda figure: None))

    def run(**parameters):
        findings.clear()
        names: dict[str, object] = {}
        for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, f"cell {cell.id}", "exec"), names)
            if "parameters" in cell.metadata.get("tags", []):
                names |= {**SMALL, **parameters}
        return SimpleNamespace(**names), " ".join(findings), capsys.readouterr().out

    return run


# The network


def test_the_network_that_is_trained_without_cifar_fits_the_built_in_images(monkeypatch):
    cells = {cell.id: cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells}
    names: dict[str, object] = {}
    for cell in ("imports", "parameters"):
        exec(cells[cell], names)
    names |= {"dataset": "shapes10"}
    asked = []
    monkeypatch.setattr(errors, "choose_network", lambda *given: asked.append(given[-1]))
    with pytest.raises(AttributeError):  # there is no network to go on with
        exec(cells["open"], names)
    fit, validation = datasets.fit_and_validation(asked[0].data)
    assert (len(fit), len(validation)) == (9000, 500)


def test_a_record_gives_its_network_and_the_predictions_that_were_kept(opened, tiny_record):
    found = choose(opened, tiny_record.id)
    assert (found.record.id, found.notes, found.exploratory, found.trained_now) == (tiny_record.id, (), True, False)
    assert torch.equal(found.logits, test_set.find_test(tiny_record, opened).logits)
    expected = metrics.predict(found.network, found.test.images)
    torch.testing.assert_close(found.logits, expected, atol=0.01, rtol=0.01)
    assert f"`{tiny_record.id}` (read from the store; exploratory" in found.description
    assert (found.dataset, len(found.class_names)) == ("shapes10", 10)


def test_a_run_whose_test_set_stayed_shut_is_said_to_be_one(opened, tmp_path, monkeypatch):
    with pytest.raises(RecordError, match="no record 0123456789ab"):
        choose(opened, "0123456789ab")
    monkeypatch.setattr(errors, "fresh_folder", lambda run_id: tmp_path / run_id)
    with pytest.raises(RecordError, match="0123456789ab, whose test set stayed shut in notebook 4"):
        choose(opened, "0123456789ab")


def test_a_record_without_usable_weights_is_passed_over_for_the_next_or_for_a_network_trained_now(
    opened, tiny_record, monkeypatch
):
    swap_weights(opened.writable / tiny_record.id)
    with pytest.raises(RecordError, match=r"does not fit the network in config\.json"):
        choose(opened, tiny_record.id)  # which was asked for, so that no other stands in for it
    monkeypatch.setattr(errors, "rank_records", lambda store, dataset: [store.load(tiny_record.id)])
    found = choose(opened, "")
    assert (found.trained_now, found.record.id) == (True, tiny(train__epochs=1).id)
    assert "trained now" in found.description
    (note,) = found.notes
    assert note.startswith(f"Record {tiny_record.id} is passed over: ")
    assert "does not fit the network in config.json" in note
    assert "\n" not in note
    other = load_or_run(tiny(train__epochs=1), QUIET, store=opened, keep_weights=True)
    records = [opened.load(tiny_record.id), other]
    monkeypatch.setattr(errors, "rank_records", lambda store, dataset: records)
    following = choose(opened, "")
    assert (following.record.id, following.trained_now) == (other.id, False)


@pytest.mark.parametrize("altered", [False, True])
def test_predictions_of_another_length_or_altered_are_computed_anew_and_not_kept(opened, tiny_record, altered):
    kept = test_set.find_test(tiny_record, opened).logits
    folder = opened.writable / tiny_record.id
    shorten(folder)
    if altered:
        (folder / "test" / "SHA256SUMS").write_text("0" * 64 + "  logits.npz\n")
    before = (folder / "test" / "logits.npz").read_bytes()
    found = choose(opened, tiny_record.id)
    assert torch.equal(found.logits, kept)
    assert ("altered" if altered else "holds no logits") in found.notes[0]
    assert (folder / "test" / "logits.npz").read_bytes() == before


def test_an_id_that_no_record_has_is_an_error(opened):
    with pytest.raises(RecordError, match=r"no record 0123456789ab in [^\n]*: `tpsnet records list` lists them$"):
        choose(opened, "0123456789ab")


def test_the_baseline_is_another_record_of_the_same_data_whose_weights_can_be_used(opened, tiny_record, monkeypatch):
    record = opened.load(tiny_record.id)
    assert errors.baseline(record, opened) is None  # the experiment has no record on these images
    monkeypatch.setattr(errors, "collect", lambda *_: [(None, None), (None, record)])
    assert errors.baseline(record, opened) is None  # the record itself
    other = SimpleNamespace(id="other", config=tiny(train__epochs=1))
    assert errors.baseline(other, opened)[0] is record
    (opened.writable / record.id / WEIGHTS).unlink()
    assert errors.baseline(other, opened) is None


# The notebook


def leave_images(monkeypatch, positions):
    """Leave these of the test images alone, as many as its cells need to say something."""
    few = datasets.load_test("shapes10").subset(positions)
    for module in (errors, test_set):
        monkeypatch.setattr(module, "load_test", lambda *_: few)
    return few


@pytest.mark.slow
def test_the_notebook_runs_on_a_record_with_a_baseline_and_a_class_without_images(
    opened, tiny_record, notebook, monkeypatch
):
    """The test images have lost a class, so the predictions that were kept are too many for them."""
    few = leave_images(monkeypatch, (datasets.load_test("shapes10").labels != 9).nonzero()[:300, 0])
    monkeypatch.setattr(errors, "baseline", lambda record, store: (record, record.load_model()))
    names, findings, out = notebook(store=str(opened.writable), record=tiny_record.id)
    assert names.tested.record.id == tiny_record.id
    assert f"2,000 predictions for {len(few):,} test images" in findings
    assert f"of the {len(few):,} test images" in findings
    assert "The corruptions cost" in findings
    assert "corruptions cost the `classroom` network" in findings
    assert "not settled" in findings  # it is its own baseline
    assert "shapes10 has no published predictions" in out
    assert len(names.stressed) == 32


@pytest.mark.slow
def test_the_notebook_trains_a_network_where_there_is_none_and_says_so(tmp_path, notebook, monkeypatch):
    leave_images(monkeypatch, torch.arange(300))
    names, findings, _ = notebook(store=str(tmp_path / "store"))
    assert names.tested.trained_now
    assert "trained now: no final record is in use" in findings
    assert findings.count("Not answered yet") == 3
    assert set(names.networks) == {names.plots.OURS}


@pytest.mark.slow
def test_seeds_fitted_on_all_images_take_their_rank_from_their_split_sibling_and_form_an_ensemble(
    tmp_path, notebook, monkeypatch
):
    store = Store(tmp_path / "store")
    leave_images(monkeypatch, torch.arange(300))

    def trained(fit_on, seed):
        data = {"data.train_size": 0, "data.validation_size": 300, "data.fit_on": fit_on}
        config = tiny(train__epochs=0.02, seed=seed, **data)
        return load_or_run(config, QUIET, store=store, keep_weights=True)

    _, *seeds = [trained("split", 0), *(trained("all", seed) for seed in (2, 1, 0))]
    runs = [Run("seeds", record.config, {}) for record in seeds]
    declared = Experiment(name="seeds", minutes=9.0, final=True, runs=runs)
    monkeypatch.setattr(final_runs, "final_experiments", lambda: [declared])
    monkeypatch.setattr(test_set, "declaration", lambda record: test_set.Declaration("seeds", "a commit", "a hash"))
    for record in seeds:
        test_set.open_test(record, store=store, device="cpu")
    names, findings, _ = notebook(store=str(store.writable))
    assert names.tested.record.id == seeds[2].id
    assert list(names.by_seed) == [0, 1, 2]
    assert "Over 3 seeds the accuracy is" in findings
    assert "validation_accuracy" not in NOTEBOOK.read_text("utf-8")  # of a run on all images it is none
