"""The network under test: what cannot be used is said in one line, and the rest of notebook 05 goes on without it."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from conftest import tiny

from tpsnet_lib import metrics
from tpsnet_lib.analysis import errors, network_under_test
from tpsnet_lib.config import ModelConfig
from tpsnet_lib.data import datasets
from tpsnet_lib.files import RecordError
from tpsnet_lib.model import build
from tpsnet_lib.runs import test_set
from tpsnet_lib.runs.records import WEIGHTS, Store, load_or_run, read_record, write_sums, write_weights

CPU = torch.device("cpu")
NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "05_error_analysis.ipynb"
SMALL = {  # parameters under which the notebook takes seconds
    "profile": "quick",
    "dataset": "shapes10",
    "live_epochs": 0.5,
    "live_train_size": 100,
    "forward_seconds": 0.0,
    "stress_images": 60,
    "neighbour_images": 100,
    "twin_images": 50,
    "embedding_images": 80,
    "embedding": "pca",
}


@pytest.fixture
def opened(record_copy):
    """A store with one record whose test part is there, to be damaged."""
    shelf = Store(record_copy.parent)
    test_set.open_test(shelf.load(record_copy.name), store=shelf, device="cpu", exploratory=True)
    return shelf


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


@pytest.fixture
def notebook(monkeypatch, capsys):
    """Runs the code cells of notebook 05 one after another; gives their names and what they printed."""
    monkeypatch.setattr("matplotlib.pyplot.show", lambda *_: None)

    def run(**parameters):
        names: dict[str, object] = {}
        for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, f"cell {cell.id}", "exec"), names)
            if "parameters" in cell.metadata.get("tags", []):
                names |= {**SMALL, **parameters}
        return SimpleNamespace(**names), capsys.readouterr().out

    return run


# The room


def test_a_record_gives_its_network_and_the_answers_that_were_kept(opened, tiny_record):
    found, passed = network_under_test.find_subject(opened, "shapes10", tiny_record.id, None, CPU)
    assert (found.record.id, found.notes, passed, found.not_choosing) == (tiny_record.id, (), [], True)
    assert torch.equal(found.logits, test_set.find_test(tiny_record, opened).logits)
    expected = metrics.predict(found.network, found.test.images)
    torch.testing.assert_close(found.logits, expected, atol=0.01, rtol=0.01)


def test_weights_of_another_network_leave_the_answers_that_were_kept(opened, tiny_record):
    swap_weights(opened.writable / tiny_record.id)
    found, _ = network_under_test.find_subject(opened, "shapes10", tiny_record.id, None, CPU)
    assert found.network is None
    assert len(found.logits) == len(found.test)
    (note,) = found.notes
    assert "does not fit the network in config.json" in note
    assert "\n" not in note


@pytest.mark.parametrize("altered", [False, True])
def test_answers_of_another_length_or_altered_are_computed_anew_and_not_kept(opened, tiny_record, altered):
    kept = test_set.find_test(tiny_record, opened).logits
    folder = opened.writable / tiny_record.id
    shorten(folder)
    if altered:
        (folder / "test" / "SHA256SUMS").write_text("0" * 64 + "  logits.npz\n")
    before = (folder / "test" / "logits.npz").read_bytes()
    found, _ = network_under_test.find_subject(opened, "shapes10", tiny_record.id, None, CPU)
    assert torch.equal(found.logits, kept)
    assert ("altered" if altered else "(1999, 10) predictions for 2,000") in found.notes[0]
    assert (folder / "test" / "logits.npz").read_bytes() == before


def test_a_record_of_which_nothing_can_be_used_is_passed_over_for_the_next(opened, tiny_record, monkeypatch):
    folder = opened.writable / tiny_record.id
    other = load_or_run(tiny(train__epochs=1), store=opened, device="cpu", progress="none", keep_weights=True)
    swap_weights(folder)
    shorten(folder)
    found, passed = network_under_test.find_subject(opened, "shapes10", tiny_record.id, None, CPU)
    assert found is None  # the other one is not declared final
    monkeypatch.setattr("tpsnet_lib.analysis.errors.final_ids", lambda: {other.id: "x", tiny_record.id: "x"})
    found, passed = network_under_test.find_subject(opened, "shapes10", tiny_record.id, None, CPU)
    assert found.record.id == other.id
    (line,) = passed
    assert line.startswith(f"Record {tiny_record.id} is passed over: ")
    for reason in ("does not fit the network", "(1999, 10) predictions"):
        assert reason in line


def test_an_id_that_no_record_has_is_an_error(opened):
    with pytest.raises(RecordError, match="no record 0123456789ab"):
        network_under_test.find_subject(opened, "shapes10", "0123456789ab", None, CPU)


def test_the_baseline_is_another_record_of_the_same_data_or_a_reason(opened, tiny_record, monkeypatch):
    record = opened.load(tiny_record.id)
    with pytest.raises(RecordError, match="classroom has no record on shapes10"):
        network_under_test.baseline(record, opened, CPU)
    monkeypatch.setattr(network_under_test, "collect", lambda *_: [(None, None), (None, record)])
    with pytest.raises(RecordError, match="itself"):
        network_under_test.baseline(record, opened, CPU)
    other = SimpleNamespace(id="other", config=tiny(train__epochs=1))
    assert network_under_test.baseline(other, opened, CPU)[0] is record
    (opened.writable / record.id / WEIGHTS).unlink()
    with pytest.raises(RecordError, match="kept without weights"):
        network_under_test.baseline(other, opened, CPU)


# The notebook


def test_the_notebook_goes_on_without_the_network(opened, tiny_record, notebook):
    swap_weights(opened.writable / tiny_record.id)
    names, out = notebook(store=str(opened.writable), record=tiny_record.id)
    assert names.chosen.id == tiny_record.id
    assert out.count("does not fit the network in config.json") == 1
    assert out.count(names.left_out) == 8
    assert names.heat == tiny_record.metrics["temperature"]  # its record has it
    said = " ".join(names.findings)
    assert "On the 2,000 test images" in said
    assert "near-duplicate" in said
    assert "severity" not in said


def test_the_notebook_goes_on_with_predictions_of_another_length_and_a_class_without_images(
    opened, tiny_record, notebook, monkeypatch
):
    """The test images have lost a class, so the predictions that were kept are too many for them."""
    whole = datasets.load_test("shapes10")
    few = whole.subset((whole.labels != 9).nonzero()[:, 0])
    for room in (datasets, test_set, network_under_test):
        monkeypatch.setattr(room, "load_test", lambda *_: few)
    base = shutil.copytree(tiny_record.path, opened.writable / "base" / tiny_record.id)
    monkeypatch.setattr(
        network_under_test, "baseline", lambda record, store, device: (read_record(base), names_network(base))
    )
    names, out = notebook(store=str(opened.writable), record=tiny_record.id)
    assert f"(2000, 10) predictions for {len(few):,} test images" in out
    said = " ".join(names.findings)
    assert f"On the {len(few):,} test images" in said
    assert f"No image is labelled {names.names[9]}." in said
    assert "**100.0% (100.0 to 100.0)** of that of the classroom network" in said  # it is its own baseline
    assert names.heat is not None


def names_network(folder):
    return read_record(folder).load_model()


def test_the_notebook_trains_a_network_where_nothing_can_be_used(opened, tiny_record, notebook):
    folder = opened.writable / tiny_record.id
    swap_weights(folder)
    shorten(folder)
    names, out = notebook(store=str(opened.writable), record=tiny_record.id)
    assert f"Record {tiny_record.id} is passed over" in out
    assert names.chosen.id != tiny_record.id
    assert names.trained_here


def test_seeds_fitted_on_all_images_take_temperature_and_rank_from_their_split_sibling(tmp_path, notebook, monkeypatch):
    shelf = Store(tmp_path / "store")

    def trained(fit_on, seed):
        data = {"data.train_size": 0, "data.validation_size": 300, "data.fit_on": fit_on}
        config = tiny(train__epochs=0.02, seed=seed, **data)
        return load_or_run(config, store=shelf, device="cpu", progress="none", keep_weights=True)

    sibling, *seeds = [trained("split", 0), *(trained("all", seed) for seed in (2, 1, 0))]
    finals = {record.id: "x" for record in seeds}
    for room in (errors, test_set, network_under_test):
        monkeypatch.setattr(room, "final_ids", lambda: finals)
    for record in seeds:
        test_set.open_test(record, store=shelf, device="cpu")
    fitted, validation = datasets.fit_and_validation(sibling.config.data)
    assert not torch.isin(validation.indices, fitted.indices).any()
    assert torch.isin(validation.indices, datasets.fit_and_validation(seeds[0].config.data)[0].indices).all()

    names, _ = notebook(store=str(shelf.writable))
    assert names.chosen.id == seeds[2].id
    assert len(names.fit_set) == 10_000
    assert list(names.by_seed) == [0, 1, 2]
    logits = metrics.predict(sibling.load_model(), validation.images, precision=sibling.config.train.precision)
    assert names.heat == pytest.approx(metrics.temperature(logits, validation.labels), rel=1e-3)
    said = " ".join(names.findings)
    assert "Over 3 seeds of this recipe" in said
    assert "10,000 that were trained on" in said
    assert "validation_accuracy" not in NOTEBOOK.read_text("utf-8")  # of a run on all images it is none
