"""Ray Tune does what the local pool does, in the same store, and outlives its workers, its driver and its nodes."""

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import QUIET
from searching import (
    PATIENCE,
    alone,
    declare,
    in_training,
    kill_again_and_again,
    kill_holder,
    quiet,
    rates,
    start,
    table,
    until,
)

from tpsnet_lib.cli import main
from tpsnet_lib.errors import ConfigError
from tpsnet_lib.runs import local_backend
from tpsnet_lib.runs.experiments import pending
from tpsnet_lib.runs.records import Store
from tpsnet_lib.runs.search_results import Unfinished

pytest.importorskip("ray")
from ray.cluster_utils import Cluster

from tpsnet_lib.runs import ray_backend

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="finds the process to kill in /proc"),
]
SIX = {"runs": [*rates(5)["runs"], {"train.lr": 100, "train.weight_decay": 1, "train.epochs": 8}]}


def on_ray(store: Store, **more: Any) -> ray_backend.RayOptions:
    return ray_backend.RayOptions(store, training=QUIET, **more)


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """Ray with two workers, for the tests of this module that need no driver of their own."""
    with ray_backend.connected(None, 2):
        yield


def test_ray_and_the_local_pool_go_on_where_the_other_stopped_and_measure_the_same(
    ray_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, undisturbed = declare(tmp_path / "six.yaml", **SIX), Store(tmp_path / "undisturbed")
    alone(experiment, undisturbed)
    broken: list[object] = []
    for name in ("on_trial_recover", "on_trial_error"):
        monkeypatch.setattr(ray_backend._Ends, name, lambda *_, **given: broken.append(given), raising=False)
    store, told = Store(tmp_path / "store"), list[str]()
    first = local_backend.run_all(pending([experiment], store)[:1], quiet(store))
    jobs = pending([experiment], store)[1:]  # the last of which diverges
    by_ray = ray_backend.run_all(jobs, on_ray(store, workers=2, on_record=lambda job, _: told.append(job.run.label)))
    assert sorted(told) == sorted(run.label for _, run in jobs)
    assert broken == []
    rest = local_backend.run_all(pending([experiment], store), quiet(store))
    assert (len(first), len(by_ray), len(rest)) == (1, 4, 1)
    assert table(experiment, store) == table(experiment, undisturbed)
    assert [record.failed.split(" at ")[0] for record in by_ray if record.failed] == ["the loss is not a number"]


def test_a_killed_worker_costs_no_run(ray_here: None, tmp_path: Path) -> None:
    experiment, store = declare(tmp_path / "e.yaml", **rates(3, **{"train.epochs": 8})), Store(tmp_path / "store")
    harm: list[bool] = []

    def hurt() -> None:
        until(lambda: any(kill_holder(lock) for lock in in_training(store)), "a run in training whose worker dies")
        harm.append(True)

    threading.Thread(target=hurt).start()
    records = ray_backend.run_all(pending([experiment], store), on_ray(store, workers=2))
    assert harm == [True]
    assert len(records) == len(table(experiment, store)) == 3


@pytest.mark.skipif("TPSNET_SLOW" not in os.environ, reason="takes minutes: set TPSNET_SLOW=1")
def test_asha_keeps_a_record_of_every_rung_and_stops_some(ray_here: None, tmp_path: Path) -> None:
    learns = {"train.epochs": 9, "train.batch_size": 10}
    runs = [{"train.lr": lr, **learns} for lr in (0.05, 0.04, 1e-6, 2e-6, 3e-6, 4e-6)]  # two learn, four cannot
    base = {"data.train_size": 400}
    experiment = declare(tmp_path / "e.yaml", runs=[{**run, **base} for run in runs])
    store = Store(tmp_path / "store")
    jobs = pending([experiment], store)
    last = ray_backend.run_all(jobs, on_ray(store, workers=1, asha=True))
    assert len(last) == 6
    reached = {
        run.label: [store.find(config.id) is not None for config in on_ray(store, asha=True).runs(run.config)]
        for _, run in jobs
    }
    assert all(rungs in ([True] * 3, [True, True, False], [True, False, False]) for rungs in reached.values())
    assert 1 <= sum(rungs[-1] for rungs in reached.values()) < 6
    assert len(store.all()) == sum(sum(rungs) for rungs in reached.values())


def test_a_rung_is_annealed_to_its_own_length(tmp_path: Path) -> None:
    given = {"train.epochs": 10, "train.schedule_epochs": 300, "train.warmup_epochs": 2, "train.mix_off_epochs": 1}
    (run,) = declare(tmp_path / "e.yaml", **rates(1, **given)).runs
    found = [config.train for config in ray_backend.RayOptions(asha=True).runs(run.config)]
    assert [(rung.epochs, rung.warmup_epochs, rung.mix_off_epochs) for rung in found] == [
        (1, 0.2, 0.1), (3, 0.6, 0.3), (9, 1.8, 0.9), (10, 2, 1)
    ]  # fmt: skip
    assert [rung.schedule_epochs for rung in found] == [0, 0, 0, 300]  # the last is the run that was asked for


def test_a_trial_that_cannot_be_trained_is_given_up_with_its_last_error(
    ray_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_backend, "RETRIES", 1)
    experiment, store = declare(tmp_path / "e.yaml", **rates(1)), Store(tmp_path / "store")
    store.writable.mkdir()
    (store.writable / ".locks").touch()  # where a folder is needed
    with pytest.raises(Unfinished, match=r"1 runs could not be .*: 2 attempts ended with FileExistsError: .*\.locks"):
        ray_backend.run_all(pending([experiment], store), on_ray(store))
    assert len(pending([experiment], store)) == 1


def test_more_gpus_than_there_are_is_said_at_once(ray_here: None, tmp_path: Path) -> None:
    experiment, store = declare(tmp_path / "e.yaml", **rates(1)), Store(tmp_path / "store")
    with pytest.raises(ConfigError, match=r"--gpus-per-run is 64: Ray has"):
        ray_backend.run_all(pending([experiment], store), on_ray(store, gpus_per_run=64))


@pytest.mark.skipif("TPSNET_SLOW" not in os.environ, reason="takes minutes: set TPSNET_SLOW=1")
def test_a_search_whose_driver_is_killed_at_random_moments_ends_in_the_same_table(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, "--backend", "ray")


@pytest.mark.skipif("TPSNET_SLOW" not in os.environ, reason="takes minutes: set TPSNET_SLOW=1")
def test_a_cluster_that_loses_a_node_finishes_the_search(tmp_path: Path) -> None:
    path, store = tmp_path / "e.yaml", Store(tmp_path / "store")
    experiment = declare(path, **rates(4, **{"train.epochs": 20}))
    amounts = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**amounts, "include_dashboard": False})
    try:
        other = cluster.add_node(**amounts)
        search = start(path, store, "--backend", "ray", "--address", cluster.address)
        until(lambda: len(in_training(store)) == 2 or search.poll() is not None, "a run in training on each node")
        assert search.poll() is None
        cluster.remove_node(other, allow_graceful=False)
        said = search.communicate(timeout=PATIENCE)
        assert search.returncode == 0, said
        assert len(table(experiment, store)) == 4
        assert b"4 runs recorded" in said[0]
    finally:
        cluster.shutdown()


def test_asha_without_ray_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    declare(tmp_path / "e.yaml", **rates(1))
    assert main.main(["run", str(tmp_path / "e.yaml"), "--out", str(tmp_path / "store"), "--asha"]) == 1
    assert capsys.readouterr().err == "tpsnet: --asha is for Ray: add --backend ray\n"


def test_an_address_where_no_cluster_answers_is_one_line_at_once() -> None:
    for address in ("localhost:1", "localhost:port"):
        with (
            pytest.raises(ConfigError, match=f"--address {address}: no Ray cluster answers"),
            ray_backend.connected(address, 1),
        ):
            pytest.fail("connected to nothing")
