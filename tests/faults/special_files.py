"""Files that are hostile by their nature: pipes, folders, bombs, sparse ones: what random changes do not find."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tpsnet_lib.analysis import peers
from tpsnet_lib.arrays import read_arrays
from tpsnet_lib.data import own
from tpsnet_lib.errors import TpsnetError
from tpsnet_lib.report.notebook_html import chapter
from tpsnet_lib.runs import experiments, export, openings, search_space
from tpsnet_lib.runs.record_files import read_sums

from .file_kinds import (
    amend_checkpoint,
    read_assignment,
    read_checkpoint,
    read_config,
    read_image_archive,
    read_profiles,
    tiny_checkpoint,
)

Read = Callable[[Path], object]
READERS: dict[str, Read] = {
    "config": read_config,
    "experiment.yaml": experiments.load_experiment,
    "spaces": search_space.load_spaces,
    "published": peers.published,
    "notebook": lambda path: chapter(path, []),
    "openings": openings.read,
    "sums": read_sums,
    "checkpoint": read_checkpoint,
    "photo": own.load_photo,
    "archive": lambda path: export.import_records(path, path.parent / "store"),
}


def _refused(name: str, make: Callable[[Path], None], read: Read) -> Read:
    """What makes a file and has it read, which must be refused."""

    def tried(folder: Path) -> None:
        path = folder / name
        make(path)
        read(path)
        raise AssertionError(f"{path} was read")

    return tried


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _command(*words: str, code: int = 1) -> Read:
    """What runs `tpsnet` on a file `{path}`, which must end in a line that names it."""

    def tried(folder: Path) -> None:
        import contextlib

        from tpsnet_lib.cli import main

        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            found = main.main([word.format(folder=folder) for word in words])
        assert found == code, found
        raise TpsnetError(said.getvalue().strip())

    return tried


def _config(text: str, *more: str) -> Read:
    """`tpsnet train` with a config of this text."""

    def tried(folder: Path) -> None:
        (folder / "c.yaml").write_text(text)
        _command("train", "{folder}/c.yaml", "--out", "{folder}/store", *more)(folder)

    return tried


def _bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join([*lines, f"seed: *a{levels - 1}", ""])


def _sparse(path: Path) -> None:
    """An archive of some kilobytes with a member of 40 GB."""
    entry = tarfile.TarInfo("0123456789ab/metrics.json")
    entry.size = 40 * 2**30
    head = entry.tobuf(tarfile.GNU_FORMAT)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(10_240)


def _gnu_sparse(path: Path) -> None:
    """The same by the sparse format: one hole of 40 GB."""
    size = 40 * 2**30
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "cifar-10-batches-py/data_batch_1",
               "GNU.sparse.realsize": str(size)}  # fmt: skip
    body = f"1\n{size}\n0\n".encode().ljust(512, b"\0")
    entry = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    entry.size, entry.pax_headers = len(body), headers
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(entry, io.BytesIO(body))


def _zip_bomb(path: Path) -> None:
    """A checkpoint whose one part unpacks to more than the 2 GB that one may have."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a/data.pkl", "w", force_zip64=True) as part,
    ):
        for _ in range(33):
            part.write(bytes(2**26))
    path.write_bytes(tiny_checkpoint()[:52] + buffer.getvalue())
    amend_checkpoint(path)


def _wide_photo(path: Path) -> None:
    """A PNG of 50,000 x 50,000 pixels in some kilobytes: its head alone, as a real one is refused by it."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10**6))))


def _deep_html(path: Path) -> None:
    from nbformat.v4 import new_code_cell, new_notebook, new_output, writes

    deep = new_output("display_data", data={"text/html": "<div>" * 100_000})
    path.write_text(writes(new_notebook(cells=[new_code_cell("x", outputs=[deep])])))


def _torn_svg(path: Path) -> None:
    from nbformat.v4 import new_code_cell, new_notebook, new_output, writes

    svgs = [f"<svg>{part * 20_000}</svg>" for part in ("<!--", "translate(", "1", '<g id="1', "<g>")]
    shown = [new_output("display_data", data={"image/svg+xml": svg}, metadata={"alt": "a"}) for svg in svgs]
    path.write_text(writes(new_notebook(cells=[new_code_cell("x", outputs=shown)])))


def _bare_run(folder: Path) -> None:
    """One bad experiment among good ones: bare `tpsnet run` lists the others."""
    from unittest import mock

    (folder / "bad.yaml").write_text("seeds: 5\n")
    (folder / "good.yaml").write_text("question: How?\nbase: {model: classroom}\n")
    with mock.patch.object(experiments, "experiments_folder", return_value=folder):
        _command("run", "--out", "{folder}/store")(folder)


SMALLEST: dict[str, tuple[bytes, Read]] = {  # the smallest files that were once not refused in a line
    "a word of an option over two lines": (b"t\nrain.lr=0.1", read_assignment),
    "profiles without one": (b"profiles: {}", read_profiles),
    "a profile with a long key": (b"profiles: {quick: {%s: 1}}" % (b"x" * 2000), read_profiles),
    "an array's header with an open bracket": (b"\x93NUMPY\x01\0\x02\0(\n", read_arrays),
    "an array's header of brackets": (b"\x93NUMPY\x01\0\x88\x13" + b"[" * 5000, read_arrays),
    "an array of 2**60 numbers": (
        b"\x93NUMPY\x01\0\x52\0{'descr': '<f8', 'fortran_order': False, 'shape': (1152921504606846976,)}".ljust(92),
        read_arrays,
    ),
}
SPECIAL: dict[str, Read] = {
    **{name: _refused("f", partial(_write, content), read) for name, (content, read) in SMALLEST.items()},
    **{f"pipe as {name}": _refused(name, os.mkfifo, read) for name, read in READERS.items()},
    **{f"folder as {name}": _refused(name, Path.mkdir, read) for name, read in READERS.items()},
    **{
        f"missing {name}": _refused(name, lambda path: None, read)
        for name, read in READERS.items()
        if name not in ("openings", "checkpoint")  # which begin with the first line, and the first step
    },
    **{
        f"huge {name}": _refused(name, lambda path: path.touch() or os.truncate(path, 2**40), read)
        for name, read in READERS.items()
        if name not in ("photo", "archive")  # whose size is not what they unpack to
    },
    "command: bomb of aliases as seed": _config(_bomb(9)),
    "command: a billion draws": _refused(
        "e.yaml",
        partial(_write, b"search: {space: classroom, draws: 1000000000}\n"),
        experiments.load_experiment,
    ),
    "command: pipe as config": lambda folder: (
        os.mkfifo(folder / "pipe.yaml"),
        _command("train", "{folder}/pipe.yaml", "--out", "{folder}/store")(folder),
    ),
    "command: folder as config": _command("train", "{folder}", "--out", "{folder}/store"),
    "command: bad data leaves no lock": _config(
        "model: classroom\ntrain: {epochs: 1}\n", "--data", "{folder}/nowhere", "--device", "cpu"
    ),
    "command: long value": _config("seed: " + "x" * 100_000),
    "command: deep value": _config("seed: " + "[" * 200 + "]" * 200),
    "command: object in YAML": _config("seed: !!python/object/apply:os.system ['touch TPSNET_FAULT_HIT']"),
    "command: one bad experiment": _bare_run,
    "sparse archive of records": _refused("a.tar", _sparse, READERS["archive"]),
    "sparse archive of images": _refused("a.tar.gz", _gnu_sparse, read_image_archive),
    "compressed archive of records": _refused(
        "a.tar", partial(_write, gzip.compress(bytes(10**6))), READERS["archive"]
    ),
    "zip bomb as checkpoint": _refused("c", _zip_bomb, read_checkpoint),
    "photo of 50,000 pixels a side": _refused("p.png", _wide_photo, own.load_photo),
    "HTML nested 100,000 deep": _refused("01_a.ipynb", _deep_html, READERS["notebook"]),
    "torn SVG": lambda folder: (_torn_svg(folder / "01_a.ipynb"), chapter(folder / "01_a.ipynb", [])),
}
