"""What `run` and `bench` do: many networks. Results go to standard output."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tpsnet_lib.files import ConfigError

Options = argparse.Namespace


def run(options: Options) -> int:
    """Run experiments by name, or all that are pending on this machine; without either, list them."""
    from tpsnet_lib.device import resolve_device
    from tpsnet_lib.runs import experiments
    from tpsnet_lib.runs.records import default_store
    from tpsnet_lib.runs.wandb_mirror import Mirror

    store = default_store(options.out)
    if options.bring:
        from tpsnet_lib.runs import card

        print(card.bring_home(Path(options.bring), store))
        return 0
    if options.card is not None:
        return _card(options, store)
    if options.workers is not None and options.workers < 1:
        raise ConfigError(f"--workers is {options.workers}: give at least 1")
    if not options.pending and not options.experiment:
        return _list_experiments(store)
    faults: list[str] = []
    if options.pending:
        needs = "gpu" if resolve_device(options.device).type == "cuda" else "cpu"
        chosen = [e for e in experiments.all_experiments(faults) if e.needs == needs]
    else:
        chosen = [experiments.load_experiment(name) for name in options.experiment]
    jobs = experiments.pending(chosen, store)
    with Mirror(options.wandb) as mirror:
        results = _run_all(options, jobs, store, mirror.follow(chosen, store))
    failed = [record for record in results if record.failed]
    count = len(experiments.pending(chosen, store))
    print(f"{len(results) - len(failed)} runs recorded in {store.writable}, {len(failed)} failed, {count} pending")
    return _report_unreadable(faults)


def _list_experiments(store: Any) -> int:
    """Print each experiment with what is pending of it."""
    from tpsnet_lib.runs import experiments

    faults: list[str] = []
    for e in experiments.all_experiments(faults):
        count = len(experiments.pending([e], store))
        minutes = f"about {count * e.minutes:.0f} min" if count else "done"
        print(f"{e.priority:4} {e.name:28} {e.needs}  {count:4} of {len(e.runs):4} pending  {minutes:14} {e.question}")
    return _report_unreadable(faults)


def _report_unreadable(faults: Sequence[str]) -> int:
    """Name the experiments that could not be read, a line each; 1 if there are any."""
    for fault in faults:
        print(f"tpsnet: {fault}; left out", file=sys.stderr)
    return 1 if faults else 0


def _card(options: Options, store: Any) -> int:
    """Spend minutes of a card, or print how they would be spent; what can go home is packed however this ends."""
    from tpsnet_lib.benchmarks import card as bench
    from tpsnet_lib.config import DataConfig
    from tpsnet_lib.data.datasets import fit_and_validation
    from tpsnet_lib.device import resolve_device
    from tpsnet_lib.runs import card, card_plan
    from tpsnet_lib.runs.local_backend import RunOptions
    from tpsnet_lib.train import TrainOptions

    if not options.card > 0:
        raise ConfigError(f"--card is {options.card:g}: give minutes, such as 28")
    scale = card_plan.load_scale(options.scale)
    if options.plan:
        parts = card_plan.predicted(scale, options.card, card_plan.PEAK * card_plan.SHARE)
        for name, (minutes, _) in _card_benches(options).items():
            parts.append({"name": name, "runs": 1, "epochs": 0, "flops": 0, "predicted_minutes": minutes})
        print(card_plan.table(parts))
        return 0
    if options.minutes == 0:
        print(*card.pack(store, Path(options.pack or "pack")), sep="\n")
        return 0
    training = TrainOptions(options.device, options.execution)
    run_options = RunOptions(store, options.data, training, minutes=options.minutes)
    device = resolve_device(options.device)

    def measure() -> dict[str, Any]:
        images = fit_and_validation(DataConfig(), options.data)[0].to(device)
        return bench.measure(bench.planned(), images, device, 60 * card_plan.BENCH_MINUTES)

    measured = measure if device.type == "cuda" else None
    card_run = card.begin(options.card, scale, run_options, measured, _card_benches(options))
    try:
        waits = card_run.spend()
    finally:
        print(card_plan.table(card_run.state["parts"]))
        if options.pack:
            print(*card.pack(store, Path(options.pack)), sep="\n")
    print("the same command goes on" if waits else "nothing waits")
    return 0


def _card_benches(options: Options) -> dict[str, Any]:
    """What is measured once the queue is through, with predicted minutes: our loop beside the original's, by its turns;
    and airbench95 where its script is, by its operations."""
    from tpsnet_lib.analysis.cost import run_flops
    from tpsnet_lib.benchmarks import airbench, throughput
    from tpsnet_lib.config import DataConfig
    from tpsnet_lib.data.datasets import fit_and_validation
    from tpsnet_lib.device import resolve_device
    from tpsnet_lib.runs.card_plan import PEAK, SHARE

    device = resolve_device(options.device)
    if options.scale != "full":
        return {}

    def loop() -> dict[str, Any]:
        images = fit_and_validation(DataConfig(), options.data)[0].to(device)
        return throughput.bench_loop(throughput.LOOP_CASES["TPSNet"], images, device)

    benches: dict[str, Any] = {"loop, batch 128": (2.0, loop)}
    script, runs = Path("airbench95.py"), 10
    if script.is_file() or options.plan:
        minutes = runs * (airbench.FLOPS + run_flops(airbench.OURS)) / (PEAK * SHARE) / 60
        benches["airbench95"] = minutes, lambda: airbench.bench_airbench(script, device, runs, options.data)
    return benches


def _run_all(options: Options, jobs: Sequence[Any], store: Any, on_record: Any) -> list[Any]:
    """Jobs on the backend that is asked for."""
    from tpsnet_lib.runs import local_backend
    from tpsnet_lib.train import TrainOptions

    training = TrainOptions(options.device, options.execution)
    settings = store, options.data, training, options.workers, options.minutes, on_record
    if options.backend == "ray":
        from tpsnet_lib.runs import ray_backend

        if options.gpus_per_run is not None and options.gpus_per_run < 0:
            raise ConfigError(f"--gpus-per-run is {options.gpus_per_run:g}: give 0 or more, such as 0.25")
        on_ray = {"address": options.address, "gpus_per_run": options.gpus_per_run, "asha": options.asha}
        return ray_backend.run_all(jobs, ray_backend.RayOptions(*settings, **on_ray))
    for name in ("address", "gpus_per_run", "asha"):
        if getattr(options, name):
            raise ConfigError(f"--{name.replace('_', '-')} is for Ray: add --backend ray")
    return local_backend.run_all(jobs, local_backend.RunOptions(*settings))


def bench(options: Options) -> int:
    """Measure, side by side, and print a table."""
    from tpsnet_lib.benchmarks import throughput
    from tpsnet_lib.device import resolve_device

    device = resolve_device(options.device)
    if options.what == "search":
        result = throughput.bench_search(device=device.type)
        print(json.dumps(result) if options.json else throughput.table_of_search(result))
        return 0
    if options.what == "card":
        from tpsnet_lib.benchmarks import card

        result = card.measure(card.planned(), throughput.sample(size=8192), device)
        print(json.dumps(result) if options.json else card.table(result))
        return 0
    if options.what == "time":
        from tpsnet_lib.benchmarks import time_to_accuracy
        from tpsnet_lib.config import MEMBERS, RECIPES, RunConfig

        recipe = RECIPES["two_cores"].shortened(options.epochs) if options.epochs else RECIPES["two_cores"]
        config = RunConfig(MEMBERS["two_cores"], recipe)
        result = time_to_accuracy.bench_time(
            config, options.target, options.minutes, options.data, device, throughput.Timing()
        )
        print(json.dumps(result) if options.json else time_to_accuracy.table(result))
        return 0
    if options.what == "augment":
        results = iter([throughput.bench_augment(repeats=options.repeats)])
    else:
        timing, images = throughput.Timing(repeats=options.repeats), throughput.sample()
        results = (throughput.bench_loop(case, images, device, timing) for case in throughput.LOOP_CASES.values())
    for result in results:  # each as soon as it is measured
        print(json.dumps(result) if options.json else throughput.table(result), flush=True)
    return 0
