"""The log of openings of the test set: one line before each opening and one after it, each bound to all lines before.

A line is a JSON object. Its `previous` is the SHA-256 over all lines above it, so that a line that is changed, taken
out or put in breaks the chain below it; what breaks at the end is seen by comparing the log with the results, both
ways. The first lines of the committed log have no `previous`: they were written before this rule, and the line `rule`
binds them."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tpsnet_lib.errors import RecordError, brief
from tpsnet_lib.files import read_bytes, read_json, sha256_of
from tpsnet_lib.locks import lock
from tpsnet_lib.runs.record_files import COUNT, NUMBER, SUMS, TEXT, Rule, checked, checked_scores
from tpsnet_lib.runs.records import Store, committed_folder, local_folder
from tpsnet_lib.whole_files import append_line, write_whole

_RULES = {
    **dict.fromkeys(("event", "record", "opened", "commit", "previous", "result", "about"), TEXT),
    **dict.fromkeys(("experiment", "declaration"), Rule((str, type(None)))),
    **dict.fromkeys(("n", "again"), COUNT),
    "accuracy": NUMBER,
    "not_choosing": Rule(bool),
}
_NEEDED = {  # by event; the first lines of the committed log name none
    "opening": ("record", "opened"),
    **dict.fromkeys(("result", "score"), ("record", "opened", "accuracy", "n")),
    "rule": ("about",),
}
LONGEST = 10_000  # characters of a line; a longer one is no line of this log


def log_of(folder: Path) -> Path:
    """The log that belongs to a folder of records."""
    return (folder.parent if folder == local_folder() else folder) / "openings.jsonl"


def read(file: Path) -> list[dict[str, Any]]:
    """The lines of a log, oldest first; none where there is no file. A torn line is a `RecordError` with its number."""
    lines = []
    for number, text in enumerate(_text(file).splitlines(), 1):
        source = f"{file}: line {number}"
        try:
            line = json.loads(text[:LONGEST])
        except (ValueError, RecursionError) as error:
            raise RecordError(f"{source} is torn ({brief(error)}): restore the log from where it came") from error
        event = str(line.get("event", "result")) if isinstance(line, dict) else ""
        if event not in _NEEDED or not re.fullmatch("[0-9a-f]{12}", str(line.get("record", "0" * 12))):
            raise RecordError(f"{source} is no opening ({brief(line)}): restore the log from where it came")
        lines.append(checked(source, line, _RULES, _NEEDED[event]))
    return lines


def _all_text(file: Path) -> str:
    """The text of a log; what is not UTF-8 in it is seen as a torn line."""
    return read_bytes(file).decode("utf-8", "replace") if file.exists() else ""


def append(file: Path, line: dict[str, Any]) -> None:
    """Add a line, bound to those above it; the beginning of one, which a killed process left, gives way to it."""
    with lock(file.with_name(f".{file.name}.lock")):
        above = _text(file)
        if above != _all_text(file):
            write_whole(file, above)
        append_line(file, json.dumps({**line, "previous": _digest(above)}, sort_keys=True))


def _text(file: Path) -> str:
    """A log's lines. A last line without an end is what a killed process left: it counts if it is whole JSON, else it
    is dropped, because what it would have recorded was not done yet."""
    text = _all_text(file)
    complete, _, unended = text.rpartition("\n")
    if not unended:
        return text
    try:
        json.loads(unended)
        return f"{text}\n"
    except (ValueError, RecursionError):
        return f"{complete}\n" if complete else ""


def all_openings(store: Store) -> list[dict[str, Any]]:
    """Every opening that a store knows, the committed log's first: a line an opening, without those of its result."""
    lines = [line for folder in reversed(store.folders) for line in read(log_of(folder))]
    return [line for line in lines if line.get("event", "opening") == "opening"]


def scored_again() -> list[dict[str, Any]]:
    """The lines of the committed log that say what published weights scored on a later day."""
    return [line for line in read(log_of(committed_folder())) if line.get("event") == "score"]


def before_the_rule() -> set[str]:
    """The ids in the committed log that were opened before a declaration had to be committed first."""
    lines = read(log_of(committed_folder()))
    rule = next((number for number, line in enumerate(lines) if line.get("event") == "rule"), 0)
    return {line["record"] for line in lines[:rule]}


def publish_lines(run_id: str, source: Path, target: Path) -> None:
    """Copy a record's lines from the log of one folder of records to another's, bound to the lines that are there."""
    log = log_of(target)
    published = [_bare(line) for line in read(log)]
    for line in map(_bare, read(log_of(source))):
        if line.get("record") == run_id and line not in published:
            append(log, line)


def faults(store: Store) -> Iterator[str]:
    """What does not agree between the logs of a store's folders, and between these and the results that are kept."""
    opened: set[str] = set()
    for folder in store.folders:
        file = log_of(folder)
        yield from _broken_links(file)
        for line in read(file):
            opened.add(line.get("record", ""))
            if line.get("event", "result") == "result":
                yield from _other_than_kept(line, file, folder / line["record"] / "test")
    for folder in store.folders:
        for path in sorted(folder.glob("[0-9a-f]*/test")):
            if path.parent.name not in opened:
                yield f"{path} has no line in {log_of(folder).name}: nobody knows when it was opened"


def _other_than_kept(line: dict[str, Any], file: Path, path: Path) -> Iterator[str]:
    """What a log's line of a result says that the result which is kept does not."""
    if not (path / "metrics.json").is_file():
        yield f"{file}: the result of record {line['record']}, opened {line['opened']}, is gone"
    elif "result" in line and not ((path / SUMS).is_file() and sha256_of(path / SUMS) == line["result"]):
        yield f"{path} is not the result that {file.name} has the digest of"
    else:
        scores = checked_scores(path / "metrics.json", read_json(path / "metrics.json"))
        for name in ("opened", "accuracy", "n"):
            if scores[name] != line[name]:
                yield f"{path} has {name} {scores[name]}, and its line in {file.name} has {line[name]}"


def require_whole(store: Store) -> None:
    """Raise `RecordError` where the logs and the results of a store do not agree: then nothing is chosen by them."""
    if fault := next(faults(store), None):
        raise RecordError(f"{fault}: restore it (`tpsnet records verify` names all that does not agree)")


def _broken_links(file: Path) -> Iterator[str]:
    texts = _text(file).splitlines(keepends=True)
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
