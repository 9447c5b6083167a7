"""Records travel in one file: what arrives is what was measured, or nothing does, and nothing is overwritten."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest
from conftest import tiny

from tpsnet_lib.cli import main
from tpsnet_lib.errors import RecordError
from tpsnet_lib.runs import export, test_set
from tpsnet_lib.runs.publish import repeated_rows
from tpsnet_lib.runs.record_files import write_failure, write_sums
from tpsnet_lib.runs.records import Record, Store, read_record
from tpsnet_lib.whole_files import write_json


@pytest.fixture
def packed(tiny_record: Record, tmp_path: Path) -> Path:
    path = tmp_path / "sent" / "récords of today.tar"
    export.export_records([tiny_record], path)
    return path


def test_a_record_that_was_packed_and_unpacked_is_scored_as_before(
    tiny_record: Record, tiny_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_failure(tiny_store.writable, tiny(seed=9), "diverged", tiny_record.provenance)
    file, store = str(tmp_path / "sent.tar"), str(tmp_path / "other")
    assert main.main(["records", "export", "--store", str(tiny_store.writable), "--out", file]) == 0
    assert "1 records in" in capsys.readouterr().out  # not the one that failed
    shutil.rmtree(tiny_store.writable / tiny(seed=9).id)
    assert main.main(["records", "import", file, "--out", store]) == 0
    assert "1 records brought" in capsys.readouterr().out
    arrived = Store(Path(store)).load(tiny_record.id)
    assert (arrived.metrics, arrived.provenance) == (tiny_record.metrics, tiny_record.provenance)
    assert arrived.history() == tiny_record.history()
    sent, came = (record.path / "weights.safetensors" for record in (tiny_record, arrived))
    assert sent.read_bytes() == came.read_bytes()
    assert main.main(["records", "verify", "--out", store]) == 0
    capsys.readouterr()
    assert main.main(["test", arrived.id, "--out", store, "--exploratory", "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    before = test_set.score(tiny_record, device="cpu")[1]
    assert said["accuracy"] == before["accuracy"]
    assert main.main(["records", "import", file, "--out", store]) == 0
    assert "0 records brought" in capsys.readouterr().out
    assert (arrived.path / "test").is_dir()  # what was there stays as it was


def test_a_committed_experiment_is_exported_and_nothing_is_no_archive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, store = str(tmp_path / "best.tar"), str(tmp_path / "store")
    assert main.main(["records", "export", "card_wide", "--store", store, "--out", out]) == 0
    assert "3 records in" in capsys.readouterr().out
    assert main.main(["records", "export", "--store", store, "--out", str(tmp_path / "none.tar")]) == 1
    assert "nothing written" in capsys.readouterr().err
    assert not (tmp_path / "none.tar").exists()
    export.import_records(Path(out), tmp_path / "elsewhere")
    assert len(Store(tmp_path / "elsewhere").all()) == 3


def test_an_opening_does_not_travel(record_copy: Path, tmp_path: Path) -> None:
    (record_copy / "test").mkdir()
    export.export_records([read_record(record_copy)], tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert all(name.count("/") < 2 and "test" not in name for name in tar.getnames())


def test_a_torn_archive_is_one_line_and_leaves_nothing(packed: Path, tmp_path: Path) -> None:
    whole, target = packed.read_bytes(), tmp_path / "store"
    with tarfile.open(packed) as tar:
        starts = [entry.offset for entry in tar.getmembers()]
    for end in (
        0,
        5,
        700,
        *starts[1:],
        starts[-1] + 600,
        len(whole) // 2,
    ):  # also where one file ends and the next begins
        packed.write_bytes(whole[:end])
        with pytest.raises(RecordError, match="is torn"):
            export.import_records(packed, target)
    for place in range(512 + 20, len(whole) - 10240, 997):
        packed.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(RecordError) if archive_matters(whole, place) else pytest.MonkeyPatch.context():
            export.import_records(packed, target)
            shutil.rmtree(target)
        assert not target.exists() or not list(target.iterdir())


def archive_matters(whole: bytes, place: int) -> bool:
    """Whether a byte is of a file or of its head, not of the zeros that fill a file up to whole blocks."""
    import io

    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        return any(
            entry.offset <= place < entry.offset_data or entry.offset_data <= place < entry.offset_data + entry.size
            for entry in tar.getmembers()
        )


def test_what_is_there_with_other_content_is_not_overwritten(packed: Path, tiny_record: Record, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="exists already and is not overwritten"):
        export.export_records([tiny_record], packed)
    store = tmp_path / "store"
    there = Path(shutil.copytree(tiny_record.path, store / tiny_record.id))
    assert export.import_records(packed, store) == ([], [tiny_record.id])
    (there / "weights.safetensors").unlink()
    write_sums(there)
    with pytest.raises(RecordError, match="other content and is not overwritten"):
        export.import_records(packed, store)
    write_json(there / "metrics.json", {**tiny_record.metrics, "seconds": 1.0})
    write_sums(there)
    with pytest.raises(RecordError, match="other content and is not overwritten"):
        export.import_records(packed, store)
    assert read_record(there).metrics["seconds"] == 1.0


def test_an_archive_of_other_things_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.tar"
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("0123456789ab")
        link.type, link.linkname = tarfile.SYMTYPE, "elsewhere"
        tar.addfile(link)
    with pytest.raises(RecordError, match="is no part of a record"):
        export.import_records(path, tmp_path / "store")
    with pytest.raises(RecordError, match="is missing"):
        export.import_records(tmp_path / "none.tar", tmp_path / "store")
    assert main.main(["records", "export"]) == main.main(["records", "import"]) == 1


@pytest.mark.parametrize("name", ["run_me.sh", "{id}/run_me.sh", "{id}/test/metrics.json", "../{id}/config.json"])
def test_an_archive_that_brings_more_than_a_records_own_files_is_refused(
    tiny_record: Record, tmp_path: Path, name: str
) -> None:
    export.export_records([tiny_record], tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar", "a") as tar:
        tar.addfile(tarfile.TarInfo(name.format(id=tiny_record.id)))
    with pytest.raises(RecordError, match="which is no part of a record: nothing is kept"):
        export.import_records(tmp_path / "a.tar", tmp_path / "store")
    assert list((tmp_path / "store").glob("[0-9a-f]*")) == []


def test_the_old_words_of_the_commands_still_work_and_name_the_new(
    tiny_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "a.tar")
    assert main.main(["records", "pack", "--store", str(tiny_store.writable), "--out", file]) == 0
    assert capsys.readouterr().err == "tpsnet: pack is called export now\n"
    assert main.main(["records", "unpack", file, "--out", str(tmp_path / "store")]) == 0


def test_a_record_that_differs_from_the_committed_one_is_refused_and_named(
    packed: Path, tiny_record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed, local = tmp_path / "committed", tmp_path / "local"
    there = Path(shutil.copytree(tiny_record.path, committed / tiny_record.id))
    monkeypatch.setattr(export, "committed_folder", lambda: committed)
    assert export.import_records(packed, local) == ([tiny_record.id], [])
    assert list(repeated_rows(Store(local, committed))) == []
    write_json(there / "metrics.json", {**tiny_record.metrics, "validation_accuracy": 0.99})
    write_sums(there)
    (named,) = repeated_rows(Store(local, committed))
    assert "with other figures" in named
    with pytest.raises(RecordError, match="exists already with other content"):
        export.import_records(packed, tmp_path / "another")
