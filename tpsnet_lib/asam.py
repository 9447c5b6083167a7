"""Adaptive sharpness-aware minimisation: the gradient is taken at the worst weights near those that are trained."""

import torch
from torch import Tensor, nn

ETA = 0.01  # of the paper's experiments: keeps a weight of 0 movable


class Asam:
    """ASAM (Kwon et al. 2021, arXiv 2102.11600): between the two backward passes of a step, weights w move to
    w + rho T^2 g / |T g|, with T = |w| + eta for kernels, matrices and norms' scales, and 1 for biases.

    rho is 0.5 for CIFAR-10 in the paper; others have used up to 2. A step costs two. `perturb` follows the first
    backward pass, `restore` the second one. The running statistics of norms are those of the first pass alone: the
    second one sees weights that are not trained. Nothing here waits for the device."""

    def __init__(self, model: nn.Module, rho: float) -> None:
        self.model, self.rho = model, rho
        self.moved: list[Tensor] = []  # the parameters that the first pass gave gradients
        self.weights: list[Tensor] = []  # as they were before
        self.statistics: list[Tensor] = []

    @torch.no_grad()
    def perturb(self) -> None:
        """Move the weights up the slope by the gradients that they have, and forget these."""
        named = [(name, p, p.grad) for name, p in self.model.named_parameters() if p.grad is not None]
        self.moved = [p for _, p, _ in named]
        self.weights = [p.clone() for p in self.moved]
        self.statistics = [buffer.clone() for buffer in self.model.buffers()]
        scales = torch._foreach_abs(self.weights)
        torch._foreach_add_(scales, ETA)
        for (name, _, _), scale in zip(named, scales, strict=True):
            if not name.endswith("weight"):
                scale.fill_(1.0)
        moves = torch._foreach_mul([gradient for _, _, gradient in named], scales)
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(moves)))
        torch._foreach_mul_(moves, scales)
        torch._foreach_mul_(moves, self.rho / (norm + 1e-16))
        torch._foreach_add_(self.moved, moves)
        for p in self.moved:
            p.grad = None

    @torch.no_grad()
    def restore(self) -> None:
        """Put weights and running statistics back; the gradients stay those of the moved weights."""
        torch._foreach_copy_(self.moved, self.weights)
        for buffer, before in zip(self.model.buffers(), self.statistics, strict=True):
            buffer.copy_(before)
