"""The reference room: files that are what they claim are read, any other is one clear line and stops nothing."""

import hashlib
import json

import numpy as np
import pytest
import torch

from tpsnet_lib.files import DataError
from tpsnet_lib.study import reference

CHECKS = [
    {"id": 7, "given_original_label": 6, "our_guessed_label": 3, "mturk": votes}
    for votes in (
        {"given": 2, "guessed": 3, "neither": 0, "both": 0},
        {"given": 3, "guessed": 1, "neither": 0, "both": 1},
    )
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    counts = np.zeros((10_000, 10), dtype=np.int64)
    counts[:, 3] = 51
    np.save(tmp_path / reference.HUMANS, counts)
    (tmp_path / reference.LABEL_CHECKS).write_text(json.dumps(CHECKS))
    published(tmp_path / reference.PUBLISHED)
    know(tmp_path, monkeypatch)
    return tmp_path


def know(folder, monkeypatch):
    names = (reference.HUMANS, reference.LABEL_CHECKS)
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    monkeypatch.setattr(reference, "SHA256", sums)


def published(path, **other):
    arrays = {
        "names": np.array(["a", "b"]),
        "original": np.full((2, 10_000), 4, np.uint8),
        "v6": np.full((2, 2000), 5, np.uint8),
        "v6_labels": np.full(2000, 5, np.uint8),
    }
    np.savez(path, **{**arrays, **other})


def test_reads_what_people_checkers_and_models_said(folder):
    assert reference.load_humans(folder).sum(1).unique().tolist() == [51]
    checks = reference.load_label_checks(folder)
    assert [check.is_error for check in checks] == [True, False]
    assert reference.error_positions(checks).tolist() == [7]
    found = reference.load_published(folder)
    assert found.names == ("a", "b")
    assert found.original.dtype == torch.int64
    assert found.v6.shape == (2, 2000)


@pytest.mark.parametrize("load", [reference.load_humans, reference.load_label_checks, reference.load_published])
def test_a_missing_folder_or_file_is_one_line_with_the_way_out(load, tmp_path):
    for folder in (None, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="TPSNET_REFERENCE") as caught:
            load(folder)
        assert "\n" not in str(caught.value)


def test_an_altered_file_is_refused_by_its_sha256(folder):
    for name, load in (
        (reference.HUMANS, reference.load_humans),
        (reference.LABEL_CHECKS, reference.load_label_checks),
    ):
        with (folder / name).open("ab") as file:
            file.write(b" ")
        with pytest.raises(DataError, match=f"{name} has SHA-256"):
            load(folder)


def test_a_table_of_another_shape_or_without_votes_is_refused(folder, monkeypatch):
    for counts in (np.ones((9_999, 10), np.int64), np.zeros((10_000, 10), np.int64), np.ones((10_000, 10))):
        np.save(folder / reference.HUMANS, counts)
        know(folder, monkeypatch)
        with pytest.raises(DataError, match="cifar10h"):
            reference.load_humans(folder)


@pytest.mark.parametrize("text", ["[{}]", "3", "not json", '[{"id": "x"}]'])
def test_a_list_of_another_form_is_refused(folder, monkeypatch, text):
    (folder / reference.LABEL_CHECKS).write_text(text)
    know(folder, monkeypatch)
    with pytest.raises(DataError, match="mturk"):
        reference.load_label_checks(folder)


@pytest.mark.parametrize(
    "other",
    [
        {"original": np.zeros((2, 9_999), np.uint8)},
        {"original": np.full((2, 10_000), 10, np.uint8)},
        {"v6": np.zeros((3, 2000), np.uint8)},
        {"names": np.array(["a", {"pickled": 1}], dtype=object)},
    ],
)
def test_predictions_of_another_length_value_or_kind_are_refused(folder, other):
    published(folder / reference.PUBLISHED, **other)
    with pytest.raises(DataError, match="published-predictions"):
        reference.load_published(folder)


def test_predictions_that_lack_an_array_or_are_torn_are_refused(folder):
    path = folder / reference.PUBLISHED
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="cannot be read"):
        reference.load_published(folder)
    np.savez(path, names=np.array(["a"]))
    with pytest.raises(DataError, match="cannot be read"):
        reference.load_published(folder)


def test_a_notebook_gets_the_reason_and_goes_on(folder, tmp_path):
    assert reference.or_reason(reference.load_published, folder, "cifar10")[1] == ""
    nothing, reason = reference.or_reason(reference.load_humans, tmp_path / "nowhere", "cifar10")
    assert nothing is None
    assert "missing" in reason
    assert "shapes10" in reference.or_reason(reference.load_humans, folder, "shapes10")[1]


def test_a_named_folder_wins_then_the_variable_then_the_one_beside_the_data(tmp_path, monkeypatch):
    data, beside = tmp_path / "cifar10", tmp_path / "reference"
    (data / "cifar-10-batches-bin").mkdir(parents=True)
    (data / "cifar-10-batches-bin" / "data_batch_1.bin").touch()
    monkeypatch.delenv("TPSNET_REFERENCE", raising=False)
    assert reference.find_reference(data=data) is None
    beside.mkdir()
    assert reference.find_reference(data=data) == beside
    monkeypatch.setenv("TPSNET_REFERENCE", "/named")
    assert str(reference.find_reference(data=data)) == "/named"
    assert str(reference.find_reference("/given", data)) == "/given"
    monkeypatch.delenv("TPSNET_REFERENCE")
    assert reference.find_reference(data=tmp_path / "nowhere") is None


def test_the_real_files_say_what_their_papers_say():
    folder = reference.find_reference()
    if folder is None or not (folder / reference.PUBLISHED).is_file():
        pytest.skip("no folder of reference data here")
    from tpsnet_lib.data import load_test

    labels = load_test("cifar10").labels
    people = reference.load_humans(folder).argmax(1)
    assert (people == labels).double().mean().item() == pytest.approx(0.9921, abs=1e-9)
    checks = reference.load_label_checks(folder)
    assert (len(checks), len(reference.error_positions(checks))) == (275, 54)
    assert all(labels[check.index] == check.label for check in checks)
    models = reference.load_published(folder)
    expected = {
        "wrn_28_10": (0.9593, 0.9015),
        "shake_shake_26_2x32d_SSI": (0.9659, 0.9000),
        "pyramidnet_basic_110_84": (0.9573, 0.8960),
        "resnet_basic_110": (0.9346, 0.8540),
    }
    assert len(models.names) == 30
    for name, scores in expected.items():
        row = models.names.index(name)
        hits = (models.original[row] == labels, models.v6[row] == models.v6_labels)
        assert tuple(hit.double().mean().item() for hit in hits) == pytest.approx(scores, abs=1e-9)
