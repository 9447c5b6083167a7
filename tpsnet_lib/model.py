"""The residual family over (N, B, C, F, K, P)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tpsnet_lib.config import CLASSES, PARAMETER_BUDGET, ModelConfig
from tpsnet_lib.fast_cpu.layers import (
    ACTIVATIONS,
    POOLS,
    Chain,
    Dropout,
    DropPath,
    MaxPool,
    Pointwise,
    SqueezeExcite,
    Whitening,
    convolution,
    normed,
    twin,
)
from tpsnet_lib.model_cost import check_budget


class Block(nn.Module):
    """x + F(x): conv-BN-ReLU-conv-BN, then the skip is added, then ReLU (He et al. 2015, arXiv 1512.03385)."""

    def __init__(self, config: ModelConfig, layer: int, inputs: int, stride: int = 1, number: int = 1) -> None:
        super().__init__()
        outputs, kernel = config.channels[layer], config.kernel(layer)
        self.conv1 = convolution(inputs, outputs, kernel, stride)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = convolution(outputs, outputs, kernel)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.activation = ACTIVATIONS[config.activation]()
        self.dropout = Dropout(config.block_dropout)
        self.branch = _branch(config, outputs, number)
        self.projects = config.residual and (inputs != outputs or stride > 1)
        self.projection = _projection(config, layer, inputs, stride) if self.projects else nn.Identity()
        self.residual = config.residual

    def forward(self, x: Tensor) -> Tensor:
        out = normed(self.conv1(x), self.norm1, self.activation)
        out = self.conv2(self.dropout(out))
        skip = self.projection(twin(x)) if self.residual else None
        if len(self.branch) == 0:
            return normed(out, self.norm2, self.activation, skip)
        branch: Tensor = self.branch(normed(out, self.norm2))
        total: Tensor = self.activation(branch if skip is None else branch + skip)
        return total


class PreactBlock(Block):
    """x + F(x) with the order turned round, BN-ReLU-conv twice, so that nothing stands on the path of the skips
    (He et al. 2016, arXiv 1603.05027)."""

    def __init__(self, config: ModelConfig, layer: int, inputs: int, stride: int = 1, number: int = 1) -> None:
        super().__init__(config, layer, inputs, stride, number)
        self.norm1 = nn.BatchNorm2d(inputs)

    def forward(self, x: Tensor) -> Tensor:
        active = normed(x, self.norm1, self.activation)
        out = normed(self.conv1(active), self.norm2, self.activation)
        branch: Tensor = self.branch(self.conv2(self.dropout(out)))
        return branch + self.projection(twin(active) if self.projects else x) if self.residual else branch


BLOCKS: dict[str, type[Block]] = {"basic": Block, "preact": PreactBlock}


class ResidualNetwork(nn.Module):
    """A member of the family: a stem, N layers of blocks, a pool, and a linear classifier of 10 classes."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        inputs = (config.stem, *config.channels)
        self.stem = _stem(config)
        self.layers = nn.Sequential(*(_layer(config, layer, inputs[layer]) for layer in range(len(config.blocks))))
        self.final = Chain(*_norm_activation(config, inputs[-1]) if config.block == "preact" else ())
        self.dropout = Dropout(config.dropout)
        self.head = nn.Linear(inputs[-1], CLASSES)
        _initialise(self, config.init)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, 10], float32, of normalised images [B, 3, 32, 32] (or smaller)."""
        logits: Tensor = self.head(self.dropout(self.features(images)))
        return logits.float() * self.config.logit_scale

    def features(self, images: Tensor) -> Tensor:
        """What the classifier sees [B, C_N]: the feature maps, pooled by P, and the mean of what is left. Where the
        maps of smaller images are less than P wide, the pool covers the whole map."""
        maps = self.feature_maps(images)
        pooled = POOLS[self.config.head_pool](maps, min(self.config.pool, maps.shape[-1]))
        return pooled.mean((2, 3))

    def feature_maps(self, images: Tensor) -> Tensor:
        """The output of the last layer [B, C_N, h, w]."""
        maps: Tensor = self.final(self.layers(self.stem(images)))
        return maps


def build(config: ModelConfig, budget: int | None = PARAMETER_BUDGET) -> ResidualNetwork:
    """The network of a config, with fresh weights from torch's global generator.

    One that is over the budget is a `ConfigError`, before anything is allocated; a budget of `None` lifts it."""
    if budget is not None:
        check_budget(config, budget)
    return ResidualNetwork(config)


@torch.no_grad()
def whiten(model: ResidualNetwork, images: Tensor, eps: float = 5e-4) -> None:
    """Set the frozen kernel of a whitened stem so that its outputs are uncorrelated 2x2 patches of unit variance:
    the 12 eigenvectors of the patches' covariance, each over sqrt(eigenvalue + eps), and their negatives.

    `images`: normalised training images [N, 3, 32, 32]; some thousands are enough. A plain stem is left as it is.
    Frozen patch whitening as in Jordan 2024 (arXiv 2404.00498)."""
    if model.config.stem_kind != "whiten":
        return
    covariance, patches = torch.zeros(12, 12, dtype=torch.float64), 0
    for start in range(0, len(images), 500):
        flat = F.unfold(images[start : start + 500].float(), 2).transpose(0, 1).reshape(12, -1)  # [3 x 2 x 2, patches]
        covariance += (flat @ flat.T).cpu().double()
        patches += flat.shape[1]
    values, vectors = torch.linalg.eigh(covariance / patches)
    kernel = (vectors / (values + eps).sqrt()).T.flip(0).reshape(12, 3, 2, 2)  # largest eigenvalue first
    model.get_parameter("stem.0.weight").copy_(torch.cat((kernel, -kernel)))


def _branch(config: ModelConfig, channels: int, number: int) -> nn.Sequential:
    """What a block's branch passes last: squeeze-and-excitation; stochastic depth, at a rate that grows with the
    block's number (counted from 1 through the network) up to `drop_path`."""
    parts: list[nn.Module] = []
    if config.squeeze:
        parts.append(SqueezeExcite(channels, config.squeezed(channels)))
    if config.drop_path:
        parts.append(DropPath(config.drop_path * number / sum(config.blocks)))
    return nn.Sequential(*parts)


def _norm_activation(config: ModelConfig, channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(channels), ACTIVATIONS[config.activation]()


def _projection(config: ModelConfig, layer: int, inputs: int, stride: int) -> nn.Sequential:
    outputs, kernel = config.channels[layer], config.skip_kernel(layer)
    shape = Pointwise(inputs, outputs, stride) if kernel == 1 else convolution(inputs, outputs, kernel, stride)
    return Chain(shape, nn.BatchNorm2d(outputs))


def _stem(config: ModelConfig) -> nn.Sequential:
    if config.stem_kind == "whiten":
        return nn.Sequential(Whitening(config.stem), ACTIVATIONS[config.activation]())
    first = convolution(3, config.stem, 3)
    if config.block == "preact":  # the first block brings its own norm
        return nn.Sequential(first)
    return Chain(first, *_norm_activation(config, config.stem))


def _layer(config: ModelConfig, layer: int, inputs: int) -> nn.Sequential:
    """B_i blocks; what changes the shape is the first block ('stride'), or a convolution and a max-pool ('pool')."""
    block, outputs = BLOCKS[config.block], config.channels[layer]
    stride = 2 if config.downsample == "stride" and layer > 0 else 1
    opening: list[nn.Module] = []
    if config.downsample == "pool":
        opening = [convolution(inputs, outputs, config.kernel(layer)), MaxPool()]
        opening += _norm_activation(config, outputs)
        inputs = outputs
    number = 1 + sum(config.blocks[:layer])
    first = block(config, layer, inputs, stride, number)
    others = (block(config, layer, outputs, 1, number + k) for k in range(1, config.blocks[layer]))
    return Chain(*opening, first, *others)


@torch.no_grad()
def _initialise(network: ResidualNetwork, init: str) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and init == "kaiming":
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(
            module, nn.Conv2d
        ):  # the first channels pass their input on; the others start as torch has them
            nn.init.dirac_(module.weight[: module.in_channels])
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
