"""Arrays in numpy's files, which come from others: whatever numpy's parser makes of a torn one, it is refused."""

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tpsnet_lib.errors import RecordError, TpsnetError, brief
from tpsnet_lib.files import read_bytes

LARGEST = 2**24  # bytes, unpacked: the logits of 10,000 images of ten classes have 200,000


def read_arrays(path: Path, *names: str, kind: type[TpsnetError] = RecordError) -> list[np.ndarray[Any, Any]]:
    """The named arrays of an `.npz` file; without names the one of an `.npy` file. Nothing in them builds objects.

    A file that is torn, too large, or lacks a name is a `kind` that names it."""
    content = read_bytes(path, LARGEST, kind)
    try:
        if names:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                if (size := sum(entry.file_size for entry in archive.infolist())) > LARGEST:
                    raise ValueError(f"it unpacks to {size:,} bytes, and at most {LARGEST:,} are read")
        with warnings.catch_warnings(action="ignore"):  # of the Python that a torn header is parsed as
            loaded = np.load(io.BytesIO(content), allow_pickle=False)
            return [np.asarray(loaded[name]) for name in names] if names else [np.asarray(loaded)]
    except Exception as error:  # numpy, zipfile, zlib and Python's tokenizer raise a dozen types
        raise kind(f"{path} holds no such arrays ({brief(error)}): restore it from where it came") from error
