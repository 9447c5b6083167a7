"""What moves the weights: optimizers with their parameter groups, learning-rate schedules, the weights' average."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tpsnet_lib import captured_step
from tpsnet_lib.config import TrainConfig


def optimizer(model: nn.Module, recipe: TrainConfig, captured: bool = False) -> torch.optim.Optimizer:
    """The recipe's optimizer over two groups: weights, and norms with biases (tensors of one dimension or none).

    Each group carries `scale`, its learning rate relative to the recipe's. A norm trained at k times the rate has its
    decay divided by k, so that `weight_decay` means the same shrinkage a step in both groups (of SGD and AdamW).
    `Muon` has a group of its own for the kernels, the first one, which it does not decay.

    `captured`: its steps will be recorded as a CUDA graph and replayed, so its learning rates are tensors."""
    built = _optimizer(model, recipe, captured)
    if captured:
        built._warned_capturable_if_run_uncaptured = True  # no warning: the first steps of a phase are not captured
        device = next(model.parameters()).device
        dtype = torch.float32 if device.type == "cuda" else torch.float64  # as an optimizer there takes a number
        for group in built.param_groups:
            group["lr"] = torch.full((), recipe.lr, device=device, dtype=dtype)
    return built


def _optimizer(model: nn.Module, recipe: TrainConfig, captured: bool) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    norm_scale = recipe.norm_lr_scale
    norm_decay = recipe.weight_decay / norm_scale if recipe.decay_norms and norm_scale else 0.0
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "scale": 1.0, "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "scale": norm_scale, "weight_decay": norm_decay},
    ]
    if recipe.optimizer == "muon":
        kernels = {"params": [p for p in trained if p.ndim == 4], "scale": 1.0, "weight_decay": 0.0, "kernels": True}
        groups[0]["params"] = [p for p in trained if p.ndim in (2, 3)]
        return Muon([kernels, *groups], recipe.lr, recipe.momentum, bf16=recipe.precision == "bf16")
    fused = trained[0].device.type in ("cpu", "cuda")
    adam: dict[str, Any] = {
        "lr": recipe.lr,
        "betas": (recipe.momentum, 0.999),
        "capturable": captured and captured_step.can_capture(trained[0].device),
    }
    if recipe.optimizer == "sgd":
        nesterov = recipe.nesterov and recipe.momentum > 0
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=fused)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, fused=fused, **adam)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, fused=fused, **adam)
    return torch.optim.Adamax(groups, **adam)


class Muon(torch.optim.Optimizer):
    """Momentum whose step is orthogonalised: every direction of a kernel, as a matrix of its outputs, moves equally far
    (Jordan et al. 2024, kellerjordan.github.io/posts/muon; for convolutions as in airbench94_muon).

    Groups with `kernels` are trained so. Before each step a kernel is scaled to the norm of a matrix with unit rows, as
    the orthogonal move has, so that lr is about the angle by which it turns. The others (classifier, norms, biases) are
    trained by SGD with Nesterov momentum 0.9. `bf16`: the matrix products are computed in it, in fp32 else."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, momentum: float, bf16: bool) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "kernels": False, "weight_decay": 0.0})
        self.dtype = torch.bfloat16 if bf16 else torch.float32
        for group in self.param_groups:
            if not group["kernels"]:
                group["momentum"] = 0.9

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            grads: Any = [p.grad for p in params]
            if group["weight_decay"]:
                grads = torch._foreach_add(grads, params, alpha=group["weight_decay"])
            for p in params:
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            momenta = [self.state[p]["momentum"] for p in params]
            torch._foreach_mul_(momenta, group["momentum"])
            torch._foreach_add_(momenta, grads)
            moves: Any = torch._foreach_add(grads, momenta, alpha=group["momentum"])
            if group["kernels"]:
                moves = self._orthogonalised(moves)
                norms = torch._foreach_norm(params)
                for p, norm in zip(params, norms, strict=True):
                    p.mul_(len(p) ** 0.5 / norm)
            torch._foreach_sub_(params, torch._foreach_mul(moves, group["lr"]))

    def _orthogonalised(self, moves: Sequence[Tensor]) -> list[Tensor]:
        """The moves [outputs, inputs, F, F] of kernels, each orthogonalised as a matrix of its outputs."""
        rows = [move.permute(0, 2, 3, 1) for move in moves]  # no copy of a channels_last kernel
        matrices = [each.flatten(1).to(self.dtype) for each in rows]
        straight = by_shape(orthogonalised, matrices) if moves[0].is_cuda else map(orthogonalised, matrices)
        return [
            matrix.to(move.dtype).view(each.shape).permute(0, 3, 1, 2)
            for matrix, each, move in zip(straight, rows, moves, strict=True)
        ]


def by_shape(function: Callable[[Tensor], Tensor], matrices: Sequence[Tensor]) -> list[Tensor]:
    """A function of [N, R, C] applied to matrices [R, C], those of one shape together, in their order.

    That is fewer kernels for a GPU. A batch's sums may differ from a single matrix's in the last bit."""
    results: dict[int, Tensor] = {}
    for shape in dict.fromkeys(matrix.shape for matrix in matrices):
        numbers = [number for number, matrix in enumerate(matrices) if matrix.shape == shape]
        batch = function(torch.stack([matrices[number] for number in numbers]))
        results.update(zip(numbers, batch, strict=True))
    return [results[number] for number in range(len(matrices))]


def orthogonalised(matrix: Tensor) -> Tensor:
    """Roughly the nearest matrix [..., R, C] whose rows (or columns, where they are fewer) are orthonormal: the
    singular values are brought into some 0.7 to 1.2 by three steps of Newton and Schulz's iteration with the
    coefficients of Muon's author."""
    wide: Tensor = matrix if matrix.shape[-2] <= matrix.shape[-1] else matrix.mT
    wide = wide / (torch.linalg.vector_norm(wide, dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(3):
        square = wide @ wide.mT
        wide = 3.4445 * wide + (2.0315 * square @ square - 4.7750 * square) @ wide
    return wide if matrix.shape[-2] <= matrix.shape[-1] else wide.mT


def load_state(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Take the state of an optimizer of the same recipe, which may have been executed in another way."""
    groups = [
        {**group, **{name: now[name] for name in ("lr", "capturable", "fused") if name in now}}
        for group, now in zip(saved["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({**saved, "param_groups": groups})


def schedule(recipe: TrainConfig, steps_per_epoch: int, steps: int) -> Callable[[int], float]:
    """The learning rate's factor at a step, counted from 0, for a run of `steps` steps.

    The schedule spans `schedule_epochs` where that is set (a run that stops before it never anneals), else the run."""
    span = recipe.schedule_epochs * steps_per_epoch if recipe.schedule_epochs else steps
    warmup = recipe.warmup_epochs * steps_per_epoch
    if recipe.schedule == "onecycle" and not warmup:
        warmup = 0.3 * span

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = min(1.0, (step - warmup) / max(1.0, span - warmup))
        if recipe.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        return 1.0 if recipe.schedule == "constant" else 1.0 - done  # linear and onecycle

    return factor


class Ema:
    """The exponential moving average of a network's weights and running statistics (Polyak & Juditsky 1992).

    Early on it averages over fewer steps than its decay says: at step t the decay is at most (1 + t) / (10 + t).
    The network's tensors are listed once, so it must keep them: what is loaded into it is copied in place."""

    def __init__(self, model: nn.Module, decay: float, captured: bool = False) -> None:
        self.decay, self.updates = decay, 0
        self.share: float | Tensor = 0.0  # of the newest weights in the next average
        newest = model.state_dict()
        self.average = {name: value.detach().clone() for name, value in newest.items()}

        # The same tensors as lists: weights and running statistics, and the batch norms' counts of steps, only copied.
        averaged = [name for name, value in newest.items() if value.is_floating_point()]
        counts = [name for name in newest if name not in averaged]
        self.average_weights = [self.average[name] for name in averaged]
        self.newest_weights = [newest[name] for name in averaged]
        self.average_counts = [self.average[name] for name in counts]
        self.newest_counts = [newest[name] for name in counts]
        if captured:  # updates are recorded as part of a CUDA graph and replayed: the share is a tensor that is filled
            self.share = torch.zeros((), device=self.average_weights[0].device)

    def set_share(self) -> None:
        """Set the share of the newest weights in the next average."""
        self.updates += 1
        share = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        if isinstance(self.share, Tensor):
            self.share.fill_(share)
        else:
            self.share = share

    @torch.no_grad()
    def update(self) -> None:
        """Move the average a step towards the newest weights; `set_share` comes before."""
        if isinstance(self.share, Tensor):  # a GPU interpolates lists by one number, but not by one tensor, at once
            moves = torch._foreach_sub(self.newest_weights, self.average_weights)
            torch._foreach_mul_(moves, self.share)
            torch._foreach_add_(self.average_weights, moves)
        else:
            torch._foreach_lerp_(self.average_weights, self.newest_weights, self.share)
        if self.newest_counts:
            torch._foreach_copy_(self.average_counts, self.newest_counts)

    def state(self) -> dict[str, Tensor | int]:
        """The average, tensors in the shapes of the network's, and its number of updates, for a checkpoint."""
        return {"updates": self.updates, **{f"average.{name}": value for name, value in self.average.items()}}

    def restore(self, state: dict[str, Tensor | int]) -> None:
        """Take a checkpoint's average back."""
        self.updates = int(state["updates"])
        for name, value in self.average.items():
            value.copy_(torch.as_tensor(state[f"average.{name}"]))


def set_rate_and_share(optimizer: torch.optim.Optimizer, ema: Ema | None, rate: float) -> None:
    """Set what changes from step to step: each group's learning rate, and the newest weights' share in the average.

    A rate that is a tensor stays the same tensor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate * group["scale"])
        else:
            group["lr"] = rate * group["scale"]
    if ema is not None:
        ema.set_share()


@contextlib.contextmanager
def averaged(model: nn.Module, ema: Ema | None) -> Iterator[None]:
    """Give a network its averaged weights while the block lasts; without an average it keeps the trained ones."""
    if ema is None:
        yield
        return
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(ema.average)
    try:
        yield
    finally:
        model.load_state_dict(trained)
