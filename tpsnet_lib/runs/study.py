"""The study of the original's family (`report/study.yaml`), declared with the learning rates that its first half found.

`python -m tpsnet_lib.runs.study` writes `report/experiments/study_*.yaml` for the architectures of which each rate of
`study_rates` has a record. An experiment is written once: its seeds and rates do not change after its first run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from tpsnet_lib.files import project_root
from tpsnet_lib.model_cost import count_macs, count_parameters
from tpsnet_lib.plain_yaml import read_yaml
from tpsnet_lib.runs.experiments import collect, experiments_folder, load_experiment
from tpsnet_lib.runs.records import Record, Store, default_store
from tpsnet_lib.whole_files import write_whole

RATES = "study_rates"
RATES_BEYOND = "study_rates_beyond"  # a larger one, for a network whose best of `RATES` was the largest
RATES_OF_ADAM = ("study_adam_rates", "study_adam_rates_beyond")
BASE = "{{train: {{recipe: original, epochs: {epochs}, warmup_epochs: {warmup}, precision: bf16}}}}"


@dataclass(frozen=True)
class StudyPart:
    """An experiment of the study, as `report/study.yaml` explains it; a twelfth of each run warms up."""

    question: str
    runs: Mapping[str, Mapping[str, Any]]
    seeds: int = 5
    epochs: float = 12
    size: str = "310,000 parameters"

    @property
    def architectures(self) -> dict[str, str]:
        """Each run's architecture, by label."""
        return {label: change.get("of", label) for label, change in self.runs.items()}


def parts() -> dict[str, StudyPart]:
    """The experiments of the study by name, in the order in which they are to be run."""
    return {name: StudyPart(**tree) for name, tree in read_yaml(project_root() / "report" / "study.yaml").items()}


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
    for run, record in collect(RATES, store):  # the label `B=1, wide, train.lr=0.05` is of `B=1, wide`
        by_architecture.setdefault(run.label.rpartition(", train.lr=")[0], []).append(record)
    complete = {name: records for name, records in by_architecture.items() if None not in records}
    finished = {name: [r for r in records if r is not None and not r.failed] for name, records in complete.items()}
    return {name: records for name, records in finished.items() if records}


def study_experiments(store: Store) -> dict[str, str]:
    """The YAML of every experiment of the study whose architectures have their learning rates, by name."""
    best, finished = best_rates(store), _finished(store)
    seconds = {name: min(float(r.metrics["seconds"]) for r in records) for name, records in finished.items()}
    return {
        name: _declaration(part, priority, best, seconds)
        for priority, (name, part) in enumerate(parts().items(), load_experiment(RATES).priority + 1)
        if set(part.architectures.values()) <= best.keys()
    }


def _declaration(part: StudyPart, priority: int, best: Mapping[str, Record], seconds: Mapping[str, float]) -> str:
    """The YAML of a part. `seconds` are those of each architecture's fastest run: others shared the machine."""
    models = {run["label"]: run["model"] for run in read_yaml(experiments_folder() / f"{RATES}.yaml")["runs"]}
    rates = sorted({run.config.train.lr for run in load_experiment(RATES).runs})
    lines, minutes = [], []
    for label, architecture in part.architectures.items():
        record = best[architecture]
        changes = {key: value for key, value in part.runs[label].items() if key != "of"}
        rate, model = record.config.train.lr, replace(record.config.model, **changes)
        fields = {**models[architecture], **changes}
        model_text = ", ".join(f"{key}: {json.dumps(value)}" for key, value in fields.items())
        size = f"{count_parameters(model):,} parameters, {count_macs(model) / 1e6:.1f} MMAC"
        border = f"; {rate:g} is at the border of the range tried" if rate in (rates[0], rates[-1]) else ""
        run = f"label: {json.dumps(label)}, model: {{{model_text}}}, train: {{lr: {rate:g}}}"
        lines.append(f"  - {{{run}}}  # {size}{border}")
        minutes.append(seconds[architecture] / 60 * part.epochs / record.config.train.epochs)
    varied = any("of" in change and len(change) > 1 for change in part.runs.values())
    rate_of = "each rate that of the network that is varied," if varied else "each rate"
    head = f"""\
question: {part.question} ({part.size}, {part.epochs:g} epochs, {rate_of} from {RATES})
needs: cpu
priority: {priority}
minutes: {fmean(minutes):.0f}  # on one core, by the fastest runs that chose the rate
base: {BASE.format(epochs=float(part.epochs), warmup=part.epochs / 12)}
seeds: {list(range(part.seeds))}
runs:
"""
    return head + "\n".join([*lines, ""])


def main() -> None:
    """Write the experiments that can be declared and are not yet, and print what was written."""
    for name, text in study_experiments(default_store()).items():
        path = experiments_folder() / f"{name}.yaml"
        if not path.exists():
            write_whole(path, text)
            print(path)


if __name__ == "__main__":
    main()
