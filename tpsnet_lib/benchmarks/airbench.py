"""airbench95 as its author publishes it, beside our `two_cores` recipe: the same images, on one machine, in turn."""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tpsnet_lib import metrics
from tpsnet_lib.config import MEMBERS, RECIPES, DataConfig, RunConfig
from tpsnet_lib.data.datasets import ImageSet, class_names, fit_and_validation
from tpsnet_lib.device import native_precision
from tpsnet_lib.errors import TrainingError
from tpsnet_lib.files import sha256_of
from tpsnet_lib.runs.provenance import hardware
from tpsnet_lib.train import TrainOptions, fit

OURS = RunConfig(MEMBERS["two_cores"], RECIPES["two_cores"])


def bench_airbench(
    script: Path, device: torch.device, runs: int = 10, root: str | Path | None = None, ours: RunConfig | None = None
) -> dict[str, Any]:
    """Accuracy and seconds of `runs` runs of each side, fitted on the same images and scored on the same validation
    images: the script (KellerJordan/cifar10-airbench, airbench95.py, unmodified; its accuracies are those of its six
    views of an image, and of its one) and our recipe (default: `two_cores`, one view of an image).

    What the script takes for the test set are validation images. Raises `TrainingError` if it ends before its runs."""
    config = (ours or OURS).with_precision(native_precision(device))
    fit_set, validation = fit_and_validation(config.data, root)
    with tempfile.TemporaryDirectory() as folder:
        _write_images(Path(folder) / "cifar10", fit_set, validation, config.data)
        theirs = list(_script_runs(script.resolve(), folder, runs))
    mine = []
    for seed in range(runs):
        state = fit(replace(config, seed=seed), fit_set, validation, TrainOptions(device, progress="none"))
        assert state.validation_logits is not None
        accuracy = metrics.accuracy(state.validation_logits, validation.labels.cpu())
        mine.append({"accuracy": accuracy, "seconds": state.seconds})
    origin = {"hardware": hardware(device), "data": fit_set.stamp, "fitted": len(fit_set), "scored": len(validation)}
    return {**origin, "script": sha256_of(script), "airbench95": theirs, "ours": mine, "config": config.to_dict()}


def _write_images(folder: Path, fit_set: ImageSet, validation: ImageSet, data: DataConfig) -> None:
    """The images as the script keeps them, so that it downloads none."""
    folder.mkdir()
    for name, part in (("train", fit_set), ("test", validation)):
        images = part.images.permute(0, 2, 3, 1).contiguous().cpu()
        content = {"images": images, "labels": part.labels.cpu(), "classes": list(class_names(data.dataset))}
        torch.save(content, folder / f"{name}.pt")


def _script_runs(script: Path, folder: str, runs: int) -> Iterator[dict[str, float]]:
    """The first runs of the script, read from the rows of its table; then it is ended."""
    call = [sys.executable, "-u", str(script)]
    with subprocess.Popen(call, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        done, one_view = 0, 0.0
        for line in process.stdout:
            cells = [cell.strip() for cell in line.split("|")[1:-1]]
            if len(cells) == 7 and cells[1].isdigit():
                one_view = float(cells[4])
            if len(cells) == 7 and cells[1] == "eval":
                done += 1
                yield {"six_views": float(cells[5]), "accuracy": one_view, "seconds": float(cells[6])}
                if done == runs:
                    process.kill()
                    break
    if done < runs:
        raise TrainingError(f"{script.name} ended after {done} of {runs} runs: its own lines on standard error say why")


def table(result: dict[str, Any]) -> str:
    """A result for people: means over the runs of each side."""
    lines = [
        f"bench airbench: fitted on {result['fitted']:,} images, scored on {result['scored']:,} of {result['data']}"
    ]
    for side in ("airbench95", "ours"):
        accuracy, seconds = (statistics.mean(run[name] for run in result[side]) for name in ("accuracy", "seconds"))
        lines.append(f"{side:<12}{100 * accuracy:.2f}% in {seconds:.2f} s, mean of {len(result[side])} runs")
    return "\n".join([*lines, result["hardware"]])
