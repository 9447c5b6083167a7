"""The loop learns, stops when asked, goes on where it stopped, and says what went wrong."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import tiny
from forks import run
from safetensors.torch import load_file

from tpsnet_lib import checkpoint, train
from tpsnet_lib.cli import main
from tpsnet_lib.config import RunConfig
from tpsnet_lib.data.batches import Batch, batches
from tpsnet_lib.data.datasets import fit_and_validation
from tpsnet_lib.device import resolve_device
from tpsnet_lib.errors import Interrupted, RecordError, TrainingError
from tpsnet_lib.model import build
from tpsnet_lib.optim import Ema, by_shape, optimizer, orthogonalised, schedule
from tpsnet_lib.train import TrainOptions
from tpsnet_lib.train_state import TrainState

CPU = torch.device("cpu")


def options(**changes: object) -> TrainOptions:
    return TrainOptions(**{"device": CPU, "progress": "none", **changes})  # type: ignore[arg-type]


def fit(config: RunConfig, **changes: object) -> TrainState:
    return train.fit(config, *fit_and_validation(config.data), options(**changes))


def states(config: RunConfig, **changes: object) -> Iterator[TrainState]:
    return train.training_steps(config, *fit_and_validation(config.data), options(**changes))


def same(a: TrainState, b: TrainState) -> bool:
    left, right = a.model.state_dict(), b.model.state_dict()
    return all(torch.equal(left[name], right[name]) for name in left)


def test_training_lowers_the_loss_and_two_runs_agree_bit_for_bit() -> None:
    config = tiny(train__epochs=6)
    first, second = fit(config), fit(config)
    assert first.history[-1]["train_loss"] < first.history[0]["train_loss"]
    assert len(first.history) == 6
    assert same(first, second)
    assert not same(first, fit(config.with_seed(1)))


@pytest.mark.parametrize(
    "recipe",
    [
        {"optimizer": "sgd", "nesterov": True, "schedule": "onecycle", "ema_decay": 0.9, "clip_norm": 1.0},
        {"optimizer": "adam", "lr": 0.001, "warmup_epochs": 0.5, "cutmix": 1.0, "mix_off_epochs": 1},
        {"optimizer": "adamax", "schedule": "linear", "flip": "alternate", "cutout": 8},
        {"optimizer": "muon", "lr": 0.1, "momentum": 0.6, "small_epochs": 2, "small_size": 16, "stem_epochs": 1},
        {"optimizer": "adamw", "schedule": "constant", "trivial": True, "label_smoothing": 0.1},
        {"asam": 2.0, "trivial": True, "trivial_space": "standard", "erasing": 0.5, "ema_decay": 0.9},
        {"mixup": 0.2, "cutmix": 1.0, "mix_per": "batch", "mix_probability": 0.5, "copies": 3, "clip_norm": 1.0},
    ],
)
def test_a_run_stopped_anywhere_ends_in_the_weights_of_the_uninterrupted_one(
    recipe: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(**{f"train__{name}": value for name, value in recipe.items()})
    whole = fit(config)
    count = TrainState.count

    def count_then_stop(state: TrainState, *figures: torch.Tensor) -> None:
        count(state, *figures)
        if state.step in (3, 6):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(TrainState, "count", count_then_stop)
    path = tmp_path / "checkpoint"
    with pytest.raises(Interrupted, match="step 3 of 8"):
        fit(config, checkpoint=path)
    with pytest.raises(Interrupted, match="step 6 of 8"):
        fit(config, checkpoint=path, resume=True)
    resumed = fit(config, checkpoint=path, resume=True)
    assert same(whole, resumed)
    keys = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
    assert [[row[k] for k in keys] for row in whole.history] == [[row[k] for k in keys] for row in resumed.history]


def test_a_run_that_goes_on_with_other_threads_says_so_in_a_line_and_in_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "checkpoint"
    with pytest.raises(Interrupted, match="step 1 of 8"):
        fit(tiny(), checkpoint=path, deadline=0.0)
    assert "thread" not in capsys.readouterr().err
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert fit(tiny(), checkpoint=path, resume=True).threads == [[0, 1], [1, 2]]
    assert capsys.readouterr().err.startswith("tpsnet: this run goes on with 2 thread(s) and was trained with 1: ")


@pytest.mark.slow
def test_a_run_killed_in_the_middle_of_an_epoch_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"--set={text}" for text in (
        "data.dataset=shapes10", "data.train_size=400", "data.validation_size=100", "train.epochs=4",
        "train.batch_size=20", "train.precision=fp32", "model.blocks=[1,1]", "model.channels=[4,8]", "model.stem=4",
    )]  # fmt: skip
    code = """
import os, sys
from tpsnet_lib import checkpoint, train_state
from tpsnet_lib.cli import main
checkpoint.CHECKPOINT_SECONDS = 0
count = train_state.TrainState.count
def count_then_die(state, *figures):
    count(state, *figures)
    if state.step == 30:
        os.kill(os.getpid(), 9)
train_state.TrainState.count = count_then_die
sys.exit(main.main(sys.argv[1:]))
"""  # epoch 2 ends at step 40
    whole, killed = tmp_path / "whole", tmp_path / "a b ü"  # a path with a space and another alphabet
    words = ["train", *settings, "--device", "cpu", "--out"]
    assert run(code, *words, killed).returncode == -9
    assert len(list((killed / ".work").glob("*/checkpoint"))) == 1
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", 0)
    assert main.main([*words, str(killed)]) == 1  # without --resume nothing is overwritten
    assert "give --resume to go on" in capsys.readouterr().err
    assert main.main([*words, str(killed), "--resume"]) == 0
    assert main.main([*words, str(whole)]) == 0
    first, second = (next(store.glob("*/weights.safetensors")) for store in (whole, killed))
    weights, others = load_file(first), load_file(second)
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert weights.keys() == others.keys()


def test_a_loss_that_is_not_a_number_names_the_step_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", 0.0)
    config, path = tiny(train__epochs=3), tmp_path / "checkpoint"
    run = states(config, checkpoint=path)
    state = [next(run) for _ in range(6)][-1]
    state.model.head.bias.data.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"not a number at step 7 of 12 \(epoch 2\): lower train.lr"):
        next(run)
    assert checkpoint.read_checkpoint(path, config)["step"] == 4


def test_a_torn_checkpoint_and_one_of_another_network_are_refused(tmp_path: Path) -> None:
    config = tiny()
    path = tmp_path / "checkpoint"
    checkpoint.write_checkpoint(path, next(states(config)))
    with pytest.raises(RecordError, match=f"belongs to run {config.id}"):
        checkpoint.read_checkpoint(path, tiny(model__channels=[4, 12]))
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(RecordError, match="is torn"):
        checkpoint.read_checkpoint(path, config)


def test_a_device_that_is_not_there_is_named() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(TrainingError, match="--device cuda: this machine has no cuda"):
            resolve_device("cuda")
    with pytest.raises(TrainingError, match="choose one of"):
        resolve_device("tpu")


def test_an_epoch_sees_each_image_once_and_whole_batches_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny(data__train_size=110, train__epochs=1)
    seen: list[int] = []

    def seen_batches(*call: object, **options: object) -> Iterator[Batch]:
        for batch in batches(*call, **options):  # type: ignore[arg-type]
            seen.extend(batch.indices.tolist())
            yield batch

    monkeypatch.setattr(train, "batches", seen_batches)
    state = fit(config, progress="lines")
    assert state.steps == state.step == 2
    assert len(seen) == len(set(seen)) == 100
    assert ", validation " in capsys.readouterr().err


def test_accuracy_on_images_that_were_fitted_is_not_called_validation(capsys: pytest.CaptureFixture[str]) -> None:
    fit(tiny(train__epochs=1, data__fit_on="all"), progress="lines")
    text = capsys.readouterr().err
    assert ", images fitted too " in text
    assert "validation" not in text


def test_schedules_rise_and_fall_as_they_say() -> None:
    cosine = schedule(tiny(train__epochs=10).train, 10, 100)
    assert cosine(0) == 1.0
    assert cosine(50) == pytest.approx(0.5)
    assert cosine(99) < 0.001
    unmatched = schedule(tiny(train__epochs=10, train__schedule_epochs=100).train, 10, 100)
    assert unmatched(99) > 0.97  # a tenth of its schedule: it never anneals
    peak = [schedule(tiny(train__schedule="onecycle", train__warmup_epochs=2).train, 10, 100)(s) for s in range(100)]
    assert max(range(100), key=peak.__getitem__) in (19, 20)
    assert peak[-1] < 0.02


def test_norms_and_biases_have_a_group_of_their_own() -> None:
    config = tiny(train__decay_norms=False, train__norm_lr_scale=4)
    weights, norms = optimizer(build(config.model), config.train).param_groups
    assert all(p.ndim > 1 for p in weights["params"])
    assert all(p.ndim == 1 for p in norms["params"])
    assert (weights["weight_decay"], norms["weight_decay"], norms["scale"]) == (5e-4, 0.0, 4.0)


def test_matrices_of_one_shape_are_orthogonalised_together_to_the_same_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.randn(shape, generator=generator) for shape in ((8, 36), (16, 72), (8, 36), (40, 9), (16, 72))]
    for together, matrix in zip(by_shape(orthogonalised, matrices), matrices, strict=True):
        assert torch.allclose(together, orthogonalised(matrix), atol=1e-5)
        singular_values = torch.linalg.svdvals(together)
        assert 0.5 < singular_values.min() <= singular_values.max() < 1.4


def test_the_average_follows_the_tensors_that_the_network_keeps() -> None:
    model = build(tiny().model)
    average, values = Ema(model, 0.5), model.state_dict()
    kept = {name: value.clone() for name, value in values.items()}
    model.load_state_dict({name: value + 2 for name, value in kept.items()})
    average.set_share()
    average.update()
    weight = 1 - 2 / 11
    for name, value in average.average.items():
        expected = torch.lerp(kept[name], kept[name] + 2, weight) if value.is_floating_point() else kept[name] + 2
        assert torch.equal(value, expected)
