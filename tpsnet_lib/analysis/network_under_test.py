"""The network under test: its answers on the test images, its weights, and what of these could not be had and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tpsnet_lib.analysis.errors import rank_records, require_length
from tpsnet_lib.data.datasets import ImageSet, load_test
from tpsnet_lib.files import RecordError
from tpsnet_lib.model import ResidualNetwork
from tpsnet_lib.runs.experiments import collect, final_ids, load_experiment
from tpsnet_lib.runs.records import Record, Store
from tpsnet_lib.runs.test_set import open_test, score

BASELINE = "classroom"  # the experiment whose network errors under corruptions are compared with


@dataclass(frozen=True)
class Subject:
    """A record to analyse, the test images, and its logits on them, float32 [N, 10]."""

    record: Record
    test: ImageSet
    logits: Tensor
    not_choosing: bool  # opened for a look alone: no experiment declares it final
    network: ResidualNetwork | None  # None where its weights cannot be used
    notes: tuple[str, ...]  # what could not be had, a line each


def find_subject(
    store: Store, dataset: str, named: str, root: str | Path | None, device: torch.device
) -> tuple[Subject | None, list[str]]:
    """The record of the id `named`, if that is not empty, else the first of `rank_records`, ready to be analysed.

    A record that gives neither predictions nor a network is passed over for the next one of its data set: a line each
    says why. None where nothing is left. Raises `RecordError` if no record has the id."""

    def candidates() -> Iterator[Record]:
        kind = dataset
        if named:
            yield (wanted := store.load(named))
            kind = wanted.config.data.dataset
        yield from (record for record in rank_records(store, kind) if record.id != named)

    passed: list[str] = []
    for record in candidates():
        try:
            return examine(record, store, root, device), passed
        except RecordError as error:
            passed.append(f"Record {record.id} is passed over: {error}")
    return None, passed


def examine(record: Record, store: Store, root: str | Path | None, device: torch.device) -> Subject:
    """A record's network, and its answers as they were kept when the test set was opened for it, which is done now if
    it never was.

    Where its weights cannot be used, the kept answers are left; where these cannot (altered, of another length), they
    are computed anew and not kept. Raises `RecordError` where it is both."""
    test, notes = load_test(record.config.data.dataset, root), []
    network, unusable = None, ""
    try:
        network = record.load_model(device)
    except RecordError as error:
        unusable = str(error)
        notes.append(f"Its weights cannot be used, and what needs them is left out: {unusable}")
    try:
        opened = open_test(record, root=root, device=device.type, store=store, exploratory=True)  # asked of most
        require_length(opened.logits, test.labels, record)
        return Subject(record, test, opened.logits, opened.metrics["not_choosing"], network, tuple(notes))
    except RecordError as error:
        if network is None:
            raise RecordError(f"{unusable}; and {error}" if str(error) != unusable else unusable) from error
        notes.append(f"Its kept predictions are set aside for new ones: {error}")
    logits, _ = score(record, root=root, device=device.type)
    return Subject(record, test, logits, record.id not in final_ids(), network, tuple(notes))


def baseline(record: Record, store: Store, device: torch.device) -> tuple[Record, ResidualNetwork]:
    """The record and network of `BASELINE` that a record of the same data set is compared with.

    Raises `RecordError`, which says what is missing."""
    dataset = record.config.data.dataset
    found = [
        other
        for _, other in collect(load_experiment(BASELINE), store)
        if other is not None and not other.failed and other.config.data.dataset == dataset
    ]
    if any(other.id == record.id for other in found):
        raise RecordError(f"record {record.id} is the {BASELINE} network itself, which others are compared with")
    if not found:
        raise RecordError(f"experiment {BASELINE} has no record on {dataset} to compare with")
    return found[0], found[0].load_model(device)
