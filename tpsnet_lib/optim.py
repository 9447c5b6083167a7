"""What moves the weights: optimizers with their parameter groups, learning-rate schedules, the weights' average."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tpsnet_lib.config import TrainConfig


def optimizer(model: nn.Module, recipe: TrainConfig) -> torch.optim.Optimizer:
    """The recipe's optimizer over two groups: weights, and norms with biases (tensors of one dimension or none).

    Each group carries `scale`, its learning rate relative to the recipe's. A norm trained at k times the rate has its
    decay divided by k, so that `weight_decay` means the same shrinkage a step in both groups. `Muon` has a third group
    for the kernels, which it does not decay."""
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
    betas = (recipe.momentum, 0.999)
    if recipe.optimizer == "sgd":
        nesterov = recipe.nesterov and recipe.momentum > 0
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=fused)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, lr=recipe.lr, betas=betas, fused=fused)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=betas, fused=fused)
    return torch.optim.Adamax(groups, lr=recipe.lr, betas=betas)


class Muon(torch.optim.Optimizer):
    """Momentum whose step is orthogonalised: every direction of a kernel, as a matrix of its outputs, moves equally far
    (Jordan et al. 2024, kellerjordan.github.io/posts/muon; for convolutions as in airbench94_muon).

    Groups with `kernels` are trained so: a step of length lr, after which a kernel has the norm of a matrix with unit
    rows, so that lr is also the angle it turns by. The others (classifier, norms, biases) are trained by SGD with
    Nesterov momentum 0.9. `bf16`: the matrix products are computed in it, in fp32 else."""

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
            for p in group["params"]:
                if p.grad is None:
                    continue
                grad = p.grad.add(p, alpha=group["weight_decay"]) if group["weight_decay"] else p.grad
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
                momentum = self.state[p]["momentum"]
                momentum.mul_(group["momentum"]).add_(grad)
                move = grad.add(momentum, alpha=group["momentum"])
                if group["kernels"]:
                    rows = move.permute(0, 2, 3, 1)  # no copy of a channels_last kernel
                    move = orthogonalised(rows.flatten(1).to(self.dtype)).to(p.dtype)
                    move = move.view(rows.shape).permute(0, 3, 1, 2)
                    p.mul_(len(p) ** 0.5 / p.norm())
                p.sub_(group["lr"] * move)


def orthogonalised(matrix: Tensor, steps: int = 3) -> Tensor:
    """Roughly the nearest matrix whose rows (or columns, where they are fewer) are orthonormal [R, C]: the singular
    values are brought into some 0.7 to 1.2 by Newton and Schulz's iteration with the coefficients of Muon's author."""
    wide: Tensor = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        square = wide @ wide.T
        wide = 3.4445 * wide + (2.0315 * square @ square - 4.7750 * square) @ wide
    return wide if len(matrix) <= matrix.shape[1] else wide.T


def set_rate(optim: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of a learning rate."""
    for group in optim.param_groups:
        group["lr"] = rate * group["scale"]


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
        return 1.0 if recipe.schedule == "constant" else 1.0 - done

    return factor


class Ema:
    """The exponential moving average of a network's weights and running statistics (Polyak & Juditsky 1992).

    Early on it averages over fewer steps than its decay says: at step t the decay is at most (1 + t) / (10 + t)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average a step towards the network as it is now."""
        self.updates += 1
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        values = model.state_dict()
        floats = [name for name, value in values.items() if value.is_floating_point()]
        counts = [name for name in values if name not in floats]
        torch._foreach_lerp_([self.average[name] for name in floats], [values[name] for name in floats], weight)
        torch._foreach_copy_([self.average[name] for name in counts], [values[name] for name in counts])

    def state(self) -> dict[str, Tensor | int]:
        """The average and its number of updates, for a checkpoint."""
        return {"updates": self.updates, **{f"average.{name}": value for name, value in self.average.items()}}

    def restore(self, state: dict[str, Tensor | int]) -> None:
        """Take a checkpoint's average back."""
        self.updates = int(state["updates"])
        for name, value in self.average.items():
            value.copy_(torch.as_tensor(state[f"average.{name}"]))


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
