"""The forward pass and loss of a training step, as Python runs them or compiled by torch.compile."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tpsnet_lib.errors import TrainingError, brief, warn
from tpsnet_lib.old_words import current_word

# How a step is executed. `compiled`: its forward and backward pass by torch.compile. `captured`: the whole of it as one
# CUDA graph, which spares the processor the time to launch its kernels. `plain` leaves `fast_cpu.optimize` out: torch's
# own layers train on a CPU too.
EXECUTIONS = ("eager", "plain", "compiled", "captured", "captured-compiled")
# Compiling does not pay for shorter runs: on an H200 compiling `wide` took 50 s, and spared the device 4 of the 10 ms
# of a step. Capturing takes as long as some eager steps.
STEPS_THAT_PAY = 10_000
CAPTURED_STEPS_THAT_PAY = 100
VERSIONS = 64  # of the step that a process keeps compiled, one for each network, shape of batch and smoothing

LossAndLogits = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def resolve_execution(name: str, device: torch.device, steps: int) -> str:
    """The execution of a run of `steps` steps by name; `auto` captures on CUDA, and compiles long runs too.

    Raises `TrainingError` for an unknown name."""
    name = current_word("execution", name)
    if name in EXECUTIONS:
        return name
    if name != "auto":
        raise TrainingError(f"execution {name}: choose one of auto, {', '.join(EXECUTIONS)}")
    if device.type != "cuda" or steps < CAPTURED_STEPS_THAT_PAY:
        return "eager"
    return "captured-compiled" if steps >= STEPS_THAT_PAY else "captured"


class ForwardLoss:
    """A function of inputs and targets that returns loss and logits, compiled or not.

    A compiled function trains the same network: state, checkpoints and predictions are unchanged; only dropout and
    stochastic depth draw other numbers, the same ones after a resume. Each shape of batch is compiled and tried before
    its first step, and again when the stem is frozen. Where that fails, one line on standard error says why, and the
    run continues `eager` as if nothing had been tried."""

    def __init__(self, loss_and_logits: LossAndLogits, model: nn.Module, compiles: bool = False) -> None:
        self.model, self.compiles = model, compiles
        self.eager = self.function = loss_and_logits
        self.tried: set[tuple[torch.Size, int]] = set()  # shapes of inputs, with the number of trained tensors
        if compiles:
            from torch._dynamo import config  # which takes a second to import

            config.recompile_limit = VERSIONS  # runs of one network share theirs
            self.function = torch.compile(loss_and_logits, dynamic=False)

    def __call__(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, a scalar, and the logits of `inputs` float [B, 3, H, W]; these and `targets` are [B, classes]."""
        if self.compiles:
            self._try_once(inputs, targets)
        return self.function(inputs, targets)

    def _try_once(self, inputs: Tensor, targets: Tensor) -> None:
        """Run the compiled step forward and backward on a case that is new, and undo what that changed."""
        case = inputs.shape, sum(p.requires_grad for p in self.model.parameters())
        if case in self.tried:
            return
        self.tried.add(case)
        buffers = [value.clone() for value in self.model.buffers()]
        try:
            self.function(inputs, targets)[0].backward()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler may fail in any way
            reason = f"{type(error).__name__}: {brief(error)}"
            warn(f"the step cannot be compiled, so it runs eager ({reason})")
            self.function, self.compiles = self.eager, False
        for value, before in zip(self.model.buffers(), buffers, strict=True):
            value.copy_(before)
        self.model.zero_grad(set_to_none=True)
        torch.manual_seed(torch.initial_seed())  # the step draws what the trial drew
