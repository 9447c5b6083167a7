"""What others said of the same test images: people (CIFAR-10H), label checkers, and 30 published models.

None of it is stored in the project; it is read from a folder that the user has. Order of images: the official test
order. Sources and licences: `SOURCES`."""

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from tpsnet_lib.arrays import read_arrays
from tpsnet_lib.config import CLASSES
from tpsnet_lib.data.cifar10 import fetch, find_root
from tpsnet_lib.errors import DataError
from tpsnet_lib.files import read_json, sha256_of

HUMANS, LABEL_CHECKS, PUBLISHED = "cifar10h-counts.npy", "cifar10_mturk.json", "published-predictions.npz"
SOURCES = {
    HUMANS: "CIFAR-10H, Peterson et al. 2019 (github.com/jcpeterson/cifar-10h, CC BY-NC-SA 4.0)",
    LABEL_CHECKS: "Northcutt et al. 2021 (github.com/cleanlab/label-errors, Apache-2.0)",
    PUBLISHED: "Recht et al. 2018 (github.com/modestyachts/CIFAR-10.1, MIT)",
}
SHA256 = {  # of the files as their sources have them; the predictions were gathered from many files and have none
    HUMANS: "9b36b4550349af56c79083356312eb4af856cc5fd3caf1f669d40b9d0bbb69ff",
    LABEL_CHECKS: "81b2c16c9eee060d6cc2390f6bbce1e0e7be0a050574be5177c9428f3596b5b5",
}
_RAW = "https://raw.githubusercontent.com"
ADDRESSES = {  # the folders of the files with a known sum, at one commit of their sources
    HUMANS: f"{_RAW}/jcpeterson/cifar-10h/597cbc5f07266c9405b830ee4a53463539124c4f/data",
    LABEL_CHECKS: f"{_RAW}/cleanlab/label-errors/5457895eee26e49187de5c4d6617b9de6f172221/mturk",
}
GATHERED = (
    f"{PUBLISHED} has no single address: it is made from the files of model_predictions/ in"
    " github.com/modestyachts/CIFAR-10.1 (MIT), and used where somebody has put it"
)
IMAGES = 10_000
WAY_OUT = (
    f"`tpsnet data reference` fetches all but {PUBLISHED}; or name a folder that has it with TPSNET_REFERENCE or"
    " the notebook's parameter `reference`"
)
Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class LabelCheck:
    """What five people answered when asked about one test image whose label was doubted."""

    index: int  # position in the test order
    label: int  # the given one
    votes: dict[str, int]  # given, guessed, both, neither

    @property
    def is_error(self) -> bool:
        """Whether fewer than three of the five stood by the given label alone."""
        return self.votes["given"] < 3


@dataclass(frozen=True)
class Published:
    """Predicted classes of published models, by name: int64 [M, 10000] on the CIFAR-10 test images; and each model's
    accuracy on the new images of CIFAR-10.1, float64 [M]."""

    names: tuple[str, ...]
    original: Tensor
    new: Tensor


def find_reference(folder: str | Path | None = None, data: str | Path | None = None) -> Path | None:
    """The folder of reference files: `folder` alone if named, else `$TPSNET_REFERENCE` alone if set, else a folder
    `reference` in or beside the data set's; None where there is none."""
    if location := folder or os.environ.get("TPSNET_REFERENCE"):
        return Path(location).expanduser()
    root = find_root(data)
    if root is None:
        return None
    root = root.expanduser().resolve()
    places = (root / "reference", root.parent / "reference", root.parent.parent / "reference")
    return next((place for place in places if place.is_dir()), None)


def download(folder: Path, mirrors: Sequence[str] = ()) -> dict[Path, bool]:
    """Bring the files of `ADDRESSES` into a folder: the path of each, and whether it had to be fetched.

    `mirrors` are addresses of folders that have them, tried first. A file with the right SHA-256 is kept as it is;
    nothing lies under a final name until it is whole. Raises `DataError`."""
    existed = folder.is_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return {folder / name: _fetch_file(folder, name, (*mirrors, ADDRESSES[name])) for name in ADDRESSES}
    except OSError as error:
        raise DataError(f"{folder} cannot be written ({error.strerror or error}): give another folder") from error
    finally:
        if not existed:
            with contextlib.suppress(OSError):  # it holds a file
                folder.rmdir()


def _fetch_file(folder: Path, name: str, addresses: Sequence[str]) -> bool:
    """Fetch one file unless a whole one is there; whether it was fetched."""
    if (folder / name).is_file() and sha256_of(folder / name) == SHA256[name]:
        return False
    faults = []
    for address in addresses:
        url = f"{address.rstrip('/')}/{name}"
        if not (fault := fetch(url, folder / name, SHA256[name])):
            return True
        faults.append(f"{url} ({fault})")
    raise DataError(
        f"{name} could not be downloaded from {'; '.join(faults)}: name a folder's address that has it with --mirror"
    )


def load_humans(folder: Path | None) -> Tensor:
    """How many of about 51 people chose each class for each test image: int64 [10000, 10].

    Raises `DataError` when the file is missing, altered, or not such a table."""
    path = _checked(folder, HUMANS)
    (counts,) = read_arrays(path, kind=DataError)
    if not (counts.shape == (IMAGES, CLASSES) and counts.dtype.kind in "iu"):
        raise DataError(f"{path} is not a table of {IMAGES:,} x {CLASSES} counts: {WAY_OUT}")
    if counts.min() < 0 or counts.sum(1).min() < 1:
        raise DataError(f"{path} has an image without votes or with fewer than none: {WAY_OUT}")
    return torch.from_numpy(counts.astype(np.int64))


def load_label_checks(folder: Path | None) -> list[LabelCheck]:
    """The 275 test images whose labels were doubted, with the votes of five people on each.

    Raises `DataError` when the file is missing, altered, or not such a list."""
    path = _checked(folder, LABEL_CHECKS)
    rows = read_json(path, DataError)
    try:
        return [
            LabelCheck(
                int(row["id"]),
                int(row["given_original_label"]),
                {answer: int(row["mturk"][answer]) for answer in ("given", "guessed", "both", "neither")},
            )
            for row in rows
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not a list of checked labels ({error}): {WAY_OUT}") from error


def load_published(folder: Path | None) -> Published:
    """The predictions of 30 published models on the same test images, and how many of the new ones they get right.

    Raises `DataError` when the file is missing or its arrays are not of those names, shapes and values."""
    path = _checked(folder, PUBLISHED)
    names, classes, new, labels = read_arrays(path, "names", "original", "v6", "v6_labels", kind=DataError)
    shape = (names.size, IMAGES)
    are_numbers = classes.shape == shape and classes.size > 0 and classes.dtype.kind in "iu"
    if not are_numbers or classes.min() < 0 or classes.max() >= CLASSES:
        raise DataError(f"{path}: original is not {shape} class numbers from 0 to {CLASSES - 1}: {WAY_OUT}")
    alike = labels.size > 0 and new.shape == (names.size, *labels.shape) and labels.ndim == 1
    if not alike or new.dtype.kind not in "iu" or labels.dtype.kind not in "iu":
        raise DataError(f"{path}: v6 is not a class a model for each of v6_labels: {WAY_OUT}")
    right = torch.from_numpy((new == labels).mean(1))
    return Published(tuple(str(name) for name in names.flat), torch.from_numpy(classes.astype(np.int64)), right)


@dataclass(frozen=True)
class Reference:
    """The reference data that a machine has; None for what it has not, with the reasons in `notes`."""

    people: Tensor | None  # as `load_humans` gives them
    label_checks: list[LabelCheck] | None
    published: Published | None
    notes: tuple[str, ...]

    @property
    def sources(self) -> str:
        """The sources and licences of what was read."""
        contents = {HUMANS: self.people, LABEL_CHECKS: self.label_checks, PUBLISHED: self.published}
        return "; ".join(SOURCES[name] for name, content in contents.items() if content is not None)


def load_reference(folder: Path | None, dataset: str) -> Reference:
    """All reference data of a data set that a folder holds; what is missing or altered is a note, not an error."""
    if dataset != "cifar10":
        return Reference(None, None, None, (f"{dataset} has no published predictions, human votes or checked labels",))
    notes = []

    def loaded(load: Callable[[Path | None], Loaded]) -> Loaded | None:
        try:
            return load(folder)
        except DataError as error:
            notes.append(str(error))
            return None

    people, label_checks, published = loaded(load_humans), loaded(load_label_checks), loaded(load_published)
    return Reference(people, label_checks, published, tuple(notes))


def _checked(folder: Path | None, name: str) -> Path:
    """The path of a reference file, its SHA-256 compared where one is known."""
    if folder is None:
        raise DataError(f"no folder of reference data for {name}: {WAY_OUT}; it comes from {SOURCES[name]}")
    path = folder / name
    if not path.is_file():
        raise DataError(f"{path} is missing: {WAY_OUT}; it comes from {SOURCES[name]}")
    if name in SHA256 and (digest := sha256_of(path)) != SHA256[name]:
        raise DataError(f"{path} has SHA-256 {digest[:12]}..., not {SHA256[name][:12]}...: {WAY_OUT}")
    return path
