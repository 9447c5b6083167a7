"""How fast a card trains recipes, alone and several at a time, beside the matrix products that it reaches."""

import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch

from tpsnet_lib import train
from tpsnet_lib.benchmarks import original_loop
from tpsnet_lib.benchmarks.step_profile import endless
from tpsnet_lib.benchmarks.throughput import origin_of
from tpsnet_lib.captured_step import WARM_UP_STEPS
from tpsnet_lib.config import MEMBERS, RECIPES, RunConfig
from tpsnet_lib.data.batches import batch_size
from tpsnet_lib.data.datasets import ImageSet
from tpsnet_lib.device import matrix_peak, native_precision
from tpsnet_lib.errors import brief, warn
from tpsnet_lib.model_cost import training_flops
from tpsnet_lib.runs.round_robin import RoundRobin

EPOCH_IMAGES = 50_000  # of an epoch that is planned
MINUTES = 20.0  # for which epochs are counted
LEAST_SECONDS = 0.2  # that a recipe is measured, however long its first steps take


def planned() -> dict[str, RunConfig]:
    """What a card is to train, by member and recipe."""
    pairs = ("wide", "card_both"), ("broad", "card_cutout_trivial"), ("resnet20x4", "stacked"), ("tpsnet", "original")
    return {f"{member}, {recipe}": RunConfig(MEMBERS[member], RECIPES[recipe]) for member, recipe in pairs}


def measure(
    runs: Mapping[str, RunConfig], images: ImageSet, device: torch.device, seconds: float = 60.0, together: int = 3
) -> dict[str, Any]:
    """Images a second of runs of these recipes on `images`, alone and `together` at a time, in so many seconds.

    On CUDA their steps are captured, not compiled. `peak`: FLOP/s of matrix products; `recipes`: by name, for 1 run and
    for `together` ones, the images a second of all of them (copies count), the `share` of the peak that they reach and
    the `epochs` of 50,000 images that each gets in `MINUTES`; `speed`: FLOP/s together, the mean of recipes.
    What cannot be measured is left out, with a line on standard error; `speed` is 0 where nothing could be."""
    execution = "captured" if device.type == "cuda" else "eager"
    native, began = native_precision(device), time.monotonic()
    counts = list(dict.fromkeys((1, together)))
    peak = matrix_peak(device, native)
    rows: dict[str, Any] = {}
    for number, (name, run) in enumerate(runs.items()):
        config = run.with_precision(native)
        rows[name] = {"id": config.id}
        for turn, count in enumerate(counts):
            parts_left = len(counts) * (len(runs) - number) - turn
            part = (began + seconds - time.monotonic()) / parts_left
            try:
                rate = _images_per_second(config, images, device, execution, count, part)
            except (RuntimeError, MemoryError) as error:  # torch's own error of memory is a RuntimeError
                warn(f"{name}, {count} at a time, cannot be measured ({brief(error)})")
                break
            flops = training_flops(config, rate)
            epochs = 60 * MINUTES * rate / (count * config.train.copies * EPOCH_IMAGES)
            rows[name][f"{count}"] = {
                "images_per_second": rate,
                "flops": flops,
                "share": flops / peak,
                "epochs": epochs,
            }
    reached = [row.get(f"{together}", row["1"])["flops"] for row in rows.values() if "1" in row]
    speed = statistics.mean(reached) if reached else 0.0
    measured = {"peak": peak, "precision": native, "execution": execution, "together": together, "minutes": MINUTES}
    return {**origin_of("card", images, 0, device), **measured, "speed": speed, "recipes": rows}


def _images_per_second(
    config: RunConfig, images: ImageSet, device: torch.device, execution: str, count: int, seconds: float
) -> float:
    """Of `count` seeds side by side, all of them together, copies included; what comes before the first measured step
    is part of the seconds, of which at least `LEAST_SECONDS` are measured."""
    until = time.monotonic() + seconds
    options = train.TrainOptions(device, execution, progress="none")
    with RoundRobin[None](device, count) as seeds:
        for seed in range(count):
            seeds.add(train.training_steps(endless(config.with_seed(seed)), images, None, options))

        def step_of_each() -> None:
            for ended in seeds.step():
                ended.result()  # raises what ended it

        for _ in range(WARM_UP_STEPS + 3 if execution == "captured" else 2):
            step_of_each()
        original_loop.synchronise(device)
        left = max(LEAST_SECONDS, until - time.monotonic())
        rate = original_loop.steps_per_second(step_of_each, left, 0, device, 2)
    return rate * count * batch_size(config.train, len(images)) * config.train.copies


def table(result: dict[str, Any]) -> str:
    """`measure`'s result for people."""
    several = f"{result['together']}"
    head = f"{'':<28}{'images/s':>10}{'of peak':>9}{'epochs':>8}{several + ' at a time':>16}{'of peak':>9}{'epochs':>8}"
    lines = [f"bench card: matrix products in {result['precision']}, {result['peak'] / 1e12:.3g} TFLOP/s", head]
    for name, row in result["recipes"].items():
        figures = [
            f"{each['images_per_second']:>{wide}.0f}{each['share']:>9.1%}{each['epochs']:>8.0f}" if each else " -"
            for each, wide in ((row.get("1"), 10), (row.get(several), 16))
        ]
        lines.append(f"{name:<28}{''.join(figures)}")
    lines.append(
        f"epochs of {EPOCH_IMAGES:,} images that {result['minutes']:g} minutes buy each run; {result['hardware']}"
    )
    return "\n".join(lines)
