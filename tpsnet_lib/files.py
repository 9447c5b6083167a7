"""Where things are kept: the project's errors, its root, writes that are whole or absent, and a lock."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import reprlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

LARGEST_TEXT = 2**24  # bytes of a text file that is read; the largest of the project has a sixtieth of it
QUOTED = 200  # characters of a bad value that a message shows
_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 100


class TpsnetError(Exception):
    """Something a user can mend; its message is one line that names the thing, its value and the way out."""

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
    """A run that was asked to stop and left a checkpoint behind."""


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
    """Write a file so that a reader sees the old content or all of the new, also after a crash.

    Raises `OSError` (disk full, read-only folder) with the old file untouched and nothing left behind."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def folder_whole(path: Path, replace: bool = False) -> Iterator[Path]:
    """Yield a fresh folder beside `path`; it takes that name only when the block ends without an error.

    Raises `RecordError` if `path` exists already, unless it may be replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield work
        os.chmod(work, 0o755)
        if path.exists():
            if not replace:
                raise RecordError(f"{path} exists already and is not overwritten")
            path.rename(work.with_name(work.name + ".old"))
        work.rename(path)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(work.with_name(work.name + ".old"), ignore_errors=True)


def append_line(path: Path, line: str) -> None:
    """Append one line to a log file in a single write, and flush it to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(line.rstrip("\n") + "\n")
        file.flush()
        os.fsync(file.fileno())


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


def read_json(path: Path, kind: type[TpsnetError] = RecordError) -> Any:
    """Read a JSON file; one that is torn, missing, too large or too deep is a `kind` that names it."""
    text = read_text(path, LARGEST_TEXT, kind)
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
    except ValueError:  # a number with thousands of digits
        text = f"a very long {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= QUOTED else f"{text[: QUOTED - 3]}..."


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def lock(path: Path, on_wait: Callable[[], None] | None = None, poll: float = 0.2) -> Iterator[None]:
    """Hold an exclusive lock between processes; the system frees it when its holder dies, however it dies.

    `on_wait` is called once if another process holds it. A file system that has no locks is a `TpsnetError`."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(path, poll_interval=poll)
    try:
        try:
            held.acquire(timeout=0)
        except Timeout:
            if on_wait is not None:
                on_wait()
            held.acquire()
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        raise TpsnetError(f"{path.parent}: this file system has no locks: keep records on a local disk") from None
    try:
        yield
    finally:
        held.release()
