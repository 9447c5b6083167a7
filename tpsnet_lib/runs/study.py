"""The study of the original's family at 310,000 parameters, declared from the learning rates that its first half found.

`python -m tpsnet_lib.runs.study` writes `report/experiments/study_*.yaml` for the architectures of which each rate of
`study_rates` has a record. An experiment is written once: its seeds and rates do not change after its first run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from tpsnet_lib.files import write_whole
from tpsnet_lib.model_cost import count_macs, count_parameters
from tpsnet_lib.plain_yaml import read_yaml
from tpsnet_lib.runs.experiments import collect, experiments_folder, load_experiment
from tpsnet_lib.runs.records import Record, Store, default_store

RATES = "study_rates"
TEN, FIVE, THREE = tuple(range(10)), tuple(range(5)), tuple(range(3))
DROPOUTS = {"dropout 0.2": {"dropout": 0.2}, "block dropout 0.2": {"block_dropout": 0.2}}
BASE = "{{train: {{recipe: original, epochs: {epochs}, warmup_epochs: {warmup}, precision: bf16}}}}"


@dataclass(frozen=True)
class Part:
    """An experiment of the study: its question, its runs as (label, architecture, changes of the model), seeds, epochs.

    An architecture is a label of `study_rates`; a twelfth of each run warms up."""

    question: str
    runs: tuple[tuple[str, str, Mapping[str, Any]], ...]
    seeds: tuple[int, ...] = FIVE
    epochs: float = 12.0


def _same(*labels: str) -> tuple[tuple[str, str, Mapping[str, Any]], ...]:
    return tuple((label, label, {}) for label in labels)


PARTS = {  # in the order in which they are to be run
    "study_control": Part("How accurate is the network that the others are set beside?", _same("B=1"), TEN),
    "study_blocks": Part(
        "How many blocks a layer, odd or even, at matched parameters?", _same(*(f"B={n}" for n in range(2, 7)))
    ),
    "study_layers": Part("How many residual layers, at matched parameters?", _same("N=2", "N=4")),
    "study_width": Part(
        "Is wider better at a fixed depth, at one block a layer and at three?", _same("B=1, wide", "B=3, wide")
    ),
    "study_dropout": Part(
        "Does dropout lower the error, before the classifier or inside the blocks?",
        tuple((f"B=1, {name}", "B=1", change) for name, change in DROPOUTS.items()),
    ),
    "study_long": Part(
        "Does the deep, narrow network gain more from a longer run?",
        tuple((f"B={blocks}, 48 epochs", f"B={blocks}", {}) for blocks in (1, 3, 5)),
        THREE,
        48.0,
    ),
    "study_dropout_long": Part(
        "Does dropout lower the error of a longer run, which has more to overfit?",
        tuple((f"B=1, {name}, 48 epochs", "B=1", change) for name, change in DROPOUTS.items()),
        THREE,
        48.0,
    ),
    "study_plain": Part(
        "What are the skips worth, at several depths?", _same(*(f"B={blocks}, plain" for blocks in (1, 3, 5)))
    ),
    "study_kernels": Part("Which convolution kernel, at matched parameters?", _same("F=1", "F=5")),
    "study_skip_kernels": Part("Does a larger kernel on the skips help, at matched parameters?", _same("K=3")),
}


def best_rates(store: Store) -> dict[str, Record]:
    """The record of the best rate of each architecture of `study_rates`: highest validation accuracy, then lowest rate.

    A run that diverged is not the best. An architecture of which a rate has no record yet is left out."""
    return {
        name: min(records, key=lambda r: (-float(r.metrics["validation_accuracy"]), r.config.train.lr))
        for name, records in _finished(store).items()
    }


def _finished(store: Store) -> dict[str, list[Record]]:
    """The finished runs of each architecture of which every rate has a record."""
    by_architecture: dict[str, list[Record | None]] = {}
    for run, record in collect(load_experiment(RATES), store):
        by_architecture.setdefault(_architecture(run.label), []).append(record)
    complete = {
        name: [r for r in records if r is not None] for name, records in by_architecture.items() if None not in records
    }
    finished = {name: [record for record in records if not record.failed] for name, records in complete.items()}
    return {name: records for name, records in finished.items() if records}


def study_experiments(store: Store) -> dict[str, str]:
    """The YAML of every experiment of the study whose architectures have their learning rates, by name."""
    best = best_rates(store)
    seconds = {name: min(float(r.metrics["seconds"]) for r in records) for name, records in _finished(store).items()}
    return {
        name: _declaration(part, priority, best, seconds)
        for priority, (name, part) in enumerate(PARTS.items(), load_experiment(RATES).priority + 1)
        if all(architecture in best for _, architecture, _ in part.runs)
    }


def _architecture(label: str) -> str:
    """`B=1, wide, train.lr=0.05` is a run of the architecture `B=1, wide`."""
    return label.rpartition(", train.lr=")[0]


def _declaration(part: Part, priority: int, best: Mapping[str, Record], seconds: Mapping[str, float]) -> str:
    """The YAML of a part. `seconds` are those of each architecture's fastest run: others shared the machine."""
    models = {run["label"]: run["model"] for run in read_yaml(experiments_folder() / f"{RATES}.yaml")["runs"]}
    rates = sorted({run.config.train.lr for run in load_experiment(RATES).runs})
    lines, minutes = [], []
    for label, architecture, change in part.runs:
        record = best[architecture]
        rate, model = record.config.train.lr, record.config.model
        model_text = _flow({**models[architecture], **change})
        size = f"{count_parameters(model):,} parameters, {count_macs(model) / 1e6:.1f} MMAC"
        border = f"; {rate:g} is at the border of the range tried" if rate in (rates[0], rates[-1]) else ""
        lines.append(
            f"  - {{label: {json.dumps(label)}, model: {model_text}, train: {{lr: {rate:g}}}}}  # {size}{border}"
        )
        minutes.append(seconds[architecture] / 60 * part.epochs / record.config.train.epochs)
    return "\n".join(
        [
            f"question: {part.question} (310,000 parameters, {part.epochs:g} epochs, each rate from {RATES})",
            "needs: cpu",
            f"priority: {priority}",
            f"minutes: {fmean(minutes):.0f}  # on one core, by the fastest runs that chose the rate",
            f"base: {BASE.format(epochs=part.epochs, warmup=part.epochs / 12)}",
            f"seeds: {list(part.seeds)}",
            "runs:",
            *lines,
            "",
        ]
    )


def _flow(tree: Mapping[str, Any]) -> str:
    """A mapping of numbers and lists as YAML on one line."""
    return "{" + ", ".join(f"{key}: {json.dumps(value)}" for key, value in tree.items()) + "}"


def main() -> None:
    """Write the experiments that can be declared and are not yet, and print what was written."""
    for name, text in study_experiments(default_store()).items():
        path = experiments_folder() / f"{name}.yaml"
        if not path.exists():
            write_whole(path, text)
            print(path)


if __name__ == "__main__":
    main()
