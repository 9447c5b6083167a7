"""The figures that people reuse, each from the committed records, as SVG in light and in dark, with a page of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.special import entr

from tpsnet_lib import metrics, stats
from tpsnet_lib.analysis import architecture, cost, search, training
from tpsnet_lib.analysis.final_runs import Final, leading, rank_records, validated
from tpsnet_lib.analysis.training import seed_groups
from tpsnet_lib.claims import judge
from tpsnet_lib.config import MEMBERS
from tpsnet_lib.data import cifar10, datasets, reference_labels
from tpsnet_lib.files import write_whole
from tpsnet_lib.plots import answer, network_drawing, parallel_coordinates, style
from tpsnet_lib.plots import architecture as architecture_plots
from tpsnet_lib.plots import errors as error_plots
from tpsnet_lib.plots import search as search_plots
from tpsnet_lib.plots import training as training_plots
from tpsnet_lib.report import first_screen
from tpsnet_lib.report.pictures import darkened, slim_svg
from tpsnet_lib.runs.experiments import collect, load_experiment
from tpsnet_lib.runs.records import Record, Store
from tpsnet_lib.runs.test_set import find_test

SOURCES = 6  # record ids under a figure of `README.md`


@dataclass(frozen=True)
class Predictions:
    """What the network under test says of the test images: logits float32 [N, 10], labels int64 [N]."""

    record: Record
    logits: Tensor
    labels: Tensor

    @property
    def correct(self) -> Tensor:
        """Whether each prediction is right, bool [N]."""
        return self.logits.argmax(1) == self.labels

    @property
    def confidence(self) -> Tensor:
        """The largest probability of each image, as trained, [N]."""
        return self.logits.softmax(1).amax(1)

    @property
    def scaled(self) -> Tensor:
        """The probabilities with a temperature, [N, 10]: each half of the images has that of the other half."""
        even = torch.arange(len(self.labels)) % 2 == 0
        of_even, of_odd = (metrics.temperature(self.logits[part], self.labels[part]) for part in (even, ~even))
        return (self.logits / torch.where(even, of_odd, of_even)[:, None]).softmax(1)


# From the records alone -----------------------------------------------------------------------------------------------


def _claims(store: Store) -> Figure:
    rows = [row for row in judge.judge_claims(store) if row.n and row.smallest_effect and "points" in row.difference]
    records = {record.id: record for row in rows for record in row.records}
    tests = [(row.sentence, row.verdict, row.estimate) for row in rows]
    parameters, steps = map(max, zip(*(row.largest_run for row in rows), strict=True))
    budget = f"In networks of up to {parameters:,} parameters and runs of up to {steps:,} steps"
    return answer.claims(tests, budget, list(records.values()))


def _parallel(store: Store) -> Figure:
    views = {"Blocks and width": ["depth", "width"], "The recipe too": ["lr", "optimizer", "depth", "width"]}
    return parallel_coordinates.parallel(search.recorded_trials("search_classroom", store), views)


def _best_of_n(store: Store) -> Figure:
    trials = search.recorded_trials("search_classroom", store)
    scores = search.accuracies(trials)
    orders = np.random.default_rng(0).permuted(np.tile(np.arange(len(scores)), (500, 1)), axis=1)
    return search_plots.best_of_n(trials, np.maximum.accumulate(scores[orders], axis=1))


def _ablation(store: Store) -> Figure:
    pairs = collect(load_experiment("ablation"), store)
    return training_plots.ablation(training.ablation(pairs))


def _seeds(store: Store) -> Figure:
    finals = first_screen.opened_recipes(store)
    groups = seed_groups(finals)
    counted = {final.name: final.counted for final in finals if final.name in groups}
    better, worse = (cost.published_model(name)["accuracy"] for name in ("Model 2", "Model 1"))
    return training_plots.seeds(groups, better - worse, counted)


def _variables(store: Store) -> Figure:
    variables = architecture.design_variables(store)
    del variables["skips"], variables[architecture.EQUAL_MACS]
    return architecture_plots.design_variables(variables)


def _described(store: Store) -> Final:
    """The recipe that the page describes."""
    return leading(first_screen.opened_recipes(store))[0]


def _curve(store: Store) -> Figure:
    record = _described(store).with_curve
    return training_plots.learning_curves(record, validated(record))


FROM_RECORDS: dict[str, Callable[[Store], Figure]] = {
    "accuracy": lambda store: first_screen.frontier(first_screen.opened_recipes(store)),
    "tpsnet": lambda _: network_drawing.draw_network(MEMBERS["tpsnet"]),
    "winner": lambda store: network_drawing.draw_network(_described(store).run.model),
    "block": lambda _: network_drawing.draw_block(MEMBERS["tpsnet"]),
    "claims": _claims,
    "design_variables": _variables,
    "parallel_coordinates": _parallel,
    "best_of_n": _best_of_n,
    "ablation": _ablation,
    "learning_curve": _curve,
    "seeds": _seeds,
}

# From the records and the labels of the test images -------------------------------------------------------------------


def _confusion(ours: Predictions) -> Figure:
    counts = torch.bincount(10 * ours.labels + ours.logits.argmax(1), minlength=100).view(10, 10)
    return error_plots.confusion_matrix(counts, datasets.class_names("cifar10"), ours.record)


def _calibration(ours: Predictions) -> Figure:
    confidences = {"as trained": ours.confidence, "with a temperature": ours.scaled.amax(1)}
    bins = {name: _reliability(confidence, ours.correct) for name, confidence in confidences.items()}
    surest_first = ours.correct[ours.confidence.argsort(descending=True)].double()
    risks = {
        part: 1 - surest_first[: round(part * len(surest_first))].mean().item() for part in np.linspace(0.05, 1, 20)
    }
    return error_plots.reliability(bins, risks, ours.record)


def _reliability(confidence: Tensor, correct: Tensor, bins: int = 15) -> pd.DataFrame:
    """A row a bin of equal counts: its mean confidence, and its accuracy as an estimate."""
    parts = confidence.argsort(stable=True).tensor_split(bins)
    right = [stats.proportion(int(correct[part].sum()), len(part)) for part in parts]
    return pd.DataFrame({"confidence": [confidence[part].mean().item() for part in parts], "accuracy": right})


def _published(ours: Predictions, others: reference_labels.Published) -> Figure:
    hits = dict(zip(others.names, others.original == ours.labels, strict=True))
    pairs = {name: stats.paired_proportions(ours.correct, theirs) for name, theirs in hits.items()}
    verdicts = stats.holm({name: (pair, stats.SMALLEST_EFFECT) for name, pair in pairs.items()})
    n = len(ours.labels)
    rows = [(error_plots.OURS, stats.proportion(int(ours.correct.sum()), n), error_plots.OURS)]
    rows += [(name, stats.proportion(int(hit.sum()), n), verdicts[name].verdict) for name, hit in hits.items()]
    return error_plots.published_models(pd.DataFrame(rows, columns=["name", "accuracy", "verdict"]), ours.record)


def _people(ours: Predictions, people: Tensor) -> Figure:
    """By how many people agree with the label: the error, and the entropy of votes and probabilities."""
    votes = people.double() / people.sum(1, keepdim=True)
    agree = votes.gather(1, ours.labels[:, None])[:, 0]
    spread = {"network": entr(ours.scaled.double()).sum(1), "people": entr(votes).sum(1)}
    rows = []
    for name, low, high in (("all", 1, 2), ("over 95%", 0.95, 1), ("over 80%", 0.8, 0.95), ("fewer", 0, 0.8)):
        part = (agree >= low) & (agree < high)
        error = stats.proportion(int((part & ~ours.correct).sum()), int(part.sum()))
        means = {who: stats.mean(each[part].tolist(), of="images") for who, each in spread.items()}
        rows.append({"agreement": name, "error": error, **means})
    return error_plots.people(pd.DataFrame(rows), ours.record)


WITH_LABELS: dict[str, Callable[[Predictions], Figure]] = {"confusion": _confusion, "calibration": _calibration}


def predictions(store: Store) -> Predictions | None:
    """Those of the network that chapter 5 takes apart; None without CIFAR-10 on this machine, or without a record."""
    root = cifar10.find_root()
    ranked = rank_records(store, "cifar10")
    test = find_test(ranked[0], store) if root is not None and ranked else None
    return None if test is None else Predictions(ranked[0], test.logits, datasets.load_test("cifar10", root).labels)


def draw(store: Store) -> dict[str, Figure]:
    """Every figure that this machine can draw, by name; those of predictions need CIFAR-10, and the published models
    what `tpsnet data reference` names."""
    np.random.seed(0)  # noqa: NPY002 - seaborn draws from it where it moves points apart
    drawn = {name: make(store) for name, make in FROM_RECORDS.items()}
    if (ours := predictions(store)) is not None:
        drawn |= {name: make(ours) for name, make in WITH_LABELS.items()}
        others = reference_labels.load_reference(reference_labels.find_reference(), "cifar10")
        if others.published is not None:
            drawn["published_models"] = _published(ours, others.published)
        if others.people is not None:
            drawn["people"] = _people(ours, others.people)
    return drawn


def write(folder: Path, store: Store) -> list[Path]:
    """Draw the figures and write each as `NAME.svg` and `NAME-dark.svg`, and `README.md`, which shows them; returns the
    paths. What this machine cannot draw stays as it is, in the folder and in its `README.md`."""
    paths = []
    known = _entries(folder / "README.md")
    for name, figure in draw(store).items():
        slim = slim_svg(style.svg(figure))
        for end, text in (("", slim), ("-dark", darkened(slim))):
            paths.append(folder / f"{name}{end}.svg")
            write_whole(paths[-1], text)
        known[name] = _entry(name, style.description(figure))
    write_whole(folder / "README.md", HEAD + "".join(known.values()))
    return [*paths, folder / "README.md"]


HEAD = """# Figures for slides

Made by `tpsnet figures` from the committed records; each is there in light and in dark. MIT licence, as the project:
reuse them with the names of the project and of the record. Votes and predictions of others keep their own licences,
which `tpsnet data reference` names.
"""


def _entries(path: Path) -> dict[str, str]:
    """The parts of a `README.md` by the name of their figure."""
    if not path.is_file():
        return {}
    parts = path.read_text("utf-8").split("\n## ")[1:]
    return {part.splitlines()[0]: f"\n## {part.rstrip()}\n" for part in parts}


def _entry(name: str, about: style.Description) -> str:
    more = f" and {len(about.records) - SOURCES} more" if len(about.records) > SOURCES else ""
    records = f" Records: {_codes(about.records[:SOURCES])}{more}." if about.records else ""
    return (
        f'\n## {name}\n\n<picture><source media="(prefers-color-scheme: dark)" srcset="{name}-dark.svg">'
        f'<img alt="{about.alt}" src="{name}.svg"></picture>\n\n{about.caption} {about.provenance}{records}\n'
    )


def _codes(ids: Sequence[str]) -> str:
    return ", ".join(f"`{each}`" for each in ids)
