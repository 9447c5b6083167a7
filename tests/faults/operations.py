"""The file operations of a process, counted, so that one of them can be its last, or fail."""

from __future__ import annotations

import builtins
import errno
import io
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEAD = 99  # exit code of a process that was killed here

_open, _os_open, _link, _rename, _truncate = io.open, os.open, os.link, os.rename, os.truncate


@dataclass(frozen=True)
class Operation:
    """One of them: its number from 1, the system's name for it, the file, and a way to do half of it."""

    number: int
    name: str
    path: str
    half: Callable[[], None]


class Operations:
    """Counts what a process does to files under `folder` from `install` on; `at` gets each before it is done.

    It also keeps what a power cut would take: bytes that were not synced, and renames whose folder was not."""

    def __init__(self, folder: Path, at: Callable[[Operation], None]) -> None:
        self.folder, self.at, self.count = str(folder.resolve()), at, 0
        self.synced: dict[tuple[int, int], int] = {}  # by device and inode: bytes that a cut would leave
        self.renames: list[tuple[str, str, str | None]] = []  # from, to, and a link to what was there
        self.spare = folder.parent / f"{folder.name}.spare"  # where such links are

    def install(self) -> None:
        """Stand between this process and the system, until it ends."""
        io.open = builtins.open = tarfile.bltn_open = self._opened  # type: ignore
        os.open = self._os_opened  # type: ignore
        os.fsync = self._fsync  # type: ignore
        os.rename = self._renamed(os.rename)  # type: ignore
        os.replace = self._renamed(os.replace)  # type: ignore
        os.sendfile = self._sent(os.sendfile)
        for name in ("mkdir", "rmdir", "unlink", "remove", "chmod", "truncate", "link", "symlink"):
            setattr(os, name, self._counted(name, getattr(os, name)))

    def power_cut(self) -> None:
        """Take what a power cut would: the last renames, and the bytes of files, that nothing had synced."""
        for source, target, before in reversed(self.renames):
            if not os.path.lexists(source) and os.path.isdir(os.path.dirname(source)):
                _rename(target, source)
                if before is not None:
                    _rename(before, target)
        for path in Path(self.folder).rglob("*"):
            if path.is_file():
                stat = path.stat()
                if (left := self.synced.get((stat.st_dev, stat.st_ino))) is not None and left < stat.st_size:
                    _truncate(path, left)

    def _mine(self, path: Any, dir_fd: int | None = None) -> str | None:
        if isinstance(path, int) or dir_fd is not None:
            try:
                base = os.readlink(f"/proc/self/fd/{path if dir_fd is None else dir_fd}")
            except OSError:
                return None
            path = base if dir_fd is None else os.path.join(base, os.fsdecode(path))
        path = os.path.abspath(os.fsdecode(path))
        return path if path.startswith(self.folder) else None

    def step(self, name: str, path: str, half: Callable[[], None] = lambda: None) -> None:
        """Count an operation that is about to be done; `half` does half of it."""
        self.count += 1
        self.at(Operation(self.count, name, path, half))

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def operation(path: Any, *more: Any, **named: Any) -> Any:
            if (mine := self._mine(path, named.get("dir_fd"))) is not None:
                self.step(name, mine)
            return function(path, *more, **named)

        return operation

    def _renamed(self, function: Callable[..., None]) -> Callable[..., None]:
        def rename(source: Any, target: Any, **named: Any) -> None:
            if (path := self._mine(source)) is None:
                return function(source, target, **named)
            self.step("rename", path)
            to, before = os.path.abspath(os.fsdecode(target)), None
            if os.path.isfile(to):
                self.spare.mkdir(exist_ok=True)
                before = str(self.spare / str(self.count))
                _link(to, before)
            function(source, target, **named)
            self.renames.append((path, to, before))
            return None

        return rename

    def _sent(self, function: Callable[..., int]) -> Callable[..., int]:
        def sendfile(target: int, *more: Any, **named: Any) -> int:
            if (mine := self._mine(target)) is not None:
                self.unsynced(target)
                self.step("write", mine)
            return function(target, *more, **named)

        return sendfile

    def _fsync(self, file: Any) -> None:
        handle = file if isinstance(file, int) else file.fileno()
        if (mine := self._mine(handle)) is not None:
            self.step("fsync", mine)
            stat = os.fstat(handle)
            self.synced.pop((stat.st_dev, stat.st_ino), None)
            self.renames = [entry for entry in self.renames if os.path.dirname(entry[1]) != mine]

    def unsynced(self, handle: int) -> None:
        """Note that bytes are about to be written: a power cut leaves what is there now."""
        stat = os.fstat(handle)
        self.synced.setdefault((stat.st_dev, stat.st_ino), stat.st_size)

    def _os_opened(self, path: Any, flags: int, *more: Any, **named: Any) -> int:
        writes = flags & (os.O_CREAT | os.O_TRUNC)
        if writes and (mine := self._mine(path, named.get("dir_fd"))) is not None:
            self.step("open", mine)
        return _os_open(path, flags, *more, **named)

    def _opened(self, file: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
        writes = set(mode) & set("wax+") and named.get("opener") is None
        if not writes or (mine := self._mine(file)) is None:
            return _open(file, mode, *more, **named)
        if not isinstance(file, int):
            self.step("open", mine)
        return _File(_open(file, mode, *more, **named), self, mine)


class _File:
    """A file that is written to, each write of which is an operation."""

    def __init__(self, file: Any, operations: Operations, path: str) -> None:
        self._file, self._operations, self._path = file, operations, path
        operations.unsynced(file.fileno())

    def write(self, data: Any) -> Any:
        def half() -> None:
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        self._operations.step("write", self._path, half)
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Any:
        return iter(self._file)


def refused(code: int, operation: Operation) -> OSError:
    """What the system says: with the name of the file where it has been given one, and without for an open one."""
    named = operation.name not in ("write", "fsync")
    return OSError(code, os.strerror(code), operation.path) if named else OSError(code, os.strerror(code))


FREES = ("unlink", "remove", "rmdir")  # what a full disk does not refuse
FULL = (errno.ENOSPC, errno.EDQUOT)
