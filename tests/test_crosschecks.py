"""Each instrument beside a well-kept library's: equal to 1e-6, also with ties and rare classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import optimize, stats
from sklearn import metrics as sklearn
from torchmetrics.functional import classification as torchmetrics

from tpsnet_lib import metrics

GENERATOR = torch.Generator().manual_seed(5)
LABELS = torch.multinomial(torch.arange(1.0, 11), 700, replacement=True, generator=GENERATOR)  # rare and frequent ones
LOGITS = 2 * torch.randn(700, 10, generator=GENERATOR) + 3 * torch.nn.functional.one_hot(LABELS, 10)
PROBABILITIES = LOGITS.double().softmax(1)
CONFIDENCE, PREDICTED = PROBABILITIES.max(1)
CORRECT = PREDICTED == LABELS


def close(value):
    return pytest.approx(value, abs=1e-6)


def test_accuracy() -> None:
    assert metrics.accuracy(LOGITS, LABELS) == close(sklearn.accuracy_score(LABELS, PREDICTED))


def test_likelihood() -> None:
    assert metrics.nll(PROBABILITIES, LABELS) == close(sklearn.log_loss(LABELS, PROBABILITIES, labels=range(10)))


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_the_calibration_error_in_bins_of_equal_mass(bins: int) -> None:
    """No library has these bins, so this is written once more, another way: by the ranks of the confidences."""
    confidence, right = CONFIDENCE.numpy(), CORRECT.numpy()
    rank = stats.rankdata(confidence, method="ordinal") - 1
    size, more = divmod(len(rank), bins)  # the first bins hold one more where they do not come out even
    edges = np.cumsum([size + (number < more) for number in range(bins)])
    of = np.searchsorted(edges, rank, side="right")
    gaps = [abs(confidence[of == b].mean() - right[of == b].mean()) * (of == b).mean() for b in range(bins)]
    assert metrics.ece(PROBABILITIES, LABELS, bins) == close(sum(gaps))


def test_the_calibration_error_where_bins_of_equal_mass_are_of_equal_width() -> None:
    """Confidences of which as many lie in each ninth of 0.1 to 1: torchmetrics' ten bins of equal width are ours."""
    confidence = torch.cat([0.1 + 0.1 * (b + torch.rand(40, generator=GENERATOR) * 0.9 + 0.05) for b in range(9)])
    rest = ((1 - confidence) / 9)[:, None].expand(-1, 10)
    guessed = torch.randint(0, 10, (360,), generator=GENERATOR)
    probabilities = rest.scatter(1, guessed[:, None], confidence[:, None])
    labels = guessed.where(torch.rand(360, generator=GENERATOR) < confidence**2, (guessed + 1) % 10)
    theirs = torchmetrics.multiclass_calibration_error(probabilities, labels, 10, n_bins=10, norm="l1")
    assert metrics.ece(probabilities, labels, bins=9) == close(theirs.item())


def test_the_temperature_is_where_the_likelihood_is_largest() -> None:
    def loss(log_heat: float) -> float:
        return float(sklearn.log_loss(LABELS, (LOGITS.double() / np.exp(log_heat)).softmax(1), labels=range(10)))

    best = optimize.minimize_scalar(loss, bounds=(-3, 3), options={"xatol": 1e-9})
    found = metrics.temperature(LOGITS, LABELS)
    assert loss(np.log(found)) <= best.fun + 1e-12
    assert found == pytest.approx(np.exp(best.x), rel=1e-5)
