"""The residual family in plain PyTorch: a stem, N layers of B_i blocks of C_i channels, a pool, a linear classifier.

Its design variables are the fields of `config.ModelConfig`; what a network costs is in `model_cost`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tpsnet_lib.config import PARAMETER_BUDGET, ModelConfig
from tpsnet_lib.model_cost import check_budget
from tpsnet_lib.own_blocks import find_block, initialise_own
from tpsnet_lib.pointwise import exchange_pointwise
from tpsnet_lib.whitening import Whitening

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


class Block(nn.Module):
    """The basic block of He et al. 2015 (arXiv 1512.03385): ReLU(x + F(x)), where F is conv-BN-ReLU-conv-BN.

    A config may ask for another activation. It maps [B, inputs, H, W] to [B, C_i, H / stride, W / stride]; `drop_path`
    is its rate of stochastic depth."""

    norm_first = False

    def __init__(self, config: ModelConfig, layer: int, inputs: int, stride: int = 1, drop_path: float = 0.0) -> None:
        super().__init__()
        channels, kernel = config.channels[layer], config.kernel(layer)
        self.conv1 = convolution(inputs, channels, kernel, stride)
        self.norm1 = nn.BatchNorm2d(inputs if self.norm_first else channels)
        self.conv2 = convolution(channels, channels, kernel)
        self.norm2 = nn.BatchNorm2d(channels)
        self.activation = ACTIVATIONS[config.activation]()
        self.dropout = nn.Dropout(config.block_dropout)
        squeeze = [SqueezeExcite(channels, config.squeezed(channels))] if config.squeeze else []
        self.branch = nn.Sequential(*squeeze, *([DropPath(drop_path)] if drop_path else []))  # what F ends with, if any
        self.residual = config.residual
        self.projects = config.residual and (inputs != channels or stride > 1)  # where x and F(x) differ in shape
        self.projection: nn.Module = nn.Identity()
        if self.projects:
            skip = convolution(inputs, channels, config.skip_kernel(layer), stride)
            self.projection = nn.Sequential(skip, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        out = self.activation(self.norm1(self.conv1(x)))
        out = self.branch(self.norm2(self.conv2(self.dropout(out))))
        if self.residual:
            out = out + self.projection(x)
        return self.activation(out)


class PreactBlock(Block):
    """The pre-activation block of He et al. 2016 (arXiv 1603.05027): x + F(x), where F is BN-ReLU-conv twice."""

    norm_first = True

    def forward(self, x: Tensor) -> Tensor:
        active = self.activation(self.norm1(x))
        out = self.activation(self.norm2(self.conv1(active)))
        out = self.branch(self.conv2(self.dropout(out)))
        if self.residual:
            out = out + self.projection(active if self.projects else x)
        return out


class ResNet(nn.Module):
    """A member of the family. Normalised images [B, 3, 32, 32], or smaller ones, give logits [B, classes]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        widths = (config.stem, *config.channels)  # channels that each layer gets, and those that the last one gives
        self.stem = make_stem(config)
        self.layers = nn.Sequential(*(make_layer(config, layer, widths[layer]) for layer in range(len(config.blocks))))
        self.final = nn.Sequential(*(norm_activation(config, widths[-1]) if config.block == "preact" else ()))
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(widths[-1], config.classes)
        initialise(self, config.init)
        exchange_pointwise(self)  # strided 1x1 convolutions, which oneDNN gets wrong

    def forward(self, images: Tensor) -> Tensor:
        logits = self.head(self.dropout(self.features(images)))
        return logits.float() * self.config.logit_scale

    def features(self, images: Tensor) -> Tensor:
        """The classifier's input [B, C_N]: the feature maps, pooled by P (or whole, if they are smaller), averaged."""
        maps = self.feature_maps(images)
        pool = F.max_pool2d if self.config.head_pool == "max" else F.avg_pool2d
        return pool(maps, min(self.config.pool, maps.shape[-1])).mean((2, 3))

    def feature_maps(self, images: Tensor) -> Tensor:
        """The output of the last layer [B, C_N, h, w]."""
        return self.final(self.layers(self.stem(images)))


def build(config: ModelConfig, budget: int | None = PARAMETER_BUDGET) -> ResNet:
    """The network of a config, with first weights from torch's global generator.

    A network over the budget of parameters is a `ConfigError` before anything is allocated; `None` lifts it."""
    if budget is not None:
        check_budget(config, budget)
    return ResNet(config)


def make_stem(config: ModelConfig) -> nn.Sequential:
    """Images [B, colours, H, W] to maps [B, stem, H, W] by a 3x3 convolution, or a side 1 smaller by a whitened 2x2."""
    if config.stem_kind == "whiten":
        return nn.Sequential(Whitening(config.stem), ACTIVATIONS[config.activation]())
    first = convolution(config.colours, config.stem, 3)
    return nn.Sequential(first, *(norm_activation(config, config.stem) if config.block != "preact" else ()))


def make_layer(config: ModelConfig, layer: int, inputs: int) -> nn.Sequential:
    """B_i blocks. The first one's stride halves the maps, but in layer 0; or a max-pool before it does."""
    modules, channels = nn.Sequential(), config.channels[layer]
    block = PreactBlock if config.block == "preact" else Block
    stride = 2 if config.downsample == "stride" and layer > 0 else 1
    if config.downsample == "pool":
        opening = convolution(inputs, channels, config.kernel(layer)), nn.MaxPool2d(2)
        modules.extend((*opening, *norm_activation(config, channels)))
        inputs = channels
    before = sum(config.blocks[:layer])  # blocks of the layers before this one
    for number in range(before + 1, before + config.blocks[layer] + 1):
        if config.own_block:
            modules.append(find_block(config.block)(inputs, channels, stride))
        else:
            drop_path = config.drop_path * number / sum(config.blocks)  # grows from block to block
            modules.append(block(config, layer, inputs, stride, drop_path))
        inputs, stride = channels, 1
    return modules


def norm_activation(config: ModelConfig, channels: int) -> tuple[nn.Module, nn.Module]:
    """A batch norm and the activation of the config."""
    return nn.BatchNorm2d(channels), ACTIVATIONS[config.activation]()


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the side of a map, except for its stride."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class SqueezeExcite(nn.Module):
    """Channels [B, C, H, W] scaled by numbers in (0, 1) made of their means (Hu et al. 2018, arXiv 1709.01507)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.expand(self.reduce(x.mean((2, 3))).relu()).sigmoid()[:, :, None, None]


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016, arXiv 1603.09382): in training, whole branches [B, C, H, W] are dropped."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.rate
        return x * (kept.to(x.dtype) / (1 - self.rate))  # scaled up, so that the mean stays


@torch.no_grad()
def initialise(network: nn.Module, init: str) -> None:
    """`kaiming` (arXiv 1502.01852), or `dirac`: the first channels pass their input on, the rest are torch's own.

    Then a block of one's own that has a method `initialise` sets its weights itself."""
    for conv in (module for module in network.modules() if isinstance(module, nn.Conv2d)):
        if init == "kaiming":
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        else:
            nn.init.dirac_(conv.weight[: conv.in_channels])
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
    initialise_own(network)
