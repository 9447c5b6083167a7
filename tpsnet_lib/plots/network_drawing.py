"""A network drawn from its config: any member of the family, and the residual block that it is built from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from tpsnet_lib.config import IMAGE_SIZE, ModelConfig
from tpsnet_lib.files import ConfigError
from tpsnet_lib.model_cost import LayerRow, layer_costs
from tpsnet_lib.plots.style import BLUE, GREEN, INK, MUTED, VERMILION, WIDTH, describe, figure, png, svg

LAYER, SKIP, PROJECTION, OTHER = BLUE, GREEN, VERMILION, "#9AA2AB"
GAP, NARROWEST = 0.04, 0.84  # inches: between two parts; of a layer, so that its text fits
SLOTS = {"image": 0.66, "stem": 0.8, "pool": 0.66, "linear": 0.62}  # widths of the other parts, inches
MIDDLE, TEXT = 1.75, 1.17  # inches from below: of the bars, and the top of the texts
UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
MOST_BLOCKS = 24  # of a layer that are drawn one by one


def draw_network(config: ModelConfig, note: str = "") -> Figure:
    """The stem, each layer with its blocks and skips, the pool and the classifier, from left to right.

    A bar is a block; its height is the side of its feature map. Green arcs are skips that add their input as it is,
    orange ones pass a projection. Texts give channels, sizes, parameters and multiply-accumulates (MACs); a note stands
    under the title."""
    rows = layer_costs(config)
    fig, ax = _canvas(3.1)
    x = GAP
    for name, side, bar in (("image", IMAGE_SIZE, MUTED), ("stem", rows[0].shape[1], OTHER)):
        _bar(ax, x + SLOTS[name] / 2 - 0.17, 0.34, side, bar)
        text = ["3 channels", f"{side} × {side}"] if name == "image" else _lines(rows[0])
        _label(ax, x + SLOTS[name] / 2, [name, *text])
        x += SLOTS[name] + GAP
    room = WIDTH - sum(SLOTS.values()) - GAP * (len(config.blocks) + 5)
    widths = _layer_widths([min(blocks, MOST_BLOCKS) for blocks in config.blocks], room)
    for layer, (row, width) in enumerate(zip(rows[1:-1], widths, strict=True)):
        _layer(ax, x, width, row, config, layer)
        x += width + GAP
    side = max(1, config.last_side // config.pool)
    then = "mean" if side > 1 else ""
    pool = [f"{config.head_pool}-pool", f"{config.pool} × {config.pool}", f"{side} × {side}", then]
    linear = ["linear", "10 logits", "", f"{_count(rows[-1].parameters)} par."]
    for name, height, text in (("pool", side, pool), ("linear", 3, linear)):
        _bar(ax, x + SLOTS[name] / 2 - 0.17, 0.34, height, OTHER)
        _label(ax, x + SLOTS[name] / 2, text)
        x += SLOTS[name] + GAP
    totals = [sum(row.parameters for row in rows), sum(row.macs for row in rows)]
    depth = 2 + 2 * sum(config.blocks) + (len(config.blocks) if config.downsample == "pool" else 0)
    kind = "residual" if config.residual else "plain (no skips)"
    title = f"{kind}, {depth} weight layers deep:\n{totals[0]:,} parameters, {_count(totals[1])} MACs for one image"
    ax.text(GAP, 3.03, title, fontsize=9.5, fontweight="bold", color=INK, va="top")
    ax.text(GAP, 2.7, note, fontsize=8.5, color=MUTED, va="top")
    parts = "; ".join(f"{row.name}: {row.kind}, {' × '.join(map(str, row.shape))}" for row in rows)
    projected = any(_projects(config, layer) for layer in range(len(config.blocks)))
    skips = "; green skips add x" + (", orange ones project it" if projected else "") if config.residual else ""
    caption = f"A bar is a block, the higher the larger its feature map{skips}."
    return describe(fig, caption=caption, alt=f"The network from left to right. {parts}.")


def draw_block(config: ModelConfig, layer: int = 1) -> Figure:
    """The two kinds of block of a layer (counted from 0): the first, whose skip changes the shape, and the others.

    He et al. 2015 (arXiv 1512.03385) for the basic order, 2016 (arXiv 1603.05027) for BN-activation-convolution."""
    fig, ax = _canvas(2.75)
    inputs, outputs = (config.stem, *config.channels)[layer : layer + 2]
    stride = 2 if layer > 0 else 1
    first = f"first block: {inputs} to {outputs} channels, stride {stride}"
    if config.downsample == "pool":
        stride, first = 1, "first block: the shape changes before it"
    _block(ax, 1.5, config, layer, stride, first, config.residual and _projects(config, layer))
    _block(ax, 0.15, config, layer, 1, f"other blocks: {outputs} channels", False)
    caption = "A residual block adds its input x to the correction F(x); a projection stands where the shape changes."
    return describe(
        fig, caption=caption, alt="Two chains of convolutions and norms, each with a skip from x to the sum."
    )


def save_drawing(config: ModelConfig, path: str | Path) -> Path:
    """Write the drawing of a network to a file, as its ending says; `ConfigError` for any ending but .svg and .png."""
    path = Path(path)
    if path.suffix not in (".svg", ".png"):
        raise ConfigError(f"{path} ends in {path.suffix!r}: give a file that ends in .svg or .png")
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = draw_network(config)
    path.write_bytes(png(drawn) if path.suffix == ".png" else svg(drawn).encode("utf-8"))
    return path


def _canvas(height: float) -> tuple[Figure, Any]:
    """Axes in inches, without ticks."""
    fig, ax = figure(height=height)
    ax.set(xlim=(0, WIDTH), ylim=(0, height), aspect="equal")
    ax.set_axis_off()
    return fig, ax


def _layer_widths(blocks: Sequence[int], room: float) -> list[float]:
    """Widths in proportion to the blocks, none so narrow that its text does not fit, all together at most `room`."""
    spare = max(0.0, room - NARROWEST * len(blocks))
    return [NARROWEST + spare * count / sum(blocks) for count in blocks]


def _layer(ax: Any, x: float, width: float, row: LayerRow, config: ModelConfig, layer: int) -> None:
    blocks, side = config.blocks[layer], row.shape[1]
    slots = min(blocks, MOST_BLOCKS)
    pitch = (width - 0.14) / slots
    bar = min(0.3, 0.62 * pitch)
    for slot in range(slots):
        left = x + 0.07 + pitch * slot + (pitch - bar) / 2
        if blocks > MOST_BLOCKS and slot == slots - 2:
            ax.text(left + bar / 2, MIDDLE, "…", ha="center", va="center", color=INK)
            continue
        _bar(ax, left, bar, side, LAYER)
        if config.residual:
            projects = slot == 0 and _projects(config, layer)
            _arc(ax, left + bar / 2, pitch, side, PROJECTION if projects else SKIP)
    kernel, opening = config.kernel(layer), "conv, pool, " if config.downsample == "pool" else ""
    count = f"{opening}{blocks} {'block' if blocks == 1 else 'blocks'}"
    _label(ax, x + width / 2, [f"layer {layer + 1}", count, f"kernel {kernel} × {kernel}", *_lines(row)])


def _projects(config: ModelConfig, layer: int) -> bool:
    """Whether the first block of a layer changes the shape, so that its skip needs a projection."""
    inputs = (config.stem, *config.channels)[layer]
    return config.downsample == "stride" and (layer > 0 or inputs != config.channels[0])


def _lines(row: LayerRow) -> list[str]:
    channels, side, _ = row.shape
    return [f"{channels} channels", f"{side} × {side}", f"{_count(row.parameters)} par.", f"{_count(row.macs)} MACs"]


def _count(number: int) -> str:
    """A count in at most four figures: `2.3 k`, `241 k`, `4.96 M`, `20.6 G`."""
    if number < 1000:
        return str(number)
    scaled, unit = next((number / size, unit) for size, unit in UNITS if number >= 0.9995 * size)
    return f"{scaled:.3g} {unit}" if scaled < 100 else f"{scaled:.0f} {unit}"


def _bar(ax: Any, x: float, width: float, side: int, colour: str) -> None:
    height = 0.25 + 0.75 * side / IMAGE_SIZE
    ax.add_patch(Rectangle((x, MIDDLE - height / 2), width, height, facecolor=colour, edgecolor="none"))


def _arc(ax: Any, x: float, pitch: float, side: int, colour: str) -> None:
    """A skip: from before the bar at `x` over it to behind it."""
    top, half = MIDDLE + (0.25 + 0.75 * side / IMAGE_SIZE) / 2 + 0.02, min(pitch, 0.5) / 2
    shape: dict[str, Any] = {"connectionstyle": "arc3,rad=-0.9", "arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0}
    ends, size = ((x - half, top), (x + half, top)), 4.0 if pitch < 0.2 else 6.0
    ax.add_patch(FancyArrowPatch(*ends, **shape, mutation_scale=size, color=colour, linewidth=1.1))


def _label(ax: Any, x: float, lines: Sequence[str]) -> None:
    for at, line in enumerate(lines):
        weight, colour = ("bold", INK) if at == 0 else ("normal", MUTED)
        ax.text(x, TEXT - 0.15 * at, line, ha="center", va="top", fontsize=8, fontweight=weight, color=colour)


def _block(ax: Any, y: float, config: ModelConfig, layer: int, stride: int, title: str, projects: bool) -> None:
    """One block as a chain of boxes between x and its output, with the skip above it."""
    kernel, skip = config.kernel(layer), config.skip_kernel(layer)
    convolutions = [
        f"conv1\n{kernel} × {kernel}" + (f", /{stride}" if stride > 1 else ""),
        f"conv2\n{kernel} × {kernel}",
    ]
    active = config.activation.upper() if config.activation == "gelu" else "ReLU"
    basic = config.block == "basic"
    steps = [convolutions[0], "norm1", active, convolutions[1], "norm2"]
    if not basic:
        steps = ["norm1", active, convolutions[0], "norm2", active, convolutions[1]]
    ax.text(0.05, y + 1.15, title, fontsize=9, fontweight="bold", color=INK, va="top")
    pitch, middle, left = 0.9, y + 0.3, 0.55
    ax.text(0.3, middle, "$x$", ha="center", va="center", fontsize=11)
    for at, step in enumerate(steps):
        colour = LAYER if step.startswith("conv") else MUTED
        _box(ax, left + pitch * at, middle, step, colour)
        _arrow(ax, (left + pitch * at - (0.14 if at == 0 else 0.2), middle), (left + pitch * at, middle))
    plus = left + pitch * len(steps) + 0.1
    _arrow(ax, (plus - 0.3, middle), (plus - 0.1, middle))
    if config.residual:
        colour, text = (
            (PROJECTION, f"projection {skip} × {skip}, /{stride}, then norm") if projects else (SKIP, "x itself")
        )
        ax.plot([0.36, 0.36, plus, plus], [middle + 0.12, y + 0.78, y + 0.78, middle + 0.1], color=colour, lw=1.6)
        ax.text((0.36 + plus) / 2, y + 0.82, text, ha="center", va="bottom", fontsize=8.5, color=colour)
        ax.text(plus, middle, "+", ha="center", va="center", fontsize=13, fontweight="bold", color=colour)
    if basic:
        _arrow(ax, (plus + 0.1, middle), (plus + 0.3, middle))
        _box(ax, plus + 0.3, middle, active, MUTED)
    result = "x + F(x)" if config.residual else "F(x)"
    ax.text((left + plus) / 2, y - 0.03, f"{result}: F is the chain of boxes", ha="center", fontsize=8.5, color=MUTED)


def _box(ax: Any, x: float, middle: float, text: str, colour: str) -> None:
    ax.add_patch(Rectangle((x, middle - 0.2), 0.7, 0.4, facecolor="none", edgecolor=colour, linewidth=1.3))
    ax.text(x + 0.35, middle, text, ha="center", va="center", fontsize=8, color=INK)


def _arrow(ax: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=7, color=MUTED, shrinkA=0, shrinkB=0))
