"""How fast a card trains recipes, alone and several at a time, beside the matrix products that it reaches."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import Any

import torch

from tpsnet_lib import train
from tpsnet_lib.analysis.cost import training_flops
from tpsnet_lib.benchmarks import original_loop
from tpsnet_lib.benchmarks.step_profile import endless
from tpsnet_lib.benchmarks.throughput import matrix_peak, origin_of
from tpsnet_lib.captured_step import WARM_UP_STEPS, interleaved
from tpsnet_lib.config import MEMBERS, RECIPES, RunConfig
from tpsnet_lib.data.datasets import ImageSet
from tpsnet_lib.device import native_precision
from tpsnet_lib.train_state import TrainState

PLANNED = {  # what a card is to train: member and recipe
    "wide, card_both": ("wide", "card_both"),
    "broad, card_cutout_trivial": ("broad", "card_cutout_trivial"),
    "resnet20x4, stacked": ("resnet20x4", "stacked"),
    "TPSNet, original": ("tpsnet", "original"),
}
EPOCH_IMAGES = 50_000  # of an epoch that is planned


def planned() -> dict[str, RunConfig]:
    """The recipes that a card is to train, by name."""
    return {name: RunConfig(MEMBERS[member], RECIPES[recipe]) for name, (member, recipe) in PLANNED.items()}


def measure(
    runs: Mapping[str, RunConfig],
    images: ImageSet,
    device: torch.device,
    seconds: float = 60.0,
    together: int = 3,
    minutes: float = 20.0,
) -> dict[str, Any]:
    """Images a second of runs of these recipes on `images`, alone and `together` at a time, in so many seconds.

    On CUDA their steps are captured, not compiled. `peak`: FLOP/s of matrix products; `recipes`: by name, for 1 run and
    for `together` ones, the images a second of all of them (copies count), the `share` of the peak that they reach and
    the `epochs` of 50,000 images that each gets in so many `minutes`; `speed`: FLOP/s together, the mean of recipes."""
    execution = "captured" if device.type == "cuda" else "eager"
    part = seconds / (1 + 2 * len(runs))
    native = native_precision(device)
    peak = matrix_peak(device, native, 0.5 * part)
    rows: dict[str, Any] = {}
    for name, given in runs.items():
        config = given.with_precision(native)
        rows[name] = {"id": config.id}
        for count in dict.fromkeys((1, together)):
            rate = _images_per_second(config, images, device, execution, count, part)
            flops = training_flops(config, rate)
            epochs = 60 * minutes * rate / (count * config.train.copies * EPOCH_IMAGES)
            rows[name][f"{count}"] = {
                "images_per_second": rate,
                "flops": flops,
                "share": flops / peak,
                "epochs": epochs,
            }
    speed = statistics.mean(row[f"{together}"]["flops"] for row in rows.values())
    measured = {"peak": peak, "precision": native, "execution": execution, "together": together, "minutes": minutes}
    return {**origin_of("card", images, 0, device), **measured, "speed": speed, "recipes": rows}


def _images_per_second(
    config: RunConfig, images: ImageSet, device: torch.device, execution: str, count: int, seconds: float
) -> float:
    """Of `count` seeds side by side, all of them together, copies included."""
    options = train.TrainOptions(device, execution, progress="none")
    with ExitStack() as stack:
        seeds = [train.train(endless(config.with_seed(seed)), images, None, options) for seed in range(count)]
        rounds = interleaved([stack.enter_context(closing(seed)) for seed in seeds], device)
        states: list[TrainState] = next(rounds)
        skip = WARM_UP_STEPS + 2 if execution == "captured" else 1
        rate = original_loop.steps_per_second(rounds.__next__, seconds, skip, device, 2)
    return rate * count * states[0].shown


def table(result: dict[str, Any]) -> str:
    """`measure`'s result for people."""
    several = f"{result['together']}"
    head = f"{'':<28}{'images/s':>10}{'of peak':>9}{'epochs':>8}{several + ' at a time':>16}{'of peak':>9}{'epochs':>8}"
    lines = [f"bench card: matrix products in {result['precision']}, {result['peak'] / 1e12:.3g} TFLOP/s", head]
    for name, row in result["recipes"].items():
        alone, all_of_them = row["1"], row[several]
        figures = [
            f"{each['images_per_second']:>{wide}.0f}{each['share']:>9.1%}{each['epochs']:>8.0f}"
            for each, wide in ((alone, 10), (all_of_them, 16))
        ]
        lines.append(f"{name:<28}{''.join(figures)}")
    lines.append(
        f"epochs of {EPOCH_IMAGES:,} images that {result['minutes']:g} minutes buy each run; {result['hardware']}"
    )
    return "\n".join(lines)
