"""What a network of the family costs: its parameters and MACs in closed form, and the budget; nothing is built."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tpsnet_lib.config import IMAGE_SIZE, PARAMETER_BUDGET, ModelConfig, RunConfig
from tpsnet_lib.errors import ConfigError, brief

FLOPS_PER_MAC = 6  # a multiplication and an addition, once forward and twice backward (to the inputs, to the weights)


@dataclass(frozen=True)
class LayerRow:
    """A layer of a network: its kind, the shape of its output (C, H, W) and its costs."""

    name: str
    kind: str
    shape: tuple[int, int, int]
    parameters: int
    macs: int


def layer_costs(config: ModelConfig) -> list[LayerRow]:
    """A row for the stem, each layer and the head, in closed form: nothing is built.

    Parameters are the tensors that inference needs: a batch norm is two numbers a channel, for its running mean and
    variance fold into its scale and shift, and a frozen kernel counts. MACs are the multiplications of convolutions
    and linear layers in the forward pass of one image. Raises `ConfigError` for what is no config, as a module."""
    if not isinstance(config, ModelConfig):
        raise ConfigError(f"{brief(config)} is no config of a network: give one, such as MEMBERS['tpsnet']")
    rows = [_stem_row(config)]
    for layer, inputs in enumerate((config.stem, *config.channels[:-1])):
        rows.append(_layer_row(config, layer, inputs, side=rows[-1].shape[1]))
    width = config.channels[-1]
    normed = config.block == "preact"
    vectors = config.classes + (2 * width if normed else 0)  # the bias; the norm before the pool
    kind = f"{'norm, ' if normed else ''}{config.head_pool}-pool {config.pool}, linear"
    return [*rows, _row("head", kind, (config.classes, 1, 1), [(width, config.classes, 1, 1)], vectors)]


def _row(
    name: str, kind: str, shape: tuple[int, int, int], convolutions: Sequence[tuple[int, int, int, int]], vectors: int
) -> LayerRow:
    """`convolutions`: inputs, outputs, kernel, side of the output; `vectors`: parameters of norms and biases."""
    weights = [inputs * outputs * kernel**2 for inputs, outputs, kernel, _ in convolutions]
    macs = sum(weight * side**2 for weight, (*_, side) in zip(weights, convolutions, strict=True))
    return LayerRow(name, kind, shape, sum(weights) + vectors, macs)


def _stem_row(config: ModelConfig) -> LayerRow:
    whitened = config.stem_kind == "whiten"
    kernel, side = (2, IMAGE_SIZE - 1) if whitened else (3, IMAGE_SIZE)
    bias_or_norm = 1 if whitened else 0 if config.block == "preact" else 2  # parameters a channel
    kind = "whitening conv 2x2" if whitened else "conv 3x3"
    shape = (config.stem, side, side)
    return _row("stem", kind, shape, [(config.colours, config.stem, kernel, side)], bias_or_norm * config.stem)


def _layer_row(config: ModelConfig, layer: int, inputs: int, side: int) -> LayerRow:
    outputs, kernel, blocks = config.channels[layer], config.kernel(layer), config.blocks[layer]
    convolutions, normed = [], 0  # normed: channels of all its batch norms
    strided = config.downsample == "stride" and layer > 0
    kind = f"{blocks} {config.block} block{'s' if blocks > 1 else ''}"
    kind += "" if config.own_block else f" {kernel}x{kernel}"
    if config.downsample == "pool":
        convolutions.append((inputs, outputs, kernel, side))
        normed += outputs
        inputs, side, kind = outputs, side // 2, f"conv {kernel}x{kernel}, max-pool 2, {kind}"
    if strided:
        side = (side + 1) // 2
    if config.own_block:
        row = _row(f"layer {layer + 1}", kind, (outputs, side, side), convolutions, 2 * normed)
        return _with_own_blocks(row, config, inputs, blocks, 2 if strided else 1)
    for source in (inputs, *[outputs] * (blocks - 1)):
        convolutions += [(source, outputs, kernel, side), (outputs, outputs, kernel, side)]
        normed += outputs + (source if config.block == "preact" else outputs)
    if config.residual and (strided or inputs != outputs):
        convolutions.append((inputs, outputs, config.skip_kernel(layer), side))
        normed += outputs
    vectors = 2 * normed
    if config.squeeze:
        hidden = config.squeezed(outputs)
        convolutions += blocks * [(outputs, hidden, 1, 1), (hidden, outputs, 1, 1)]
        vectors += blocks * (hidden + outputs)
        kind += ", SE"
    return _row(f"layer {layer + 1}", kind, (outputs, side, side), convolutions, vectors)


def _with_own_blocks(row: LayerRow, config: ModelConfig, inputs: int, blocks: int, stride: int) -> LayerRow:
    """The row of a layer with its blocks, which are of a class of one's own; the first has the stride."""
    from tpsnet_lib.own_blocks import cost_of_block  # which needs torch

    outputs, side, _ = row.shape
    first_block = cost_of_block(config.block, inputs, outputs, stride, side * stride)
    later_block = cost_of_block(config.block, outputs, outputs, 1, side)
    parameters, macs = (first + (blocks - 1) * later for first, later in zip(first_block, later_block, strict=True))
    return replace(row, parameters=row.parameters + parameters, macs=row.macs + macs)


def count_parameters(config: ModelConfig) -> int:
    """Parameters of a config's network, in closed form; see `layer_costs` for what counts."""
    return sum(row.parameters for row in layer_costs(config))


def count_macs(config: ModelConfig) -> int:
    """Multiply-accumulates of one image's forward pass, in closed form; see `layer_costs` for what counts."""
    return sum(row.macs for row in layer_costs(config))


def check_budget(config: ModelConfig, budget: int = PARAMETER_BUDGET) -> None:
    """Raise `ConfigError` with the count if a config's network is over a budget of parameters; nothing is built."""
    count = count_parameters(config)
    if count > budget:
        smaller = "a block with fewer parameters" if config.own_block else "smaller kernels"
        raise ConfigError(
            f"this network has {count:,} parameters, {count - budget:,} over the budget of {budget:,}:"
            f" take fewer blocks or channels, or {smaller}"
        )


def training_flops(config: RunConfig, images: float) -> float:
    """Floating-point operations of training on a number of images (an image counts each time it is shown, a copy too);
    smaller ones, of the first epochs, count by their area. ASAM doubles them; a teacher's are not among them."""
    recipe = config.train
    small = min(1.0, recipe.small_epochs / recipe.epochs)
    area = (recipe.small_size / IMAGE_SIZE) ** 2
    return FLOPS_PER_MAC * count_macs(config.model) * images * (1 - small * (1 - area)) * (2 if recipe.asam else 1)
