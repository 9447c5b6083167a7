"""Where a measurement comes from: machine, versions, command, commit and data, as found while it is taken."""

import datetime
import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import torch

import tpsnet_lib
from tpsnet_lib.data.cifar10 import Fingerprint
from tpsnet_lib.device import of_processor
from tpsnet_lib.errors import TpsnetError
from tpsnet_lib.fast_cpu.available import has_amx
from tpsnet_lib.files import project_root


def now() -> str:
    """The time, in UTC, to the second, in ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def hardware(device: torch.device) -> str:
    """The device in words, such as `AMD EPYC, 2 cores`; AMX is named, for it doubles the speed of convolutions."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    processor = of_processor("model name") or platform.processor() or platform.machine()
    matrices = " with AMX" if has_amx() else ""
    return f"{processor}, {os.cpu_count()} cores{matrices}" + (" (MPS)" if device.type == "mps" else "")


def commit() -> str:
    """The project's commit, with `+` where tracked files differ from it, as git says, else `unknown`.

    `$TPSNET_COMMIT` comes first: on another machine, git may know an older commit than the copy there, or none."""
    if from_environment := os.environ.get("TPSNET_COMMIT"):
        return from_environment
    try:
        described = git("describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*")
        return described.stdout.decode().strip() or "unknown" if described.returncode == 0 else "unknown"
    except (OSError, subprocess.SubprocessError, TpsnetError):
        return "unknown"


def git(*words: str) -> subprocess.CompletedProcess[bytes]:
    """Run git on the project's own repository, whatever `$GIT_DIR` and the like name; a repository around the project's
    folder does not count."""
    root = project_root().resolve()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment["GIT_CEILING_DIRECTORIES"] = str(root.parent)
    call = ["git", "-C", str(root), *words]
    return subprocess.run(call, capture_output=True, timeout=30, check=False, env=environment)


def provenance(device: torch.device, data: Fingerprint, started: str) -> dict[str, Any]:
    """How and where a run was made, for its record; called at the end of the run."""
    return {
        "started": started,
        "finished": now(),
        "host": socket.gethostname(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": commit(),
        "device": device.type,
        "hardware": hardware(device),
        "threads": torch.get_num_threads(),
        "versions": {
            "tpsnet": tpsnet_lib.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": importlib.metadata.version("torchvision"),
            "numba": _numba(),
            "numpy": numpy.__version__,
        },
        "fingerprint": {"stamp": data.stamp, "sha256": data.sha256, "verified": data.verified}
        | ({"classes": list(data.classes)} if data.classes else {}),
    }


def _numba() -> str:
    """The version of what compiles `kernels`; empty where it is not installed and torch's own operations train."""
    try:
        return importlib.metadata.version("numba")
    except importlib.metadata.PackageNotFoundError:
        return ""
