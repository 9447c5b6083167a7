"""The device that computes: its choice by name, its precision and speed, and the settings that training wants there."""

import ctypes
import functools
import sys
import timeit
from pathlib import Path

import torch

from tpsnet_lib.errors import TrainingError


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """The device of a name (`auto`, `cpu`, `cuda`, `mps`); `auto` takes CUDA, then MPS, then the CPU.

    Raises `TrainingError` for another name and for a device that this machine does not have."""
    if isinstance(name, torch.device):
        return name
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, is_available in available.items() if is_available))
    if name not in available:
        raise TrainingError(f"--device {name}: choose one of auto, cpu, cuda, mps")
    if not available[name]:
        raise TrainingError(f"--device {name}: this machine has no {name} device that torch can use; give cpu or auto")
    return torch.device(name)


def native_precision(device: torch.device) -> str:
    """`bf16` where the device computes in bfloat16 natively, which is faster there at equal accuracy; else `fp32`."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp32"
    if device.type == "cpu":
        abilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        native = abilities.get("avx512_bf16") or abilities.get("amx_bf16") or "bf16" in of_processor("flags")
        return "bf16" if native else "fp32"
    return "fp32"


def of_processor(field: str) -> str:
    """What Linux says of the processor in a field, such as `flags`; torch before 2.15 does not. Else an empty text."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def matrix_peak(device: torch.device, precision: str) -> float:
    """Floating-point operations a second that products of large square matrices reach in a precision."""
    side, dtype = 8192 if device.type == "cuda" else 2048, torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    seconds = timeit.repeat(lambda: float((left @ right)[0, 0]), number=1, repeat=5)  # a number is waited for
    return 2 * side**3 / min(seconds)


def prepare_device(device: torch.device) -> torch.device:
    """Choose the settings of this process that make training on a device faster and change no result; returns it."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # a run has two or three shapes of batch: find the fastest way for each
    if device.type == "cpu":
        _keep_freed_memory()
    return device


@functools.cache
def _keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensor. Otherwise every large tensor of every step is returned to the
    system and mapped anew, page by page, which takes an eighth of a step of a wide network."""
    no_maps, never_trim = (-4, 0), (-1, -1)  # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h
    if sys.platform == "linux":
        set_option = getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)  # musl has none
        for option, value in (no_maps, never_trim):
            set_option(option, value)
