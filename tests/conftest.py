"""Small runs on built-in images, so that a test takes a second and needs no data."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from forks import use_forks

from tpsnet_lib.config import RunConfig
from tpsnet_lib.config_parsing import merged, parse
from tpsnet_lib.runs.load_or_run import load_or_run
from tpsnet_lib.runs.records import Record, Store
from tpsnet_lib.train import TrainOptions

if os.environ.get("TPSNET_DATA"):
    os.environ["TPSNET_DATA"] = str(Path(os.environ["TPSNET_DATA"]).resolve())  # tests change the folder they work in

QUIET = TrainOptions("cpu", progress="none")  # training on the CPU without lines of progress

TINY = {
    "model": {"blocks": [1, 1], "channels": [4, 8], "stem": 4, "block_dropout": 0.1},
    "train": {"epochs": 2, "batch_size": 50, "lr": 0.05, "precision": "fp32"},
    "data": {"dataset": "shapes10", "train_size": 200, "validation_size": 100},
}


def tiny(**changes: object) -> RunConfig:
    """A config that trains in a second; `changes` are dotted names with `__` for the dot."""
    return parse(merged(TINY, {name.replace("__", "."): value for name, value in changes.items()}))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start


@pytest.fixture(scope="session", autouse=True)
def _workers_are_forks(_one_thread: None) -> None:
    use_forks()


@pytest.fixture(autouse=True)
def _figures_closed() -> Iterator[None]:
    yield
    if (pyplot := sys.modules.get("matplotlib.pyplot")) is not None:
        pyplot.close("all")


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store that holds one finished tiny run with weights; tests only read it."""
    store = Store(tmp_path_factory.mktemp("store"))
    load_or_run(tiny(), QUIET, store=store, keep_weights=True)
    return store


@pytest.fixture(scope="session")
def tiny_record(tiny_store: Store) -> Record:
    """The finished tiny run."""
    return tiny_store.load(tiny().id)


@pytest.fixture
def record_copy(tiny_record: Record, tmp_path: Path) -> Path:
    """A copy of the tiny record's folder, to be damaged."""
    import shutil

    return Path(shutil.copytree(tiny_record.path, tmp_path / "copy" / tiny_record.id))
