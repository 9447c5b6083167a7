"""Checkpoints of a training run: the file that keeps its state, and requests to stop."""

import hashlib
import io
import signal
import threading
import time
import zipfile
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from tpsnet_lib.config import RunConfig
from tpsnet_lib.errors import Interrupted, RecordError, brief
from tpsnet_lib.files import read_bytes
from tpsnet_lib.progress import running_shell
from tpsnet_lib.train_state import TrainState
from tpsnet_lib.whole_files import write_whole

CHECKPOINT_SECONDS = 60.0  # between checkpoints that are written at the end of an epoch
LARGEST = 2**31  # bytes; five million parameters with their moments and average have a tenth of it
WAY_OUT = "delete it to train from the start"
_MAGIC = b"tpsnet-checkpoint-1\n"


def write_checkpoint(path: Path, state: TrainState) -> None:
    """Write a run's state whole or not at all, preceded by the SHA-256 of its bytes."""
    buffer = io.BytesIO()
    torch.save(state.to_dict(), buffer)
    payload = buffer.getvalue()
    write_whole(path, _MAGIC + hashlib.sha256(payload).digest() + payload)


def read_checkpoint(path: Path, config: RunConfig) -> dict[str, Any]:
    """The saved state of this very run. Raises `RecordError` for a torn file and for one of another run."""
    content = read_bytes(path, LARGEST)
    digest, payload = content[len(_MAGIC) : len(_MAGIC) + 32], content[len(_MAGIC) + 32 :]
    if not content.startswith(_MAGIC) or hashlib.sha256(payload).digest() != digest:
        raise RecordError(f"{path} is torn or not a checkpoint: {WAY_OUT}")
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST:
                raise ValueError("its parts are too large")
        saved: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        if not isinstance(saved, dict) or not isinstance(saved.get("id"), str):
            raise ValueError("it names no run")
    except Exception as error:  # whatever a pickle of tensors can be: torch raises a dozen types
        raise RecordError(f"{path} holds no state of a run ({brief(error)}): {WAY_OUT}") from error
    if saved["id"] != config.id:
        named = brief(saved["id"]).strip("'")
        raise RecordError(f"{path} belongs to run {named}, not to {config.id}: its config or network is another")
    return saved


class Checkpoints:
    """Writes a run's checkpoint from time to time, and ends the run where that is requested.

    Inside the `with` block Ctrl-C and SIGTERM are requests that are answered after the step, so that no step is cut in
    two. `deadline`: of `time.monotonic`; a run that passes it ends in the same way. Of several runs of a process that
    take turns, a request ends each."""

    active: ClassVar[list["Checkpoints"]] = []  # those that a signal is passed on to
    handlers: ClassVar[dict[signal.Signals, Any]] = {}  # as they were before the first of these

    def __init__(self, path: Path | None, deadline: float | None = None) -> None:
        self.path, self.deadline = path, deadline
        self.saved_at = time.monotonic()
        self.stop_requested = threading.Event()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # no other may receive signals
            if not self.active:
                self.handlers.update({n: signal.signal(n, request_stop) for n in (signal.SIGINT, signal.SIGTERM)})
            self.active.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self in self.active:
            self.active.remove(self)
            while self.handlers and not self.active:
                signal.signal(*self.handlers.popitem())

    def save_or_stop(self, state: TrainState) -> None:
        """Write a checkpoint if one is due after this step.

        Raises `Interrupted` if the run was asked to stop, with the checkpoint written, and `TrainingError` if a loss
        was not a number: the last good checkpoint then stays."""
        if state.step == state.steps:
            return
        stops = self.stop_requested.is_set() or (self.deadline is not None and time.monotonic() > self.deadline)
        due = state.epoch_ended and time.monotonic() - self.saved_at > CHECKPOINT_SECONDS
        if self.path is not None and (due or stops):
            state.require_finite()
            state.stop_clock()
            write_checkpoint(self.path, state)
            self.saved_at = time.monotonic()
        if stops:
            way_on = "--resume goes on" if running_shell() is None else "run the cell again to go on"
            kept = f"; {self.path} holds it, {way_on}" if self.path else ""
            stopped = Interrupted(f"stopped at step {state.step} of {state.steps}{kept}")
            stopped.requested = self.stop_requested.is_set()
            raise stopped


def request_stop(*_: Any) -> None:
    """Ask every run that is training in this process to stop after its step."""
    for each in Checkpoints.active:
        each.stop_requested.set()
