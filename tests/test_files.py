"""Files are written whole or not at all, and a lock outlives no holder."""

import errno
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from tpsnet_lib import whole_files
from tpsnet_lib.errors import RecordError, TpsnetError
from tpsnet_lib.files import project_root, read_json
from tpsnet_lib.locks import Held, lock
from tpsnet_lib.whole_files import folder_whole, sweep, temporary, write_json, write_whole


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.json"
    write_whole(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["metrics.json"]


def test_the_bytes_of_a_file_are_on_the_disk_before_its_name_and_its_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, int]] = []
    fsync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        done.append(("sync", os.fstat(handle).st_ino))
        fsync(handle)

    def renamed(source: Path, target: Path) -> None:
        done.append(("rename", source.stat().st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    write_whole(tmp_path / "metrics.json", "new")
    file, folder = (path.stat().st_ino for path in (tmp_path / "metrics.json", tmp_path))
    assert done == [("sync", file), ("rename", file), ("sync", folder)]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), folder_whole(tmp_path / "record") as work:
        (work / "missing" / "part").write_text("1")
    assert list(tmp_path.iterdir()) == []
    with folder_whole(tmp_path / "record") as work:
        (work / "part").write_text("1")
    with pytest.raises(RecordError, match="not overwritten"), folder_whole(tmp_path / "record"):
        pass
    with folder_whole(tmp_path / "record", replace=True) as work:
        (work / "part").write_text("2")
    assert (tmp_path / "record" / "part").read_text() == "2"
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_process_left_is_finished_or_taken_away_and_what_a_living_one_works_on_stays(
    tmp_path: Path,
) -> None:
    (tmp_path / ".a.12345678.part").mkdir()
    (tmp_path / ".b.12345678.part").mkdir()
    (tmp_path / ".b.12345678.part.old").mkdir()
    (tmp_path / ".c.12345678.part.old").mkdir()
    (tmp_path / ".import.12345678.part" / "d").mkdir(parents=True)
    (tmp_path / ".import.12345678.part" / ".all-here").touch()
    (tmp_path / ".a[1].12345678.part").mkdir()  # a name that is a pattern
    with temporary(tmp_path / "a[1]"):
        assert not (tmp_path / ".a[1].12345678.part").exists()
    with temporary(tmp_path / "e") as work:
        sweep(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([work.name, "b", "c", "d"])


def test_torn_json_names_the_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    assert read_json(tmp_path / "a.json") == {"x": 1}
    (tmp_path / "a.json").write_text('{"x": ')
    with pytest.raises(RecordError, match=r"a\.json is not whole JSON"):
        read_json(tmp_path / "a.json")


def _hold(path: Path, held: "multiprocessing.synchronize.Event") -> None:
    with lock(path):
        held.set()
        signal.pause()


def test_a_lock_is_free_again_when_its_holder_was_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    held = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "lock", held))
    holder.start()
    assert held.wait(30)
    waited = []

    def on_wait(_: Held) -> None:
        waited.append(True)
        holder.kill()

    with lock(tmp_path / "lock", on_wait, poll=0.01):
        assert waited == [True]
    holder.join()


def test_the_project_is_found_from_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert (project_root() / "tpsnet_lib" / "files.py").is_file()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_one_line_and_no_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refused(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refused)
    waited: list[Held] = []
    with (
        pytest.raises(TpsnetError, match="this file system has no locks"),
        lock(tmp_path / "a", waited.append),
    ):
        pytest.fail("held a lock that is not there")
    assert waited == []


def test_what_another_process_sweeps_away_before_it_is_claimed_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, fresh = [], whole_files._fresh

    def swept_once(path: Path) -> Path:
        made.append(fresh(path))
        if len(made) % 2:
            whole_files.sweep(tmp_path)  # of another process, which finds it unclaimed
        return made[-1]

    monkeypatch.setattr(whole_files, "_fresh", swept_once)
    whole_files.write_whole(tmp_path / "a", "x")
    with whole_files.folder_whole(tmp_path / "b") as work:
        (work / "c").write_text("y")
    assert (len(made), (tmp_path / "a").read_text(), (tmp_path / "b" / "c").read_text()) == (4, "x", "y")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
