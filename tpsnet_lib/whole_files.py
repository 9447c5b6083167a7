"""Writes that are whole or absent, also after a crash or a power cut.

What is written stands in a hidden folder `.NAME.????????.part` beside its place until it is whole, and takes its name
by a rename. What a killed process leaves, the next one finishes or takes away (`sweep`), by what it finds:

    .part, with no `.old` and no `.all-here`   half-done: it goes
    .part and .part.old, nothing at NAME       killed between two renames: the new one takes the name
    .part.old, and NAME                        the new one has the name: the old one goes
    .part with `.all-here`                     several folders, all whole: those that are left move to their places
"""

import contextlib
import errno
import glob
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tpsnet_lib.errors import RecordError

HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)  # what a lock says that another process holds
_NAME = 100  # characters of a file's name that its temporary one has
_ALL_HERE = ".all-here"
_NOBODYS = 86_400.0  # seconds after which half-done work has nobody, where no lock can say so


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader sees the old content or all of the new, also after a crash or a power cut.

    Raises `OSError` (disk full, read-only folder) that names `path`, with the old file untouched and nothing left."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary(path) as work:
            (work / "file").write_bytes(data)
            os.chmod(work / "file", 0o644)
            move_whole(work / "file", path)


def move_whole(work: Path, path: Path) -> None:
    """Give a file that was written under another name its own, once all of its bytes are on the disk."""
    _sync(work)
    os.replace(work, path)
    _sync(path.parent)


@contextlib.contextmanager
def folder_whole(path: Path, replace: bool = False) -> Iterator[Path]:
    """Yield a fresh folder beside `path`; it takes that name only when the block ends without an error.

    Raises `RecordError` if `path` exists already, unless it may be replaced, and `OSError` that names a file."""
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary(path) as work:
            yield work
            if path.exists() and not replace:
                raise RecordError(f"{path} exists already and is not overwritten")
            os.chmod(work, 0o755)
            _sync_all(work)
            if path.exists():
                path.rename(_old(work))  # what a crash leaves from here on, `sweep` finishes
            work.rename(path)
            _sync(path.parent)
            _take_away(_old(work))


@contextlib.contextmanager
def folders_whole(folder: Path, name: str) -> Iterator[Path]:
    """Yield a fresh folder, whose folders are moved into `folder` when the block ends without an error: all of them,
    or none, also after a crash (`sweep` then finishes it). `name` says in a listing whose work it is."""
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with temporary(folder / name) as work:
            yield work
            _sync_all(work)
            write_whole(work / _ALL_HERE, "")
            _move_all(work)


def sweep(folder: Path, name: str = "") -> None:
    """Finish what a killed process had whole already, and take away what it left half-done; what a living one works on
    stays. `name` is of the file or folder that was being made, if not of any."""
    pattern = f".{glob.escape(name[:_NAME]) if name else '*'}.????????.part*"
    for work in sorted(folder.glob(pattern), reverse=True):  # `.old` before what replaces it
        fresh = work.with_name(work.name.removesuffix(".old"))
        with (
            contextlib.suppress(OSError),  # a folder that is only read, or another process sweeps too
            _claim(fresh if fresh.exists() else work) as free,
        ):
            if not free:
                continue
            path = folder / work.name[1:].rsplit(".", 3)[0]  # that an `.old` folder had
            if work != fresh and not path.exists():
                (fresh if fresh.exists() else work).rename(path)
            elif (work / _ALL_HERE).is_file():
                _move_all(work)
            _take_away(work)


@contextlib.contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """A fresh folder beside `path`, gone at the end of the block, which no `sweep` takes away before; what a process
    leaves that is killed in it, the next one does."""
    sweep(path.parent, path.name)
    with contextlib.ExitStack() as claimed:
        while True:  # another process may sweep it away before it is claimed
            work = _fresh(path)
            with contextlib.suppress(FileNotFoundError):
                claimed.enter_context(_claim(work, wait=True))
            if work.exists():
                break
            claimed.close()
        try:
            yield work
        finally:
            if not (_old(work).exists() or (work / _ALL_HERE).exists()):  # else it is whole, and `sweep` finishes it
                _take_away(work)


def _fresh(path: Path) -> Path:
    """A new, empty folder beside `path`, hidden."""
    return Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name[:_NAME]}.", suffix=".part"))


@contextlib.contextmanager
def _claim(work: Path, wait: bool = False) -> Iterator[bool]:
    """Whether this process alone holds a temporary folder; with `wait`, after another has let it go. Where there are no
    locks, its age decides."""
    aged = time.time() - work.stat().st_mtime > _NOBODYS
    if os.name == "nt":
        yield aged
        return
    import fcntl

    handle = os.open(work, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except OSError as error:
            free = aged and error.errno not in HELD
        yield free
    finally:
        os.close(handle)


def _take_away(work: Path) -> None:
    """Delete a temporary folder (or a file, as earlier versions left them), if it is still there."""
    if work.is_file():
        work.unlink(missing_ok=True)
    shutil.rmtree(work, ignore_errors=True)


def _move_all(work: Path) -> None:
    """Move the folders in a temporary one beside it, and note that this is done."""
    for part in sorted(path for path in work.iterdir() if path.is_dir()):
        if not (work.parent / part.name).exists():
            part.rename(work.parent / part.name)
    _sync(work.parent)
    (work / _ALL_HERE).unlink()


def _old(work: Path) -> Path:
    """Where a folder that `work` replaces waits to be deleted."""
    return work.with_name(f"{work.name}.old")


def _sync_all(folder: Path) -> None:
    """Bring all that is in a folder to the disk."""
    for path in sorted(folder.rglob("*")):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # a file system that syncs no folders
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let a system error name this file where it names none, as for an open one, or a temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or ".part" in str(error.filename)):
            error.filename, error.filename2 = str(path), None
        raise


def append_line(path: Path, line: str) -> None:
    """Append one line to a log file in a single write, and flush it to the disk."""
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        with path.open("a", encoding="utf-8") as file:
            file.write(line.rstrip("\n") + "\n")
            file.flush()
            os.fsync(file.fileno())
        if new:
            _sync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON with sorted keys, whole or not at all."""
    write_whole(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
