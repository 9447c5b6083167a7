"""A small project with small records, and processes in it that end at a chosen file operation."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import NotHere

PATIENCE = 60.0  # seconds of a process that is tried; one that takes longer hangs
SETTINGS = [
    "model=classroom",
    "model.channels=[4,8,8]",
    "model.stem=4",
    "train.epochs=2",
    "train.batch_size=10",
    "train.precision=fp32",
    "data.dataset=shapes10",
    "data.train_size=20",
    "data.validation_size=10",
]
EXPERIMENT = "question: does it hold?\nbase: {base}\nseeds: [1, 2, 3]\n"


@dataclass(frozen=True)
class End:
    """How a process ended: its exit code (None: it hung and was killed), and what it said."""

    code: int | None
    said: str


def in_a_process(folder: Path, act: Callable[[], Any]) -> End:
    """Act in a fork of this process, in `folder`; what it prints is kept."""
    if not hasattr(os, "fork") or not Path("/proc/self/fd").is_dir():
        raise NotHere("it forks, and reads /proc")
    with tempfile.TemporaryFile() as said:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            try:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                os.chdir(folder)
                code = act()
                code = code if isinstance(code, int) else 0
            except BaseException:
                traceback.print_exc()
                code = 70
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
        code = _wait(child)
        said.seek(0)
        return End(code, said.read().decode("utf-8", errors="replace"))


def _wait(child: int) -> int | None:
    ends, pause = time.monotonic() + PATIENCE, 0.001
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(pause)
        pause = min(0.02, 1.5 * pause)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def command(*words: str) -> Callable[[], int]:
    """`tpsnet ...`, as a function of nothing; a checkpoint is written after each epoch."""

    def act() -> int:
        import torch

        from tpsnet_lib import checkpoint
        from tpsnet_lib.cli import main

        torch.set_num_threads(1)
        checkpoint.CHECKPOINT_SECONDS = -1.0
        os.environ["TPSNET_PROGRESS"] = "none"
        return main.main(list(words))

    return act


def config(seed: int, *more: str) -> Any:
    """The small network's run from a seed."""
    from tpsnet_lib.config_parsing import assignment, merged, parse

    return parse(merged(*(dict([assignment(text)]) for text in [*SETTINGS, f"seed={seed}", *more])))


def train_words(seed: int) -> list[str]:
    """The command that trains it."""
    return ["train", "--device", "cpu", "--resume", *(w for s in [*SETTINGS, f"seed={seed}"] for w in ("--set", s))]


def ask(folder: Path, function: Callable[[], Any]) -> Any:
    """What a function comes to in a process of its own, which must not fail."""

    def act() -> int:
        Path("../answer.json").write_text(json.dumps(function()))
        return 0

    end = in_a_process(folder, act)
    if end.code != 0:
        raise RuntimeError(end.said)
    return json.loads((folder.parent / "answer.json").read_text())


@contextlib.contextmanager
def workshop() -> Iterator[Path]:
    """A folder in memory, where there is one, for projects that are broken by the hundred.

    What the processes there need is imported here, once; nothing else is done, so that they can be forked."""
    for module in (
        "cli.network_commands",
        "cli.record_commands",
        "cli.run_commands",
        "runs.export",
        "runs.publish",
        "runs.test_set",
    ):
        importlib.import_module(f"tpsnet_lib.{module}")
    for module in ("train", "runs.local_backend", "runs.wandb_mirror", "analysis.errors"):
        importlib.import_module(f"tpsnet_lib.{module}")
    importlib.import_module("torch._dynamo")  # which torch's optimizers import at their first use
    import torch

    from tpsnet_lib.data import datasets

    torch.set_num_threads(1)
    for part in (datasets.fingerprint, datasets.test_fingerprint, datasets.load_train, datasets.load_test):
        part("shapes10")  # drawn once for all of them
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name).resolve()


def project(root: Path) -> Path:
    """An empty project with one experiment of three runs."""
    (root / "report" / "experiments").mkdir(parents=True)
    (root / "pyproject.toml").write_text('name = "tpsnet"\n')
    (root / "report" / "experiments" / "e.yaml").write_text(EXPERIMENT.format(base=json.dumps(config(0).to_dict())))
    return root


def copy(state: Path, target: Path) -> Path:
    """A state of a project, to be broken."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.rmtree(target.parent / f"{target.name}.spare", ignore_errors=True)
    return Path(shutil.copytree(state, target, symlinks=True))


def numbers(total: int, at_most: int | None) -> Sequence[int]:
    """The operations that are tried out of so many: all, or some, evenly spread."""
    if at_most is None or total <= at_most:
        return range(1, total + 1)
    return [1 + (2 * position + 1) * total // (2 * at_most) for position in range(at_most)]
