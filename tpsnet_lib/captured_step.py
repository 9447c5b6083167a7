"""A training step recorded as one CUDA graph for each phase of a run, and replayed."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from tpsnet_lib.compile_step import ForwardLoss
from tpsnet_lib.data.batches import Batch, Phase
from tpsnet_lib.errors import brief, warn

WARM_UP_STEPS = 3  # of a phase before it is recorded: the optimizer makes its state, cuDNN and torch.compile choose


Step = Callable[[Batch, Phase], None]


def can_capture(device: torch.device) -> bool:
    """Whether a device can record what is sent to it."""
    return device.type == "cuda"


class GeneratorState:
    """A state of the device's generator that is a run's own.

    A graph reads its seed from a tensor of the state that was in use when it was recorded. In one state for all runs,
    the seed of the next run's step would be written over that of a step which the device has not come to yet."""

    def __init__(self) -> None:
        self.generator = torch.cuda.default_generators[torch.cuda.current_device()]
        self.state = self.generator.clone_state()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Let everything that draws do so by this state while the block lasts."""
        before = self.generator.graphsafe_get_state()
        self.generator.graphsafe_set_state(self.state)
        try:
            yield
        finally:
            self.generator.graphsafe_set_state(before)

    def seed(self) -> None:
        """Take the seed that torch was given last; it is written to the device in its turn."""
        self.state.manual_seed(torch.initial_seed())


class CapturedStep:
    """Takes steps by a function of a batch and a phase: as Python has them, or on CUDA as one graph.

    Hundreds of small operations take the processor longer to send than the device to do; a graph is sent as one. The
    first `WARM_UP_STEPS` of a phase are taken as Python has them and are steps like any other. Then the function is
    recorded, which computes nothing, and replayed from there on. Whatever changes from step to step must lie in
    tensors that stay where they are: the batch is copied into some here, and learning rates and the average's weight
    are filled by `optim`. A replay draws by the seed that torch's generator has then, so dropout draws as in an eager
    run; it reads that seed on the device, from a state of the generator that is its run's alone.

    A run that has a stream of its own (`runs.round_robin`) is recorded on it: what cuBLAS keeps for a stream is then
    no other run's.

    Where recording fails, one line on standard error says why, and the run goes on eager: no step was half taken."""

    def __init__(self, step: Step, device: torch.device) -> None:
        self.step, self.captures = step, True
        self.phase: Phase | None = None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.taken = 0  # steps of this phase
        self.held: Batch | None = None  # the batch of every recorded step
        if not can_capture(device):
            self._give_up(f"device {device.type} records nothing")
        else:
            current = torch.cuda.current_stream()
            alone = current == torch.cuda.default_stream()  # which cannot be recorded
            self.stream = torch.cuda.Stream() if alone else current
            self.draws = GeneratorState()

    def __call__(self, batch: Batch, phase: Phase) -> None:
        """Take a step. On CUDA nothing here waits for the device, except where a phase begins."""
        if not self.captures:
            self.step(batch, phase)
            return
        if phase != self.phase:
            self._forget()
            self.phase = phase
        held = self._hold(batch)
        if self.graph is None and self.taken == WARM_UP_STEPS:
            self._record(held, phase)
        if self.graph is not None:
            self.draws.seed()
            self.graph.replay()
        else:
            self._aside(held, phase)
        self.taken += 1

    def _hold(self, batch: Batch) -> Batch:
        """Copy a batch to where the recorded step reads it."""
        if self.held is None:
            epoch = torch.zeros((), dtype=torch.int64, device=batch.images.device)
            tensors = {name: getattr(batch, name).clone() for name in ("images", "labels", "indices")}
            self.held = replace(batch, epoch=epoch, **tensors)
        assert isinstance(self.held.epoch, Tensor)
        self.held.epoch.fill_(batch.epoch)
        for name in ("images", "labels", "indices"):
            getattr(self.held, name).copy_(getattr(batch, name))
        return self.held

    def _aside(self, held: Batch, phase: Phase) -> None:
        """Take a step on the stream on which it will be recorded, in its turn among what else the device does."""
        around = torch.cuda.current_stream()
        self.stream.wait_stream(around)
        with torch.cuda.stream(self.stream):
            self.step(held, phase)
        around.wait_stream(self.stream)

    def _record(self, held: Batch, phase: Phase) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with self.draws.in_use(), torch.cuda.graph(graph, stream=self.stream):
                self.step(held, phase)
        except Exception as error:  # of whatever kind: the run does not depend on it
            self._give_up(f"{type(error).__name__}: {brief(error)}")
        else:
            self.graph = graph

    def _forget(self) -> None:
        """Drop a phase's graph with its memory, once the device has done with it."""
        if self.graph is not None:
            torch.cuda.synchronize()
        self.graph, self.taken = None, 0

    def _give_up(self, reason: str) -> None:
        warn(f"the step cannot be captured, so it runs as Python has it ({reason})")
        self.captures = False


def executed(execution: str, take_step: Step, forward_loss: ForwardLoss) -> str:
    """The execution that a step had in the end, one of `compile_step.EXECUTIONS`, where `execution` was tried."""
    if isinstance(take_step, CapturedStep) and take_step.captures:
        return "captured-compiled" if forward_loss.compiles else "captured"
    if forward_loss.compiles:
        return "compiled"
    return "plain" if execution == "plain" else "eager"
