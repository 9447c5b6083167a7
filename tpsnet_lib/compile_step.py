"""What a batch teaches: logits, loss and gradients of a network, as it stands or compiled by torch.compile."""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from torch import Tensor

from tpsnet_lib.files import TrainingError
from tpsnet_lib.model import ResidualNetwork

# How a step is executed, and torch.compile's name for it. `graphs` records CUDA graphs besides, which spares small
# networks the time that the processor takes to launch their kernels.
EXECUTIONS = {"eager": "", "compiled": "default", "graphs": "reduce-overhead"}
# A shorter run ends about as soon without: on an H200 compiling `wide` took 50 s, and spared the device 4 of the 10 ms
# of a step.
STEPS_THAT_PAY = 10_000


def resolve_execution(name: str, device: torch.device, steps: int) -> str:
    """The execution of a run of so many steps by name; `auto` compiles long runs on CUDA. One that is not known is a
    `TrainingError`."""
    if name == "auto":
        return "compiled" if device.type == "cuda" and steps >= STEPS_THAT_PAY else "eager"
    if name not in EXECUTIONS:
        raise TrainingError(f"execution {name}: choose one of auto, {', '.join(EXECUTIONS)}")
    return name


class Lesson:
    """Forward, loss and backward of one batch of a network in training.

    Compiled or not, it is the same network: the names in its state, its checkpoints and its predictions do not know of
    it; only the draws of dropout and stochastic depth are others, the same after a resume. Each shape of batch is
    compiled at its first step, and again when the stem is frozen. Where that fails, one line on standard error says
    why, and the run goes on `eager` as if nothing had been tried."""

    def __init__(self, model: ResidualNetwork, label_smoothing: float, bf16: bool, execution: str = "eager") -> None:
        self.model, self.label_smoothing, self.bf16, self.execution = model, label_smoothing, bf16, execution
        self.compiled: set[tuple[torch.Size, int]] = set()  # shapes, with the number of trained tensors
        self.forward = self._forward
        if mode := EXECUTIONS[execution]:
            torch.compiler.reset()  # of a process's earlier runs: of one function torch keeps a few versions only
            self.forward = torch.compile(self._forward, dynamic=False, mode=mode)

    def __call__(self, inputs: Tensor, targets: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """The loss, a scalar, and the logits [B, 10], both detached; the gradients are left in `.grad`, which is empty
        before. `inputs` float [B, 3, H, W], `targets` float [B, 10]; `seed` is that of dropout's draws."""
        case = inputs.shape, sum(p.requires_grad for p in self.model.parameters())
        if self.execution == "eager" or case in self.compiled:
            return self._teach(inputs, targets, seed)
        before = [value.clone() for value in self.model.buffers()]
        try:
            result = self._teach(inputs, targets, seed)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler may fail in any way
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            print(f"tpsnet: the step cannot be compiled, so it runs eager ({why})", file=sys.stderr)
            self.forward, self.execution = self._forward, "eager"
            for value, was in zip(self.model.buffers(), before, strict=True):
                value.copy_(was)
            self.model.zero_grad(set_to_none=True)
            return self._teach(inputs, targets, seed)
        self.compiled.add(case)
        return result

    def _teach(self, inputs: Tensor, targets: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(seed)
        self.model.train()
        if self.execution == "graphs":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        loss, logits = self.forward(inputs, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), logits

    def _forward(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.model(inputs).float()
        return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing), logits.detach()
