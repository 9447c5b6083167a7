"""Runs of one process that take turns on a device, a step each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Generic, TypeVar

import torch

from tpsnet_lib import captured_step
from tpsnet_lib.checkpoint import request_stop
from tpsnet_lib.files import Interrupted

Result = TypeVar("Result")
Run = Generator[object, None, Result]


class Turns(Generic[Result]):
    """Advances some runs by turns; `submit` and `wait` are those of an executor of processes.

    On CUDA each has a stream of its own, so that one's kernels fill what another's leave idle; a step is sent as one
    graph, so a single process keeps the card at work. As what a run draws is set before each of its steps, it ends in
    the weights that it has alone."""

    def __init__(self, device: torch.device, places: int) -> None:
        self.device, self.going, self.begun = device, dict[Future[Result], tuple[Run[Result], Any]](), set[Any]()
        self.streams: list[Any] = [None] * places
        if captured_step.can_capture(device):
            self.streams = [torch.cuda.Stream() for _ in range(places)]  # type: ignore[no-untyped-call]

    def __enter__(self) -> Turns[Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what still goes; what is in training leaves its checkpoint."""
        request_stop()
        for future, (run, _) in self.going.items():
            if future not in self.begun or not self._advance(future):
                run.close()
        self.going.clear()

    def submit(self, run: Run[Result]) -> Future[Result]:
        """Let a run take part; its result, or the exception that ended it, is to be had when it has ended."""
        future: Future[Result] = Future()
        self.going[future] = run, self.streams.pop()
        return future

    def turn(self) -> set[Future[Result]]:
        """A step of each; those that ended with it."""
        ended = {future for future in self.going if self._advance(future)}
        for future in ended:
            self.streams.append(self.going.pop(future)[1])
        return ended

    def wait(self, seconds: float) -> set[Future[Result]]:
        """Take turns until a run has ended, or for so many seconds.

        Raises `KeyboardInterrupt` where a signal asked them to stop, once each has left its checkpoint."""
        until, ended = time.monotonic() + seconds, set[Future[Result]]()
        while self.going and not ended and time.monotonic() < until:
            ended = self.turn()
        stops = [error for future in ended if isinstance(error := future.exception(), Interrupted) and error.requested]
        if stops:
            raise KeyboardInterrupt
        return ended

    def _advance(self, future: Future[Result]) -> bool:
        run, stream = self.going[future]
        with contextlib.nullcontext() if stream is None else torch.cuda.stream(stream):
            try:
                next(run)
            except StopIteration as end:
                future.set_result(end.value)
            except Exception as error:
                future.set_exception(error)
            if future not in self.begun and stream is not None:  # others may use what it has made for all
                torch.cuda.synchronize()
            self.begun.add(future)
        return future.done()
