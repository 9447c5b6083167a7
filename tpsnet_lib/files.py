"""Where things are kept: the project's errors, its root, and writes that are whole or absent."""

import contextlib
import difflib
import errno
import glob
import hashlib
import json
import os
import re
import reprlib
import shutil
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

LARGEST_TEXT = 2**24  # bytes of a text file that is read; the largest of the project has a sixtieth of it
QUOTED = 200  # characters of a bad value that a message shows
_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 100
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")  # ends of lines, and what steers a terminal
HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)  # what a lock says that another process holds


class TpsnetError(Exception):
    """Something a user can mend; its message is one line that names the thing, its value and the way out."""

    def __str__(self) -> str:  # what it quotes may hold anything
        return _UNSEEN.sub(" ", super().__str__())

    def _render_traceback_(self) -> list[str]:  # what IPython asks for: a notebook shows the line and no traceback
        return [f"{type(self).__name__}: {self}"]


class ConfigError(TpsnetError):
    """A field of a config that is unknown, out of range, or describes a network that cannot be built."""


class DataError(TpsnetError):
    """A data set that is missing, damaged, or not what it claims to be."""


class RecordError(TpsnetError):
    """A record or checkpoint that is missing, torn, altered, or of another network."""


class TrainingError(TpsnetError):
    """A run that cannot go on (a loss that is not a number, a device that is not there)."""


class Interrupted(TpsnetError):  # noqa: N818 - a stop on request, not a fault
    """A run that was asked to stop and left a checkpoint behind; `requested` by a signal, not by its deadline."""

    requested = False


def project_root() -> Path:
    """The nearest parent folder whose `pyproject.toml` is tpsnet's, looked for from the working directory and then
    from this file; else `$TPSNET_HOME`; else a one-line `TpsnetError`."""
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            marker = folder / "pyproject.toml"
            if marker.is_file() and re.search(r'^name = "tpsnet"', marker.read_text("utf-8"), re.MULTILINE):
                return folder
    if home := os.environ.get("TPSNET_HOME"):
        return Path(home)
    raise TpsnetError("no tpsnet project found above the working directory: run inside a clone, or set TPSNET_HOME")


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


_NAME = 100  # characters of a file's name that its temporary one has
_ALL_HERE = ".all-here"
_NOBODYS = 86_400.0  # seconds after which half-done work has nobody, where no lock can say so


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


def read_bytes(path: Path, largest: int = LARGEST_TEXT, kind: type[TpsnetError] = RecordError) -> bytes:
    """The content of an ordinary file of at most `largest` bytes; a `kind` that names any other: a pipe would wait."""
    if not path.is_file():
        raise kind(f"{path} is {'no ordinary file: give a file' if path.exists() else 'missing'}")
    if (size := path.stat().st_size) > largest:
        raise kind(f"{path} has {size:,} bytes, and at most {largest:,} are read: it is not such a file")
    return path.read_bytes()


def read_text(path: Path, largest: int = LARGEST_TEXT, kind: type[TpsnetError] = RecordError) -> str:
    """The text of a file, as `read_bytes` reads it; one that is not UTF-8 is a `kind` too."""
    try:
        return read_bytes(path, largest, kind).decode("utf-8")
    except UnicodeDecodeError as error:
        raise kind(f"{path} is not text in UTF-8 (byte {error.start}): write it anew, or restore it") from error


def read_json(path: Path, kind: type[TpsnetError] = RecordError, largest: int = LARGEST_TEXT) -> Any:
    """Read a JSON file; one that is torn, missing, too large or too deep is a `kind` that names it."""
    text = read_text(path, largest, kind)
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise kind(f"{path} is not whole JSON ({brief(error)}): restore it, or delete it") from error


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def brief(value: Any) -> str:
    """A value as a message quotes it, or the message of an error: on one line of at most 200 characters."""
    try:
        text = str(value) if isinstance(value, BaseException) else _BRIEF.repr(value)
    except (ValueError, RecursionError):  # a number with thousands of digits, lists in lists without end
        text = f"{type(value).__name__}, too large to show"
    text = " ".join(text.split()) or type(value).__name__
    return text if len(text) <= QUOTED else f"{text[: QUOTED - 3]}..."


def warn(line: str) -> None:
    """Tell the user something on standard error."""
    print(f"tpsnet: {line}", file=sys.stderr)


def way_to(word: str, known: Sequence[str]) -> str:
    """What may have been meant by a word that is not known, else what is known: the end of a message."""
    near = difflib.get_close_matches(word, known, 1)
    listed = textwrap.shorten(", ".join(known), 2 * QUOTED, placeholder=" ...")
    return f"did you mean {near[0]}?" if near else f"known are {listed}" if known else "none are known"


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
