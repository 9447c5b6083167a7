"""A network drawn from its config: any member of the family, and the residual block that it is built from."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from tpsnet_lib.config import IMAGE_SIZE, ModelConfig
from tpsnet_lib.errors import ConfigError
from tpsnet_lib.model_cost import LayerRow, layer_costs
from tpsnet_lib.plots.phone import PHONE
from tpsnet_lib.plots.style import BLUE, GREEN, INK, MUTED, VERMILION, WIDTH, describe, figure, png, svg
from tpsnet_lib.whole_files import write_whole

LAYER, SKIP, PROJECTION, OTHER = BLUE, GREEN, VERMILION, "#9AA2AB"
GAP, NARROWEST = 0.04, 0.84  # inches: between two parts; of a layer, so that its text fits
Part = str | int  # of a drawing: one of `SLOTS`, or the number of a layer
SLOTS: dict[Part, float] = {"image": 0.66, "stem": 0.8, "pool": 0.66, "linear": 0.62}  # widths in inches
MIDDLE, TEXT = 1.75, 1.17  # inches from below: of the bars, and the top of the texts
UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
MOST_BLOCKS = 24  # of a layer that are drawn one by one


def draw_network(config: ModelConfig, note: str = "") -> Figure:
    """The stem, each layer with its blocks and skips, the pool and the classifier, from left to right.

    A bar is a block, taller for a larger feature map. Green arcs are skips that add their input as it is,
    orange ones pass a projection. Texts give channels, sizes, parameters and multiply-accumulates (MACs); a note stands
    under the title."""
    rows = layer_costs(config)
    totals = [sum(row.parameters for row in rows), sum(row.macs for row in rows)]
    projections = sum(_skips(config) and _projects(config, layer) for layer in range(len(config.blocks)))
    depth = 2 + 2 * sum(config.blocks) + (len(config.blocks) if config.downsample == "pool" else projections)
    kind = f"{'residual' if config.residual else 'plain (no skips)'}, {depth} convolutions and linear maps"
    kind += f", stochastic depth up to {config.drop_path:g}" if config.drop_path else ""
    if config.own_block:
        kind = "blocks of one's own"
    title = f"{kind}:\n{totals[0]:,} parameters, {_count(totals[1])} MACs for one image"

    def draw(width: float) -> Figure:
        lines = _in_lines(["image", "stem", *range(len(config.blocks)), "pool", "linear"], width)
        fig, axes = _canvas([2.6] * len(lines), width, top=0.5)
        for ax, line in zip(axes, lines, strict=True):
            _line(ax, line, width, config, rows)
        words = title if width == WIDTH else re.sub("(parameters|maps), ", r"\1,\n", title)
        axes[0].text(GAP, 3.08, words, fontsize=9.5, fontweight="bold", color=INK, va="top")
        axes[0].text(GAP, 2.7, note if width == WIDTH else "", fontsize=8.5, color=MUTED, va="top")
        return fig

    parts = "; ".join(f"{row.name}: {row.kind}, {' × '.join(map(str, row.shape))}" for row in rows)
    projected = any(_projects(config, layer) for layer in range(len(config.blocks)))
    skips = "; green skips add x" + (", orange ones project it" if projected else "") if _skips(config) else ""
    largest = max(rows, key=lambda row: row.parameters)
    caption = f"A bar is a block, taller for a larger feature map{skips}."
    caption += f" {largest.name.capitalize()} holds {largest.parameters / totals[0]:.0%} of the parameters."
    alt = f"The network from left to right. {parts}."
    return describe(draw(WIDTH), caption=caption, alt=alt, phone=lambda: draw(PHONE))


def _in_lines(parts: Sequence[Part], width: float) -> list[list[Part]]:
    """The parts in order: in one line at the full width, else in as few as the width allows."""
    lines: list[list[Part]] = [[]]
    for part in parts:
        if sum(SLOTS.get(each, NARROWEST) + GAP for each in [*lines[-1], part]) + GAP > width and width < WIDTH:
            lines.append([])
        lines[-1].append(part)
    return lines


def _line(ax: Any, parts: Sequence[Part], width: float, config: ModelConfig, rows: Sequence[LayerRow]) -> None:
    """Draw some parts from left to right; layers share the room that the others leave, by their blocks."""
    side = max(1, config.last_side // config.pool)
    mean = "mean" if side > 1 else ""
    pool = [f"{config.head_pool}-pool", f"{config.pool} × {config.pool}", f"{side} × {side}", mean]
    norm = 0  # parameters of the norm before the pool
    if config.block == "preact":
        norm = 2 * config.channels[-1]
        pool = [pool[0], "after norm", *filter(None, pool[1:]), f"{_count(norm)} par."]
    colours = f"{config.colours} channels" if config.colours > 1 else "1 channel"
    ends = {
        "image": (IMAGE_SIZE, ["image", colours, f"{IMAGE_SIZE} × {IMAGE_SIZE}"], MUTED),
        "stem": (rows[0].shape[1], ["stem", *_lines(rows[0])], OTHER),
        "pool": (side, pool, OTHER),
        "linear": (3, ["linear", f"{config.classes} classes", "", f"{_count(rows[-1].parameters - norm)} par."], OTHER),
    }
    room = width - GAP * (len(parts) + 1) - sum(SLOTS.get(part, 0) for part in parts)
    layers = [part for part in parts if isinstance(part, int)]
    widths = _layer_widths([min(config.blocks[layer], MOST_BLOCKS) for layer in layers], room)
    slots: dict[Part, float] = SLOTS | dict[Part, float](zip(layers, widths, strict=True))
    x = GAP
    for part in parts:
        if isinstance(part, int):
            _layer(ax, x, slots[part], rows[part + 1], config, part)
        else:
            height, text, colour = ends[part]
            _bar(ax, x + slots[part] / 2 - 0.17, 0.34, height, colour)
            _label(ax, x + slots[part] / 2, text)
        x += slots[part] + GAP


def draw_block(config: ModelConfig) -> Figure:
    """The two kinds of block of the second layer (or the only one): the first, whose skip changes the shape, and the
    others; `ConfigError` for blocks of one's own.

    He et al. 2015 (arXiv 1512.03385) for the basic order, 2016 (arXiv 1603.05027) for BN-activation-convolution."""
    if config.own_block:
        raise ConfigError("a block of one's own is not drawn: its class says what it computes")
    layer = min(1, len(config.blocks) - 1)
    inputs, outputs = (config.stem, *config.channels)[layer : layer + 2]
    stride = 1 + layer
    first = f"first block: {inputs} to {outputs} channels, stride {stride}"
    if config.downsample == "pool":
        stride, first = 1, "first block: the shape changes before it"

    def draw(width: float) -> Figure:
        fig, axes = _canvas([1.35, 1.35], width)
        _block(axes[0], config, layer, stride, first, config.residual and _projects(config, layer), width)
        _block(axes[1], config, layer, 1, f"other blocks: {outputs} channels", False, width)
        return fig

    caption = "A residual block adds its input x to the correction F(x); a projection stands where the shape changes."
    alt = "Two chains of convolutions and norms, each with a skip from x to the sum."
    return describe(draw(WIDTH), caption=caption, alt=alt, phone=lambda: draw(PHONE))


def save_drawing(config: ModelConfig, path: str | Path) -> Path:
    """Write the drawing of a network to a file, as its ending says; `ConfigError` for any ending but .svg and .png."""
    path = Path(path)
    if path.suffix not in (".svg", ".png"):
        raise ConfigError(f"{path} ends in {path.suffix!r}: give a file that ends in .svg or .png")
    drawn = draw_network(config)
    write_whole(path, png(drawn) if path.suffix == ".png" else svg(drawn))
    return path


def _canvas(heights: Sequence[float], width: float, top: float = 0) -> tuple[Figure, Any]:
    """Axes in inches, without ticks, below each other; the first is higher by `top`."""
    sizes = [heights[0] + top, *heights[1:]]
    fig, axes = figure(len(sizes), height=sum(sizes), width=width, squeeze=False, height_ratios=sizes)
    for ax, height in zip(axes[:, 0], sizes, strict=True):
        ax.set(xlim=(0, width), ylim=(0, height), aspect="equal")
        ax.set_axis_off()
    return fig, axes[:, 0]


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
        if _skips(config):
            projects = slot == 0 and _projects(config, layer)
            _arc(ax, left + bar / 2, pitch, side, PROJECTION if projects else SKIP)
    kernel, opening = config.kernel(layer), ["conv, pool,"] if config.downsample == "pool" else []
    count = f"{blocks} {'block' if blocks == 1 else 'blocks'}"
    inside = "one's own" if config.own_block else f"kernel {kernel} × {kernel}"
    special = config.block == "preact" or config.squeeze  # the basic block goes without saying
    kind = [config.block + (", SE" if config.squeeze else "")] if special else []
    _label(ax, x + width / 2, [f"layer {layer + 1}", *opening, count, *kind, inside, *_lines(row)])


def _skips(config: ModelConfig) -> bool:
    """Whether the blocks are known to have skips: what one's own do is not."""
    return config.residual and not config.own_block


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
    pitch = min(0.15, 1.02 / len(lines[1:]))  # so that the last of many lines stays above the lower edge
    for at, line in enumerate(lines):
        weight, colour = ("bold", INK) if at == 0 else ("normal", MUTED)
        ax.text(x, TEXT - pitch * at, line, ha="center", va="top", fontsize=8, fontweight=weight, color=colour)


def _block(ax: Any, config: ModelConfig, layer: int, stride: int, title: str, projects: bool, width: float) -> None:
    """One block as a chain of boxes between x and its output, with the skip above it."""
    kernel, skip = config.kernel(layer), config.skip_kernel(layer)
    box, pitch, left = (0.7, 0.9, 0.55) if width == WIDTH else (0.45, 0.505, 0.32)
    strided = (", " if width == WIDTH else "\n") + f"/{stride}"
    convolutions = [f"conv1\n{kernel} × {kernel}" + strided * (stride > 1), f"conv2\n{kernel} × {kernel}"]
    active = config.activation.upper() if config.activation == "gelu" else "ReLU"
    basic = config.block == "basic"
    steps = [convolutions[0], "norm1", active, convolutions[1], "norm2"]
    if not basic:
        steps = ["norm1", active, convolutions[0], "norm2", active, convolutions[1]]
    ax.text(0.05, 1.3, title, fontsize=9, fontweight="bold", color=INK, va="top")
    middle, gap = 0.45, pitch - box
    ax.text(left - 0.25, middle, "$x$", ha="center", va="center", fontsize=11)
    for at, step in enumerate(steps):
        _box(ax, left + pitch * at, middle, step, LAYER if step.startswith("conv") else MUTED, box)
        _arrow(ax, (left + pitch * at - (0.14 if at == 0 else gap), middle), (left + pitch * at, middle))
    plus = left + pitch * len(steps) - gap + 0.3 * pitch
    _arrow(ax, (plus - 0.3 * pitch, middle), (plus - 0.07, middle))
    if config.residual:
        colour, text = (
            (PROJECTION, f"projection {skip} × {skip}, /{stride}, then norm") if projects else (SKIP, "x itself")
        )
        from_x = left - 0.19
        ax.plot([from_x, from_x, plus, plus], [middle + 0.12, 0.93, 0.93, middle + 0.1], color=colour, lw=1.6)
        ax.text((from_x + plus) / 2, 0.97, text, ha="center", va="bottom", fontsize=8.5, color=colour)
        ax.text(plus, middle, "+", ha="center", va="center", fontsize=13, fontweight="bold", color=colour)
    if basic:
        _arrow(ax, (plus + 0.07, middle), (plus + 0.2 * pitch + 0.07, middle))
        _box(ax, plus + 0.2 * pitch + 0.07, middle, active, MUTED, box)
    result = ("projection(x) + F(x)" if projects else "x + F(x)") if config.residual else "F(x)"
    ends = " to ".join(step.partition("\n")[0] for step in (steps[0], steps[-1]))
    note = f"{result}: F is the chain from {ends}"
    ax.text((left + plus) / 2, 0.15, note, ha="center", va="top", fontsize=8.5, color=MUTED)


def _box(ax: Any, x: float, middle: float, text: str, colour: str, width: float) -> None:
    ax.add_patch(Rectangle((x, middle - 0.24), width, 0.48, facecolor="none", edgecolor=colour, linewidth=1.3))
    size = 8 if width > 0.5 else 7.5
    ax.text(x + width / 2, middle, text, ha="center", va="center", fontsize=size, color=INK)


def _arrow(ax: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=7, color=MUTED, shrinkA=0, shrinkB=0))
