"""Distillation: a network learns from labels and from what trained networks make of the very same images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tpsnet_lib.config import TrainConfig
from tpsnet_lib.errors import TrainingError


class Teacher:
    """Trained networks whose averaged logits are learned from (Hinton et al. 2015, arXiv 1503.02531, at temperature 1).

    They see the augmented, mixed images of the step, as the network that learns does (Beyer et al. 2022, arXiv
    2106.05237). `networks` are those of the records `recipe.teacher`; `TrainingError` if their number is another."""

    def __init__(self, recipe: TrainConfig, networks: Sequence[nn.Module], device: torch.device) -> None:
        if len(networks) != len(recipe.teacher):
            named = ", ".join(recipe.teacher)
            raise TrainingError(f"this recipe learns from records {named}: give their networks, as load_or_run does")
        self.share, self.half = recipe.teacher_share, recipe.precision == "bf16"
        self.networks = [
            network.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            for network in networks
        ]

    @torch.no_grad()
    def targets(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The targets [B, classes], of which the teacher's probabilities for `inputs` [B, 3, H, W] take their share.

        Cross-entropy is linear in its targets, so its loss is the same mixture of the two losses."""
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.half):
            logits = torch.stack([network(inputs).float() for network in self.networks]).mean(0)
        return torch.lerp(targets, logits.softmax(1), self.share)
