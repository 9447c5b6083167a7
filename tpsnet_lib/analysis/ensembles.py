"""Several seeds of one recipe: how accurate they are on average, and what averaging their answers buys."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tpsnet_lib import metrics
from tpsnet_lib.analysis.errors import DRAWS, Interval, share
from tpsnet_lib.files import RecordError
from tpsnet_lib.runs.records import Record, Store
from tpsnet_lib.runs.test_set import find_test


@dataclass(frozen=True)
class Ensemble:
    """Networks that differ in their seed alone, on the same images."""

    singles: tuple[float, ...]  # the accuracy of each
    mean: Interval  # of these, with the t interval over seeds
    together: Interval  # the accuracy of their mean probabilities, with its Wilson interval
    gain: Interval  # together minus the mean of the singles, with a bootstrap interval of the images
    n: int  # images


def seeds_opened(record: Record, store: Store, n: int) -> dict[int, Tensor]:
    """The test logits float32 [n, 10] of a record's recipe by seed, the record's own among them.

    Only of records that were opened on the same n test images and under the same promise: beside one that was declared
    final stands none that was opened for a look alone. Predictions that are altered or of another length are left
    out."""
    opened = {}
    for other in store.all():
        if other.group_id == record.group_id:
            with contextlib.suppress(RecordError):
                opened[other.config.seed] = find_test(other, store)
    own, found = opened.get(record.config.seed), {}
    for seed, result in sorted(opened.items()):
        if own is None or result is None or len(result.logits) != n:
            continue
        if all(result.metrics[name] == own.metrics[name] for name in ("fingerprint", "not_choosing")):
            found[seed] = result.logits
    return found


def ensemble(logits: Sequence[Tensor], labels: Tensor) -> Ensemble:
    """What two or more networks' logits [N, 10] come to, one by one and with their probabilities averaged."""
    hits = torch.stack([one.argmax(1) == labels for one in logits])
    averaged = torch.stack([one.double().softmax(1) for one in logits]).mean(0)
    right = averaged.argmax(1) == labels
    singles = tuple(hits.double().mean(1).tolist())
    differences = (right.double() - hits.double().mean(0)).numpy()
    return Ensemble(
        singles,
        metrics.mean_interval(singles),
        share(int(right.sum()), len(labels)),
        (float(differences.mean()), *metrics.bootstrap(differences, np.mean, DRAWS)),
        len(labels),
    )
