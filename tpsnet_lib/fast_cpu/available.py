"""What this machine offers for training on its CPU: kernels compiled by numba, and tiles of bf16 matrices (Intel AMX).

Neither is needed: without them torch's own operations train, slower."""

import functools
from types import ModuleType

import torch

from tpsnet_lib.errors import brief, warn


@functools.cache
def has_amx() -> bool:
    """Whether this process may multiply tiles of bf16 matrices: the processor has them and the system allows it."""
    return bool(torch.cpu._is_amx_tile_supported() and torch.cpu._init_amx())


def kernels() -> ModuleType | None:
    """The module of that name, or None where numba is missing or does not work; one line on standard error says so."""
    return None if _failed else _compiled_kernels()


@functools.cache
def _compiled_kernels() -> ModuleType | None:
    try:
        from tpsnet_lib.fast_cpu import kernels

        kernels.self_test()
    except ModuleNotFoundError as error:
        if error.name not in ("numba", "llvmlite"):
            raise
        warn("numba is not installed, so that training on this CPU is slower: pip install numba")
    except Exception as error:  # a compiler may fail in any way
        do_without_kernels(error)
    else:
        return kernels
    return None


_failed: list[Exception] = []  # of numba in this process


def do_without_kernels(error: Exception) -> None:
    """From now on `kernels` is None, for numba failed; the first call says so."""
    if not _failed:
        why = f"{type(error).__name__}: {brief(error)}"
        warn(f"numba does not work here, so that training on this CPU is slower ({why})")
    _failed.append(error)
