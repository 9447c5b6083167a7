"""The project's root, and files that are read whole, of ordinary kind and bounded size."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from tpsnet_lib.errors import RecordError, TpsnetError, brief

LARGEST_TEXT = 2**24  # bytes of a text file that is read; the largest of the project has a sixtieth of it


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


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
