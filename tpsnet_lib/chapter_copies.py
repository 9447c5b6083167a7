"""The copies of the chapters that `make lab` opens, and whether a copy is older than its chapter.

A copy bears in its metadata the digest of the chapter that it was made of. Only the standard library is imported here:
`setup` runs before anything is installed."""

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tpsnet_lib.whole_files import write_whole

MARK = "tpsnet_chapter"  # the name in a copy's metadata
OLDER = "is of an earlier version of its chapter"


def digest(notebook: Mapping[str, Any]) -> str:
    """SHA-256 over the sources of the cells, one after another; outputs are not part of it."""
    sources = json.dumps(["".join(cell["source"]) for cell in notebook["cells"]])
    return hashlib.sha256(sources.encode()).hexdigest()


def working_copies(root: Path) -> Path:
    """The folder of the chapters that a lab works in, so that saved outputs change no file that git knows.

    A copy is made where there is none, and made anew where its chapter has changed and none of its own cells has. A
    copy whose cells have changed too stays as it is, and one line says that it is older."""
    folder = root / "report" / "local" / "lab"
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        copy, chapter = folder / path.name, json.loads(path.read_text("utf-8"))
        made_of, now = _digests(copy)
        current = digest(chapter)
        untouched = made_of != "" and now == made_of
        if not copy.exists() or (untouched and current != made_of):
            chapter["metadata"][MARK] = current
            write_whole(copy, json.dumps(chapter, indent=1, ensure_ascii=False) + "\n")
        elif current not in (made_of, now):
            print(f"{copy} {OLDER}: rename it to get a new one, and bring your answers over", file=sys.stderr)
    print(f"your copies of the chapters are in {folder}", file=sys.stderr)
    return folder


def is_older(copy: Path, chapters: Path) -> bool:
    """Whether a notebook is a copy of a chapter that has changed since; False for what is no copy, or is not there."""
    made_of, _ = _digests(copy)
    chapter = chapters / copy.name
    return bool(made_of) and chapter.is_file() and made_of != digest(json.loads(chapter.read_text("utf-8")))


def _digests(copy: Path) -> tuple[str, str]:
    """The digest of the chapter that a notebook file was made of, and that of its cells; empty where it has none."""
    try:
        notebook = json.loads(copy.read_text("utf-8"))
        return str(notebook["metadata"].get(MARK, "")), digest(notebook)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # absent, torn, or of another shape
        return "", ""
