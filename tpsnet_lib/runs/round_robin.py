"""Runs of one process that take turns on a device, a step each."""

import contextlib
import time
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any, Generic, Self, TypeVar

import torch

from tpsnet_lib import captured_step
from tpsnet_lib.checkpoint import request_stop
from tpsnet_lib.errors import Interrupted

Result = TypeVar("Result")
Run = Generator[object, None, Result]


class RoundRobin(Generic[Result]):
    """Advances up to `places` runs by a step each, again and again.

    On CUDA each has a stream of its own, so that one's kernels fill what another's leave idle; a step is sent as one
    graph, so a single process keeps the card at work. As what a run draws is set before each of its steps, it ends in
    the weights that it has alone."""

    def __init__(self, device: torch.device, places: int) -> None:
        self.running: dict[Future[Result], tuple[Run[Result], Any]] = {}  # each with its stream
        self.stepped: set[Future[Result]] = set()  # those that have taken a step
        self.streams: list[Any] = [None] * places  # that no run has
        if captured_step.can_capture(device):
            self.streams = [torch.cuda.Stream() for _ in range(places)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the running ones; what is in training leaves its checkpoint."""
        request_stop()
        for future, (run, _) in self.running.items():
            if future not in self.stepped or not self._advance(future):
                run.close()
        self.running.clear()

    def add(self, run: Run[Result]) -> Future[Result]:
        """Let a run take part. When it has ended, the future has its result, or the exception that ended it."""
        future: Future[Result] = Future()
        self.running[future] = run, self.streams.pop()
        return future

    def step(self) -> set[Future[Result]]:
        """A step of each; those that ended with it."""
        ended = {future for future in self.running if self._advance(future)}
        for future in ended:
            self.streams.append(self.running.pop(future)[1])
        return ended

    def step_until_one_ends(self, seconds: float) -> set[Future[Result]]:
        """Steps of each until a run has ended, or for so many seconds; those that ended.

        Raises `KeyboardInterrupt` where a signal asked them to stop, once each has left its checkpoint."""
        until, ended = time.monotonic() + seconds, set[Future[Result]]()
        while self.running and not ended and time.monotonic() < until:
            ended = self.step()
        stops = [error for future in ended if isinstance(error := future.exception(), Interrupted) and error.requested]
        if stops:
            raise KeyboardInterrupt
        return ended

    def _advance(self, future: Future[Result]) -> bool:
        run, stream = self.running[future]
        with contextlib.nullcontext() if stream is None else torch.cuda.stream(stream):
            try:
                next(run)
            except StopIteration as end:
                future.set_result(end.value)
            except Exception as error:
                future.set_exception(error)
            if future not in self.stepped and stream is not None:  # others may use what it has made for all
                torch.cuda.synchronize()
            self.stepped.add(future)
        return future.done()
