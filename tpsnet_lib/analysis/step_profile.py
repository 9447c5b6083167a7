"""Where the time of a training step goes, by kind of work; how many operations it has, and where it waits."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

from tpsnet_lib import train
from tpsnet_lib.config import RunConfig
from tpsnet_lib.data.datasets import ImageSet
from tpsnet_lib.device import native_precision, resolve_device
from tpsnet_lib.runs.provenance import hardware

# Where an operator of the forward or backward pass belongs, by the first pattern found in its name.
GROUPS: dict[str, str] = {
    "convolution, forward": r"conv(?!.*backward)",
    "convolution, backward": r"conv.*backward",
    "norm and activation, forward": r"^_FusedNorm$|(batch_?norm|gelu|relu|clamp_min)(?!.*backward)",
    "norm and activation, backward": r"^_FusedNormBackward$|(batch_?norm|gelu|relu|threshold).*backward",
    "pool": r"pool",
    "optimizer": r"sgd|adam|optimizer|foreach",
    "sums of maps": r"^aten::(add_?|sum)$",  # skips, and the gradients of what goes two ways
    "copies, casts and padding": r"copy_|_to_copy|clone|pad|slice|fill_|zero_",
}
DATA, OPTIMIZER, OTHER = "data and augmentation", "optimizer", "other"
PHASES = {"step": DATA, "optimizer": OPTIMIZER}  # of a step, in which everything is of one group


@dataclass(frozen=True)
class StepProfile:
    """Where the time of one training step went: seconds by group, the largest first; a step's images; the machine."""

    seconds: dict[str, float]
    batch_size: int
    steps: int
    threads: int
    hardware: str

    @property
    def total(self) -> float:
        """Seconds of a step, as the profiler counts them."""
        return sum(self.seconds.values())

    def share(self, group: str) -> float:
        """The fraction of a step that a group takes."""
        return self.seconds.get(group, 0.0) / self.total


def profile_step(config: RunConfig, images: ImageSet, steps: int = 4, device: str = "auto") -> StepProfile:
    """Take some steps of a run under torch.profiler, after two to warm up, and add the operators up by group.

    Nothing of the run is kept. A profiled step is a little slower than a free one; only the shares are of use."""
    where = resolve_device(device)
    config = config.with_precision(native_precision(where))
    run = train.train(endless(config), images, None, train.TrainOptions(where, "eager", progress="none"))
    opened: list[record_function] = []

    def begin(*_: Any) -> None:
        opened.append(record_function("tpsnet: forward").__enter__())  # type: ignore[no-untyped-call]

    def end(*_: Any) -> None:
        opened.pop().__exit__(None, None, None)

    def mark(name: str) -> Callable[..., None]:
        def marked(*_: Any) -> None:
            with record_function(f"tpsnet: {name}"):
                pass

        return marked

    next(run)
    state = next(run)
    hooks: list[RemovableHandle] = [
        state.model.register_forward_pre_hook(begin),
        state.model.register_forward_hook(end),
        state.optimizer.register_step_pre_hook(mark("optimizer")),
        state.optimizer.register_step_post_hook(mark("after")),
    ]
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if where.type == "cuda" else [])
    with closing(run), _quiet(), profile(activities=activities, acc_events=True) as profiler:
        for _ in range(steps):
            with record_function("tpsnet: step"):
                next(run)
    for hook in hooks:
        hook.remove()
    found = profiler.events() or []
    events = [
        (event.name, event.time_range.start, event.self_cpu_time_total, event.self_device_time_total) for event in found
    ]
    on_device = where.type == "cuda"
    seconds = group_events([(name, at, device_us if on_device else cpu_us) for name, at, cpu_us, device_us in events])
    each = {group: value / steps for group, value in seconds.items()}
    return StepProfile(each, state.batch_size, steps, torch.get_num_threads(), hardware(where))


def endless(config: RunConfig) -> RunConfig:
    """A run of a config with so many steps that a measurement does not reach the end."""
    return replace(config, train=replace(config.train, epochs=10_000.0))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Discard what is written to standard error while the block lasts, also by the profiler's own library."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def group_events(events: Iterable[tuple[str, float, float]]) -> dict[str, float]:
    """Seconds by group, largest first, of events (name, start, self time in microseconds) of whole steps.

    The marks `tpsnet: ` open the parts of a step. What begins after its start and before its forward pass made the
    batch: `DATA`; what begins after the mark of the optimizer and before the next is the optimizer's, matrix products
    and copies too."""
    ordered = sorted(events, key=lambda event: event[1])
    seconds = dict.fromkeys([*GROUPS, DATA, OTHER], 0.0)
    phase: str | None = None
    for name, _, microseconds in ordered:
        if name.startswith("tpsnet: "):
            phase = PHASES.get(name.removeprefix("tpsnet: "))
            group = OTHER  # the Python in between
        elif phase is not None:
            group = phase
        else:
            group = next((group for group, pattern in GROUPS.items() if re.search(pattern, name, re.I)), OTHER)
        seconds[group] += microseconds / 1e6
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what Python sends to a device while a block lasts: a processor takes some 5 microseconds for each, however
    little work it is. Views and allocations are left out. A CUDA graph that is replayed sends nothing.

    `operations`: how often each was called. `waits`: those that would make Python wait for a GPU, in order."""

    FREE = ("aten.empty", "aten.new_empty", "aten.alias", "aten.lift_fresh", "aten._unsafe_view")
    WAITING = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.lift_fresh")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: Counter[str] = Counter()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, results = str(func), func._schema.returns
        is_view = any(each.alias_info is not None and not each.alias_info.is_write for each in results)
        if not is_view and not name.startswith(self.FREE):
            self.operations[name] += 1
        by_mask = name.startswith("aten.index.Tensor") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if by_mask or name.startswith(self.WAITING):  # the length of what a mask chooses is to be asked for
            self.waits.append(name)
        return func(*args, **(kwargs or {}))
