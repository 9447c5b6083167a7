"""Images of one's own: a photograph, a folder with a folder of them a class; CIFAR-100 and FashionMNIST by torchvision.

All images are brought to 32 x 32 pixels. A folder is known by a name with a digest of its images, as in
`own:flowers:5:1a2b3c4d`: other images are another data set, whose runs have other ids."""

import hashlib
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from tpsnet_lib.config import IMAGE_SIZE
from tpsnet_lib.data.cifar10 import Fingerprint, content_sum, find_root
from tpsnet_lib.errors import DataError, brief

PHOTOS = {".jpg", ".jpeg", ".png", ".gif", ".webp"}
LARGEST_PHOTO = 10**8  # pixels
OF_TORCHVISION = {"cifar100": "CIFAR100", "fashion_mnist": "FashionMNIST"}  # the stamp, and the class in torchvision
HELD_BACK = 0.1  # of each class, to validate; of a folder as much again, to test


@dataclass(frozen=True)
class OwnImages:
    """One part of a data set: `images` uint8 [N, C, 32, 32] and `labels` int64 [N] in the order of the split, of which
    the first `fitted` are fitted; which content it is, with the names of its classes."""

    images: Tensor
    labels: Tensor
    fitted: int
    fingerprint: Fingerprint


def is_own(dataset: str) -> bool:
    """Whether a data set is read by this module."""
    return dataset in OF_TORCHVISION or dataset.startswith("own:")


def read(dataset: str, part: str, root: str | Path | None) -> OwnImages:
    """The images of a part, `train` or `test`.

    Raises `DataError` where they are missing, or where a folder holds other images than its name says."""
    if dataset in OF_TORCHVISION:
        return _of_torchvision(dataset, part, Path(root or "data"))
    if root is None or not is_class_folder(root):
        raise DataError(f"{dataset.split(':')[1]} is a folder of one's own: give it with --data")
    if (name := name_of(root)) != dataset:
        raise DataError(f"{root} is {name}, not {dataset}: its images are others")
    return _parts(Path(root).resolve(), _state(root))[part]


def is_class_folder(root: str | Path) -> bool:
    """Whether a folder holds two folders or more with photographs.

    Raises `DataError` for one that was surely meant so: it has photographs, but of one class, and no CIFAR-10."""
    folders = {path.parent for path in _photos(root)}
    loose = [path for path in sorted(Path(root).glob("*")) if path.suffix.lower() in PHOTOS]
    if len(folders) < 2 and (folders or loose) and find_root(root) is None:
        held = f"photographs in one folder, {folders.pop().name}" if folders else f"{len(loose)} photographs themselves"
        raise DataError(f"{root} holds {held}: give a folder with two folders of photographs or more, one a class")
    return len(folders) > 1


def refuse_class_folder(root: str | Path | None) -> None:
    """Raise `DataError` for a class folder in the place of CIFAR-10: `root`, or where it is none `$TPSNET_DATA`."""
    place = root or os.environ.get("TPSNET_DATA")
    if place and find_root(place) is None and is_class_folder(place):
        raise DataError(
            f"{place} is a data set of one's own, not CIFAR-10, which the chapters are about:"
            f" `tpsnet train --data {place}` trains on it"
        )


def name_of(root: str | Path) -> str:
    """The name that configs know a class folder by. Raises `DataError` for an image that cannot be read."""
    train = _parts(Path(root).resolve(), _state(root))["train"].fingerprint
    readable = re.sub(r"\W+", "-", Path(root).resolve().name).strip("-") or "folder"
    return f"own:{readable}:{len(train.classes)}:{train.sha256[:8]}"


def download(dataset: str, root: str | Path) -> Path:
    """Bring a data set of torchvision's under `root`, checked by torchvision. Raises `DataError`."""
    for train in (True, False):
        _torchvision(dataset, Path(root), train, download=True)
    return Path(root)


def load_photo(path: str | os.PathLike[str]) -> Tensor:
    """The middle square of a photograph, scaled down to uint8 [3, 32, 32]; the camera's orientation is applied, and
    what is transparent is white.

    Reads JPEG, PNG, GIF (the first frame) and WebP. Raises `DataError` for a file that is missing or no such image."""
    if not isinstance(path, str | os.PathLike):
        raise DataError(f"{brief(path)} is no path: give that of a photograph, in quotes")
    path = Path(path).expanduser()
    if path.is_dir():
        raise DataError(f"{path} is a folder: give the path of a photograph in it")
    if not path.is_file():
        here = "" if Path(path).is_absolute() else f" in {Path.cwd()}"
        raise DataError(f"there is no file {path}{here}: give the path of a photograph")
    try:  # Pillow, because torchvision's decoder ends the process at a damaged PNG
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(path, formats=("JPEG", "PNG", "GIF", "WEBP")) as image,
        ):
            if image.width * image.height > LARGEST_PHOTO:
                raise DataError(f"{path} has {image.width} x {image.height} pixels: scale it down first")
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data:
                ground = Image.new("RGBA", upright.size, "white")
                upright = Image.alpha_composite(ground, upright.convert("RGBA"))
            opaque = upright.convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not an image that can be read: give a JPEG, PNG, GIF or WebP file") from error
    from torchvision.transforms.v2 import functional  # at need: its import takes longer than that of torch

    pixels = torch.from_numpy(np.array(opaque)).permute(2, 0, 1)
    square = functional.center_crop(pixels, [min(pixels.shape[-2:])] * 2)
    small: Tensor = functional.resize(square, [IMAGE_SIZE, IMAGE_SIZE], antialias=True)
    return small.to(torch.uint8)


def _photos(root: str | Path) -> list[Path]:
    folders = [folder for folder in sorted(Path(root).glob("*")) if folder.is_dir() and folder.name[0] != "."]
    return [path for folder in folders for path in sorted(folder.iterdir()) if path.suffix.lower() in PHOTOS]


def _state(root: str | Path) -> tuple[Any, ...]:
    return tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in _photos(root))


@lru_cache(maxsize=2)
def _parts(root: Path, state: tuple[Any, ...]) -> dict[str, OwnImages]:
    """Both parts of a class folder. Of each class a tenth tests and a tenth of the rest validates, one image at
    least."""
    photos = _photos(root)
    classes = sorted({path.parent.name for path in photos})
    labels = np.array([classes.index(path.parent.name) for path in photos])
    if (counts := np.bincount(labels)).min() < 3:
        smallest = classes[int(counts.argmin())]
        raise DataError(
            f"{root / smallest} holds {counts.min()} photographs: give at least 3 a class, to fit, choose and test"
        )
    images = torch.stack([load_photo(path) for path in photos])
    training, test = _divided(labels)
    fit, validation = _divided(labels[training])
    stamp, digest = f"{root.name} (own data)", _digest(classes, labels, images)
    fingerprint = Fingerprint(stamp, digest, True, tuple(classes))
    orders = {"train": (np.concatenate([training[fit], training[validation]]), len(fit)), "test": (test, 0)}
    return {
        part: OwnImages(images[order], torch.from_numpy(labels[order]), fitted, fingerprint)
        for part, (order, fitted) in orders.items()
    }


def _digest(classes: Sequence[str], labels: Any, images: Tensor) -> str:
    content = "\n".join([*classes, content_sum(labels, images.numpy())])
    return hashlib.sha256(content.encode()).hexdigest()


def _divided(labels: Any) -> tuple[Any, Any]:
    """Positions of most images, and of those held back, drawn from each class in the same way wherever this runs; both
    take turns through the classes, so that their beginnings are stratified too."""
    draw = np.random.Generator(np.random.PCG64(20241))
    turns: dict[bool, list[tuple[int, int]]] = {True: [], False: []}  # by whether it is held back: turn, position
    for label in range(labels.max() + 1):
        positions = draw.permutation(np.flatnonzero(labels == label)).tolist()
        held = max(1, round(HELD_BACK * len(positions)))
        turns[True] += enumerate(positions[:held])
        turns[False] += enumerate(positions[held:])
    most, held_back = (np.array([position for _, position in sorted(turns[held])]) for held in (False, True))
    return most, held_back


@lru_cache(maxsize=2)
def _of_torchvision(dataset: str, part: str, root: Path) -> OwnImages:
    source = _torchvision(dataset, root, part == "train")
    pixels, labels = torch.as_tensor(source.data), np.asarray(source.targets)
    images = pixels.permute(0, 3, 1, 2) if pixels.ndim == 4 else F.pad(pixels[:, None], (2, 2, 2, 2))  # 28 to 32
    order, fitted = np.arange(len(labels)), 0
    if part == "train":
        fit, validation = _divided(labels)
        order, fitted = np.concatenate([fit, validation]), len(fit)
    digest = _digest(source.classes, labels, images)
    fingerprint = Fingerprint(OF_TORCHVISION[dataset], digest, True, tuple(source.classes))
    return OwnImages(images[order].contiguous(), torch.from_numpy(labels[order]), fitted, fingerprint)


def _torchvision(dataset: str, root: Path, train: bool, download: bool = False) -> Any:
    import torchvision

    name = OF_TORCHVISION[dataset]
    try:
        return getattr(torchvision.datasets, name)(str(root), train=train, download=download)
    except Exception as error:  # whatever a network, a disk or a damaged file can do
        reason = " ".join(str(error).split()) if download else f"no whole {name} in {root}"
        raise DataError(f"{reason}: `tpsnet data download --dataset {dataset}` gets it") from error
