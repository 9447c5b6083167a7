"""What a user can rely on: the baseline is the original's way; a bench gives medians, spread, n and origin."""

import json
from contextlib import closing
from dataclasses import replace
from itertools import count, islice
from types import SimpleNamespace

import pytest
import torch
from torchvision import transforms

from tpsnet_lib.benchmarks import card, original_loop, throughput, time_to_accuracy
from tpsnet_lib.cli import main
from tpsnet_lib.config import MEMBERS, RECIPES, DataConfig, ModelConfig, RunConfig, TrainConfig
from tpsnet_lib.data.datasets import ImageSet
from tpsnet_lib.errors import TrainingError
from tpsnet_lib.model_cost import count_macs
from tpsnet_lib.train_state import TrainState

TINY = ModelConfig(blocks=(1, 1, 1), channels=(8, 8, 8), stem=8)
BATCHES_OF_16 = TrainConfig(batch_size=16, lr=0.05, weight_decay=0.0)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return throughput.sample(size=60)


class SameProcess:
    """Stands in for `BaselineProcess`: the original's way of training, in the process of the test."""

    def __init__(self, config: RunConfig, images: ImageSet, device: torch.device) -> None:
        self.config, self.images, self.device = config, images, device

    def images_per_second(self, precision: str, workers: int, seconds: float, skip: int, least: int) -> float:
        with closing(original_loop.train(self.config, self.images, self.device, precision, workers=0)) as steps:
            rate = original_loop.steps_per_second(steps.__next__, seconds, skip, self.device, least)
        return self.config.train.batch_size * rate

    def close(self) -> None:
        """Nothing is left to end."""


@pytest.fixture
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(original_loop, "BaselineProcess", SameProcess)


@pytest.fixture(autouse=True)
def _shortest_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "WARM_UP_STEPS", 0)
    monkeypatch.setattr(throughput, "LEAST_STEPS", 1)


def test_the_baseline_is_the_originals_transform_of_one_image_after_another(images: ImageSet):
    steps = original_loop.transform().transforms
    kinds = ["RandomCrop", "RandomRotation", "RandomHorizontalFlip", "ToTensor", "Normalize"]
    assert [type(step).__name__ for step in steps] == kinds
    crop, rotation, *_ = steps
    assert (crop.size, crop.padding) == ((32, 32), 4)
    assert rotation.degrees == [-5.0, 5.0]
    assert rotation.interpolation == transforms.InterpolationMode.NEAREST
    image, label = original_loop.PilDataset(images)[3]
    assert image.shape == (3, 32, 32)
    assert image.dtype == torch.float32
    assert label == images.labels[3].item()


@pytest.mark.parametrize("workers", [0, 1])
def test_the_baseline_learns(images: ImageSet, workers: int):
    config = RunConfig(TINY, BATCHES_OF_16)
    steps = original_loop.train(config, images, torch.device("cpu"), "fp32", workers)
    losses = list(islice(steps, 60))  # longer than the epoch of 60 images: it has no end
    steps.close()
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


@pytest.mark.slow
def test_a_baseline_that_ended_is_said_to_have(images: ImageSet):
    with closing(
        original_loop.BaselineProcess(RunConfig(TINY, BATCHES_OF_16), images, torch.device("cpu"))
    ) as baseline:
        assert baseline.images_per_second("fp32", 0, 0.0, 0, 1) > 0
        baseline.process.kill()
        with pytest.raises(TrainingError, match="the baseline's process ended"):
            baseline.images_per_second("fp32", 0, 0.0, 0, 1)


@pytest.mark.usefixtures("_in_this_process")
def test_the_loops_bench_gives_medians_spread_n_and_origin(images: ImageSet):
    device = torch.device("cpu")
    result = throughput.bench_loop(RunConfig(TINY, BATCHES_OF_16), images, device, throughput.Timing(0.0, 2, [0, 1]))
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
    assert sum(result["profile"].values()) == pytest.approx(1)
    text = throughput.table(result)
    assert throughput.other_work(result["profile"]) in text
    peak = result["peak"]
    assert (
        peak["reached"]
        == 6 * count_macs(TINY) * result["ours"]["median"]
        == pytest.approx(peak["share"] * peak["flops"])
    )
    assert throughput.share_of_peak(peak, result["ours"]["precision"]) in text
    for shown in ("shapes10", "2 turns", result["hardware"], f"{result['ratio']['median']:.2f}", torch.__version__):
        assert shown in text


@pytest.mark.usefixtures("_in_this_process")
def test_a_batch_larger_than_the_data_is_made_to_fit(images: ImageSet):
    result = throughput.bench_loop(RunConfig(TINY), images, torch.device("cpu"), throughput.Timing(0.0, 1, [0]))
    assert result["batch_size"] == 60


def test_the_augmentations_bench_says_what_one_thread_does_and_leaves_threads_as_they_were(images: ImageSet):
    threads = torch.get_num_threads()
    result = throughput.bench_augment(repeats=2, batch_size=50, images=images, singles=10)
    assert torch.get_num_threads() == threads
    assert result["ratio"]["n"] == result["one_thread"]["n"] == 2
    assert result["ratio"]["min"] <= result["ratio"]["median"] <= result["ratio"]["max"]
    assert "one thread" in throughput.table(result)
    assert json.loads(json.dumps(result)) == result


def test_named_cases_are_within_the_budget():
    from tpsnet_lib.model import build

    for case in throughput.LOOP_CASES.values():
        build(case.model)


def test_the_rest_of_a_step_is_what_is_not_convolution() -> None:
    shares = {"convolution, forward": 0.6, "norm": 0.1, "pool": 0.05, "optimizer": 0.22, "other": 0.03}
    assert throughput.other_work(shares) == "optimizer 22%, norm 10%, pool 5% of a step"


@pytest.fixture
def _a_second_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of a race moves a second at each look: after a step, and an epoch. In fp32 nothing is compiled."""
    monkeypatch.setattr(time_to_accuracy, "native_precision", lambda device: "fp32")
    monkeypatch.setattr(time_to_accuracy, "time", SimpleNamespace(perf_counter=count().__next__))


def race_to(accuracy: float, epochs: float = 12.0, minutes: float = 30.0) -> dict[str, object]:
    """Both sides on 600 small images, ours with a short recipe of large steps."""
    recipe = TrainConfig(epochs=epochs, batch_size=20, lr=0.05, nesterov=True, rotation=0.0)
    config, device = RunConfig(TINY, recipe, DataConfig("shapes10", 600, 100)), torch.device("cpu")
    timing = throughput.Timing(0.0, 1, [0])
    return time_to_accuracy.bench_time(config, accuracy, minutes, None, device, timing)


@pytest.mark.usefixtures("_a_second_a_look", "_in_this_process")
@pytest.mark.slow
def test_the_time_to_an_accuracy_is_that_of_the_epoch_that_reached_it() -> None:
    result = race_to(0.2)
    ours = result["ours"]
    assert ours["reached"]
    assert ours["accuracy"] >= 0.2 > max([row["accuracy"] for row in ours["curve"][:-1]], default=0.0)
    assert ours["seconds"] == (600 // 20 + 1) * ours["epochs"]
    assert ours["epochs"] == len(ours["curve"])
    assert json.loads(json.dumps(result)) == result
    assert f"{100 * ours['accuracy']:.2f}% after {ours['epochs']:.4g} epochs" in time_to_accuracy.table(result)
    slow = {**result, "baseline": {**result["baseline"], "reached": False, "seconds": 3 * ours["seconds"]}}
    assert "at least 3.00" in time_to_accuracy.table(slow)


@pytest.mark.usefixtures("_a_second_a_look", "_in_this_process")
@pytest.mark.slow
def test_what_does_not_get_there_is_said_not_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(time_to_accuracy, "PROGRESS_SECONDS", 20.0)
    result = race_to(1.01, epochs=1.0, minutes=33 / 60)
    assert (result["ours"]["reached"], result["ours"]["epochs"]) == (False, 1)  # its schedule was at its end
    theirs = result["baseline"]  # its time was up after three of the four steps of its seventh epoch
    assert (theirs["reached"], theirs["epochs"], theirs["seconds"]) == (False, 6.75, 34)
    assert "ours did not get there" in time_to_accuracy.table(result)
    assert "after 6.75 epochs, not reached" in time_to_accuracy.table(result)
    told = capsys.readouterr().err
    assert "ours, at most 0.55 minutes of training: epoch 0.70, " in told  # a word within a long epoch
    assert f"training: epoch 6.75, {100 * theirs['accuracy']:.2f}% of the validation images, " in told
    assert "trying the original's way: " in told


def test_a_shortened_recipe_keeps_its_parts_in_proportion() -> None:
    recipe = RECIPES["two_cores"]
    half = recipe.with_epochs(recipe.epochs / 2)
    assert (half.epochs, half.small_epochs) == (recipe.epochs / 2, recipe.small_epochs / 2)
    assert recipe.with_epochs(recipe.epochs) == recipe


def test_the_old_word_for_the_target_still_works_and_names_the_new_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr(time_to_accuracy, "bench_time", lambda *given: asked.update(target=given[1]) or {})
    assert main.main(["bench", "time", "--to", "0.7", "--device", "cpu", "--json"]) == 0
    assert asked["target"] == 0.7
    assert capsys.readouterr().err == "tpsnet: --to is called --target now\n"


def test_a_card_is_measured_by_recipe_alone_and_several_at_a_time(images: ImageSet):
    runs = {"small": RunConfig(TINY, BATCHES_OF_16), "twice": RunConfig(TINY, replace(BATCHES_OF_16, copies=2))}
    result = card.measure(runs, images, torch.device("cpu"), seconds=0.3, together=2)
    assert json.loads(json.dumps(result)) == result
    assert result["recipes"].keys() == runs.keys()
    for name, row in result["recipes"].items():
        for number in (1, 2):
            rate, copies = row[f"{number}"]["images_per_second"], runs[name].train.copies
            assert row[f"{number}"]["epochs"] == pytest.approx(1200 * rate / number / copies / 50_000)
            assert row[f"{number}"]["share"] == pytest.approx(6 * count_macs(TINY) * rate / result["peak"])
    assert result["speed"] == pytest.approx(sum(row["2"]["flops"] for row in result["recipes"].values()) / 2)
    assert "small" in card.table(result)
    assert {config.model for config in card.planned().values()} >= {MEMBERS["wide"], MEMBERS["tpsnet"]}


def test_what_a_card_cannot_do_is_left_out_of_its_measurement_with_a_line(
    images: ImageSet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add = TrainState.add_figures

    def add_with_room(state: TrainState, *figures: torch.Tensor) -> None:
        if state.config.seed == 1 or state.config.train.copies == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        add(state, *figures)

    monkeypatch.setattr(TrainState, "add_figures", add_with_room)
    runs = {"small": RunConfig(TINY, BATCHES_OF_16), "twice": RunConfig(TINY, replace(BATCHES_OF_16, copies=2))}
    result = card.measure(runs, images, torch.device("cpu"), seconds=0.2, together=2)
    assert result["speed"] == result["recipes"]["small"]["1"]["flops"] > 0
    assert [sorted(row) for row in result["recipes"].values()] == [["1", "id"], ["id"]]
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "tpsnet: small, 2 at a time, cannot be measured (CUDA out of memory)"
    assert card.table(result).splitlines()[3].split() == ["twice", "-", "-"]
    assert card.measure({"twice": runs["twice"]}, images, torch.device("cpu"), 0.2, 2)["speed"] == 0
