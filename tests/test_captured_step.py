"""A step that is recorded and replayed is the step of the loop: its weights, its draws, its figures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny
from operation_counter import OperationCounter
from recorded_graph import install

from tpsnet_lib import captured_step, optim, train
from tpsnet_lib import config as config_module
from tpsnet_lib.captured_step import WARM_UP_STEPS
from tpsnet_lib.checkpoint import write_checkpoint
from tpsnet_lib.config import RunConfig
from tpsnet_lib.data.datasets import fit_and_validation
from tpsnet_lib.device import native_precision
from tpsnet_lib.model import build
from tpsnet_lib.train_state import TrainState

pytestmark = pytest.mark.slow  # a step is recorded and played on the CPU, as on a card

CPU = torch.device("cpu")
NATIVE = native_precision(CPU)  # bf16 where the processor has it
RECIPES: dict[str, dict[str, Any]] = {
    "sgd, clipped": {"optimizer": "sgd", "nesterov": True, "schedule": "onecycle", "clip_norm": 0.5},
    "adam": {"optimizer": "adam", "lr": 0.001, "clip_norm": 1.0},
    "adamw": {"optimizer": "adamw", "lr": 0.001, "warmup_epochs": 0.5},
    "distillation": {"teacher": ["0" * 12, "1" * 12], "teacher_share": 0.7, "cutmix": 1.0, "precision": NATIVE},
    "muon, small images, frozen stem": {
        "optimizer": "muon", "momentum": 0.6, "small_epochs": 1.5, "small_size": 16, "stem_epochs": 3,
    },
    "mixing of each image": {"cutmix": 1.0, "mixup": 0.2, "mix_off_epochs": 1.5, "label_smoothing": 0.1},
    "mixing of a batch": {"cutmix": 1.0, "mixup": 0.2, "mix_per": "batch", "mix_probability": 0.5, "copies": 2},
    "average": {"ema_decay": 0.9},
    "ASAM": {"asam": 1.0},
}  # fmt: skip


def run(config: RunConfig, execution: str, **changes: Any) -> tuple[TrainState, list[dict[str, torch.Tensor]]]:
    """A run's state at its end, and the network's tensors after every step but the last."""
    torch.manual_seed(0)
    teachers = [build(config.model).eval() for _ in config.train.teacher]
    options = train.TrainOptions(CPU, execution, progress="none", teachers=teachers, **changes)
    steps = []
    for state in train.training_steps(config, *fit_and_validation(config.data), options):
        steps.append({name: value.clone() for name, value in state.model.state_dict().items()})
    return state, steps[:-1]


def config_of(recipe: dict[str, Any], **changes: Any) -> RunConfig:
    given = {"epochs": 4, "batch_size": 40, **recipe}
    model = {"dropout": 0.2, "block_dropout": 0.1, "drop_path": 0.2, "stem_kind": "whiten", "stem": 24}
    return tiny(
        **{f"train__{name}": value for name, value in given.items()},
        **{f"model__{name}": value for name, value in model.items()},
        **changes,
    )


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_captured_run_has_the_weights_of_the_loop_bit_for_bit(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = install(monkeypatch)
    config = config_of(RECIPES[recipe])
    eager, expected = run(config, "eager")
    captured, steps = run(config, "captured")
    assert (eager.execution, captured.execution) == ("eager", "captured")
    for step, (here, there) in enumerate(zip(steps, expected, strict=True), 1):
        assert all(torch.equal(here[name], there[name]) for name in there), f"step {step} of {captured.steps}"
    assert sum(graph.replays for graph in graphs.all) == captured.steps - WARM_UP_STEPS * len(graphs.all)
    figures = [name for name in eager.history[0] if name != "seconds"]
    for row, other in zip(captured.history[:-1], eager.history[:-1], strict=True):
        for name in figures:  # the average is moved in three operations, not in one
            assert row[name] == (pytest.approx(other[name], abs=1e-4) if config.train.ema_decay else other[name])
    for name, value in captured.model.state_dict().items():
        assert torch.allclose(value, eager.model.state_dict()[name], atol=1e-6)


def test_adamax_is_captured_in_its_own_form_for_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It divides by its bias correction in another order then, in fp32: the loop's weights but for rounding."""
    graphs = install(monkeypatch)
    config = config_of({"optimizer": "adamax", "lr": 0.002})
    _, expected = run(config, "eager")
    _, steps = run(config, "captured")
    assert [graph.replays for graph in graphs.all] == [20 - WARM_UP_STEPS]
    monkeypatch.setattr(captured_step, "WARM_UP_STEPS", 100)
    _, as_python_has_it = run(config, "captured")
    for here, same, there in zip(steps, as_python_has_it, expected, strict=True):
        assert all(torch.equal(here[name], same[name]) for name in here)
        assert all(torch.allclose(here[name].float(), there[name].float(), rtol=1e-3, atol=1e-4) for name in here)


def test_a_number_that_a_recording_has_taken_from_python_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    config = config_of({"schedule": "linear"})
    _, expected = run(config, "eager")
    optimizer = optim.optimizer
    monkeypatch.setattr(optim, "optimizer", lambda model, recipe, captured: optimizer(model, recipe))
    _, steps = run(config, "captured")
    same = [
        all(torch.equal(here[name], there[name]) for name in there) for here, there in zip(steps, expected, strict=True)
    ]
    assert same.index(False) == WARM_UP_STEPS + 1  # what is replayed first is the step that was recorded


def test_a_captured_run_that_is_stopped_ends_in_the_same_weights_captured_or_eager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    config = config_of(RECIPES["mixing of each image"] | {"optimizer": "adamw", "lr": 0.001})
    _, expected = run(config, "eager")
    for execution in ("captured", "eager"):
        path = tmp_path / execution
        states = train.training_steps(config, *fit_and_validation(config.data), options(checkpoint=path))
        for _ in range(8):  # in the middle of an epoch, from a graph that is replayed
            state = next(states)
        write_checkpoint(path, state)
        _, steps = run(config, execution, checkpoint=path, resume=True)
        for here, there in zip(steps, expected[8:], strict=True):
            assert all(torch.equal(here[name], there[name]) for name in there)


def options(**changes: Any) -> train.TrainOptions:
    return train.TrainOptions(CPU, "captured", progress="none", **changes)


def test_what_cannot_be_captured_runs_on_as_if_nothing_had_been_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of({"optimizer": "adam", "lr": 0.001, "ema_decay": 0.0})
    _, expected = run(config, "plain")
    said = "tpsnet: the step cannot be captured, so it runs as Python has it ({})\n"
    monkeypatch.setattr(train, "optimize", lambda *_: None)
    state, steps = run(config, "captured")  # a CPU
    assert (capsys.readouterr().err, state.execution) == (said.format("device cpu records nothing"), "eager")
    assert torch.equal(steps[-1]["head.weight"], expected[-1]["head.weight"])

    graphs = install(monkeypatch)
    add = TrainState.add_figures

    def asks(state: TrainState, loss: torch.Tensor, *figures: torch.Tensor) -> None:
        loss.item()
        add(state, loss, *figures)

    monkeypatch.setattr(TrainState, "add_figures", asks)
    state, steps = run(config, "captured")
    reason = "RuntimeError: aten._local_scalar_dense.default: operation not permitted when stream is capturing"
    assert (capsys.readouterr().err, state.execution) == (said.format(reason), "eager")
    assert [graph.replays for graph in graphs.all] == [0]
    for here, there in zip(steps, expected, strict=True):
        assert all(torch.equal(here[name], there[name]) for name in there)


def test_each_phase_is_recorded_once_and_a_run_says_how_it_was_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = install(monkeypatch)
    config = config_of({"cutmix": 1.0, "mix_off_epochs": 1, "small_epochs": 1, "small_size": 16, "stem_epochs": 2})
    state, _ = run(config, "graphs")  # its name in earlier versions
    assert (state.execution, state.steps) == ("captured", 20)
    assert [graph.replays for graph in graphs.all] == [2, 2, 2, 2]  # of 5 steps each


@pytest.mark.parametrize(
    ("member", "recipe"), [("wide", "long"), ("two_cores", "two_cores"), ("tpsnet", "original"), ("wide", "stacked")]
)
def test_outside_a_captured_step_there_is_next_to_nothing_to_do(
    member: str, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a graph a step has some 740 operations (`wide`), 460 (`two_cores`), 870 (TPSNet)."""
    install(monkeypatch)
    monkeypatch.setattr(TrainState, "require_finite", lambda state: None)  # as on CUDA
    short = replace(config_module.RECIPES[recipe], batch_size=2, precision=NATIVE, small_epochs=0.0, stem_epochs=0.0)
    config = replace(tiny(data__train_size=20), model=config_module.MEMBERS[member], train=short)
    states = train.training_steps(config, fit_and_validation(config.data)[0], None, options())
    for _ in range(WARM_UP_STEPS + 2):
        next(states)
    with OperationCounter() as counter:
        next(states)
    assert counter.operations.total() <= 8
    assert not counter.waits
