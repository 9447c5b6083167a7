"""The log of openings of the test set: one line before each opening and one after it, each bound to all lines before.

A line is a JSON object. Its `previous` is the SHA-256 over all lines above it, so that a line that is changed, taken
out or put in breaks the chain below it; what breaks at the end is seen by comparing the log with the results, both
ways. The first lines of the committed log have no `previous`: they were written before this rule, and the line `rule`
binds them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tpsnet_lib.files import RecordError, append_line, sha256_of
from tpsnet_lib.locks import lock
from tpsnet_lib.runs.record_files import SUMS
from tpsnet_lib.runs.records import Store, committed_folder, local_folder

LONGEST = 10_000  # characters of a line; a longer one is no line of this log


def file_of(folder: Path) -> Path:
    """The log that belongs to a folder of records."""
    return (folder.parent if folder == local_folder() else folder) / "openings.jsonl"


def read(file: Path) -> list[dict[str, Any]]:
    """The lines of a log, oldest first; none where there is no file. A torn line is a `RecordError` with its number."""
    if not file.is_file():
        return []
    lines = []
    for number, text in enumerate(file.read_text("utf-8", errors="replace").splitlines(), 1):
        try:
            line = json.loads(text[:LONGEST])
            if not isinstance(line, dict) or not all(
                isinstance(line.get(name, ""), str) for name in ("record", "event")
            ):
                raise ValueError("not an opening")
        except (ValueError, RecursionError) as error:
            raise RecordError(f"{file}: line {number} is torn or no opening ({str(error)[:80]})") from error
        lines.append(line)
    return lines


def append(file: Path, line: dict[str, Any]) -> None:
    """Add a line, bound to those above it; a torn last line is closed first, so that it cannot swallow this one."""
    with lock(file.with_name(f".{file.name}.lock")):
        above = file.read_text("utf-8", errors="replace") if file.is_file() else ""
        if above and not above.endswith("\n"):
            append_line(file, "")
            above += "\n"
        append_line(file, json.dumps({**line, "previous": _digest(above)}, sort_keys=True))


def every() -> list[dict[str, Any]]:
    """Every opening that is known, the committed log's first: a line an opening, without the lines of its result."""
    lines = [line for folder in (committed_folder(), local_folder()) for line in read(file_of(folder))]
    return [line for line in lines if line.get("event", "opening") == "opening"]


def scored_again() -> list[dict[str, Any]]:
    """The lines of the committed log that say what published weights scored on a later day."""
    return [line for line in read(file_of(committed_folder())) if line.get("event") == "score"]


def before_the_rule() -> set[str]:
    """The ids in the committed log that were opened before a declaration had to be committed first."""
    lines = read(file_of(committed_folder()))
    rule = next((number for number, line in enumerate(lines) if line.get("event") == "rule"), 0)
    return {line["record"] for line in lines[:rule]}


def publish(run_id: str) -> None:
    """Copy a record's lines from the local log to the committed one, bound to the lines that are there."""
    committed = file_of(committed_folder())
    known = [_bare(line) for line in read(committed)]
    for line in map(_bare, read(file_of(local_folder()))):
        if line["record"] == run_id and line not in known:
            append(committed, line)


def faults(store: Store) -> Iterator[str]:
    """What does not agree between the logs of a store's folders, and between these and the results that are kept."""
    opened: set[str] = set()
    for folder in store.folders:
        file = file_of(folder)
        yield from _broken_links(file)
        for line in read(file):
            opened.add(line.get("record", ""))
            if line.get("event", "result") != "result":
                continue
            path = folder / line["record"] / "test"
            if not (path / "metrics.json").is_file():
                yield f"{file}: the result of record {line['record']}, opened {line['opened']}, is gone"
                continue
            if "result" in line and sha256_of(path / SUMS) != line["result"]:
                yield f"{path} is not the result that {file.name} has the digest of"
                continue
            scores = json.loads((path / "metrics.json").read_text("utf-8"))
            for name in ("opened", "accuracy", "n"):
                if scores[name] != line[name]:
                    yield f"{path} has {name} {scores[name]}, and its line in {file.name} has {line[name]}"
    for folder in store.folders:
        for path in sorted(folder.glob("[0-9a-f]*/test")):
            if path.parent.name not in opened:
                yield f"{path} has no line in {file_of(folder).name}: nobody knows when it was opened"


def _broken_links(file: Path) -> Iterator[str]:
    texts = file.read_text("utf-8", errors="replace").splitlines(keepends=True) if file.is_file() else []
    bound = False
    for number, line in enumerate(read(file), 1):
        bound = bound or "previous" in line
        if bound and line.get("previous") != _digest("".join(texts[: number - 1])):
            yield f"{file}: the lines above line {number} are not those that it was written under"
    if texts and not bound:
        yield f"{file}: no line binds the others"


def _bare(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name != "previous"}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
