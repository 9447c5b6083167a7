"""Figures and their intervals agree with tables, with hand-worked examples, and with their own definitions."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tpsnet_lib import metrics
from tpsnet_lib.config import MEMBERS
from tpsnet_lib.data.datasets import normalise
from tpsnet_lib.model import build


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (23, 3, 32, 32), dtype=torch.uint8, generator=generator)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return build(MEMBERS["classroom"])


def test_predictions_are_the_networks_logits_whatever_the_batch(network: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        expected = network.eval()(normalise(images))
    for batch_size in (1, 7, 23, 500):
        logits = metrics.predict(network, images, batch_size=batch_size)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert logits.dtype == torch.float32
    assert logits.device.type == "cpu"
    assert not logits.requires_grad


@pytest.mark.parametrize("training", [True, False])
def test_predicting_leaves_the_network_as_it_was(network: nn.Module, images: Tensor, training: bool) -> None:
    network.train(training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    metrics.predict(network, images)
    assert all(module.training == training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

    with pytest.raises(RuntimeError):
        metrics.predict(network, images[:, :1])  # one colour
    assert network.training == training


def test_predicting_in_bf16_gives_nearly_the_same_float32_logits(network: nn.Module, images: Tensor) -> None:
    exact, coarse = metrics.predict(network, images), metrics.predict(network, images, precision="bf16")
    assert coarse.dtype == torch.float32
    assert not torch.equal(coarse, exact)
    assert (coarse - exact).abs().max() < 0.05 * exact.abs().max()


def test_predicting_takes_no_images(network: nn.Module, images: Tensor) -> None:
    assert metrics.predict(network, images[:0]).shape == (0, 10)
    hundred = build(replace(MEMBERS["classroom"], classes=100))
    assert metrics.predict(hundred, images[:0]).shape == (0, 100)


def test_accuracy_is_the_fraction_of_right_largest_logits() -> None:
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, -1.0], [0.0, 0.5]])
    assert metrics.accuracy(logits, torch.tensor([0, 1, 1, 1])) == 0.75


def test_likelihood_is_as_worked_by_hand() -> None:
    probabilities, labels = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]]), torch.tensor([0, 2])
    assert metrics.nll(probabilities, labels) == pytest.approx(-(math.log(0.5) + math.log(0.1)) / 2)
    certain = torch.tensor([[1.0, 0.0]])
    assert metrics.nll(certain, torch.tensor([0])) == 0.0
    assert metrics.nll(certain, torch.tensor([1])) == pytest.approx(-math.log(1e-12))


def test_calibration_error_is_the_gap_of_confidence_and_accuracy_over_bins_of_equal_mass() -> None:
    confidence = torch.tensor([0.9, 0.6, 0.8, 0.7])
    probabilities, labels = torch.stack([confidence, 1 - confidence], 1), torch.tensor([0, 0, 0, 1])
    assert metrics.ece(probabilities, labels, bins=1) == pytest.approx(0)  # 3 of 4 right at a confidence of 0.75
    low, high = abs((0.6 + 0.7) / 2 - 1 / 2), abs((0.8 + 0.9) / 2 - 1)
    assert metrics.ece(probabilities, labels, bins=2) == pytest.approx((low + high) / 2)
    assert metrics.ece(probabilities, labels, bins=15) == pytest.approx((0.4 + 0.7 + 0.2 + 0.1) / 4)


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_the_temperature_is_the_one_the_labels_were_drawn_with(true: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 10, generator=generator) * 3
    labels = torch.multinomial((logits / true).softmax(1), 1, generator=generator)[:, 0]
    found = metrics.temperature(logits, labels)
    assert found == pytest.approx(true, rel=0.03)
    best = metrics.nll((logits / found).softmax(1), labels)
    assert all(best <= metrics.nll((logits / (found * factor)).softmax(1), labels) for factor in (0.9, 0.99, 1.01, 1.1))


def test_the_temperature_stays_in_its_range_when_the_likelihood_has_no_optimum() -> None:
    logits = torch.eye(10) * 5
    assert 0.01 <= metrics.temperature(logits, torch.arange(10)) < 0.2  # always right: likelier than a double can say
    assert metrics.temperature(logits, torch.arange(10).roll(1)) == pytest.approx(100)  # always wrong
