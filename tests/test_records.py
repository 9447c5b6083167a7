"""A record is whole and true, or it is refused in one line; nothing that was measured is lost or measured twice."""

import json
import multiprocessing
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import QUIET, tiny

from tpsnet_lib.checkpoint import write_checkpoint
from tpsnet_lib.data.datasets import fit_and_validation
from tpsnet_lib.errors import RecordError, TrainingError
from tpsnet_lib.metrics import accuracy, predict, temperature
from tpsnet_lib.runs import provenance
from tpsnet_lib.runs.load_or_run import load_or_run
from tpsnet_lib.runs.provenance import commit
from tpsnet_lib.runs.publish import publish_record, write_trials
from tpsnet_lib.runs.record_files import check_sums, checked_provenance, write_failure, write_sums
from tpsnet_lib.runs.records import Record, Store, read_record, read_trials, rows
from tpsnet_lib.train import TrainOptions, training_steps


def test_a_record_reads_back_what_was_measured(tiny_record: Record) -> None:
    config = tiny()
    assert tiny_record.config == config
    assert tiny_record.id == config.id == tiny_record.path.name
    assert (tiny_record.stamp, len(tiny_record.history())) == ("shapes10", 2)
    _, validation = fit_and_validation(config.data)
    logits = predict(tiny_record.load_model(), validation.images)
    assert accuracy(logits, validation.labels) == tiny_record.metrics["validation_accuracy"]
    for key in ("started", "finished", "host", "command", "commit", "hardware", "threads", "versions"):
        assert tiny_record.provenance[key]
    (row,) = rows([tiny_record])
    assert (row["model.blocks"], row["train.lr"], row["seed"]) == ((1, 1), 0.05, 0)


def test_hardware_has_one_short_name(tiny_record: Record) -> None:
    made = {"hardware": "Intel(R) Xeon(R) Processor, 2 cores with AMX"}
    assert replace(tiny_record, provenance=made).hardware == "Intel Xeon, 2 cores with AMX"
    assert replace(tiny_record, provenance={"hardware": "AMD EPYC, 2 cores"}).hardware == "AMD EPYC, 2 cores"


def test_only_a_run_that_kept_validation_images_out_has_a_temperature(tiny_record: Record, tmp_path: Path) -> None:
    model, (_, validation) = tiny_record.load_model(), fit_and_validation(tiny_record.config.data)
    logits = predict(model, validation.images, precision=tiny_record.config.train.precision)
    assert tiny_record.metrics["temperature"] == pytest.approx(temperature(logits, validation.labels), 1e-3)
    fitted = replace(tiny_record.config, data=replace(tiny_record.config.data, fit_on="all"))
    assert "temperature" not in load_or_run(fitted, QUIET, store=Store(tmp_path)).metrics


def test_a_run_that_has_a_record_is_not_trained_again(tiny_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tpsnet_lib.runs.load_or_run.training_steps", lambda *_, **__: pytest.fail("trained again"))
    assert load_or_run(tiny(), QUIET, store=tiny_store, keep_weights=True).id == tiny().id


def test_a_copy_on_another_machine_can_be_told_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "project_root", lambda: tmp_path)  # no folder of git
    monkeypatch.delenv("TPSNET_COMMIT", raising=False)
    assert provenance.commit() == "unknown"
    monkeypatch.setenv("TPSNET_COMMIT", "0123456789ab+")
    assert provenance.commit() == "0123456789ab+"


@pytest.mark.parametrize("name", ["config.json", "history.csv", "metrics.json", "provenance.json"])
def test_an_altered_part_is_named(name: str, record_copy: Path) -> None:
    path = record_copy / name
    path.write_text(path.read_text().replace("0", "1", 1))
    with pytest.raises(RecordError, match=f"{name} is altered"):
        read_record(record_copy)


def test_a_half_written_record_is_refused(record_copy: Path) -> None:
    (record_copy / "metrics.json").unlink()
    with pytest.raises(RecordError, match=r"metrics\.json is missing"):
        read_record(record_copy)
    (record_copy / "SHA256SUMS").unlink()
    with pytest.raises(RecordError, match="half-written"):
        read_record(record_copy)


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(RecordError, match="started is 'yesterday', no date and time"):
        checked_provenance("row 1", {"started": "yesterday", "fingerprint": {"stamp": "CIFAR-10"}})


def test_a_record_under_another_id_is_refused(record_copy: Path) -> None:
    other = record_copy.rename(record_copy.with_name("0123456789ab"))
    with pytest.raises(RecordError, match="its config hashes to"):
        read_record(other)


def test_weights_that_do_not_fit_are_refused(record_copy: Path, tmp_path: Path) -> None:
    other = load_or_run(tiny(train__epochs=0.25), QUIET, store=Store(tmp_path / "other"), keep_weights=True)
    weights = record_copy / "weights.safetensors"
    weights.write_bytes((other.path / "weights.safetensors").read_bytes())
    with pytest.raises(RecordError, match="is altered"):
        read_record(record_copy).load_model()
    write_sums(record_copy)
    with pytest.raises(RecordError, match=f"holds the weights of run {other.id}"):
        read_record(record_copy).load_model()
    weights.write_bytes(weights.read_bytes()[:50])
    write_sums(record_copy)
    with pytest.raises(RecordError, match="not a whole safetensors file"):
        read_record(record_copy).load_model()


def test_publishing_keeps_the_numbers_and_halves_the_weights(tiny_record: Record, tmp_path: Path) -> None:
    path = publish_record(tiny_record, tmp_path, weights=True)
    published = read_record(path)
    check_sums(path, ["weights.safetensors"])
    assert published.metrics == tiny_record.metrics
    for name, value in published.load_model().state_dict().items():
        assert torch.allclose(value.float(), tiny_record.load_model().state_dict()[name].float(), rtol=1e-3, atol=1e-4)
    assert publish_record(tiny_record, tmp_path, weights=True) == path
    with pytest.raises(RecordError, match="not overwritten"):
        publish_record(tiny_record, tmp_path, weights=False)


def test_trials_are_rows_that_answer_like_records(tiny_record: Record, tmp_path: Path) -> None:
    path = tmp_path / "search.trials.jsonl"
    write_trials(path, [tiny_record])
    found = Store(tmp_path / "empty", tmp_path).load(tiny_record.id)
    assert (found.metrics, found.history(), found.config) == (tiny_record.metrics, tiny_record.history(), tiny())
    assert not found.has_weights
    assert [record.id for record in Store(tmp_path).all()] == [tiny_record.id]
    row = json.loads(path.read_text())
    path.write_text(json.dumps({**row, "id": "0" * 12}) + "\n")
    with pytest.raises(RecordError, match="row 1 is altered: its config hashes to"):
        read_trials(path)
    row["trial"]["metrics"]["validation_accuracy"] = 0.99
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(RecordError, match="row 1 is altered"):
        read_trials(path)


def test_a_failure_is_kept_with_its_reason_and_not_tried_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_failure(tmp_path, tiny(), "the loss is not a number at step 3", {"fingerprint": {"stamp": "shapes10"}})
    assert store.load(tiny().id).failed == "the loss is not a number at step 3"
    with pytest.raises(TrainingError, match="failed before: the loss"):
        load_or_run(tiny(), QUIET, store=store)


def _train(store: Path, results: "multiprocessing.Queue[float]") -> None:
    torch.set_num_threads(1)
    record = load_or_run(tiny(), QUIET, store=Store(store), keep_weights=True)
    results.put(record.metrics["seconds"])


@pytest.mark.slow
def test_of_two_processes_that_ask_for_one_run_one_trains_and_the_other_reads(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_train, args=(tmp_path, results)) for _ in range(2)]
    for process in processes:
        process.start()
    seconds = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert seconds[0] == seconds[1]  # one measurement, read twice


def test_an_interrupted_run_needs_resume(tmp_path: Path) -> None:
    config = tiny()
    options = TrainOptions(torch.device("cpu"), progress="none")
    state = next(training_steps(config, *fit_and_validation(config.data), options))
    checkpoint = tmp_path / ".work" / config.id / "checkpoint"
    write_checkpoint(checkpoint, state)
    with pytest.raises(RecordError, match="give --resume to go on, or delete"):
        load_or_run(config, replace(QUIET, resume=False), store=Store(tmp_path))
    assert checkpoint.exists()


def test_a_commit_is_that_of_the_project_and_of_no_other_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "other" / "project"
    root.mkdir(parents=True)
    (root / "pyproject.toml").write_text('name = "tpsnet"\n')
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "another"]):
        subprocess.run(["git", "-C", str(root.parent), *words], check=True)
    monkeypatch.chdir(root)
    monkeypatch.delenv("TPSNET_COMMIT", raising=False)
    assert commit() == "unknown"
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    monkeypatch.setenv("GIT_DIR", str(root.parent / ".git"))
    assert commit() == "unknown"
