"""The residual family over (N, B, C, F, K, P): its networks, their parameters and MACs in closed form, the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tpsnet_lib.config import CLASSES, IMAGE_SIZE, PARAMETER_BUDGET, ModelConfig
from tpsnet_lib.files import ConfigError

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}
POOLS: dict[str, type[nn.Module]] = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}


class Dropout(nn.Dropout):
    """Dropout; on a CPU, where torch draws a number an element, four elements share one: a third of the time.

    There the rate is rounded to a 65,536th, and what is kept is scaled by the rate so rounded: its mean stays."""

    def forward(self, maps: Tensor) -> Tensor:
        """`maps` of any shape; in training each element is 0 with the rate's probability, else scaled up."""
        if not self.training or self.p == 0 or maps.device.type != "cpu":
            return super().forward(maps)
        maps = maps.contiguous(memory_format=torch.channels_last if maps.ndim == 4 else torch.contiguous_format)
        dropped, count = round(self.p * 65536), maps.numel()
        words = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.int16)[:count] >= dropped - 32768
        return maps * kept.to(maps.dtype).mul_(65536 / (65536 - dropped)).as_strided(maps.shape, maps.stride())


class Block(nn.Module):
    """x + F(x): conv-BN-ReLU-conv-BN, then the skip is added, then ReLU (He et al. 2015, arXiv 1512.03385)."""

    def __init__(self, config: ModelConfig, layer: int, inputs: int, stride: int = 1) -> None:
        super().__init__()
        outputs, kernel = config.channels[layer], config.kernel(layer)
        self.conv1 = _convolution(inputs, outputs, kernel, stride)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = _convolution(outputs, outputs, kernel)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.activation = ACTIVATIONS[config.activation]()
        self.dropout = Dropout(config.block_dropout)
        self.projects = config.residual and (inputs != outputs or stride > 1)
        self.projection = _projection(config, layer, inputs, stride) if self.projects else nn.Identity()
        self.residual = config.residual

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(self.dropout(out)))
        out = self.activation(out + self.projection(x) if self.residual else out)
        return out


class PreactBlock(Block):
    """x + F(x) with the order turned round, BN-ReLU-conv twice, so that nothing stands on the path of the skips
    (He et al. 2016, arXiv 1603.05027)."""

    def __init__(self, config: ModelConfig, layer: int, inputs: int, stride: int = 1) -> None:
        super().__init__(config, layer, inputs, stride)
        self.norm1 = nn.BatchNorm2d(inputs)

    def forward(self, x: Tensor) -> Tensor:
        active: Tensor = self.activation(self.norm1(x))
        out: Tensor = self.activation(self.norm2(self.conv1(active)))
        out = self.conv2(self.dropout(out))
        if self.residual:
            out = out + self.projection(active if self.projects else x)
        return out


BLOCKS: dict[str, type[Block]] = {"basic": Block, "preact": PreactBlock}


class ResidualNetwork(nn.Module):
    """A member of the family: a stem, N layers of blocks, a pool, and a linear classifier of 10 classes."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        inputs = (config.stem, *config.channels)
        self.stem = _stem(config)
        self.layers = nn.Sequential(*(_layer(config, layer, inputs[layer]) for layer in range(len(config.blocks))))
        self.final = nn.Sequential(*_norm_activation(config, inputs[-1]) if config.block == "preact" else ())
        self.pool = POOLS[config.head_pool](config.pool)
        self.dropout = Dropout(config.dropout)
        self.head = nn.Linear(inputs[-1], CLASSES)
        _initialise(self, config.init)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, 10], float32, of normalised images [B, 3, 32, 32]."""
        logits: Tensor = self.head(self.dropout(self.features(images)))
        return logits.float() * self.config.logit_scale

    def features(self, images: Tensor) -> Tensor:
        """What the classifier sees [B, C_N]: the feature maps, pooled by P, and the mean of what is left."""
        pooled: Tensor = self.pool(self.feature_maps(images))
        return pooled.mean((2, 3))

    def feature_maps(self, images: Tensor) -> Tensor:
        """The output of the last layer [B, C_N, h, w]."""
        maps: Tensor = self.final(self.layers(self.stem(images)))
        return maps


def check_budget(config: ModelConfig, budget: int = PARAMETER_BUDGET) -> None:
    """Raise `ConfigError` with the count if a config's network is over a budget of parameters; nothing is built."""
    count = count_parameters(config)
    if count > budget:
        raise ConfigError(
            f"this network has {count:,} parameters, {count - budget:,} over the budget of {budget:,}:"
            " take fewer model.blocks or model.channels"
        )


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


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def _norm_activation(config: ModelConfig, channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(channels), ACTIVATIONS[config.activation]()


class Pointwise(nn.Conv2d):
    """A 1x1 convolution with a stride, as the stride of its input: the same sums.

    oneDNN's own backward pass of a strided 1x1 convolution corrupts memory at some small widths (torch 2.15, CPU)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, 1, bias=False)
        self.step = stride

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self._conv_forward(x[:, :, :: self.step, :: self.step], self.weight, None)
        return out


def _projection(config: ModelConfig, layer: int, inputs: int, stride: int) -> nn.Sequential:
    outputs, kernel = config.channels[layer], config.skip_kernel(layer)
    convolution = Pointwise(inputs, outputs, stride) if kernel == 1 else _convolution(inputs, outputs, kernel, stride)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class Whitening(nn.Conv2d):
    """A 2x2 convolution whose kernel `whiten` sets and nothing trains; its bias is trained.

    The bias is added apart: a backward pass for the bias alone is the one that oneDNN has no fast way for."""

    def __init__(self, outputs: int) -> None:
        super().__init__(3, outputs, 2)
        self.weight.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self._conv_forward(images, self.weight, None)
        assert self.bias is not None
        return out + self.bias.to(out.dtype)[:, None, None]


def _stem(config: ModelConfig) -> nn.Sequential:
    if config.stem_kind == "whiten":
        return nn.Sequential(Whitening(config.stem), ACTIVATIONS[config.activation]())
    convolution = _convolution(3, config.stem, 3)
    if config.block == "preact":  # the first block brings its own norm
        return nn.Sequential(convolution)
    return nn.Sequential(convolution, *_norm_activation(config, config.stem))


def _layer(config: ModelConfig, layer: int, inputs: int) -> nn.Sequential:
    """B_i blocks; what changes the shape is the first block ('stride'), or a convolution and a max-pool ('pool')."""
    block, outputs = BLOCKS[config.block], config.channels[layer]
    stride = 2 if config.downsample == "stride" and layer > 0 else 1
    opening: list[nn.Module] = []
    if config.downsample == "pool":
        opening = [_convolution(inputs, outputs, config.kernel(layer)), nn.MaxPool2d(2)]
        opening += _norm_activation(config, outputs)
        inputs = outputs
    first = block(config, layer, inputs, stride)
    return nn.Sequential(*opening, first, *(block(config, layer, outputs) for _ in range(config.blocks[layer] - 1)))


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


@dataclass(frozen=True)
class LayerRow:
    """One line of a network's description: what it is, what comes out (C, H, W), what it costs."""

    name: str
    kind: str
    shape: tuple[int, int, int]
    parameters: int
    macs: int


def describe(config: ModelConfig) -> list[LayerRow]:
    """A row for the stem, each layer and the head, in closed form: nothing is built.

    Parameters are the tensors that inference needs: a batch norm is two numbers a channel, for its running mean and
    variance fold into its scale and shift, and a frozen kernel counts. MACs are the multiplications of convolutions
    and linear layers in the forward pass of one image."""
    rows = [_stem_row(config)]
    for layer, inputs in enumerate((config.stem, *config.channels[:-1])):
        rows.append(_layer_row(config, layer, inputs, side=rows[-1].shape[1]))
    width = config.channels[-1]
    others = CLASSES + (2 * width if config.block == "preact" else 0)  # the bias; the norm before the pool
    kind = f"{config.head_pool}-pool {config.pool}, linear"
    return [*rows, _row("head", kind, (CLASSES, 1, 1), [(width, CLASSES, 1, 1)], others)]


def _row(
    name: str, kind: str, shape: tuple[int, int, int], convolutions: Sequence[tuple[int, int, int, int]], others: int
) -> LayerRow:
    """`convolutions`: inputs, outputs, kernel, side of the output; `others`: parameters of norms and biases."""
    weights = [inputs * outputs * kernel**2 for inputs, outputs, kernel, _ in convolutions]
    macs = sum(weight * side**2 for weight, (*_, side) in zip(weights, convolutions, strict=True))
    return LayerRow(name, kind, shape, sum(weights) + others, macs)


def _stem_row(config: ModelConfig) -> LayerRow:
    whitened = config.stem_kind == "whiten"
    kernel, side = (2, IMAGE_SIZE - 1) if whitened else (3, IMAGE_SIZE)
    bias_or_norm = 1 if whitened else 0 if config.block == "preact" else 2  # parameters a channel
    kind = "whitening conv 2x2" if whitened else "conv 3x3"
    shape = (config.stem, side, side)
    return _row("stem", kind, shape, [(3, config.stem, kernel, side)], bias_or_norm * config.stem)


def _layer_row(config: ModelConfig, layer: int, inputs: int, side: int) -> LayerRow:
    outputs, kernel, blocks = config.channels[layer], config.kernel(layer), config.blocks[layer]
    convolutions, normed = [], 0  # normed: channels of all its batch norms
    strided = config.downsample == "stride" and layer > 0
    kind = f"{blocks} {config.block} block{'s' if blocks > 1 else ''} {kernel}x{kernel}"
    if config.downsample == "pool":
        convolutions.append((inputs, outputs, kernel, side))
        normed += outputs
        inputs, side, kind = outputs, side // 2, f"conv {kernel}x{kernel}, max-pool 2, {kind}"
    if strided:
        side = (side + 1) // 2
    for source in (inputs, *[outputs] * (blocks - 1)):
        convolutions += [(source, outputs, kernel, side), (outputs, outputs, kernel, side)]
        normed += outputs + (source if config.block == "preact" else outputs)
    if config.residual and (strided or inputs != outputs):
        convolutions.append((inputs, outputs, config.skip_kernel(layer), side))
        normed += outputs
    return _row(f"layer {layer + 1}", kind, (outputs, side, side), convolutions, 2 * normed)


def count_parameters(config: ModelConfig) -> int:
    """Parameters of a config's network, in closed form; see `describe` for what counts."""
    return sum(row.parameters for row in describe(config))


def count_macs(config: ModelConfig) -> int:
    """Multiply-accumulates of one image's forward pass, in closed form; see `describe` for what counts."""
    return sum(row.macs for row in describe(config))


def widest(
    blocks: Sequence[int], *, parameters: int | None = None, macs: int | None = None, **fields: Any
) -> ModelConfig:
    """The widest member of given depth under a budget of parameters, of MACs, or of both, for comparisons at equal
    cost. Its width w is the stem's and doubles with each layer (C_i = w 2^i, the original's k = 2); the pool shrinks
    to fit. `fields` are those of `ModelConfig`; they win, so `stem=24` keeps a whitened stem.

    Raises `ConfigError` if no budget is given, or if w = 1 is over it."""
    if parameters is None and macs is None:
        raise ConfigError("widest() has no budget: give parameters=... or macs=...")
    best = None
    for width in range(1, 1 + min(1024, 4096 >> len(blocks))):
        channels = tuple(width << layer for layer in range(1, 1 + len(blocks)))
        member: dict[str, Any] = {"stem": width, "pool": 1, **fields, "blocks": tuple(blocks), "channels": channels}
        config = ModelConfig(**member)
        if parameters is not None and count_parameters(config) > parameters:
            break
        if macs is not None and count_macs(config) > macs:
            break
        best = config
    if best is None:
        raise ConfigError(f"no network of {list(blocks)} blocks fits {parameters=} and {macs=}: take fewer blocks")
    return best if "pool" in fields else replace(best, pool=min(ModelConfig().pool, best.last_side))
