"""Where the time of a training step goes, by kind of work."""

import os
import re
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.hooks import RemovableHandle

from tpsnet_lib import train
from tpsnet_lib.config import RunConfig
from tpsnet_lib.data.datasets import ImageSet
from tpsnet_lib.device import native_precision, resolve_device

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


def profile_step(config: RunConfig, images: ImageSet, steps: int = 4, device: str = "auto") -> dict[str, float]:
    """The share of a training step that each group of operators takes, the largest first, by torch.profiler.

    Two steps warm up, and nothing of the run is kept. A profiled step is a little slower than a free one."""
    where = resolve_device(device)
    config = config.with_precision(native_precision(where))
    run = train.training_steps(endless(config), images, None, train.TrainOptions(where, "eager", progress="none"))

    def mark(name: str) -> Callable[..., None]:
        def marked(*_: Any) -> None:
            with record_function(f"tpsnet: {name}"):
                pass

        return marked

    next(run)
    state = next(run)
    hooks: list[RemovableHandle] = [
        state.model.register_forward_pre_hook(mark("forward")),
        state.optimizer.register_step_pre_hook(mark("optimizer")),
        state.optimizer.register_step_post_hook(mark("after")),
    ]
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's library writes to standard error by itself
    on_gpu = where.type == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    with closing(run), profile(activities=activities, acc_events=True) as profiler:
        for _ in range(steps):
            with record_function("tpsnet: step"):
                next(run)
    for hook in hooks:
        hook.remove()
    events = [
        (event.name, event.time_range.start, event.self_device_time_total if on_gpu else event.self_cpu_time_total)
        for event in profiler.events() or []
    ]
    seconds = group_events(events)
    return {group: part / sum(seconds.values()) for group, part in seconds.items()}


def endless(config: RunConfig) -> RunConfig:
    """A run of a config with so many steps that a measurement does not reach the end."""
    return replace(config, train=replace(config.train, epochs=10_000.0))


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
