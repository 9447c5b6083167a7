"""How long our recipe and the original's way take to one validation accuracy, with one network, on one machine."""

import functools
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tpsnet_lib import metrics, optim, train
from tpsnet_lib.benchmarks import original_loop
from tpsnet_lib.benchmarks.throughput import Timing, baseline_variants, origin_of
from tpsnet_lib.config import RunConfig, TrainConfig
from tpsnet_lib.data.batches import batch_size
from tpsnet_lib.data.datasets import fit_and_validation
from tpsnet_lib.device import native_precision
from tpsnet_lib.model import build
from tpsnet_lib.progress import Progress, duration
from tpsnet_lib.train_state import TrainState

Curve = list[dict[str, float]]  # after each epoch: how many, seconds of training so far, validation accuracy
PROGRESS_SECONDS = 60.0  # of a long epoch, between two words on how far it is


def bench_time(
    config: RunConfig, target: float, minutes: float, root: str | Path | None, device: torch.device, timing: Timing
) -> dict[str, Any]:
    """Seconds of training until an epoch ends with at least `target` (a fraction) of the validation images classified
    correctly: with our loop and the config's recipe, then with the original's loop and recipe.

    One run each, of seed 0, on the same images. The baseline has its best precision and number of workers; its
    learning rate is constant, which the original's, a cosine over 300 epochs, nearly is so early. The time of scoring
    is not counted. A side that has not reached the target after `minutes`, or at the end of its schedule, is scored
    once more, and `reached` is false."""
    native = native_precision(device)
    fit_set, validation = (part.to(device) for part in fit_and_validation(config.data, root))
    ours = config.with_precision(native)
    theirs = replace(ours, train=TrainConfig(precision=native, batch_size=min(128, len(fit_set))))

    labels = validation.labels.cpu()
    states: list[TrainState] = []  # one and the same, as it is after each step

    def take_step() -> bool:
        states[:] = [next(run)]
        return states[0].step < states[0].steps

    def accuracy(network: nn.Module, precision: str) -> float:
        return metrics.accuracy(metrics.predict(network, validation.images, precision=precision), labels)

    def our_score() -> float:
        with optim.averaged(states[0].model, states[0].ema):
            return accuracy(states[0].model, ours.train.precision)

    run = train.training_steps(ours, fit_set, None, train.TrainOptions(device, progress="none"))
    epoch_steps = len(fit_set) // batch_size(ours.train, len(fit_set))
    with closing(run):
        our_curve = _train_until(_Side("ours", take_step, epoch_steps, our_score, device), target, minutes)
    with closing(original_loop.BaselineProcess(theirs, fit_set, device)) as baseline:
        variants = baseline_variants(baseline, device, timing)
    best = max(variants, key=lambda variant: float(variant["images_per_second"]))
    torch.manual_seed(theirs.seed)
    network = build(theirs.model).to(device)
    way = original_loop.train(theirs, fit_set, device, best["precision"], best["workers"], network)
    with closing(way) as losses:
        epoch_steps = len(fit_set) // theirs.train.batch_size
        their_score = functools.partial(accuracy, network, best["precision"])
        side = _Side("the original's way", lambda: next(losses) is not None, epoch_steps, their_score, device)
        their_curve = _train_until(side, target, minutes)
    return {
        **origin_of("time", fit_set, ours.train.batch_size, device),
        "unit": "s",
        "target": target,
        "config": ours.to_dict(),
        "ours": {**_outcome(our_curve, target), "execution": states[0].execution},
        "baseline": {**_outcome(their_curve, target), "precision": best["precision"], "workers": best["workers"]},
    }


@dataclass(frozen=True)
class _Side:
    """One way of training: `step` returns False after the last step of its schedule; `score` is its accuracy now."""

    label: str
    step: Callable[[], bool]
    epoch_steps: int
    score: Callable[[], float]
    device: torch.device


def _train_until(side: _Side, target: float, minutes: float) -> Curve:
    """Train and score epoch by epoch until the target is reached, the time is up, or the schedule ends."""
    curve: Curve = []
    spent, steps, more, limit, reported = 0.0, 0, True, 60 * minutes, 0.0
    with Progress(round(limit), f"{side.label}, at most {minutes:.3g} minutes of training") as bar:
        while more and spent < limit and not (curve and curve[-1]["accuracy"] >= target):
            began, before = time.perf_counter(), spent
            for ahead in reversed(range(side.epoch_steps)):
                more = side.step()
                steps += 1
                spent = before + time.perf_counter() - began
                bar.advance(max(0, min(int(spent), bar.total) - bar.done))
                if ahead and spent - reported > PROGRESS_SECONDS:
                    bar.stage(f"epoch {steps / side.epoch_steps:.2f}")
                    reported = spent
                if not more or spent >= limit:
                    break
            original_loop.synchronise(side.device)
            spent = reported = before + time.perf_counter() - began
            curve.append({"epochs": steps / side.epoch_steps, "seconds": spent, "accuracy": side.score()})
            reached = f"{100 * curve[-1]['accuracy']:.2f}% of the validation images"
            bar.stage(f"epoch {curve[-1]['epochs']:.4g}, {reached}")
    return curve


def _outcome(curve: Curve, target: float) -> dict[str, Any]:
    last = curve[-1]
    return {"reached": last["accuracy"] >= target, **last, "curve": curve}


def table(result: dict[str, Any]) -> str:
    """A result for people."""
    ours, theirs, versions = result["ours"], result["baseline"], result["versions"]

    def row(name: str, side: dict[str, Any]) -> str:
        reached = "" if side["reached"] else ", not reached"
        return (
            f"{name:<20}{duration(side['seconds']):>12}  {100 * side['accuracy']:.2f}% after"
            f" {side['epochs']:.4g} epochs{reached}"
        )

    ratio = theirs["seconds"] / ours["seconds"]
    at_least = f"{ratio:.2f}" if theirs["reached"] else f"at least {ratio:.2f}"
    return "\n".join(
        [
            f"bench time: training to {100 * result['target']:g}% of the validation images, one run each",
            row("ours", ours),
            row("the original's way", theirs) + f", {theirs['precision']}, {theirs['workers']} workers",
            f"{'ratio':<20}{at_least if ours['reached'] else 'none: ours did not get there':>12}",
            f"{result['data']}; {result['hardware']}, {result['threads']} threads; torch {versions['torch']}",
        ]
    )
