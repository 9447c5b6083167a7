"""The record store: what was measured, one folder a run, each part whole and checked, two stores read as one."""

from __future__ import annotations

import contextlib
import difflib
import functools
import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpsnet_lib.config import RunConfig
from tpsnet_lib.config_parsing import parse
from tpsnet_lib.errors import ConfigError, RecordError, brief
from tpsnet_lib.files import project_root, read_json, read_text
from tpsnet_lib.runs import record_files
from tpsnet_lib.runs.record_files import PARTS, SUMS, WAY_OUT, WEIGHTS, check_sums, row_sum
from tpsnet_lib.whole_files import sweep

if TYPE_CHECKING:  # records are listed without torch
    import torch

    from tpsnet_lib.model import ResNet

LARGEST_TRIALS = 2**26  # bytes of a file of trials; 500 trials have one million


@dataclass(frozen=True)
class Record:
    """A finished run, read from its folder, or from its row in a file of trials."""

    path: Path
    config: RunConfig
    metrics: dict[str, Any]
    provenance: dict[str, Any]
    curve: tuple[dict[str, float], ...]

    @property
    def id(self) -> str:
        """The run's id (`RunConfig.id`), which is its folder's name."""
        return self.config.id

    @property
    def group_id(self) -> str:
        """The id that the same run has with any seed."""
        return self.config.group_id

    @property
    def stamp(self) -> str:
        """The data set as a figure names it, such as `CIFAR-10` or `shapes10`."""
        return str(self.provenance["fingerprint"]["stamp"])

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes of its data set, in the order of their labels."""
        from tpsnet_lib.data.datasets import class_names

        return tuple(self.provenance["fingerprint"].get("classes", ())) or class_names(self.config.data.dataset)

    @property
    def hardware(self) -> str:
        """The device that it ran on, in words, such as `Intel Xeon, 2 cores`: without what else makers write."""
        return re.sub(r"\(R\)| Processor", "", str(self.provenance.get("hardware", "unknown hardware")))

    @property
    def span(self) -> tuple[datetime, datetime]:
        """When the run began and when it ended."""
        made = self.provenance
        started = datetime.fromisoformat(made.get("started", "1970-01-01T00:00:00+00:00"))
        if finished := made.get("finished"):
            return started, datetime.fromisoformat(finished)
        return started, started + timedelta(seconds=float(self.metrics.get("seconds", 0.0)))

    @property
    def seconds(self) -> float:
        """How long the training took.

        Of runs that take turns on a card, the device does the steps while the clocks of others run, so that the time
        of one is known from its start and end alone."""
        if "captured" in self.provenance.get("execution", ""):
            start, end = self.span
            return (end - start).total_seconds()
        return float(self.metrics["seconds"])

    @property
    def validation_accuracy(self) -> float | None:
        """The accuracy on validation images, as a fraction; None where these were fitted too (`data.fit_on: all`)."""
        return None if self.config.data.fit_on == "all" else float(self.metrics["validation_accuracy"])

    @property
    def has_weights(self) -> bool:
        """Whether the trained weights were kept."""
        return self.path.is_dir() and (self.path / WEIGHTS).is_file()

    def history(self) -> list[dict[str, float]]:
        """A row of figures an epoch."""
        return [dict(row) for row in self.curve]

    @property
    def failed(self) -> str:
        """Why the run could not be finished; empty for one that was."""
        return str(self.metrics.get("failed", ""))

    def load_model(self, device: str | torch.device = "cpu") -> ResNet:
        """The trained network in evaluation mode, in fp32; `RecordError` if its weights are missing, altered or of
        another network."""
        from safetensors import SafetensorError, safe_open

        from tpsnet_lib.model import build

        path = self.path / WEIGHTS
        if not path.is_file():
            marked = "`tpsnet records list` marks those that have them"
            raise RecordError(f"record {self.id} was kept without weights ({marked})")
        check_sums(self.path, [WEIGHTS])
        model = build(self.config.model, budget=None)
        try:
            with safe_open(path, "pt") as file:
                run_id = (file.metadata() or {}).get("id", "unnamed")
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except SafetensorError as error:
            raise RecordError(f"{path} is not a whole safetensors file ({brief(error)}): {WAY_OUT}") from error
        if run_id != self.id:
            raise RecordError(f"{path} holds the weights of run {run_id}, not of {self.id}")
        expected = {name: value.shape for name, value in model.state_dict().items()}
        if {name: value.shape for name, value in state.items()} != expected:
            raise RecordError(f"{path} does not fit the network in config.json: its tensors have other names or shapes")
        model.load_state_dict(
            {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
        )
        return model.eval().to(device)


def in_percent(record: Record) -> str:
    """A run's validation accuracy as people read it: `93.22%`, or `fitted` where there is none."""
    reached = record.validation_accuracy
    return "fitted" if reached is None else f"{100 * reached:.2f}%"


class Store:
    """Folders of records read as one; the first takes new records, the others are only read."""

    def __init__(self, *folders: str | Path) -> None:
        self.folders = tuple(map(Path, folders))

    @property
    def writable(self) -> Path:
        """The folder that new records go to."""
        return self.folders[0]

    @property
    def takes_records(self) -> bool:
        """Whether that folder, or the nearest one above it that is there, can be written."""
        place = next(path for path in (self.writable, *self.writable.parents) if path.exists())
        return place.is_dir() and os.access(place, os.W_OK)

    def checkpoint(self, run_id: str) -> Path:
        """Where a run that is not finished leaves its checkpoint."""
        return self.writable / ".work" / run_id / "checkpoint"

    def find(self, run_id: str) -> Record | None:
        """The record of an id, or None where there is none; one that is damaged is a `RecordError`."""
        for folder in self.folders:
            if (folder / run_id / "config.json").is_file():
                return read_record(folder / run_id)
            for trials in folder.glob("*.trials.jsonl"):
                if run_id in (by_id := read_trials(trials)):
                    return by_id[run_id]
        return None

    def load(self, run_id: str) -> Record:
        """The record of an id; a missing one is a `RecordError`."""
        record = self.find(run_id)
        if record is None:
            near = difflib.get_close_matches(run_id, [record.id for record in self.all()], 1)
            is_id = re.fullmatch(r"[0-9a-f]+", run_id)
            listed = (
                "`tpsnet records list` lists them" if is_id else "an id has 12 of 0-9 and a-f (`tpsnet records list`)"
            )
            way_out = f"did you mean {near[0]}?" if near else listed
            raise RecordError(f"no record {run_id} in {' or '.join(map(str, self.folders))}: {way_out}")
        return record

    def all(self) -> list[Record]:
        """Every record, by id; where both stores hold one, the first store's."""
        by_id: dict[str, Record] = {}
        for folder in reversed(self.folders):
            for trials in folder.glob("*.trials.jsonl"):
                by_id.update(read_trials(trials))
            by_id.update({path.parent.name: read_record(path.parent) for path in folder.glob("[0-9a-f]*/config.json")})
        return [by_id[run_id] for run_id in sorted(by_id)]


def local_folder() -> Path:
    """The store that takes new records; git ignores it."""
    return project_root() / "report" / "local" / "records"


def committed_folder() -> Path:
    """The store that ships with the project."""
    return project_root() / "report" / "records"


def default_store(out: str | Path | None = None) -> Store:
    """The local store (or `out` in its place) over the committed one."""
    store = Store(Path(out).resolve() if out else local_folder(), committed_folder())
    _sweep(store)
    return store


def _sweep(store: Store) -> None:
    """Take away what killed processes left in a store, also a checkpoint that is older than its run's record."""
    for folder in store.folders:
        sweep(folder)
    for work in store.writable.glob(".work/*"):
        sweep(work)
        with contextlib.suppress(OSError):  # no record, or another process is at it
            finished = (store.writable / work.name / SUMS).stat().st_mtime_ns
            if all(file.stat().st_mtime_ns <= finished for file in work.iterdir()):
                shutil.rmtree(work, ignore_errors=True)


def read_record(path: Path) -> Record:
    """A record's folder, checked: its sums hold and its config hashes to its name. `RecordError` says what does not."""
    path = path.resolve()
    modified = (path / SUMS).stat().st_mtime_ns if (path / SUMS).is_file() else 0
    return _read_record(path, modified)


@functools.lru_cache(maxsize=4096)
def _read_record(path: Path, modified: int) -> Record:
    check_sums(path, PARTS)
    content = read_json(path / "config.json")
    if not isinstance(content, dict):
        raise RecordError(f"{path / 'config.json'} is {brief(content)}, no mapping: {WAY_OUT}")
    config = _parsed(path / "config.json", content.get("config"))
    if config.id != path.name:
        raise RecordError(f"{path} is altered: its config hashes to {config.id}")
    metrics = record_files.checked_metrics(str(path / "metrics.json"), read_json(path / "metrics.json"))
    origin = record_files.checked_provenance(str(path / "provenance.json"), read_json(path / "provenance.json"))
    return Record(path, config, metrics, origin, record_files.read_history(path / "history.csv"))


def _parsed(source: Path | str, tree: Any) -> RunConfig:
    """The config of a record, whose precision is resolved; one that is not valid is a `RecordError`."""
    try:
        config = parse(tree)
        config.id  # noqa: B018 - one whose precision is not resolved has none
    except ConfigError as error:
        raise RecordError(f"{source} holds no config of a run ({brief(error)}): {WAY_OUT}") from error
    return config


def read_trials(path: Path) -> dict[str, Record]:
    """The trials of a search by id, from the rows of its file; a torn or altered row is a `RecordError`."""
    return _read_trials(path.absolute(), path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _read_trials(path: Path, modified: int) -> dict[str, Record]:
    by_id, resolved = {}, path.resolve()
    for number, line in enumerate(read_text(path, LARGEST_TRIALS).splitlines(), 1):
        source = f"{path}: row {number}"
        try:
            row = json.loads(line)
            run_id, digest, content = row["id"], row["sha256"], row["trial"]
            config, metrics, origin, curve = (content[name] for name in ("config", "metrics", "provenance", "curve"))
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise RecordError(f"{source} is torn ({brief(error)}): {WAY_OUT}") from error
        if digest != row_sum(content):
            raise RecordError(f"{source} is altered: its SHA-256 is not the one that it carries")
        metrics = record_files.checked_metrics(source, metrics, ["validation_accuracy"])
        origin = record_files.checked_provenance(source, origin)
        record = Record(resolved, _parsed(source, config), metrics, origin, record_files.checked_curve(source, curve))
        if run_id != record.id:
            raise RecordError(f"{source} is altered: its config hashes to {record.id}, and its id is {brief(run_id)}")
        by_id[record.id] = record
    return by_id


def flat_fields(config: RunConfig) -> dict[str, Any]:
    """A config's fields on one level (`model.blocks`, `train.lr`, ...), with its seed and its group's id."""
    sections = {name: asdict(getattr(config, name)) for name in ("model", "train", "data")}
    fields = {f"{section}.{name}": value for section, values in sections.items() for name, value in values.items()}
    return {"group_id": config.group_id, "seed": config.seed, **fields}


def rows(records: Iterable[Record]) -> list[dict[str, Any]]:
    """One flat mapping a record (`id`, `seed`, `model.blocks`, `train.lr`, ..., metrics, `stamp`), for a data frame."""
    return [
        {"id": r.id, **flat_fields(r.config), **r.metrics, "stamp": r.stamp, "hardware": r.hardware} for r in records
    ]
