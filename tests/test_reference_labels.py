"""The reference room: files that are what they claim are read, any other is one clear line and stops nothing."""

import functools
import hashlib
import json
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import numpy as np
import pytest
import torch

from tpsnet_lib.cli import main
from tpsnet_lib.data import reference_labels
from tpsnet_lib.errors import DataError

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
    np.save(tmp_path / reference_labels.HUMANS, counts)
    (tmp_path / reference_labels.LABEL_CHECKS).write_text(json.dumps(CHECKS))
    published(tmp_path / reference_labels.PUBLISHED)
    know(tmp_path, monkeypatch)
    return tmp_path


def know(folder, monkeypatch):
    names = (reference_labels.HUMANS, reference_labels.LABEL_CHECKS)
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    monkeypatch.setattr(reference_labels, "SHA256", sums)


def published(path, **other):
    arrays = {
        "names": np.array(["a", "b"]),
        "original": np.full((2, 10_000), 4, np.uint8),
        "v6": np.array([[4, 4, 4, 4], [4, 4, 4, 0]], np.uint8),
        "v6_labels": np.array([4, 4, 0, 0], np.uint8),
    }
    np.savez(path, **{**arrays, **other})


def test_reads_what_people_checkers_and_models_said(folder):
    assert reference_labels.load_humans(folder).sum(1).unique().tolist() == [51]
    checks = reference_labels.load_label_checks(folder)
    assert [check.is_error for check in checks] == [True, False]
    found = reference_labels.load_published(folder)
    assert found.names == ("a", "b")
    assert found.original.dtype == torch.int64
    assert found.new.tolist() == [0.5, 0.75]


@pytest.mark.parametrize(
    "load", [reference_labels.load_humans, reference_labels.load_label_checks, reference_labels.load_published]
)
def test_a_missing_folder_or_file_is_one_line_with_the_way_out(load, tmp_path):
    for folder in (None, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="TPSNET_REFERENCE") as caught:
            load(folder)
        assert "\n" not in str(caught.value)


def test_an_altered_file_is_refused_by_its_sha256(folder):
    for name, load in (
        (reference_labels.HUMANS, reference_labels.load_humans),
        (reference_labels.LABEL_CHECKS, reference_labels.load_label_checks),
    ):
        with (folder / name).open("ab") as file:
            file.write(b" ")
        with pytest.raises(DataError, match=f"{name} has SHA-256"):
            load(folder)


def test_a_table_of_another_shape_or_without_votes_is_refused(folder, monkeypatch):
    for counts in (np.ones((9_999, 10), np.int64), np.zeros((10_000, 10), np.int64), np.ones((10_000, 10))):
        np.save(folder / reference_labels.HUMANS, counts)
        know(folder, monkeypatch)
        with pytest.raises(DataError, match="cifar10h"):
            reference_labels.load_humans(folder)


@pytest.mark.parametrize("text", ["[{}]", "3", "not json", '[{"id": "x"}]'])
def test_a_list_of_another_form_is_refused(folder, monkeypatch, text):
    (folder / reference_labels.LABEL_CHECKS).write_text(text)
    know(folder, monkeypatch)
    with pytest.raises(DataError, match="mturk"):
        reference_labels.load_label_checks(folder)


@pytest.mark.parametrize(
    "other",
    [
        {"original": np.zeros((2, 9_999), np.uint8)},
        {"original": np.full((2, 10_000), 10, np.uint8)},
        {"original": np.full((2, 10_000), -1, np.int8)},
        {"names": np.array([]), "original": np.zeros((0, 10_000), np.uint8)},
        {"names": np.array(["a", {"pickled": 1}], dtype=object)},
        {"v6": np.zeros((3, 4), np.uint8)},
        {"v6": np.full((2, 4), "cat")},
        {"v6_labels": np.zeros((2, 4), np.uint8)},
        {"v6": np.zeros((2, 0), np.uint8), "v6_labels": np.zeros(0, np.uint8)},
    ],
)
def test_predictions_of_another_length_value_or_kind_are_refused(folder, other):
    published(folder / reference_labels.PUBLISHED, **other)
    with pytest.raises(DataError, match="published-predictions"):
        reference_labels.load_published(folder)


def test_predictions_that_lack_an_array_or_are_torn_are_refused(folder):
    path = folder / reference_labels.PUBLISHED
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="holds no such arrays"):
        reference_labels.load_published(folder)
    np.savez(path, names=np.array(["a"]))
    with pytest.raises(DataError, match="holds no such arrays"):
        reference_labels.load_published(folder)


def test_a_notebook_gets_what_there_is_and_the_reasons_for_the_rest(folder, tmp_path):
    found = reference_labels.load_reference(folder, "cifar10")
    assert (len(found.people), len(found.label_checks), found.published.names) == (10_000, 2, ("a", "b"))
    assert found.notes == ()
    assert all(source in found.sources for source in reference_labels.SOURCES.values())
    (folder / reference_labels.PUBLISHED).unlink()
    part = reference_labels.load_reference(folder, "cifar10")
    assert part.people is not None
    assert part.published is None
    (note,) = part.notes
    assert "missing" in note
    assert "Recht" not in part.sources
    assert len(reference_labels.load_reference(tmp_path / "nowhere", "cifar10").notes) == 3
    shapes = reference_labels.load_reference(folder, "shapes10")
    assert (shapes.people, shapes.sources) == (None, "")
    assert "shapes10" in shapes.notes[0]


def test_a_named_folder_wins_then_the_variable_then_the_one_beside_the_data(tmp_path, monkeypatch):
    data, beside = tmp_path / "cifar10", tmp_path / "reference"
    (data / "cifar-10-batches-bin").mkdir(parents=True)
    (data / "cifar-10-batches-bin" / "data_batch_1.bin").touch()
    monkeypatch.delenv("TPSNET_REFERENCE", raising=False)
    assert reference_labels.find_reference(data=data) is None
    beside.mkdir()
    assert reference_labels.find_reference(data=data) == beside
    monkeypatch.setenv("TPSNET_REFERENCE", "/named")
    assert str(reference_labels.find_reference(data=data)) == "/named"
    assert str(reference_labels.find_reference("/given", data)) == "/given"
    monkeypatch.delenv("TPSNET_REFERENCE")
    assert reference_labels.find_reference(data=tmp_path / "nowhere") is None


# Fetching

BOTH = (reference_labels.HUMANS, reference_labels.LABEL_CHECKS)


class Quiet(SimpleHTTPRequestHandler):
    """Files of a folder, and a note of each that was asked for."""

    asked: ClassVar[list[str]] = []

    def log_message(self, *_):
        self.asked.append(self.path)


@pytest.fixture
def address(folder, monkeypatch):
    """A server on this machine that has the files under /good, damaged ones under /bad, and nothing elsewhere."""
    for name, tail in (("good", b""), ("bad", b" ")):
        (folder / name).mkdir()
        for file in BOTH:
            (folder / name / file).write_bytes((folder / file).read_bytes() + tail)
    handler = functools.partial(Quiet, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(reference_labels, "ADDRESSES", dict.fromkeys(BOTH, f"{url}/nowhere"))
    monkeypatch.setattr(Quiet, "asked", [])
    yield url
    server.shutdown()
    server.server_close()


def test_files_are_fetched_from_the_first_address_that_has_them_whole(address, tmp_path):
    target = tmp_path / "données" / "reference"
    found = reference_labels.download(target, [f"{address}/gone", f"{address}/bad", f"{address}/good/"])
    assert found == {target / name: True for name in BOTH}
    assert {path.name for path in target.iterdir()} == set(BOTH)
    assert not any("nowhere" in line for line in Quiet.asked)
    assert reference_labels.load_humans(target).shape == (10_000, 10)


def test_a_whole_file_is_kept_and_a_damaged_one_replaced(address, tmp_path):
    target = tmp_path / "reference"
    reference_labels.download(target, [f"{address}/good"])
    Quiet.asked.clear()
    assert reference_labels.download(target, [f"{address}/good"]) == {target / name: False for name in BOTH}
    assert Quiet.asked == []
    (target / reference_labels.HUMANS).write_bytes(b"torn")
    assert reference_labels.download(target, [f"{address}/good"])[target / reference_labels.HUMANS]
    assert reference_labels.load_humans(target).shape == (10_000, 10)


@pytest.mark.parametrize("there", [True, False])
def test_a_file_with_another_sum_is_refused_and_nothing_is_left(address, tmp_path, there):
    target = tmp_path / "reference"
    if there:
        target.mkdir()
    with pytest.raises(DataError, match=r"/bad/cifar10h-counts.npy \(invalid hash .*nowhere.*404.*--mirror") as caught:
        reference_labels.download(target, [f"{address}/bad"])
    assert "\n" not in str(caught.value)
    assert target.is_dir() == there
    assert not there or not list(target.iterdir())


def test_a_fetch_that_is_interrupted_leaves_nothing(address, tmp_path, monkeypatch):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.hub, "tqdm", interrupted)  # what counts the bytes
    with pytest.raises(KeyboardInterrupt):
        reference_labels.download(tmp_path / "reference", [f"{address}/good"])
    assert not (tmp_path / "reference").exists()


def test_the_command_names_files_sources_and_licences_and_no_network_is_one_line(
    address, tmp_path, monkeypatch, capsys
):
    monkeypatch.delenv("TPSNET_REFERENCE", raising=False)
    data = tmp_path / "data"
    assert main.main(["data", "reference", "--data", str(data), "--mirror", f"{address}/good"]) == 0
    out = capsys.readouterr().out
    assert {path.name for path in (data / "reference").iterdir()} == set(BOTH)
    for said in ("CC BY-NC-SA 4.0", "Apache-2.0", "(fetched)", "published-predictions.npz has no single address"):
        assert said in out
    monkeypatch.setattr(reference_labels, "ADDRESSES", dict.fromkeys(BOTH, "http://127.0.0.1:9"))
    assert main.main(["data", "reference", "--data", str(tmp_path / "other")]) == 1
    err = capsys.readouterr().err
    assert "http://127.0.0.1:9/cifar10h-counts.npy" in err.splitlines()[-1]
    assert not (tmp_path / "other" / "reference").exists()


def test_the_command_completes_the_folder_that_is_used_already(address, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("TPSNET_REFERENCE", raising=False)
    (tmp_path / "cifar10" / "cifar-10-batches-bin").mkdir(parents=True)
    (tmp_path / "cifar10" / "cifar-10-batches-bin" / "data_batch_1.bin").touch()
    (tmp_path / "reference").mkdir()
    published(tmp_path / "reference" / reference_labels.PUBLISHED)
    asked = ["data", "reference", "--data", str(tmp_path / "cifar10"), "--mirror", f"{address}/good"]
    assert main.main(asked) == 0
    assert {path.name for path in (tmp_path / "reference").iterdir()} == {*BOTH, reference_labels.PUBLISHED}
    assert "no single address" not in capsys.readouterr().out


def test_the_real_files_say_what_their_papers_say():
    folder = reference_labels.find_reference()
    if folder is None or not (folder / reference_labels.PUBLISHED).is_file():
        pytest.skip("no folder of reference data here")
    from tpsnet_lib.data.datasets import load_test

    labels = load_test("cifar10").labels
    people = reference_labels.load_humans(folder).argmax(1)
    assert (people == labels).double().mean().item() == pytest.approx(0.9921, abs=1e-9)
    checks = reference_labels.load_label_checks(folder)
    assert (len(checks), sum(check.is_error for check in checks)) == (275, 54)
    assert all(labels[check.index] == check.label for check in checks)
    models = reference_labels.load_published(folder)
    expected = {
        "wrn_28_10": (0.9593, 0.9015),
        "shake_shake_26_2x32d_SSI": (0.9659, 0.9),
        "pyramidnet_basic_110_84": (0.9573, 0.896),
        "resnet_basic_110": (0.9346, 0.854),
    }
    assert len(models.names) == 30
    for name, (old, new) in expected.items():
        place = models.names.index(name)
        hits = models.original[place] == labels
        assert hits.double().mean().item() == pytest.approx(old, abs=1e-9)
        assert models.new[place].item() == pytest.approx(new, abs=1e-9)
