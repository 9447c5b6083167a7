"""How `kernels` and `amx` are compiled by numba, and where the machine code is kept for the next process."""

import functools
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llvmlite
import numba
import torch
from torch import Tensor

from tpsnet_lib.errors import brief, warn

# GNU's OpenMP comes first: on Linux it is torch's own pool of threads, and a second pool would compete for the cores.
numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]
OPTIONS = {"parallel": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
_dropped: list[Path] = []  # caches that failed in this process


class Kernel:
    """A function of addresses and sizes, with loops in parallel, that is compiled when it is first called."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function
        self.compiled: Any = None

    def __call__(self, tensors: tuple[Tensor | None, ...], numbers: tuple[float, ...]) -> None:
        """Run with as many threads as torch has. A missing tensor has the address 0."""
        arguments = *(0 if tensor is None else tensor.data_ptr() for tensor in tensors), *numbers
        threads = torch.get_num_threads()
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        if torch.get_num_threads() != threads:  # numba's first call sets the number of the pool that they share
            torch.set_num_threads(threads)
        if self.compiled is None:
            self.compiled = _compile(self.function, tuple(numba.typeof(argument) for argument in arguments))
        self.compiled(*arguments)


def _compile(function: Callable[..., None], signature: tuple[Any, ...]) -> Any:
    """Read a function's machine code from the cache or compile it. A cache that fails is deleted, which one line says,
    and this process does without."""
    folder = cache_folder()
    if folder is None or _dropped:
        return _compile_uncached(function, signature)
    try:
        with _numba_cache(folder):
            dispatcher = numba.njit(cache=True, **OPTIONS)(function)
        dispatcher.compile(signature)
    except Exception as error:  # a torn file may raise anything
        dispatcher = _compile_uncached(function, signature)  # raises where the cache is not to blame
        _drop_cache(folder, error)
    return dispatcher


def _compile_uncached(function: Callable[..., None], signature: tuple[Any, ...]) -> Any:
    dispatcher = numba.njit(**OPTIONS)(function)
    dispatcher.compile(signature)
    return dispatcher


@functools.cache
def cache_folder() -> Path | None:
    """The folder of machine code, named by a hash of the sources and the compiler's version; None if none can be
    written. It lies in $NUMBA_CACHE_DIR, else beside this file, else in the user's cache."""
    named = os.environ.get("NUMBA_CACHE_DIR")
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tpsnet"
    for parent in [Path(named)] if named else [Path(__file__).parent / "__pycache__", user]:
        try:
            folder = parent / f"tpsnet-{_digest()}"
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            return folder
        except OSError as error:
            reason = f"{parent}: {error.strerror}"
    warn(f"every process compiles its kernels anew, as they cannot be kept ({reason})")
    return None


def _digest() -> str:
    """A hash of all that the machine code depends on, apart from the processor, which numba looks after."""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@contextmanager
def _numba_cache(folder: Path) -> Iterator[None]:
    """numba takes the folder from its settings when a function is decorated; other users of numba keep theirs."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder)
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before


def _drop_cache(folder: Path, error: Exception) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if not _dropped:
        why = f"{type(error).__name__}: {brief(error)}"
        warn(f"the cache of compiled kernels, {folder}, failed and was deleted ({why})")
    _dropped.append(folder)
