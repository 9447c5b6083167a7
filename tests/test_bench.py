"""What a user can rely on: the baseline is the original's way; a bench gives medians, spread, n and origin."""

from __future__ import annotations

import json
from itertools import islice

import pytest
import torch
from torchvision import transforms

from tpsnet_lib.config import ModelConfig, RunConfig, TrainConfig
from tpsnet_lib.data import ImageSet
from tpsnet_lib.study import baseline, bench

TINY = ModelConfig(blocks=(1, 1, 1), channels=(8, 8, 8), stem=8)
BATCHES_OF_16 = TrainConfig(batch_size=16, lr=0.05, weight_decay=0.0)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return bench.sample(size=60)


@pytest.fixture(autouse=True)
def _shortest_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "WARM_UP", 0)
    monkeypatch.setattr(bench, "LEAST", 1)


def test_the_baseline_is_the_originals_transform_of_one_image_after_another(images: ImageSet):
    steps = baseline.transform().transforms
    kinds = ["RandomCrop", "RandomRotation", "RandomHorizontalFlip", "ToTensor", "Normalize"]
    assert [type(step).__name__ for step in steps] == kinds
    crop, rotation, *_ = steps
    assert (crop.size, crop.padding) == ((32, 32), 4)
    assert rotation.degrees == [-5.0, 5.0]
    assert rotation.interpolation == transforms.InterpolationMode.NEAREST
    image, label = baseline.Pictures(images)[3]
    assert image.shape == (3, 32, 32)
    assert image.dtype == torch.float32
    assert label == images.labels[3].item()


@pytest.mark.parametrize("workers", [0, 1])
def test_the_baseline_learns(images: ImageSet, workers: int):
    config = RunConfig(TINY, BATCHES_OF_16)
    steps = baseline.train(config, images, torch.device("cpu"), "fp32", workers)
    losses = list(islice(steps, 60))  # longer than the epoch of 60 images: it has no end
    steps.close()
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_the_loops_bench_gives_medians_spread_n_and_origin(images: ImageSet):
    device = torch.device("cpu")
    result = bench.bench_loop(TINY, BATCHES_OF_16, images, repeats=2, device=device, seconds=0.0, workers=[0, 1])
    for part in ("ours", "baseline", "ratio"):
        assert 0 < result[part]["min"] <= result[part]["median"] <= result[part]["max"]
        assert result[part]["n"] == 2
    assert {variant["workers"] for variant in result["variants"]} == {0, 1}
    assert result["baseline"]["workers"] in (0, 1)
    assert result["batch_size"] == 16
    assert result["data"] == "shapes10"
    assert result["threads"] == torch.get_num_threads()
    assert result["versions"]["torch"] == torch.__version__
    assert json.loads(json.dumps(result)) == result
    text = bench.table(result)
    for shown in ("shapes10", "2 turns", result["hardware"], f"{result['ratio']['median']:.2f}", torch.__version__):
        assert shown in text


def test_a_batch_larger_than_the_data_is_made_to_fit(images: ImageSet):
    result = bench.bench_loop(TINY, TrainConfig(), images, 1, torch.device("cpu"), 0.0, [0])
    assert result["batch_size"] == 60


def test_the_augmentations_bench_says_what_one_thread_does_and_leaves_threads_as_they_were(images: ImageSet):
    threads = torch.get_num_threads()
    result = bench.bench_augment(repeats=2, batch_size=50, images=images, singles=10)
    assert torch.get_num_threads() == threads
    assert result["ratio"]["n"] == result["one_thread"]["n"] == 2
    assert result["ratio"]["min"] <= result["ratio"]["median"] <= result["ratio"]["max"]
    assert "one thread" in bench.table(result)
    assert json.loads(json.dumps(result)) == result


def test_named_cases_are_within_the_budget():
    from tpsnet_lib.model import build

    for model in bench.LOOP_CASES.values():
        build(model)
