"""What moves the weights: optimizers with their parameter groups, learning-rate schedules, the weights' average."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tpsnet_lib.config import TrainConfig


def optimizer(model: nn.Module, recipe: TrainConfig) -> torch.optim.Optimizer:
    """The recipe's optimizer over two groups: weights, and norms with biases (tensors of one dimension or none).

    Each group carries `scale`, its learning rate relative to the recipe's. A norm trained at k times the rate has its
    decay divided by k, so that `weight_decay` means the same shrinkage a step in both groups."""
    trained = [p for p in model.parameters() if p.requires_grad]
    norm_scale = recipe.norm_lr_scale
    norm_decay = recipe.weight_decay / norm_scale if recipe.decay_norms and norm_scale else 0.0
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "scale": 1.0, "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "scale": norm_scale, "weight_decay": norm_decay},
    ]
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
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, weight)
            else:
                self.average[name].copy_(value)

    def state(self) -> dict[str, Tensor | int]:
        """The average and its number of updates, for a checkpoint."""
        return {"updates": self.updates, **{f"average.{name}": value for name, value in self.average.items()}}

    def restore(self, state: dict[str, Tensor | int]) -> None:
        """Take a checkpoint's average back."""
        self.updates = int(state["updates"])
        for name, value in self.average.items():
            value.copy_(torch.as_tensor(state[f"average.{name}"]))
