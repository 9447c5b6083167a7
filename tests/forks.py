"""Processes that start at once: forks of one that has imported torch, in place of new interpreters that import it.

A worker that is killed, waits or reads its environment does so in a fork as in an interpreter of its own; only a test
of how the interpreter starts needs one."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
FORKS = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
FORKS.set_forkserver_preload([
    "torch._dynamo",  # which torch's optimizers import at their first use
    *(f"tpsnet_lib.cli.{name}_commands" for name in ("network", "record", "run")),
    *("tpsnet_lib.runs.local_backend", "tpsnet_lib.benchmarks.original_loop"),
])  # fmt: skip


def use_forks() -> None:
    """From now on whatever spawns a process in this one forks it."""
    get_context = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: FORKS if method == "spawn" else get_context(method)  # type: ignore


class Fork:
    """`python -c CODE WORDS`, started at once; its methods are those of `subprocess.Popen`."""

    def __init__(self, code: str, *words: object, folder: Path = ROOT, environment: Mapping[str, str] = os.environ):
        self.output = tempfile.TemporaryDirectory(prefix="tpsnet-fork-")
        arguments = self.output.name, code, [str(word) for word in words], str(folder), dict(environment)
        self.process = FORKS.Process(target=_execute, args=arguments)
        self.process.start()
        self.kill, self.terminate, self.wait = self.process.kill, self.process.terminate, self.process.join

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def communicate(self, timeout: float = 900) -> tuple[str, str]:
        """Wait for the end; what was written to standard output and error."""
        self.process.join(timeout)
        if self.returncode is None:
            self.kill()
            raise subprocess.TimeoutExpired("a fork", timeout)
        out, err = ((Path(self.output.name) / name).read_text("utf-8") for name in ("out", "err"))
        return out, err


def run(code: str, *words: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Execute code in a fork to its end, as `subprocess.run` does with an interpreter."""
    fork = Fork(code, *words, **options)  # type: ignore[arg-type]
    out, err = fork.communicate()
    return subprocess.CompletedProcess(["fork"], fork.returncode or 0, out, err)


def _execute(output: str, code: str, words: list[str], folder: str, environment: dict[str, str]) -> None:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{output}/{name}", os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["-c", *words]
    use_forks()
    try:
        exec(compile(code, "<fork>", "exec"), {"__name__": "__main__"})
    finally:
        atexit._run_exitfuncs()
