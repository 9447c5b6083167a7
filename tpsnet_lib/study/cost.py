"""What accuracy costs: where the time of a step goes, what a run took, and what others paid."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from tpsnet_lib import metrics, train
from tpsnet_lib.config import MEMBERS, PARAMETER_BUDGET, RunConfig, read_yaml
from tpsnet_lib.data import ImageSet
from tpsnet_lib.files import project_root
from tpsnet_lib.model import count_macs, count_parameters
from tpsnet_lib.progress import duration
from tpsnet_lib.study.evaluate import TestResult, find_test
from tpsnet_lib.study.experiments import collect, experiments_folder, load_experiment
from tpsnet_lib.study.provenance import hardware
from tpsnet_lib.study.records import Record, Store, read_record

# Where an operator belongs, by the first pattern found in its name; those before the forward pass are `data`.
GROUPS: dict[str, str] = {
    "convolution, forward": r"conv(?!.*backward)",
    "convolution, backward": r"conv.*backward",
    "norm": r"batch_?norm",
    "activation": r"gelu|relu|threshold",
    "pool": r"pool",
    "optimizer": r"sgd|adam|optimizer|foreach",
    "copies and casts": r"copy_|_to_copy|clone",
}
DATA, OTHER = "data and augmentation", "other"
FLOPS_PER_MAC = 6  # a multiplication and an addition, once forward and twice backward (to the inputs, to the weights)


@dataclass(frozen=True)
class StepProfile:
    """Where the time of one training step went: seconds by group, the largest first; a step's images; the machine."""

    seconds: dict[str, float]
    batch_size: int
    steps: int
    threads: int
    hardware: str

    @property
    def total(self) -> float:
        """Seconds of a step, as the profiler counts them."""
        return sum(self.seconds.values())

    def share(self, group: str) -> float:
        """The fraction of a step that a group takes."""
        return self.seconds.get(group, 0.0) / self.total


def profile_step(config: RunConfig, images: ImageSet, steps: int = 4, device: str = "auto") -> StepProfile:
    """Take some steps of a run under torch.profiler, after two to warm up, and add the operators up by group.

    Nothing is kept of the run. A profiled step is a little slower than a free one; the shares are what counts."""
    where = train.resolve_device(device)
    config = config.with_precision(train.native_precision(where))
    run = train._Run(config, images.to(where), images, where)
    opened: list[record_function] = []

    def begin(*_: Any) -> None:
        opened.append(record_function("tpsnet: forward").__enter__())  # type: ignore[no-untyped-call]

    def end(*_: Any) -> None:
        opened.pop().__exit__(None, None, None)

    for _ in range(2):
        run.take_step()
    hooks = [run.model.register_forward_pre_hook(begin), run.model.register_forward_hook(end)]
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if where.type == "cuda" else [])
    with _quiet(), profile(activities=activities, acc_events=True) as profiler:
        for _ in range(steps):
            with record_function("tpsnet: step"):
                run.take_step()
    for hook in hooks:
        hook.remove()
    found = profiler.events() or []
    events = [
        (event.name, event.time_range.start, event.self_cpu_time_total, event.self_device_time_total) for event in found
    ]
    on_device = where.type == "cuda"
    seconds = group_events([(name, at, device_us if on_device else cpu_us) for name, at, cpu_us, device_us in events])
    each = {group: value / steps for group, value in seconds.items()}
    return StepProfile(each, run.batch, steps, torch.get_num_threads(), hardware(where))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing on standard error, not even from the profiler's own library, which greets there."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def group_events(events: Iterable[tuple[str, float, float]]) -> dict[str, float]:
    """Seconds by group, largest first, of events (name, start, self time in microseconds) of whole steps.

    What begins after a step's start and before its forward pass made the batch: `DATA`."""
    ordered = sorted(events, key=lambda event: event[1])
    seconds = dict.fromkeys([*GROUPS, DATA, OTHER], 0.0)
    preparing = False
    for name, _, microseconds in ordered:
        if name.startswith("tpsnet: "):
            preparing = name == "tpsnet: step"
            group = OTHER  # the Python in between
        elif preparing:
            group = DATA
        else:
            group = next((group for group, pattern in GROUPS.items() if re.search(pattern, name, re.I)), OTHER)
        seconds[group] += microseconds / 1e6
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


def said_of_profile(step: StepProfile) -> str:
    """A sentence on where a step's time goes."""
    convolutions = step.share("convolution, forward") + step.share("convolution, backward")
    others = {group: value for group, value in step.seconds.items() if not group.startswith("convolution")}
    largest = max(others, key=lambda group: others[group])
    return (
        f"A step of {step.batch_size} images takes {1000 * step.total:.0f} ms here (on {step.threads}"
        f" thread{'s' if step.threads > 1 else ''}):"
        f" **{convolutions:.0%} of it is convolutions**, {step.share(DATA):.1%} is drawing and augmenting the batch."
        f" The largest of the rest is {largest}, {step.share(largest):.0%}."
    )


# What a run took ----------------------------------------------------------------------------------------------------


def training_flops(config: RunConfig, images: float) -> float:
    """Floating-point operations of training on so many images (an image counts each time it is shown)."""
    return FLOPS_PER_MAC * count_macs(config.model) * images


def cost(record: Record) -> dict[str, float]:
    """What a run took: `minutes`, `images` shown, `petaflop` in all, and `gflops`, the rate it sustained."""
    seconds = record.metrics["seconds"]
    images = seconds * record.metrics["images_per_second"]
    flops = training_flops(record.config, images)
    return {"minutes": seconds / 60, "images": images, "petaflop": flops / 1e15, "gflops": flops / seconds / 1e9}


def said_of_cost(record: Record, original: RunConfig, images: int) -> str:
    """What the run took, and what the original's would take at the same rate, in a sentence.

    `images`: training images of the original's epoch."""
    spent = cost(record)
    theirs = training_flops(original, images * original.train.epochs)
    days = theirs / (spent["gflops"] * 1e9) / 86400
    return (
        f"This run showed {spent['images']:,.0f} images in {duration(record.metrics['seconds'])}:"
        f" {spent['petaflop']:.3g} PFLOP at {spent['gflops']:,.0f} GFLOP/s on {record.hardware}. The original's"
        f" {original.train.epochs:.0f} epochs of {images:,} images come to {theirs / 1e15:.0f} PFLOP,"
        f" **{theirs / 1e15 / spent['petaflop']:,.0f} times as much**; at the same rate, {24 * days:.0f} hours."
    )


# A fresh run --------------------------------------------------------------------------------------------------------


def fresh_store(folder: str | Path | None = None) -> Store:
    """A store that is empty and this moment's own, so that what is asked of it is trained anew.

    It lies in `folder`, by default the project's `report/local/fresh`, under the time in UTC."""
    base = Path(folder) if folder else project_root() / "report" / "local" / "fresh"
    return Store(base.resolve() / datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ"))


def latest_fresh(folder: str | Path | None = None) -> Record | None:
    """The newest record that was trained afresh, or None."""
    base = Path(folder) if folder else project_root() / "report" / "local" / "fresh"
    newest = max(base.glob("*/*/config.json"), key=str, default=None)
    return None if newest is None else read_record(newest.parent)


def declared_run(experiment: str, dataset: str) -> RunConfig:
    """The first run that an experiment declares on a data set.

    Where it declares none, its first run moved there: no experiment declares that, so its test set stays shut."""
    configs = [run.config for run in load_experiment(experiment).runs]
    moved = replace(configs[0], data=replace(configs[0].data, dataset=dataset))
    return next((config for config in configs if config.data.dataset == dataset), moved)


def said_of_run(record: Record, n: int) -> str:
    """What a run reached on the n validation images, with its Wilson interval, in how long, in a sentence."""
    reached = float(record.metrics["validation_accuracy"])
    low, high = metrics.wilson(round(reached * n), n)
    return (
        f"After {record.metrics['epochs']:g} epochs and {duration(record.metrics['seconds'])}, a network of"
        f" {record.metrics['parameters']:,} parameters gets **{100 * reached:.2f}%** of {n:,} {record.stamp} validation"
        f" images right (95% interval {100 * low:.2f} to {100 * high:.2f}; one seed)."
    )


def said_of_test(record: Record, test: TestResult, n: int) -> str:
    """What the test set said, with its interval, beside what n validation images had said, in a sentence."""
    said = test.metrics
    expected = float(record.metrics["validation_accuracy"])
    low, high = metrics.wilson(round(expected * n), n)
    inside = "within" if low <= said["accuracy"] <= high else "outside"
    text = (
        f"On the {said['n']:,} test images of {said['fingerprint']['stamp']}, opened once:"
        f" **{100 * said['accuracy']:.2f}%** ({100 * said['low']:.2f} to {100 * said['high']:.2f}). Validation had said"
        f" {100 * expected:.2f}%; the test result lies {inside} that one's interval."
    )
    if "exact_n" in said:
        text += (
            f" On the {said['exact_n']:,} images with exactly the original pixels: {100 * said['exact_accuracy']:.2f}%."
        )
    return text


# Beside others ------------------------------------------------------------------------------------------------------

_NUMBERS = ("parameters", "macs", "accuracy", "n", "epochs", "minutes")


def published(path: Path | None = None) -> list[dict[str, Any]]:
    """The published results that ours are beside, from `report/published.csv`; a number that is not known is None.

    `accuracy` is a fraction, `n` the number of test images or of runs as `n_of` says, `minutes` those of training,
    `checked` whether the figure was read at its source. Counts of a named member of the family are computed."""
    path = path or project_root() / "report" / "published.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    for row in rows:
        row.update({name: float(row[name]) if row[name] else None for name in _NUMBERS})
        if member := MEMBERS.get(row["member"]):
            row.update(parameters=count_parameters(member), macs=count_macs(member))
    return rows


def our_row(record: Record, test: TestResult | None, name: str) -> dict[str, Any]:
    """A record in the form of `published`'s rows: its test accuracy with the interval, None while that is not open."""
    said: Mapping[str, Any] = test.metrics if test is not None else {}
    return {
        "model": name,
        "parameters": record.metrics["parameters"],
        "macs": record.metrics["macs"],
        "accuracy": said.get("accuracy"),
        "low": said.get("low"),
        "high": said.get("high"),
        "epochs": record.metrics["epochs"],
        "minutes": record.metrics["seconds"] / 60,
        "hardware": record.hardware,
        "source": f"record {record.id}",
        "stamp": record.stamp,
    }


def final_rows(store: Store, but: str = "") -> list[dict[str, Any]]:
    """A row for every CIFAR-10 record of an experiment declared final, except the one of id `but`."""
    rows = []
    for path in sorted(experiments_folder().glob("*.yaml")):
        if not read_yaml(path).get("final"):  # a search takes seconds to draw
            continue
        experiment = load_experiment(path)
        for run, record in collect(experiment, store):
            if record is None or record.failed or record.id == but or not record.stamp.startswith("CIFAR-10"):
                continue
            rows.append(our_row(record, find_test(record, store), f"ours, {experiment.name} (seed {run.config.seed})"))
    return rows


def as_table(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Rows of published and own results as a table's text, best first; what is not known, or not opened, is a dash."""

    def said(row: Mapping[str, Any], name: str, form: str, scale: float = 1.0) -> str:
        return "–" if row.get(name) is None else format(row[name] / scale, form)

    return [
        {
            "model": row["model"],
            "parameters (M)": said(row, "parameters", ".2f", 1e6),
            "test accuracy (%)": said(row, "accuracy", ".2f", 0.01)
            + (f" ({100 * row['low']:.2f} to {100 * row['high']:.2f})" if row.get("low") is not None else ""),
            "epochs": said(row, "epochs", "g"),
            "minutes": said(row, "minutes", ".2g") + (f" ({row['hardware']})" if row.get("minutes") else ""),
            "with": row.get("what") or "–",
            "source": row["source"] + ("" if row.get("checked") != "no" else ", not read"),
        }
        for row in sorted(rows, key=lambda row: -(row["accuracy"] or 0))
    ]


def frontier(rows: Sequence[Mapping[str, Any]], cost_name: str) -> list[Mapping[str, Any]]:
    """The rows that no other beats at equal or lower cost, by rising cost (Pareto); rows without both are left out."""
    known = [row for row in rows if row.get(cost_name) is not None and row.get("accuracy") is not None]
    best: list[Mapping[str, Any]] = []
    for row in sorted(known, key=lambda row: (row[cost_name], -row["accuracy"])):
        if not best or row["accuracy"] > best[-1]["accuracy"]:
            best.append(row)
    return best


def said_of_rank(row: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    """Where a result stands among published ones within the budget of parameters, in a sentence."""
    rivals = [other for other in others if other["accuracy"] is not None and other["parameters"] <= PARAMETER_BUDGET]
    if row["accuracy"] is None or not str(row["stamp"]).startswith("CIFAR-10"):
        return (
            f"The {len(rivals)} published networks of the table have no rival here: no CIFAR-10 test result was opened."
        )
    ahead = [other for other in rivals if other["accuracy"] > row["accuracy"]]
    within = [other for other in rivals if row["low"] <= other["accuracy"] <= row["high"]]
    return (
        f"{row['model']} reaches {100 * row['accuracy']:.2f}% on the test images ({100 * row['low']:.2f} to"
        f" {100 * row['high']:.2f}) in {row['minutes']:.1f} minutes: {len(ahead)} of the {len(rivals)} published"
        f" results within the budget are above it, {len(within)} within its interval."
    )
