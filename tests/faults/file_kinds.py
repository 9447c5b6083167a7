"""The kinds of file that the project reads: a valid sample, the changes that are made to it, and what reads it."""

from __future__ import annotations

import base64
import contextlib
import functools
import gzip
import hashlib
import io
import json
import random
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tpsnet_lib import checkpoint
from tpsnet_lib.analysis import peers
from tpsnet_lib.config_parsing import assignment, merged, parse
from tpsnet_lib.data import cifar10, own, reference_labels
from tpsnet_lib.data.datasets import fit_and_validation
from tpsnet_lib.errors import ConfigError, DataError, TrainingError
from tpsnet_lib.files import project_root
from tpsnet_lib.model_cost import check_budget
from tpsnet_lib.plain_yaml import read_yaml
from tpsnet_lib.profiles import load_profile
from tpsnet_lib.report import run_notebooks
from tpsnet_lib.report.notebook_html import chapter
from tpsnet_lib.runs import experiments, export, openings, records, search_space, test_set
from tpsnet_lib.runs.load_or_run import load_or_run
from tpsnet_lib.runs.publish import write_trials
from tpsnet_lib.runs.record_files import SUMS, WEIGHTS, row_sum, write_sums
from tpsnet_lib.train import TrainOptions, training_steps

from .mutations import (
    Change,
    changed_bytes,
    changed_json,
    changed_lines,
    changed_text,
    changed_tree,
    changed_yaml,
    either,
)

TINY = {
    "model": {"blocks": [1, 1], "channels": [4, 8], "stem": 4},
    "train": {"epochs": 2, "batch_size": 50, "lr": 0.05, "precision": "fp32"},
    "data": {"dataset": "shapes10", "train_size": 200, "validation_size": 100},
}
BATCH = b"\x01" + bytes(cifar10.PIXELS)


@dataclass(frozen=True)
class Kind:
    """A kind of file: `make` writes a valid one (with what belongs to it) into a folder and returns its path, `change`
    alters its bytes, `amend` makes what depends on them right again, such as sums, and `read` reads it."""

    name: str
    count: int  # of changes in the long form
    make: Callable[[Path], Path]
    change: Change
    read: Callable[[Path], object]
    amend: Callable[[Path], None] = lambda path: None

    def read_changed(self, folder: Path, rng: random.Random) -> object:
        """Read a file that is made anew and changed."""
        for item in folder.iterdir():
            shutil.rmtree(item) if item.is_dir() else item.unlink()
        path = self.make(folder)
        try:
            path.write_bytes(self.change(path.read_bytes(), rng))
        except RecursionError:  # of the writer of JSON here
            path.write_bytes(changed_bytes(path.read_bytes(), rng))
        self.amend(path)
        return self.read(path)


# Samples --------------------------------------------------------------------------------------------------------------


@functools.cache
def tiny_record() -> Path:
    """The folder of a finished tiny run with weights, made once and deleted with the process."""
    keep = tempfile.TemporaryDirectory(prefix="tpsnet-record-")
    _KEPT.append(keep)
    store = records.Store(Path(keep.name))
    return load_or_run(parse(TINY), TrainOptions("cpu", progress="none"), store=store, keep_weights=True).path


_KEPT: list[Any] = []  # temporary folders, which live as long as this


@functools.cache
def tiny_checkpoint() -> bytes:
    """A checkpoint of the tiny run after a step."""
    config = parse(TINY)
    state = next(
        training_steps(config, *fit_and_validation(config.data), TrainOptions(torch.device("cpu"), progress="none"))
    )
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.write_checkpoint(Path(folder) / "checkpoint", state)
        return (Path(folder) / "checkpoint").read_bytes()


def copied(relative: str) -> Callable[[Path], Path]:
    """A file of the project."""
    return lambda folder: Path(shutil.copy(project_root() / relative, folder))


def written(name: str, content: bytes | str | Callable[[], bytes]) -> Callable[[Path], Path]:
    """A file of some content."""

    def make(folder: Path) -> Path:
        data = content() if callable(content) else content.encode() if isinstance(content, str) else content
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        return folder / name

    return make


def of_record(name: str) -> Callable[[Path], Path]:
    """A file of a copied record."""
    return lambda folder: Path(shutil.copytree(tiny_record(), folder / tiny_record().name)) / name


def of_result(name: str) -> Callable[[Path], Path]:
    """A file of a result on the test set, of which the project has one."""
    source = sorted(records.committed_folder().glob("*/test"))[0]
    return lambda folder: Path(shutil.copytree(source, folder / source.parent.name / "test")) / name


def trials(folder: Path) -> Path:
    """A file of trials with one row."""
    write_trials(folder / "a.trials.jsonl", [records.read_record(tiny_record())])
    return folder / "a.trials.jsonl"


def archive(folder: Path) -> Path:
    """An archive of one record."""
    export.export_records([records.read_record(tiny_record())], folder / "a.tar")
    return folder / "a.tar"


@functools.cache
def _archive_of_images() -> bytes:
    """A small archive with the names of CIFAR-10's."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta"]:
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = 500
            tar.addfile(entry, io.BytesIO(b"x" * 500))
    return buffer.getvalue()


def beside_images(name: str, content: Any) -> Callable[[Path], Path]:
    """A file beside binary batches of black images, of which only the test file is there."""

    def make(folder: Path) -> Path:
        place = folder / "cifar-10-batches-bin"
        place.mkdir()
        (place / "test_batch.bin").write_bytes(BATCH * cifar10.FILE_SIZE)
        return written(name, content() if callable(content) else content)(folder)

    return make


def _images() -> bytes:
    return BATCH * cifar10.FILE_SIZE


def _sums_of_images() -> str:
    return f"{hashlib.sha256(BATCH * cifar10.FILE_SIZE).hexdigest()}  cifar-10-batches-bin/test_batch.bin\n"


@functools.cache
def _predictions() -> bytes:
    """Predictions of two published models."""
    buffer = io.BytesIO()
    new = {"v6": np.zeros((2, 2000), np.uint8), "v6_labels": np.zeros(2000, np.uint8)}
    np.savez_compressed(buffer, names=np.array(["a", "b"]), original=np.zeros((2, 10_000), np.uint8), **new)
    return buffer.getvalue()


@functools.cache
def _photo() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.effect_noise((48, 40), 50).convert("RGB").save(buffer, "png")
    return buffer.getvalue()


# What reads them ------------------------------------------------------------------------------------------------------


def read_published(path: Path) -> None:
    """The table, and what the report makes of it."""
    rows = peers.published(path)
    peers.frontier(rows, "parameters")


def read_config(path: Path) -> None:
    """As `tpsnet train CONFIG.yaml` reads it, up to the budget."""
    try:
        check_budget(parse(merged(read_yaml(path))).model)
    except ConfigError as error:  # of a field: the command names the file that was given
        raise ConfigError(f"{path}: {error}") from error


def read_assignment(path: Path) -> None:
    """As `--set` and `-p` take a value."""
    text = path.read_text("utf-8", "replace")
    try:
        parse(merged(dict([assignment(text)])))
    except ConfigError as error:
        raise ConfigError(f"--set: {error}") from error


def read_parameters(path: Path) -> None:
    """Values for a notebook's parameters, as a file of them gives them."""
    given = read_yaml(path)
    notebook = project_root() / "notebooks" / "01_explore_data.ipynb"
    try:
        run_notebooks.parameters_for(notebook, load_profile("smoke"), given)
    except ConfigError as error:
        raise ConfigError(f"{path}: parameter: {error}") from error


def read_notebook_parameters(path: Path) -> None:
    """A notebook whose parameters are asked for."""
    run_notebooks.parameters_for(path, load_profile("smoke"), {"draws": 10})


def read_log(path: Path) -> None:
    """A log of openings, and what `verify` says of it."""
    openings.read(path)
    list(openings.faults(records.Store(path.parent)))


def read_record(path: Path) -> None:
    """A record, as every command reads it."""
    record = records.read_record(path.parent)
    records.rows([record])
    record.load_model()


def read_trials(path: Path) -> None:
    """A store with a file of trials."""
    records.rows(records.Store(path.parent).all())


def read_result(path: Path) -> None:
    """A result on the test set, as its record finds it."""
    committed = records.read_record(records.committed_folder() / path.parents[1].name)
    test_set.find_test(committed, records.Store(path.parents[2]))


def read_checkpoint(path: Path) -> None:
    """A run that goes on from it, by one step."""
    config = parse(TINY)
    options = TrainOptions(torch.device("cpu"), checkpoint=path, resume=True, progress="none")
    run = training_steps(config, *fit_and_validation(config.data), options)
    with contextlib.suppress(TrainingError):  # weights so altered that the loss is no number, and says so
        next(run, None)
    run.close()


def read_spaces(path: Path) -> None:
    """Spaces, and two draws of each."""
    for space in search_space.load_spaces(path).values():
        try:
            search_space.sample(space, 0, 2)
        except ConfigError as error:  # an experiment that asks for it is named by its own reader
            raise ConfigError(f"{path}: {error}") from error


def read_profiles(path: Path) -> None:
    """What a profile asks of a notebook."""
    run_notebooks.estimate(load_profile("quick", path))


def read_archive(path: Path) -> None:
    """An import into an empty store."""
    export.import_records(path, path.parent / "store")


def read_images(path: Path) -> None:
    """The test images."""
    root = next(parent for parent in path.parents if (parent / "cifar-10-batches-bin").is_dir())
    cifar10.read("test", root)
    cifar10.inexact_indices(root, "test")


def read_image_archive(path: Path) -> None:
    """The archive of CIFAR-10, whose sum must be the official one."""
    cifar10.download(path, [])


# What makes them whole again ------------------------------------------------------------------------------------------


def amend_sums(path: Path) -> None:
    """The sums of a folder as its files are now."""
    write_sums(path.parent)


def amend_rows(path: Path) -> None:
    """The digest of every row that still is one."""
    lines = []
    for line in path.read_text("utf-8", "replace").splitlines():
        try:
            row = json.loads(line)
            lines.append(json.dumps({**row, "sha256": row_sum(row["trial"])}))
        except (ValueError, TypeError, LookupError, RecursionError):
            lines.append(line)
    path.write_text("\n".join(lines), "utf-8")


def amend_checkpoint(path: Path) -> None:
    """The digest of a checkpoint's bytes."""
    magic, content = checkpoint._MAGIC, path.read_bytes()
    payload = content[len(magic) + 32 :]
    path.write_bytes(magic + hashlib.sha256(payload).digest() + payload)


def changed_state(content: bytes, rng: random.Random) -> bytes:
    """A checkpoint whose state has other values, whole and under its digest."""
    start = len(checkpoint._MAGIC) + 32
    state = torch.load(io.BytesIO(content[start:]), weights_only=True)
    buffer = io.BytesIO()
    torch.save(changed_tree(state, rng), buffer)
    return content[:start] + buffer.getvalue()


def changed_payload(content: bytes, rng: random.Random) -> bytes:
    """A checkpoint whose payload has other bytes."""
    start = len(checkpoint._MAGIC) + 32
    return content[:start] + changed_bytes(content[start:], rng)


def changed_tar(content: bytes, rng: random.Random) -> bytes:
    """An archive whose members have other names, sizes or kinds, or other bytes."""
    if rng.random() < 0.4:
        return changed_bytes(content, rng)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(content)) as old, tarfile.open(fileobj=buffer, mode="w") as new:
        members = old.getmembers()
        victim = rng.randrange(len(members))
        for number, entry in enumerate(members):
            data = old.extractfile(entry)
            body = data.read() if data else b""
            if number == victim:
                kind = rng.randrange(7)
                if kind == 0:
                    entry.name = rng.choice(["../../x", "/tmp/x", "x" * 300, "é/💥", "", ".", f"{'0' * 12}/run_me.sh"])
                elif kind == 1:
                    entry.type, entry.linkname = rng.choice([tarfile.SYMTYPE, tarfile.LNKTYPE]), "/etc/passwd"
                elif kind == 2:
                    entry.type = rng.choice([tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, b"?"])
                elif kind == 3:
                    body = changed_bytes(body, rng)
                    entry.size = len(body)
                elif kind == 4:
                    continue
                elif kind == 5:
                    new.addfile(entry, io.BytesIO(body))
                else:
                    entry.mtime, entry.uid, entry.mode = 2**40, 2**20, 0
            new.addfile(entry, io.BytesIO(body))
    return buffer.getvalue()


def changed_gzip(content: bytes, rng: random.Random) -> bytes:
    """The same for a compressed archive."""
    if rng.random() < 0.3:
        return changed_bytes(content, rng)
    return gzip.compress(changed_tar(gzip.decompress(content), rng))


def changed_notebook(content: bytes, rng: random.Random) -> bytes:
    """A notebook with another tree, or with its text changed."""
    return changed_json(content, rng)


def _shown_notebook() -> bytes:
    """An executed notebook with all that a page shows: prose, a formula, a table, a figure of each kind, a stream."""
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, writes

    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 10"><title>a</title><path d="M 1.234 2.5"/></svg>'
    shown = [
        new_output("stream", text="1%\r100%\n"),
        new_output("display_data", data={"image/svg+xml": svg}, metadata={"alt": "a line", "caption": "c"}),
        new_output("display_data", data={"text/html": "<table><tr><th>a</th></tr><tr><td>1</td></tr></table>"}),
        new_output("display_data", data={"text/markdown": "*A caption.*"}),
        new_output("execute_result", data={"text/plain": "1"}, execution_count=1),
    ]
    png = base64.b64encode(_photo()).decode()
    image = new_output("display_data", data={"image/png": png}, metadata={"alt": "noise", "records": ["0" * 12]})
    cells = [
        new_markdown_cell("# T\n\n## S\n\nText $x^2$, `code`, [link](#S)\n\n$$\\sum_i x_i$$"),
        new_code_cell("x = 1\nprint(x)", outputs=shown),
        new_code_cell("show()", outputs=[image]),
    ]
    metadata = {"papermill": {"duration": 2.0}, "kernelspec": {"name": "python3", "display_name": "p"}}
    return writes(new_notebook(cells=cells, metadata=metadata)).encode()


EXPERIMENT = """question: How many?
needs: cpu
priority: 5
minutes: 2
base: {model: {blocks: [1, 1], channels: [4, 8], stem: 4}, train: {epochs: 2}, data: shapes10}
seeds: [0, 1]
grid: {train.lr: [0.1, 0.2]}
runs:
  - {label: wide, model: {channels: [8, 16]}}
  - {label: plain, model.residual: false}
"""
SEARCH = "question: What?\nsearch: {space: classroom, draws: 3, seed: 1}\nbase: {train: {epochs: 2}}\nminutes: 1\n"
CONFIG = "model: {member: classroom, dropout: 0.1}\ntrain: {epochs: 2, lr: 1e-2}\ndata: shapes10\nseed: 3\n"
LOG = "".join(
    json.dumps({"event": event, "record": "0" * 12, "opened": "2026-01-01", "accuracy": 0.5, "n": 100}) + "\n"
    for event in ("opening", "result")
)

KINDS = (
    Kind("published", 130, copied("report/published.csv"), either(changed_text, changed_bytes), read_published),
    Kind("notebook", 170, written("01_a.ipynb", _shown_notebook), changed_notebook, lambda path: chapter(path, [])),
    Kind("notebook-run", 60, copied("notebooks/01_explore_data.ipynb"), changed_json, read_notebook_parameters),
    Kind("parameters", 100, written("p.yaml", "draws: 10\nprofile: quick\ndata: ''\n"), changed_yaml, read_parameters),
    Kind("openings", 120, written("openings.jsonl", LOG), changed_lines, read_log),
    Kind("sums", 90, of_record(SUMS), either(changed_text, changed_bytes), read_record),
    Kind("checkpoint", 60, written("c", tiny_checkpoint), changed_bytes, read_checkpoint),
    Kind("checkpoint-sum", 60, written("c", tiny_checkpoint), changed_payload, read_checkpoint, amend_checkpoint),
    Kind("checkpoint-state", 100, written("c", tiny_checkpoint), changed_state, read_checkpoint, amend_checkpoint),
    Kind("experiment", 170, written("e.yaml", EXPERIMENT), changed_yaml, experiments.load_experiment),
    Kind("search", 60, written("e.yaml", SEARCH), changed_yaml, experiments.load_experiment),
    Kind("spaces", 100, copied("report/spaces.yaml"), changed_yaml, read_spaces),
    Kind("config", 150, written("c.yaml", CONFIG), changed_yaml, read_config),
    Kind("set", 80, written("set", "train.lr=0.1"), changed_text, read_assignment),
    Kind("profiles", 60, copied("report/profiles.yaml"), changed_yaml, read_profiles),
    Kind("record-config", 70, of_record("config.json"), changed_json, read_record, amend_sums),
    Kind("record-metrics", 90, of_record("metrics.json"), changed_json, read_record, amend_sums),
    Kind("record-made", 70, of_record("provenance.json"), changed_json, read_record, amend_sums),
    Kind("record-history", 70, of_record("history.csv"), changed_text, read_record, amend_sums),
    Kind("weights", 60, of_record(WEIGHTS), changed_bytes, read_record, amend_sums),
    Kind("trials", 120, trials, changed_lines, read_trials, amend_rows),
    Kind("result", 60, of_result("metrics.json"), changed_json, read_result, amend_sums),
    Kind("logits", 40, of_result("logits.npz"), changed_bytes, read_result, amend_sums),
    Kind("images", 20, beside_images("cifar-10-batches-bin/test_batch.bin", _images), changed_bytes, read_images),
    Kind("image-sums", 30, beside_images("SHA256SUMS", _sums_of_images), changed_text, read_images),
    Kind("inexact", 30, beside_images("inexact.json", '{"test": [1, 2], "train": []}'), changed_json, read_images),
    Kind("image-archive", 60, written("a.tar.gz", _archive_of_images), changed_gzip, read_image_archive),
    Kind("archive", 80, archive, changed_tar, read_archive),
    Kind("photo", 60, written("p.png", _photo), changed_bytes, own.load_photo),
    Kind(
        "people",
        20,
        written("cifar10h-counts.npy", lambda: b"\x93NUMPY\x01\x00" + bytes(800_000)),
        changed_bytes,
        lambda path: reference_labels.read_arrays(path, kind=DataError),
    ),
    Kind(
        "predictions",
        60,
        written(reference_labels.PUBLISHED, _predictions),
        changed_bytes,
        lambda path: reference_labels.load_published(path.parent),
    ),
)  # fmt: skip
