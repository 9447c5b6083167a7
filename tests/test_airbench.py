"""airbench95 is run as it is, on our split, and its table is read; here a script stands in that prints such a table."""

from pathlib import Path

import pytest
import torch
from conftest import tiny

from tpsnet_lib.benchmarks.airbench import bench_airbench, table
from tpsnet_lib.data.datasets import fit_and_validation
from tpsnet_lib.errors import TrainingError

SCRIPT = """
import torch
kept = {name: torch.load(f"cifar10/{name}.pt") for name in ("train", "test")}
assert kept["train"]["images"].shape == (200, 32, 32, 3) and kept["train"]["images"].dtype == torch.uint8
assert kept["test"]["images"].shape == (100, 32, 32, 3)
seen = kept["test"]["images"].double().mean().item()
print("|  run     |  epoch  |  train_loss  |  train_acc  |  val_acc  |  tta_val_acc  |  total_time_seconds  |")
for run in range(%d):
    print("|  %%6d  |      0  |      1.5000  |     0.5000  |   0.6000  |               |            1.0000  |" %% run)
    print("|          |      1  |      1.2000  |     0.7000  |   0.8000  |               |            2.0000  |")
    print("|          |   eval  |      1.2000  |     0.7000  |   0.8000  |       0.8100  |            2.1000  |")
    print("-" * 90)
    print(seen)
"""


@pytest.mark.slow
def test_both_sides_are_fitted_and_scored_on_the_same_images(tmp_path: Path) -> None:
    script = tmp_path / "airbench95.py"
    script.write_text(SCRIPT % 25)
    config = tiny(train__epochs=1)
    result = bench_airbench(script, torch.device("cpu"), 2, ours=config)
    assert result["airbench95"] == [{"six_views": 0.81, "accuracy": 0.8, "seconds": 2.1}] * 2
    assert len(result["ours"]) == 2
    assert "airbench95  80.00% in 2.10 s, mean of 2 runs" in table(result).splitlines()
    assert (result["fitted"], result["scored"]) == tuple(map(len, fit_and_validation(config.data)))
    script.write_text(SCRIPT % 1)
    with pytest.raises(TrainingError, match=r"airbench95\.py ended after 1 of 2 runs"):
        bench_airbench(script, torch.device("cpu"), 2, ours=config)
