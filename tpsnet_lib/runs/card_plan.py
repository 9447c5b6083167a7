"""What half an hour of a card is spent on, with the minutes of every part predicted from its operations.

Choices are tried held out, the best of them on validation images is declared final and trained for the minutes that are
left; later half hours go on with the queue. `card` carries a plan out."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tpsnet_lib.analysis.cost import FLOPS_PER_MAC, run_flops
from tpsnet_lib.config import RunConfig, merged, parse
from tpsnet_lib.files import TpsnetError, project_root
from tpsnet_lib.plain_yaml import read_yaml
from tpsnet_lib.runs.experiments import collect, load_experiment
from tpsnet_lib.runs.records import Record, Store, held_out

PEAK = 700e12  # FLOP/s of bf16 matrix products, until it is measured: an H100 or H200 gave 677 to 798
SHARE = 0.25  # of it that training reaches, until that is measured
PACK_MINUTES = 0.5
CHOICE_MINUTES = 8.0  # of choices and members together, at most
CHOICE_SHARE = 0.3  # of the whole time, where that is less
MARGIN = 0.85  # of the minutes left that the declared run is planned for: what it takes longer is lost
Row = Mapping[str, Any]  # of the queue: `workers` of an experiment, `options` and `minutes` of a bench
Part = dict[str, Any]  # `name`, `runs` (0: a bench), their mean `epochs`, `flops` and `predicted_minutes` of all


@dataclass(frozen=True)
class Scale:
    """How much a plan asks, as `report/card_plan.yaml` explains it."""

    prefix: str
    bench: Row
    recipes: Mapping[str, str]
    model: Mapping[str, Any]
    members: Mapping[str, Any]
    choice_epochs: int
    most_epochs: int
    seeds: Sequence[int]
    queue: Mapping[str, Row]
    train: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)


def load_scale(name: str) -> Scale:
    """A scale of `report/card_plan.yaml`: `full` or `smoke`."""
    return Scale(**read_yaml(project_root() / "report" / "card_plan.yaml")[name])


def predicted_minutes(configs: Sequence[RunConfig], speed: float) -> float:
    """Minutes of runs that share a card which computes `speed` floating-point operations a second for all of them."""
    return sum(map(run_flops, configs)) / speed / 60


def epochs_in(minutes: float, configs: Sequence[RunConfig], speed: float, most: int) -> int:
    """The epochs, at least 1 and at most `most`, that each of these runs gets if they share so many minutes."""
    return max(1, min(most, math.floor(minutes / predicted_minutes([c.shortened(1.0) for c in configs], speed))))


def choices(scale: Scale, precision: str, minutes: float, speed: float) -> dict[str, RunConfig]:
    """The recipes that are tried with one network, by label, and as long as there is time for them and `members`."""
    settings = {f"train.{name}": value for name, value in scale.train.items()}
    base = {"model": scale.model, "data": scale.data}
    tried = {name: parse(merged({**base, "train": recipe}, settings)) for name, recipe in scale.recipes.items()}
    alike = [next(iter(tried.values()))] * (1 + len(scale.members))  # ASAM and the members compute as much as a choice
    room = min(CHOICE_MINUTES, CHOICE_SHARE * minutes)
    epochs = epochs_in(room, [*tried.values(), *alike], speed, scale.choice_epochs)
    return {name: config.shortened(epochs).with_precision(precision) for name, config in tried.items()}


def members(scale: Scale, label: str, best: RunConfig) -> dict[str, RunConfig]:
    """What is tried on the best recipe, called `label`: ASAM, and other members, each for as many operations."""
    models = {name: parse({"model": model}).model for name, model in scale.members.items()}
    tried = {"ASAM": replace(best, train=replace(best.train, asam=2.0))}
    tried |= {name: replace(best, model=model) for name, model in models.items()}
    share = {name: run_flops(best) / run_flops(config) for name, config in tried.items()}
    return {
        f"{name}, {label}": config.shortened(max(1, round(best.train.epochs * share[name])))
        for name, config in tried.items()
    }


def best(scale: Scale, chosen: RunConfig, minutes: float, speed: float) -> RunConfig:
    """The chosen recipe fitted on all images, for as long as its seeds and one held-out run have time together."""
    whole = replace(chosen, data=replace(chosen.data, fit_on="all"))
    runs = [whole] * len(scale.seeds) + [chosen]
    return whole.shortened(epochs_in(MARGIN * minutes, runs, speed, scale.most_epochs))


def winner(names: Sequence[str], store: Store) -> tuple[str, Record]:
    """The label and record, of experiments by their names, with the highest accuracy on validation images that were
    kept out; the first of equals.

    Raises `TpsnetError` where no run could be finished."""
    tried = [(run.label, record) for name in names for run, record in collect(name, store)]
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


def part_of(name: str, configs: Sequence[RunConfig], speed: float) -> Part:
    """The part of a plan that some runs are, which share the card."""
    return {
        "name": name,
        "runs": len(configs),
        "epochs": sum(config.train.epochs for config in configs) / len(configs),
        "flops": sum(map(run_flops, configs)),
        "predicted_minutes": predicted_minutes(configs, speed),
    }


def bench_part(name: str, row: Row) -> Part:
    """The part of a plan that a bench is, which takes the minutes that its row says."""
    return {"name": name, "runs": 0, "epochs": 0, "flops": 0, "predicted_minutes": row["minutes"]}


def predicted(scale: Scale, minutes: float, speed: float) -> list[Part]:
    """The parts of so many minutes, then the queue, in order. The declared recipe is not known before: the parts
    `best` are those of each member, of which one is run."""
    tried = choices(scale, "bf16", minutes, speed)
    label, first = next(iter(tried.items()))
    beside = members(scale, label, first)
    parts = [bench_part("bench card", scale.bench)]
    parts += [part_of("choices", list(tried.values()), speed), part_of("members", list(beside.values()), speed)]
    left = minutes - PACK_MINUTES - sum(part["predicted_minutes"] for part in parts)
    for name, config in {label: first, **beside}.items():
        runs = [best(scale, config, left, speed)] * (len(scale.seeds) + 1)
        parts.append(part_of(f"or best: {name}", runs, speed))
    for name, row in scale.queue.items():
        runs = [] if "minutes" in row else [run.config for run in load_experiment(name).runs]
        parts.append(part_of(name, runs, speed) if runs else bench_part(name, row))
    return parts


def table(parts: Sequence[Part]) -> str:
    """Parts for people: what was predicted, and beside it what was measured where a plan is being carried out."""
    lines = [f"{'part':<42}{'runs':>5}{'epochs':>8}{'GMAC x epochs':>15}{'predicted':>15}"]
    for part in parts:
        work = part["flops"] / max(1, part["runs"]) / (FLOPS_PER_MAC * 50_000 * 1e9)
        took = f"{part['minutes']:.1f} min" if part.get("finished") else "not finished" if "minutes" in part else ""
        figures = f"{part['runs']:>5}{part['epochs']:>8.0f}{work:>15.1f}{part['predicted_minutes']:>15.1f}"
        lines.append(f"{part['name']:<42}{figures}{took:>15}".rstrip())
    return "\n".join(lines)
