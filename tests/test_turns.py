"""Runs that take turns on a device end as they do alone, whatever befalls one of them."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny
from recorded_graph import install
from searching import alone as run_alone
from searching import declare, quiet, rates

from tpsnet_lib import train
from tpsnet_lib.checkpoint import Checkpoints, read_checkpoint
from tpsnet_lib.data.datasets import fit_and_validation
from tpsnet_lib.errors import Interrupted, TpsnetError
from tpsnet_lib.runs.experiments import Experiment, collect, pending
from tpsnet_lib.runs.local_backend import run_all
from tpsnet_lib.runs.records import Store
from tpsnet_lib.runs.round_robin import RoundRobin
from tpsnet_lib.train_state import TrainState

pytestmark = pytest.mark.slow  # a step is recorded and played on the CPU, as on a card

CPU = torch.device("cpu")
LONG = {"train.epochs": 6, "train.cutmix": 1.0, "train.mix_off_epochs": 2, "model.dropout": 0.3}


@pytest.mark.parametrize("execution", ["eager", "captured"])
def test_three_seeds_by_turns_end_in_the_weights_of_three_run_alone(
    execution: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = install(monkeypatch)
    config = tiny(
        train__cutmix=1.0, train__mix_off_epochs=0.5, train__ema_decay=0.9, model__dropout=0.3, model__drop_path=0.2
    )
    seeds = [config, config.with_seed(1), replace(config.with_seed(2), train=replace(config.train, epochs=1.6))]
    how = train.TrainOptions(CPU, execution, progress="none")
    alone = [train.fit(each, *fit_and_validation(each.data), how) for each in seeds]
    before = len(graphs.all)
    states: dict[int, TrainState] = {}

    def followed(number: int) -> Iterator[None]:
        for states[number] in train.training_steps(seeds[number], *fit_and_validation(config.data), how):  # noqa: B020
            yield

    with RoundRobin[None](CPU, 3) as seeds_in_turn:
        for number in range(3):
            seeds_in_turn.add(followed(number))  # type: ignore[arg-type]
        while seeds_in_turn.running:
            assert all(future.exception() is None for future in seeds_in_turn.step())
    for number, other in enumerate(alone):
        state, weights = states[number], other.model.state_dict()
        assert (state.config.seed, state.step) == (other.config.seed, other.steps)
        assert all(torch.equal(value, weights[name]) for name, value in state.model.state_dict().items())
    assert execution == "eager" or len({id(graph.state.value) for graph in graphs.all[before:] if graph.state}) == 3


def search(folder: Path, count: int = 4, **more: Any) -> tuple[Experiment, Store]:
    return declare(folder / "e.yaml", **rates(count, **LONG), weights=True, **more), Store(folder / "store")


def weights(experiment: Experiment, store: Store) -> dict[str, dict[str, torch.Tensor]]:
    return {
        run.label: record.load_model().state_dict()
        for run, record in collect(experiment, store)
        if record is not None and not record.failed
    }


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for label, state in expected.items():
        assert all(torch.equal(found[label][name], value) for name, value in state.items()), label


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    """What each run of `search` comes to in a process where nothing else runs and nothing is recorded."""
    experiment, store = search(tmp_path_factory.mktemp("alone"))
    run_alone(experiment, store, "plain")
    return weights(experiment, store)


def test_a_search_by_turns_that_is_stopped_and_gone_on_with_has_the_weights_of_its_runs_alone(
    tmp_path: Path, alone: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = install(monkeypatch)
    experiment, store = search(tmp_path)
    options = quiet(store, "captured", workers=3)
    count, steps = TrainState.count, 0

    def count_then_stop(state: TrainState) -> None:
        nonlocal steps
        count(state)
        steps += 1
        if steps == 20:  # the seventh turn, in which graphs are replayed
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(TrainState, "count", count_then_stop)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="stopped with 0 of 4 runs done; the same command goes on"):
        run_all(pending([experiment], store), options)
    assert (signal.getsignal(signal.SIGTERM), Checkpoints.active) == (before, [])
    begun = [run.config for run in experiment.runs[:3]]
    states = [read_checkpoint(store.checkpoint(config.id), config)["step"] for config in begun]
    assert states == [7, 7, 6]
    assert not list(store.writable.glob(".work/*/epochs"))
    monkeypatch.setattr(TrainState, "count", count)
    records = run_all(pending([experiment], store), options)
    assert [record.failed for record in records] == [""] * 4
    assert {record.provenance["execution"] for record in records} == {"captured"}
    assert sum(graph.replays for graph in graphs.all) == 20
    assert_same(weights(experiment, store), alone)


def test_a_run_that_finds_no_memory_beside_others_has_it_alone(
    tmp_path: Path, alone: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch)
    experiment, store = search(tmp_path)
    add, most = TrainState.add_figures, 0

    def add_where_there_is_room(state: TrainState, *figures: torch.Tensor) -> None:
        nonlocal most
        most = max(most, len(Checkpoints.active))
        if len(Checkpoints.active) == 3 and state.config.train.lr == 0.03:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")
        add(state, *figures)

    monkeypatch.setattr(TrainState, "add_figures", add_where_there_is_room)
    records = run_all(pending([experiment], store), quiet(store, progress="lines", workers=3))
    assert most == 3
    assert [record.failed for record in records] == [""] * 4
    said = "seed 0: out of memory: CUDA out of memory. Tried to allocate 2 GiB.; it is tried alone"
    assert said in capsys.readouterr().err
    assert_same(weights(experiment, store), alone)


def test_what_is_wrong_with_one_run_ends_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    experiment, store = search(tmp_path)
    add = TrainState.add_figures

    def add_or_fail(state: TrainState, *figures: torch.Tensor) -> None:
        if state.config.train.lr == 0.02:
            raise RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED")
        if state.config.train.lr == 0.03:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        add(state, *figures)

    monkeypatch.setattr(TrainState, "add_figures", add_or_fail)
    with pytest.raises(TpsnetError, match=r"1 runs could not .*lr=0.02.*: RuntimeError: cuDNN error: CUDNN_STATUS"):
        run_all(pending([experiment], store), quiet(store, workers=3))
    came_to = {run.config.train.lr: record for run, record in collect(experiment, store) if record is not None}
    assert {rate: record.failed for rate, record in came_to.items()} == {
        0.01: "",
        0.03: "out of memory: CUDA out of memory.",  # alone too
        0.04: "",
    }


def test_a_device_that_answers_no_more_ends_the_search_and_the_command_goes_on(
    tmp_path: Path, alone: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    experiment, store = search(tmp_path)
    add, steps = TrainState.add_figures, 0

    def lost(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def add_or_break(state: TrainState, *figures: torch.Tensor) -> None:
        nonlocal steps
        steps += 1
        if steps == 20:
            monkeypatch.setattr(torch.cuda, "synchronize", lost)
            lost()
        add(state, *figures)

    monkeypatch.setattr(TrainState, "add_figures", add_or_break)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        run_all(pending([experiment], store), quiet(store, workers=3))
    monkeypatch.setattr(TrainState, "add_figures", add)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    run_all(pending([experiment], store), quiet(store, workers=3))
    assert_same(weights(experiment, store), alone)
