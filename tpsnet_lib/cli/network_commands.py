"""What `describe`, `data` and `train` do: one network and its data. Results go to standard output."""

import contextlib
import json
import sys
from argparse import Namespace as Options
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tpsnet_lib.config import MEMBERS, PARAMETER_BUDGET, ModelConfig, RunConfig
from tpsnet_lib.config_parsing import assignment, merged, parse
from tpsnet_lib.errors import ConfigError, warn
from tpsnet_lib.model_cost import check_budget, count_macs, count_parameters, layer_costs, training_flops
from tpsnet_lib.old_words import current_word
from tpsnet_lib.plain_yaml import read_yaml
from tpsnet_lib.progress import duration
from tpsnet_lib.runs.records import default_store, in_percent
from tpsnet_lib.runs.wandb_mirror import Mirror


def describe(options: Options) -> int:
    """Print a network's layers and costs; over the budget it is an error, after they are printed."""
    model = _described(options)
    if options.draw:
        from tpsnet_lib.plots.network_drawing import save_drawing

        print(f"drawn: {save_drawing(model, options.draw)}", file=sys.stderr)
    print(json.dumps(_costs(model)) if options.json else _cost_table(model))
    check_budget(model)
    return 0


def _described(options: Options) -> ModelConfig:
    """A member < the options for its sizes < --set."""
    sizes = {name: value for name in ("pool", "stem") if (value := getattr(options, name)) is not None}
    for name in ("blocks", "channels", "kernels", "skip_kernels"):
        if (values := getattr(options, name)) is not None:
            sizes[name] = [item for text in values for item in text.strip("[]").split(",") if item]
    member = current_word("name", options.name or "tpsnet", MEMBERS)
    if member not in MEMBERS:
        raise ConfigError(f"no member is called {member!r}: known are {', '.join(MEMBERS)}")
    return parse(merged({"model": member}, {"model": sizes}, *(dict([assignment(s)]) for s in options.set))).model


def _costs(model: ModelConfig) -> dict[str, Any]:
    layers = [{**asdict(row), "shape": list(row.shape)} for row in layer_costs(model)]
    parameters = count_parameters(model)
    return {
        "parameters": parameters,
        "macs": count_macs(model),
        "budget": PARAMETER_BUDGET,
        "within_budget": parameters <= PARAMETER_BUDGET,
        "layers": layers,
        "model": asdict(model),
    }


def _cost_table(model: ModelConfig) -> str:
    lines = [f"{'layer':10}{'what':46}{'output':>14}{'parameters':>14}{'MACs':>16}"]
    for row in layer_costs(model):
        shape = " x ".join(map(str, row.shape))
        lines.append(f"{row.name:10}{row.kind:46}{shape:>14}{row.parameters:14,}{row.macs:16,}")
    parameters = count_parameters(model)
    spare = PARAMETER_BUDGET - parameters
    room = f"{spare:,} left of {PARAMETER_BUDGET:,}" if spare >= 0 else f"{-spare:,} over {PARAMETER_BUDGET:,}"
    return "\n".join([*lines, f"{'total':10}{room:46}{'':14}{parameters:14,}{count_macs(model):16,}"])


def data(options: Options) -> int:
    """Print what data there is, or download it or the reference files of its test images."""
    from tpsnet_lib.data import cifar10, datasets, own

    if options.verb == "download":
        root = Path(options.data or "data")
        if options.dataset == "cifar10":
            print(cifar10.download(root, [*options.mirror, *cifar10.archive_urls()]))
        else:
            print(own.download(options.dataset, root))
        return 0
    if options.verb == "reference":
        return _reference(options)
    if options.data and own.is_class_folder(options.data):
        name = own.name_of(options.data)
        print(f"{name} in {options.data}: {', '.join(datasets.fingerprint(name, options.data).classes)}")
        return 0
    if options.dataset != "cifar10":
        print(f"{datasets.fingerprint(options.dataset, options.data).stamp} in {options.data or 'data'}")
        return 0
    fingerprint = datasets.fingerprint("cifar10", options.data)
    print(f"{fingerprint.stamp} in {cifar10.find_root(options.data)}, training images {fingerprint.sha256[:12]}")
    return 0


def _reference(options: Options) -> int:
    """Bring the reference files into the folder that is found already, else into one in the data's."""
    from tpsnet_lib.data import reference_labels
    from tpsnet_lib.data.cifar10 import find_root

    root = find_root(options.data) or Path(options.data or "data")
    folder = reference_labels.find_reference(data=root) or root / "reference"
    for path, fetched in reference_labels.download(folder, options.mirror).items():
        print(f"{path} ({'fetched' if fetched else 'was there'}): {reference_labels.SOURCES[path.name]}")
    if not (folder / reference_labels.PUBLISHED).is_file():
        print(reference_labels.GATHERED)
    return 0


def _config(options: Options) -> RunConfig:
    """Default < a folder of one's own as --data < file < --set."""
    trees: list[dict[str, Any]] = []
    if options.data:
        from tpsnet_lib.data import own

        if own.is_class_folder(options.data):
            trees.append({"data": own.name_of(options.data)})
    if options.config:
        trees.append(read_yaml(Path(options.config)))
    trees += [dict([assignment(text)]) for text in options.set]
    try:
        return parse(merged(*trees))
    except ConfigError as error:
        raise ConfigError(f"{options.config}: {error}" if options.config else str(error)) from error


def train(options: Options) -> int:
    """Train one network, or read its record where it has been trained before."""
    config = _config(options)

    from tpsnet_lib import stats
    from tpsnet_lib.data.datasets import image_counts
    from tpsnet_lib.device import native_precision, resolve_device
    from tpsnet_lib.runs.load_or_run import load_or_run
    from tpsnet_lib.train import TrainOptions

    check_budget(config.model)
    config = config.with_precision(native_precision(resolve_device(options.device)))
    label = Path(options.config).stem if options.config else config.id
    store = default_store(options.out)
    if store.find(config.id) is None and (warning := _length_of(config, options)):
        warn(warning)
    with Mirror(options.wandb) as mirror:
        training = TrainOptions(
            options.device,
            options.execution,
            resume=options.resume,
            on_epoch=lambda row: mirror.epoch(config, "train", label, row),
        )
        record = load_or_run(
            config,
            training,
            store=store,
            root=options.data,
            keep_weights=True,
            on_wait=lambda who: print(f"{who} trains this very run: waiting for its record", file=sys.stderr),
        )
        mirror.record(record, "train", label)
    if options.json:
        print(json.dumps({"record": str(record.path), "id": record.id, "stamp": record.stamp, **record.metrics}))
        return 0
    figures = record.metrics
    if (accuracy := record.validation_accuracy) is None:
        reached = f"fitted on all images, training accuracy {100 * figures['train_accuracy']:.2f}%"
    else:
        _, n = image_counts(record.config.data, options.data)
        interval = f"95% interval {stats.proportion(round(accuracy * n), n):%.2 interval}, {n:,} images"
        reached = f"validation accuracy {in_percent(record)} ({interval})"
    print(
        f"{reached} on {record.stamp} after {figures['epochs']:.4g} epochs,"
        f" {figures['parameters']:,} parameters, {duration(figures['seconds'])} on {record.hardware}\n{record.path}"
    )
    return 0


LONG = 600  # seconds
SLOWEST = 2e9  # FLOP/s: no processor is so slow, so what ends within `LONG` at this speed need not be measured
SHARE = {"cpu": 0.4, "cuda": 0.25}  # of the speed of matrix products that training reaches


def _length_of(config: RunConfig, options: Options) -> str:
    """How many steps a run has and how long they take here, by its operations, and how to shorten it; empty if it is
    not `LONG`."""
    from tpsnet_lib.data.batches import run_steps
    from tpsnet_lib.data.datasets import fit_and_validation
    from tpsnet_lib.device import matrix_peak, resolve_device

    device, recipe = resolve_device(options.device), config.train
    fitted = len(fit_and_validation(config.data, options.data)[0])
    if (operations := _operations(config, fitted)) < LONG * SLOWEST:
        return ""
    speed = SHARE.get(device.type, 0.25) * matrix_peak(device, recipe.precision)
    if operations / speed < LONG:
        return ""
    epochs = max(1, int(recipe.epochs * LONG * speed / operations))
    shorter = []
    for fields in ([f"train.epochs={epochs}"], ["data.train_size=5000"], ["model=classroom", "train=sprint"]):
        with contextlib.suppress(ConfigError):  # where one does not go with what was given
            other = _config(Options(**{**vars(options), "set": [*options.set, *fields]}))
            images = min(fitted, other.data.train_size or fitted)
            if (fewer := _operations(other, images)) < operations:
                cost = f"{run_steps(other.train, images):,} steps, about {_roughly(fewer / speed)}"
                shorter.append(f"{' '.join(f'--set {field}' for field in fields)} ({cost})")
    return (
        f"{recipe.epochs:g} epoch{'s' if recipe.epochs != 1 else ''}, {run_steps(recipe, fitted):,} steps,"
        f" take about {_roughly(operations / speed)} here."
        f" Shorter: {'; '.join(shorter) or 'a smaller network, such as --set model=classroom'}"
    )


def _operations(config: RunConfig, fitted: int) -> float:
    """Floating-point operations of a run that fits so many images."""
    return training_flops(config, config.train.epochs * config.train.copies * fitted)


def _roughly(seconds: float) -> str:
    """An estimated duration; of many hours the whole ones."""
    return duration(seconds) if seconds < 36_000 else f"{seconds / 3600:,.0f} h"
