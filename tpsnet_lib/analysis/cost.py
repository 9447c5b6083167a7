"""What accuracy costs: what a run took, what it says for itself, and where it stands beside what others paid."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tpsnet_lib import metrics
from tpsnet_lib.analysis.final_runs import Final, finals
from tpsnet_lib.config import IMAGE_SIZE, MEMBERS, PARAMETER_BUDGET, RunConfig
from tpsnet_lib.files import project_root
from tpsnet_lib.model_cost import count_macs, count_parameters
from tpsnet_lib.progress import duration
from tpsnet_lib.runs.experiments import load_experiment
from tpsnet_lib.runs.records import Record, Store, held_out, read_record
from tpsnet_lib.runs.test_set import TestResult

FLOPS_PER_MAC = 6  # a multiplication and an addition, once forward and twice backward (to the inputs, to the weights)

# What a run took ----------------------------------------------------------------------------------------------------


def training_flops(config: RunConfig, images: float) -> float:
    """Floating-point operations of training on so many images (an image counts each time it is shown); smaller ones, of
    the first epochs, count by their area."""
    recipe = config.train
    small = min(1.0, recipe.small_epochs / recipe.epochs)
    area = (recipe.small_size / IMAGE_SIZE) ** 2
    return FLOPS_PER_MAC * count_macs(config.model) * images * (1 - small * (1 - area))


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
    """What a run reached on the n validation images, with its Wilson interval, in how long, in a sentence.

    Of a run that was fitted on them too nothing can be said yet, and that is what is said."""
    ran = (
        f"After {record.metrics['epochs']:g} epochs and {duration(record.metrics['seconds'])}, a network of"
        f" {record.metrics['parameters']:,} parameters"
    )
    reached = held_out(record)
    if reached is None:
        return f"{ran} is fitted on every {record.stamp} training image: **none was kept out to say what it is worth**."
    low, high = metrics.wilson(round(reached * n), n)
    return (
        f"{ran} gets **{100 * reached:.2f}%** of {n:,} {record.stamp} validation images right (95% interval"
        f" {100 * low:.2f} to {100 * high:.2f}; one seed)."
    )


def said_of_test(record: Record, test: TestResult, n: int) -> str:
    """What the test set said, with its interval, beside what n validation images had said if they were kept out, in a
    sentence."""
    said = test.metrics
    text = (
        f"On the {said['n']:,} test images of {said['fingerprint']['stamp']}, opened once:"
        f" **{100 * said['accuracy']:.2f}%** ({100 * said['low']:.2f} to {100 * said['high']:.2f})."
    )
    if (expected := held_out(record)) is not None:
        low, high = metrics.wilson(round(expected * n), n)
        inside = "within" if low <= said["accuracy"] <= high else "outside"
        text += f" Validation had said {100 * expected:.2f}%; the test result lies {inside} that one's interval."
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


def final_row(final: Final) -> dict[str, Any]:
    """A recipe's result in the form of `published`'s rows: test accuracy with its interval, None while that is not
    open; `minutes` of one run, and `minutes_range` over its seeds."""
    accuracy, low, high = (None if math.isnan(value) else value for value in final.interval())
    minutes, *ends = final.minutes
    first, ids = final.records[0], [record.id for record in final.counted]
    tests = [test for _, test in final.opened]
    return {
        "model": final.name,
        "parameters": first.metrics["parameters"],
        "macs": first.metrics["macs"],
        "accuracy": accuracy,
        "low": low,
        "high": high,
        "n": len(tests) if len(tests) > 1 else tests[0].metrics["n"] if tests else None,
        "n_of": "seeds" if len(tests) > 1 else "images",
        "epochs": first.metrics["epochs"],
        "minutes": minutes,
        "minutes_range": tuple(ends),
        "hardware": final.hardware,
        "source": f"record{'s' if len(ids) > 1 else ''} {', '.join(ids)}",
        "stamp": first.stamp,
        "records": final.counted,
    }


def our_row(record: Record, test: TestResult | None, name: str) -> dict[str, Any]:
    """One record in the form of `final_row`."""
    return final_row(Final(name, (record,), (test,)))


def final_rows(store: Store, but: str = "") -> list[dict[str, Any]]:
    """A row for every recipe of CIFAR-10 that is declared final and has records, without the record of id `but`."""
    return [final_row(replace(final, name=f"ours, {final.name}")) for final in finals(store, but)]


def as_table(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Rows of published and own results as a table's text, best first; what is not known, or not opened, is a dash."""

    def said(row: Mapping[str, Any], name: str, form: str, scale: float = 1.0) -> str:
        return "–" if row.get(name) is None else format(row[name] / scale, form)

    def minutes(row: Mapping[str, Any]) -> str:
        if row.get("minutes") is None:
            return "–"
        mean, least, most = (
            format(value, ".2g" if value < 10 else ".0f")
            for value in (row["minutes"], *row.get("minutes_range", (0, 0)))
        )
        return f"{mean} ({row['hardware']}" + (f", {least} to {most} by seed)" if least != most else ")")

    return [
        {
            "model": row["model"],
            "parameters (M)": said(row, "parameters", ".2f", 1e6),
            "test accuracy (%)": said(row, "accuracy", ".2f", 0.01)
            + (f" ({100 * row['low']:.2f} to {100 * row['high']:.2f})" if row.get("low") is not None else ""),
            "n": said(row, "n", ",.0f") + (f" {row['n_of']}" if row.get("n") else ""),
            "epochs": said(row, "epochs", "g"),
            "minutes": minutes(row),
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
    interval = f"{100 * row['low']:.2f} to {100 * row['high']:.2f}; {row['n']:,} {row['n_of']}"
    return (
        f"{row['model']} reaches {100 * row['accuracy']:.2f}% on the test images ({interval})"
        f" in {row['minutes']:.1f} minutes: {len(ahead)} of the {len(rivals)} published results within the budget are"
        f" above it, {len(within)} within its interval."
    )
