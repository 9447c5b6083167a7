"""Opening the test set: once a record, only for what was declared final, and never without a line that says so."""

import hashlib
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tpsnet_lib import metrics, stats
from tpsnet_lib.arrays import read_arrays
from tpsnet_lib.data.cifar10 import inexact_indices
from tpsnet_lib.data.datasets import load_test, test_fingerprint
from tpsnet_lib.device import resolve_device
from tpsnet_lib.errors import DataError, RecordError
from tpsnet_lib.files import project_root, read_json, sha256_of
from tpsnet_lib.locks import lock
from tpsnet_lib.runs import openings
from tpsnet_lib.runs.experiments import experiments_folder, final_experiments, final_ids, load_experiment
from tpsnet_lib.runs.provenance import commit, git, hardware, now
from tpsnet_lib.runs.record_files import SUMS, check_sums, checked_scores, write_sums
from tpsnet_lib.runs.records import Record, Store, default_store
from tpsnet_lib.whole_files import folder_whole, write_json, write_whole


@dataclass(frozen=True)
class TestResult:
    """The logits of a network on the test images, and their scores."""

    __test__ = False  # not a test class, whatever pytest makes of its name

    path: Path
    metrics: dict[str, Any]
    logits: Tensor  # float32 [N, classes]

    @property
    def exploratory(self) -> bool:
        """Whether the test set was opened for a look alone; nothing may be chosen by such a result."""
        return bool(self.metrics.get("not_choosing"))


@dataclass(frozen=True)
class Declaration:
    """Where a run was declared final before it trained: the experiment, the commit, and the SHA-256 of its file."""

    experiment: str
    commit: str
    sha256: str


def find_test(record: Record, store: Store) -> TestResult | None:
    """The test part of a record that was opened, from whichever store holds it; None where it never was."""
    for folder in store.folders:
        path = folder / record.id / "test"
        if (path / "metrics.json").is_file():
            check_sums(path, ["metrics.json", "logits.npz"])
            scores = checked_scores(path / "metrics.json", read_json(path / "metrics.json"))
            return TestResult(path, scores, _read_logits(path / "logits.npz", scores["n"], record.config.data.classes))
    return None


def _read_logits(path: Path, count: int, classes: int) -> Tensor:
    """The logits of a result, float32 [count, classes]; `RecordError` for a file that is torn or holds another."""
    (logits,) = read_arrays(path, "logits")
    if logits.shape != (count, classes) or logits.dtype.kind != "f":
        content = f"{logits.dtype} {logits.shape}, not {count} x {classes} numbers"
        raise RecordError(f"{path} holds no logits ({content}): restore it from where it came")
    return torch.from_numpy(logits.astype(np.float32))


def find_final_test(record: Record, store: Store) -> TestResult | None:
    """The test part of a record that was opened as a final one; None where it never was, or for a look alone."""
    result = find_test(record, store)
    return None if result is None or result.exploratory else result


def open_test(
    record: Record,
    store: Store,
    *,
    root: str | Path | None = None,
    device: str = "auto",
    exploratory: bool = False,
) -> TestResult:
    """Score a record's weights on the test set and keep the result, write-once; a second call reads the first's.

    A record is opened if a committed experiment declared it `final` before it trained (`declaration`). Any other needs
    `exploratory`: nothing may be chosen by the result, and no table of the report shows it, whatever is declared
    afterwards. The log has a line before the opening and one after it; an opening of a record whose earlier result is
    gone says so. Raises `RecordError` for a record that may not be opened or has no weights, `DataError` without the
    test file."""
    if (existing := find_test(record, store)) is not None and not (store.writable / record.id / "test").is_dir():
        return existing  # from a store that is only read: no lock is needed, and none may be possible
    with lock(store.writable / ".locks" / f"{record.id}.test"):
        if (existing := find_test(record, store)) is not None:
            _complete_log(record, store)
            return existing
        opening = _opening(record, store, None if exploratory else declaration(record))
        openings.append(openings.log_of(store.writable), {"event": "opening", **opening})
        logits, scores = score(record, root=root, device=device)
        with folder_whole(store.writable / record.id / "test") as work:
            write_json(work / "metrics.json", {**opening, **scores})
            packed = io.BytesIO()
            np.savez_compressed(packed, logits=logits.numpy().astype(np.float16))
            write_whole(work / "logits.npz", packed.getvalue())
            write_sums(work)
        _complete_log(record, store)
    result = find_test(record, store)
    assert result is not None
    return result


def _opening(record: Record, store: Store, declared: Declaration | None) -> dict[str, Any]:
    """What the log says of an opening; `again` counts the results that the record had before."""
    lines = [line for folder in store.folders for line in openings.read(openings.log_of(folder))]
    again = sum(line.get("record") == record.id and line.get("event", "result") == "result" for line in lines)
    return {
        "record": record.id,
        "opened": now(),
        "commit": commit(),
        "experiment": declared.experiment if declared else None,
        "declaration": declared.sha256 if declared else None,
        "not_choosing": declared is None,
        **({"again": again} if again else {}),
    }


def _complete_log(record: Record, store: Store) -> None:
    """Add the line of a result to the log where it is missing, as after a crash between the two."""
    path = store.writable / record.id / "test"
    if not (path / SUMS).is_file():
        return
    log, digest = openings.log_of(store.writable), sha256_of(path / SUMS)
    lines = [line for line in openings.read(log) if line.get("record") == record.id]
    if not lines:
        raise RecordError(f"{path} has no line in {log}: it was not opened by this command; move it away")
    if not any(line.get("event", "result") == "result" and line.get("result", digest) == digest for line in lines):
        scores = read_json(path / "metrics.json")
        summary = {name: scores[name] for name in ("opened", "accuracy", "n")}
        openings.append(log, {"event": "result", "record": record.id, "result": digest, **summary})


def declaration(record: Record) -> Declaration:
    """The committed experiment that declared a record `final` before it trained.

    The record carries the commit that it was trained from: in it, the experiment's file must hold this very run, and
    nothing tracked may have differed from it. `RecordError` says what is missing, and that `--exploratory` opens."""
    if (name := final_ids().get(record.id)) is None:
        raise _refused(record, f"no experiment declares it final{_of_another_length(record)}")
    return _declared_by(record, name)


def _of_another_length(record: Record) -> str:
    """Which experiment declares the same run with another number of epochs, in brackets; empty if none does."""
    for experiment in final_experiments():
        for declared in (run.config for run in experiment.runs):
            epochs = declared.train.epochs
            if replace(record.config, train=replace(record.config.train, epochs=epochs)) == declared:
                had = f"{record.config.train.epochs:g}"
                return f" ({experiment.name} declares it with {epochs:g} epochs; these are {had})"
    return ""


def _declared_by(record: Record, name: str) -> Declaration:
    trained_from = str(record.provenance.get("commit", "unknown"))
    if trained_from == "unknown" or trained_from.endswith("+"):
        raise _refused(record, f"it was trained from commit {trained_from}, which is not a clean one")
    path = (experiments_folder() / f"{name}.yaml").relative_to(project_root()).as_posix()
    git_show = git("show", f"{trained_from}:{path}")
    if git_show.returncode:
        raise _refused(record, f"commit {trained_from} has no {path}")
    with tempfile.TemporaryDirectory() as folder:
        committed_copy = Path(folder) / f"{name}.yaml"
        committed_copy.write_bytes(git_show.stdout)
        experiment = load_experiment(committed_copy)
    ids = {run_id for run in experiment.runs for run_id in run.config.possible_ids}
    if not experiment.final or record.id not in ids:
        raise _refused(record, f"{path} did not declare it final in commit {trained_from}")
    return Declaration(name, trained_from, hashlib.sha256(git_show.stdout).hexdigest())


def _refused(record: Record, reason: str) -> RecordError:
    place = record.id if record.path.parent in default_store().folders else record.path  # a fresh run lies elsewhere
    way_out = f"`tpsnet test {place} --exploratory` opens it for a look that nothing may be chosen by"
    return RecordError(f"the test set stays shut for record {record.id}: {reason}; {way_out}")


def undeclared(store: Store) -> Iterator[str]:
    """The final results whose record no commit had declared final before it trained, but for those before the rule."""
    before_the_rule = openings.before_the_rule()
    for record in store.all():
        test = find_final_test(record, store)
        if test is None or record.id in before_the_rule:
            continue
        try:
            if _declared_by(record, str(test.metrics["experiment"])).sha256 != test.metrics["declaration"]:
                yield f"{test.path} names another declaration than commit {record.provenance['commit']} has"
        except (RecordError, KeyError) as error:
            yield f"{test.path} was opened as a final result and is none: {error}"


def log_score(record: Record, store: Store, scores: dict[str, Any]) -> None:
    """Add a line to the log with what a record's weights score today, beside what they did when it was opened."""
    log = openings.log_of(next(folder for folder in store.folders if (folder / record.id / "test").is_dir()))
    summary = {name: scores[name] for name in ("accuracy", "correct", "n", "hardware")}
    openings.append(log, {"event": "score", "record": record.id, "opened": now(), "commit": commit(), **summary})


def score(record: Record, *, root: str | Path | None = None, device: str = "auto") -> tuple[Tensor, dict[str, Any]]:
    """Logits float32 [N, classes] of a record's weights on the test images, and their scores: counts, accuracy and its
    Wilson interval, also on the exact images alone where the data set has inexact ones, NLL and calibration error."""
    torch_device = resolve_device(device)
    model = record.load_model(torch_device)
    images = load_test(record.config.data.dataset, root)
    data = test_fingerprint(record.config.data.dataset, root)
    logits = metrics.predict(model, images.images)  # in fp32, which gives one count on every processor
    logits = logits.half().float()  # as they are stored, so that what is read back scores the same
    scores = _scores(logits, images.labels, record.config.data.dataset, root)
    scores["fingerprint"] = {"stamp": data.stamp, "sha256": data.sha256, "verified": data.verified}
    return logits, {**scores, "hardware": hardware(torch_device)}


def _scores(logits: Tensor, labels: Tensor, dataset: str, root: str | Path | None) -> dict[str, Any]:
    correct, probabilities = logits.argmax(1) == labels, logits.softmax(1)
    scores = {
        **_share("", correct),
        "nll": metrics.nll(probabilities, labels),
        "ece": metrics.ece(probabilities, labels),
    }
    if dataset == "cifar10" and (inexact := inexact_indices(root, "test")):
        exact = torch.ones(len(correct), dtype=torch.bool)
        exact[inexact] = False
        scores |= _share("exact_", correct[exact])
    return scores


def miscounted(store: Store) -> Iterator[str]:
    """The results whose counts or intervals are not those of their logits, where the test images are at hand."""
    for record in store.all():
        if (test := find_test(record, store)) is None:
            continue
        try:
            dataset = record.config.data.dataset
            counted = _scores(test.logits, load_test(dataset).labels, dataset, root=None)
        except DataError:  # no images here
            continue
        for name in sorted(counted.keys() & test.metrics.keys() - {"nll", "ece"}):
            if abs(counted[name] - test.metrics[name]) > 1e-9:
                yield f"{test.path} has {name} {test.metrics[name]}, and its logits come to {counted[name]}"


def _share(prefix: str, correct: Tensor) -> dict[str, Any]:
    hits, n = int(correct.sum()), len(correct)
    accuracy = stats.proportion(hits, n)
    scores = {"accuracy": accuracy.value, "correct": hits, "n": n, "low": accuracy.low, "high": accuracy.high}
    return {f"{prefix}{name}": value for name, value in scores.items()}
