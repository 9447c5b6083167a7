"""What a network's predictions come to: which record to analyse, and its scores with their intervals."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tpsnet_lib import metrics
from tpsnet_lib.analysis.cost import training_flops
from tpsnet_lib.data.datasets import ImageSet, split
from tpsnet_lib.data.reference_labels import Published
from tpsnet_lib.files import RecordError
from tpsnet_lib.runs.experiments import final_ids
from tpsnet_lib.runs.records import Record, Store
from tpsnet_lib.runs.test_set import find_test

Interval = tuple[float, float, float]  # a value and the ends of its 95% interval
DRAWS = 1000  # of a bootstrap


# Which record -------------------------------------------------------------------------------------------------------


def rank_records(store: Store, dataset: str) -> list[Record]:
    """Records declared final, with weights, on this data set, in the order in which they are taken to be analysed
    where none is named: those whose test part was opened, the best first, then the others, the newest first.

    The best is found by `held_out_accuracy`, never by a test result nor by images that the network was fitted on. While
    one of them has none, nothing measured compares them: the one that was trained with the most arithmetic is the first
    then. Seeds of a recipe that tie stand in their order."""
    fitting = [record for record in store.all() if record.has_weights and record.config.data.dataset == dataset]
    finals = final_ids() if fitting else {}
    there = [record for record in fitting if record.id in finals]
    opened = [record for record in there if _was_opened(record, store)]
    accuracy = {record.id: held_out_accuracy(record, store) for record in opened}
    known = all(found is not None for found in accuracy.values())
    opened.sort(
        key=lambda record: (-((accuracy[record.id] or 0.0) if known else _arithmetic(record)), record.config.seed)
    )
    shut = [record for record in there if record not in opened]
    return opened + sorted(shut, key=lambda record: str(record.provenance["finished"]), reverse=True)


def _arithmetic(record: Record) -> float:
    """Floating-point operations of a run's training, as its config has them."""
    given = record.config.data
    kept, held_out = map(len, split(given.dataset))
    fitted = given.train_size or (kept + held_out if given.fit_on == "all" else kept)
    return training_flops(record.config, record.config.train.epochs * fitted)


def _was_opened(record: Record, store: Store) -> bool:
    try:
        return find_test(record, store) is not None
    except RecordError:  # it is there, and altered
        return True


def split_siblings(record: Record, store: Store) -> list[Record]:
    """Records of the same recipe that kept the validation images out, of this seed first; of a run that did, itself."""
    if record.config.data.fit_on == "split":
        return [record]
    group = replace(record.config, data=replace(record.config.data, fit_on="split")).group_id
    found = [other for other in store.all() if other.group_id == group and not other.failed]
    return sorted(found, key=lambda other: (not other.has_weights, other.config.seed != record.config.seed))


def held_out_accuracy(record: Record, store: Store) -> float | None:
    """A record's accuracy on validation images that were kept out of fitting: its own, or, of a network that was fitted
    on all images, the mean over its `split` siblings of whatever seeds; None where there is none of these."""
    found = [float(other.metrics["validation_accuracy"]) for other in split_siblings(record, store)]
    return float(np.mean(found)) if found else None


def held_out_temperature(
    record: Record, store: Store, validation: ImageSet, device: torch.device, precision: str
) -> float | None:
    """The temperature that suits a record best on validation images its network was not trained on; for a network
    fitted on all images, that of its `split` sibling. It stands in the sibling's record, or is found from its weights;
    None where there is neither."""
    for sibling in split_siblings(record, store):
        if "temperature" in sibling.metrics:
            return float(sibling.metrics["temperature"])
        with contextlib.suppress(RecordError):  # none, altered, or of another network
            logits = metrics.predict(sibling.load_model(device), validation.images, precision=precision)
            return metrics.temperature(logits, validation.labels.cpu())
    return None


def require_length(logits: Tensor, labels: Tensor, record: Record) -> None:
    """Raise `RecordError` unless there is one prediction of ten classes for each test image."""
    if logits.shape[0] != len(labels) or logits.ndim != 2:
        raise RecordError(
            f"the test part of record {record.id} holds {tuple(logits.shape)} predictions for {len(labels):,} test"
            " images: it is of another data set"
        )


# Scores -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassScores:
    """Precision, recall and F1 of one class, each with its 95% interval; nan where nothing was predicted or there."""

    precision: Interval
    recall: Interval
    f1: Interval


def class_scores(confusion: Tensor) -> list[ClassScores]:
    """Scores by class from a confusion matrix (rows: label). Precision and recall have Wilson intervals, F1 that of a
    bootstrap of the images."""
    total = int(confusion.sum())
    scores = []
    for hits, predicted, there in zip(
        confusion.diagonal().tolist(), confusion.sum(0).tolist(), confusion.sum(1).tolist(), strict=True
    ):
        outcomes = np.array([hits, predicted - hits, there - hits, total - predicted - there + hits])
        drawn = np.random.default_rng(0).multinomial(total, outcomes / total, DRAWS)
        with np.errstate(invalid="ignore"):
            values = 2 * drawn[:, 0] / (2 * drawn[:, 0] + drawn[:, 1] + drawn[:, 2])
        f1 = 2 * hits / (predicted + there) if predicted + there else math.nan
        low, high = np.nanquantile(values, [0.025, 0.975]) if predicted + there else (math.nan, math.nan)
        scores.append(ClassScores(share(hits, predicted), share(hits, there), (f1, float(low), float(high))))
    return scores


def share(hits: int, n: int) -> Interval:
    """A fraction with its Wilson interval; nan of nothing."""
    return (hits / n if n else math.nan, *metrics.wilson(hits, n))


def calibration(probabilities: Tensor, labels: Tensor, draws: int = 300) -> dict[str, Interval]:
    """NLL, Brier score and calibration error (15 bins), each with its interval from a bootstrap of the images."""
    exact = probabilities.double()
    confidence, predicted = exact.max(1)
    truth = torch.nn.functional.one_hot(labels, exact.shape[1])
    images = {  # what each score is the mean of; the last is put into bins first
        "NLL": -exact.gather(1, labels[:, None])[:, 0].clamp(min=1e-12).log(),
        "Brier": (exact - truth).square().sum(1),
        "ECE": torch.stack([confidence, confidence - (predicted == labels).double()], 1),
    }
    scores = {"NLL": metrics.nll, "Brier": metrics.brier, "ECE": metrics.ece}
    return {
        name: (
            scores[name](probabilities, labels),
            *metrics.bootstrap(values.numpy(), _binned_gap if name == "ECE" else np.mean, draws),
        )
        for name, values in images.items()
    }


def _binned_gap(rows: np.ndarray) -> float:
    """`metrics.ece` of rows (confidence, confidence minus hit), for a thousand calls of it."""
    gaps = rows[np.argsort(rows[:, 0], kind="stable"), 1]
    return sum(abs(float(part.sum())) for part in np.array_split(gaps, 15)) / len(rows)


@dataclass(frozen=True)
class Bin:
    """Images of like confidence: their mean confidence, and how often they are right."""

    confidence: float
    accuracy: Interval
    n: int


def reliability(probabilities: Tensor, labels: Tensor, bins: int = 15) -> list[Bin]:
    """Accuracy by confidence, in bins of equal counts, from the least sure to the surest."""
    confidence, predicted = probabilities.double().max(1)
    order = confidence.argsort(stable=True)
    parts = zip(confidence[order].tensor_split(bins), (predicted == labels)[order].tensor_split(bins), strict=True)
    return [Bin(sure.mean().item(), share(int(hits.sum()), len(hits)), len(hits)) for sure, hits in parts if len(hits)]


def risk_coverage(confidence: Tensor, correct: Tensor) -> tuple[Tensor, Tensor]:
    """How often the network is right on the share of images that it is surest of: (coverage [N], accuracy [N]),
    float64, from the surest image alone to all (El-Yaniv & Wiener 2010)."""
    hits = correct[confidence.argsort(descending=True, stable=True)].double().cumsum(0)
    count = torch.arange(1, len(correct) + 1, dtype=torch.float64)
    return count / len(correct), hits / count


def coverage_for(confidence: Tensor, correct: Tensor, accuracy: float) -> float:
    """The largest share of images, the surest first, on which the network reaches an accuracy; 0 if on none."""
    coverage, reached = risk_coverage(confidence, correct)
    enough = (reached >= accuracy).nonzero()
    return float(coverage[enough[-1, 0]]) if len(enough) else 0.0


def worst_errors(probabilities: Tensor, labels: Tensor, count: int) -> Tensor:
    """Positions int64 of the wrong predictions that the network was surest of, the surest first."""
    confidence, predicted = probabilities.max(1)
    wrong = (predicted != labels).nonzero()[:, 0]
    return wrong[confidence[wrong].argsort(descending=True, stable=True)][:count]


# Two networks on the same images, people and networks ---------------------------------------------------------------


@dataclass(frozen=True)
class Paired:
    """The accuracy of one network minus another's on the same images, and what that rests on."""

    difference: Interval  # paired bootstrap
    p: float  # McNemar, exact
    only_first: int
    only_second: int


def paired(first: Tensor, second: Tensor) -> Paired:
    """Compare two networks image by image: `first` and `second` bool [N], whether each is right."""
    n, only_first, only_second = len(first), int((first & ~second).sum()), int((second & ~first).sum())
    outcomes = np.array([only_first, only_second, n - only_first - only_second]) / n
    drawn = np.random.default_rng(0).multinomial(n, outcomes, DRAWS)  # images drawn anew, three outcomes to an image
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / n, [0.025, 0.975])
    difference = ((only_first - only_second) / n, float(low), float(high))
    return Paired(difference, metrics.mcnemar(first, second), only_first, only_second)


@dataclass(frozen=True)
class Standing:
    """One published model beside ours."""

    name: str
    accuracy: float
    ours: Paired  # ours minus theirs


def standings(correct: Tensor, published: Published, labels: Tensor) -> list[Standing]:
    """Every published model on the same images (ours: bool [10000]), the most accurate first."""
    theirs = published.original == labels
    rows = [
        Standing(name, hits.double().mean().item(), paired(correct, hits))
        for name, hits in zip(published.names, theirs, strict=True)
    ]
    return sorted(rows, key=lambda row: -row.accuracy)


def expected_v6(accuracy: float, published: Published, labels: Tensor) -> Interval:
    """The accuracy on CIFAR-10.1 v6 that the published models' line foretells, with the line's bootstrap interval."""
    on_original = (published.original == labels).double().mean(1).numpy()
    on_v6 = (published.v6 == published.v6_labels).double().mean(1).numpy()

    def foretold(pairs: np.ndarray) -> float:
        slope, offset = np.polyfit(pairs[:, 0], pairs[:, 1], 1)
        return float(slope * accuracy + offset)

    pairs = np.stack([on_original, on_v6], 1)
    return (foretold(pairs), *metrics.bootstrap(pairs, foretold, DRAWS))


def entropy(probabilities: Tensor) -> Tensor:
    """The uncertainty of each row of probabilities [N, 10], in nats: 0 for a certain one, ln 10 for no idea at all."""
    exact = probabilities.double()
    return -(exact * exact.clamp(min=1e-300).log()).sum(1)


@dataclass(frozen=True)
class Agreement:
    """Images on which about the same share of people agree with the label: the network's error and mean uncertainty
    there, and people's uncertainty."""

    name: str
    n: int
    error: Interval
    ours: Interval
    people: float


AGREEMENTS = {"all": (1.0, 1.1), "95 to 99%": (0.95, 1.0), "80 to 95%": (0.8, 0.95), "under 80%": (-1.0, 0.8)}


def by_agreement(counts: Tensor, probabilities: Tensor, labels: Tensor) -> list[Agreement]:
    """The network beside people, by how many of them agree with the label; groups without images are left out.

    `counts` int64 [N, 10] votes, `probabilities` [N, 10], `labels` int64 [N]."""
    votes = counts / counts.sum(1, keepdim=True)
    agree = votes.gather(1, labels[:, None])[:, 0]
    wrong, unsure, split = probabilities.argmax(1) != labels, entropy(probabilities), entropy(votes)
    groups = []
    for name, (low, high) in AGREEMENTS.items():
        here = (agree >= low) & (agree < high)
        if n := int(here.sum()):
            error, ours = share(int(wrong[here].sum()), n), metrics.mean_interval(unsure[here].numpy())
            groups.append(Agreement(name, n, error, ours, split[here].mean().item()))
    return groups


def rank_correlation(first: Tensor, second: Tensor) -> Interval:
    """Spearman's correlation of two lists of numbers (equal values share their mean rank), with a bootstrap interval
    of the images, the ranks kept."""
    ranks = np.stack([_ranks(first), _ranks(second)], 1)
    if ranks.std(0).min() == 0:
        return math.nan, math.nan, math.nan

    def pearson(rows: np.ndarray) -> float:
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(np.corrcoef(rows.T)[0, 1])

    return (pearson(ranks), *metrics.bootstrap(ranks, pearson, 300))


def _ranks(values: Tensor) -> np.ndarray:
    _, inverse, counts = np.unique(values.numpy(), return_inverse=True, return_counts=True)
    result: np.ndarray = (counts.cumsum() - (counts - 1) / 2)[inverse]
    return result
