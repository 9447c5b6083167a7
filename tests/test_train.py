"""The loop learns, stops when asked, goes on where it stopped, and says what went wrong."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import tiny
from safetensors.torch import load_file

from tpsnet_lib import train
from tpsnet_lib.config import RunConfig
from tpsnet_lib.data.datasets import fit_and_validation
from tpsnet_lib.device import resolve_device
from tpsnet_lib.files import Interrupted, RecordError, TrainingError
from tpsnet_lib.optim import optimizer, schedule

CPU = torch.device("cpu")


def fit(config: RunConfig, **options: object) -> train.Fitted:
    fit_set, validation = fit_and_validation(config.data)
    return train.fit(config, fit_set, validation, device=CPU, progress="none", **options)  # type: ignore[arg-type]


def same(a: train.Fitted, b: train.Fitted) -> bool:
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
    ],
)
def test_a_run_stopped_anywhere_ends_in_the_weights_of_the_uninterrupted_one(
    recipe: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(**{f"train__{name}": value for name, value in recipe.items()})
    whole = fit(config)
    take_step = train.TrainingRun.take_step

    def step_then_stop(run: train.TrainingRun) -> None:
        take_step(run)
        if run.step in (3, 6):
            signal_to_self()

    def signal_to_self() -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(train.TrainingRun, "take_step", step_then_stop)
    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(Interrupted, match="step 3 of 8"):
        fit(config, checkpoint=checkpoint)
    with pytest.raises(Interrupted, match="step 6 of 8"):
        fit(config, checkpoint=checkpoint, resume=True)
    resumed = fit(config, checkpoint=checkpoint, resume=True)
    assert same(whole, resumed)
    keys = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
    assert [[row[k] for k in keys] for row in whole.history] == [[row[k] for k in keys] for row in resumed.history]


def test_a_run_killed_in_the_middle_of_an_epoch_resumes_to_the_same_weights(tmp_path: Path) -> None:
    settings = [f"--set={text}" for text in (
        "data.dataset=shapes10", "data.train_size=400", "data.validation_size=100", "train.epochs=4",
        "train.batch_size=20", "train.precision=fp32", "model.blocks=[1,1]", "model.channels=[4,8]", "model.stem=4",
    )]  # fmt: skip
    code = """
import os, sys
from tpsnet_lib import train
from tpsnet_lib.cli import main
train.CHECKPOINT_SECONDS, dies_at = 0, int(sys.argv.pop(1))
take_step = train.TrainingRun.take_step
def step(run):
    take_step(run)
    if run.step == dies_at:
        os.kill(os.getpid(), 9)
train.TrainingRun.take_step = step
sys.exit(main.main(sys.argv[1:]))
"""

    def start(store: Path, *more: str, dies_at: int = 0) -> subprocess.Popen[bytes]:
        call = [sys.executable, "-c", code, str(dies_at), "train", *settings, "--device", "cpu", "--out", str(store)]
        return subprocess.Popen([*call, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    whole = start(tmp_path / "whole")
    killed = start(tmp_path / "a b ü", dies_at=30)  # a path with a space and another alphabet; epoch 2 ends at step 40
    killed.communicate(timeout=120)
    assert killed.returncode == -9
    assert len(list((tmp_path / "a b ü" / ".work").glob("*/checkpoint"))) == 1
    refused = start(tmp_path / "a b ü")  # without --resume nothing is overwritten
    assert b"give --resume to go on" in refused.communicate(timeout=120)[1]
    assert refused.returncode == 1
    resumed = start(tmp_path / "a b ü", "--resume")
    resumed.communicate(timeout=120)
    assert resumed.returncode == 0
    whole.communicate(timeout=120)
    first, second = (next((tmp_path / name).glob("*/weights.safetensors")) for name in ("whole", "a b ü"))
    weights, others = load_file(first), load_file(second)
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert weights.keys() == others.keys()


def test_a_loss_that_is_not_a_number_names_the_step_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", 0.0)
    config = tiny(train__epochs=3)
    take_step = train.TrainingRun.take_step

    def spoil(run: train.TrainingRun) -> None:
        if run.step == 6:
            run.model.head.bias.data.fill_(float("nan"))
        take_step(run)

    monkeypatch.setattr(train.TrainingRun, "take_step", spoil)
    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(TrainingError, match=r"not a number at step 7 of 12 \(epoch 2\): lower train.lr"):
        fit(config, checkpoint=checkpoint)
    assert train.read_checkpoint(checkpoint, config)["step"] == 4


def test_a_torn_checkpoint_and_one_of_another_network_are_refused(tmp_path: Path) -> None:
    config = tiny()
    fit_set, validation = fit_and_validation(config.data)
    run = train.TrainingRun(config, fit_set, validation, CPU)
    path = tmp_path / "checkpoint"
    train.write_checkpoint(path, run.state())
    with pytest.raises(RecordError, match=f"belongs to run {config.id}"):
        train.read_checkpoint(path, tiny(model__channels=[4, 12]))
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(RecordError, match="is torn"):
        train.read_checkpoint(path, config)


def test_a_device_that_is_not_there_is_named() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(TrainingError, match="--device cuda: this machine has no cuda"):
            resolve_device("cuda")
    with pytest.raises(TrainingError, match="choose one of"):
        resolve_device("tpu")


def test_an_epoch_sees_each_image_once_and_whole_batches_only() -> None:
    config = tiny(data__train_size=110, train__epochs=1)
    fit_set, validation = fit_and_validation(config.data)
    seen: list[int] = []

    run = train.TrainingRun(config, fit_set, validation, CPU)
    while run.step < run.steps:
        run.take_step()
        seen += run.order[(run.step - 1) * 50 : run.step * 50].tolist()
    assert run.steps == 2
    assert len(seen) == len(set(seen)) == 100
    assert ", validation " in run.end_epoch()


def test_accuracy_on_images_that_were_fitted_is_not_called_validation() -> None:
    images, _ = fit_and_validation(tiny().data)
    run = train.TrainingRun(tiny(train__epochs=1, data__fit_on="all"), images, images, CPU)
    run.take_step()
    said = run.end_epoch()
    assert ", images fitted too " in said
    assert "validation" not in said


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
    run = train.TrainingRun(config, *fit_and_validation(config.data), CPU)
    weights, norms = optimizer(run.model, config.train).param_groups
    assert all(p.ndim > 1 for p in weights["params"])
    assert all(p.ndim == 1 for p in norms["params"])
    assert (weights["weight_decay"], norms["weight_decay"], norms["scale"]) == (5e-4, 0.0, 4.0)
