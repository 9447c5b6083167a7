"""Finished records as one tar, with weights in half precision, for the store of another machine.

Its first file lists the others with their SHA-256, so that a cut or altered archive is known before anything is kept.
Results on the test set are left out: an opening belongs to the log of the store where it was made."""

import re
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

from tpsnet_lib.errors import RecordError, brief
from tpsnet_lib.runs.publish import publish_record
from tpsnet_lib.runs.record_files import PARTS, SUMS, WEIGHTS, check_sums, read_sums, write_sums
from tpsnet_lib.runs.records import Record, Store, committed_folder, read_record
from tpsnet_lib.whole_files import folders_whole, move_whole, naming, temporary

CONTENTS = "CONTENTS"
MAY_BRING = {*PARTS, SUMS, WEIGHTS}  # all that a record may
LARGEST = 64 * 2**20  # bytes of one file: five million numbers of four bytes are a third of it


def export_records(records: Sequence[Record], path: Path) -> None:
    """Write records as one tar, whole or not at all; each is checked against its sums first.

    Raises `RecordError` for a record that is damaged, and for a file that is there already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), temporary(path) as work:
        if path.exists():
            raise RecordError(f"{path} exists already and is not overwritten: name another")
        for record in records:
            publish_record(record, work, weights=record.has_weights)
        names = [name for name in _files(work) if Path(name).name in MAY_BRING]  # no opening, and not its log
        write_sums(work, names, CONTENTS)
        with tarfile.open(work / "tar", "w") as tar:
            for name in (CONTENTS, *names):
                tar.add(work / name, name, filter=_without_origin)
        move_whole(work / "tar", path)


def _without_origin(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """A file's head without owner, time and permissions, which say nothing of the record."""
    plain = tarfile.TarInfo(entry.name)
    plain.size = entry.size
    return plain


def import_records(path: Path, folder: Path) -> tuple[list[str], list[str]]:
    """Bring an archive's records into a store's folder; returns the imported ids and those that were there already.

    Nothing is brought unless all is whole: every file's sum, every config's id, every network's weights. A record that
    is there already with the same metrics stays as it is. Raises `RecordError` for an archive that is missing, torn or
    altered, and for a record that is there, or committed, with other metrics, or without the weights that the archive
    has."""
    if not path.is_file():
        missing = "is no archive" if path.exists() else "is missing"
        raise RecordError(f"{path} {missing}: name one that `tpsnet records export` wrote")
    imported, present = [], []
    with folders_whole(folder, "import") as work:
        records = _records(path, work)
        for record in records:
            existing = Store(folder, committed_folder()).find(record.id)
            if existing is None or (existing.path.parent != folder.resolve() and existing.metrics == record.metrics):
                imported.append(record.id)  # perhaps with weights, which a committed one need not have
            elif existing.metrics == record.metrics and existing.has_weights >= record.has_weights:
                present.append(record.id)
                shutil.rmtree(record.path)
            else:
                raise RecordError(f"{existing.path} exists already with other content and is not overwritten")
    return imported, present


def _records(path: Path, work: Path) -> list[Record]:
    """The records of an archive, extracted and checked, with weights that load."""
    work = work.resolve()
    _extract(path, work)
    try:
        check_sums(work, sorted({*read_sums(work / CONTENTS), *_files(work)}), CONTENTS)
        records = [read_record(config.parent) for config in sorted(work.glob("*/config.json"))]
        for record in records:
            if record.has_weights:
                record.load_model()
    except RecordError as error:  # whose files are gone when it is read
        fault = str(error).replace(f"{work}/", "")
        raise RecordError(
            f"{path} is torn or altered, and nothing of it is kept ({fault}): bring it over again"
        ) from error
    return records


def _files(folder: Path) -> list[str]:
    """The names of the records' files in a folder, in order."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.glob("*/*"))


def _extract(path: Path, work: Path) -> None:
    """The files of an archive; the first that is no part of a record is a `RecordError`."""
    try:
        with tarfile.open(path, "r:") as tar:
            for entry in tar:
                folder, _, name = entry.name.rpartition("/")
                is_part = entry.name == CONTENTS or (re.fullmatch(r"[0-9a-f]{12}", folder) and name in MAY_BRING)
                if not entry.isreg() or entry.sparse or entry.size > LARGEST or not is_part:
                    entry_name = brief(entry.name)
                    raise RecordError(f"{path} holds {entry_name}, which is no part of a record: nothing is kept")
            tar.extractall(work, filter="data")
    except (tarfile.TarError, OSError, ValueError, LookupError, OverflowError) as error:
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise
        raise RecordError(f"{path} is torn, or no archive of records: bring it over again") from error
