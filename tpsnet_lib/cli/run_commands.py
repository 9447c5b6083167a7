"""What `run` and `bench` do: many networks. Results go to standard output."""

import json
from argparse import Namespace as Options
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tpsnet_lib.errors import ConfigError, warn
from tpsnet_lib.files import project_root
from tpsnet_lib.runs import experiments
from tpsnet_lib.runs.records import Store, default_store
from tpsnet_lib.runs.wandb_mirror import Mirror


def run(options: Options) -> int:
    """Run experiments by name, or all that are pending on this machine; without either, list them."""
    store = default_store(options.out)
    if options.workers is not None and options.workers < 1:
        raise ConfigError(f"--workers is {options.workers}: give at least 1")
    if not options.pending and not options.experiment:
        return _list_experiments(store)
    if options.pending and options.experiment:
        raise ConfigError("--pending is of all experiments; of those that are named, what is pending is run anyway")
    chosen, faults = [experiments.load_experiment(name) for name in options.experiment], list[str]()
    if options.pending:
        from tpsnet_lib.device import resolve_device

        needs = "gpu" if resolve_device(options.device).type == "cuda" else "cpu"
        chosen = [e for e in experiments.all_experiments(faults) if e.needs == needs]
    jobs = experiments.pending(chosen, store)
    with Mirror(options.wandb) as mirror:
        if options.wandb != "off":
            _mirror_recorded(mirror, chosen, store)
        results = _run_all(options, jobs, store, lambda job, r: mirror.record(r, job.experiment.name, job.run.label))
    failed = [record for record in results if record.failed]
    count = len(experiments.pending(chosen, store))
    print(f"{len(results) - len(failed)} runs recorded in {store.writable}, {len(failed)} failed, {count} pending")
    return _report_unreadable(faults)


def _mirror_recorded(mirror: Mirror, chosen: Sequence[experiments.Experiment], store: Store) -> None:
    """Mirror the records that experiments have already."""
    for experiment in chosen:
        for run, record in experiments.collect(experiment, store):
            if record is not None:
                mirror.record(record, experiment.name, run.label)


def _list_experiments(store: Store) -> int:
    """Print each experiment with what is pending of it."""
    faults: list[str] = []
    for e in experiments.all_experiments(faults):
        count = len(experiments.pending([e], store))
        minutes = f"about {count * e.minutes:.0f} min" if count else "done"
        print(f"{e.priority:4} {e.name:28} {e.needs}  {count:4} of {len(e.runs):4} pending  {minutes:14} {e.question}")
    return _report_unreadable(faults)


def _report_unreadable(faults: Sequence[str]) -> int:
    """Name the experiments that could not be read, a line each; 1 if there are any."""
    for fault in faults:
        warn(f"{fault}; left out")
    return 1 if faults else 0


def _run_all(options: Options, jobs: Sequence[Any], store: Store, on_record: Any) -> list[Any]:
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
        if (value := getattr(options, name)) is not None and value is not False:
            raise ConfigError(f"--{name.replace('_', '-')} is for Ray: add --backend ray")
    return local_backend.run_all(jobs, local_backend.RunOptions(*settings))


def bench(options: Options) -> int:
    """Measure, side by side, and print each result as soon as it is there."""
    for result, table in _bench_results(options):
        print(json.dumps(result) if options.json else table(result), flush=True)
    return 0


def _bench_results(options: Options) -> Iterator[tuple[dict[str, Any], Callable[[dict[str, Any]], str]]]:
    """Each result of a bench, with the function that shows it to people."""
    from tpsnet_lib.benchmarks import airbench, card, throughput, time_to_accuracy
    from tpsnet_lib.config_parsing import assignment, merged, parse
    from tpsnet_lib.device import resolve_device

    if options.repeats < 1:
        raise ConfigError(f"--repeats is {options.repeats}: give at least 1")
    if options.set and options.what in ("search", "augment"):
        raise ConfigError(f"--set is a run's: bench {options.what} trains none")
    timing = throughput.Timing(options.seconds or 5.0, options.repeats, options.workers)
    device = resolve_device(options.device)
    given = parse(merged(*(dict([assignment(text)]) for text in options.set))) if options.set else None
    if options.what == "search":
        yield throughput.bench_search(device.type), throughput.table_of_search
    elif options.what == "card":
        runs = {"given": given} if given else card.planned()
        yield card.measure(runs, throughput.sample(size=8192), device, options.seconds or 60.0), card.table
    elif options.what == "airbench":
        script = project_root() / "report" / "local" / "airbench95.py"
        yield airbench.bench_airbench(script, device, options.repeats, options.data, given), airbench.table
    elif options.what == "time":
        config = given or airbench.OURS
        config = config.with_epochs(options.epochs) if options.epochs else config
        limits, timing = (options.target, options.minutes), throughput.Timing()
        yield time_to_accuracy.bench_time(config, *limits, options.data, device, timing), time_to_accuracy.table
    elif options.what == "augment":
        yield throughput.bench_augment(repeats=options.repeats), throughput.table
    else:
        for case in [given] if given else throughput.LOOP_CASES.values():
            yield throughput.bench_loop(case, throughput.sample(), device, timing), throughput.table
