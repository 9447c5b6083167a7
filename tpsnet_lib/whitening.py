"""Frozen patch whitening as a first convolution (Jordan 2024, arXiv 2404.00498)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Whitening(nn.Conv2d):
    """A 2x2 convolution [B, 3, H, W] to [B, outputs, H - 1, W - 1] whose kernel `whiten` sets and nothing trains.

    Its bias is trained. It is added to the convolution's result after that is rounded to the result's precision."""

    def __init__(self, outputs: int) -> None:
        super().__init__(3, outputs, 2)
        self.weight.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        assert self.bias is not None
        maps = F.conv2d(images, self.weight)
        return maps + self.bias.to(maps.dtype)[:, None, None]


LEAST_VARIANCE = 5e-4  # added to every eigenvalue, so that directions without variance are not blown up


@torch.no_grad()
def whiten(model: nn.Module, images: Tensor) -> None:
    """Set the kernel of a network's whitened stem so that its outputs are uncorrelated 2x2 patches of unit variance:
    the 12 eigenvectors of the patches' covariance, each over sqrt(eigenvalue + `LEAST_VARIANCE`), and their negatives.

    `images`: normalised training images [N, 3, 32, 32]; some thousands are enough. A plain stem is left as it is."""
    for whitening in (module for module in model.modules() if isinstance(module, Whitening)):
        covariance, patches = torch.zeros(12, 12, dtype=torch.float64), 0
        for start in range(0, len(images), 500):
            flat = (
                F.unfold(images[start : start + 500].float(), 2).transpose(0, 1).reshape(12, -1)
            )  # [3 x 2 x 2, patches]
            covariance += (flat @ flat.T).cpu().double()
            patches += flat.shape[1]
        values, vectors = torch.linalg.eigh(covariance / patches)
        kernel = (vectors / (values + LEAST_VARIANCE).sqrt()).T.flip(0).reshape(12, 3, 2, 2)  # largest eigenvalue first
        whitening.weight.copy_(torch.cat((kernel, -kernel)))
