"""How fast our loop and our augmentation are beside the original's way: by turns, in one run, on one machine."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tpsnet_lib import train
from tpsnet_lib.benchmarks import original_loop
from tpsnet_lib.benchmarks.step_profile import endless, profile_step
from tpsnet_lib.compile_step import STEPS_THAT_PAY, resolve_execution
from tpsnet_lib.config import MEMBERS, RECIPES, DataConfig, ModelConfig, RunConfig, TrainConfig
from tpsnet_lib.data.augment import augment
from tpsnet_lib.data.cifar10 import Fingerprint
from tpsnet_lib.data.datasets import ImageSet, fit_and_validation, normalise
from tpsnet_lib.device import matrix_peak, native_precision
from tpsnet_lib.model_cost import FLOPS_PER_MAC, count_macs
from tpsnet_lib.progress import Progress
from tpsnet_lib.runs.experiments import Experiment, Run
from tpsnet_lib.runs.local_backend import RunOptions
from tpsnet_lib.runs.provenance import now, provenance
from tpsnet_lib.runs.records import Store

LOOP_CASES: dict[str, RunConfig] = {  # what `tpsnet bench loop` measures, on images of full size
    "[3,3,3] at 16/32/64": RunConfig(ModelConfig(blocks=(3, 3, 3), channels=(16, 32, 64), stem=16)),
    "[3,3,3] at 32/64/128": RunConfig(ModelConfig(blocks=(3, 3, 3), channels=(32, 64, 128), stem=16)),
    "TPSNet": RunConfig(),
    "two_cores": RunConfig(MEMBERS["two_cores"], replace(RECIPES["two_cores"], small_epochs=0.0)),
}
WARM_UP_STEPS = 3  # steps before the clock starts; a DataLoader's prefetched batches are used up besides
LEAST_STEPS = 3  # steps in a turn, however long they take
TRIALS, LONG_TRIALS = 50, 12  # of a search: trivial ones, and ones of several seconds


@dataclass(frozen=True)
class Timing:
    """How long is measured: the seconds of a turn, how many turns, and which numbers of DataLoader workers are tried
    (default 0, 1, 2, 4 ... up to the cores)."""

    seconds: float = 5.0
    repeats: int = 5
    workers: Sequence[int] | None = None


def bench_loop(config: RunConfig, images: ImageSet, device: torch.device, timing: Timing = Timing()) -> dict[str, Any]:
    """Images a second of our training loop and of the original's: one network, batch size and number of threads.

    Each precision the device has natively and each number of workers is first tried on the baseline, in a process of
    its own; then its best and our loop take turns. `profile`: the share that each kind of work has in one of our
    steps, uncompiled; `peak`: the share of what matrix products reach here that our loop comes to, a
    backward pass taken for two forward ones. On CUDA our loop is captured and compiled, as a long run is."""
    recipe = replace(config.train, batch_size=min(config.train.batch_size, len(images)))
    config = replace(config, train=recipe).with_precision(native_precision(device))
    seconds, repeats = timing.seconds, timing.repeats
    result = origin_of("loop", images, recipe.batch_size, device)
    options = train.TrainOptions(device, resolve_execution("auto", device, STEPS_THAT_PAY), progress="none")
    with closing(original_loop.BaselineProcess(config, images, device)) as baseline:
        variants = baseline_variants(baseline, device, timing)
        best = max(variants, key=lambda variant: float(variant["images_per_second"]))
        ours, theirs = [], []
        steps = train.training_steps(endless(config), images, None, options)
        with closing(steps), Progress(repeats, "turns") as bar:
            for _ in range(repeats):
                rate = original_loop.steps_per_second(steps.__next__, seconds, WARM_UP_STEPS, device, LEAST_STEPS)
                ours.append(recipe.batch_size * rate)
                theirs.append(_baseline_rate(baseline, best["precision"], best["workers"], seconds))
                bar.advance()
                bar.stage(f"ours {ours[-1]:.0f}, the original's way {theirs[-1]:.0f} images/s")
            executed = next(steps).execution
    peak = matrix_peak(device, config.train.precision)
    reached = FLOPS_PER_MAC * count_macs(config.model) * statistics.median(ours)
    return {
        **result,
        "config": config.to_dict(),
        "ours": {**_summary(ours), "precision": config.train.precision, "execution": executed},
        "baseline": {**_summary(theirs), "precision": best["precision"], "workers": best["workers"]},
        "ratio": _summary([mine / other for mine, other in zip(ours, theirs, strict=True)]),
        "variants": variants,
        "profile": profile_step(config, images, device=device.type),
        "peak": {"flops": peak, "reached": reached, "share": reached / peak},
    }


def baseline_variants(
    baseline: original_loop.BaselineProcess, device: torch.device, timing: Timing
) -> list[dict[str, Any]]:
    """Images a second of the original's way in each precision that is native here and with each number of workers."""
    variants = [
        (precision, count)
        for precision in dict.fromkeys(("fp32", native_precision(device)))
        for count in (_worker_counts() if timing.workers is None else timing.workers)
    ]
    rates = []
    with Progress(len(variants), "trying the original's way") as bar:
        for precision, count in variants:
            rate = _baseline_rate(baseline, precision, count, timing.seconds)
            rates.append({"precision": precision, "workers": count, "images_per_second": rate})
            bar.advance()
            bar.stage(f"{rate:.0f} images/s in {precision} with {count} workers")
    return rates


def _baseline_rate(baseline: original_loop.BaselineProcess, precision: str, workers: int, seconds: float) -> float:
    return baseline.images_per_second(precision, workers, seconds, WARM_UP_STEPS + 2 * workers, LEAST_STEPS)


def bench_augment(
    repeats: int = 20, batch_size: int = 500, images: ImageSet | None = None, singles: int = 200
) -> dict[str, Any]:
    """Images a second of crop, flip and normalise: whole batches, and torchvision's transforms an image at a time.

    On the CPU. The baseline starts from PIL images that exist already, and its results are not put together to a
    batch, though a DataLoader must do both. `one_thread` is our figure with one thread, which the baseline has too."""
    from torch.utils.benchmark import Timer  # which may warn of a CUDA that is not whole

    images = images or sample()
    recipe, threads = TrainConfig(rotation=0.0), torch.get_num_threads()
    batch, indices = images.images[:batch_size].cpu(), images.indices[:batch_size].cpu()
    pictures = [Image.fromarray(pixels) for pixels in batch[:singles].permute(0, 2, 3, 1).contiguous().numpy()]
    transform = original_loop.transform(recipe.rotation)

    def rate(work: Callable[[], object], count: int, num_threads: int) -> float:
        timer = Timer("work()", globals={"work": work}, num_threads=num_threads)
        return count / timer.blocked_autorange(min_run_time=0.02).median

    def our_work() -> object:
        return normalise(augment(batch, indices, recipe, 0, 1))

    def their_work() -> object:
        return [transform(picture) for picture in pictures]

    rows = []
    for _ in range(repeats):
        ours = rate(our_work, len(batch), threads), rate(our_work, len(batch), 1)
        rows.append((*ours, rate(their_work, len(pictures), threads)))
    all_ours, alone, others = zip(*rows, strict=True)
    return {
        **origin_of("augment", images, len(batch), torch.device("cpu")),
        "ours": _summary(all_ours),
        "baseline": _summary(others),
        "ratio": _summary([mine / other for mine, _, other in rows]),
        "one_thread": {**_summary(alone), "ratio": _summary([mine / other for _, mine, other in rows])},
    }


def bench_search(device: str) -> dict[str, Any]:
    """Seconds a trial takes once a search is under way: trivial ones in the local pool and on Ray, both with one
    worker; and trials an hour of one and two workers of one thread each, with runs of several seconds."""
    from tpsnet_lib.runs import local_backend, ray_backend  # here, as a GPU's machine need not have Ray

    trivial = DataConfig("shapes10", train_size=100, validation_size=100)
    several = DataConfig("shapes10", train_size=4000, validation_size=500)
    short = RunConfig(ModelConfig(blocks=(1,), channels=(4,), stem=4), TrainConfig(epochs=1, batch_size=50), trivial)
    long = RunConfig(ModelConfig(blocks=(1, 1, 1), channels=(16, 32, 64)), TrainConfig(epochs=1), several)
    options = ray_backend.RayOptions(training=train.TrainOptions(device, progress="none"), workers=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        local = _seconds_a_trial(local_backend.run_all, short, TRIALS, options)
        on_ray = _seconds_a_trial(ray_backend.run_all, short, TRIALS, options)
        one, two = (
            _seconds_a_trial(local_backend.run_all, long, LONG_TRIALS, replace(options, workers=n)) for n in (1, 2)
        )
    finally:
        torch.set_num_threads(threads)
    return {
        **origin_of("search", sample(size=100), 50, torch.device(device)),
        "unit": "seconds a trial",
        "trials": TRIALS,
        "local": local,
        "ray": on_ray,
        "ray_cost": on_ray - local,
        "long_trials": LONG_TRIALS,
        "one_worker": one,
        "two_workers": two,
        "speed_up": one / two,
    }


def _seconds_a_trial(run_all: Callable[..., Any], config: RunConfig, trials: int, options: RunOptions) -> float:
    """From the end of the first trial (of each worker) to that of the last, divided by the trials between."""
    runs = [Run(f"seed {seed}", config.with_seed(seed), {}) for seed in range(trials)]
    experiment = Experiment(name="bench", runs=runs)
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        with_ends = replace(options, store=store, on_record=lambda *_: ends.append(time.perf_counter()))
        run_all([(experiment, run) for run in runs], with_ends)
    workers = options.workers or 1
    return (ends[-1] - ends[workers - 1]) / (trials - workers)


def table_of_search(result: dict[str, Any]) -> str:
    """`bench_search`'s result for people."""
    return "\n".join(
        [
            f"bench search: seconds a trial, {result['trials']} trivial trials and {result['long_trials']} longer ones",
            f"{'local pool':<20}{result['local']:8.2f}",
            f"{'Ray Tune':<20}{result['ray']:8.2f}  its own cost {result['ray_cost']:.2f}",
            f"{'longer, one worker':<20}{result['one_worker']:8.2f}",
            f"{'two workers':<20}{result['two_workers']:8.2f}  {result['speed_up']:.2f} times the trials an hour",
            f"{result['data']}; {result['hardware']}, one thread a worker; torch {result['versions']['torch']}",
        ]
    )


def sample(dataset: str = "shapes10", size: int = 2000) -> ImageSet:
    """Images to measure on; which ones makes no difference to speed."""
    return fit_and_validation(DataConfig(dataset=dataset, train_size=size, validation_size=10))[0]


def table(result: dict[str, Any]) -> str:
    """A result for people: medians with their range, the ratio, and what they were measured on."""
    ours, theirs, ratio, versions = (result[key] for key in ("ours", "baseline", "ratio", "versions"))
    variant = f"{theirs['precision']}, {theirs['workers']} workers" if "workers" in theirs else ""
    rows = [("ours", ours, ours.get("precision", "")), ("the original's way", theirs, variant)]
    if alone := result.get("one_thread"):
        rows.insert(1, ("ours, one thread", alone, f"ratio {alone['ratio']['median']:.2f}"))
    lines = [f"{name:<20}{_spread(values, '.0f'):>32}  {note}".rstrip() for name, values, note in rows]
    return "\n".join(
        [
            f"bench {result['kind']}: images/s, median (min to max) of {ratio['n']} turns each",
            *lines,
            f"{'ratio':<20}{_spread(ratio, '.2f'):>32}",
            *([f"besides convolutions {other_work(result['profile'])}"] if "profile" in result else []),
            *([share_of_peak(result["peak"], ours["precision"])] if "peak" in result else []),
            f"batches of {result['batch_size']}, {result['data']}; {result['hardware']}, {result['threads']} threads;"
            f" torch {versions['torch']}, torchvision {versions['torchvision']}, Python {versions['python']}",
        ]
    )


def other_work(shares: dict[str, float]) -> str:
    """The three largest parts of a step that are not convolutions, in words."""
    rest = [(share, group) for group, share in shares.items() if not group.startswith("convolution")]
    return ", ".join(f"{group} {share:.0%}" for share, group in sorted(rest, reverse=True)[:3]) + " of a step"


def share_of_peak(peak: dict[str, float], precision: str) -> str:
    """What a step's arithmetic comes to a second, beside matrix products, in words."""
    return (
        f"a step's sums come to {peak['reached'] / 1e12:.2f} TFLOP/s, {peak['share']:.0%} of the"
        f" {peak['flops'] / 1e12:.2f} of {precision} matrix products"
    )


def _spread(values: dict[str, Any], form: str) -> str:
    return f"{values['median']:{form}} ({values['min']:{form}} to {values['max']:{form}})"


def _summary(values: Sequence[float]) -> dict[str, Any]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def _worker_counts() -> list[int]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [0, *(2**k for k in range(cores.bit_length()))]


def origin_of(kind: str, images: ImageSet, batch_size: int, device: torch.device) -> dict[str, Any]:
    """What was measured, on what and when."""
    origin = provenance(device, Fingerprint(images.stamp, "", False), now())
    where = {name: origin[name] for name in ("started", "commit", "hardware", "threads", "versions")}
    return {"kind": kind, "unit": "images/s", "data": images.stamp, "batch_size": batch_size, **where}
