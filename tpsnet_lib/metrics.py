"""Predictions of a network and their scores: accuracy, likelihood, calibration. Intervals are in `stats`."""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.nn import functional as F

from tpsnet_lib.bf16_products import bf16_products
from tpsnet_lib.data.datasets import normalise


@torch.inference_mode()
def predict(model: nn.Module, images: Tensor, *, batch_size: int = 500, precision: str = "fp32") -> Tensor:
    """Logits float32 [N, classes], on the CPU, of images uint8 [N, channels, 32, 32], computed on the model's device.

    The model runs in evaluation mode and then returns to the mode it was in. `precision`: `fp32`, or `bf16` for
    autocast."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    logits = []
    try:
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
        with autocast, bf16_products(device, precision):
            for start in range(0, max(1, len(images)), batch_size):
                batch = images[start : start + batch_size].to(device)
                logits.append(model(normalise(batch)).float())
    finally:
        model.train(was_training)
    return torch.cat(logits).cpu()


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """The fraction of images whose largest logit is their label's; logits [N, classes], labels [N]."""
    return (logits.argmax(1) == labels).double().mean().item()


def nll(probabilities: Tensor, labels: Tensor) -> float:
    """The cross-entropy of labels [N] and probabilities [N, classes], in nats: the mean of −log p, p at least 1e-12."""
    chosen = probabilities.double().gather(1, labels[:, None])
    return -chosen.clamp(min=1e-12).log().mean().item()


def ece(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """The expected calibration error of probabilities [N, classes] for labels [N]."""
    confidence, predicted = probabilities.double().max(1)
    return expected_calibration_error(confidence, predicted == labels, bins)


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """How far confidence [N] is from accuracy, on average over bins of equal mass; nan of no images.

    Guo et al. 2017 (arXiv 1706.04599), with equal counts of images in the bins (Nguyen & O'Connor 2015). Images of
    equal confidence share their mean gap, so that their order does not matter where they fall into two bins. Raises
    `ValueError` for a confidence that is no number, and for lists of unequal length."""
    confidences, hits = (np.asarray(values, dtype=float) for values in (confidence, correct))
    if len(confidences) != len(hits) or not np.isfinite(confidences).all():
        raise ValueError("each image needs its confidence, as a number, and whether it is right")
    values, which, counts = np.unique(confidences, return_inverse=True, return_counts=True)
    accuracies = np.bincount(which, hits) / counts  # of the images of each confidence
    gaps = np.repeat(values - accuracies, counts)  # an image each, by rising confidence
    total = sum(abs(part.sum()) for part in np.array_split(gaps, bins))
    return float(total) / len(gaps) if len(gaps) else math.nan


def temperature(logits: Tensor, labels: Tensor) -> float:
    """The T in 0.01 to 100 for which softmax(logits / T) has the least cross-entropy (Guo et al. 2017), of
    logits [N, classes] and labels [N]. Fit it on images that were not trained on, and apply it to others."""

    def loss(log_temperature: float) -> float:
        return F.cross_entropy(logits.double() / math.exp(log_temperature), labels).item()

    bounds = math.log(0.01), math.log(100)
    return math.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8}).x)
