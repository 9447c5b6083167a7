"""A CUDA graph for a CPU: it records the operations of a block, which compute nothing there, and repeats them on replay
over the very same tensors. Whatever a block takes from Python (a number, a branch) stays as it was when recorded."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from operation_counter import OperationCounter
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from tpsnet_lib import captured_step, train


class RecordedGraph:
    """In the place of `torch.cuda.CUDAGraph`; `all` lists the graphs that were made since `install`."""

    all: list[RecordedGraph] = []  # noqa: RUF012

    def __init__(self) -> None:
        self.state: Generator | None = None  # that its draws read their seed from
        self.calls: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self.kept: list[Any] = []
        self.replays = 0
        RecordedGraph.all.append(self)

    @torch.no_grad()
    def replay(self) -> None:
        assert self.calls, "a graph is replayed that holds nothing"
        self.replays += 1
        assert self.state is not None
        torch.manual_seed(self.state.value.seed)  # whatever torch was given last
        with _disable_current_modes():  # a counter sees of a graph what a processor sends: nothing
            for function, args, kwargs, results in self.calls:
                for old, new in zip(results, tensors(function(*args, **kwargs)), strict=True):
                    if new.data_ptr() != old.data_ptr():
                        old.copy_(new)


class Recorder(TorchDispatchMode):
    """Records calls in a graph, and keeps what the tensors held that existed before."""

    def __init__(self, graph: RecordedGraph) -> None:
        super().__init__()
        self.graph, self.kept = graph, graph.kept
        self.made: set[int] = set()
        self.before: dict[int, tuple[Any, Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tensors((args, kwargs)):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self.made | self.before.keys():
                self.before[storage.data_ptr()] = (storage, storage.clone())
        with OperationCounter() as counter:
            result = func(*args, **(kwargs or {}))
        if counter.waits:
            raise RuntimeError(f"{func}: operation not permitted when stream is capturing")
        results = tensors(result)
        old = {tensor.untyped_storage().data_ptr() for tensor in tensors((args, kwargs))}
        self.made |= {tensor.untyped_storage().data_ptr() for tensor in results} - old
        self.kept.append(result)  # no memory is used twice
        if counter.operations:  # a view's tensor stays a view
            self.graph.calls.append((func, args, kwargs or {}, results))
        return result

    def undo(self) -> None:
        """Put back what was computed while recording."""
        for storage, content in self.before.values():
            storage.copy_(content)


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


@contextlib.contextmanager
def record(graph: RecordedGraph, stream: Any = None) -> Iterator[None]:
    """In the place of `torch.cuda.graph`."""
    drawn = torch.get_rng_state()
    recorder = Recorder(graph)
    (generator,) = torch.cuda.default_generators
    graph.state = generator.graphsafe_get_state()  # type: ignore[assignment]
    try:
        with recorder:
            yield
    finally:
        recorder.undo()
        torch.set_rng_state(drawn)


class Seed:
    """What generators share that were set to one state."""

    seed = 0


class Generator:
    """In the place of a CUDA device's generator."""

    def __init__(self, value: Seed | None = None) -> None:
        self.value = value or Seed()

    def clone_state(self) -> Generator:
        return Generator()

    def graphsafe_get_state(self) -> Generator:
        return Generator(self.value)

    def graphsafe_set_state(self, other: Generator) -> None:
        self.value = other.value

    def manual_seed(self, seed: int) -> None:
        self.value.seed = seed


class Stream:
    """In the place of `torch.cuda.Stream`: a CPU does everything in its turn."""

    def wait_stream(self, other: Stream) -> None:
        assert isinstance(other, Stream)


def install(monkeypatch: pytest.MonkeyPatch) -> type[RecordedGraph]:
    """Let `captured_step` take this processor for a CUDA device."""
    RecordedGraph.all = []
    monkeypatch.setattr(captured_step, "can_capture", lambda device: True)
    adamax = importlib.import_module("torch.optim.adamax")
    monkeypatch.setattr(adamax, "_get_capturable_supported_devices", lambda **_: ["cpu"])
    monkeypatch.setattr(train, "optimize", lambda *_: None)  # of which a CUDA device has no need
    for name, value in {
        "CUDAGraph": RecordedGraph,
        "graph": record,
        "Stream": Stream,
        "stream": lambda stream: contextlib.nullcontext(),
        "current_stream": Stream,
        "default_stream": Stream,
        "default_generators": (Generator(),),
        "current_device": lambda: 0,
        "synchronize": lambda *_: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return RecordedGraph
