"""What ships with the project: records copied to the committed store, or many as the rows of one file."""

import itertools
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from tpsnet_lib.errors import RecordError
from tpsnet_lib.runs import openings
from tpsnet_lib.runs.record_files import PARTS, WEIGHTS, row_sum, write_sums, write_weights
from tpsnet_lib.runs.records import Record, Store, read_record, read_trials
from tpsnet_lib.whole_files import folder_whole, write_whole


def publish_record(record: Record, folder: Path, *, weights: bool = False) -> Path:
    """Copy a record to another store, with its weights in half precision if asked for; its test part goes along,
    with its lines of the log.

    A record that is there already with the same content is left, and lines that a killed process owed are added; one
    that differs is a `RecordError`."""
    target = folder / record.id
    if target.exists():
        existing = read_record(target)
        if (existing.metrics, existing.has_weights) != (record.metrics, weights):
            raise RecordError(f"{target} exists already with other content and is not overwritten")
    else:
        with folder_whole(target) as work:
            for name in PARTS:
                shutil.copyfile(record.path / name, work / name)
            if weights:
                write_weights(work / WEIGHTS, record.load_model(), record.config)
            write_sums(work)
            if (record.path / "test").is_dir():
                shutil.copytree(record.path / "test", work / "test")
    openings.publish_lines(record.id, record.path.parent, folder)
    return target


def write_trials(path: Path, records: Iterable[Record]) -> None:
    """Write records as the rows of one file, whole or not at all, each under its id and the digest of its content."""
    lines = []
    for record in records:
        content = {
            "config": record.config.to_dict(),
            "metrics": record.metrics,
            "provenance": record.provenance,
            "curve": record.history(),
        }
        lines.append(json.dumps({"id": record.id, "sha256": row_sum(content), "trial": content}, sort_keys=True))
    write_whole(path, "".join(f"{line}\n" for line in lines))


def repeated_rows(store: Store) -> Iterator[str]:
    """The ids that stand in two files of trials of one folder, or in two stores, with different figures."""
    for folder in store.folders:
        trials = [read_trials(path).values() for path in sorted(folder.glob("*.trials.jsonl"))]
        yield from _with_other_figures(itertools.chain(*trials))
    yield from _with_other_figures(record for folder in store.folders for record in Store(folder).all())


def _with_other_figures(records: Iterable[Record]) -> Iterator[str]:
    """The ids that stand in records twice, with different figures."""
    originals: dict[str, Record] = {}
    for record in records:
        original = originals.setdefault(record.id, record)
        if original.metrics != record.metrics:
            yield f"record {record.id} stands in {original.path} and, with other figures, in {record.path}"
