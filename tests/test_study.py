"""The experiments of the study use the learning rates that the records of `study_rates` choose, and no others."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tpsnet_lib.config import RunConfig
from tpsnet_lib.model_cost import count_macs, count_parameters
from tpsnet_lib.runs import study
from tpsnet_lib.runs.experiments import Experiment, collect, experiments_folder, load_experiment
from tpsnet_lib.runs.publish import write_trials
from tpsnet_lib.runs.records import Record, Store, default_store

PROVENANCE = {"fingerprint": {"stamp": "CIFAR-10"}, "hardware": "a machine"}
PARTS = study.parts()
DECLARED = sorted(set(PARTS) & {path.stem for path in experiments_folder().glob("study_*.yaml")})


def rates_store(folder: Path, accuracy: Callable[[str, RunConfig], float | None]) -> Store:
    """A store with the records of `study_rates`, each 60 seconds long; None leaves one out."""
    records = []
    for run in load_experiment("study_rates").runs:
        if (value := accuracy(run.label, run.config)) is not None:
            metrics = {"validation_accuracy": value, "seconds": 60.0}
            records.append(Record(Path(), run.config, metrics, PROVENANCE, ()))
    write_trials(folder / "all.trials.jsonl", records)
    return Store(folder)


def experiments(store: Store, folder: Path) -> dict[str, Experiment]:
    """The experiments of the study, read back from their YAML."""
    for name, text in study.study_experiments(store).items():
        (folder / f"{name}.yaml").write_text(text, "utf-8")
    return {path.stem: load_experiment(path) for path in folder.glob("study_*.yaml")}


def test_each_architecture_gets_its_best_rate_and_of_equal_ones_the_lower(tmp_path: Path) -> None:
    def accuracy(label: str, config: RunConfig) -> float:
        best = 0.7 if label.startswith("B=2,") else 0.05
        equal = label.startswith("B=1,") and config.train.lr == 0.12
        return 0.8 if config.train.lr == best or equal else 0.7

    store = rates_store(tmp_path, accuracy)
    declared = experiments(store, tmp_path)
    assert declared.keys() == PARTS.keys()
    for name, experiment in declared.items():
        part = PARTS[name]
        assert {run.label for run in experiment.runs} == set(part.runs)
        for run in experiment.runs:
            train = run.config.train
            assert train.lr == (0.7 if run.label == "B=2" else 0.05)
            assert (train.epochs, train.warmup_epochs, train.precision) == (part.epochs, part.epochs / 12, "bf16")
            assert run.config.data.train_size in (None, 0)
            if "MACs" in part.size:
                assert count_macs(run.config.model) == pytest.approx(44.5e6, rel=0.01)
                continue
            wanted = 620_000 if "wide" in run.label else 310_000
            assert count_parameters(run.config.model) == pytest.approx(wanted, rel=0.03)
    assert [run.config.seed for run in declared["study_control"].runs] == list(range(10))
    assert len(declared["study_blocks"].runs) == 5 * 5
    assert len(declared["study_long"].runs) == 3 * 3
    assert declared["study_blocks"].minutes == 4
    assert declared["study_dropout"].runs[0].config.model.dropout == 0.2
    assert declared["study_dropout"].runs[-1].config.model.block_dropout == 0.2
    texts = study.study_experiments(store)
    assert texts["study_blocks"].count("0.7 is at the border of the range tried") == 1
    assert "border" not in texts["study_control"]


def test_what_has_no_rate_yet_is_not_declared(tmp_path: Path) -> None:
    store = rates_store(tmp_path, lambda label, config: None if "B=6, train.lr=0.7" in label else 0.7)
    names = study.study_experiments(store).keys()
    assert names == PARTS.keys() - {"study_blocks"}


def test_a_label_is_of_one_experiment_of_the_study() -> None:
    """Analysis finds the study's runs by their labels alone: one that two experiments have would join their runs."""
    labels = [label for part in PARTS.values() for label in part.runs]
    assert len(labels) == len(set(labels))


@pytest.mark.parametrize("name", DECLARED)
def test_a_declared_experiment_has_the_rates_that_the_records_choose(name: str) -> None:
    best = study.best_rates(default_store())
    architectures = PARTS[name].architectures
    assert set(architectures.values()) <= best.keys(), "declared before its learning rates have records"
    for run in load_experiment(name).runs:
        assert run.config.train.lr == best[architectures[run.label]].config.train.lr
    (path,) = experiments_folder().glob(f"{name}.yaml")
    assert path.read_text("utf-8") == study.study_experiments(default_store())[name]


def test_adam_has_the_optimizer_and_the_rate_that_were_best_when_they_were_tried() -> None:
    store = default_store()
    tried = [record for name in study.RATES_OF_ADAM for _, record in collect(name, store) if record]
    tried = [record for record in tried if not record.failed]
    best = max(tried, key=lambda record: record.metrics["validation_accuracy"]).config
    for run in load_experiment("study_adam").runs:
        assert (run.config.train.optimizer, run.config.train.lr) == (best.train.optimizer, best.train.lr)
        assert (run.config.model, run.config.train.epochs) == (best.model, 4 * best.train.epochs)
        assert run.config.seed != best.seed
