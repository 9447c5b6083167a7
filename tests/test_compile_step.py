"""A step is the same step however it is executed, goes on under any execution, and waits for no device."""

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny
from operation_counter import OperationCounter

from tpsnet_lib import compile_step, train
from tpsnet_lib.checkpoint import read_checkpoint
from tpsnet_lib.cli import main, parser
from tpsnet_lib.config import MEMBERS, RECIPES, RunConfig
from tpsnet_lib.data import batches
from tpsnet_lib.data.datasets import fit_and_validation
from tpsnet_lib.errors import Interrupted, TrainingError
from tpsnet_lib.old_words import NEW_WORDS
from tpsnet_lib.train_state import TrainState

CPU = torch.device("cpu")
SMALL = tiny(model__blocks=[1], model__channels=[4], model__block_dropout=0.0)
has_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in ("g++", "clang++")), reason="torch.compile needs a C++ compiler on a CPU"
)


def fit(config: RunConfig, execution: str, **changes: Any) -> TrainState:
    options = train.TrainOptions(CPU, execution, progress="none", **changes)
    return train.fit(config, *fit_and_validation(config.data), options)


def largest_difference(a: TrainState, b: TrainState) -> float:
    left, right = a.model.state_dict(), b.model.state_dict()
    assert left.keys() == right.keys()
    return max((left[name].double() - right[name].double()).abs().max().item() for name in left)


@pytest.mark.slow
@has_compiler
def test_a_compiled_run_learns_the_same_and_resumes_compiled_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager, whole = fit(SMALL, "eager"), fit(SMALL, "compiled")
    assert (eager.execution, whole.execution) == ("eager", "compiled")
    assert 0 < largest_difference(eager, whole) < 1e-2  # the same sums in another order, not the same code
    count = TrainState.count

    def count_then_stop(state: TrainState, *figures: torch.Tensor) -> None:
        count(state, *figures)
        if state.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    checkpoint = tmp_path / "checkpoint"
    monkeypatch.setattr(TrainState, "count", count_then_stop)
    with pytest.raises(Interrupted, match="step 3 of 8"):
        fit(SMALL, "compiled", checkpoint=checkpoint)
    monkeypatch.undo()
    assert read_checkpoint(checkpoint, SMALL)["model"].keys() == eager.model.state_dict().keys()
    kept = checkpoint.read_bytes()
    assert largest_difference(whole, fit(SMALL, "compiled", checkpoint=checkpoint, resume=True)) == 0
    checkpoint.write_bytes(kept)
    assert largest_difference(whole, fit(SMALL, "eager", checkpoint=checkpoint, resume=True)) < 1e-2


def test_what_cannot_be_compiled_runs_eager_as_if_nothing_had_been_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(function: Any, **_: Any) -> Any:
        def halfway(*inputs: Any) -> Any:
            function(*inputs)  # running statistics and dropout's draws have moved
            raise RuntimeError("no kernel\nfor this")

        return halfway

    monkeypatch.setattr(torch, "compile", breaks)
    config = tiny(train__small_epochs=1, train__small_size=16)
    tried = fit(config, "compiled")
    assert tried.execution == "eager"
    said = "tpsnet: the step cannot be compiled, so it runs eager (RuntimeError: no kernel for this)\n"
    assert capsys.readouterr().err == said
    assert largest_difference(tried, fit(config, "eager")) == 0


def test_memory_that_is_short_is_no_failure_of_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "compile", lambda function, **_: full)
    with pytest.raises(torch.OutOfMemoryError):
        fit(SMALL, "compiled")


def test_long_runs_on_cuda_are_compiled_where_nobody_says() -> None:
    cuda, long = torch.device("cuda"), compile_step.STEPS_THAT_PAY
    assert compile_step.resolve_execution("auto", cuda, long) == "captured-compiled"
    assert compile_step.resolve_execution("auto", cuda, long - 1) == "captured"
    assert compile_step.resolve_execution("auto", cuda, 10) == "eager"
    assert compile_step.resolve_execution("auto", CPU, long) == "eager"
    assert compile_step.resolve_execution("graphs", CPU, 1) == "captured"
    with pytest.raises(TrainingError, match="execution fast: choose one of auto, eager"):
        compile_step.resolve_execution("fast", CPU, 1)


def ahead(*call: Any, **_: Any) -> Iterator[Any]:
    """`batches` as on a GPU."""
    return batches.batches(*call, epoch_ahead=True)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.slow
def test_an_epoch_augmented_ahead_trains_the_same_and_its_steps_wait_for_nothing(
    recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where a number that goes to or comes from the device makes Python wait for it."""
    monkeypatch.setattr(batches, "AUGMENTED_TOGETHER", 70)
    monkeypatch.setattr(TrainState, "require_finite", lambda state: None)
    short = {
        "epochs": 2.0,
        "batch_size": 50,
        "precision": "fp32",
        "small_epochs": min(1.0, RECIPES[recipe].small_epochs),
    }
    config = replace(tiny(), train=replace(RECIPES[recipe], **short, mix_off_epochs=0.5))
    options = train.TrainOptions(CPU, progress="none")
    as_they_go = train.fit(config, *fit_and_validation(config.data), options)

    monkeypatch.setattr(train, "batches", ahead)
    run = train.training_steps(config, fit_and_validation(config.data)[0], None, options)
    for step in range(as_they_go.steps):
        with OperationCounter() as counter:
            state = next(run)
        assert not counter.waits or step % as_they_go.epoch_steps == 0
    assert next(run, None) is None
    for value, other in zip(*(each.model.state_dict().values() for each in (as_they_go, state)), strict=True):
        assert torch.equal(value, other)


def test_what_would_wait_is_seen() -> None:
    values = torch.arange(4)
    for wait in (
        lambda: int(values[0]),
        lambda: values[values > 1],
        values.nonzero,
        lambda: torch.tensor([1, 2]),
    ):
        with OperationCounter() as counter:
            wait()
        assert len(counter.waits) == 1


@pytest.mark.parametrize(
    ("member", "recipe", "operations"),
    [("wide", "long", 740), ("two_cores", "two_cores", 470), ("tpsnet", "original", 870)],
)
def test_how_many_operations_an_eager_step_has(
    member: str, recipe: str, operations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each costs a GPU's processor some 5 microseconds, so a change that adds to them is seen here."""
    short = replace(RECIPES[recipe], batch_size=2, precision="bf16", small_epochs=0.0, stem_epochs=0.0)
    config = replace(tiny(data__train_size=20), model=MEMBERS[member], train=short)
    monkeypatch.setattr(train, "batches", ahead)
    monkeypatch.setattr(TrainState, "require_finite", lambda state: None)
    run = train.training_steps(config, fit_and_validation(config.data)[0], None, train.TrainOptions(CPU, "plain"))
    next(run), next(run)
    with OperationCounter() as counter:
        next(run)
    assert operations - 20 <= counter.operations.total() <= operations
    assert not counter.waits


@pytest.mark.parametrize(("flag", "word"), NEW_WORDS["train"].items())
def test_a_flag_of_earlier_versions_still_works(flag: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = main._in_words_of_today(["train", flag])
    assert f"--execution={parser.command_line().parse_args(arguments).execution}" == word
    assert capsys.readouterr().err == f"tpsnet: {flag} is called {word} now\n"


def test_the_command_line_offers_every_execution() -> None:
    assert set(parser.EXECUTIONS) == {"auto", *compile_step.EXECUTIONS}
