"""Disks that are full, broken, read-only or without locks, and names that are none of what they should be.

Each ends with one line that says what, which path and the way out, leaves what was there as it was, and is mended by
giving the command again when the disk is well."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from . import HANG, HELD, LOST, TRACEBACK, WRONG, Outcome
from .kills import Scene, again, facts, gone, scenes, state_of, undisturbed
from .operations import FREES, FULL, Operation, Operations, refused
from .scenes import End, ask, command, config, copy, in_a_process, numbers, project, train_words, workshop

CODES = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES)
POINTS, SHORT = 4, 1  # operations of a scene from which on the disk refuses, for each code
LINE = re.compile(r"tpsnet: \S.*( in |[,:;] )\S")  # what or which path, and what to do about it


def outcomes(short: bool) -> Iterator[Outcome]:
    """Every code from some operations of every scene on; then the single faults."""
    with workshop() as shop:
        project(shop / "new")
        for number, scene in enumerate(scenes()):
            if scene.name == "fail":  # which is no command
                continue
            codes = CODES[number % len(CODES) :][:1] if short else CODES
            state = state_of(scene, shop / "state")
            finished = ask(state, facts)
            total, whole = undisturbed(scene, copy(state, shop / "tried"))
            for code in codes:
                for at in numbers(total, SHORT if short else POINTS):
                    yield _refused(scene, code, at, copy(state, shop / "tried"), finished, whole)
        copy(shop / "new", shop / "state")
        for fault, act, said in singles():
            yield _single(fault, act, said, copy(shop / "state", shop / "tried"))


def _refused(
    scene: Scene, code: int, at: int, folder: Path, finished: dict[str, Any], whole: dict[str, Any]
) -> Outcome:
    def refuse(operation: Operation) -> None:
        if operation.number >= at and not (code in FULL and operation.name in FREES):
            operation.half()
            raise refused(code, operation)

    def act() -> int:
        Operations(folder, refuse).install()
        return scene.act()

    end = in_a_process(folder, act)
    fault = f"{scene.name}, {errno.errorcode[code]} from operation {at} on"
    if (outcome := _one_line(fault, end)).end != HELD and end.code != 0:
        return outcome
    try:
        found = ask(folder, partial(again, scene.act))
    except RuntimeError as error:
        return Outcome(fault, TRACEBACK, str(error))
    if lost := gone(scene, finished, whole, found, folder):
        return Outcome(fault, LOST, lost)
    return Outcome(fault, HELD)


def _one_line(fault: str, end: End, said: str = "") -> Outcome:
    """Whether a command ended with one line of what it cannot do, and where."""
    lines = [line for line in end.said.splitlines() if line.strip()]
    if end.code is None:
        return Outcome(fault, HANG, end.said)
    if "Traceback" in end.said or "Exception ignored" in end.said or end.code < 0:
        return Outcome(fault, TRACEBACK, end.said)
    if end.code == 0 or not lines or not LINE.match(lines[-1]) or sum(li.startswith("tpsnet: ") for li in lines) != 1:
        return Outcome(fault, WRONG, f"{end.code} {end.said}")
    return Outcome(fault, HELD if said in lines[-1] else WRONG, end.said)


def _single(fault: str, act: Callable[[], int], said: str, folder: Path) -> Outcome:
    end = in_a_process(folder, act)
    if said:
        return _one_line(fault, end, said)
    quiet = end.code in (0, 141) and not re.search("Traceback|Exception ignored|Error", end.said)
    return Outcome(fault, HANG if end.code is None else HELD if quiet else TRACEBACK, end.said)


def singles() -> Iterator[tuple[str, Callable[[], int], str]]:
    """Single faults: what it is, the command in it, and words of its line; no words where it must go well."""
    words = train_words(1)
    long = "x" * 300
    for code in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
        name = errno.errorcode[code]
        yield f"no locks ({name}), train", partial(_without_locks, code, words), "this file system has no locks"
    yield "no locks, list", partial(_without_locks, errno.ENOLCK, ["records"]), ""
    yield "a folder as config", command("train", "."), "no ordinary file"
    yield "a file as --out", command(*words, "--out", "pyproject.toml"), "a file, where a folder is needed"
    yield "a file above --out", command(*words, "--out", "pyproject.toml/store"), "a file, where a folder is needed"
    yield "a long name as --out", command(*words, "--out", long), "the name is too long"
    yield "a long name as config", command("train", long), ": "
    yield "a long name as record", command("test", long), ": "
    yield "a long name of an archive", command("records", "import", long), ": "
    yield "a folder as an archive", command("records", "import", "report"), "report"
    yield "a folder as the archive to write", partial(_export_over, "report", words), "exists already"
    yield "a folder as a photograph", command("predict", "report"), ": "
    yield "a long name as data", command(*words, "--set", "data.dataset=cifar10", "--data", long), ": "
    yield "a long name as experiment", command("run", long), ": "
    yield "a folder as experiment", command("run", "report"), ": "
    yield "a file as a drawing's folder", command("describe", "--draw", "pyproject.toml/a.svg"), ": "
    yield "a full standard output", partial(_into, "/dev/full", ["records", "list", "--json"]), "the disk is full"
    for listing in (["describe"], ["run"], ["--help"]):
        yield f"`tpsnet {listing[0]} | true`", partial(_to_nobody, listing), ""
    yield "a read-only checkout, list", partial(_read_only, ["records"]), ""
    yield "a read-only checkout, test", partial(_read_only, ["test", "0" * 12]), "no record"
    yield "a read-only checkout, train", partial(_read_only, words), "the file system is read-only"
    yield "a read-only checkout, test of a committed record", _read_only_test, ""


def _export_over(path: str, words: list[str]) -> int:
    """Export a record to where something is already."""
    command(*words)()
    return command("records", "export", "--out", path)()


def _without_locks(code: int, words: list[str]) -> int:
    import fcntl

    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    fcntl.flock = flock  # type: ignore
    return command(*words)()


def _into(path: str, words: list[str]) -> int:
    os.dup2(os.open(path, os.O_WRONLY), 1)
    sys.stdout.reconfigure(write_through=False)  # type: ignore
    return command(*words)()


def _to_nobody(words: list[str]) -> int:
    """Write into a pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)
    try:
        return command(*words)()
    except SystemExit as error:
        return int(error.code or 0)


def _read_only(words: list[str]) -> int:
    """Every operation is refused, as in a checkout that somebody else owns."""

    def refuse(operation: Operation) -> None:
        raise refused(errno.EROFS, operation)

    Operations(Path().resolve(), refuse).install()
    return command(*words)()


def _read_only_test() -> int:
    """A committed record that was opened is scored again where nothing can be written."""
    run_id = config(1).id
    words = ("test", run_id, "--exploratory", "--device", "cpu")
    for before in (train_words(1), words, ("records", "publish", run_id, "--weights")):
        command(*before)()
    shutil.rmtree("report/local")
    return _read_only(["test", run_id, "--device", "cpu"])
