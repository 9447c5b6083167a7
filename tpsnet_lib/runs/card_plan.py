"""What half an hour of a card is spent on, with the minutes of every part predicted from its operations.

Choices are tried held out, the best of them on validation images is declared final and trained for the minutes that are
left; later half hours go on with the queue. `card` carries a plan out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tpsnet_lib.analysis.cost import FLOPS_PER_MAC, run_flops
from tpsnet_lib.config import RunConfig, merged, parse
from tpsnet_lib.files import TpsnetError
from tpsnet_lib.runs.experiments import Experiment, collect, load_experiment
from tpsnet_lib.runs.records import Record, Store, held_out

PEAK = 700e12  # FLOP/s of bf16 matrix products, until it is measured: an H100 or H200 gave 677 to 798
SHARE = 0.25  # of it that training reaches, until that is measured
BENCH_MINUTES, PACK_MINUTES = 1.0, 0.5
CHOICE_MINUTES = 8.0  # of choices and members together, at most
CHOICE_SHARE = 0.3  # of the whole time, where that is less
MARGIN = 0.85  # of the minutes left that the declared run is planned for: what it takes longer is lost
RECIPES_TRIED = {
    "TrivialAugment": "card_trivial",
    "CutMix": "card_cutmix",
    "TrivialAugment and CutMix": "card_both",
    "cutout and TrivialAugment": "card_cutout_trivial",
}


@dataclass(frozen=True)
class Scale:
    """How much a plan asks: the network of its choices, the members beside it, the images, the most epochs of a choice
    and of the declared run, and the queue: experiments with the number of their runs that go side by side."""

    prefix: str = "card"  # of the names of its experiments
    model: Mapping[str, Any] = field(default_factory=lambda: {"member": "wide", "drop_path": 0.0})
    members: Mapping[str, Any] = field(default_factory=lambda: {name: name for name in ("broad", "resnet20x4")})
    train: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    choice_epochs: int = 60
    most_epochs: int = 1920
    seeds: tuple[int, ...] = (0, 1, 2)
    queue: Mapping[str, int] = field(
        default_factory=lambda: {
            "card_long": 1,
            "card_distilled": 3,
            "reproduction": 3,
            "reproduction_models": 2,
            "table1_matched": 3,
            "table1_unmatched": 3,
            "search_original_9": 3,
            "search_original_30": 3,
            "card_long_split": 1,
            "best_split": 3,
            "best_choices": 3,
            "best_long": 3,
        }
    )


_SMALL = {"blocks": [1, 1], "stem": 4}
SCALES = {
    "full": Scale(),
    "smoke": Scale(  # the whole plan in some minutes of a CPU, on drawn images
        prefix="card_smoke",
        model={**_SMALL, "channels": [4, 8]},
        members={"broad": {**_SMALL, "channels": [8, 8]}, "resnet20x4": {**_SMALL, "channels": [4, 12]}},
        train={"batch_size": 50, "precision": "fp32"},
        data={"dataset": "shapes10", "train_size": 200, "validation_size": 100},
        choice_epochs=2,
        most_epochs=3,
        queue={},
    ),
}


def predicted_minutes(configs: Sequence[RunConfig], speed: float) -> float:
    """Minutes of runs that share a card which computes `speed` floating-point operations a second for all of them."""
    return sum(map(run_flops, configs)) / speed / 60


def epochs_in(minutes: float, configs: Sequence[RunConfig], speed: float, most: int) -> int:
    """The epochs, at least 1 and at most `most`, that each of these runs gets if they share so many minutes."""
    return max(1, min(most, math.floor(minutes / predicted_minutes([lasting(c, 1.0) for c in configs], speed))))


def lasting(config: RunConfig, epochs: float) -> RunConfig:
    """The same run at another length, annealed to its end."""
    return replace(config, train=config.train.shortened(epochs))


def choices(scale: Scale, precision: str, minutes: float, speed: float) -> dict[str, RunConfig]:
    """The recipes that are tried with one network, by label, and as long as there is time for them and `members`."""
    given = {f"train.{name}": value for name, value in scale.train.items()}
    base = {"model": scale.model, "data": scale.data}
    tried = {name: parse(merged({**base, "train": recipe}, given)) for name, recipe in RECIPES_TRIED.items()}
    alike = [next(iter(tried.values()))] * (1 + len(scale.members))  # ASAM and the members compute as much as a choice
    room = min(CHOICE_MINUTES, CHOICE_SHARE * minutes)
    epochs = epochs_in(room, [*tried.values(), *alike], speed, scale.choice_epochs)
    return {name: lasting(config, epochs).with_precision(precision) for name, config in tried.items()}


def members(scale: Scale, label: str, best: RunConfig) -> dict[str, RunConfig]:
    """What is tried on the best recipe, called `label`: ASAM, and other members, each for as many operations."""
    models = {name: parse({"model": model}).model for name, model in scale.members.items()}
    tried = {"ASAM": replace(best, train=replace(best.train, asam=2.0))}
    tried |= {name: replace(best, model=model) for name, model in models.items()}
    share = {name: run_flops(best) / run_flops(config) for name, config in tried.items()}
    return {
        f"{name}, {label}": lasting(config, max(1, round(best.train.epochs * share[name])))
        for name, config in tried.items()
    }


def best(scale: Scale, chosen: RunConfig, minutes: float, speed: float) -> RunConfig:
    """The chosen recipe fitted on all images, for as long as its seeds and one held-out run have time together."""
    whole = replace(chosen, data=replace(chosen.data, fit_on="all"))
    return lasting(whole, epochs_in(MARGIN * minutes, [whole] * len(scale.seeds) + [chosen], speed, scale.most_epochs))


def winner(experiments: Sequence[Experiment], store: Store) -> tuple[str, Record]:
    """The label and record with the highest accuracy on validation images that were kept out; the first of equals.

    Raises `TpsnetError` where no run could be finished."""
    tried = [(run.label, record) for each in experiments for run, record in collect(each, store)]
    finished = [(label, record) for label, record in tried if record is not None and not record.failed]
    if not finished:
        raise TpsnetError("no choice could be finished, so none can be declared: `tpsnet records list` says why")
    return max(finished, key=lambda pair: held_out(pair[1]) or 0.0)


def declaration(
    question: str, runs: Mapping[str, RunConfig], minutes: float, seeds: Sequence[int] = (0,), final: bool = False
) -> str:
    """The YAML of an experiment, its runs written out whole, so that each stays what it is."""
    head = {"question": question, "needs": "gpu", "priority": 9, "minutes": round(minutes, 1), "seeds": list(seeds)}
    rows = [json.dumps({"label": label, **config.with_seed(0).to_dict()}) for label, config in runs.items()]
    lines = [f"{key}: {json.dumps(value)}" for key, value in (head | {"final": final}).items()]
    return "\n".join([*lines, "runs:", *(f"  - {row}" for row in rows), ""])


# What is said of it before --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A part of a plan: runs that share the card, their epochs, 10^9 multiply-accumulates times epochs of one, and the
    minutes of all."""

    name: str
    runs: int
    epochs: float
    work: float
    minutes: float

    @classmethod
    def of(cls, name: str, configs: Sequence[RunConfig], speed: float) -> Part:
        """The part of some runs; where they differ, epochs and work are the means."""
        work = [run_flops(config) / (FLOPS_PER_MAC * 50_000 * 1e9) for config in configs]
        epochs = sum(config.train.epochs for config in configs) / len(configs)
        return cls(name, len(configs), epochs, sum(work) / len(work), predicted_minutes(configs, speed))


def predicted(scale: Scale, minutes: float, speed: float) -> list[Part]:
    """The parts of so many minutes, then the queue, in order. The declared recipe is not known before: the parts
    `best` are those of each member, of which one is run."""
    tried = choices(scale, "bf16", minutes, speed)
    label, first = next(iter(tried.items()))
    beside = members(scale, label, first)
    parts = [Part.of("choices", list(tried.values()), speed), Part.of("members", list(beside.values()), speed)]
    left = minutes - BENCH_MINUTES - PACK_MINUTES - sum(part.minutes for part in parts)
    for name, config in {label: first, **beside}.items():
        run = best(scale, config, left, speed)
        parts.append(Part.of(f"or best: {name}", [run] * (len(scale.seeds) + 1), speed))
    queued = [load_experiment(name) for name in scale.queue]
    return parts + [Part.of(each.name, [run.config for run in each.runs], speed) for each in queued]


def table(parts: Sequence[Part]) -> str:
    """Parts for people."""
    head = f"{'part':<42}{'runs':>5}{'epochs':>8}{'GMAC x epochs':>15}{'minutes':>9}"
    rows = [f"{p.name:<42}{p.runs:>5}{p.epochs:>8.0f}{p.work:>15.1f}{p.minutes:>9.1f}" for p in parts]
    return "\n".join([head, *rows])
